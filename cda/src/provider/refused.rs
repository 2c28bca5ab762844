//! Why a client gets nothing, in OAuth's words.

use crate::Inner;
use crate::audit::Asker;
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

/// What changes and issues nothing: noted only when it is refused.
const LOOKS: [&str; 2] = ["get_user_info", "introspect_token"];

impl Inner {
    /// The answer to a client, noted unless the client only asks whether a person is through.
    ///
    /// # Errors
    /// [`Kind::Internal`] when it was done and could not be noted.
    pub(super) async fn told_client<T>(
        &self,
        what: &'static str,
        peer: Peer,
        client: &str,
        result: Result<T, Refused>,
    ) -> Result<OAuth<T>, Error> {
        let noted = match &result {
            Ok(_) => Some(Ok(())).filter(|_| !LOOKS.contains(&what)),
            Err(r) => match r.error {
                OAuthError::AuthorizationPending | OAuthError::SlowDown => None,
                _ => Some(Err(Error::denied(format!("{}: {}", r.error.as_str(), r.text)))),
            },
        };
        if let Some(noted) = noted {
            let mut event = peer.event(self.now(), what);
            event.on = client.to_owned();
            let done = noted.is_ok();
            let stored = self.told.end(event, noted).await;
            if done {
                stored?;
            }
        }
        Ok(match result {
            Ok(answer) => OAuth::Granted(answer),
            Err(r) => OAuth::Refused(OAuthRefusal {
                error: r.error,
                error_description: described(&r.text),
            }),
        })
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
