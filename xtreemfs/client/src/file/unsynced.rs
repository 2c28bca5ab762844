//! What the OSDs have taken of a file and may not have on their disks yet.
//!
//! An OSD answers writes and syncs with a *verifier* ([`xtreemfs_proto::osd`]) that changes when it
//! may have lost what was not synced. So each OSD's last one is kept until a good sync covers all
//! that was written under it; another one before that means that data may be lost, and is told to
//! every handle as the loss of a write is.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use super::inode::Inode;
use super::rights::Rights;
use crate::limits::{CLOSED_UNSYNCED_MAX, CLOSED_UNSYNCED_TTL};
use crate::{Error, Ino, Result};

/// What one inode's OSDs have not synced, as far as it was written here.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    /// By place in the layout.
    osds: HashMap<usize, Taken>,
    writes: u64,
}

/// What an OSD took and has not synced.
#[derive(Debug, Clone, Copy)]
struct Taken {
    verifier: u64,
    /// Number of the newest write.
    newest: u64,
}

/// A moment in the order of writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark(u64);

impl Unsynced {
    /// Now. Taken before a sync is asked for: what an OSD answers to later may not be in it.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.writes)
    }

    /// Notes an OSD's answer to a write; whether what was written before may be lost.
    #[must_use]
    pub(super) fn wrote(&mut self, osd: usize, verifier: u64) -> bool {
        self.writes += 1;
        let before = self.osds.insert(osd, Taken { verifier, newest: self.writes });
        before.is_some_and(|before| before.verifier != verifier)
    }

    /// Notes an OSD's answer to a sync that was asked for after `mark`; whether what was written
    /// before may be lost.
    #[must_use]
    pub(super) fn synced(&mut self, osd: usize, verifier: u64, mark: Mark) -> bool {
        let Some(taken) = self.osds.remove(&osd) else { return false };
        if taken.newest > mark.0 {
            self.osds.insert(osd, Taken { verifier, ..taken });
        }
        taken.verifier != verifier
    }

    /// Forgets what was written before `mark`: it was cut away, and the cut is durable.
    pub(super) fn cut_away(&mut self, mark: Mark) {
        self.osds.retain(|_, taken| taken.newest > mark.0);
    }

    fn is_empty(&self) -> bool {
        self.osds.is_empty()
    }
}

/// The same of files that are no longer open here: `sync FILE` opens a file anew. Kept for as long
/// as the OSDs' kernels need to bring everything to their disks by themselves.
#[derive(Debug, Default)]
pub(crate) struct Closed {
    files: HashMap<Ino, (Instant, Unsynced)>,
    /// Oldest first; also of files that were opened again.
    order: VecDeque<(Instant, Ino)>,
}

impl Closed {
    pub(crate) fn keep(&mut self, ino: Ino, unsynced: Unsynced) {
        self.forget_old();
        if unsynced.is_empty() {
            return;
        }
        let now = Instant::now();
        self.files.insert(ino, (now, unsynced));
        self.order.push_back((now, ino));
        if self.order.len() > CLOSED_UNSYNCED_MAX {
            self.forget_oldest();
        }
    }

    pub(crate) fn take(&mut self, ino: Ino) -> Unsynced {
        self.forget_old();
        self.files.remove(&ino).map(|(_, unsynced)| unsynced).unwrap_or_default()
    }

    fn forget_old(&mut self) {
        while self.order.front().is_some_and(|(at, _)| at.elapsed() >= CLOSED_UNSYNCED_TTL) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((at, ino)) = self.order.pop_front() else { return };
        if self.files.get(&ino).is_some_and(|(kept, _)| *kept == at) {
            self.files.remove(&ino);
        }
    }
}

impl Inode {
    /// Takes over what the OSDs answered to a sync that was asked for after `mark`. That one could
    /// not do it, or may have lost what was not synced, is told to every handle: whose data it was
    /// is not known.
    ///
    /// # Errors
    /// `EACCES` when only this person's right has ended; no data are lost by that.
    pub(super) fn synced(
        &self,
        rights: &Rights,
        mark: Mark,
        answers: Vec<Result<u64>>,
    ) -> Result<()> {
        let (mut denied, mut failed) = (None, false);
        let mut state = self.lock();
        for (osd, answer) in answers.into_iter().enumerate() {
            let error = match answer {
                Ok(verifier) if state.unsynced.synced(osd, verifier, mark) => {
                    self.lost_by(rights, osd)
                }
                Ok(_) => continue,
                Err(error) if error.errno() == libc::EACCES => {
                    denied = Some(error);
                    continue;
                }
                Err(error) => error,
            };
            state.errors.record(error);
            failed = true;
        }
        match denied {
            Some(denied) if !failed => Err(denied),
            _ => Ok(()),
        }
    }

    /// That an OSD may have lost what was written to it.
    pub(super) fn lost_by(&self, rights: &Rights, osd: usize) -> Error {
        let name = rights.layout().osds.get(osd).map_or("an OSD", String::as_str);
        let reason = format!(
            "the machine of {name} was started anew before all that was written to inode {} was \
             on its disk: some may be lost, write it again",
            self.ino
        );
        Error::local(libc::EIO, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, data that an OSD lost would be taken for stored; or a sync would fail though
    /// nothing is lost.
    #[test]
    fn another_verifier_tells_of_a_loss_only_while_something_is_not_synced() {
        let mut unsynced = Unsynced::default();
        assert!(!unsynced.synced(0, 1, unsynced.mark()), "nothing was written");
        assert!(!unsynced.wrote(0, 1) && !unsynced.wrote(0, 1) && !unsynced.wrote(1, 7));
        assert!(!unsynced.synced(0, 1, unsynced.mark()));
        assert!(!unsynced.synced(0, 2, unsynced.mark()), "all was synced before");
        assert!(!unsynced.wrote(0, 2));
        assert!(unsynced.wrote(0, 3), "a write tells as well");
        assert!(unsynced.synced(0, 4, unsynced.mark()));
        assert!(!unsynced.synced(0, 5, unsynced.mark()), "told once");
        assert!(unsynced.synced(1, 8, unsynced.mark()), "of another OSD");
    }

    /// If it failed, a write that an OSD took while a sync was under way would count as synced.
    #[test]
    fn a_sync_covers_only_what_was_written_before_it_was_asked_for() {
        let mut unsynced = Unsynced::default();
        let mark = unsynced.mark();
        assert!(!unsynced.wrote(0, 1));
        assert!(!unsynced.synced(0, 1, mark));
        assert!(unsynced.synced(0, 2, mark), "it was not in that sync");
        assert!(!unsynced.synced(0, 2, unsynced.mark()));
        assert!(!unsynced.wrote(0, 2));
        unsynced.cut_away(mark);
        assert!(!unsynced.is_empty(), "written after the cut");
        unsynced.cut_away(unsynced.mark());
        assert!(unsynced.is_empty());
    }

    /// If it failed, a client would hold memory for every file that it ever wrote, or forget the
    /// files that it wrote last.
    #[tokio::test(start_paused = true)]
    async fn what_is_kept_of_closed_files_is_bounded() {
        let written = || {
            let mut unsynced = Unsynced::default();
            assert!(!unsynced.wrote(0, 1));
            unsynced
        };
        let mut closed = Closed::default();
        for round in 0..3 {
            for n in 0..CLOSED_UNSYNCED_MAX as u64 {
                closed.keep(Ino(n / 2), written());
                assert!(!closed.take(Ino(n / 2)).is_empty());
                closed.keep(Ino(n / 2 + round), written());
            }
            assert!(closed.order.len() <= CLOSED_UNSYNCED_MAX);
            assert!(closed.files.len() <= closed.order.len());
        }
        let last = Ino(CLOSED_UNSYNCED_MAX as u64 / 2);
        assert!(!closed.take(last).is_empty());
        tokio::time::advance(CLOSED_UNSYNCED_TTL).await;
        assert!(closed.take(Ino(last.0 - 1)).is_empty());
        assert!(closed.files.is_empty() && closed.order.is_empty());
    }
}
