//! After a shim's death: make sure that nothing of the envelope runs, then close its log.

use crate::cgroup::EnvelopeCgroup;
use crate::event::{Cursor, Entry, Event, Outcome, decode, encode};
use crate::shim::launch::{Plan, Shell, lock};
use crate::shim::{LOG_FILE, SOCKET_FILE};
use crate::spec::UnitKey;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use xos_base::Millis;

use super::{EnvelopeError, discard};

/// Most bytes of one envelope's log: the records of all its units, with room.
pub const LOG_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// How much of a log is read at a time.
const PIECE_BYTES: usize = 1024 * 1024;

/// How much of a log's end is read to find its last record.
const TAIL_BYTES: u64 = crate::event::LINE_BYTES_MAX as u64 + 1;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A shim lives; nothing was touched.
    Alive,
    /// The shim is gone and the log is closed; these many units were lost.
    Over {
        /// Units that were started and whose end nobody saw.
        lost: u64,
    },
}

/// What a whole log says.
#[derive(Default)]
pub(crate) struct Summary {
    /// Units without an end, and whether they were started.
    open: BTreeMap<UnitKey, bool>,
    /// How the others ended.
    pub ended: Vec<(UnitKey, Outcome)>,
    /// Where the log goes on.
    pub cursor: Cursor,
    /// The kernel's boot in which it was opened last.
    boot: String,
    closed: bool,
    /// As [`Event::Closed`] has it.
    pub torn: bool,
    damaged_bytes: u64,
}

/// One look of [`Envelopes::attach_all`] at a folder that may be unused. `None`: a shim without a
/// log holds it.
pub(super) fn clear_once(
    dir: &Path,
    shell: bool,
    by_name: EnvelopeCgroup,
) -> Result<Option<bool>, EnvelopeError> {
    let begun = || !shell && dir.join(LOG_FILE).exists();
    if begun() {
        return Ok(Some(false));
    }
    // Half a file was never acted on, and a folder without either has no cgroup but by its name.
    let planned = || Plan::read(dir).map(|p| p.cgroup).ok();
    let ahead = || Shell::read(dir).map(|s| s.cgroup).ok();
    let cgroup = planned().or_else(ahead).unwrap_or(by_name);
    if shell {
        // Init goes, and the shim with it.
        cgroup.kill()?;
    }
    // A launcher on its way finds the lock taken, or the folder gone.
    let Some(_lock) = lock(dir).map_err(EnvelopeError::at("lock", dir))? else {
        return Ok(None);
    };
    if begun() {
        return Ok(Some(false));
    }
    discard(dir, &cgroup).map(|()| Some(true))
}

/// The last record of an envelope's log; `None` when it does not end in a whole one.
pub(crate) fn last_record(dir: &Path) -> io::Result<Option<Entry>> {
    let file = File::open(dir.join(LOG_FILE))?;
    let len = file.metadata()?.len();
    let mut tail = vec![0; len.min(TAIL_BYTES) as usize];
    let start = len - tail.len() as u64;
    file.read_exact_at(&mut tail, start)?;
    Ok(crate::event::last(&tail))
}

/// Whether an envelope has no shim and its log is closed. Cheap; `false` is no proof.
pub(super) fn rests(dir: &Path) -> bool {
    let closed = || match last_record(dir) {
        Ok(Some(last)) => matches!(last.event, Event::Closed { .. }),
        _ => false,
    };
    !dir.join(SOCKET_FILE).exists() && closed()
}

/// Ends what is left of an envelope whose shim is dead, and records the units that were lost, so
/// that readers of the log see it like any other end. Harmless when done before. `boot` is the
/// kernel's present boot id; `by_name` the cgroup that an envelope of that name has when neither
/// its plan nor its shell tells, as after a power loss.
pub(super) fn recover(
    dir: &Path,
    by_name: &EnvelopeCgroup,
    boot: &str,
    now: Millis,
) -> Result<Found, EnvelopeError> {
    // Held to the end: no shim and no other recovery works on this folder meanwhile.
    let Some(_lock) = lock(dir).map_err(EnvelopeError::at("lock", dir))? else {
        return Ok(Found::Alive);
    };
    let (cgroup, made_in) = match Plan::read(dir) {
        Ok(plan) => (plan.cgroup, plan.boot),
        Err(error) => {
            tracing::error!(dir = %dir.display(), %error, "an envelope is closed without its plan");
            let shell = Shell::read(dir).map(|s| s.cgroup);
            (shell.unwrap_or_else(|_| by_name.clone()), String::new())
        }
    };
    let lost = recover_held(dir, &cgroup, &made_in, boot, now)?.1;
    match std::fs::remove_file(dir.join(SOCKET_FILE)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(EnvelopeError::at("remove the socket of", dir)(e))
        }
        _ => Ok(Found::Over { lost }),
    }
}

/// As [`recover`], by the holder of the lock. `made_in` is the boot of the envelope's plan. What
/// the log says, and how many units were lost just now.
pub(crate) fn recover_held(
    dir: &Path,
    cgroup: &EnvelopeCgroup,
    made_in: &str,
    boot: &str,
    now: Millis,
) -> Result<(Summary, u64), EnvelopeError> {
    cgroup.kill()?;
    let usage = cgroup.usage();
    // The kernel lets a cgroup go only when its last process is dead: after this nothing runs.
    cgroup.remove()?;
    let path = dir.join(LOG_FILE);
    let at = |doing| EnvelopeError::at(doing, &path);
    let mut file = File::options().read(true).write(true).open(&path).map_err(at("open"))?;
    let mut s = summarise(&mut file).map_err(at("read"))?;
    if s.damaged_bytes > 0 {
        tracing::error!(log = %path.display(), bytes = s.damaged_bytes, "damaged records");
    }
    let mut lost = 0;
    let mut lines = Vec::new();
    if !s.closed {
        // The end of a log is on the disk only when it was closed. Without it, it is not known
        // what was started before the machine stopped. One that does not even say when it was
        // opened is as old as its plan: nothing was started only if that is of this boot.
        let stopped = boot != if s.boot.is_empty() { made_in } else { s.boot.as_str() };
        s.torn |= stopped || s.damaged_bytes > 0;
        let mut ends = Vec::new();
        for (unit, started) in std::mem::take(&mut s.open) {
            let outcome = if started || stopped { Outcome::Lost } else { never_started() };
            lost += u64::from(outcome == Outcome::Lost);
            s.ended.push((unit.clone(), outcome.clone()));
            ends.push(Event::Ended { unit, outcome, usage: None });
        }
        for event in ends.into_iter().chain([Event::Closed { usage, torn: s.torn }]) {
            s.cursor.seq += u64::from(event.is_numbered());
            let entry = Entry { seq: s.cursor.seq, at: now, event };
            encode(&entry, &mut lines).map_err(EnvelopeError::Encode)?;
        }
    }
    // Half a line may stand at the end.
    let end = s.cursor.offset;
    if !lines.is_empty() || file.metadata().map_err(at("look at"))?.len() > end {
        file.set_len(end).map_err(at("cut"))?;
        file.seek(SeekFrom::Start(end)).map_err(at("write"))?;
        file.write_all(&lines).map_err(at("write"))?;
        file.sync_data().map_err(at("sync"))?;
        s.cursor.offset += lines.len() as u64;
    }
    Ok((s, lost))
}

fn never_started() -> Outcome {
    let reason = "the envelope's shim died before the unit was started".to_owned();
    Outcome::StartFailed { reason, errno: 0 }
}

fn summarise(file: &mut File) -> io::Result<Summary> {
    let mut s = Summary::default();
    let mut buf = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let n = file.read(&mut piece)?;
        if n == 0 || s.cursor.offset > LOG_BYTES_MAX {
            return Ok(s);
        }
        buf.extend_from_slice(&piece[..n]);
        let chunk = decode(&buf, s.cursor);
        buf.drain(..(chunk.cursor.offset - s.cursor.offset) as usize);
        s.cursor = chunk.cursor;
        s.damaged_bytes += chunk.damaged_bytes;
        for (entry, _) in chunk.entries {
            s.closed = false;
            match entry.event {
                Event::Taken { units } => s.open.extend(units.into_iter().map(|u| (u, false))),
                Event::Starting { unit } => drop(s.open.insert(unit, true)),
                Event::Ended { unit, outcome, .. } => {
                    s.open.remove(&unit);
                    s.ended.push((unit, outcome));
                }
                Event::Opened { boot, .. } => s.boot = boot,
                Event::Closed { torn, .. } => {
                    s.closed = true;
                    s.torn |= torn;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::PLAN_FILE;

    const NO_CGROUP: EnvelopeCgroup = EnvelopeCgroup { parts: Vec::new() };

    /// An envelope's folder with a plan that was made in that boot.
    fn folder(boot: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let spec = serde_json::from_value(serde_json::json!({
            "id": "1.a", "slots": 1,
            "account": {"uid": 70000, "gid": 70000, "groups": [], "name": "a", "home": "/"},
        }))
        .unwrap();
        let plan = Plan { spec, cgroup: NO_CGROUP, boot: boot.into() };
        std::fs::write(dir.path().join(PLAN_FILE), serde_json::to_vec(&plan).unwrap()).unwrap();
        dir
    }

    fn at(dir: &Path, now: u64) -> Found {
        recover(dir, &NO_CGROUP, "b", Millis(now)).unwrap()
    }

    fn last(dir: &Path) -> Event {
        last_record(dir).unwrap().unwrap().event
    }

    #[test]
    fn open_units_are_lost_once() {
        // wrong: a unit whose shim died would stay "running" for ever, or be lost twice
        let dir = folder("b");
        let unit = |n: u32| format!("1.a:{n}").parse::<UnitKey>().unwrap();
        let ended = Event::Ended { unit: unit(1), outcome: Outcome::Cancelled, usage: None };
        let events = [
            Event::Taken { units: (0..4).map(unit).collect() },
            Event::Starting { unit: unit(0) },
            Event::Starting { unit: unit(1) },
            ended,
            Event::Starting { unit: unit(2) },
        ];
        let mut lines = Vec::new();
        for (seq, event) in (0..).zip(events) {
            encode(&Entry { seq, at: Millis(1), event }, &mut lines).unwrap();
        }
        lines.extend_from_slice(b"0123 {half a li");
        let log = dir.path().join(LOG_FILE);
        std::fs::write(&log, &lines).unwrap();
        let held = lock(dir.path()).unwrap();
        assert_eq!(at(dir.path(), 9), Found::Alive);
        drop(held);
        assert_eq!(at(dir.path(), 9), Found::Over { lost: 2 });
        let after = std::fs::read(&log).unwrap();
        assert_eq!(at(dir.path(), 10), Found::Over { lost: 0 });
        assert_eq!(std::fs::read(&log).unwrap(), after);
        let chunk = decode(&after, Cursor::default());
        assert_eq!(chunk.damaged_bytes, 0);
        let tail: Vec<_> = chunk.entries.iter().skip(5).map(|(e, _)| (e.seq, &e.event)).collect();
        assert_eq!(tail.len(), 4);
        let lost = |n| Event::Ended { unit: unit(n), outcome: Outcome::Lost, usage: None };
        assert_eq!(tail[0], (5, &lost(0)));
        assert_eq!(tail[1], (6, &lost(2)));
        let end = Event::Ended { unit: unit(3), outcome: never_started(), usage: None };
        assert_eq!(tail[2], (7, &end));
        assert!(matches!(tail[3], (7, Event::Closed { .. })));
    }

    #[test]
    fn after_another_boot_nothing_is_said_to_have_never_run() {
        // wrong: the record of a start that the power cut took would let the unit run again
        let dir = folder("b");
        let unit = |n: u32| format!("1.a:{n}").parse::<UnitKey>().unwrap();
        let opened =
            |boot: &str| Event::Opened { envelope: "1.a".parse().unwrap(), boot: boot.to_owned() };
        let log = dir.path().join(LOG_FILE);
        let write = |events: &[Event]| {
            let mut lines = Vec::new();
            for event in events {
                let entry = Entry { seq: 0, at: Millis(1), event: event.clone() };
                encode(&entry, &mut lines).unwrap();
            }
            std::fs::write(&log, &lines).unwrap();
        };
        let taken = Event::Taken { units: vec![unit(0)] };
        write(&[opened("a"), taken.clone()]);
        assert_eq!(at(dir.path(), 9), Found::Over { lost: 1 });
        assert!(matches!(last(dir.path()), Event::Closed { torn: true, .. }));
        assert!(rests(dir.path()));
        // in the same boot the log is whole
        write(&[opened("b"), taken]);
        assert_eq!(at(dir.path(), 9), Found::Over { lost: 0 });
        assert!(matches!(last(dir.path()), Event::Closed { torn: false, .. }));
        // and one that was closed before the machine stopped stays good
        let closed = Event::Closed { usage: Default::default(), torn: false };
        write(&[opened("a"), closed]);
        let (summary, lost) = recover_held(dir.path(), &NO_CGROUP, "b", "b", Millis(9)).unwrap();
        assert_eq!((summary.torn, lost), (false, 0));
    }

    #[test]
    fn a_log_that_does_not_say_when_it_was_opened_is_as_old_as_its_plan() {
        // wrong: an envelope whose whole record the power cut took would count as unused, and
        // units that had run in it be started again
        let empty = |dir: &Path| std::fs::write(dir.join(LOG_FILE), b"").unwrap();
        let torn = |dir: &Path| matches!(last(dir), Event::Closed { torn: true, .. });
        let before = folder("a");
        empty(before.path());
        assert_eq!(at(before.path(), 9), Found::Over { lost: 0 });
        assert!(torn(before.path()));
        // the cut took the plan too
        let bare = tempfile::tempdir().unwrap();
        std::fs::write(bare.path().join(PLAN_FILE), b"").unwrap();
        empty(bare.path());
        assert_eq!(at(bare.path(), 9), Found::Over { lost: 0 });
        assert!(torn(bare.path()));
        // in the same boot its shim was killed before it began
        let now = folder("b");
        empty(now.path());
        assert_eq!(at(now.path(), 9), Found::Over { lost: 0 });
        assert!(!torn(now.path()));
    }
}
