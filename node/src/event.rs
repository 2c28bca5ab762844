//! What an envelope records about its units, and how it stands in the log file.
//!
//! One record is one line: a CRC-32 of what follows, a blank, a JSON object, a newline. What
//! happens to units is numbered from 1 without a gap. A reader keeps a [`Cursor`] and asks for
//! what comes after it.

use crate::cgroup::EnvelopeUsage;
use crate::spec::{EnvelopeId, UnitKey};
use serde::{Deserialize, Serialize};
use xos_base::Millis;

/// Longest line, in bytes. What is longer was not written by us.
pub const LINE_BYTES_MAX: usize = 16 * 1024;
/// Most units in one [`Event::Taken`], so that it fits a line.
pub const TAKEN_MAX: usize = 128;

/// One record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The number of a unit's event in this envelope, from 1; on other records that of the last
    /// unit's event before.
    #[serde(rename = "n")]
    pub seq: u64,
    /// When it was recorded.
    #[serde(rename = "t")]
    pub at: Millis,
    /// What happened.
    #[serde(rename = "e")]
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The envelope began, or was opened again.
    Opened {
        /// Which.
        envelope: EnvelopeId,
        /// The kernel's boot id: after another boot nothing of it runs.
        boot: String,
    },
    /// The envelope answers for these units from now on.
    Taken {
        /// Which, at most [`TAKEN_MAX`].
        units: Vec<UnitKey>,
    },
    /// The unit is about to be started. Recorded before its process exists.
    Starting {
        /// Which.
        unit: UnitKey,
    },
    /// The unit is over.
    Ended {
        /// Which.
        unit: UnitKey,
        /// How.
        outcome: Outcome,
        /// What it used; absent where it never ran, or nobody saw its end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<UnitUsage>,
    },
    /// Nothing of the envelope runs, and nothing is written, until it is opened again.
    Closed {
        /// What it used since it was opened.
        usage: EnvelopeUsage,
        /// Records may be missing: the machine stopped under it. It cannot be opened again.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        torn: bool,
    },
}

impl Event {
    /// Whether it is a unit's event, which has a number of its own.
    pub fn is_numbered(&self) -> bool {
        matches!(self, Event::Starting { .. } | Event::Ended { .. })
    }
}

/// How a unit ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// By itself, with this exit code.
    Exited {
        /// 0 to 255.
        code: u8,
        /// Set when something of ours or the kernel's had a hand in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
    },
    /// By a signal.
    Signaled {
        /// Its number.
        signal: u8,
        /// Who sent it, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
    },
    /// It could not be started; its program never ran.
    StartFailed {
        /// For the person: what failed, on what, why.
        reason: String,
        /// The kernel's error number.
        errno: i32,
    },
    /// It was taken back before it was started: somebody asked for it, or for the envelope's end.
    Cancelled,
    /// It was started, and its end was seen by nobody. It does not run any more.
    Lost,
}

/// Why a unit ended that would have gone on, or gone well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Somebody asked for it.
    Asked,
    /// Its wall-clock limit.
    WallLimit,
    /// The envelope's memory limit.
    MemoryLimit,
    /// The limit of processes was reached while the unit ran. Nothing ended the unit: it came to
    /// grief by itself, perhaps of that.
    ProcessLimit,
    /// The limit of a spool file.
    SpoolLimit,
    /// The envelope was ended.
    EnvelopeEnded,
    /// The envelope's init died, and the kernel ended everything in it.
    InitDied,
}

/// What a unit used, from wait4(2): its process and the children that it waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitUsage {
    /// When its process was made.
    pub started: Millis,
    /// When its end was seen.
    pub ended: Millis,
    /// User processor time, microseconds.
    pub user_us: u64,
    /// System processor time, microseconds.
    pub system_us: u64,
    /// Largest resident set of one of its processes, bytes.
    pub max_rss_bytes: u64,
    /// Bytes of standard output in its spool file; 0: there is no file.
    #[serde(default)]
    pub stdout_bytes: u64,
    /// Bytes of standard error in its spool file; 0: there is no file.
    #[serde(default)]
    pub stderr_bytes: u64,
}

/// A place in an envelope's log: all entries up to `seq` have been read, the next one begins at
/// or after `offset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Number of the last unit's event read; 0: none.
    pub seq: u64,
    /// Bytes read.
    pub offset: u64,
}

/// What a piece of log holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chunk {
    /// The entries, each with the cursor that stands behind it.
    pub entries: Vec<(Entry, Cursor)>,
    /// Where to go on.
    pub cursor: Cursor,
    /// Bytes passed over because they are no record: the disk lost something.
    pub damaged_bytes: u64,
}

/// Appends the line of an entry.
///
/// # Errors
/// When an entry cannot be encoded, which no value of ours does.
pub fn encode(entry: &Entry, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let start = out.len();
    out.extend_from_slice(b"00000000 ");
    serde_json::to_writer(&mut *out, entry)?;
    let crc = format!("{:08x}", crc32fast::hash(&out[start + 9..]));
    out[start..start + 8].copy_from_slice(crc.as_bytes());
    out.push(b'\n');
    Ok(())
}

/// Reads the entries in `bytes`, which begin at the cursor's offset. A line without its end is
/// left for the next time; a line that is no record, or is numbered like one before, is damage.
pub fn decode(bytes: &[u8], from: Cursor) -> Chunk {
    let mut chunk = Chunk { cursor: from, ..Chunk::default() };
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        let len = end as u64 + 1;
        chunk.cursor.offset += len;
        let seq = chunk.cursor.seq;
        let next = |e: &Entry| if e.event.is_numbered() { e.seq > seq } else { e.seq >= seq };
        match record(line).filter(next) {
            Some(entry) => {
                chunk.cursor.seq = entry.seq;
                chunk.entries.push((entry, chunk.cursor));
            }
            None => chunk.damaged_bytes += len,
        }
    }
    if rest.len() > LINE_BYTES_MAX {
        chunk.cursor.offset += rest.len() as u64;
        chunk.damaged_bytes += rest.len() as u64;
    }
    chunk
}

/// The last record of a log, from the bytes at its end; `None` when they do not end in a whole
/// record.
pub fn last(tail: &[u8]) -> Option<Entry> {
    let line = tail.strip_suffix(b"\n")?;
    let start = line.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    record(&line[start..])
}

fn record(line: &[u8]) -> Option<Entry> {
    let (crc, json) = line.split_at_checked(9)?;
    let crc = std::str::from_utf8(crc).ok()?.strip_suffix(' ')?;
    let crc = u32::from_str_radix(crc, 16).ok()?;
    (line.len() <= LINE_BYTES_MAX && crc == crc32fast::hash(json))
        .then(|| serde_json::from_slice(json).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries(n: u64) -> (Vec<Entry>, Vec<u8>) {
        let mut bytes = Vec::new();
        let all: Vec<Entry> = (1..=n)
            .map(|seq| {
                let unit: UnitKey = format!("1.a:{seq}").parse().unwrap();
                let event = match seq % 3 {
                    0 => Event::Starting { unit },
                    1 => Event::Ended { unit, outcome: Outcome::Lost, usage: None },
                    _ => Event::Ended {
                        unit,
                        outcome: Outcome::StartFailed { reason: "a\nb".into(), errno: 2 },
                        usage: Some(UnitUsage::default()),
                    },
                };
                Entry { seq, at: Millis(seq), event }
            })
            .collect();
        for e in &all {
            encode(e, &mut bytes).unwrap();
        }
        (all, bytes)
    }

    fn only(chunk: &Chunk) -> Vec<Entry> {
        chunk.entries.iter().map(|(e, _)| e.clone()).collect()
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
            // wrong: a damaged disk would keep the daemon from starting
            let chunk = decode(&bytes, Cursor { seq: 3, offset: 17 });
            prop_assert!(chunk.entries.is_empty());
            prop_assert!(chunk.cursor.offset <= 17 + bytes.len() as u64);
        }

        #[test]
        fn a_torn_tail_is_read_when_it_is_complete(n in 1u64..8, cut in 0usize..2000) {
            // wrong: an event would be lost or delivered twice when the reader meets the writer
            let (all, bytes) = entries(n);
            let cut = cut.min(bytes.len());
            let first = decode(&bytes[..cut], Cursor::default());
            let then = decode(&bytes[first.cursor.offset as usize..], first.cursor);
            prop_assert_eq!(first.damaged_bytes + then.damaged_bytes, 0);
            prop_assert_eq!([only(&first), only(&then)].concat(), all);
        }

        #[test]
        fn damage_costs_only_the_lines_it_hits(n in 2u64..8, at in 0usize..2000, with in any::<u8>()) {
            // wrong: one bad sector would hide the ends of all later units
            let (all, mut bytes) = entries(n);
            let at = at % bytes.len();
            bytes[at] = with;
            let read = only(&decode(&bytes, Cursor::default()));
            prop_assert!(read.iter().all(|e| all.contains(e)));
            prop_assert!(read.len() + 2 >= all.len());
        }

        #[test]
        fn resuming_at_any_entry_gives_exactly_the_rest(n in 1u64..8, k in 0usize..8) {
            // wrong: a restarted daemon would report an end twice, or never
            let (all, bytes) = entries(n);
            let whole = decode(&bytes, Cursor::default());
            let k = k % all.len();
            let cursor = whole.entries[k].1;
            let rest = decode(&bytes[cursor.offset as usize..], cursor);
            prop_assert_eq!(only(&rest), all[k + 1..].to_vec());
        }
    }

    #[test]
    fn a_line_without_end_does_not_hold_the_reader() {
        // wrong: a file of zeros (after a power cut) would be read again for ever
        let chunk = decode(&vec![0; LINE_BYTES_MAX + 1], Cursor::default());
        assert_eq!(chunk.cursor.offset, LINE_BYTES_MAX as u64 + 1);
    }
}
