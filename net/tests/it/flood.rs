//! Strangers, slow ones and floods: what they get, and that others are served meanwhile.

use crate::world::{Core, Site};
use crate::{Who, client, router};
use futures_util::future::select_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use xos_api::request;
use xos_base::Kind;
use xos_net::port::Config;
use xos_net::router::{BODY_MAX, PUBLIC_BODY_MAX};
use xos_net::tls::{ALPN_HTTP, client_config};
use xos_net::trust::core_name;
use xos_net::{Router, Trust};

/// Longer than every limit of time that the port has for strangers.
const PATIENCE: Duration = Duration::from_secs(60);

/// What anybody may ask.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Open {
    text: String,
}
request!(Open => usize, Post "/v1/open");

fn with_public() -> Router {
    let mut router = router();
    router.public::<Open, _, _>(|_, o| async move { Ok(o.text.len()) });
    router
}

async fn tcp(core: &Core, from: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.parse::<IpAddr>().unwrap(), 0))?;
    socket.connect(core.address).await
}

/// A stranger's TLS connection from the loopback address `from`.
async fn stranger(core: &Core, from: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let trust: Trust = core.descriptor_trust();
    let tls = client_config(None, &trust, &[ALPN_HTTP]).unwrap();
    let name = core_name(&core.descriptor.site).try_into().unwrap();
    TlsConnector::from(tls).connect(name, tcp(core, from).await?).await
}

async fn sent(core: &Core, from: &str, text: &str) -> TlsStream<TcpStream> {
    let mut stream = stranger(core, from).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// The head of the answer, or what came before the end.
async fn answer(mut stream: TlsStream<TcpStream>) -> (String, TlsStream<TcpStream>) {
    let mut got = Vec::new();
    let read = async {
        let mut byte = [0];
        while !got.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte).await, Ok(1)) {
            got.push(byte[0]);
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("no answer and no end");
    (String::from_utf8(got).unwrap().to_ascii_lowercase(), stream)
}

fn head(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_of_a_body_that_nobody_may_send() {
    let core = Core::start(&Site::new("rennes"), &[], with_public()).await;
    let refused = [
        // No byte of these bodies is ever sent: who waits for one answers nothing.
        (head("/v1/who", 10 << 20), "401"),
        (head("/v1/who", 10), "401"),
        (head("/v1/open", PUBLIC_BODY_MAX + 1), "413"),
        (head("/v1/open", usize::MAX), "413"),
        (head("/v1/nowhere", 10 << 20), "404"),
        (head("/v1/count", 10 << 20), "405"),
        ("PUT /v1/who HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n".into(), "405"),
        ("GET /v1/count?to=1 HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n".into(), "401"),
        ("POST /v1/open HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".into(), "400"),
        ("POST /v1/open HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n".into(), "415"),
        (head("/some/page", 10 << 20), "413"),
        (
            "POST /v1/who HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x.y.z\r\n\
             content-length: 10000000\r\n\r\n"
                .into(),
            "401",
        ),
    ];
    let core = &core;
    futures_util::future::join_all(refused.iter().map(|(request, status)| async move {
        let (got, mut stream) = answer(sent(core, "127.0.0.1", request).await).await;
        assert!(got.starts_with(&format!("http/1.1 {status}")), "{request}: {got}");
        // And the connection ends, however much is sent on it.
        let flood = vec![b'x'; 64 * 1024];
        let ends = async { while stream.write_all(&flood).await.is_ok() {} };
        tokio::time::timeout(PATIENCE, ends).await.expect("an endless body is read for ever");
    }))
    .await;
    let mut small = sent(core, "127.0.0.1", &head("/v1/open", 12)).await;
    small.write_all(b"{\"text\":\"ab\"").await.unwrap();
    small.write_all(b"}").await.ok();
    let (got, _) = answer(small).await;
    assert!(got.starts_with("http/1.1 400"), "a body that is cut short: {got}");
    let mut whole = sent(core, "127.0.0.1", &head("/v1/open", 13)).await;
    whole.write_all(b"{\"text\":\"ab\"}").await.unwrap();
    assert!(answer(whole).await.0.starts_with("http/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proved_caller_is_told_the_limit_and_the_core_lives() {
    let rennes = Site::new("rennes");
    let core = Core::start(&rennes, &[], router()).await;
    let client = client(&core, rennes.core());
    let e = client.call(Who { text: "x".repeat(10 * 1024 * 1024) }).await.unwrap_err();
    // The client may find the connection closed before it reads the answer.
    assert!(matches!(e.kind, Kind::TooLarge | Kind::Unavailable), "{e}");
    let large = Who { text: "x".repeat(BODY_MAX - 1024) };
    assert!(client.call(large).await.is_ok(), "a body below the limit is refused");
    assert!(client.call(Who { text: "still here".into() }).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_one_address_have_a_share_and_others_are_read() {
    let core = Core::start(&Site::new("rennes"), &[], with_public()).await;
    let mut begun = Vec::new();
    for _ in 0..40 {
        begun.push(Box::pin(answer(
            sent(&core, "127.0.0.2", &head("/v1/open", PUBLIC_BODY_MAX)).await,
        )));
    }
    // They all wait for a body that does not come; the first answer is that of one too many.
    let ((got, _), _, _rest) = select_all(begun).await;
    assert!(got.starts_with("http/1.1 503"), "{got}");
    assert!(got.contains("retry-after: "), "{got}");
    let mut other = sent(&core, "127.0.0.3", &head("/v1/open", 13)).await;
    other.write_all(b"{\"text\":\"ab\"}").await.unwrap();
    let (got, _) = answer(other).await;
    assert!(got.starts_with("http/1.1 200"), "another address is kept out: {got}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_a_head_a_body_or_a_handshake_slowly_is_cut_off() {
    let core = Core::start(&Site::new("rennes"), &[], with_public()).await;
    let mut slow_head = sent(&core, "127.0.0.1", "POST /v1/open HTTP/1.1\r\nhost: x\r\n").await;
    // The second head on a connection, after a whole request.
    let whole = format!("{}{}", head("/v1/open", 13), "{\"text\":\"ab\"}");
    let (got, mut second_head) = answer(sent(&core, "127.0.0.1", &whole).await).await;
    assert!(got.starts_with("http/1.1 200"), "{got}");
    let slow_body = sent(&core, "127.0.0.1", &head("/v1/open", 100)).await;
    let mut slow_hello = tcp(&core, "127.0.0.1").await.unwrap();
    slow_hello.write_all(&[22, 3, 1]).await.unwrap();
    let drip = async {
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        while slow_head.write_all(b"x").await.is_ok() {
            tick.tick().await;
        }
    };
    let second = async {
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        while second_head.write_all(b"x").await.is_ok() {
            tick.tick().await;
        }
    };
    let hello = async {
        let mut rest = Vec::new();
        // An end or a reset: either way it is over.
        slow_hello.read_to_end(&mut rest).await.ok();
    };
    let (cut, cut_second, (late, _), _) = tokio::join!(
        tokio::time::timeout(PATIENCE, drip),
        tokio::time::timeout(PATIENCE, second),
        answer(slow_body),
        tokio::time::timeout(PATIENCE, hello),
    );
    cut.expect("a head that never ends holds its connection");
    cut_second.expect("a second head that never ends holds its connection");
    assert!(late.starts_with("http/1.1 503"), "{late}");
}

/// A stranger's connection from `from` on which one request was answered, if it was.
async fn asked(core: &Core, from: &str) -> Option<TlsStream<TcpStream>> {
    let mut stream = stranger(core, from).await.ok()?;
    let request = format!("{}{}", head("/v1/open", 13), "{\"text\":\"ab\"}");
    stream.write_all(request.as_bytes()).await.ok()?;
    let (got, stream) = answer(stream).await;
    got.starts_with("http/1.1 200").then_some(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_from_one_address_keeps_nobody_else_out() {
    let rennes = Site::new("rennes");
    let config = Config {
        connections: 64,
        connections_per_address: 8,
        http_workers: 1,
        ..Config::default()
    };
    let core = Core::with(&rennes, &[], with_public(), config).await;
    // More than the port has places, none of which ever says a word.
    let mut flood = Vec::new();
    for _ in 0..200 {
        flood.push(tcp(&core, "127.0.0.2").await.unwrap());
    }
    let mut served = Vec::new();
    for _ in 0..40 {
        served.extend(asked(&core, "127.0.0.3").await);
    }
    assert_eq!(served.len(), 8, "connections of one address");
    let mut other = sent(&core, "127.0.0.4", &head("/v1/open", 13)).await;
    other.write_all(b"{\"text\":\"ab\"}").await.unwrap();
    assert!(answer(other).await.0.starts_with("http/1.1 200"));
    let client = client(&core, rennes.core());
    assert!(client.call(Who { text: "hi".into() }).await.is_ok());
    // What was held is free again when it ends.
    drop((flood, served));
    let again = async { while asked(&core, "127.0.0.3").await.is_none() {} };
    tokio::time::timeout(PATIENCE, again).await.expect("a place is lost for ever");
}
