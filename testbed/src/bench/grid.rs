//! The suite `grid`: jobs, credentials and memory, over one site with one node.

use super::Progress;
use super::figure::{Figure, Reach, number};
use super::machine::load;
use super::memory::{Watch, daemon_peak};
use super::peers::{openssl, slurm};
use super::samples::Samples;
use super::suite::{Run, Sheet, bytes_mb, even_start, millis, one, per_second, seconds};
use super::world::World;
use crate::Result;

/// Runs of one job that are timed, each from `xsub`'s start to its end.
const LATENCY_RUNS: usize = 100;
/// Runs before those.
const WARM_UP_RUNS: usize = 10;
/// Clients at once.
const CLIENTS: usize = 16;
/// Requests of all clients in one repetition: below the limit of open jobs of a member.
const REQUESTS: usize = 3200;
/// Runs of `xsub --detach`, and of `sbatch`, in one repetition.
const DETACHED_RUNS: usize = 320;

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// One job of one unit.
    Latency,
    /// One job of many units, and memory after it.
    Units,
    /// Submissions by many clients.
    Submissions,
    /// Certificates for many clients.
    Credentials,
}

/// What is measured, and how often.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where, and how often.
    pub run: Run,
    /// Units of the large job.
    pub units: usize,
    /// Units of a peer's large job, which may be slower.
    pub peer_units: usize,
    /// The parts to be measured; none: all.
    pub parts: Vec<Part>,
}

/// Runs the suite. What happens meanwhile goes to `say`, each measurement's extremes too.
///
/// # Errors
/// The first step that failed; the grid has ended then too.
pub fn run(options: &Options, say: Progress) -> Result<Vec<Figure>> {
    let wants = |part: Part| options.parts.is_empty() || options.parts.contains(&part);
    let slurm_too = [Part::Latency, Part::Units, Part::Submissions].map(wants).contains(&true);
    even_start()?;
    let slurm = if options.run.peers && slurm_too { slurm::measure(options, say)? } else { None };
    let openssl_too = options.run.peers && wants(Part::Credentials);
    even_start()?;
    let openssl = if openssl_too { openssl::measure(&options.run, REQUESTS, say)? } else { None };
    let mut suite = Suite { options, sheet: Sheet::new(&options.run, say) };
    even_start()?;
    let scratch = super::scratch(&options.run.dir)?;
    let world =
        World::start(&scratch.path().join("grid"), &options.run.program, false, suite.sheet.say)?;
    if wants(Part::Latency) {
        suite.latency(&world, slurm.as_ref())?;
    }
    if wants(Part::Units) {
        suite.units(&world, slurm.as_ref())?;
    }
    if wants(Part::Submissions) {
        suite.submissions(&world, slurm.as_ref())?;
    }
    if wants(Part::Credentials) {
        suite.credentials(&world, openssl.as_ref())?;
    }
    (suite.sheet.say)(&format!("load at the end {}", load()?));
    Ok(suite.sheet.figures)
}

struct Suite<'a, 'b> {
    options: &'a Options,
    sheet: Sheet<'b>,
}

impl Suite<'_, '_> {
    fn latency(&mut self, world: &World, slurm: Option<&slurm::Figures>) -> Result<()> {
        let runs = (LATENCY_RUNS, WARM_UP_RUNS, 1);
        let ours = millis(&world.spawn(runs, &["xsub", "--", "/bin/true"])?);
        let figure = Figure::new("one job of /bin/true, xsub's start to exit", &ours, "ms");
        let figure = figure.reach(Reach::AtMost(15.0));
        self.sheet.add(figure.beside("srun /bin/true", slurm.map(|s| &s.srun_ms)), &ours);
        let idle = millis(&world.spawn(runs, &["xos", "--version"])?);
        self.sheet.add(Figure::new("  of it: starting xos and nothing else", &idle, "ms"), &idle);
        let floor = millis(&world.spawn((1000, 100, 1), &["/bin/true"])?);
        self.sheet
            .add(Figure::new("  floor: fork, exec and wait of /bin/true", &floor, "ms"), &floor);
        Ok(())
    }

    fn units(&mut self, world: &World, slurm: Option<&slurm::Figures>) -> Result<()> {
        let units = self.options.units;
        let array = format!("0-{}", units.saturating_sub(1));
        let argv = ["xsub", "--array", &array, "--", "/bin/true"];
        let once = || Ok(world.spawn((1, 0, 1), &argv)?.total_ns);
        // The memory belongs to the first such job: the next ones are kept beside it. Watching
        // costs time, so that this one is not timed.
        let watch = Watch::start(world.site.nodes[0].clone());
        let first = once();
        let others = watch.end()?;
        first?;
        let core = daemon_peak(&world.site.core, "xosd")?;
        let node = daemon_peak(&world.site.nodes[0], "xosd")?;
        let took = self.sheet.repeat(|| Ok(seconds(once()?)))?;
        let count = |n: usize| u32::try_from(n).map_or(f64::INFINITY, f64::from);
        let rate = took.map(|s| count(units) / s);
        let name = format!("one job of {units} units of /bin/true on one node");
        let figure = Figure::new(name, &rate, "units/s").reach(Reach::AtLeast(1000.0));
        let peer = format!("sbatch --array, {} tasks", self.options.peer_units);
        self.sheet.add(figure.beside(&peer, slurm.map(|s| &s.array_per_s)), &rate);
        let each = took.map(|s| s * 1e3 / count(units));
        self.sheet.add(Figure::new("  time per unit", &each, "ms"), &each);
        self.memory((core, node, others), slurm);
        Ok(())
    }

    fn memory(&mut self, bytes: (u64, u64, u64), slurm: Option<&slurm::Figures>) {
        let (core, daemon, others) = bytes;
        let mb = |bytes: u64| bytes_mb(bytes);
        (self.sheet.say)(&format!(
            "memory: core {}, node's xosd {}, its shims and mounts at most {} MB",
            number(mb(core)),
            number(mb(daemon)),
            number(mb(others))
        ));
        let units = self.options.units;
        let (core, node) = (one(mb(core)), one(mb(daemon + others)));
        let figure = Figure::new(format!("memory of the core, {units} units ended"), &core, "MB");
        let figure = figure.reach(Reach::AtMost(150.0));
        self.sheet.add(figure.beside("slurmctld", slurm.map(|s| &s.controller_mb)), &core);
        let name = format!("memory of the node with its shims, {units} units ended");
        let figure = Figure::new(name, &node, "MB").reach(Reach::AtMost(60.0));
        self.sheet.add(figure.beside("slurmd", slurm.map(|s| &s.daemon_mb)), &node);
    }

    fn submissions(&mut self, world: &World, slurm: Option<&slurm::Figures>) -> Result<()> {
        let ours = self.sheet.repeat(|| {
            let held = world.hold()?;
            let timing = world.load("submit", (CLIENTS, REQUESTS), &["--after", &held])?;
            world.release(&held)?;
            Ok(per_second(&timing))
        })?;
        let peer = format!("sbatch, {CLIENTS} at once");
        let peer_value = slurm.map(|s| &s.submissions_per_s);
        let name = format!("acknowledged submissions, {CLIENTS} API clients");
        let figure = Figure::new(name, &ours, "/s").reach(Reach::AtLeast(1000.0));
        self.sheet.add(figure.beside(&peer, peer_value), &ours);
        let tool = self.sheet.repeat(|| {
            let held = world.hold()?;
            let argv = ["xsub", "--detach", "--after", &held, "--", "/bin/true"];
            let timing = world.spawn((DETACHED_RUNS, 0, CLIENTS), &argv)?;
            world.release(&held)?;
            Ok(per_second(&timing))
        })?;
        let name = format!("  the same by xsub --detach, {CLIENTS} at once");
        self.sheet.add(Figure::new(name, &tool, "/s").beside(&peer, peer_value), &tool);
        Ok(())
    }

    fn credentials(&mut self, world: &World, openssl: Option<&Samples>) -> Result<()> {
        let ours = self
            .sheet
            .repeat(|| Ok(per_second(&world.load("issue", (CLIENTS, REQUESTS), &[])?)))?;
        let name = format!("certificates renewed, {CLIENTS} API clients");
        let figure = Figure::new(name, &ours, "/s").reach(Reach::AtLeast(1000.0));
        self.sheet.add(figure.beside("openssl ca, one batch of files", openssl), &ours);
        Ok(())
    }
}
