//! Memory for requests, over all connections.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use xtreemfs_proto::mrc::{Lookup, NameRequest};
use xtreemfs_proto::osd::{Write, WriteRequest};
use xtreemfs_proto::record::{DATA_BYTES_MAX, Record};
use xtreemfs_proto::rpc::{RequestHeader, RpcHeader};
use xtreemfs_proto::serve::serve;
use xtreemfs_proto::{CallError, Channel, Handler};
use xtreemfs_server::Role;
use xtreemfs_server::dir::{Dir, DirPolicy};
use xtreemfs_server::osd::REQUEST_BYTES_PER_MACHINE_MAX;

use crate::capabilities::{good, token, write};
use crate::world::*;

/// A stream whose end at the server may be as it likes.
fn stream<H: Handler>(handler: Arc<H>) -> DuplexStream {
    let (near, far) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move { drop(serve(far, handler).await) });
    near
}

/// Begins a write of the longest tail and stops before its last byte. Ends when all else was taken;
/// the stream stays open as long as its result is kept.
fn begin(world: &World, capability: &Bytes) -> JoinHandle<DuplexStream> {
    let request = WriteRequest { capability: capability.clone(), object: 0, offset: 0 };
    let header = RpcHeader::request(1, RequestHeader::with_slot::<Write>(None));
    let data = Bytes::from(vec![0; DATA_BYTES_MAX]);
    let record = Record { header, message: request.encode_to_vec().into(), data };
    let whole = record.to_bytes().unwrap();
    let mut stream = stream(world.osds[0].connection(peer("greedy", Role::Client)));
    tokio::spawn(async move {
        stream.write_all(&whole[..whole.len() - 1]).await.unwrap();
        stream
    })
}

/// Else one rooted node opens a thousand streams to an OSD, begins a write on each, and the machine
/// runs out of memory; or nobody else can write while it does not go on.
#[tokio::test]
async fn a_machine_that_does_not_go_on_sending_holds_its_own_share_only() {
    let world = World::new().await;
    let capability = token(&good(&world));
    let begun: Vec<_> = (0..6).map(|_| begin(&world, &capability)).collect();
    let taken = || begun.iter().filter(|writing| writing.is_finished()).count();
    // A share holds the tails of so many requests, whose headers are counted too.
    let most = (REQUEST_BYTES_PER_MACHINE_MAX - 1) / DATA_BYTES_MAX;
    for _ in 0..100_000 {
        if taken() >= most {
            break;
        }
        tokio::task::yield_now().await;
    }
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(taken(), most);
    let channel = world.osd_channel(0, "node-1").await;
    write(&channel, capability, 0, 0, b"other").await.unwrap();
}

/// Else who may ask for names only makes a core hold gigabytes of data that no procedure wants.
#[tokio::test]
async fn metadata_and_directory_take_no_data() {
    struct Nobody;
    impl DirPolicy for Nobody {
        fn may_register_volume(
            &self,
            _: &xtreemfs_server::Peer,
            _: &xtreemfs_proto::dir::Volume,
        ) -> bool {
            false
        }
        fn may_register_osd(
            &self,
            _: &xtreemfs_server::Peer,
            _: &xtreemfs_proto::dir::Osd,
        ) -> bool {
            false
        }
    }
    let world = World::new().await;
    let dir = Dir::new(Arc::new(Nobody), world.around.clone());
    let client = || peer("node-1", Role::Client);
    for stream in [stream(world.mrc.connection(client())), stream(dir.connection(client()))] {
        let channel = Channel::new(stream);
        let request = NameRequest::default();
        let call = |data| channel.call::<Lookup>(None, &request, data, LONG);
        assert!(call(Bytes::new()).await.unwrap_err().refusal().is_some(), "without data it asks");
        let error = call(Bytes::from_static(b"x")).await.unwrap_err();
        assert!(matches!(error, CallError::Closed(_)), "{error:?}");
    }
}
