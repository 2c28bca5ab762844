//! The audit of this site: lines that are only ever added, each bound to the one before it.
//!
//! A line is one JSON text ([`xos_api::audit::Line`]) with its number and the SHA-256 of the line
//! before, in files named by their first number. Nothing is ever deleted or changed. Whoever has
//! the core can still write all of it anew; so every few seconds the core signs how far it is and
//! lets the other sites witness that ([`exchange`]), and what was witnessed cannot be changed or
//! cut off unseen ([`walk`], [`check`]).
//!
//! One thread writes ([`writer`]); a search reads the files that may hold what is looked for
//! ([`look`]).

mod budget;
mod check;
pub(crate) mod exchange;
mod files;
pub(crate) mod heads;
mod index;
mod look;
mod open;
mod queue;
mod space;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

pub use budget::{NODE_EVENTS_BURST, NODE_EVENTS_PER_S};
pub use check::verify_folder;
pub use files::LINE_BYTES_MAX;
pub use heads::{reread, witnesses};
pub use look::{LOOKED_AT_MAX, Scope};
pub use open::End;
pub use queue::{QUEUE_BYTES_MAX, QUEUE_EVENTS_MAX};
pub use space::{RESERVE_BYTES, free_bytes};
pub use walk::{FAULTS_MAX, Walk, Witness, hash};

pub(crate) use budget::{Budget, Verdict, cost};

use files::Segment;
use index::Index;
use queue::{Queue, Task};
use space::Space;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;
use xos_api::audit::{AuditCheck, AuditPage, AuditPlace, Event, SearchAudit};
use xos_base::when::Clock;
use xos_base::{Error, NodeId, SiteId};
use xos_net::audit::Receipt;

/// How an audit is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// A file that has reached this many bytes gets no more lines. Default: 16 MiB.
    pub segment_bytes: u64,
    /// How often other sites are told how far it is, when it has grown. Default: 10 s.
    pub witnessed_every: Duration,
    /// With less free space, in bytes, only what matters is noted. Default: [`RESERVE_BYTES`].
    pub reserve_bytes: u64,
    /// How much space is free where a folder lies. Default: [`free_bytes`].
    pub free: fn(&Path) -> std::io::Result<u64>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 16 * 1024 * 1024,
            witnessed_every: Duration::from_secs(10),
            reserve_bytes: RESERVE_BYTES,
            free: free_bytes,
        }
    }
}

/// The audit of a site, open for writing.
pub struct AuditLog {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    writer: Mutex<Option<JoinHandle<()>>>,
    witnessed_every: Duration,
}

/// What the writer and readers have in common.
pub(super) struct Shared {
    dir: PathBuf,
    site: SiteId,
    segment_bytes: u64,
    free: fn(&Path) -> std::io::Result<u64>,
    space: Space,
    index: Index,
    /// The files, as far as they are on the disk.
    segments: RwLock<Vec<Segment>>,
    end: watch::Sender<End>,
}

impl Shared {
    /// The file that is written has grown, or is a new one.
    fn grew(&self, current: &Segment, end: &End) {
        {
            let mut all = self.segments.write().unwrap_or_else(PoisonError::into_inner);
            match all.last_mut() {
                Some(last) if last.first == current.first => last.clone_from(current),
                _ => all.push(current.clone()),
            }
        }
        self.end.send_replace(end.clone());
    }

    fn segments(&self) -> Vec<Segment> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl AuditLog {
    /// Opens or makes the audit of `site` in `dir`, which becomes a folder that its owner alone may
    /// enter. Blocks: reads the newest file.
    ///
    /// Half a line at the end is cut off, since nobody was told that it is stored. Other damage
    /// stays as it is; a new file begins, with a line that tells of it.
    ///
    /// # Errors
    /// [`xos_base::Kind::Conflict`] when another process has it open; those of the system.
    pub fn open(
        dir: &Path,
        site: SiteId,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<AuditLog, Error> {
        let opened = open::open(dir, &site, clock.now())?;
        let shared = Arc::new(Shared {
            dir: dir.to_path_buf(),
            site,
            segment_bytes: options.segment_bytes,
            free: options.free,
            space: Space::new(options.reserve_bytes),
            index: Index::default(),
            segments: RwLock::new(opened.segments.clone()),
            end: watch::Sender::new(opened.end.clone()),
        });
        let damaged = opened.damage.is_some();
        let queue = Arc::new(Queue::default());
        let thread = {
            let (queue, shared) = (queue.clone(), shared.clone());
            move || writer::run(&queue, shared, &*clock, opened)
        };
        let writer = std::thread::Builder::new()
            .name("xos-audit".to_owned())
            .spawn(thread)
            .map_err(|e| Error::internal(format!("cannot start the audit's writer: {e}")))?;
        let log = AuditLog {
            shared,
            queue,
            writer: Mutex::new(Some(writer)),
            witnessed_every: options.witnessed_every,
        };
        if damaged {
            // What is to be told is written before whatever comes first, even if nothing comes.
            let _unheard = log.push(Vec::new(), None);
        }
        Ok(log)
    }

    /// Whose audit it is.
    pub fn site(&self) -> &SiteId {
        &self.shared.site
    }

    /// The end of the chain on the disk.
    pub fn end(&self) -> End {
        self.shared.end.borrow().clone()
    }

    pub(crate) fn witnessed_every(&self) -> Duration {
        self.witnessed_every
    }

    /// Notes what a node reports: `events`, of which the first has the number `first` in the count
    /// `series`. What was stored before, also before a restart, is not stored again.
    pub(crate) fn report(
        &self,
        node: NodeId,
        series: String,
        first: u64,
        events: Vec<Event>,
    ) -> Receipt {
        let events = events.into_iter().map(Event::cut).collect();
        self.push(events, Some((node, series, first)))
    }

    /// Finds lines, newest first. Blocks: reads files.
    ///
    /// # Errors
    /// Those of the system.
    pub fn search(&self, scope: &Scope, ask: &SearchAudit) -> Result<AuditPage, Error> {
        look::search((&self.shared.segments()[..], &self.shared.index), scope, ask)
    }

    /// Verifies some files from `from` on. Blocks: reads files. Witnesses must be asked before, so
    /// that the audit holds what they saw.
    ///
    /// # Errors
    /// [`xos_base::Kind::NotFound`] when there is no such place; those of the system.
    pub fn check(
        &self,
        from: Option<&AuditPlace>,
        witnesses: Vec<Witness>,
    ) -> Result<AuditCheck, Error> {
        let mut witnesses = witnesses;
        let end = self.end();
        if end.number > 0 {
            // What this process itself wrote last.
            let by = self.shared.site.clone();
            witnesses.push(Witness { by, number: end.number, hash: end.hash });
        }
        // What lies in the folder, not what is known to lie there: a file may be gone.
        let mut files = files::list(&self.shared.dir)?;
        for known in self.shared.segments() {
            if let Some(file) = files.iter_mut().find(|f| f.first == known.first) {
                // Beyond that it is not on the disk yet.
                file.len = known.len;
            }
        }
        let archived = files::read_archived(&self.shared.dir)?;
        check::some_files(&self.shared.site, (files.as_slice(), archived.as_ref()), from, witnesses)
    }

    /// Before which line [`AuditLog::check`] from the same place ends; `None`: it goes to the end.
    ///
    /// # Errors
    /// [`xos_base::Kind::NotFound`] when there is no such place; those of the system.
    pub(crate) fn beyond(&self, from: Option<&AuditPlace>) -> Result<Option<u64>, Error> {
        check::beyond(&files::list(&self.shared.dir)?, from)
    }

    /// Writes what waits and ends. Blocks. Later events are refused.
    pub fn close(&self) {
        self.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(_)) = writer.map(JoinHandle::join) {
            tracing::error!(dir = %self.shared.dir.display(), "the audit's writer had panicked");
        }
    }

    fn push(&self, events: Vec<Event>, report: Option<(NodeId, String, u64)>) -> Receipt {
        let (given, receipt) = Receipt::new();
        self.queue.push(Task { events, report, given });
        receipt
    }
}

impl xos_net::Audit for AuditLog {
    fn record(&self, event: Event) -> Receipt {
        if self.shared.space.leaves_out(&event) {
            let (given, receipt) = Receipt::new();
            // Nobody may wait for it.
            let _unheard = given.send(Ok(()));
            return receipt;
        }
        self.push(vec![event.cut()], None)
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.close();
    }
}
