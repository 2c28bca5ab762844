//! What a person allowed services: they see it, and take it back.

use super::{Site, TURN, VO, granted, part, proof, refused, wish};
use crate::world::ADMIN_PASSWORD;
use serde_json::json;
use std::time::Duration;
use xos_api::cda::{
    Authorization, CreateClient, DecideDevice, EndGrants, GetTokens, IssueToken, ListGrants,
    OAuthError, Password, RemoveClient, Scope, ServiceGrant, SetPassword, TokenGrant,
};
use xos_base::when::Clock;
use xos_base::{Kind, VoId};
use xos_net::Caller;

impl Site {
    async fn listed(&self, caller: &Caller) -> Vec<ServiceGrant> {
        self.w.call(caller, ListGrants {}).await.unwrap()
    }

    fn end(&self) -> EndGrants {
        EndGrants { client: self.client.client.id.clone() }
    }
}

/// If it failed, a person would not know which services act for them, or would take two sign-ins
/// to one service for two services.
#[tokio::test]
async fn a_person_sees_what_they_allowed() {
    let site = Site::new().await;
    assert!(site.listed(&site.alice).await.is_empty());
    let first = site.w.clock.now();
    let tokens = site.tokens().await;
    site.w.clock.advance(TURN);
    let request = Authorization { scope: "openid".into(), ..site.request() };
    let to = site.allowed(request).await;
    granted(site.w.public(site.exchange(&part(&to, "code"))).await.unwrap());
    site.w.clock.advance(TURN);
    let used = site.w.clock.now();
    granted(site.refresh(tokens.refresh_token.as_ref().unwrap()).await);
    let listed = site.listed(&site.alice).await;
    let [one] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!((one.client.as_str(), one.name.as_str()), (&*site.client.client.id, "The Wiki"));
    assert_eq!((one.since, one.last_used), (first, used));
    assert_eq!(one.vos, vec![VO.parse::<VoId>().unwrap()]);
    assert_eq!(one.scopes, Scope::ALL);
    assert!(one.until > used.plus(Duration::from_secs(6 * 24 * 3600)), "{one:?}");
    // Nobody else sees it, an administrator neither.
    let bob = site.w.person("bob").await;
    assert!(site.listed(&bob).await.is_empty() && site.listed(&site.root).await.is_empty());
}

/// If it failed, a person could not end what they allowed without a new password, or would end it
/// for somebody else.
#[tokio::test]
async fn what_is_taken_back_is_void_at_once_and_alone() {
    let site = Site::new().await;
    let bob = site.w.person("bob").await;
    let other = site.w.call(&site.root, wish()).await.unwrap();
    let request = Authorization { client_id: other.client.id.clone(), ..site.request() };
    let to = site.allowed(request).await;
    let (client, grant) = (proof(&other), site.exchange(&part(&to, "code")).grant);
    let others = granted(site.w.public(GetTokens { client, grant }).await.unwrap());
    let (first, second) = (site.tokens().await, site.tokens().await);
    let e = site.w.call(&bob, site.end()).await.unwrap_err();
    assert_eq!(e.kind, Kind::NotFound, "{e}");
    granted(site.user_info(&first).await);

    site.w.call(&site.alice, site.end()).await.unwrap();
    for tokens in [&first, &second] {
        let refresh = tokens.refresh_token.as_ref().unwrap();
        assert_eq!(refused(site.refresh(refresh).await), OAuthError::InvalidGrant);
        assert_eq!(refused(site.user_info(tokens).await), OAuthError::InvalidToken);
        let told = site.introspected(&tokens.access_token).await;
        assert_eq!(json!(told), json!({ "active": false }));
    }
    // The other service goes on.
    let listed = site.listed(&site.alice).await;
    assert!(listed.len() == 1 && listed[0].client == other.client.id, "{listed:?}");
    let refresh_token = others.refresh_token.unwrap();
    let grant = TokenGrant::Refresh { refresh_token, scope: None };
    granted(site.w.public(GetTokens { client: proof(&other), grant }).await.unwrap());
    let e = site.w.call(&site.alice, site.end()).await.unwrap_err();
    assert_eq!(e.kind, Kind::NotFound, "{e}");
    // And she may sign in to it again.
    granted(site.user_info(&site.tokens().await).await);
}

/// If it failed, a service that waits a moment would get tokens after the person took all back.
#[tokio::test]
async fn what_was_not_fetched_yet_is_gone_too() {
    let site = Site::new().await;
    let code = site.code().await;
    let codes = site.device().await;
    let user_code = codes.user_code.clone();
    let decide = DecideDevice { user_code, allow: true, vo: None };
    site.w.call(&site.alice, decide).await.unwrap();
    site.w.call(&site.alice, site.end()).await.unwrap();
    let late = site.w.public(site.exchange(&code)).await.unwrap();
    assert_eq!(refused(late), OAuthError::InvalidGrant);
    site.w.clock.advance(TURN);
    assert_eq!(refused(site.poll(&codes).await), OAuthError::AccessDenied);
    assert!(site.listed(&site.alice).await.is_empty());
}

/// If it failed, the list would hold what stands no more, or show a service to whoever has a token
/// of a VO's member only.
#[tokio::test]
async fn what_has_ended_is_not_listed() {
    let site = Site::new().await;
    // What goes on while the person is away by no refresh token ends with its access token.
    let to = site.allowed(Authorization { scope: "openid".into(), ..site.request() }).await;
    granted(site.w.public(site.exchange(&part(&to, "code"))).await.unwrap());
    assert_eq!(site.listed(&site.alice).await.len(), 1);
    site.w.clock.advance(Duration::from_secs(1200));
    assert!(site.listed(&site.alice).await.is_empty());
    // With a client that was taken away.
    let plain = CreateClient { confidential: false, introspect: false, ..wish() };
    let gone = site.w.call(&site.root, plain).await.unwrap();
    let request = Authorization { client_id: gone.client.id.clone(), ..site.request() };
    let to = site.allowed(request).await;
    let (client, grant) = (proof(&gone), site.exchange(&part(&to, "code")).grant);
    granted(site.w.public(GetTokens { client, grant }).await.unwrap());
    assert_eq!(site.listed(&site.alice).await.len(), 1);
    site.w.call(&site.root, RemoveClient { id: gone.client.id }).await.unwrap();
    assert!(site.listed(&site.alice).await.is_empty());
    // With the sessions of before.
    site.tokens().await;
    assert_eq!(site.listed(&site.alice).await.len(), 1);
    let password = Password(ADMIN_PASSWORD.into());
    let set = SetPassword { person: "alice@rennes".parse().unwrap(), present: None, password };
    site.w.call(&site.root, set).await.unwrap();
    let e = site.w.call(&site.alice, ListGrants {}).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "{e}");
    let session = site.w.sign_in("alice", ADMIN_PASSWORD).await.unwrap();
    let alice = site.w.by_token(&session.token.token);
    assert!(site.listed(&alice).await.is_empty());
    // A member's token is not the person's word.
    let vo = VO.parse().unwrap();
    let ask = IssueToken { vo, audience: None, groups: None, roles: None };
    let token = site.w.call(&alice, ask).await.unwrap();
    let as_member = site.w.by_token(&token.token);
    let e = site.w.call(&as_member, ListGrants {}).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "{e}");
}
