//! Filters (RFC 7644, 3.4.2.2): comparisons by `eq`, joined by `and`.

use super::answers::Refused;

/// Longest filter, in bytes.
const FILTER_MAX: usize = 2048;
/// Most comparisons in one.
const TERMS_MAX: usize = 16;

/// Comparisons that must all hold: an attribute in lower case, and the text that it must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter(pub(super) Vec<(String, String)>);

impl Filter {
    /// Reads one; an empty text holds for everything.
    ///
    /// # Errors
    /// [`Refused`] with `invalidFilter`, naming what is not understood.
    pub(super) fn parse(text: &str) -> Result<Filter, Refused> {
        let mut terms = Vec::new();
        let mut rest = text.trim();
        if rest.len() > FILTER_MAX {
            return Err(Refused::filter(format!("a filter may have {FILTER_MAX} bytes")));
        }
        while !rest.is_empty() {
            if terms.len() == TERMS_MAX {
                return Err(Refused::filter(format!("a filter may have {TERMS_MAX} comparisons")));
            }
            let (attribute, after) = word(rest);
            let (operator, after) = word(after);
            if !operator.eq_ignore_ascii_case("eq") {
                return Err(Refused::filter(format!("only eq is done here, not {operator:?}")));
            }
            let (value, after) = string(after)?;
            terms.push((attribute.to_ascii_lowercase(), value));
            rest = match word(after) {
                ("", _) => "",
                (and, after) if and.eq_ignore_ascii_case("and") && !after.is_empty() => after,
                (other, _) => {
                    return Err(Refused::filter(format!("only and joins here, not {other:?}")));
                }
            };
        }
        Ok(Filter(terms))
    }

    /// The text that an attribute must be, if one is asked for.
    pub(super) fn wants(&self, attribute: &str) -> Option<&str> {
        self.0.iter().find(|(a, _)| a == attribute).map(|(_, value)| value.as_str())
    }

    /// Refuses attributes beside `known`.
    ///
    /// # Errors
    /// [`Refused`] with `invalidFilter`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Refused> {
        match self.0.iter().find(|(a, _)| !known.contains(&a.as_str())) {
            Some((other, _)) => Err(Refused::filter(format!("no filter by {other:?} here"))),
            None => Ok(()),
        }
    }

    /// Whether every comparison holds; `is` says whether an attribute is a text.
    pub(super) fn holds(&self, is: impl Fn(&str, &str) -> bool) -> bool {
        self.0.iter().all(|(attribute, value)| is(attribute, value))
    }
}

/// The next word, and what follows without blanks before it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    match text.split_once(' ') {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}

/// A JSON string, and what follows.
fn string(text: &str) -> Result<(String, &str), Refused> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
    match values.next() {
        Some(Ok(value)) => Ok((value, text.get(values.byte_offset()..).unwrap_or_default())),
        _ => Err(Refused::filter("a value is a text in double quotes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        Filter::parse(text).unwrap().0
    }

    #[test]
    fn comparisons_are_read() {
        // The first is of RFC 7644, figure 1.
        assert_eq!(parsed("userName eq \"bjensen\""), [("username".into(), "bjensen".into())]);
        let two = parsed(" displayName EQ \"a and b\"  AND members.value eq \"x\\\"y\" ");
        assert_eq!(two[0], ("displayname".into(), "a and b".into()));
        assert_eq!(two[1], ("members.value".into(), "x\"y".into()));
        assert!(parsed("").is_empty());
        let filter = Filter::parse("userName eq \"a\"").unwrap();
        assert!(filter.wants("username") == Some("a") && filter.wants("id").is_none());
        assert!(filter.only(&["username"]).is_ok() && filter.only(&["id"]).is_err());
    }

    /// If it failed, a service would be given everybody for a filter that was not understood.
    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "userName",
            "userName eq",
            "userName eq bob",
            "userName sw \"b\"",
            "userName pr",
            "not (userName eq \"a\")",
            "userName eq \"a\" or id eq \"b\"",
            "userName eq \"a\" and",
            "userName eq \"a",
            "userName eq 1",
        ] {
            assert!(Filter::parse(bad).is_err(), "{bad:?} was taken");
        }
        assert!(Filter::parse(&"x".repeat(FILTER_MAX + 1)).is_err());
        let many = vec!["id eq \"a\""; TERMS_MAX + 1].join(" and ");
        assert!(Filter::parse(&many).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = Filter::parse(&text).is_ok();
        }

        #[test]
        fn every_value_survives(value in ".{0,40}") {
            let text = format!("id eq {}", serde_json::to_string(&value).unwrap());
            prop_assert_eq!(parsed(&text), vec![("id".to_owned(), value)]);
        }
    }
}
