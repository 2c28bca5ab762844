//! `xosd`: starts the services that its configuration holds.

pub(crate) mod args;
mod clusters;
pub mod config;
mod core;
mod durable;
mod files;
mod join;
mod keys;
mod mount;
mod node;
mod notify;
mod osd;
mod setup;
mod trusted;
mod vault;

use args::{Args, Command};
use clap::Parser;
use config::{Config, Role};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use xos_base::Error;

/// The program: what `main` calls.
pub fn main() -> ExitCode {
    // Before anything else: shims and stagers stay small and have no threads.
    let mut raw = std::env::args_os().skip(1);
    match raw.next() {
        Some(first) if first == xos_node::shim::SHIM_ARG => return xos_node::shim::shim_main(raw),
        Some(first) if first == xos_node::stage::STAGE_ARG => {
            // What comes here was text in the job's description.
            let rest: Vec<String> = raw.map(|a| a.to_string_lossy().into_owned()).collect();
            return xos_node::stage::stage_main(&rest);
        }
        _ => {}
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) => return crate::cli::usage(&e),
    };
    log_to_stderr(args.json_log);
    let result = match args.command {
        Command::Run { config, cgroup } => {
            Config::read(&config).and_then(|c| block_on(run(c, cgroup)))
        }
        Command::Check { config } => check(&config),
        Command::Setup(setup) => block_on(setup::run(setup)),
        Command::Join(join) => block_on(join::run(join)),
        Command::Keys(keys) => keys::run(keys),
        Command::Mount { spec } => mount::run(&spec),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            report(&e);
            ExitCode::from(e.kind.exit_code())
        }
    }
}

#[allow(clippy::print_stderr)]
fn report(e: &Error) {
    eprintln!("xosd: {e}");
}

#[allow(clippy::print_stdout)]
fn say(line: &str) {
    println!("{line}");
}

fn check(path: &std::path::Path) -> Result<(), Error> {
    let config = Config::read(path)?;
    let role = match config.role()? {
        Role::Core => "a core",
        Role::Node => "a node",
    };
    say(&format!("{}: {role} of {}", path.display(), config.site.name));
    Ok(())
}

fn log_to_stderr(json: bool) {
    let filter = EnvFilter::try_from_env("XOS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        log.json().init();
    } else {
        log.with_ansi(false).init();
    }
}

fn block_on<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::internal(format!("cannot start: {e}")))?;
    runtime.block_on(work)
}

/// Runs the services until SIGTERM or SIGINT.
async fn run(config: Config, cgroup: Option<PathBuf>) -> Result<(), Error> {
    let stop = CancellationToken::new();
    let signals = tokio::spawn(stop_on_signal(stop.clone()));
    let result = match config.role()? {
        Role::Core => core::run(config, stop).await,
        Role::Node => node::run(config, cgroup, stop).await,
    };
    signals.abort();
    notify::stopping();
    result
}

async fn stop_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("cannot listen for signals: only SIGKILL ends this process");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("stopping");
    stop.cancel();
}
