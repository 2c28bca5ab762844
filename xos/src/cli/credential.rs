//! What a person holds for one VO, kept under `vo/<vo>/`: key and certificate for XOS
//! (`credential.json`), for OpenSSH ([`super::ssh::key`]), and a JWT ([`super::token`]).

use super::home::Home;
use super::ssh::key::{self, SshKey};
use super::token::{self, KeptJwt};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use xos_api::cda::{ANY_AUDIENCE, IssueCertificate, Submission};
use xos_base::{Error, GroupName, Membership, Millis, RoleName, VoId};
use xos_net::trust::{Subject, subject_of};
use xos_net::{Client, Identity, submission};

/// Shortest pause before a certificate that could not be renewed is tried again.
const RENEWAL_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest such pause, also after it has ended.
const RENEWAL_PAUSE_MAX: Duration = Duration::from_secs(600);

/// How much of a membership its credentials show, and whom the JWT is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Only these groups; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<GroupName>>,
    /// Only these roles; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<RoleName>>,
    /// The JWT's audience.
    pub audience: String,
}

impl Default for Wish {
    fn default() -> Wish {
        Wish { groups: None, roles: None, audience: ANY_AUDIENCE.to_owned() }
    }
}

impl Wish {
    /// Whether the credentials show less than the membership.
    pub fn narrows(&self) -> bool {
        self.groups.is_some() || self.roles.is_some()
    }

    /// Asks for a certificate of `key` alone.
    fn request(&self, vo: &VoId, key: &KeyPair) -> Result<IssueCertificate, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr_pem = params
            .serialize_request(key)
            .and_then(|r| r.pem())
            .map_err(|e| Error::internal(format!("cannot ask for a certificate: {e}")))?;
        Ok(IssueCertificate {
            vo: vo.clone(),
            csr_pem,
            ssh_key: None,
            jwt_audience: Some(self.audience.clone()),
            groups: self.groups.clone(),
            roles: self.roles.clone(),
        })
    }
}

fn new_key() -> Result<KeyPair, Error> {
    KeyPair::generate().map_err(|e| Error::internal(format!("cannot make a key: {e}")))
}

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
    /// What was asked for: a renewal asks for the same.
    #[serde(default)]
    pub wish: Wish,
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

    /// Removes all that is kept for `vo`; whether there was a credential.
    ///
    /// # Errors
    /// As [`Home::remove`].
    pub fn remove(home: &Home, vo: &VoId) -> Result<bool, Error> {
        token::remove(home, vo)?;
        key::remove(home, vo)?;
        home.remove(&file(vo))
    }

    /// Makes a key, has it and `ssh` certified by the VO's home, for which `client` is, and keeps
    /// all of it with a JWT.
    ///
    /// # Errors
    /// What the core says; [`xos_base::Kind::Unauthenticated`] when its answer is not for this
    /// VO and these keys.
    pub async fn issue(
        home: &Home,
        client: &Client,
        vo: &VoId,
        wish: &Wish,
        ssh: &SshKey,
        now: Millis,
    ) -> Result<Credential, Error> {
        let key = new_key()?;
        let mut ask = wish.request(vo, &key)?;
        ask.ssh_key = Some(ssh.public()?);
        let got = client.call(ask).await?;
        let credential = Credential {
            vo: vo.clone(),
            key_pem: key.serialize_pem(),
            chain_pem: got.chain_pem,
            issued: now,
            expires: got.expires,
            renewable_until: got.renewable_until,
            wish: wish.clone(),
        };
        // Refuses a certificate for another key or VO.
        let m = credential.membership()?;
        let certificate = got.ssh.map(|line| ssh.certified(&line, &m)).transpose()?;
        let jwt = got.jwt.map(|jwt| KeptJwt::of(jwt.token)).transpose()?;
        home.write(&file(vo), &credential)?;
        ssh.keep(home, vo, certificate.as_ref())?;
        match jwt {
            Some(jwt) => token::keep(home, vo, &jwt)?,
            None => token::remove(home, vo)?,
        }
        Ok(credential)
    }

    /// A JWT alone. The certificate that comes with it is for a key that is not kept.
    ///
    /// # Errors
    /// What the core says; [`xos_base::Kind::Unsupported`] when the VO's home gives none.
    pub async fn jwt(client: &Client, vo: &VoId, wish: &Wish) -> Result<KeptJwt, Error> {
        let got = client.call(wish.request(vo, &new_key()?)?).await?;
        let jwt = got.jwt.ok_or_else(|| {
            Error::unsupported(format!("the home site of {vo} gives no tokens of this kind"))
                .hint("ask its administrator")
        })?;
        KeptJwt::of(jwt.token)
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
            wish: Wish::default(),
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
