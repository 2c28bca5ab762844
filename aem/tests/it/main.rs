//! The service over real TLS between two sites; nodes, VO service and credential service are the
//! test's own.

mod one_site;
mod two_sites;
mod world;
