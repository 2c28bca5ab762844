//! The core as an OpenID provider: what clients get, and how long. What they do not get:
//! [`attacks`].

mod allowed;
mod attacks;
mod ends;
mod machines;

use crate::world::{World, member};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use std::time::Duration;
use xos_api::cda::{
    Authorization, BeginDeviceGrant, ClientProof, Consent, CreateClient, CreatedClient,
    DecideAuthorization, DecideDevice, DeviceCodes, DeviceWish, GetIssuer, GetJwks, GetTokens,
    GetUserInfo, IntrospectToken, ListClients, OAuth, OAuthError, Scope, Secret, ShowAuthorization,
    ShowDevice, Shown, TokenGrant, Tokens,
};
use xos_base::when::Clock;
use xos_net::Caller;
use xos_net::identity::sha256;

pub const BACK: &str = "https://wiki.example/back";
pub const VERIFIER: &str = "0123456789012345678901234567890123456789012";
pub const VO: &str = "demo.rennes";
/// Longer than a client must wait before it asks again.
pub const TURN: Duration = Duration::from_secs(6);

/// A site with a member, and a client.
pub struct Site {
    pub w: World,
    pub root: Caller,
    pub alice: Caller,
    pub client: CreatedClient,
}

pub fn wish() -> CreateClient {
    CreateClient {
        name: "The Wiki".into(),
        redirects: vec![BACK.into(), "http://localhost:4242".into()],
        confidential: true,
        device: true,
        scopes: Scope::ALL.to_vec(),
        audience: Some("https://wiki.example".into()),
        introspect: true,
    }
}

pub fn proof(client: &CreatedClient) -> ClientProof {
    ClientProof { id: client.client.id.clone(), secret: client.secret.clone() }
}

pub fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes()))
}

/// The value of a parameter in an address.
pub fn part(url: &str, name: &str) -> String {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap();
    pairs.into_iter().find(|(k, _)| k == name).map(|(_, v)| v).unwrap_or_default()
}

pub fn granted<T: std::fmt::Debug>(answer: OAuth<T>) -> T {
    match answer {
        OAuth::Granted(got) => got,
        OAuth::Refused(why) => panic!("{why:?}"),
    }
}

pub fn refused<T: std::fmt::Debug>(answer: OAuth<T>) -> OAuthError {
    match answer {
        OAuth::Granted(got) => panic!("{got:?}"),
        OAuth::Refused(why) => why.error,
    }
}

impl Site {
    pub async fn new() -> Site {
        let w = World::new("rennes").await;
        let root = w.root().await;
        let alice = w.person("alice").await;
        w.vos.set(member(VO, "alice@rennes"));
        let client = w.call(&root, wish()).await.unwrap();
        Site { w, root, alice, client }
    }

    pub fn request(&self) -> Authorization {
        Authorization {
            response_type: "code".into(),
            client_id: self.client.client.id.clone(),
            redirect_uri: BACK.into(),
            scope: "openid profile wlcg.groups eduperson_entitlement offline_access".into(),
            state: "s+1 &x".into(),
            nonce: "n1".into(),
            code_challenge: challenge(VERIFIER),
            code_challenge_method: "S256".into(),
            ..Authorization::default()
        }
    }

    /// Where the browser goes after alice said yes.
    pub async fn allowed(&self, request: Authorization) -> String {
        let vo = Some(VO.parse().unwrap());
        let decide = DecideAuthorization { request, allow: true, vo };
        self.w.call(&self.alice, decide).await.unwrap().0
    }

    pub async fn code(&self) -> String {
        part(&self.allowed(self.request()).await, "code")
    }

    pub fn exchange(&self, code: &str) -> GetTokens {
        let grant = TokenGrant::Code {
            code: Secret(code.into()),
            redirect_uri: BACK.into(),
            verifier: Secret(VERIFIER.into()),
        };
        GetTokens { client: proof(&self.client), grant }
    }

    pub async fn tokens(&self) -> Tokens {
        let exchange = self.exchange(&self.code().await);
        granted(self.w.public(exchange).await.unwrap())
    }

    pub async fn refresh(&self, token: &Secret) -> OAuth<Tokens> {
        let grant = TokenGrant::Refresh { refresh_token: token.clone(), scope: None };
        self.w.public(GetTokens { client: proof(&self.client), grant }).await.unwrap()
    }

    pub async fn user_info(&self, tokens: &Tokens) -> OAuth<Map<String, Value>> {
        let token = tokens.access_token.clone();
        self.w.public(GetUserInfo { token }).await.unwrap()
    }

    pub async fn introspected(&self, token: &Secret) -> Map<String, Value> {
        let ask = IntrospectToken { client: proof(&self.client), token: token.clone() };
        granted(self.w.public(ask).await.unwrap())
    }

    pub async fn device(&self) -> DeviceCodes {
        let scope = "openid offline_access wlcg.groups".to_owned();
        let begin = BeginDeviceGrant { client: proof(&self.client), scope };
        granted(self.w.public(begin).await.unwrap())
    }

    pub async fn poll(&self, codes: &DeviceCodes) -> OAuth<Tokens> {
        let grant = TokenGrant::Device { device_code: codes.device_code.clone() };
        self.w.public(GetTokens { client: proof(&self.client), grant }).await.unwrap()
    }

    /// What a JWT's header and claims say, once its signature held under the published keys.
    pub async fn read(&self, token: &Secret) -> (Value, Value) {
        let jwks = self.w.public(GetJwks {}).await.unwrap();
        let parts: Vec<&str> = token.0.split('.').collect();
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let json = |text: &str| -> Value { serde_json::from_slice(&bytes(text)).unwrap() };
        let head = json(parts[0]);
        let key = jwks.keys.iter().find(|k| head["kid"] == k.kid.as_str()).unwrap();
        let point = [vec![4], bytes(&key.x), bytes(&key.y)].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(format!("{}.{}", parts[0], parts[1]).as_bytes(), &bytes(parts[2]))
            .unwrap();
        (head, json(parts[1]))
    }
}

/// If it failed, a service would look in the wrong places, or be told of a sign-in that is not.
#[tokio::test]
async fn discovery_says_where_what_is_once_it_is_served() {
    let w = World::new("rennes").await;
    let before = w.public(GetIssuer {}).await.unwrap();
    assert!(before.provider.is_none() && before.response_types_supported.is_empty());
    let plain = serde_json::to_value(&before).unwrap();
    assert!(plain.get("token_endpoint").is_none(), "{plain}");
    w.cda.provide_sign_in();
    let told = serde_json::to_value(w.public(GetIssuer {}).await.unwrap()).unwrap();
    let issuer = told["issuer"].as_str().unwrap();
    for (name, path) in [
        ("authorization_endpoint", "/oauth/authorize"),
        ("token_endpoint", "/oauth/token"),
        ("userinfo_endpoint", "/oauth/userinfo"),
        ("device_authorization_endpoint", "/oauth/device"),
        ("introspection_endpoint", "/oauth/introspect"),
        ("revocation_endpoint", "/oauth/revoke"),
    ] {
        assert_eq!(told[name], format!("{issuer}{path}"));
    }
    assert_eq!(told["response_types_supported"], json!(["code"]));
    assert_eq!(told["code_challenge_methods_supported"], json!(["S256"]));
}

/// If it failed, a person would not be told what they allow, or the service would not learn it.
#[tokio::test]
async fn a_person_signs_in_to_a_service_by_a_code() {
    let site = Site::new().await;
    let show = ShowAuthorization { request: site.request() };
    let Shown::Ask(asked) = site.w.call(&site.alice, show).await.unwrap() else {
        panic!("alice is not asked")
    };
    let Consent { client, back, scopes, .. } = asked;
    assert_eq!((client.as_str(), back.as_deref()), ("The Wiki", Some(BACK)));
    assert_eq!(scopes.len(), 5);

    let now = site.w.clock.now().secs();
    let to = site.allowed(site.request()).await;
    assert!(to.starts_with(&format!("{BACK}?")), "{to}");
    assert_eq!(part(&to, "state"), "s+1 &x");
    let issuer = site.w.public(GetIssuer {}).await.unwrap().issuer;
    assert_eq!(part(&to, "iss"), issuer);
    let tokens = granted(site.w.public(site.exchange(&part(&to, "code"))).await.unwrap());
    assert_eq!((tokens.token_type.as_str(), tokens.expires_in), ("Bearer", 1200));
    assert!(!format!("{tokens:?}").contains(&tokens.access_token.0), "tokens show in a log");

    let (head, said) = site.read(tokens.id_token.as_ref().unwrap()).await;
    assert_eq!(head["typ"], "JWT");
    assert_eq!((&said["iss"], &said["sub"]), (&json!(issuer), &json!("alice@rennes")));
    assert_eq!((&said["aud"], &said["nonce"]), (&json!(site.client.client.id), &json!("n1")));
    assert_eq!((&said["iat"], &said["exp"]), (&json!(now), &json!(now + 1200)));
    assert!(said["auth_time"].as_u64().is_some_and(|at| at <= now));
    let hash = URL_SAFE_NO_PAD.encode(&sha256(tokens.access_token.0.as_bytes())[..16]);
    assert_eq!(said["at_hash"], hash);
    assert_eq!(said["preferred_username"], "alice");

    let (head, said) = site.read(&tokens.access_token).await;
    assert_eq!(head["typ"], "at+jwt");
    assert_eq!(said["aud"], "https://wiki.example");
    assert_eq!(said["client_id"], site.client.client.id.as_str());
    let groups = json!(["/demo.rennes", "/demo.rennes/physics"]);
    assert_eq!((&said["wlcg.groups"], &said["wlcg.ver"]), (&groups, &json!("1.0")));
    assert_eq!(said["scope"], site.request().scope);

    let about = granted(site.user_info(&tokens).await);
    assert_eq!((&about["sub"], &about["wlcg.groups"]), (&json!("alice@rennes"), &groups));
    assert!(about["eduperson_entitlement"].as_array().unwrap().len() > 2);
    let told = site.introspected(&tokens.access_token).await;
    assert_eq!((&told["active"], &told["sub"]), (&json!(true), &json!("alice@rennes")));
    assert_eq!(told["client_id"], site.client.client.id.as_str());
}

/// If it failed, a service would learn of groups though the person chose no VO.
#[tokio::test]
async fn without_a_vo_and_without_openid_less_is_told() {
    let site = Site::new().await;
    let request = Authorization { scope: "profile wlcg.groups".into(), ..site.request() };
    let decide = DecideAuthorization { request, allow: true, vo: None };
    let to = site.w.call(&site.alice, decide).await.unwrap().0;
    let tokens = granted(site.w.public(site.exchange(&part(&to, "code"))).await.unwrap());
    assert_eq!(tokens.scope, "profile");
    assert!(tokens.refresh_token.is_none() && tokens.id_token.is_none());
    let (_, said) = site.read(&tokens.access_token).await;
    assert!(said.get("wlcg.groups").is_none() && said.get("entitlements").is_none());
    assert_eq!(refused(site.user_info(&tokens).await), OAuthError::InsufficientScope);
}

/// If it failed, programs in a shell without a browser could sign nobody in, or would hammer the
/// core.
#[tokio::test]
async fn a_person_signs_in_another_device() {
    let site = Site::new().await;
    let codes = site.device().await;
    assert_eq!((codes.user_code.len(), codes.interval, codes.expires_in), (9, 5, 600));
    let complete = format!("{}?user_code={}", codes.verification_uri, codes.user_code);
    assert_eq!(codes.verification_uri_complete, complete);
    assert_eq!(refused(site.poll(&codes).await), OAuthError::SlowDown);
    site.w.clock.advance(TURN * 2);
    assert_eq!(refused(site.poll(&codes).await), OAuthError::AuthorizationPending);

    let user_code = codes.user_code.to_lowercase();
    let show = ShowDevice { user_code: user_code.clone() };
    let DeviceWish::Client(asked) = site.w.call(&site.alice, show).await.unwrap() else {
        panic!("it is no client's")
    };
    assert_eq!((asked.client.as_str(), asked.back), ("The Wiki", None));
    let decide = DecideDevice { user_code, allow: true, vo: Some(VO.parse().unwrap()) };
    site.w.call(&site.alice, decide).await.unwrap();
    site.w.clock.advance(TURN * 2);
    let tokens = granted(site.poll(&codes).await);
    let (_, said) = site.read(tokens.id_token.as_ref().unwrap()).await;
    assert_eq!(said["sub"], "alice@rennes");
    assert!(said.get("nonce").is_none());
    assert_eq!(refused(site.poll(&codes).await), OAuthError::InvalidGrant, "it came twice");
    granted(site.refresh(&tokens.refresh_token.unwrap()).await);
}

/// If it failed, an administrator could not see or end what services there are.
#[tokio::test]
async fn clients_are_listed_and_their_secrets_are_shown_once() {
    let site = Site::new().await;
    let known = site.w.call(&site.root, ListClients {}).await.unwrap();
    assert_eq!(known, std::slice::from_ref(&site.client.client));
    let secret = site.client.secret.as_ref().unwrap();
    assert_eq!(secret.0.len(), 43);
    let plain = CreateClient { confidential: false, introspect: false, ..wish() };
    let public = site.w.call(&site.root, plain).await.unwrap();
    assert!(public.secret.is_none() && public.client.id != site.client.client.id);
}
