//! Credential distribution: sign-in, certificates, tickets, machine certificates.
