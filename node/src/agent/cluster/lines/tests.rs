//! Lines between two ends of a stream in memory.

use super::*;
use std::io::{Read, Write};
use tokio::task::JoinHandle;

type Opened = UnboundedReceiver<(u32, Vec<u8>, Comes)>;
type Served = JoinHandle<Result<(), Error>>;
type Opens = fn(u32, Vec<u8>) -> Result<(), Error>;

/// Two ends of a stream, and the lines that the first one opens at the second.
fn pair() -> (Arc<Lines>, Arc<Lines>, Opened, [Served; 2]) {
    let (one, other) = tokio::io::duplex(4096);
    let (near, near_queue) = Lines::new();
    let (far, far_queue) = Lines::new();
    let (tell, opened) = mpsc::unbounded_channel();
    let (own, theirs) = (near.clone(), far.clone());
    let first = tokio::spawn(async move { run(one, &own, near_queue, None::<Opens>).await });
    let second = tokio::spawn(async move {
        let all = theirs.clone();
        let opens = move |number: u32, bytes: Vec<u8>| -> Result<(), Error> {
            let Some(from) = all.admit(number)? else { return Ok(()) };
            tell.send((number, bytes, from)).map_err(|_| Error::internal("nobody hears"))
        };
        run(other, &theirs, far_queue, Some(opens)).await
    });
    (near, far, opened, [first, second])
}

/// Has an end of a line carried; the other end of its socket.
fn socket(lines: &Arc<Lines>, number: u32, from: Comes) -> UnixStream {
    let (one, other) = UnixStream::pair().unwrap();
    let lines = lines.clone();
    tokio::spawn(async move { carry(&lines, number, one, from).await });
    other
}

async fn read(mut socket: UnixStream) -> Vec<u8> {
    let read = move || {
        let mut got = Vec::new();
        socket.read_to_end(&mut got).unwrap();
        got
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// If it failed, a program's output would go to another one's person, or lose its end.
#[tokio::test(flavor = "multi_thread")]
async fn each_line_has_its_own_bytes_to_their_end() {
    let (near, far, mut opened, _served) = pair();
    let mut ends = Vec::new();
    for text in ["one", "two", "three"] {
        let (number, from) = near.begin(text.as_bytes()).await.unwrap();
        let (theirs, opening, comes) = opened.recv().await.unwrap();
        assert_eq!((theirs, opening.as_slice()), (number, text.as_bytes()));
        ends.push((text, socket(&near, number, from), socket(&far, theirs, comes)));
    }
    for (text, mine, theirs) in ends {
        let long = text.repeat(100_000).into_bytes();
        let writes = long.clone();
        let mut to = mine.try_clone().unwrap();
        let writing = tokio::task::spawn_blocking(move || {
            to.write_all(&writes).unwrap();
            to.shutdown(std::net::Shutdown::Both).unwrap();
        });
        assert_eq!(read(theirs).await, long);
        writing.await.unwrap();
        assert!(read(mine).await.is_empty());
    }
    assert!(near.lock().lines.is_empty());
}

/// If it failed, one spool on a disk that hangs would hold up the output of all programs of
/// another node, or fill this one's memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_takes_nothing_ends_alone() {
    let (near, far, mut opened, _served) = pair();
    let (stuck, mut gone) = near.begin(b"stuck").await.unwrap();
    let held = opened.recv().await.unwrap();
    let (other, from) = near.begin(b"other").await.unwrap();
    let (theirs, _, comes) = opened.recv().await.unwrap();
    let many = LINE_BYTES_MAX / FRAME_MAX + 1;
    for _ in 0..many {
        near.out.send(frame(DATA, stuck, &[7; FRAME_MAX])).await.unwrap();
    }
    assert!(gone.recv().await.is_none(), "it was not ended");
    let (mut mine, theirs) = (socket(&near, other, from), socket(&far, theirs, comes));
    mine.write_all(b"on").unwrap();
    mine.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(read(theirs).await, b"on");
    drop(held);
}

/// If it failed, a node could fill another one's memory, or confuse its lines.
#[tokio::test]
async fn what_is_no_frame_ends_the_stream_and_its_lines() {
    let long = [&[DATA][..], &[0; 4], &[0xff; 4]].concat();
    let odd = frame(9, 1, &[]);
    let twice = [frame(OPEN, 1, b"a"), frame(OPEN, 1, b"b")].concat();
    let again = [frame(END, 1, &[]), frame(OPEN, 1, b"a")].concat();
    for bad in [long, odd, twice, again] {
        let (near, far, mut opened, [first, second]) = pair();
        let (_number, mut from) = near.begin(b"a").await.unwrap();
        let _line = opened.recv().await.unwrap();
        near.out.send(bad).await.unwrap();
        assert!(second.await.unwrap().is_err());
        // The other side sees that the stream is over.
        let _broke = first.await.unwrap();
        assert!(from.recv().await.is_none() && near.is_over() && far.is_over());
    }
}

/// If it failed, a node could have another one work at more and more lines by ending each before
/// the core said whether it may be, until that one's memory is full.
#[tokio::test]
async fn a_line_that_ended_counts_as_long_as_it_is_worked_at() {
    let (near, far, mut opened, _served) = pair();
    let mut worked_at = Vec::new();
    for _ in 0..LINES_MAX {
        let (number, _from) = near.begin(b"a").await.unwrap();
        worked_at.push(opened.recv().await.unwrap());
        near.close(number).await;
    }
    let (_number, mut refused) = near.begin(b"one too many").await.unwrap();
    assert!(refused.recv().await.is_none());
    assert!(opened.try_recv().is_err() && !far.is_over(), "the others go on");
    worked_at.pop();
    near.begin(b"next").await.unwrap();
    assert_eq!(opened.recv().await.unwrap().1, b"next");
}

/// If it failed, each node would have a stream open to each other one for ever.
#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_needs_is_closed() {
    let (near, far, mut opened, [first, second]) = pair();
    let (number, _from) = near.begin(b"a").await.unwrap();
    let _line = opened.recv().await.unwrap();
    tokio::time::sleep(IDLE * 3).await;
    assert!(!near.is_over(), "a line is open");
    near.close(number).await;
    first.await.unwrap().unwrap();
    assert!(near.is_over() && near.begin(b"b").await.is_none());
    // The other one reads its end, or writes into it.
    let _over = second.await.unwrap();
    assert!(far.is_over());
}
