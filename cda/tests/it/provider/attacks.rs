//! What clients, thieves and strangers do not get.

use super::{BACK, Site, TURN, VERIFIER, VO, challenge, granted, part, proof, refused, wish};
use crate::world::{World, certificate_request, keyed};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use std::time::Duration;
use xos_api::cda::{
    ANY_AUDIENCE, Authorization, BeginDeviceGrant, ClientProof, CreateClient, DecideAuthorization,
    DecideDevice, GetTokens, GetUserInfo, IntrospectToken, IssueCertificate, ListClients,
    OAuthError, RemoveClient, RenewToken, Secret, ShowAuthorization, ShowDevice, Shown, TokenGrant,
};
use xos_base::Kind;

/// If it failed, a page of somebody else would get people's codes, or errors could be used to send
/// browsers anywhere.
#[tokio::test]
async fn nobody_is_sent_to_where_no_client_is_registered() {
    let site = Site::new().await;
    let ask = |change: fn(&mut Authorization)| {
        let mut request = site.request();
        change(&mut request);
        request
    };
    for request in [
        ask(|r| r.client_id = "00".repeat(16)),
        ask(|r| r.client_id = "../person/root".into()),
        ask(|r| r.client_id.clear()),
        ask(|r| r.redirect_uri.clear()),
        ask(|r| r.redirect_uri = "https://evil.example/back".into()),
        ask(|r| r.redirect_uri = format!("{BACK}/")),
        ask(|r| r.redirect_uri = format!("{BACK}?to=evil")),
        ask(|r| r.redirect_uri = "https://wiki.example.evil.example/back".into()),
        ask(|r| r.redirect_uri = "http://localhost:4242/other".into()),
        ask(|r| r.redirect_uri = "javascript:alert(1)".into()),
        ask(|r| r.state = "a".repeat(2000)),
    ] {
        let show = ShowAuthorization { request: request.clone() };
        let e = site.w.call(&site.alice, show).await.unwrap_err();
        assert_eq!(e.kind, Kind::Invalid, "{request:?}: {e}");
        for allow in [true, false] {
            let decide = DecideAuthorization { request: request.clone(), allow, vo: None };
            assert!(site.w.call(&site.alice, decide).await.is_err(), "{request:?}");
        }
    }
    site.allowed(ask(|r| r.redirect_uri = "http://localhost:8080".into())).await;
}

/// If it failed, a code could be had without what binds it to the client that asked.
#[tokio::test]
async fn what_is_wrong_with_a_request_goes_back_to_the_client_and_no_code() {
    let site = Site::new().await;
    type Change = fn(&mut Authorization);
    let cases: [(Change, OAuthError); 11] = [
        (|r| r.code_challenge.clear(), OAuthError::InvalidRequest),
        (|r| r.code_challenge_method = "plain".into(), OAuthError::InvalidRequest),
        (|r| r.code_challenge_method.clear(), OAuthError::InvalidRequest),
        (|r| r.code_challenge = VERIFIER[1..].into(), OAuthError::InvalidRequest),
        (|r| r.response_type = "token".into(), OAuthError::UnsupportedResponseType),
        (|r| r.response_type = "code id_token".into(), OAuthError::UnsupportedResponseType),
        (|r| r.response_mode = "fragment".into(), OAuthError::InvalidRequest),
        (|r| r.scope = "admin".into(), OAuthError::InvalidScope),
        (|r| r.scope.clear(), OAuthError::InvalidScope),
        (|r| r.prompt = "none".into(), OAuthError::ConsentRequired),
        (|r| r.max_age = "-1".into(), OAuthError::InvalidRequest),
    ];
    for (change, want) in cases {
        let mut request = site.request();
        change(&mut request);
        let show = ShowAuthorization { request: request.clone() };
        let Shown::Back(to) = site.w.call(&site.alice, show).await.unwrap() else {
            panic!("{request:?} is asked for")
        };
        assert_eq!(part(&to.0, "error"), want.as_str(), "{request:?}");
        assert_eq!(part(&to.0, "state"), "s+1 &x");
        let to = site.allowed(request).await;
        assert!(to.starts_with(BACK) && part(&to, "code").is_empty(), "{to}");
    }
    let no = DecideAuthorization { request: site.request(), allow: false, vo: None };
    let to = site.w.call(&site.alice, no).await.unwrap().0;
    assert_eq!((part(&to, "error").as_str(), part(&to, "code").as_str()), ("access_denied", ""));
}

/// If it failed, an old session left open would do where the service wants a person who is there.
#[tokio::test]
async fn a_newer_sign_in_is_asked_for_when_the_client_wants_one() {
    let site = Site::new().await;
    let old = |more: fn(&mut Authorization)| {
        let mut request = site.request();
        more(&mut request);
        request
    };
    let requests = [old(|r| r.max_age = "300".into()), old(|r| r.prompt = "login".into())];
    for request in &requests {
        let show = ShowAuthorization { request: request.clone() };
        let shown = site.w.call(&site.alice, show).await.unwrap();
        assert!(matches!(shown, Shown::Ask(_)), "{shown:?}");
    }
    site.w.clock.advance(Duration::from_secs(301));
    for request in &requests {
        let show = ShowAuthorization { request: request.clone() };
        let again = Shown::SignInAgain { client: "The Wiki".into() };
        assert_eq!(site.w.call(&site.alice, show).await.unwrap(), again);
        let decide = DecideAuthorization { request: request.clone(), allow: true, vo: None };
        let e = site.w.call(&site.alice, decide).await.unwrap_err();
        assert_eq!(e.kind, Kind::Unauthenticated, "{e}");
    }
}

/// If it failed, a code would be good for a thief, for another client, or twice.
#[tokio::test]
async fn a_code_is_good_once_for_its_client_with_its_verifier() {
    let site = Site::new().await;
    let other = site.w.call(&site.root, wish()).await.unwrap();
    let changed = |r: GetTokens, place: &str, verifier: &str| {
        let TokenGrant::Code { code, .. } = r.grant else { panic!() };
        let (redirect_uri, verifier) = (place.to_owned(), Secret(verifier.to_owned()));
        GetTokens { client: r.client, grant: TokenGrant::Code { code, redirect_uri, verifier } }
    };
    for (place, verifier) in [
        (BACK, "1123456789012345678901234567890123456789012"),
        (BACK, challenge(VERIFIER).as_str()),
        (BACK, "short"),
        (BACK, ""),
        ("http://localhost:4242", VERIFIER),
        ("", VERIFIER),
    ] {
        let exchange = site.exchange(&site.code().await);
        let bad = changed(exchange.clone(), place, verifier);
        let answer = refused(site.w.public(bad).await.unwrap());
        assert_eq!(answer, OAuthError::InvalidGrant, "{place} {verifier}");
        // A code that came is over.
        assert_eq!(refused(site.w.public(exchange).await.unwrap()), OAuthError::InvalidGrant);
    }
    let stolen = GetTokens { client: proof(&other), ..site.exchange(&site.code().await) };
    assert_eq!(refused(site.w.public(stolen).await.unwrap()), OAuthError::InvalidGrant);
    let late = site.exchange(&site.code().await);
    site.w.clock.advance(Duration::from_secs(60));
    assert_eq!(refused(site.w.public(late).await.unwrap()), OAuthError::InvalidGrant);

    let exchange = site.exchange(&site.code().await);
    let tokens = granted(site.w.public(exchange.clone()).await.unwrap());
    granted(site.user_info(&tokens).await);
    assert_eq!(refused(site.w.public(exchange).await.unwrap()), OAuthError::InvalidGrant);
    let answer = refused(site.user_info(&tokens).await);
    assert_eq!(answer, OAuthError::InvalidToken, "what a replayed code gave still stands");
    assert_eq!(
        refused(site.refresh(&tokens.refresh_token.unwrap()).await),
        OAuthError::InvalidGrant
    );
}

/// If it failed, anybody could pass for a service.
#[tokio::test]
async fn a_client_proves_itself_by_its_own_secret() {
    let site = Site::new().await;
    let public = CreateClient { confidential: false, introspect: false, ..wish() };
    let public = site.w.call(&site.root, public).await.unwrap();
    let (id, secret) = (&site.client.client.id, site.client.secret.clone());
    let with = |id: &str, secret: Option<&str>| ClientProof {
        id: id.to_owned(),
        secret: secret.map(|s| Secret(s.to_owned())),
    };
    for client in [
        with(id, None),
        with(id, Some("")),
        with(id, Some("wrong")),
        with(&"00".repeat(16), Some(&secret.as_ref().unwrap().0)),
        with("", None),
        with(&id.to_uppercase(), Some(&secret.as_ref().unwrap().0)),
        with(&public.client.id, Some(&secret.as_ref().unwrap().0)),
        with("../person/root", None),
    ] {
        let exchange = GetTokens { client: client.clone(), ..site.exchange("x") };
        let answer = refused(site.w.public(exchange).await.unwrap());
        assert_eq!(answer, OAuthError::InvalidClient, "{client:?}");
        let begin = BeginDeviceGrant { client, scope: "openid".into() };
        assert_eq!(refused(site.w.public(begin).await.unwrap()), OAuthError::InvalidClient);
    }
}

/// If it failed, a service could look into tokens of others, or a program into any.
#[tokio::test]
async fn a_service_learns_only_of_tokens_for_itself() {
    let site = Site::new().await;
    let tokens = site.tokens().await;
    let elsewhere = CreateClient { audience: Some("https://other.example".into()), ..wish() };
    let other = site.w.call(&site.root, elsewhere).await.unwrap();
    let ask = |client| IntrospectToken { client, token: tokens.access_token.clone() };
    let told = granted(site.w.public(ask(proof(&other))).await.unwrap());
    assert_eq!(json!(told), json!({ "active": false }));
    let plain = CreateClient { introspect: false, ..wish() };
    let plain = site.w.call(&site.root, plain).await.unwrap();
    let answer = refused(site.w.public(ask(proof(&plain))).await.unwrap());
    assert_eq!(answer, OAuthError::UnauthorizedClient);
    for token in [tokens.id_token.unwrap(), tokens.refresh_token.unwrap(), Secret("x".into())] {
        assert_eq!(site.introspected(&token).await["active"], false);
        let answer = site.w.public(GetUserInfo { token }).await.unwrap();
        assert_eq!(refused(answer), OAuthError::InvalidToken);
    }
}

/// If it failed, whoever holds an access token could write into it, or one of another site would
/// count here.
#[tokio::test]
async fn forged_and_foreign_tokens_are_told_to_be_void() {
    let site = Site::new().await;
    let token = site.tokens().await.access_token;
    let (_, mut said) = site.read(&token).await;
    said["sub"] = json!("root@rennes");
    let parts: Vec<&str> = token.0.split('.').collect();
    let encode = |v: &serde_json::Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let none = encode(&json!({ "alg": "none", "typ": "at+jwt", "kid": "x" }));
    let other = Site::new().await;
    for forged in [
        format!("{}.{}.{}", parts[0], encode(&said), parts[2]),
        format!("{none}.{}.", parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.x", token.0),
        String::new(),
        "a".repeat(100_000),
        other.tokens().await.access_token.0,
    ] {
        assert_eq!(site.introspected(&Secret(forged)).await["active"], false);
    }
}

/// If it failed, a service could act in the grid as everybody who signs in to it.
#[tokio::test]
async fn no_core_takes_such_tokens_for_a_proof() {
    let site = Site::new().await;
    let pisa = World::new("pisa").await;
    pisa.trusts(&site.w);
    let tokens = site.tokens().await;
    for token in [tokens.access_token, tokens.id_token.unwrap(), tokens.refresh_token.unwrap()] {
        for verifier in [&site.w.verifier, &pisa.verifier] {
            let e = verifier.token(&token.0, None).unwrap_err();
            assert_eq!(e.kind, Kind::Unauthenticated, "{e}");
        }
    }
}

/// If it failed, codes of other people's devices could be guessed; or who guesses would keep others
/// from signing in.
#[tokio::test]
async fn guessing_codes_is_slowed_and_locks_nobody_out() {
    let site = Site::new().await;
    let codes = site.device().await;
    let mallory = site.w.person("mallory").await;
    let guess = |n: u32| ShowDevice { user_code: format!("BCDF-{:04}", n) };
    let mut last = Kind::NotFound;
    for n in 0..10 {
        last = site.w.call(&mallory, guess(n)).await.unwrap_err().kind;
    }
    assert_eq!(last, Kind::Limited);
    let user_code = codes.user_code.clone();
    let decide = DecideDevice { user_code: user_code.clone(), allow: true, vo: None };
    assert_eq!(site.w.call(&mallory, decide.clone()).await.unwrap_err().kind, Kind::Limited);
    site.w.call(&site.alice, ShowDevice { user_code }).await.unwrap();
    site.w.call(&site.alice, decide).await.unwrap();
    site.w.clock.advance(TURN);
    granted(site.poll(&codes).await);
}

/// If it failed, a person who said no would be signed in all the same, or late.
#[tokio::test]
async fn a_device_gets_nothing_without_a_yes_in_time() {
    let site = Site::new().await;
    let other = site.w.call(&site.root, wish()).await.unwrap();
    let codes = site.device().await;
    let decide = |allow| DecideDevice { user_code: codes.user_code.clone(), allow, vo: None };
    site.w.call(&site.alice, decide(false)).await.unwrap();
    assert_eq!(site.w.call(&site.alice, decide(true)).await.unwrap_err().kind, Kind::NotFound);
    site.w.clock.advance(TURN);
    let grant = TokenGrant::Device { device_code: codes.device_code.clone() };
    let stolen = GetTokens { client: proof(&other), grant };
    assert_eq!(refused(site.w.public(stolen).await.unwrap()), OAuthError::InvalidGrant);
    assert_eq!(refused(site.poll(&codes).await), OAuthError::AccessDenied);
    let codes = site.device().await;
    site.w.clock.advance(Duration::from_secs(600));
    let late = DecideDevice { user_code: codes.user_code.clone(), allow: true, vo: None };
    assert_eq!(site.w.call(&site.alice, late).await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(refused(site.poll(&codes).await), OAuthError::ExpiredToken);
}

/// If it failed, people of other sites, machines and members' tokens could decide for a person.
#[tokio::test]
async fn only_a_person_of_the_site_decides() {
    let site = Site::new().await;
    let pisa = World::new("pisa").await;
    site.w.trusts(&pisa);
    pisa.trusts(&site.w);
    let bob = pisa.person("bob").await;
    let here = RenewToken { audience: Some(site.w.site.clone()) };
    let bob = pisa.call(&bob, here).await.unwrap();
    let bob = site.w.by_token(&bob.token.token);
    for caller in [&bob, &site.w.core_of(&pisa)] {
        let show = ShowAuthorization { request: site.request() };
        assert_eq!(site.w.call(caller, show).await.unwrap_err().kind, Kind::Denied);
        let decide = DecideAuthorization { request: site.request(), allow: true, vo: None };
        assert_eq!(site.w.call(caller, decide).await.unwrap_err().kind, Kind::Denied);
        let show = ShowDevice { user_code: site.device().await.user_code };
        assert_eq!(site.w.call(caller, show).await.unwrap_err().kind, Kind::Denied);
    }
    // As a member of what she is a member of, and of VOs at home here.
    for vo in ["other.rennes", "demo.pisa"] {
        let vo = Some(vo.parse().unwrap());
        let decide = DecideAuthorization { request: site.request(), allow: true, vo };
        assert!(site.w.call(&site.alice, decide).await.is_err());
    }
    let vo = Some(VO.parse().unwrap());
    let decide = DecideAuthorization { request: site.request(), allow: true, vo };
    site.w.call(&site.alice, decide).await.unwrap();
}

/// If it failed, whoever has a member's certificate could sign in at services as that person: by
/// something that passes for an ID token, without a yes and without a second factor.
#[tokio::test]
async fn a_members_jwt_is_for_no_client_of_the_sign_in() {
    let site = Site::new().await;
    let ask = async |audience: &str| {
        let jwt_audience = Some(audience.to_owned());
        let ask = IssueCertificate { jwt_audience, ..certificate_request(VO, &keyed().csr_pem) };
        site.w.call(&site.alice, ask).await
    };
    let client = &site.client.client;
    // One that was removed, or is yet to come, has the form of an id too.
    for audience in [&client.id, &client.audience, &"0f".repeat(16)] {
        let e = ask(audience).await.unwrap_err();
        assert!(e.kind == Kind::Denied && e.message.contains("jwt_audience"), "{audience}: {e}");
    }
    for audience in ["https://storage.example", ANY_AUDIENCE] {
        assert!(ask(audience).await.unwrap().jwt.is_some(), "{audience}");
    }
    let any = CreateClient { audience: Some(ANY_AUDIENCE.into()), ..wish() };
    site.w.call(&site.root, any).await.unwrap();
    ask(ANY_AUDIENCE).await.expect("one client keeps everybody from signing in");
    site.w.call(&site.root, RemoveClient { id: client.id.clone() }).await.unwrap();
    ask(&client.audience).await.expect("nobody has it any more");
    assert_eq!(ask(&client.id).await.unwrap_err().kind, Kind::Denied);
}

/// If it failed, anybody could register a service that looks like another.
#[tokio::test]
async fn administrators_register_clients_and_only_sound_ones() {
    let site = Site::new().await;
    let id = site.client.client.id.clone();
    let alice = &site.alice;
    assert_eq!(site.w.call(alice, wish()).await.unwrap_err().kind, Kind::Denied);
    assert_eq!(site.w.call(alice, ListClients {}).await.unwrap_err().kind, Kind::Denied);
    let remove = RemoveClient { id };
    assert_eq!(site.w.call(alice, remove).await.unwrap_err().kind, Kind::Denied);
    for bad in [
        CreateClient { name: " ".into(), ..wish() },
        CreateClient { name: "a\u{1b}[2J".into(), ..wish() },
        CreateClient { name: "a".repeat(61), ..wish() },
        CreateClient { redirects: vec!["http://wiki.example/back".into()], ..wish() },
        CreateClient { redirects: vec![BACK.into(); 17], ..wish() },
        CreateClient { redirects: vec!["com.example.app:/back".into()], ..wish() },
        CreateClient { confidential: false, ..wish() },
        CreateClient { redirects: vec![], device: false, introspect: false, ..wish() },
        CreateClient { audience: Some("two words".into()), ..wish() },
        CreateClient { audience: Some(site.client.client.id.clone()), ..wish() },
    ] {
        let e = site.w.call(&site.root, bad.clone()).await.unwrap_err();
        assert_eq!(e.kind, Kind::Invalid, "{bad:?}: {e}");
    }
    let unknown = RemoveClient { id: "../person/root".into() };
    assert_eq!(site.w.call(&site.root, unknown).await.unwrap_err().kind, Kind::NotFound);
}
