//! What can go wrong.

/// Why Kerberos did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum GssError {
    /// The library is missing, or another one than that of MIT Kerberos. Holds why.
    #[error("Kerberos' library libgssapi_krb5.so.2 cannot be used: {0}")]
    Library(String),
    /// A name or path that cannot be passed to the library.
    #[error("{0:?} cannot be passed to Kerberos")]
    Text(String),
    /// What the library says.
    #[error("{what}: {why}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// In the library's words.
        why: String,
    },
    /// The other side wants more than one token from each.
    #[error("more than one exchange is wanted")]
    MoreSteps,
    /// Whoever signed in is no principal of Kerberos, such as somebody anonymous.
    #[error("it is of no principal of Kerberos")]
    NoPrincipal,
    /// The service did not prove that it has its key.
    #[error("the service did not prove that it is the one that was asked for")]
    NotMutual,
}
