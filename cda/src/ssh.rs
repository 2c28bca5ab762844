//! SSH certificates of members and machines (OpenSSH's PROTOCOL.certkeys): what stands in them.
//! Signs, but does no I/O.

mod keys;

pub(crate) use keys::{host_key, person_key};

use crate::issue::{BACKDATE, random};
use crate::keys::Handle;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ssh_key::certificate::{Builder, CertType};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{Algorithm, Signature};
use std::sync::Arc;
use xos_api::cda::{SSH_MEMBERSHIP, ssh_principal};
use xos_base::{Error, Membership, Millis};
use xos_net::key::PrivateKey;

/// What a member's certificate permits. Not `permit-user-rc`: what sshd runs at a login is the
/// site's business.
const PERMITS: [&str; 4] =
    ["permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty"];

/// A key that signs SSH certificates: Ed25519.
pub(crate) struct SshSigner {
    key: Handle,
    public: Ed25519PublicKey,
}

impl SshSigner {
    /// Signs with `key`.
    pub(crate) fn new(key: Arc<dyn PrivateKey>) -> Result<SshSigner, Error> {
        let key = Handle::new(key);
        let public = ed25519(key.public())?;
        Ok(SshSigner { key, public })
    }

    /// The public key, base64, as [`xos_api::site::SiteKeys`] lists it.
    pub(crate) fn public(&self) -> String {
        STANDARD.encode(self.public.0)
    }
}

/// A public key, as [`PrivateKey::public`] gives it, for OpenSSH.
pub(crate) fn ed25519(public: &[u8]) -> Result<Ed25519PublicKey, Error> {
    let public: [u8; 32] = public
        .try_into()
        .map_err(|_| Error::internal("a key for SSH certificates has a wrong length"))?;
    Ok(Ed25519PublicKey(public))
}

impl From<&SshSigner> for KeyData {
    fn from(signer: &SshSigner) -> KeyData {
        KeyData::Ed25519(signer.public)
    }
}

impl signature::Signer<Signature> for SshSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Signature, signature::Error> {
        let raw = self.key.try_sign(message).ok_or_else(signature::Error::new)?;
        Ok(Signature::new(Algorithm::Ed25519, raw)?)
    }
}

/// A member's certificate for `key`, one line. `serial` is that of the XOS certificate beside it,
/// by which the logs of sshd and of the core find together.
pub(crate) fn member(
    signer: &SshSigner,
    m: &Membership,
    (key, serial): (KeyData, &str),
    span: (Millis, Millis),
) -> Result<String, Error> {
    let der = m.to_der().map_err(|e| Error::internal(e.to_string()))?;
    let mut extensions: Vec<_> = PERMITS.map(|name| (name, String::new())).to_vec();
    extensions.push((SSH_MEMBERSHIP, STANDARD.encode(der)));
    let id = format!("{} {} {serial}", m.person, m.vo);
    let principals = vec![ssh_principal(&m.person, &m.vo)];
    sign(signer, Content { kind: CertType::User, key, id, principals, extensions }, span)
}

/// A machine's certificate for `key`, one line.
pub(crate) fn machine(
    signer: &SshSigner,
    principals: &[String],
    key: KeyData,
    span: (Millis, Millis),
) -> Result<String, Error> {
    let id = principals.first().cloned().unwrap_or_default();
    let (principals, extensions) = (principals.to_vec(), Vec::new());
    sign(signer, Content { kind: CertType::Host, key, id, principals, extensions }, span)
}

struct Content {
    kind: CertType,
    key: KeyData,
    /// What sshd logs.
    id: String,
    /// Never empty: that would be everybody, and is refused.
    principals: Vec<String>,
    extensions: Vec<(&'static str, String)>,
}

fn sign(
    signer: &SshSigner,
    content: Content,
    (now, until): (Millis, Millis),
) -> Result<String, Error> {
    let (nonce, serial) = (random::<32>()?, u64::from_be_bytes(random::<8>()?));
    let from = now.minus(BACKDATE).secs();
    let make = || -> ssh_key::Result<String> {
        let mut builder = Builder::new(nonce, content.key, from, until.secs())?;
        builder.serial(serial)?.cert_type(content.kind)?.key_id(content.id)?;
        for principal in content.principals {
            builder.valid_principal(principal)?;
        }
        for (name, data) in content.extensions {
            builder.extension(name, data)?;
        }
        builder.sign(signer)?.to_openssh()
    };
    make().map_err(|e| {
        signer.key.failure(Error::internal(format!("cannot sign an SSH certificate: {e}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_net::key::{KeyKind, LocalKey};

    /// If it failed, one certificate would open every account, and name every machine.
    #[test]
    fn a_certificate_for_nobody_is_not_made() {
        let der = LocalKey::generate(KeyKind::Ed25519).unwrap();
        let key = LocalKey::from_pkcs8(KeyKind::Ed25519, &der).unwrap();
        let signer = SshSigner::new(Arc::new(key)).unwrap();
        let key = KeyData::from(&signer);
        let span = (Millis::from_secs(1_000_000), Millis::from_secs(2_000_000));
        let e = machine(&signer, &[], key.clone(), span).unwrap_err();
        assert!(e.message.contains("cannot sign"), "{e}");
        machine(&signer, &["n1.rennes".into()], key, span).unwrap();
    }
}
