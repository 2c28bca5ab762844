//! When what a person allowed a client ends, and that nothing outlives it.

use super::{BACK, Site, VO, granted, part, proof, refused};
use crate::world::{ADMIN_PASSWORD, World, member};
use serde_json::json;
use std::time::Duration;
use xos_api::cda::{
    Authorization, DecideAuthorization, GetTokens, OAuthError, Password, RemoveClient, RevokeToken,
    Secret, SetPassword, SetPerson, TokenGrant, Tokens,
};
use xos_base::when::Clock;
use xos_base::{Epoch, Kind, Millis};
use xos_cda::{Config, KNOWN_AFTER, Purpose, roll_key};

const DAY: Duration = Duration::from_secs(24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

impl Site {
    /// Asserts that nothing can be had or learnt by tokens any more.
    async fn is_over(&self, tokens: &Tokens, why: &str) {
        let refresh = tokens.refresh_token.as_ref().unwrap();
        assert_eq!(refused(self.refresh(refresh).await), OAuthError::InvalidGrant, "{why}");
        assert_eq!(refused(self.user_info(tokens).await), OAuthError::InvalidToken, "{why}");
        let told = self.introspected(&tokens.access_token).await;
        assert_eq!(json!(told), json!({ "active": false }), "{why}");
    }
}

/// If it failed, who stole a refresh token could go on beside its owner for a week.
#[tokio::test]
async fn a_refresh_token_is_good_once_and_a_second_use_ends_all() {
    let site = Site::new().await;
    let first = site.tokens().await;
    let second = granted(site.refresh(first.refresh_token.as_ref().unwrap()).await);
    assert_ne!(first.refresh_token, second.refresh_token);
    let third = granted(site.refresh(second.refresh_token.as_ref().unwrap()).await);
    // The thief comes with the first one.
    let stolen = first.refresh_token.as_ref().unwrap();
    assert_eq!(refused(site.refresh(stolen).await), OAuthError::InvalidGrant);
    site.is_over(&third, "the owner's newest one still works").await;
    // Another grant of the same person stands.
    granted(site.refresh(&site.tokens().await.refresh_token.unwrap()).await);
}

/// If it failed, two that use one token at the same time would both go on.
#[tokio::test]
async fn of_two_uses_at_the_same_time_one_succeeds_at_most() {
    let site = Site::new().await;
    let tokens = site.tokens().await;
    let refresh = tokens.refresh_token.as_ref().unwrap();
    let (a, b) = tokio::join!(site.refresh(refresh), site.refresh(refresh));
    let went_well =
        [&a, &b].iter().filter(|r| matches!(r, xos_api::cda::OAuth::Granted(_))).count();
    assert!(went_well <= 1, "both got tokens");
    site.is_over(&tokens, "the grant outlived its theft").await;
}

/// If it failed, a client would go on for ever.
#[tokio::test]
async fn it_ends_seven_days_after_signing_in() {
    let site = Site::new().await;
    let mut tokens = site.tokens().await;
    for _ in 0..6 {
        site.w.clock.advance(DAY);
        tokens = granted(site.refresh(&tokens.refresh_token.unwrap()).await);
    }
    site.w.clock.advance(DAY);
    site.is_over(&tokens, "a week was over").await;
}

/// If it failed, services would get tokens of a VO for longer than the VO lets its own credentials
/// be renewed, or the person who allows it would not learn that the VO wants a newer sign-in.
#[tokio::test]
async fn it_ends_when_the_vo_wants_a_newer_sign_in() {
    let site = Site::new().await;
    site.w.vos.renew_for(3600);
    let tokens = site.tokens().await;
    site.w.clock.advance(50 * MINUTE);
    let tokens = granted(site.refresh(&tokens.refresh_token.unwrap()).await);
    let claims = site.read(&tokens.access_token).await.1;
    assert_eq!(claims["exp"], claims["auth_time"].as_u64().unwrap() + 3600);
    // What the VO says now counts, not what it said then.
    site.w.vos.renew_for(45 * 60);
    site.is_over(&tokens, "the VO wants a newer sign-in").await;
    let (request, vo) = (site.request(), Some(VO.parse().unwrap()));
    let yes = DecideAuthorization { request, allow: true, vo };
    let e = site.w.call(&site.alice, yes).await.unwrap_err();
    assert!(e.kind == Kind::Unauthenticated && e.message.contains("too long ago"), "{e}");
    // Without the VO nothing of it is told.
    let request = Authorization { scope: "openid".into(), ..site.request() };
    let yes = DecideAuthorization { request, allow: true, vo: None };
    site.w.call(&site.alice, yes).await.unwrap();
}

/// If it failed, an access token would be told to be good after its end.
#[tokio::test]
async fn an_access_token_ends_after_twenty_minutes_and_with_the_membership() {
    let site = Site::new().await;
    let tokens = site.tokens().await;
    site.w.clock.advance(Duration::from_secs(1200));
    assert_eq!(refused(site.user_info(&tokens).await), OAuthError::InvalidToken);
    assert_eq!(site.introspected(&tokens.access_token).await["active"], false);
    let mut m = member(VO, "alice@rennes");
    let end: Millis = site.w.clock.now().plus(Duration::from_secs(300));
    m.expires = Some(end);
    site.w.vos.set(m);
    let tokens = granted(site.refresh(&tokens.refresh_token.unwrap()).await);
    assert_eq!(site.read(&tokens.access_token).await.1["exp"], end.secs());
}

/// If it failed, somebody who left, lost a right or was locked out would go on at the services.
#[tokio::test]
async fn it_ends_with_the_person_and_the_membership() {
    let site = Site::new().await;
    let alice = || "alice@rennes".parse().unwrap();
    // Fewer rights.
    let tokens = site.tokens().await;
    let mut m = member(VO, "alice@rennes");
    m.epoch = Epoch(m.epoch.0 + 1);
    site.w.vos.set(m.clone());
    site.is_over(&tokens, "a right was withdrawn").await;
    // Suspended and resumed.
    let tokens = site.tokens().await;
    site.w.vos.suspended.lock().unwrap().insert(alice(), Epoch(m.epoch.0 + 1));
    site.is_over(&tokens, "she was suspended").await;
    site.w.vos.suspended.lock().unwrap().clear();
    // Another membership under the same name.
    let tokens = site.tokens().await;
    m.number = xos_base::MemberNumber(8);
    site.w.vos.set(m);
    site.is_over(&tokens, "she left and came back").await;
    let tokens = site.tokens().await;
    site.w.vos.members.lock().unwrap().clear();
    site.is_over(&tokens, "she left").await;
    site.w.vos.set(member(VO, "alice@rennes"));

    let tokens = site.tokens().await;
    site.w.clock.advance(Duration::from_secs(2));
    let password = Password("another password".into());
    let set = SetPassword { person: alice(), present: None, password };
    site.w.call(&site.root, set).await.unwrap();
    site.is_over(&tokens, "her password was changed").await;
}

/// If it failed, disabling a person would leave them the services.
#[tokio::test]
async fn it_ends_when_the_person_is_disabled() {
    let site = Site::new().await;
    let tokens = site.tokens().await;
    let person = "alice@rennes".parse().unwrap();
    let set = SetPerson { person, disabled: Some(true), site_admin: None };
    site.w.call(&site.root, set).await.unwrap();
    site.is_over(&tokens, "she was disabled").await;
    assert!(site.w.sign_in("alice", ADMIN_PASSWORD).await.is_err());
}

/// If it failed, a client could not give back what it has, or another could end it.
#[tokio::test]
async fn a_client_gives_tokens_back_and_only_its_own() {
    let site = Site::new().await;
    let other = site.w.call(&site.root, super::wish()).await.unwrap();
    let tokens = site.tokens().await;
    let refresh = tokens.refresh_token.clone().unwrap();
    for token in [&refresh, &tokens.access_token, &Secret("x".into())] {
        let revoke = RevokeToken { client: proof(&other), token: token.clone() };
        granted(site.w.public(revoke).await.unwrap());
    }
    granted(site.user_info(&tokens).await);
    for first in [true, false] {
        let tokens = site.tokens().await;
        let token = match first {
            true => tokens.refresh_token.clone().unwrap(),
            false => tokens.access_token.clone(),
        };
        let revoke = RevokeToken { client: proof(&site.client), token };
        granted(site.w.public(revoke.clone()).await.unwrap());
        site.is_over(&tokens, "it was given back").await;
        granted(site.w.public(revoke).await.unwrap());
    }
    granted(site.user_info(&tokens).await);
}

/// If it failed, a service that an administrator took away would go on.
#[tokio::test]
async fn it_ends_with_the_client() {
    let site = Site::new().await;
    let tokens = site.tokens().await;
    let code = site.code().await;
    let id = site.client.client.id.clone();
    site.w.call(&site.root, RemoveClient { id }).await.unwrap();
    let refresh = tokens.refresh_token.as_ref().unwrap();
    assert_eq!(refused(site.refresh(refresh).await), OAuthError::InvalidClient);
    let exchanged = site.w.public(site.exchange(&code)).await.unwrap();
    assert_eq!(refused(exchanged), OAuthError::InvalidClient);
    assert_eq!(refused(site.user_info(&tokens).await), OAuthError::InvalidToken);
}

/// If it failed, a narrowed token could be widened again, or a client get more than was allowed.
#[tokio::test]
async fn a_refresh_narrows_and_never_widens() {
    let site = Site::new().await;
    let request = Authorization { scope: "openid offline_access".into(), ..site.request() };
    let to = site.allowed(request).await;
    assert!(to.starts_with(BACK));
    let tokens = granted(site.w.public(site.exchange(&part(&to, "code"))).await.unwrap());
    let with = |token: Option<Secret>, scope: &str| {
        let (refresh_token, scope) = (token.unwrap(), Some(scope.to_owned()));
        let grant = TokenGrant::Refresh { refresh_token, scope };
        GetTokens { client: proof(&site.client), grant }
    };
    let wide = with(tokens.refresh_token.clone(), "wlcg.groups profile");
    assert_eq!(refused(site.w.public(wide).await.unwrap()), OAuthError::InvalidScope);
    let narrow = with(tokens.refresh_token, "openid profile");
    let tokens = granted(site.w.public(narrow).await.unwrap());
    assert_eq!(tokens.scope, "openid");
    let again = granted(site.refresh(&tokens.refresh_token.unwrap()).await);
    assert_eq!(again.scope, "openid offline_access");
}

/// What `xosd keys roll jwt` does, once the core has taken it up.
fn roll(w: &World, at_once: bool) {
    let config = Config::new(vec!["core.example:7443".into()]);
    let what = (Purpose::Jwt, at_once);
    roll_key((w.dir.path(), &w.site), &config, None, what, w.clock.now()).unwrap();
    w.cda.renew_if_due().unwrap();
}

/// If it failed, people would be signed out of services because a key was replaced, or whoever
/// stole it would go on.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_outlive_a_key_that_rolls_and_end_with_one_that_is_dropped() {
    let mut site = Site::new().await;
    roll(&site.w, false);
    site.w.clock.advance(KNOWN_AFTER - MINUTE);
    site.w.cda.renew_if_due().unwrap();
    let session = site.w.sign_in("alice", ADMIN_PASSWORD).await.unwrap();
    site.alice = site.w.by_token(&session.token.token);
    let before = site.tokens().await;
    site.w.clock.advance(MINUTE);
    site.w.cda.renew_if_due().unwrap();
    let after = granted(site.refresh(before.refresh_token.as_ref().unwrap()).await);
    let (old, _) = site.read(&before.access_token).await;
    let (new, _) = site.read(&after.access_token).await;
    assert_ne!(old["kid"], new["kid"], "the new key does not sign");
    for tokens in [&before, &after] {
        granted(site.user_info(tokens).await);
        assert_eq!(site.introspected(&tokens.access_token).await["active"], json!(true));
    }
    roll(&site.w, true);
    for tokens in [&before, &after] {
        assert_eq!(refused(site.user_info(tokens).await), OAuthError::InvalidToken);
        let told = site.introspected(&tokens.access_token).await;
        assert_eq!(json!(told), json!({ "active": false }));
    }
    // What the person allowed stands: the client gets tokens by the new key.
    granted(site.refresh(after.refresh_token.as_ref().unwrap()).await);
}
