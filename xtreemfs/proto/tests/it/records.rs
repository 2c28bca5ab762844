//! Records as bytes.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use xtreemfs_proto::mrc::Lookup;
use xtreemfs_proto::record::{
    DATA_BYTES_MAX, MARKER_BYTES, MESSAGE_BYTES_MAX, Record, RecordError, RecordReader,
    RecordWriter,
};
use xtreemfs_proto::rpc::{Errno, ErrorResponse, RequestHeader, RpcError, RpcHeader};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn record(call_id: u32, message: Vec<u8>, data: Vec<u8>, error: Option<i32>) -> Record {
    let error = error.map(|errno| ErrorResponse {
        error_type: 6,
        posix_errno: Some(errno),
        ..Default::default()
    });
    let header = match error {
        Some(_) => RpcHeader::answer(call_id, error),
        None => RpcHeader::request(call_id, RequestHeader::with_slot::<Lookup>(Some(call_id))),
    };
    Record { header, message: message.into(), data: data.into() }
}

/// All records that a reader finds in `bytes`, and how it ended.
fn read_all(bytes: Vec<u8>, piece: usize) -> (Vec<Record>, Result<(), RecordError>) {
    runtime().block_on(async {
        let (mut near, far) = tokio::io::duplex(piece);
        let feed = tokio::spawn(async move {
            // Fails when the reader has given up.
            drop(near.write_all(&bytes).await);
        });
        let mut reader = RecordReader::new(far);
        let mut records = Vec::new();
        let end = loop {
            match reader.read().await {
                Ok(Some(record)) => records.push(record),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        drop(reader);
        feed.await.unwrap();
        (records, end)
    })
}

/// The original's clients and servers must be able to read our headers: zero values included.
#[test]
fn request_header_on_the_wire() {
    let header = RpcHeader::request(1, RequestHeader::with_slot::<Lookup>(Some(7)));
    let record =
        Record { header, message: Bytes::from_static(b"m"), data: Bytes::from_static(b"d") };
    let expected: &[u8] = &[
        0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 1, // marker: header 33, message 1, data 1
        0x0d, 1, 0, 0, 0, // call_id 1
        0x10, 0, // message_type 0, sent although zero
        0x1a, 24, // request_header
        0x0d, 0x21, 0x4e, 0, 0, // interface_id 20001
        0x15, 110, 0, 0, 0, // proc_id 110
        0x1a, 2, 0x0a, 0, // user_creds with empty username
        0x22, 8, 0x08, 0, 0x12, 4, 7, 0, 0, 0, // auth_data: type 0, slot 7
        b'm', b'd',
    ];
    assert_eq!(record.to_bytes().unwrap(), expected);
    let decoded = Record::decode(&mut BytesMut::from(expected)).unwrap().unwrap();
    assert_eq!(decoded.header.request_header.unwrap().slot(), Some(7));
}

/// A slot of the wrong length must not count as some slot.
#[test]
fn odd_slots_are_no_slots() {
    for data in [None, Some(&b""[..]), Some(b"123"), Some(b"12345")] {
        let mut header = RequestHeader::with_slot::<Lookup>(None);
        header.auth_data.auth_data = data.map(Bytes::copy_from_slice);
        assert_eq!(header.slot(), None);
    }
}

/// A record over a limit must be refused when its marker is seen, before its bytes are waited for.
#[test]
fn claims_over_the_limit_are_refused_at_once() {
    for lengths in [[u32::MAX, 0, 0], [1, 1 + MESSAGE_BYTES_MAX as u32, 0], [1, 0, u32::MAX]] {
        let marker: Vec<u8> = lengths.iter().flat_map(|length| length.to_be_bytes()).collect();
        let (records, end) = read_all(marker, 64);
        assert!(records.is_empty());
        assert!(matches!(end, Err(RecordError::TooLong { .. })), "{end:?}");
    }
    let (_, end) = read_all(vec![0; MARKER_BYTES], 64);
    assert!(matches!(end, Err(RecordError::NoHeader)), "{end:?}");
}

/// Error texts of any length must fit into the header, or the answer would end the connection.
#[test]
fn error_texts_are_cut() {
    let error = RpcError::errno(Errno::ENOENT, "ä".repeat(100_000));
    let response = error.to_response();
    assert!(response.error_message.as_ref().unwrap().len() <= 4096);
    let answer = Record {
        header: RpcHeader::answer(1, Some(response.clone())),
        message: Bytes::new(),
        data: Bytes::new(),
    };
    assert!(answer.to_bytes().is_ok());
    assert_eq!(RpcError::from_response(response).errno, Errno::ENOENT);
}

/// The largest data tail arrives whole, past the memory that is set aside at first.
#[test]
fn the_largest_data_arrives() {
    let data: Vec<u8> = (0..DATA_BYTES_MAX).map(|n| (n % 251) as u8).collect();
    let sent = record(5, vec![1, 2, 3], data, None);
    let (records, end) = read_all(sent.to_bytes().unwrap().to_vec(), 1 << 16);
    end.unwrap();
    assert!(records == [sent], "record changed on its way");
}

fn any_record() -> impl Strategy<Value = Record> {
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
    (any::<u32>(), bytes(200), bytes(9000), any::<Option<i32>>())
        .prop_map(|(call_id, message, data, error)| record(call_id, message, data, error))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..Default::default() })]

    /// What goes in must come out, however the stream cuts it.
    #[test]
    fn records_arrive_as_sent(
        records in proptest::collection::vec(any_record(), 0..6),
        piece in 1usize..5000,
    ) {
        let (arrived, end) = runtime().block_on(async {
            let (near, far) = tokio::io::duplex(piece);
            let sent = records.clone();
            let feed = tokio::spawn(async move {
                let mut writer = RecordWriter::new(near);
                for record in &sent {
                    writer.feed(record).await.unwrap();
                }
                writer.shutdown().await.unwrap();
            });
            let mut reader = RecordReader::new(far);
            let mut arrived = Vec::new();
            while let Some(record) = reader.read().await.unwrap() {
                arrived.push(record);
            }
            (arrived, feed.await)
        });
        end.unwrap();
        prop_assert_eq!(&arrived, &records);

        let mut buf = BytesMut::new();
        for record in &records {
            buf.extend_from_slice(&record.to_bytes().unwrap());
        }
        for record in &records {
            let decoded = Record::decode(&mut buf).unwrap();
            prop_assert_eq!(decoded.as_ref(), Some(record));
        }
        prop_assert_eq!(Record::decode(&mut buf).unwrap(), None);
    }

    /// A record cut short must be an error, never a shorter record.
    #[test]
    fn a_cut_record_is_an_error(record in any_record(), place in any::<prop::sample::Index>()) {
        let mut bytes = record.to_bytes().unwrap().to_vec();
        bytes.truncate(place.index(bytes.len() - 1) + 1);
        prop_assume!(bytes.len() < record.to_bytes().unwrap().len());
        prop_assert_eq!(Record::decode(&mut BytesMut::from(&bytes[..])).unwrap(), None);
        let (records, end) = read_all(bytes, 777);
        prop_assert!(records.is_empty());
        prop_assert!(matches!(end, Err(RecordError::Truncated)));
    }

    /// Garbage, and good records with a damaged byte, must never panic or hang.
    #[test]
    fn garbage_never_panics(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
        record in any_record(),
        place in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        drop(Record::decode(&mut BytesMut::from(&bytes[..])));
        drop(read_all(bytes.clone(), 64));
        let mut damaged = record.to_bytes().unwrap().to_vec();
        let place = place.index(damaged.len());
        damaged[place] ^= 1 << bit;
        damaged.append(&mut bytes);
        drop(Record::decode(&mut BytesMut::from(&damaged[..])));
        drop(read_all(damaged, 64));
    }
}
