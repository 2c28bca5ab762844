//! What a provider says of an account, and what the site makes of it: pure.

use super::config::{Provider, Wanted};
use serde_json::{Map, Value};
use xos_base::{Error, PersonId, SiteId};
use xos_net::identity::{hex, sha256};

/// Longest `sub` (OpenID Connect Core, 2), in bytes.
const SUB_MAX: usize = 255;
/// Longest name that is kept or shown, in characters.
const NAME_MAX: usize = 64;

/// Names and values, of a token whose signature was verified.
pub(crate) type Claims = Map<String, Value>;

/// Claims that the site needs and that are not there.
pub(crate) fn lacking<'a>(provider: &'a Provider, claims: &Claims) -> Option<&'a str> {
    let needed = provider.required.keys().chain([&provider.username_claim]);
    needed.map(String::as_str).find(|name| !claims.contains_key(*name))
}

/// Names the account, for ever. The issuer is part of it: when another provider takes over an id
/// of the configuration, its accounts are others.
///
/// # Errors
/// [`xos_base::Kind::Unauthenticated`] when `sub` is missing or malformed.
pub(crate) fn account_key(issuer: &str, claims: &Claims) -> Result<String, Error> {
    let sub = claims.get("sub").and_then(Value::as_str).filter(|s| {
        // An issuer has no line end, so that no two pairs give one text.
        !s.is_empty() && s.len() <= SUB_MAX && s.is_ascii()
    });
    match sub {
        Some(sub) => Ok(hex(&sha256(format!("{issuer}\n{sub}").as_bytes()))),
        None => Err(Error::unauthenticated("the provider does not say whose account it is")),
    }
}

fn holds(claim: Option<&Value>, wanted: &Wanted) -> bool {
    let text = |wanted: &str| match claim {
        Some(Value::String(is)) => is == wanted,
        Some(Value::Array(list)) => list.iter().any(|v| v.as_str() == Some(wanted)),
        _ => false,
    };
    match wanted {
        Wanted::Truth(wanted) => claim.and_then(Value::as_bool) == Some(*wanted),
        Wanted::Text(wanted) => text(wanted.as_str()),
        Wanted::OneOf(list) => list.iter().any(|w| text(w.as_str())),
    }
}

/// Refuses an account without the claims that the site wants.
///
/// # Errors
/// [`xos_base::Kind::Denied`] that names the claim.
pub(crate) fn check(provider: &Provider, claims: &Claims) -> Result<(), Error> {
    match provider.required.iter().find(|(name, wanted)| !holds(claims.get(*name), wanted)) {
        None => Ok(()),
        Some((name, _)) => Err(Error::denied(format!(
            "your account at {} has not the {name:?} that this site wants",
            provider.title()
        ))
        .hint("ask a site administrator which accounts may sign in")),
    }
}

/// What the provider calls the account, as far as it can be shown.
pub(crate) fn name(provider: &Provider, claims: &Claims) -> String {
    let name = claims.get(&provider.username_claim).and_then(Value::as_str).unwrap_or_default();
    name.chars().filter(|c| !xos_base::text::hidden(*c)).take(NAME_MAX).collect()
}

/// The person that the account's name stands for, exactly: nothing is cut off or changed, so that
/// no two names become one.
///
/// # Errors
/// [`xos_base::Kind::Denied`] when it can be no person's name.
pub(crate) fn person(
    provider: &Provider,
    claims: &Claims,
    site: &SiteId,
) -> Result<PersonId, Error> {
    let claim = claims.get(&provider.username_claim).and_then(Value::as_str);
    claim.and_then(|name| site.person(name).ok()).ok_or_else(|| {
        let shown = name(provider, claims);
        Error::denied(format!("the name {shown:?} that {} gives is no name here", provider.title()))
            .hint(
                "a name is 1 to 32 of a-z, 0-9, '-' and '_', beginning with a letter; ask a site \
                 administrator for an account, and link this one to it",
            )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn provider(required: &str) -> Provider {
        let text = format!(
            "id = \"uni\"\nissuer = \"https://id.example\"\nclient_id = \"xos\"\n\
             [required]\n{required}"
        );
        xos_base::config::parse("x", &text).unwrap()
    }

    fn claims(value: Value) -> Claims {
        match value {
            Value::Object(map) => map,
            other => panic!("{other}"),
        }
    }

    /// If it failed, people whom the site did not mean could sign in.
    #[test]
    fn required_claims_must_be_there_and_say_what_is_wanted() {
        let p = provider("email_verified = true\ngroups = [\"lab\", \"staff\"]\norg = \"uni\"");
        let good = json!({ "email_verified": true, "groups": ["x", "lab"], "org": "uni" });
        check(&p, &claims(good.clone())).unwrap();
        for (name, bad) in [
            ("email_verified", json!("true")),
            ("email_verified", json!(false)),
            ("groups", json!(["laboratory"])),
            ("groups", json!({ "lab": true })),
            ("org", json!("uni.example")),
            ("org", json!(null)),
        ] {
            let mut changed = claims(good.clone());
            changed.insert(name.into(), bad.clone());
            let e = check(&p, &changed).unwrap_err();
            assert!(e.message.contains(name), "{bad}: {e}");
            changed.remove(name);
            assert!(check(&p, &changed).is_err(), "{name} is missing");
        }
    }

    /// If it failed, an account could be taken for another one of the same or another provider.
    #[test]
    fn accounts_of_different_issuers_and_subjects_differ() {
        let key = |issuer: &str, sub: &str| account_key(issuer, &claims(json!({ "sub": sub })));
        let a = key("https://a.example", "1").unwrap();
        assert_eq!(a.len(), 64);
        assert_eq!(a, key("https://a.example", "1").unwrap());
        assert_ne!(a, key("https://b.example", "1").unwrap());
        assert_ne!(a, key("https://a.example", "2").unwrap());
        for bad in [json!({}), json!({ "sub": "" }), json!({ "sub": 1 }), json!({ "sub": "é" })] {
            assert!(account_key("https://a.example", &claims(bad)).is_err());
        }
        assert!(key("https://a.example", &"x".repeat(256)).is_err());
    }

    proptest! {
        /// If it failed, who may choose a name at the provider could become somebody else here.
        #[test]
        fn a_name_stands_for_itself_or_for_nobody(name in ".{0,40}") {
            let p = provider("");
            let site: SiteId = "rennes".parse().unwrap();
            let c = claims(json!({ "preferred_username": name }));
            match person(&p, &c, &site) {
                Ok(person) => prop_assert_eq!(person.name(), name),
                Err(e) => prop_assert!(!e.message.contains('\n')),
            }
        }
    }
}
