//! A person types the code that another device shows (RFC 8628, 3.3), and decides.

use super::device_codes::{DEVICE_LIFE, DEVICES_MAX, INTERVAL, Wanted, shown};
use super::refused::Refused;
use super::{TEXT_MAX, scopes};
use crate::Inner;
use crate::audit::Asker;
use crate::ops::limited;
use xos_api::Done;
use xos_api::audit::Event;
use xos_api::cda::{
    BeginDeviceGrant, Client, Consent, DEVICE_PATH, DecideDevice, DeviceCodes, DeviceWish,
    NodeLogin, OAuth, OAuthError, Scope, Secret, ShowDevice,
};
use xos_base::{Error, PersonId};
use xos_net::{Caller, Peer};

/// What a client wants.
#[derive(Clone)]
pub(super) struct Wish {
    pub(super) client: String,
    pub(super) scopes: Vec<Scope>,
}

impl Wanted for Wish {
    // Anybody asks for a client, so that a part of its own would be the sooner filled by strangers.
    const MOST: usize = DEVICES_MAX;

    fn asker(&self) -> String {
        self.client.clone()
    }
}

/// What waits for a code.
enum Found {
    Client(Client, Wish),
    Login(NodeLogin),
}

impl Inner {
    pub(crate) async fn begin_device_grant(
        &self,
        peer: Peer,
        r: BeginDeviceGrant,
    ) -> Result<OAuth<DeviceCodes>, Error> {
        let begun = self.begun_device_grant(peer, &r).await;
        self.told_client("begin_device_grant", peer, &r.client.id, begun).await
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
        let (device_code, user_code) = self.provider.devices.begin(wish, INTERVAL, self.now())?;
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

    /// What waits for a code. Who tries codes that are none, or another person's, is slowed down;
    /// who types the right one is not.
    async fn found(&self, caller: &Caller, person: &PersonId, code: &str) -> Result<Found, Error> {
        let now = self.now();
        let attempt = self
            .limiter
            .code(person, caller.address(), now)
            .map_err(|wait| limited("codes tried", wait))?;
        let unknown = || {
            Error::not_found("there is no such code, or its time is over")
                .hint("compare it with what the other device shows, or begin anew there")
        };
        let login = self.provider.logins.wish(code, now).filter(|l| l.person == *person);
        if let Some(login) = login {
            self.limiter.right_code(&attempt);
            return Ok(Found::Login(login));
        }
        let wish = self.provider.devices.wish(code, now).ok_or_else(unknown)?;
        self.limiter.right_code(&attempt);
        let client = self.client(&wish.client).await?.ok_or_else(unknown)?;
        Ok(Found::Client(client, wish))
    }

    pub(crate) async fn show_device(
        &self,
        caller: Caller,
        r: ShowDevice,
    ) -> Result<DeviceWish, Error> {
        let who = self.deciding(&caller).await?;
        match self.found(&caller, &who.person, &r.user_code).await? {
            Found::Client(client, wish) => {
                let vos = self.choices(&who.person, &wish.scopes).await?;
                let (client, scopes) = (client.name, wish.scopes);
                Ok(DeviceWish::Client(Consent { client, back: None, scopes, vos }))
            }
            Found::Login(login) => Ok(DeviceWish::Login(login)),
        }
    }

    pub(crate) async fn decide_device(
        &self,
        caller: Caller,
        r: DecideDevice,
    ) -> Result<Done, Error> {
        let mut event = caller.event(self.now(), "decide_device");
        let decided = self.decided_device(&caller, r, &mut event).await;
        self.told.end(event, decided).await
    }

    async fn decided_device(
        &self,
        caller: &Caller,
        r: DecideDevice,
        event: &mut Event,
    ) -> Result<Done, Error> {
        let said = if r.allow { "allowed" } else { "not allowed" };
        let who = self.deciding(caller).await?;
        let decided = match self.found(caller, &who.person, &r.user_code).await? {
            Found::Client(client, wish) => {
                (event.on, event.vo) = (format!("{} {said}", client.id), r.vo.clone());
                let allowed = match r.allow {
                    true => Some(self.approval(who, wish.scopes, r.vo).await?),
                    false => None,
                };
                self.provider.devices.decide(&r.user_code, allowed, self.now())
            }
            Found::Login(login) => {
                event.on = format!("{} on {} {said}", login.service, login.node);
                event.vo.clone_from(&login.vo);
                let allowed = match r.allow {
                    true => Some(self.vouched(&login, who.signed_in).await),
                    false => None,
                };
                self.provider.logins.decide(&r.user_code, allowed, self.now())
            }
        };
        if decided {
            return Ok(Done {});
        }
        Err(Error::conflict("somebody decided about this code meanwhile, or its time is over")
            .hint("begin anew at the other device"))
    }
}
