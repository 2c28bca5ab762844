//! Making trees from images by CRIU, which runs with their person's rights: what images name, CRIU
//! opens as the person would, so that images of a machine that is not trusted get nobody more than
//! the person has. Beyond that it may choose pids and set up memory, for which
//! `CAP_CHECKPOINT_RESTORE` is there (capabilities(7)), and, in a network of the tree's own,
//! bring connections back (`CAP_NET_ADMIN`). What more it would need is done for it before: it is
//! started in its namespaces and control groups, and by the tree's clocks.

use super::account::of_images;
use super::clocks::Clocks;
use super::criu::{Criu, blocking, tcp};
use super::error::{DriverError, Step};
use super::external::ExternalFd;
use super::gate::Gate;
use super::images::{self, ImageError, Lent};
use super::look::{Look, When};
use super::net::Network;
use super::recorded::{Images, Recorded};
use super::run::Run;
use super::sys::{As, Rights};
use super::{Cell, RestoreOrder, Restored, Tcp, Trust, proc, rlimits};
use crate::cell::proto::Rlimit;
use crate::procs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, fchown};
use rustix::thread::CapabilitySet;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// How long a pid may stay with what ends, and how often it is looked.
const FREE_MAX: Duration = Duration::from_secs(2);
const FREE_EVERY: Duration = Duration::from_millis(5);

/// So many looks at a dead process while CRIU goes on, and how far apart.
const DEAD_LOOKS: u32 = 10;
/// The same where none was seen alive: CRIU makes it before it reads any memory.
const NEVER_LOOKS: u32 = 75;
const DEAD_EVERY: Duration = Duration::from_millis(200);

/// What the images of a tree say of it, once they are found good.
struct Found {
    pid: i32,
    recorded: Recorded,
    account: As,
    clocks: Option<Clocks>,
}

impl Criu {
    /// Makes the tree with its person's rights, looks at it before and after CRIU lets go of it,
    /// and lets it go on if it is to. On an error nothing of it is left.
    pub(super) async fn make(&self, order: RestoreOrder) -> Result<Restored, DriverError> {
        trusted(&order)?;
        let (folder, owner, cell) = (order.folder.clone(), order.owner.clone(), order.cell);
        let checked = blocking(move || -> Result<_, ImageError> {
            let manifest = images::check(&folder, &owner)?;
            let images = Images::of(&folder, &manifest);
            let recorded = Recorded::read(&images)?;
            let account = of_images(&images, &owner)?;
            let clocks = Clocks::read(&images)?;
            Ok(Found { pid: manifest.origin.pid, recorded, account, clocks })
        });
        let found = checked.await??;
        let pid = found.pid;
        // The copy that was here before it moved away may be ending still.
        if !is_free(cell, pid).await? {
            return Err(DriverError::PidTaken { pid });
        }
        let (folder, gid) = (order.folder.clone(), found.account.gid);
        // Until CRIU has ended.
        let lent = blocking(move || Lent::to(&folder, gid)).await??;
        let person = order.owner.clone();
        let look = Arc::new(Look { cell, person, recorded: found.recorded });
        let (stopped, uid) = (order.stopped, order.owner.uid);
        let most: Arc<[Rlimit]> = order.rlimits.clone().into();
        let mut run = self.prepared(order, found.account, found.clocks).await?;
        let gate = Gate::new(&mut run, uid)?;
        let (tell, told) = channel();
        let (held, limits) = (Arc::clone(&look), Arc::clone(&most));
        // It ends with CRIU.
        let serving = move || gate.serve(|| at_gate(&held, &limits, pid), &tell);
        // A volume that hangs holds none of the runtime's threads.
        let begun = std::thread::Builder::new().name("gate".to_owned()).spawn(serving);
        drop(begun.map_err(DriverError::system("look at what CRIU makes"))?);
        let ended = tokio::select! {
            ended = run.run(&self.program) => ended,
            // CRIU may wait for good for what somebody killed under its hands.
            () = vanished(cell, pid) => Err(DriverError::Gone { pid }),
        };
        let ended = match ended {
            Err(
                error @ (DriverError::TimedOut { .. }
                | DriverError::Halted { .. }
                | DriverError::Gone { .. }),
            ) => {
                end_half(cell, pid).await?;
                return Err(error);
            }
            ended => ended?,
        };
        blocking(move || drop(lent)).await?;
        let asked = match told.try_recv() {
            // CRIU ended the tree.
            Ok(Err(strange)) => {
                is_free(cell, pid).await?;
                return Err(strange);
            }
            told => told.is_ok(),
        };
        if !ended.good {
            // Else it ended all that it made. The person can end it too.
            if ended.killed {
                end_half(cell, pid).await?;
            }
            return Err(Criu::failure(&ended, Step::Restore, pid));
        }
        let root = find(cell, pid).await?;
        if let Some(root) = root {
            let made = blocking(move || match asked {
                true => rlimits::confine(root, &most).and_then(|()| look.at(root, When::Made)),
                false => {
                    let what = "CRIU did not have it looked at".to_owned();
                    Err(DriverError::Strange { pid, what })
                }
            });
            if let Err(strange) = made.await.flatten() {
                signal(root, Signal::SIGKILL).await?;
                is_free(cell, pid).await?;
                return Err(strange);
            }
            if !stopped {
                signal(root, Signal::SIGCONT).await?;
            }
        }
        ended.forget()?;
        Ok(Restored { pid, outer_pid: root })
    }

    /// A run for an order.
    async fn prepared(
        &self,
        order: RestoreOrder,
        account: As,
        clocks: Option<Clocks>,
    ) -> Result<Run, DriverError> {
        let mut run = Run::new(&self.logs, Step::Restore, order.limit)?;
        run.within(order.cell);
        let connected = order.tcp == Tcp::Established;
        let network = if connected { CapabilitySet::NET_ADMIN } else { CapabilitySet::empty() };
        let capabilities = CapabilitySet::CHECKPOINT_RESTORE | network;
        run.with(Rights::Person(As { capabilities, ..account }))?;
        let offsets = clocks.map(Clocks::offsets).transpose();
        let offsets = offsets.map_err(DriverError::system("read this machine's clocks"))?;
        run.by_clocks(offsets.flatten());
        run.limited(&order.rlimits);
        for folder in &order.cgroups {
            run.in_cgroup(folder)?;
        }
        run.command(&["restore"], &order.folder)?;
        run.arguments(["--unprivileged"]);
        run.arguments(["--manage-cgroups=ignore", "--restore-detached", "--pidfile", "pid"]);
        run.arguments(["--leave-stopped"]);
        for inherited in order.inherited {
            if let ExternalFd::Pipe { .. } = inherited.key {
                // CRIU opens it anew, as a program may its standard output.
                let given = fchown(&inherited.fd, Some(Uid::from_raw(order.owner.uid)), None);
                let failed = DriverError::system("give the program its pipes");
                given.map_err(|e| failed(e.into()))?;
            }
            let number = run.keep(inherited.fd);
            run.arguments(["--inherit-fd", &format!("fd[{number}]:{}", inherited.key)]);
        }
        run.arguments(tcp(order.tcp).iter().copied());
        let own_net = order.cell.is_some_and(|cell| cell.own_net);
        let network = match order.network {
            None if own_net => {
                let made = blocking(|| Network::new()?.file()).await?;
                Some(made.map_err(DriverError::system("make a network"))?)
            }
            given => given,
        };
        if let Some(network) = network {
            run.in_network(network);
        }
        Ok(run)
    }
}

/// Whether what is asked can be done for images of a machine that is trusted so far.
fn trusted(order: &RestoreOrder) -> Result<(), DriverError> {
    match (order.trust, order.tcp) {
        // It takes a right on networks, and those of the machine are not kept from who has it.
        (Trust::Foreign, Tcp::Established) => Err(DriverError::Refused {
            step: Step::Restore,
            what: "connections are not taken over from another site".to_owned(),
            next: "end the program's connections before it is saved",
            log: None,
        }),
        _ => Ok(()),
    }
}

/// Ends what a CRIU that did not come to its end left. Nothing had the pid before.
async fn end_half(cell: Option<Cell>, pid: i32) -> Result<(), DriverError> {
    match find(cell, pid).await? {
        Some(half) => {
            signal(half, Signal::SIGKILL).await?;
            is_free(cell, pid).await.map(drop)
        }
        None => Ok(()),
    }
}

/// Whether nobody has a pid in a cell, or nobody any more after a moment: what ended has it until
/// the cell's init has taken note.
async fn is_free(cell: Option<Cell>, pid: i32) -> Result<bool, DriverError> {
    let until = Instant::now() + FREE_MAX;
    while find(cell, pid).await?.is_some() {
        if Instant::now() > until {
            return Ok(false);
        }
        tokio::time::sleep(FREE_EVERY).await;
    }
    Ok(true)
}

/// Looks at a tree that CRIU keeps, and has it have no more than `most`.
fn at_gate(look: &Look, most: &[Rlimit], pid: i32) -> Result<(), DriverError> {
    let found = proc::outer_pid(look.cell.map(|cell| cell.pid), pid);
    let root = found.map_err(DriverError::system("look into the cell"))?;
    let root = root.ok_or(DriverError::Gone { pid })?;
    rlimits::confine(root, most)?;
    look.at(root, When::Held)
}

/// Returns once a process that was there is dead, and was for some looks; or was never there.
async fn vanished(cell: Option<Cell>, pid: i32) {
    let (mut seen, mut dead) = (false, 0);
    while dead < if seen { DEAD_LOOKS } else { NEVER_LOOKS } {
        tokio::time::sleep(DEAD_EVERY).await;
        // What cannot be looked at now is not taken for dead.
        let Ok(found) = find(cell, pid).await else { continue };
        let lives = found.is_some_and(|outer| !procs::is_over(outer));
        seen |= lives;
        dead = if lives { 0 } else { dead + 1 };
    }
}

async fn find(cell: Option<Cell>, inner: i32) -> Result<Option<i32>, DriverError> {
    let cell = cell.map(|cell| cell.pid);
    let found = blocking(move || proc::outer_pid(cell, inner)).await?;
    found.map_err(DriverError::system("look into the cell"))
}

/// Sends a signal to all of a tree.
async fn signal(root: i32, signal: Signal) -> Result<(), DriverError> {
    let sent = blocking(move || -> std::io::Result<()> {
        for pid in proc::tree(root)? {
            match kill(Pid::from_raw(pid), signal) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    });
    match sent.await? {
        Err(e) if !proc::ended(&e) => {
            Err(DriverError::system(format!("send {signal} to the tree of process {root}"))(e))
        }
        _ => Ok(()),
    }
}
