//! Stand-in operations of the site's administrators.

use super::{Fake, id};
use std::sync::Arc;
use xos_api::Done;
use xos_api::cda::*;
use xos_api::site::{ConnectedNodes, SiteDescriptor};
use xos_api::vom::*;
use xos_base::{Error, LocalName, Millis, PersonId, VoId};
use xos_net::{Caller, Router};

const SINCE: Millis = Millis(1_790_000_000_000);

impl Fake {
    /// What only the site's administrators may; noted.
    fn administers<R: std::fmt::Debug>(&self, c: &Caller, r: &R) -> Result<(), Error> {
        self.is_site_admin(c)?;
        self.note(&c.person()?, r);
        Ok(())
    }

    /// A VO is stopped by the home site's administrator, or by its own.
    fn may_stop(&self, c: &Caller, vo: &VoId) -> Result<PersonId, Error> {
        if self.is_site_admin(c).is_ok() { c.person() } else { self.admin(c, vo) }
    }

    fn person_named(&self, person: PersonId) -> Person {
        let site_admin = person.name() == "ada";
        Person { disabled: false, site_admin, created: SINCE, person }
    }

    fn served(&self, vo: &str) -> ServedVo {
        let terms = |version| Terms {
            cpu_milli: 2000,
            memory_bytes: 4 << 30,
            storage_bytes: 1 << 30,
            until: None,
            version,
        };
        ServedVo {
            vo: id(vo),
            base: 1_879_048_192,
            size: 65_536,
            accepted: Some(terms(1)),
            offered: Some(terms(2)),
            serving: false,
            trouble: Some(self.t()),
        }
    }

    fn trusted(&self, site: &str) -> TrustedSite {
        let descriptor = SiteDescriptor {
            site: id(site),
            addresses: vec![self.t()],
            root: String::new(),
            keys: String::new(),
            withdrawn: None,
        };
        TrustedSite { descriptor, fingerprint: "ab12".into(), since: Some(SINCE) }
    }

    fn client(&self) -> Client {
        Client {
            id: "c1".into(),
            name: self.t(),
            confidential: true,
            redirects: vec![self.t()],
            device: true,
            scopes: vec![Scope::OpenId],
            audience: self.t(),
            introspect: false,
            created: SINCE,
        }
    }

    fn named(&self, name: LocalName, vo: VoId, person: PersonId) -> AccountName {
        AccountName { name, vo, person, used: true, since: SINCE, account: None, former: None }
    }

    pub(super) fn register_site(self: &Arc<Self>, router: &mut Router) {
        serve! { self, router:
            on |_: &Fake, c: Caller, _: WhoAmI| {
                let site_admin = c.site_admin();
                Ok(Whoami { caller: c.describe(), person: c.person().ok(), vo: None, site_admin })
            };
            on |f: &Fake, c: Caller, _: ServedVos| {
                f.is_site_admin(&c)?;
                Ok(vec![f.served("demo.rennes")])
            };
            on |f: &Fake, c: Caller, r: OfferShare| {
                f.administers(&c, &r)?;
                Ok(f.served("demo.rennes"))
            };
            on |f: &Fake, c: Caller, r: WithdrawShare| f.administers(&c, &r).map(|()| Done {});
            on |f: &Fake, c: Caller, r: SuspendVo| f.may_stop(&c, &r.vo).and_then(|p| f.noted(&p, &r));
            on |f: &Fake, c: Caller, r: ResumeVo| f.may_stop(&c, &r.vo).and_then(|p| f.noted(&p, &r));
            on |f: &Fake, _: Caller, _: ListSites| Ok(vec![f.trusted("pisa"), f.trusted("rennes")]);
            on |f: &Fake, c: Caller, r: OfferTrust| {
                f.administers(&c, &r)?;
                Ok(TrustOffer { offer: f.t(), fingerprint: f.t(), expires: SINCE })
            };
            on |f: &Fake, c: Caller, _: ReadOffer| {
                f.is_site_admin(&c)?;
                let (site, addresses) = (id("lyon"), vec![f.t()]);
                let fingerprint = "told-by-nobody".to_owned();
                Ok(OfferView { site, addresses, fingerprint, expires: SINCE })
            };
            on |f: &Fake, c: Caller, r: AcceptTrust| {
                f.administers(&c, &r)?;
                Ok(f.trusted("lyon"))
            };
            on |f: &Fake, c: Caller, r: ForgetSite| f.administers(&c, &r).map(|()| Done {});
        }
        self.register_people(router);
        self.register_machines(router);
    }

    fn register_people(self: &Arc<Self>, router: &mut Router) {
        serve! { self, router:
            on |f: &Fake, c: Caller, r: ListPeople| {
                f.is_site_admin(&c)?;
                let all = ["ada@rennes", "milo@rennes", "vera@rennes"].map(id::<PersonId>);
                let behind = |p: &PersonId| r.after.as_ref().is_none_or(|a| p.name() > a.name());
                let people = all.into_iter().filter(behind).map(|p| f.person_named(p)).collect();
                Ok(PeoplePage { people, next: None })
            };
            on |f: &Fake, c: Caller, r: CreatePerson| {
                f.administers(&c, &r)?;
                Ok(f.person_named(f.site.person(&r.name)?))
            };
            on |f: &Fake, c: Caller, r: SetPerson| {
                f.administers(&c, &r)?;
                Ok(f.person_named(r.person))
            };
            on |f: &Fake, c: Caller, r: RecoverPerson| {
                f.administers(&c, &r)?;
                let (code, address) = (OneTimeCode(f.t()), f.t());
                Ok(RecoveryCode { person: r.person, code, address, expires: SINCE })
            };
            on |f: &Fake, c: Caller, _: ListNames| {
                f.is_site_admin(&c)?;
                let name = f.named(id("milo"), id("demo.rennes"), id("milo@rennes"));
                Ok(NamePage { names: vec![name], next: None })
            };
            on |f: &Fake, c: Caller, r: GiveNames| {
                f.administers(&c, &r)?;
                Ok(Vec::<AccountName>::new())
            };
            on |f: &Fake, c: Caller, r: DropName| {
                f.administers(&c, &r)?;
                Ok(f.named(id("milo"), r.vo, r.person))
            };
            on |f: &Fake, c: Caller, r: ReleaseName| {
                f.administers(&c, &r)?;
                Ok(f.named(r.name, id("demo.rennes"), id("milo@rennes")))
            };
        }
    }

    fn register_machines(self: &Arc<Self>, router: &mut Router) {
        serve! { self, router:
            on |f: &Fake, c: Caller, _: ListMachines| {
                f.is_site_admin(&c)?;
                let machine = |node: &str| Machine {
                    node: id(node),
                    joined: SINCE,
                    certificate_until: Millis(1_900_000_000_000),
                    key: "ab12".into(),
                };
                Ok(vec![machine("n1.rennes"), machine("n2.rennes")])
            };
            on |f: &Fake, c: Caller, _: ConnectedNodes| {
                f.is_site_admin(&c)?;
                Ok(vec![id("n1.rennes")])
            };
            on |f: &Fake, c: Caller, r: CreateJoinToken| {
                f.administers(&c, &r)?;
                let (node, digits) = (f.site.node(&r.label)?, "0".repeat(64));
                let token = JoinToken { node: node.clone(), root: digits.clone(), secret: digits };
                Ok(JoinTokenView { node, token, expires: SINCE })
            };
            on |f: &Fake, c: Caller, r: RemoveNode| f.administers(&c, &r).map(|()| Done {});
            on |f: &Fake, c: Caller, _: ListClients| {
                f.is_site_admin(&c)?;
                Ok(vec![f.client()])
            };
            on |f: &Fake, c: Caller, r: CreateClient| {
                f.administers(&c, &r)?;
                Ok(CreatedClient { client: f.client(), secret: Some(Secret(f.t())) })
            };
            on |f: &Fake, c: Caller, r: RemoveClient| f.administers(&c, &r).map(|()| Done {});
        }
    }
}
