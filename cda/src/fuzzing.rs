//! Entries for `fuzz/`: decoders of what comes from outside, each alone. No part of the interface.

use crate::oidc::known::Metadata;
use crate::oidc::{Claims, Provider, account_key, check, name, person, token};
use crate::ssh;
use openidconnect::core::{CoreJsonWebKeySet, CoreTokenResponse};
use openidconnect::{ClientId, IssuerUrl, Nonce};
use xos_base::{Millis, SiteId};

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
