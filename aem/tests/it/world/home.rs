//! What the VO service, and the home of `demo.rennes`, say: members, mandates, who serves.

use super::{Inner, Site};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::time::Duration;
use xos_api::cda::{IssueMandate, IssueTicket, IssuedTicket, Mandate, MandateProof, Work};
use xos_api::vom::{
    ErasedVos, ServedVo, ServedVos, ServingSite, Terms, VoSnapshot, VoState, VoView,
};
use xos_base::when::{Clock, SystemClock};
use xos_base::{Epoch, Error, Group, GroupNumber, JobId, MemberNumber, Membership, VoId};
use xos_net::sign::Kind;
use xos_net::{Caller, Router};

fn member(person: &str) -> Membership {
    Membership {
        vo: "demo.rennes".parse().unwrap(),
        person: person.parse().unwrap(),
        number: MemberNumber(2),
        epoch: Epoch(1),
        groups: vec![Group { name: "members".parse().unwrap(), number: GroupNumber(1) }],
        roles: vec![],
        expires: None,
    }
}

fn terms() -> Terms {
    Terms { cpu_milli: 64_000, memory_bytes: 1 << 42, storage_bytes: 0, until: None, version: 1 }
}

impl Site {
    /// What the VO service and the VO's home would answer.
    pub(super) fn fakes(&self, router: &mut Router) {
        let me = self.0.clone();
        router.on::<VoView, _, _>(move |_, r| {
            let me = me.clone();
            async move { Ok(me.view(r.vo)) }
        });
        let me = self.0.clone();
        router.on::<ServedVos, _, _>(move |_, _| {
            let me = me.clone();
            async move { Ok(vec![me.served()]) }
        });
        router.on::<ErasedVos, _, _>(|_, _| async { Ok(Vec::new()) });
        let me = self.0.clone();
        router.on::<IssueMandate, _, _>(move |caller, r| {
            let me = me.clone();
            async move {
                let owner = caller.core()?.clone();
                let MandateProof::Token(token) = &r.proof else {
                    return Err(Error::invalid("a token is expected"));
                };
                // The audience is the owner; only the person in it matters here.
                let body = token.split('.').nth(1).unwrap();
                let body = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(body).unwrap();
                let claims: serde_json::Value = serde_json::from_slice(&body).unwrap();
                let person = claims["sub"].as_str().unwrap().to_owned();
                if person.starts_with("mallory") {
                    return Err(Error::denied("mallory never signed in"));
                }
                let now = SystemClock.now();
                let mandate = Mandate {
                    work: Work::Job { job: r.job, owner, digest: r.digest },
                    membership: member(&person),
                    issued: now,
                    until: now.plus(Duration::from_secs(3600)),
                };
                me.signer.sign(Kind::Mandate, &mandate)
            }
        });
        router.on::<IssueTicket, _, _>(|caller, r| async move {
            caller.core()?;
            let expires = SystemClock.now().plus(Duration::from_secs(900));
            Ok(IssuedTicket { ticket: format!("ticket for {}", r.node), expires })
        });
    }

    /// A member's caller at this site.
    pub fn caller(&self, home: &Site, person: &str, roles: &[&str]) -> Caller {
        let now = SystemClock.now().secs();
        let mut m = member(person);
        m.roles = roles.iter().map(|r| r.parse().unwrap()).collect();
        let claims = serde_json::json!({
            "iss": home.id, "sub": person, "aud": self.id, "iat": now, "exp": now + 600,
            "jti": "1", "membership": STANDARD.encode(m.to_der().unwrap()),
        });
        let token = home.signer.sign(Kind::Token, &claims).unwrap();
        self.verifier.token(&token, None).unwrap()
    }

    /// A mandate of this site, as the home of `demo.rennes`, for a job of alice.
    pub fn mandate(&self, job: &str, digest: String) -> String {
        let job: JobId = job.parse().unwrap();
        let now = SystemClock.now();
        let mandate = Mandate {
            work: Work::Job { owner: job.site.clone(), job, digest },
            membership: member("alice@rennes"),
            issued: now,
            until: now.plus(Duration::from_secs(3600)),
        };
        self.signer.sign(Kind::Mandate, &mandate).unwrap()
    }
}

impl Inner {
    fn served(&self) -> ServedVo {
        let serving = self.serving.lock().unwrap().contains(&self.id);
        ServedVo {
            vo: "demo.rennes".parse().unwrap(),
            base: 1_879_048_192,
            size: 65_536,
            accepted: serving.then(terms),
            offered: None,
            serving,
            trouble: None,
        }
    }

    fn view(&self, vo: VoId) -> VoSnapshot {
        let serving = self.serving.lock().unwrap().clone();
        VoSnapshot {
            vo,
            number: 1,
            heard: SystemClock.now(),
            state: VoState::Active,
            volumes: vec![],
            sites: serving.into_iter().map(|site| ServingSite { site, terms: terms() }).collect(),
            own: Some(self.served()),
        }
    }
}
