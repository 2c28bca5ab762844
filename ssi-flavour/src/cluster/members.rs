//! The nodes of a cluster: how each stands, and for how long one that is not heard may still work.

mod heard;
mod state;
mod times;

pub use heard::Heard;
pub use state::NodeState;
pub use times::{Times, TimesError};

use crate::pids::{NODE_NUMBER_MAX, NodeNumber};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xos_base::{NodeId, VoId};

/// What the canary showed: a small tree that is checkpointed and restored when a node joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Moves {
    /// Trees can come and go.
    Yes,
    /// The node runs only what never moves.
    No {
        /// Why, for people.
        reason: String,
    },
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub id: NodeId,
    /// How it stands.
    pub state: NodeState,
    /// What it was before it was suspect.
    pub before: NodeState,
    /// Its last term; 0: it never joined.
    pub term: u64,
    /// What the canary showed in this term.
    pub moves: Option<Moves>,
    /// What its processors can, as a number: trees move within one.
    pub cpu_group: u64,
    /// The VOs that it serves.
    pub serves: BTreeSet<VoId>,
    /// Why it is as it is, when there is something to say.
    pub reason: String,
    /// Of silence until its term is ended, milliseconds: what nodes were told when it joined, and
    /// may work by until it joins anew. With other times the longer one counts.
    #[serde(default)]
    pub dead_ms: u64,
    /// What is wrong with its clock; empty: nothing that is known of.
    #[serde(default)]
    pub clock: String,
}

impl Member {
    /// Of silence until its term is ended, where the cluster's time for that is `now`.
    pub fn dead(&self, now: Duration) -> Duration {
        now.max(Duration::from_millis(self.dead_ms))
    }

    /// Whether trees can come to it by a move or a restart, or why not.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn takes_moves(&self) -> Result<(), String> {
        if self.state != NodeState::Online {
            return Err(format!("{} is {}", self.id, self.state));
        }
        self.can_move()?;
        match self.clock.as_str() {
            "" => Ok(()),
            // What is there may leave.
            wrong => Err(format!("nothing moves to {}: {wrong}", self.id)),
        }
    }

    /// Whether its canary let trees move, or why not.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn can_move(&self) -> Result<(), String> {
        match &self.moves {
            Some(Moves::Yes) => Ok(()),
            Some(Moves::No { reason }) => Err(format!("nothing moves on {}: {reason}", self.id)),
            None => Err(format!("{} has not been tried yet", self.id)),
        }
    }
}

/// A change of the nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberRecord {
    /// A node may join.
    Added {
        /// Its number, never given before.
        number: NodeNumber,
        /// Its name.
        id: NodeId,
    },
    /// It joined under a new term.
    Joined {
        /// The node.
        number: NodeNumber,
        /// The term.
        term: u64,
        /// Of silence until that is ended, milliseconds.
        dead_ms: u64,
    },
    /// It was tried.
    Proved {
        /// The node.
        number: NodeNumber,
        /// What the canary showed.
        moves: Moves,
        /// What its processors can.
        cpu_group: u64,
    },
    /// Its clock is wrong, or right again.
    Clock {
        /// The node.
        number: NodeNumber,
        /// What is wrong, for people; empty: nothing.
        wrong: String,
    },
    /// Which VOs it serves.
    Serves {
        /// The node.
        number: NodeNumber,
        /// All of them.
        vos: BTreeSet<VoId>,
    },
    /// It stands otherwise.
    Became {
        /// The node.
        number: NodeNumber,
        /// How.
        state: NodeState,
        /// Why, when there is something to say.
        reason: String,
    },
}

/// Why a node does not become what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// There is no such node.
    #[error("the cluster has no node {0}; `xos cluster nodes` lists them")]
    Unknown(NodeNumber),
    /// It has that name already.
    #[error("{0} is a node of the cluster already")]
    Known(NodeId),
    /// All numbers were given.
    #[error("the cluster had {NODE_NUMBER_MAX} nodes; no number is given twice: make a new one")]
    Full,
    /// Not from where it is.
    #[error("{node} is {from} and cannot become {to} from there")]
    State {
        /// The node.
        node: NodeId,
        /// What it is.
        from: NodeState,
        /// What was asked.
        to: NodeState,
    },
    /// Trees are there.
    #[error("{node} still has {trees} trees: drain it first")]
    Busy {
        /// The node.
        node: NodeId,
        /// How many.
        trees: usize,
    },
    /// Images are there that are nowhere else.
    #[error("{node} alone has the images of {images} programs that left and go on from them")]
    Needed {
        /// The node.
        node: NodeId,
        /// How many.
        images: usize,
    },
}

/// All nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    nodes: BTreeMap<NodeNumber, Member>,
    /// The highest number given.
    last: u8,
}

impl Members {
    /// The nodes as they were kept. None was ever taken out.
    pub fn of(nodes: BTreeMap<NodeNumber, Member>) -> Members {
        let last = nodes.keys().next_back().map_or(0, |n| (*n).into());
        Members { nodes, last }
    }

    /// A node.
    pub fn node(&self, number: NodeNumber) -> Option<&Member> {
        self.nodes.get(&number)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (NodeNumber, &Member)> {
        self.nodes.iter().map(|(n, m)| (*n, m))
    }

    /// The name of a node, or its number when there is none.
    pub fn name(&self, number: NodeNumber) -> String {
        self.nodes.get(&number).map_or_else(|| number.to_string(), |m| m.id.to_string())
    }

    /// Whether the node has this term and the term has not ended.
    pub fn is_in(&self, number: NodeNumber, term: u64) -> bool {
        self.nodes.get(&number).is_some_and(|m| m.state.has_term() && m.term == term)
    }

    /// Takes a node up.
    ///
    /// # Errors
    /// [`MemberError`] when it is known, or there are no numbers.
    pub fn add(&self, id: &NodeId) -> Result<MemberRecord, MemberError> {
        if self.nodes.values().any(|m| m.id == *id) {
            return Err(MemberError::Known(id.clone()));
        }
        let number = self.last.checked_add(1).and_then(|n| NodeNumber::try_from(n).ok());
        let number = number.ok_or(MemberError::Full)?;
        Ok(MemberRecord::Added { number, id: id.clone() })
    }

    /// The canary was seen.
    ///
    /// # Errors
    /// [`MemberError`] when the node is not one that is to be tried.
    pub fn prove(
        &self,
        number: NodeNumber,
        moves: Moves,
        cpu_group: u64,
    ) -> Result<MemberRecord, MemberError> {
        self.check(number, NodeState::Online)?;
        Ok(MemberRecord::Proved { number, moves, cpu_group })
    }

    /// A node is to stand otherwise.
    ///
    /// # Errors
    /// [`MemberError`] when it cannot from where it is.
    pub fn change(
        &self,
        number: NodeNumber,
        state: NodeState,
        reason: &str,
    ) -> Result<MemberRecord, MemberError> {
        self.check(number, state)?;
        Ok(MemberRecord::Became { number, state, reason: reason.to_owned() })
    }

    fn check(&self, number: NodeNumber, to: NodeState) -> Result<(), MemberError> {
        let m = self.nodes.get(&number).ok_or(MemberError::Unknown(number))?;
        if m.state.leads_to(to) {
            return Ok(());
        }
        Err(MemberError::State { node: m.id.clone(), from: m.state, to })
    }

    /// Changes the nodes.
    pub fn apply(&mut self, r: &MemberRecord) {
        match r {
            MemberRecord::Added { number, id } => {
                self.last = self.last.max((*number).into());
                let (moves, cpu_group, serves, reason, term, dead_ms, clock) = Default::default();
                let (state, before) = (NodeState::Possible, NodeState::Possible);
                let id = id.clone();
                let m = Member {
                    id,
                    state,
                    before,
                    term,
                    moves,
                    cpu_group,
                    serves,
                    reason,
                    dead_ms,
                    clock,
                };
                self.nodes.insert(*number, m);
            }
            MemberRecord::Joined { number, term, dead_ms } => {
                if let Some(m) = self.nodes.get_mut(number) {
                    (m.term, m.dead_ms) = (*term, *dead_ms);
                    m.moves = None;
                    (m.state, m.before) = (NodeState::Present, NodeState::Present);
                    m.reason.clear();
                    m.clock.clear();
                }
            }
            MemberRecord::Proved { number, moves, cpu_group } => {
                if let Some(m) = self.nodes.get_mut(number) {
                    m.moves = Some(moves.clone());
                    m.cpu_group = *cpu_group;
                    (m.state, m.before) = (NodeState::Online, NodeState::Online);
                    m.reason.clear();
                }
            }
            MemberRecord::Clock { number, wrong } => {
                if let Some(m) = self.nodes.get_mut(number) {
                    m.clock.clone_from(wrong);
                }
            }
            MemberRecord::Serves { number, vos } => {
                if let Some(m) = self.nodes.get_mut(number) {
                    m.serves.clone_from(vos);
                }
            }
            MemberRecord::Became { number, state, reason } => {
                if let Some(m) = self.nodes.get_mut(number) {
                    if *state == NodeState::Suspect {
                        m.before = m.state;
                    } else {
                        m.before = *state;
                    }
                    m.state = *state;
                    m.reason.clone_from(reason);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_base::Millis;

    fn number(n: u8) -> NodeNumber {
        NodeNumber::try_from(n).unwrap()
    }

    #[test]
    fn states_lead_where_the_table_says() {
        let mut table = String::new();
        for from in NodeState::ALL {
            let to = NodeState::ALL.into_iter().filter(|to| from.leads_to(*to));
            let to: Vec<String> = to.map(|s| s.to_string()).collect();
            table += &format!("{from}: {}\n", to.join(" "));
        }
        let want = "possible: present\n\
                    present: possible online suspect failed\n\
                    online: draining suspect failed\n\
                    draining: possible online suspect failed\n\
                    suspect: present online draining failed\n\
                    failed: possible present\n";
        assert_eq!(table, want);
    }

    #[test]
    fn a_number_is_given_once() {
        let mut members = Members::default();
        for n in 1..=NODE_NUMBER_MAX {
            let r = members.add(&format!("n{n}.rennes").parse().unwrap()).unwrap();
            members.apply(&r);
            assert_eq!(members.nodes.keys().next_back(), Some(&number(n)));
        }
        let again = members.add(&"n1.rennes".parse().unwrap());
        assert!(matches!(again, Err(MemberError::Known(_))));
        let more = members.add(&"more.rennes".parse().unwrap());
        assert_eq!(more, Err(MemberError::Full));
    }

    #[test]
    fn who_is_heard_again_is_what_it_was() {
        let mut members = Members::default();
        members.apply(&members.add(&"n1.rennes".parse().unwrap()).unwrap());
        let n = number(1);
        members.apply(&MemberRecord::Joined { number: n, term: 1, dead_ms: 8000 });
        assert!(members.change(n, NodeState::Draining, "").is_err(), "it was never online");
        let no = Moves::No { reason: "no CRIU".into() };
        members.apply(&members.prove(n, no, 7).unwrap());
        members.apply(&members.change(n, NodeState::Draining, "").unwrap());
        members.apply(&members.change(n, NodeState::Suspect, "").unwrap());
        assert_eq!(members.node(n).unwrap().before, NodeState::Draining);
        assert!(members.is_in(n, 1) && !members.is_in(n, 2));
        assert!(members.node(n).unwrap().can_move().unwrap_err().contains("no CRIU"));
        members.apply(&members.change(n, NodeState::Failed, "silent").unwrap());
        assert!(!members.is_in(n, 1), "a failed node's term is over");
    }

    #[test]
    fn the_lease_ends_before_the_node_is_dead() {
        let ms = Duration::from_millis;
        let all = [
            Times::default(),
            Times::new(ms(100), ms(200), ms(400)).unwrap(),
            Times::new(ms(10_000), ms(60_000), ms(600_000)).unwrap(),
        ];
        for t in all {
            // The node's clock loses 1 %, the controller's gains 1 %.
            let frozen = t.lease().as_secs_f64() / 0.99 + t.stop().as_secs_f64() / 0.99;
            let dead = t.dead().as_secs_f64() / 1.01;
            assert!(t.lease() > t.heartbeat() * 3, "{t:?}: a lost heartbeat would stop a node");
            assert!(frozen <= dead + 1e-9, "{t:?}: two copies would run");
        }
        assert!(Times::new(ms(50), ms(3000), ms(8000)).is_err());
        assert!(Times::new(ms(1000), ms(1500), ms(8000)).is_err());
        assert!(Times::new(ms(1000), ms(3000), ms(5000)).is_err());
        assert!(Times::new(ms(1000), ms(3000), ms(700_000)).is_err());
    }

    #[test]
    fn a_late_heartbeat_takes_nothing_back() {
        let mut heard = Heard::default();
        heard.note(number(1), Millis(10), Some(Millis(500)));
        heard.note(number(1), Millis(12), Some(Millis(400)));
        assert_eq!(heard.sent(number(1)), Some(Millis(500)));
        assert_eq!(heard.at(number(1)), Some(Millis(12)));
        assert_eq!(heard.at(number(2)), None);
    }
}
