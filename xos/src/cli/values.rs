//! Values on the command line, as people write them: sizes, times, processors, dates, variables.

use std::time::Duration;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, Time};
use xos_base::{Millis, PersonId, SiteId};

/// Longest time that can be asked for, in seconds: ten years.
pub const TIME_MAX_S: u64 = 10 * 366 * 86_400;

/// A decimal number times `scale`, exactly: digits below are refused, not rounded.
fn scaled(text: &str, scale: u64) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > 9 {
        return None;
    }
    if text.contains('.') && part.is_empty() {
        return None;
    }
    let whole = u128::from(whole.parse::<u64>().ok()?) * u128::from(scale);
    let divisor = 10_u128.pow(u32::try_from(part.len()).ok()?);
    let part = if part.is_empty() { 0 } else { part.parse::<u128>().ok()? * u128::from(scale) };
    (part % divisor == 0).then(|| u64::try_from(whole + part / divisor).ok()).flatten()
}

/// `2G`, `512M`, `1.5G`, `4096B`: bytes, in units of 1024.
///
/// # Errors
/// What to write instead.
pub fn size(text: &str) -> Result<u64, String> {
    const WANT: &str = "write a number with its unit, for example 512M or 2G";
    let upper = text.to_ascii_uppercase();
    let number = upper.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale: u64 = match &upper[number.len()..] {
        "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        "T" | "TB" | "TIB" => 1 << 40,
        _ => return Err(WANT.into()),
    };
    scaled(number, scale).filter(|n| *n > 0).ok_or_else(|| WANT.into())
}

/// `1.5`, `0.25`, `4`: processors, as thousandths.
///
/// # Errors
/// What to write instead.
pub fn cpus(text: &str) -> Result<u64, String> {
    scaled(text, 1000)
        .filter(|n| *n > 0)
        .ok_or_else(|| "write a number of processors, for example 1, 0.5 or 1.5".into())
}

/// As [`cpus`], for one unit of a job.
///
/// # Errors
/// What to write instead.
pub fn unit_cpus(text: &str) -> Result<u32, String> {
    u32::try_from(cpus(text)?).map_err(|_| "no machine has so many processors".into())
}

/// `1:30:00` (hours, minutes, seconds), `2-12:00:00` (days before), `90m`, `2h`, `30s`, `1d`:
/// seconds. A plain number could mean seconds or minutes, so it is refused.
///
/// # Errors
/// What to write instead.
pub fn seconds(text: &str) -> Result<u64, String> {
    const WANT: &str = "write for example 90m, 2h, 1:30:00 (hours:minutes:seconds) or 2-12:00:00";
    let number = |s: &str| -> Option<u64> {
        let plain = !s.is_empty() && s.len() <= 9 && s.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| s.parse().ok()).flatten()
    };
    let clock = |s: &str| -> Option<u64> {
        let parts: Vec<&str> = s.split(':').collect();
        let [h, m, s] = parts.as_slice() else { return None };
        let (m, s) = (number(m).filter(|m| *m < 60)?, number(s).filter(|s| *s < 60)?);
        Some(number(h)? * 3600 + m * 60 + s)
    };
    let total = if text.contains(':') {
        match text.split_once('-') {
            Some((days, rest)) => number(days).zip(clock(rest)).map(|(d, r)| d * 86_400 + r),
            None => clock(text),
        }
    } else {
        let per = |suffix, unit| text.strip_suffix(suffix).and_then(|n| scaled(n, unit));
        per('s', 1).or(per('m', 60)).or(per('h', 3600)).or(per('d', 86_400))
    };
    total.filter(|s| (1..=TIME_MAX_S).contains(s)).ok_or_else(|| WANT.into())
}

/// A point in time on the command line: a date, or a distance from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// `2027-01-31` (the last moment of that day, UTC), `2027-01-31T12:00:00Z`.
    At(Millis),
    /// `30d`, `12h`.
    After(Duration),
}

impl When {
    /// The point in time, given now.
    pub fn from(self, now: Millis) -> Millis {
        match self {
            When::At(t) => t,
            When::After(d) => now.plus(d),
        }
    }
}

/// Reads [`When`].
///
/// # Errors
/// What to write instead.
pub fn time(text: &str) -> Result<When, String> {
    const WANT: &str = "write a date as 2027-01-31, or a time from now as 30d or 12h";
    let millis = |t: OffsetDateTime| {
        u64::try_from(t.unix_timestamp()).map(Millis::from_secs).map_err(|_| WANT.to_owned())
    };
    if let Ok(date) = Date::parse(text, format_description!("[year]-[month]-[day]")) {
        let next = date.next_day().ok_or(WANT)?;
        let midnight = millis(next.with_time(Time::MIDNIGHT).assume_utc())?;
        // Shown again, it reads as the day that was written.
        return Ok(When::At(midnight.minus(Duration::from_millis(1))));
    }
    if let Ok(t) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(When::At(millis(t)?));
    }
    seconds(text).map(|s| When::After(Duration::from_secs(s))).map_err(|_| WANT.into())
}

/// `NAME=VALUE`.
///
/// # Errors
/// What to write instead.
pub fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || !name.bytes().all(good) || name.as_bytes()[0].is_ascii_digit() {
        return Err("a variable's name has letters, digits and _, and begins with no digit".into());
    }
    if name.starts_with("XOS_") {
        return Err("variables beginning with XOS_ are set by XOS itself".into());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// `sha256:` and 64 hexadecimal digits; colons and capitals in the digits are taken as well.
///
/// # Errors
/// What to write instead.
pub fn fingerprint(text: &str) -> Result<String, String> {
    let digits = text.trim().to_ascii_lowercase();
    let digits = digits.strip_prefix("sha256:").unwrap_or(&digits).replace(':', "");
    if digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(format!("sha256:{digits}"));
    }
    Err("a fingerprint is sha256: and 64 hexadecimal digits".into())
}

/// `alice` or `alice@rennes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonArg {
    name: String,
    site: Option<SiteId>,
}

impl PersonArg {
    /// The person; one without a site is of `site`.
    ///
    /// # Errors
    /// When the name is not one.
    pub fn at(&self, site: &SiteId) -> Result<PersonId, xos_base::Error> {
        Ok(self.site.as_ref().unwrap_or(site).person(&self.name)?)
    }

    /// The site, when it was written.
    pub fn site(&self) -> Option<&SiteId> {
        self.site.as_ref()
    }
}

impl std::str::FromStr for PersonArg {
    type Err = String;
    fn from_str(text: &str) -> Result<PersonArg, String> {
        let (name, site) = match text.split_once('@') {
            Some((name, site)) => (name, Some(site.parse().map_err(|e| format!("{e}"))?)),
            None => (text, None),
        };
        // Only to check the name: the site does not matter.
        format!("{name}@x").parse::<PersonId>().map_err(
            |_| "a person is written as alice@rennes, or alice for one of your own site",
        )?;
        Ok(PersonArg { name: name.to_owned(), site })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        // A wrong unit asks for a thousandth or a thousand times of what was meant.
        assert_eq!(size("2G"), Ok(2 << 30));
        assert_eq!(size("1.5g"), Ok(3 << 29));
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("10b"), Ok(10));
        for bad in ["", "2", "G", "-1G", "0G", "2X", "1.G", ".5G", "1e3M", "99999999T", "2 G", "é"]
        {
            assert!(size(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn times() {
        assert_eq!(seconds("1:30:00"), Ok(5400));
        assert_eq!(seconds("90m"), Ok(5400));
        assert_eq!(seconds("1.5h"), Ok(5400));
        assert_eq!(seconds("2-00:00:01"), Ok(172_801));
        assert_eq!(seconds("100:00:00"), Ok(360_000));
        for bad in ["", "90", "1:30", "1:60:00", "0s", "m", "-5m", "1:2:3:4", "99999999d", "1-5m"] {
            assert!(seconds(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn processors() {
        assert_eq!(cpus("1.5"), Ok(1500));
        assert_eq!(unit_cpus("0.001"), Ok(1));
        for bad in ["", "0", "0.0001", "-1", "1,5", "1.", "999999999999999999999"] {
            assert!(cpus(bad).is_err(), "{bad:?} was taken");
        }
        assert!(unit_cpus("9999999999").is_err());
    }

    #[test]
    fn dates() {
        let end = Millis(1_801_439_999_999);
        assert_eq!(time("2027-01-31"), Ok(When::At(end)));
        assert!(end.to_string().starts_with("2027-01-31T23:59"), "as it was written: {end}");
        assert_eq!(time("2027-02-01T00:00:00Z"), Ok(When::At(Millis(end.0 + 1))));
        assert_eq!(time("30d").unwrap().from(Millis(0)), Millis::from_secs(30 * 86_400));
        for bad in ["", "31.1.2027", "2027-02-30", "soon", "1969-01-01"] {
            assert!(time(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn variables() {
        assert_eq!(variable("A_1=b=c"), Ok(("A_1".into(), "b=c".into())));
        assert_eq!(variable("A="), Ok(("A".into(), String::new())));
        for bad in ["", "A", "=b", "1A=b", "A B=c", "XOS_JOB=1", "é=1"] {
            assert!(variable(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn fingerprints() {
        let hex = "0A".repeat(32);
        let want = Ok(format!("sha256:{}", "0a".repeat(32)));
        assert_eq!(fingerprint(&hex), want);
        assert_eq!(fingerprint(&format!("sha256:{hex}")), want);
        assert!(fingerprint(&hex[1..]).is_err());
    }

    #[test]
    fn people() {
        let rennes = "rennes".parse().unwrap();
        let person = |s: &str| s.parse::<PersonArg>().map(|p| p.at(&rennes).unwrap().to_string());
        assert_eq!(person("alice"), Ok("alice@rennes".into()));
        assert_eq!(person("alice@pisa"), Ok("alice@pisa".into()));
        for bad in ["", "@pisa", "alice@", "Al", "a@b@c", "a\nb"] {
            assert!(person(bad).is_err(), "{bad:?} was taken");
        }
    }
}
