//! The side of `xosd`: agents that begin and end.

use super::client::{Begun, Client};
use super::proto::{Ask, Plan, Tell};
use super::way::split;
use super::{PLAN_FILE, SOCKET_FILE, holder};
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long an agent may take to say by which plan it works.
const FIRST_MAX: Duration = Duration::from_secs(60);
/// How long an agent and its programs may take to end, until it is killed.
const END_MAX: Duration = Duration::from_secs(60);

/// Connects to the agent of a folder. One that works by other times, or as another node, or does
/// not say by which, is ended first, and all that it runs with it; if none runs, one is started.
/// Waits.
///
/// # Errors
/// Those of the socket; why the agent could not be ended, or not be started.
pub fn begin(program: &Path, folder: &Path, plan: &Plan) -> io::Result<Begun> {
    match UnixStream::connect(folder.join(SOCKET_FILE)) {
        Ok(socket) => match meet(socket, plan)? {
            Some(begun) => return Ok(begun),
            None => stop(folder)?,
        },
        // Without its socket it cannot be reached any more.
        Err(e) if is_gone(&e) => stop(folder)?,
        Err(e) => return Err(e),
    }
    launch(program, folder, plan)?;
    let begun = meet(UnixStream::connect(folder.join(SOCKET_FILE))?, plan)?;
    begun.ok_or_else(|| {
        io::Error::other(
            "the agent that was started does not answer as this xosd expects: see the \
             log; xosd and xos-agent must be of one version",
        )
    })
}

fn is_gone(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

/// Takes up a connection; `None`: the agent is not one that works by this plan.
fn meet(socket: UnixStream, plan: &Plan) -> io::Result<Option<Begun>> {
    let (out, mut from) = split(socket)?;
    match from.next(Tell::fds, Some(Instant::now() + FIRST_MAX)) {
        Ok(Some((Tell::Begun { plan: theirs }, _))) if plan.agrees(&theirs) => {}
        Ok(Some(_)) => {
            tracing::warn!("the agent of the cluster works by other times: it is begun anew");
            return Ok(None);
        }
        Ok(None) => return Ok(None),
        Err(error) => {
            tracing::warn!(%error, "the agent of the cluster does not answer: it is begun anew");
            return Ok(None);
        }
    }
    Client::over(out, from).map(Some)
}

/// Starts the agent of a folder, which is made.
fn launch(program: &Path, folder: &Path, plan: &Plan) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    crate::disk::replace(&folder.join(PLAN_FILE), &serde_json::to_vec(plan)?)?;
    // What the agent says goes on where that of xosd goes.
    let mut command = Command::new(program);
    command.arg(folder).stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("the cluster's agent cannot be started ({status}): see the log")))
}

/// Ends the agent of a folder and all that it runs, if one lives; what it kept stays.
fn stop(folder: &Path) -> io::Result<()> {
    match UnixStream::connect(folder.join(SOCKET_FILE)) {
        Ok(socket) => {
            let (out, _from) = split(socket)?;
            out.send(&Ask::End, &[])?;
            if !holder::is_gone(folder, END_MAX)? {
                tracing::warn!("the agent of the cluster does not end");
            }
        }
        Err(e) if is_gone(&e) => {}
        Err(e) => return Err(e),
    }
    kill(folder)
}

/// Kills the agent of a folder, if one lives, and ends all that it runs; what it kept stays. For
/// one that hangs. Waits.
///
/// # Errors
/// That it does not end.
pub fn kill(folder: &Path) -> io::Result<()> {
    holder::kill(folder)?;
    // One that died left its cell.
    crate::host::end_cell(folder)
}

/// Ends the agent of a folder and all that it runs, if one lives, and then removes the folder.
/// Waits.
///
/// # Errors
/// That it does not end, or the folder not go.
pub fn end(folder: &Path) -> io::Result<()> {
    stop(folder)?;
    std::fs::remove_dir_all(folder)
}

#[cfg(test)]
mod tests {
    use super::super::client::PINGS_MISSED_MAX;
    use super::super::testing::plan;
    use super::super::way::{In, Out};
    use super::*;

    /// A connection to an agent that is played, which works by a plan with this time to death.
    fn agent(dead_ms: u64) -> (UnixStream, Out, In) {
        let (socket, theirs) = UnixStream::pair().unwrap();
        let (out, from) = split(theirs).unwrap();
        let plan = serde_json::to_value(plan(dead_ms)).unwrap();
        out.send(&Tell::Begun { plan }, &[]).unwrap();
        (socket, out, from)
    }

    #[test]
    fn an_agent_that_works_by_other_times_is_not_met() {
        // wrong: after a change of the times a node would run its copies for longer than the core
        // waits, and two of them live
        let (socket, _out, _from) = agent(60_000);
        assert!(meet(socket, &plan(8000)).unwrap().is_none());
        let (socket, _out, _from) = agent(8000);
        assert!(meet(socket, &plan(8000)).unwrap().is_some());
        let (socket, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(meet(socket, &plan(8000)).unwrap().is_none(), "it ends");
    }

    #[test]
    fn what_was_said_last_is_sent() {
        // wrong: a node that is taken out of its cluster would run its programs on
        let (socket, _out, mut from) = agent(8000);
        let (client, _wanted) = meet(socket, &plan(8000)).unwrap().unwrap();
        client.end().unwrap();
        drop(client);
        let (ask, _) = from.next(Ask::fds, None).unwrap().unwrap();
        assert!(matches!(ask, Ask::End));
        assert!(from.next(Ask::fds, None).unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_answers_nothing_is_noticed() {
        // wrong: a node whose agent hangs would be out of its cluster until somebody looks
        let (socket, _out, mut from) = agent(8000);
        let (client, _wanted) = meet(socket, &plan(8000)).unwrap().unwrap();
        client.hangs().await;
        for _ in 0..PINGS_MISSED_MAX {
            let (ask, _) = from.next(Ask::fds, None).unwrap().unwrap();
            assert!(matches!(ask, Ask::Ping { .. }));
        }
    }
}
