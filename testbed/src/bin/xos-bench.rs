//! `xos-bench`: how fast this version is on this machine, with peers beside it where installed.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use clap::{Args, Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use xos_base::{JobId, VoId};
use xos_testbed::bench::{self, LoadArgs, Machine, Options, Part, Timing};

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
    /// The part that runs inside a host
    #[command(subcommand, hide = true)]
    Within(Within),
}

#[derive(Args)]
struct GridArgs {
    /// Write the figures as JSON into this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Make a folder for the run in this one; its disk holds all state
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    dir: PathBuf,
    /// Repetitions of what takes long
    #[arg(long, value_name = "N", default_value_t = 3)]
    repetitions: usize,
    /// Units of the large job
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    units: usize,
    /// Units of a peer's large job
    #[arg(long, value_name = "N", default_value_t = 1000)]
    peer_units: usize,
    /// Only these parts
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<Part>,
    /// Leave peers out
    #[arg(long)]
    no_peers: bool,
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
    let begin = Instant::now();
    let mut say = |text: &str| eprintln!("  {:>6.1} s  {text}", begin.elapsed().as_secs_f64());
    let options = Options {
        program: std::env::current_exe()?.canonicalize()?,
        dir: args.dir,
        repetitions: args.repetitions.max(1),
        units: args.units.max(1),
        peer_units: args.peer_units.max(1),
        peers: !args.no_peers,
        parts: args.only,
    };
    std::fs::create_dir_all(&options.dir)?;
    eprintln!("{}\n", Machine::look(&options.dir)?);
    let figures = bench::grid(&options, &mut say)?;
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
    };
    println!("{}", serde_json::to_string(&timing)?);
    Ok(())
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
