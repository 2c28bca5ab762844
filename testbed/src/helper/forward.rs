use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::{Caller, leave_behind, tell, wait_for_hangup};
use crate::error::Context as _;
use crate::status::Message;
use crate::{Result, network, sys};

/// Most connections at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 512;
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// `testbed forward`: passes connections to the inherited listener on to `target` in the testbed.
///
/// # Errors
/// What the system refused; the caller has been told.
pub fn forward(caller: &Caller, listen_fd: RawFd, target: SocketAddr) -> Result<()> {
    let listener = sys::adopt(listen_fd).context(|| "taking over the listener".to_owned())?;
    caller.serve(|status, state| {
        state.cgroups.join_tools()?;
        // The listener stays in the machine's network; what is connected from here on is not.
        setns(network::switch(&state)?, CloneFlags::CLONE_NEWNET)
            .context(|| "entering the testbed's network".to_owned())?;
        if !leave_behind(status)? {
            return Ok(());
        }
        tell(status, &Message::Ready)?;
        serve(&TcpListener::from(listener), target)
    })
}

fn serve(listener: &TcpListener, target: SocketAddr) -> Result<()> {
    let what = || format!("forwarding to {target}");
    let fd: OwnedFd = listener.as_fd().try_clone_to_owned().context(what)?;
    // A client that goes away between the readiness and the accept must not hold us.
    listener.set_nonblocking(true).context(what)?;
    let open = Arc::new(AtomicUsize::new(0));
    while !wait_for_hangup(Some(&fd))? {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) if is_passing(&error) => continue,
            Err(error) => return Err(error).context(what),
        };
        if open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let open = Arc::clone(&open);
        let pass = move || {
            if let Err(error) = pass(client, target) {
                tracing::debug!(%target, %error, "connection ended");
            }
            open.fetch_sub(1, Ordering::Relaxed);
        };
        std::thread::Builder::new().spawn(pass).context(what)?;
    }
    Ok(())
}

/// Errors of accept(2) that belong to one connection.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | Interrupted | WouldBlock)
}

fn pass(client: TcpStream, target: SocketAddr) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let server = TcpStream::connect_timeout(&target, CONNECT_LIMIT)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_in, server_out) = (client.try_clone()?, server.try_clone()?);
    std::thread::scope(|scope| {
        let up = scope.spawn(move || copy(client_in, server_out));
        let down = copy(server, client);
        up.join().unwrap_or_else(|_| Err(io::Error::other("the copying thread died"))).and(down)
    })
}

/// Copies until the end, passes the end on.
fn copy(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    let copied = io::copy(&mut from, &mut to);
    match copied {
        Ok(_) => to.shutdown(Shutdown::Write),
        Err(error) => {
            // The connection is broken in one direction: end the other, too.
            let ends = [from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)];
            tracing::debug!(?ends, "both directions ended");
            Err(error)
        }
    }
}
