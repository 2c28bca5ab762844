//! `xosd mount`: one mounted volume, in a process of its own.

use super::node::read_identity;
use super::{block_on, osd, say};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::signal::unix::{SignalKind, signal};
use xos_base::accounts::OWN_ID;
use xos_base::when::{Clock, SystemClock};
use xos_base::{Error, MemberNumber, Millis, NodeId, SiteId, VoId};
use xos_net::dial::Dialer;
use xos_net::tls::ALPN_XTREEMFS;
use xos_node::agent::{FLUSH_WITHIN, MountSpec, TicketReply, TicketRequest};
use xtreemfs_client::{Client, Connector, Member, NoTicket, Peer, Stream, Ticket, Tickets};
use xtreemfs_mount::{Block, Mapping, UidMap};

/// The address of DIR and MRC of a site: its core.
pub fn core_address(site: &SiteId) -> String {
    format!("core/{site}")
}

/// How long the node's `xosd` may take to answer for a ticket.
const TICKET_TIMEOUT: Duration = Duration::from_secs(5);
/// A ticket is asked for again when so much of its life, or less, is left.
const RENEW_BEFORE: Duration = Duration::from_secs(120);
/// How long it is believed that a person has no ticket.
const NONE_FOR: Duration = Duration::from_secs(1);
/// How often to look whether the mount is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Mounts what the file `spec` says and serves it until it is unmounted or told to stop.
///
/// # Errors
/// Why it cannot be mounted.
pub fn run(spec: &Path) -> Result<(), Error> {
    let text = std::fs::read_to_string(spec)
        .map_err(|e| Error::invalid(format!("cannot read {}: {e}", spec.display())))?;
    let spec: MountSpec = serde_json::from_str(&text)
        .map_err(|e| Error::invalid(format!("{}: {e}", spec.display())))?;
    block_on(serve(spec))
}

async fn serve(spec: MountSpec) -> Result<(), Error> {
    let fail = |e: &dyn std::fmt::Display| {
        Error::unavailable(format!("cannot mount the volume of {}: {e}", spec.vo))
    };
    let config = xtreemfs_client::Config::new(core_address(&spec.home));
    let connector = Arc::new(GridConnector { folder: spec.folder.clone() });
    let tickets = Arc::new(NodeTickets::new(spec.vo.clone(), spec.tickets.clone()));
    let client = Client::new(config, connector, tickets);
    let volume = client.volume(&spec.volume).await.map_err(|e| fail(&e))?;
    let block = Block { base: spec.base, count: spec.size };
    let map = UidMap::new(Mapping {
        uids: block,
        gids: block,
        extra: HashMap::new(),
        mark: Some(OWN_ID),
    });
    let source = format!("xtreemfs:{}", spec.vo);
    let config = xtreemfs_mount::Config {
        mount_point: spec.at.clone(),
        source,
        map,
        flush_within: FLUSH_WITHIN,
    };
    let runtime = tokio::runtime::Handle::current();
    let mounted =
        tokio::task::spawn_blocking(move || xtreemfs_mount::mount(config, volume, runtime))
            .await
            .map_err(|e| fail(&e))?
            .map_err(|e| fail(&e))?;
    say("mounted");
    let mut stop = signal(SignalKind::terminate()).map_err(|e| fail(&e))?;
    loop {
        tokio::select! {
            _ = stop.recv() => break,
            () = tokio::time::sleep(LOOK_EVERY) => {
                if !mounted.is_served() {
                    tracing::info!("unmounted by somebody else");
                    break;
                }
            }
        }
    }
    mounted.unmount().await.map_err(|e| fail(&e))
}

/// Reaches cores by TLS and OSDs by dial-back, the own node's by its socket.
struct GridConnector {
    folder: PathBuf,
}

impl GridConnector {
    async fn open(&self, address: &str) -> Result<Box<dyn Stream>, Error> {
        // Read anew for each connection: certificate and sites change while the mount lives.
        let (identity, trust) = read_identity(&self.folder)?;
        let own = osd::own_socket(&self.folder);
        let dialer = Dialer::new(trust, identity);
        if let Some(site) = address.strip_prefix("core/") {
            let site: SiteId = site.parse()?;
            return Ok(Box::new(dialer.core(&site, ALPN_XTREEMFS).await?));
        }
        let node: NodeId = address.parse()?;
        if osd::is_own(&self.folder, &node) {
            let stream = UnixStream::connect(&own)
                .await
                .map_err(|e| Error::unavailable(format!("the object store of this node: {e}")))?;
            return Ok(Box::new(stream));
        }
        Ok(Box::new(dialer.node(&node, ALPN_XTREEMFS).await?))
    }
}

#[async_trait]
impl Connector for GridConnector {
    async fn connect(&self, peer: &Peer) -> io::Result<Box<dyn Stream>> {
        self.open(peer.address()).await.map_err(|e| {
            let kind = match e.kind {
                xos_base::Kind::Invalid => io::ErrorKind::InvalidInput,
                _ => io::ErrorKind::ConnectionRefused,
            };
            io::Error::new(kind, e.to_string())
        })
    }
}

/// Asks the node's `xosd` for tickets and remembers them.
struct NodeTickets {
    vo: VoId,
    socket: PathBuf,
    known: Mutex<HashMap<Member, Known>>,
    /// Those whose ticket was not taken: `xosd` is asked before it is shown again.
    refused: Mutex<HashSet<Member>>,
    line: tokio::sync::Mutex<Option<Line>>,
}

#[derive(Clone)]
enum Known {
    Ticket { ticket: Ticket, expires: Millis },
    None { until: Millis },
}

struct Line {
    reader: BufReader<tokio::net::unix::OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Line {
    async fn open(socket: &Path) -> io::Result<Line> {
        let (reader, writer) = UnixStream::connect(socket).await?.into_split();
        Ok(Line { reader: BufReader::new(reader), writer })
    }

    /// Asks, and gives the line back with the answer: without one it is of no more use.
    async fn ask(mut self, request: &[u8]) -> io::Result<(TicketReply, Line)> {
        self.writer.write_all(request).await?;
        let mut reply = String::new();
        if self.reader.read_line(&mut reply).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((serde_json::from_str(&reply)?, self))
    }
}

impl NodeTickets {
    fn new(vo: VoId, socket: PathBuf) -> NodeTickets {
        NodeTickets {
            vo,
            socket,
            known: Mutex::default(),
            refused: Mutex::default(),
            line: tokio::sync::Mutex::default(),
        }
    }

    fn remembered(&self, member: Member, now: Millis, fresh: bool) -> Option<Known> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let margin = if fresh { RENEW_BEFORE } else { Duration::ZERO };
        known.get(&member).cloned().filter(|k| match k {
            Known::Ticket { expires, .. } => *expires > now.plus(margin),
            Known::None { until } => *until > now,
        })
    }

    fn doubted(&self) -> MutexGuard<'_, HashSet<Member>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the person's ticket and remembers what is said.
    async fn learn(&self, member: Member, now: Millis) -> Result<Ticket, NoTicket> {
        let asked = tokio::time::timeout(TICKET_TIMEOUT, self.ask(member)).await;
        let known = match asked {
            Ok(Ok(TicketReply::Ticket { jws, expires })) => {
                let ticket = Ticket { bytes: Bytes::from(jws), version: expires };
                Known::Ticket { ticket, expires: Millis(expires) }
            }
            // The node's xosd restarts, or has just started and waits for its core to bring
            // tickets again: what is known and still good serves on.
            other => match (self.remembered(member, now, false), other) {
                (Some(Known::Ticket { ticket, .. }), _) => return Ok(ticket),
                (_, Ok(Ok(_))) => Known::None { until: now.plus(NONE_FOR) },
                _ => return Err(NoTicket("this node's xosd does not answer".into())),
            },
        };
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(member, known.clone());
        match known {
            Known::Ticket { ticket, .. } => Ok(ticket),
            Known::None { .. } => Err(none(member)),
        }
    }

    async fn ask(&self, member: Member) -> io::Result<TicketReply> {
        let request = TicketRequest { vo: self.vo.clone(), member: MemberNumber(member.0) };
        let mut text = serde_json::to_vec(&request)?;
        text.push(b'\n');
        let mut line = self.line.lock().await;
        // A line that was kept may lead to an xosd that is no more: the one that is there now is
        // asked before anybody is told that there is no answer.
        let kept = match line.take() {
            Some(kept) => kept.ask(&text).await.ok(),
            None => None,
        };
        let (reply, open) = match kept {
            Some(answered) => answered,
            None => Line::open(&self.socket).await?.ask(&text).await?,
        };
        *line = Some(open);
        Ok(reply)
    }
}

#[async_trait]
impl Tickets for NodeTickets {
    async fn ticket(&self, member: Member) -> Result<Ticket, NoTicket> {
        let now = SystemClock.now();
        let doubted = self.doubted().contains(&member);
        match self.remembered(member, now, true).filter(|_| !doubted) {
            Some(Known::Ticket { ticket, .. }) => return Ok(ticket),
            Some(Known::None { .. }) => return Err(none(member)),
            None => {}
        }
        let learned = self.learn(member, now).await;
        // Not before: who comes while it is asked would be given what was refused.
        self.doubted().remove(&member);
        learned
    }

    fn refused(&self, member: Member) {
        self.doubted().insert(member);
    }
}

fn none(member: Member) -> NoTicket {
    NoTicket(format!("member {member} does not work on this node now"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;
    use tokio::task::JoinHandle;

    const ALICE: Member = Member(7);
    const BOB: Member = Member(8);

    /// An `xosd` that gives everybody one ticket, so many times, and then is no more.
    fn node(socket: &Path, ticket: &'static str, times: usize) -> JoinHandle<()> {
        drop(std::fs::remove_file(socket));
        let listener = UnixListener::bind(socket).unwrap();
        tokio::spawn(async move {
            let (reader, mut writer) = listener.accept().await.unwrap().0.into_split();
            let mut lines = BufReader::new(reader).lines();
            for _ in 0..times {
                let line = lines.next_line().await.unwrap().unwrap();
                serde_json::from_str::<TicketRequest>(&line).unwrap();
                let expires = SystemClock.now().plus(Duration::from_secs(900)).0;
                let reply = TicketReply::Ticket { jws: ticket.to_owned(), expires };
                let reply = format!("{}\n", serde_json::to_string(&reply).unwrap());
                writer.write_all(reply.as_bytes()).await.unwrap();
            }
        })
    }

    /// Tickets that were asked for at the socket in `folder`, where nobody is any more; Alice's is
    /// "first".
    async fn first_shown(folder: &Path) -> (PathBuf, NodeTickets) {
        let socket = folder.join("tickets.sock");
        let tickets = NodeTickets::new("demo.rennes".parse().unwrap(), socket.clone());
        let xosd = node(&socket, "first", 1);
        assert_eq!(tickets.ticket(ALICE).await.unwrap().bytes, "first");
        xosd.await.unwrap();
        (socket, tickets)
    }

    /// If it failed, whoever's ticket is new since `xosd` was restarted, or is asked for first
    /// after that, would be denied their files once.
    #[tokio::test]
    async fn a_line_to_an_xosd_that_is_no_more_costs_nobody_an_answer() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, tickets) = first_shown(folder.path()).await;
        let show = async |member| tickets.ticket(member).await.unwrap().bytes;
        // Restarted; meanwhile Alice was suspended and resumed, and has a ticket of the new epoch.
        let xosd = node(&socket, "second", 1);
        assert_eq!(show(ALICE).await, "first", "it is asked only when there is a reason");
        tickets.refused(ALICE);
        assert_eq!(show(ALICE).await, "second");
        xosd.await.unwrap();
        // Restarted; Bob has not been here yet.
        let xosd = node(&socket, "third", 1);
        assert_eq!(show(BOB).await, "third");
        xosd.await.unwrap();
        // Stopped: what is known serves on, and who is not known has nothing.
        tickets.refused(ALICE);
        assert_eq!(show(ALICE).await, "second");
        assert!(tickets.ticket(Member(9)).await.is_err());
    }

    /// If it failed, a member who is resumed would be denied their files once for each of their
    /// processes that come to them at the same time.
    #[tokio::test]
    async fn nobody_is_shown_what_was_refused_while_xosd_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, tickets) = first_shown(folder.path()).await;
        let show = async |member| tickets.ticket(member).await.unwrap().bytes;
        let xosd = node(&socket, "second", 2);
        tickets.refused(ALICE);
        let (one, other) = tokio::join!(show(ALICE), show(ALICE));
        assert_eq!((&one[..], &other[..]), (&b"second"[..], &b"second"[..]));
        xosd.await.unwrap();
        let xosd = node(&socket, "third", 1);
        assert_eq!(show(ALICE).await, "second", "nobody has refused that one");
        xosd.abort();
    }
}
