//! The provider's part of [`crate::fuzzing`].

use super::grants::Refresh;
use super::issue::{Read, signed};
use super::{consent, redirects, scopes, written};
use xos_api::cda::{Authorization, Client, Jwk, Scope};
use xos_base::{Millis, SiteId};

/// Where a client has browsers sent back to.
const KNOWN: [&str; 4] = [
    "https://a.example/back",
    "http://localhost:4242",
    "http://127.0.0.1/back",
    "edu.kit.data.oidc-agent:/redirect",
];

/// A place to send browsers back to: registered, or asked for.
pub(crate) fn redirect(text: &str) {
    let back = || redirects::with(text, &[("code", "a b"), ("state", text)]);
    for confidential in [true, false] {
        if redirects::check(text, confidential).is_ok() {
            assert!(redirects::is_registered(&[text.to_owned()], text), "not as it was registered");
            assert!(back().is_ok(), "nobody can be sent back there");
        }
    }
    if redirects::is_registered(&KNOWN.map(str::to_owned), text) {
        let to = back().unwrap_or_default();
        let at =
            |place: &str| to.strip_prefix(place).is_some_and(|r| r.starts_with([':', '/', '?']));
        let known = to.starts_with("https://a.example/back?")
            || to.starts_with("edu.kit.data.oidc-agent:/redirect?")
            || at("http://localhost")
            || at("http://127.0.0.1");
        assert!(known, "a code would go to {to}");
    }
    redirects::shown(text);
}

/// What a service sends with a browser, as JSON.
pub(crate) fn authorization(text: &str) {
    let Ok(request) = serde_json::from_str::<Authorization>(text) else { return };
    let client = Client {
        id: "0".repeat(32),
        name: "The Wiki".to_owned(),
        confidential: true,
        redirects: KNOWN.map(str::to_owned).to_vec(),
        device: true,
        scopes: vec![Scope::OpenId, Scope::WlcgGroups],
        audience: "https://a.example".to_owned(),
        introspect: false,
        created: Millis(1),
    };
    let asked = scopes(&request.scope, &client.scopes);
    assert_eq!(scopes(&written(&asked), &client.scopes), asked, "scopes are not written as read");
    // Whether it is refused does not matter, only that it is answered; so in all that follows.
    consent::check(&request, &client).ok();
}

/// A token that somebody brings: an access token or a refresh token. Or the claims of one.
pub(crate) fn token(text: &str) {
    let word = |text: &str| text.to_owned();
    let key = Jwk {
        kty: word("EC"),
        crv: word("P-256"),
        // The curve's base point: the private key is 1.
        x: word("axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY"),
        y: word("T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"),
        kid: word("k"),
        alg: word("ES256"),
        purpose: word("sig"),
    };
    signed(text, [key]);
    serde_json::from_str::<Read>(text).ok();
    let Ok(site) = "rennes".parse::<SiteId>() else { return };
    if let Some(refresh) = Refresh::read(text, &site) {
        assert_eq!(refresh.write(), text, "one refresh token has two spellings");
    }
}
