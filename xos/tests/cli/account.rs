//! `xos account`: accounts at a provider are linked and taken away with the tool alone. The
//! certified provider of npm, the real core.

#[path = "../../../cda/tests/it/oidc/npm.rs"]
#[allow(dead_code, reason = "the core's own tests use all of it")]
mod npm;

use crate::world::{Core, Person};
use npm::{Browser, Npm, SECRET};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStderr, Stdio};

/// A site with an identity provider.
struct Lab {
    core: Core,
    // Ends when it is dropped.
    _npm: Npm,
}

impl Lab {
    /// `None`, with the reason printed, where the provider cannot run.
    fn start() -> Option<Lab> {
        let npm = Npm::start(json!({}), false)?;
        let mut core = Core::set_up();
        let secret = core.dir().join("secret");
        std::fs::write(&secret, SECRET).unwrap();
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        let path = core.dir().join("xosd.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let section = format!(
            "\n[[cda.providers]]\nid = \"lab\"\ntitle = \"The Lab\"\nissuer = \"{}\"\n\
             client_id = \"xos\"\nclient_secret_file = \"{}\"\ninsecure_loopback = true\n",
            npm.issuer,
            secret.display()
        );
        std::fs::write(path, format!("{text}{section}")).unwrap();
        core.start_with(&[]);
        Some(Lab { core, _npm: npm })
    }

    /// Somebody who knows the site.
    fn newcomer(&self) -> Person {
        let person = self.core.person();
        person.well(&["site", "add", &self.core.address, "--yes"]);
        person
    }
}

/// A command that waits for a browser.
struct Waiting {
    child: Child,
    aside: BufReader<ChildStderr>,
    /// What it told the person to do.
    told: Value,
}

impl Waiting {
    fn begin(person: &Person, args: &[&str]) -> Waiting {
        let mut command = person.xos(&["--json"]);
        // No browser of the machine that runs the tests is to open.
        command.args(args).env("PATH", "/nonexistent");
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let mut aside = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        aside.read_line(&mut line).unwrap();
        let told = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        Waiting { child, aside, told }
    }

    /// How it ended: the status, and what it printed.
    fn end(mut self) -> (i32, Value) {
        let mut aside = String::new();
        self.aside.read_to_string(&mut aside).unwrap();
        let out = self.child.wait_with_output().unwrap();
        let text = if out.stdout.is_empty() { aside.into_bytes() } else { out.stdout };
        let said = String::from_utf8(text).unwrap();
        let said = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
        (out.status.code().unwrap(), said)
    }
}

/// Signs in at the provider as `login`, and comes back to the command that waits.
fn by_browser(person: &Person, args: &[&str], login: &str) -> (i32, Value) {
    let waiting = Waiting::begin(person, args);
    let address = waiting.told["browser"]["address"].as_str().expect("no address");
    let back = Browser::default().walk(address, login);
    let (host, target) = back.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.write_all(format!("GET /{target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.contains("close this window"), "{page}");
    waiting.end()
}

const LINK: [&str; 4] = ["account", "link", "lab", "--browser"];
const LOGIN: [&str; 4] = ["login", "--provider", "lab", "--browser"];

/// If it failed, who works in a shell could not come in by another account, or somebody else could
/// come in as them.
#[test]
fn an_account_is_linked_shown_used_and_taken_away() {
    let Some(lab) = Lab::start() else { return };
    let ada = lab.core.signed_in("ada");
    let (status, linked) = by_browser(&ada, &LINK, "alice");
    assert_eq!((status, &linked["provider"]), (0, &json!("lab")), "{linked}");
    let ways = ada.json(&["account", "list"]);
    assert_eq!((&ways["password"], &ways["identities"]), (&json!(true), &json!([linked])));
    let (status, said) = by_browser(&lab.newcomer(), &LOGIN, "alice");
    assert_eq!((status, &said["person"]), (0, &json!("ada@rennes")), "{said}");
    // It is one person's.
    ada.add_person("bob");
    let bob = lab.core.signed_in("bob");
    let (status, said) = by_browser(&bob, &LINK, "alice");
    assert_eq!(status, 73, "{said}");
    bob.fails(66, &["account", "unlink", "lab", "--yes"]);
    let key = linked["key"].as_str().unwrap();
    bob.fails(66, &["account", "unlink", "lab", key, "--yes"]);
    // Taken away, it signs in nobody, and the sign-in here has ended.
    ada.well(&["account", "unlink", "lab", "--yes"]);
    ada.fails(78, &["account", "list"]);
    let (status, said) = by_browser(&lab.newcomer(), &LOGIN, "alice");
    assert_eq!(status, 77, "{said}");
}

/// If it failed, an account could be linked on a computer with a browser only.
#[test]
fn an_account_is_linked_by_another_device() {
    let Some(lab) = Lab::start() else { return };
    let ada = lab.core.signed_in("ada");
    let waiting = Waiting::begin(&ada, &["account", "link", "lab", "--device"]);
    let address = waiting.told["device"]["address_with_code"].as_str().expect("no address");
    Browser::default().walk(address, "alice");
    let (status, linked) = waiting.end();
    assert_eq!((status, &linked["provider"]), (0, &json!("lab")), "{linked}");
    assert_eq!(ada.json(&["account", "list"])["identities"], json!([linked]));
}

/// If it failed, whoever finds a session open could make a way in of their own, or a person would
/// sign in elsewhere for nothing.
#[test]
fn a_sign_in_of_long_ago_links_and_unlinks_nothing() {
    let core = Core::start();
    let ada = core.signed_in("ada");
    let path = ada.folder().join("login.json");
    let mut login: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let issued = login["tokens"][0]["issued"].as_u64().unwrap();
    login["tokens"][0]["issued"] = json!(issued - 301_000);
    std::fs::write(&path, login.to_string()).unwrap();
    for words in
        [&LINK[..], &["account", "unlink", "lab", "--yes"], &["account", "link", "kerberos"]]
    {
        let said = ada.fails(78, words);
        assert!(said.contains("five minutes") && said.contains("xos login ada@rennes"), "{said}");
    }
    ada.well(&["account", "list"]);
}
