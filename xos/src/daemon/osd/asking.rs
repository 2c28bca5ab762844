//! When the home of a VO may be asked which volumes the VO has. Whoever reaches an object server
//! can make it look for a key, by a capability that nobody signed, so that asking has a bound: one
//! question at a time for each VO, and no further one for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use xtreemfs_server::VoName;

/// From the beginning of a question to that of the next about the same VO.
pub const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The questions about the VOs whose objects are kept here: of others nobody is asked.
#[derive(Default)]
pub struct Asking(Mutex<HashMap<VoName, Asked>>);

/// The last question about a VO.
struct Asked {
    begun: Instant,
    under_way: Weak<()>,
    /// Whether this one or an earlier one was answered.
    heard: bool,
}

/// A question under way, as long as this is kept.
pub struct Question {
    _under_way: Arc<()>,
}

impl Asking {
    fn lock(&self) -> MutexGuard<'_, HashMap<VoName, Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a question; `None` when it is not the time.
    pub fn begin(&self, vo: &VoName, now: Instant) -> Option<Question> {
        let mut asked = self.lock();
        let mut heard = false;
        if let Some(last) = asked.get(vo) {
            let soon = now.saturating_duration_since(last.begun) < AGAIN_AFTER;
            if soon || last.under_way.strong_count() > 0 {
                return None;
            }
            heard = last.heard;
        }
        let question = Arc::new(());
        let under_way = Arc::downgrade(&question);
        asked.insert(vo.clone(), Asked { begun: now, under_way, heard });
        Some(Question { _under_way: question })
    }

    /// Notes that the home has answered.
    pub fn heard(&self, vo: &VoName) {
        if let Some(asked) = self.lock().get_mut(vo) {
            asked.heard = true;
        }
    }

    /// Whether the home has answered since the start.
    pub fn is_heard(&self, vo: &VoName) -> bool {
        self.lock().get(vo).is_some_and(|asked| asked.heard)
    }
}
