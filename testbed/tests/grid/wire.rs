//! Requests as a stranger's own program would make them: with any certificate, token and body.

use std::sync::atomic::{AtomicUsize, Ordering};

use xos_testbed::grid::PORT;
use xos_testbed::{Cmd, Host};

use crate::tool::Json;

/// How the maker of a request proves who they are.
#[derive(Clone, Copy, Debug)]
pub enum Proof<'a> {
    Nothing,
    /// Key and chain in PEM.
    Certificate(&'a str),
    Token(&'a str),
}

/// What a core answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status; 0 when TLS refused.
    pub status: u16,
    pub body: Json,
    /// All of it, and what the TLS client said.
    pub text: String,
}

impl Answer {
    /// It was refused with this status, and the message or hint says each of `words`.
    #[track_caller]
    pub fn refused(self, status: u16, words: &[&str]) {
        assert_eq!(self.status, status, "{}", self.text);
        for word in words {
            assert!(self.text.contains(word), "it does not say {word:?}: {}", self.text);
        }
    }

    /// TLS refused its maker's certificate by the alert of this number (RFC 8446, section 6).
    #[track_caller]
    pub fn unproved(self, alert: u8) {
        assert_eq!(self.status, 0, "{}", self.text);
        let said = format!("SSL alert number {alert}");
        let there = self.text.lines().any(|line| line.trim_end().ends_with(&said));
        assert!(there, "no {said}: {}", self.text);
    }

    /// Whether the core took the maker of the request for somebody.
    pub fn is_known(&self) -> bool {
        self.status != 0 && self.status != 401
    }
}

/// Sends one request from `host` to the core of `site`.
#[track_caller]
pub fn ask(host: &Host, site: &str, proof: Proof, line: &str, body: &[u8]) -> Answer {
    let mut head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    let (mut certificate, mut file) = (String::new(), String::new());
    match proof {
        Proof::Nothing => {}
        Proof::Token(token) => head += &format!("Authorization: Bearer {token}\r\n"),
        Proof::Certificate(pem) => {
            // Several threads may ask from one host.
            static ASKED: AtomicUsize = AtomicUsize::new(0);
            file = format!("/root/proof.{}.pem", ASKED.fetch_add(1, Ordering::Relaxed));
            host.write_file(&file, pem.as_bytes(), 0o600).unwrap();
            certificate = format!("-cert {file} -key {file} -cert_chain {file}");
        }
    }
    head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    let script = format!(
        "openssl s_client -quiet -connect {site}-core:{PORT} -alpn http/1.1 {certificate}; \
         rm -f {file}"
    );
    let input = [head.as_bytes(), body].concat();
    let out = host.run(&Cmd::shell(script).stdin(input)).expect("openssl");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|t| t.get(..3)?.parse().ok());
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Answer {
        status: status.unwrap_or(0),
        body: serde_json::from_str(body).unwrap_or_default(),
        text: format!("{text}\n{}", String::from_utf8_lossy(&out.stderr)),
    }
}
