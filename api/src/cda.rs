//! Requests of cda.
