//! Records and messages, good ones made bad: none may panic, hang or take much memory at the end
//! that reads them, servers' and clients' alike.

#[path = "../../../../tools/mutate.rs"]
mod mutate;

use bytes::{Bytes, BytesMut};
use mutate::{modest, survives};
use prost::Message;
use xtreemfs_proto::capability::{Cut, join, split};
use xtreemfs_proto::layout::FILE_BYTES_MAX;
use xtreemfs_proto::record::{DATA_BYTES_MAX, HEADER_BYTES_MAX, MESSAGE_BYTES_MAX};
use xtreemfs_proto::record::{Record, RecordReader};
use xtreemfs_proto::rpc::{
    AuthenticateReply, AuthenticateRequest, ErrorResponse, RequestHeader, RpcError, RpcHeader,
};
use xtreemfs_proto::{Capability, Layout, dir, mrc, osd};

const ROUNDS: usize = 100_000;

fn layout() -> Layout {
    Layout { stripe_size: 4096, osds: vec!["n1.rennes".into(), "n2.pisa".into()] }
}

fn capability() -> Capability {
    Capability {
        volume: "0f".repeat(16),
        inode: 5,
        access: 15,
        member: 10,
        epoch: 1,
        vo: "demo.rennes".into(),
        issued_ms: 1_800_000_000_000,
        expires_ms: 1_800_000_600_000,
        truncate_epoch: 3,
        peer: "n1.rennes".into(),
        layout: Some(layout()),
        admin: false,
        owed: vec![Cut { epoch: 2, size: 4096 }, Cut { epoch: 3, size: 1 << 40 }],
        barrier: 1,
        parent: 1,
    }
}

fn records() -> Vec<Vec<u8>> {
    let request = RequestHeader::with_slot::<mrc::Lookup>(Some(7));
    let error = ErrorResponse {
        error_type: 6,
        posix_errno: Some(2),
        error_message: Some("no such file".into()),
        ..Default::default()
    };
    let lookup = mrc::NameRequest { volume: "v".into(), parent: 1, name: Bytes::from("a") };
    let record = |header, message: Vec<u8>, data: Vec<u8>| {
        Record { header, message: message.into(), data: data.into() }.to_bytes().unwrap().to_vec()
    };
    vec![
        record(RpcHeader::request(1, request), lookup.encode_to_vec(), vec![]),
        record(RpcHeader::answer(1, Some(error)), vec![], vec![]),
        record(RpcHeader::answer(2, None), layout().encode_to_vec(), vec![7; 300]),
    ]
}

/// The most that one record may make its reader hold, whatever lengths it claims.
fn of_a_record(length: usize) -> usize {
    const { assert!(HEADER_BYTES_MAX + MESSAGE_BYTES_MAX + DATA_BYTES_MAX < 16 << 20) };
    modest(length) + (4 << 20)
}

#[test]
fn records_on_a_stream() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut samples = records();
    samples.push(records().concat());
    survives(&samples, ROUNDS / 2, of_a_record, |input| {
        let mut buf = BytesMut::from(input);
        while let Ok(Some(record)) = Record::decode(&mut buf) {
            if let Some(error) = record.header.error_response {
                assert!(!RpcError::from_response(error).to_string().is_empty());
            }
            if let Some(request) = record.header.request_header {
                request.slot();
            }
        }
        runtime.block_on(async {
            let mut reader = RecordReader::new(input);
            while let Ok(Some(_)) = reader.read().await {}
        });
    });
}

/// Decodes `input` as each of these messages.
macro_rules! decode_all {
    ($input:ident: $($message:ty),* $(,)?) => {
        $(if let Ok(message) = <$message>::decode($input) {
            // What was understood must fit into a message again.
            message.encode_to_vec();
        })*
    };
}

#[test]
fn messages() {
    let mut samples: Vec<Vec<u8>> = vec![
        capability().encode_to_vec(),
        layout().encode_to_vec(),
        osd::ReadRequest { capability: vec![1; 200].into(), object: 1, offset: 2, length: 3 }
            .encode_to_vec(),
        mrc::VolumeCreateRequest {
            name: "demo".into(),
            vo: "demo.rennes".into(),
            owner: 1,
            group: 1,
            mode: 0o770,
            stripe_size: 4096,
            width: 2,
            osds: vec!["n1.rennes".into()],
        }
        .encode_to_vec(),
        AuthenticateRequest { ticket: vec![b'x'; 300].into(), replace: Some(1) }.encode_to_vec(),
    ];
    samples.extend(records());
    survives(&samples, ROUNDS / 2, modest, |input| {
        decode_all!(input: RpcHeader, Capability, Layout, AuthenticateRequest, AuthenticateReply,
            dir::Volume, dir::VolumeLookupRequest, dir::VolumeRegisterRequest,
            dir::VolumeListRequest, dir::VolumeListReply, dir::OsdRegisterRequest,
            dir::OsdListRequest, dir::OsdListReply, dir::RegisterReply,
            mrc::NameRequest, mrc::InodeRequest, mrc::CreateRequest, mrc::OpenRequest,
            mrc::OpenReply, mrc::SetattrRequest, mrc::MkdirRequest, mrc::RenameRequest,
            mrc::RenameReply, mrc::ReaddirRequest, mrc::ReaddirReply, mrc::TruncateRequest,
            mrc::SizeCommitRequest, mrc::SizeCommitReply, mrc::UnlinkReply,
            mrc::VolumeCreateRequest,
            osd::ReadRequest, osd::WriteRequest, osd::FileRequest,
            osd::SizeReply, osd::WriteReply, osd::FsyncReply);
    });
}

#[test]
fn tokens_and_layouts() {
    let samples =
        vec![join(&[7; 64], &capability().encode_to_vec()).to_vec(), layout().encode_to_vec()];
    survives(&samples, ROUNDS / 2, modest, |input| {
        split(input);
        let layout = match Capability::peek(input) {
            Some(capability) => {
                capability.valid_ms();
                capability.layout
            }
            None => Layout::decode(input).ok(),
        };
        let Some(layout) = layout.filter(Layout::is_valid) else { return };
        // Whatever a valid layout says, its sums hold.
        for offset in [0, 1, FILE_BYTES_MAX - 1, FILE_BYTES_MAX] {
            let length: u64 = layout.extents(offset, 100).map(|e| u64::from(e.length)).sum();
            assert_eq!(length, 100);
            for index in 0..layout.osds.len() {
                let held = layout.local_length(index, offset);
                assert!(layout.file_size(index, held) <= offset.max(1));
            }
            layout.local_offset(offset, 1);
        }
    });
}
