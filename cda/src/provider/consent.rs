//! A browser brings what a client wants, and the person decides (OpenID Connect Core, 3.1.2).

use super::codes::Ticket;
use super::grants::{Approval, InVo};
use super::refused::{Refused, described};
use super::{TEXT_MAX, redirects, scopes};
use crate::Inner;
use crate::policy::{self, PersonGrant};
use std::time::Duration;
use xos_api::cda::{
    Authorization, Client, Consent, DecideAuthorization, OAuthError, Scope, Secret,
    ShowAuthorization, Shown, VoChoice,
};
use xos_api::vom::{Memberships, VoState};
use xos_base::{Error, Millis, PersonId, VoId};
use xos_net::Caller;

/// The youngest sign-in that a client can want; else nobody could decide in time.
const AGE_MIN: Duration = Duration::from_secs(60);
/// The length of a challenge of PKCE: SHA-256 in base64url.
const CHALLENGE_LEN: usize = 43;

/// A request that may be asked for.
pub(super) struct Checked {
    scopes: Vec<Scope>,
    /// How old the sign-in may be.
    age: Option<Duration>,
}

/// Refuses what no person is asked.
pub(super) fn check(r: &Authorization, client: &Client) -> Result<Checked, Refused> {
    let bad = |error, text: &str| Err(Refused::new(error, text));
    if r.response_type != "code" {
        return bad(OAuthError::UnsupportedResponseType, "response_type: only code is done");
    }
    if !matches!(r.response_mode.as_str(), "" | "query") {
        return bad(OAuthError::InvalidRequest, "response_mode: only query is done");
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let challenge = &r.code_challenge;
    if challenge.len() != CHALLENGE_LEN
        || !challenge.bytes().all(plain)
        || r.code_challenge_method != "S256"
    {
        return bad(
            OAuthError::InvalidRequest,
            "code_challenge, code_challenge_method: PKCE with S256 is needed (RFC 7636)",
        );
    }
    let scopes = scopes(&r.scope, &client.scopes);
    if scopes.is_empty() {
        return bad(OAuthError::InvalidScope, "scope: nothing that this client may ask for");
    }
    let prompts: Vec<&str> = r.prompt.split(' ').filter(|p| !p.is_empty()).collect();
    if prompts.contains(&"none") {
        return bad(OAuthError::ConsentRequired, "prompt: the person is always asked");
    }
    let mut age = match r.max_age.as_str() {
        "" => None,
        text => match text.parse::<u64>() {
            Ok(secs) => Some(Duration::from_secs(secs).max(AGE_MIN)),
            Err(_) => return bad(OAuthError::InvalidRequest, "max_age: no number of seconds"),
        },
    };
    if prompts.contains(&"login") {
        age = Some(AGE_MIN);
    }
    Ok(Checked { scopes, age })
}

impl Inner {
    /// The person who decides: one of this site, whose session holds.
    pub(super) async fn deciding(&self, caller: &Caller) -> Result<PersonGrant, Error> {
        let session = self.config.session();
        let grant = policy::may_renew_token(caller, &self.site, session, self.now())?;
        self.enabled(&grant).await?;
        Ok(grant)
    }

    /// The client of a request, if the browser may be sent back to where it says.
    async fn asking_client(&self, r: &Authorization) -> Result<Client, Error> {
        let texts = [
            &r.response_type,
            &r.scope,
            &r.state,
            &r.nonce,
            &r.code_challenge,
            &r.code_challenge_method,
            &r.response_mode,
            &r.prompt,
            &r.max_age,
        ];
        if texts.iter().any(|t| t.len() > TEXT_MAX) {
            return Err(Error::invalid(format!(
                "the service sent a text of over {TEXT_MAX} bytes with you"
            ))
            .hint("tell whoever runs the service that sent you here"));
        }
        let client = self.client(&r.client_id).await?.ok_or_else(|| {
            Error::invalid("the service that sent you here is not registered at this site")
                .hint("tell whoever runs it; nothing was told to it about you")
        })?;
        if !redirects::is_registered(&client.redirects, &r.redirect_uri) {
            return Err(Error::invalid(format!(
                "{} wants you sent back to an address that is not registered for it",
                client.name
            ))
            .hint("somebody may be misusing its name; tell whoever runs it"));
        }
        Ok(client)
    }

    /// The way back to a client, with an answer; who answers stands there too (RFC 9207).
    fn back(&self, r: &Authorization, answer: &[(&str, &str)]) -> Result<Secret, Error> {
        let mut all = answer.to_vec();
        if !r.state.is_empty() {
            all.push(("state", r.state.as_str()));
        }
        all.push(("iss", self.outside.url()));
        redirects::with(&r.redirect_uri, &all).map(Secret)
    }

    fn back_refused(&self, r: &Authorization, why: &Refused) -> Result<Secret, Error> {
        let text = described(&why.text);
        self.back(r, &[("error", why.error.as_str()), ("error_description", text.as_str())])
    }

    /// The VOs as whose member a person may sign in: those that are at home here, of which this
    /// site's word is the one that counts.
    pub(super) async fn choices(
        &self,
        person: &PersonId,
        scopes: &[Scope],
    ) -> Result<Vec<VoChoice>, Error> {
        if !scopes.iter().any(|s| s.is_of_vo()) {
            return Ok(Vec::new());
        }
        let all = self.grid.call(&self.site, Memberships { person: person.clone() }).await?;
        let ours = all
            .into_iter()
            .filter(|m| m.vo.site() == self.site && matches!(m.vo_state, VoState::Active));
        Ok(ours.map(|m| VoChoice { vo: m.vo, title: m.title }).collect())
    }

    /// What a person allows as a member of `vo`, unless that wants a newer sign-in. Without a VO,
    /// what speaks of one falls away.
    pub(super) async fn approval(
        &self,
        mut who: PersonGrant,
        mut scopes: Vec<Scope>,
        vo: Option<VoId>,
    ) -> Result<Approval, Error> {
        let of_vo = scopes.iter().any(|s| s.is_of_vo());
        let mut renewal = self.config.renewal();
        let in_vo = match vo.filter(|_| of_vo) {
            Some(vo) if vo.site() == self.site => {
                let member = self.membership(&vo, &who.person).await?;
                who = who.within(&vo, &member, self.now())?;
                renewal = renewal.min(member.renewal());
                Some(InVo::from(&member.membership))
            }
            Some(vo) => {
                return Err(Error::invalid(format!("VO {vo} has its home at site {}", vo.site()))
                    .hint("services there ask that site"));
            }
            None => {
                scopes.retain(|s| !s.is_of_vo());
                None
            }
        };
        let PersonGrant { person, signed_in, .. } = who;
        Ok(Approval { person, signed_in, until: signed_in.plus(renewal), scopes, in_vo })
    }

    pub(crate) async fn show_authorization(
        &self,
        caller: Caller,
        r: ShowAuthorization,
    ) -> Result<Shown, Error> {
        let who = self.deciding(&caller).await?;
        let client = self.asking_client(&r.request).await?;
        let checked = match check(&r.request, &client) {
            Ok(checked) => checked,
            Err(why) => return self.back_refused(&r.request, &why).map(Shown::Back),
        };
        if is_too_old(&who, &checked, self.now()) {
            return Ok(Shown::SignInAgain { client: client.name });
        }
        let vos = self.choices(&who.person, &checked.scopes).await?;
        let back = Some(redirects::shown(&r.request.redirect_uri));
        Ok(Shown::Ask(Consent { client: client.name, back, scopes: checked.scopes, vos }))
    }

    pub(crate) async fn decide_authorization(
        &self,
        caller: Caller,
        r: DecideAuthorization,
    ) -> Result<Secret, Error> {
        let who = self.deciding(&caller).await?;
        let client = self.asking_client(&r.request).await?;
        let checked = match check(&r.request, &client) {
            Ok(checked) => checked,
            Err(why) => return self.back_refused(&r.request, &why),
        };
        if !r.allow {
            let why = Refused::new(OAuthError::AccessDenied, "the person said no");
            return self.back_refused(&r.request, &why);
        }
        if is_too_old(&who, &checked, self.now()) {
            return Err(Error::unauthenticated("the service wants a newer sign-in")
                .hint("sign out, and begin again at the service"));
        }
        let approval = self.approval(who, checked.scopes, r.vo).await?;
        let ticket = Ticket {
            client: client.id,
            redirect: r.request.redirect_uri.clone(),
            challenge: r.request.code_challenge.clone(),
            nonce: Some(r.request.nonce.clone()).filter(|n| !n.is_empty()),
            approval,
        };
        let code = self.provider.codes.put(ticket, self.now())?;
        self.back(&r.request, &[("code", code.as_str())])
    }
}

fn is_too_old(who: &PersonGrant, checked: &Checked, now: Millis) -> bool {
    checked.age.is_some_and(|age| now.since(who.signed_in) > age)
}
