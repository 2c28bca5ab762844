//! A program of a cluster as if it ran here: its output, its input, its signals, its end.
//!
//! The ghost's loop waits in a thread of its own, and talks through a pair of sockets to this side,
//! which carries the bytes to the node that collects the program's output, and reaches it again
//! when that breaks or is another one meanwhile.

use super::run::status_of;
use crate::cli::credential::Credential;
use crate::cli::member::Member;
use crate::cli::output::{Failure, Outcome, clean};
use crate::cli::session::Session;
use std::convert::Infallible;
use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use xos_api::cluster::{ClusterTree, ClusterTreeState, GetTree, OUT_OF_MEMORY};
use xos_api::node::{AttachOpened, AttachOpening};
use xos_base::{ClusterId, Error, Kind, NodeId};
use xos_net::IdentityCell;
use xos_net::dial::{Dialer, OPEN_TIMEOUT};
use xos_net::frames::{self, OPENING_MAX};
use xos_net::nodes::Io;
use xos_net::tls::ALPN_CLUSTER;
use xos_ssi::cell::proto::{Exit, Tree};
use xos_ssi::ghost::proto::{Control, Message, encode};
use xos_ssi::ghost::{Connect, End, LOST_CODE, Manner, Signals, stand};

/// Between two tries to reach the node, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether the output is collected elsewhere meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often it is tried to reach what core or node do not know: they may not have heard of it yet.
const UNKNOWN_TRIES_MAX: u32 = 20;
/// How often it is tried to reach the output of what is over.
const OVER_TRIES_MAX: u32 = 5;

/// How often it is looked whether the core has heard that a program ended.
const END_LOOKS_MAX: u32 = 20;
/// The exit status of a shell whose program was killed.
const KILLED_CODE: u8 = 137;

/// What is followed.
pub(super) struct Followed {
    /// The cluster.
    pub(super) cluster: ClusterId,
    /// Its tree.
    pub(super) tree: u64,
    /// Its first process, once it began.
    pub(super) pid: Option<i32>,
    /// Where its output was collected last.
    pub(super) at: Option<NodeId>,
}

/// Follows a program to its end, or until the person leaves it.
pub(super) async fn follow(
    s: &Session,
    member: Member,
    what: Followed,
    manner: Manner,
    signals: Signals,
) -> Outcome {
    let (wants, mut wanted) = mpsc::unbounded_channel();
    let connect: Connect = Box::new(move || {
        let (near, far) = UnixStream::pair()?;
        wants.send(far).map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
        Ok(near)
    });
    let tree = Tree { id: what.tree, epoch: 0 };
    let (ends, ended) = oneshot::channel();
    let ghost = move || {
        let end = stand(connect, tree, manner, signals, Box::new(tell));
        // Who does not wait for it has ended.
        let _gone = ends.send(end);
    };
    let thread = std::thread::Builder::new().name("ghost".to_owned()).spawn(ghost);
    thread.map_err(|e| Error::internal(format!("cannot start a thread: {e}")))?;
    let mut line = Line { s, member, what, pause: RETRY_MIN, tries: 0, told: false };
    let lines = async {
        while let Some(socket) = wanted.recv().await {
            line.serve(socket).await;
        }
        // It ends now, and says how.
        std::future::pending::<Infallible>().await
    };
    let end = tokio::select! {
        end = ended => end,
        never = lines => match never {},
    };
    let end = end.map_err(|_| Error::internal("the program is followed no more"))?;
    let end = end.map_err(|e| Error::unavailable(format!("cannot go on here: {e}")))?;
    let killed = matches!(end, End::As(Exit::Signal(libc::SIGKILL) | Exit::Code(KILLED_CODE)));
    if killed && line.is_out_of_memory().await {
        s.out.note(&format!("Ended: {OUT_OF_MEMORY} (xos cluster run --memory)"))?;
    }
    finish(s, &line.what, end)
}

/// The exit status, and what the person is to know.
fn finish(s: &Session, what: &Followed, end: End) -> Outcome {
    let Followed { cluster, tree, .. } = what;
    let pid = what.pid.map_or_else(|| format!("tree {tree}"), |pid| pid.to_string());
    let again = format!("xos cluster attach {cluster} {tree}");
    match end {
        End::As(Exit::Code(code)) => return Ok(code),
        End::As(Exit::Signal(signal)) => return Ok(status_of(signal)),
        End::Closed => return Err(Failure::Closed),
        End::Lost(why) => {
            let lost = Error::unavailable(format!("{pid} is followed no more: {}", clean(&why)));
            s.out.warn(&lost.hint(format!("xos cluster ps {cluster} shows how it stands")))?;
        }
        End::Replaced => {
            s.out.note(&format!("{pid} is followed from elsewhere now. Here again: {again}"))?;
        }
        End::Left => s.out.note(&format!("{pid} goes on. Follow it again: {again}"))?,
    }
    Ok(LOST_CODE)
}

/// Says something while the terminal may be the program's.
fn tell(text: &str) {
    // Nobody is there to be told.
    let _closed = write!(io::stderr(), "\r\nxos: {}\r\n", clean(text));
}

/// The way to the node, again and again.
struct Line<'a> {
    s: &'a Session,
    member: Member,
    what: Followed,
    pause: Duration,
    /// Tries that failed since it was reached.
    tries: u32,
    told: bool,
}

/// Why the node was not reached.
struct Unreached {
    error: Error,
    /// The program is over: how it stands.
    over: Option<String>,
}

impl Line<'_> {
    /// Serves one connection of the ghost.
    async fn serve(&mut self, socket: UnixStream) {
        let socket = socket.set_nonblocking(true).map(|()| socket);
        let Ok(mut socket) = socket.and_then(tokio::net::UnixStream::from_std) else { return };
        match self.open().await {
            Ok((mut stream, at)) => {
                (self.pause, self.tries, self.told) = (RETRY_MIN, 0, false);
                let copied = tokio::io::copy_bidirectional(&mut stream, &mut socket);
                tokio::select! {
                    copied = copied => {
                        tracing::debug!(?copied, %at, "the connection to a program ended");
                    }
                    () = self.elsewhere(&at) => {}
                }
            }
            Err(unreached) => {
                self.tries += 1;
                match unreached.last_word(self.tries) {
                    Some(why) => give_up(&mut socket, why).await,
                    None => self.wait(&unreached.error).await,
                }
            }
        }
    }

    async fn wait(&mut self, error: &Error) {
        tracing::debug!(%error, "a program is not reached");
        if self.tries > 2 && !std::mem::replace(&mut self.told, true) {
            tell(&format!("{}; trying again (Ctrl-C twice leaves it)", error.message));
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(RETRY_MAX);
    }

    /// How the program stands.
    async fn look(&mut self) -> Result<ClusterTree, Error> {
        self.member.keep(self.s).await;
        let (cluster, tree) = (self.what.cluster.clone(), self.what.tree);
        self.member.call(self.s, GetTree { cluster, tree }).await
    }

    /// Whether a program that was killed had all the memory that it may. The core may hear of the
    /// end a moment after its output.
    async fn is_out_of_memory(&mut self) -> bool {
        for _ in 0..END_LOOKS_MAX {
            match self.look().await {
                Ok(tree) if tree.state == ClusterTreeState::Ended => {
                    return tree.reason == OUT_OF_MEMORY;
                }
                Ok(_) => tokio::time::sleep(RETRY_MIN).await,
                Err(_) => return false,
            }
        }
        false
    }

    /// Waits until the output is collected elsewhere.
    async fn elsewhere(&mut self, at: &NodeId) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match self.look().await {
                Ok(tree) if tree.output_at.as_ref().is_some_and(|now| now != at) => return,
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "how a program stands is not known"),
            }
        }
    }

    /// Reaches the node that collects the output.
    async fn open(&mut self) -> Result<(Box<dyn Io>, NodeId), Unreached> {
        let mut over = None;
        match self.look().await {
            Ok(tree) => {
                over = ended(&tree);
                self.what.at = tree.output_at.or(self.what.at.take());
            }
            // A core forgets what is over; the node may still have it. And the core may be away.
            Err(error) if self.what.at.is_none() || is_final(&error) => {
                return Err(Unreached { error, over });
            }
            Err(error) => tracing::debug!(%error, "how a program stands is not known"),
        }
        let Some(at) = self.what.at.clone() else {
            let error = Error::unavailable("where its output is collected is not known yet");
            return Err(Unreached { error, over });
        };
        match self.reach(&at).await {
            Ok(stream) => Ok((stream, at)),
            Err(error) => Err(Unreached { error, over }),
        }
    }

    /// A stream to a node; once more with a new certificate when the membership has changed.
    async fn reach(&mut self, at: &NodeId) -> Result<Box<dyn Io>, Error> {
        let (cluster, tree) = (self.what.cluster.clone(), self.what.tree);
        let opening = AttachOpening { cluster, tree };
        match dial(self.s, &self.member.credential, at, &opening).await {
            Err(e) => {
                let credential = self.s.changed(&self.member.credential, e).await?;
                self.member = self.s.member_by(credential, &self.member.site)?;
                dial(self.s, &self.member.credential, at, &opening).await
            }
            reached => reached,
        }
    }
}

impl Unreached {
    /// Why it is not tried again.
    fn last_word(&self, tries: u32) -> Option<String> {
        let text = self.error.to_string();
        match (&self.over, self.error.kind) {
            _ if is_final(&self.error) => Some(text),
            (Some(how), _) if tries >= OVER_TRIES_MAX => Some(format!("{how}; {text}")),
            (_, Kind::NotFound) if tries >= UNKNOWN_TRIES_MAX => Some(text),
            _ => None,
        }
    }
}

/// Whether another try would end the same.
fn is_final(e: &Error) -> bool {
    matches!(e.kind, Kind::Denied | Kind::Invalid | Kind::Unauthenticated | Kind::Unsupported)
}

/// How a program ended.
fn ended(tree: &ClusterTree) -> Option<String> {
    match tree.state {
        ClusterTreeState::Ended => Some(format!("it ended ({})", tree.reason)),
        ClusterTreeState::Lost => Some(format!("it is lost ({})", tree.reason)),
        _ => None,
    }
}

/// Has the ghost end.
async fn give_up(socket: &mut tokio::net::UnixStream, why: String) {
    let mut frame = Vec::new();
    if encode(&Message::Control(Control::Lost { why }), &mut frame).is_ok() {
        // A ghost that is gone has ended.
        let _gone = socket.write_all(&frame).await;
    }
}

async fn dial(
    s: &Session,
    credential: &Credential,
    node: &NodeId,
    opening: &AttachOpening,
) -> Result<Box<dyn Io>, Error> {
    let trust = s.knowing(&node.site())?.clone();
    let dialer = Dialer::new(trust, IdentityCell::new(credential.identity()?));
    let mut stream = dialer.node(node, ALPN_CLUSTER).await?;
    tokio::time::timeout(OPEN_TIMEOUT, greet(&mut stream, node, opening))
        .await
        .unwrap_or_else(|_| Err(Error::unavailable(format!("node {node} does not answer"))))?;
    Ok(stream)
}

async fn greet(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    node: &NodeId,
    opening: &AttachOpening,
) -> Result<(), Error> {
    frames::write(stream, opening).await?;
    match frames::read::<AttachOpened>(stream, OPENING_MAX).await? {
        Some(AttachOpened::Ok {}) => Ok(()),
        Some(AttachOpened::Error(e)) => Err(e),
        None => Err(Error::unavailable(format!("node {node} closed the connection"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, who may not see a program would wait for it for ever, or who waits for a node
    /// that is restarted would be sent away.
    #[test]
    fn what_may_come_right_is_tried_again() {
        let word = |error: Error, over: Option<&str>, tries| {
            Unreached { error, over: over.map(str::to_owned) }.last_word(tries)
        };
        assert!(word(Error::denied("it is not yours"), None, 1).is_some());
        assert!(word(Error::unavailable("no node"), None, 1_000).is_none());
        assert!(word(Error::not_found("no tree"), None, 1).is_none());
        assert!(word(Error::not_found("no tree"), None, UNKNOWN_TRIES_MAX).is_some());
        let over = word(Error::unavailable("no node"), Some("it ended (exit status 0)"), 5);
        assert!(over.is_some_and(|word| word.contains("exit status 0")));
    }

    /// If it failed, the person would be told "closed" instead of why.
    #[tokio::test]
    async fn what_the_node_says_is_told() {
        let opening = AttachOpening { cluster: "c1.rennes".parse().unwrap(), tree: 7 };
        let node = "n1.rennes".parse().unwrap();
        let refused = AttachOpened::Error(Error::denied("it is not yours"));
        for (said, want) in [
            (Some(AttachOpened::Ok {}), None),
            (Some(refused), Some(Kind::Denied)),
            (None, Some(Kind::Unavailable)),
        ] {
            let (mut ours, mut theirs) = tokio::io::duplex(4096);
            if let Some(said) = &said {
                frames::write(&mut theirs, said).await.unwrap();
            }
            theirs.shutdown().await.unwrap();
            let got = greet(&mut ours, &node, &opening).await;
            assert_eq!(got.err().map(|e| e.kind), want, "{said:?}");
        }
    }
}
