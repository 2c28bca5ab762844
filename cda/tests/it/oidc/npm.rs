//! The certified `oidc-provider` of npm as a process of its own, and a browser before it.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The secret by which the provider knows the core.
pub const SECRET: &str = "a secret of ours";
/// Most pages between the first and the last.
const STEPS_MAX: usize = 30;

/// A provider that runs.
pub struct Npm {
    child: Child,
    settings: Value,
    pub issuer: String,
}

impl Drop for Npm {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Npm {
    /// Starts one that tells `claims` of each account, by its name; with `slim`, only at its
    /// userinfo endpoint. `None`, and why, where it cannot run.
    pub fn start(claims: Value, slim: bool) -> Option<Npm> {
        let settings = json!({
            "port": 0, "claims": claims, "slim": slim, "secret": SECRET,
            "redirects": ["http://127.0.0.1/sign-in/callback/lab"],
        });
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let folder = tree.join("target/oidc-provider");
        if !folder.join("node_modules").exists() {
            println!("skipped: no {}; `make deps-oidc` fills it", folder.display());
            return None;
        }
        match Command::new("node").arg("--version").stdout(Stdio::null()).status() {
            Ok(_) => Some(run(settings)),
            Err(e) => {
                println!("skipped: no node: {e}");
                None
            }
        }
    }

    /// Ends it, as an outage does.
    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it anew at the same address: with new keys, and without memory.
    pub fn restart(&mut self) {
        self.stop();
        let port: u16 = self.issuer.rsplit(':').next().unwrap().parse().unwrap();
        self.settings["port"] = json!(port);
        *self = run(self.settings.clone());
    }
}

fn run(settings: Value) -> Npm {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut child = Command::new("node")
        .arg(tree.join("tools/oidc-provider/provider.mjs"))
        .arg(tree.join("target/oidc-provider"))
        .arg(settings.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let issuer = lines.by_ref().map(Result::unwrap).find(|l| l.starts_with("http://127.0.0.1:"));
    let issuer = issuer.expect("the provider did not start");
    // Else it would block once the pipe is full.
    std::thread::spawn(move || lines.for_each(drop));
    Npm { child, settings, issuer }
}

/// A browser in which nobody signed in yet.
#[derive(Default)]
pub struct Browser {
    /// Name, path and value.
    cookies: Vec<(String, String, String)>,
}

struct Page {
    location: Option<String>,
    body: String,
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!("{name}=\""))?;
    Some(rest.split('"').next().unwrap().replace("&amp;", "&"))
}

impl Browser {
    /// Opens `url` and fills every form that comes, as `login`; gives the address outside the
    /// provider that it leads to, or the text of the last page.
    pub fn walk(&mut self, url: &str, login: &str) -> String {
        let origin = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        let (mut url, mut form) = (url.to_owned(), None);
        for _ in 0..STEPS_MAX {
            let page = self.request(&url, form.take());
            if let Some(to) = page.location {
                let to = if to.starts_with('/') { format!("{origin}{to}") } else { to };
                if !to.starts_with(&format!("{origin}/")) {
                    return to;
                }
                url = to;
                continue;
            }
            if !page.body.contains("method=\"post\"") {
                return page.body;
            }
            let tag = page.body.split("<form").nth(1).unwrap();
            url = attribute(tag, "action").expect("a form that goes nowhere");
            form = Some(filled(&page.body, login));
        }
        panic!("no end after {STEPS_MAX} pages");
    }

    fn request(&mut self, url: &str, form: Option<String>) -> Page {
        let rest = url.strip_prefix("http://").unwrap();
        let (host, target) = rest.split_once('/').unwrap();
        let target = format!("/{target}");
        let path = target.split('?').next().unwrap();
        let cookies = self.cookies.iter().filter(|(_, p, _)| path.starts_with(p.as_str()));
        let cookies: Vec<String> = cookies.map(|(n, _, v)| format!("{n}={v}")).collect();
        let (method, body) = match &form {
            Some(form) => ("POST", form.as_str()),
            None => ("GET", ""),
        };
        // HTTP/1.0, so that the answer ends with the connection.
        let request = format!(
            "{method} {target} HTTP/1.0\r\nHost: {host}\r\nCookie: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            cookies.join("; "),
            body.len()
        );
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut location = None;
        for line in head.lines().skip(1) {
            let (name, value) = line.split_once(": ").unwrap_or((line, ""));
            match name.to_ascii_lowercase().as_str() {
                "location" => location = Some(value.to_owned()),
                "set-cookie" => self.keep(value),
                _ => {}
            }
        }
        Page { location, body: body.to_owned() }
    }

    fn keep(&mut self, line: &str) {
        let (name, rest) = line.split_once('=').unwrap();
        let value = rest.split(';').next().unwrap();
        let path = rest.split("path=").nth(1).map_or("/", |p| p.split(';').next().unwrap());
        self.cookies.retain(|(n, p, _)| n != name || p != path);
        if !value.is_empty() {
            self.cookies.push((name.to_owned(), path.to_owned(), value.to_owned()));
        }
    }
}

/// What is hidden in a form, and the login where one is asked for.
fn filled(body: &str, login: &str) -> String {
    let mut fields: Vec<(String, String)> = Vec::new();
    for tag in body.split("<input").skip(1).map(|t| t.split('>').next().unwrap()) {
        let Some(name) = attribute(tag, "name") else { continue };
        let value = match (attribute(tag, "type").as_deref(), name.as_str()) {
            (Some("hidden"), _) => attribute(tag, "value").unwrap_or_default(),
            (_, "login") => login.to_owned(),
            (_, "password") => "any".to_owned(),
            _ => continue,
        };
        fields.push((name, value));
    }
    serde_urlencoded::to_string(fields).unwrap()
}
