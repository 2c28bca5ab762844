//! JWTs (RFC 7519) for services outside XOS: WLCG Common JWT Profiles 1.1, with groups and roles
//! after AARC-G069 too; signed with ES256 (RFC 7518). What stands in them; does no I/O.
//!
//! No core of XOS takes one for a token: their issuer is a URL and no site, and their algorithm
//! another. Key, issuer and type are those of the ID tokens of `provider` too, which have no type
//! of their own (OpenID Connect Core, 2): so the audience parts them, and none is a client's.

use crate::Config;
use crate::issue::random;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use xos_api::cda::{Issuer, Jwk, Jwt, ProviderEndpoints, Scope};
use xos_base::{Error, Membership, Millis, SiteId};
use xos_net::caller::{CLOCK_SKEW_S, TOKEN_LIFE_MAX_S};
use xos_net::identity::{hex, sha256};
use xos_net::key::PrivateKey;
use xos_net::sign::compact;

/// Longest life of a JWT.
pub(crate) const LIFE_MAX: Duration = Duration::from_secs(TOKEN_LIFE_MAX_S);
/// Longest audience, in bytes.
const AUDIENCE_MAX: usize = 255;
/// What the profile calls a token that tells groups.
const SCOPE: &str = "wlcg.groups";
/// The version of the profile that tokens name; 1.1 kept it.
pub(crate) const PROFILE: &str = "1.0";
/// The curve of the keys.
const CURVE: &str = "P-256";
/// The algorithm of the signatures.
pub(crate) const ALGORITHM: &str = "ES256";
/// The type of JWTs that are no access tokens of clients. Those for services have it too: what they
/// are read by takes no other unless it is told to (Nimbus JOSE+JWT, Spring Security).
pub(crate) const TYPE: &str = "JWT";

/// A key that signs JWTs.
pub(crate) struct JwtKey {
    key: Arc<dyn PrivateKey>,
    public: Jwk,
}

/// A public key of P-256, as [`PrivateKey::public`] gives it, for services outside.
pub(crate) fn jwk(point: &[u8]) -> Result<Jwk, Error> {
    // SEC 1, section 2.3.3: 4, and the coordinates of 32 bytes each.
    let point: &[u8; 65] =
        point.try_into().map_err(|_| Error::internal("a key for JWTs has a wrong length"))?;
    let (x, y) = point[1..].split_at(32);
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    // RFC 7638: the members that define the key, by name, without spaces.
    let text = format!(r#"{{"crv":"{CURVE}","kty":"EC","x":"{x}","y":"{y}"}}"#);
    let kid = URL_SAFE_NO_PAD.encode(sha256(text.as_bytes()));
    let (kty, crv) = ("EC".to_owned(), CURVE.to_owned());
    let (alg, purpose) = (ALGORITHM.to_owned(), "sig".to_owned());
    Ok(Jwk { kty, crv, x, y, kid, alg, purpose })
}

impl JwtKey {
    /// Signs with `key`, of P-256.
    pub(crate) fn new(key: Arc<dyn PrivateKey>) -> Result<JwtKey, Error> {
        let public = jwk(&key.public())?;
        Ok(JwtKey { key, public })
    }

    /// The public key.
    pub(crate) fn public(&self) -> &Jwk {
        &self.public
    }

    /// The header of the JWTs of a type.
    fn header(&self, typ: &str) -> String {
        let kid = &self.public.kid;
        format!(r#"{{"alg":"{ALGORITHM}","kid":"{kid}","typ":"{typ}"}}"#)
    }

    /// Signs claims as a JWT of the type `typ`.
    pub(crate) fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<String, Error> {
        let claims = serde_json::to_vec(claims)
            .map_err(|e| Error::internal(format!("cannot encode a JWT: {e}")))?;
        compact(&self.header(typ), &claims, &*self.key)
    }
}

/// In whose name JWTs are issued.
pub(crate) struct Outside {
    url: String,
    /// What stands before the groups.
    namespace: String,
    /// The host in the URL: who says so, after AARC-G069.
    authority: String,
}

impl Outside {
    pub(crate) fn new(config: &Config, site: &SiteId) -> Outside {
        let url = config.issuer();
        let place = url.trim_start_matches("https://");
        let host = match place.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => place,
        };
        let authority = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Outside { namespace: config.namespace(site), authority, url }
    }

    /// The issuer's URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What services learn of it. `provider`: how people sign in to them, if they can.
    pub(crate) fn describe(&self, provider: Option<ProviderEndpoints>) -> Issuer {
        let texts = |all: &[&str]| all.iter().map(|t| (*t).to_owned()).collect();
        Issuer {
            issuer: self.url.clone(),
            jwks_uri: format!("{}/jwks", self.url),
            response_types_supported: provider.iter().map(|_| "code".to_owned()).collect(),
            subject_types_supported: texts(&["public"]),
            id_token_signing_alg_values_supported: texts(&[ALGORITHM]),
            scopes_supported: match provider {
                Some(_) => Scope::ALL.map(|s| s.as_str().to_owned()).to_vec(),
                None => texts(&[SCOPE]),
            },
            claims_supported: texts(&[
                "iss",
                "sub",
                "aud",
                "iat",
                "nbf",
                "exp",
                "jti",
                "scope",
                "auth_time",
                "wlcg.ver",
                "wlcg.groups",
                "entitlements",
                "eduperson_entitlement",
            ]),
            provider,
        }
    }

    /// `<namespace>:group:<vo>[:<group>][:role=<role>]#<authority>`, AARC-G069. Names in XOS have
    /// no character that would need encoding there.
    pub(crate) fn entitlements(&self, m: &Membership) -> Vec<String> {
        let of_vo = format!("{}:group:{}", self.namespace, m.vo);
        let groups = m.groups.iter().skip(1).map(|g| format!("{of_vo}:{}", g.name));
        let roles = m.roles.iter().map(|r| format!("{of_vo}:role={r}"));
        std::iter::once(of_vo.clone())
            .chain(groups)
            .chain(roles)
            .map(|text| format!("{text}#{}", self.authority))
            .collect()
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: u64,
    nbf: u64,
    exp: u64,
    jti: String,
    auth_time: u64,
    scope: &'static str,
    #[serde(rename = "wlcg.ver")]
    profile: &'static str,
    #[serde(rename = "wlcg.groups")]
    groups: Vec<String>,
    entitlements: &'a [String],
    /// The older name of the same, which services know still.
    eduperson_entitlement: &'a [String],
}

/// Refuses what can be no audience.
pub(crate) fn check_audience(audience: &str) -> Result<(), Error> {
    let fits = (1..=AUDIENCE_MAX).contains(&audience.len());
    if fits && audience.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "jwt_audience: {AUDIENCE_MAX} characters of ASCII at most, and no spaces"
    ))
    .hint("name the service as it names itself, often by its https URL"))
}

/// The groups as the profile writes them: the VO, which the group `members` is, and those in it.
pub(crate) fn groups(m: &Membership) -> Vec<String> {
    let of_vo = format!("/{}", m.vo);
    let others = m.groups.iter().skip(1).map(|g| format!("{of_vo}/{}", g.name));
    std::iter::once(of_vo.clone()).chain(others).collect()
}

/// Issues a JWT of a membership, for `audience`, not beyond `until`.
pub(crate) fn issue(
    (outside, key): (&Outside, &JwtKey),
    m: &Membership,
    audience: &str,
    signed_in: Millis,
    (now, until): (Millis, Millis),
) -> Result<Jwt, Error> {
    let exp = now.plus(LIFE_MAX).min(until).secs();
    let entitlements = outside.entitlements(m);
    let token = key.sign(
        TYPE,
        &Claims {
            iss: &outside.url,
            sub: m.person.as_str(),
            aud: audience,
            iat: now.secs(),
            // For services whose clocks are behind.
            nbf: now.secs().saturating_sub(CLOCK_SKEW_S),
            exp,
            jti: hex(&random::<16>()?),
            auth_time: signed_in.secs(),
            scope: SCOPE,
            profile: PROFILE,
            groups: groups(m),
            entitlements: &entitlements,
            eduperson_entitlement: &entitlements,
        },
    )?;
    Ok(Jwt { token, expires: Millis::from_secs(exp) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_net::key::{KeyKind, LocalKey};

    /// If it failed, a service outside would look for another key than the one that signed.
    #[test]
    fn a_key_is_named_by_its_thumbprint_and_stays_the_same() {
        let der = LocalKey::generate(KeyKind::P256).unwrap();
        let key = || JwtKey::new(Arc::new(LocalKey::from_pkcs8(KeyKind::P256, &der).unwrap()));
        let (a, b) = (key().unwrap(), key().unwrap());
        assert_eq!(a.public(), b.public());
        assert_eq!(a.public().kid.len(), 43);
        let header: serde_json::Value = serde_json::from_str(&a.header(TYPE)).unwrap();
        assert_eq!(header["kid"], a.public().kid.as_str());
        assert_eq!(header["alg"], "ES256");
        assert_eq!(header["typ"], "JWT");
        assert!(jwk(b"x").is_err());
    }

    #[test]
    fn the_authority_is_the_host_alone() {
        let site: SiteId = "rennes".parse().unwrap();
        for (address, host) in
            [("a.example:7443", "a.example"), ("[::1]:7443", "::1"), ("10.0.0.1:1", "10.0.0.1")]
        {
            let outside = Outside::new(&Config::new(vec![address.into()]), &site);
            assert_eq!(outside.authority, host);
            assert_eq!(outside.describe(None).jwks_uri, format!("https://{address}/jwks"));
        }
        let mut config = Config::new(vec!["a.example:7443".into()]);
        config.issuer = Some("https://b.example".into());
        assert_eq!(Outside::new(&config, &site).authority, "b.example");
    }

    #[test]
    fn audiences_that_break_a_line_or_are_endless_are_refused() {
        for good in ["https://wlcg.cern.ch/jwt/v1/any", "s3", &"a".repeat(AUDIENCE_MAX)] {
            check_audience(good).unwrap();
        }
        for bad in ["", "a b", "a\nb", "é", &"a".repeat(AUDIENCE_MAX + 1)] {
            assert!(check_audience(bad).is_err(), "{bad:?}");
        }
    }
}
