//! Signing in by a Kerberos ticket.

use super::oidc::Proved;
use crate::Inner;
use crate::kerberos::Tickets;
use std::net::IpAddr;
use xos_api::cda::{
    Identity, KERBEROS_PROVIDER, KerberosToken, LinkKerberos, SignInKerberos, SignedInKerberos,
};
use xos_base::{Error, ProviderId};
use xos_net::{Caller, Peer};

impl Inner {
    fn tickets(&self) -> Result<&Tickets, Error> {
        self.kerberos.as_ref().ok_or_else(|| {
            Error::not_found(format!("site {} takes no Kerberos tickets", self.site))
                .hint("sign in by your name and password, or by the site's identity provider")
        })
    }

    /// Whether people can sign in by accounts of this provider, Kerberos among them.
    pub(super) fn signs_in_by(&self, id: &ProviderId) -> bool {
        let kerberos = self.kerberos.is_some() && id.as_str() == KERBEROS_PROVIDER;
        kerberos || self.oidc.has(id)
    }

    /// The account that a ticket proves, and the core's answer to it.
    pub(super) async fn proved_by_ticket(
        &self,
        address: Option<IpAddr>,
        token: &KerberosToken,
    ) -> Result<(Proved, KerberosToken), Error> {
        let tickets = self.tickets()?;
        self.may_begin(address)?;
        let shown = self.keys.core_identity().get();
        let (principal, answer) = tickets.take(token, &shown.chain()[0]).await?;
        let proved = Proved {
            provider: KERBEROS_PROVIDER.parse()?,
            key: principal.key(),
            title: "Kerberos".to_owned(),
            name: principal.name(),
            person: principal.person(&self.site),
            accounts: tickets.config.accounts,
        };
        Ok((proved, answer))
    }

    pub(crate) async fn sign_in_kerberos(
        &self,
        peer: Peer,
        r: SignInKerberos,
    ) -> Result<SignedInKerberos, Error> {
        let audience = self.audience(r.audience)?;
        let (proved, token) = self.proved_by_ticket(peer.address, &r.token).await?;
        let (person, record) = self.person_of(&proved).await?;
        let signed_in = self.enter(person, &record, audience, r.memberships).await?;
        Ok(SignedInKerberos { token, signed_in })
    }

    pub(crate) async fn link_kerberos(
        &self,
        caller: Caller,
        r: LinkKerberos,
    ) -> Result<Identity, Error> {
        self.fresh(&caller).await?;
        let (proved, _) = self.proved_by_ticket(caller.address(), &r.token).await?;
        self.link(&caller, &proved).await
    }
}
