//! The small program that is saved and started again when a node joins: with pipes, and with a file
//! open of a file system that is mounted as volumes are.

mod mount;

use super::streams::{Made, pipes};
use super::work::{person, restore};
use super::{Host, wait};
use crate::cell::proto::{Account, Program, Start, Stdio, Tree};
use crate::cluster::members::Moves;
use crate::cluster::messages::TreeId;
use crate::driver::images::Origin;
use crate::driver::{DumpOrder, Inherited, Leave, RestoreOrder, Tcp, Trust, outer_pid};
use crate::ghost::relay::Ends;
use mount::{FILE, Mounted, TEXT};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use xos_base::Millis;

/// No tree of the cluster has this number.
const CANARY: TreeId = TreeId(u64::MAX);
/// It may run as long as so many runs of the driver.
const CANARY_LIMITS: u32 = 4;

impl Host {
    /// Whether trees can come and go here, tried with a program of an account that is nobody's
    /// else. Before [`Host::run`].
    ///
    /// # Errors
    /// That the cell refuses, or what is left of it cannot be removed.
    pub async fn canary(&self, account: Account) -> io::Result<Moves> {
        // Nothing else is in the cell yet, and nothing of it is anywhere else.
        let limit = self.setup.limit.saturating_mul(CANARY_LIMITS);
        self.let_run(self.setup.clock.up().plus(limit)).await?;
        let init = self.init_pid;
        let mounted = wait(move || Mounted::within(init)).await?;
        let tried = match &mounted {
            Ok(_) => self.try_canary(account).await,
            Err(why) => Err(format!("no file system (FUSE) can be mounted here: {why}")),
        };
        for epoch in [1, 2] {
            let (calls, tree) = (self.calls.clone(), Tree { id: CANARY.0, epoch });
            wait(move || calls.kill(tree)).await?.map_err(io::Error::other)?;
        }
        // Nobody has a file of it open any more.
        wait(move || drop(mounted)).await?;
        self.let_run(Millis(0)).await?;
        self.store.discard(CANARY, 1)?;
        Ok(match tried {
            Ok(()) => Moves::Yes,
            Err(reason) => Moves::No { reason },
        })
    }

    async fn let_run(&self, until: Millis) -> io::Result<()> {
        let calls = self.calls.clone();
        let told = wait(move || calls.lease(until, None, &HashSet::new(), libc::SIGKILL)).await?;
        told.map(drop).map_err(io::Error::other)
    }

    async fn try_canary(&self, account: Account) -> Result<(), String> {
        let driver = &self.setup.driver;
        driver.probe().await.map_err(|e| e.to_string())?;
        let owner = person(&account);
        let tree = Tree { id: CANARY.0, epoch: 1 };
        let text = format!("exec 3<{FILE}; read -r l <&3; echo \"$l\"; exec sleep 1000");
        let program = Program {
            argv: ["sh", "-c", &text].map(str::to_owned).to_vec(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            cwd: "/".into(),
            umask: 0o022,
            rlimits: Vec::new(),
            cgroups: Vec::new(),
            stdio: Stdio::Three,
        };
        let merged_proc = None;
        let start = Start { tree, pid: None, account, own_net: false, merged_proc, program };
        let made = || pipes(true).map_err(|e| format!("cannot make pipes: {e}"));
        let Made { fds, keys, ends } = made()?;
        let (calls, cell) = (self.calls.clone(), self.cell());
        let root = wait(move || {
            let pid = calls.start(start, &fds).map_err(|e| e.to_string())?.pid;
            let root = outer_pid(Some(cell.pid), pid).map_err(|e| e.to_string())?;
            root.ok_or_else(|| "the canary ended at once".to_owned())
        });
        let root = root.await.map_err(|e| e.to_string())??;
        let _ends = self.has_read(ends).await?;
        let folder = self.store.make(CANARY, 1).map_err(|e| format!("cannot keep images: {e}"))?;
        let order = DumpOrder {
            root,
            cell: Some(cell),
            folder: folder.clone(),
            leave: Leave::Killed,
            externals: Vec::new(),
            tcp: Tcp::None,
            limit: self.setup.limit,
        };
        let dumped = driver.dump(&order).await.map_err(|e| e.to_string())?;
        let origin = Origin {
            pid: dumped.pid,
            owner: owner.uid,
            epoch: 1,
            criu: dumped.version,
            open_files: dumped.open_files,
        };
        driver.seal(&folder, origin).await.map_err(|e| e.to_string())?;
        let Made { fds, ends: _ends, .. } = made()?;
        let inherited = keys.into_iter().zip(fds);
        let order = RestoreOrder {
            folder,
            trust: Trust::OwnSite,
            owner,
            cell: Some(cell),
            cgroups: Vec::new(),
            rlimits: Vec::new(),
            inherited: inherited.map(|(key, fd)| Inherited { key, fd }).collect(),
            network: None,
            tcp: Tcp::None,
            stopped: true,
            limit: self.setup.limit,
        };
        let made = restore(&**driver, &self.calls, Tree { epoch: 2, ..tree }, order).await;
        made.map_err(|why| why.reason)
    }

    /// Waits until the canary has its file open and read, by what it writes; the other ends of its
    /// streams.
    async fn has_read(&self, ends: Ends) -> Result<(Option<OwnedFd>, File, OwnedFd), String> {
        let Ends::Pipes { input, output, error } = ends else {
            return Err("the canary has no pipes".to_owned());
        };
        let read = wait(move || {
            let (mut output, mut got) = (File::from(output), [0; TEXT.len()]);
            let read = output.read_exact(&mut got);
            (output, read.is_ok() && got == *TEXT.as_bytes())
        });
        // Where it hangs, its end ends the thread that reads.
        match tokio::time::timeout(self.setup.limit, read).await {
            Ok(Ok((output, true))) => Ok((input, output, error)),
            Ok(Ok((_, false))) => {
                Err("a program cannot read a file of a file system (FUSE) here".to_owned())
            }
            Ok(Err(e)) => Err(e.to_string()),
            Err(_) => Err(format!("a program did not begin within {:?}", self.setup.limit)),
        }
    }
}
