//! What access tokens say, to their clients and to services; and giving tokens back.

use super::grants::GrantRecord;
use super::issue::Read;
use super::refused::Refused;
use super::{same, scopes};
use crate::Inner;
use serde_json::{Map, Value, json};
use xos_api::Done;
use xos_api::cda::{GetUserInfo, IntrospectToken, OAuth, OAuthError, RevokeToken, Scope, Secret};
use xos_base::{Error, Membership};
use xos_net::Peer;

/// An access token that is good.
struct Good {
    read: Read,
    scopes: Vec<Scope>,
    membership: Option<Membership>,
}

impl Inner {
    /// The grant of an access token that a core of this name issued, if there is one still.
    async fn grant_of_access(&self, read: &Read) -> Result<Option<GrantRecord>, Error> {
        if read.sub.site() != self.site {
            return Ok(None);
        }
        let grants = self.grants(&read.sub).await?;
        let of = |g: &GrantRecord| g.client == read.client_id && same(&g.mark(), &read.sid);
        Ok(grants.into_iter().find(of))
    }

    /// An access token whose time has not come, whose grant stands, and whose client is still
    /// registered.
    async fn good(&self, token: &Secret) -> Result<Option<Good>, Refused> {
        let Some(read) = self.read_access(&token.0) else { return Ok(None) };
        if read.exp <= self.now().secs() || self.client(&read.client_id).await?.is_none() {
            return Ok(None);
        }
        let Some(grant) = self.grant_of_access(&read).await? else { return Ok(None) };
        let membership = match self.standing(&read.sub, &grant).await {
            Ok(membership) => membership,
            Err(r) if r.error == OAuthError::InvalidGrant => return Ok(None),
            Err(r) => return Err(r),
        };
        let scopes = scopes(&read.scope, &grant.scopes);
        Ok(Some(Good { read, scopes, membership }))
    }

    pub(crate) async fn get_user_info(
        &self,
        peer: Peer,
        r: GetUserInfo,
    ) -> Result<OAuth<Map<String, Value>>, Error> {
        let got = self.user_info(&r.token).await;
        self.told_client("get_user_info", peer, "", got).await
    }

    async fn user_info(&self, token: &Secret) -> Result<Map<String, Value>, Refused> {
        let good = self.good(token).await?.ok_or_else(|| {
            Refused::new(OAuthError::InvalidToken, "it is malformed, over, or was taken back")
        })?;
        if !good.scopes.contains(&Scope::OpenId) {
            let text = "the token was not given for openid";
            return Err(Refused::new(OAuthError::InsufficientScope, text));
        }
        let mut claims = self.about(&good.read.sub, &good.scopes, good.membership.as_ref());
        claims.insert("sub".into(), json!(good.read.sub));
        Ok(claims)
    }

    pub(crate) async fn introspect_token(
        &self,
        peer: Peer,
        r: IntrospectToken,
    ) -> Result<OAuth<Map<String, Value>>, Error> {
        let got = self.introspected(&r).await;
        self.told_client("introspect_token", peer, &r.client.id, got).await
    }

    /// A service hears only of tokens that are for it; all others are not active.
    async fn introspected(&self, r: &IntrospectToken) -> Result<Map<String, Value>, Refused> {
        let service = self.proved_client(&r.client).await?;
        if !service.introspect {
            let text = "this client may not ask about tokens";
            return Err(Refused::new(OAuthError::UnauthorizedClient, text));
        }
        let good = self.good(&r.token).await?.filter(|g| g.read.aud == service.audience);
        let Some(Good { read, scopes, membership }) = good else {
            return Ok(Map::from_iter([("active".to_owned(), json!(false))]));
        };
        let mut claims = self.about(&read.sub, &scopes, membership.as_ref());
        claims.extend(
            [
                ("active", json!(true)),
                ("iss", json!(read.iss)),
                ("sub", json!(read.sub)),
                ("aud", json!(read.aud)),
                ("client_id", json!(read.client_id)),
                ("scope", json!(read.scope)),
                ("token_type", json!("Bearer")),
                ("iat", json!(read.iat)),
                ("exp", json!(read.exp)),
                ("jti", json!(read.jti)),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        Ok(claims)
    }

    pub(crate) async fn revoke_token(
        &self,
        peer: Peer,
        r: RevokeToken,
    ) -> Result<OAuth<Done>, Error> {
        let done = self.revoked(&r).await;
        self.told_client("revoke_token", peer, &r.client.id, done).await
    }

    /// A token that is none, or another client's, is no error (RFC 7009, 2.2), and nothing ends.
    async fn revoked(&self, r: &RevokeToken) -> Result<Done, Refused> {
        let client = self.proved_client(&r.client).await?;
        if let Some(refresh) = self.read_refresh(&r.token.0) {
            let grants = self.grants(&refresh.person).await?;
            if grants.iter().any(|g| g.id == refresh.grant && g.client == client.id) {
                self.end_grant(&refresh.person, &refresh.grant).await?;
            }
        } else if let Some(read) = self.read_access(&r.token.0)
            && read.client_id == client.id
            && let Some(grant) = self.grant_of_access(&read).await?
        {
            self.end_grant(&read.sub, &grant.id).await?;
        }
        Ok(Done {})
    }
}
