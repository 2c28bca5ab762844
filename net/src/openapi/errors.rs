//! The errors that every operation can answer.

use serde_json::{Value, json};
use xos_base::Kind;

/// A kind of error in the document.
pub(super) struct Said {
    /// The kind.
    pub(super) kind: Kind,
    /// Its name in the document.
    pub(super) name: &'static str,
    /// Who has to act.
    pub(super) what: &'static str,
}

const fn said(kind: Kind, name: &'static str, what: &'static str) -> Said {
    Said { kind, name, what }
}

/// Every kind, by status.
pub(super) const KINDS: [Said; 11] = [
    said(Kind::Invalid, "Invalid", "The request itself is wrong: change it."),
    said(Kind::Unauthenticated, "Unauthenticated", "Nobody proved who they are: sign in."),
    said(Kind::Denied, "Denied", "The caller is known and may not."),
    said(Kind::NotFound, "NotFound", "It does not exist, or the caller may not know that it does."),
    said(Kind::Conflict, "Conflict", "It exists already, or changed meanwhile: look again."),
    said(Kind::TooLarge, "TooLarge", "The request is larger than a stated limit."),
    said(Kind::Unsatisfiable, "Unsatisfiable", "No site can do it: ask for less, or elsewhere."),
    said(Kind::Limited, "Limited", "Too many requests: wait."),
    said(Kind::Internal, "Internal", "A fault of the core: its log says more."),
    said(Kind::Unsupported, "Unsupported", "This version does not do it."),
    said(Kind::Unavailable, "Unavailable", "A part that is needed does not answer now: try later."),
];

/// What only HTTP says: the name of the answer and what it means.
pub(super) fn status_only() -> [(&'static str, &'static str); 1] {
    [("UnsupportedMediaType", "The body is not said to be application/json.")]
}

/// An answer with an error in it.
pub(super) fn response(what: &str, error: &Value) -> Value {
    json!({ "description": what, "content": { "application/json": { "schema": error } } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// If it failed, the document would be silent about an answer that programs get.
    #[test]
    fn every_kind_is_there() {
        // What no longer compiles when a kind is added; then KINDS gets it too.
        let known = |kind: Kind| match kind {
            Kind::Invalid
            | Kind::Unauthenticated
            | Kind::Denied
            | Kind::NotFound
            | Kind::Conflict
            | Kind::TooLarge
            | Kind::Unsatisfiable
            | Kind::Limited
            | Kind::Internal
            | Kind::Unsupported
            | Kind::Unavailable => true,
        };
        assert!(KINDS.iter().all(|k| known(k.kind)));
        let statuses: BTreeSet<u16> = KINDS.iter().map(|k| k.kind.http_status()).collect();
        assert_eq!(statuses.len(), KINDS.len(), "two kinds have one status");
        let in_order = KINDS.windows(2).all(|k| k[0].kind.http_status() < k[1].kind.http_status());
        assert!(in_order, "they are sorted by status");
    }
}
