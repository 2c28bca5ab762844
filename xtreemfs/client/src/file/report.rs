//! Errors of writes that were already acknowledged to the writer.
//!
//! Such an error must reach the application: each handle learns of it at its next write and, apart
//! from that, at its next fsync or close (the rule of the kernel's own page cache, `errseq_t`).

use crate::Error;

/// The errors of one inode: the latest one and how many there were.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    count: u64,
    last: Option<Error>,
    /// The count up to which some handle was told at an fsync or close.
    told: u64,
}

/// What one handle has been told so far.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Told {
    at_write: u64,
    at_sync: u64,
}

impl Errors {
    /// Keeps the error of a background write.
    pub(crate) fn record(&mut self, error: Error) {
        self.count += 1;
        self.last = Some(error);
    }

    /// What a handle opened now counts as told: everything somebody heard of already.
    pub(crate) fn opened(&self) -> Told {
        Told { at_write: self.told, at_sync: self.told }
    }

    /// The error to return from a write, once per handle.
    pub(crate) fn at_write(&self, told: &mut Told) -> Option<Error> {
        let news = told.at_write < self.count;
        told.at_write = self.count;
        if news { self.last.clone() } else { None }
    }

    /// The error to return from fsync, flush or close, once per handle, also when a write told it.
    pub(crate) fn at_sync(&mut self, told: &mut Told) -> Option<Error> {
        let news = told.at_sync < self.count;
        *told = Told { at_write: self.count, at_sync: self.count };
        if !news {
            return None;
        }
        self.told = self.count;
        self.last.clone()
    }

    /// The last error when no fsync or close of any handle has returned it.
    pub(crate) fn untold(&self) -> Option<&Error> {
        if self.told < self.count { self.last.as_ref() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error() -> Error {
        Error::Local { errno: libc::ENOSPC, reason: "full".into() }
    }

    #[test]
    fn a_lost_write_is_told_at_write_and_again_at_sync() {
        let mut errors = Errors::default();
        let mut handle = errors.opened();
        assert!(errors.at_write(&mut handle).is_none());
        errors.record(error());
        assert_eq!(errors.at_write(&mut handle).map(|e| e.errno()), Some(libc::ENOSPC));
        assert!(errors.at_write(&mut handle).is_none(), "one write told, the next goes on");
        assert!(errors.untold().is_some(), "no close has returned it yet");
        assert!(errors.at_sync(&mut handle).is_some(), "the close must still say it");
        assert!(errors.at_sync(&mut handle).is_none());
        assert!(errors.untold().is_none());
    }

    #[test]
    fn each_open_handle_is_told_and_a_later_one_only_of_what_nobody_heard() {
        let mut errors = Errors::default();
        let (mut a, mut b) = (errors.opened(), errors.opened());
        errors.record(error());
        let mut late = errors.opened();
        assert!(errors.at_sync(&mut late).is_some(), "nobody was told before it opened");
        assert!(errors.at_sync(&mut a).is_some());
        assert!(errors.at_sync(&mut b).is_some());
        let mut after = errors.opened();
        assert!(errors.at_sync(&mut after).is_none(), "an old error is not its own");
    }
}
