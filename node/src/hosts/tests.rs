//! Host certificates as time goes by.

use super::*;
use std::future::ready;
use tempfile::TempDir;

/// How long certificates hold, in seconds.
const LIFE_S: u64 = 30_000;
const KEY: &str = "ssh-ed25519 AAAAC3";

/// A machine with one host key. A file `told` says that sshd was told.
struct Machine {
    dir: TempDir,
    hosts: Hosts,
}

impl Machine {
    fn new() -> Machine {
        Machine::told_by(|dir| vec!["/usr/bin/touch".to_owned(), path(dir, "told")])
    }

    fn told_by(reload: impl FnOnce(&TempDir) -> Vec<String>) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let key = path(&dir, "ssh_host_ed25519_key.pub");
        fs::write(&key, format!("{KEY} root@n1\n")).unwrap();
        let (host_keys, reload_sshd) = (vec![key], Some(reload(&dir)));
        let config = Config { host_keys, reload_sshd };
        let hosts = Hosts::open("ssh_host", &config, dir.path().to_owned()).unwrap();
        Machine { dir, hosts }
    }

    /// A look at this time, in seconds, at which the core gives a certificate of this name: the
    /// keys that were asked for, and how it ended.
    async fn look(&self, at_s: u64, name: &str) -> (Vec<String>, Result<(), Error>) {
        let certificates = vec![format!("ssh-ed25519-cert-v01@openssh.com {name}\n")];
        let expires = Millis::from_secs(at_s + LIFE_S);
        self.answered(at_s, Ok(HostCertificates { certificates, expires })).await
    }

    async fn answered(
        &self,
        at_s: u64,
        answer: Result<HostCertificates, Error>,
    ) -> (Vec<String>, Result<(), Error>) {
        let mut asked = Vec::new();
        let ask = |r: CertifyHost| {
            asked = r.keys;
            ready(answer)
        };
        let looked = self.hosts.look(Millis::from_secs(at_s), ask).await;
        (asked, looked)
    }

    /// The name of the certificate that sshd reads, and whether sshd was told of one since this
    /// was called last.
    fn shown(&self) -> (String, bool) {
        let file = path(&self.dir, "ssh_host_ed25519_key-cert.pub");
        let line = fs::read_to_string(file).unwrap();
        let name = line.split_whitespace().last().unwrap().to_owned();
        (name, fs::remove_file(path(&self.dir, "told")).is_ok())
    }
}

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

fn known(name: &str, told: bool) -> (String, bool) {
    (name.to_owned(), told)
}

/// If it failed, everybody would be asked whether they know the machine once its first
/// certificate expired; or the core would be asked for one each minute.
#[tokio::test]
async fn certificates_are_renewed_at_two_thirds_of_their_life_and_sshd_told() {
    let m = Machine::new();
    for (at_s, asks, shown) in [
        (100, true, known("one", true)),
        (101, false, known("one", false)),
        (100 + LIFE_S / 3 * 2 - 1, false, known("one", false)),
        (100 + LIFE_S / 3 * 2, true, known("two", true)),
        (100 + LIFE_S, false, known("two", false)),
        // The machine slept until they had expired.
        (10 * LIFE_S, true, known("two", true)),
    ] {
        let name = if at_s < 200 { "one" } else { "two" };
        let (asked, looked) = m.look(at_s, name).await;
        looked.unwrap();
        assert_eq!(asked, if asks { vec![KEY.to_owned()] } else { vec![] }, "at {at_s}");
        assert_eq!(m.shown(), shown, "at {at_s}");
    }
}

/// If it failed, a core that is away for a minute, or a hostile one, would take the certificate
/// from the machine that it has, or leave it without one for good.
#[tokio::test]
async fn without_good_new_ones_the_old_stay_and_the_core_is_asked_again() {
    let m = Machine::new();
    m.look(0, "old").await.1.unwrap();
    assert_eq!(m.shown(), known("old", true));
    let of = |lines: &[&str]| {
        let certificates = lines.iter().map(|l| (*l).to_owned()).collect();
        Ok(HostCertificates { certificates, expires: Millis::from_secs(10 * LIFE_S) })
    };
    for bad in [
        Err(Error::unavailable("no answer came on the control stream in time")),
        of(&[]),
        of(&["a-cert-v01@b c", "a-cert-v01@b c"]),
        of(&[KEY]),
        of(&["a-cert-v01@b c\nssh-ed25519 AAAA"]),
        of(&[&format!("a-cert-v01@b {}", "c".repeat(LINE_MAX))]),
    ] {
        let shown = format!("{bad:?}");
        let (asked, looked) = m.answered(LIFE_S, bad).await;
        assert_eq!((asked.len(), looked.is_err()), (1, true), "{shown:.100}");
        assert_eq!(m.shown(), known("old", false), "{shown:.100}");
    }
    m.look(LIFE_S, "new").await.1.unwrap();
    assert_eq!(m.shown(), known("new", true));
}

/// If it failed, a machine that got a new host key would show it without a certificate for
/// weeks, and people would learn to say yes.
#[tokio::test]
async fn a_host_key_that_was_replaced_is_certified_at_once() {
    let m = Machine::new();
    m.look(0, "old").await.1.unwrap();
    fs::write(path(&m.dir, "ssh_host_ed25519_key.pub"), "ssh-ed25519 BBBB root@n1\n").unwrap();
    let (asked, looked) = m.look(60, "new").await;
    looked.unwrap();
    assert_eq!(asked, ["ssh-ed25519 BBBB"]);
    assert_eq!(m.shown(), known("new", true));
    // One that is not there whole is not asked for, and what was certified stays.
    fs::write(path(&m.dir, "ssh_host_ed25519_key.pub"), "ssh-ed25519").unwrap();
    let (asked, looked) = m.look(120, "bad").await;
    assert_eq!((asked.len(), looked.is_err()), (0, true));
    assert_eq!(m.shown(), known("new", false));
}

/// If it failed, an sshd whose configuration was just being written would show an expired
/// certificate later; or the core would be asked each minute until it could be told.
#[tokio::test]
async fn an_sshd_that_was_not_told_is_told_later() {
    let m = Machine::told_by(|dir| {
        vec!["/usr/bin/test".to_owned(), "-e".to_owned(), path(dir, "ready")]
    });
    for (at_s, asks) in [(0, 1), (60, 0)] {
        let (asked, looked) = m.look(at_s, "one").await;
        assert_eq!((asked.len(), looked.is_err()), (asks, true), "at {at_s}");
    }
    fs::write(path(&m.dir, "ready"), "").unwrap();
    let (asked, looked) = m.look(120, "one").await;
    looked.unwrap();
    assert_eq!(asked.len(), 0);
    fs::remove_file(path(&m.dir, "ready")).unwrap();
    m.look(180, "one").await.1.unwrap();
}

/// If it failed, sshd would find no certificate, or a private key would be sent to the core.
#[test]
fn public_keys_are_read_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ssh_host_ed25519_key.pub");
    fs::write(&path, "ssh-ed25519 AAAAC3 root@n1\n").unwrap();
    assert_eq!(read_key(&path, "ssh_host").unwrap(), "ssh-ed25519 AAAAC3");
    assert_eq!(file_name(&path), Path::new("ssh_host_ed25519_key-cert.pub"));
    for bad in ["", "ssh-ed25519\n", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"] {
        fs::write(&path, bad).unwrap();
        assert!(read_key(&path, "ssh_host").is_err(), "{bad:?}");
    }
    assert!(read_key(&dir.path().join("none"), "ssh_host").is_err());
}
