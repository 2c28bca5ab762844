//! What waits until a node has room.

use super::keep::Waiting;
use super::one::Cluster;
use crate::cluster::messages::TreeId;
use crate::cluster::place::{self, Choice, Need, Policy};
use crate::cluster::record::Effect;
use crate::cluster::trees::Owner;
use crate::wire::Program;
use std::collections::BTreeMap;
use xos_api::aem::ProcessLimits;
use xos_base::{MemberNumber, NodeId, VoId};

/// Why programs wait when there is no other reason.
pub(super) const FULL: &str = "all nodes are full";

impl Waiting {
    /// As a node needs to know it that starts it.
    pub(super) fn placed(&self, pid: i32, birth: NodeId) -> Program {
        let (run, owner) = (&self.run, &self.wish.owner);
        Program {
            argv: run.argv.clone(),
            env: run.env.clone(),
            cwd: run.cwd.clone(),
            umask: run.umask,
            vo: owner.vo.clone(),
            person: self.person.clone(),
            member: owner.member,
            uid: owner.uid,
            terminal: run.terminal,
            attached: run.attached,
            shell: run.shell,
            own_net: run.own_net,
            limits: run.limits,
            each: ProcessLimits::default(),
            staged: None,
            pid: Some(pid),
            birth,
            mandate: run.mandate.clone(),
            unit: None,
            carried: None,
        }
    }
}

impl Cluster {
    /// Where a new tree of somebody would go.
    pub fn place_new(&self, policy: &Policy, owner: &Owner) -> Choice {
        let need = Need { vo: owner.vo.clone(), cpu_group: None, near: None };
        place::place(policy, &self.node_views(), &need)
    }

    /// Starts what waits, as far as there is room.
    pub fn begin_waiting(&mut self, policy: &Policy) -> Vec<Effect> {
        let mut out = Vec::new();
        // Nodes are alike to all programs of a VO: when one has no place, the others have none.
        let mut full: BTreeMap<VoId, String> = BTreeMap::new();
        if self.controller.state().trees.queue().is_empty() {
            self.full = full;
            return out;
        }
        let mut run = self.counts();
        loop {
            let most = policy.trees_per_member;
            let passed = |o: &Owner| {
                let own = run.get(&(o.vo.clone(), o.member)).copied().unwrap_or_default();
                full.contains_key(&o.vo) || own >= most
            };
            let next = self.controller.state().trees.queue().next(passed);
            let Some((tree, owner)) = next.map(|(tree, wish)| (tree, wish.owner.clone())) else {
                break;
            };
            match self.begin(tree, &owner, policy) {
                Ok(effects) => {
                    *run.entry((owner.vo, owner.member)).or_default() += 1;
                    out.extend(effects);
                }
                Err(why) => {
                    tracing::debug!(cluster = %self.id, %tree, why, "a program waits");
                    full.insert(owner.vo, why);
                }
            }
        }
        self.full = full;
        out
    }

    /// How many trees of each member have not ended.
    fn counts(&self) -> BTreeMap<(VoId, MemberNumber), usize> {
        let mut run: BTreeMap<(VoId, MemberNumber), usize> = BTreeMap::new();
        for (_, t) in self.controller.state().trees.iter().filter(|(_, t)| !t.state.is_final()) {
            *run.entry((t.owner.vo.clone(), t.owner.member)).or_default() += 1;
        }
        run
    }

    fn begin(
        &mut self,
        tree: TreeId,
        owner: &Owner,
        policy: &Policy,
    ) -> Result<Vec<Effect>, String> {
        let node = match self.place_new(policy, owner) {
            Choice::On(node) => node,
            Choice::Queue => return Err(FULL.to_owned()),
            Choice::Nowhere { reason } => return Err(reason),
        };
        let name = self.name(node).ok_or("a node has no name")?;
        let pid = self.free_pid(node).ok_or("all pids for programs on a node are taken")?;
        let waits = self.waiting.get(&tree).ok_or("nobody said what it is")?;
        let program = waits.placed(pid, name);
        let effects = self.controller.begin(tree, pid, node, node).map_err(|e| e.to_string())?;
        self.programs.insert(tree, program);
        self.comes(node);
        Ok(effects)
    }

    /// Why a tree waits, for people.
    pub fn waits_for(&self, tree: TreeId, owner: &Owner) -> String {
        let why = self.full.get(&owner.vo).map_or("it waits for its turn", String::as_str);
        match self.controller.state().trees.queue().ahead_of(tree) {
            0 => why.to_owned(),
            n => format!("{why}; {n} of the same member came before"),
        }
    }
}
