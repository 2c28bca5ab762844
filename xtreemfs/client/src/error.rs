//! What can go wrong, by who must act. Each error has a Linux errno for the application and a
//! text for the log.

use crate::{Member, Peer};

/// Result of the client's operations.
pub type Result<T> = std::result::Result<T, Error>;

/// An operation failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The service decided against it; the application acts on the errno.
    #[error("{operation} was refused by {peer}: {message} (errno {errno})")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// Who refused.
        peer: Peer,
        /// Linux error number.
        errno: i32,
        /// The service's own words.
        message: String,
    },
    /// The person has no valid ticket on this machine: the person signs in or submits again.
    #[error(
        "person {member} has no valid ticket here: {reason}; sign in again or resubmit the job"
    )]
    NoTicket {
        /// The person.
        member: Member,
        /// Why there is none.
        reason: String,
    },
    /// No answer within the deadline; the administrator looks at the service or the network.
    #[error("{operation}: {peer} was not reached in time ({cause}); check that it runs")]
    Unreachable {
        /// What was asked.
        operation: &'static str,
        /// Who did not answer.
        peer: Peer,
        /// The last thing that went wrong.
        cause: String,
    },
    /// The connection broke after a change was sent: whether it took place is not known.
    #[error(
        "{operation}: the connection to {peer} broke before the answer ({cause}); look at the result before trying again"
    )]
    OutcomeUnknown {
        /// What was asked.
        operation: &'static str,
        /// Who had been asked.
        peer: Peer,
        /// How the connection ended.
        cause: String,
    },
    /// The service answered something that the protocol does not allow; its administrator acts.
    #[error("{operation}: {peer} sent an answer that is not valid: {detail}")]
    Protocol {
        /// What was asked.
        operation: &'static str,
        /// Who answered.
        peer: Peer,
        /// What is wrong with the answer.
        detail: String,
    },
    /// The client itself refuses: the caller asked for something impossible.
    #[error("{reason}")]
    Local {
        /// Linux error number.
        errno: i32,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    /// The Linux error number for the application.
    pub fn errno(&self) -> i32 {
        match self {
            // What only this client and the services understand becomes a plain refusal.
            Error::Refused { errno: libc::EKEYEXPIRED | libc::EKEYREVOKED, .. } => libc::EACCES,
            Error::Refused { errno, .. } | Error::Local { errno, .. } => *errno,
            Error::NoTicket { .. } => libc::EACCES,
            Error::Unreachable { .. } | Error::OutcomeUnknown { .. } | Error::Protocol { .. } => {
                libc::EIO
            }
        }
    }

    /// Whether a service refused with this error number.
    pub(crate) fn is_refusal(&self, number: i32) -> bool {
        matches!(self, Error::Refused { errno, .. } if *errno == number)
    }

    /// An error of the client's own making.
    pub(crate) fn local(errno: i32, reason: impl Into<String>) -> Error {
        Error::Local { errno, reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_without_ticket_gets_eacces_and_a_silent_service_eio() {
        let error = Error::NoTicket { member: Member(3), reason: "expired".into() };
        assert_eq!(error.errno(), libc::EACCES);
        let peer = Peer::Mrc("a".into());
        let error = Error::OutcomeUnknown { operation: "rename", peer, cause: "closed".into() };
        assert_eq!(error.errno(), libc::EIO);
    }
}
