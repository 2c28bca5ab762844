//! Kerberos by the GSSAPI library of the machine (RFC 2743, RFC 2744): a thin, safe layer over that
//! of MIT Kerberos, always by SPNEGO (RFC 4178) and with Kerberos as the only mechanism.
//!
//! The library is loaded when it is first used, so that neither core nor tool needs Kerberos where
//! nobody signs in by it. Whom it asks for tickets, and which ticket cache is a person's, stands in
//! krb5.conf(5) and the environment, as for any program.

mod error;
#[allow(unsafe_code)]
mod ffi;

pub use error::GssError;
pub use ffi::{Accepted, Acceptor, Initiator};

/// The library: that of MIT Kerberos, under the name by which every Linux has it.
pub const LIBRARY: &str = "libgssapi_krb5.so.2";

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// If it failed, an administrator would not know what keeps the core from starting.
    #[test]
    fn what_keeps_a_service_from_its_keys_is_named() {
        let keytab = Path::new("/nonexistent/core.keytab");
        match Acceptor::new("HTTP@localhost", keytab) {
            Err(GssError::Library(why)) => println!("skipped: no {LIBRARY} here: {why}"),
            Err(e) => assert!(e.to_string().contains("/nonexistent/core.keytab"), "{e}"),
            Ok(_) => panic!("a keytab that is not there was used"),
        }
    }

    /// If it failed, a name in the configuration could be cut off, and stand for another one.
    #[test]
    fn texts_with_a_zero_byte_are_refused() {
        let keytab = Path::new("/nonexistent/core\0.keytab");
        match Acceptor::new("HTTP@localhost", keytab) {
            Err(GssError::Library(why)) => println!("skipped: no {LIBRARY} here: {why}"),
            result => assert!(matches!(result, Err(GssError::Text(_)))),
        }
    }
}
