//! Stand-in operations: enough of a core for the console's pages.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use xos_api::aem::*;
use xos_api::cda::*;
use xos_api::vom::*;
use xos_api::{Done, Request};
use xos_base::membership::Group;
use xos_base::when::Clock;
use xos_base::{
    Epoch, Error, GroupName, GroupNumber, MemberNumber, Membership, Millis, PersonId, SiteId,
};
use xos_net::caller::TokenClaims;
use xos_net::sign::{Kind, Signer};
use xos_net::{Caller, Peer, Router, Standing};

const TOKEN_S: u64 = 900;

/// Knows vera (owner of `demo.rennes`), milo (its member) and nina (of nothing).
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
    /// Answers sign-ins with Limited.
    pub limited: AtomicBool,
    /// Answers renewals with Denied.
    pub disabled: AtomicBool,
    /// Issues no tokens of members.
    pub suspended: AtomicBool,
    pub epoch: AtomicU64,
    pub issued: AtomicU32,
    pub renewed: AtomicU32,
    /// What unit 0 wrote to standard output.
    pub output: Mutex<Vec<u8>>,
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
            limited: AtomicBool::new(false),
            disabled: AtomicBool::new(false),
            suspended: AtomicBool::new(false),
            epoch: AtomicU64::new(1),
            issued: AtomicU32::new(0),
            renewed: AtomicU32::new(0),
            output: Mutex::new(text.as_bytes().to_vec()),
        }
    }

    pub fn t(&self) -> String {
        self.text.clone()
    }

    fn claims(&self, person: &PersonId) -> TokenClaims {
        let now = self.clock.now().secs();
        let value = serde_json::json!({
            "iss": self.site, "sub": person, "aud": self.site, "iat": now, "exp": now + TOKEN_S,
            "jti": "1", "auth_time": now,
        });
        serde_json::from_value(value).unwrap()
    }

    fn seal(&self, claims: TokenClaims) -> Token {
        Token {
            token: self.signer.sign(Kind::Token, &claims).unwrap(),
            audience: claims.aud,
            expires: Millis::from_secs(claims.exp),
        }
    }

    fn session(&self, person: &PersonId) -> SignedIn {
        SignedIn {
            person: person.clone(),
            token: self.seal(self.claims(person)),
            session_until: self.clock.now().plus(Duration::from_secs(24 * 3600)),
            site_admin: false,
            memberships: None,
        }
    }

    fn member(&self, person: &PersonId) -> Option<MemberInfo> {
        let (number, roles) = match person.name() {
            "vera" => (1, vec![id("owner")]),
            "milo" => (2, vec![]),
            "susi" => (3, vec![]),
            _ => return None,
        };
        let state = match person.name() {
            "susi" => MemberState::Suspended { reason: self.t() },
            _ => MemberState::Active,
        };
        Some(MemberInfo {
            person: person.clone(),
            number: MemberNumber(number),
            epoch: Epoch(1),
            groups: vec![id("members"), id("physics")],
            roles,
            since: Millis(1_700_000_000_000),
            expires: (number == 2).then_some(Millis(1_900_000_000_000)),
            state,
        })
    }

    fn info(&self, person: &PersonId, r: &GetVo) -> Result<VoInfo, Error> {
        let application = Application {
            person: person.clone(),
            message: self.t(),
            since: Millis(1_790_000_000_000),
        };
        let summary = VoSummary { vo: r.vo.clone(), title: self.t(), description: self.t() };
        let state = VoState::Active;
        match r.vo.as_str() {
            "demo.rennes" => {
                let me = self.member(person);
                let details = me.is_some().then(|| self.details());
                Ok(VoInfo { summary, state, me, application: None, details })
            }
            "open.rennes" => {
                let applied = (person.name() == "milo").then_some(application);
                Ok(VoInfo { summary, state, me: None, application: applied, details: None })
            }
            other => Err(Error::not_found(format!("no VO {other}"))),
        }
    }

    fn details(&self) -> VoDetails {
        VoDetails {
            founded: Millis(1_700_000_000_000),
            members: 3,
            applications: 1,
            groups: self.groups(),
            volumes: vec!["home".into()],
            shares: self.shares(),
            number: 9,
        }
    }

    fn groups(&self) -> Vec<GroupInfo> {
        let group = |(name, number, members): (&str, u32, u64)| GroupInfo {
            name: id(name),
            number: GroupNumber(number),
            members,
        };
        [("members", 1, 3), ("physics", 2, 2), ("press", 3, 0)].map(group).to_vec()
    }

    fn shares(&self) -> Vec<ShareInfo> {
        let terms = Terms {
            cpu_milli: 8000,
            memory_bytes: 16 << 30,
            storage_bytes: 1 << 40,
            until: None,
            version: 1,
        };
        let offered = Terms { version: 2, until: Some(Millis(1_900_000_000_000)), ..terms.clone() };
        vec![
            ShareInfo {
                site: self.site.clone(),
                state: ShareState::Accepted,
                accepted: Some(terms),
                offered: None,
                reason: None,
            },
            ShareInfo {
                site: id("pisa"),
                state: ShareState::Offered,
                accepted: None,
                offered: Some(offered),
                reason: Some(self.t()),
            },
        ]
    }

    /// What an administrator may do; noted.
    fn change<R: Request + std::fmt::Debug>(&self, caller: &Caller, r: &R) -> Result<(), Error> {
        let person = caller.person()?;
        if person.name() != "vera" {
            return Err(Error::denied(format!("{person} may not do this in the VO"))
                .hint("it takes one of: admin, owner"));
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
        let ask = self.clone();
        router.on(move |caller: Caller, r: Apply| {
            let fake = ask.clone();
            async move {
                fake.note(&caller.person()?, &r);
                Ok(Done {})
            }
        });
        let ask = self.clone();
        router.on(move |caller: Caller, r: WithdrawApplication| {
            let fake = ask.clone();
            async move {
                fake.note(&caller.person()?, &r);
                Ok(Done {})
            }
        });
    }

    /// Registers everything.
    pub fn register(self: &Arc<Self>, router: &mut Router) {
        macro_rules! on {
            ($($f:expr;)*) => {$({
                let fake = self.clone();
                router.on(move |caller, r| {
                    let fake = fake.clone();
                    async move { $f(&fake, caller, r) }
                });
            })*};
        }
        on! {
            |f: &Fake, c: Caller, _: RenewToken| f.renew(&c);
            |f: &Fake, c: Caller, r: IssueToken| f.issue(&c, &r);
            |f: &Fake, c: Caller, _: Memberships| f.memberships(&c);
            |f: &Fake, c: Caller, r: GetVo| f.info(&c.person()?, &r);
            |f: &Fake, c: Caller, r: ListMembers| f.members(&c, &r);
            |f: &Fake, _: Caller, r: GetMember| f.member(&r.person)
                .ok_or_else(|| Error::not_found("no such member"));
            |f: &Fake, c: Caller, r: ListApplications| f.applications(&c, &r);
            |f: &Fake, c: Caller, r: Approve| {
                f.change(&c, &r)?;
                f.member(&id("milo@rennes")).ok_or_else(|| Error::internal("milo"))
            };
            |f: &Fake, _: Caller, _: ListGroups| Ok(GroupPage { groups: f.groups(), next: None });
            |f: &Fake, c: Caller, r: CreateGroup| {
                f.change(&c, &r)?;
                Ok(f.groups().remove(2))
            };
            |f: &Fake, _: Caller, _: ListShares| Ok(f.shares());
            |f: &Fake, c: Caller, r: AcceptShare| {
                f.change(&c, &r)?;
                Ok(f.shares().remove(0))
            };
            |f: &Fake, c: Caller, _: ListJobs| f.jobs(&c);
            |f: &Fake, c: Caller, r: GetJob| f.job(&c, &r.job);
            |f: &Fake, c: Caller, r: ListUnits| f.units(&c, &r.job);
            |f: &Fake, c: Caller, _: WhyJob| { c.member()?; Ok(Reasons { reasons: f.reasons() }) };
            |f: &Fake, c: Caller, r: ReadOutput| { c.member()?; f.read(&r) };
            |f: &Fake, c: Caller, r: CancelJob| {
                f.note(&c.member()?.person, &r);
                Ok(Cancelled { units: 2 })
            };
            |f: &Fake, c: Caller, r: SubmitJob| {
                f.note(&c.member()?.person, &r);
                Ok(Submitted { job: id("7.rennes") })
            };
        }
        self.register_changes(router);
        self.register_public(router);
        let fake = self.clone();
        router.stream(move |caller: Caller, r: WatchJob| {
            let fake = fake.clone();
            async move { fake.watch(&caller, &r) }
        });
    }

    fn register_public(self: &Arc<Self>, router: &mut Router) {
        let fake = self.clone();
        router.public(move |peer, r: SignIn| {
            let fake = fake.clone();
            async move { fake.sign_in(peer, &r) }
        });
        let fake = self.clone();
        router.public(move |_, _: SignInOptions| {
            let fake = fake.clone();
            async move {
                let open_registration = fake.open_registration.load(Ordering::SeqCst);
                Ok(SignInRules { site: fake.site.clone(), open_registration })
            }
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

    fn sign_in(&self, peer: Peer, r: &SignIn) -> Result<SignedIn, Error> {
        self.peers.lock().unwrap().push(peer);
        if self.limited.load(Ordering::SeqCst) {
            return Err(Error::limited("too many attempts to sign in").hint("try again in 30 s"));
        }
        if r.password.0 != "right horse" {
            return Err(Error::unauthenticated("wrong name or password"));
        }
        Ok(self.session(&self.site.person(&r.user)?))
    }

    fn renew(&self, caller: &Caller) -> Result<SignedIn, Error> {
        if self.disabled.load(Ordering::SeqCst) {
            return Err(Error::denied("this person may not sign in"));
        }
        assert!(caller.signed_in().is_some(), "a member's token renews nothing");
        self.renewed.fetch_add(1, Ordering::SeqCst);
        Ok(self.session(&caller.person()?))
    }

    fn issue(&self, caller: &Caller, r: &IssueToken) -> Result<Token, Error> {
        assert_eq!(r.audience.as_ref(), Some(&self.site), "a token for another core");
        let person = caller.person()?;
        if self.suspended.load(Ordering::SeqCst) {
            return Err(Error::denied(format!("{person} is suspended")));
        }
        let member = self.member(&person).filter(|_| r.vo.as_str() == "demo.rennes");
        let info = member.ok_or_else(|| Error::denied(format!("{person} is no member")))?;
        self.issued.fetch_add(1, Ordering::SeqCst);
        let group = |name: &GroupName| Group { name: name.clone(), number: GroupNumber(1) };
        let m = Membership {
            vo: r.vo.clone(),
            person: person.clone(),
            number: info.number,
            epoch: Epoch(self.epoch.load(Ordering::SeqCst)),
            groups: info.groups.iter().map(group).collect(),
            roles: info.roles,
            expires: None,
        };
        let membership = Some(STANDARD.encode(m.to_der().unwrap()));
        Ok(self.seal(TokenClaims { membership, auth_time: None, ..self.claims(&person) }))
    }

    fn memberships(&self, caller: &Caller) -> Result<Vec<MembershipView>, Error> {
        let member = self.member(&caller.person()?);
        let view = |member| MembershipView {
            vo: id("demo.rennes"),
            title: self.t(),
            vo_state: VoState::Active,
            member,
        };
        Ok(member.map(view).into_iter().collect())
    }

    fn members(&self, caller: &Caller, _: &ListMembers) -> Result<MemberPage, Error> {
        let person = caller.person()?;
        if self.member(&person).is_none() {
            return Err(Error::denied(format!("{person} may not see members")));
        }
        let all = ["milo@rennes", "susi@rennes", "vera@rennes"];
        let members = all.iter().filter_map(|p| self.member(&id(p))).collect();
        Ok(MemberPage { members, next: None })
    }

    fn applications(
        &self,
        caller: &Caller,
        _: &ListApplications,
    ) -> Result<ApplicationPage, Error> {
        let person = caller.person()?;
        if person.name() != "vera" {
            return Err(Error::denied(format!("{person} may not see applications")));
        }
        let application =
            Application { person: id("nina@rennes"), message: self.t(), since: self.clock.now() };
        Ok(ApplicationPage { applications: vec![application], next: None })
    }
}
