//! What takes a while: starts, images, restarts, ends.

use super::images::fetch;
use super::shell::Keeper;
use super::store::Streams;
use super::streams::{Streaming, Wanted};
use super::{DRAIN_MAX, Event, For, Held, Host, Job, NewCopy, Work, wait};
use crate::cell::CallError;
use crate::cell::proto::{Ask, Refusal, Start, Started, Stdio, Tree};
use crate::cluster::agent::Act;
use crate::cluster::messages::{End, Image, TreeId};
use crate::driver::images::Origin;
use crate::driver::why::why;
use crate::driver::{
    Cell, Checkpointer, DumpOrder, Dumped, Inherited, Leave, RestoreOrder, Tcp, outer_pid,
};
use crate::ghost::proto::{Steer, Steered};
use crate::ghost::relay::Offsets;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// How a program ends whose person may start nothing here, as a shell has it for one that cannot be
/// executed.
const REFUSED_CODE: u8 = 126;

/// What the standard streams of a tree are.
fn wanted(job: &Job) -> Wanted {
    let terminal = job.program.stdio == Stdio::Terminal;
    Wanted { terminal_of: terminal.then_some(job.account.uid), input: job.attached }
}

/// What becomes of its connections: those over a node's network are obstacles ([`why`]).
fn tcp(cell: Cell) -> Tcp {
    if cell.own_net { Tcp::Established } else { Tcp::None }
}

impl Host {
    pub(super) fn cell(&self) -> Cell {
        Cell { pid: self.init_pid, own_net: false }
    }

    fn cell_of(&self, id: TreeId) -> Cell {
        Cell { own_net: self.jobs.get(&id).is_some_and(|j| j.own_net), ..self.cell() }
    }

    /// A program that cannot be started ends as a shell has it.
    pub(super) async fn start(&mut self, id: TreeId, epoch: u64) -> io::Result<Vec<Act>> {
        let tree = Tree { id: id.0, epoch };
        if self.copies.contains_key(&id) || self.preparing.contains_key(&id) {
            return Ok(Vec::new());
        }
        if let Some(why) = self.refused.get(&id) {
            tracing::warn!(%tree, why, "it is not started here");
            let end = End::Exit { code: REFUSED_CODE };
            return Ok(self.agent.ended(id, epoch, end).into_iter().collect());
        }
        let Some(job) = self.jobs.get(&id).cloned() else {
            // Said again with the next order, and the job with it.
            tracing::warn!(%tree, "it is to be started, and nobody said what it is");
            return Ok(Vec::new());
        };
        if job.shell {
            self.prepare(tree, job.account.uid);
            return Ok(Vec::new());
        }
        self.begin_job(tree, job, None).await
    }

    /// Has the cell start a program; `keeper`: that of its `/proc`.
    pub(super) async fn begin_job(
        &mut self,
        tree: Tree,
        job: Job,
        keeper: Option<Keeper>,
    ) -> io::Result<Vec<Act>> {
        let (id, epoch) = (TreeId(tree.id), tree.epoch);
        if job.wanted {
            self.setup.spools.want(tree.id)?;
        }
        let (peers, events) = (self.setup.peers.clone(), self.events.clone());
        let (wanted, birth) = (wanted(&job), job.birth);
        let made = Streaming::new(tree, birth, wanted, Offsets::default(), peers, events);
        let (streaming, mut fds) = made?;
        let mut link = None;
        if job.own_net {
            let (overlay, uid) = (self.overlay.clone(), job.account.uid);
            match wait(move || overlay.network(id.0, uid)).await? {
                Ok((network, linked)) => {
                    fds.push(network);
                    link = linked;
                }
                Err(error) => {
                    tracing::warn!(%tree, %error, "it can have no network of its own");
                    let end = End::Exit { code: REFUSED_CODE };
                    return Ok(self.agent.ended(id, epoch, end).into_iter().collect());
                }
            }
        }
        if let Some(link) = &link {
            link.open(true);
        }
        let start = Start {
            tree,
            pid: job.pid,
            account: job.account,
            own_net: job.own_net,
            merged_proc: keeper.as_ref().map(Keeper::pid),
            program: job.program,
        };
        let calls = self.calls.clone();
        let started = wait(move || calls.start(start, &fds)).await?;
        if matches!(started, Err(CallError::Refused(Refusal::Held))) {
            self.put_off.insert(id, epoch);
            return Ok(Vec::new());
        }
        streaming.go();
        let (runs, exit, work, _keeper) = (true, None, None, keeper);
        let held = Held { epoch, runs, exit, streaming, link, work, _keeper };
        self.copies.insert(id, held);
        match started {
            Ok(Started { .. }) => {
                if self.frozen {
                    let calls = self.calls.clone();
                    wait(move || calls.halt(tree)).await?.map_err(io::Error::other)?;
                }
                Ok(self.agent.started(id, epoch).into_iter().collect())
            }
            Err(CallError::Refused(refusal)) => {
                tracing::warn!(%tree, %refusal, "it could not be started");
                let exit = crate::cell::proto::Exit::Code(127);
                if let Some(c) = self.copies.get_mut(&id) {
                    c.exit = Some(exit);
                    c.streaming.tell(Steer::Exited { exit });
                }
                Ok(Vec::new())
            }
            Err(CallError::Link(e)) => Err(e),
        }
    }

    /// Begins to make an image.
    pub(super) fn dump(
        &mut self,
        id: TreeId,
        epoch: u64,
        purpose: For,
        version: u64,
    ) -> io::Result<Vec<Act>> {
        let tree = Tree { id: id.0, epoch };
        self.works += 1;
        let number = self.works;
        let cell = self.cell_of(id);
        let Some(c) = self.copies.get_mut(&id).filter(|c| c.epoch == epoch) else {
            return Ok(Vec::new());
        };
        // What was being made is given up; its end finds nothing to do.
        c.work = Some(Work { number, purpose, version, dumped: None, at: None });
        if purpose != For::Checkpoint {
            c.runs = false;
        }
        if let Some(link) = &c.link {
            link.open(false);
        }
        let externals = c.streaming.keys.clone();
        let (driver, calls) = (self.setup.driver.clone(), self.calls.clone());
        let (store, rules, events) =
            (self.store.clone(), self.setup.rules.clone(), self.events.clone());
        let limit = self.setup.limit;
        tokio::spawn(async move {
            let prepared = wait(move || -> Result<(i32, PathBuf), String> {
                let status = calls.status().map_err(|e| e.to_string())?;
                let of = status.trees.iter().find(|t| t.tree == Some(tree));
                let pid = of.ok_or("it has ended")?.pid;
                let root = outer_pid(Some(cell.pid), pid).map_err(|e| e.to_string())?;
                let root = root.ok_or("it has ended")?;
                let found = why(root, &rules).map_err(|e| e.to_string())?;
                if let Some(first) = found.first() {
                    let next = first.what.next();
                    return Err(format!("process {}: {}; {next}", first.pid, first.what));
                }
                let folder = store.make(id, version);
                let folder = folder.map_err(|e| format!("cannot make a folder for it: {e}"))?;
                if cell.own_net {
                    // Its network is down while it is saved, which it is not to see.
                    calls.halt(tree).map_err(|e| e.to_string())?;
                }
                Ok((root, folder))
            });
            let done = match prepared.await.map_err(|e| e.to_string()).flatten() {
                Err(why) => Err(why),
                Ok((root, folder)) => {
                    let order = DumpOrder {
                        root,
                        cell: Some(cell),
                        folder,
                        leave: Leave::Stopped,
                        externals,
                        tcp: tcp(cell),
                        limit,
                    };
                    driver.dump(&order).await.map_err(|e| e.to_string())
                }
            };
            // A host that is gone has nothing to finish.
            let _gone = events.send(Event::Dumped { tree, work: number, done });
        });
        Ok(Vec::new())
    }

    /// The tree stands still: what it wrote is read before it goes on.
    pub(super) async fn dumped(
        &mut self,
        tree: Tree,
        work: u64,
        done: Result<Dumped, String>,
    ) -> io::Result<Vec<Act>> {
        let id = TreeId(tree.id);
        let Some(c) = self.copy(id, tree.epoch) else { return Ok(Vec::new()) };
        let wanted = c.work.as_ref().is_some_and(|w| w.number == work);
        match done {
            // Given up meanwhile; it was stopped all the same.
            _ if !wanted => self.go(id).await.map(|()| Vec::new()),
            Err(why) => {
                let taken = c.work.take();
                self.go(id).await?;
                Ok(taken.map(|w| self.made(tree, &w, Err(why))).unwrap_or_default())
            }
            Ok(dumped) => {
                if let Some(w) = &mut c.work {
                    w.dumped = Some(dumped);
                }
                c.streaming.tell(Steer::Drain { number: work });
                let events = self.events.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(DRAIN_MAX).await;
                    let _gone = events.send(Event::Overdue { tree, work });
                });
                Ok(Vec::new())
            }
        }
    }

    pub(super) async fn steered(&mut self, tree: Tree, steered: Steered) -> io::Result<Vec<Act>> {
        let id = TreeId(tree.id);
        match steered {
            Steered::Signal { signal, group } => {
                let calls = self.calls.clone();
                let sent = wait(move || -> Result<(), CallError> {
                    let status = calls.status()?;
                    match status.trees.iter().find(|t| t.tree == Some(tree)) {
                        Some(t) => calls.call(Ask::Signal { pid: t.pid, signal, group }),
                        None => Ok(()),
                    }
                });
                if let Err(error) = sent.await? {
                    tracing::warn!(%tree, %error, "a signal did not reach it");
                }
            }
            Steered::Closed => {
                // A cell that is dead does not answer; of one that is being killed there is none.
                let calls = self.calls.clone();
                let lives = wait(move || calls.status()).await?.is_ok();
                if let Some(c) = self.copy(id, tree.epoch).filter(|_| lives) {
                    c.streaming.tell(Steer::Lives);
                }
            }
            Steered::Read { number, offsets } => {
                let Some(c) = self.copy(id, tree.epoch) else { return Ok(Vec::new()) };
                let Some(w) = c.work.as_mut().filter(|w| w.number == number) else {
                    return Ok(Vec::new());
                };
                w.at = Some(offsets);
                if w.purpose == For::Checkpoint {
                    self.go(id).await?;
                }
            }
            Steered::Taken { number } => self.seal(tree, number),
        }
        Ok(Vec::new())
    }

    /// All that the tree wrote until it was dumped is taken: the image is completed.
    fn seal(&mut self, tree: Tree, number: u64) {
        let id = TreeId(tree.id);
        let owner = self.jobs.get(&id).map(|j| j.account.uid);
        let Some(c) = self.copy(id, tree.epoch) else { return };
        let Some(w) = c.work.as_mut().filter(|w| w.number == number) else { return };
        let (Some(dumped), Some(at), Some(owner)) = (&w.dumped, w.at, owner) else { return };
        let streams = Streams { at, keys: c.streaming.keys.clone() };
        let origin = Origin {
            pid: dumped.pid,
            owner,
            epoch: tree.epoch,
            criu: dumped.version.clone(),
            open_files: dumped.open_files.clone(),
        };
        let version = w.version;
        let folder = self.store.folder(id, version);
        let (driver, events) = (self.setup.driver.clone(), self.events.clone());
        tokio::spawn(async move {
            let there = folder.clone();
            let written = wait(move || streams.write(&there)).await.flatten();
            let done = match written {
                Err(e) => Err(format!("cannot complete its image: {e}")),
                Ok(()) => driver
                    .seal(&folder, origin)
                    .await
                    .map(|manifest| manifest.size_bytes())
                    .map_err(|e| e.to_string()),
            };
            let _gone = events.send(Event::Sealed { tree, work: number, done });
        });
    }

    pub(super) fn sealed(&mut self, tree: Tree, work: u64, done: Result<u64, String>) -> Vec<Act> {
        let Some(c) = self.copy(TreeId(tree.id), tree.epoch) else { return Vec::new() };
        let Some(w) = c.work.take_if(|w| w.number == work) else { return Vec::new() };
        let none = || "its image was given up".to_owned();
        let done = done.and_then(|bytes| self.image(&w, bytes).ok_or_else(none));
        self.made(tree, &w, done)
    }

    /// Begins to make a stopped copy.
    pub(super) fn restore(&mut self, id: TreeId, epoch: u64, image: Image) -> io::Result<Vec<Act>> {
        let tree = Tree { id: id.0, epoch };
        let Some(job) = self.jobs.get(&id) else {
            let nobody = || "nobody said whose it is".to_owned();
            let why = self.refused.get(&id).cloned().unwrap_or_else(nobody);
            let now = self.setup.clock.up();
            return Ok(self.agent.restored(id, epoch, Err(why), now).into_iter().collect());
        };
        self.restoring.insert(id, (epoch, false));
        let (owner, birth, wanted) = (job.account.uid, job.birth, wanted(job));
        let (driver, calls) = (self.setup.driver.clone(), self.calls.clone());
        let (store, peers, events) =
            (self.store.clone(), self.setup.peers.clone(), self.events.clone());
        let (cell, limit, here) = (self.cell_of(id), self.setup.limit, self.setup.node);
        let overlay = self.overlay.clone();
        tokio::spawn(async move {
            let (fetching, others) = (store.clone(), peers.clone());
            let fetched = wait(move || -> Result<_, String> {
                let version = image.version;
                fetch(&fetching, &*others, here, &image.nodes, (id, version))?;
                let folder = fetching.folder(id, version);
                let streams = Streams::read(&folder);
                let streams = streams.map_err(|e| format!("its image is torn: {e}"))?;
                let network = cell.own_net.then(|| overlay.network(id.0, owner)).transpose();
                let network = network.map_err(|e| format!("it can have no network: {e}"))?;
                Ok((folder, streams, network.unzip()))
            });
            let done = match fetched.await.map_err(|e| e.to_string()).flatten() {
                Err(why) => Err(why),
                Ok((folder, streams, (network, link))) => {
                    let of = events.clone();
                    match Streaming::new(tree, birth, wanted, streams.at, peers, of) {
                        Err(e) => Err(format!("cannot make its streams: {e}")),
                        Ok((streaming, fds)) => {
                            let keys = streams.keys.into_iter().zip(fds);
                            let order = RestoreOrder {
                                folder,
                                owner,
                                cell: Some(cell),
                                cgroups: Vec::new(),
                                inherited: keys.map(|(key, fd)| Inherited { key, fd }).collect(),
                                network,
                                tcp: tcp(cell),
                                stopped: true,
                                limit,
                            };
                            let link = link.flatten();
                            let done = restore(&*driver, &calls, tree, order).await;
                            done.map(|()| Box::new(NewCopy { streaming, link }))
                        }
                    }
                }
            };
            if let Err(why) = &done {
                tracing::warn!(%tree, why, "no copy of it was made");
            }
            let _gone = events.send(Event::Restored { tree, done });
        });
        Ok(Vec::new())
    }

    pub(super) async fn restored(
        &mut self,
        tree: Tree,
        done: Result<Box<NewCopy>, String>,
    ) -> io::Result<Vec<Act>> {
        let (id, epoch) = (TreeId(tree.id), tree.epoch);
        let dying = match self.restoring.get(&id) {
            Some((of, dying)) if *of == epoch => {
                let dying = *dying;
                self.restoring.remove(&id);
                dying
            }
            // A newer one is being made.
            _ => true,
        };
        if dying {
            let calls = self.calls.clone();
            wait(move || calls.kill(tree)).await?.map_err(io::Error::other)?;
            return Ok(self.agent.killed(id, epoch).into_iter().collect());
        }
        let now = self.setup.clock.up();
        let done = done.map(|made| {
            let NewCopy { streaming, link } = *made;
            let (runs, exit, work, _keeper) = (false, None, None, None);
            let held = Held { epoch, runs, exit, streaming, link, work, _keeper };
            self.copies.insert(id, held);
        });
        Ok(self.agent.restored(id, epoch, done, now).into_iter().collect())
    }

    pub(super) async fn kill(&mut self, id: TreeId, epoch: u64) -> io::Result<Vec<Act>> {
        if let Some((_, dying)) = self.restoring.get_mut(&id).filter(|(of, _)| *of == epoch) {
            // When it is made.
            *dying = true;
            return Ok(Vec::new());
        }
        self.put_off.remove(&id);
        self.preparing.remove(&id);
        let (calls, tree) = (self.calls.clone(), Tree { id: id.0, epoch });
        // With it goes its relay, after the processes.
        let held = match self.copies.get(&id) {
            Some(c) if c.epoch == epoch => self.copies.remove(&id),
            _ => None,
        };
        if let Some(link) = held.as_ref().and_then(|c| c.link.as_ref()) {
            // Its peers do not hear that it ends: the tree may go on elsewhere.
            link.open(false);
        }
        wait(move || calls.kill(tree)).await?.map_err(io::Error::other)?;
        // That of a shell's /proc waits for the cell.
        wait(move || drop(held)).await?;
        Ok(self.agent.killed(id, epoch).into_iter().collect())
    }
}

/// Makes the copy and has the cell watch it. On an error nothing of it is left.
pub(super) async fn restore(
    driver: &dyn Checkpointer,
    calls: &Arc<super::cell::Calls>,
    tree: Tree,
    order: RestoreOrder,
) -> Result<(), String> {
    let of = calls.clone();
    let text = |e: CallError| e.to_string();
    // Pids of other nodes can be had as long as this connection lasts.
    let widened = wait(move || {
        let mut client = of.connect()?;
        client.call::<()>(Ask::Widen { on: true }, &[]).map(|()| client)
    });
    let client = widened.await.map_err(|e| e.to_string())?.map_err(text)?;
    let restored = driver.restore(order).await.map_err(|e| e.to_string());
    drop(client);
    let pid = restored?.pid;
    let of = calls.clone();
    let adopted = wait(move || of.call::<Started>(Ask::Adopt { tree, pid }));
    let adopted = adopted.await.map_err(|e| e.to_string())?;
    match adopted {
        Ok(_) => Ok(()),
        Err(e) => {
            let of = calls.clone();
            let killed = wait(move || of.call::<()>(Ask::Signal { pid, signal: 9, group: true }));
            let killed = killed.await.map_err(|e| e.to_string())?;
            Err(match killed {
                Ok(()) => format!("the cell does not watch it: {e}"),
                Err(k) => format!("the cell does not watch it: {e}; and it was not ended: {k}"),
            })
        }
    }
}
