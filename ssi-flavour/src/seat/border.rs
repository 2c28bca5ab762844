//! What an agent has of `xosd`: a socket, by which it reaches the core and other nodes.

use super::looks::Looks;
use super::people::People;
use super::proto::{Ask, Plan, Tell, Want};
use super::way::{In, Out, accept, split};
use crate::cell::proto::Tree;
use crate::cluster::messages::{Stretch, ToController, TreeId};
use crate::ghost::spool::Spools;
use crate::given::{GIVEN_MAX, Given};
use crate::host::{Brought, Core, Hands, Heard, Peers};
use crate::pids::NodeNumber;
use crate::wire::{NodeLooks, Place, TreeUse};
use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use xos_base::NodeId;

/// Most streams of images, or of output, of one tree that are served at a time: `xosd` counts them
/// by who takes them, as long as it carries them.
const OF_A_TREE_MAX: usize = 8;

/// Why the core does not answer what was wanted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// It was not asked.
    #[error("xosd is not there")]
    NotAsked,
    /// It may have been asked.
    #[error("the core did not answer in time")]
    Unknown,
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

/// What is known of the connection.
#[derive(Default)]
struct State {
    out: Option<Arc<Out>>,
    said: BTreeMap<u64, oneshot::Sender<Heard>>,
    wanted: BTreeMap<u64, Sender<Result<serde_json::Value, String>>>,
    numbers: u64,
}

/// The socket to `xosd`.
pub(super) struct Border {
    node: NodeNumber,
    /// As the other side is told of it.
    plan: serde_json::Value,
    runtime: Handle,
    patience: Duration,
    pub(super) spools: Arc<Spools>,
    looks: OnceLock<Looks>,
    hands: OnceLock<Hands>,
    /// Places that were told of before there were hands.
    early: Mutex<Vec<Place>>,
    people: People,
    /// Images, and output, that are sent now: of a tree, and all.
    images: Given<Option<TreeId>>,
    output: Given<Option<TreeId>>,
    /// `None`: it ends.
    told: Mutex<Option<UnboundedSender<Heard>>>,
    state: Mutex<State>,
}

/// Does what waits in a thread of its own.
fn apart(work: impl FnOnce() + Send + 'static) {
    let begun = std::thread::Builder::new().name("ask".to_owned()).spawn(work);
    if let Err(error) = begun {
        tracing::error!(%error, "no thread for what xosd asks");
    }
}

fn away() -> io::Error {
    io::Error::new(ErrorKind::NotConnected, "xosd is not there")
}

impl Border {
    /// Of an agent that works by this plan. `patience`: how long the controller may take to answer.
    ///
    /// # Errors
    /// That the plan cannot be told.
    pub(super) fn new(
        plan: &Plan,
        patience: Duration,
        spools: Arc<Spools>,
        told: UnboundedSender<Heard>,
    ) -> io::Result<Border> {
        Ok(Border {
            node: plan.node,
            plan: serde_json::to_value(plan)?,
            runtime: Handle::current(),
            patience,
            spools,
            looks: OnceLock::new(),
            hands: OnceLock::new(),
            early: Mutex::default(),
            people: People::default(),
            images: Given::default(),
            output: Given::default(),
            told: Mutex::new(Some(told)),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cell is there.
    pub(super) fn begun(&self, looks: Looks, hands: Hands) {
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        hands.places(std::mem::take(&mut *early));
        // Nobody was there before.
        let _first = (self.looks.set(looks), self.hands.set(hands));
    }

    /// How this node is, once that is known.
    pub(super) fn own_looks(&self) -> Option<NodeLooks> {
        self.looks.get().map(Looks::now)
    }

    /// What can be done with the node's trees, once there are some.
    pub(super) fn hands(&self) -> Option<&Hands> {
        self.hands.get()
    }

    /// Asks the core. Waits, at most so long.
    pub(super) fn ask<T: DeserializeOwned>(
        &self,
        want: Want,
        within: Duration,
    ) -> Result<T, Unanswered> {
        let (answer, answered) = channel();
        let (id, out) = {
            let mut state = self.state();
            let out = state.out.clone().ok_or(Unanswered::NotAsked)?;
            state.numbers += 1;
            let id = state.numbers;
            state.wanted.insert(id, answer);
            (id, out)
        };
        // What was not sent was not asked.
        let sent = out.send(&Tell::Want { id, want }, &[]).map_err(|_| Unanswered::NotAsked);
        let had =
            sent.and_then(|()| answered.recv_timeout(within).map_err(|_| Unanswered::Unknown));
        self.state().wanted.remove(&id);
        let value = had?.map_err(Unanswered::Refused)?;
        serde_json::from_value(value).map_err(|_| Unanswered::Unknown)
    }

    fn out(&self) -> io::Result<Arc<Out>> {
        self.state().out.clone().ok_or_else(away)
    }

    /// One `xosd` at a time: a new connection takes the place of an old one.
    pub(super) fn listen(self: Arc<Self>, listener: &UnixListener) {
        loop {
            if let Err(error) = self.clone().connected(accept(listener)) {
                tracing::warn!(%error, "a connection of xosd is not served: it will try again");
            }
        }
    }

    fn connected(self: Arc<Self>, socket: UnixStream) -> io::Result<()> {
        let (out, from) = split(socket)?;
        out.send(&Tell::Begun { plan: self.plan.clone() }, &[])?;
        let (out, border) = (Arc::new(out), self.clone());
        let reading = out.clone();
        // Nobody hears what is said on it before the lock is given back.
        let mut state = self.state();
        std::thread::Builder::new().name("xosd".to_owned()).spawn(move || {
            border.read(from, &reading);
        })?;
        state.said.clear();
        state.wanted.clear();
        if let Some(old) = state.out.replace(out) {
            old.close();
        }
        Ok(())
    }

    fn read(self: &Arc<Self>, mut from: In, out: &Arc<Out>) {
        loop {
            match from.next(Ask::fds, None) {
                Ok(Some((ask, fds))) => self.take(ask, fds),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "xosd said something else");
                    break;
                }
            }
        }
        out.close();
        let mut state = self.state();
        if state.out.as_ref().is_some_and(|now| Arc::ptr_eq(now, out)) {
            state.out = None;
            state.said.clear();
            state.wanted.clear();
        }
    }

    fn take(self: &Arc<Self>, ask: Ask, fds: Vec<OwnedFd>) {
        let socket = fds.into_iter().next().map(UnixStream::from);
        match (ask, socket) {
            (Ask::Heard { answers, messages, jobs, refused }, _) => {
                self.people.told(&jobs, Instant::now());
                let heard = Heard { messages, jobs, refused };
                match answers {
                    Some(id) => {
                        let said = self.state().said.remove(&id);
                        // Who asked may have given up: then the heartbeat brings it again.
                        let _late = said.map(|said| said.send(heard));
                    }
                    None => {
                        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                        let _ends = told.as_ref().map(|told| told.send(heard));
                    }
                }
            }
            (Ask::Unheard { answers }, _) => drop(self.state().said.remove(&answers)),
            (Ask::Had { answers, value }, _) => self.had(answers, Ok(value)),
            (Ask::HadNot { answers, why }, _) => self.had(answers, Err(why)),
            (Ask::Signal { id, tree, pid, signal }, _) => {
                self.answer(id, move |hands| hands.signal(tree, pid, signal));
            }
            (Ask::Why { id, tree }, _) => self.answer(id, move |hands| hands.why(tree)),
            (Ask::Image { tree, version }, Some(socket)) => {
                self.give(&self.images, tree, move |hands| {
                    if let Err(error) = hands.send_image(tree, version, socket) {
                        tracing::warn!(%tree, version, %error, "an image was not sent");
                    }
                });
            }
            (Ask::Written { tree, ask }, Some(socket)) => {
                self.give(&self.output, tree, move |hands| {
                    if let Err(error) = hands.send_output(tree, &ask, socket) {
                        tracing::warn!(%tree, %error, "output was not sent");
                    }
                });
            }
            (Ask::Carried { tree, version }, Some(socket)) => {
                self.give(&self.images, tree, move |hands| {
                    if let Err(error) = hands.send_carried(tree, version, socket) {
                        tracing::warn!(%tree, version, %error, "what left was not sent");
                    }
                });
            }
            (Ask::Output { tree, from }, Some(socket)) => {
                let spools = self.spools.clone();
                apart(move || {
                    if let Err(error) = spools.serve(tree, from, socket) {
                        tracing::warn!(%tree, %error, "the output of a copy is not taken");
                    }
                });
            }
            (Ask::Attach { tree, uid }, Some(socket)) => {
                let spools = self.spools.clone();
                apart(move || {
                    if let Err(error) = spools.attach(tree.0, uid, socket) {
                        tracing::warn!(%tree, %error, "nobody follows a tree");
                    }
                });
            }
            (Ask::Packets { from }, Some(socket)) => {
                if let Some(hands) = self.hands.get() {
                    hands.packets(from, socket);
                }
            }
            (Ask::Places { places }, _) => {
                let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
                match self.hands.get() {
                    Some(hands) => hands.places(places),
                    None => *early = places,
                }
            }
            (
                Ask::Image { .. }
                | Ask::Written { .. }
                | Ask::Carried { .. }
                | Ask::Output { .. }
                | Ask::Attach { .. }
                | Ask::Packets { .. },
                None,
            ) => {}
            (Ask::Ping { id }, _) => {
                // Who does the node's work says so: one that stands still says nothing.
                let border = self.clone();
                self.runtime.spawn(async move {
                    border.reply(&Tell::Reply { id, value: serde_json::Value::Null });
                });
            }
            (Ask::End, _) => {
                *self.told.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
        }
    }

    fn had(&self, answers: u64, had: Result<serde_json::Value, String>) {
        let waits = self.state().wanted.remove(&answers);
        // Who asked may have given up.
        let _late = waits.map(|waits| waits.send(had));
    }

    /// Does what waits in a thread of its own, once there is a cell.
    fn apart(&self, work: impl FnOnce(Hands) + Send + 'static) {
        match self.hands.get().cloned() {
            Some(hands) => apart(move || work(hands)),
            None => tracing::debug!("the agent begins: what xosd asks is not done"),
        }
    }

    /// The same for a stream of something of a tree, if that has not too many already: who asks for
    /// more hears the end of them.
    fn give(
        &self,
        given: &Given<Option<TreeId>>,
        tree: TreeId,
        work: impl FnOnce(Hands) + Send + 'static,
    ) {
        let Some(place) = given.enter(&[(None, GIVEN_MAX), (Some(tree), OF_A_TREE_MAX)]) else {
            return tracing::warn!(%tree, "too many streams of it at a time: one is not served");
        };
        self.apart(move |hands| {
            work(hands);
            drop(place);
        });
    }

    fn answer<T: Serialize>(
        self: &Arc<Self>,
        id: u64,
        work: impl FnOnce(&Hands) -> Result<T, String> + Send + 'static,
    ) {
        let border = self.clone();
        if self.hands.get().is_none() {
            let why = "the cluster's agent on this node begins: try again in a moment".to_owned();
            return self.reply(&Tell::Failed { id, why });
        }
        self.apart(move |hands| {
            let value = work(&hands)
                .and_then(|value| serde_json::to_value(value).map_err(|e| e.to_string()));
            border.reply(&match value {
                Ok(value) => Tell::Reply { id, value },
                Err(why) => Tell::Failed { id, why },
            });
        });
    }

    fn reply(&self, tell: &Tell) {
        if let Err(error) = self.out().and_then(|out| out.send(tell, &[])) {
            tracing::debug!(%error, "an answer did not reach xosd");
        }
    }

    /// One end of a new connection; the other is sent along.
    fn reach(&self, tell: &Tell) -> io::Result<UnixStream> {
        let (one, other) = UnixStream::pair()?;
        self.out()?.send(tell, &[other.as_fd()])?;
        Ok(one)
    }
}

#[async_trait]
impl Core for Border {
    async fn say(&self, message: ToController, used: Vec<TreeUse>) -> io::Result<Heard> {
        let copies = match &message {
            ToController::Beat { copies, .. } => Some(copies),
            _ => None,
        };
        let looks =
            self.looks.get().filter(|_| copies.is_some()).map(|looks| Box::new(looks.now()));
        let people = copies.map(|copies| self.people.of(copies, Instant::now()));
        let (answer, heard) = oneshot::channel();
        let (id, out) = {
            let mut state = self.state();
            let out = state.out.clone().ok_or_else(away)?;
            state.numbers += 1;
            let id = state.numbers;
            state.said.insert(id, answer);
            (id, out)
        };
        if let Err(error) = out.send(&Tell::Say { id, message, looks, people, used }, &[]) {
            self.state().said.remove(&id);
            return Err(error);
        }
        let heard = tokio::time::timeout(self.patience, heard).await;
        self.state().said.remove(&id);
        let silent = || io::Error::new(ErrorKind::TimedOut, "the controller was not reached");
        heard.map_err(|_| silent())?.map_err(|_| silent())
    }
}

impl Peers for Border {
    fn image(&self, from: NodeNumber, tree: TreeId, version: u64) -> io::Result<UnixStream> {
        self.reach(&Tell::Image { from, tree, version })
    }

    fn carried(&self, from: &NodeId, what: &Brought) -> io::Result<UnixStream> {
        self.reach(&Tell::Carried { from: from.clone(), what: Box::new(what.clone()) })
    }

    fn output(&self, at: NodeNumber, tree: Tree, from: [u64; 2]) -> io::Result<UnixStream> {
        if at == self.node {
            let (one, other) = UnixStream::pair()?;
            self.spools.serve(tree, from, one)?;
            return Ok(other);
        }
        self.reach(&Tell::Output { at, tree, from })
    }

    fn written(&self, from: NodeNumber, tree: TreeId, ask: &Stretch) -> io::Result<UnixStream> {
        self.reach(&Tell::Written { from, tree, ask: *ask })
    }

    fn packets(&self, to: NodeNumber) -> io::Result<UnixStream> {
        self.reach(&Tell::Packets { to })
    }
}
