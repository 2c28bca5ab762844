//! Signing in by an OpenID Connect provider.

use crate::Inner;
use crate::audit::{Asker, of, over as ended};
use crate::oidc::{self, Accounts, Claims, CodeFlow, Polled, Turn};
use crate::registry::PersonRecord;
use std::net::IpAddr;
use std::time::Duration;
use xos_api::cda::{
    Answer, BeginDevice, BeginSignIn, BegunDevice, BegunSignIn, DevicePoll, FinishSignIn, Flow,
    PollDevice, SignedIn,
};
use xos_base::{Error, Kind, PersonId, ProviderId};
use xos_net::Peer;

/// Longest code that a person types, in characters.
const USER_CODE_MAX: usize = 64;

/// An account that was proved: its provider, and what that says of it.
pub(super) struct Proved {
    pub(super) provider: ProviderId,
    /// Names the account ([`oidc::account_key`]).
    pub(super) key: String,
    /// What people call the provider.
    pub(super) title: String,
    /// What the provider calls the account, as far as it can be shown.
    pub(super) name: String,
    /// Whose name that is here, if it can be anybody's.
    pub(super) person: Result<PersonId, Error>,
    /// Who may sign in by accounts there.
    pub(super) accounts: Accounts,
}

/// A flow by another device, after it was asked after.
pub(super) enum Device {
    Pending(Duration),
    Proved(Proved),
}

/// One answer for a flow that never was, is over, or is another one.
fn over() -> Error {
    Error::unauthenticated("this sign-in is over, or was not begun here")
        .hint("begin again; it must be finished within ten minutes, where it was begun")
}

fn secs(pause: Duration) -> u64 {
    pause.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}

impl Inner {
    pub(super) fn may_begin(&self, address: Option<IpAddr>) -> Result<(), Error> {
        self.limiter
            .begin(address, self.now())
            .map_err(|wait| super::sign_in::limited("sign-ins begun", wait))
    }

    pub(crate) async fn begin_sign_in(
        &self,
        peer: Peer,
        r: BeginSignIn,
    ) -> Result<BegunSignIn, Error> {
        let provider = self.oidc.provider(&r.provider)?;
        self.oidc.check_redirect(&r.redirect, &r.provider)?;
        self.may_begin(peer.address)?;
        let now = self.now();
        let flow = CodeFlow::new(r.provider, r.redirect)?;
        let authorize_url = provider.authorize_url(&flow, now).await?;
        let (flow, expires) = self.oidc.flows.begin_code(flow, now)?;
        Ok(BegunSignIn { authorize_url, flow, expires })
    }

    pub(crate) async fn finish_sign_in(&self, _: Peer, r: FinishSignIn) -> Result<SignedIn, Error> {
        let audience = self.audience(r.audience)?;
        let proved = self.proved_by_code(&r.flow, r.answer).await?;
        let (person, record) = self.person_of(&proved).await?;
        self.enter(person, &record, audience, r.memberships).await
    }

    /// The account that a browser brought an answer for. The flow is over, well or not.
    pub(super) async fn proved_by_code(
        &self,
        flow: &Flow,
        answer: Answer,
    ) -> Result<Proved, Error> {
        let now = self.now();
        let begun = self.oidc.flows.take_code(flow, now).ok_or_else(over)?;
        let state = (begun.state.as_bytes(), answer.state.0.as_bytes());
        let same = aws_lc_rs::constant_time::verify_slices_are_equal(state.0, state.1).is_ok();
        if !same || answer.provider != begun.provider {
            return Err(over());
        }
        let provider = self.oidc.provider(&begun.provider)?;
        let id = begun.provider.clone();
        let claims = provider.finish_code(begun, answer, now).await?;
        self.account_of(id, claims)
    }

    /// What is checked of every account, however it was proved.
    fn account_of(&self, id: ProviderId, claims: Claims) -> Result<Proved, Error> {
        let provider = &self.oidc.provider(&id)?.config;
        oidc::check(provider, &claims)?;
        Ok(Proved {
            key: oidc::account_key(&provider.issuer, &claims)?,
            title: provider.title().to_owned(),
            name: oidc::name(provider, &claims),
            person: oidc::person(provider, &claims, &self.site),
            accounts: provider.accounts,
            provider: id,
        })
    }

    pub(crate) async fn begin_device(
        &self,
        peer: Peer,
        r: BeginDevice,
    ) -> Result<BegunDevice, Error> {
        let provider = self.oidc.provider(&r.provider)?;
        self.may_begin(peer.address)?;
        let now = self.now();
        let details = provider.begin_device(now).await?;
        let verification_uri = details.verification_uri().url().to_string();
        let complete = details.verification_uri_complete().map(|c| c.secret().as_str());
        let verification_uri_complete = complete.and_then(|c| provider.page(c));
        let user_code = details.user_code().secret().clone();
        let shows = |c: char| c.is_ascii_graphic() || c == ' ';
        if user_code.chars().count() > USER_CODE_MAX || !user_code.chars().all(shows) {
            return Err(Error::unavailable(format!(
                "the code that {} gives cannot be shown",
                provider.config.title()
            )));
        }
        let flows = &self.oidc.flows;
        let (flow, expires, interval) = flows.begin_device(r.provider, details, now)?;
        let interval_s = secs(interval);
        Ok(BegunDevice {
            flow,
            verification_uri,
            verification_uri_complete,
            user_code,
            interval_s,
            expires,
        })
    }

    pub(crate) async fn poll_device(&self, peer: Peer, r: PollDevice) -> Result<DevicePoll, Error> {
        let audience = self.audience(r.audience)?;
        let result = match self.proved_by_device(&r.flow).await {
            Ok(Device::Pending(pause)) => {
                return Ok(DevicePoll { signed_in: None, interval_s: secs(pause) });
            }
            Ok(Device::Proved(proved)) => match self.person_of(&proved).await {
                Ok((person, record)) => self.enter(person, &record, audience, r.memberships).await,
                Err(e) => Err(e),
            },
            Err(e) => Err(e),
        };
        let event = peer.event(self.now(), "poll_device");
        let event = ended(event, &result, |s: &SignedIn| of(&s.person));
        let signed_in = self.told.end(event, result).await?;
        Ok(DevicePoll { signed_in: Some(signed_in), interval_s: 0 })
    }

    /// Asks after a flow by another device, as often as its provider lets.
    pub(super) async fn proved_by_device(&self, flow: &Flow) -> Result<Device, Error> {
        let flows = &self.oidc.flows;
        let device = match flows.turn(flow, self.now()) {
            Turn::Gone => return Err(over()),
            Turn::Early(pause) => return Ok(Device::Pending(pause)),
            Turn::Ask(device) => device,
        };
        let provider = self.oidc.provider(&device.provider)?;
        let polled = provider.poll_device(&device, self.now()).await;
        match polled {
            Ok(Polled::Pending { slower }) => {
                Ok(Device::Pending(flows.wait(flow, slower, self.now())))
            }
            Ok(Polled::Proved(claims)) => {
                flows.end(flow);
                self.account_of(device.provider, claims).map(Device::Proved)
            }
            Err(e) => {
                if e.kind != Kind::Unavailable {
                    flows.end(flow);
                }
                Err(e)
            }
        }
    }

    /// Whose account it is; a new person's, where the site makes people known that way.
    pub(super) async fn person_of(
        &self,
        proved: &Proved,
    ) -> Result<(PersonId, PersonRecord), Error> {
        if let Some(found) = self.linked(proved).await? {
            return Ok(found);
        }
        match proved.accounts {
            Accounts::Create => self.make_person(proved).await,
            Accounts::Known => Err(Error::denied(format!(
                "nobody here has linked your account at {}",
                proved.title
            ))
            .hint("sign in as you did before and link it in the console, under Ways to sign in")),
        }
    }
}
