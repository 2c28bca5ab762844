//! What people do with a program of a cluster: moving it, checkpoints, restarts, signals.

use super::program::{Named, Top, show_with};
use super::{COMMAND_SHOWN, ProcessRow};
use crate::command_line;
use crate::view::{Frame, page};
use crate::visit::{Shown, Stop, Visit, done};
use askama::Template;
use xos_api::cluster::{CheckpointTree, KillTree, MigrateTree, RestartTree};
use xos_base::{Error, Kind, NodeId};

/// Signals that a page offers, by their numbers on x86 and ARM (signal(7)), and what they do to a
/// program that is not prepared for them.
const SIGNALS: &[(u8, &str, &str)] = &[
    (15, "TERM", "asks it to end"),
    (9, "KILL", "ends it at once, so that it can save nothing"),
    (2, "INT", "ends it, as Ctrl-C does"),
    (1, "HUP", "ends it, or has it read its settings again"),
    (19, "STOP", "it stands still"),
    (18, "CONT", "it goes on after STOP"),
    (10, "USR1", "what the program makes of it"),
    (12, "USR2", "what the program makes of it"),
];

/// What was begun, told on the program's page; so is what the core says against it.
async fn begun<T>(
    visit: &Visit,
    named: &Named,
    result: Result<T, Stop>,
    notice: impl FnOnce(T) -> String,
) -> Shown {
    match result {
        Ok(reply) => done(visit, named.path(), notice(reply)),
        Err(Stop::Failed(e)) if amendable(&e) => show_with(visit, named, Some(e)).await,
        Err(stop) => Err(stop),
    }
}

/// Whether trying something else, or again, helps.
fn amendable(e: &Error) -> bool {
    matches!(e.kind, Kind::Conflict | Kind::Limited | Kind::Unsatisfiable | Kind::Unavailable)
}

/// Begins to move the program to the chosen node.
pub(crate) async fn migrate(visit: Visit) -> Shown {
    let node: NodeId = visit.form.id("node")?;
    let named = Named::of(&visit).await?;
    let ask =
        MigrateTree { cluster: named.cluster.clone(), pid: named.first()?, node: node.clone() };
    let moved = named.asker.call(&visit, ask).await;
    let notice = format!("The program goes to {node}. This page shows when it is there.");
    begun(&visit, &named, moved, |_| notice).await
}

/// Begins a checkpoint.
pub(crate) async fn checkpoint(visit: Visit) -> Shown {
    let named = Named::of(&visit).await?;
    let ask = CheckpointTree { cluster: named.cluster.clone(), pid: named.first()? };
    let saved = named.asker.call(&visit, ask).await;
    let notice = "A checkpoint is being made. This page shows when it is complete.".to_owned();
    begun(&visit, &named, saved, |_| notice).await
}

/// Begins to restart the program from its checkpoint: on a node, or on the least loaded one.
pub(crate) async fn restart(visit: Visit) -> Shown {
    let node = visit.form.id_if::<NodeId>("node")?;
    let named = Named::of(&visit).await?;
    let as_is = !visit.form.text("as_is").is_empty();
    let ask = RestartTree { cluster: named.cluster.clone(), tree: named.tree.tree, node, as_is };
    let restarted = named.asker.call(&visit, ask).await;
    begun(&visit, &named, restarted, |t| match t.to {
        Some(to) => format!("The program is being restarted on {to}."),
        None => "The program is being restarted.".to_owned(),
    })
    .await
}

#[derive(Template)]
#[template(path = "cluster_signal.html")]
struct Ask {
    frame: Frame,
    top: Top,
    path: String,
    tree: u64,
    command: String,
    /// The program's first process, beside which there may be others.
    pid: i32,
    others: Vec<ProcessRow>,
    signals: &'static [(u8, &'static str, &'static str)],
}

/// Asks which signal shall go to which process.
pub(crate) async fn ask_signal(visit: Visit) -> Shown {
    let named = Named::of(&visit).await?;
    let pid = named.first()?;
    let (mut others, ..) = named.processes(&visit).await?;
    others.retain(|p| p.pid != pid);
    page(&Ask {
        frame: named.frame(&visit, "A signal to program").await,
        top: Top::of(&visit, &named.whose).await?,
        path: named.path(),
        tree: named.tree.tree,
        command: command_line::typed(&named.tree.argv, COMMAND_SHOWN),
        pid,
        others,
        signals: SIGNALS,
    })
}

/// Sends it.
pub(crate) async fn signal(visit: Visit) -> Shown {
    let chosen = visit.form.number::<u8>("signal", "the signal")?;
    let known = SIGNALS.iter().find(|(number, ..)| Some(*number) == chosen);
    let (signal, name, _) = *known.ok_or_else(|| {
        Error::invalid("no signal was chosen").hint("choose one on the page before")
    })?;
    let named = Named::of(&visit).await?;
    let pid = visit.form.number("pid", "the process")?.unwrap_or(named.first()?);
    // What was chosen may have ended, and its number be another program's by now.
    if Some(pid) != named.tree.pid && !named.has(&visit, pid).await? {
        let e = Error::conflict(format!("process {pid} is none of this program any more"));
        return show_with(&visit, &named, Some(e.hint("its processes stand below"))).await;
    }
    let sent =
        named.asker.call(&visit, KillTree { cluster: named.cluster.clone(), pid, signal }).await;
    begun(&visit, &named, sent, |_| format!("Signal {name} was sent to process {pid}.")).await
}
