//! What a browser gets from a real core, through its port.

use crate::daemon::{TOLD_MAX, told};
use crate::world::{Core, xosd};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xos_net::Trust;
use xos_net::tls::{ALPN_HTTP, client_config};
use xos_net::trust::core_name;

/// Longest that an answer may take: less than a page waits for a form.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// How long to wait for more before the next connection is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// More than the core takes for a form.
const TOO_LARGE: usize = 300_000;
/// Together more than the core holds for one address.
const MANY: usize = 24;

/// Somebody who begins to send a form, of which nothing comes but the head.
struct Sender {
    stream: StreamOwned<ClientConnection, TcpStream>,
    got: Vec<u8>,
}

/// The core's TLS, as somebody sees it who proves nothing.
fn tls(core: &Core) -> Arc<ClientConfig> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (descriptor, _) = runtime.block_on(xos_net::discover::discover(&core.address)).unwrap();
    let trust = Trust::new();
    trust.add(descriptor).unwrap();
    client_config(None, &trust, &[ALPN_HTTP]).unwrap()
}

impl Sender {
    fn new(core: &Core, tls: &Arc<ClientConfig>, accept: &str, length: usize) -> Sender {
        let name = core_name(&"rennes".parse().unwrap()).try_into().unwrap();
        let connection = ClientConnection::new(tls.clone(), name).unwrap();
        let tcp = TcpStream::connect(&core.address).unwrap();
        let mut stream = StreamOwned::new(connection, tcp);
        let head = format!(
            "POST /sign-in HTTP/1.1\r\nhost: {}\r\naccept: {accept}\r\n\
             sec-fetch-site: same-origin\r\ncontent-length: {length}\r\n\r\n",
            core.address
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.sock.set_read_timeout(Some(LOOK)).unwrap();
        Sender { stream, got: Vec::new() }
    }

    /// The head and body of the answer, once they are there.
    fn answer(&mut self) -> Option<(String, String)> {
        let mut bytes = [0; 4096];
        // An error: nothing came yet, or the connection ended after the answer.
        let n = self.stream.read(&mut bytes).unwrap_or(0);
        self.got.extend_from_slice(&bytes[..n]);
        let text = String::from_utf8_lossy(&self.got);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap();
        let whole = body.len() >= length.parse::<usize>().unwrap();
        whole.then(|| (head.clone(), body.to_owned()))
    }
}

/// The first answer that one of them gets.
fn first_answer(senders: &mut [Sender]) -> (String, String) {
    let start = Instant::now();
    while start.elapsed() < ANSWER_MAX {
        if let Some(answer) = senders.iter_mut().find_map(Sender::answer) {
            return answer;
        }
    }
    panic!("no answer in {ANSWER_MAX:?}");
}

/// If it failed, a person whose form is too large, or comes at a bad moment, would see `{"kind":`
/// instead of what happened and what to do.
#[test]
fn a_form_without_room_is_answered_by_a_page() {
    let core = Core::start();
    let tls = tls(&core);
    let sends = |accept: &str, length| Sender::new(&core, &tls, accept, length);
    let browser = "text/html,application/xhtml+xml";
    let page = |(head, body): &(String, String), status: &str| {
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}\n{body}");
        for header in ["content-type: text/html", "content-security-policy: ", "no-store"] {
            assert!(head.contains(header), "{header:?} is missing: {head}");
        }
        for part in ["/static/console.css?v=", "id=\"trouble-message\"", "</html>"] {
            assert!(body.contains(part), "{part:?} is missing: {body}");
        }
    };
    page(&first_answer(&mut [sends(browser, TOO_LARGE)]), "413");
    let mut many: Vec<Sender> = (0..MANY).map(|_| sends(browser, 200_000)).collect();
    let busy = first_answer(&mut many);
    page(&busy, "503");
    assert!(busy.0.contains("retry-after: "), "{}", busy.0);
    drop(many);
    // A program gets what it understands.
    let (head, body) = first_answer(&mut [sends("*/*", TOO_LARGE)]);
    assert!(head.starts_with("http/1.1 413"), "{head}");
    let error: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(error["kind"], "too_large");
}

/// What a browser without a session gets, in small letters.
fn got(core: &Core, path: &str) -> String {
    let name = core_name(&"rennes".parse().unwrap()).try_into().unwrap();
    let connection = ClientConnection::new(tls(core), name).unwrap();
    let tcp = TcpStream::connect(&core.address).unwrap();
    tcp.set_read_timeout(Some(ANSWER_MAX)).unwrap();
    let mut stream = StreamOwned::new(connection, tcp);
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: {}\r\naccept: text/html\r\nconnection: close\r\n\r\n",
        core.address
    );
    stream.write_all(head.as_bytes()).unwrap();
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&part[..n]),
            // The answer is there, and then the connection ends without a word.
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(e) => panic!("{path}: {e}"),
        }
    }
    String::from_utf8_lossy(&answer).to_ascii_lowercase()
}

/// If it failed, whoever reads a core's log, or runs the page to which somebody goes on from an
/// invitation's link, could come into the VO by it.
#[test]
fn an_invitations_secret_stands_in_no_log_and_no_referrer() {
    let core = Core::set_up();
    let notify = core.dir().join("notify");
    let socket = UnixDatagram::bind(&notify).unwrap();
    socket.set_read_timeout(Some(TOLD_MAX)).unwrap();
    let log = core.dir().join("log");
    let mut run = xosd(core.dir());
    run.args(["run", "--config", "xosd.toml"]).env("NOTIFY_SOCKET", &notify);
    let mut child =
        run.env("XOS_LOG", "trace").stderr(File::create(&log).unwrap()).spawn().unwrap();
    told(&socket, "READY=1");
    let ada = core.signed_in("ada");
    ada.add_person("bob");
    ada.well(&["vo", "found", "demo", "--title", "Demonstration"]);
    let invited = ada.json(&["vo", "invite", "demo.rennes"]);
    let link = invited["link"].as_str().unwrap();
    let (_, secret) = link.rsplit_once('/').unwrap();
    let path = format!("/join/demo.rennes/{secret}");
    for (path, status) in [
        (path.clone(), "200"),
        (format!("{path}/form"), "303"),
        (format!("/sign-in?next={path}/form"), "200"),
        (format!("{path}/nowhere"), "404"),
    ] {
        let answer = got(&core, &path);
        assert!(answer.starts_with(&format!("http/1.1 {status}")), "{path}: {answer}");
        assert!(answer.contains("\r\nreferrer-policy: no-referrer\r\n"), "{path}: {answer}");
    }
    core.signed_in("bob").well(&["vo", "join", link]);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("TRACE") && log.contains("changed"), "not all is logged: {log}");
    assert!(!log.contains(secret), "the secret is logged");
}
