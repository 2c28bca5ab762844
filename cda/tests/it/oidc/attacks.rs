//! A provider, or somebody in its place, that gives tokens which must not be believed.

use super::fake::{Fake, Reply};
use super::{answer, begin, finishing, part, provider};
use crate::world::World;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use xos_api::cda::{BeginDevice, BeginSignIn, SignedIn};
use xos_base::when::Clock;
use xos_base::{Error, Kind};

/// A site whose provider lies.
struct Site {
    w: World,
    fake: Arc<Fake>,
}

impl Site {
    async fn new() -> Site {
        let fake = Fake::start().await;
        let provider = provider(&fake.issuer, "accounts = \"create\"");
        let w = World::with("rennes", |c| c.providers.push(provider)).await;
        Site { w, fake }
    }

    /// Signs in by what `token` makes of the claims that would be right.
    async fn sign_in(&self, token: impl FnOnce(&Fake, Value) -> Reply) -> Result<SignedIn, Error> {
        let begun = begin(&self.w).await.unwrap();
        let now = self.w.clock.now().secs();
        let claims = json!({
            "iss": self.fake.issuer, "aud": "xos", "sub": "1", "iat": now, "exp": now + 600,
            "nonce": part(&begun.authorize_url, "nonce"), "preferred_username": "alice",
        });
        self.fake.tell(token(&self.fake, claims));
        let state = part(&begun.authorize_url, "state");
        let back = format!("http://127.0.0.1/?code=c&state={state}");
        self.w.public(finishing(&begun.flow, answer(&back))).await
    }

    /// Signs in with some claims changed; null takes one away.
    async fn with(&self, changes: &Value) -> Result<SignedIn, Error> {
        self.sign_in(|fake, claims| Reply::Token(fake.signed(&changed(claims, changes)))).await
    }

    fn later(&self, seconds: i64) -> u64 {
        self.w.clock.now().secs().checked_add_signed(seconds).unwrap()
    }
}

fn changed(mut claims: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

/// If it failed, whoever can put a token in the provider's place would sign in as anybody.
#[tokio::test]
async fn tokens_that_the_providers_key_did_not_sign_are_refused() {
    let site = Site::new().await;
    let refused = async |what: &str, result: Result<SignedIn, Error>| {
        let e = result.expect_err(what);
        assert_eq!(e.kind, Kind::Unauthenticated, "{what}: {e}");
    };
    let r = site.sign_in(|f, c| Reply::Token(f.unsigned(&c))).await;
    refused("alg=none", r).await;
    for secret in site.fake.public_forms() {
        let r = site.sign_in(|f, c| Reply::Token(f.hs256(&secret, &c))).await;
        refused("HS256 with the public key", r).await;
    }
    let r = site.sign_in(|f, c| Reply::Token(f.hs256(b"xos", &c))).await;
    refused("HS256 with the client's id", r).await;
    let r = site.sign_in(|f, c| Reply::Token(f.signed_by_another("k1", &c))).await;
    refused("another key under the name of the provider's", r).await;
    let r = site.sign_in(|f, c| Reply::Token(f.signed_by_another("k2", &c))).await;
    refused("another key", r).await;
    let r = site.sign_in(|f, c| {
        let token = f.signed(&c);
        let other = f.signed(&changed(c, &json!({ "sub": "2" })));
        let (head, signature) = (other.rsplit_once('.').unwrap().0, token.rsplit('.').next());
        Reply::Token(format!("{head}.{}", signature.unwrap()))
    });
    refused("changed after signing", r.await).await;
    let r = site.sign_in(|_, _| Reply::Token("x.y.z".into())).await;
    refused("no token at all", r).await;
    let r = site.sign_in(|_, _| Reply::Nothing).await;
    refused("no ID token", r).await;
    // Were every token refused, the above would show nothing.
    let good = site.with(&json!({})).await.unwrap();
    assert_eq!(good.person.as_str(), "alice@rennes");
}

/// If it failed, a token made for another site, person or time would sign in here.
#[tokio::test]
async fn tokens_for_others_and_other_times_are_refused() {
    let site = Site::new().await;
    for (what, changes) in [
        ("another issuer", json!({ "iss": "https://id.example" })),
        ("another audience", json!({ "aud": "other" })),
        ("another audience beside ours", json!({ "aud": ["xos", "other"] })),
        ("no audience", json!({ "aud": null })),
        ("issued to another client", json!({ "azp": "other" })),
        ("another nonce", json!({ "nonce": "n" })),
        ("no nonce", json!({ "nonce": null })),
        ("expired", json!({ "exp": site.later(-61) })),
        ("from the future", json!({ "iat": site.later(120) })),
        ("without an end", json!({ "exp": null })),
        ("another access token's", json!({ "at_hash": "AAAAAAAAAAAAAAAAAAAAAA" })),
        ("nobody's", json!({ "sub": null })),
        ("an empty subject", json!({ "sub": "" })),
        ("a subject that is too long", json!({ "sub": "x".repeat(256) })),
    ] {
        let e = site.with(&changes).await.expect_err(what);
        assert_eq!(e.kind, Kind::Unauthenticated, "{what}: {e}");
        assert!(!e.to_string().contains("id.example"), "texts of a token are shown: {e}");
    }
    for (what, changes) in [
        ("clocks differ by half a minute", json!({ "iat": site.later(30) })),
        ("just expired", json!({ "exp": site.later(-30) })),
        ("a list with us alone", json!({ "aud": ["xos"], "azp": "xos" })),
    ] {
        site.with(&changes).await.unwrap_or_else(|e| panic!("{what}: {e}"));
    }
}

/// If it failed, a level of sign-in that the site demands would be a wish only.
#[tokio::test]
async fn the_level_of_sign_in_must_be_reached() {
    let fake = Fake::start().await;
    let provider = provider(&fake.issuer, "accounts = \"create\"\nacr = \"two-factor\"");
    let w = World::with("rennes", |c| c.providers.push(provider)).await;
    let site = Site { w, fake };
    let begun = begin(&site.w).await.unwrap();
    assert_eq!(part(&begun.authorize_url, "acr_values"), "two-factor");
    for bad in [json!({}), json!({ "acr": "password" })] {
        assert!(site.with(&bad).await.is_err(), "{bad}");
    }
    site.with(&json!({ "acr": "two-factor" })).await.unwrap();
}

/// If it failed, a provider could exhaust the core's memory, hold its tasks for ever, or make it
/// hand codes and its secret to any address.
#[tokio::test]
async fn huge_and_slow_answers_and_redirects_are_cut_off() {
    let site = Site::new().await;
    let e = site.sign_in(|_, _| Reply::Huge).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unavailable, "{e}");
    assert!(site.sign_in(|_, _| Reply::Redirect).await.is_err());
    assert_eq!(site.fake.followed.load(Ordering::SeqCst), 0, "a redirect was followed");
    let slow = tokio::time::timeout(Duration::from_secs(20), site.sign_in(|_, _| Reply::Silent));
    let e = slow.await.expect("the core waits for ever").unwrap_err();
    assert_eq!(e.kind, Kind::Unavailable, "{e}");
    site.with(&json!({})).await.unwrap();
}

/// If it failed, wrong tokens would make the core fetch the provider's keys each time.
#[tokio::test]
async fn unknown_keys_are_looked_for_once_a_minute() {
    let site = Site::new().await;
    let wrong = async || {
        let r = site.sign_in(|f, c| Reply::Token(f.signed_by_another("k9", &c))).await;
        r.unwrap_err();
        site.fake.keys_fetched.load(Ordering::SeqCst)
    };
    assert_eq!((wrong().await, wrong().await), (1, 1));
    site.w.clock.advance(Duration::from_secs(61));
    assert_eq!((wrong().await, wrong().await), (2, 2));
}

/// If it failed, a page of somebody else could have people's codes sent to itself, or strangers
/// have the core call providers without end.
#[tokio::test]
async fn sign_ins_are_begun_for_this_console_only_and_not_without_end() {
    let site = Site::new().await;
    for redirect in ["https://evil.example/sign-in/callback/lab", "http://127.0.0.1:1/x", ""] {
        let begin = BeginSignIn { provider: "lab".parse().unwrap(), redirect: redirect.into() };
        assert_eq!(site.w.public(begin).await.unwrap_err().kind, Kind::Invalid, "{redirect}");
    }
    let unknown = BeginDevice { provider: "other".parse().unwrap() };
    assert_eq!(site.w.public(unknown).await.unwrap_err().kind, Kind::NotFound);
    let device = BeginDevice { provider: "lab".parse().unwrap() };
    let e = site.w.public(device).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unsupported, "this provider knows no devices: {e}");
    let mut begun = 0;
    let e = loop {
        match begin(&site.w).await {
            Ok(_) => begun += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(e.kind, Kind::Limited, "{e}");
    assert!((10..100).contains(&begun), "{begun}");
}
