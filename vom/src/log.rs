//! The chain of a VO's log: numbers, hashes, signatures.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xos_api::vom::{Actor, Change, Entry};
use xos_base::{Error, Millis, VoId};
use xos_net::Trust;
use xos_net::sign::{Kind, Signer};

/// Longest signed entry, in bytes.
pub const ENTRY_BYTES_MAX: usize = 64 * 1024;

/// The end of a log as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The number of the last entry; 0: none.
    pub number: u64,
    /// SHA-256 of its JWS, hex; empty: none.
    pub hash: String,
    /// When it was made.
    pub time: Millis,
}

/// What is wrong with an entry that arrived or lay in the registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFault {
    /// The home's key did not sign it. The home's administrator acts.
    #[error("{0}")]
    Signature(Error),
    /// It is no entry, or too long.
    #[error("it is no log entry of this version, or longer than {ENTRY_BYTES_MAX} bytes")]
    Malformed,
    /// It belongs to another VO.
    #[error("it belongs to {0}")]
    OtherVo(VoId),
    /// Entries between are missing. The reader asks for them again.
    #[error("entry {got} came where {expected} is due")]
    Gap {
        /// The number due.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// It does not follow the entry before it: the log was cut, reordered or made anew.
    #[error("entry {0} does not follow the entry that is known here as the one before it")]
    Fork(u64),
    /// The change cannot follow.
    #[error("entry {number}: {violation}")]
    Change {
        /// The entry.
        number: u64,
        /// Why.
        violation: crate::state::Violation,
    },
}

impl Chain {
    /// Before the first entry.
    pub fn start() -> Chain {
        Chain { number: 0, hash: String::new(), time: Millis(0) }
    }

    /// The entry that says `change` next.
    pub fn next(&self, vo: &VoId, actor: Actor, change: Change, now: Millis) -> Entry {
        Entry {
            vo: vo.clone(),
            number: self.number.saturating_add(1),
            prev: self.hash.clone(),
            // A clock set back must not make the log unreadable.
            time: now.max(self.time),
            actor,
            change,
        }
    }

    /// Whether `entry` comes next.
    ///
    /// # Errors
    /// [`LogFault::Gap`] or [`LogFault::Fork`].
    pub fn follows(&self, entry: &Entry) -> Result<(), LogFault> {
        let expected = self.number.saturating_add(1);
        if entry.number > expected {
            return Err(LogFault::Gap { expected, got: entry.number });
        }
        if entry.number < expected || entry.prev != self.hash {
            return Err(LogFault::Fork(entry.number));
        }
        Ok(())
    }

    /// Moves on behind `entry`, whose signed form is `jws`.
    pub fn advance(&mut self, entry: &Entry, jws: &str) {
        self.number = entry.number;
        self.hash = hash(jws);
        self.time = entry.time;
    }
}

/// SHA-256 of a signed entry, hex.
pub fn hash(jws: &str) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(64);
    for byte in digest(&SHA256, jws.as_bytes()).as_ref() {
        // Writing to a String cannot fail.
        if write!(text, "{byte:02x}").is_err() {
            break;
        }
    }
    text
}

/// Signs an entry.
///
/// # Errors
/// [`xos_base::Kind::Internal`]; [`xos_base::Kind::TooLarge`] over [`ENTRY_BYTES_MAX`].
pub fn seal(signer: &Signer, entry: &Entry) -> Result<String, Error> {
    let jws = signer.sign(Kind::VoLog, entry)?;
    if jws.len() > ENTRY_BYTES_MAX {
        return Err(Error::too_large("the change is too long for the VO's log"));
    }
    Ok(jws)
}

/// Reads an entry of `vo` that came from somewhere: its home must have signed it.
///
/// # Errors
/// [`LogFault`].
pub fn open(trust: &Trust, vo: &VoId, jws: &str) -> Result<Entry, LogFault> {
    if jws.len() > ENTRY_BYTES_MAX {
        return Err(LogFault::Malformed);
    }
    let entry: Entry =
        trust.verify(Kind::VoLog, jws, &vo.site()).map_err(LogFault::Signature)?;
    if entry.vo != *vo {
        return Err(LogFault::OtherVo(entry.vo));
    }
    Ok(entry)
}

/// Reads an entry from the own registry. It was verified before it was stored; the key that signed
/// it may have been replaced since.
///
/// # Errors
/// [`LogFault::Malformed`].
pub fn reread(jws: &str) -> Result<Entry, LogFault> {
    let payload = jws.split('.').nth(1).ok_or(LogFault::Malformed)?;
    let bytes = URL_SAFE_NO_PAD.decode(payload).map_err(|_| LogFault::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| LogFault::Malformed)
}
