//! Slurm with one node, in a host of a testbed of its own.

use super::missing;
use crate::bench::grid::Options;
use crate::bench::memory::daemon_peak;
use crate::bench::samples::Samples;
use crate::bench::suite::{bytes_mb, millis, per_second, seconds};
use crate::bench::within::Timing;
use crate::bench::world::{spawning, timing};
use crate::bench::{Progress, failed, scratch};
use crate::grid::wait_for;
use crate::{Cmd, Error, Host, HostSpec, Result, Stdio, Testbed, TestbedConfig};
use std::path::PathBuf;
use std::time::Duration;

/// What must be installed.
const PROGRAMS: [&str; 7] = ["munged", "slurmctld", "slurmd", "srun", "sbatch", "squeue", "sinfo"];
/// Where everything is, in the host.
const DIR: &str = "/var/lib/xos/slurm";
/// Jobs by `srun` that are timed.
const SRUN_RUNS: usize = 30;
/// Runs of `sbatch` in one repetition, and how many at once.
const SBATCH_RUNS: (usize, usize) = (320, 16);
/// Longest that one measurement may take.
const LIMIT: Duration = Duration::from_secs(600);

/// What was measured.
pub(in crate::bench) struct Figures {
    /// `srun /bin/true`, its start to its end.
    pub(in crate::bench) srun_ms: Samples,
    /// Tasks of one array of `/bin/true`, submission to end.
    pub(in crate::bench) array_per_s: Samples,
    /// `sbatch` of a job that waits for another one, sixteen at once.
    pub(in crate::bench) submissions_per_s: Samples,
    /// The most memory of slurmctld after one array.
    pub(in crate::bench) controller_mb: Samples,
    /// The most memory of slurmd after one array.
    pub(in crate::bench) daemon_mb: Samples,
}

/// Starts Slurm and measures it.
///
/// # Errors
/// When it is installed and does not work.
pub(in crate::bench) fn measure(options: &Options, say: Progress) -> Result<Option<Figures>> {
    let missing = missing(&PROGRAMS);
    if !missing.is_empty() {
        let missing = missing.join(", ");
        say(&format!("peer not installed: apt-get install slurm-wlm munge (missing: {missing})"));
        return Ok(None);
    }
    let folder = scratch(&options.run.dir)?;
    let testbed = Testbed::create(TestbedConfig::new(folder.path().join("slurm"), "peer")?)?;
    let peer = Peer {
        host: testbed.add_host(HostSpec::new("peer")?)?,
        program: options.run.program.clone(),
    };
    peer.start().map_err(|e| peer.explain(&e))?;
    say("Slurm runs");
    let figures = peer.figures(options, say)?;
    testbed.destroy()?;
    Ok(Some(figures))
}

struct Peer {
    host: Host,
    program: PathBuf,
}

impl Peer {
    fn start(&self) -> Result<()> {
        let setup = format!(
            "set -e\nmkdir -p {DIR}/state {DIR}/spool {DIR}/munge\n\
             head -c 128 /dev/urandom > {DIR}/munge/key\nchmod 400 {DIR}/munge/key\n\
             printf '#!/bin/sh\\nexec /bin/true\\n' > {DIR}/job.sh\n\
             printf '#!/bin/sh\\nexec sleep 3600\\n' > {DIR}/held.sh\n"
        );
        self.shell(&setup)?;
        self.configure("")?;
        // No plugin that we use needs cgroups; looking for them by itself, slurmd wants systemd's.
        let cgroup = b"CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n";
        self.host.write_file(format!("{DIR}/cgroup.conf"), cgroup, 0o644)?;
        let munge = ["key-file", "socket", "pid-file", "log-file", "seed-file"]
            .map(|o| format!("--{o}={DIR}/munge/{}", o.trim_end_matches("-file")));
        self.daemon(Cmd::new("munged").args(["--foreground", "--force"]).args(munge))?;
        wait_for("munged", || {
            let there =
                self.host.run(&Cmd::new("test").args(["-S", &format!("{DIR}/munge/socket")]))?;
            Ok(there.exit.is_success().then_some(()))
        })?;
        self.daemon(Cmd::new("slurmctld").arg("-D"))?;
        self.daemon(Cmd::new("slurmd").args(["-D", "-N", "peer"]))?;
        wait_for("Slurm's node", || {
            let said = self.host.run(&configured(Cmd::new("sinfo").args(["-h", "-o", "%T"])))?;
            Ok(String::from_utf8_lossy(&said.stdout).contains("idle").then_some(()))
        })
    }

    fn configure(&self, more: &str) -> Result<()> {
        let conf = config(&self.host.address()?.to_string(), more);
        self.host.write_file(format!("{DIR}/slurm.conf"), conf.as_bytes(), 0o644)
    }

    fn figures(&self, options: &Options, say: Progress) -> Result<Figures> {
        let srun_ms = millis(&self.spawn((SRUN_RUNS, 3, 1), &["srun", "-Q", "-n1", "/bin/true"])?);
        say(&format!("srun /bin/true, ms: {srun_ms}"));
        let rates = (0..options.run.repetitions).map(|_| self.submissions());
        let submissions_per_s = Samples::new(rates.collect::<Result<_>>()?);
        say(&format!("sbatch, {} at once, /s: {submissions_per_s}", SBATCH_RUNS.1));
        self.configure(SCHEDULER)?;
        self.shell("scontrol reconfigure")?;
        let tasks = u32::try_from(options.peer_units).unwrap_or(u32::MAX);
        let sbatch = "sbatch -Q --parsable -n1 -o /dev/null";
        let array = format!("{sbatch} --array=1-{tasks} {DIR}/job.sh || exit 1\n{DRAIN}");
        let (mut rates, mut controller, mut daemon) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.run.repetitions {
            let took = self.spawn((1, 0, 1), &["bash", "-c", &array])?.total_ns;
            rates.push(f64::from(tasks) / seconds(took));
            controller.push(bytes_mb(daemon_peak(&self.host, "slurmctld")?));
            daemon.push(bytes_mb(daemon_peak(&self.host, "slurmd")?));
        }
        let array_per_s = Samples::new(rates);
        say(&format!("sbatch --array of {tasks} tasks, tasks/s: {array_per_s}"));
        let (controller_mb, daemon_mb) = (Samples::new(controller), Samples::new(daemon));
        Ok(Figures { srun_ms, array_per_s, submissions_per_s, controller_mb, daemon_mb })
    }

    /// Submissions per second of jobs that wait for one that runs on.
    fn submissions(&self) -> Result<f64> {
        let held = self.shell(&format!("sbatch --parsable -n1 -o /dev/null {DIR}/held.sh"))?;
        let after = format!("--dependency=afterok:{}", held.trim());
        let job = format!("{DIR}/job.sh");
        let argv = ["sbatch", "-Q", "--parsable", "-n1", "-o", "/dev/null", &after, &job];
        let timing = self.spawn((SBATCH_RUNS.0, 0, SBATCH_RUNS.1), &argv)?;
        self.shell(&format!("scancel -u root\n{DRAIN}"))?;
        Ok(per_second(&timing))
    }

    fn spawn(&self, runs: (usize, usize, usize), argv: &[&str]) -> Result<Timing> {
        let cmd = configured(spawning(Cmd::new(&self.program), runs, argv));
        timing(&self.host.run(&cmd)?.ok()?)
    }

    fn shell(&self, script: &str) -> Result<String> {
        self.host.run(&configured(Cmd::shell(script)))?.ok()
    }

    /// The error with what the daemons said last.
    fn explain(&self, error: &Error) -> Error {
        let logs = self.shell(&format!(
            "tail -n 5 {DIR}/*.log {DIR}/munge/log 2>&1; scontrol show node 2>&1; true"
        ));
        failed("Slurm", format!("{error}; {}", logs.unwrap_or_else(|e| e.to_string())))
    }

    /// Starts a daemon, which ends with the host.
    fn daemon(&self, cmd: Cmd) -> Result<()> {
        let mut process = self.host.spawn(&configured(cmd).stdio(Stdio::Log))?;
        match process.try_wait()? {
            None => Ok(()),
            Some(exit) => Err(failed("a daemon of Slurm", exit)),
        }
    }
}

/// Waits until no job is left; squeue is asked seldom enough to cost little.
const DRAIN: &str = "while squeue -h -o %i | grep -q .; do sleep 0.1; done";

fn configured(cmd: Cmd) -> Cmd {
    cmd.env("SLURM_CONF", format!("{DIR}/slurm.conf")).cwd("/tmp").limit(LIMIT)
}

/// Slots: with more than there are processors Slurm ends more tasks in a second.
const SLOTS: usize = 64;
/// With these Slurm ends more tasks of an array in a second, and takes fewer submissions.
const SCHEDULER: &str = "SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,\
                         default_queue_depth=10000\n";

/// Defaults, but for what a machine without accounting, cgroups and other hosts needs.
fn config(address: &str, more: &str) -> String {
    format!(
        "ClusterName=bench\nSlurmctldHost=peer({address})\nSlurmUser=root\nSlurmdUser=root\n\
         AuthType=auth/munge\nAuthInfo=socket={DIR}/munge/socket\nCredType=cred/munge\n\
         StateSaveLocation={DIR}/state\nSlurmdSpoolDir={DIR}/spool\n\
         SlurmctldPidFile={DIR}/ctld.pid\nSlurmdPidFile={DIR}/slurmd.pid\n\
         SlurmctldLogFile={DIR}/ctld.log\nSlurmdLogFile={DIR}/slurmd.log\n\
         ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nMpiDefault=none\n\
         SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\n\
         SlurmdParameters=config_overrides\nJobAcctGatherType=jobacct_gather/none\n\
         AccountingStorageType=accounting_storage/none\nJobCompType=jobcomp/none\n\
         ReturnToService=2\nMaxJobCount=50000\nMaxArraySize=20001\n\
         SlurmctldDebug=error\nSlurmdDebug=error\n\
         NodeName=peer NodeAddr={address} CPUs={SLOTS} RealMemory=2000 State=UNKNOWN\n\
         PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO\n\
         {more}"
    )
}
