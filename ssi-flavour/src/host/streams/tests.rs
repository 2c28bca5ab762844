use super::*;
use crate::cell::proto::Exit;
use crate::cluster::messages::{Stretch, TreeId};
use crate::ghost::proto::{Control, Message, VERSION, encode};
use crate::ghost::spool::{Piece, Spools};
use crate::host::Brought;
use std::io::{Read, Write};
use std::time::Duration;
use xos_base::NodeId;

/// Long enough for a machine with much to do: only a failure waits for it.
const LONG: Duration = Duration::from_secs(60);

/// The spools of a node, after one connection to somebody else, if that is there.
pub(in crate::host) struct Near {
    pub(in crate::host) first: Mutex<Option<UnixStream>>,
    pub(in crate::host) spools: Spools,
}

fn none() -> io::Result<UnixStream> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Peers for Near {
    fn image(&self, _: NodeNumber, _: TreeId, _: u64) -> io::Result<UnixStream> {
        none()
    }

    fn carried(&self, _: &NodeId, _: &Brought) -> io::Result<UnixStream> {
        none()
    }

    fn output(&self, _: NodeNumber, tree: Tree, from: [u64; 2]) -> io::Result<UnixStream> {
        if let Some(socket) = self.first.lock().unwrap().take() {
            return Ok(socket);
        }
        let (one, other) = UnixStream::pair()?;
        self.spools.serve(tree, from, one)?;
        Ok(other)
    }

    fn written(&self, _: NodeNumber, tree: TreeId, ask: &Stretch) -> io::Result<UnixStream> {
        let (mut one, other) = UnixStream::pair()?;
        self.spools.send(tree.0, ask, &mut one)?;
        Ok(other)
    }

    fn packets(&self, _: NodeNumber) -> io::Result<UnixStream> {
        none()
    }
}

#[tokio::test]
async fn output_that_a_new_spool_at_the_birth_node_lacks_goes_to_the_next_one() {
    // wrong: a program that is restarted where it was born, after its output was collected
    // elsewhere, would never write anything more, and stand still when its pipe is full
    let dir = tempfile::tempdir().unwrap();
    let spools = Spools::new(dir.path());
    let (tree, here) = (Tree { id: 7, epoch: 2 }, NodeNumber::try_from(1).unwrap());
    let (mut empty, first) = UnixStream::pair().unwrap();
    let peers = Arc::new(Near { first: Mutex::new(Some(first)), spools: spools.clone() });
    let (events, mut told) = tokio::sync::mpsc::unbounded_channel();
    let now = Offsets { output: 5, ..Offsets::default() };
    let places = Places { now, first: [0, 0] };
    let wanted = Wanted { terminal_of: None, input: false };
    let made = Streaming::new((tree, false), here, wanted, places, peers, events);
    let (mut streaming, mut fds) = made.unwrap();
    streaming.go();
    // A spool that has nothing yet: the relay hangs up.
    let mut hello = Vec::new();
    let said = Control::Hello {
        version: VERSION,
        tree: tree.id,
        epoch: tree.epoch,
        received: [0; 2],
        passed: [0; 2],
        refused: [false; 2],
        terminal: false,
        ghost: None,
    };
    encode(&Message::Control(said), &mut hello).unwrap();
    empty.write_all(&hello).unwrap();
    empty.set_read_timeout(Some(LONG)).unwrap();
    empty.read_to_end(&mut Vec::new()).unwrap();
    streaming.park().wait();
    spools.adopt(tree, streaming.follow.stop(), 1).unwrap();
    streaming.turn(here);
    let mut output = std::fs::File::from(fds.remove(1));
    output.write_all(b"more").unwrap();
    drop((output, fds));
    streaming.tell(Steer::Exited { exit: Exit::Code(0) });
    let taken = async {
        while let Some(event) = told.recv().await {
            if matches!(event, Event::Taken { .. }) {
                return;
            }
        }
        panic!("the relay is gone");
    };
    tokio::time::timeout(LONG, taken).await.expect("its output is not taken");
    let Piece { bytes, .. } = spools.read(tree.id, false, 5, 100).unwrap();
    assert_eq!(bytes, b"more");
}
