//! Starts of programs, each in a task of its own: one whose volume does not answer takes a while.

use super::cell::Calls;
use super::ends::halt;
use super::groups::Groups;
use super::shell::Keeper;
use super::streams::{Places, Streaming, Wanted};
use super::{Coming, Event, Held, Host, Job, NewCopy, Peers, wait};
use crate::cell::CallError;
use crate::cell::proto::{Exit, Program, Refusal, Start, Stdio, Tree};
use crate::cluster::agent::Act;
use crate::cluster::messages::{End, TreeId, WHY_CHARS_MAX};
use crate::ghost::relay::Offsets;
use crate::overlay::Overlay;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// How a program ends whose person may start nothing here, as a shell has it for one that cannot be
/// executed.
const REFUSED_CODE: u8 = 126;
/// How one ends that could not be started.
const NOT_STARTED_CODE: u8 = 127;

/// What the standard streams of a tree are.
pub(super) fn wanted(job: &Job) -> Wanted {
    let terminal = job.program.stdio == Stdio::Terminal;
    Wanted { terminal_of: terminal.then_some(job.account.uid), input: job.attached }
}

/// Where the output of a tree begins here: one that left another cluster wrote before.
pub(super) fn begins(job: &Job) -> [u64; 2] {
    let carried = job.carried.as_ref().map(|b| &b.carried);
    carried.map_or([0, 0], |c| [c.stdout_bytes, c.stderr_bytes])
}

/// What came of a start.
pub(super) struct Attempt {
    copy: NewCopy,
    keeper: Option<Keeper>,
    came: Came,
}

/// Whether a program runs.
enum Came {
    Runs,
    /// Not without a lease.
    Held,
    /// It does not; its person was told why.
    Refused,
    /// The cell did not say.
    Unknown,
}

/// What a start needs.
struct Begin {
    tree: Tree,
    job: Job,
    keeper: Option<Keeper>,
    calls: Arc<Calls>,
    overlay: Arc<Overlay>,
    groups: Groups,
    peers: Arc<dyn Peers>,
    events: UnboundedSender<Event>,
}

impl Begin {
    /// Makes the streams of a program and has the cell start it. Waits.
    ///
    /// # Errors
    /// Why not even its person can be told.
    fn begin(self) -> Result<Box<Attempt>, String> {
        let Begin { tree, job, keeper, calls, overlay, groups, peers, events } = self;
        let places = Places { now: Offsets::default(), first: begins(&job) };
        let made = Streaming::new((tree, true), job.birth, wanted(&job), places, peers, events);
        let (streaming, mut fds) = made.map_err(|e| format!("cannot make its streams: {e}"))?;
        let errors = fds.last().map(OwnedFd::try_clone).transpose();
        let errors = errors.map_err(|e| format!("cannot keep its streams: {e}"))?;
        let copy = NewCopy { streaming, link: None, cut: Vec::new() };
        let mut attempt = Attempt { copy, keeper, came: Came::Refused };
        if job.own_net {
            match overlay.network(tree.id, job.account.uid) {
                Ok((network, link)) => {
                    fds.push(network);
                    if let Some(link) = &link {
                        link.open(true);
                    }
                    attempt.copy.link = link;
                }
                Err(e) => {
                    say(tree, errors.as_ref(), &format!("it can have no network of its own: {e}"));
                    return Ok(Box::new(attempt));
                }
            }
        }
        let cgroups = match groups.make(tree, &job.limits) {
            Ok(folders) => folders,
            Err(why) => {
                say(tree, errors.as_ref(), &why);
                return Ok(Box::new(attempt));
            }
        };
        let mut start = Start {
            tree,
            pid: job.pid,
            account: job.account,
            own_net: job.own_net,
            merged_proc: attempt.keeper.as_ref().map(Keeper::pid),
            program: Program { cgroups, ..job.program },
        };
        let mut started = calls.start(start.clone(), &fds);
        if matches!(started, Err(CallError::Refused(Refusal::PidTaken(_)))) && start.pid.is_some() {
            // It may be a session's or a group's that outlives who began it: one of this node's own
            // is as good.
            start.pid = None;
            started = calls.start(start, &fds);
        }
        attempt.came = match started {
            Ok(_) => Came::Runs,
            Err(CallError::Refused(Refusal::Held)) => Came::Held,
            Err(CallError::Refused(refusal)) => {
                say(tree, errors.as_ref(), &refusal.to_string());
                Came::Refused
            }
            Err(e @ CallError::Link(_)) => {
                say(tree, errors.as_ref(), &e.to_string());
                Came::Unknown
            }
        };
        Ok(Box::new(attempt))
    }
}

/// Tells its person why a program does not run, where it would write its errors.
fn say(tree: Tree, errors: Option<&OwnedFd>, why: &str) {
    tracing::warn!(%tree, why, "it could not be started");
    // All of it fits in an empty pipe.
    let short: String = why.chars().take(WHY_CHARS_MAX).collect();
    let line = format!("xos: {}\n", short.replace(char::is_control, " "));
    let written = errors.map(|fd| nix::unistd::write(fd, line.as_bytes()));
    if let Some(Err(error)) = written {
        tracing::warn!(%tree, %error, "its person is not told why");
    }
}

impl Host {
    /// A program that cannot be started ends as a shell has it.
    pub(super) fn start(&mut self, id: TreeId, epoch: u64) -> Vec<Act> {
        let tree = Tree { id: id.0, epoch };
        let begun = self.starting.contains_key(&id) || self.preparing.contains_key(&id);
        if begun || self.copies.contains_key(&id) {
            return Vec::new();
        }
        if let Some(why) = self.refused.get(&id) {
            tracing::warn!(%tree, why, "it is not started here");
            let end = End::Exit { code: REFUSED_CODE };
            return self.agent.not_started(id, epoch, end, why).into_iter().collect();
        }
        let Some(job) = self.jobs.get(&id).cloned() else {
            // Said again with the next order, and the job with it.
            tracing::warn!(%tree, "it is to be started, and nobody said what it is");
            return Vec::new();
        };
        if job.shell {
            self.prepare(tree, job.account.uid);
        } else {
            self.begin_job(tree, job, None);
        }
        Vec::new()
    }

    /// The output of a tree is collected here.
    pub(super) fn collects(&self, tree: TreeId, job: &Job) {
        let begun = self.setup.spools.begin(tree.0, job.account.uid, job.wanted);
        if let Err(error) = begun {
            tracing::warn!(%tree, %error, "its output may be removed before its job has it");
        }
    }

    /// Has the cell start a program; `keeper`: that of its `/proc`. Then [`Host::started`].
    pub(super) fn begin_job(&mut self, tree: Tree, job: Job, keeper: Option<Keeper>) {
        if job.birth == self.setup.node {
            self.collects(TreeId(tree.id), &job);
        }
        self.starting.insert(TreeId(tree.id), Coming::new(tree.epoch));
        let (calls, overlay) = (self.calls.clone(), self.overlay.clone());
        let (peers, events) = (self.setup.peers.clone(), self.events.clone());
        let groups = self.groups.clone();
        let begin = Begin { tree, job, keeper, calls, overlay, groups, peers, events };
        let (calls, events) = (self.calls.clone(), self.events.clone());
        tokio::spawn(async move {
            let starts = calls.starts.acquire().await;
            let done = wait(move || begin.begin()).await.map_err(|e| e.to_string()).flatten();
            drop(starts);
            // A host that is gone has no programs: the cell ends with it.
            let _gone = events.send(Event::Started { tree, done });
        });
    }

    /// A program runs, or does not.
    pub(super) async fn started(
        &mut self,
        tree: Tree,
        done: Result<Box<Attempt>, String>,
    ) -> io::Result<Vec<Act>> {
        let (id, epoch) = (TreeId(tree.id), tree.epoch);
        let coming = self.starting.remove(&id).unwrap_or_else(|| Coming::new(epoch));
        let attempt = match done {
            Ok(attempt) => *attempt,
            Err(why) if coming.dying => {
                tracing::warn!(%tree, why, "it was not started, and is not to be");
                self.end(tree, None);
                return Ok(Vec::new());
            }
            Err(why) => {
                tracing::warn!(%tree, why, "it is not started");
                let end = End::Exit { code: NOT_STARTED_CODE };
                return Ok(self.agent.not_started(id, epoch, end, &why).into_iter().collect());
            }
        };
        let Attempt { copy: NewCopy { streaming, link, .. }, keeper: _keeper, came } = attempt;
        let held = Held { epoch, runs: true, exit: None, streaming, link, work: None, _keeper };
        if coming.dying {
            self.end(tree, Some(held));
            return Ok(Vec::new());
        }
        if matches!(came, Came::Held) {
            self.put_off.insert(id, epoch);
            // That of a shell's /proc waits for the cell.
            wait(move || drop(held)).await?;
            return Ok(Vec::new());
        }
        held.streaming.go();
        self.copies.insert(id, held);
        match came {
            Came::Runs => {
                if self.frozen {
                    halt(self.calls.clone(), tree).await?;
                }
                let mut acts: Vec<Act> = self.agent.started(id, epoch).into_iter().collect();
                acts.extend(coming.exit.map(|exit| self.exited(tree, exit)).unwrap_or_default());
                Ok(acts)
            }
            Came::Held | Came::Refused => Ok(self.exited(tree, Exit::Code(NOT_STARTED_CODE))),
            Came::Unknown => {
                self.end(tree, None);
                Ok(self.exited(tree, Exit::Code(NOT_STARTED_CODE)))
            }
        }
    }
}
