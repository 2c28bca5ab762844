use super::*;
use crate::local::{CloseLogin, Principals};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

/// Answers one call with these bytes, and gives what was asked.
fn serve(answer: Vec<u8>) -> (tempfile::TempDir, std::thread::JoinHandle<Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("s")).unwrap();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 4];
        stream.read_exact(&mut head).unwrap();
        let mut body = vec![0; u32::from_le_bytes(head) as usize];
        stream.read_exact(&mut body).unwrap();
        stream.write_all(&answer).unwrap();
        body
    });
    (dir, served)
}

fn framed(json: &str) -> Vec<u8> {
    [&u32::try_from(json.len()).unwrap().to_le_bytes(), json.as_bytes()].concat()
}

fn ask(dir: &tempfile::TempDir) -> Result<Vec<String>, LocalError> {
    let (user, certificate, authority) = ("ann".into(), "c".into(), "a".into());
    let call = Principals { user, uid: 7, certificate, authority };
    call_at(&dir.path().join("s"), &call, Duration::from_secs(20))
}

/// If it failed, nobody could sign in, or the reason of a refusal would not reach the person.
#[test]
fn an_answer_and_a_refusal_come_through() {
    let (dir, served) = serve(framed(r#"{"ok":["ann@x"]}"#));
    assert_eq!(ask(&dir).unwrap(), ["ann@x"]);
    let asked: serde_json::Value = serde_json::from_slice(&served.join().unwrap()).unwrap();
    assert_eq!((&asked["call"], &asked["with"]["user"]), (&"principals".into(), &"ann".into()));

    let (dir, served) = serve(framed(r#"{"error":{"kind":"denied","message":"no","hint":"ask"}}"#));
    assert!(matches!(ask(&dir), Err(LocalError::Refused(e)) if e.to_string() == "no; ask"));
    served.join().unwrap();
}

/// If it failed, what anybody sends could crash sshd or eat its memory.
#[test]
fn nonsense_is_refused() {
    for bad in [
        framed("{}"),
        framed("[1"),
        framed(r#"{"ok":7}"#),
        u32::MAX.to_le_bytes().to_vec(),
        vec![1, 0],
        Vec::new(),
    ] {
        let (dir, served) = serve(bad.clone());
        assert!(matches!(ask(&dir), Err(LocalError::Nonsense)), "{bad:?}");
        served.join().unwrap();
    }
}

/// If it failed, a login would hang for ever with an `xosd` that hangs.
#[test]
fn nobody_and_silence_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let call = CloseLogin { session: "1".into() };
    assert!(matches!(call_at(&path, &call, Duration::from_secs(1)), Err(LocalError::Absent)));
    let listener = UnixListener::bind(&path).unwrap();
    let late = call_at(&path, &call, Duration::from_millis(1));
    assert!(matches!(late, Err(LocalError::Late)), "{late:?}");
    drop(listener);
    assert!(matches!(call_at(&path, &call, Duration::from_secs(1)), Err(LocalError::Absent)));
}

/// If it failed, `xosd` would wait for itself whenever one of its libraries looks up a name.
#[test]
fn nobody_asks_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _listener = UnixListener::bind(&path).unwrap();
    let call = CloseLogin { session: "1".into() };
    let refused = call_other_at(&path, &call, Duration::from_secs(20));
    assert!(matches!(refused, Err(LocalError::Absent)), "{refused:?}");
}

/// A socket whose queue is full, who waits in it, and the socket's folder.
fn full() -> (tempfile::TempDir, OwnedFd, Vec<OwnedFd>) {
    let dir = tempfile::tempdir().unwrap();
    let address = SocketAddrUnix::new(dir.path().join("s")).unwrap();
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = || socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    let listener = socket();
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    let wait = || {
        let fd = socket();
        match connect(&fd, &address) {
            Ok(()) => Some(fd),
            Err(e) => {
                assert_eq!(e, Errno::AGAIN);
                None
            }
        }
    };
    let waiting: Vec<_> = std::iter::from_fn(wait).take(100).collect();
    assert!((1..100).contains(&waiting.len()), "the queue is not full");
    (dir, listener, waiting)
}

/// If it failed, any program of the machine could make `xosd` seem away, and have old records
/// believed and everybody else kept out, by connecting again and again.
#[test]
fn a_full_queue_is_waited_for_and_is_no_absence() {
    let (dir, listener, waiting) = full();
    let path = dir.path().join("s");
    let call = CloseLogin { session: "1".into() };
    let never = call_at(&path, &call, Duration::from_millis(20));
    assert!(matches!(never, Err(LocalError::Full)), "{never:?}");
    assert!(matches!(pause(Instant::now()), Err(LocalError::Full)));
    // There is room once those before have been heard.
    let mut paused = 0;
    let fd = connected(&path, || {
        paused += 1;
        rustix::net::accept(&listener).map(drop).map_err(LocalError::from)
    });
    fd.unwrap();
    assert_eq!(paused, 1);
    drop(waiting);
}
