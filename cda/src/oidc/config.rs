//! The tables `[[cda.providers]]`.

use super::web::is_allowed;
use openidconnect::url::Url;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use xos_base::{Error, ProviderId};

/// Longest title, in characters.
const TITLE_MAX: usize = 60;
/// Longest other text, in bytes.
const TEXT_MAX: usize = 512;
/// Most scopes, and most claims that are asked for.
const LIST_MAX: usize = 32;

/// Who may sign in by a provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accounts {
    /// People whose account there was linked by themselves.
    #[default]
    Known,
    /// Everybody there: a person is made at the first sign-in.
    Create,
}

/// What a claim must be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Wanted {
    /// True or false.
    Truth(bool),
    /// This text, or a list that holds it.
    Text(String),
    /// One of these texts, or a list that holds one of them.
    OneOf(Vec<String>),
}

/// A table `[[cda.providers]]`: an OpenID Connect provider at which this core is a client.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Names the provider in addresses and commands: 1 to 24 of a-z, 0-9 and `-`, beginning with a
    /// letter. Accounts are linked under it, so it must stay as it is.
    pub id: ProviderId,
    /// What people read on the sign-in page, at most 60 characters. Default: the id.
    pub title: Option<String>,
    /// The provider's issuer, `https://...`, exactly as the provider writes it.
    pub issuer: String,
    /// Under which id the provider knows this core.
    pub client_id: String,
    /// The file that holds the client's secret, one line, which root alone may read. Default: none,
    /// a public client.
    pub client_secret_file: Option<PathBuf>,
    /// What is asked for beside `openid`. Default `profile`.
    #[serde(default = "default_scopes")]
    pub scopes: Vec<String>,
    /// The claim that holds the person's name. Default `preferred_username`.
    #[serde(default = "default_username_claim")]
    pub username_claim: String,
    /// Claims without which nobody signs in, each with a text, true or false, or a list of texts of
    /// which one is enough. Where the claim is a list, it must hold the text. Default: none.
    #[serde(default)]
    pub required: BTreeMap<String, Wanted>,
    /// `known` (default): who linked the account before. `create`: everybody; a person is made at
    /// the first sign-in, with the name in `username_claim`, unless that name is taken.
    #[serde(default)]
    pub accounts: Accounts,
    /// A file with certificates (PEM) of authorities that are believed for this provider beside the
    /// system's.
    pub ca_file: Option<PathBuf>,
    /// The level of sign-in (`acr`) that is asked for and must be reached. Default: any.
    pub acr: Option<String>,
    /// For tests: takes an issuer at `http://127.0.0.1:...`, without TLS. Default false.
    #[serde(default)]
    pub insecure_loopback: bool,
}

fn default_scopes() -> Vec<String> {
    vec!["profile".to_owned()]
}

fn default_username_claim() -> String {
    "preferred_username".to_owned()
}

impl Provider {
    /// What people call it.
    pub(crate) fn title(&self) -> &str {
        self.title.as_deref().unwrap_or(self.id.as_str())
    }

    /// Refuses values out of their ranges.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] that names the key.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let bad = |key: &str, why: &str| {
            Err(Error::invalid(format!("[[cda.providers]] {}: {key}: {why}", self.id)))
        };
        let title = self.title();
        if title.trim().is_empty()
            || title.chars().count() > TITLE_MAX
            || title.chars().any(xos_base::text::hidden)
        {
            return bad("title", "1 to 60 characters, no control characters");
        }
        let issuer = Url::parse(&self.issuer);
        if !issuer.is_ok_and(|u| {
            is_allowed(&u, self.insecure_loopback) && u.query().is_none() && u.fragment().is_none()
        }) {
            return bad("issuer", "an address that begins with https:// and has no query");
        }
        let acr = self.acr.iter();
        let texts = [&self.issuer, &self.client_id, &self.username_claim].into_iter().chain(acr);
        if texts.chain(self.required.keys()).any(|t| t.trim().is_empty() || t.len() > TEXT_MAX) {
            return bad("issuer, client_id, username_claim, acr, required", "1 to 512 bytes each");
        }
        if self.scopes.len() > LIST_MAX || self.required.len() > LIST_MAX {
            return bad("scopes, required", "at most 32 each");
        }
        // RFC 6749, appendix A.4.
        let is_scope = |s: &String| {
            !s.is_empty()
                && s.len() <= TEXT_MAX
                && s.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
        };
        if !self.scopes.iter().all(is_scope) {
            return bad("scopes", "each a word of ASCII");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "id = \"uni\"\nissuer = \"https://id.uni.example\"\nclient_id = \"xos\"\n";

    fn with(more: &str) -> Result<Provider, Error> {
        let provider: Provider = xos_base::config::parse("x", &format!("{LEAST}{more}"))?;
        provider.check().map(|()| provider)
    }

    /// If it failed, an administrator could not say whom the site lets in.
    #[test]
    fn claims_are_texts_truths_or_lists() {
        let more = "required = { email_verified = true, org = \"lab\", groups = [\"a\", \"b\"] }";
        let provider = with(more).unwrap();
        assert_eq!(provider.required["email_verified"], Wanted::Truth(true));
        assert_eq!(provider.required["org"], Wanted::Text("lab".into()));
        assert_eq!(provider.required["groups"], Wanted::OneOf(vec!["a".into(), "b".into()]));
        assert_eq!((provider.accounts, provider.title()), (Accounts::Known, "uni"));
    }

    /// If it failed, anybody on the way to the provider could sign in as anyone.
    #[test]
    fn an_issuer_without_tls_is_refused() {
        let change = |from: &str, to: &str| {
            let text = LEAST.replace(from, to);
            let provider: Provider = xos_base::config::parse("x", &text).unwrap();
            provider.check()
        };
        change("https://id.uni.example", "https://id.uni.example/realms/a").unwrap();
        for bad in [
            "http://id.uni.example",
            "http://127.0.0.1:9000",
            "https://id.uni.example/?a=b",
            "https://user:word@id.uni.example",
            "file:///etc/passwd",
            "nonsense",
        ] {
            let e = change("https://id.uni.example", bad).unwrap_err();
            assert!(e.message.contains("issuer"), "{bad}: {e}");
        }
        let loopback = "insecure_loopback = true";
        for (issuer, good) in [
            ("http://127.0.0.1:9000", true),
            ("http://192.0.2.1:9000", false),
            ("http://localhost:9000", false),
        ] {
            let text = LEAST.replace("https://id.uni.example", issuer) + loopback;
            let provider: Provider = xos_base::config::parse("x", &text).unwrap();
            assert_eq!(provider.check().is_ok(), good, "{issuer}");
        }
    }

    /// If it failed, a slip in the file would show only when the first person signs in.
    #[test]
    fn other_values_out_of_range_are_named() {
        assert!(with("scopes = [\"a b\"]").unwrap_err().message.contains("scopes"));
        assert!(with("title = \" \"").unwrap_err().message.contains("title"));
        assert!(with("username_claim = \"\"").unwrap_err().message.contains("username_claim"));
        assert!(with("colour = 1").is_err());
    }
}
