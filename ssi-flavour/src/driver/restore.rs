//! Making trees from images by CRIU.

use super::criu::{Criu, blocking, tcp};
use super::error::{DriverError, Step};
use super::gate::Gate;
use super::images::{self, ImageError};
use super::look::{Look, When};
use super::net::Network;
use super::recorded::Recorded;
use super::run::Run;
use super::{Cell, RestoreOrder, Restored, proc};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::sync::Arc;
use std::sync::mpsc::channel;

impl Criu {
    /// Makes the tree, looks at it before and after it gets its person's rights, and lets it go on
    /// if it is to. On an error nothing of it is left.
    pub(super) async fn make(&self, order: RestoreOrder) -> Result<Restored, DriverError> {
        let (folder, owner, cell) = (order.folder.clone(), order.owner.clone(), order.cell);
        let checked = blocking(move || -> Result<_, ImageError> {
            let manifest = images::check(&folder, &owner)?;
            let recorded = Recorded::read(&folder, &manifest)?;
            Ok((manifest.origin.pid, recorded))
        });
        let (pid, recorded) = checked.await??;
        if find(cell, pid).await?.is_some() {
            return Err(DriverError::PidTaken { pid });
        }
        let look = Arc::new(Look { cell, person: order.owner.clone(), recorded });
        let stopped = order.stopped;
        let mut run = self.prepared(order).await?;
        let gate = Gate::new(&mut run)?;
        let (tell, told) = channel();
        let held = Arc::clone(&look);
        // It ends with CRIU.
        drop(tokio::task::spawn_blocking(move || gate.serve(|| at_gate(&held, pid), &tell)));
        let ended = match run.run(&self.program).await {
            Err(error @ DriverError::TimedOut { .. }) => {
                // Nothing had the pid before: what has it now is half a program.
                if let Some(half) = find(cell, pid).await? {
                    signal(half, Signal::SIGKILL).await?;
                }
                return Err(error);
            }
            ended => ended?,
        };
        let asked = match told.try_recv() {
            // CRIU ended the tree.
            Ok(Err(strange)) => return Err(strange),
            told => told.is_ok(),
        };
        if !ended.good {
            return Err(Criu::failure(&ended, Step::Restore, pid));
        }
        let root = find(cell, pid).await?;
        if let Some(root) = root {
            let made = blocking(move || match asked {
                true => look.at(root, When::Made),
                false => {
                    let what = "CRIU did not have it looked at".to_owned();
                    Err(DriverError::Strange { pid, what })
                }
            });
            if let Err(strange) = made.await.flatten() {
                signal(root, Signal::SIGKILL).await?;
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
    async fn prepared(&self, order: RestoreOrder) -> Result<Run, DriverError> {
        let mut run = Run::new(&self.logs, Step::Restore, order.limit)?;
        run.within(order.cell);
        run.for_person(order.owner.uid);
        for folder in &order.cgroups {
            run.in_cgroup(folder)?;
        }
        run.command(&["restore"], &order.folder)?;
        run.arguments(["--manage-cgroups=ignore", "--restore-detached", "--pidfile", "pid"]);
        run.arguments(["--leave-stopped"]);
        for inherited in order.inherited {
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

/// Looks at a tree that CRIU keeps.
fn at_gate(look: &Look, pid: i32) -> Result<(), DriverError> {
    let found = proc::outer_pid(look.cell.map(|cell| cell.pid), pid);
    let root = found.map_err(DriverError::system("look into the cell"))?;
    look.at(root.ok_or(DriverError::Gone { pid })?, When::Held)
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
