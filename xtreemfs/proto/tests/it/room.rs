//! What a server takes of a request before it has room for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Semaphore;
use xtreemfs_proto::mrc::{AttrReply, Lookup, NameRequest};
use xtreemfs_proto::record::{Record, RecordError, RecordReader};
use xtreemfs_proto::rpc::{RequestHeader, RpcHeader};
use xtreemfs_proto::serve::serve;
use xtreemfs_proto::{Handler, Incoming, Outgoing, Room, RpcError};

/// Room of all connections to the handler of these tests, in bytes.
const ROOM: usize = 1000;
/// Data of a request: there is room for one, not for two.
const DATA: usize = 900;

/// Serves requests whose data are no longer than `longest`, as many at once as there is room for.
struct Bounded {
    longest: usize,
    room: Arc<Semaphore>,
    begun: AtomicUsize,
}

impl Bounded {
    fn new(longest: usize) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(ROOM));
        Arc::new(Self { longest, room, begun: AtomicUsize::new(0) })
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }
}

impl Handler for Bounded {
    fn data_bytes_max(&self) -> usize {
        self.longest
    }

    async fn room(&self, bytes: usize) -> Room {
        Room::of(self.room.clone().acquire_many_owned(bytes as u32).await.unwrap())
    }

    async fn handle(&self, _: Incoming) -> Result<Outgoing, RpcError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Ok(Outgoing::reply::<Lookup>(&AttrReply::default()))
    }
}

fn connect(handler: &Arc<Bounded>) -> DuplexStream {
    let (near, far) = tokio::io::duplex(1 << 16);
    let served = serve(far, handler.clone());
    tokio::spawn(async move { drop(served.await) });
    near
}

fn request(data: usize) -> Bytes {
    let header = RpcHeader::request(1, RequestHeader::with_slot::<Lookup>(None));
    let message = prost::Message::encode_to_vec(&NameRequest::default());
    let record = Record { header, message: message.into(), data: vec![7; data].into() };
    record.to_bytes().unwrap()
}

/// Everything runs on one thread, so that after so many turns nothing is left to do.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

async fn answered(stream: &mut DuplexStream) {
    let mut answer = BytesMut::new();
    while Record::decode(&mut answer).unwrap().is_none() {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "no answer");
    }
}

/// Else a machine takes all memory of a server that it may speak to: it opens many connections, and
/// on each it sends a request but the last byte.
#[tokio::test]
async fn requests_of_all_connections_share_the_room() {
    for completes in [true, false] {
        let handler = Bounded::new(DATA);
        let (mut first, mut second) = (connect(&handler), connect(&handler));
        let whole = request(DATA);
        let (most, last) = whole.split_at(whole.len() - 1);
        first.write_all(most).await.unwrap();
        settle().await;
        assert!(handler.room.available_permits() < DATA, "taken before the tail is complete");
        second.write_all(&whole).await.unwrap();
        settle().await;
        assert_eq!(handler.begun(), 0, "the second has no room yet");
        if completes {
            first.write_all(last).await.unwrap();
            answered(&mut first).await;
        } else {
            drop(first);
        }
        answered(&mut second).await;
        settle().await;
        assert_eq!(handler.room.available_permits(), ROOM, "room was not given back");
    }
}

/// Else whoever may ask a metadata or directory service makes it hold file data, which none of its
/// procedures takes.
#[tokio::test]
async fn a_tail_that_no_procedure_takes_is_not_read() {
    let handler = Bounded::new(0);
    let mut stream = connect(&handler);
    stream.write_all(&request(0)).await.unwrap();
    answered(&mut stream).await;
    let whole = request(1);
    // Not even its header: the lengths say enough.
    stream.write_all(&whole[..12]).await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    assert_eq!(handler.begun(), 1);
    assert_eq!(handler.room.available_permits(), ROOM);
}

/// Else a peer that stops in the middle of a record holds the room of its request for as long as it
/// likes; and one that has nothing to say for a while must not be taken for that.
#[tokio::test]
async fn a_peer_that_stops_inside_a_record_is_not_waited_for() {
    let stall = Duration::from_millis(20);
    let (mut near, far) = tokio::io::duplex(1 << 16);
    let reading = tokio::spawn(async move {
        let mut reader = RecordReader::new(far).with_stall(stall);
        let first = reader.read().await.map(|record| record.is_some());
        (first, reader.read().await)
    });
    tokio::time::sleep(5 * stall).await;
    let whole = request(DATA);
    near.write_all(&whole).await.unwrap();
    near.write_all(&whole[..whole.len() - 1]).await.unwrap();
    let (first, second) = reading.await.unwrap();
    assert!(first.unwrap(), "a peer that said nothing was cut off");
    match second {
        Err(RecordError::Io(error)) => assert_eq!(error.kind(), std::io::ErrorKind::TimedOut),
        other => panic!("{other:?}"),
    }
}
