//! From a copy's relay to what is kept of its tree here.

use super::second::Second;
use super::spools::locked;
use std::io;
use std::sync::{Arc, Mutex};

/// What is seen of a relay.
#[derive(Debug, Default)]
struct Seen {
    /// Up to where it has read output and error, or the spool has them from before.
    read: [u64; 2],
    /// Up to where the spool has them.
    taken: [u64; 2],
    /// Where what it reads is kept as well.
    to: Option<Arc<Mutex<Second>>>,
}

/// Sees what a relay reads, and adds it to what is kept of the tree at the node, once that is to
/// be. With the last of it the copy is gone, and what it added and is not sure does not count.
#[derive(Debug, Default)]
pub struct Follow(Mutex<Seen>);

impl Follow {
    /// Of a relay whose streams are at these offsets.
    pub fn new(at: [u64; 2]) -> Follow {
        Follow(Mutex::new(Seen { read: at, taken: at, to: None }))
    }

    /// What is read from now on is kept.
    ///
    /// # Errors
    /// Those of the files.
    pub fn begin(&self, second: &Arc<Mutex<Second>>) -> io::Result<()> {
        let mut seen = locked(&self.0);
        locked(second).follow_from(seen.read)?;
        seen.to = Some(second.clone());
        Ok(())
    }

    /// Nothing more is kept; what was stays as it is. Up to where the spool has the streams.
    pub fn stop(&self) -> [u64; 2] {
        let mut seen = locked(&self.0);
        seen.to = None;
        seen.taken
    }

    /// The spool has the streams up to here.
    pub(in crate::ghost) fn taken(&self, taken: [u64; 2]) {
        let mut seen = locked(&self.0);
        seen.taken = [0, 1].map(|i| seen.taken[i].max(taken[i]));
    }

    /// The relay read these bytes of a stream, from an offset on. Up to `ahead` the spool has the
    /// stream from before, and takes no others.
    pub(in crate::ghost) fn read(&self, i: usize, at: u64, bytes: &[u8], ahead: u64) {
        let mut seen = locked(&self.0);
        seen.read[i] = at.saturating_add(bytes.len() as u64).max(ahead);
        let known = usize::try_from(ahead.saturating_sub(at)).unwrap_or(usize::MAX);
        let new = &bytes[known.min(bytes.len())..];
        let Some(second) = seen.to.as_ref().filter(|_| !new.is_empty()) else { return };
        let mut second = locked(second);
        if let Err(error) = second.follow(i, at.max(ahead), new) {
            tracing::warn!(%error, "the output of a copy is kept no further");
            if let Err(error) = second.unfollow() {
                tracing::warn!(%error, "what is kept of its output is not cut back");
            }
            drop(second);
            seen.to = None;
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let second = locked(&self.0).to.take();
        if let Some(Err(error)) = second.map(|second| locked(&second).unfollow()) {
            tracing::warn!(%error, "what is kept of a tree's output is not cut back");
        }
    }
}
