//! Cluster shells: the `/proc` of one ([`crate::procfs`]) is there before it, and until it is gone.

use super::cell::Calls;
use super::{Event, Host, wait};
use crate::cell::proto::{Program, Started, Tree};
use crate::cluster::agent::Act;
use crate::cluster::messages::TreeId;
use crate::procfs::READY;
use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// How long a keeper may take until it is ready.
const READY_MAX: Duration = Duration::from_secs(10);
/// What is run in place of a shell that cannot be: it says why, and ends as what could not be run.
const INSTEAD: &str = "printf 'xos: %s\\n' \"$1\" >&2; exit 126";

/// What cluster shells need of their node. Called from threads that may wait.
pub trait Shells: Send + Sync {
    /// The keeper of a shell's `/proc` ([`crate::procfs::keeper`]).
    fn keeper(&self, uid: u32) -> Program;

    /// What a shell has in its environment besides ([`crate::procfs::environment`]).
    fn environment(&self, uid: u32) -> Vec<(String, String)>;
}

/// What a shell begins with: its `/proc`, and what its environment has besides.
pub(super) type Begun = (Keeper, Vec<(String, String)>);

/// A keeper that runs. Dropped, it is asked to end, which waits for the cell.
pub(super) struct Keeper {
    pid: i32,
    calls: Arc<Calls>,
    /// It has ended: its pid may be another's.
    gone: Arc<AtomicBool>,
}

impl Keeper {
    /// Starts one, and waits until the merged `/proc` is there.
    fn start(calls: &Arc<Calls>, program: Program) -> Result<Keeper, String> {
        let no = |e: io::Error| format!("the cluster's /proc cannot be made: {e}");
        let null: OwnedFd = File::open("/dev/null").map_err(no)?.into();
        let (reads, writes) = io::pipe().map_err(no)?;
        let errors: OwnedFd = writes.try_clone().map_err(no)?.into();
        let fds = [null, writes.into(), errors];
        let started: Started = calls.help(program, &fds).map_err(|e| no(io::Error::other(e)))?;
        // Its end is seen by that of the pipe.
        drop(fds);
        let gone = Arc::new(AtomicBool::new(false));
        let keeper = Keeper { pid: started.pid, calls: calls.clone(), gone: gone.clone() };
        let (tell, told) = channel();
        let hearing = move || hear(reads, &tell, &gone);
        std::thread::Builder::new().name("keeper".to_owned()).spawn(hearing).map_err(no)?;
        match told.recv_timeout(READY_MAX) {
            Ok(line) if line == READY.trim_end() => Ok(keeper),
            Ok(line) => Err(format!("the cluster's /proc cannot be made: {line}")),
            Err(_) => Err("the cluster's /proc cannot be made: nothing is heard of it".to_owned()),
        }
    }

    /// Its pid in the cell.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.gone.load(Ordering::SeqCst) {
            return;
        }
        if let Err(error) = self.calls.signal(self.pid, libc::SIGTERM) {
            tracing::warn!(%error, pid = self.pid, "the keeper of a shell's /proc stays");
        }
    }
}

/// Passes on the first line that a keeper says, and notes what else it says until it has ended.
fn hear(reads: PipeReader, tell: &Sender<String>, gone: &AtomicBool) {
    let mut lines = BufReader::new(reads).lines().map_while(Result::ok);
    if let Some(first) = lines.next() {
        // Who waited may have given up.
        let _late = tell.send(first);
    }
    for line in lines {
        tracing::warn!("{line}");
    }
    gone.store(true, Ordering::SeqCst);
}

impl Host {
    /// Begins to make what a shell needs; then [`Host::prepared`].
    pub(super) fn prepare(&mut self, tree: Tree, uid: u32) {
        self.preparing.insert(TreeId(tree.id), tree.epoch);
        let (calls, events) = (self.calls.clone(), self.events.clone());
        let shells = self.setup.shells.clone();
        tokio::spawn(async move {
            let made = wait(move || -> Result<Begun, String> {
                let shells = shells.ok_or("there are no cluster shells at this node")?;
                let environment = shells.environment(uid);
                Ok((Keeper::start(&calls, shells.keeper(uid))?, environment))
            });
            let done = made.await.map_err(|e| e.to_string()).flatten();
            // A host that is gone has no shells: the cell ends with it.
            let _gone = events.send(Event::Prepared { tree, done });
        });
    }

    /// Starts the shell. Its person is told when it cannot be.
    pub(super) async fn prepared(
        &mut self,
        tree: Tree,
        done: Result<Begun, String>,
    ) -> io::Result<Vec<Act>> {
        let id = TreeId(tree.id);
        let awaited = self.preparing.get(&id) == Some(&tree.epoch);
        if awaited {
            self.preparing.remove(&id);
        }
        let Some(mut job) = self.jobs.get(&id).filter(|_| awaited).cloned() else {
            // It was killed meanwhile.
            wait(move || drop(done)).await?;
            return Ok(Vec::new());
        };
        let keeper = match done {
            Ok((keeper, environment)) => {
                let env = &mut job.program.env;
                for (name, value) in environment {
                    if !env.iter().any(|(other, _)| *other == name) {
                        env.push((name, value));
                    }
                }
                Some(keeper)
            }
            Err(why) => {
                tracing::warn!(%tree, why, "a cluster shell does not begin");
                let instead = ["/bin/sh", "-c", INSTEAD, "sh", why.as_str()];
                job.program.argv = instead.map(str::to_owned).to_vec();
                None
            }
        };
        self.begin_job(tree, job, keeper).await
    }
}
