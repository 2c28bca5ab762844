//! A service that lets a site sign people in: its page in the browser, and what it asks the core as
//! a program.

use crate::World;
use crate::browser::Page;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};
use xos_testbed::grid::PORT;
use xos_testbed::{Cmd, Host};

/// What people read of it. It must be shown as it is.
pub const NAME: &str = "Wiki of the \"Lab\" & <b>friends</b>";
/// Where it has browsers sent back to; on the person's own machine any port will do.
const REDIRECT: &str = "http://127.0.0.1/back";
/// What it keeps and what it shows of it by PKCE (RFC 7636, appendix B).
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
/// Its only page; where the link leads is written into it when somebody shall press it.
const PAGE: &str = "<!doctype html><html lang=en><title>A service</title>\
    <h1>A service</h1><p><a href=/>Sign in</a>";

/// The service.
pub struct Service {
    /// Where its program runs.
    host: Host,
    /// Its `client_id`.
    client: String,
    /// `http://127.0.0.1:<port>`: for a browser another site than the console at localhost.
    origin: String,
}

impl Service {
    /// A site administrator registers it. It listens beside the browser.
    pub fn start(world: &World) -> Service {
        let add = ["site", "client", "add", NAME, "--redirect", REDIRECT, "--device", "--json"];
        let made = world.rennes.admin(&add).expect("client add");
        let made: Value = serde_json::from_str(&made).expect("JSON");
        let client = made["client"]["id"].as_str().expect("a client id").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let origin = format!("http://{}", listener.local_addr().expect("an address"));
        // They end with the test. A browser opens more connections than it uses.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a browser");
                std::thread::spawn(move || answer(&stream));
            }
        });
        Service { host: world.grid.laptop().expect("the laptop"), client, origin }
    }

    /// Where browsers come back to.
    pub fn back(&self) -> String {
        format!("{}/back", self.origin)
    }

    fn encoded_back(&self) -> String {
        self.back().replace(':', "%3A").replace('/', "%2F")
    }

    /// A person presses "Sign in" on its page, and so leaves for the console. `more`: what else
    /// stands in the address.
    pub fn sends(&self, page: &Page, more: &str) {
        page.open(&self.origin).expect("the service's page");
        let address = format!(
            "{}/oauth/authorize?response_type=code&client_id={}&redirect_uri={}\
             &scope=openid+profile+wlcg.groups&code_challenge={CHALLENGE}\
             &code_challenge_method=S256{more}",
            page.origin,
            self.client,
            self.encoded_back()
        );
        page.eval(&format!("document.querySelector('a').href = {}", json!(address)));
        page.click("a");
    }

    /// The browser, which left the service, comes by itself to the console's page that has such an
    /// element.
    pub fn comes_to(&self, page: &Page, selector: &str) {
        let there = format!(
            "document.readyState === 'complete' && document.querySelector({}) !== null",
            json!(selector)
        );
        page.until(selector, &there);
        self.forget(page);
        page.check(200);
    }

    /// What the browser brings back once a person did `act`: the fields in the address.
    pub fn gets(&self, page: &Page, act: impl FnOnce()) -> Value {
        act();
        let there = format!(
            "document.readyState === 'complete' && location.href.startsWith({}) \
             && Object.fromEntries(new URLSearchParams(location.search))",
            json!(format!("{}?", self.back()))
        );
        let brought = page.until("the browser is back at the service", &there);
        // What belongs to the service's page comes no later than the next document.
        page.open("about:blank").expect("an empty page");
        self.forget(page);
        brought
    }

    /// What a page of the console must not ask for, this one does.
    fn forget(&self, page: &Page) {
        page.trace(|t| t.requests.retain(|r| !r.starts_with(&self.origin)));
    }

    /// What the core answers a form of its program.
    fn form(&self, path: &str, fields: &str) -> Value {
        let head =
            format!("POST {path} HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded");
        let body = format!("client_id={}&{fields}", self.client);
        let (status, said) = ask(&self.host, "", &head, &body);
        assert_eq!(status, 200, "{path}: {said}");
        said
    }

    /// The tokens for a code that a browser brought.
    pub fn tokens(&self, code: &Value) -> Value {
        let fields = format!(
            "grant_type=authorization_code&code={}&redirect_uri={}&code_verifier={VERIFIER}",
            text(code),
            self.encoded_back()
        );
        self.form("/oauth/token", &fields)
    }

    /// It begins at a device without a browser.
    pub fn begins_at_a_device(&self) -> Value {
        self.form("/oauth/device", "scope=openid+profile")
    }

    /// The tokens for the code of such a device.
    pub fn tokens_of_device(&self, code: &Value) -> Value {
        let fields = format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code={}",
            text(code)
        );
        self.form("/oauth/token", &fields)
    }

    /// The HTTP status and what it learns when it asks, with an access token, who the person is.
    pub fn learns(&self, access_token: &Value) -> (u64, Value) {
        let token = text(access_token);
        let head = format!("GET /oauth/userinfo HTTP/1.1\r\nAuthorization: Bearer {token}");
        ask(&self.host, "", &head, "")
    }
}

/// Shows the page, whatever was asked for.
fn answer(stream: &TcpStream) -> std::io::Result<()> {
    let (mut from, mut to) = (BufReader::new(stream), stream);
    let mut line = String::new();
    // The head of a request ends with an empty line.
    while from.read_line(&mut line)? > "\r\n".len() {
        line.clear();
    }
    let length = PAGE.len();
    write!(
        to,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{PAGE}"
    )
}

/// What the machine `n1` asks its core for.
pub fn node_asks(world: &World, path: &str, body: &Value) -> Value {
    let file = |name: &str| format!("/var/lib/xos/node/{name}.pem");
    let (chain, key) = (file("chain"), file("key"));
    let proof = format!("-cert {chain} -key {key} -cert_chain {chain}");
    let head = format!("POST {path} HTTP/1.1\r\nContent-Type: application/json");
    let (status, said) = ask(&world.rennes.nodes[0], &proof, &head, &body.to_string());
    assert_eq!(status, 200, "{path}: {said}");
    said
}

/// Waits until who began at this time may ask what came of it (RFC 8628, 3.5).
pub fn turn(begun: Instant, interval_s: &Value) {
    let pause = Duration::from_secs(interval_s.as_u64().expect("seconds"));
    std::thread::sleep(pause.saturating_sub(begun.elapsed()));
}

/// What the core answers a program on `host`: the HTTP status and the JSON. `proof`: how openssl
/// proves whose program it is.
fn ask(host: &Host, proof: &str, head: &str, body: &str) -> (u64, Value) {
    let request = format!(
        "{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let connect = format!("openssl s_client -quiet -connect rennes-core:{PORT} -alpn http/1.1");
    let cmd = Cmd::shell(format!("{connect} {proof}")).stdin(request.as_bytes());
    let out = host.run(&cmd).expect("openssl");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|t| t.get(..3)?.parse().ok());
    let status = status.unwrap_or_else(|| {
        panic!("{head}: no answer: {text}{}", String::from_utf8_lossy(&out.stderr))
    });
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// A text in JSON.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}
