//! SSH host certificates: the site certifies the keys of this machine's sshd.

use super::Login;
use super::reload::Reload;
use crate::agent::{Agent, keep};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use xos_api::cda::{CertifyHost, HOST_KEYS_MAX, HostCertificates};
use xos_base::{Error, Millis};
use xos_net::control::Control;

/// The host keys that are certified unless the configuration names others.
const HOST_KEYS: [&str; 3] = [
    "/etc/ssh/ssh_host_ed25519_key.pub",
    "/etc/ssh/ssh_host_ecdsa_key.pub",
    "/etc/ssh/ssh_host_rsa_key.pub",
];
/// How often it is looked whether something is to be done. Clocks may be set meanwhile, and keys
/// replaced.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Longest public key or certificate file, in bytes.
const LINE_MAX: usize = 16 * 1024;

/// The keys of this machine's sshd, and their certificates.
pub(super) struct Hosts {
    /// The public keys' files.
    keys: Vec<PathBuf>,
    /// Where certificates are written.
    folder: PathBuf,
    reload: Reload,
    done: Mutex<Done>,
}

/// What has been done since this daemon runs.
#[derive(Default)]
struct Done {
    /// The keys that were certified.
    keys: Vec<String>,
    /// When they are to be certified anew.
    due: Millis,
    /// Whether sshd is still to be told.
    untold: bool,
}

impl Hosts {
    /// As `[node.login]` says; certificates go to `folder`.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] naming the key that is wrong.
    pub(super) fn open(config: &Login, folder: PathBuf) -> Result<Hosts, Error> {
        let mut keys: Vec<PathBuf> = match config.host_keys.as_slice() {
            [] => HOST_KEYS.iter().map(PathBuf::from).filter(|p| p.exists()).collect(),
            named => named.iter().map(PathBuf::from).collect(),
        };
        keys.truncate(HOST_KEYS_MAX);
        let reload = Reload::open(config.reload_sshd.as_deref(), Path::new("/"))?;
        Ok(Hosts { keys, folder, reload, done: Mutex::default() })
    }

    /// Gets certificates by `ask` when two thirds of the life of those that were got are over, or a
    /// key is another one; then tells sshd. What fails is tried again at the next look, and until
    /// then all stays as it is.
    ///
    /// # Errors
    /// What the core answers; [`xos_base::Kind::Internal`] when a key cannot be read or a
    /// certificate not be written; as [`Reload::run`].
    async fn look<A>(&self, now: Millis, ask: impl FnOnce(CertifyHost) -> A) -> Result<(), Error>
    where
        A: Future<Output = Result<HostCertificates, Error>>,
    {
        let mut done = self.done.lock().await;
        let keys = self.keys.iter().map(|p| read_key(p)).collect::<Result<Vec<_>, _>>()?;
        if now >= done.due || keys != done.keys {
            let got = ask(CertifyHost { keys: keys.clone() }).await?;
            self.write(&got.certificates)?;
            tracing::info!(expires = %got.expires, "the site certified this machine's host keys");
            let due = now.plus(got.expires.since(now) / 3 * 2);
            *done = Done { keys, due, untold: true };
        }
        if done.untold {
            self.reload.run().await?;
            done.untold = false;
        }
        Ok(())
    }

    /// Writes all certificates, if all are some.
    fn write(&self, certificates: &[String]) -> Result<(), Error> {
        if certificates.len() != self.keys.len() {
            return Err(Error::unavailable("the core gave certificates for other keys"));
        }
        let good = |line: &str| {
            line.len() <= LINE_MAX && !line.contains(['\n', '\r']) && line.contains("-cert-v01@")
        };
        if !certificates.iter().all(|line| good(line.trim())) {
            return Err(Error::unavailable("what the core gave is no host certificate"));
        }
        for (path, line) in self.keys.iter().zip(certificates) {
            let text = format!("{}\n", line.trim());
            keep::write_text(&self.folder.join(file_name(path)), &text, 0o644)?;
        }
        Ok(())
    }
}

impl Agent {
    /// Keeps the certificates of the host keys as they should be, over `control`, until this future
    /// is dropped.
    pub(in crate::agent) async fn keep_host_certificates(self: Arc<Agent>, control: Arc<Control>) {
        let Some(logins) = self.logins.clone() else { return };
        if logins.hosts.keys.is_empty() {
            tracing::warn!("this machine has no host keys to certify: is sshd installed?");
            return;
        }
        loop {
            let core = control.clone();
            let ask = |r: CertifyHost| async move { core.call(r).await };
            if let Err(error) = logins.hosts.look(self.now(), ask).await {
                tracing::warn!(%error, "the host keys' certificates are not as they should be");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// `ssh_host_ed25519_key-cert.pub` for `ssh_host_ed25519_key.pub`, as ssh-keygen names it.
fn file_name(key: &Path) -> PathBuf {
    let name = key.file_stem().unwrap_or_default();
    let mut name = name.to_owned();
    name.push("-cert.pub");
    PathBuf::from(name)
}

/// The key's type and its text, without the comment.
fn read_key(path: &Path) -> Result<String, Error> {
    let shown = path.display();
    let mut text = String::new();
    fs::File::open(path).and_then(|f| f.take(LINE_MAX as u64).read_to_string(&mut text)).map_err(
        |e| {
            Error::internal(format!("cannot read the host key {shown}: {e}"))
                .hint("name the public key files in [node.login] host_keys")
        },
    )?;
    let mut words = text.split_whitespace();
    match (words.next(), words.next()) {
        (Some(kind), Some(key)) if kind.starts_with("ssh-") || kind.starts_with("ecdsa-") => {
            Ok(format!("{kind} {key}"))
        }
        _ => Err(Error::internal(format!("{shown} is no public host key"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing;
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
            let config = Login { host_keys, reload_sshd, ..testing::login() };
            let hosts = Hosts::open(&config, dir.path().to_owned()).unwrap();
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
        assert_eq!(read_key(&path).unwrap(), "ssh-ed25519 AAAAC3");
        assert_eq!(file_name(&path), Path::new("ssh_host_ed25519_key-cert.pub"));
        for bad in ["", "ssh-ed25519\n", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"] {
            fs::write(&path, bad).unwrap();
            assert!(read_key(&path).is_err(), "{bad:?}");
        }
        assert!(read_key(&dir.path().join("none")).is_err());
    }
}
