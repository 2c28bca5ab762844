//! Stand-in operations on sign-ins at the identity provider `uni`.

use super::{Fake, id};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use xos_api::Done;
use xos_api::cda::*;
use xos_base::{Error, Millis};
use xos_net::{Caller, Peer, Router};

pub const FLOW: &str = "00112233445566778899aabbccddeeff";
pub const AUTHORIZE: &str = "https://id.example/authorize?client_id=xos&state=s1";

impl Fake {
    pub(super) fn rules(&self) -> SignInRules {
        let uni = SignInProvider { id: id("uni"), title: self.t() };
        let provider = self.provider.load(Ordering::SeqCst);
        SignInRules {
            site: self.site.clone(),
            open_registration: self.open_registration.load(Ordering::SeqCst),
            passwords: !self.no_passwords.load(Ordering::SeqCst),
            providers: provider.then_some(uni).into_iter().collect(),
            passkeys: self.passkeys.load(Ordering::SeqCst).then(|| "core.test".into()),
            kerberos: self.kerberos.load(Ordering::SeqCst),
        }
    }

    fn identity(&self) -> Identity {
        Identity { provider: id("uni"), key: "0f".repeat(32), name: self.t(), since: Millis(1) }
    }

    /// What the real core checks, as far as the console's part shows.
    pub(super) fn answered(&self, flow: &Flow, answer: &Answer) -> Result<(), Error> {
        if flow.0 != FLOW || answer.state.0 != "s1" || answer.code.0 != "c1" {
            return Err(Error::unauthenticated("this sign-in is over, or was not begun here"));
        }
        assert_eq!(answer.iss.as_deref(), Some("https://id.example"));
        Ok(())
    }

    pub(super) fn register_oidc(self: &Arc<Self>, router: &mut Router) {
        let fake = self.clone();
        router.public(move |_: Peer, r: BeginSignIn| {
            let fake = fake.clone();
            async move {
                fake.note(&id("nobody@rennes"), &r);
                let expires = fake.clock.now();
                let flow = Flow(FLOW.into());
                Ok(BegunSignIn { authorize_url: AUTHORIZE.into(), flow, expires })
            }
        });
        let fake = self.clone();
        router.on(move |caller: Caller, r: LinkIdentity| {
            let fake = fake.clone();
            async move {
                let answer = r.answer.as_ref().ok_or_else(|| Error::invalid("no answer"))?;
                fake.answered(&r.flow, answer)?;
                fake.note(&caller.person()?, &r);
                Ok(LinkPoll { identity: Some(fake.identity()), interval_s: 0 })
            }
        });
        let fake = self.clone();
        router.on(move |_: Caller, _: ListIdentities| {
            let fake = fake.clone();
            async move { Ok(Identities { password: true, identities: vec![fake.identity()] }) }
        });
        let fake = self.clone();
        router.on(move |caller: Caller, r: UnlinkIdentity| {
            let fake = fake.clone();
            async move {
                fake.note(&caller.person()?, &r);
                Ok(Done {})
            }
        });
    }
}
