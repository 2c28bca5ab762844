//! SSH host certificates: the site certifies the keys of this machine's sshd.

use super::Logins;
use crate::agent::{Agent, keep};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use xos_api::cda::{CertifyHost, HOST_KEYS_MAX};
use xos_base::{Error, Millis};
use xos_net::control::Control;

/// Pause after the core gave no certificates.
const PAUSE: Duration = Duration::from_secs(60);
/// Longest time until it is looked again whether they are to be renewed: clocks may be set.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// Longest public key or certificate file, in bytes.
const LINE_MAX: usize = 16 * 1024;

impl Agent {
    /// Gets certificates for the host keys over `control`, and anew when two thirds of their life
    /// are over, until this future is dropped.
    pub(in crate::agent) async fn keep_host_certificates(self: Arc<Agent>, control: Arc<Control>) {
        let Some(logins) = self.logins.clone() else { return };
        if logins.host_keys.is_empty() {
            tracing::warn!("this machine has no host keys to certify: is sshd installed?");
            return;
        }
        loop {
            let (now, due) = (self.now(), Millis(logins.hosts_due.load(Ordering::Relaxed)));
            let pause = if now < due {
                due.since(now)
            } else {
                match certify(&logins, &control).await {
                    Ok(expires) => {
                        tracing::info!(%expires, "the site certified this machine's host keys");
                        let wait = expires.since(now) / 3 * 2;
                        logins.hosts_due.store(now.plus(wait).0, Ordering::Relaxed);
                        wait
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no certificates for the host keys");
                        PAUSE
                    }
                }
            };
            tokio::time::sleep(pause.clamp(PAUSE, LOOK_EVERY)).await;
        }
    }
}

/// Asks for certificates and writes them; when they expire.
async fn certify(logins: &Logins, control: &Control) -> Result<Millis, Error> {
    let keys: Result<Vec<String>, Error> =
        logins.host_keys.iter().take(HOST_KEYS_MAX).map(|p| read_key(p)).collect();
    let got = control.call(CertifyHost { keys: keys? }).await?;
    if got.certificates.len() != logins.host_keys.len().min(HOST_KEYS_MAX) {
        return Err(Error::unavailable("the core gave certificates for other keys"));
    }
    for (path, line) in logins.host_keys.iter().zip(&got.certificates) {
        let line = line.trim();
        if line.len() > LINE_MAX || line.contains(['\n', '\r']) || !line.contains("-cert-v01@") {
            return Err(Error::unavailable("what the core gave is no host certificate"));
        }
        keep::write_text(&logins.folder.join(file_name(path)), &format!("{line}\n"), 0o644)?;
    }
    Ok(got.expires)
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
