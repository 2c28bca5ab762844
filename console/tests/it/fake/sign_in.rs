//! Stand-in operations on sign-ins and tokens.

use super::Fake;
use super::kerberos::taken;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::atomic::Ordering;
use std::time::Duration;
use xos_api::cda::*;
use xos_base::membership::Group;
use xos_base::{Epoch, Error, GroupName, GroupNumber, Membership, Millis, PersonId};
use xos_net::caller::TokenClaims;
use xos_net::sign::Kind;
use xos_net::{Caller, Peer};

const TOKEN_S: u64 = 900;

impl Fake {
    fn claims(&self, person: &PersonId) -> TokenClaims {
        let now = self.clock.now().secs();
        let value = serde_json::json!({
            "iss": self.site, "sub": person, "aud": self.site, "iat": now, "exp": now + TOKEN_S,
            "jti": "1", "auth_time": now, "site_admin": person.name() == "ada",
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

    pub(super) fn session(&self, person: &PersonId) -> SignedIn {
        SignedIn {
            person: person.clone(),
            token: self.seal(self.claims(person)),
            session_until: self.clock.now().plus(Duration::from_secs(24 * 3600)),
            site_admin: person.name() == "ada",
            memberships: None,
            recovered: self
                .recovered
                .load(Ordering::SeqCst)
                .then(|| Recovered { by: self.site.person("ada").unwrap(), at: Millis(0) }),
        }
    }

    pub(super) fn first_step(&self, peer: Peer, r: &FirstStep) -> Result<Stepped, Error> {
        self.peers.lock().unwrap().push(peer);
        let person = match &r.proof {
            FirstProof::Provider { flow, answer } => {
                self.answered(flow, answer)?;
                self.site.person("milo")?
            }
            FirstProof::Kerberos { token } => {
                taken(token)?;
                self.site.person("milo")?
            }
            FirstProof::Password { .. } if self.limited.load(Ordering::SeqCst) => {
                return Err(
                    Error::limited("too many attempts to sign in").hint("try again in 30 s")
                );
            }
            FirstProof::Password { password, .. } if password.0 != "right horse" => {
                return Err(Error::unauthenticated("wrong name or password"));
            }
            FirstProof::Password { user, .. } => self.site.person(user)?,
        };
        if self.second_factor.load(Ordering::SeqCst) {
            return Ok(Stepped::Prove(self.ceremony()));
        }
        Ok(Stepped::In(Box::new(self.session(&person))))
    }

    pub(super) fn renew(&self, caller: &Caller) -> Result<SignedIn, Error> {
        if self.disabled.load(Ordering::SeqCst) {
            return Err(Error::denied("this person may not sign in"));
        }
        assert!(caller.signed_in().is_some(), "a member's token renews nothing");
        self.renewed.fetch_add(1, Ordering::SeqCst);
        Ok(self.session(&caller.person()?))
    }

    pub(super) fn issue(&self, caller: &Caller, r: &IssueToken) -> Result<Token, Error> {
        let audience = r.audience.as_ref();
        let served = audience.is_some_and(|a| *a == self.site || a.as_str() == "pisa");
        assert!(served, "a token for a core that does not serve the VO");
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
}
