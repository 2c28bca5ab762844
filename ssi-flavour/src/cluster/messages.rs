//! What the controller and the nodes of a cluster say to one another.

mod written;

pub use written::{Line, Stretch, Written};

use crate::pids::NodeNumber;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use xos_base::Millis;

/// Longest reason why a program was not started that its person is told, characters.
pub const WHY_CHARS_MAX: usize = 500;

/// A tree of processes that runs and moves as a whole: a number given once. Its root's pid may be
/// another tree's later.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct TreeId(pub u64);

impl fmt::Display for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many bytes a tree wrote since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Offsets {
    /// To its output.
    pub out: u64,
    /// To its error output.
    pub err: u64,
}

/// A complete checkpoint. It counts as complete when who takes the tree's output has all that the
/// tree had written by then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Image {
    /// Its number in the tree, growing.
    pub version: u64,
    /// What the tree had written: a restart writes from there.
    pub output: Offsets,
    /// Its size.
    pub bytes: u64,
    /// For how long the tree stood still, ms.
    pub freeze_ms: u64,
    /// For how long it had stood still when the image was complete, ms; in a move it still does.
    #[serde(default)]
    pub still_ms: u64,
    /// The nodes that have it.
    pub nodes: BTreeSet<NodeNumber>,
    /// It is on the volume: each node reaches it.
    pub shared: bool,
    /// Of the nodes that have it, those that keep what the tree had written by then, too: the
    /// tree's spool is elsewhere.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub written: BTreeSet<NodeNumber>,
    /// Those of them that have it in memory only, as after a move: it counts as a checkpoint where
    /// they are, and takes no other one's place until they say that they have it for good
    /// ([`Fact::Holds`]).
    #[serde(default)]
    pub brief: BTreeSet<NodeNumber>,
}

impl Image {
    /// Another node has it now, as those had it from whom it came.
    pub fn came_to(&mut self, node: NodeNumber) {
        self.nodes.insert(node);
        if !self.brief.is_empty() {
            self.brief.insert(node);
        }
    }

    /// The nodes that have it for good.
    pub fn kept(&self) -> BTreeSet<NodeNumber> {
        self.nodes.difference(&self.brief).copied().collect()
    }
}

/// A file of a tree that was cut back to what it was when the tree was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CutFile {
    /// Its path.
    pub path: String,
    /// That of the file which holds what was behind its end.
    pub kept: String,
    /// So much of it.
    pub bytes: u64,
}

/// How a tree's root ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum End {
    /// By itself.
    Exit {
        /// Its exit status.
        code: u8,
    },
    /// By a signal.
    Signal {
        /// Its number.
        number: u8,
    },
    /// As a process of it was killed when it had all the memory that it may.
    OutOfMemory,
    /// Badly, when it had as many processes as it may.
    ProcessLimit {
        /// Its exit status, or 128 and the signal that ended it.
        status: u8,
    },
}

/// What a ghost tells its person whose tree nobody knows ([`Order::Forsake`]).
pub const FORSAKEN: &str = "the site's core was ended before it had written it down";

/// What became of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "TreeOutcome")]
pub enum Outcome {
    /// It ended.
    Ended(End),
    /// It cannot go on.
    Lost {
        /// Why, for the person.
        reason: String,
    },
}

/// What a node is to do. Doing it again, or when it no longer applies, changes nothing and gives
/// the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Order {
    /// Start the tree's program; answered by [`Fact::Runs`].
    Start {
        /// The tree.
        tree: TreeId,
        /// The new copy's epoch.
        epoch: u64,
    },
    /// Let the copy run; answered by [`Fact::Runs`].
    Run {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// Attempts to move it up to this one are over.
        floor: u64,
    },
    /// Check, freeze and dump the copy and leave it stopped; answered by [`Fact::Dumped`] or
    /// [`Fact::Refused`].
    Dump {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// The epoch of the copy that is to follow.
        attempt: u64,
        /// The number of the image.
        version: u64,
        /// Whether the image is a checkpoint, on the disk, before it is said to be complete: nothing
        /// else may be left of the tree then.
        #[serde(default)]
        lasts: bool,
    },
    /// Fetch the image and make a copy of it, stopped; answered by [`Fact::Restored`],
    /// [`Fact::NotRestored`] or [`Fact::Barred`], before which there may be [`Fact::CutBack`].
    Restore {
        /// The tree.
        tree: TreeId,
        /// The new copy's epoch.
        epoch: u64,
        /// What of; the copy writes from its offsets on.
        image: Image,
        /// Whether files that it had open are brought back to what they were first, as the tree ran
        /// on after the image was made.
        #[serde(default)]
        roll_back: bool,
    },
    /// The image is being made, and the copy of it will be wanted here: take it as it comes. Not
    /// answered: without it the copy is made as well, only later.
    Expect {
        /// The tree.
        tree: TreeId,
        /// The epoch of the copy that is to follow.
        epoch: u64,
        /// The number of the image.
        version: u64,
        /// The node that makes it.
        from: NodeNumber,
    },
    /// End the copy, or forget that it ended, and never make it again; where the tree was born, its
    /// ghost stays. Answered by [`Fact::Gone`].
    Kill {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
    },
    /// Checkpoint the copy, which goes on; answered by [`Fact::Saved`] or [`Fact::NotSaved`].
    Save {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// The number of the image.
        version: u64,
    },
    /// Fetch a copy of an image and keep it, so that it outlives the node that made it; answered by
    /// [`Fact::Holds`] or [`Fact::NotHeld`].
    Hold {
        /// The tree.
        tree: TreeId,
        /// Which attempt to have a copy this is, in the tree.
        attempt: u64,
        /// The number of the image.
        version: u64,
        /// The nodes that have it.
        from: BTreeSet<NodeNumber>,
        /// The account whose program it is of: another one's is not taken.
        owner: u32,
        /// What of its output is to be kept as well; none: nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Written>,
    },
    /// The tree's spool is lost, or at another node: the copy's output goes to one at this node,
    /// which begins with what was kept, else with the first byte that nobody acknowledged. Answered
    /// by [`Fact::Spooled`].
    Spool {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// What the spool is to begin with; none: what is in it already.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Written>,
    },
    /// The ghost of a tree ends; answered by [`Fact::Finished`].
    Finish {
        /// The tree.
        tree: TreeId,
        /// What became of it.
        outcome: Outcome,
    },
    /// The tree's output is collected elsewhere: the node's spool of it, which no copy after this
    /// one wrote to, is removed.
    Unspool {
        /// The tree.
        tree: TreeId,
        /// The last copy that wrote to that spool, as the node said.
        epoch: u64,
    },
    /// Nobody knows the tree for which a ghost stands at the node: the controller was ended before
    /// it had kept it. Nothing of it runs. A ghost that knows how its tree ended hears nothing.
    Forsake {
        /// The tree.
        tree: TreeId,
    },
    /// The image is not needed.
    Discard {
        /// The tree.
        tree: TreeId,
        /// The image.
        version: u64,
    },
}

/// What a node says of its copies; once true, always true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Fact {
    /// The copy was let run, or was running, after all attempts up to the floor.
    Runs {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// Which attempts will not stop it any more.
        floor: u64,
    },
    /// The copy is stopped and its image complete.
    Dumped {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// What for.
        attempt: u64,
        /// The image.
        image: Image,
    },
    /// The copy is not stopped for this attempt and will not be.
    Refused {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// Which attempt.
        attempt: u64,
        /// Why, for the person.
        reason: String,
    },
    /// The copy was made, stopped.
    Restored {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
    },
    /// There is no such copy and there will be none.
    NotRestored {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// Why, for the person.
        reason: String,
    },
    /// For the copy files were cut back.
    CutBack {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// Which.
        cut: Vec<CutFile>,
    },
    /// There is no such copy and there will be none, nor another one of the image as long as files
    /// are what they are now.
    Barred {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// Which files and why, for the person.
        reason: String,
    },
    /// There is no such copy any more and there will be none.
    Gone {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
    },
    /// The image is complete.
    Saved {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// The image.
        image: Image,
    },
    /// There will be no image of this number.
    NotSaved {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// The number.
        version: u64,
        /// Why, for the person.
        reason: String,
    },
    /// The node has the image as a whole.
    Holds {
        /// The tree.
        tree: TreeId,
        /// The number of the image.
        version: u64,
        /// Whether it keeps the output until then as well.
        #[serde(default)]
        output: bool,
    },
    /// This attempt to fetch an image came to nothing.
    NotHeld {
        /// The tree.
        tree: TreeId,
        /// Which attempt.
        attempt: u64,
        /// Why.
        reason: String,
    },
    /// The copy's output goes to the spool.
    Spooled {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
    },
    /// The copy's root ended and all its output was acknowledged; said until the copy is killed.
    Ended {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// How.
        end: End,
        /// Why its node did not start it, for the person; empty: it did.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// The tree's ghost ended, or there is none.
    Finished {
        /// The tree.
        tree: TreeId,
    },
}

/// What a node says to the controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ToController {
    /// Nothing of any term up to `after` is left here, and nothing of them will run.
    Join {
        /// The last term of this node; 0 when it had none.
        after: u64,
    },
    /// A heartbeat.
    Beat {
        /// The node's term.
        term: u64,
        /// When it was sent, by the node's clock.
        sent: Millis,
        /// The copies on the node, ended ones too.
        copies: Vec<(TreeId, u64)>,
        /// The images on the node.
        images: Vec<(TreeId, u64)>,
    },
    /// With heartbeats: the ghosts on the node.
    Ghosts {
        /// The node's term.
        term: u64,
        /// The trees for which they stand, or stood until they left.
        trees: Vec<TreeId>,
    },
    /// With heartbeats, from a node that was away: the spools that it has of trees of which it does
    /// not know that they are over.
    Spools {
        /// The node's term.
        term: u64,
        /// The trees, and the last copy of each that wrote there.
        trees: Vec<(TreeId, u64)>,
    },
    /// Answers.
    Facts {
        /// The node's term.
        term: u64,
        /// What is true.
        facts: Vec<Fact>,
    },
}

/// What the controller says to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ToNode {
    /// The node is in, under a new term.
    Admitted {
        /// What it had said.
        after: u64,
        /// The new term.
        term: u64,
    },
    /// The term was ended: all copies of it are to be killed, and all ghosts, before the node joins
    /// again.
    Expelled {
        /// The term.
        term: u64,
    },
    /// A heartbeat is answered: the lease lasts from when it was sent.
    Told {
        /// The node's term.
        term: u64,
        /// When the last heartbeat that was heard had been sent, by the node's clock.
        sent: Millis,
        /// What is to be done.
        orders: Vec<Order>,
    },
}
