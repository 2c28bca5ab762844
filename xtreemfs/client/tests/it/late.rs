//! A relay that keeps a connection's last bytes and forwards them when the client has long gone on:
//! what was given up must not be carried out after newer changes.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use xtreemfs_client::{Client, Config, Connector, Ino, OpenMode, Peer, Stream, Volume};

use crate::memory::Memory;
use crate::site::{ALICE, Shape, Site, VOLUME, mrc_peer, osd_peer};

/// More than any request of these tests.
const PIPE_BYTES: usize = 1 << 20;

/// What a relay does with the bytes for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Forward,
    Keep,
    /// The client's side is closed; what was kept stays.
    Cut,
    /// What was kept goes on to the server, and then the end.
    Release,
}

struct Relay {
    mode: watch::Sender<Mode>,
    kept: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

/// Connects through relays.
struct Relayed {
    memory: Arc<Memory>,
    relays: Mutex<Vec<(Peer, Relay)>>,
}

#[async_trait]
impl Connector for Relayed {
    async fn connect(&self, peer: &Peer) -> io::Result<Box<dyn Stream>> {
        let server = self.memory.connect(peer).await?;
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let (mode, told) = watch::channel(Mode::Forward);
        let (keeps, kept) = watch::channel(0);
        let task = tokio::spawn(relay(theirs, server, told, keeps));
        self.relays.lock().unwrap().push((peer.clone(), Relay { mode, kept, task }));
        Ok(Box::new(ours))
    }
}

impl Relayed {
    /// Takes out the relay of the peer's connection and keeps what comes from now on.
    fn keep(&self, peer: &Peer) -> Relay {
        let mut relays = self.relays.lock().unwrap();
        let place = relays.iter().rposition(|(p, _)| p == peer).expect("a connection");
        let (_, relay) = relays.remove(place);
        relay.mode.send_replace(Mode::Keep);
        relay
    }
}

impl Relay {
    /// Waits until a request was kept, and closes the connection for the client.
    async fn cut(&mut self) {
        self.kept.wait_for(|bytes| *bytes > 0).await.unwrap();
        self.mode.send_replace(Mode::Cut);
    }

    /// Hands over what was kept; the server has dealt with all of it on return.
    async fn release(self) {
        self.mode.send_replace(Mode::Release);
        self.task.await.unwrap();
    }
}

async fn until(mode: &mut watch::Receiver<Mode>, wanted: Mode) {
    drop(mode.wait_for(|mode| *mode == wanted).await);
}

async fn relay(
    client: DuplexStream,
    server: Box<dyn Stream>,
    mut mode: watch::Receiver<Mode>,
    keeps: watch::Sender<usize>,
) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let (mut kept, mut buffer) = (Vec::new(), vec![0; PIPE_BYTES]);
    let (mut answer, now) = (vec![0; PIPE_BYTES], mode.clone());
    loop {
        tokio::select! {
            biased;
            () = until(&mut mode, Mode::Cut) => break,
            read = from_client.read(&mut buffer) => {
                let part = &buffer[..read.unwrap()];
                let forward = *now.borrow() == Mode::Forward;
                if part.is_empty() && !forward {
                    break;
                }
                if part.is_empty() || forward && to_server.write_all(part).await.is_err() {
                    return;
                }
                if !forward {
                    kept.extend_from_slice(part);
                    keeps.send_replace(kept.len());
                }
            }
            read = from_server.read(&mut answer) => {
                let part = &answer[..read.unwrap()];
                if part.is_empty() || to_client.write_all(part).await.is_err() {
                    return;
                }
            }
        }
    }
    drop((from_client, to_client));
    until(&mut mode, Mode::Release).await;
    to_server.write_all(&kept).await.unwrap();
    to_server.shutdown().await.unwrap();
    from_server.read_to_end(&mut answer).await.unwrap();
}

async fn start() -> (Site, Arc<Relayed>, Volume) {
    start_with(Config::new("dir")).await
}

async fn start_with(config: Config) -> (Site, Arc<Relayed>, Volume) {
    let site = Site::start(Shape { width: 1, ..Shape::default() }).await;
    let relayed = Arc::new(Relayed { memory: site.memory.clone(), relays: Mutex::default() });
    let client = Client::new(config, relayed.clone(), site.people.clone());
    let volume = client.volume(VOLUME).await.unwrap();
    (site, relayed, volume)
}

/// The file as another machine sees it.
async fn content(site: &Site, ino: Ino) -> Bytes {
    let read = OpenMode { read: true, ..OpenMode::default() };
    let (attributes, file) = site.volume().await.open(ALICE, ino, read).await.unwrap();
    let data = file.read(0, 100).await.unwrap();
    assert_eq!(attributes.size, data.len() as u64);
    data
}

const WRITE: OpenMode =
    OpenMode { read: true, write: true, execute: false, truncate: false, append: false };

/// Else a truncation that was given up and repeated cuts what was written, synced and closed since.
#[tokio::test]
async fn a_late_truncation_does_not_cut_what_was_synced_since() {
    let (site, relayed, volume) = start().await;
    let made = volume.create(ALICE, volume.root(), b"f", 0o644, WRITE, true).await.unwrap();
    let ino = made.1.ino();
    made.1.write(0, Bytes::from_static(b"former")).await.unwrap();
    made.1.close().await.unwrap();
    let mut relay = relayed.keep(&mrc_peer());
    let opening = OpenMode { truncate: true, ..WRITE };
    let (opened, ()) = tokio::join!(volume.open(ALICE, ino, opening), relay.cut());
    let (_, file) = opened.unwrap();
    file.write(0, Bytes::from_static(b"new")).await.unwrap();
    file.sync().await.unwrap();
    file.close().await.unwrap();
    relay.release().await;
    assert_eq!(content(&site, ino).await, b"new"[..]);
}

/// Else a write that was given up and repeated takes the place of newer bytes that were synced.
#[tokio::test]
async fn a_late_write_does_not_take_the_place_of_what_was_synced_since() {
    let (site, relayed, volume) = start().await;
    let made = volume.create(ALICE, volume.root(), b"f", 0o644, WRITE, true).await.unwrap();
    let file = made.1;
    file.write(0, Bytes::from_static(b"first")).await.unwrap();
    file.sync().await.unwrap();
    let mut relay = relayed.keep(&osd_peer(0));
    file.write(0, Bytes::from_static(b"older")).await.unwrap();
    let (synced, ()) = tokio::join!(file.sync(), relay.cut());
    synced.unwrap();
    file.write(0, Bytes::from_static(b"newer")).await.unwrap();
    file.sync().await.unwrap();
    relay.release().await;
    assert_eq!(content(&site, file.ino()).await, b"newer"[..]);
}

/// Else a write that its client gave up, and did not repeat, takes the place of what another
/// machine has written and synced since.
#[tokio::test]
async fn a_late_write_does_not_take_the_place_of_what_others_synced_since() {
    let deadline = Duration::from_secs(5);
    let (site, relayed, volume) = start_with(Config { deadline, ..Config::new("dir") }).await;
    let made = volume.create(ALICE, volume.root(), b"f", 0o666, WRITE, true).await.unwrap();
    let file = made.1;
    file.write(0, Bytes::from_static(b"first")).await.unwrap();
    file.sync().await.unwrap();
    let relay = relayed.keep(&osd_peer(0));
    file.write(0, Bytes::from_static(b"older")).await.unwrap();
    assert_eq!(file.sync().await.unwrap_err().errno(), libc::EIO, "given up");
    let (_, others) = site.volume().await.open(ALICE, file.ino(), WRITE).await.unwrap();
    others.write(0, Bytes::from_static(b"newer")).await.unwrap();
    others.sync().await.unwrap();
    relay.release().await;
    assert_eq!(content(&site, file.ino()).await, b"newer"[..]);
}
