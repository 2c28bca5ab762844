//! `xos-demo`: a two-site grid on this machine, with an example that runs over both sites.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod cluster;

use clap::{Parser, Subcommand};
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use xos_testbed::grid::{Grid, PASSWORDS_DIR, PORT, Person, Site, SiteSpec, as_user};
use xos_testbed::{Error, Result, Testbed};

/// The VO of the demo.
const VO: &str = "demo.rennes";
/// In the demo's folder: runs commands on the laptop.
/// The scripts that act on the laptop, and as whom.
const WAYS_IN: [(&str, &str); 2] = [("laptop", "milo"), ("vera", "vera")];
/// Units of the example.
const UNITS: u32 = 16;
/// How long the example may take.
const EXAMPLE_LIMIT: Duration = Duration::from_secs(300);
/// How long all of it should take; when it was longer, that is said.
const READY_GOAL: Duration = Duration::from_secs(120);

/// A two-site grid on this machine.
#[derive(Parser)]
#[command(name = "xos-demo", version)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start the grid and run the example; what an earlier one left is removed first
    Start {
        /// The folder that holds everything
        #[arg(long, default_value = "target/demo")]
        dir: PathBuf,
        /// Start the grid only
        #[arg(long)]
        no_example: bool,
        /// Photons of each unit
        #[arg(long, default_value_t = 5_000_000)]
        photons: u64,
        /// Where this machine reaches the web console
        #[arg(long, default_value = "127.0.0.1:7443", value_name = "ADDRESS")]
        console: SocketAddr,
    },
    /// End the grid and remove what it made
    Stop {
        /// The folder that holds everything
        #[arg(long, default_value = "target/demo")]
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().action {
        Action::Start { dir, no_example, photons, console } => {
            start(&dir, (!no_example).then_some(photons), console)
        }
        Action::Stop { dir } => stop(&dir),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xos-demo: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what is done, and how long it took.
struct Steps {
    begin: Instant,
    last: Instant,
}

impl Steps {
    fn new() -> Steps {
        Steps { begin: Instant::now(), last: Instant::now() }
    }

    fn done(&mut self, what: &str) {
        println!("  {:>6.1} s  {what}", self.last.elapsed().as_secs_f64());
        self.last = Instant::now();
    }

    /// Says how long everything took, and when that was longer than it should be.
    fn all(&self) {
        let took = self.begin.elapsed();
        println!("Ready after {:.0} s.", took.as_secs_f64());
        if took > READY_GOAL {
            let goal = READY_GOAL.as_secs();
            println!("It should take {goal} s at most: this machine is slow, or busy with more.");
        }
        println!();
    }
}

fn start(dir: &Path, example: Option<u64>, console: SocketAddr) -> Result<()> {
    let programs = std::env::current_exe()
        .ok()
        .and_then(|p| p.parent().map(Path::to_owned))
        .unwrap_or_else(|| PathBuf::from("target/release"));
    println!("Starting a grid of two sites in {}", dir.display());
    let mut steps = Steps::new();
    let filled = Grid::create(dir, &programs, true)
        .and_then(|grid| fill(&grid, dir, &programs, example, console, &mut steps));
    if filled.is_err() {
        // Nobody could use half a grid; its logs stay.
        match Testbed::open(dir).and_then(Testbed::destroy).and_then(|()| remove_own(dir)) {
            Ok(()) => eprintln!("xos-demo: ended; logs: {}", dir.join("logs").display()),
            Err(Error::NoTestbed(_)) => {}
            Err(e) => eprintln!("xos-demo: part of the grid still runs (`make stop` ends it): {e}"),
        }
    }
    filled
}

/// Makes sites, people, VO and example in an empty grid, and says how to go on.
fn fill(
    grid: &Grid,
    dir: &Path,
    programs: &Path,
    example: Option<u64>,
    console: SocketAddr,
    steps: &mut Steps,
) -> Result<()> {
    // An earlier demo's console has ended by now. Looked at before minutes of work, not after.
    TcpListener::bind(console).map_err(|source| Error::PortTaken { address: console, source })?;
    steps.done("a network, and a laptop to work from");
    let login = Site::can_be_signed_in_to();
    let site = |name: &str, cluster: bool| {
        // So that su and sudo can be tried, which ask for a code.
        let login_config = "device = true\n".to_owned();
        grid.add_site(&SiteSpec { login, login_config, cluster, ..SiteSpec::new(name) })
    };
    let rennes = site("rennes", true)?;
    steps.done("site rennes: a core and two nodes");
    let pisa = site("pisa", false)?;
    steps.done("site pisa: a core and two nodes");
    rennes.exchange_trust(&pisa)?;
    steps.done("rennes and pisa trust one another");
    let (admin, member) = (grid.enrol_user(&rennes, "vera")?, grid.enrol_user(&rennes, "milo")?);
    steps.done("vera and milo signed in at rennes");
    found_vo(grid, &rennes, &pisa, &admin, &member)?;
    steps.done(&format!("VO {VO}: vera administers it, milo is a member, both sites serve it"));
    grid.testbed().forward(console, "rennes-core", PORT)?;
    let ways_in = [wrapper(dir, programs, WAYS_IN[0])?, wrapper(dir, programs, WAYS_IN[1])?];
    let mut clustered = false;
    if let Some(photons) = example {
        let folder = run_example(grid, &member, photons, steps)?;
        let here = cluster::Here { grid, site: &rennes, member: &member, login };
        clustered = cluster::show(&here, &folder, steps)?;
    }
    steps.all();
    println!("Console   https://localhost:{}   CA {}", console.port(), rennes.fingerprint);
    farewell(grid, &admin, &member, &ways_in, clustered);
    Ok(())
}

fn found_vo(
    grid: &Grid,
    rennes: &Site,
    pisa: &Site,
    admin: &Person,
    member: &Person,
) -> Result<()> {
    grid.xos(admin, &["vo", "found", "demo", "--title", "The demonstration"])?;
    grid.xos(member, &["vo", "apply", VO, "-m", "I make the pictures"])?;
    grid.sign_in(admin)?;
    grid.xos(admin, &["vo", "approve", VO, &member.id()])?;
    for site in [rennes, pisa] {
        let share = ["--cpus", "4", "--memory", "4G", "--storage", "8G"];
        site.admin(&[&["vo", "share", "offer", VO], share.as_slice()].concat())?;
        grid.xos(admin, &["vo", "share", "accept", VO, &site.name])?;
    }
    grid.sign_in(member)
}

/// What `xsub` prints when the member calls it on the laptop.
fn xsub(grid: &Grid, member: &Person, args: &[&str]) -> Result<String> {
    let cmd = member.command("xsub").args(args).limit(EXAMPLE_LIMIT);
    grid.laptop()?.run(&cmd)?.ok()
}

/// Runs the example's job; its folder on the volume.
fn run_example(grid: &Grid, member: &Person, photons: u64, steps: &mut Steps) -> Result<String> {
    let folder = format!("/xtreemfs/{VO}/spect");
    let phantom = format!("{folder}/body.spect");
    let xsub = |rest: &[&str]| xsub(grid, member, rest);
    xsub(&["--", "mkdir", "-p", &folder])?;
    let picture = format!("{folder}/body.png");
    xsub(&["--", "spect", "phantom", &phantom, "--png", &picture])?;
    steps.done("the phantom is on the volume");
    let job = include_str!("../../../../examples/spect/job.toml");
    let counted = format!("\"simulate\", \"--photons\", \"{photons}\"");
    let job = job.replacen("\"simulate\", ", &format!("{counted}, "), 1);
    grid.laptop()?.write_file("/home/milo/job.toml", job.as_bytes(), 0o644)?;
    xsub(&["--file", "/home/milo/job.toml"])?;
    steps.done(&format!("{UNITS} units over both sites, and one that merged them"));
    let sites = grid.xos(member, &["job", "list", "--all"])?;
    println!("{sites}");
    Ok(folder)
}

/// A script through which somebody at this machine works on the laptop as one of its people: in the
/// folder where they are, if the laptop sees it, else in that person's home. Some folders the
/// laptop has under the same name, with other things in them.
fn wrapper(dir: &Path, programs: &Path, (file, person): (&str, &str)) -> Result<PathBuf> {
    let path = dir.join(file);
    let fail = |source| Error::System { what: format!("write {}", path.display()), source };
    let dir = dir.canonicalize().map_err(fail)?;
    let text = format!(
        "#!/bin/sh\n# Runs a command on the demo's laptop as {person}: ./{file} xps\n\
         exec {programs}/testbed exec {dir} laptop -- env HOME=/home/{person} USER={person} \
         LOGNAME={person} XOS_HOME=/home/{person}/.xos PATH=/usr/local/bin:/usr/bin:/bin \
         setpriv {user} sh -c 'case \"$0\" in\n\
         /tmp|/tmp/*|/run|/run/*|/var/tmp|/var/tmp/*) cd ;;\n\
         *) cd \"$0\" 2>/dev/null || cd ;;\n\
         esac; exec \"$@\"' \"$PWD\" \"$@\"\n",
        programs = programs.display(),
        user = as_user(person).join(" "),
        dir = dir.display(),
    );
    fs::write(&path, text).map_err(fail)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(fail)?;
    Ok(path)
}

fn farewell(
    grid: &Grid,
    admin: &Person,
    member: &Person,
    [laptop, vera]: &[PathBuf; 2],
    clustered: bool,
) {
    let (laptop, vera) = (laptop.display(), vera.display());
    println!("          milo (a member) / {}", member.password);
    println!("          vera (administers {VO}) / {}", admin.password);
    println!("Folder    {}\n", grid.testbed().dir().display());
    println!("Try next:");
    if Site::can_be_signed_in_to() {
        println!("  {laptop} xos ssh n1.pisa -- ls -l vo/spect/slice.png");
    } else {
        println!("  {laptop} xps --all");
    }
    println!("  {laptop} xsub --array 0-7 -- sh -c 'echo unit $XOS_UNIT_INDEX on $XOS_NODE'");
    println!("  {laptop} xsub -- cat /xtreemfs/{VO}/spect/slice.png >slice.png");
    println!("  {vera} xos vo members {VO}");
    if clustered {
        let said = "echo I am $$ on $(hostname)";
        println!("  {laptop} xos cluster run {} -- sh -c '{said}'", cluster::CLUSTER);
    }
    println!("  make stop");
}

fn stop(dir: &Path) -> Result<()> {
    let ended = match Testbed::open(dir) {
        Ok(testbed) => testbed.destroy().map(|()| true)?,
        Err(Error::NoTestbed(_)) => Grid::end_lost(dir)?,
        Err(e) => return Err(e),
    };
    // After a start that failed, only logs are left.
    if !(Testbed::remove_logs(dir)? || ended) {
        println!("No grid runs here.");
        return Ok(());
    }
    remove_own(dir)?;
    let dir_text = dir.display();
    match fs::remove_dir(dir) {
        Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => {
            println!("The grid in {dir_text} has ended. Other files are there, which stay.");
        }
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(Error::System { what: format!("remove {dir_text}"), source: e });
        }
        _ => println!("The grid in {dir_text} has ended; nothing is left of it."),
    }
    Ok(())
}

/// Removes what a demo itself puts beside the testbed.
fn remove_own(dir: &Path) -> Result<()> {
    let gone = |path: PathBuf, removed: std::io::Result<()>| match removed {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(Error::System { what: format!("remove {}", path.display()), source })
        }
        _ => Ok(()),
    };
    let passwords = dir.join(PASSWORDS_DIR);
    let removed = fs::remove_dir_all(&passwords);
    gone(passwords, removed)?;
    for (file, _) in WAYS_IN {
        let way_in = dir.join(file);
        let removed = fs::remove_file(&way_in);
        gone(way_in, removed)?;
    }
    Ok(())
}
