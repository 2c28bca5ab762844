//! Certificates of members, and what is issued beside them.

use crate::{Inner, csr, issue, jwt, policy, ssh};
use std::time::Duration;
use xos_api::cda::{Certificate, IssueCertificate};
use xos_api::vom::{MembershipNow, MembershipOf};
use xos_base::{Error, Millis, PersonId, VoId};
use xos_net::Caller;

impl Inner {
    /// What a credential for `person` in `vo` says now.
    pub(crate) async fn membership(
        &self,
        vo: &VoId,
        person: &PersonId,
    ) -> Result<MembershipNow, Error> {
        self.member_now(MembershipOf { vo: vo.clone(), person: person.clone(), since: None }).await
    }

    /// The membership in force, asked for by `ask`.
    pub(crate) async fn member_now(&self, ask: MembershipOf) -> Result<MembershipNow, Error> {
        let (vo, person) = (ask.vo.clone(), ask.person.clone());
        let member = self.grid.call(&self.site, ask).await?;
        if member.membership.expires.is_some_and(|e| e <= self.now()) {
            return Err(Error::denied(format!("the membership of {person} in {vo} has expired"))
                .hint("ask an administrator of the VO"));
        }
        Ok(member)
    }

    pub(crate) async fn issue_certificate(
        &self,
        caller: Caller,
        r: IssueCertificate,
    ) -> Result<Certificate, Error> {
        let now = self.now();
        let renewal = self.config.renewal();
        let grant = policy::may_enter(&caller, &r.vo, &self.site, renewal, now)?;
        let key = csr::read(&r.csr_pem)?;
        let ssh_key = r.ssh_key.as_deref().map(ssh::person_key).transpose()?;
        if let Some(audience) = &r.jwt_audience {
            jwt::check_audience(audience)?;
        }
        self.enabled(&grant).await?;
        if let Some(audience) = &r.jwt_audience {
            self.check_no_client(audience).await?;
        }
        let member = self.membership(&r.vo, &grant.person).await?;
        let grant = grant.within(&r.vo, &member, now)?;
        let narrowed = r.groups.is_some() || r.roles.is_some();
        let m = policy::narrow(member.membership, r.groups.as_deref(), r.roles.as_deref())?;
        let life = Duration::from_secs(self.config.certificate_s);
        let authority = self.keys.people();
        let limits = [grant.until, m.expires.unwrap_or(grant.until), authority.span.until];
        let until = limits.into_iter().fold(now.plus(life), Millis::min);
        let signed_in = (!narrowed).then_some(grant.signed_in);
        let issued = issue::member(&authority, &m, &key, signed_in, (now, until))?;
        // The same membership and end in all three.
        let span = (now, issued.until);
        let ssh = ssh_key
            .map(|k| ssh::member(&self.keys.ssh_people(), &m, (k, &issued.serial), span))
            .transpose()?;
        let jwt_key = self.keys.jwt();
        let by = (&self.outside, &*jwt_key);
        let jwt = r.jwt_audience.map(|to| jwt::issue(by, &m, &to, grant.signed_in, span));
        Ok(Certificate {
            chain_pem: issued.chain_pem,
            serial: issued.serial,
            expires: issued.until,
            renewable_until: signed_in.map(|_| grant.until),
            ssh,
            jwt: jwt.transpose()?,
        })
    }
}
