//! What the core says, on its way to the agent. The agent's lease is in it, so that it hears at once
//! what it can; what is to be started comes when account, home and ticket are there.

use super::Seated;
use crate::agent::Agent;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xos_base::Kind;
use xos_ssi::cluster::messages::{Order, ToNode, TreeId};
use xos_ssi::wire::Program;

/// What is being prepared, by tree: the newest that the core said of it, as the older may be too
/// old to count when it is ready.
#[derive(Default)]
pub(super) struct Preparing(Mutex<BTreeMap<TreeId, ToNode>>);

impl Preparing {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TreeId, ToNode>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody prepares this tree yet: then the caller does.
    fn put(&self, tree: TreeId, told: ToNode) -> bool {
        self.lock().insert(tree, told).is_none()
    }

    /// It is ready.
    fn take(&self, tree: TreeId) -> Option<ToNode> {
        self.lock().remove(&tree)
    }
}

/// What the agent hears at once, and what it is to start or restore, each by itself.
fn split(messages: Vec<ToNode>) -> (Vec<ToNode>, Vec<(TreeId, ToNode)>) {
    let (mut at_once, mut starts) = (Vec::new(), Vec::new());
    for message in messages {
        let ToNode::Told { term, sent, orders } = message else {
            at_once.push(message);
            continue;
        };
        let mut rest = Vec::new();
        for order in orders {
            match &order {
                // What will be restored too: nobody stands still until account and home are there.
                Order::Start { tree, .. }
                | Order::Expect { tree, .. }
                | Order::Restore { tree, .. } => {
                    starts.push((*tree, ToNode::Told { term, sent, orders: vec![order] }));
                }
                _ => rest.push(order),
            }
        }
        at_once.push(ToNode::Told { term, sent, orders: rest });
    }
    (at_once, starts)
}

impl Agent {
    /// Tells the agent what the core says: as an answer, or by itself.
    pub(super) fn hear_cluster(
        self: &Arc<Agent>,
        seated: &Seated,
        answers: Option<u64>,
        messages: Vec<ToNode>,
        programs: Vec<(TreeId, Program)>,
    ) -> io::Result<()> {
        let (at_once, starts) = split(messages);
        seated.client.heard(answers, at_once, Vec::new(), Vec::new())?;
        let Some(clustered) = &self.cluster else { return Ok(()) };
        let mut programs: BTreeMap<TreeId, Program> = programs.into_iter().collect();
        for (tree, told) in starts {
            let Some(program) = programs.remove(&tree) else { continue };
            if clustered.preparing.put(tree, told) {
                let (agent, seated) = (self.clone(), seated.clone());
                tokio::spawn(async move { agent.prepare(&seated, tree, program).await });
            }
        }
        Ok(())
    }

    /// Has the agent start or restore a tree, or says why that cannot be. What waits for a person
    /// whom this node does not know yet the core says again.
    async fn prepare(&self, seated: &Seated, tree: TreeId, program: Program) {
        let made = self.job(seated, tree, program).await;
        let told = self.cluster.as_ref().and_then(|c| c.preparing.take(tree));
        let (jobs, refused) = match made {
            Ok(job) => (vec![(tree, job)], Vec::new()),
            Err(error) if error.kind == Kind::Unavailable => {
                tracing::debug!(%tree, %error, "a program waits for its person's account");
                return;
            }
            Err(error) => (Vec::new(), vec![(tree, error.to_string())]),
        };
        let messages = told.into_iter().collect();
        if let Err(error) = seated.client.heard(None, messages, jobs, refused) {
            tracing::debug!(%tree, %error, "the cluster's agent does not hear of a program");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_base::Millis;

    fn start(tree: u64) -> Order {
        Order::Start { tree: TreeId(tree), epoch: 1 }
    }

    fn told(sent: u64, orders: Vec<Order>) -> ToNode {
        ToNode::Told { term: 2, sent: Millis(sent), orders }
    }

    /// If it failed, a home that does not answer would stop all programs of the node: the lease is
    /// in what the agent would wait for.
    #[test]
    fn only_what_is_started_waits() {
        let kill = || Order::Kill { tree: TreeId(3), epoch: 4 };
        let admitted = || ToNode::Admitted { after: 1, term: 2 };
        let messages = vec![admitted(), told(5, vec![start(1), kill(), start(2)]), told(6, vec![])];
        let (at_once, starts) = split(messages);
        assert_eq!(at_once, [admitted(), told(5, vec![kill()]), told(6, vec![])]);
        let each = [1, 2].map(|tree| (TreeId(tree), told(5, vec![start(tree)])));
        assert_eq!(starts, each);
    }

    /// If it failed, a program whose ticket takes longer than a lease would never be started, or be
    /// prepared with each heartbeat.
    #[test]
    fn what_is_ready_is_started_by_the_newest_word() {
        let preparing = Preparing::default();
        assert!(preparing.put(TreeId(1), told(5, vec![start(1)])));
        assert!(!preparing.put(TreeId(1), told(6, vec![start(1)])));
        assert!(preparing.put(TreeId(2), told(6, vec![start(2)])));
        assert_eq!(preparing.take(TreeId(1)), Some(told(6, vec![start(1)])));
        assert!(preparing.put(TreeId(1), told(7, vec![start(1)])));
    }
}
