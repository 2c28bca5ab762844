//! Recovery of a person's access by a site administrator.

use crate::Inner;
use crate::passkeys::{self, By};
use crate::passwords;
use crate::registry::{self, Found, PersonRecord, RecoveryRecord};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use std::time::Duration;
use xos_api::Done;
use xos_api::cda::{
    BeginRecovery, Ceremony, FinishRecovery, OneTimeCode, RECOVERY_LIFE_S, RecoverPerson,
    Recovered, RecoveryCode,
};
use xos_base::{Error, PersonId};
use xos_net::{Caller, Peer};
use xos_store::Op;

/// How long a code holds.
const LIFE: Duration = Duration::from_secs(RECOVERY_LIFE_S);
/// How long a person is told at each sign-in: whoever used the code instead of them cannot hide it.
const TOLD_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// One answer for a wrong name and a wrong code.
fn wrong() -> Error {
    Error::unauthenticated("wrong name or code; or the code was used, or is over")
        .hint("try again, or ask the site administrator for another one")
}

impl Inner {
    pub(crate) async fn recover_person(
        &self,
        caller: Caller,
        r: RecoverPerson,
    ) -> Result<RecoveryCode, Error> {
        let grant = self.administrator(&caller).await?;
        if grant.by == r.person {
            return Err(Error::denied("administrators do not recover themselves")
                .hint("another administrator of the site does it"));
        }
        if !self.config.passwords && self.passkeys.host().is_none() {
            return Err(Error::unsupported("this site has neither passwords nor passkeys")
                .hint("the person's account is recovered at their identity provider"));
        }
        let mut found = self.existing(&r.person).await?;
        if found.value.disabled {
            return Err(Error::conflict(format!("{} is disabled", r.person))
                .hint(format!("first: xos person enable {}", r.person)));
        }
        let guards = vec![grant.guard, found.guard()];
        let code = passkeys::new_code()?;
        let now = self.now();
        let record = &mut found.value;
        let mut ops = Vec::new();
        for identity in std::mem::take(&mut record.identities) {
            ops.push(Op::Del(registry::identity_key(&identity.provider, &identity.key)?));
        }
        for passkey in std::mem::take(&mut record.passkeys).keys {
            ops.push(Op::Del(registry::passkey_key(&passkey.key())?));
        }
        record.password = None;
        record.sessions_from = now;
        let hash = passkeys::code_hash(&code);
        record.recovery = Some(RecoveryRecord { by: grant.by, at: now, code: Some(hash) });
        ops.push(registry::put(found.key, &found.value)?);
        self.registry.apply(guards, ops, r.person.as_str()).await?;
        let first = self.config.addresses.first().map(String::as_str).unwrap_or_default();
        let address = format!("https://{first}/recover");
        Ok(RecoveryCode { person: r.person, code, address, expires: now.plus(LIFE) })
    }

    /// The person whose code it is. Tries count as those of passwords do.
    async fn by_recovery(
        &self,
        peer: Peer,
        user: &str,
        code: &OneTimeCode,
    ) -> Result<(PersonId, Found<PersonRecord>), Error> {
        let name = self.own_name(user)?;
        let attempt = self.attempt(name, peer.address)?;
        let person = self.site.person(name).map_err(|_| wrong())?;
        let found = self.person(&person).await?.ok_or_else(wrong)?;
        self.check_code(&found.value, &passkeys::code_hash(code))?;
        self.limiter.succeeded(attempt);
        Ok((person, found))
    }

    fn check_code(&self, record: &PersonRecord, hash: &str) -> Result<(), Error> {
        let recovery = record.recovery.as_ref().filter(|_| !record.disabled).ok_or_else(wrong)?;
        let code = recovery.code.as_ref().ok_or_else(wrong)?;
        let in_time = self.now() < recovery.at.plus(LIFE);
        let same = verify_slices_are_equal(code.as_bytes(), hash.as_bytes()).is_ok();
        if same && in_time { Ok(()) } else { Err(wrong()) }
    }

    /// Takes the code out of the record, which is written with what it is good for.
    pub(super) fn use_up(&self, record: &mut PersonRecord, hash: &str) -> Result<(), Error> {
        self.check_code(record, hash)?;
        if let Some(recovery) = &mut record.recovery {
            recovery.code = None;
        }
        Ok(())
    }

    pub(crate) async fn finish_recovery(
        &self,
        peer: Peer,
        r: FinishRecovery,
    ) -> Result<Done, Error> {
        if !self.config.passwords {
            return Err(Error::denied(format!("site {} takes no passwords", self.site))
                .hint("make a passkey by the code instead"));
        }
        passwords::check_form(&r.password)?;
        let (person, mut found) = self.by_recovery(peer, &r.user, &r.code).await?;
        let guards = vec![found.guard()];
        self.use_up(&mut found.value, &passkeys::code_hash(&r.code))?;
        found.value.password = Some(self.passwords.hash(r.password).await?);
        let op = registry::put(found.key, &found.value)?;
        self.registry.apply(guards, vec![op], person.as_str()).await?;
        Ok(Done {})
    }

    pub(crate) async fn begin_recovery(
        &self,
        peer: Peer,
        r: BeginRecovery,
    ) -> Result<Ceremony, Error> {
        let (person, found) = self.by_recovery(peer, &r.user, &r.code).await?;
        let by = By::Recovery(passkeys::code_hash(&r.code));
        self.begin_making(person, &found.value, by)
    }

    /// What a person is told when they sign in.
    pub(super) fn told_of_recovery(&self, record: &PersonRecord) -> Option<Recovered> {
        let recovery = record.recovery.as_ref()?;
        let lately = self.now() < recovery.at.plus(TOLD_FOR);
        lately.then(|| Recovered { by: recovery.by.clone(), at: recovery.at })
    }
}
