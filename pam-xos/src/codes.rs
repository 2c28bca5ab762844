//! PAM's return codes, and what the node's answers mean in them: one function for each phase.

use crate::seen::NotSeen;
use libc::c_int;
use xos_base::accounts::ID_RANGE;
use xos_base::local::{AuthStep, LocalError, LoginState, Opened};
use xos_base::{Kind, Millis};

/// What a person can do who met an `xosd` that does not answer as it should.
const ADVICE: &str = "try again later, or ask this machine's administrator to look after xosd";

/// A return code (`_pam_types.h` of Linux-PAM).
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// `PAM_SUCCESS`.
    Success = 0,
    /// `PAM_SYSTEM_ERR`: a fault of this module's.
    SystemErr = 4,
    /// `PAM_PERM_DENIED`.
    PermDenied = 6,
    /// `PAM_AUTH_ERR`.
    AuthErr = 7,
    /// `PAM_AUTHINFO_UNAVAIL`: nobody here can tell now.
    AuthInfoUnavail = 9,
    /// `PAM_ACCT_EXPIRED`.
    AcctExpired = 13,
    /// `PAM_SESSION_ERR`.
    SessionErr = 14,
    /// `PAM_CONV_ERR`: the person could not be asked.
    ConvErr = 19,
    /// `PAM_IGNORE`: other modules decide.
    Ignore = 25,
}

impl Code {
    /// As PAM counts.
    pub(crate) fn number(self) -> c_int {
        self as c_int
    }
}

/// How a phase ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// For libpam.
    pub(crate) code: Code,
    /// For the person and the log.
    pub(crate) text: Option<String>,
}

impl Verdict {
    /// With nothing to say.
    pub(crate) fn plain(code: Code) -> Verdict {
        Verdict { code, text: None }
    }

    /// With a text.
    pub(crate) fn told(code: Code, text: impl Into<String>) -> Verdict {
        Verdict { code, text: Some(text.into()) }
    }
}

/// The account phase. `seen` is asked only when nobody answers.
pub(crate) fn account(
    answer: &Result<LoginState, LocalError>,
    seen: impl FnOnce() -> Result<Millis, NotSeen>,
) -> Verdict {
    match answer {
        Ok(LoginState::Allowed {}) => Verdict::plain(Code::Success),
        Ok(LoginState::Ended { text }) => Verdict::told(Code::AcctExpired, text),
        Ok(LoginState::Held { text } | LoginState::Denied { text }) => {
            Verdict::told(Code::PermDenied, text)
        }
        // Not left to other modules: they would let in by a key that lies in its home.
        Ok(LoginState::NotOurs {}) => Verdict::told(
            Code::PermDenied,
            format!(
                "no membership belongs to this account, though its uid is one of the grid's; if \
                 it is a local account, give it a uid outside {} to {}",
                ID_RANGE.start(),
                ID_RANGE.end()
            ),
        ),
        Err(LocalError::Refused(e)) if e.kind == Kind::Denied => {
            Verdict::told(Code::PermDenied, e.to_string())
        }
        Err(e) => unanswered(e, Code::AuthInfoUnavail, "", seen),
    }
}

/// The session's begin. `seen` is asked only when nobody answers.
pub(crate) fn session(
    answer: &Result<Opened, LocalError>,
    seen: impl FnOnce() -> Result<Millis, NotSeen>,
) -> Verdict {
    match answer {
        Ok(_) => Verdict::plain(Code::Success),
        Err(e) => {
            let lacks = ", and the VO's volume is not yours in this session";
            unanswered(e, Code::SessionErr, lacks, seen)
        }
    }
}

/// The session's end, which never fails: whoever leaves must be able to.
pub(crate) fn close(answer: &Result<(), LocalError>) -> Verdict {
    match answer {
        Ok(()) => Verdict::plain(Code::Success),
        Err(e) => Verdict::told(
            Code::Success,
            format!("the end of the session could not be told: {e}; xosd sees it by its processes"),
        ),
    }
}

/// One step of a proof.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Names the attempt.
    pub(crate) attempt: String,
    /// What is shown.
    pub(crate) texts: Vec<String>,
    /// What is asked then.
    pub(crate) question: Option<Question>,
}

/// What a person is asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// The text.
    pub(crate) prompt: String,
    /// Whether what is typed shows.
    pub(crate) echo: bool,
    /// Whether a password that an earlier module asked for answers it too.
    pub(crate) password: bool,
}

/// The auth phase: how it goes on, or how it ends.
pub(crate) fn auth(answer: Result<AuthStep, LocalError>) -> Result<Step, Verdict> {
    match answer {
        Ok(AuthStep::Ask { attempt, texts, prompt, echo, password }) => {
            Ok(Step { attempt, texts, question: Some(Question { prompt, echo, password }) })
        }
        Ok(AuthStep::Wait { attempt, texts }) => Ok(Step { attempt, texts, question: None }),
        Ok(AuthStep::NotOurs {}) => Err(Verdict::plain(Code::Ignore)),
        Ok(AuthStep::Proved {}) => Err(Verdict::plain(Code::Success)),
        Ok(AuthStep::Refused { text }) => Err(Verdict::told(Code::AuthErr, text)),
        Err(LocalError::Refused(e)) => {
            let code = match e.kind {
                Kind::Denied | Kind::Unauthenticated | Kind::Limited => Code::AuthErr,
                _ => Code::AuthInfoUnavail,
            };
            Err(Verdict::told(code, e.to_string()))
        }
        Err(e) => Err(Verdict::told(Code::AuthInfoUnavail, format!("{e}; {ADVICE}"))),
    }
}

/// No word from the node. Only when it is absent or late does it count that it let the account in
/// before: whoever makes it answer nonsense, or fills its queue, gains nothing.
fn unanswered(
    error: &LocalError,
    refusal: Code,
    lacks: &str,
    seen: impl FnOnce() -> Result<Millis, NotSeen>,
) -> Verdict {
    match error {
        LocalError::Absent | LocalError::Late => match seen() {
            Ok(until) => Verdict::told(
                Code::Success,
                format!(
                    "{error}; you may come in until {until} because it let you in before{lacks}"
                ),
            ),
            Err(why) => Verdict::told(refusal, format!("{error}, and {why}; {ADVICE}")),
        },
        LocalError::Refused(e) => Verdict::told(refusal, e.to_string()),
        e => Verdict::told(refusal, format!("{e}; {ADVICE}")),
    }
}

#[cfg(test)]
#[path = "codes_tests.rs"]
mod tests;
