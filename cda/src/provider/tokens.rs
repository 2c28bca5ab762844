//! Where clients get tokens (RFC 6749, 3.2).

use super::codes::Taken;
use super::device_codes::Polled;
use super::devices::Wish;
use super::grants::Approval;
use super::issue::About;
use super::refused::{Refused, no_grant};
use super::{TEXT_MAX, name, same, scopes};
use crate::Inner;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xos_api::cda::{Client, GetTokens, OAuth, OAuthError, Secret, TokenGrant, Tokens};
use xos_base::{Error, PersonId};
use xos_net::Peer;
use xos_net::identity::sha256;

/// The length of a verifier of PKCE (RFC 7636, 4.1).
const VERIFIER_LEN: std::ops::RangeInclusive<usize> = 43..=128;

/// What a code says beside what the person allowed.
struct Brought<'a> {
    code: &'a str,
    redirect: &'a str,
    verifier: &'a str,
}

impl Inner {
    pub(crate) async fn get_tokens(
        &self,
        peer: Peer,
        r: GetTokens,
    ) -> Result<OAuth<Tokens>, Error> {
        let id = r.client.id.clone();
        let got = self.got_tokens(r).await;
        self.told_client("get_tokens", peer, &id, got).await
    }

    async fn got_tokens(&self, r: GetTokens) -> Result<Tokens, Refused> {
        let client = self.proved_client(&r.client).await?;
        match r.grant {
            TokenGrant::Code { code, redirect_uri, verifier } => {
                let brought =
                    Brought { code: &code.0, redirect: &redirect_uri, verifier: &verifier.0 };
                self.by_code(&client, &brought).await
            }
            TokenGrant::Device { device_code } => self.by_device(&client, &device_code.0).await,
            TokenGrant::Refresh { refresh_token, scope } => {
                self.by_refresh(&client, &refresh_token.0, scope.as_deref()).await
            }
        }
    }

    /// A code is over once it came, well or not.
    async fn by_code(&self, client: &Client, brought: &Brought<'_>) -> Result<Tokens, Refused> {
        let id = name()?;
        let codes = &self.provider.codes;
        let ticket = match codes.take(brought.code, &id, self.now()) {
            Taken::Good(ticket) => ticket,
            Taken::Used(person, grant) => {
                self.note_reuse(&person, Some(client), "a code came a second time");
                self.end_grant(&person, &grant).await?;
                return Err(no_grant());
            }
            Taken::Gone => return Err(no_grant()),
        };
        let challenge = URL_SAFE_NO_PAD.encode(sha256(brought.verifier.as_bytes()));
        let fits = ticket.client == client.id
            && ticket.redirect == brought.redirect
            && VERIFIER_LEN.contains(&brought.verifier.len())
            && same(&ticket.challenge, &challenge);
        if !fits {
            return Err(no_grant());
        }
        let person = ticket.approval.person.clone();
        let nonce = ticket.nonce.as_deref();
        let tokens = self.by_approval(client, &ticket.approval, id.clone(), nonce).await?;
        // It came again while this was done: two have it.
        if codes.is_spoiled(brought.code) {
            self.end_grant(&person, &id).await?;
            return Err(no_grant());
        }
        Ok(tokens)
    }

    async fn by_device(&self, client: &Client, code: &str) -> Result<Tokens, Refused> {
        let refused = |error, text: &str| Err(Refused::new(error, text));
        let is_its = |wish: &Wish| wish.client == client.id;
        match self.provider.devices.poll(code, is_its, self.now()) {
            Polled::Allowed(approval) => self.by_approval(client, &approval, name()?, None).await,
            Polled::Declined => refused(OAuthError::AccessDenied, "the person said no"),
            Polled::Pending => refused(OAuthError::AuthorizationPending, "not yet"),
            Polled::SlowDown => refused(OAuthError::SlowDown, "wait five seconds longer"),
            Polled::Expired => refused(OAuthError::ExpiredToken, "the person took too long"),
            Polled::Gone => Err(no_grant()),
        }
    }

    /// The first tokens for what a person allowed a moment ago.
    async fn by_approval(
        &self,
        client: &Client,
        approval: &Approval,
        id: String,
        nonce: Option<&str>,
    ) -> Result<Tokens, Refused> {
        let (grant, refresh) = self.new_grant(id, client, approval)?;
        let person: &PersonId = &approval.person;
        let m = self.standing(person, &grant).await?;
        let scopes = &approval.scopes;
        let membership = m.as_ref();
        let mut tokens =
            self.tokens(&About { client, person, grant: &grant, scopes, membership, nonce })?;
        self.keep_grant(person, &grant).await?;
        tokens.refresh_token = refresh.map(|r| Secret(r.write()));
        Ok(tokens)
    }

    async fn by_refresh(
        &self,
        client: &Client,
        token: &str,
        wanted: Option<&str>,
    ) -> Result<Tokens, Refused> {
        let token = self.read_refresh(token).ok_or_else(no_grant)?;
        let grant = self.grant_of(&token, client).await?;
        let m = self.standing(&token.person, &grant).await?;
        let narrowed = match wanted {
            Some(wanted) if wanted.len() <= TEXT_MAX => scopes(wanted, &grant.scopes),
            Some(_) => Vec::new(),
            None => grant.scopes.clone(),
        };
        if narrowed.is_empty() {
            let text = "scope: nothing of it was granted";
            return Err(Refused::new(OAuthError::InvalidScope, text));
        }
        let about = About {
            client,
            person: &token.person,
            grant: &grant,
            scopes: &narrowed,
            membership: m.as_ref(),
            nonce: None,
        };
        let mut tokens = self.tokens(&about)?;
        let next = self.turn_refresh(&token).await?;
        tokens.refresh_token = Some(Secret(next.write()));
        Ok(tokens)
    }
}
