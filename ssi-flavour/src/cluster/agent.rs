//! A node of a cluster: what copies it has, and whether they may run.
//!
//! The caller stores this value before it does what [`Act`]s say, and calls back when work ends.
//! One whose copies end with it need not store them: [`Agent::lasting`] is enough.
//! `now` is the node's clock that nobody can set ([`xos_base::when::Clock::up`]).

mod act;
mod done;
mod holds;
mod orders;

pub use act::Act;

use super::messages::{CutFile, End, Fact, Image, ToController, ToNode, TreeId};
use holds::Hold;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xos_base::Millis;

/// What a copy does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum What {
    Starting,
    /// Unless all stands still because the lease ended.
    Running,
    Dumping {
        attempt: u64,
    },
    /// It stands still.
    Dumped {
        attempt: u64,
        image: Image,
    },
    Restoring {
        version: u64,
    },
    /// It stands still.
    Restored,
    Ended {
        end: End,
        /// Whether it was ever let run.
        ran: bool,
        /// Why it was not started; empty: it was.
        #[serde(default)]
        why: String,
    },
    Dying,
}

/// A checkpoint while the copy runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Save {
    Making { version: u64 },
    Done { image: Image },
    Failed { version: u64, reason: String },
}

impl Save {
    fn version(&self) -> u64 {
        match self {
            Save::Making { version } | Save::Failed { version, .. } => *version,
            Save::Done { image } => image.version,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Copied {
    epoch: u64,
    what: What,
    /// Attempts up to this one do not stop it any more.
    floor: u64,
    /// Why the last of them failed.
    refused: String,
    save: Option<Save>,
    /// Files that were cut back to make it.
    #[serde(default)]
    cut: Vec<CutFile>,
    /// Its output goes to a spool here that it did not begin with.
    #[serde(default)]
    spooled: bool,
}

impl Copied {
    /// What is told of files before anything else of it.
    fn cut_back(&self, tree: TreeId) -> Vec<Fact> {
        let (epoch, cut) = (self.epoch, self.cut.clone());
        if cut.is_empty() { Vec::new() } else { vec![Fact::CutBack { tree, epoch, cut }] }
    }
}

/// A node's side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    lease: Duration,
    term: u64,
    joined: bool,
    copies: BTreeMap<TreeId, Copied>,
    /// Copies up to these epochs are never made again, and when that was said: no order is older
    /// than a lease when it is followed.
    fences: BTreeMap<TreeId, (u64, Millis)>,
    images: BTreeSet<(TreeId, u64)>,
    /// Of these, those with which what the tree had written is kept here.
    #[serde(default)]
    written: BTreeSet<(TreeId, u64)>,
    /// Of these, and of those that come, what is in memory only and goes with the agent
    /// ([`Image::brief`]).
    #[serde(default)]
    brief: BTreeSet<(TreeId, u64)>,
    /// Images that are fetched to be kept, or were to be, the last one of each tree.
    #[serde(default)]
    holds: BTreeMap<TreeId, Hold>,
    lease_until: Millis,
    frozen: bool,
}

impl Agent {
    /// A node that never was in the cluster. The lease is [`super::members::Times::lease`].
    pub fn new(lease: Duration) -> Agent {
        let (copies, fences, images, written, brief, holds) = Default::default();
        let (term, joined, frozen, lease_until) = (0, false, true, Millis(0));
        Agent {
            lease,
            term,
            joined,
            copies,
            fences,
            images,
            written,
            brief,
            holds,
            lease_until,
            frozen,
        }
    }

    /// What the lease is now: what was kept may be of other times. To be said before anything runs.
    pub fn set_lease(&mut self, lease: Duration) {
        self.lease = lease;
    }

    /// Its term; 0: none yet.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Until when its copies may run, by its clock. Who stops them then must live on when the agent
    /// does not.
    pub fn lease_until(&self) -> Millis {
        self.lease_until
    }

    /// The images that it keeps or has fetched to be kept.
    pub fn kept(&self) -> BTreeSet<(TreeId, u64)> {
        let fetched = self.holds.iter().map(|(tree, h)| (*tree, h.version));
        self.images.iter().copied().chain(fetched).collect()
    }

    /// Whether an image is among [`Agent::kept`].
    pub fn keeps(&self, tree: TreeId, version: u64) -> bool {
        let fetched = self.holds.get(&tree).is_some_and(|h| h.version == version);
        fetched || self.images.contains(&(tree, version))
    }

    /// Whether it keeps any image of a tree, or fetches one to keep it.
    pub fn keeps_some(&self, tree: TreeId) -> bool {
        let mut of = self.images.range((tree, 0)..=(tree, u64::MAX));
        of.next().is_some() || self.holds.contains_key(&tree)
    }

    /// What of it is to outlive the machine: all but what [`Agent::rebooted`] forgets.
    pub fn lasting(&self) -> Agent {
        let images = self.images.difference(&self.brief).copied().collect();
        let (written, holds) = (self.written.clone(), self.holds.clone());
        Agent { term: self.term, images, written, holds, ..Agent::new(self.lease) }
    }

    /// The images that it has for now only, and may be wanted for longer: once they are kept,
    /// [`Agent::held`].
    pub fn brief(&self) -> impl Iterator<Item = (TreeId, u64)> {
        self.brief.intersection(&self.images).copied()
    }

    /// The machine was started: nothing of what ran is left.
    pub fn rebooted(&mut self) {
        let brief = std::mem::take(&mut self.brief);
        self.images.retain(|image| !brief.contains(image));
        self.copies.clear();
        self.fences.clear();
        self.joined = false;
        self.lease_until = Millis(0);
        self.frozen = true;
        // Nobody is told: the next order to hold it is a new attempt.
        self.holds_broken_off("the node was started anew meanwhile");
    }

    /// Only the agent was started again: its copies are there, what it worked at is not.
    pub fn restarted(&mut self, now: Millis) -> Vec<Act> {
        self.lease_until = Millis(0);
        self.frozen = true;
        let mut out = vec![Act::Freeze];
        let why = || "the node's agent was restarted meanwhile".to_owned();
        let list: Vec<(TreeId, u64, What)> =
            self.copies.iter().map(|(t, c)| (*t, c.epoch, c.what.clone())).collect();
        for (tree, epoch, what) in list {
            match what {
                What::Starting => out.push(Act::Start { tree, epoch }),
                What::Running => out.push(Act::Resume { tree, epoch }),
                What::Dumping { attempt } => {
                    out.extend(self.dumped(tree, epoch, attempt, Err(why())));
                }
                What::Restoring { .. } => {
                    out.push(Act::Kill { tree, epoch });
                    out.extend(self.restored(tree, epoch, Err(why()), now));
                }
                What::Dying => out.push(Act::Kill { tree, epoch }),
                What::Dumped { .. } | What::Restored | What::Ended { .. } => {}
            }
            let making = self.copies.get(&tree).and_then(|c| match &c.save {
                Some(Save::Making { version }) => Some(*version),
                _ => None,
            });
            if let Some(version) = making {
                out.extend(self.saved(tree, epoch, version, Err(why())));
            }
        }
        let facts = self.holds_broken_off(&why());
        out.extend(self.say(facts));
        out
    }

    /// A heartbeat is due.
    pub fn beat(&self, now: Millis) -> Vec<Act> {
        if !self.joined {
            let clean = self.copies.is_empty();
            let join = Act::Say(ToController::Join { after: self.term });
            return if clean { vec![join] } else { Vec::new() };
        }
        let copies = self.copies.iter().map(|(t, c)| (*t, c.epoch)).collect();
        // Those too that are being fetched, or were not to the end: so that this node hears when
        // they are not wanted any more.
        let parts = self.holds.iter().map(|(tree, h)| (*tree, h.version));
        let images = self.images.iter().copied().chain(parts).collect();
        let beat = ToController::Beat { term: self.term, sent: now, copies, images };
        let mut out = vec![Act::Say(beat)];
        let ends = self.copies.iter().filter_map(|(tree, c)| match &c.what {
            What::Ended { end, why, .. } => {
                let (tree, epoch) = (*tree, c.epoch);
                Some(Fact::Ended { tree, epoch, end: *end, why: why.clone() })
            }
            _ => None,
        });
        out.extend(self.say(ends.collect()));
        out
    }

    /// Whether the controller has let it in since it began.
    #[cfg(test)]
    pub fn is_in(&self) -> bool {
        self.joined
    }

    /// A heartbeat was said, and ghosts stand here for these trees.
    pub fn stands(&self, trees: Vec<TreeId>) -> Option<Act> {
        let (term, some) = (self.term, self.joined && !trees.is_empty());
        some.then_some(Act::Say(ToController::Ghosts { term, trees }))
    }

    /// A heartbeat was said, and spools are here of trees that may have others by now.
    pub fn left(&self, trees: Vec<(TreeId, u64)>) -> Option<Act> {
        let (term, some) = (self.term, self.joined && !trees.is_empty());
        some.then_some(Act::Say(ToController::Spools { term, trees }))
    }

    /// Time went by.
    pub fn tick(&mut self, now: Millis) -> Vec<Act> {
        let lease = self.lease;
        self.fences.retain(|_, (_, at)| now < at.plus(lease));
        if self.frozen || now < self.lease_until {
            return Vec::new();
        }
        self.frozen = true;
        vec![Act::Freeze]
    }

    /// The controller said something.
    pub fn message(&mut self, m: &ToNode, now: Millis) -> Vec<Act> {
        match m {
            ToNode::Admitted { after, term } => {
                if !self.joined && *after == self.term && self.copies.is_empty() {
                    self.term = *term;
                    self.joined = true;
                }
                Vec::new()
            }
            ToNode::Expelled { term } => {
                if self.joined && *term == self.term {
                    self.expelled()
                } else {
                    Vec::new()
                }
            }
            ToNode::Told { term, sent, orders } => {
                let until = sent.plus(self.lease);
                if !self.joined || *term != self.term || now >= until {
                    return Vec::new();
                }
                let (mut out, mut facts) = (Vec::new(), Vec::new());
                // What is to go goes before anything runs.
                for order in orders {
                    self.order(order, now, &mut out, &mut facts);
                }
                self.lease_until = self.lease_until.max(until);
                if self.frozen {
                    self.frozen = false;
                    out.push(Act::Thaw);
                }
                out.extend(self.say(facts));
                out
            }
        }
    }

    fn expelled(&mut self) -> Vec<Act> {
        self.joined = false;
        self.lease_until = Millis(0);
        self.frozen = true;
        let mut out = vec![Act::Freeze, Act::Abandon];
        for (tree, c) in &mut self.copies {
            c.what = What::Dying;
            out.push(Act::Kill { tree: *tree, epoch: c.epoch });
        }
        out
    }

    fn say(&self, facts: Vec<Fact>) -> Option<Act> {
        let term = self.term;
        let facts: Vec<Fact> = facts
            .into_iter()
            .flat_map(|fact| [self.spool_of(&fact), Some(fact)])
            .flatten()
            .collect();
        let some = self.joined && !facts.is_empty();
        some.then_some(Act::Say(ToController::Facts { term, facts }))
    }

    /// Where the output is is told before what the copy leaves: who goes on with that asks there
    /// for what was written, and the word of before may be lost.
    fn spool_of(&self, fact: &Fact) -> Option<Fact> {
        let (tree, epoch) = match fact {
            Fact::Dumped { tree, epoch, .. }
            | Fact::Saved { tree, epoch, .. }
            | Fact::Ended { tree, epoch, .. } => (*tree, *epoch),
            _ => return None,
        };
        let c = self.copies.get(&tree).filter(|c| c.epoch == epoch);
        c.is_some_and(|c| c.spooled).then_some(Fact::Spooled { tree, epoch })
    }

    fn copy(&mut self, tree: TreeId, epoch: u64) -> Option<&mut Copied> {
        self.copies.get_mut(&tree).filter(|c| c.epoch == epoch)
    }

    fn fence(&mut self, tree: TreeId, epoch: u64, now: Millis) {
        let fence = self.fences.entry(tree).or_insert((epoch, now));
        *fence = (fence.0.max(epoch), now);
    }

    fn is_fenced(&self, tree: TreeId, epoch: u64) -> bool {
        self.fences.get(&tree).is_some_and(|(fence, _)| *fence >= epoch)
    }
}
