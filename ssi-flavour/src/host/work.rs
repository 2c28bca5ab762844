//! What takes a while: images and restarts.

use super::apart::IMAGES;
use super::brought::{bring, trust};
use super::cell::Calls;
use super::fetch::Fetch;
use super::files::{NotMade, bring_back, flush, record};
use super::groups::Groups;
use super::start::{begins, wanted};
use super::store::Streams;
use super::streams::{Places, Streaming};
use super::{Coming, DRAIN_MAX, Event, For, Held, Host, NewCopy, Work, wait};
use crate::cell::CallError;
use crate::cell::proto::{Account, Ask, Started, Tree};
use crate::cluster::agent::Act;
use crate::cluster::messages::{Image, TreeId};
use crate::driver::images::Origin;
use crate::driver::why::{Obstacle, strays, why};
use crate::driver::{
    Cell, Checkpointer, DumpOrder, Dumped, Inherited, Leave, Person, RestoreOrder, Tcp, inner_pid,
    memory_bytes, outer_pid,
};
use crate::ghost::proto::{Steer, Steered};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use xos_base::Millis;

/// How long a program that is to move runs on until its new node is there to take it: with the
/// account, its home and the way for its image.
const READY_MAX: Duration = Duration::from_secs(3);
/// Processes of a tree that are named at once.
const PIDS_NAMED: usize = 8;

/// Whose rights a copy may have.
pub(super) fn person(account: &Account) -> Person {
    Person::new(account.uid, account.gid, &account.groups)
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

    /// Begins to make an image: of a program that moves once somebody takes it.
    pub(super) fn dump(&mut self, id: TreeId, epoch: u64, purpose: For, version: u64) {
        let tree = Tree { id: id.0, epoch };
        self.works += 1;
        let number = self.works;
        let cell = self.cell_of(id);
        let owner = self.jobs.get(&id).map(|job| person(&job.account));
        let (calls, events) = (self.calls.clone(), self.events.clone());
        let progress = &self.progress;
        let Some(c) = self.copies.get_mut(&id).filter(|c| c.epoch == epoch) else { return };
        let moves = matches!(purpose, For::Move { .. });
        let writing = moves.then(|| Arc::new(progress.begin(id, version)));
        // What was being made is given up; its end finds nothing to do.
        let (dumped, stopped, at, sealing) = (None, Millis(0), None, false);
        let following = writing.clone();
        let work = Work { number, purpose, version, dumped, stopped, at, sealing, writing };
        let before = c.work.replace(work);
        self.making.insert(number, (id, version));
        if let Some(before) = before {
            self.give_up(&before);
        }
        let Some(following) = following else { return self.awaited(tree, number) };
        tokio::spawn(async move {
            // What it wrote to files until now it does not stand still for.
            let flushed = async {
                if let Some(owner) = owner {
                    flush(calls, (tree, cell), owner, READY_MAX).await;
                }
            };
            // Without anybody it is sent later, all at once.
            let waited = wait(move || following.awaited(READY_MAX));
            let (waited, ()) = tokio::join!(waited, flushed);
            if !waited.is_ok_and(|ready| ready) {
                tracing::info!(%tree, "nobody takes its image yet: it is saved all the same");
            }
            let _gone = events.send(Event::Awaited { tree, work: number });
        });
    }

    /// Saves the program now, if that is still wanted.
    pub(super) fn awaited(&mut self, tree: Tree, number: u64) {
        let id = TreeId(tree.id);
        let cell = self.cell_of(id);
        let owner = self.jobs.get(&id).map(|job| person(&job.account));
        let copy = self.copy(id, tree.epoch);
        let wanted = copy.and_then(|c| {
            let w = c.work.as_ref().filter(|w| w.number == number)?;
            let leaves = matches!(w.purpose, For::Leave { .. });
            let of = (w.version, w.writing.clone(), leaves);
            Some((c, of))
        });
        let Some((c, (version, writing, leaves))) = wanted else {
            self.work_over(number);
            return;
        };
        // Who leaves the node stands still from now on, unless nothing comes of it.
        if c.work.as_ref().is_some_and(|w| w.purpose != For::Checkpoint) {
            c.runs = false;
        }
        if let Some(link) = &c.link {
            link.open(false);
        }
        let externals = c.streaming.keys.clone();
        let Some(owner) = owner else {
            let done = Err("nobody said whose it is".to_owned());
            // A host that is gone has nothing to finish.
            let _gone = self.events.send(Event::Dumped { tree, work: number, done });
            return;
        };
        let (driver, calls) = (self.setup.driver.clone(), self.calls.clone());
        let (store, rules, events) =
            (self.store.clone(), self.setup.rules.clone(), self.events.clone());
        let limit = self.setup.limit;
        let groups = self.groups.clone();
        let disk = self.setup.folder.clone();
        tokio::spawn(async move {
            let inside = groups.clone();
            let prepared = wait(move || -> Result<_, String> {
                let root = root_of(&calls, tree, cell)?;
                if leaves {
                    // Its image stays until another site has it, and others run here.
                    let room = memory_bytes(root).and_then(|m| crate::disk::has_reserve(&disk, m));
                    room.map_err(|e| format!("there is no room for its image: {e}"))?;
                }
                unhindered(&why(root, &rules).map_err(|e| e.to_string())?)?;
                unhindered(&inside.left(tree, root).map_err(|e| e.to_string())?)?;
                let folder = match &writing {
                    None => store.make(id, version).map(|folder| (folder, None)),
                    Some(writing) => memory_bytes(root).and_then(|bytes| {
                        let made = store.make_to_travel(id, version, bytes)?;
                        writing.to(made.0.clone(), bytes);
                        Ok(made)
                    }),
                };
                let folder = folder.map_err(|e| format!("cannot make a folder for it: {e}"))?;
                if cell.own_net {
                    // Its network is down while it is saved, which it is not to see.
                    calls.halt(tree).map_err(|e| e.to_string())?;
                }
                Ok((root, folder))
            });
            let done = match prepared.await.map_err(|e| e.to_string()).flatten() {
                Err(why) => Err(why),
                // The room is held until it is written.
                Ok((root, (folder, _room))) => {
                    // One that stands still already stays so. CRIU lets go of its connections then
                    // only: of what it stopped itself they would be dead (TCP_REPAIR, tcp(7)).
                    let leave = if cell.own_net { Leave::Running } else { Leave::Stopped };
                    let order = DumpOrder {
                        root,
                        cell: Some(cell),
                        folder,
                        leave,
                        externals,
                        tcp: tcp(cell),
                        limit,
                    };
                    match driver.dump(&order).await {
                        Ok(dumped) => {
                            // Now that it stands still there are no others.
                            let whole = whole(groups, tree, root);
                            let recorded = record(dumped, (root, cell), owner, limit);
                            let (whole, recorded) = tokio::join!(whole, recorded);
                            whole.and(recorded)
                        }
                        Err(e) => Err(e.to_string()),
                    }
                }
            };
            // A host that is gone has nothing to finish.
            let _gone = events.send(Event::Dumped { tree, work: number, done });
        });
    }

    /// The tree stands still: what it wrote is read before it goes on.
    pub(super) async fn dumped(
        &mut self,
        tree: Tree,
        work: u64,
        done: Result<Dumped, String>,
    ) -> io::Result<Vec<Act>> {
        let (id, now) = (TreeId(tree.id), self.setup.clock.up());
        let Some(c) = self.copy(id, tree.epoch) else {
            self.work_over(work);
            return Ok(Vec::new());
        };
        let wanted = c.work.as_ref().is_some_and(|w| w.number == work);
        match done {
            // Given up meanwhile; it was stopped all the same.
            _ if !wanted => {
                self.work_over(work);
                self.go(id).await.map(|()| Vec::new())
            }
            Err(why) => {
                let taken = c.work.take();
                self.work_over(work);
                self.go(id).await?;
                Ok(taken.map(|w| self.made(tree, &w, Err(why))).unwrap_or_default())
            }
            Ok(dumped) => {
                if let Some(w) = &mut c.work {
                    (w.dumped, w.stopped) = (Some(dumped), now);
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
                // A cell that is dead does not answer. Its end, which mostly comes then, does not
                // wait for this.
                let (calls, events) = (self.calls.clone(), self.events.clone());
                tokio::spawn(async move {
                    if matches!(wait(move || calls.status()).await, Ok(Ok(_))) {
                        // A host that is gone tells nobody.
                        let _gone = events.send(Event::Lives { tree });
                    }
                });
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
        w.sealing = true;
        let (version, writing) = (w.version, w.writing.clone());
        let folder = self.store.folder(id, version);
        let (driver, events) = (self.setup.driver.clone(), self.events.clone());
        tokio::spawn(async move {
            let there = folder.clone();
            let written = wait(move || streams.write(&there)).await.flatten();
            let done = match written {
                Err(e) => Err(format!("cannot complete its image: {e}")),
                Ok(()) => {
                    let sealed = match &writing {
                        None => driver.seal(&folder, origin).await,
                        Some(_) => driver.seal_to_travel(&folder, origin).await,
                    };
                    sealed.map(|manifest| manifest.size_bytes()).map_err(|e| e.to_string())
                }
            };
            if let (Ok(_), Some(writing)) = (&done, &writing) {
                writing.whole();
            }
            let _gone = events.send(Event::Sealed { tree, work: number, done });
        });
    }

    pub(super) fn sealed(&mut self, tree: Tree, work: u64, done: Result<u64, String>) -> Vec<Act> {
        let copy = self.copy(TreeId(tree.id), tree.epoch);
        let acts = match copy.and_then(|c| c.work.take_if(|w| w.number == work)) {
            Some(w) => {
                let none = || "its image was given up".to_owned();
                let done = done.and_then(|bytes| self.image(&w, bytes).ok_or_else(none));
                self.made(tree, &w, done)
            }
            None => Vec::new(),
        };
        self.work_over(work);
        acts
    }

    /// Begins to make a stopped copy.
    pub(super) fn restore(
        &mut self,
        (id, epoch): (TreeId, u64),
        image: Image,
        roll_back: bool,
    ) -> io::Result<Vec<Act>> {
        let tree = Tree { id: id.0, epoch };
        if self.expected.get(&id).is_some_and(|e| e.version != image.version) {
            self.unexpect(id);
        }
        let Some(job) = self.jobs.get(&id) else {
            let nobody = || "nobody said whose it is".to_owned();
            let why = self.refused.get(&id).cloned().unwrap_or_else(nobody);
            let now = self.setup.clock.up();
            return Ok(self.agent.restored(id, epoch, Err(why), now).into_iter().collect());
        };
        let version = image.version;
        let (way, fetched) = self.expected.remove(&id).map(|e| (e.way, e.fetched)).unzip();
        let way: Arc<Fetch> = way.unwrap_or_default();
        let coming = Coming { image: Some((version, way.clone())), ..Coming::new(epoch) };
        let (owner, birth, wanted) = (person(&job.account), job.birth, wanted(job));
        let (brought, account) = (Host::brought(job, &image), job.account.clone());
        let (begins, trust) = (begins(job), trust(job, image.version));
        if brought.is_some() && job.birth == self.setup.node {
            self.collects(id, job);
        }
        let (limits, groups) = (job.limits, self.groups.clone());
        let rlimits = job.program.rlimits.clone();
        self.restoring.insert(id, coming);
        let (driver, calls) = (self.setup.driver.clone(), self.calls.clone());
        let (fetching, peers, events) =
            (self.fetching(), self.setup.peers.clone(), self.events.clone());
        let (cell, limit) = (self.cell_of(id), self.setup.limit);
        let uid = owner.uid;
        let overlay = self.overlay.clone();
        tokio::spawn(async move {
            let making = groups.clone();
            let before = match fetched {
                Some(fetched) => fetched.await.map_err(|e| e.to_string()).flatten(),
                None => Ok(()),
            };
            if let Err(why) = before {
                tracing::info!(%tree, why, "its image did not come while it was made");
            }
            // Who holds up other images does not hold up one that is here.
            let (store, carried) = (fetching.store.clone(), brought.is_some());
            let here = wait(move || !carried && store.has(id, version)).await;
            let (of, store) = (way.clone(), fetching.store.clone());
            let fetch = move || match &brought {
                Some(b) => bring(&fetching, (id, &account), b, &of),
                None => {
                    let kind = (image.brief.is_empty(), Some(image.bytes));
                    fetching.fetch(&image.nodes, (id, version), &of, kind)
                }
            };
            let came = match here {
                Ok(true) => Ok(()),
                _ => way.by(&IMAGES, fetch).await,
            };
            let prepare = move || -> Result<_, String> {
                let folder = store.folder(id, version);
                let streams = Streams::read(&folder);
                let streams = streams.map_err(|e| format!("its image is torn: {e}"))?;
                // Who has the job reads what it wrote until then where it was.
                let at = [streams.at.output, streams.at.error];
                if carried && at != begins {
                    return Err("its image says something else of what it wrote".to_owned());
                }
                let network = cell.own_net.then(|| overlay.network(id.0, uid)).transpose();
                let network = network.map_err(|e| format!("it can have no network: {e}"))?;
                let cgroups = making.make_wide(tree, &limits)?;
                Ok((folder, streams, cgroups, network.unzip()))
            };
            let fetched = match came {
                Ok(()) => wait(prepare).await.map_err(|e| e.to_string()).flatten(),
                Err(why) => Err(why),
            };
            let fetched = match fetched {
                Ok(had) if roll_back => {
                    let back = bring_back(&had.0, cell, &owner, (tree, limit)).await;
                    back.map(|cut| (had, cut))
                }
                had => had.map(|had| (had, Vec::new())).map_err(NotMade::from),
            };
            let done = match fetched {
                Err(why) => Err(why),
                Ok(((folder, streams, cgroups, (network, link)), cut)) => {
                    let (of, copy) = (events.clone(), (tree, false));
                    let places = Places { now: streams.at, first: begins };
                    match Streaming::new(copy, birth, wanted, places, peers, of) {
                        Err(e) => {
                            let why = format!("cannot make its streams: {e}");
                            Err(NotMade { cut, ..NotMade::from(why) })
                        }
                        Ok((streaming, fds)) => {
                            let keys = streams.keys.into_iter().zip(fds);
                            let order = RestoreOrder {
                                folder,
                                trust,
                                owner,
                                cell: Some(cell),
                                cgroups,
                                rlimits,
                                inherited: keys.map(|(key, fd)| Inherited { key, fd }).collect(),
                                network,
                                tcp: tcp(cell),
                                stopped: true,
                                limit,
                            };
                            let link = link.flatten();
                            let mut done = restore(&*driver, &calls, tree, order).await;
                            if done.is_ok() {
                                let confined = groups.confine(&calls, tree, limits).await;
                                done = confined.map_err(NotMade::from);
                            }
                            match done {
                                Ok(()) => Ok(Box::new(NewCopy { streaming, link, cut })),
                                Err(why) => Err(NotMade { cut, ..why }),
                            }
                        }
                    }
                }
            };
            if let Err(why) = &done {
                tracing::warn!(%tree, why = %why.reason, "no copy of it was made");
                let _waited = wait(move || groups.close(tree)).await;
            }
            let _gone = events.send(Event::Restored { tree, version, done });
        });
        Ok(Vec::new())
    }

    pub(super) fn restored(
        &mut self,
        tree: Tree,
        version: u64,
        done: Result<Box<NewCopy>, NotMade>,
    ) -> Vec<Act> {
        let (id, epoch) = (TreeId(tree.id), tree.epoch);
        self.store.made(id, version);
        let held = done.map(|made| {
            let NewCopy { streaming, link, cut } = *made;
            let (runs, exit, work, _keeper) = (false, None, None, None);
            (Held { epoch, runs, exit, streaming, link, work, _keeper }, cut)
        });
        let coming = match self.restoring.get(&id) {
            Some(c) if c.epoch == epoch => self.restoring.remove(&id),
            // A newer one is being made.
            _ => None,
        };
        let Some(coming) = coming.filter(|c| !c.dying) else {
            self.discard_unused(id, version);
            self.end(tree, held.ok().map(|(held, _)| held));
            return Vec::new();
        };
        let now = self.setup.clock.up();
        let cut = match &held {
            Ok((_, cut)) => cut.clone(),
            Err(why) => why.cut.clone(),
        };
        self.agent.cut(id, epoch, cut);
        let said = match held {
            Err(why) if why.stays => self.agent.barred(id, epoch, why.reason, now),
            Err(why) => self.agent.restored(id, epoch, Err(why.reason), now),
            Ok((held, _)) => {
                self.copies.insert(id, held);
                self.agent.restored(id, epoch, Ok(()), now)
            }
        };
        let mut acts: Vec<Act> = said.into_iter().collect();
        acts.extend(coming.exit.map(|exit| self.exited(tree, exit)).unwrap_or_default());
        self.discard_unused(id, version);
        acts
    }
}

/// The first process of a copy, as this process sees it.
pub(super) fn root_of(calls: &Calls, tree: Tree, cell: Cell) -> Result<i32, String> {
    let status = calls.status().map_err(|e| e.to_string())?;
    let of = status.trees.iter().find(|t| t.tree == Some(tree));
    let pid = of.ok_or("it has ended")?.pid;
    let root = outer_pid(Some(cell.pid), pid).map_err(|e| e.to_string())?;
    root.ok_or_else(|| "it has ended".to_owned())
}

/// Whether all of a tree that stands still is in its image.
async fn whole(groups: Groups, tree: Tree, root: i32) -> Result<(), String> {
    let found = wait(move || -> io::Result<Vec<Obstacle>> {
        let mut found = strays(root)?;
        found.extend(groups.left(tree, root)?);
        Ok(found)
    });
    unhindered(&found.await.flatten().map_err(|e| e.to_string())?)
}

/// Says what keeps a tree, by its pids in the cell.
fn unhindered(found: &[Obstacle]) -> Result<(), String> {
    let Some(first) = found.first() else { return Ok(()) };
    let same = found.iter().filter(|o| o.what == first.what).take(PIDS_NAMED);
    let pids: Vec<String> = same.map(|o| inner_pid(o.pid).unwrap_or(o.pid).to_string()).collect();
    Err(format!("process {}: {}; {}", pids.join(", "), first.what, first.what.next()))
}

/// Makes the copy and has the cell watch it. On an error nothing of it is left.
pub(super) async fn restore(
    driver: &dyn Checkpointer,
    calls: &Arc<Calls>,
    tree: Tree,
    order: RestoreOrder,
) -> Result<(), NotMade> {
    let of = calls.clone();
    let text = |e: CallError| e.to_string();
    let _turn = calls.restores.turn(order.owner.uid).await.map_err(|e| e.to_string())?;
    // Pids of other nodes can be had as long as this connection lasts, and what is nobody's yet
    // stays.
    let widened = wait(move || {
        let mut client = of.connect()?;
        client.call::<()>(Ask::Widen { on: true }, &[]).map(|()| client)
    });
    let mut client = widened.await.map_err(|e| e.to_string())?.map_err(text)?;
    let pid = driver.restore(order).await?.pid;
    let adopted = wait(move || client.call::<Started>(Ask::Adopt { tree, pid }, &[]));
    let adopted = adopted.await.map_err(|e| e.to_string())?;
    match adopted {
        Ok(_) => Ok(()),
        Err(e) => {
            let of = calls.clone();
            let killed = wait(move || of.call::<()>(Ask::Signal { pid, signal: 9, group: true }));
            let killed = killed.await.map_err(|e| e.to_string())?;
            Err(NotMade::from(match killed {
                Ok(()) => format!("the cell does not watch it: {e}"),
                Err(k) => format!("the cell does not watch it: {e}; and it was not ended: {k}"),
            }))
        }
    }
}
