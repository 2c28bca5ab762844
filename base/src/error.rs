//! The one error that crosses the API: what kind it is, and the text for the person.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What went wrong, by who has to act. Each kind has one HTTP status and one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The request itself is wrong: the caller changes it.
    Invalid,
    /// Nobody proved who they are: the caller signs in (again).
    Unauthenticated,
    /// The caller is known and may not: somebody grants a right first.
    Denied,
    /// The thing named does not exist, or the caller may not know that it does.
    NotFound,
    /// It exists already, or changed meanwhile: the caller looks again.
    Conflict,
    /// The request is larger than a stated limit.
    TooLarge,
    /// Too many requests: the caller waits.
    Limited,
    /// No site can do what the request asks: the caller asks for less, or elsewhere.
    Unsatisfiable,
    /// A part that is needed does not answer now: the caller tries again later.
    Unavailable,
    /// What was asked for is not done by this version.
    Unsupported,
    /// A fault of ours: the site's administrator looks into the log.
    Internal,
}

impl Kind {
    /// The HTTP status of RFC 9110 (429: RFC 6585) that stands for this kind.
    pub fn http_status(self) -> u16 {
        match self {
            Kind::Invalid => 400,
            Kind::Unauthenticated => 401,
            Kind::Denied => 403,
            Kind::NotFound => 404,
            Kind::Conflict => 409,
            Kind::TooLarge => 413,
            Kind::Limited => 429,
            Kind::Unsatisfiable => 422,
            Kind::Unavailable => 503,
            Kind::Unsupported => 501,
            Kind::Internal => 500,
        }
    }

    /// The exit code of the `xos` tool, after BSD's sysexits.h where one fits.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Invalid => 64,
            Kind::TooLarge => 65,
            Kind::NotFound => 66,
            Kind::Unsatisfiable => 69,
            Kind::Internal => 70,
            Kind::Conflict => 73,
            Kind::Unavailable => 75,
            Kind::Limited => 75,
            Kind::Unsupported => 76,
            Kind::Denied => 77,
            Kind::Unauthenticated => 78,
        }
    }
}

/// An error as the caller gets it: kind, message, and what to do next.
///
/// The log has the rest; nothing secret stands here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Error {
    /// Who has to act.
    pub kind: Kind,
    /// What happened, to what. One sentence without a full stop.
    pub message: String,
    /// What the person can do next, when there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Error {
    /// An error of `kind` with its message.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), hint: None }
    }

    /// The same with what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }
}

macro_rules! shorthand {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {
        impl Error {
            $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Error {
                Error::new(Kind::$kind, message)
            })*
        }
    };
}

shorthand! {
    /// [`Kind::Invalid`].
    invalid => Invalid,
    /// [`Kind::Unauthenticated`].
    unauthenticated => Unauthenticated,
    /// [`Kind::Denied`].
    denied => Denied,
    /// [`Kind::NotFound`].
    not_found => NotFound,
    /// [`Kind::Conflict`].
    conflict => Conflict,
    /// [`Kind::TooLarge`].
    too_large => TooLarge,
    /// [`Kind::Limited`].
    limited => Limited,
    /// [`Kind::Unsatisfiable`].
    unsatisfiable => Unsatisfiable,
    /// [`Kind::Unavailable`].
    unavailable => Unavailable,
    /// [`Kind::Unsupported`].
    unsupported => Unsupported,
    /// [`Kind::Internal`].
    internal => Internal,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(h) = &self.hint {
            write!(f, "; {h}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<crate::ids::IdError> for Error {
    fn from(e: crate::ids::IdError) -> Error {
        Error::invalid(e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_and_hint_read_as_one_line() {
        let e = Error::not_found("no job 7.rennes").hint("xps lists your jobs");
        assert_eq!(e.to_string(), "no job 7.rennes; xps lists your jobs");
        let json = serde_json::to_string(&e).unwrap();
        assert_eq!(serde_json::from_str::<Error>(&json).unwrap(), e);
    }
}
