//! A trusted site as its descriptor tells of it: what the root vouched for, and what was withdrawn.

use crate::sign::{Kind, verify_vouched, verify_with};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use std::collections::HashSet;
use std::sync::Arc;
use xos_api::site::{
    DESCRIPTOR_LIST_MAX, LOG_KEYS_MAX, SiteDescriptor, WITHDRAWN_MAX, WithdrawnKeys,
};
use xos_base::{Error, Millis, SiteId};

#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) descriptor: SiteDescriptor,
    pub(crate) root: CertificateDer<'static>,
    pub(crate) anchor: TrustAnchor<'static>,
    pub(crate) keys: Arc<Vec<[u8; 32]>>,
    pub(crate) ssh: Arc<SshKeys>,
    /// Signing keys of which only entries of VO logs and heads of the audit still count.
    pub(crate) logs: Arc<Vec<[u8; 32]>>,
    /// Fingerprints of the keys of authorities whose certificates count no more.
    pub(crate) refused: Arc<HashSet<String>>,
    keys_issued: Millis,
    withdrawn: Withdrawn,
}

/// The keys by which a site signs SSH certificates, each of Ed25519, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshKeys {
    /// Of people: members of VOs homed there.
    pub people: Vec<[u8; 32]>,
    /// Of its machines.
    pub machines: Vec<[u8; 32]>,
}

#[derive(Clone, Default)]
struct Withdrawn {
    keys: Arc<HashSet<String>>,
    issued: Millis,
}

fn bad(what: &str) -> Error {
    Error::invalid(format!("site descriptor: {what}"))
}

impl Site {
    /// Reads a descriptor: its root vouches for its keys, and one of them for what is withdrawn.
    pub(crate) fn parse(descriptor: SiteDescriptor) -> Result<Site, Error> {
        if descriptor.addresses.len() > DESCRIPTOR_LIST_MAX {
            return Err(bad("too many addresses"));
        }
        let root = STANDARD.decode(&descriptor.root).map_err(|_| bad("the root is no base64"))?;
        let root = CertificateDer::from(root);
        let anchor = webpki::anchor_from_trusted_cert(&root)
            .map_err(|e| bad(&format!("the root is no certificate: {e}")))?
            .to_owned();
        let said = verify_vouched(&descriptor.keys, &root)
            .map_err(|e| bad(&format!("its root does not vouch for its keys: {e}")))?;
        if said.site != descriptor.site {
            return Err(bad("its keys are another site's"));
        }
        if said.keys.is_empty() {
            return Err(bad("no keys"));
        }
        let keys = Arc::new(read_keys(&said.keys)?);
        let ssh = Arc::new(SshKeys {
            people: read_keys(&said.ssh_people)?,
            machines: read_keys(&said.ssh_machines)?,
        });
        if said.logs.len() > LOG_KEYS_MAX || said.refused.len() > DESCRIPTOR_LIST_MAX {
            return Err(bad("too many keys"));
        }
        let logs = said.logs.iter().map(|k| key(k)).collect::<Result<Vec<_>, _>>()?;
        if !said.refused.iter().all(|k| is_fingerprint(k)) {
            return Err(bad("an authority that it refuses is no fingerprint"));
        }
        let withdrawn = match &descriptor.withdrawn {
            None => Withdrawn::default(),
            Some(jws) => Withdrawn::read(jws, &descriptor.site, &keys)?,
        };
        Ok(Site {
            keys,
            ssh,
            logs: Arc::new(logs),
            refused: Arc::new(said.refused.into_iter().collect()),
            keys_issued: said.issued,
            withdrawn,
            descriptor,
            root,
            anchor,
        })
    }

    /// This site in place of `former`: of what is signed, the later word counts, so that nobody
    /// brings back an old key, or one that was withdrawn, by showing an old descriptor.
    ///
    /// A descriptor with another root stands for itself.
    pub(crate) fn after(mut self, former: &Site) -> Result<Site, Error> {
        if former.root != self.root {
            return Ok(self);
        }
        if former.keys_issued > self.keys_issued {
            self.descriptor.keys = former.descriptor.keys.clone();
        }
        if former.withdrawn.issued > self.withdrawn.issued {
            self.descriptor.withdrawn = former.descriptor.withdrawn.clone();
        }
        // Whole again: what was withdrawn must be signed by a key that counts now.
        Site::parse(self.descriptor)
    }

    /// Whether it refuses an authority that it did not refuse before.
    pub(crate) fn refuses_more_than(&self, former: &Site) -> bool {
        !self.refused.is_subset(&former.refused)
    }

    /// Whether the site withdrew this key of a node of its own.
    pub(crate) fn withdrew(&self, fingerprint: &str) -> bool {
        self.withdrawn.keys.contains(fingerprint)
    }

    /// When the later of its signed words was said.
    pub(crate) fn said(&self) -> Millis {
        self.keys_issued.max(self.withdrawn.issued)
    }
}

fn read_keys(texts: &[String]) -> Result<Vec<[u8; 32]>, Error> {
    if texts.len() > DESCRIPTOR_LIST_MAX {
        return Err(bad("too many keys"));
    }
    texts.iter().map(|k| key(k)).collect()
}

fn key(text: &str) -> Result<[u8; 32], Error> {
    let raw = STANDARD.decode(text).map_err(|_| bad("a key is no base64"))?;
    raw.try_into().map_err(|_| bad("a key is not 32 bytes long"))
}

/// Whether a text is SHA-256 in lower-case hex.
fn is_fingerprint(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl Withdrawn {
    fn read(jws: &str, site: &SiteId, keys: &[[u8; 32]]) -> Result<Withdrawn, Error> {
        let said =
            keys.iter().find_map(|k| verify_with::<WithdrawnKeys>(Kind::Withdrawn, jws, k).ok());
        let said =
            said.ok_or_else(|| bad("its list of withdrawn keys is not signed by its key"))?;
        if said.site != *site {
            return Err(bad("its list of withdrawn keys is another site's"));
        }
        if said.keys.len() > WITHDRAWN_MAX {
            return Err(bad(&format!("more than {WITHDRAWN_MAX} withdrawn keys")));
        }
        if !said.keys.iter().all(|k| is_fingerprint(&k.key)) {
            return Err(bad("a withdrawn key is no fingerprint"));
        }
        let keys = said.keys.into_iter().map(|k| k.key).collect();
        Ok(Withdrawn { keys: Arc::new(keys), issued: said.issued })
    }
}
