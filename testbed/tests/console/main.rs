//! The console in a real browser, against a real grid: needs root, namespaces and Chromium.
//!
//! Pictures of its pages are in `target/console` afterwards, in a folder for each test;
//! `XOS_BLESS=1` puts those that the documents show into `docs/images`.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

mod administer;
mod axe;
mod browser;
mod check;
mod crawl;
mod everybody;
mod joining;
mod keys;
mod passkeys;
mod scene;
mod service;
mod services;
#[path = "../../../console/tests/it/table.rs"]
mod table;
mod texts;
mod walk;
mod wire;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use browser::{Browser, CERTUTIL, CHROMIUM};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::TempDir;
use xos_testbed::grid::{Grid, PORT, Person, Site, SiteSpec};

/// The VO of the tests.
const VO: &str = "demo.rennes";
/// What programs of a service ask the core by.
const OPENSSL: &str = "/usr/bin/openssl";

/// Two cores of this machine carry one grid at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A site with a VO, its administrator, and somebody who is not in it yet.
struct World {
    /// The folder of its pictures.
    test: &'static str,
    // Dropped before the folder.
    grid: Grid,
    rennes: Site,
    vera: Person,
    milo: Person,
    /// `https://localhost:<port>`.
    origin: String,
    /// The file with the site's root certificate.
    root: PathBuf,
    _folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl World {
    /// A new one; `None`, with the reason told, where this machine cannot carry one.
    fn new(test: &'static str) -> Option<World> {
        if let Some(why) = obstacle() {
            // As of the grids' tests: `make test` says when nothing may be skipped.
            let must = std::env::var_os("XOS_NO_SKIP").is_some_and(|v| v == "1");
            assert!(!must, "not to be skipped: {why}");
            println!("skipped: {why}");
            return None;
        }
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let programs = Path::new(env!("CARGO_BIN_EXE_testbed")).parent().expect("a folder");
        let grid = Grid::create(&folder.path().join("grid"), programs, false).expect("a grid");
        // Chromium opens the console at localhost, the site is reached as rennes-core.
        let core_config = "\n[cda.passkeys]\nhost = \"localhost\"\n".to_owned();
        let spec = SiteSpec { nodes: 1, core_config, ..SiteSpec::new("rennes") };
        let rennes = grid.add_site(&spec);
        let rennes = rennes.expect("a site");
        let (vera, milo) = (person(&grid, &rennes, "vera"), person(&grid, &rennes, "milo"));
        found(&grid, &rennes, &vera);
        let root = folder.path().join("root.der");
        std::fs::write(&root, site_root(&grid, &vera)).expect("a file");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let forward = grid.testbed().forward(any, "rennes-core", PORT).expect("a way in");
        let origin = format!("https://localhost:{}", forward.port());
        Some(World { test, grid, rennes, vera, milo, origin, root, _folder: folder, _alone: alone })
    }
}

impl Drop for World {
    /// A failed test leaves what the grid's programs wrote beside the pictures.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let (from, to) = (self.grid.testbed().dir().join("logs"), check::album().join(self.test));
        let copy = || Command::new("cp").arg("-r").arg(from).arg(&to).status();
        match std::fs::create_dir_all(&to).and_then(|()| copy()) {
            Ok(status) if status.success() => println!("logs: {}", to.join("logs").display()),
            other => println!("the logs are lost: {other:?}"),
        }
    }
}

/// The site's administrator makes a person known.
fn person(grid: &Grid, site: &Site, name: &str) -> Person {
    let person = grid.purse().person(name, &site.name).expect("a person");
    let add = site.admin.command("xos").args(["person", "add", name, "--password-file", "-"]);
    let added = site.core.run(&add.stdin(person.password.as_bytes()));
    added.and_then(xos_testbed::Output::ok).expect("person add");
    person
}

/// Somebody signs in on the laptop, by the tool.
fn tool(grid: &Grid, site: &Site, person: &Person) {
    let core = format!("{}-core:{PORT}", site.name);
    let add = ["site", "add", &core, "--fingerprint", &site.fingerprint];
    grid.xos(person, &add).expect("site add");
    let login = person.command("xos").args(["login", &person.id(), "--password-file", "-"]);
    let login = login.stdin(person.password.as_bytes());
    let laptop = grid.laptop().expect("the laptop");
    laptop.run(&login).and_then(xos_testbed::Output::ok).expect("login");
}

/// `vera` founds the VO on the command line; the site gives it a share.
fn found(grid: &Grid, site: &Site, vera: &Person) {
    let xos = |args: &[&str]| grid.xos(vera, args).expect("xos");
    tool(grid, site, vera);
    xos(&["vo", "found", "demo", "--title", "The demonstration"]);
    let share = ["--cpus", "2", "--memory", "2G", "--storage", "1G"];
    site.admin(&[&["vo", "share", "offer", VO], share.as_slice()].concat()).expect("an offer");
    xos(&["vo", "share", "accept", VO, &site.name]);
}

/// The root that `xos` pinned by its fingerprint, in DER.
fn site_root(grid: &Grid, person: &Person) -> Vec<u8> {
    let path = format!("/home/{}/.xos/sites.json", person.name);
    let sites = grid.laptop().and_then(|l| l.read_file(path)).expect("the sites that xos knows");
    let sites: serde_json::Value = serde_json::from_slice(&sites).expect("JSON");
    let root = sites["sites"][0]["descriptor"]["root"].as_str().expect("a root");
    STANDARD.decode(root).expect("base64")
}

/// Why the test cannot run here.
fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".into());
    }
    let needed = [(CHROMIUM, "chromium"), (CERTUTIL, "libnss3-tools"), (OPENSSL, "openssl")];
    for (program, package) in needed {
        if !Path::new(program).exists() {
            return Some(format!("needs {program} of the Debian package {package}"));
        }
    }
    let probe = "ip link add br0 type bridge && ip link add h1 type veth peer name h2";
    let probe = Command::new("unshare").args(["-mnpuiC", "--fork", "sh", "-c", probe]).output();
    let probe = probe.expect("unshare of util-linux");
    let said = String::from_utf8_lossy(&probe.stderr).into_owned();
    (!probe.status.success()).then(|| format!("no namespaces here: {said}"))
}

/// A person applies, is admitted, works and is suspended; administrators set rules, see who runs
/// what and look after the site, all of it by the console. Wrong when it fails: a page, or a right behind it, in the way of what people do every day; or a page that
/// lets something out of or into the browser that it must not.
#[test]
fn people_use_the_console() {
    let Some(world) = World::new("walk") else { return };
    let stranger = Browser::start(None);
    walk::an_unknown_root_is_refused(&world, &stranger);
    walk::a_bad_page_is_noticed(&stranger);
    drop(stranger);
    let browser = Browser::start(Some(&world.root));
    walk::all(&world, &browser);
    administer::all(&world, &browser);
}

/// People let services, devices and machines act for them or do not, take it back, and come in
/// again by an administrator's code. Wrong when it fails: a browser that comes from elsewhere is
/// lost on the way, a person says yes to what they did not read, or their no is hard to reach or
/// does not count.
#[test]
fn people_decide_what_others_may() {
    let Some(world) = World::new("services") else { return };
    let browser = Browser::start(Some(&world.root));
    services::all(&world, &browser);
}

/// A VO is run from the browser, from its terms and questions to the end of a membership: people
/// come in by a link, the manager of a group fills it, memberships are extended and ended. Wrong
/// when it fails: a step of that has no page, a page does something else than it says, or somebody
/// gets further than the VO lets them.
#[test]
fn people_come_into_a_vo_and_leave_it() {
    let Some(world) = World::new("joining") else { return };
    let browser = Browser::start(Some(&world.root));
    joining::all(&world, &browser);
}

/// Everybody, from who has not signed in to the site's administrator, follows all links of the
/// console, among texts of which each would be a script. Wrong when it fails: a page that some
/// cannot use (a screen reader, keys alone, a phone), a page that no link leads to, a text that is
/// taken for something else, or a request that leaves the site.
#[test]
fn every_page_is_for_everybody() {
    let Some(axe) = axe::Axe::load() else { return };
    let Some(world) = World::new("everybody") else { return };
    let browser = Browser::start(Some(&world.root));
    crawl::a_bad_page_is_noticed(&axe, &browser.page("https://localhost:1", true));
    everybody::all(&world, &browser, axe);
}
