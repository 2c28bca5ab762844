//! A file over two OSDs, from open to unlink, with a small client.

use bytes::{Bytes, BytesMut};
use xtreemfs_proto::mrc::{OpenReply, ROOT_INODE, open_flags};
use xtreemfs_proto::osd::*;
use xtreemfs_proto::{Channel, Layout};

use crate::world::*;

const RW: u32 = open_flags::READ | open_flags::WRITE;

/// The least that a client does: cut at object borders, ask the right OSD, fill up with zeros.
struct Client {
    osds: Vec<Channel>,
    layout: Layout,
    capability: Bytes,
}

impl Client {
    async fn new(world: &World, opened: &OpenReply) -> Self {
        let layout = opened.layout.clone().unwrap();
        let index = |id: &String| usize::from(id == "osd-b");
        let mut osds = Vec::new();
        for id in &layout.osds {
            osds.push(world.osd_channel(index(id), "node-1").await);
        }
        Self { osds, layout, capability: opened.capability.clone() }
    }

    async fn write(&self, offset: u64, data: &[u8]) {
        let mut data = Bytes::copy_from_slice(data);
        for extent in self.layout.extents(offset, data.len() as u64) {
            let part = data.split_to(extent.length as usize);
            let capability = self.capability.clone();
            let request = WriteRequest { capability, object: extent.object, offset: extent.offset };
            self.osds[extent.osd].call::<Write>(None, &request, part, LONG).await.unwrap();
        }
    }

    async fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        let mut all = BytesMut::new();
        for extent in self.layout.extents(offset, length) {
            let request = ReadRequest {
                capability: self.capability.clone(),
                object: extent.object,
                offset: extent.offset,
                length: extent.length,
            };
            let call = self.osds[extent.osd].call::<Read>(None, &request, Bytes::new(), LONG);
            let (_, data) = call.await.unwrap();
            all.extend_from_slice(&data);
            all.resize((extent.file_offset + u64::from(extent.length) - offset) as usize, 0);
        }
        all.to_vec()
    }

    async fn on_all<P>(&self, request: P::Request) -> Vec<P::Reply>
    where
        P: xtreemfs_proto::Procedure,
        P::Request: Clone,
    {
        let mut replies = Vec::new();
        for osd in &self.osds {
            replies.push(call::<P>(osd, None, request.clone()).await.unwrap());
        }
        replies
    }

    fn file(&self) -> FileRequest {
        FileRequest { capability: self.capability.clone() }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 % 251) as u8).collect()
}

/// What was written must be read, over borders of objects, with holes as zeros, after a truncation
/// cut at the right place on both OSDs.
#[tokio::test]
async fn striped_file_from_open_to_unlink() {
    let world = World::new().await;
    let ann = world.person(10, "100", false).await;
    let opened = ann.create(ROOT_INODE, "f", 0o644, RW).await.unwrap();
    let inode = opened.attr.unwrap().inode;
    let client = Client::new(&world, &opened).await;
    let stripe = u64::from(STRIPE);

    let data = pattern(5 * STRIPE as usize + 123);
    client.write(1000, &data).await;
    assert_eq!(client.read(1000, data.len() as u64).await, data);
    assert_eq!(client.read(0, 1000).await, [0; 1000], "a hole at the start");
    client.write(10 * stripe + 5, b"end").await;
    assert_eq!(client.read(8 * stripe, stripe).await, vec![0; STRIPE as usize], "a hole");
    client.on_all::<Fsync>(client.file()).await;

    let sizes = client.on_all::<Size>(client.file()).await;
    let size = sizes.iter().map(|reply| reply.size).max().unwrap();
    assert_eq!(size, 10 * stripe + 8);
    let commit = ann.commit(opened.capability.clone(), size).await.unwrap();
    assert_eq!(commit.attr.unwrap().size, size);

    let cut = ann.truncate(inode, 2 * stripe + 10, opened.capability).await.unwrap();
    let client = Client::new(&world, &cut).await;
    client.on_all::<Truncate>(client.file()).await;
    let expected: Vec<u8> = [&[0; 1000][..], &data].concat()[..2 * STRIPE as usize + 10].to_vec();
    assert_eq!(client.read(0, 2 * stripe + 10).await, expected);
    assert_eq!(client.read(2 * stripe + 10, stripe).await, vec![0; STRIPE as usize], "cut off");

    let deleted = ann.unlink(ROOT_INODE, "f").await.unwrap().deleted.unwrap();
    let client = Client { capability: deleted.capability, ..client };
    client.on_all::<Unlink>(client.file()).await;
    for osd in ["osd-a", "osd-b"] {
        assert_eq!(files_below(&world.dir.path().join(osd)), 0, "objects left on {osd}");
    }
}

/// Files of objects; hidden ones are none.
fn files_below(dir: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let shown = entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    let paths = shown.map(|entry| entry.path());
    paths.map(|path| if path.is_dir() { files_below(&path) } else { 1 }).sum()
}

/// One call may take all of a transfer's extents on an OSD, since they follow each other there:
/// large sequential reads rely on it.
#[tokio::test]
async fn one_call_for_several_objects() {
    let world = World::new().await;
    let ann = world.person(10, "100", false).await;
    let opened = ann.create(ROOT_INODE, "f", 0o644, RW).await.unwrap();
    let client = Client::new(&world, &opened).await;
    let stripe = STRIPE as usize;
    let data = pattern(6 * stripe);
    client.write(0, &data).await;
    for osd in 0..2 {
        let request = ReadRequest {
            capability: opened.capability.clone(),
            object: osd as u64,
            offset: 0,
            length: 3 * STRIPE,
        };
        let call = client.osds[osd].call::<Read>(None, &request, Bytes::new(), LONG);
        let (_, run) = call.await.unwrap();
        let objects = (0..3).flat_map(|n| &data[(2 * n + osd) * stripe..][..stripe]);
        assert_eq!(run, objects.copied().collect::<Vec<u8>>());
    }
}
