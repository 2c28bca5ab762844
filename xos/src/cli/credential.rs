//! A person's key and certificate for one VO, kept under `vo/<vo>/credential.json`.

use super::home::Home;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use xos_api::cda::{Certificate, IssueCertificate, Submission};
use xos_base::{Error, Membership, Millis, VoId};
use xos_net::trust::{Subject, subject_of};
use xos_net::{Client, Identity, submission};

/// Shortest pause before a certificate that could not be renewed is tried again.
const RENEWAL_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest such pause, also after it has ended.
const RENEWAL_PAUSE_MAX: Duration = Duration::from_secs(600);

/// Key and certificate, in one file so that they always belong together.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credential {
    /// The VO.
    pub vo: VoId,
    /// The private key, PKCS #8 in PEM; made here, never sent.
    pub key_pem: String,
    /// The certificate and the authority above it, PEM.
    pub chain_pem: String,
    /// When it was issued, by this computer's clock.
    pub issued: Millis,
    /// When it expires.
    pub expires: Millis,
    /// Until when it can be renewed without a new sign-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewable_until: Option<Millis>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({}, until {})", self.vo, self.expires)
    }
}

fn file(vo: &VoId) -> String {
    format!("vo/{vo}/credential.json")
}

impl Credential {
    /// The kept credential for `vo`; `None` when there is none.
    ///
    /// # Errors
    /// As [`Home::read`].
    pub fn read(home: &Home, vo: &VoId) -> Result<Option<Credential>, Error> {
        home.read(&file(vo))
    }

    /// Removes the kept credential; whether there was one.
    ///
    /// # Errors
    /// As [`Home::remove`].
    pub fn remove(home: &Home, vo: &VoId) -> Result<bool, Error> {
        home.remove(&file(vo))
    }

    /// Makes a key, has it certified by the VO's home, for which `client` is, and keeps both.
    ///
    /// # Errors
    /// What the core says; [`xos_base::Kind::Unauthenticated`] when its answer is not for this
    /// VO and key.
    pub async fn issue(
        home: &Home,
        client: &Client,
        vo: &VoId,
        now: Millis,
    ) -> Result<Credential, Error> {
        let fail = |e: rcgen::Error| Error::internal(format!("cannot make a key: {e}"));
        let key = KeyPair::generate().map_err(fail)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).and_then(|r| r.pem()).map_err(fail)?;
        let ask = IssueCertificate {
            vo: vo.clone(),
            csr_pem: request,
            ssh_key: None,
            jwt_audience: None,
            groups: None,
            roles: None,
        };
        let Certificate { chain_pem, expires, renewable_until, .. } = client.call(ask).await?;
        let credential = Credential {
            vo: vo.clone(),
            key_pem: key.serialize_pem(),
            chain_pem,
            issued: now,
            expires,
            renewable_until,
        };
        // Refuses a certificate for another key or VO.
        credential.membership()?;
        home.write(&file(vo), &credential)?;
        Ok(credential)
    }

    /// Whether it still works.
    pub fn is_valid(&self, now: Millis) -> bool {
        now < self.expires
    }

    /// Whether two thirds of its life are over, so that it is renewed when the chance comes.
    pub fn is_old(&self, now: Millis) -> bool {
        past_two_thirds(self.issued, self.expires, now)
    }

    /// When a new one is to be got: past two thirds of its life; when that was tried in vain just
    /// now, after a tenth of what is left.
    pub fn renewal(&self, now: Millis) -> Millis {
        if !self.is_old(now) {
            return self.issued.plus(self.expires.since(self.issued) * 2 / 3);
        }
        let pause = match self.is_valid(now) {
            true => self.expires.since(now) / 10,
            false => RENEWAL_PAUSE_MAX,
        };
        now.plus(pause.clamp(RENEWAL_PAUSE_MIN, RENEWAL_PAUSE_MAX))
    }

    /// For TLS.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when the file was changed by hand.
    pub fn identity(&self) -> Result<Identity, Error> {
        Identity::from_pem(&self.chain_pem, &self.key_pem)
    }

    /// What the certificate says about the person.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unauthenticated`] when it is not for a member of this VO.
    pub fn membership(&self) -> Result<Membership, Error> {
        let identity = self.identity()?;
        match identity.chain().first().map(subject_of).transpose()? {
            Some(Subject::Member(m)) if m.vo == self.vo => Ok(m),
            _ => Err(Error::unauthenticated(format!(
                "the certificate is not for a member of {}",
                self.vo
            ))
            .hint("sign in again with `xos login`")),
        }
    }

    /// Signs the person's word that a job is theirs.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when the file was changed by hand.
    pub fn sign(&self, word: &Submission) -> Result<String, Error> {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|e| Error::invalid(format!("the key for {} is damaged: {e}", self.vo)))?;
        submission::sign(word, self.identity()?.chain(), &key)
    }
}

/// Whether two thirds of the time from `issued` to `expires` are over.
pub fn past_two_thirds(issued: Millis, expires: Millis, now: Millis) -> bool {
    now.since(issued) >= expires.since(issued) * 2 / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_at_two_thirds() {
        // Too late, and people are signed out at night; too early, and each command renews.
        let (issued, expires) = (Millis(1000), Millis(4000));
        assert!(!past_two_thirds(issued, expires, Millis(2999)));
        assert!(past_two_thirds(issued, expires, Millis(3000)));
        assert!(past_two_thirds(issued, Millis(0), Millis(1000)));
    }

    /// If it failed, who waits for a long job would ask for a certificate all the time, or only
    /// when the present one has ended and no longer helps to get another.
    #[test]
    fn a_renewal_that_failed_is_tried_again_before_the_end() {
        let credential = Credential {
            vo: "demo.rennes".parse().unwrap(),
            key_pem: String::new(),
            chain_pem: String::new(),
            issued: Millis(0),
            expires: Millis(60_000),
            renewable_until: None,
        };
        let mut now = credential.renewal(Millis(5_000));
        assert_eq!(now, Millis(40_000));
        let mut tries = 0;
        while credential.is_valid(now) {
            (now, tries) = (credential.renewal(now), tries + 1);
        }
        assert!((5..30).contains(&tries), "{tries} tries in a third of its life");
        assert_eq!(credential.renewal(now), now.plus(RENEWAL_PAUSE_MAX));
    }
}
