//! The side of `xosd`: a connection to an agent.

use super::proto::{Ask, Tell, Want};
use super::way::{In, Out};
use crate::cell::proto::Tree;
use crate::cluster::messages::{Stretch, ToController, ToNode, TreeId};
use crate::host::{Brought, Job};
use crate::pids::NodeNumber;
use crate::wire::{NodeLooks, Obstacle, Place, TreeUse};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use xos_base::NodeId;

/// How often an agent is asked whether it lives, how long it may take to say so, and how many times
/// in a row it may not.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_MAX: Duration = Duration::from_secs(10);
pub(super) const PINGS_MISSED_MAX: u32 = 3;

/// An agent to work with, and what it wants: until it is gone, or another connection takes this
/// one's place.
pub type Begun = (Client, UnboundedReceiver<Wanted>);

/// What an agent wants of other machines.
#[derive(Debug)]
pub enum Wanted {
    /// Say this to the controller, and answer with [`Client::heard`] or [`Client::unheard`].
    Say {
        /// The call.
        id: u64,
        /// What.
        message: ToController,
        /// How the node is, with heartbeats.
        looks: Option<Box<NodeLooks>>,
        /// Whose copies the node has, by account, with heartbeats.
        people: Option<BTreeSet<u32>>,
        /// What copies of units used until then.
        used: Vec<TreeUse>,
    },
    /// Ask this of the core, and answer with [`Client::had`].
    Want {
        /// The call.
        id: u64,
        /// What.
        want: Want,
    },
    /// Fill the socket with an image of another node.
    Image {
        /// The node.
        from: NodeNumber,
        /// The tree.
        tree: TreeId,
        /// The image.
        version: u64,
        /// Where to.
        socket: UnixStream,
    },
    /// Fill a socket with a part of a tree's output that another node has.
    Written {
        /// The node.
        from: NodeNumber,
        /// The tree.
        tree: TreeId,
        /// Which part.
        ask: Stretch,
        /// Where to.
        socket: UnixStream,
    },
    /// Fill the socket with the image of a tree that left another cluster.
    Carried {
        /// The node there.
        from: NodeId,
        /// What of, and for whom.
        what: Box<Brought>,
        /// Where to.
        socket: UnixStream,
    },
    /// Connect the socket of a copy's relay to the tree's spool at another node.
    Output {
        /// The node.
        at: NodeNumber,
        /// The copy.
        tree: Tree,
        /// Where a new spool begins.
        from: [u64; 2],
        /// The relay's connection.
        socket: UnixStream,
    },
    /// Carry packets from the socket to another node.
    Packets {
        /// The node.
        to: NodeNumber,
        /// Where they come from.
        socket: UnixStream,
    },
}

/// Answers that are waited for; `None`: the connection is over.
type Waiting = Option<BTreeMap<u64, oneshot::Sender<Result<serde_json::Value, String>>>>;

struct Shared {
    out: Out,
    waiting: Mutex<Waiting>,
    numbers: Mutex<u64>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to a node's agent. Dropped, it is closed; the agent goes on.
#[derive(Clone)]
pub struct Client(Arc<Closing>);

/// Closes the connection with the last client, once all that was said is sent.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.out.finish();
    }
}

impl Client {
    /// Works over a connection from now on.
    ///
    /// # Errors
    /// That there is no thread for it.
    pub(super) fn over(out: Out, from: In) -> io::Result<Begun> {
        let waiting = Mutex::new(Some(BTreeMap::new()));
        let shared = Arc::new(Shared { out, waiting, numbers: Mutex::new(0) });
        let (want, wanted) = unbounded_channel();
        let reading = shared.clone();
        std::thread::Builder::new()
            .name("agent".to_owned())
            .spawn(move || read(from, &reading, &want))?;
        Ok((Client(Arc::new(Closing(shared))), wanted))
    }

    fn send(&self, ask: &Ask, socket: Option<&UnixStream>) -> io::Result<()> {
        let fds: Vec<_> = socket.iter().map(|s| s.as_fd()).collect();
        self.0.0.out.send(ask, &fds)
    }

    /// The controller said something: as an answer, or by itself.
    ///
    /// # Errors
    /// That the agent is gone.
    pub fn heard(
        &self,
        answers: Option<u64>,
        messages: Vec<ToNode>,
        jobs: Vec<(TreeId, Job)>,
        refused: Vec<(TreeId, String)>,
    ) -> io::Result<()> {
        self.send(&Ask::Heard { answers, messages, jobs, refused }, None)
    }

    /// The controller was not reached.
    ///
    /// # Errors
    /// That the agent is gone.
    pub fn unheard(&self, answers: u64) -> io::Result<()> {
        self.send(&Ask::Unheard { answers }, None)
    }

    /// The core answered what the agent wants, or why not.
    ///
    /// # Errors
    /// That the agent is gone.
    pub fn had(&self, answers: u64, had: Result<serde_json::Value, String>) -> io::Result<()> {
        let ask = match had {
            Ok(value) => Ask::Had { answers, value },
            Err(why) => Ask::HadNot { answers, why },
        };
        self.send(&ask, None)
    }

    /// Has an image written to a socket.
    ///
    /// # Errors
    /// That the agent is gone.
    pub fn image(&self, tree: TreeId, version: u64, to: &UnixStream) -> io::Result<()> {
        self.send(&Ask::Image { tree, version }, Some(to))
    }

    /// Has a part of a tree's output written to a socket.
    ///
    /// # Errors
    /// That the agent is gone.
    pub fn written(&self, tree: TreeId, ask: Stretch, to: &UnixStream) -> io::Result<()> {
        self.send(&Ask::Written { tree, ask }, Some(to))
    }

    /// Has the image of a tree that left sent to a node of another cluster, at the other end of a
    /// socket.
    ///
    /// # Errors
    /// That the agent is gone.
    pub fn carried(&self, tree: TreeId, version: u64, to: &UnixStream) -> io::Result<()> {
        self.send(&Ask::Carried { tree, version }, Some(to))
    }

    /// Has the spool of a tree serve the connection of a copy's relay.
    ///
    /// # Errors
    /// That the agent is gone.
    pub fn output(&self, tree: Tree, from: [u64; 2], relay: &UnixStream) -> io::Result<()> {
        self.send(&Ask::Output { tree, from }, Some(relay))
    }

    /// Has the spool of a tree serve who follows it: user `uid`, whose it is.
    ///
    /// # Errors
    /// That the agent is gone.
    pub fn attach(&self, tree: TreeId, uid: u32, ghost: &UnixStream) -> io::Result<()> {
        self.send(&Ask::Attach { tree, uid }, Some(ghost))
    }

    /// Has packets taken from a socket that another node sent.
    ///
    /// # Errors
    /// That the agent is gone.
    pub fn packets(&self, from: NodeNumber, socket: &UnixStream) -> io::Result<()> {
        self.send(&Ask::Packets { from }, Some(socket))
    }

    /// Says where the trees are that have a network of their own.
    ///
    /// # Errors
    /// That the agent is gone.
    pub fn places(&self, places: Vec<Place>) -> io::Result<()> {
        self.send(&Ask::Places { places }, None)
    }

    /// Sends a signal to a process of a copy, or to all of them.
    ///
    /// # Errors
    /// Why it was not sent.
    pub async fn signal(&self, tree: Tree, pid: Option<i32>, signal: i32) -> Result<(), String> {
        self.call(|id| Ask::Signal { id, tree, pid, signal }).await
    }

    /// What keeps a copy from moving.
    ///
    /// # Errors
    /// Why nothing can be said.
    pub async fn why(&self, tree: Tree) -> Result<Vec<Obstacle>, String> {
        self.call(|id| Ask::Why { id, tree }).await
    }

    /// Waits until the agent answers nothing any more while it is connected: it hangs.
    pub async fn hangs(&self) {
        let mut missed = 0;
        while missed < PINGS_MISSED_MAX {
            tokio::time::sleep(PING_EVERY).await;
            match tokio::time::timeout(PING_MAX, self.call::<()>(|id| Ask::Ping { id })).await {
                Ok(Ok(())) => missed = 0,
                // The end of the connection is seen by who takes what it wants.
                Ok(Err(_)) => std::future::pending().await,
                Err(_) => missed += 1,
            }
        }
    }

    /// Has the agent end all that runs, and itself.
    ///
    /// # Errors
    /// That it is gone.
    pub fn end(&self) -> io::Result<()> {
        self.send(&Ask::End, None)
    }

    async fn call<T: DeserializeOwned>(&self, ask: impl FnOnce(u64) -> Ask) -> Result<T, String> {
        let gone = || "the cluster's agent on this node is gone".to_owned();
        let id = {
            let mut numbers = self.0.0.numbers.lock().unwrap_or_else(PoisonError::into_inner);
            *numbers += 1;
            *numbers
        };
        let (answer, answered) = oneshot::channel();
        match &mut *self.0.0.waiting() {
            Some(waiting) => drop(waiting.insert(id, answer)),
            None => return Err(gone()),
        }
        if self.send(&ask(id), None).is_err() {
            // Nobody will answer.
            let _unasked = self.0.0.waiting().as_mut().and_then(|all| all.remove(&id));
            return Err(gone());
        }
        let value = answered.await.map_err(|_| gone())??;
        serde_json::from_value(value).map_err(|e| format!("the agent says something else: {e}"))
    }
}

fn read(mut from: In, shared: &Shared, want: &UnboundedSender<Wanted>) {
    loop {
        let (tell, fds) = match from.next(Tell::fds, None) {
            Ok(Some(next)) => next,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%error, "the agent of the cluster said something else");
                break;
            }
        };
        if take(tell, fds, shared, want).is_none() {
            break;
        }
    }
    shared.out.close();
    *shared.waiting() = None;
}

/// `None`: nobody wants to hear more.
fn take(
    tell: Tell,
    fds: Vec<OwnedFd>,
    shared: &Shared,
    want: &UnboundedSender<Wanted>,
) -> Option<()> {
    let socket = fds.into_iter().next().map(UnixStream::from);
    let wanted = match (tell, socket) {
        (Tell::Say { id, message, looks, people, used }, _) => {
            Wanted::Say { id, message, looks, people, used }
        }
        (Tell::Want { id, want }, _) => Wanted::Want { id, want },
        (Tell::Image { from, tree, version }, Some(socket)) => {
            Wanted::Image { from, tree, version, socket }
        }
        (Tell::Written { from, tree, ask }, Some(socket)) => {
            Wanted::Written { from, tree, ask, socket }
        }
        (Tell::Carried { from, what }, Some(socket)) => Wanted::Carried { from, what, socket },
        (Tell::Output { at, tree, from }, Some(socket)) => {
            Wanted::Output { at, tree, from, socket }
        }
        (Tell::Packets { to }, Some(socket)) => Wanted::Packets { to, socket },
        (
            Tell::Begun { .. }
            | Tell::Image { .. }
            | Tell::Written { .. }
            | Tell::Carried { .. }
            | Tell::Output { .. }
            | Tell::Packets { .. },
            _,
        ) => return Some(()),
        (Tell::Reply { id, value }, _) => {
            answer(shared, id, Ok(value));
            return Some(());
        }
        (Tell::Failed { id, why }, _) => {
            answer(shared, id, Err(why));
            return Some(());
        }
    };
    want.send(wanted).ok()
}

fn answer(shared: &Shared, id: u64, value: Result<serde_json::Value, String>) {
    let waits = shared.waiting().as_mut().and_then(|all| all.remove(&id));
    if let Some(waits) = waits {
        // Who asked may have given up.
        let _late = waits.send(value);
    }
}
