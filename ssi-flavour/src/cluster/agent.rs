//! A node of a cluster: what copies it has, and whether they may run.
//!
//! The caller stores this value before it does what [`Act`]s say, and calls back when work ends.
//! One whose copies end with it need not store them: [`Agent::lasting`] is enough.
//! `now` is the node's clock that nobody can set ([`xos_base::when::Clock::up`]).

mod holds;

use super::messages::{CutFile, End, Fact, Image, Order, Outcome, ToController, ToNode, TreeId};
use crate::pids::NodeNumber;
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
}

impl Copied {
    /// What is told of files before anything else of it.
    fn cut_back(&self, tree: TreeId) -> Vec<Fact> {
        let (epoch, cut) = (self.epoch, self.cut.clone());
        if cut.is_empty() { Vec::new() } else { vec![Fact::CutBack { tree, epoch, cut }] }
    }
}

/// What the caller does, in order. Each changes nothing when it is done again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Start the program; then [`Agent::started`].
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
    /// Check, freeze, wait until all output was taken, dump; then [`Agent::dumped`].
    Dump {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// What for.
        attempt: u64,
        /// The number of the image.
        version: u64,
    },
    /// Fetch the image, make a stopped copy; then [`Agent::restored`].
    Restore {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// What of.
        image: Image,
        /// Whether files are brought back first; then [`Agent::cut`] before, or [`Agent::barred`].
        roll_back: bool,
    },
    /// End the copy, or what is being made of it; then [`Agent::killed`].
    Kill {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
    },
    /// Dump and let go on; complete when all output until then was taken; then [`Agent::saved`].
    Save {
        /// The tree.
        tree: TreeId,
        /// The copy.
        epoch: u64,
        /// The number of the image.
        version: u64,
    },
    /// Fetch an image and keep it; then [`Agent::held`].
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
    },
    /// Send the copy's output to the spool.
    Spool {
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
    /// Images that are fetched to be kept, or were to be, the last one of each tree.
    #[serde(default)]
    holds: BTreeMap<TreeId, Hold>,
    lease_until: Millis,
    frozen: bool,
}

impl Agent {
    /// A node that never was in the cluster. The lease is [`super::members::Times::lease`].
    pub fn new(lease: Duration) -> Agent {
        let (copies, fences, images, holds, lease_until) = Default::default();
        let (term, joined, frozen) = (0, false, true);
        Agent { lease, term, joined, copies, fences, images, holds, lease_until, frozen }
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

    /// What of it is to outlive the machine: all but what [`Agent::rebooted`] forgets.
    pub fn lasting(&self) -> Agent {
        let lease_until = Millis(0);
        let (joined, frozen) = (false, true);
        let (images, holds) = (self.images.clone(), self.holds.clone());
        let (copies, fences) = Default::default();
        let (lease, term) = (self.lease, self.term);
        Agent { lease, term, joined, copies, fences, images, holds, lease_until, frozen }
    }

    /// The machine was started: nothing of what ran is left.
    pub fn rebooted(&mut self) {
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
        let ends = self.copies.iter().filter_map(|(tree, c)| match c.what {
            What::Ended { end, .. } => Some(Fact::Ended { tree: *tree, epoch: c.epoch, end }),
            _ => None,
        });
        out.extend(self.say(ends.collect()));
        out
    }

    /// A heartbeat was said, and ghosts stand here for these trees.
    pub fn stands(&self, trees: Vec<TreeId>) -> Option<Act> {
        let (term, some) = (self.term, self.joined && !trees.is_empty());
        some.then_some(Act::Say(ToController::Ghosts { term, trees }))
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
        let some = self.joined && !facts.is_empty();
        some.then_some(Act::Say(ToController::Facts { term, facts }))
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

    fn order(&mut self, order: &Order, now: Millis, out: &mut Vec<Act>, facts: &mut Vec<Fact>) {
        match order {
            Order::Start { tree, epoch } => self.start(*tree, *epoch, out, facts),
            Order::Run { tree, epoch, floor } => self.run(*tree, *epoch, *floor, out, facts),
            Order::Dump { tree, epoch, attempt, version } => {
                self.dump((*tree, *epoch), *attempt, *version, out, facts);
            }
            Order::Restore { tree, epoch, image, roll_back } => {
                self.restore((*tree, *epoch), (image, *roll_back), now, out, facts);
            }
            Order::Kill { tree, epoch } => {
                let (tree, epoch) = (*tree, *epoch);
                self.fence(tree, epoch, now);
                match self.copy(tree, epoch) {
                    None => facts.push(Fact::Gone { tree, epoch }),
                    Some(c) if c.what == What::Dying => {}
                    Some(c) => {
                        c.what = What::Dying;
                        out.push(Act::Kill { tree, epoch });
                    }
                }
            }
            Order::Save { tree, epoch, version } => {
                self.save(*tree, *epoch, *version, out, facts);
            }
            Order::Hold { tree, attempt, version, from, owner } => {
                self.hold((*tree, *attempt), *version, (from, *owner), out, facts);
            }
            Order::Spool { tree, epoch } => {
                let (tree, epoch) = (*tree, *epoch);
                if self.copy(tree, epoch).is_some() {
                    out.push(Act::Spool { tree, epoch });
                    facts.push(Fact::Spooled { tree, epoch });
                }
            }
            Order::Finish { tree, outcome } => {
                out.push(Act::Finish { tree: *tree, outcome: outcome.clone() });
                facts.push(Fact::Finished { tree: *tree });
            }
            Order::Forsake { tree } => out.push(Act::Forsake { tree: *tree }),
            Order::Discard { tree, version } => {
                let part = self.holds.get(tree).is_some_and(|h| h.version == *version);
                if part {
                    self.holds.remove(tree);
                }
                if self.images.remove(&(*tree, *version)) || part {
                    out.push(Act::Discard { tree: *tree, version: *version });
                }
            }
        }
    }

    fn start(&mut self, tree: TreeId, epoch: u64, out: &mut Vec<Act>, facts: &mut Vec<Fact>) {
        if let Some(c) = self.copies.get(&tree) {
            if c.epoch == epoch && c.what == What::Running {
                facts.push(Fact::Runs { tree, epoch, floor: c.floor });
            }
        } else if !self.is_fenced(tree, epoch) {
            let (refused, save, cut) = Default::default();
            let what = What::Starting;
            let c = Copied { epoch, what, floor: epoch, refused, save, cut };
            self.copies.insert(tree, c);
            out.push(Act::Start { tree, epoch });
        }
    }

    fn run(
        &mut self,
        tree: TreeId,
        epoch: u64,
        floor: u64,
        out: &mut Vec<Act>,
        facts: &mut Vec<Fact>,
    ) {
        let Some(c) = self.copy(tree, epoch) else {
            facts.extend(self.vanished(tree, epoch));
            return;
        };
        match &c.what {
            // For a later attempt than the order knows of: it is late.
            What::Dumping { attempt } | What::Dumped { attempt, .. } if *attempt > floor => return,
            What::Dumping { .. } | What::Dumped { .. } | What::Restored => {
                c.what = What::Running;
                out.push(Act::Resume { tree, epoch });
            }
            What::Running => {}
            What::Ended { end, .. } => {
                facts.push(Fact::Ended { tree, epoch, end: *end });
                return;
            }
            What::Starting | What::Restoring { .. } | What::Dying => return,
        }
        c.floor = c.floor.max(floor);
        facts.push(Fact::Runs { tree, epoch, floor: c.floor });
    }

    /// A copy that is the tree, and of which nothing is here, was killed by somebody else.
    fn vanished(&self, tree: TreeId, epoch: u64) -> Option<Fact> {
        let none = !self.copies.contains_key(&tree);
        none.then_some(Fact::Ended { tree, epoch, end: End::Signal { number: 9 } })
    }

    fn dump(
        &mut self,
        (tree, epoch): (TreeId, u64),
        attempt: u64,
        version: u64,
        out: &mut Vec<Act>,
        facts: &mut Vec<Fact>,
    ) {
        let Some(c) = self.copy(tree, epoch) else {
            facts.extend(self.vanished(tree, epoch));
            return;
        };
        if attempt <= c.floor {
            let reason = c.refused.clone();
            facts.push(Fact::Refused { tree, epoch, attempt, reason });
            return;
        }
        match &c.what {
            What::Running => {
                c.what = What::Dumping { attempt };
                out.push(Act::Dump { tree, epoch, attempt, version });
            }
            What::Dumped { attempt: done, image } if *done == attempt => {
                facts.push(Fact::Dumped { tree, epoch, attempt, image: image.clone() });
            }
            What::Ended { end, .. } => facts.push(Fact::Ended { tree, epoch, end: *end }),
            _ => {}
        }
    }

    fn restore(
        &mut self,
        (tree, epoch): (TreeId, u64),
        (image, roll_back): (&Image, bool),
        now: Millis,
        out: &mut Vec<Act>,
        facts: &mut Vec<Fact>,
    ) {
        let over = |reason: &str| {
            let reason = reason.to_owned();
            Fact::NotRestored { tree, epoch, reason }
        };
        if self.is_fenced(tree, epoch) {
            facts.push(over("this copy was ended before"));
            return;
        }
        match self.copies.get(&tree) {
            Some(c) if c.epoch > epoch => {
                facts.push(over("a newer copy is here"));
                self.fence(tree, epoch, now);
                return;
            }
            Some(c) if c.epoch == epoch => {
                match c.what {
                    What::Ended { ran: false, .. } => {
                        facts.push(over("the copy ended before it was let run"));
                        self.copies.remove(&tree);
                        self.fence(tree, epoch, now);
                    }
                    What::Starting | What::Restoring { .. } | What::Dying => {}
                    _ => {
                        facts.extend(c.cut_back(tree));
                        facts.push(Fact::Restored { tree, epoch });
                    }
                }
                return;
            }
            // One that is not the tree any more.
            Some(c) => out.push(Act::Kill { tree, epoch: c.epoch }),
            None => {}
        }
        let (refused, save, cut) = Default::default();
        let what = What::Restoring { version: image.version };
        self.copies.insert(tree, Copied { epoch, what, floor: epoch, refused, save, cut });
        out.push(Act::Restore { tree, epoch, image: image.clone(), roll_back });
    }

    fn save(
        &mut self,
        tree: TreeId,
        epoch: u64,
        version: u64,
        out: &mut Vec<Act>,
        facts: &mut Vec<Fact>,
    ) {
        let Some(c) = self.copy(tree, epoch).filter(|c| c.what == What::Running) else { return };
        match &c.save {
            Some(save) if save.version() > version => {}
            Some(Save::Making { version: made }) if *made == version => {}
            Some(Save::Done { image }) if image.version == version => {
                facts.push(Fact::Saved { tree, epoch, image: image.clone() });
            }
            Some(Save::Failed { version: failed, reason }) if *failed == version => {
                let reason = reason.clone();
                facts.push(Fact::NotSaved { tree, epoch, version, reason });
            }
            _ => {
                c.save = Some(Save::Making { version });
                out.push(Act::Save { tree, epoch, version });
            }
        }
    }

    /// The program was started.
    pub fn started(&mut self, tree: TreeId, epoch: u64) -> Option<Act> {
        let c = self.copy(tree, epoch).filter(|c| c.what == What::Starting)?;
        c.what = What::Running;
        let floor = c.floor;
        self.say(vec![Fact::Runs { tree, epoch, floor }])
    }

    /// A dump was made, and the copy stands still; or it was not, and why.
    pub fn dumped(
        &mut self,
        tree: TreeId,
        epoch: u64,
        attempt: u64,
        done: Result<Image, String>,
    ) -> Vec<Act> {
        let mine = What::Dumping { attempt };
        let Some(c) = self.copy(tree, epoch).filter(|c| c.what == mine) else { return Vec::new() };
        match done {
            Ok(image) => {
                c.what = What::Dumped { attempt, image: image.clone() };
                self.images.insert((tree, image.version));
                let fact = Fact::Dumped { tree, epoch, attempt, image };
                self.say(vec![fact]).into_iter().collect()
            }
            Err(reason) => {
                c.what = What::Running;
                c.floor = attempt;
                c.refused.clone_from(&reason);
                let fact = Fact::Refused { tree, epoch, attempt, reason };
                let mut out = vec![Act::Resume { tree, epoch }];
                out.extend(self.say(vec![fact]));
                out
            }
        }
    }

    /// A copy was made, stopped; or it was not, nothing of it is left, and why.
    pub fn restored(
        &mut self,
        tree: TreeId,
        epoch: u64,
        done: Result<(), String>,
        now: Millis,
    ) -> Option<Act> {
        let c = self.copy(tree, epoch)?;
        let What::Restoring { version } = c.what else { return None };
        let mut facts = c.cut_back(tree);
        facts.push(match done {
            Ok(()) => {
                c.what = What::Restored;
                self.images.insert((tree, version));
                Fact::Restored { tree, epoch }
            }
            Err(reason) => {
                self.copies.remove(&tree);
                self.fence(tree, epoch, now);
                Fact::NotRestored { tree, epoch, reason }
            }
        });
        self.say(facts)
    }

    /// Files were cut back for a copy that is being made.
    pub fn cut(&mut self, tree: TreeId, epoch: u64, cut: Vec<CutFile>) {
        if let Some(c) = self.copy(tree, epoch) {
            c.cut = cut;
        }
    }

    /// A copy was not made, and will not be as long as files are what they are, and why.
    pub fn barred(&mut self, tree: TreeId, epoch: u64, reason: String, now: Millis) -> Option<Act> {
        let c = self.copy(tree, epoch)?;
        let What::Restoring { .. } = c.what else { return None };
        let mut facts = c.cut_back(tree);
        facts.push(Fact::Barred { tree, epoch, reason });
        self.copies.remove(&tree);
        self.fence(tree, epoch, now);
        self.say(facts)
    }

    /// A copy was killed.
    pub fn killed(&mut self, tree: TreeId, epoch: u64) -> Option<Act> {
        self.copy(tree, epoch).filter(|c| c.what == What::Dying)?;
        self.copies.remove(&tree);
        self.say(vec![Fact::Gone { tree, epoch }])
    }

    /// A checkpoint is complete, or failed, and why. The copy goes on.
    pub fn saved(
        &mut self,
        tree: TreeId,
        epoch: u64,
        version: u64,
        done: Result<Image, String>,
    ) -> Option<Act> {
        let mine = Some(Save::Making { version });
        let c = self.copy(tree, epoch).filter(|c| c.save == mine)?;
        let fact = match done {
            Ok(image) => {
                c.save = Some(Save::Done { image: image.clone() });
                self.images.insert((tree, version));
                Fact::Saved { tree, epoch, image }
            }
            Err(reason) => {
                c.save = Some(Save::Failed { version, reason: reason.clone() });
                Fact::NotSaved { tree, epoch, version, reason }
            }
        };
        self.say(vec![fact])
    }

    /// The root of a copy ended by itself and all its output was taken; or something else than this
    /// agent killed it.
    pub fn ended(&mut self, tree: TreeId, epoch: u64, end: End) -> Option<Act> {
        let c = self.copy(tree, epoch)?;
        let ran = match c.what {
            What::Starting | What::Running | What::Dumping { .. } | What::Dumped { .. } => true,
            What::Restored => false,
            What::Restoring { .. } | What::Ended { .. } | What::Dying => return None,
        };
        c.what = What::Ended { end, ran };
        self.say(vec![Fact::Ended { tree, epoch, end }])
    }
}
