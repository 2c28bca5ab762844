//! `xos renew --watch` renews.

use crate::credentials::{Agent, file};
use crate::keys::until;
use crate::world::{Core, Person, said};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fs;
use std::process::{Child, Stdio};

/// Life of a certificate in seconds: two thirds of it are over when the watch looks for the second
/// time, a minute after its start.
const LIFE_S: u64 = 75;
/// Whom a JWT is for unless a person says otherwise.
const ANY_SERVICE: &str = "https://wlcg.cern.ch/jwt/v1/any";

/// A watch, ended with the test.
struct Watch(Child);

impl Watch {
    fn start(ada: &Person, agent: &Agent) -> Watch {
        let mut command = ada.xos(&["renew", "--watch"]);
        command.env("SSH_AUTH_SOCK", agent.socket()).stdout(Stdio::null());
        Watch(command.spawn().unwrap())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// When the certificate, the SSH certificate and the JWT end, by what is kept: this renews nothing.
fn ends(ada: &Person) -> [u64; 3] {
    let id = ada.json(&["id"]);
    let held = &id["vos"][0];
    let all = [&held["until"], &held["ssh"]["until"], &held["token"]["until"]];
    all.map(|end| end.as_u64().unwrap_or(0))
}

/// A certificate or key as ssh writes it, without its type and comment.
fn blob(line: &str) -> &str {
    line.split_whitespace().nth(1).unwrap()
}

/// If it failed, whoever works longer than a certificate lives would be shut out in the middle, by
/// XOS, by ssh from an agent, or by other services.
#[test]
fn a_watch_renews_all_three_and_tells_the_agent() {
    let mut core = Core::set_up();
    let config = core.dir().join("xosd.toml");
    let text = fs::read_to_string(&config).unwrap();
    let short = text.replacen("[cda]", &format!("[cda]\ncertificate_s = {LIFE_S}"), 1);
    fs::write(&config, short).unwrap();
    core.start_with(&[]);
    let ada = core.signed_in("ada");
    ada.well(&["vo", "found", "demo", "--title", "Demonstration"]);
    let agent = Agent::start();
    let password = core.dir().join("password");
    let words = ["login", "ada@rennes", "--password-file", password.to_str().unwrap()];
    let out = ada.xos(&words).env("SSH_AUTH_SOCK", agent.socket()).output().unwrap();
    said(0, &words, &out);
    let certificate = || fs::read_to_string(file(&ada, "ssh_key-cert.pub")).unwrap();
    let (first, shown) = (ends(&ada), certificate());
    assert!(first.iter().all(|end| *end > 0), "{first:?}");
    assert!(agent.keys().contains(blob(&shown)), "{}", agent.keys());

    let mut watch = Watch::start(&ada, &agent);
    until("all three hold longer", || ends(&ada).iter().zip(first).all(|(now, then)| *now > then));
    assert_ne!(blob(&certificate()), blob(&shown));
    until("the agent has the new one", || agent.keys().contains(blob(&certificate())));
    assert!(watch.0.try_wait().unwrap().is_none(), "the watch went away");
}

/// If it failed, the JWT, which lives for minutes, would be old for most of the day; or everything
/// would be asked for anew for its sake.
#[test]
fn a_watch_renews_a_jwt_alone_when_only_that_is_old() {
    let core = Core::start();
    let ada = core.signed_in("ada");
    ada.well(&["vo", "found", "demo", "--title", "Demonstration"]);
    let read = |name: &str| fs::read_to_string(file(&ada, name)).unwrap();
    let kept = ["credential.json", "ssh_key", "ssh_key-cert.pub"];
    let before = kept.map(read);
    // As it lies there later. Who signed it is for services to look at.
    let claims = URL_SAFE_NO_PAD.encode(r#"{"aud":"old","iat":1,"exp":2}"#);
    let old = format!("e30.{claims}.AAAA\n");
    fs::write(file(&ada, "token"), &old).unwrap();
    let agent = Agent::start();
    let _watch = Watch::start(&ada, &agent);
    until("there is another JWT", || read("token") != old);
    assert_eq!(ada.json(&["id"])["vos"][0]["token"]["audience"][0], ANY_SERVICE);
    assert_eq!(kept.map(read), before);
}
