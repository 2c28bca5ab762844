//! Chromium's DevTools protocol over two pipes: JSON texts, each ended by a zero byte. No port is
//! open, no other program stands between, and Chromium ends when the pipe does.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long Chromium may take to answer, and a page to load.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What happened in one page since it was opened.
#[derive(Debug, Default)]
pub struct Trace {
    /// Documents that were loaded to their end.
    pub loads: u64,
    /// The address of everything that the page asked for.
    pub requests: Vec<String>,
    /// Errors on the console, and scripts that failed.
    pub faults: Vec<String>,
    /// The last document, redirects included.
    pub document: Option<Document>,
    /// Answers that sent the browser on to another address, without a content policy.
    pub bare_redirects: Vec<String>,
}

/// The head of a document's answer.
#[derive(Debug)]
pub struct Document {
    pub url: String,
    pub status: u64,
    headers: Value,
}

impl Document {
    /// A header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

fn header<'a>(headers: &'a Value, name: &str) -> Option<&'a str> {
    let all = headers.as_object()?;
    all.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).and_then(|(_, v)| v.as_str())
}

/// The two pipes.
pub struct Wire {
    to: PipeWriter,
    from: Receiver<Value>,
    last: u64,
    traces: HashMap<String, Trace>,
}

impl Wire {
    pub fn new(to: PipeWriter, from: PipeReader) -> Wire {
        let (send, receive) = channel();
        // It ends with the pipe.
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut text = Vec::new();
            while from.read_until(0, &mut text).is_ok_and(|n| n > 0) {
                let message = serde_json::from_slice(text.strip_suffix(&[0]).unwrap_or(&text));
                if send.send(message.expect("JSON of Chromium")).is_err() {
                    return;
                }
                text.clear();
            }
        });
        Wire { to, from: receive, last: 0, traces: HashMap::new() }
    }

    /// Calls a method; in a page, when `session` names one.
    pub fn call(
        &mut self,
        session: Option<&str>,
        method: &str,
        params: Value,
    ) -> Result<Value, String> {
        self.last += 1;
        let id = self.last;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.to.write_all(&text).map_err(|e| format!("Chromium has ended: {e}"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Some(mut message) = self.next(deadline)? else {
                return Err(format!("no answer to {method} in {PATIENCE:?}"));
            };
            if message["id"] == id {
                return match message.get("error") {
                    Some(error) => Err(format!("{method}: {}", error["message"])),
                    None => Ok(message["result"].take()),
                };
            }
            self.note(&message);
        }
    }

    /// Takes what came, and waits for more until `deadline` at the latest; `false` when nothing
    /// came.
    pub fn pump(&mut self, deadline: Instant) -> Result<bool, String> {
        let Some(message) = self.next(deadline)? else { return Ok(false) };
        self.note(&message);
        Ok(true)
    }

    /// What happened in a page.
    pub fn trace(&mut self, session: &str) -> &mut Trace {
        self.traces.entry(session.to_owned()).or_default()
    }

    fn next(&mut self, deadline: Instant) -> Result<Option<Value>, String> {
        match self.from.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(message) => Ok(Some(message)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err("Chromium has ended".into()),
        }
    }

    fn note(&mut self, message: &Value) {
        let (Some(session), Some(method)) =
            (message["sessionId"].as_str(), message["method"].as_str())
        else {
            return;
        };
        self.traces.entry(session.to_owned()).or_default().note(method, &message["params"]);
    }
}

impl Trace {
    fn note(&mut self, method: &str, p: &Value) {
        match method {
            "Page.loadEventFired" => self.loads += 1,
            "Network.requestWillBeSent" => {
                self.requests.push(text(&p["request"]["url"]));
                let before = &p["redirectResponse"];
                let policy = header(&before["headers"], "content-security-policy");
                if before.is_object() && policy.is_none() {
                    self.bare_redirects.push(text(&before["url"]));
                }
            }
            "Network.webSocketCreated" => self.requests.push(text(&p["url"])),
            "Network.responseReceived" if p["type"] == "Document" => {
                let response = &p["response"];
                self.document = Some(Document {
                    url: text(&response["url"]),
                    status: response["status"].as_u64().unwrap_or(0),
                    headers: response["headers"].clone(),
                });
            }
            "Runtime.exceptionThrown" => self.faults.push(p["exceptionDetails"].to_string()),
            "Runtime.consoleAPICalled" if p["type"] == "error" => {
                self.faults.push(p["args"].to_string());
            }
            // A script that should never run asked somebody; the page waits for an answer.
            "Page.javascriptDialogOpening" => {
                self.faults.push(format!("a dialog: {}", text(&p["message"])));
            }
            "Log.entryAdded" if p["entry"]["level"] == "error" => {
                self.faults.push(format!("{} {}", text(&p["entry"]["text"]), p["entry"]["url"]));
            }
            _ => {}
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
