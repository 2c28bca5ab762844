//! Opening: find the end of the chain, cut half a line, go on behind what is damaged.
//!
//! Only the newest file is read; that older ones are whole is for verification to say, which takes
//! its time. Where the journal of jobs refuses to start on damage, an audit goes on: nothing is
//! decided by what it holds, and whoever can edit one line of it must not put the site out of
//! service for ever, nor get it to cut off what follows that line. So a damaged file stays as it
//! is, for verification to point at, and a new file begins with a line that says so.

use super::files::{self, Marks, Segment};
use super::look::Backwards;
use super::walk::{Walk, hash};
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::Duration;
use xos_api::audit::{Event, Line, Outcome};
use xos_base::{Error, Millis, SiteId};

/// More lines than one file can hold. Who edits a line must not use up the numbers.
const LINES_MAX: u64 = 1 << 20;

/// How far a clock is believed to have been set back: lines keep their order over it.
const AHEAD_MAX: Duration = Duration::from_secs(86_400);

/// An audit ready to be written.
pub(super) struct Opened {
    pub(super) lock: File,
    /// Never empty; `file` is the last.
    pub(super) segments: Vec<Segment>,
    pub(super) file: File,
    pub(super) end: End,
    pub(super) marks: Marks,
    /// What is to be noted first.
    pub(super) damage: Option<Event>,
}

/// The end of the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The number of the last line; 0: none.
    pub number: u64,
    /// Its hash; empty: none.
    pub hash: String,
    /// When it was noted.
    pub noted: Millis,
}

pub(super) fn open(dir: &Path, site: &SiteId, now: Millis) -> Result<Opened, Error> {
    let lock = files::lock(dir)?;
    let mut segments = files::list(dir)?;
    index(&mut segments)?;
    let mut marks = files::read_marks(dir)?;
    let Some(last) = segments.last_mut() else {
        let (segment, file) = files::create(dir, 1, now)?;
        let (segments, end) = (vec![segment], End::default());
        return Ok(Opened { lock, segments, file, end, marks, damage: None });
    };
    let prev = (last.first == 1).then(String::new);
    let mut walk = Walk::begin(site.clone(), last.first, prev, Vec::new());
    let mut noted = last.from;
    let scanned = files::scan(last, &mut walk, |line| {
        if let Ok(line) = serde_json::from_slice::<Line>(line) {
            noted = noted.max(line.noted);
            note_mark(&mut marks, &line);
        }
    })?;
    if noted.since(now) > AHEAD_MAX {
        tracing::error!(%noted, %now, "the audit's last lines are of a time to come: a clock was \
            wrong, or a line was edited; what is noted from now on has the time of now");
        noted = now;
    }
    last.to = noted.max(last.from);
    let mut end = End { number: last_number(&walk, last.first), hash: String::new(), noted };
    if let (_, Some(prev)) = walk.due() {
        prev.clone_into(&mut end.hash);
    }
    if walk.faulty() {
        return behind_damage(dir, walk, (lock, segments, end, marks), now);
    }
    if scanned.torn {
        cut(last, scanned.whole)?;
    }
    last.len = scanned.whole;
    let file = open_last(last)?;
    if scanned.whole == 0
        && let [.., before, last] = segments.as_mut_slice()
    {
        // A file that was begun and not written: the chain goes on from the one before.
        (end.hash, end.noted) = end_of(before)?;
        last.from = end.noted;
        last.to = end.noted;
    }
    Ok(Opened { lock, segments, file, end, marks, damage: None })
}

/// The number of the last line of the newest file, which begins with line `first`.
fn last_number(walk: &Walk, first: u64) -> u64 {
    let (lines, _) = walk.counts();
    if walk.highest() < first.saturating_add(LINES_MAX) {
        walk.highest()
    } else {
        first.saturating_sub(1).saturating_add(lines)
    }
}

/// When files begin and end: a file ends before the next begins, since lines are noted in order.
fn index(segments: &mut [Segment]) -> Result<(), Error> {
    for at in 0..segments.len() {
        let path = segments[at].path.clone();
        let first = super::look::line_from(&path, 0, segments[at].len)
            .map_err(|e| files::failed(&path, &e))?;
        let line = first.and_then(|(_, line)| serde_json::from_slice::<Line>(&line).ok());
        segments[at].from = line.map(|l| l.noted).unwrap_or_default();
        if at > 0 && segments[at].from > Millis(0) {
            segments[at - 1].to = segments[at].from;
        }
    }
    Ok(())
}

pub(super) fn note_mark(marks: &mut Marks, line: &Line) {
    if let (Some(node), Some(r)) = (&line.event.node, &line.reported) {
        let mark = files::Mark { series: r.series.clone(), number: r.number };
        marks.insert(node.clone(), mark);
    }
}

/// The last line's hash, and when it was noted.
fn end_of(segment: &Segment) -> Result<(String, Millis), Error> {
    let io = |e: std::io::Error| files::failed(&segment.path, &e);
    let mut lines = Backwards::open(&segment.path, segment.len).map_err(io)?;
    let bytes = lines.step().map_err(io)?.unwrap_or_default();
    let noted = serde_json::from_slice::<Line>(&bytes).map_or(segment.from, |line| line.noted);
    Ok((hash(&bytes), noted))
}

fn behind_damage(
    dir: &Path,
    walk: Walk,
    (lock, mut segments, mut end, marks): (File, Vec<Segment>, End, Marks),
    now: Millis,
) -> Result<Opened, Error> {
    let damaged = segments.last().map_or(0, |s| s.first);
    let faults = walk.into_faults();
    let told = faults.first().map(|f| format!("{}, line {}: {}", f.file, f.number, f.detail));
    let why = told.unwrap_or_default();
    tracing::error!(dir = %dir.display(), %why, "the audit is damaged: the file stays as it is, a \
        new one begins behind it; `xos audit verify` says more");
    // Never the name of the damaged file.
    end.number = end.number.max(damaged);
    files::write_marks(dir, &marks)?;
    let (segment, file) = files::create(dir, end.number.saturating_add(1), end.noted)?;
    segments.push(segment);
    let on = faults.into_iter().next().map(|f| f.file).unwrap_or_default();
    let outcome = Outcome::Failed;
    let damage = Event { on, why, outcome, ..Event::new(now, "audit_damaged") };
    Ok(Opened { lock, segments, file, end, marks, damage: Some(damage) })
}

fn cut(segment: &Segment, whole: u64) -> Result<(), Error> {
    let io = |e: std::io::Error| files::failed(&segment.path, &e);
    let torn_bytes = segment.len.saturating_sub(whole);
    tracing::warn!(path = %segment.path.display(), torn_bytes,
        "cut half a line off the audit's end: nobody was told that it is stored");
    let file = OpenOptions::new().write(true).open(&segment.path).map_err(io)?;
    file.set_len(whole).and_then(|()| file.sync_all()).map_err(io)
}

/// What a killed process wrote without syncing is about to be built on: make it last first.
fn open_last(segment: &Segment) -> Result<File, Error> {
    let io = |e: std::io::Error| files::failed(&segment.path, &e);
    let file = OpenOptions::new().read(true).write(true).open(&segment.path).map_err(io)?;
    file.sync_data().map_err(io)?;
    Ok(file)
}
