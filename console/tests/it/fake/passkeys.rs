//! Stand-in operations on passkeys and recovery.

use super::{Fake, id};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use xos_api::Done;
use xos_api::cda::*;
use xos_base::{Error, Millis};
use xos_net::{Caller, Peer, Router};

pub const FLOW: &str = "ffeeddccbbaa99887766554433221100";
pub const KEY: &str = "0a0a";
pub const CODE: &str = "abcde-fghjk-mnpqr-stvwx";
/// What the browser answers that did what was asked.
pub const RIGHT: &str = "{\"said\":\"right\"}";

impl Fake {
    pub(super) fn ceremony(&self) -> Ceremony {
        // A text of a stranger, such as a person's name, stands among the options.
        let options = serde_json::json!({ "challenge": "AAAA", "text": self.text });
        let expires = self.clock.now();
        Ceremony { flow: Flow(FLOW.into()), options: WebAuthn(options), expires }
    }

    fn passkey(&self) -> Passkey {
        Passkey { key: KEY.into(), name: self.t(), created: Millis(1), last_used: None }
    }

    /// What the real core checks, as far as the console's part shows.
    fn said(&self, flow: &Flow, credential: &WebAuthn) -> Result<(), Error> {
        let shown = credential.0.to_string();
        if flow.0 != FLOW || shown != RIGHT {
            return Err(Error::unauthenticated("this passkey does not sign in here"));
        }
        Ok(())
    }

    fn code(&self, code: &OneTimeCode) -> Result<(), Error> {
        if code.0 != CODE {
            return Err(Error::unauthenticated("wrong name or code"));
        }
        Ok(())
    }

    pub(super) fn register_passkeys(self: &Arc<Self>, router: &mut Router) {
        serve! { self, router:
            public |f: &Fake, _: Peer, _: BeginPasskeySignIn| Ok(f.ceremony());
            public |f: &Fake, _: Peer, r: FinishPasskeySignIn| {
                f.said(&r.flow, &r.credential)?;
                Ok(f.session(&id("milo@rennes")))
            };
            public |f: &Fake, _: Peer, r: EnrolPasskey| {
                f.said(&r.flow, &r.credential)?;
                f.note(&id("milo@rennes"), &r);
                Ok(f.session(&id("milo@rennes")))
            };
            public |f: &Fake, _: Peer, r: BeginRecovery| {
                f.code(&r.code)?;
                Ok(f.ceremony())
            };
            public |f: &Fake, _: Peer, r: FinishRecovery| {
                f.code(&r.code)?;
                f.note(&f.site.person(&r.user)?, &r);
                Ok(Done {})
            };
            on |f: &Fake, _: Caller, _: BeginPasskey| Ok(f.ceremony());
            on |f: &Fake, c: Caller, r: FinishPasskey| {
                f.said(&r.flow, &r.credential)?;
                f.note(&c.person()?, &r);
                Ok(f.passkey())
            };
            on |f: &Fake, _: Caller, _: ListPasskeys| {
                let second_factor = f.second_factor.load(Ordering::SeqCst);
                Ok(PasskeyList { passkeys: vec![f.passkey()], second_factor, required: false })
            };
            on |f: &Fake, c: Caller, r: RemovePasskey| {
                f.note(&c.person()?, &r);
                Ok(Done {})
            };
            on |f: &Fake, c: Caller, r: SetSecondFactor| {
                f.note(&c.person()?, &r);
                Ok(Done {})
            };
            on |f: &Fake, _: Caller, _: CreateSignInCode| {
                let (code, expires) = (OneTimeCode(CODE.into()), f.clock.now());
                Ok(SignInCode { code, expires })
            };
        }
    }
}
