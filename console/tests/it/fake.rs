//! Stand-in operations: enough of a core for the console's pages.

/// Serves requests, each by a function of the stand-in, of who asks and of the request: `on` those
/// of callers, `public` those of anybody.
macro_rules! serve {
    ($fake:expr, $router:ident: $($how:ident $f:expr;)*) => {$({
        let fake = $fake.clone();
        $router.$how(move |who, r| {
            let fake = fake.clone();
            async move { $f(&fake, who, r) }
        });
    })*};
}

pub mod clusters;
pub mod enrolment;
mod jobs;
pub mod kerberos;
pub mod oidc;
pub mod passkeys;
pub mod provider;
mod rules;
mod sign_in;
mod site;
mod vo;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use xos_api::aem::*;
use xos_api::cda::*;
use xos_api::policy::RuleList;
use xos_api::vom::*;
use xos_api::{Done, Request};
use xos_base::when::Clock;
use xos_base::{Error, Membership, Millis, PersonId, SiteId};
use xos_net::sign::Signer;
use xos_net::{Caller, Peer, Router, Standing};

/// Knows vera (owner of `demo.rennes`), milo (its member), nina (of nothing) and ada (administrator
/// of the site).
pub struct Fake {
    pub site: SiteId,
    clock: Arc<dyn Clock>,
    signer: Arc<Signer>,
    /// What every text that people write reads.
    pub text: String,
    /// What was changed, by whom: `vera@rennes SuspendMember{..}`.
    pub done: Mutex<Vec<String>>,
    /// Where sign-ins came from.
    pub peers: Mutex<Vec<Peer>>,
    pub open_registration: AtomicBool,
    /// The site takes no passwords.
    pub no_passwords: AtomicBool,
    /// There is the identity provider `uni`.
    pub provider: AtomicBool,
    /// The site takes passkeys, made for the host of the tests.
    pub passkeys: AtomicBool,
    /// A passkey is wanted after a password.
    pub second_factor: AtomicBool,
    /// An administrator recovered everybody's access.
    pub recovered: AtomicBool,
    /// Takes Kerberos tickets.
    pub kerberos: AtomicBool,
    /// Answers sign-ins with Limited.
    pub limited: AtomicBool,
    /// Answers renewals with Denied.
    pub disabled: AtomicBool,
    /// Issues no tokens of members.
    pub suspended: AtomicBool,
    /// The version of the terms of use in force.
    pub terms_version: AtomicU32,
    /// Somebody left but one of the questions to applicants.
    pub fewer_questions: AtomicBool,
    pub epoch: AtomicU64,
    pub issued: AtomicU32,
    pub renewed: AtomicU32,
    /// What unit 0 wrote to standard output.
    pub output: Mutex<Vec<u8>>,
    /// The rules of the VO.
    pub rules: Mutex<RuleList>,
    /// The rules of the site.
    pub site_rules: Mutex<RuleList>,
}

impl Standing for Fake {
    fn effective(&self, m: &Membership, _: Millis) -> Result<Membership, Error> {
        if m.epoch.0 < self.epoch.load(Ordering::SeqCst) {
            return Err(Error::unauthenticated("the membership changed"));
        }
        Ok(m.clone())
    }
}

pub fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

impl Fake {
    pub fn new(site: SiteId, text: &str, clock: Arc<dyn Clock>, signer: Arc<Signer>) -> Fake {
        Fake {
            site,
            clock,
            signer,
            text: text.to_owned(),
            done: Mutex::default(),
            peers: Mutex::default(),
            open_registration: AtomicBool::new(false),
            no_passwords: AtomicBool::new(false),
            provider: AtomicBool::new(false),
            passkeys: AtomicBool::new(false),
            second_factor: AtomicBool::new(false),
            recovered: AtomicBool::new(false),
            kerberos: AtomicBool::new(false),
            limited: AtomicBool::new(false),
            disabled: AtomicBool::new(false),
            suspended: AtomicBool::new(false),
            terms_version: AtomicU32::new(3),
            fewer_questions: AtomicBool::new(false),
            epoch: AtomicU64::new(1),
            issued: AtomicU32::new(0),
            renewed: AtomicU32::new(0),
            output: Mutex::new(text.as_bytes().to_vec()),
            rules: rules::rules(text),
            site_rules: rules::rules(text),
        }
    }

    pub fn t(&self) -> String {
        self.text.clone()
    }

    /// What an administrator may do; noted.
    fn change<R: Request + std::fmt::Debug>(&self, caller: &Caller, r: &R) -> Result<(), Error> {
        let person = caller.person()?;
        if person.name() != "vera" {
            return Err(Error::denied(format!("{person} may not do this in the VO"))
                .hint("that takes an administrator of the VO or an owner of the VO"));
        }
        self.note(&person, r);
        Ok(())
    }

    fn note<R: std::fmt::Debug>(&self, person: &PersonId, r: &R) {
        self.done.lock().unwrap().push(format!("{person} {r:?}"));
    }

    fn register_changes(self: &Arc<Self>, router: &mut Router) {
        macro_rules! changes {
            ($($t:ty),*) => {$(
                let fake = self.clone();
                router.on(move |caller, r: $t| {
                    let fake = fake.clone();
                    async move { fake.change(&caller, &r).map(|()| Done {}) }
                });
            )*};
        }
        changes!(
            Reject,
            SuspendMember,
            ResumeMember,
            RemoveMember,
            GrantRole,
            WithdrawRole,
            DeleteGroup,
            AddToGroup,
            RemoveFromGroup,
            RefuseShare
        );
        serve! { self, router:
            on |f: &Fake, c: Caller, r: Apply| {
                f.note(&c.person()?, &r);
                Ok(Done {})
            };
            on |f: &Fake, c: Caller, r: WithdrawApplication| {
                f.note(&c.person()?, &r);
                Ok(Done {})
            };
        }
    }

    /// Registers everything but clusters, which a site need not have.
    pub fn register(self: &Arc<Self>, router: &mut Router) {
        serve! { self, router:
            on |f: &Fake, c: Caller, _: RenewToken| f.renew(&c);
            on |f: &Fake, c: Caller, r: IssueToken| f.issue(&c, &r);
            on |f: &Fake, c: Caller, _: Memberships| f.memberships(&c);
            on |f: &Fake, c: Caller, r: GetVo| f.info(&c.person()?, &r);
            on |f: &Fake, c: Caller, r: ListMembers| f.members(&c, &r);
            on |f: &Fake, _: Caller, r: GetMember| f.member(&r.person)
                .ok_or_else(|| Error::not_found("no such member"));
            on |f: &Fake, c: Caller, r: ListApplications| f.applications(&c, &r);
            on |f: &Fake, c: Caller, r: Approve| {
                f.change(&c, &r)?;
                f.member(&id("milo@rennes")).ok_or_else(|| Error::internal("milo"))
            };
            on |f: &Fake, _: Caller, _: ListGroups| {
                Ok(GroupPage { groups: f.groups(), next: None })
            };
            on |f: &Fake, c: Caller, r: CreateGroup| {
                f.change(&c, &r)?;
                Ok(f.groups().remove(2))
            };
            on |f: &Fake, _: Caller, _: ListShares| Ok(f.shares());
            on |f: &Fake, c: Caller, r: AcceptShare| {
                f.change(&c, &r)?;
                Ok(f.shares().remove(0))
            };
            on |f: &Fake, c: Caller, _: ListJobs| f.jobs(&c);
            on |f: &Fake, c: Caller, r: GetJob| f.job(&c, &r.job);
            on |f: &Fake, c: Caller, r: ListUnits| f.units(&c, &r.job);
            on |f: &Fake, c: Caller, _: WhyJob| {
                c.member()?;
                Ok(Reasons { reasons: f.reasons(), tries: Vec::new() })
            };
            on |f: &Fake, c: Caller, r: WhyLogin| {
                c.person()?;
                let well = WhyStep::ok(WhyPlace::Home, "VO", r.vo.to_string());
                let bad = WhyStep::failed(WhyPlace::Node, &f.text, &f.text).hint(&f.text);
                Ok(WhyAnswer { steps: vec![well, bad] })
            };
            on |f: &Fake, c: Caller, r: ReadOutput| { c.member()?; f.read(&r) };
            on |f: &Fake, c: Caller, r: CancelJob| {
                f.note(&c.member()?.person, &r);
                Ok(Cancelled { units: 2 })
            };
            on |f: &Fake, c: Caller, r: SubmitJob| {
                f.note(&c.member()?.person, &r);
                Ok(Submitted { job: id("7.rennes") })
            };
        }
        self.register_changes(router);
        self.register_public(router);
        self.register_oidc(router);
        self.register_passkeys(router);
        self.register_kerberos(router);
        self.register_provider(router);
        self.register_enrolment(router);
        self.register_rules(router);
        self.register_site(router);
        let fake = self.clone();
        router.stream(move |caller: Caller, r: WatchJob| {
            let fake = fake.clone();
            async move { fake.watch(&caller, &r) }
        });
    }

    fn register_public(self: &Arc<Self>, router: &mut Router) {
        let fake = self.clone();
        router.public(move |peer, r: FirstStep| {
            let fake = fake.clone();
            async move { fake.first_step(peer, &r) }
        });
        let fake = self.clone();
        router.public(move |_, _: SignInOptions| {
            let fake = fake.clone();
            async move { Ok(fake.rules()) }
        });
        let fake = self.clone();
        router.public(move |_, r: Register| {
            let fake = fake.clone();
            async move {
                let person = fake.site.person(&r.name)?;
                fake.note(&person, &r);
                let created = fake.clock.now();
                Ok(Person { person, site_admin: false, disabled: false, created })
            }
        });
        let fake = self.clone();
        router.public(move |_, _: ListVos| {
            let fake = fake.clone();
            async move {
                let vo = |v: &str| VoSummary { vo: id(v), title: fake.t(), description: fake.t() };
                Ok(VoPage { vos: vec![vo("demo.rennes"), vo("open.rennes")], next: None })
            }
        });
    }
}
