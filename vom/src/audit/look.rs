//! Looking for lines, newest first, in the files that may hold some, a bounded number at a time.

use super::files::{LINE_BYTES_MAX, Segment, failed, skip_line};
use super::index::{self, Filter, Index};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use xos_api::audit::{AUDIT_PAGE, AUDIT_PAGE_MAX, AuditPage, Line, SearchAudit};
use xos_base::{Error, Millis, PersonId, VoId};

/// Most lines that one search looks at.
pub const LOOKED_AT_MAX: u64 = 100_000;
/// How much is read at a time, in bytes.
const CHUNK: u64 = 256 * 1024;
/// How much is read to find one line, in bytes.
const PROBE: usize = 8 * 1024;

/// What somebody may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The whole audit.
    All,
    /// Lines of this VO.
    Vo(VoId),
    /// Lines that concern this person; in this VO only, if there is one.
    Own(PersonId, Option<VoId>),
}

impl Scope {
    fn shows(&self, line: &Line) -> bool {
        let event = &line.event;
        match self {
            Scope::All => true,
            Scope::Vo(vo) => event.vo.as_ref() == Some(vo),
            Scope::Own(person, vo) => {
                event.person.as_ref() == Some(person)
                    && vo.as_ref().is_none_or(|vo| event.vo.as_ref() == Some(vo))
            }
        }
    }
}

/// The conditions of a search, ready to be applied.
struct Wanted<'a> {
    scope: &'a Scope,
    ask: &'a SearchAudit,
    who: Option<String>,
    text: Option<String>,
}

impl Wanted<'_> {
    fn holds(&self, line: &Line) -> bool {
        let (ask, event) = (self.ask, &line.event);
        fn is<T: PartialEq>(want: &Option<T>, have: Option<&T>) -> bool {
            want.as_ref().is_none_or(|w| Some(w) == have)
        }
        let within = ask.since.is_none_or(|t| line.noted >= t)
            && ask.until.is_none_or(|t| line.noted <= t)
            && ask.before.is_none_or(|n| line.number < n);
        within
            && self.scope.shows(line)
            && is(&ask.vo, event.vo.as_ref())
            && is(&ask.person, event.person.as_ref())
            && is(&ask.node, event.node.as_ref())
            && is(&ask.what, Some(&event.what))
            && is(&ask.outcome, Some(&event.outcome))
            && self.who.as_ref().is_none_or(|w| event.who.to_lowercase().contains(w))
            && self.text.as_ref().is_none_or(|t| self.mentions(line, t))
    }

    fn mentions(&self, line: &Line, text: &str) -> bool {
        let event = &line.event;
        let texts = [&event.what, &event.who, &event.on, &event.why];
        texts.into_iter().any(|t| t.to_lowercase().contains(text))
            || event.person.as_ref().is_some_and(|p| p.as_str().contains(text))
            || event.node.as_ref().is_some_and(|n| n.as_str().contains(text))
    }
}

/// Finds lines in `segments`, which are in order. Reads files.
///
/// # Errors
/// Those of the system.
pub(super) fn search(
    (segments, index): (&[Segment], &Index),
    scope: &Scope,
    ask: &SearchAudit,
) -> Result<AuditPage, Error> {
    let wanted = Wanted {
        scope,
        ask,
        who: ask.who.as_ref().map(|w| w.to_lowercase()),
        text: ask.text.as_ref().map(|t| t.to_lowercase()),
    };
    let limit = ask.limit.unwrap_or(AUDIT_PAGE).clamp(1, AUDIT_PAGE_MAX) as usize;
    let own = matches!(scope, Scope::Own(..));
    let mut page = AuditPage { lines: Vec::new(), next: None, unreadable: 0, own };
    let mut looked_at = 0;
    let (newest, filtered) = (segments.last().map(|s| s.first), index::helps(scope, ask));
    for segment in segments.iter().rev() {
        if ask.before.is_some_and(|n| segment.first >= n)
            || ask.until.is_some_and(|t| segment.from > t)
        {
            continue;
        }
        if ask.since.is_some_and(|t| segment.to < t) {
            break;
        }
        let io = |e: io::Error| failed(&segment.path, &e);
        if filtered && Some(segment.first) != newest {
            let (filter, read) = filter(segment, index).map_err(io)?;
            looked_at += read;
            if filter.is_some_and(|f| !f.may_answer(scope, ask)) {
                if looked_at >= LOOKED_AT_MAX && segment.first > 1 {
                    page.next = Some(segment.first);
                    return Ok(page);
                }
                continue;
            }
        }
        let opened = end(segment, ask).and_then(|end| Backwards::open(&segment.path, end));
        let mut lines = match opened {
            // It was moved to an archive.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(io)?,
        };
        while let Some(bytes) = lines.step().map_err(io)? {
            looked_at += 1;
            let Ok(line) = serde_json::from_slice::<Line>(&bytes) else {
                page.unreadable += 1;
                if looked_at >= LOOKED_AT_MAX {
                    // Where it is in the chain cannot be told: the rest of the file is left out.
                    page.next = Some(segment.first);
                    return Ok(page);
                }
                continue;
            };
            if ask.since.is_some_and(|t| line.noted < t) {
                return Ok(page);
            }
            let number = line.number;
            if wanted.holds(&line) {
                page.lines.push(line);
            }
            let full = page.lines.len() >= limit || looked_at >= LOOKED_AT_MAX;
            if full && number > 1 {
                page.next = Some(number);
                return Ok(page);
            }
        }
    }
    Ok(page)
}

/// Who is in a closed file, and how many lines were read to find that out; `None`: that is not
/// kept, or it was moved to an archive.
fn filter(segment: &Segment, index: &Index) -> io::Result<(Option<Arc<Filter>>, u64)> {
    if let Some(known) = index.of(segment.first) {
        return Ok((Some(known), 0));
    }
    if !index.has_room() {
        return Ok((None, 0));
    }
    let mut lines = match Backwards::open(&segment.path, segment.len) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((None, 0)),
        opened => opened?,
    };
    let (mut filter, mut read) = (Filter::new(), 0);
    while let Some(bytes) = lines.step()? {
        read += 1;
        match serde_json::from_slice::<Line>(&bytes) {
            Ok(line) => filter.add(&line),
            // Its faults are told each time.
            Err(_) => return Ok((Some(index.keep(segment.first, Filter::of_anybody())), read)),
        }
    }
    Ok((Some(index.keep(segment.first, filter)), read))
}

/// Where in a file the lines end that a search may want.
fn end(segment: &Segment, ask: &SearchAudit) -> io::Result<u64> {
    #[derive(Deserialize)]
    struct Place {
        number: u64,
        noted: Millis,
    }
    let beyond = |line: &[u8]| {
        let Ok(place) = serde_json::from_slice::<Place>(line) else { return false };
        ask.before.is_some_and(|n| place.number >= n) || ask.until.is_some_and(|t| place.noted > t)
    };
    if ask.before.is_none() && ask.until.is_none() {
        return Ok(segment.len);
    }
    // The smallest place from which on the next line is beyond.
    let (mut low, mut high) = (0, segment.len);
    while low < high {
        let middle = low + (high - low) / 2;
        match line_from(&segment.path, middle, segment.len)? {
            Some((_, line)) if !beyond(&line) => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(line_from(&segment.path, low, segment.len)?.map_or(segment.len, |(start, _)| start))
}

/// The first line that begins at byte `from` or later, among the first `len` bytes, and where it
/// begins.
///
/// # Errors
/// Those of the system.
pub fn line_from(path: &Path, from: u64, len: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut file = File::open(path)?;
    // A line begins behind a newline.
    let at = from.saturating_sub(1);
    file.seek(SeekFrom::Start(at))?;
    let mut reader = BufReader::with_capacity(PROBE, file.take(len.saturating_sub(at)));
    let start = if from == 0 { 0 } else { at + skip_line(&mut reader)? };
    let mut line = Vec::new();
    reader.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    Ok(line.pop_if(|last| *last == b'\n').map(|_| (start, line)))
}

/// Reads a file of lines from its end to its beginning.
pub struct Backwards {
    file: File,
    /// Where in the file `buffer` begins.
    at: u64,
    buffer: Vec<u8>,
}

impl Backwards {
    /// Reads the first `end` bytes of a file, which end in a newline.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(path: &Path, end: u64) -> io::Result<Backwards> {
        Ok(Backwards { file: File::open(path)?, at: end, buffer: Vec::new() })
    }

    /// The line before, without its newline; what is too long for a line comes in pieces.
    ///
    /// # Errors
    /// Those of the system.
    pub fn step(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let end = self.buffer.len().saturating_sub(1);
            let newline = self.buffer[..end].iter().rposition(|b| *b == b'\n');
            let begin = match newline {
                Some(at) => at + 1,
                None if self.at == 0 && self.buffer.is_empty() => return Ok(None),
                None if self.at == 0 || end as u64 > LINE_BYTES_MAX => 0,
                None => {
                    self.read_more()?;
                    continue;
                }
            };
            let mut line = self.buffer.split_off(begin);
            line.pop_if(|last| *last == b'\n');
            return Ok(Some(line));
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        let some = self.at.min(CHUNK);
        let mut more = vec![0; usize::try_from(some).unwrap_or_default()];
        self.file.read_exact_at(&mut more, self.at - some)?;
        more.append(&mut self.buffer);
        self.buffer = more;
        self.at -= some;
        Ok(())
    }
}
