//! `xos token`, and the JWT of each VO: `vo/<vo>/token`, one line, for scripts that `cat` it.

use super::credential::{Credential, past_two_thirds};
use super::home::Home;
use super::output::Outcome;
use super::session::Session;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use xos_base::{Error, Millis, VoId};

/// Longest JWT that is kept, in bytes.
const JWT_MAX: usize = 64 * 1024;

/// `xos token`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos token --vo demo.rennes
  xos token --audience https://storage.example
  curl -H \"Authorization: Bearer $(xos token)\" https://storage.example/data

It holds 20 minutes. The last one lies in ~/.xos/vo/VO/token too. Whoever has it can act as you \
at such services; XOS itself takes no such token.")]
pub struct TokenArgs {
    /// The only service that shall take it [default: as at the sign-in].
    #[arg(long, value_name = "NAME", value_parser = audience)]
    audience: Option<String>,
}

/// A JWT's audience, on the command line.
///
/// # Errors
/// What to write instead.
pub fn audience(text: &str) -> Result<String, String> {
    match text.trim().is_empty() || text.chars().any(char::is_control) {
        true => Err("write the name of the service, mostly the address where it is".into()),
        false => Ok(text.to_owned()),
    }
}

/// A JWT with what it says of itself. Nothing is verified: whom it is shown to does that.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct KeptJwt {
    /// The JWT, compact.
    pub token: String,
    /// Who may take it.
    pub audience: Vec<String>,
    /// When it was issued.
    pub issued: Millis,
    /// When it expires.
    pub expires: Millis,
}

impl std::fmt::Debug for KeptJwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeptJwt(.., until {})", self.expires)
    }
}

/// The claims that are read (RFC 7519).
#[derive(Deserialize)]
struct Claims {
    aud: Audience,
    exp: u64,
    iat: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl KeptJwt {
    /// Reads a JWT.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unauthenticated`] when it is none.
    pub fn of(token: String) -> Result<KeptJwt, Error> {
        let refuse = || Error::unauthenticated("what came from the VO's home is no JWT");
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if token.len() > JWT_MAX || !token.bytes().all(good) {
            return Err(refuse());
        }
        let parts: Vec<&str> = token.split('.').collect();
        let [_, claims, _] = parts.as_slice() else { return Err(refuse()) };
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| refuse())?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| refuse())?;
        let audience = match claims.aud {
            Audience::One(one) => vec![one],
            Audience::Many(many) => many,
        };
        let (issued, expires) = (Millis::from_secs(claims.iat), Millis::from_secs(claims.exp));
        Ok(KeptJwt { token, audience, issued, expires })
    }

    /// The JWT that is kept for `vo`; `None` when there is none that can be read.
    ///
    /// # Errors
    /// As [`Home::read_text`].
    pub fn read(home: &Home, vo: &VoId) -> Result<Option<KeptJwt>, Error> {
        let text = home.read_text(&file(vo))?;
        Ok(text.and_then(|text| KeptJwt::of(text.trim_end().to_owned()).ok()))
    }

    /// Whether two thirds of its life are over.
    pub fn is_old(&self, now: Millis) -> bool {
        past_two_thirds(self.issued, self.expires, now)
    }
}

fn file(vo: &VoId) -> String {
    format!("vo/{vo}/token")
}

/// Keeps a JWT for `vo`.
///
/// # Errors
/// As [`Home::write_text`].
pub fn keep(home: &Home, vo: &VoId, jwt: &KeptJwt) -> Result<(), Error> {
    home.write_text(&file(vo), &format!("{}\n", jwt.token))
}

/// Removes the JWT of `vo`.
///
/// # Errors
/// As [`Home::remove`].
pub fn remove(home: &Home, vo: &VoId) -> Result<(), Error> {
    home.remove(&file(vo)).map(|_| ())
}

impl Session {
    /// A fresh JWT for `vo`, with the groups and roles of what is held for it: for the audience of
    /// the sign-in, and then kept, or for another one, once.
    ///
    /// # Errors
    /// As [`Session::issuer`], and what the VO's home says.
    pub async fn jwt(&self, vo: &VoId, audience: Option<String>) -> Result<KeptJwt, Error> {
        let credential = match Credential::read(&self.home, vo)? {
            Some(credential) => credential,
            None => self.issue(vo).await?,
        };
        let mut wish = credential.wish;
        let usual = audience.as_ref().is_none_or(|a| *a == wish.audience);
        if let Some(audience) = audience {
            wish.audience = audience;
        }
        let jwt = Credential::jwt(&self.issuer(vo).await?, vo, &wish).await?;
        if usual {
            keep(&self.home, vo, &jwt)?;
        }
        Ok(jwt)
    }
}

/// Prints a fresh JWT.
///
/// # Errors
/// As [`Session::jwt`].
pub async fn token(s: &Session, args: TokenArgs) -> Outcome {
    let vo = s.the_vo().await?;
    let jwt = s.jwt(&vo, args.audience).await?;
    s.out.show(&jwt, || jwt.token.clone())?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    /// If it failed, a script would read something else than a token, or `xos renew` never see
    /// that one is old.
    #[test]
    fn a_jwt_is_kept_as_one_line_and_says_until_when() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(&dir.path().join("xos"));
        let vo: VoId = "demo.rennes".parse().unwrap();
        assert_eq!(KeptJwt::read(&home, &vo).unwrap(), None);
        let text = jwt(r#"{"aud":"https://a","iat":1000,"exp":2200,"wlcg.ver":"1.0"}"#);
        let one = KeptJwt::of(text.clone()).unwrap();
        assert_eq!(
            (one.audience.as_slice(), one.expires),
            (&["https://a".to_owned()][..], Millis(2_200_000))
        );
        assert!(!one.is_old(Millis(1_700_000)) && one.is_old(Millis(1_800_000)));
        keep(&home, &vo, &one).unwrap();
        let path = home.path().join("vo/demo.rennes/token");
        assert_eq!(std::fs::read_to_string(path).unwrap(), format!("{text}\n"));
        assert_eq!(KeptJwt::read(&home, &vo).unwrap(), Some(one));
        let many = KeptJwt::of(jwt(r#"{"aud":["a","b"],"iat":1,"exp":2}"#)).unwrap();
        assert_eq!(many.audience, ["a", "b"]);
        remove(&home, &vo).unwrap();
        assert!(!home.path().join("vo/demo.rennes").exists());
    }

    /// If it failed, what a broken or hostile core sends would end in a terminal or a header.
    #[test]
    fn what_is_no_jwt_is_refused() {
        let good = jwt(r#"{"aud":"a","iat":1,"exp":2}"#);
        for bad in [
            String::new(),
            "a.b".to_owned(),
            format!("{good}.x"),
            format!("{good}\nX-Other: 1"),
            format!("{good}\u{1b}[2J"),
            jwt(r#"{"aud":"a","iat":1}"#),
            jwt(r#"{"aud":"a","iat":-1,"exp":2}"#),
            jwt("[]"),
            format!("e30.{}.c2ln", "A".repeat(JWT_MAX)),
        ] {
            assert!(KeptJwt::of(bad.clone()).is_err(), "{bad}");
        }
        assert!(audience("").is_err() && audience("a\nb").is_err());
        assert_eq!(audience("https://a").as_deref(), Ok("https://a"));
    }
}
