//! A person types the code that another device shows (RFC 8628, 3.3), and decides.

use super::device_codes::{DEVICE_LIFE, INTERVAL, Wish, shown};
use super::refused::{Refused, told};
use super::{TEXT_MAX, scopes};
use crate::Inner;
use crate::ops::limited;
use xos_api::Done;
use xos_api::cda::{
    BeginDeviceGrant, Client, Consent, DEVICE_PATH, DecideDevice, DeviceCodes, OAuth, OAuthError,
    Secret, ShowDevice,
};
use xos_base::{Error, PersonId};
use xos_net::{Caller, Peer};

impl Inner {
    pub(crate) async fn begin_device_grant(
        &self,
        peer: Peer,
        r: BeginDeviceGrant,
    ) -> Result<OAuth<DeviceCodes>, Error> {
        let begun = self.begun_device_grant(peer, &r).await;
        Ok(told("begin_device_grant", peer, &r.client.id, begun))
    }

    async fn begun_device_grant(
        &self,
        peer: Peer,
        r: &BeginDeviceGrant,
    ) -> Result<DeviceCodes, Refused> {
        self.limiter
            .begin(peer.address, self.now())
            .map_err(|wait| limited("sign-ins begun", wait))?;
        let client = self.proved_client(&r.client).await?;
        if !client.device {
            let text = "this client signs nobody in by another device";
            return Err(Refused::new(OAuthError::UnauthorizedClient, text));
        }
        if r.scope.len() > TEXT_MAX {
            return Err(Refused::new(OAuthError::InvalidRequest, "scope: too long"));
        }
        let scopes = scopes(&r.scope, &client.scopes);
        if scopes.is_empty() {
            let text = "scope: nothing that this client may ask for";
            return Err(Refused::new(OAuthError::InvalidScope, text));
        }
        let wish = Wish { client: client.id, scopes };
        let (device_code, user_code) = self.provider.devices.begin(wish, self.now())?;
        let user_code = shown(&user_code);
        let verification_uri = format!("{}{DEVICE_PATH}", self.outside.url());
        Ok(DeviceCodes {
            device_code: Secret(device_code),
            verification_uri_complete: format!("{verification_uri}?user_code={user_code}"),
            verification_uri,
            user_code,
            expires_in: DEVICE_LIFE.as_secs(),
            interval: INTERVAL.as_secs(),
        })
    }

    /// The client that shows a code, and what it wants. Who tries codes that are none is slowed
    /// down; who types the right one is not.
    async fn wish(
        &self,
        caller: &Caller,
        person: &PersonId,
        code: &str,
    ) -> Result<(Client, Wish), Error> {
        let now = self.now();
        let attempt = self
            .limiter
            .code(person, caller.address(), now)
            .map_err(|wait| limited("codes tried", wait))?;
        let unknown = || {
            Error::not_found("there is no such code, or its time is over")
                .hint("compare it with what the other device shows, or begin anew there")
        };
        let wish = self.provider.devices.wish(code, now).ok_or_else(unknown)?;
        self.limiter.right_code(&attempt);
        let client = self.client(&wish.client).await?.ok_or_else(unknown)?;
        Ok((client, wish))
    }

    pub(crate) async fn show_device(
        &self,
        caller: Caller,
        r: ShowDevice,
    ) -> Result<Consent, Error> {
        let who = self.deciding(&caller).await?;
        let (client, wish) = self.wish(&caller, &who.person, &r.user_code).await?;
        let vos = self.choices(&who.person, &wish.scopes).await?;
        Ok(Consent { client: client.name, back: None, scopes: wish.scopes, vos })
    }

    pub(crate) async fn decide_device(
        &self,
        caller: Caller,
        r: DecideDevice,
    ) -> Result<Done, Error> {
        let who = self.deciding(&caller).await?;
        let (_, wish) = self.wish(&caller, &who.person, &r.user_code).await?;
        let allowed = match r.allow {
            true => Some(self.approval(who, wish.scopes, r.vo).await?),
            false => None,
        };
        if self.provider.devices.decide(&r.user_code, allowed, self.now()) {
            return Ok(Done {});
        }
        Err(Error::conflict("somebody decided about this code meanwhile, or its time is over")
            .hint("begin anew at the other device"))
    }
}
