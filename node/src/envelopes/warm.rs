//! Shells: shims that were started ahead, so that an envelope stands at once.
//!
//! A shell lies in `<state>/envelopes/warm-<...>` with a `shell.json` and no plan. It is held by a
//! connection of this daemon and ends with it. Adoption: the plan is written into its folder, the
//! folder takes the envelope's name, and only then the shell is told. So whatever dies on the way,
//! a folder `warm-*` is nobody's, and any other without a log never ran anything. The cgroup keeps
//! the shell's name; the plan says which it is.

use super::client::ShimClient;
use super::events::blocking;
use super::{Envelope, EnvelopeError, Envelopes, discard, make_folder, write_json};
use crate::cgroup::EnvelopeCgroup;
use crate::proto::Ask;
use crate::shim::launch::{Plan, Shell};
use crate::shim::{PLAN_FILE, SHELL_FILE};
use crate::spec::{EnvelopeId, EnvelopeSpec};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Pair;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;

/// How many shells a node keeps: each is two sleeping processes of about 2 MB.
pub const WARM_SHELLS: usize = 2;
/// What the names of shells begin with; no envelope's does.
const SHELL_PREFIX: &str = "warm-";
/// How long a shell may take to become an envelope before another way is taken.
const ADOPT_WAIT: Duration = Duration::from_secs(2);
/// How long after an adoption the next shell is begun: the envelope's first units go first.
const REFILL_PAUSE: Duration = Duration::from_millis(50);

/// The shells of one daemon.
#[derive(Debug, Default)]
pub(super) struct Pool {
    state: Mutex<State>,
    /// Held while a shell is made.
    making: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    size: usize,
    shells: Vec<WarmShell>,
    filling: bool,
    named: u64,
}

#[derive(Debug)]
struct WarmShell {
    dir: PathBuf,
    cgroup: EnvelopeCgroup,
    client: ShimClient,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<WarmShell> {
        self.lock().shells.pop()
    }

    /// Whether a shell is to be made; if not, filling is over.
    fn wants_more(&self) -> bool {
        let mut state = self.lock();
        state.filling = state.shells.len() < state.size;
        state.filling
    }
}

/// Whether the name is kept for shells.
pub(super) fn is_shell(id: &EnvelopeId) -> bool {
    id.as_str().starts_with(SHELL_PREFIX)
}

impl Envelopes {
    /// Keeps that many shells from the next [`Envelopes::attach_all`] or [`Envelopes::start`] on;
    /// 0: none, every envelope is started when it is needed.
    pub fn warm(self, shells: usize) -> Envelopes {
        self.pool.lock().size = shells;
        self
    }

    /// Makes the shells that are missing now, and returns when they stand.
    ///
    /// # Errors
    /// What the machine refused.
    pub async fn fill_warm(&self) -> Result<(), EnvelopeError> {
        loop {
            let _one = self.pool.making.lock().await;
            {
                let state = self.pool.lock();
                if state.shells.len() >= state.size {
                    return Ok(());
                }
            }
            let shell = self.make_shell().await?;
            self.pool.lock().shells.push(shell);
        }
    }

    /// Keeps no shells any more, and ends those that there are.
    ///
    /// # Errors
    /// What of them cannot be removed.
    pub async fn end_warm(&self) -> Result<(), EnvelopeError> {
        self.pool.lock().size = 0;
        let _none_is_made = self.pool.making.lock().await;
        while let Some(shell) = self.pool.take() {
            blocking(move || discard(&shell.dir, &shell.cgroup)).await?;
        }
        Ok(())
    }

    /// Makes missing shells beside everything else.
    pub(super) fn refill(&self, pause: Duration) {
        {
            let mut state = self.pool.lock();
            if state.filling || state.shells.len() >= state.size {
                return;
            }
            state.filling = true;
        }
        let home = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            while home.pool.wants_more() {
                if let Err(error) = home.fill_warm().await {
                    tracing::warn!(%error, "no shell could be started ahead");
                    // The next start tries again.
                    home.pool.lock().filling = false;
                    return;
                }
            }
        });
    }

    async fn make_shell(&self) -> Result<WarmShell, EnvelopeError> {
        let number = {
            let mut state = self.pool.lock();
            state.named += 1;
            state.named
        };
        // Never used twice, also not after another boot: an old plan may name its cgroup.
        let boot = self.boot.get(..8).unwrap_or_default();
        let id: EnvelopeId = format!("{SHELL_PREFIX}{boot}-{}-{number}", (self.now)().0).parse()?;
        let (dir, cgroup) = (self.folder(&id), self.cgroups.envelope(&id));
        make_folder(&dir, || EnvelopeError::Exists(id))?;
        let made = async {
            let shell = Shell { cgroup: cgroup.clone() };
            write_json(&dir.join(SHELL_FILE), &shell)?;
            let connection = EnvelopeError::at("make a connection to the shim of", &dir);
            let (ours, theirs) = Pair::pair().map_err(connection)?;
            self.launch(&dir, Stdio::from(OwnedFd::from(theirs))).await?;
            let connected = ours.set_nonblocking(true).and_then(|()| UnixStream::from_std(ours));
            connected.map_err(EnvelopeError::at("connect to the shim of", &dir))
        };
        match made.await {
            Ok(stream) => Ok(WarmShell { dir, cgroup, client: ShimClient::over(stream) }),
            Err(e) => {
                blocking(move || discard(&dir, &cgroup)).await?;
                Err(e)
            }
        }
    }

    /// Makes the envelope of a shell. `None`: there was none that could be used.
    ///
    /// # Errors
    /// [`EnvelopeError::Exists`]; a shell that failed and cannot be removed.
    pub(super) async fn adopt(
        &self,
        spec: &EnvelopeSpec,
    ) -> Result<Option<Envelope>, EnvelopeError> {
        let dir = self.folder(&spec.id);
        if dir.exists() {
            return Err(EnvelopeError::Exists(spec.id.clone()));
        }
        let mut adopted = None;
        while let Some(shell) = self.pool.take() {
            let cgroup = shell.cgroup.clone();
            let plan = Plan { spec: spec.clone(), cgroup, boot: self.boot.clone() };
            let (left, error) = match give_name(&shell, &plan, &dir) {
                Ok(()) => match tell(&shell).await {
                    Ok(()) => {
                        adopted = Some(Envelope::new(self.clone(), dir, plan, shell.client));
                        break;
                    }
                    Err(e) => (dir.clone(), e),
                },
                Err(e) => (shell.dir.clone(), e),
            };
            tracing::warn!(dir = %left.display(), %error, "a shell that was started ahead failed");
            // Nothing was ever sent to it, so nothing of it ran.
            blocking(move || discard(&left, &shell.cgroup)).await?;
            if matches!(error, EnvelopeError::Exists(_)) {
                return Err(error);
            }
        }
        self.refill(REFILL_PAUSE);
        Ok(adopted)
    }
}

/// Until this is done the folder is a shell's; from then on it is the envelope's.
fn give_name(shell: &WarmShell, plan: &Plan, dir: &Path) -> Result<(), EnvelopeError> {
    write_json(&shell.dir.join(PLAN_FILE), plan)?;
    match renameat_with(CWD, &shell.dir, CWD, dir, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::EXIST) => Err(EnvelopeError::Exists(plan.spec.id.clone())),
        other => other.map_err(|e| EnvelopeError::at("rename to an envelope", dir)(e.into())),
    }
}

async fn tell(shell: &WarmShell) -> Result<(), EnvelopeError> {
    match tokio::time::timeout(ADOPT_WAIT, shell.client.call(Ask::Adopt)).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(EnvelopeError::Start("the shell did not answer".into())),
    }
}
