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
    let entry: Entry = trust.verify(Kind::VoLog, jws, &vo.site()).map_err(LogFault::Signature)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Vo;

    const NOW: Millis = Millis(7);

    fn person() -> Actor {
        Actor::Person("alice@rennes".parse().unwrap())
    }

    /// A log of five entries.
    fn log() -> Vec<String> {
        let signer = Signer::generate().unwrap();
        let vo: VoId = "demo.rennes".parse().unwrap();
        let mut chain = Chain::start();
        let mut all = Vec::new();
        for i in 1..=5u32 {
            let change = if i == 1 {
                let owner = "alice@rennes".parse().unwrap();
                Change::Founded { owner, title: "Demo".into(), description: String::new() }
            } else {
                let name = format!("g{i}").parse().unwrap();
                Change::GroupCreated { name, number: xos_base::GroupNumber(i) }
            };
            let entry = chain.next(&vo, person(), change, NOW);
            let jws = seal(&signer, &entry).unwrap();
            chain.advance(&entry, &jws);
            all.push(jws);
        }
        all
    }

    fn replay(log: &[String]) -> Result<Vo, LogFault> {
        let mut chain = Chain::start();
        let mut vo: Option<Vo> = None;
        for jws in log {
            let entry = reread(jws)?;
            chain.follows(&entry)?;
            match &mut vo {
                None => vo = Vo::found(&entry).ok(),
                Some(vo) => vo.apply(&entry),
            }
            chain.advance(&entry, jws);
        }
        vo.ok_or(LogFault::Malformed)
    }

    #[test]
    fn a_log_that_is_not_whole_and_in_order_is_refused() {
        let whole = log();
        assert_eq!(replay(&whole).unwrap().groups.len(), 5);
        for cut in 0..4 {
            let mut l = whole.clone();
            l.remove(cut);
            assert!(matches!(replay(&l), Err(LogFault::Gap { .. })), "cut at {cut}");
            let mut l = whole.clone();
            l.swap(cut, cut + 1);
            assert!(replay(&l).is_err(), "reordered at {cut}");
        }
        // An entry made anew by the true home, with the same number: a second history.
        let other = log();
        for i in 0..4 {
            let mut l = whole.clone();
            l[i] = other[i].clone();
            let found_at = (i as u64 + 1).max(2);
            assert_eq!(replay(&l), Err(LogFault::Fork(found_at)), "replaced at {i}");
        }
    }

    #[test]
    fn a_clock_set_back_does_not_break_the_log() {
        let vo: VoId = "demo.rennes".parse().unwrap();
        let chain = Chain { number: 3, hash: "x".into(), time: Millis(9) };
        assert_eq!(chain.next(&vo, person(), Change::VoResumed {}, NOW).time, Millis(9));
    }
}
