//! Units that leave for another cluster, and units that come from one.
//!
//! What leaves is stopped and saved for good before anybody hears that it left: of all that was,
//! its image is what lives, and who has the job decides where that is started, once.

use super::start::Free;
use super::table::{Happened, Next, Units};
use crate::cluster::controller::Refused;
use crate::cluster::interval::Interval;
use crate::cluster::members::Member;
use crate::cluster::messages::{Image, Offsets, TreeId};
use crate::cluster::place::Policy;
use crate::cluster::record::Effect;
use crate::cluster::trees::{Owner, Tree, TreeState, Wish};
use crate::pids::NodeNumber;
use crate::service::one::Cluster;
use crate::wire::TreeUnit;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xos_api::aem::{CARRIED_KEY_LEN, CARRIED_NODES_MAX, Carried};
use xos_api::node::units::{EnvelopeId, StartUnits, UnitOrder};
use xos_base::{ClusterId, Error, Millis, NodeId, PersonId, SiteId, VoId};
use xos_net::identity::hex;

/// Images of other sites may have so many bytes, and four times what their units asked for.
const IMAGE_BYTES_LEAST: u64 = 64 << 20;
/// Those of units that came of one other site and have not ended may have so many together, in one
/// cluster, and those of one VO among them. One may be larger.
const SITE_BYTES_MAX: u64 = 256 << 30;
const VO_BYTES_MAX: u64 = 128 << 30;
/// No image of any cluster has a number beyond this: from here on each checkpoint has the next.
const VERSION_MAX: u64 = 1 << 48;
/// A unit that waits as a checkpoint for so long for a node of its cluster goes on elsewhere.
pub(super) const LEAVE_AFTER: Duration = Duration::from_secs(300);
/// One of which so many restarts failed does.
pub(super) const LEAVE_TRIES: u32 = 5;

/// What left of somebody without a right here stays for so long: they may be back.
const OUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// A wish that a unit leaves, and what became of it. In memory: after a new start of the core it may
/// be tried once more.
#[derive(Clone, Debug)]
pub(in crate::service) struct Asked {
    /// The time of the wish, by the clock of who has the job: one of another time is another.
    at: Millis,
    /// Why it came to nothing, once that was said: the same wish never stops the unit again.
    stays: Option<String>,
}

/// Why a unit does not leave.
enum Stays {
    /// For good, by this wish.
    For(String),
    /// For now.
    Now(String),
}

impl Cluster {
    /// Begins to have a unit leave because of a wish of that time, or says how that stands; when it
    /// is `over`, what is left of one that left goes.
    pub(super) fn unit_leaves(
        &mut self,
        id: &EnvelopeId,
        key: (u32, u16),
        (at, over): (Millis, bool),
        now: Millis,
    ) -> Result<Vec<Effect>, Error> {
        let name = || format!("unit {} of job {}", key.0, id.job);
        let Some(unit) = self.units.unit(id, key) else {
            // Its envelope went, and all of it.
            let unknown = Error::not_found(format!("{} is not in {}", name(), self.id));
            return if over { Ok(Vec::new()) } else { Err(unknown) };
        };
        let (tree, left, stops) = (unit.tree, unit.left.is_some(), unit.stop.is_some());
        if over || left {
            let ends = tree.filter(|_| over && left);
            return Ok(ends.map(|tree| self.end_left(tree)).unwrap_or_default());
        }
        let conflict = |why: &str| Error::conflict(format!("{} stays: {why}", name()));
        let tree = tree.ok_or_else(|| conflict("it waits for a node"))?;
        match self.lets_go(tree, at, stops, now) {
            Ok(effects) => Ok(effects),
            Err(Stays::Now(why)) => Err(Error::unavailable(why)),
            Err(Stays::For(why)) => {
                let said = conflict(&why);
                if self.programs.contains_key(&tree) {
                    self.leaving.insert(tree, Asked { at, stays: Some(why) });
                }
                Err(said)
            }
        }
    }

    fn lets_go(
        &mut self,
        tree: TreeId,
        at: Millis,
        stops: bool,
        now: Millis,
    ) -> Result<Vec<Effect>, Stays> {
        let stays = |why: &str| Err(Stays::For(why.to_owned()));
        let Some(t) = self.controller.state().trees.tree(tree) else { return stays("it ended") };
        if matches!(t.state, TreeState::Leaving { .. } | TreeState::Away) {
            // Of two wishes the later one is asked about from now on.
            self.leaving.insert(tree, Asked { at, stays: None });
            return Ok(Vec::new());
        }
        let asked = self.leaving.get(&tree).filter(|asked| asked.at == at);
        if let Some(why) = asked.and_then(|asked| asked.stays.as_deref()) {
            return stays(why);
        }
        if !t.restartable {
            return stays("it is not checkpointed: submit it with --checkpointable");
        }
        if stops {
            return stays("it is being ended");
        }
        // Nothing of it runs: its image is there already, unless it came and never began here.
        let rests = matches!(t.state, TreeState::Checkpointed { .. });
        if rests && t.checkpoint.as_ref().is_some_and(|image| !image.shared) {
            // Files that keep it here keep it everywhere.
            if let Some(why) = &t.barred {
                return stays(why);
            }
            return self.controller.let_go(tree).map_err(|e| Stays::For(e.to_string()));
        }
        if asked.is_some() {
            let why = self.trouble.get(&tree).map(|(why, _)| why.as_str());
            return stays(why.unwrap_or("it did not get away"));
        }
        match self.controller.leave(tree, now) {
            Ok(effects) => {
                self.leaving.insert(tree, Asked { at, stays: None });
                Ok(effects)
            }
            // It comes to run, or to its end.
            Err(error @ Refused::State { .. }) => Err(Stays::Now(error.to_string())),
            Err(error) => stays(&error.to_string()),
        }
    }

    fn end_left(&mut self, tree: TreeId) -> Vec<Effect> {
        // It may be gone already.
        self.controller.end(tree).unwrap_or_default()
    }

    /// Has nothing stay of the units of an envelope that left.
    pub(super) fn end_all_left(&mut self, id: &EnvelopeId) -> Vec<Effect> {
        let left = self.units.left_of(id);
        left.into_iter().flat_map(|tree| self.end_left(tree)).collect()
    }

    /// Ends what left of persons of whom `out` has said for a day that they may do nothing here:
    /// they were removed, or what they began before a suspension goes on nowhere.
    pub fn end_left_of(
        &mut self,
        out: impl Fn(&Owner, &PersonId) -> bool,
        now: Millis,
    ) -> Vec<Effect> {
        let of = |(tree, t): (TreeId, &Tree)| {
            let program = self.programs.get(&tree).filter(|_| t.state == TreeState::Away)?;
            out(&t.owner, &program.person).then_some(tree)
        };
        let all: BTreeSet<TreeId> = self.controller.state().trees.iter().filter_map(of).collect();
        self.out.retain(|tree, _| all.contains(tree));
        for tree in all {
            self.out.entry(tree).or_insert(now);
        }
        let due = self.out.iter().filter(|(_, since)| now.since(**since) >= OUT_MAX);
        let due: Vec<TreeId> = due.map(|(tree, _)| *tree).collect();
        due.into_iter().flat_map(|tree| self.end_left(tree)).collect()
    }

    /// Lets units go that wait for a node of this cluster in vain.
    pub fn give_away(&mut self, now: Millis) -> Vec<Effect> {
        let vain = |(tree, t): &(TreeId, &Tree)| {
            let TreeState::Checkpointed { reason, since } = &t.state else { return None };
            let waited = now.since(*since) >= LEAVE_AFTER || t.tries >= LEAVE_TRIES;
            let unit = self.programs.get(tree).is_some_and(|p| p.unit.is_some());
            // Files that keep it here keep it everywhere.
            let goes = unit && t.restartable && t.barred.is_none() && waited;
            goes.then(|| (*tree, reason.clone()))
        };
        let trees = self.controller.state().trees.iter();
        let vain: Vec<(TreeId, String)> = trees.filter_map(|t| vain(&t)).collect();
        let mut out = self.give_back();
        for (tree, reason) in vain {
            let why = format!("{reason}; no node of {} restarted it", self.id);
            self.why_left.insert(tree, why);
            match self.controller.let_go(tree) {
                Ok(effects) => out.extend(effects),
                Err(error) => {
                    tracing::debug!(%error, cluster = %self.id, "a unit waits on");
                    self.why_left.remove(&tree);
                }
            }
        }
        out
    }

    /// Gives up units that came and that their files keep from beginning here.
    fn give_back(&mut self) -> Vec<Effect> {
        let kept = |(tree, t): (TreeId, &Tree)| {
            let came = self.programs.get(&tree).is_some_and(|p| p.carried.is_some());
            // Nothing of it ever ran here as long as it has no copy of its own.
            let never = t.checkpoint.as_ref().is_some_and(|image| image.shared);
            let waits = matches!(t.state, TreeState::Checkpointed { .. });
            let why = t.barred.clone().filter(|_| came && never && waits)?;
            Some((tree, why))
        };
        let trees = self.controller.state().trees.iter();
        let kept: Vec<(TreeId, String)> = trees.filter_map(kept).collect();
        let given = kept.into_iter().map(|(tree, why)| self.controller.give_up(tree, why));
        given.flatten().flatten().collect()
    }

    /// What is told of a unit whose tree left.
    pub fn left(&mut self, tree: TreeId) -> Option<Happened> {
        let why = self.why_left.get(&tree).cloned().unwrap_or_default();
        self.leaving.remove(&tree);
        let t = self.controller.state().trees.tree(tree)?;
        let image = t.checkpoint.as_ref()?;
        let members = &self.controller.state().members;
        let kept = image.kept();
        let names = kept.iter().filter_map(|number| members.node(*number));
        let nodes: Vec<NodeId> = names.map(|m| m.id.clone()).take(CARRIED_NODES_MAX).collect();
        let mut key = [0; CARRIED_KEY_LEN / 2];
        if aws_lc_rs::rand::fill(&mut key).is_err() {
            // Without a key that nobody guesses nobody may have its image.
            let reason = "it left, and there is no randomness for the key to its image";
            return Some(Happened::Ended(Err(reason.to_owned())));
        }
        let carried = Carried {
            cluster: self.id.clone(),
            tree: tree.0,
            version: image.version,
            nodes,
            key: hex(&key),
            bytes: image.bytes,
            pid: t.root,
            cpu_group: members.node(t.node).map_or(0, |m| m.cpu_group),
            base: t.owner.uid.saturating_sub(t.owner.member.0),
            stdout_bytes: image.output.out,
            stderr_bytes: image.output.err,
            to: None,
        };
        Some(Happened::Left(Box::new(carried), why))
    }

    /// Whether a key is the one by which the image of a tree that left is given.
    pub fn is_key_of(&self, tree: TreeId, version: u64, key: &str) -> bool {
        let unit = self.programs.get(&tree).and_then(|program| program.unit.as_ref());
        let unit = unit.and_then(|u: &TreeUnit| self.units.unit(&u.envelope, (u.unit, u.attempt)));
        unit.and_then(|unit| unit.left.as_ref()).is_some_and(|left| {
            let same = verify_slices_are_equal(left.carried.key.as_bytes(), key.as_bytes());
            left.carried.version == version && same.is_ok()
        })
    }

    /// Takes a unit that left a cluster, at a node that has room; its first copy is made from the
    /// image there.
    ///
    /// # Errors
    /// Why it cannot go on here, for the person.
    pub(super) fn unit_comes(
        &mut self,
        policy: &Policy,
        free: &BTreeMap<NodeNumber, Free>,
        next: &Next,
        carried: &Carried,
        now: Millis,
    ) -> Result<(NodeNumber, Vec<Effect>), String> {
        if self.has_pid(carried.pid) {
            return Err(format!("pid {}, which it keeps, is taken in {}", carried.pid, self.id));
        }
        let like = |m: &Member| m.cpu_group == carried.cpu_group;
        let takes = |m: &Member| m.takes_moves().is_ok() && like(m);
        if !self.controller.state().members.iter().any(|(_, m)| takes(m)) {
            return Err(format!(
                "no node of {} that takes programs has processors like those where it was",
                self.id
            ));
        }
        let node = self.room_for(policy, free, next, Some(carried.cpu_group));
        let node = node.ok_or_else(|| format!("no node of {} has room for it now", self.id))?;
        let name = self.name(node).ok_or_else(|| format!("no node {node}"))?;
        let wish = Wish {
            owner: next.envelope.owner.clone(),
            restartable: true,
            interval: Interval::Best,
        };
        let image = Image {
            version: carried.version,
            output: Offsets { out: carried.stdout_bytes, err: carried.stderr_bytes },
            bytes: carried.bytes,
            freeze_ms: 0,
            still_ms: 0,
            nodes: BTreeSet::new(),
            shared: true,
            written: BTreeSet::new(),
            brief: BTreeSet::new(),
        };
        let came = self.controller.come(carried.pid, &wish, node, image, now);
        let (tree, effects) = came.map_err(|e| e.to_string())?;
        let program = super::program::program(next, &self.id, &name, carried.pid);
        self.programs.insert(tree, program);
        self.units.placed(&next.unit, tree, node);
        self.comes(node);
        Ok((node, effects))
    }

    /// Whether a unit of a VO may bring its image, beside those that came before.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unsatisfiable`], for the person.
    pub(super) fn may_bring(
        &self,
        order: &StartUnits,
        vo: &VoId,
        carried: &Carried,
    ) -> Result<(), Error> {
        let from = carried.cluster.site();
        let known = |u: &UnitOrder| self.units.unit(&order.envelope, (u.unit, u.attempt)).is_some();
        if from == self.id.site() || order.units.iter().any(known) {
            return Ok(());
        }
        let (mut of_site, mut of_vo) = (0_u64, 0_u64);
        for (envelope, unit) in self.units.all() {
            let other = unit.carried.as_deref().filter(|_| !unit.is_over());
            let Some(other) = other.filter(|other| other.cluster.site() == from) else { continue };
            of_site = of_site.saturating_add(other.bytes);
            if envelope.owner.vo == *vo {
                of_vo = of_vo.saturating_add(other.bytes);
            }
        }
        let full = |sum: u64, most: u64| sum > 0 && sum.saturating_add(carried.bytes) > most;
        if full(of_site, SITE_BYTES_MAX) || full(of_vo, VO_BYTES_MAX) {
            return Err(Error::unsatisfiable(format!(
                "{} has as much of {vo} from {from} as it takes, by what came as running programs",
                self.id
            ))
            .hint("when one of these ends there is room"));
        }
        Ok(())
    }

    /// Whether a pid is one of a process or a tree here, as far as is known.
    fn has_pid(&self, pid: i32) -> bool {
        let trees = &self.controller.state().trees;
        let lives = |t: &Tree| !t.state.is_final() && t.state != TreeState::Away;
        let seen = self.looks.iter().any(|(number, (looks, _))| {
            let mut of_pid = looks.processes.iter().filter(|p| p.pid == pid);
            of_pid.any(|p| trees.tree(p.tree).is_some_and(|t| t.uses(*number)))
        });
        seen || trees.iter().any(|(_, t)| t.root == pid && lives(t))
    }
}

/// Whether units of an order can go on from what it says, with so much memory that they asked for;
/// for the person.
pub(super) fn may_come(
    cluster: &ClusterId,
    takes_from: &[SiteId],
    (carried, memory_bytes): (&Carried, u64),
) -> Result<(), Error> {
    let from = carried.cluster.site();
    if !carried.is_of(&from) || carried.version > VERSION_MAX {
        return Err(Error::invalid("what a unit is to go on from is malformed"));
    }
    let foreign = from != cluster.site();
    let most = memory_bytes.saturating_mul(4).saturating_add(IMAGE_BYTES_LEAST);
    if foreign && carried.bytes > most {
        return Err(Error::unsatisfiable(format!(
            "its image has {} bytes: for a unit that asked for so little memory {most} at most are \
             taken of another site",
            carried.bytes
        ))
        .hint("ask for as much memory as it has"));
    }
    if foreign && !takes_from.contains(&from) {
        return Err(Error::unsatisfiable(format!(
            "{} takes no running programs of {from}",
            cluster.site()
        ))
        .hint("its administrators name the sites in [cluster] takes_from"));
    }
    Ok(())
}

impl Units {
    /// The trees of an envelope's units that left.
    fn left_of(&self, id: &EnvelopeId) -> Vec<TreeId> {
        let units = self.units_of(id);
        units.filter(|unit| unit.left.is_some()).filter_map(|unit| unit.tree).collect()
    }
}
