//! The fields of a form or a query.

use std::collections::HashSet;
use std::str::FromStr;
use std::time::Duration;
use time::macros::format_description;
use time::{Date, OffsetDateTime, Time};
use xos_base::ids::IdError;
use xos_base::{Error, Millis};

/// Largest form, in bytes.
pub(crate) const FORM_MAX: usize = 256 * 1024;
/// Most fields of one form.
const FIELDS_MAX: usize = 1024;

/// Names and values, decoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads `application/x-www-form-urlencoded`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Fields, Error> {
        if bytes.len() > FORM_MAX {
            return Err(Error::too_large(format!("a form may have {FORM_MAX} bytes"))
                .hint("put large data on the VO's volume and name its path"));
        }
        let mut fields: Vec<(String, String)> = serde_urlencoded::from_bytes(bytes)
            .map_err(|e| Error::invalid(format!("the form is malformed: {e}")))?;
        if fields.len() > FIELDS_MAX {
            return Err(Error::too_large(format!("a form may have {FIELDS_MAX} fields")));
        }
        // Browsers send line breaks as CR LF (HTML, form submission).
        for (_, value) in &mut fields {
            if value.contains('\r') {
                *value = value.replace("\r\n", "\n");
            }
        }
        Ok(Fields(fields))
    }

    /// A field's text without blanks around it; empty when it is missing.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.raw(name).trim()
    }

    /// A field's text exactly; empty when it is missing.
    pub(crate) fn raw(&self, name: &str) -> &str {
        self.0.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v)
    }

    /// Whether a name stands there twice.
    pub(crate) fn has_repeated(&self) -> bool {
        let mut names = HashSet::new();
        !self.0.iter().all(|(k, _)| names.insert(k))
    }

    /// A field as an id.
    pub(crate) fn id<T: FromStr<Err = IdError>>(&self, name: &str) -> Result<T, Error> {
        Ok(self.text(name).parse::<T>()?)
    }

    /// A field as an id, if it is there.
    pub(crate) fn id_if<T: FromStr<Err = IdError>>(&self, name: &str) -> Result<Option<T>, Error> {
        if self.text(name).is_empty() { Ok(None) } else { self.id(name).map(Some) }
    }

    /// Ids from all fields of that name; each may hold several, parted by commas or blanks.
    pub(crate) fn ids<T: FromStr<Err = IdError>>(&self, name: &str) -> Result<Vec<T>, Error> {
        let values = self.0.iter().filter(|(k, _)| k == name);
        values
            .flat_map(|(_, v)| v.split([',', ' ', '\n', '\t']))
            .filter(|v| !v.is_empty())
            .map(|v| Ok(v.parse::<T>()?))
            .collect()
    }

    /// The fields whose names begin with `prefix`: the rest of the name, and the text exactly.
    pub(crate) fn starting<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
        self.0.iter().filter_map(move |(k, v)| Some((k.strip_prefix(prefix)?, v.as_str())))
    }

    /// A field as the last moment of a day (UTC), written `2027-01-31`, if it is there.
    pub(crate) fn day(&self, name: &str, what: &str) -> Result<Option<Millis>, Error> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(None);
        }
        let format = format_description!("[year]-[month]-[day]");
        let next = Date::parse(text, &format).ok().and_then(Date::next_day);
        let end = next.map(|d| d.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp());
        let end = end.and_then(|s| u64::try_from(s).ok()).map(Millis::from_secs);
        let last = end.map(|end| end.minus(Duration::from_millis(1)));
        last.map(Some).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Error::invalid(format!("{what}: {shown:?} is no day; write it as 2027-01-31"))
        })
    }

    /// A field as a number, if it is there.
    pub(crate) fn number<T: FromStr>(&self, name: &str, what: &str) -> Result<Option<T>, Error> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(None);
        }
        let shown: String = text.chars().take(40).collect();
        text.parse()
            .map(Some)
            .map_err(|_| Error::invalid(format!("{what}: {shown:?} is no fitting number")))
    }
}

/// The day at whose end (UTC) something is over, as [`Fields::day`] reads it.
pub(crate) fn day_text(end: Millis) -> String {
    let last = end.minus(Duration::from_millis(1)).secs();
    let format = format_description!("[year]-[month]-[day]");
    let last = i64::try_from(last).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    last.and_then(|t| t.date().format(&format).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_base::GroupName;

    /// If it failed, a membership would end on another day than the one that was chosen, or move
    /// each time its form is sent.
    #[test]
    fn days_end_before_midnight_utc_and_read_as_they_were_written() {
        let f = Fields::parse(b"a=2027-01-31&b=31.1.2027&c=2027-02-30&d=1960-01-01").unwrap();
        let end = Millis(1_801_439_999_999);
        assert_eq!(f.day("a", "x").unwrap(), Some(end));
        assert_eq!(day_text(end), "2027-01-31");
        assert_eq!(day_text(Millis(end.0 + 1)), "2027-01-31", "midnight is a day's end too");
        assert_eq!(day_text(Millis(end.0 + 2)), "2027-02-01");
        assert_eq!(f.day("missing", "x").unwrap(), None);
        for bad in ["b", "c", "d"] {
            assert!(f.day(bad, "x").is_err(), "{bad}");
        }
        let f = Fields::parse(b"q-a=1&q-b=+2+&x=3").unwrap();
        assert_eq!(f.starting("q-").collect::<Vec<_>>(), [("a", "1"), ("b", " 2 ")]);
    }

    #[test]
    fn fields_are_decoded_and_bounded() {
        let f = Fields::parse(b"a=1+2%0D%0A3&g=x,y&g=z&bad=A").unwrap();
        assert_eq!(f.text("a"), "1 2\n3");
        let groups: Vec<GroupName> = f.ids("g").unwrap();
        assert_eq!(groups.len(), 3);
        assert!(f.ids::<GroupName>("bad").is_err());
        assert!(f.has_repeated() && !Fields::parse(b"a=1&b=1").unwrap().has_repeated());
        assert_eq!(f.text("missing"), "");
        assert_eq!(f.number::<u8>("missing", "x").unwrap(), None);
        assert!(f.number::<u8>("a", "x").is_err());
        assert!(Fields::parse(&vec![b'a'; FORM_MAX + 1]).is_err());
        assert!(Fields::parse("a&".repeat(2000).as_bytes()).is_err());
    }
}
