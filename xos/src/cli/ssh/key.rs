//! The OpenSSH key and certificate of a VO: `vo/<vo>/ssh_key`, `.pub` and `-cert.pub`, where
//! `ssh -i` and `ssh-add` look for them.

use crate::cli::home::Home;
use ssh_key::certificate::CertType;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{Algorithm, Certificate, HashAlg, LineEnding, PrivateKey};
use xos_api::cda::ssh_principal;
use xos_base::{Error, Membership, Millis, VoId};

/// The end of the file names, behind `vo/<vo>/`.
const KEY: &str = "ssh_key";
const PUBLIC: &str = "ssh_key.pub";
const CERTIFICATE: &str = "ssh_key-cert.pub";

fn file(vo: &VoId, name: &str) -> String {
    format!("vo/{vo}/{name}")
}

/// The private key's file, below the folder of keys.
pub fn key_file(vo: &VoId) -> String {
    file(vo, KEY)
}

/// The certificate's file, below the folder of keys.
pub fn certificate_file(vo: &VoId) -> String {
    file(vo, CERTIFICATE)
}

/// An Ed25519 key, made here; it never leaves this computer. A sign-in makes a new one; renewals
/// keep it, so that an ssh that starts meanwhile finds key and certificate together.
pub struct SshKey {
    key: PrivateKey,
}

fn broken(e: &ssh_key::Error) -> Error {
    Error::internal(format!("cannot write the SSH key: {e}"))
}

impl SshKey {
    /// A new key.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the system gives no random bytes.
    pub fn make() -> Result<SshKey, Error> {
        let mut seed = zeroize::Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(seed.as_mut_slice())
            .map_err(|_| Error::internal("the system gives no random bytes for an SSH key"))?;
        Ok(SshKey { key: PrivateKey::from(Ed25519Keypair::from_seed(&seed)) })
    }

    /// The key that is kept for `vo`; `None` when there is none that can be used.
    ///
    /// # Errors
    /// As [`Home::read_text`].
    pub fn kept(home: &Home, vo: &VoId) -> Result<Option<SshKey>, Error> {
        let Some(text) = home.read_text(&file(vo, KEY))? else { return Ok(None) };
        let usable = |k: &PrivateKey| !k.is_encrypted() && k.algorithm() == Algorithm::Ed25519;
        Ok(PrivateKey::from_openssh(text).ok().filter(usable).map(|key| SshKey { key }))
    }

    /// The public key, one line without a comment.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when it cannot be written as text.
    pub fn public(&self) -> Result<String, Error> {
        let line = self.key.public_key().to_openssh().map_err(|e| broken(&e))?;
        Ok(line.trim_end().to_owned())
    }

    /// Reads a certificate that was issued for this key and member.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unauthenticated`] when it is for another key or somebody else.
    pub fn certified(&self, line: &str, m: &Membership) -> Result<SshCertificate, Error> {
        let refuse = |why: &str| {
            Error::unauthenticated(format!("the SSH certificate for {} {why}", m.vo))
                .hint("tell the administrator of its home site")
        };
        let (certificate, read) =
            parse(line).ok_or_else(|| refuse("is none that OpenSSH would take"))?;
        if certificate.public_key() != self.key.public_key().key_data() {
            return Err(refuse("is for another key"));
        }
        if certificate.valid_principals() != [ssh_principal(&m.person, &m.vo)] {
            return Err(refuse("is for somebody else"));
        }
        Ok(read)
    }

    /// Keeps key and certificate; without one, an earlier one goes.
    ///
    /// # Errors
    /// As [`Home::write_text`].
    pub fn keep(
        &self,
        home: &Home,
        vo: &VoId,
        certificate: Option<&SshCertificate>,
    ) -> Result<(), Error> {
        let key = self.key.to_openssh(LineEnding::LF).map_err(|e| broken(&e))?;
        if home.read_text(&file(vo, KEY))?.as_deref() != Some(key.as_str()) {
            // A certificate never lies beside a key that is not its own.
            home.remove(&file(vo, CERTIFICATE))?;
            home.write_text(&file(vo, KEY), &key)?;
            home.write_text(&file(vo, PUBLIC), &format!("{} {vo}\n", self.public()?))?;
        }
        match certificate {
            Some(c) => home.write_text(&file(vo, CERTIFICATE), &format!("{}\n", c.line)),
            None => home.remove(&file(vo, CERTIFICATE)).map(|_| ()),
        }
    }
}

/// Removes what is kept for `vo`.
///
/// # Errors
/// As [`Home::remove`].
pub fn remove(home: &Home, vo: &VoId) -> Result<(), Error> {
    for name in [CERTIFICATE, KEY, PUBLIC] {
        home.remove(&file(vo, name))?;
    }
    Ok(())
}

/// An SSH certificate of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshCertificate {
    line: String,
    /// From when it counts, by the core's clock.
    pub since: Millis,
    /// When it expires.
    pub until: Millis,
    /// The fingerprint of its key, as `ssh-keygen -l` shows it.
    pub fingerprint: String,
}

impl SshCertificate {
    /// The certificate that is kept for `vo`; `None` when there is none that can be read.
    ///
    /// # Errors
    /// As [`Home::read_text`].
    pub fn read(home: &Home, vo: &VoId) -> Result<Option<SshCertificate>, Error> {
        let line = home.read_text(&file(vo, CERTIFICATE))?;
        Ok(line.and_then(|line| parse(&line)).map(|(_, read)| read))
    }
}

fn parse(line: &str) -> Option<(Certificate, SshCertificate)> {
    let line = line.trim_end();
    if line.chars().any(char::is_control) {
        return None;
    }
    let certificate = Certificate::from_openssh(line).ok()?;
    if certificate.cert_type() != CertType::User {
        return None;
    }
    let read = SshCertificate {
        line: line.to_owned(),
        since: Millis::from_secs(certificate.valid_after()),
        until: Millis::from_secs(certificate.valid_before()),
        fingerprint: certificate.public_key().fingerprint(HashAlg::Sha256).to_string(),
    };
    Some((certificate, read))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ssh_key::certificate::Builder;
    use std::os::unix::fs::PermissionsExt;
    use xos_base::membership::Group;
    use xos_base::{Epoch, GroupNumber, MemberNumber};

    fn vo() -> VoId {
        "demo.rennes".parse().unwrap()
    }

    fn alice() -> Membership {
        Membership {
            person: "alice@rennes".parse().unwrap(),
            vo: vo(),
            number: MemberNumber(2),
            epoch: Epoch(1),
            groups: vec![Group { name: "members".parse().unwrap(), number: GroupNumber(1) }],
            roles: vec![],
            expires: None,
        }
    }

    /// A certificate for `key`, by some authority.
    fn certificate(key: &SshKey, principal: &str, kind: CertType) -> String {
        let authority = SshKey::make().unwrap().key;
        let public = key.key.public_key().key_data().clone();
        let mut builder = Builder::new(vec![7_u8; 16], public, 1_000, 2_000).unwrap();
        builder.cert_type(kind).unwrap();
        builder.valid_principal(principal).unwrap();
        builder.sign(&authority).unwrap().to_openssh().unwrap()
    }

    /// If it failed, ssh would find no key, one that others can read, or one whose certificate is
    /// for another key.
    #[test]
    fn key_and_certificate_lie_where_ssh_looks() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(&dir.path().join("xos"));
        assert!(SshKey::kept(&home, &vo()).unwrap().is_none());
        let key = SshKey::make().unwrap();
        let line = certificate(&key, "alice@rennes/demo.rennes", CertType::User);
        let read = key.certified(&line, &alice()).unwrap();
        assert_eq!(read.until, Millis(2_000_000));
        key.keep(&home, &vo(), Some(&read)).unwrap();
        assert_eq!(SshCertificate::read(&home, &vo()).unwrap(), Some(read.clone()));
        let kept = SshKey::kept(&home, &vo()).unwrap().unwrap();
        assert_eq!(kept.public().unwrap(), key.public().unwrap());
        for name in [KEY, PUBLIC, CERTIFICATE] {
            let path = home.path().join(file(&vo(), name));
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        // A new key, for which no certificate came.
        SshKey::make().unwrap().keep(&home, &vo(), None).unwrap();
        assert_eq!(SshCertificate::read(&home, &vo()).unwrap(), None);
        remove(&home, &vo()).unwrap();
        assert!(!home.path().join("vo/demo.rennes").exists());
    }

    /// If it failed, a wrong answer would be kept and ssh would be refused everywhere without a
    /// word about why.
    #[test]
    fn a_certificate_for_another_key_or_person_is_refused() {
        let key = SshKey::make().unwrap();
        let principal = "alice@rennes/demo.rennes";
        let other = SshKey::make().unwrap();
        let good = certificate(&key, principal, CertType::User);
        for (line, why) in [
            (certificate(&other, principal, CertType::User), "another key"),
            (certificate(&key, "bob@rennes/demo.rennes", CertType::User), "somebody else"),
            (certificate(&key, principal, CertType::Host), "OpenSSH"),
            (format!("{good}\nssh-ed25519 AAAA"), "OpenSSH"),
            (key.public().unwrap(), "OpenSSH"),
            (String::new(), "OpenSSH"),
        ] {
            let e = key.certified(&line, &alice()).unwrap_err();
            assert!(e.message.contains(why), "{e}");
        }
    }
}
