//! Entries for `fuzz/`: decoders of what comes from outside, each alone. No part of the interface.

use crate::config::Config;
use crate::kerberos::principal::Principal;
use crate::oidc::known::Metadata;
use crate::oidc::{Claims, Provider, account_key, check, name, person, token};
use crate::passkeys::{self, Book, By, Passkeys};
use crate::provider::fuzzing as provider;
use crate::{csr, ssh};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::core::{CoreJsonWebKeySet, CoreTokenResponse};
use openidconnect::{ClientId, IssuerUrl, Nonce};
use serde_json::Value;
use std::sync::OnceLock;
use webauthn_rs::prelude::PublicKeyCredential;
use xos_api::cda::WebAuthn;
use xos_base::{Millis, PersonId, SiteId};

/// The provider, whose tokens are read.
const PROVIDER: &str = "\
id = 'uni'
issuer = 'https://id.example'
client_id = 'xos'
[required]
staff = true
groups = ['grid', 'hpc']
";
/// What the core sent along when it asked for a token.
const NONCE: &str = "fuzz";
/// When tokens are read.
const NOW: Millis = Millis(2_000_000_000_000);

/// A person's SSH key, and a machine's.
pub fn ssh_key(line: &str) {
    // Whether it is refused does not matter, only that it is answered; so in all that follows.
    ssh::person_key(line).ok();
    ssh::host_key(line).ok();
}

/// A certificate request, in PEM.
pub fn certificate_request(pem: &str) {
    csr::read(pem).ok();
}

/// Whose Kerberos ticket it is.
pub fn kerberos_principal(text: &str) {
    let Ok(principal) = Principal::read(text, &["RENNES.TEST".to_owned()]) else { return };
    assert!(!principal.name().contains(char::is_control), "a name that cannot be shown");
    principal.key();
    if let Ok(site) = "rennes".parse::<SiteId>()
        && let Ok(person) = principal.person(&site)
    {
        assert_eq!(person.site(), site, "a ticket of this site's is another's person");
    }
}

/// Where a service wants browsers sent back to.
pub fn provider_redirect(text: &str) {
    provider::redirect(text);
}

/// What a service brings to the core as an OpenID provider: a token, or a request in JSON.
pub fn provider_token(text: &str) {
    provider::authorization(text);
    provider::token(text);
}

/// What browsers answer about a passkey, in two lines: that it was made, and that it was used. The
/// core's own challenge takes the place of theirs, so that what comes behind it is read too.
pub fn webauthn(text: &str) {
    static OPEN: OnceLock<Option<Passkeys>> = OnceLock::new();
    let open = OPEN.get_or_init(|| {
        let config = Config::new(vec!["core.example:7443".to_owned()]);
        Passkeys::open(&config, &"rennes".parse().ok()?).ok()
    });
    let (Some(open), Ok(person)) = (open, "ann@rennes".parse::<PersonId>()) else { return };
    let (made, used) = text.split_once('\n').unwrap_or((text, text));
    let Ok((options, making)) = open.make(person, &Book::default(), By::Session) else { return };
    let passkey = answered(made, &options).and_then(|answer| open.made(&making, answer).ok());
    let Ok((options, proving)) = open.ask(None, &[]) else { return };
    let Some(answer) = answered(used, &options) else { return };
    let Ok(credential) = passkeys::read::<PublicKeyCredential>(answer) else { return };
    passkeys::id_key(credential.get_credential_id());
    open.says(&credential).ok();
    if let Some(passkey) = passkey {
        open.proved(proving, &credential, &passkey).ok();
    }
}

/// A browser's answer, to these options.
fn answered(text: &str, options: &WebAuthn) -> Option<WebAuthn> {
    let mut answer: Value = serde_json::from_str(text).ok()?;
    if let Some(Value::String(said)) = answer.pointer_mut("/response/clientDataJSON")
        && let Ok(bytes) = URL_SAFE_NO_PAD.decode(said.as_bytes())
        && let Ok(mut client) = serde_json::from_slice::<Value>(&bytes)
        && let Some(challenge) = client.get_mut("challenge")
    {
        *challenge = options.0["challenge"].clone();
        *said = URL_SAFE_NO_PAD.encode(client.to_string());
    }
    Some(WebAuthn(answer))
}

/// What a provider says, in three lines: of itself, its keys, and its answer with an ID token. Or
/// the claims alone.
pub fn id_token(text: &str) {
    let Ok(provider) = xos_base::config::parse::<Provider>("fuzzing", PROVIDER) else { return };
    if let Ok(claims) = serde_json::from_str::<Claims>(text) {
        claimed(&provider, &claims);
    }
    let mut lines = text.splitn(3, '\n');
    let (Some(itself), Some(keys), Some(answer)) = (lines.next(), lines.next(), lines.next())
    else {
        return;
    };
    let (Ok(itself), Ok(keys), Ok(answer), Ok(issuer)) = (
        serde_json::from_str::<Metadata>(itself),
        serde_json::from_str::<CoreJsonWebKeySet>(keys),
        serde_json::from_str::<CoreTokenResponse>(answer),
        IssuerUrl::new(provider.issuer.clone()),
    ) else {
        return;
    };
    let metadata = itself.set_jwks(keys);
    let nonce = Nonce::new(NONCE.to_owned());
    for nonce in [None, Some(&nonce)] {
        let (client_id, issuer) = (ClientId::new(provider.client_id.clone()), issuer.clone());
        let wanted = token::Wanted { client_id, issuer, nonce, acr: None, now: NOW };
        if let Ok(claims) = token::read(&wanted, &metadata, &answer) {
            claimed(&provider, &claims);
        }
    }
}

fn claimed(provider: &Provider, claims: &Claims) {
    account_key(&provider.issuer, claims).ok();
    check(provider, claims).ok();
    assert!(!name(provider, claims).contains(char::is_control), "a name that cannot be shown");
    if let Ok(site) = "rennes".parse::<SiteId>() {
        person(provider, claims, &site).ok();
    }
}
