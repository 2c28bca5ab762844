//! CRIU, the program (criu.org, criu(8)).

use super::error::{DriverError, Step, not_empty};
use super::explain::{explain, reason};
use super::images::{self, Manifest, Origin};
use super::net::Network;
use super::run::{Ended, Run};
use super::sys::Rights;
use super::{
    Abilities, Ability, Cell, Checkpointer, DumpOrder, Dumped, Feature, Leave, RestoreOrder,
    Restored, Tcp, proc, stats,
};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The first that dumps sockets on kernels from 6.16 on (criu issues 2705, 2718, 2804).
const VERSION_MIN: (u32, u32) = (4, 2);
/// What CRIU has beyond a person's rights (capabilities(7)), as a bit of `CapEff`.
const CHECKPOINT_RESTORE: u64 = 1 << 40;
/// What it writes of processors, and the most that is read of it, in bytes.
const PROCESSORS: &str = "cpuinfo.img";
const PROCESSORS_MAX: u64 = 64 * 1024;
/// How long finding out what it can do may take, for each question.
const PROBE_LIMIT: Duration = Duration::from_secs(20);

/// CRIU on this machine.
#[derive(Clone, Debug)]
pub struct Criu {
    pub(super) program: PathBuf,
    /// Where runs write about themselves.
    pub(super) logs: PathBuf,
    /// Once it was asked.
    version: OnceLock<String>,
    /// Held while its cache is made.
    pub(super) caching: Arc<tokio::sync::Mutex<()>>,
}

impl Criu {
    /// The program at `program`, an absolute path that is the same in every cell. The logs of runs
    /// that failed are kept in the folder `logs`, which is made.
    pub fn at(program: impl Into<PathBuf>, logs: impl Into<PathBuf>) -> Criu {
        Criu {
            program: program.into(),
            logs: logs.into(),
            version: OnceLock::new(),
            caching: Arc::default(),
        }
    }

    /// The first of `candidates` that is there, and else what `path` (as `PATH`) leads to.
    pub fn find(candidates: &[PathBuf], path: &str, logs: impl Into<PathBuf>) -> Option<Criu> {
        let searched = path.split(':').map(|folder| Path::new(folder).join("criu"));
        let mut all = candidates.iter().cloned().chain(searched);
        all.find(|program| program.is_absolute() && program.is_file())
            .map(|program| Criu::at(program, logs))
    }

    /// Runs it, in the namespaces of `cell`, only to hear what it says: whether it was content, and its words.
    pub(super) async fn ask(
        &self,
        cell: Option<Cell>,
        arguments: &[&str],
    ) -> Result<(bool, String), DriverError> {
        let mut run = Run::new(&self.logs, Step::Probe, PROBE_LIMIT)?;
        run.within(cell);
        run.arguments(arguments.iter().copied());
        let ended = run.run(&self.program).await?;
        let answer = (ended.good, ended.said()?);
        ended.forget()?;
        Ok(answer)
    }

    /// What it says of the processors' registers; empty where it says nothing, as on processors that
    /// it does not tell apart.
    async fn registers(&self) -> Result<String, DriverError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut run = Run::new(&self.logs, Step::Probe, PROBE_LIMIT)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = self.logs.join(format!("processors-{}-{number}", std::process::id()));
        let made = DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(DriverError::system(format!("make {}", folder.display())))?;
        run.command(&["cpuinfo", "dump"], &folder)?;
        let ended = run.run(&self.program).await?;
        let read = File::open(folder.join(PROCESSORS)).and_then(|file| {
            let mut bytes = Vec::new();
            file.take(PROCESSORS_MAX).read_to_end(&mut bytes).map(|_| bytes)
        });
        let gone = std::fs::remove_dir_all(&folder);
        gone.map_err(DriverError::system(format!("remove {}", folder.display())))?;
        let said = match read {
            Ok(bytes) if ended.good => stats::registers(&bytes),
            Ok(_) => Err(reason(&ended.said()?)),
            Err(e) => Err(e.to_string()),
        };
        ended.forget()?;
        Ok(said.unwrap_or_else(|why| {
            tracing::warn!(why, "processors are told apart by the names of their features only");
            String::new()
        }))
    }

    pub(super) fn failure(ended: &Ended, step: Step, pid: i32) -> DriverError {
        match ended.said() {
            Ok(text) => explain(step, pid, &text, Some(ended.log())),
            Err(error) => error,
        }
    }
}

#[async_trait]
impl Checkpointer for Criu {
    async fn probe(&self) -> Result<Abilities, DriverError> {
        let (_, said) = self.ask(None, &["--version"]).await?;
        let version = version(&said).ok_or_else(|| DriverError::Unable {
            why: format!("{} says no version", self.program.display()),
        })?;
        if version.0 < VERSION_MIN {
            let why = format!("CRIU {} is too old, 4.2 is the least", version.1);
            return Err(DriverError::Unable { why });
        }
        let (good, said) = self.ask(None, &["check", "--no-default-config"]).await?;
        if !good {
            return Err(DriverError::Unable { why: reason(&said) });
        }
        let own = proc::own_status().map_err(DriverError::system("see what root may do here"))?;
        if own.effective & CHECKPOINT_RESTORE == 0 {
            let why = "root lacks CAP_CHECKPOINT_RESTORE, which is there from Linux 5.9 on".into();
            return Err(DriverError::Unable { why });
        }
        let mut features = BTreeMap::new();
        for feature in Feature::ALL {
            let arguments = ["check", "--no-default-config", "--feature", name(feature)];
            let (good, said) = self.ask(None, &arguments).await?;
            let ability = if good { Ability::Present } else { Ability::Missing(reason(&said)) };
            features.insert(feature, ability);
        }
        Ok(Abilities { version: version.1, features, registers: self.registers().await? })
    }

    async fn dump(&self, order: &DumpOrder) -> Result<Dumped, DriverError> {
        let root = order.root;
        let gone = move |e: std::io::Error| {
            if proc::ended(&e) {
                return DriverError::Gone { pid: root };
            }
            DriverError::system(format!("look at process {root}"))(e)
        };
        let look = move || -> std::io::Result<_> {
            let status = proc::status(root)?;
            Ok((proc::inner_pid(root)?, sizes(root)?, status.uids[0]))
        };
        let known = blocking(look).await?;
        let (pid, before, person) = known.map_err(gone)?;
        // Now, and not while the tree stands still.
        let version = self.version().await?;
        // Those of a tree in the driver's own namespaces, which may be some below the uppermost.
        let pid = if order.cell.is_some() { pid } else { root };
        let ids = self.ready_ids(order).await?;
        let own_net = order.cell.is_some_and(|cell| cell.own_net);
        let network = own_net.then(|| Network::of(root)).transpose();
        let network = network.map_err(DriverError::system("open its network"))?;
        let mut run = Run::new(&self.logs, Step::Dump, order.limit)?;
        run.within(order.cell);
        run.with(Rights::Root { person: Some(person), real: ids })?;
        // The images then say how the tree's own stand.
        run.by_clocks_of(root);
        if !images::Folder::open(&order.folder)?.names()?.is_empty() {
            return Err(not_empty(&order.folder));
        }
        run.command(&["dump"], &order.folder)?;
        run.arguments(["--tree", &pid.to_string(), "--manage-cgroups=ignore"]);
        run.arguments(["--timeout", &collecting(order.limit)]);
        run.arguments(match order.leave {
            Leave::Running => Some("--leave-running"),
            Leave::Stopped => Some("--leave-stopped"),
            Leave::Killed => None,
        });
        for external in order.externals.iter().filter_map(|external| external.dump_argument()) {
            run.arguments(["--external", &external]);
        }
        run.arguments(tcp(order.tcp));
        let quiet = network.as_ref().map(Network::quiet).transpose();
        let quiet = quiet.map_err(DriverError::system("keep its network still"))?;
        if let Some(network) = &network {
            run.in_network(network.file().map_err(DriverError::system("keep its network open"))?);
        }
        let ended = run.run(&self.program).await?;
        drop(quiet);
        if !ended.good {
            return Err(Criu::failure(&ended, Step::Dump, pid));
        }
        let wrong = |file: &str, what: String| images::ImageError::Altered {
            path: order.folder.join(file),
            what,
        };
        let run = stats::dump(&ended.read("stats-dump")?).map_err(|e| wrong("stats-dump", e))?;
        let files = order.folder.join("files.img");
        let files = match std::fs::read(&files) {
            Ok(bytes) => stats::open_files(&bytes, &before).map_err(|e| wrong("files.img", e))?,
            Err(e) => return Err(DriverError::system(format!("read {}", files.display()))(e)),
        };
        // In which control groups it was is its node's matter, and no restore follows it.
        let groups = order.folder.join("cgroup.img");
        match std::fs::remove_file(&groups) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(DriverError::system(format!("remove {}", groups.display()))(e));
            }
            _ => {}
        }
        ended.forget()?;
        Ok(Dumped {
            pid,
            frozen_us: run.frozen_time.into(),
            pages: run.pages_written,
            size_bytes: size(&order.folder).map_err(DriverError::system("measure the images"))?,
            open_files: files,
            version,
        })
    }

    async fn seal(&self, folder: &Path, origin: Origin) -> Result<Manifest, DriverError> {
        let folder = folder.to_owned();
        Ok(blocking(move || images::seal(&folder, origin)).await??)
    }

    async fn seal_to_travel(&self, folder: &Path, origin: Origin) -> Result<Manifest, DriverError> {
        let folder = folder.to_owned();
        Ok(blocking(move || images::seal_to_travel(&folder, origin)).await??)
    }

    async fn restore(&self, order: RestoreOrder) -> Result<Restored, DriverError> {
        self.make(order).await
    }
}

impl Criu {
    async fn version(&self) -> Result<String, DriverError> {
        if let Some(version) = self.version.get() {
            return Ok(version.clone());
        }
        let (_, said) = self.ask(None, &["--version"]).await?;
        let none = || DriverError::Unable { why: "CRIU says no version".into() };
        let text = version(&said).ok_or_else(none)?.1;
        Ok(self.version.get_or_init(|| text).clone())
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DriverError> {
    let lost = |e: tokio::task::JoinError| DriverError::system("go on")(e.into());
    tokio::task::spawn_blocking(work).await.map_err(lost)
}

/// The sizes of all files that a tree has open, by their paths in the tree.
fn sizes(root: i32) -> std::io::Result<BTreeMap<PathBuf, u64>> {
    let mut sizes = BTreeMap::new();
    for pid in proc::tree(root)? {
        match proc::process(pid) {
            Ok(process) => sizes.extend(
                process.descriptors.into_iter().map(|d| (PathBuf::from(d.what), d.size_bytes)),
            ),
            Err(e) if proc::ended(&e) && pid != root => {}
            Err(e) => return Err(e),
        }
    }
    Ok(sizes)
}

fn size(folder: &Path) -> std::io::Result<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(folder)? {
        size += entry?.metadata()?.len();
    }
    Ok(size)
}

/// CRIU's `--timeout`, in whole seconds: for having all stand still. It gives up in time to let
/// them go on.
fn collecting(limit: Duration) -> String {
    (limit.as_secs() * 3 / 4).max(1).to_string()
}

pub(super) fn tcp(tcp: Tcp) -> &'static [&'static str] {
    match tcp {
        Tcp::None => &[],
        // Its loopback is down: no packet comes.
        Tcp::Established => &["--tcp-established", "--network-lock", "skip"],
    }
}

/// CRIU's name of a feature (`criu check --feature`).
fn name(feature: Feature) -> &'static str {
    match feature {
        Feature::Tcp => "tcp_half_closed",
        Feature::SeccompFilters => "seccomp_filters",
        Feature::TimeNamespaces => "timens",
    }
}

/// The version in what `criu --version` said, as numbers and as it stands there.
fn version(said: &str) -> Option<((u32, u32), String)> {
    let text = said.lines().find_map(|line| line.strip_prefix("Version:"))?.trim();
    let mut parts = text.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next().map_or(Some(0), |minor| minor.parse().ok())?;
    Some(((major, minor), text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        // wrong: a CRIU that breaks programs would be used, or a good one refused
        let new = |said: &str| version(said).unwrap().0 >= VERSION_MIN;
        assert!(
            new("Version: 4.2.1\n") && new("Version: 4.10\nGitID: v4.10\n") && new("Version: 5")
        );
        assert!(!new("Version: 4.1.1\n") && !new("Version: 3.17.1\n"));
        assert_eq!(version("criu: not found"), None);
    }

    #[test]
    fn only_absolute_programs_are_found() {
        // wrong: whoever owns the working folder would be root
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("criu");
        std::fs::write(&there, "").unwrap();
        let find = |candidates: &[PathBuf], path: &str| {
            Criu::find(candidates, path, "/nowhere").map(|criu| criu.program)
        };
        let folder = dir.path().to_str().unwrap();
        assert_eq!(find(&[], &format!(".:/nowhere:{folder}")), Some(there.clone()));
        assert_eq!(find(&["/nowhere/criu".into(), there.clone()], ""), Some(there));
        assert_eq!(find(&["criu".into()], "."), None);
    }

    #[tokio::test]
    async fn without_the_program_that_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let criu = Criu::at("/nowhere/criu", dir.path().join("logs"));
        let error = criu.probe().await.unwrap_err();
        assert!(matches!(error, DriverError::Unable { .. }), "{error}");
        assert!(error.to_string().contains("there is no /nowhere/criu"), "{error}");
    }

    #[tokio::test]
    async fn what_is_stopped_is_ended_long_before_its_time_is_over() {
        // wrong: who stops the CRIU that makes their program would keep a node from making others
        let dir = tempfile::tempdir().unwrap();
        let mut run =
            Run::new(&dir.path().join("logs"), Step::Restore, Duration::from_secs(3600)).unwrap();
        run.arguments(["-c", "kill -STOP $$"]);
        let error = run.run(Path::new("/bin/bash")).await.err().unwrap();
        assert!(matches!(error, DriverError::Halted { step: Step::Restore, .. }), "{error}");
    }

    #[tokio::test]
    async fn what_hangs_is_ended_with_all_that_it_started() {
        // wrong: CRIU would go on changing a program that was given up already
        let dir = tempfile::tempdir().unwrap();
        let mut run =
            Run::new(&dir.path().join("logs"), Step::Dump, Duration::from_secs(2)).unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let number = run.keep(writer.into());
        run.arguments(["-c", &format!("sleep 1000 & echo $! >&{number}; sleep 1000")]);
        let error = run.run(Path::new("/bin/bash")).await.err().unwrap();
        assert!(matches!(error, DriverError::TimedOut { step: Step::Dump, .. }), "{error}");
        // It ends only when nobody has the other end.
        let mut said = String::new();
        std::io::Read::read_to_string(&mut reader, &mut said).unwrap();
        assert!(said.trim().parse::<u32>().is_ok(), "{said}");
    }
}
