//! `xos-bench`: how fast this version is on this machine, with peers beside it where installed.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use clap::{Args, Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use xos_base::{JobId, SiteId, VoId};
use xos_testbed::bench::{
    self, Figure, LoadArgs, LoginOptions, LoginPart, Machine, Options, Part, Progress, Run,
    SsiOptions, SsiPart, Timing, VoOptions, VoPart,
};

/// Benchmarks of XOS. They print figures; a figure that misses its reach is no failure.
#[derive(Parser)]
#[command(name = "xos-bench", version)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Jobs, credentials and memory, over a site with one node (needs root)
    Grid(GridArgs),
    /// Names, ssh, PAM, credentials and `xos login` (needs root)
    Login(LoginArgs),
    /// Rules, a VO of a million members, removal and the audit (needs root)
    Vo(VoArgs),
    /// Programs in a cluster: starts, moves, checkpoints, a build, a node killed (needs root)
    Ssi(SsiArgs),
    /// The part that runs inside a host
    #[command(subcommand, hide = true)]
    Within(Within),
}

// What all suites take.
#[derive(Args)]
struct Common {
    /// Write the figures as JSON into this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Make a folder for the run in this one; its disk holds all state
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    dir: PathBuf,
    /// Repetitions of what takes long
    #[arg(long, value_name = "N", default_value_t = 3)]
    repetitions: usize,
    /// Leave peers out
    #[arg(long)]
    no_peers: bool,
}

#[derive(Args)]
struct GridArgs {
    #[command(flatten)]
    common: Common,
    /// Units of the large job
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    units: usize,
    /// Units of a peer's large job
    #[arg(long, value_name = "N", default_value_t = 1000)]
    peer_units: usize,
    /// Only these parts
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<Part>,
}

#[derive(Args)]
struct LoginArgs {
    #[command(flatten)]
    common: Common,
    /// Only these parts
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<LoginPart>,
}

#[derive(Args)]
struct VoArgs {
    #[command(flatten)]
    common: Common,
    /// Only these parts
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<VoPart>,
}

#[derive(Args)]
struct SsiArgs {
    #[command(flatten)]
    common: Common,
    /// Only these parts
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<SsiPart>,
}

#[derive(Subcommand)]
enum Within {
    /// Start a program again and again
    Spawn {
        #[arg(long)]
        count: usize,
        #[arg(long, default_value_t = 0)]
        warm_up: usize,
        #[arg(long, default_value_t = 1)]
        at_once: usize,
        #[arg(last = true)]
        argv: Vec<String>,
    },
    /// Submit jobs that wait for another one
    Submit {
        #[command(flatten)]
        load: Load,
        #[arg(long)]
        after: JobId,
    },
    /// Renew certificates
    Issue {
        #[command(flatten)]
        load: Load,
    },
    /// Renew certificates, with an SSH certificate and a JWT beside each
    IssueSets {
        #[command(flatten)]
        load: Load,
    },
    /// A member's token for a site
    MemberToken {
        #[arg(long)]
        home: PathBuf,
        #[arg(long)]
        vo: VoId,
        #[arg(long)]
        audience: SiteId,
    },
    /// Write files of accounts for several modules of NSS
    WriteAccounts {
        #[arg(long)]
        users: u32,
    },
    /// Look those accounts up
    LookUp {
        #[arg(long)]
        users: u32,
        #[arg(long)]
        by_id: bool,
        /// By this module of NSS alone, not through glibc
        #[arg(long)]
        module: Option<String>,
    },
    /// Use a processor, and tell a sum now and then
    Hog {
        /// By which it is found
        #[arg(long)]
        label: String,
    },
    /// Hold memory, and tell now and then for how long it did not run
    Still {
        #[arg(long)]
        megabytes: usize,
        /// By which it is found
        #[arg(long)]
        label: String,
    },
    /// Start programs here and, in a cluster shell, on other nodes
    Starts {
        #[arg(long)]
        count: usize,
    },
    /// Write a program that takes long to build
    Sources {
        /// A new folder
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        files: usize,
    },
}

#[derive(Args)]
struct Load {
    #[arg(long)]
    home: PathBuf,
    #[arg(long)]
    vo: VoId,
    #[arg(long)]
    clients: usize,
    #[arg(long)]
    count: usize,
}

impl From<Load> for LoadArgs {
    fn from(l: Load) -> LoadArgs {
        LoadArgs { home: l.home, vo: l.vo, clients: l.clients, count: l.count }
    }
}

fn main() -> ExitCode {
    let result = match Cli::parse().action {
        Action::Grid(args) => grid(args),
        Action::Login(args) => login(args),
        Action::Vo(args) => vo(args),
        Action::Ssi(args) => ssi(args),
        Action::Within(what) => within(what),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xos-bench: {e}");
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn grid(args: GridArgs) -> Outcome {
    let (units, peer_units) = (args.units.max(1), args.peer_units.max(1));
    let parts = args.only;
    suite(args.common, |run, say| bench::grid(&Options { run, units, peer_units, parts }, say))
}

fn login(args: LoginArgs) -> Outcome {
    let parts = args.only;
    suite(args.common, |run, say| bench::login(&LoginOptions { run, parts }, say))
}

fn vo(args: VoArgs) -> Outcome {
    let parts = args.only;
    suite(args.common, |run, say| bench::vo(&VoOptions { run, parts }, say))
}

fn ssi(args: SsiArgs) -> Outcome {
    let parts = args.only;
    suite(args.common, |run, say| bench::ssi(&SsiOptions { run, parts }, say))
}

/// Runs a suite, and prints and keeps its figures.
fn suite(
    args: Common,
    measure: impl FnOnce(Run, Progress) -> xos_testbed::Result<Vec<Figure>>,
) -> Outcome {
    let begin = Instant::now();
    let mut say = |text: &str| eprintln!("  {:>6.1} s  {text}", begin.elapsed().as_secs_f64());
    let run = Run {
        program: std::env::current_exe()?.canonicalize()?,
        dir: args.dir,
        repetitions: args.repetitions.max(1),
        peers: !args.no_peers,
    };
    std::fs::create_dir_all(&run.dir)?;
    eprintln!("{}\n", Machine::look(&run.dir)?);
    if let Err(why) = bench::favor_moves() {
        eprintln!("This machine's kernel keeps its slow moves between control groups: {why}\n");
    }
    let figures = measure(run, &mut say)?;
    println!("\n{}", bench::table(&figures));
    if let Some(out) = args.out {
        if let Some(folder) = out.parent().filter(|p| *p != Path::new("")) {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&out, serde_json::to_vec_pretty(&figures)?)?;
        eprintln!("written to {}", out.display());
    }
    Ok(())
}

fn within(what: Within) -> Outcome {
    let timing: Timing = match what {
        Within::Spawn { count, warm_up, at_once, argv } => {
            bench::spawn(&argv, count, warm_up, at_once)?
        }
        // One thread: what the clients use, the core lacks.
        Within::Submit { load, after } => {
            runtime()?.block_on(bench::submit(&load.into(), &after))?
        }
        Within::Issue { load } => runtime()?.block_on(bench::issue(&load.into()))?,
        Within::IssueSets { load } => runtime()?.block_on(bench::issue_sets(&load.into()))?,
        Within::LookUp { users, by_id, module } => bench::look_up(users, by_id, module.as_deref())?,
        Within::MemberToken { home, vo, audience } => {
            println!("{}", runtime()?.block_on(bench::member_token(&home, vo, audience))?);
            return Ok(());
        }
        Within::WriteAccounts { users } => return Ok(bench::write_accounts(users)?),
        Within::Hog { label } => {
            let ended = bench::hog(&mut std::io::stdout().lock());
            return Ok(ended.map_err(|e| format!("{label}: {e}"))?);
        }
        Within::Still { megabytes, label } => {
            let ended = bench::still(megabytes, &mut std::io::stdout().lock());
            return Ok(ended.map_err(|e| format!("{label}: {e}"))?);
        }
        Within::Starts { count } => {
            println!("{}", serde_json::to_string(&bench::starts(count)?)?);
            return Ok(());
        }
        Within::Sources { folder, files } => return Ok(bench::sources(&folder, files)?),
    };
    println!("{}", serde_json::to_string(&timing)?);
    Ok(())
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
