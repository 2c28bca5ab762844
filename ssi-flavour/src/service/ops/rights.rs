//! The rights of persons at the nodes where their programs are: to VOs' volumes, by tickets.
//!
//! A mandate holds for weeks and for any node of the site. So nodes do not have it: the core asks
//! by it for a node, as long as a program of that person is there.

use super::super::ClusterService;
use super::super::one::Cluster;
use crate::pids::NodeNumber;
use crate::wire::{ClusterRight, PersonRight};
use std::collections::BTreeSet;
use xos_api::cda::IssueTicket;
use xos_api::node::units::EnvelopeId;
use xos_base::{Error, NodeId, SiteId};
use xos_net::Caller;

/// With how many mandates of a person it is tried, the newest first: those of before a change of
/// the membership are void.
const TRIES_MAX: usize = 3;

/// By what a person's right is had.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Proof {
    Mandate { home: SiteId, mandate: String },
    Unit { envelope: EnvelopeId },
}

impl ClusterService {
    pub(super) async fn cluster_right(
        &self,
        caller: Caller,
        r: ClusterRight,
    ) -> Result<PersonRight, Error> {
        let asks = self.asking(&caller)?;
        let key = caller.key().ok_or_else(|| {
            Error::denied(format!("{asks} did not prove a key, for which tickets are given"))
        })?;
        self.right_at(asks, key, &r).await
    }

    /// A person's right at a node, under this key of the node.
    pub(in crate::service) async fn right_at(
        &self,
        node: &NodeId,
        key: &str,
        r: &ClusterRight,
    ) -> Result<PersonRight, Error> {
        let proofs = {
            let held = self.clusters.at(node).await.filter(|(c, _)| c.id == r.cluster);
            let none = || Error::denied(format!("{node} is not in {}", r.cluster));
            let (c, number) = held.ok_or_else(none)?;
            proofs(&c, number, r.uid)
        };
        let proofs = proofs.ok_or_else(|| {
            Error::denied(format!("user {} has no program at {node} of {}", r.uid, r.cluster))
        })?;
        let mut last = Error::not_found(format!("user {} brought no mandate", r.uid))
            .hint("their next program in the cluster brings one, if the home of their VO gives it");
        for proof in proofs {
            let (home, mandate) = match proof {
                Proof::Unit { envelope } => return Ok(PersonRight::Unit { envelope }),
                Proof::Mandate { home, mandate } => (home, mandate),
            };
            let ask = IssueTicket { mandate, node: node.clone(), node_key: key.to_owned() };
            match self.vos.ticket(&home, ask).await {
                Ok(issued) => return Ok(PersonRight::Ticket { ticket: issued.ticket }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Cluster {
    /// A person brought a mandate. It is good for all that they run in the cluster: a suspension
    /// made those of before void, also of what was only held and goes on.
    pub(in crate::service) fn brought(&mut self, uid: u32, mandate: &str) {
        let trees = self.controller.state().trees.iter();
        let run: BTreeSet<u32> =
            trees.filter(|(_, t)| !t.state.is_final()).map(|(_, t)| t.owner.uid).collect();
        self.mandates.retain(|uid, _| run.contains(uid));
        self.mandates.insert(uid, mandate.to_owned());
    }
}

/// Those of a person who has a program at a node, or one that comes to it; none: they have none
/// there. A unit's envelope is good where the unit is.
fn proofs(c: &Cluster, node: NodeNumber, uid: u32) -> Option<Vec<Proof>> {
    let trees = c.controller.state().trees.iter();
    let own = trees.filter(|(_, t)| t.owner.uid == uid && !t.state.is_final());
    let mut own: Vec<_> = own.map(|(tree, t)| (tree, t.uses(node))).collect();
    if !own.iter().any(|(_, there)| *there) {
        return None;
    }
    own.sort_unstable();
    let known = own.iter().rev().filter_map(|(tree, at)| Some((c.programs.get(tree)?, *at)));
    let known: Vec<_> = known.collect();
    let home = known.first().map(|(program, _)| program.vo.site());
    let mut found = Vec::new();
    if let (Some(home), Some(mandate)) = (home, c.mandates.get(&uid)) {
        found.push(Proof::Mandate { home, mandate: mandate.clone() });
    }
    for (program, there) in known {
        let proof = match (&program.mandate, &program.unit) {
            (Some(mandate), _) => {
                Proof::Mandate { home: program.vo.site(), mandate: mandate.clone() }
            }
            (None, Some(unit)) if there => Proof::Unit { envelope: unit.envelope.clone() },
            (None, _) => continue,
        };
        if !found.contains(&proof) {
            found.push(proof);
        }
        if found.len() >= TRIES_MAX {
            break;
        }
    }
    Some(found)
}
