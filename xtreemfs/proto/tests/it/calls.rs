//! Calls over a stream, with a handler that does as the test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Semaphore;
use xtreemfs_proto::channel::OUTSTANDING_MAX;
use xtreemfs_proto::mrc::{
    AttrReply, Getattr, InodeRequest, Lookup, Mkdir, MkdirRequest, NameRequest, Readlink,
    ReadlinkReply,
};
use xtreemfs_proto::record::{MESSAGE_BYTES_MAX, Record};
use xtreemfs_proto::rpc::{ErrorType, Procedure, RequestHeader, RpcHeader, interface};
use xtreemfs_proto::serve::{OUTSTANDING_MAX as SERVER_MAX, serve};
use xtreemfs_proto::{CallError, Channel, Errno, Handler, Incoming, Outgoing, RpcError};

const LONG: Duration = Duration::from_secs(60);

/// `Readlink` waits for the gate and answers with the inode number, `Lookup` echoes its data,
/// `Getattr` refuses with what it is asked for, inode 0 sends too much.
struct TestHandler {
    gate: Semaphore,
    begun: AtomicUsize,
}

impl Handler for TestHandler {
    async fn handle(&self, request: Incoming) -> Result<Outgoing, RpcError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        match request.proc {
            Readlink::PROC => {
                let inode = request.request::<Readlink>()?.inode;
                if inode != 42 {
                    self.gate.acquire().await.unwrap().forget();
                }
                let length = if inode == 0 { MESSAGE_BYTES_MAX } else { inode as usize };
                let target = Bytes::from(vec![b'x'; length]);
                Ok(Outgoing::reply::<Readlink>(&ReadlinkReply { target }))
            }
            Lookup::PROC => {
                request.request::<Lookup>()?;
                Ok(Outgoing::with_data::<Lookup>(&AttrReply::default(), request.data))
            }
            Getattr::PROC => {
                let inode = request.request::<Getattr>()?.inode;
                Err(RpcError::errno(Errno(inode as i32), format!("slot {:?}", request.slot)))
            }
            _ => Err(request.unknown(interface::MRC)),
        }
    }
}

fn start() -> (Arc<TestHandler>, DuplexStream) {
    let handler = Arc::new(TestHandler { gate: Semaphore::new(0), begun: AtomicUsize::new(0) });
    let (near, far) = tokio::io::duplex(1 << 16);
    let served = serve(far, handler.clone());
    tokio::spawn(async move { drop(served.await) });
    (handler, near)
}

fn inode(inode: u64) -> InodeRequest {
    InodeRequest { volume: String::new(), inode }
}

async fn readlink(channel: Channel, number: u64) -> Result<usize, CallError> {
    let reply = channel.call::<Readlink>(None, &inode(number), Bytes::new(), LONG).await?;
    Ok(reply.0.target.len())
}

/// A slow call must not hold up a later one, and each must get its own answer.
#[tokio::test]
async fn answers_come_in_any_order() {
    let (handler, stream) = start();
    let channel = Channel::new(stream);
    let slow = tokio::spawn(readlink(channel.clone(), 7));
    assert_eq!(readlink(channel.clone(), 42).await.unwrap(), 42);
    assert!(!slow.is_finished());
    handler.gate.add_permits(1);
    assert_eq!(slow.await.unwrap().unwrap(), 7);
}

/// More calls than may be outstanding must wait, not fail, and data must not be mixed up.
#[tokio::test]
async fn many_calls_at_once() {
    let (_, stream) = start();
    let channel = Channel::new(stream);
    let calls: Vec<_> = (0..4 * OUTSTANDING_MAX)
        .map(|n| {
            let channel = channel.clone();
            tokio::spawn(async move {
                let data = Bytes::from(vec![n as u8; 100 * (n % 90)]);
                let request = NameRequest::default();
                let reply = channel.call::<Lookup>(None, &request, data.clone(), LONG).await;
                assert_eq!(reply.unwrap().1, data);
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
}

/// A client must learn errno, text and kind of a refusal, and go on using the connection.
#[tokio::test]
async fn refusals_arrive_and_the_connection_lives() {
    let (handler, stream) = start();
    let channel = Channel::new(stream);
    let request = inode(36);
    let call = channel.call::<Getattr>(Some(9), &request, Bytes::new(), LONG);
    let error = call.await.unwrap_err();
    let refusal = error.refusal().unwrap();
    assert_eq!(refusal.errno, Errno::ENAMETOOLONG);
    assert_eq!(refusal.message, "slot Some(9)");

    let request = MkdirRequest::default();
    let unknown = channel.call::<Mkdir>(None, &request, Bytes::new(), LONG);
    assert_eq!(unknown.await.unwrap_err().refusal().unwrap().kind, ErrorType::InvalidProcId);

    handler.gate.add_permits(1);
    let too_long = readlink(channel.clone(), 0).await.unwrap_err();
    assert_eq!(too_long.refusal().unwrap().errno, Errno::EIO, "answer over the limit");
    assert_eq!(readlink(channel, 42).await.unwrap(), 42);
}

/// A request over a limit must fail alone, before it harms the other calls.
#[tokio::test]
async fn a_request_over_the_limit_is_not_sent() {
    let (_, stream) = start();
    let channel = Channel::new(stream);
    let name = Bytes::from(vec![0; MESSAGE_BYTES_MAX + 1]);
    let request = NameRequest { name, ..Default::default() };
    let error = channel.call::<Lookup>(None, &request, Bytes::new(), LONG).await.unwrap_err();
    assert!(matches!(error, CallError::TooLong(_)), "{error:?}");
    assert_eq!(readlink(channel, 42).await.unwrap(), 42);
}

/// Calls that wait when the server goes away must fail then, and later ones at once: a caller that
/// waited for ever would hang a person's program.
#[tokio::test]
async fn the_end_of_the_stream_fails_all_calls() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let channel = Channel::new(near);
    let calls: Vec<_> = (0..3).map(|n| tokio::spawn(readlink(channel.clone(), n))).collect();
    let mut byte = [0];
    far.read_exact(&mut byte).await.unwrap();
    drop(far);
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::Closed(_)), "{error:?}");
    }
    channel.closed().await;
    assert!(channel.is_closed());
    let error = readlink(channel, 1).await.unwrap_err();
    assert!(matches!(error, CallError::Closed(_)), "{error:?}");
}

/// A call without answer must end at its deadline and leave the channel usable.
#[tokio::test]
async fn a_deadline_ends_a_call() {
    let (handler, stream) = start();
    let channel = Channel::new(stream);
    let brief = Duration::from_millis(1);
    let error = channel.call::<Readlink>(None, &inode(7), Bytes::new(), brief).await.unwrap_err();
    assert!(matches!(error, CallError::Deadline(_)), "{error:?}");
    handler.gate.add_permits(1);
    assert_eq!(readlink(channel, 42).await.unwrap(), 42);
}

/// A peer that sends requests without end must not make the server hold more than its limit.
#[tokio::test]
async fn the_server_stops_reading_at_its_limit() {
    let (handler, mut stream) = start();
    let feed = tokio::spawn(async move {
        for call_id in 0..3 * SERVER_MAX as u32 {
            let header = RpcHeader::request(call_id, RequestHeader::with_slot::<Readlink>(None));
            let message = Bytes::from(prost::Message::encode_to_vec(&inode(7)));
            let record = Record { header, message, data: Bytes::new() };
            stream.write_all(&record.to_bytes().unwrap()).await.unwrap();
        }
        stream
    });
    // Everything runs on this thread, so that after so many turns nothing is left to do.
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(handler.begun.load(Ordering::SeqCst), SERVER_MAX);
    handler.gate.add_permits(3 * SERVER_MAX);
    let mut stream = feed.await.unwrap();
    let mut answers = bytes::BytesMut::new();
    for _ in 0..3 * SERVER_MAX {
        while Record::decode(&mut answers).unwrap().is_none() {
            assert!(stream.read_buf(&mut answers).await.unwrap() > 0, "an answer is missing");
        }
    }
}

/// Garbage ends the connection, and only that.
#[tokio::test]
async fn garbage_ends_the_connection() {
    let (handler, mut stream) = start();
    stream.write_all(&[0xff; 64]).await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    assert_eq!(handler.begun.load(Ordering::SeqCst), 0);
}
