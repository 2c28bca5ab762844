//! Who takes a tree's output, its ghost or the spool: each byte once, whichever copy sends it.

use serde::{Deserialize, Serialize};

/// One stream of a tree as it is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intake {
    /// The newest copy that was heard.
    pub epoch: u64,
    /// Bytes taken: what is acknowledged.
    pub received: u64,
}

/// What is done with bytes that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// All but the first `skip` are new; those were taken before.
    New {
        /// How many are dropped.
        skip: u64,
    },
    /// All of them were taken before.
    Known,
    /// Some before them are missing: they are to be sent again from [`Intake::received`].
    Gap,
    /// A copy that is not the tree any more.
    Stale,
}

impl Intake {
    /// Bytes came: `len` of them, the first at `from` since the tree began. The answer to the
    /// sender is [`Intake::received`].
    pub fn take(&mut self, epoch: u64, from: u64, len: u64) -> Taken {
        if epoch < self.epoch {
            return Taken::Stale;
        }
        self.epoch = epoch;
        let end = from.saturating_add(len);
        if from > self.received {
            Taken::Gap
        } else if end <= self.received {
            Taken::Known
        } else {
            let skip = self.received - from;
            self.received = end;
            Taken::New { skip }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_taken_once() {
        let mut intake = Intake::default();
        assert_eq!(intake.take(1, 0, 10), Taken::New { skip: 0 });
        assert_eq!(intake.take(1, 0, 10), Taken::Known, "a doubled message");
        assert_eq!(intake.take(1, 12, 3), Taken::Gap, "a lost one");
        // Restarted from a checkpoint at byte 6.
        assert_eq!(intake.take(3, 6, 3), Taken::Known);
        assert_eq!(intake.take(3, 9, 3), Taken::New { skip: 1 });
        assert_eq!(intake.take(1, 12, 4), Taken::Stale, "a late one of the copy before");
        assert_eq!(intake.received, 12);
    }
}
