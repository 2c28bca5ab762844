//! SSH host certificates: the site certifies the keys of this machine's sshd, a node's or the
//! core's.

mod reload;
#[cfg(test)]
mod tests;

use crate::agent::keep;
use reload::Reload;
use serde::Deserialize;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Mutex;
use xos_api::cda::{CertifyHost, HOST_KEYS_MAX, HostCertificates};
use xos_base::when::Clock;
use xos_base::{Error, Millis};

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

/// The section `[ssh_host]`: the site certifies the host keys of the core's own sshd. A node has
/// the same keys in `[node.login]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The public host key files that the site certifies. Default: those that are there of
    /// `/etc/ssh/ssh_host_ed25519_key.pub`, `/etc/ssh/ssh_host_ecdsa_key.pub` and
    /// `/etc/ssh/ssh_host_rsa_key.pub`.
    #[serde(default)]
    pub host_keys: Vec<String>,
    /// What has sshd read the certificates again after they were renewed: as `reload_sshd` of
    /// `[node.login]`, with the same default.
    pub reload_sshd: Option<Vec<String>>,
}

/// The keys of this machine's sshd, and their certificates.
pub struct Hosts {
    /// The section that says so.
    section: &'static str,
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
    /// As `config`, the section `section`, says; certificates go to `folder`, which is made when
    /// it is not there.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] naming the key that is wrong; [`xos_base::Kind::Internal`] when
    /// the folder cannot be made or is another's.
    pub fn open(section: &'static str, config: &Config, folder: PathBuf) -> Result<Hosts, Error> {
        let mut keys: Vec<PathBuf> = match config.host_keys.as_slice() {
            [] => HOST_KEYS.iter().map(PathBuf::from).filter(|p| p.exists()).collect(),
            named => named.iter().map(PathBuf::from).collect(),
        };
        keys.truncate(HOST_KEYS_MAX);
        let reload = Reload::open(section, config.reload_sshd.as_deref(), Path::new("/"))?;
        keep::own_folder(&folder, 0o755)?;
        Ok(Hosts { section, keys, folder, reload, done: Mutex::default() })
    }

    /// Keeps the certificates as they should be, got by `ask`, until this future is dropped.
    pub async fn keep<A>(&self, clock: &dyn Clock, ask: impl Fn(CertifyHost) -> A)
    where
        A: Future<Output = Result<HostCertificates, Error>>,
    {
        if self.keys.is_empty() {
            tracing::warn!("this machine has no host keys to certify: is sshd installed?");
            return;
        }
        loop {
            if let Err(error) = self.look(clock.now(), &ask).await {
                tracing::warn!(%error, "the host keys' certificates are not as they should be");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
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
        let read = |p: &PathBuf| read_key(p, self.section);
        let keys = self.keys.iter().map(read).collect::<Result<Vec<_>, _>>()?;
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

/// `ssh_host_ed25519_key-cert.pub` for `ssh_host_ed25519_key.pub`, as ssh-keygen names it.
fn file_name(key: &Path) -> PathBuf {
    let name = key.file_stem().unwrap_or_default();
    let mut name = name.to_owned();
    name.push("-cert.pub");
    PathBuf::from(name)
}

/// The key's type and its text, without the comment.
fn read_key(path: &Path, section: &str) -> Result<String, Error> {
    let shown = path.display();
    let mut text = String::new();
    fs::File::open(path).and_then(|f| f.take(LINE_MAX as u64).read_to_string(&mut text)).map_err(
        |e| {
            Error::internal(format!("cannot read the host key {shown}: {e}"))
                .hint(format!("name the public key files in [{section}] host_keys"))
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
