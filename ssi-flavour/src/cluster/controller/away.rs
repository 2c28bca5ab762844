//! What trees that left leave behind: their images, which are all that is of them until who has
//! their jobs says that they go on elsewhere. No node frees that room by itself, so it is bounded
//! before anything is stopped.

use super::Controller;
use crate::cluster::messages::{Image, TreeId};
use crate::cluster::trees::{Tree, TreeState};
use crate::pids::NodeNumber;

/// The most that such images take on the disk of one node, in bytes, of one member and of all. One
/// image may be larger.
const MEMBER_BYTES_MAX: u64 = 64 << 30;
const NODE_BYTES_MAX: u64 = 256 << 30;
/// What an image counts for at least, bytes: a small one takes room as well.
const IMAGE_BYTES_LEAST: u64 = 16 << 20;
/// What one counts for that is not made yet, when no checkpoint tells, bytes.
const IMAGE_BYTES_GUESS: u64 = 1 << 30;

impl Controller {
    /// Whether the image of a tree that is to leave may stay on the disk of its node.
    ///
    /// # Errors
    /// What is in the way, for the person.
    pub(super) fn has_room_for_image(&self, t: &Tree) -> Result<(), String> {
        let (mut own, mut all) = (0_u64, 0_u64);
        for (_, other) in self.state.trees.iter() {
            let bytes = left_on(other, t.node);
            all = all.saturating_add(bytes);
            if (&other.owner.vo, other.owner.member) == (&t.owner.vo, t.owner.member) {
                own = own.saturating_add(bytes);
            }
        }
        let next = t.checkpoint.as_ref().map_or(IMAGE_BYTES_GUESS, counted);
        let full = |sum: u64, most: u64| sum > 0 && sum.saturating_add(next) > most;
        let whose = match (full(own, MEMBER_BYTES_MAX), full(all, NODE_BYTES_MAX)) {
            (true, _) => "this member's programs",
            (false, true) => "programs",
            (false, false) => return Ok(()),
        };
        let name = self.state.members.name(t.node);
        Err(format!(
            "{name} keeps as many images of {whose} that left as it may: it can leave when these \
             go on elsewhere"
        ))
    }

    /// The trees that left, of whose image no other node that is in the cluster has a copy.
    pub fn only_at(&self, node: NodeNumber) -> Vec<TreeId> {
        let only = |t: &Tree| {
            let image = t.checkpoint.as_ref().filter(|_| t.state == TreeState::Away);
            image.is_some_and(|image| {
                let kept = image.kept();
                let elsewhere = |other: &NodeNumber| *other != node && self.works(*other);
                kept.contains(&node) && !kept.iter().any(elsewhere)
            })
        };
        self.state.trees.iter().filter(|(_, t)| only(t)).map(|(tree, _)| tree).collect()
    }
}

fn counted(image: &Image) -> u64 {
    image.bytes.max(IMAGE_BYTES_LEAST)
}

/// How many bytes the image of a tree that left, or is about to, counts for on a node.
fn left_on(t: &Tree, node: NodeNumber) -> u64 {
    match &t.state {
        TreeState::Away => {
            let image = t.checkpoint.as_ref().filter(|image| image.nodes.contains(&node));
            image.map_or(0, counted)
        }
        TreeState::Leaving { image, .. } if t.node == node => {
            image.as_ref().or(t.checkpoint.as_ref()).map_or(IMAGE_BYTES_GUESS, counted)
        }
        _ => 0,
    }
}
