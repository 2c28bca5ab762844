//! Two sites that trust one another, a VO over both, and its people.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use xos_testbed::grid::{Grid, Person, Site, SiteSpec};
use xos_testbed::{Cmd, Host};

use crate::tool::{Json, Said, skipped};

/// The VO of every test.
pub const VO: &str = "demo.rennes";
/// Its volume on every node.
pub const VOLUME: &str = "/xtreemfs/demo.rennes";
/// Longest that [`soon`] waits.
const SOON_MAX: Duration = Duration::from_secs(60);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest that one command of a test may take.
pub const COMMAND_MAX: Duration = Duration::from_secs(90);
/// Lines of each log that a failed test shows.
const LOG_LINES_SHOWN: usize = 30;

/// Two cores of this machine carry one grid at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A running grid of the sites `rennes` and `pisa`, whose VO both serve.
pub struct World {
    /// Dropped before the folder.
    pub grid: Grid,
    pub rennes: Site,
    pub pisa: Site,
    /// Owner of the VO, of rennes.
    pub vera: Person,
    /// Member, of rennes.
    pub milo: Person,
    /// Member, of pisa.
    pub petra: Person,
    folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// Namespaces, a bridge, veth pairs and a FUSE device.
const PROBE: &str = "ip link add br0 type bridge && ip link add h1 type veth peer name h2 && \
                     exec 3<>/dev/fuse && openssl version";

/// Whether the machine can carry a grid; the reason is told when not ([`skipped`]).
fn able() -> bool {
    let probe = Command::new("unshare").args(["-mnpuiC", "--fork", "sh", "-c", PROBE]).output();
    let probe = probe.expect("unshare of util-linux");
    if !probe.status.success() {
        let said = String::from_utf8_lossy(&probe.stderr);
        skipped(&format!("needs root, namespaces, /dev/fuse and openssl: {}", said.trim()));
    }
    probe.status.success()
}

/// The machine for a grid of one's own; `None`, with the reason told, where it cannot carry one.
pub fn alone() -> Option<MutexGuard<'static, ()>> {
    able().then(|| ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The folder with the programs of the workspace.
pub fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_testbed")).parent().expect("a folder of programs")
}

impl World {
    /// A grid with two nodes at each site; `None`, with the reason printed, where the machine
    /// cannot carry one.
    pub fn new() -> Option<World> {
        World::with(&SiteSpec::new("rennes"), &SiteSpec::new("pisa"))
    }

    /// The same with sites as described.
    pub fn with(rennes: &SiteSpec, pisa: &SiteSpec) -> Option<World> {
        World::storing(rennes, pisa, &["rennes", "pisa"])
    }

    /// The same with files at the nodes of these sites only.
    pub fn storing(rennes: &SiteSpec, pisa: &SiteSpec, files_at: &[&str]) -> Option<World> {
        let alone = alone()?;
        let folder = tempfile::tempdir().unwrap();
        let grid = Grid::create(folder.path(), programs(), false).unwrap();
        let rennes = grid.add_site(rennes).unwrap();
        let pisa = grid.add_site(pisa).unwrap();
        rennes.exchange_trust(&pisa).unwrap();
        let vera = grid.enrol(&rennes, "vera").unwrap();
        let milo = grid.enrol(&rennes, "milo").unwrap();
        let petra = grid.enrol(&pisa, "petra").unwrap();
        let world = World { grid, rennes, pisa, vera, milo, petra, folder, _alone: alone };
        world.found_vo(files_at);
        Some(world)
    }

    fn found_vo(&self, files_at: &[&str]) {
        self.xos(&self.vera, &["vo", "found", "demo", "--title", "Tests"]).ok();
        self.admit(&self.milo);
        self.admit(&self.petra);
        for site in [&self.rennes, &self.pisa] {
            let offer = ["vo", "share", "offer", VO, "--cpus", "4", "--memory", "4G"];
            let stores = files_at.contains(&site.name.as_str());
            let storage: &[&str] = if stores { &["--storage", "8G"] } else { &[] };
            site.admin(&[offer.as_slice(), storage].concat()).unwrap();
            self.xos(&self.vera, &["vo", "share", "accept", VO, &site.name]).ok();
        }
        for person in [&self.vera, &self.milo, &self.petra] {
            self.sign_in(person);
        }
        self.wait_for_volume();
    }

    /// Makes `person`, who is signed in, a member of the VO.
    pub fn admit(&self, person: &Person) {
        self.xos(person, &["vo", "apply", VO, "-m", "let me in"]).ok();
        self.xos(&self.vera, &["vo", "approve", VO, &person.id()]).ok();
    }

    /// A part of a test; its name and duration are printed.
    pub fn step(&self, name: &str, part: impl FnOnce(&World)) {
        let start = Instant::now();
        println!("{name} ...");
        part(self);
        println!("{name}: {:.1} s", start.elapsed().as_secs_f64());
    }

    /// Waits until the volume is mounted on every node.
    pub fn wait_for_volume(&self) {
        for node in self.nodes() {
            soon(&format!("the volume on {}", node.name()), || {
                let mounts = sh(node, "cat /proc/mounts");
                mounts.contains(&format!(" {VOLUME} ")).then_some(())
            });
        }
    }

    /// All nodes, those of rennes first.
    pub fn nodes(&self) -> impl Iterator<Item = &Host> {
        self.rennes.nodes.iter().chain(&self.pisa.nodes)
    }

    /// Makes a person known at `site`, who signs in on the laptop.
    pub fn enrol(&self, site: &Site, name: &str) -> Person {
        self.grid.enrol(site, name).unwrap()
    }

    /// Signs a person in (again).
    pub fn sign_in(&self, person: &Person) {
        self.grid.sign_in(person).unwrap();
    }

    /// The token for their own site that a person has, who signed in lately.
    pub fn token(&self, person: &Person) -> String {
        let kept = format!("/home/{}/.xos/login.json", person.name);
        let kept: Json = serde_json::from_slice(&self.laptop().read_file(kept).unwrap()).unwrap();
        let tokens = kept["tokens"].as_array().expect("a list of tokens");
        let own = tokens.iter().find(|t| t["token"]["audience"] == person.site.as_str());
        let token = own.and_then(|t| t["token"]["token"].as_str());
        token.unwrap_or_else(|| panic!("{} has no token", person.id())).to_owned()
    }

    /// What `xos` says to `person` on the laptop.
    pub fn xos(&self, person: &Person, args: &[&str]) -> Said {
        self.run(person, "xos", args)
    }

    /// What `xsub` says to `person`, who names what follows the options after `--`.
    pub fn xsub(&self, person: &Person, args: &[&str]) -> Said {
        self.run(person, "xsub", args)
    }

    /// Any program on the laptop as `person`.
    pub fn run(&self, person: &Person, program: &str, args: &[&str]) -> Said {
        let cmd = person.command(program).args(args).limit(COMMAND_MAX);
        Said::of(&self.laptop(), &cmd, &format!("{program} {}", args.join(" ")))
    }

    /// The JSON that `xos --json` prints.
    pub fn json(&self, person: &Person, args: &[&str]) -> Json {
        self.xos(person, &[args, &["--json"]].concat()).json()
    }

    /// Submits a job that runs on; its id.
    pub fn start(&self, person: &Person, args: &[&str]) -> String {
        self.xsub(person, &[&["--detach"], args].concat()).ok().trim().to_owned()
    }

    /// The host from which people work.
    pub fn laptop(&self) -> Host {
        self.grid.laptop().unwrap()
    }

    /// Writes a file into a person's home on the laptop; its path.
    pub fn write(&self, person: &Person, name: &str, content: &str) -> String {
        let path = format!("/home/{}/{name}", person.name);
        self.laptop().write_file(&path, content.as_bytes(), 0o600).unwrap();
        path
    }
}

impl Drop for World {
    /// Shows what the daemons said last when the test fails.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        last_words(self.folder.path());
    }
}

/// Shows what the daemons of the testbed in `folder` said last.
pub fn last_words(folder: &Path) {
    let Ok(hosts) = std::fs::read_dir(folder.join("logs")) else { return };
    for log in hosts.flatten().map(|h| h.path().join("xosd.log")) {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        println!("--- {}\n{}", log.display(), last.join("\n"));
    }
}

/// The output of a script that must succeed.
pub fn sh(host: &Host, script: &str) -> String {
    let out = host.run(&Cmd::shell(script)).and_then(xos_testbed::Output::ok);
    out.unwrap_or_else(|e| panic!("{script}: {e}")).trim().to_owned()
}

/// Looks again and again until `test` answers something.
#[track_caller]
pub fn soon<T>(what: &str, test: impl FnMut() -> Option<T>) -> T {
    soon_within(SOON_MAX, what, test)
}

/// The same for what may take longer.
#[track_caller]
pub fn soon_within<T>(limit: Duration, what: &str, mut test: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = test() {
            return found;
        }
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(LOOK_EVERY);
    }
}
