//! The grid that is measured: one site, a VO, and a person on the laptop.

use super::machine::processors;
use super::within::Timing;
use super::{Progress, failed};
use crate::grid::{Grid, Person, Site, SiteSpec};
use crate::{Cmd, Error, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The site.
pub(super) const SITE: &str = "rennes";
/// The VO.
pub(super) const VO: &str = "bench.rennes";
/// Longest that one measurement may take.
const LIMIT: Duration = Duration::from_secs(600);
/// How often to look whether jobs have ended.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A running grid.
pub(super) struct World {
    pub(super) grid: Grid,
    pub(super) site: Site,
    pub(super) person: Person,
    /// The program that is running: it is also the part within hosts.
    program: PathBuf,
}

impl World {
    /// Starts the grid in `dir`; it ends with this value. The node offers the machine's processors;
    /// with `login` people may sign in to it.
    pub(super) fn start(dir: &Path, program: &Path, login: bool, say: Progress) -> Result<World> {
        let cpu_milli = u32::try_from(processors() * 1000).unwrap_or(u32::MAX);
        let spec = SiteSpec { nodes: 1, cpu_milli, login, ..SiteSpec::new(SITE) };
        World::with(dir, program, &spec, say)
    }

    /// The same with another site, which is called [`SITE`].
    pub(super) fn with(
        dir: &Path,
        program: &Path,
        spec: &SiteSpec,
        say: Progress,
    ) -> Result<World> {
        let programs = program.parent().unwrap_or(Path::new("."));
        let grid = Grid::create(dir, programs, false)?;
        let site = grid.add_site(spec)?;
        let person = grid.enrol(&site, "milo")?;
        let world = World { grid, site, person, program: program.to_owned() };
        world.found()?;
        let count = world.site.nodes.len();
        let nodes = if count == 1 { "one node".to_owned() } else { format!("{count} nodes") };
        say(&format!("a site with {nodes} runs, and a person is signed in"));
        Ok(world)
    }

    fn found(&self) -> Result<()> {
        let (label, _) = VO.split_once('.').unwrap_or((VO, SITE));
        self.xos(&["vo", "found", label, "--title", "Benchmark"])?;
        let share = ["--cpus", "1024", "--memory", "64G", "--storage", "8G"];
        self.site.admin(&[&["vo", "share", "offer", VO], share.as_slice()].concat())?;
        self.grid.sign_in(&self.person)?;
        self.xos(&["vo", "share", "accept", VO, SITE])?;
        self.grid.sign_in(&self.person)?;
        // The first job also waits until the node has the VO's accounts and volume.
        self.xos(&["job", "submit", "--", "/bin/true"]).map(drop)
    }

    /// Runs the tool on the laptop.
    pub(super) fn xos(&self, args: &[&str]) -> Result<String> {
        self.grid.xos(&self.person, args)
    }

    /// Starts `argv` as the person on the laptop, as [`super::spawn`] does.
    pub(super) fn spawn(&self, runs: (usize, usize, usize), argv: &[&str]) -> Result<Timing> {
        let cmd = spawning(self.program_as_person(), runs, argv);
        timing(&self.grid.laptop()?.run(&cmd)?.ok()?)
    }

    /// Starts `argv` as root on the node, as [`super::spawn`] does.
    pub(super) fn spawn_on_node(
        &self,
        runs: (usize, usize, usize),
        argv: &[&str],
    ) -> Result<Timing> {
        let cmd = spawning(Cmd::new(&self.program), runs, argv);
        timing(&self.site.nodes[0].run(&cmd)?.ok()?)
    }

    /// This program on the laptop.
    fn program_as_person(&self) -> Cmd {
        self.person.command(&self.program.display().to_string())
    }

    /// Puts load on the core's API, as `what` says.
    pub(super) fn load(
        &self,
        what: &str,
        (clients, count): (usize, usize),
        more: &[&str],
    ) -> Result<Timing> {
        let home = format!("/home/{}/.xos", self.person.name);
        let (clients, count) = (clients.to_string(), count.to_string());
        let args = ["--home", &home, "--vo", VO, "--clients", &clients, "--count", &count];
        let cmd = self.program_as_person().args(["within", what]).args(args).args(more);
        timing(&self.grid.laptop()?.run(&cmd.limit(LIMIT))?.ok()?)
    }

    /// Submits a job that runs until it is cancelled; its id.
    pub(super) fn hold(&self) -> Result<String> {
        let id = self.xos(&["job", "submit", "--detach", "--", "sleep", "3600"])?;
        let id = id.split_whitespace().find(|w| w.ends_with(&format!(".{SITE}")));
        id.map(str::to_owned).ok_or_else(|| failed("xos job submit --detach", "it printed no id"))
    }

    /// Cancels that job, with all that wait for it, and waits until no job is open.
    pub(super) fn release(&self, job: &str) -> Result<()> {
        self.xos(&["job", "cancel", job])?;
        let begin = Instant::now();
        while self.xos(&["job", "list", "--open"])?.contains(&format!(".{SITE}")) {
            if begin.elapsed() > LIMIT {
                let what = "the end of all jobs".to_owned();
                return Err(Error::Deadline { what, limit: LIMIT });
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

/// `program`, which is this one, with what makes it start `argv` again and again.
pub(super) fn spawning(
    program: Cmd,
    (count, warm_up, at_once): (usize, usize, usize),
    argv: &[&str],
) -> Cmd {
    let numbers = [count, warm_up, at_once].map(|n| n.to_string());
    let options = ["--count", &numbers[0], "--warm-up", &numbers[1], "--at-once", &numbers[2]];
    program.args(["within", "spawn"]).args(options).arg("--").args(argv).limit(LIMIT)
}

/// What the part within a host answered.
pub(super) fn timing(json: &str) -> Result<Timing> {
    serde_json::from_str(json).map_err(|e| failed("xos-bench within a host", e))
}
