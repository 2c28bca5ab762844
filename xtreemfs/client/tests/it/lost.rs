//! What the client does when connections break or identities lapse: a small scripted MRC counts
//! what reaches it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use xtreemfs_client::limits::PROOFS_MAX;
use xtreemfs_client::{Client, Config, Error, Member, NoTicket, Peer, Ticket, Tickets, Volume};
use xtreemfs_proto::mrc::{self, Attr, AttrReply};
use xtreemfs_proto::rpc::{Authenticate, AuthenticateReply};
use xtreemfs_proto::{Errno, Handler, Incoming, Outgoing, Procedure, RpcError};

use crate::memory::{Memory, People};

const ALICE: Member = Member(7);
/// A ticket that no service takes.
const VOID: &[u8] = b"void";

/// What the script does with the next change.
#[derive(Default)]
struct Script {
    names: Mutex<HashMap<Bytes, u64>>,
    /// The next change is carried out, but its answer never arrives.
    lose_answer: AtomicBool,
    /// After a change whose answer is lost somebody makes this name.
    made_anew: Mutex<Option<&'static [u8]>>,
    /// The next change never reaches the server.
    lose_request: AtomicBool,
    changes: AtomicU32,
    authentications: AtomicU32,
    /// The next call is refused for want of an identity.
    forget: AtomicBool,
    memory: Mutex<Option<Arc<Memory>>>,
}

struct Connection(Arc<Script>);

fn mrc_peer() -> Peer {
    Peer::Mrc("mrc".into())
}

fn directory(inode: u64) -> AttrReply {
    let kind = mrc::Kind::Directory.into();
    AttrReply { attr: Some(Attr { inode, kind, mode: 0o755, nlink: 2, ..Attr::default() }) }
}

impl Script {
    async fn cut(&self) {
        let memory = self.memory.lock().unwrap().clone().unwrap();
        memory.cut(&mrc_peer());
        // The task that runs this is part of what was cut.
        std::future::pending::<()>().await;
    }

    async fn change(
        &self,
        work: impl FnOnce(&mut HashMap<Bytes, u64>) -> Result<(), RpcError>,
    ) -> Result<(), RpcError> {
        if self.lose_request.swap(false, Ordering::Relaxed) {
            self.cut().await;
        }
        self.changes.fetch_add(1, Ordering::Relaxed);
        let result = work(&mut self.names.lock().unwrap());
        if self.lose_answer.swap(false, Ordering::Relaxed) {
            if let Some(name) = self.made_anew.lock().unwrap().take() {
                self.names.lock().unwrap().insert(name.into(), 77);
            }
            self.cut().await;
        }
        result
    }
}

impl Handler for Connection {
    async fn handle(&self, request: Incoming) -> Result<Outgoing, RpcError> {
        let script = &self.0;
        if request.is::<mrc::Connect>() {
            return Ok(Outgoing::reply::<mrc::Connect>(&Default::default()));
        }
        if request.is::<Authenticate>() {
            script.authentications.fetch_add(1, Ordering::Relaxed);
            if request.request::<Authenticate>()?.ticket == VOID {
                return Err(RpcError::authenticate(Errno::EACCES, "of an epoch that is over"));
            }
            let reply = AuthenticateReply { slot: 3, expires_ms: 0, valid_ms: 60_000 };
            return Ok(Outgoing::reply::<Authenticate>(&reply));
        }
        if script.forget.swap(false, Ordering::Relaxed) || request.slot != Some(3) {
            return Err(RpcError::authenticate(Errno::EACCES, "who is it?"));
        }
        if request.is::<mrc::Lookup>() {
            let name = request.request::<mrc::Lookup>()?.name;
            let inode = script.names.lock().unwrap().get(&name).copied();
            let inode = inode.ok_or(RpcError::from(Errno::ENOENT))?;
            return Ok(Outgoing::reply::<mrc::Lookup>(&directory(inode)));
        }
        if request.is::<mrc::Mkdir>() {
            let name = request.request::<mrc::Mkdir>()?.name;
            script
                .change(|names| match names.insert(name, 5) {
                    Some(_) => Err(Errno::EEXIST.into()),
                    None => Ok(()),
                })
                .await?;
            return Ok(Outgoing::reply::<mrc::Mkdir>(&directory(5)));
        }
        if request.is::<mrc::Rmdir>() {
            let name = request.request::<mrc::Rmdir>()?.name;
            script
                .change(|names| names.remove(&name).map(drop).ok_or(Errno::ENOENT.into()))
                .await?;
            return Ok(Outgoing::reply::<mrc::Rmdir>(&Default::default()));
        }
        if request.is::<mrc::Rename>() {
            let request = request.request::<mrc::Rename>()?;
            script
                .change(|names| {
                    let inode = names.remove(&request.name).ok_or(Errno::ENOENT)?;
                    names.insert(request.new_name, inode);
                    Ok(())
                })
                .await?;
            let reply = mrc::RenameReply { attr: directory(5).attr, ..Default::default() };
            return Ok(Outgoing::reply::<mrc::Rename>(&reply));
        }
        Err(request.unknown(mrc::Lookup::INTERFACE))
    }
}

fn start() -> (Arc<Script>, Arc<Memory>, Volume, Arc<People>) {
    let script = Arc::new(Script::default());
    let memory = Arc::new(Memory::default());
    *script.memory.lock().unwrap() = Some(memory.clone());
    let scripted = script.clone();
    memory.serve(mrc_peer(), move || Arc::new(Connection(scripted.clone())));
    let people = People::new([ALICE.0]);
    let config = Config::new("dir");
    let client = Client::new(config, memory.clone(), people.clone());
    let volume = client.volume_at("volume".into(), "mrc".into());
    (script, memory, volume, people)
}

#[tokio::test]
async fn a_change_whose_request_was_lost_is_made_once() {
    let (script, _, volume, _) = start();
    let root = volume.root();
    script.lose_request.store(true, Ordering::Relaxed);
    volume.make_directory(ALICE, root, b"a", 0o755).await.unwrap();
    assert_eq!(script.changes.load(Ordering::Relaxed), 1, "it must arrive once");
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_not_sent_again() {
    let (script, _, volume, _) = start();
    let root = volume.root();
    script.lose_answer.store(true, Ordering::Relaxed);
    let error = volume.make_directory(ALICE, root, b"a", 0o755).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "EEXIST would be a lie: {error}");
    assert_eq!(script.changes.load(Ordering::Relaxed), 1);

    volume.lookup(ALICE, root, b"a").await.unwrap();
    script.lose_answer.store(true, Ordering::Relaxed);
    volume.rename(ALICE, (root, b"a"), (root, b"b"), false).await.unwrap();
    assert_eq!(script.changes.load(Ordering::Relaxed), 2, "the second would say ENOENT");

    script.lose_answer.store(true, Ordering::Relaxed);
    volume.remove_directory(ALICE, root, b"b").await.unwrap();
    assert_eq!(script.changes.load(Ordering::Relaxed), 3, "the second would say ENOENT");
}

#[tokio::test]
async fn a_removal_or_rename_whose_request_was_lost_is_made_once() {
    let (script, _, volume, _) = start();
    let root = volume.root();
    volume.make_directory(ALICE, root, b"a", 0o755).await.unwrap();
    script.lose_request.store(true, Ordering::Relaxed);
    volume.rename(ALICE, (root, b"a"), (root, b"b"), false).await.unwrap();
    script.lose_request.store(true, Ordering::Relaxed);
    volume.remove_directory(ALICE, root, b"b").await.unwrap();
    assert_eq!(script.changes.load(Ordering::Relaxed), 3, "each must arrive once");
}

/// If it failed, what somebody made under the old name meanwhile would be removed, or moved over
/// what was just renamed.
#[tokio::test]
async fn what_was_made_anew_after_a_lost_answer_is_left_alone() {
    let (script, _, volume, _) = start();
    let root = volume.root();
    volume.make_directory(ALICE, root, b"a", 0o755).await.unwrap();
    for source in [b"a".as_slice(), b"b"] {
        script.lose_answer.store(true, Ordering::Relaxed);
        *script.made_anew.lock().unwrap() = Some(if source == b"a" { b"a" } else { b"b" });
        let changed = match source {
            b"a" => volume.rename(ALICE, (root, b"a"), (root, b"b"), false).await,
            _ => volume.remove_directory(ALICE, root, b"b").await,
        };
        let error = changed.unwrap_err();
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
        let left = script.names.lock().unwrap().clone();
        assert_eq!(left.get(source), Some(&77));
        if source == b"a" {
            assert_eq!(left.get(b"b".as_slice()), Some(&5), "it was renamed and must stay");
            volume.lookup(ALICE, root, b"b").await.unwrap();
        }
    }
    assert_eq!(script.changes.load(Ordering::Relaxed), 3, "none may be sent twice");
}

#[tokio::test]
async fn a_lapsed_identity_is_proved_again() {
    let (script, memory, volume, people) = start();
    let root = volume.root();
    volume.make_directory(ALICE, root, b"a", 0o755).await.unwrap();
    script.forget.store(true, Ordering::Relaxed);
    volume.make_directory(ALICE, root, b"b", 0o755).await.unwrap();
    assert_eq!(script.authentications.load(Ordering::Relaxed), 2);
    people.0.lock().unwrap().insert(ALICE, 2);
    volume.make_directory(ALICE, root, b"c", 0o755).await.unwrap();
    assert_eq!(script.authentications.load(Ordering::Relaxed), 3, "a renewed ticket is shown");
    assert_eq!(memory.connects.load(Ordering::Relaxed), 1, "all that on one connection");
}

/// Gives a void ticket until one is refused, and then another, if there is a better one.
struct Renewing {
    better: bool,
    refused: AtomicU32,
}

#[async_trait]
impl Tickets for Renewing {
    async fn ticket(&self, _: Member) -> Result<Ticket, NoTicket> {
        let good = self.better && self.refused.load(Ordering::Relaxed) > 0;
        let (bytes, version) = if good { (b"good".as_slice(), 2) } else { (VOID, 1) };
        Ok(Ticket { bytes: Bytes::from_static(bytes), version })
    }

    fn refused(&self, _: Member) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// If it failed, whoever was suspended and resumed would be denied their files once on each
/// connection made since, though this machine has their new ticket.
#[tokio::test]
async fn a_ticket_that_is_refused_on_a_new_connection_is_asked_for_anew() {
    for (better, authentications) in [(true, 2), (false, PROOFS_MAX)] {
        let (script, memory, _, _) = start();
        let tickets = Arc::new(Renewing { better, refused: AtomicU32::new(0) });
        let client = Client::new(Config::new("dir"), memory, tickets);
        let volume = client.volume_at("volume".into(), "mrc".into());
        let made = volume.make_directory(ALICE, volume.root(), b"a", 0o755).await;
        assert_eq!(script.authentications.load(Ordering::Relaxed), authentications);
        assert_eq!(script.changes.load(Ordering::Relaxed), u32::from(better));
        assert_eq!(made.err().map(|e| e.errno()), (!better).then_some(libc::EACCES));
    }
}

#[tokio::test]
async fn a_person_without_ticket_gets_nothing_not_even_from_the_cache() {
    let (_, _, volume, people) = start();
    let root = volume.root();
    volume.make_directory(ALICE, root, b"a", 0o755).await.unwrap();
    volume.lookup(ALICE, root, b"a").await.unwrap();
    people.0.lock().unwrap().clear();
    let error = volume.lookup(ALICE, root, b"a").await.unwrap_err();
    assert!(matches!(error, Error::NoTicket { .. }), "{error}");
    assert_eq!(error.errno(), libc::EACCES);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_gone_ends_the_operation_at_its_deadline() {
    let (_, memory, volume, _) = start();
    memory.stop(&mrc_peer());
    let begin = tokio::time::Instant::now();
    let error = volume.lookup(ALICE, volume.root(), b"a").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(begin.elapsed() <= xtreemfs_client::limits::OPERATION_DEADLINE);
    let tried = memory.connects.load(Ordering::Relaxed);
    assert!(tried > 3, "it must have been tried again");
    volume.lookup(ALICE, volume.root(), b"a").await.unwrap_err();
    assert_eq!(memory.connects.load(Ordering::Relaxed), tried + 1, "the next tries once");
}

#[tokio::test]
async fn names_that_cannot_be_are_refused_before_they_travel() {
    let (script, memory, volume, _) = start();
    let long = vec![b'x'; 300];
    let error = volume.make_directory(ALICE, volume.root(), &long, 0o755).await.unwrap_err();
    assert_eq!(error.errno(), libc::ENAMETOOLONG);
    for bad in [b"".as_slice(), b".", b"..", b"a/b", b"a\0b"] {
        let error = volume.make_directory(ALICE, volume.root(), bad, 0o755).await.unwrap_err();
        assert_eq!(error.errno(), libc::EINVAL, "{bad:?}");
    }
    assert_eq!(script.changes.load(Ordering::Relaxed), 0);
    assert_eq!(memory.connects.load(Ordering::Relaxed), 0);
}
