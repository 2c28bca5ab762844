//! Envelopes as the daemon sees them: start, re-attach, ask, follow, open again, forget.
//!
//! ```text
//! <state>/envelopes/<id>/plan.json   what it is to be
//!                        shim.lock   held by its shim
//!                        shim.sock   the shim's socket, root's
//!                        units.log   the record of its units, see `event`
//!                        shim.notes  for the administrator
//!                        spool/      output of its units
//! <state>/envelopes/warm-<...>       a shell that is nobody's yet, see `warm`
//! ```
//!
//! An envelope in which nothing ran or waited for a while *rests*: its shim writes `Closed` and
//! ends, and with it its pid namespace and cgroup; the files stay. It is opened again by a new
//! shim, which reads the log, knows every unit that was ever taken, and continues the numbers.
//! That is sound however shims and daemons die, since all of it rests on two things: a unit is
//! asked of init only when its `Starting` is on file, and whoever writes to the log holds the
//! folder's lock, after everything of the shim before was killed:
//!
//! - *a shim is killed*: the kernel ends its init and everything below it. Whoever comes next,
//!   a reader or a new shim, takes the lock, ends what is left in the cgroup, and records each unit
//!   without an end as lost, or as never started; none of them is ever started again.
//! - *the daemon is killed* on the way: the shim stands and waits for nobody, or a launcher still
//!   starts it. It has no units then, is found by the next daemon, or rests by itself.
//! - *both*: the two above, in either order.
//! - *units are sent to a shim that goes to rest*: refused, or not read. The sender opens the
//!   envelope again and sends the same; what the old shim took all the same is known.
//! - *the machine stops*: records since the last sync may be missing. The log is brought to the
//!   disk when an envelope rests, and before the core hears that units were taken. An envelope
//!   that was open when the machine stopped is not opened again, and all its units are lost.

mod client;
mod envelope;
mod error;
mod events;
pub(crate) mod recover;
mod rest;
mod warm;

pub use client::CallError;
pub use envelope::Envelope;
pub use error::EnvelopeError;
pub use events::Events;
pub use recover::LOG_BYTES_MAX;
pub use warm::WARM_SHELLS;

use crate::cgroup::{Cgroups, EnvelopeCgroup};
use crate::event::Cursor;
use crate::shim::launch::{Plan, lock};
use crate::shim::{PLAN_FILE, SHIM_ARG, SPOOL_DIR};
use crate::spec::{EnvelopeId, EnvelopeSpec};
use client::ShimClient;
use events::blocking;
use recover::{Found, clear_once, recover};
use std::fs::{DirBuilder, File};
use std::future::Future;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::task::JoinSet;
use xos_base::Millis;

/// How long a shim may take to stand.
const START_WAIT: Duration = Duration::from_secs(30);
/// How often a shim that holds its lock and has no socket yet (or no more) is looked for.
const CONNECT_TRIES_MAX: u32 = 100;
/// How long between two looks.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);
/// How many envelopes are looked at at a time after a start: one can take seconds.
const LOOKS_MAX: usize = 32;
/// Most bytes of a failed launcher's message that are kept.
const MESSAGE_BYTES_MAX: usize = 4096;

/// How a shim is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShimProgram {
    path: PathBuf,
    /// Whether the program is `xosd` itself, which needs [`SHIM_ARG`].
    own: bool,
}

impl ShimProgram {
    /// The program `xos-shim` at that path.
    pub fn at(path: &Path) -> ShimProgram {
        ShimProgram { path: path.to_owned(), own: false }
    }

    /// `xos-shim` beside the running program, which starts faster; else the running program,
    /// whose `main` must know [`SHIM_ARG`].
    ///
    /// # Errors
    /// When the running program's path cannot be read.
    pub fn find() -> io::Result<ShimProgram> {
        let own = std::env::current_exe()?;
        let beside = own.with_file_name("xos-shim");
        if beside.is_file() {
            return Ok(ShimProgram::at(&beside));
        }
        Ok(ShimProgram { path: own, own: true })
    }
}

/// The envelopes of this node.
#[derive(Clone, Debug)]
pub struct Envelopes {
    dir: PathBuf,
    shim: ShimProgram,
    cgroups: Cgroups,
    boot: String,
    now: fn() -> Millis,
    pool: Arc<warm::Pool>,
}

/// An envelope found when the daemon came up again.
pub enum Attached {
    /// Its shim lives.
    Alive(Box<Envelope>),
    /// Nothing of it runs, its log is complete. To be read with [`Envelopes::events`], opened
    /// again, or forgotten.
    Over {
        /// Which.
        id: EnvelopeId,
        /// Units that were lost with the shim.
        lost: u64,
    },
    /// It cannot be made out now: its shim does not listen and is not dead, processes of it stay,
    /// or a file cannot be read. Something of it may run.
    Unclear {
        /// Which.
        id: EnvelopeId,
        /// Why.
        error: EnvelopeError,
    },
}

impl Envelopes {
    /// Uses `<state>/envelopes`, making it if need be.
    ///
    /// # Errors
    /// When it cannot be made, or the kernel's boot id cannot be read.
    pub fn open(
        state: &Path,
        shim: ShimProgram,
        cgroups: Cgroups,
        now: fn() -> Millis,
    ) -> Result<Envelopes, EnvelopeError> {
        let dir = state.join("envelopes");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(EnvelopeError::at("make", &dir))?;
        let boot_id = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = std::fs::read_to_string(boot_id).map_err(EnvelopeError::at("read", boot_id))?;
        let (boot, pool) = (boot.trim().to_owned(), Arc::default());
        Ok(Envelopes { dir, shim, cgroups, boot, now, pool })
    }

    fn folder(&self, id: &EnvelopeId) -> PathBuf {
        self.dir.join(id.as_str())
    }

    /// Starts an envelope; it stands, without units, when this returns.
    ///
    /// # Errors
    /// [`EnvelopeError::Exists`] for an id that was not forgotten; what else the machine refuses.
    /// Nothing is left behind then.
    pub async fn start(&self, spec: EnvelopeSpec) -> Result<Envelope, EnvelopeError> {
        spec.check()?;
        if warm::is_shell(&spec.id) {
            let text = format!("{} is a name that this node keeps for itself", spec.id);
            return Err(EnvelopeError::Start(text));
        }
        if let Some(envelope) = self.adopt(&spec).await? {
            return Ok(envelope);
        }
        let dir = self.folder(&spec.id);
        make_folder(&dir, || EnvelopeError::Exists(spec.id.clone()))?;
        let cgroup = self.cgroups.envelope(&spec.id);
        let plan = Plan { spec, cgroup, boot: self.boot.clone() };
        let started = async {
            write_json(&dir.join(PLAN_FILE), &plan)?;
            self.launch(&dir, Stdio::null()).await?;
            ShimClient::connect(&dir)
                .await
                .map_err(EnvelopeError::at("connect to the shim of", &dir))
        };
        match started.await {
            Ok(client) => Ok(Envelope::new(self.clone(), dir, plan, client)),
            Err(e) => {
                blocking(move || discard(&dir, &plan.cgroup)).await?;
                Err(e)
            }
        }
    }

    async fn launch(&self, dir: &Path, stdin: Stdio) -> Result<(), EnvelopeError> {
        let mut command = Command::new(&self.shim.path);
        if self.shim.own {
            command.arg(SHIM_ARG);
        }
        command.arg(dir).env_clear().stdin(stdin).stdout(Stdio::null());
        command.kill_on_drop(true);
        let ran = tokio::time::timeout(START_WAIT, command.output());
        let out = match ran.await {
            Ok(out) => out.map_err(EnvelopeError::at("run", &self.shim.path))?,
            Err(_) => return Err(EnvelopeError::Start("the shim was not ready in 30 s".into())),
        };
        if out.status.success() {
            return Ok(());
        }
        let said = &out.stderr[..out.stderr.len().min(MESSAGE_BYTES_MAX)];
        let said = String::from_utf8_lossy(said).trim().to_owned();
        Err(EnvelopeError::Start(if said.is_empty() { out.status.to_string() } else { said }))
    }

    /// Connects to one envelope, or finds it over.
    pub async fn attach(&self, id: &EnvelopeId) -> Attached {
        let unclear = |error| Attached::Unclear { id: id.clone(), error };
        let dir = self.folder(id);
        if !dir.is_dir() {
            return unclear(EnvelopeError::NotFound(id.clone()));
        }
        let client = match patiently(&dir, || ShimClient::connect(&dir)).await {
            Ok(client) => client,
            Err(e) => return unclear(EnvelopeError::at("connect to the shim of", &dir)(e)),
        };
        if let Some(client) = client {
            return match Plan::read(&dir) {
                Ok(plan) => {
                    let envelope = Envelope::new(self.clone(), dir, plan, client);
                    Attached::Alive(Box::new(envelope))
                }
                Err(e) => unclear(e.into()),
            };
        }
        let (boot, now, cgroup) = (self.boot.clone(), (self.now)(), self.cgroups.envelope(id));
        match blocking(move || recover(&dir, &cgroup, &boot, now)).await {
            Ok(Found::Over { lost }) => Attached::Over { id: id.clone(), lost },
            Ok(Found::Alive) => unclear(EnvelopeError::Alive(id.clone())),
            Err(e) => unclear(e),
        }
    }

    /// All envelopes on this node, after a start of the daemon. What an earlier daemon only began
    /// to start, and never used, is cleared away.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub async fn attach_all(&self) -> Result<Vec<Attached>, EnvelopeError> {
        let (mut found, mut others) = self.resting().await?;
        let mut looks = JoinSet::new();
        while !(looks.is_empty() && others.is_empty()) {
            while looks.len() < LOOKS_MAX
                && let Some(id) = others.pop()
            {
                let home = self.clone();
                looks.spawn(async move { home.look(&id).await });
            }
            if let Some(looked) = looks.join_next().await {
                found.extend(looked.map_err(EnvelopeError::Task)?);
            }
        }
        self.refill(Duration::ZERO);
        Ok(found)
    }

    /// One envelope, as [`Envelopes::attach_all`] finds it. `None`: there is none. Nobody may be
    /// about to start it.
    pub async fn look(&self, id: &EnvelopeId) -> Option<Attached> {
        if !self.folder(id).is_dir() {
            return None;
        }
        match self.clear_unused(id).await {
            Ok(true) => None,
            Ok(false) => Some(self.attach(id).await),
            Err(error) => Some(Attached::Unclear { id: id.clone(), error }),
        }
    }

    /// Removes a folder in which no shim ever began, or a shell that is nobody's. Whether it did.
    async fn clear_unused(&self, id: &EnvelopeId) -> Result<bool, EnvelopeError> {
        for _ in 0..CONNECT_TRIES_MAX {
            let (dir, shell) = (self.folder(id), warm::is_shell(id));
            let by_name = self.cgroups.envelope(id);
            let cleared = blocking(move || clear_once(&dir, shell, by_name)).await?;
            if let Some(cleared) = cleared {
                return Ok(cleared);
            }
            // Its shim is about to begin the log or to end, since the daemon that asked is gone.
            tokio::time::sleep(CONNECT_PAUSE).await;
        }
        Ok(false)
    }

    /// The records after `cursor` of an envelope, over or not.
    ///
    /// # Errors
    /// [`EnvelopeError::NotFound`].
    pub fn events(&self, id: &EnvelopeId, cursor: Cursor) -> Result<Events, EnvelopeError> {
        let dir = self.folder(id);
        if !dir.is_dir() {
            return Err(EnvelopeError::NotFound(id.clone()));
        }
        Ok(Events::new(self, dir, self.cgroups.envelope(id), cursor, None))
    }

    /// The machine's boot id, as this program found it.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// The folder with the units' output, for [`crate::output`].
    pub fn spool(&self, id: &EnvelopeId) -> PathBuf {
        self.folder(id).join(SPOOL_DIR)
    }

    /// Removes what is kept of an envelope that is over: log and output.
    ///
    /// # Errors
    /// [`EnvelopeError::Alive`] when it is not over; when files cannot be removed.
    pub async fn forget(&self, id: &EnvelopeId) -> Result<(), EnvelopeError> {
        let dir = self.folder(id);
        if !dir.is_dir() {
            return Ok(());
        }
        let connected = patiently(&dir, || ShimClient::connect(&dir)).await;
        if connected.map_err(EnvelopeError::at("connect to the shim of", &dir))?.is_some() {
            return Err(EnvelopeError::Alive(id.clone()));
        }
        let (boot, now, cgroup) = (self.boot.clone(), (self.now)(), self.cgroups.envelope(id));
        let id = id.clone();
        blocking(move || match recover(&dir, &cgroup, &boot, now)? {
            Found::Alive => Err(EnvelopeError::Alive(id)),
            Found::Over { .. } => {
                std::fs::remove_dir_all(&dir).map_err(EnvelopeError::at("remove", &dir))
            }
        })
        .await
    }
}

/// Makes the folder of an envelope or a shell.
fn make_folder(dir: &Path, exists: impl FnOnce() -> EnvelopeError) -> Result<(), EnvelopeError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(exists()),
        other => other.map_err(EnvelopeError::at("make", dir))?,
    }
    let spool = dir.join(SPOOL_DIR);
    DirBuilder::new().mode(0o700).create(&spool).map_err(EnvelopeError::at("make", &spool))
}

fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), EnvelopeError> {
    let text = serde_json::to_vec(value).map_err(EnvelopeError::Encode)?;
    let mut how = File::options();
    how.write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut f| f.write_all(&text))
        .map_err(EnvelopeError::at("write", path))
}

/// After a failed start: no process, cgroup or folder stays.
fn discard(dir: &Path, cgroup: &EnvelopeCgroup) -> Result<(), EnvelopeError> {
    cgroup.kill()?;
    cgroup.remove()?;
    std::fs::remove_dir_all(dir).map_err(EnvelopeError::at("remove", dir))
}

/// Connects, waiting for a shim that is about to listen. `None`: no shim lives.
async fn patiently<F: Future<Output = io::Result<ShimClient>>>(
    dir: &Path,
    connect: impl Fn() -> F,
) -> io::Result<Option<ShimClient>> {
    let mut last = None;
    for _ in 0..CONNECT_TRIES_MAX {
        match connect().await {
            Ok(client) => return Ok(Some(client)),
            Err(e) => last = Some(e),
        }
        if lock(dir)?.is_some() {
            return Ok(None);
        }
        tokio::time::sleep(CONNECT_PAUSE).await;
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::TimedOut.into()))
}
