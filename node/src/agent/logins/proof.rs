//! What an SSH certificate proves: that sshd let its holder in as this account, under which
//! membership. Decided without I/O.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ssh_key::certificate::CertType;
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{Certificate, HashAlg};
use xos_api::cda::{SSH_MEMBERSHIP, ssh_principal};
use xos_base::local::{Account, ssh_proof};
use xos_base::{Error, Membership, Millis};

/// The type of the keys by which sites sign.
pub(super) const KEY_TYPE: &str = "ssh-ed25519";

/// What was proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proved {
    /// The membership, perhaps narrowed.
    pub(super) membership: Membership,
    /// When the certificate ends.
    pub(super) until: Millis,
}

/// The certificate in sshd's `SSH_AUTH_INFO_0`; `None` when the person was asked by PAM.
///
/// # Errors
/// [`xos_base::Kind::Denied`] when it is malformed, or the person came by other means.
fn certificate(info: &str) -> Result<Option<Certificate>, Error> {
    let shown = ssh_proof(info).map_err(|why| Error::denied(why.to_string()))?;
    let Some(text) = shown else { return Ok(None) };
    Certificate::from_openssh(&text).map(Some).map_err(|_| refused("it is malformed"))
}

/// What the login at sshd proves of `account`; `None` when PAM asked for all of it. `keys`
/// sign certificates of people at the home site of the account's VO.
///
/// # Errors
/// [`xos_base::Kind::Denied`] with the reason.
pub(super) fn proved(
    info: &str,
    account: &Account,
    keys: &[[u8; 32]],
    now: Millis,
) -> Result<Option<Proved>, Error> {
    let Some(cert) = certificate(info)? else { return Ok(None) };
    let print =
        |key: &[u8; 32]| KeyData::Ed25519(Ed25519PublicKey(*key)).fingerprint(HashAlg::Sha256);
    let authorities: Vec<_> = keys.iter().map(print).collect();
    cert.validate_at(now.secs(), &authorities).map_err(|_| {
        refused("it is forged, not valid now, or signed by another site than the VO's home")
    })?;
    if cert.cert_type() != CertType::User {
        return Err(refused("it is not a person's"));
    }
    if !cert.critical_options().is_empty() {
        return Err(refused("it has options that are not known here"));
    }
    if cert.valid_principals() != [ssh_principal(&account.person, &account.vo)] {
        return Err(refused("it is another account's"));
    }
    let text = cert.extensions().get(SSH_MEMBERSHIP);
    let der = text.and_then(|t| STANDARD.decode(t).ok());
    let membership = der.and_then(|der| Membership::from_der(&der).ok());
    let membership = membership.ok_or_else(|| refused("it holds no membership"))?;
    let is_theirs = membership.vo == account.vo
        && membership.person == account.person
        && membership.number == account.number;
    if !is_theirs {
        return Err(refused("it holds another membership"));
    }
    if membership.epoch < account.epoch {
        return Err(refused("it is of before the membership was changed"));
    }
    Ok(Some(Proved { membership, until: Millis::from_secs(cert.valid_before()) }))
}

fn refused(why: &str) -> Error {
    Error::denied(format!("the SSH certificate is refused: {why}"))
        .hint("sign in again: `xos login`")
}

/// The line's middle of a public Ed25519 key as OpenSSH writes it (RFC 8709, RFC 4253): base64.
pub(super) fn key_text(key: &[u8; 32]) -> String {
    let kind = KEY_TYPE.as_bytes();
    let mut blob = Vec::with_capacity(8 + kind.len() + key.len());
    for part in [kind, key.as_slice()] {
        blob.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        blob.extend_from_slice(part);
    }
    STANDARD.encode(blob)
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
