//! Where browsers are sent back to. Codes go to registered places only.

use openidconnect::url::Url;
use xos_base::Error;

/// Longest one, in bytes.
const REDIRECT_MAX: usize = 512;

fn parsed(text: &str) -> Option<Url> {
    let plain = text.len() <= REDIRECT_MAX && text.bytes().all(|b| b.is_ascii_graphic());
    let url = plain.then(|| Url::parse(text).ok()).flatten()?;
    let bare = url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    bare.then_some(url)
}

/// Whether it leads to a program on the person's own machine.
fn is_loopback(url: &Url) -> bool {
    url.scheme() == "http" && matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
}

/// Refuses what may not be registered.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] that says what may.
pub(super) fn check(text: &str, confidential: bool) -> Result<(), Error> {
    let fits = |url: Url| match url.scheme() {
        "https" => url.host_str().is_some_and(|h| !h.is_empty()),
        "http" => is_loopback(&url),
        // RFC 8252, 7.1: a domain name turned round, so that no `javascript:` or `data:` fits.
        own => !confidential && own.contains('.') && own.len() > 2,
    };
    if parsed(text).is_some_and(fits) {
        return Ok(());
    }
    let shown: String = text.chars().take(100).collect();
    Err(Error::invalid(format!("{shown:?} is no address to send people's browsers back to")).hint(
        "https://..., http://localhost... for a program, or for one without a secret a scheme of \
         its own with a dot: com.example.app:/back",
    ))
}

/// Whether a registered place was asked for: letter for letter, but for the port on the person's
/// own machine.
pub(super) fn is_registered(registered: &[String], asked: &str) -> bool {
    let same = |known: &String| {
        known == asked
            || match (parsed(known), parsed(asked)) {
                (Some(known), Some(asked)) => {
                    is_loopback(&known)
                        && is_loopback(&asked)
                        && known.host_str() == asked.host_str()
                        && known.path() == asked.path()
                        && known.query() == asked.query()
                }
                _ => false,
            }
    };
    registered.iter().any(same)
}

/// A place with an answer in its query.
///
/// # Errors
/// [`xos_base::Kind::Internal`] when it is none; it was registered.
pub(super) fn with(place: &str, answer: &[(&str, &str)]) -> Result<String, Error> {
    let mut url = parsed(place).ok_or_else(|| Error::internal("a registered address is none"))?;
    url.query_pairs_mut().extend_pairs(answer);
    Ok(url.into())
}

/// A place as people recognise it.
pub(super) fn shown(place: &str) -> String {
    place.split('?').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, codes could be had by plain HTTP, or a page of the console would run a script.
    #[test]
    fn only_safe_places_are_registered() {
        for good in [
            "https://a.example/back",
            "https://a.example/back?x=y",
            "http://localhost:4242",
            "http://127.0.0.1/back",
            "http://[::1]:1/back",
        ] {
            check(good, true).unwrap_or_else(|e| panic!("{good}: {e}"));
        }
        let own = "edu.kit.data.oidc-agent:/redirect";
        assert!(check(own, false).is_ok() && check(own, true).is_err());
        for bad in [
            "",
            "a",
            "/back",
            "http://a.example/back",
            "http://localhost.evil.example/",
            "https://user@a.example/",
            "https://a.example/#x",
            "https://a.example/ x",
            "https://a.example/\n",
            "javascript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "urn:ietf:wg:oauth:2.0:oob",
            &format!("https://a.example/{}", "a".repeat(REDIRECT_MAX)),
        ] {
            assert!(check(bad, false).is_err(), "{bad}");
        }
    }

    /// If it failed, a page of somebody else could have people's codes sent to itself.
    #[test]
    fn a_place_is_asked_for_as_it_was_registered() {
        let known = ["https://a.example/back", "http://localhost:4242", "http://127.0.0.1/back"];
        let known = known.map(str::to_owned);
        for good in [
            "https://a.example/back",
            "http://localhost:4242",
            "http://localhost:8080",
            "http://localhost:8080/",
            "http://127.0.0.1:1/back",
        ] {
            assert!(is_registered(&known, good), "{good}");
        }
        for bad in [
            "",
            "https://a.example/back/",
            "https://a.example/back?x",
            "https://a.example:444/back",
            "https://a.example.evil.example/back",
            "https://a.example/back/../other",
            "http://a.example/back",
            "https://localhost:4242",
            "http://localhost:8080/other",
            "http://localhost:8080/#x",
            "http://x@localhost:8080/",
            "http://localhost:8080\\@evil.example/",
            "http://localhost.evil.example:8080/",
            "http://127.0.0.1/back?x",
        ] {
            assert!(!is_registered(&known, bad), "{bad}");
        }
    }

    #[test]
    fn an_answer_stands_in_the_query() {
        let answer = [("code", "a b&c"), ("state", "é")];
        for (place, whole) in [
            ("https://a.example/b?x=y", "https://a.example/b?x=y&code=a+b%26c&state=%C3%A9"),
            ("edu.kit.data.oidc-agent:/r", "edu.kit.data.oidc-agent:/r?code=a+b%26c&state=%C3%A9"),
        ] {
            assert_eq!(with(place, &answer).unwrap(), whole);
        }
        assert_eq!(shown("https://a.example/b?x=y"), "https://a.example/b");
    }
}
