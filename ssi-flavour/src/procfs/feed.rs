//! How a view comes from the node's agent to the server of a merged `/proc`: a local socket, root's
//! alone at both ends.

use super::view::{View, Views};
use crate::cell::frame::Peer;
use crate::pids::NodeNumber;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most connections to [`serve`]: one for each shell.
pub const CONNECTIONS_MAX: usize = 256;
/// A view is asked for again when it is older.
const FRESH: Duration = Duration::from_secs(1);
/// A view that is older is not shown: the agent is gone.
const STALE: Duration = Duration::from_secs(10);
/// How long a reader of `/proc` waits for the agent.
const ANSWER_MAX: Duration = Duration::from_millis(300);

/// The only question.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    /// Whose view.
    uid: u32,
}

/// Answers the servers of merged `/proc`s until the socket fails. Waits: give it a thread. The
/// socket has to lie in a folder of root's.
///
/// # Errors
/// The listening socket's.
pub fn serve(listener: &UnixListener, views: &Arc<dyn Views>) -> io::Result<()> {
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {
                continue;
            }
            Err(e) => return Err(e),
        };
        let root = getsockopt(&socket, PeerCredentials).is_ok_and(|c| c.uid() == 0);
        if !root || connections.load(Ordering::SeqCst) >= CONNECTIONS_MAX {
            continue;
        }
        connections.fetch_add(1, Ordering::SeqCst);
        let (views, counted) = (views.clone(), connections.clone());
        let answering = move || {
            if let Err(error) = answer(socket, views.as_ref()) {
                tracing::debug!(%error, "the server of a merged /proc is not answered");
            }
            counted.fetch_sub(1, Ordering::SeqCst);
        };
        let begun = std::thread::Builder::new().name("proc-views".to_owned()).spawn(answering);
        if let Err(error) = begun {
            connections.fetch_sub(1, Ordering::SeqCst);
            tracing::warn!(%error, "no thread for the server of a merged /proc");
        }
    }
}

fn answer(socket: UnixStream, views: &dyn Views) -> io::Result<()> {
    let mut peer = Peer::new(socket);
    while peer.fill()? {
        while let Some(Ask { uid }) = peer.take()? {
            peer.send(&views.view(uid).bounded(), &[])?;
        }
    }
    Ok(())
}

/// The server's end.
#[derive(Debug)]
pub(super) struct Feed {
    socket: PathBuf,
    uid: u32,
    here: NodeNumber,
    state: Mutex<State>,
}

struct State {
    peer: Option<Peer>,
    view: Arc<View>,
    /// When that came.
    came: Option<Instant>,
    /// When it was asked for last.
    asked: Option<Instant>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("came", &self.came).finish_non_exhaustive()
    }
}

impl Feed {
    pub(super) fn new(socket: &Path, uid: u32, here: NodeNumber) -> Feed {
        let view = Arc::new(View::alone(here));
        let state = State { peer: None, view, came: None, asked: None };
        Feed { socket: socket.to_owned(), uid, here, state: Mutex::new(state) }
    }

    /// Whose view it is.
    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    /// The newest view, at most a second old; without an agent this node alone.
    pub(super) fn view(&self) -> Arc<View> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let within = |at: Option<Instant>, d| at.is_some_and(|at| now.duration_since(at) < d);
        // An agent that does not answer is not asked for each file.
        if within(state.asked, FRESH) {
            return state.view.clone();
        }
        let peer = state.peer.take();
        match self.ask(peer, now) {
            Ok((peer, view)) => {
                state.peer = Some(peer);
                state.view = Arc::new(view);
                state.came = Some(now);
            }
            Err(_) if within(state.came, STALE) => {}
            Err(_) => state.view = Arc::new(View::alone(self.here)),
        }
        state.asked = Some(Instant::now());
        state.view.clone()
    }

    fn ask(&self, peer: Option<Peer>, now: Instant) -> io::Result<(Peer, View)> {
        let mut peer = match peer {
            Some(peer) => peer,
            None => Peer::new(connect(&self.socket)?),
        };
        peer.send(&Ask { uid: self.uid }, &[])?;
        loop {
            if let Some(view) = peer.take::<View>()? {
                let view = view.bounded();
                let here = view.here == self.here;
                return if here { Ok((peer, view)) } else { Err(ErrorKind::InvalidData.into()) };
            }
            if now.elapsed() > ANSWER_MAX {
                return Err(ErrorKind::TimedOut.into());
            }
            if !peer.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Connects without waiting: an agent that hangs does not take connections, and would hold up all
/// who read `/proc`.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let socket = UnixStream::from(socket);
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    socket.set_write_timeout(Some(ANSWER_MAX))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Views for Fixed {
        fn view(&self, uid: u32) -> View {
            assert_eq!(uid, 7);
            let look = super::super::process::tests::look();
            let node = NodeNumber::try_from(3).unwrap();
            let here = NodeNumber::try_from(2).unwrap();
            let processes = vec![super::super::view::Seen { node, look }];
            View { processes, ..View::alone(here) }
        }
    }

    #[test]
    fn a_view_comes_from_an_agent_and_without_one_the_node_is_alone() {
        // wrong: a shell would show nothing of the cluster, or hang when its agent is away
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("views.sock");
        let here = NodeNumber::try_from(2).unwrap();
        assert_eq!(*Feed::new(&path, 7, here).view(), View::alone(here));
        let listener = UnixListener::bind(&path).unwrap();
        // nobody takes connections yet
        assert_eq!(*Feed::new(&path, 7, here).view(), View::alone(here));
        if !rustix::process::getuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let views: Arc<dyn Views> = Arc::new(Fixed);
        std::thread::spawn(move || serve(&listener, &views));
        let until = Instant::now() + Duration::from_secs(60);
        while Feed::new(&path, 7, here).view().processes.is_empty() {
            assert!(Instant::now() < until, "no view came");
            std::thread::yield_now();
        }
    }
}
