//! The output of programs on its way from the node where they run to the spool that collects it.
//! All of it from one node to another one has one stream, a line for each copy.

use super::lines::{Comes, Lines, carry, run};
use super::streams::{broke, opening};
use crate::agent::Agent;
use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout;
use xos_base::{ClusterId, Error, NodeId};
use xos_net::dial::Dialer;
use xos_net::nodes::Io;
use xos_net::{Caller, frames};
use xos_ssi::cell::proto::Tree;
use xos_ssi::cluster::messages::TreeId;
use xos_ssi::pids::NodeNumber;
use xos_ssi::wire::{ALPN_RELAY, ClusterMay, Comer, RelayOpening, RelaysOpening};

/// How long a line waits while its stream is opened for others.
const TURN_MAX: Duration = Duration::from_secs(20);

/// What is open to one node.
#[derive(Default)]
struct Way {
    cluster: Option<ClusterId>,
    lines: Option<Arc<Lines>>,
}

impl Way {
    fn is_over(&self) -> bool {
        self.lines.as_ref().is_none_or(|lines| lines.is_over())
    }
}

/// The streams that this node opened, by the node at the other end. Each is held while it is
/// opened.
#[derive(Default)]
pub(super) struct Relays(Mutex<HashMap<NodeId, Arc<tokio::sync::Mutex<Way>>>>);

/// This end of a line.
struct Reached {
    lines: Arc<Lines>,
    number: u32,
    from: Comes,
}

impl Relays {
    fn way(&self, node: &NodeId) -> Arc<tokio::sync::Mutex<Way>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody uses and that are over: nodes come and go.
        all.retain(|_, way| {
            Arc::strong_count(way) > 1 || way.try_lock().is_ok_and(|way| !way.is_over())
        });
        all.entry(node.clone()).or_default().clone()
    }

    /// A new line to a node.
    async fn reach(
        &self,
        dialer: &Dialer,
        (cluster, node): (&ClusterId, &NodeId),
        opening: &RelayOpening,
    ) -> Result<Reached, Error> {
        let text = serde_json::to_vec(opening);
        let text = text.map_err(|e| Error::internal(format!("cannot name a copy: {e}")))?;
        let way = self.way(node);
        let mut way = timeout(TURN_MAX, way.lock()).await.map_err(|_| {
            Error::unavailable(format!("no stream to {node} was opened within {TURN_MAX:?}"))
        })?;
        if let (Some(lines), true) = (&way.lines, way.cluster.as_ref() == Some(cluster))
            && let Some((number, from)) = lines.begin(&text).await
        {
            return Ok(Reached { lines: lines.clone(), number, from });
        }
        let mut stream = dialer.node(node, ALPN_RELAY).await?;
        frames::write(&mut stream, &RelaysOpening { cluster: cluster.clone() }).await?;
        let (lines, queue) = Lines::new();
        let (of, to) = (lines.clone(), node.clone());
        tokio::spawn(async move {
            let none = None::<fn(u32, Vec<u8>) -> Result<(), Error>>;
            if let Err(error) = run(stream, &of, queue, none).await {
                tracing::debug!(%to, %error, "the stream to the spools of a node ended");
            }
        });
        (way.cluster, way.lines) = (Some(cluster.clone()), Some(lines.clone()));
        let begun = lines.begin(&text).await;
        let (number, from) = begun.ok_or_else(|| {
            Error::unavailable(format!("the stream to {node} ended when it was opened"))
        })?;
        Ok(Reached { lines, number, from })
    }
}

impl Agent {
    /// Serves a stream of another node, whose copies have their spools here.
    pub(super) async fn serve_relays(
        self: &Arc<Agent>,
        caller: &Caller,
        mut stream: Box<dyn Io>,
    ) -> Result<(), Error> {
        let RelaysOpening { cluster } = opening(&mut stream).await?;
        self.neighbour(caller, &cluster)?;
        let (lines, queue) = Lines::new();
        let (agent, caller, all) = (self.clone(), caller.clone(), lines.clone());
        let opens = move |number: u32, text: Vec<u8>| -> Result<(), Error> {
            let opening: RelayOpening = serde_json::from_slice(&text)
                .map_err(|e| Error::invalid(format!("a line says something else: {e}")))?;
            let Some(from) = all.admit(number)? else { return Ok(()) };
            let (agent, caller, cluster) = (agent.clone(), caller.clone(), cluster.clone());
            let lines = all.clone();
            tokio::spawn(async move {
                let (tree, epoch) = (opening.tree, opening.epoch);
                let served = match agent.open_relay(&caller, cluster, opening).await {
                    Ok(socket) => carry(&lines, number, socket, from).await,
                    Err(error) => {
                        drop(from);
                        lines.close(number).await;
                        Err(error)
                    }
                };
                if let Err(error) = served {
                    let who = caller.describe();
                    tracing::warn!(who, %tree, epoch, %error, "the output of a copy is not taken");
                }
            });
            Ok(())
        };
        run(stream, &lines, queue, Some(opens)).await
    }

    /// A connection to the spool of a tree, for a copy at another node.
    async fn open_relay(
        &self,
        caller: &Caller,
        cluster: ClusterId,
        opening: RelayOpening,
    ) -> Result<UnixStream, Error> {
        let RelayOpening { tree, epoch, from } = opening;
        let seated = self.neighbour(caller, &cluster)?;
        let comer = Comer::Output { node: caller.node()?.clone(), epoch };
        self.may(caller, ClusterMay { cluster, tree, comer }).await?;
        let (ours, theirs) = UnixStream::pair().map_err(|e| broke(&e))?;
        let copy = Tree { id: tree.0, epoch };
        seated.client.output(copy, from, &theirs).map_err(|e| broke(&e))?;
        Ok(ours)
    }

    /// Connects the relay of a copy here to the tree's spool at another node. When it ends, the
    /// relay asks again.
    pub(super) async fn reach_spool(
        &self,
        at: NodeNumber,
        tree: Tree,
        from: [u64; 2],
        socket: UnixStream,
    ) {
        let reached = async {
            let (cluster, node) = self.of_number(at)?;
            let clustered = self.clustered()?;
            let opening = RelayOpening { tree: TreeId(tree.id), epoch: tree.epoch, from };
            let to = (&cluster, &node);
            let reached = clustered.relays.reach(&clustered.dialer, to, &opening).await?;
            carry(&reached.lines, reached.number, socket, reached.from).await
        };
        if let Err(error) = reached.await {
            tracing::debug!(%tree, %error, "the spool of a tree is not reached now");
        }
    }
}
