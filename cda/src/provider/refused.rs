//! Why a client gets nothing, in OAuth's words.

use xos_api::cda::{OAuth, OAuthError, OAuthRefusal};
use xos_base::{Error, Kind};
use xos_net::Peer;

/// A refusal.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: OAuthError,
    pub(super) text: String,
}

impl Refused {
    pub(super) fn new(error: OAuthError, text: impl Into<String>) -> Refused {
        Refused { error, text: text.into() }
    }
}

/// A grant that does not stand any more, and none that ever was, are told alike.
pub(super) fn no_grant() -> Refused {
    Refused::new(
        OAuthError::InvalidGrant,
        "it is not known, is over, was used, or is another client's; begin again",
    )
}

impl From<Error> for Refused {
    fn from(e: Error) -> Refused {
        let error = match e.kind {
            Kind::Invalid | Kind::TooLarge => OAuthError::InvalidRequest,
            Kind::Denied | Kind::Unauthenticated | Kind::NotFound => OAuthError::InvalidGrant,
            Kind::Unavailable | Kind::Limited | Kind::Conflict => {
                OAuthError::TemporarilyUnavailable
            }
            Kind::Unsatisfiable | Kind::Unsupported | Kind::Internal => OAuthError::ServerError,
        };
        Refused::new(error, e.to_string())
    }
}

/// The answer, noted in the audit unless a client only asks whether a person is through.
pub(super) fn told<T>(
    what: &'static str,
    peer: Peer,
    client: &str,
    result: Result<T, Refused>,
) -> OAuth<T> {
    let waits =
        |r: &Refused| matches!(r.error, OAuthError::AuthorizationPending | OAuthError::SlowDown);
    if !result.as_ref().is_err_and(waits) {
        let noted = match &result {
            Ok(_) => Ok(()),
            Err(r) => Err(Error::denied(format!("{}: {}", r.error.as_str(), r.text))),
        };
        let who = peer.address.map_or_else(|| "a client".into(), |a| format!("a client at {a}"));
        crate::audit::note(what, &who, client, &noted, |_| String::new());
    }
    match result {
        Ok(answer) => OAuth::Granted(answer),
        Err(r) => {
            OAuth::Refused(OAuthRefusal { error: r.error, error_description: described(&r.text) })
        }
    }
}

/// The characters that may stand in `error_description` (RFC 6749, 5.2).
pub(super) fn described(text: &str) -> String {
    let plain = |c: char| match c {
        '"' => '\'',
        ' '..='~' if c != '\\' => c,
        _ => '?',
    };
    text.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a client could not read why, or a text of a stranger would end in its log.
    #[test]
    fn descriptions_are_plain_ascii() {
        assert_eq!(described("no \"x\"\n\\é"), "no 'x'???");
    }
}
