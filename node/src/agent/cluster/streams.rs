//! Streams between the nodes of a cluster: images, what programs wrote, and packets; and the images
//! of programs that go from one site's cluster to another's. Of output on its way to a spool see
//! [`super::relays`].

use super::Seated;
use crate::agent::Agent;
use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::io::copy_bidirectional_with_sizes;
use xos_api::node::{AttachOpened, AttachOpening};
use xos_base::{ClusterId, Error, NodeId};
use xos_net::dial::StreamHandler;
use xos_net::nodes::Io;
use xos_net::tls::ALPN_CLUSTER;
use xos_net::{Caller, frames};
use xos_ssi::cluster::messages::{Stretch, TreeId};
use xos_ssi::given::{GIVEN_MAX, Given, GivenPlace};
use xos_ssi::host::Brought;
use xos_ssi::pids::NodeNumber;
use xos_ssi::wire::{
    ALPN_CARRIED, ALPN_IMAGE, ALPN_PACKETS, ALPN_RELAY, ALPN_WRITTEN, CarriedOpening, ClusterMay,
    Comer, ImageOpening, PacketsOpening, WrittenOpening,
};

/// Longest first frame, in bytes.
const OPENING_MAX: usize = 4096;
/// How long that may take.
const OPENING_TIMEOUT: Duration = Duration::from_secs(20);

/// How much is read at once, each way, in bytes: of images, and of what is mostly little.
const BUFFER_IMAGE: usize = 256 * 1024;
const BUFFER: usize = 8 * 1024;

/// Most streams of images that a node is given at a time, and of one tree.
const OF_A_NODE_MAX: usize = 16;
const OF_A_TREE_MAX: usize = 4;

/// What a stream of an image counts as: one of a node, and one of a node and a tree; one of all
/// without both.
type ImageCount = (Option<NodeId>, Option<TreeId>);

/// Images that other nodes are given now.
#[derive(Default)]
pub(super) struct Images(Given<ImageCount>);

impl Images {
    /// A place for one more, for as long as its stream lasts.
    fn enter(&self, node: &NodeId, tree: TreeId) -> Result<GivenPlace<ImageCount>, Error> {
        let place = self.0.enter(&[
            ((None, None), GIVEN_MAX),
            ((Some(node.clone()), None), OF_A_NODE_MAX),
            ((Some(node.clone()), Some(tree)), OF_A_TREE_MAX),
        ]);
        place.ok_or_else(|| {
            Error::limited(format!("{node} is given enough at a time: no image of {tree} now"))
                .hint("it tries again when others have ended")
        })
    }
}

/// What a stream is for.
#[derive(Clone, Copy)]
enum What {
    Image,
    Written,
    Carried,
    Relay,
    Packets,
    Ghost,
}

/// Serves the streams of other nodes, and of people who follow programs, once the agent is there.
pub(in crate::agent) fn handlers(
    agent: &Arc<OnceLock<Weak<Agent>>>,
) -> HashMap<Vec<u8>, StreamHandler> {
    let serving = |what: What| -> StreamHandler {
        let agent = agent.clone();
        Arc::new(move |caller: Caller, stream: Box<dyn Io>| {
            let agent = agent.get().and_then(Weak::upgrade);
            let served = async move {
                let Some(agent) = agent else { return };
                let served = match what {
                    What::Image => agent.serve_image(&caller, stream).await,
                    What::Written => agent.serve_written(&caller, stream).await,
                    What::Carried => agent.serve_carried(&caller, stream).await,
                    What::Relay => agent.serve_relays(&caller, stream).await,
                    What::Packets => agent.serve_packets(&caller, stream).await,
                    What::Ghost => agent.serve_ghost(&caller, stream).await,
                };
                if let Err(error) = served {
                    tracing::warn!(who = caller.describe(), %error, "a stream of the cluster ended");
                }
            };
            Box::pin(served) as Pin<Box<dyn Future<Output = ()> + Send>>
        })
    };
    HashMap::from([
        (ALPN_IMAGE.to_vec(), serving(What::Image)),
        (ALPN_WRITTEN.to_vec(), serving(What::Written)),
        (ALPN_CARRIED.to_vec(), serving(What::Carried)),
        (ALPN_RELAY.to_vec(), serving(What::Relay)),
        (ALPN_PACKETS.to_vec(), serving(What::Packets)),
        (ALPN_CLUSTER.to_vec(), serving(What::Ghost)),
    ])
}

pub(super) fn broke(e: &std::io::Error) -> Error {
    Error::unavailable(format!("a stream of the cluster broke: {e}"))
}

/// Carries bytes both ways until both ends have closed.
async fn splice(stream: Box<dyn Io>, socket: UnixStream) -> Result<(), Error> {
    splice_by(BUFFER, stream, socket).await
}

async fn splice_by(
    buffer: usize,
    mut stream: Box<dyn Io>,
    socket: UnixStream,
) -> Result<(), Error> {
    socket.set_nonblocking(true).map_err(|e| broke(&e))?;
    let mut socket = tokio::net::UnixStream::from_std(socket).map_err(|e| broke(&e))?;
    let copied = copy_bidirectional_with_sizes(&mut stream, &mut socket, buffer, buffer).await;
    copied.map(drop).map_err(|e| broke(&e))
}

/// The first frame of a stream.
pub(super) async fn opening<T: serde::de::DeserializeOwned>(
    stream: &mut Box<dyn Io>,
) -> Result<T, Error> {
    let read = frames::read::<T>(stream, OPENING_MAX);
    let read = tokio::time::timeout(OPENING_TIMEOUT, read).await;
    let read = read.unwrap_or_else(|_| Err(Error::unavailable("it took too long")))?;
    read.ok_or_else(|| Error::unavailable("the stream ended"))
}

impl Agent {
    /// The place, if the caller is another node of the same cluster.
    pub(super) fn neighbour(&self, caller: &Caller, cluster: &ClusterId) -> Result<Seated, Error> {
        let seated = self.clustered()?.at(cluster)?;
        let node = caller.node()?;
        if seated.seat.nodes.values().any(|id| id == node) {
            return Ok(seated);
        }
        Err(Error::denied(format!("{node} is not in {cluster}")))
    }

    async fn serve_image(&self, caller: &Caller, mut stream: Box<dyn Io>) -> Result<(), Error> {
        let ImageOpening { cluster, tree, version } = opening(&mut stream).await?;
        let seated = self.neighbour(caller, &cluster)?;
        let node = caller.node()?.clone();
        let _place = self.clustered()?.given.enter(&node, tree)?;
        let comer = Comer::Image { node, version };
        self.may(caller, ClusterMay { cluster, tree, comer }).await?;
        let (ours, theirs) = UnixStream::pair().map_err(|e| broke(&e))?;
        seated.client.image(tree, version, &theirs).map_err(|e| broke(&e))?;
        drop(theirs);
        splice_by(BUFFER_IMAGE, stream, ours).await
    }

    /// Gives the image of a tree that left to a node of whichever site that the core lets have it.
    async fn serve_carried(&self, caller: &Caller, mut stream: Box<dyn Io>) -> Result<(), Error> {
        let CarriedOpening { cluster, tree, version, key, vo, member } =
            opening(&mut stream).await?;
        let seated = self.clustered()?.at(&cluster)?;
        let node = caller.node()?.clone();
        let comer = Comer::Carried { node: node.clone(), version, key, vo, member };
        self.may(caller, ClusterMay { cluster, tree, comer }).await?;
        tracing::info!(%node, %tree, version, "a node fetches the image of what left");
        // Strangers take no place of those whom the core lets have it.
        let _place = self.clustered()?.given.enter(&node, tree)?;
        let (ours, theirs) = UnixStream::pair().map_err(|e| broke(&e))?;
        seated.client.carried(tree, version, &theirs).map_err(|e| broke(&e))?;
        drop(theirs);
        splice_by(BUFFER_IMAGE, stream, ours).await
    }

    async fn serve_written(&self, caller: &Caller, mut stream: Box<dyn Io>) -> Result<(), Error> {
        let WrittenOpening { cluster, tree, ask } = opening(&mut stream).await?;
        let seated = self.neighbour(caller, &cluster)?;
        let comer = Comer::Written { node: caller.node()?.clone() };
        self.may(caller, ClusterMay { cluster, tree, comer }).await?;
        let (ours, theirs) = UnixStream::pair().map_err(|e| broke(&e))?;
        seated.client.written(tree, ask, &theirs).map_err(|e| broke(&e))?;
        drop(theirs);
        splice(stream, ours).await
    }

    /// Takes packets of another node's trees. Which of them count, the core said: no word of it is
    /// needed here.
    async fn serve_packets(&self, caller: &Caller, mut stream: Box<dyn Io>) -> Result<(), Error> {
        let PacketsOpening { cluster } = opening(&mut stream).await?;
        let seated = self.neighbour(caller, &cluster)?;
        let node = caller.node()?;
        let from = seated.seat.nodes.iter().find(|(_, id)| *id == node).map(|(number, _)| *number);
        let from = from.ok_or_else(|| Error::denied(format!("{node} is not in {cluster}")))?;
        let (ours, theirs) = UnixStream::pair().map_err(|e| broke(&e))?;
        seated.client.packets(from, &theirs).map_err(|e| broke(&e))?;
        drop(theirs);
        splice(stream, ours).await
    }

    /// Lets the owner of a tree follow it, until they may not act here any more.
    async fn serve_ghost(
        self: &Arc<Agent>,
        caller: &Caller,
        mut stream: Box<dyn Io>,
    ) -> Result<(), Error> {
        let opened = self.open_ghost(caller, &mut stream).await;
        let said = match &opened {
            Ok(_) => AttachOpened::Ok {},
            Err(e) => AttachOpened::Error(e.clone()),
        };
        frames::write(&mut stream, &said).await?;
        let (ghost, uid) = opened?;
        tokio::select! {
            spliced = splice(stream, ghost) => spliced,
            () = self.until_refused(uid) => {
                Err(Error::denied("who followed a program may not act here any more"))
            }
        }
    }

    async fn open_ghost(
        &self,
        caller: &Caller,
        stream: &mut Box<dyn Io>,
    ) -> Result<(UnixStream, u32), Error> {
        let member = caller.member()?.clone();
        let AttachOpening { cluster, tree } = opening(stream).await?;
        let seated = self.clustered()?.at(&cluster)?;
        let uid = self.account_of(&member)?.uid;
        let (tree, vo) = (TreeId(tree), member.vo);
        let comer = Comer::Ghost { vo, member: member.number };
        self.may(caller, ClusterMay { cluster, tree, comer }).await?;
        let (ours, theirs) = UnixStream::pair().map_err(|e| broke(&e))?;
        seated.client.attach(tree, uid, &theirs).map_err(|e| broke(&e))?;
        Ok((ours, uid))
    }

    /// A node of the cluster by its number, and the cluster.
    pub(super) fn of_number(&self, number: NodeNumber) -> Result<(ClusterId, NodeId), Error> {
        let seated = self.clustered()?.seated().clone();
        let seat = seated.ok_or_else(|| Error::unavailable("this node is in no cluster"))?.seat;
        let node = seat.nodes.get(&number).cloned();
        let node = node.ok_or_else(|| {
            Error::not_found(format!("there is no node {number} in {}", seat.cluster))
        })?;
        Ok((seat.cluster, node))
    }

    /// Fills a socket with an image of another node. When it is closed early, the agent sees that
    /// the image is torn.
    pub(super) async fn fetch_image(
        &self,
        from: NodeNumber,
        tree: TreeId,
        version: u64,
        socket: UnixStream,
    ) {
        let fetched = async {
            let (cluster, node) = self.of_number(from)?;
            let mut stream = self.clustered()?.dialer.node(&node, ALPN_IMAGE).await?;
            frames::write(&mut stream, &ImageOpening { cluster, tree, version }).await?;
            splice_by(BUFFER_IMAGE, stream, socket).await
        };
        if let Err(error) = fetched.await {
            tracing::warn!(%tree, version, %error, "an image was not fetched");
        }
    }

    /// Fills a socket with a part of a tree's output that another node has. When it is closed
    /// early, the agent sees that some is missing.
    pub(super) async fn fetch_written(
        &self,
        from: NodeNumber,
        tree: TreeId,
        ask: Stretch,
        socket: UnixStream,
    ) {
        let fetched = async {
            let (cluster, node) = self.of_number(from)?;
            let mut stream = self.clustered()?.dialer.node(&node, ALPN_WRITTEN).await?;
            frames::write(&mut stream, &WrittenOpening { cluster, tree, ask }).await?;
            splice(stream, socket).await
        };
        if let Err(error) = fetched.await {
            tracing::warn!(%tree, %error, "the output of a tree was not fetched");
        }
    }

    /// Fills a socket with the image of a tree that left another cluster, from a node there.
    pub(super) async fn fetch_carried(&self, from: &NodeId, what: Brought, socket: UnixStream) {
        let Brought { carried, vo, member, .. } = what;
        let (tree, version) = (TreeId(carried.tree), carried.version);
        let fetched = async {
            let mut stream = self.clustered()?.dialer.node(from, ALPN_CARRIED).await?;
            let (cluster, key) = (carried.cluster, carried.key);
            let opening = CarriedOpening { cluster, tree, version, key, vo, member };
            frames::write(&mut stream, &opening).await?;
            splice_by(BUFFER_IMAGE, stream, socket).await
        };
        if let Err(error) = fetched.await {
            tracing::warn!(%from, %tree, version, %error, "an image was not fetched");
        }
    }

    /// Carries packets of trees here to another node. When it ends, another one is asked for.
    pub(super) async fn carry_packets(&self, to: NodeNumber, socket: UnixStream) {
        let carried = async {
            let (cluster, node) = self.of_number(to)?;
            let mut stream = self.clustered()?.dialer.node(&node, ALPN_PACKETS).await?;
            frames::write(&mut stream, &PacketsOpening { cluster }).await?;
            splice(stream, socket).await
        };
        if let Err(error) = carried.await {
            tracing::debug!(%to, %error, "packets do not get to a node now");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_given_a_share_of_images() {
        // wrong: a rooted node could take all threads, descriptors and ports of another by asking
        // for the same image, or for those of many trees, again and again
        let (images, one, other): (Images, NodeId, NodeId) =
            (Images::default(), "n1.rennes".parse().unwrap(), "n2.rennes".parse().unwrap());
        let mut places: Vec<_> =
            (0..OF_A_TREE_MAX).map(|_| images.enter(&one, TreeId(7)).unwrap()).collect();
        assert!(images.enter(&one, TreeId(7)).is_err(), "of a tree");
        for n in OF_A_TREE_MAX..OF_A_NODE_MAX {
            places.push(images.enter(&one, TreeId(100 + n as u64)).unwrap());
        }
        assert!(images.enter(&one, TreeId(8)).is_err(), "of a node");
        assert!(images.enter(&other, TreeId(7)).is_ok());
        drop(places);
        assert!(images.enter(&one, TreeId(7)).is_ok());
    }
}
