//! Signing in by a passkey, alone or as the second step; and by a code for programs without a
//! browser.

use super::people::check_session;
use crate::Inner;
use crate::passkeys::{self, By, Proving, Vouched, id_key, over, refused};
use crate::registry::{self, PasskeyRecord, PersonRecord};
use webauthn_rs::prelude::PublicKeyCredential;
use xos_api::audit::Event;
use xos_api::cda::{
    BeginPasskeySignIn, Ceremony, CreateSignInCode, EnrolPasskey, FinishPasskeySignIn, FirstProof,
    FirstStep, Flow, SignInByCode, SignInCode, SignedIn, Stepped,
};
use xos_base::{Error, PersonId};
use xos_net::{Caller, Peer};

/// What a way to sign in other than a passkey leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    In,
    Prove,
    Enrol,
}

impl Inner {
    fn next(&self, record: &PersonRecord) -> Next {
        let (book, required) = (&record.passkeys, self.passkeys.required());
        match book.keys.is_empty() {
            true if required => Next::Enrol,
            false if required || book.second_factor => Next::Prove,
            _ => Next::In,
        }
    }

    /// Refuses, where a passkey is wanted too, who cannot be asked for one.
    pub(super) fn check_one_is_enough(&self, record: &PersonRecord) -> Result<(), Error> {
        let (message, first) = match self.next(record) {
            Next::In => return Ok(()),
            Next::Prove => ("your passkey is wanted too, which takes a browser", ""),
            Next::Enrol => ("this site wants a passkey of you", " and make a passkey"),
        };
        Err(Error::unauthenticated(message).hint(format!(
            "sign in to the console{first}; under Ways to sign in it gives you a code for: xos \
             login --code"
        )))
    }

    pub(crate) async fn first_step(&self, peer: Peer, r: FirstStep) -> Result<Stepped, Error> {
        let audience = self.audience(r.audience)?;
        let (person, record) = match r.proof {
            FirstProof::Password { user, password } => {
                self.by_password(peer, &user, password).await?
            }
            FirstProof::Provider { flow, answer } => {
                let proved = self.proved_by_code(&flow, answer).await?;
                self.person_of(&proved).await?
            }
            FirstProof::Kerberos { token } => {
                let (proved, _) = self.proved_by_ticket(peer.address, &token).await?;
                self.person_of(&proved).await?
            }
        };
        let now = self.now();
        let next = if record.disabled { Next::In } else { self.next(&record) };
        match next {
            Next::In => {
                let signed_in = self.admit(person, &record, audience, r.memberships, now).await?;
                Ok(Stepped::In(Box::new(signed_in)))
            }
            Next::Prove => {
                let keys = &record.passkeys.keys;
                let (options, proving) = self.passkeys.ask(Some((person, now)), keys)?;
                let flow = passkeys::secret()?;
                let expires = self.passkeys.second.put(&flow, proving, now);
                Ok(Stepped::Prove(Ceremony { flow: Flow(flow), options, expires }))
            }
            Next::Enrol => {
                self.begin_making(person, &record, By::FirstStep(now)).map(Stepped::Enrol)
            }
        }
    }

    pub(crate) async fn begin_passkey_sign_in(
        &self,
        peer: Peer,
        _: BeginPasskeySignIn,
    ) -> Result<Ceremony, Error> {
        self.may_begin(peer.address)?;
        let (options, proving) = self.passkeys.ask(None, &[])?;
        let flow = passkeys::secret()?;
        let expires = self.passkeys.alone.put(&flow, proving, self.now());
        Ok(Ceremony { flow: Flow(flow), options, expires })
    }

    pub(crate) async fn finish_passkey_sign_in(
        &self,
        _: Peer,
        r: FinishPasskeySignIn,
    ) -> Result<SignedIn, Error> {
        let audience = self.audience(r.audience)?;
        let now = self.now();
        let second = self.passkeys.second.take(&r.flow.0, now);
        let proving = second.or_else(|| self.passkeys.alone.take(&r.flow.0, now));
        let proving = proving.ok_or_else(over)?;
        let credential: PublicKeyCredential = passkeys::read(r.credential)?;
        let (person, record) = self.by_passkey(proving, &credential).await?;
        self.admit(person, &record, audience, r.memberships, now).await
    }

    /// Who it is, by a passkey; what its counter says now is kept.
    async fn by_passkey(
        &self,
        proving: Proving,
        credential: &PublicKeyCredential,
    ) -> Result<(PersonId, PersonRecord), Error> {
        let key = id_key(credential.get_credential_id());
        let (person, since) = match &proving.person {
            Some((person, since)) => (person.clone(), *since),
            None => {
                let known = registry::passkey_key(&key)?;
                let whose = self.registry.read::<PasskeyRecord>(&known).await?;
                (whose.ok_or_else(refused)?.value.person, self.now())
            }
        };
        let mut found = self.person(&person).await?.ok_or_else(refused)?;
        check_session(&found.value, since)?;
        let guards = vec![found.guard()];
        let book = &mut found.value.passkeys;
        // The device names its person where nobody else did, and is not to name another elsewhere.
        if proving.person.is_none() || credential.get_user_unique_id().is_some() {
            let handle = self.passkeys.says(credential)?;
            if book.handle != Some(handle) {
                return Err(refused());
            }
        }
        let at = book.find(&key).ok_or_else(refused)?;
        let entry = &mut book.keys[at];
        let proved =
            self.passkeys.proved(proving, credential, &entry.passkey).inspect_err(|e| {
                let mut event =
                    Event::new(self.now(), "prove_passkey").ended::<()>(&Err(e.clone()));
                (event.on, event.person) = (entry.name.clone(), Some(person.clone()));
                self.told.note(event);
            })?;
        entry.passkey.update_credential(&proved).ok_or_else(refused)?;
        entry.last_used = Some(self.now());
        let op = registry::put(found.key, &found.value)?;
        self.registry.apply(guards, vec![op], person.as_str()).await?;
        Ok((person, found.value))
    }

    pub(crate) async fn enrol_passkey(&self, _: Peer, r: EnrolPasskey) -> Result<SignedIn, Error> {
        let audience = self.audience(r.audience)?;
        let now = self.now();
        let making = self.passkeys.making.take(&r.flow.0, now).ok_or_else(over)?;
        let mut found = self.person(&making.person).await?.ok_or_else(over)?;
        match &making.by {
            By::Session => return Err(over()),
            By::FirstStep(at) => {
                check_session(&found.value, *at)?;
                if self.next(&found.value) != Next::Enrol {
                    return Err(over());
                }
            }
            By::Recovery(code) => self.use_up(&mut found.value, code)?,
        }
        let (_, record) = self.keep_passkey(found, &making, &r.name, r.credential).await?;
        self.admit(making.person, &record, audience, r.memberships, now).await
    }

    pub(crate) async fn create_sign_in_code(
        &self,
        caller: Caller,
        _: CreateSignInCode,
    ) -> Result<SignInCode, Error> {
        self.fresh(&caller).await?;
        let signed_in = caller.signed_in().ok_or_else(over)?;
        let vouched = Vouched { person: caller.person()?, signed_in };
        let code = passkeys::new_code()?;
        let expires = self.passkeys.codes.put(&passkeys::code_hash(&code), vouched, self.now());
        Ok(SignInCode { code, expires })
    }

    pub(crate) async fn sign_in_by_code(
        &self,
        peer: Peer,
        r: SignInByCode,
    ) -> Result<SignedIn, Error> {
        let wrong = || {
            Error::unauthenticated("this code is wrong, was used, or is over")
                .hint("get another one in the console, under Ways to sign in")
        };
        let audience = self.audience(r.audience)?;
        self.may_begin(peer.address)?;
        let now = self.now();
        let vouched = self.passkeys.codes.take(&passkeys::code_hash(&r.code), now);
        let vouched = vouched.ok_or_else(wrong)?;
        let record = self.person(&vouched.person).await?.ok_or_else(wrong)?.value;
        check_session(&record, vouched.signed_in)?;
        self.admit(vouched.person, &record, audience, r.memberships, vouched.signed_in).await
    }
}
