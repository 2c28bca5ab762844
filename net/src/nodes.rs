//! The nodes of a site as its core sees them: their control streams, and dial-back.

use crate::caller::Caller;
use crate::control::Control;
use crate::frames::{self, OPENING_MAX, Opened, Opening};
use crate::guard::Proved;
use crate::identity::hex;
use crate::router::Router;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{broadcast, oneshot};
use xos_api::Request;
use xos_api::node::DialBack;
use xos_base::{Error, NodeId, SiteId};

/// How long a node may take to dial back.
pub const DIAL_BACK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may take to say what its connection is for.
pub const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// Most streams that wait for a node to dial back.
const WAITING_MAX: usize = 1024;
/// Of these, those that wait for one node, and those that one machine of this site, or all of
/// another site, want.
const WAITING_SHARE: usize = WAITING_MAX / 8;
/// How much of a stream is read at once, each way, in bytes: two of the largest records of TLS.
const SPLICE_BUFFER: usize = 32 * 1024;
/// How many changes a slow listener may miss before it has to look at all nodes again.
const CHANGES_MAX: usize = 1024;

/// A byte stream, whatever carries it.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A node came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeChange {
    /// The node.
    pub node: NodeId,
    /// Whether it is connected now.
    pub connected: bool,
}

/// The site's nodes. Cheap to clone.
#[derive(Clone)]
pub struct Nodes {
    inner: Arc<Inner>,
}

struct Inner {
    site: SiteId,
    router: OnceLock<Arc<Router>>,
    controls: Mutex<HashMap<NodeId, Arc<Control>>>,
    waiting: Mutex<HashMap<String, Waiting>>,
    changes: broadcast::Sender<NodeChange>,
}

struct Waiting {
    node: NodeId,
    /// Who wants it: a machine of this site, or another site.
    by: Wanting,
    stream: oneshot::Sender<Box<dyn Io>>,
}

#[derive(Clone, PartialEq, Eq)]
enum Wanting {
    Machine(String),
    Site(SiteId),
}

impl Wanting {
    fn of(caller: &Caller, own: &SiteId) -> Wanting {
        let site = Proved::of(caller).site;
        if site == *own { Wanting::Machine(caller.describe()) } else { Wanting::Site(site) }
    }
}

impl Nodes {
    /// The nodes of `site`; none is connected yet.
    pub fn new(site: SiteId) -> Nodes {
        Nodes {
            inner: Arc::new(Inner {
                site,
                router: OnceLock::new(),
                controls: Mutex::default(),
                waiting: Mutex::default(),
                changes: broadcast::channel(CHANGES_MAX).0,
            }),
        }
    }

    /// Sets what serves the nodes' calls.
    pub fn set_router(&self, router: Arc<Router>) {
        if self.inner.router.set(router).is_err() {
            tracing::warn!("the router was already set; the first one stays");
        }
    }

    /// Calls a node over the stream that it opened.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when it is not connected; else as [`Control::call`].
    pub async fn call<R: Request>(&self, node: &NodeId, r: R) -> Result<R::Reply, Error> {
        let control = self.control(node)?;
        control.call(r).await
    }

    /// The connected nodes.
    pub fn connected(&self) -> Vec<NodeId> {
        self.inner.controls.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Whether a node is connected.
    pub fn is_connected(&self, node: &NodeId) -> bool {
        self.inner.controls.lock().unwrap_or_else(PoisonError::into_inner).contains_key(node)
    }

    /// Nodes that come and go from now on.
    pub fn changes(&self) -> broadcast::Receiver<NodeChange> {
        self.inner.changes.subscribe()
    }

    fn control(&self, node: &NodeId) -> Result<Arc<Control>, Error> {
        let controls = self.inner.controls.lock().unwrap_or_else(PoisonError::into_inner);
        controls.get(node).cloned().ok_or_else(|| {
            Error::unavailable(format!("node {node} is not connected to its core"))
                .hint("check that xosd runs there and reaches the core")
        })
    }

    /// Serves one `xos-node/1` connection until it ends.
    ///
    /// # Errors
    /// Why the connection was refused or broke.
    pub async fn serve(&self, mut stream: Box<dyn Io>, caller: Caller) -> Result<(), Error> {
        let first = frames::read::<Opening>(&mut stream, OPENING_MAX);
        let opening = tokio::time::timeout(OPENING_TIMEOUT, first)
            .await
            .map_err(|_| Error::unavailable("the peer never said what it wants"))??;
        let Some(opening) = opening else { return Ok(()) };
        let result = match opening {
            Opening::Control {} => match self.own_node(&caller) {
                Ok(node) => {
                    frames::write(&mut stream, &Opened::Ok {}).await?;
                    return self.run_control(stream, node, caller).await;
                }
                Err(e) => Err(e),
            },
            Opening::Accept { token } => match self.claim(&caller, &token) {
                Ok(waiting) => {
                    frames::write(&mut stream, &Opened::Ok {}).await?;
                    return waiting.send(stream).map_err(|_| {
                        Error::unavailable("who wanted the stream has gone meanwhile")
                    });
                }
                Err(e) => Err(e),
            },
            // A member reaches the node's sshd so, which the node sees to.
            Opening::Dial { .. }
                if caller.core().is_err() && caller.node().is_err() && caller.member().is_err() =>
            {
                Err(Error::denied(format!("{} opens no stream to a node", caller.describe())))
            }
            Opening::Dial { node } => match self.dial_back(&caller, &node).await {
                Ok(mut back) => {
                    frames::write(&mut stream, &Opened::Ok {}).await?;
                    let spliced = tokio::io::copy_bidirectional_with_sizes(
                        &mut stream,
                        &mut back,
                        SPLICE_BUFFER,
                        SPLICE_BUFFER,
                    );
                    if let Err(e) = spliced.await {
                        tracing::debug!(%node, error = %e, "a spliced stream ended");
                    }
                    return Ok(());
                }
                Err(e) => Err(e),
            },
        };
        let error = match result {
            Ok(()) => return Ok(()),
            Err(e) => e,
        };
        frames::write(&mut stream, &Opened::Error(error.clone())).await?;
        Err(error)
    }

    fn own_node(&self, caller: &Caller) -> Result<NodeId, Error> {
        let node = caller.node()?;
        if node.site() == self.inner.site {
            Ok(node.clone())
        } else {
            Err(Error::denied(format!("{node} is not a node of {}", self.inner.site)))
        }
    }

    async fn run_control(
        &self,
        stream: Box<dyn Io>,
        node: NodeId,
        caller: Caller,
    ) -> Result<(), Error> {
        let router = self.inner.router.get().cloned().ok_or_else(|| {
            Error::unavailable("this core is starting").hint("try again in a moment")
        })?;
        let (control, former) = {
            let mut all = self.inner.controls.lock().unwrap_or_else(PoisonError::into_inner);
            // Its first call must find the node connected.
            let control = Control::start(stream, router, caller);
            let former = all.insert(node.clone(), control.clone());
            (control, former)
        };
        if let Some(former) = former {
            former.close();
        }
        self.announce(&node, true);
        control.closed().await;
        let gone = {
            let mut all = self.inner.controls.lock().unwrap_or_else(PoisonError::into_inner);
            // A newer stream of the same node may stand there already.
            let mine = all.get(&node).is_some_and(|c| Arc::ptr_eq(c, &control));
            if mine {
                all.remove(&node);
            }
            mine
        };
        if gone {
            self.announce(&node, false);
        }
        Ok(())
    }

    fn announce(&self, node: &NodeId, connected: bool) {
        tracing::info!(%node, connected, "node");
        let change = NodeChange { node: node.clone(), connected };
        if self.inner.changes.send(change).is_err() {
            tracing::trace!("nobody listens for nodes yet");
        }
    }

    fn claim(&self, caller: &Caller, token: &str) -> Result<oneshot::Sender<Box<dyn Io>>, Error> {
        let node = self.own_node(caller)?;
        let mut waiting = self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.remove(token) {
            Some(w) if w.node == node => Ok(w.stream),
            Some(other) => {
                waiting.insert(token.to_owned(), other);
                Err(Error::denied("that stream waits for another node"))
            }
            None => Err(Error::not_found("no stream waits under that token")),
        }
    }

    /// A place among the streams that wait, under a new token.
    fn wait(
        &self,
        caller: &Caller,
        node: &NodeId,
    ) -> Result<(String, oneshot::Receiver<Box<dyn Io>>), Error> {
        let token = random_token()?;
        let (stream, receiver) = oneshot::channel();
        let by = Wanting::of(caller, &self.inner.site);
        let mut waiting = self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let of_node = waiting.values().filter(|w| w.node == *node).count();
        let of_caller = waiting.values().filter(|w| w.by == by).count();
        if waiting.len() >= WAITING_MAX || of_node.max(of_caller) >= WAITING_SHARE {
            return Err(Error::limited("too many streams wait for nodes").hint("try again"));
        }
        waiting.insert(token.clone(), Waiting { node: node.clone(), by, stream });
        Ok((token, receiver))
    }

    /// Asks a connected node for a stream that `caller` wants. What runs inside is end to end: the
    /// node proves itself again to whoever wanted the stream.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when the node is not connected or does not dial back,
    /// [`xos_base::Kind::Limited`] when too many streams wait.
    async fn dial_back(&self, caller: &Caller, node: &NodeId) -> Result<Box<dyn Io>, Error> {
        let control = self.control(node)?;
        let (token, receiver) = self.wait(caller, node)?;
        let back = async {
            control.call(DialBack { token: token.clone() }).await?;
            receiver.await.map_err(|_| Error::unavailable("the node's stream was dropped"))
        };
        let result = tokio::time::timeout(DIAL_BACK_TIMEOUT, back).await;
        self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&token);
        result.unwrap_or_else(|_| {
            Err(Error::unavailable(format!("node {node} did not dial back in time")))
        })
    }
}

/// Tells a peer why it is not served, and gives the reason back. What it wants is read first: a
/// connection that is closed over what was not read is reset, and then nothing is heard of it.
pub(crate) async fn refuse(mut stream: impl Io, why: Error) -> Error {
    let told = async {
        frames::read::<Opening>(&mut stream, OPENING_MAX).await?;
        frames::write(&mut stream, &Opened::Error(why.clone())).await?;
        stream.shutdown().await.map_err(|e| Error::unavailable(format!("the stream broke: {e}")))
    };
    match tokio::time::timeout(OPENING_TIMEOUT, told).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "who is refused did not hear why"),
        Err(_) => tracing::debug!("who is refused never said what they want"),
    }
    why
}

/// 128 random bits, hex.
///
/// # Errors
/// [`xos_base::Kind::Internal`] when the system's randomness fails.
pub fn random_token() -> Result<String, Error> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::internal("the system gives no randomness"))?;
    Ok(hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_places_of_streams_that_wait() {
        // Else one site, or one node that never dials back, ends files for everybody.
        let nodes = Nodes::new("rennes".parse().unwrap());
        let core = |site: &str| Caller::own_core(site.parse().unwrap());
        let fill = |site: &str, node: &dyn Fn(usize) -> String| {
            let mut held = Vec::new();
            while let Ok(place) = nodes.wait(&core(site), &node(held.len()).parse().unwrap()) {
                held.push(place);
                assert!(held.len() <= WAITING_MAX, "no limit holds");
            }
            held.len()
        };
        assert_eq!(fill("pisa", &|i| format!("n{i}.rennes")), WAITING_SHARE, "of one site");
        assert_eq!(fill("lyon", &|_| "dead.rennes".into()), WAITING_SHARE, "for one node");
        assert!(nodes.wait(&core("rennes"), &"dead.rennes".parse().unwrap()).is_err());
        nodes.wait(&core("rennes"), &"n1.rennes".parse().unwrap()).expect("others wait too");
    }
}
