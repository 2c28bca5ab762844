//! What a cluster does by itself, as the site's audit has it. What somebody asked for is noted when
//! it is asked.

use super::ClusterService;
use super::one::Cluster;
use crate::cluster::members::{MemberRecord, NodeState};
use crate::cluster::messages::TreeId;
use crate::cluster::trees::TreeRecord;
use crate::pids::NodeNumber;
use xos_api::audit::{Event, Outcome};
use xos_base::{PersonId, VoId};

/// Most events that wait until what they tell is kept.
const DEEDS_MAX: usize = 4096;

/// Something that the cluster did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deed {
    what: &'static str,
    on: String,
    outcome: Outcome,
    why: String,
    /// Whose tree it was done to.
    whose: Option<(PersonId, VoId)>,
}

/// A move or a restart that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub what: &'static str,
    pub from: NodeNumber,
    pub why: String,
}

impl Cluster {
    pub(super) fn note_member(&mut self, r: &MemberRecord) {
        let (number, what, outcome, why) = match r {
            MemberRecord::Joined { number, .. } => {
                (*number, "join_cluster_node", Outcome::Done, String::new())
            }
            MemberRecord::Became { number, state: NodeState::Failed, reason } => {
                (*number, "lose_cluster_node", Outcome::Failed, reason.clone())
            }
            _ => return,
        };
        let on = self.controller.state().members.name(number);
        self.note(Deed { what, on, outcome, why, whose: None });
    }

    /// The state is the new one already.
    pub(super) fn note_tree(&mut self, r: &TreeRecord) {
        let tree = r.tree();
        match r {
            TreeRecord::Placed { node, .. } if self.waiting.contains_key(&tree) => {
                let on = format!("tree {tree} on {}", self.controller.state().members.name(*node));
                self.note_own(tree, "start_tree", on, Outcome::Done, "it had waited");
            }
            TreeRecord::Committed { .. } => {
                let Some(own) = self.own.remove(&tree) else { return };
                let members = &self.controller.state().members;
                let t = self.controller.state().trees.tree(tree);
                let (node, cut) = (t.map(|t| t.node), t.map_or(0, |t| t.cut.len()));
                let to = node.map(|n| members.name(n)).unwrap_or_default();
                let on = format!("tree {tree} from {} to {to}", members.name(own.from));
                let why = match cut {
                    0 => own.why,
                    _ => format!("{}; {cut} files were cut back for its restarts", own.why),
                };
                self.note_own(tree, own.what, on, Outcome::Done, &why);
            }
            TreeRecord::Left { .. } => {
                let why = self.why_left.get(&tree).cloned();
                let why = why.unwrap_or_else(|| "its job was asked to move it".to_owned());
                let on = format!("tree {tree}");
                self.note_own(tree, "release_tree", on, Outcome::Done, &why);
            }
            TreeRecord::Came { .. } => {
                let carried = self.programs.get(&tree).and_then(|p| p.carried.as_ref());
                let why = carried.map(|c| format!("from tree {} of {}", c.tree, c.cluster));
                let on = format!("tree {tree}");
                self.note_own(tree, "take_tree", on, Outcome::Done, &why.unwrap_or_default());
            }
            TreeRecord::Undone { reason, .. } => {
                let Some(own) = self.own.remove(&tree) else { return };
                let why = format!("{}; {reason}", own.why);
                self.note_own(tree, own.what, format!("tree {tree}"), Outcome::Failed, &why);
            }
            TreeRecord::Barred { reason, .. } => {
                let Some(own) = self.own.remove(&tree) else { return };
                let why = format!("{}; {reason}", own.why);
                self.note_own(tree, own.what, format!("tree {tree}"), Outcome::Failed, &why);
            }
            TreeRecord::Lost { reason, .. } => {
                self.own.remove(&tree);
                let on = format!("tree {tree}");
                self.note_own(tree, "lose_tree", on, Outcome::Failed, reason);
            }
            // It is tried again, and noted when it is done.
            TreeRecord::Waits { .. } | TreeRecord::FellBack { .. } | TreeRecord::Ended { .. } => {
                self.own.remove(&tree);
            }
            _ => {}
        }
    }

    fn note_own(
        &mut self,
        tree: TreeId,
        what: &'static str,
        on: String,
        outcome: Outcome,
        why: &str,
    ) {
        let waits = self.waiting.get(&tree).map(|w| (w.person.clone(), w.wish.owner.vo.clone()));
        let runs = || self.programs.get(&tree).map(|p| (p.person.clone(), p.vo.clone()));
        let whose = waits.or_else(runs);
        self.note(Deed { what, on, outcome, why: why.to_owned(), whose });
    }

    fn note(&mut self, deed: Deed) {
        if self.deeds.len() < DEEDS_MAX {
            self.deeds.push(deed);
        } else {
            tracing::error!(cluster = %self.id, ?deed, "an event does not reach the audit");
        }
    }
}

impl ClusterService {
    /// Notes what a cluster did by itself, once it is kept.
    pub(super) fn note_deeds(&self, c: &mut Cluster) {
        for deed in std::mem::take(&mut c.deeds) {
            let mut event = Event::new(self.clock.now(), deed.what);
            event.who = format!("core of {}", self.site);
            event.on = format!("{}: {}", c.id, deed.on);
            (event.outcome, event.why) = (deed.outcome, deed.why);
            if let Some((person, vo)) = deed.whose {
                (event.person, event.vo) = (Some(person), Some(vo));
            }
            self.told.note(event);
        }
    }
}
