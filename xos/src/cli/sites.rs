//! The sites that this person's computer knows.

use super::home::Home;
use serde::{Deserialize, Serialize};
use xos_api::site::SiteDescriptor;
use xos_base::{Error, SiteId};
use xos_net::Trust;
use xos_net::identity::descriptor_fingerprint;

const FILE: &str = "sites.json";
/// Most sites that are kept.
pub const SITES_MAX: usize = 1000;

/// `sites.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SiteBook {
    /// The sites, by id.
    #[serde(default)]
    pub sites: Vec<KnownSite>,
    /// The site of the last sign-in, or the first that was added.
    #[serde(default)]
    pub last: Option<SiteId>,
}

/// A site that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownSite {
    /// What it says about itself.
    pub descriptor: SiteDescriptor,
    /// The fingerprint of its root.
    pub fingerprint: String,
    /// The address at which the person added it: tried first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<String>,
    /// The site from which it was learned; absent when the person added it by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned_from: Option<SiteId>,
}

impl SiteBook {
    /// Reads the book; an empty one when there is none.
    ///
    /// # Errors
    /// As [`Home::read`].
    pub fn read(home: &Home) -> Result<SiteBook, Error> {
        Ok(home.read(FILE)?.unwrap_or_default())
    }

    /// Writes the book.
    ///
    /// # Errors
    /// As [`Home::write`].
    pub fn write(&self, home: &Home) -> Result<(), Error> {
        home.write(FILE, self)
    }

    /// A site.
    pub fn site(&self, site: &SiteId) -> Option<&KnownSite> {
        self.sites.iter().find(|s| s.descriptor.site == *site)
    }

    /// Takes a site up, or its new addresses and keys.
    ///
    /// # Errors
    /// [`xos_base::Kind::Conflict`] when the site is known by another root: only the person can
    /// say which one is right.
    pub fn learn(&mut self, new: KnownSite) -> Result<(), Error> {
        let id = new.descriptor.site.clone();
        if let Some(old) = self.sites.iter_mut().find(|s| s.descriptor.site == id) {
            if old.descriptor.root != new.descriptor.root {
                return Err(Error::conflict(format!(
                    "site {id} now shows another root certificate, {}, than the known one, {}",
                    new.fingerprint, old.fingerprint
                ))
                .hint(format!(
                    "ask its administrator; if the new one is right: `xos site forget {id} \
                     --local`, then `xos site add ADDRESS`"
                )));
            }
            old.descriptor = new.descriptor;
            if new.learned_from.is_none() {
                old.learned_from = None;
                old.reached = new.reached;
            }
            return Ok(());
        }
        if self.sites.len() >= SITES_MAX {
            return Err(Error::too_large(format!("{SITES_MAX} sites are known already"))
                .hint("remove some by `xos site forget SITE --local`"));
        }
        self.sites.push(new);
        self.sites.sort_by(|a, b| a.descriptor.site.cmp(&b.descriptor.site));
        self.last.get_or_insert(id);
        Ok(())
    }

    /// Takes a site up as another one, `from`, describes it.
    ///
    /// # Errors
    /// As [`SiteBook::learn`].
    pub fn learn_from(&mut self, from: &SiteId, descriptor: SiteDescriptor) -> Result<(), Error> {
        let fingerprint = descriptor_fingerprint(&descriptor.root)?;
        let learned_from = Some(from.clone());
        self.learn(KnownSite { descriptor, fingerprint, reached: None, learned_from })
    }

    /// A site's descriptor, the address that worked first.
    pub fn dialled(&self, site: &SiteId) -> Option<SiteDescriptor> {
        self.site(site).map(KnownSite::dialled)
    }

    /// Removes a site; whether it was known.
    pub fn forget(&mut self, site: &SiteId) -> bool {
        let before = self.sites.len();
        self.sites.retain(|s| s.descriptor.site != *site);
        if self.last.as_ref() == Some(site) {
            self.last = self.sites.first().map(|s| s.descriptor.site.clone());
        }
        self.sites.len() < before
    }

    /// The sites as TLS trusts them.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when the file was changed by hand.
    pub fn trust(&self) -> Result<Trust, Error> {
        let trust = Trust::new();
        for site in &self.sites {
            trust.add(site.dialled())?;
        }
        Ok(trust)
    }
}

impl KnownSite {
    /// The descriptor with the address that worked before the others.
    fn dialled(&self) -> SiteDescriptor {
        let mut descriptor = self.descriptor.clone();
        if let Some(reached) = &self.reached {
            descriptor.addresses.retain(|a| a != reached);
            descriptor.addresses.insert(0, reached.clone());
            descriptor.addresses.truncate(xos_api::site::DESCRIPTOR_LIST_MAX);
        }
        descriptor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(id: &str, root: &str, reached: Option<&str>) -> KnownSite {
        KnownSite {
            descriptor: SiteDescriptor {
                site: id.parse().unwrap(),
                addresses: vec!["10.0.0.1:7443".into()],
                root: root.into(),
                keys: String::new(),
                withdrawn: None,
            },
            fingerprint: descriptor_fingerprint(root).unwrap(),
            reached: reached.map(str::to_owned),
            learned_from: reached.is_none().then(|| "rennes".parse().unwrap()),
        }
    }

    #[test]
    fn a_root_once_known_is_never_replaced_silently() {
        // Otherwise one hostile site could take the place of another it lists.
        let mut book = SiteBook::default();
        book.learn(site("pisa", "AAAA", Some("pisa.example:7443"))).unwrap();
        let e = book.learn(site("pisa", "BBBB", None)).unwrap_err();
        assert_eq!(e.kind, xos_base::Kind::Conflict);
        assert_eq!(book.sites[0].descriptor.root, "AAAA");
    }

    #[test]
    fn what_was_learned_keeps_what_the_person_said() {
        let mut book = SiteBook::default();
        book.learn(site("pisa", "AAAA", Some("pisa.example:7443"))).unwrap();
        book.learn(site("pisa", "AAAA", None)).unwrap();
        let pisa = book.site(&"pisa".parse().unwrap()).unwrap();
        assert_eq!(pisa.learned_from, None);
        assert_eq!(pisa.dialled().addresses, ["pisa.example:7443", "10.0.0.1:7443"]);
        assert_eq!(book.last, Some("pisa".parse().unwrap()));
        assert!(book.forget(&"pisa".parse().unwrap()) && book.last.is_none());
    }
}
