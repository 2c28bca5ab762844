//! The agent: a host whose border is a socket to `xosd`.

use super::border::Border;
use super::looks::Looks;
use super::proto::Plan;
use super::shell::Shells;
use super::{SPOOLS_FOLDER, VIEWS_FILE, place};
use crate::cluster::members::Moves;
use crate::driver::absent::Absent;
use crate::driver::criu::Criu;
use crate::driver::why::Rules;
use crate::driver::{Checkpointer, Feature};
use crate::ghost::spool::{Bounds, Spools};
use crate::host::{Host, Setup};
use rustix::process::{Resource, Rlimit};
use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::unbounded_channel;
use xos_base::when::{Clock, SystemClock};

/// The program of the cell, beside this one.
const CELL_PROGRAM: &str = "xos-cell";
/// How often what is left of trees that are over is looked through.
const TIDY_EVERY: Duration = Duration::from_secs(3600);

/// Works until it is told to end; whether all went well.
pub(super) fn run(folder: &Path, plan: Plan, listener: UnixListener) -> bool {
    let filter = std::env::var("XOS_LOG").unwrap_or_else(|_| "info".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(work(folder, plan, listener)));
    if let Err(error) = &ended {
        tracing::error!(%error, "the agent ends");
    }
    ended.is_ok()
}

async fn work(folder: &Path, plan: Plan, listener: UnixListener) -> io::Result<()> {
    let times = plan.times()?;
    let (tell, told) = unbounded_channel();
    let spools = Arc::new(Spools::new(folder.join(SPOOLS_FOLDER)));
    let border = Arc::new(Border::new(&plan, times.dead(), spools.clone(), tell)?);
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    // At once: who connects is told by which plan this works.
    let listening = border.clone();
    thread("border").spawn(move || listening.listen(&listener))?;
    let cell_program = std::env::current_exe()?.with_file_name(CELL_PROGRAM);
    let criu = Criu::find(&plan.criu, &plan.path, folder.join("criu"));
    let driver: Arc<dyn Checkpointer> = match criu {
        Some(criu) => Arc::new(criu),
        None => Arc::new(Absent),
    };
    // Where there are none the canary says why.
    let abilities = driver.probe().await.ok();
    let filters_move = abilities.as_ref().is_some_and(|a| a.has(Feature::SeccompFilters));
    let registers = abilities.map(|a| a.registers).unwrap_or_default();
    let views = folder.join(VIEWS_FILE);
    let shells = Arc::new(Shells::new(border.clone(), plan.node, &views, &plan.place)?);
    let setup = Setup {
        folder: folder.to_owned(),
        node: plan.node,
        times,
        cell_program,
        driver,
        rules: Rules { shared: plan.shared.clone(), filters_move },
        limit: Duration::from_secs(plan.limit_s),
        direct: plan.direct,
        core: border.clone(),
        peers: border.clone(),
        spools,
        cgroup: Some(plan.cgroup.clone()),
        shells: Some(shells.clone()),
        clock: Arc::new(SystemClock),
    };
    let host = Host::begin(setup).await?;
    // The cell and the programs in it have the limit of before.
    more_descriptors();
    let moves = host.canary(plan.canary.clone()).await?;
    if let Moves::No { reason } = &moves {
        tracing::warn!(reason, "nothing moves from or to this node");
    }
    let hands = host.hands();
    let looks = Looks::begin(hands.clone(), &plan, moves, &registers)?;
    border.begun(looks, hands.clone());
    let (placing, spools) = (border.clone(), border.spools.clone());
    let (asked, shared) = (place::listen(&plan.place)?, plan.shared);
    thread("places").spawn(move || place::serve(&asked, &placing, &shared))?;
    thread("tidy").spawn(move || tidy(&spools))?;
    shells.listen(&views)?;
    host.run(told).await?;
    tracing::info!("the node leaves its cluster");
    tokio::task::spawn_blocking(move || hands.end()).await.map_err(io::Error::other)?
}

/// Each connection, stream and image takes some: as many as this process can have.
fn more_descriptors() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "the agent has few descriptors: some streams may have to wait");
    }
}

/// Removes output that nobody fetched, for ever.
fn tidy(spools: &Spools) {
    if let Err(error) = spools.count() {
        tracing::warn!(%error, "how much output each person has here is not known");
    }
    loop {
        // What runs elsewhere is heard again first.
        std::thread::sleep(TIDY_EVERY);
        if let Err(error) = spools.tidy(Bounds::default(), SystemClock.now()) {
            tracing::warn!(%error, "the output of programs that are over is not tidied");
        }
    }
}
