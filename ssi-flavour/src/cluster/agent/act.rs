//! What an agent has its host do.

use crate::cluster::messages::{Image, Outcome, ToController, TreeId, Written};
use crate::pids::NodeNumber;
use std::collections::BTreeSet;

/// What the caller does, in order. Each changes nothing when it is done again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Start the program; then [`super::Agent::started`].
    Start {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
    },
    /// Let the copy run; a dump that is being made is given up.
    Resume {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
    },
    /// Check, freeze, wait until all output was taken, dump; then [`super::Agent::dumped`].
    Dump {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// What for.
        attempt: u64,
        /// The number of the image.
        version: u64,
        /// Whether the image is a checkpoint, on the disk, before that is called.
        lasts: bool,
    },
    /// Fetch the image, make a stopped copy; then [`super::Agent::restored`].
    Restore {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// What of.
        image: Image,
        /// Whether files are brought back first; then [`super::Agent::cut`] before, or
        /// [`super::Agent::barred`].
        roll_back: bool,
    },
    /// Begin to fetch an image that is being made.
    Expect {
        /// The tree.
        tree: TreeId,
        /// The number of the image.
        version: u64,
        /// The node that makes it.
        from: NodeNumber,
    },
    /// End the copy, or what is being made of it; then [`super::Agent::killed`].
    Kill {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
    },
    /// Dump and let go on; complete when all output until then was taken; then
    /// [`super::Agent::saved`].
    Save {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// The number of the image.
        version: u64,
    },
    /// Fetch an image and keep it; then [`super::Agent::held`].
    Hold {
        /// The tree.
        tree: TreeId,
        /// Which attempt.
        attempt: u64,
        /// The number of the image.
        version: u64,
        /// The nodes that have it.
        from: BTreeSet<NodeNumber>,
        /// The account whose program it is of.
        owner: u32,
        /// What of its output is kept as well.
        output: Option<Written>,
    },
    /// Send the copy's output to a spool here; then [`super::Agent::spooled`].
    Spool {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// What that begins with; none: what is in it.
        output: Option<Written>,
    },
    /// Remove a spool that no copy after this one wrote to, and nobody uses.
    Unspool {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
    },
    /// End the ghost, if there is one, like the tree.
    Finish {
        /// The tree.
        tree: TreeId,
        /// How.
        outcome: Outcome,
    },
    /// End the ghost, if there is one that does not know how its tree ended: the tree is lost.
    Forsake {
        /// The tree.
        tree: TreeId,
    },
    /// End all ghosts: the cluster goes on without them.
    Abandon,
    /// Remove an image.
    Discard {
        /// The tree.
        tree: TreeId,
        /// The image.
        version: u64,
    },
    /// All copies stand still, those too that come or are resumed, until [`Act::Thaw`].
    Freeze,
    /// They do not any more.
    Thaw,
    /// Tell the controller.
    Say(ToController),
}
