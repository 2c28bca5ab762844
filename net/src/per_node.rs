//! One task for each connected node of a site.

use crate::nodes::NodeChange;
use std::collections::HashMap;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::{AbortHandle, JoinSet};
use xos_base::NodeId;

/// Runs `task` for each node as long as it is connected: from the start for those that `connected`
/// names, for others as they come. A task is dropped when its node goes or connects anew, so that
/// there are never two of one node, and a new connection begins afresh. Ends with the sender of
/// `changes`; dropping it drops all tasks. `what` names the tasks in the log.
pub async fn for_each_node<F>(
    what: &'static str,
    mut changes: broadcast::Receiver<NodeChange>,
    connected: impl Fn() -> Vec<NodeId>,
    task: impl Fn(NodeId) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut running: HashMap<NodeId, AbortHandle> = HashMap::new();
    let begin = |tasks: &mut JoinSet<()>, running: &mut HashMap<_, AbortHandle>, node: NodeId| {
        let handle = tasks.spawn(task(node.clone()));
        if let Some(former) = running.insert(node, handle) {
            former.abort();
        }
    };
    for node in connected() {
        begin(&mut tasks, &mut running, node);
    }
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(what, %error, "a node's task ended");
                }
                continue;
            }
        };
        match change {
            Ok(NodeChange { node, connected }) => {
                if let Some(former) = running.remove(&node) {
                    former.abort();
                }
                if connected {
                    begin(&mut tasks, &mut running, node);
                }
            }
            Err(RecvError::Lagged(_)) => {
                running.drain().for_each(|(_, former)| former.abort());
                for node in connected() {
                    begin(&mut tasks, &mut running, node);
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::sync::mpsc;

    /// Says when it begins and when it is dropped.
    struct Said(mpsc::UnboundedSender<String>, NodeId);

    impl Drop for Said {
        fn drop(&mut self) {
            drop(self.0.send(format!("{} ends", self.1)));
        }
    }

    #[tokio::test]
    async fn a_node_has_one_task_while_it_is_connected() {
        // wrong: a node would hear nothing, or an older list after a newer one
        let node = |name| "rennes".parse::<xos_base::SiteId>().unwrap().node(name).unwrap();
        let (say, mut said) = mpsc::unbounded_channel();
        let (changes, coming) = broadcast::channel(2);
        let there = Arc::new(Mutex::new(vec![node("n1")]));
        let now = there.clone();
        let all = tokio::spawn(for_each_node(
            "a test",
            coming,
            move || now.lock().unwrap().clone(),
            move |node| {
                say.send(format!("{node} begins")).unwrap();
                let said = Said(say.clone(), node);
                async move {
                    let _said = said;
                    std::future::pending().await
                }
            },
        ));
        let mut next = async || said.recv().await.unwrap();
        assert_eq!(next().await, "n1.rennes begins");
        let change = |name, connected| {
            changes.send(NodeChange { node: node(name), connected }).unwrap();
        };
        change("n2", true);
        assert_eq!(next().await, "n2.rennes begins");
        change("n2", false);
        assert_eq!(next().await, "n2.rennes ends");
        // Connected anew, before it was noticed that the old stream is gone.
        change("n1", true);
        let mut both = [next().await, next().await];
        both.sort();
        assert_eq!(both, ["n1.rennes begins", "n1.rennes ends"]);
        // More than the channel holds before anybody reads: it looks at what there is.
        *there.lock().unwrap() = vec![node("n3")];
        for _ in 0..3 {
            change("n4", false);
        }
        let mut both = [next().await, next().await];
        both.sort();
        assert_eq!(both, ["n1.rennes ends", "n3.rennes begins"]);
        drop(changes);
        all.await.unwrap();
        assert_eq!(next().await, "n3.rennes ends");
    }
}
