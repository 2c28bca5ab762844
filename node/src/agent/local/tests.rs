use super::*;
use serde_json::value::to_raw_value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream as Blocking;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use xos_base::local::{AuthNext, CloseLogin, LocalCall, LocalError, call_at};

const PATIENCE: Duration = Duration::from_secs(60);

/// Answers each call with nothing, after having seen who asks; one that waits for a person never.
struct Mirror {
    waits: UnboundedSender<&'static str>,
}

/// Tells that a call that waits is over.
struct Over(UnboundedSender<&'static str>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.send("over").ok();
    }
}

impl Answers for Mirror {
    async fn answer(
        self: Arc<Mirror>,
        asker: Asker,
        call: Envelope<Box<RawValue>>,
    ) -> Result<Box<RawValue>, Error> {
        if asker.pid != Some(std::process::id()) {
            return Err(Error::internal("another process is said to ask"));
        }
        if Mirror::waits(&call.call) {
            let _over = Over(self.waits.clone());
            self.waits.send("waits").ok();
            return std::future::pending().await;
        }
        if call.call != CloseLogin::NAME {
            return Err(Error::unsupported("no such call"));
        }
        if !asker.root {
            return Err(Error::denied("only root"));
        }
        to_raw_value(&()).map_err(|e| Error::internal(e.to_string()))
    }

    fn waits(call: &str) -> bool {
        call == AuthNext::NAME
    }
}

struct Served {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    waits: UnboundedReceiver<&'static str>,
    stop: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn served() -> Served {
    let dir = tempfile::tempdir().unwrap();
    // Others must get through to it.
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
    let socket = dir.path().join("xos/node.sock");
    let listener = listen(&socket).unwrap();
    let stop = CancellationToken::new();
    let (told, waits) = unbounded_channel();
    tokio::spawn(serve(Arc::new(Mirror { waits: told }), listener, stop.clone()));
    Served { _dir: dir, socket, waits, stop }
}

async fn ask(socket: &Path) -> Result<(), LocalError> {
    let socket = socket.to_owned();
    let call = || CloseLogin { session: "1".into() };
    tokio::task::spawn_blocking(move || call_at(&socket, &call(), PATIENCE)).await.unwrap()
}

/// What comes back on a connection to which these bytes were sent.
async fn sent(socket: &Path, bytes: Vec<u8>) -> Vec<u8> {
    let socket = socket.to_owned();
    let exchange = move || {
        let mut stream = Blocking::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut back = Vec::new();
        match stream.read_to_end(&mut back) {
            Ok(_) => back,
            // What was not read is thrown away with the connection.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => back,
            Err(e) => panic!("{e}"),
        }
    };
    tokio::task::spawn_blocking(exchange).await.unwrap()
}

fn framed(json: &str) -> Vec<u8> {
    [&u32::try_from(json.len()).unwrap().to_le_bytes(), json.as_bytes()].concat()
}

/// If it failed, anybody on the machine could end the node's daemon, fill its memory, or keep
/// others from signing in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_callers_get_an_error_and_others_their_answer() {
    let s = served();
    ask(&s.socket).await.unwrap();
    for (bytes, says) in [
        (u32::MAX.to_le_bytes().to_vec(), "too_large"),
        (framed(""), "invalid"),
        (framed("[]"), "invalid"),
        (framed("{\"call\":\"close-login\"}"), "invalid"),
        (framed("{\"call\":\"close-login\",\"with\":{},\"more\":1}"), "invalid"),
        (framed("{\"call\":\"nonsense\",\"with\":{}}"), "unsupported"),
        (vec![0xff, 0xff, 0, 0, b'{'], ""),
        (vec![1], ""),
        (Vec::new(), ""),
    ] {
        let back = String::from_utf8_lossy(&sent(&s.socket, bytes.clone()).await).into_owned();
        assert!(back.contains(says) && back.is_empty() == says.is_empty(), "{bytes:?}: {back}");
    }
    ask(&s.socket).await.unwrap();
}

/// If it failed, callers that say nothing would keep their places for ever, or others out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_callers_lose_their_places() {
    let s = served();
    let mut silent: Vec<_> = (0..64).map(|_| Blocking::connect(&s.socket).unwrap()).collect();
    ask(&s.socket).await.unwrap();
    // The daemon hangs up on each of them, sooner or later.
    let hung_up = tokio::task::spawn_blocking(move || {
        for stream in &mut silent {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        }
    });
    hung_up.await.unwrap();
    ask(&s.socket).await.unwrap();
}

/// If it failed, a login whose program was ended would hold its place, and ask on, for nobody; or
/// many of them would keep all others from signing in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_person_is_over_when_the_caller_hangs_up() {
    let mut s = served();
    let call = framed("{\"call\":\"auth-next\",\"with\":{}}");
    let mut waiting = Vec::new();
    for _ in 0..32 {
        let mut stream = Blocking::connect(&s.socket).unwrap();
        stream.write_all(&call).unwrap();
        assert_eq!(s.waits.recv().await, Some("waits"));
        waiting.push(stream);
    }
    let back = sent(&s.socket, call).await;
    assert!(String::from_utf8_lossy(&back).contains("limited"), "those who wait are not bounded");
    ask(&s.socket).await.unwrap();
    for stream in waiting {
        drop(stream);
        let over = tokio::time::timeout(PATIENCE, s.waits.recv()).await;
        assert_eq!(over.unwrap(), Some("over"));
    }
}

/// If it failed, a local user could do what is root's, or the daemon's own programs could not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_is_the_kernels_word() {
    if !rustix::process::getuid().is_root() {
        println!("skipped: needs root to ask as another user");
        return;
    }
    let s = served();
    let socket = s.socket.clone();
    let as_other = std::thread::spawn(move || {
        let uid = rustix::fs::Uid::from_raw(1_900_000_123);
        // Of this thread alone, which ends here.
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        let first = call_at(&socket, &CloseLogin { session: "1".into() }, PATIENCE);
        let many: Vec<_> = (0..9).map(|_| Blocking::connect(&socket).unwrap()).collect();
        // One that says nothing makes way.
        let another = call_at(&socket, &CloseLogin { session: "1".into() }, PATIENCE);
        (first, another, many)
    });
    let joined = tokio::task::spawn_blocking(move || as_other.join().unwrap());
    let (first, another, many) = joined.await.unwrap();
    assert!(matches!(first, Err(LocalError::Refused(e)) if e.kind == Kind::Denied));
    assert!(matches!(another, Err(LocalError::Refused(e)) if e.kind == Kind::Denied));
    // Root has its own.
    ask(&s.socket).await.unwrap();
    drop(many);
}

/// If it failed, a restart would find no socket, or somebody could put theirs in its place.
#[tokio::test]
async fn the_socket_is_made_anew_and_only_in_an_own_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, victim) = (dir.path().join("xos"), dir.path().join("victim"));
    let socket = folder.join("node.sock");
    let mode = |p: &Path| std::fs::symlink_metadata(p).unwrap().permissions().mode() & 0o7777;
    drop(listen(&socket).unwrap());
    drop(listen(&socket).unwrap());
    assert_eq!((mode(&folder), mode(&socket)), (0o755, 0o666));
    // links in the place of the socket
    std::fs::write(&victim, "as it was").unwrap();
    std::fs::remove_file(&socket).unwrap();
    std::os::unix::fs::symlink(&victim, &socket).unwrap();
    std::os::unix::fs::symlink(&victim, folder.join("node.sock.new")).unwrap();
    drop(listen(&socket).unwrap());
    assert!(!socket.is_symlink());
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "as it was");
    // a folder that is a link
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::create_dir(dir.path().join("other")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("other"), &folder).unwrap();
    assert!(listen(&socket).is_err());
}
