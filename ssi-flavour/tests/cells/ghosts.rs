use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tempfile::TempDir;
use xos_ssi::cell::proto::{Exit, Tree};
use xos_ssi::ghost::proto::{Steer, Steered};
use xos_ssi::ghost::relay::{Ends, Offsets, Owner, Relay, Served};

const TREE: Tree = Tree { id: 7, epoch: 1 };

/// A program with its relay and the agents between it and its ghost.
struct Remote {
    dir: TempDir,
    /// The connection that is served.
    current: Arc<Mutex<Option<UnixStream>>>,
    served: JoinHandle<Served>,
}

fn exit_of(status: ExitStatus) -> Exit {
    Exit::of(status.into_raw()).unwrap()
}

impl Remote {
    fn new(mut tree: Child, ends: Ends) -> Remote {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("agent")).unwrap();
        let (owner, steer) = UnixStream::pair().unwrap();
        let mut asked = Owner::new(owner.try_clone().unwrap());
        let mut told = Owner::new(owner);
        let pid = nix::unistd::Pid::from_raw(tree.id() as i32);
        std::thread::spawn(move || {
            while let Ok(Some(steered)) = asked.next_asked() {
                match steered {
                    Steered::Signal { signal, group: false } => {
                        let signal = nix::sys::signal::Signal::try_from(signal).unwrap();
                        nix::sys::signal::kill(pid, signal).unwrap();
                    }
                    // Its end is told below.
                    Steered::Closed => {}
                    other => panic!("{other:?}"),
                }
            }
        });
        std::thread::spawn(move || {
            let exit = exit_of(tree.wait().unwrap());
            told.tell(Steer::Exited { exit }).unwrap();
        });
        let current = Arc::new(Mutex::new(None));
        let shared = current.clone();
        let served = std::thread::spawn(move || {
            let mut relay = Relay::new(TREE, ends, Offsets::default(), steer).unwrap();
            loop {
                let (socket, _) = listener.accept().unwrap();
                *shared.lock().unwrap() = Some(socket.try_clone().unwrap());
                match relay.serve(socket).unwrap() {
                    Served::Disconnected => {}
                    other => return other,
                }
            }
        });
        Remote { dir, current, served }
    }

    fn pipes(script: &str) -> Remote {
        let mut tree = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = Some(tree.stdin.take().unwrap().into());
        let output = tree.stdout.take().unwrap().into();
        let error = tree.stderr.take().unwrap().into();
        Remote::new(tree, Ends::Pipes { input, output, error })
    }

    fn ghost(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xos-ghost"));
        command.arg(self.dir.path().join("agent")).args(["7", "1"]);
        command
    }

    fn cut(&self) {
        let current = self.current.lock().unwrap();
        // It may be cut already.
        let _again = current.as_ref().unwrap().shutdown(std::net::Shutdown::Both);
    }
}

#[test]
fn a_ghost_ends_as_its_tree_does() {
    // wrong: make would go on after a failed compiler, or a person not see what went wrong
    let remote = Remote::pipes("cat; echo err >&2; exit 42");
    let mut ghost = remote.ghost();
    ghost.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut ghost = ghost.spawn().unwrap();
    ghost.stdin.take().unwrap().write_all(b"in\n").unwrap();
    let ended = ghost.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(42));
    assert_eq!((&ended.stdout[..], &ended.stderr[..]), (&b"in\n"[..], &b"err\n"[..]));
    assert_eq!(remote.served.join().unwrap(), Served::Done);
}

#[test]
fn signals_reach_the_tree_and_its_end_by_one_comes_back() {
    // wrong: kill would end the ghost and leave the tree, or the parent not see by what it ended
    let script = "trap 'echo caught; trap - TERM; kill -TERM $$' TERM; echo up; \
                  while :; do sleep 0.01; done";
    let remote = Remote::pipes(script);
    let mut ghost = remote.ghost().stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(ghost.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "up");
    let pid = nix::unistd::Pid::from_raw(ghost.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "caught");
    let status = ghost.wait().unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(15), false));
    assert_eq!(remote.served.join().unwrap(), Served::Done);
}

#[test]
fn ten_megabytes_pass_unchanged_over_broken_connections() {
    // wrong: a move in the middle of a copy would damage the file
    const BYTES: usize = 10 << 20;
    let sent: Vec<u8> = (0..BYTES as u64).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    let remote = Remote::pipes("cat");
    let mut ghost = remote.ghost().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = ghost.stdin.take().unwrap();
    let bytes = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let mut stdout = ghost.stdout.take().unwrap();
    let mut got = Vec::new();
    let mut buf = vec![0; 1 << 16];
    let mut cuts = 0;
    loop {
        let n = stdout.read(&mut buf).unwrap();
        if n == 0 {
            break;
        }
        got.extend_from_slice(&buf[..n]);
        if got.len() > (cuts + 1) * (2 << 20) {
            remote.cut();
            cuts += 1;
        }
    }
    writer.join().unwrap();
    assert!(cuts >= 4 && got == sent, "{cuts} cuts, {} of {BYTES} bytes", got.len());
    assert!(ghost.wait().unwrap().success());
    assert_eq!(remote.served.join().unwrap(), Served::Done);
}

fn terminal() -> (OwnedFd, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
    (master, slave)
}

#[test]
fn the_size_of_the_terminal_reaches_the_program() {
    // wrong: an editor on another node would draw for a screen that is not there
    let (near, near_slave) = terminal();
    let size = Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&near, size).unwrap();
    let (far, far_slave) = terminal();
    let script = "until [ \"$(stty size)\" = '33 77' ]; do sleep 0.01; done; echo seen; exit 3";
    let tree = Command::new("sh")
        .args(["-c", script])
        .stdin(far_slave.try_clone().unwrap())
        .stdout(far_slave.try_clone().unwrap())
        .stderr(far_slave)
        .spawn()
        .unwrap();
    let remote = Remote::new(tree, Ends::Terminal(far));
    let mut ghost = remote
        .ghost()
        .stdin(near_slave.try_clone().unwrap())
        .stdout(near_slave.try_clone().unwrap())
        .spawn()
        .unwrap();

    let mut lines = BufReader::new(File::from(near)).lines();
    assert_eq!(lines.next().unwrap().unwrap().trim_end(), "seen");
    assert_eq!(ghost.wait().unwrap().code(), Some(3));
    let after = rustix::termios::tcgetattr(&near_slave).unwrap();
    assert!(after.local_modes.contains(rustix::termios::LocalModes::ECHO), "{after:?}");
    assert_eq!(remote.served.join().unwrap(), Served::Done);
}
