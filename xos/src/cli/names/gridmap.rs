//! Legacy grid-mapfiles: who of the world has which account of a site.
//!
//! A line holds the subject of a certificate, as `openssl x509 -subject -nameopt compat` prints it,
//! in quotes where it has spaces, and the accounts, the first of which is the usual one. Read as
//! the Globus Toolkit does (`globus_gss_assist/gridmap.c`): `\` takes the next character as it is,
//! `\xHH` stands for a byte, `#` begins a comment. LCMAPS also has accounts that begin with a dot,
//! for pools, and groups of VOMS in place of subjects: both are found and refused.

use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

/// Most lines of one file.
pub const LINES_MAX: usize = 100_000;
/// Longest line, in bytes.
pub const LINE_BYTES_MAX: usize = 16 * 1024;
/// Most accounts on one line.
pub const ACCOUNTS_MAX: usize = 64;

/// A line that is no comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// The subject as written, without quotes and escapes; as much as could be read of it.
    pub subject: String,
    /// Subject and accounts, or why they cannot be used.
    pub what: Result<Mapping, Fault>,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Whose certificate.
    pub dn: Dn,
    /// The accounts, at least one, the usual one first.
    pub accounts: Vec<String>,
}

/// Why a line cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Longer than [`LINE_BYTES_MAX`].
    Long,
    /// A quote is not closed, or something stands at it.
    Quote,
    /// What it names is no text of one line in UTF-8.
    NoText,
    /// What should be a subject is none.
    NoSubject,
    /// No account, an empty one, or more than [`ACCOUNTS_MAX`].
    NoAccount,
    /// Something stands behind the accounts.
    More,
    /// An account that begins with a dot.
    Pool(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Long => write!(f, "the line is longer than {LINE_BYTES_MAX} bytes"),
            Fault::Quote => {
                f.write_str("a quote is not closed, or something stands right after it")
            }
            Fault::NoText => {
                f.write_str("the subject is no text in UTF-8, or holds a control character")
            }
            Fault::NoSubject => f.write_str(
                "it names no person's subject, as /DC=org/CN=Ann, but a group of VOMS or a pattern",
            ),
            Fault::NoAccount => write!(f, "it names no account, or more than {ACCOUNTS_MAX}"),
            Fault::More => f.write_str("something stands behind the accounts"),
            Fault::Pool(name) => write!(
                f,
                "{name} is a pool, which lends accounts to whoever comes; here each member has an \
                 account that is nobody else's, without a line"
            ),
        }
    }
}

/// The subject of a certificate in OpenSSL's form of one line.
///
/// Kinds of names are compared without regard to case, and `E`, `Email` and `USERID` as
/// `emailAddress` and `UID`: Globus and OpenSSL wrote them differently over the years.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dn(Vec<(String, String)>);

impl Dn {
    /// Reads `/DC=org/DC=example/CN=Ann Example`. A slash that no `KIND=` follows belongs to the
    /// value before it. `None` for what is no subject.
    pub fn parse(text: &str) -> Option<Dn> {
        let starts: Vec<usize> = text
            .match_indices('/')
            .map(|(at, _)| at)
            .filter(|at| kind(&text[at + 1..]).is_some())
            .collect();
        if starts.first() != Some(&0) || text.contains('*') {
            return None;
        }
        let ends = starts.iter().skip(1).copied().chain([text.len()]);
        let parts = starts.iter().zip(ends).map(|(start, end)| {
            let (kind, value) = text[start + 1..end].split_once('=')?;
            (!value.is_empty()).then(|| (canonical(kind), value.to_owned()))
        });
        parts.collect::<Option<Vec<_>>>().map(Dn)
    }

    /// The person's name in the last part, when that is a `CN` or a `UID`.
    pub fn name(&self) -> Option<&str> {
        let (kind, value) = self.0.last()?;
        matches!(kind.as_str(), "CN" | "UID").then_some(value.as_str())
    }
}

impl fmt::Display for Dn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(kind, value)| write!(f, "/{kind}={value}"))
    }
}

/// The kind of name with which a text begins, as `CN` in `CN=Ann`.
fn kind(text: &str) -> Option<&str> {
    let (kind, _) = text.split_once('=')?;
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-';
    let begins = kind.starts_with(|c: char| c.is_ascii_alphanumeric());
    (begins && kind.bytes().all(good)).then_some(kind)
}

fn canonical(kind: &str) -> String {
    match kind.to_ascii_uppercase().as_str() {
        "E" | "EMAIL" | "EMAILADDRESS" => "emailAddress".to_owned(),
        "USERID" => "UID".to_owned(),
        other => other.to_owned(),
    }
}

/// The lines of a file that are no comments, at most [`LINES_MAX`] of all.
pub fn parse(text: &str) -> Vec<Line> {
    let lines = text.lines().take(LINES_MAX).enumerate().map(|(at, line)| (at + 1, line.trim()));
    lines.filter(|(_, l)| !l.is_empty() && !l.starts_with('#')).map(read).collect()
}

fn read((number, text): (usize, &str)) -> Line {
    if text.len() > LINE_BYTES_MAX {
        return Line { number, subject: String::new(), what: Err(Fault::Long) };
    }
    let mut rest = text.chars().peekable();
    let (bytes, ended) = subject(&mut rest);
    let subject = String::from_utf8_lossy(&bytes).into_owned();
    let what = || {
        if !ended {
            return Err(Fault::Quote);
        }
        if std::str::from_utf8(&bytes).is_err() || subject.contains(char::is_control) {
            return Err(Fault::NoText);
        }
        let dn = Dn::parse(&subject).ok_or(Fault::NoSubject)?;
        let rest: String = rest.collect();
        Ok(Mapping { dn, accounts: accounts(&rest)? })
    };
    let what = what();
    Line { number, subject, what }
}

/// The subject's bytes, and whether it ends as it must: at a blank or with the line.
fn subject(rest: &mut Peekable<Chars<'_>>) -> (Vec<u8>, bool) {
    let quoted = rest.next_if_eq(&'"').is_some();
    let (mut bytes, mut one) = (Vec::new(), [0; 4]);
    loop {
        let ends = match rest.peek() {
            None => return (bytes, !quoted),
            Some('"') if quoted => true,
            Some(c) => !quoted && c.is_whitespace(),
        };
        if ends {
            break;
        }
        match rest.next() {
            Some('\\') => bytes.extend(escaped(rest)),
            Some(c) => bytes.extend_from_slice(c.encode_utf8(&mut one).as_bytes()),
            None => {}
        }
    }
    if quoted {
        rest.next();
    }
    let apart = rest.peek().is_none_or(|c| c.is_whitespace());
    (bytes, apart)
}

/// What stands for the characters after a backslash.
fn escaped(rest: &mut Peekable<Chars<'_>>) -> Vec<u8> {
    let mut ahead = rest.clone();
    let x = ahead.next() == Some('x');
    let mut digit = || ahead.next().and_then(|c| c.to_digit(16));
    if x && let (Some(high), Some(low)) = (digit(), digit())
        && let Ok(byte) = u8::try_from(high * 16 + low)
    {
        *rest = ahead;
        return vec![byte];
    }
    // At the line's end it stands for nothing.
    rest.next().map(|c| c.to_string().into_bytes()).unwrap_or_default()
}

fn accounts(rest: &str) -> Result<Vec<String>, Fault> {
    let mut words = rest.split_whitespace();
    let list = words.next().filter(|w| !w.starts_with('#')).ok_or(Fault::NoAccount)?;
    if words.next().is_some_and(|w| !w.starts_with('#')) {
        return Err(Fault::More);
    }
    let names: Vec<String> = list.split(',').map(str::to_owned).collect();
    if names.len() > ACCOUNTS_MAX || names.iter().any(String::is_empty) {
        return Err(Fault::NoAccount);
    }
    match names.iter().find(|name| name.starts_with('.')) {
        Some(pool) => Err(Fault::Pool(pool.clone())),
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Result<(String, Vec<String>), Fault> {
        let mut lines = parse(text);
        assert_eq!(lines.len(), 1, "{text:?}");
        lines.remove(0).what.map(|m| (m.dn.to_string(), m.accounts))
    }

    /// If it failed, somebody would get the account of a person with another subject.
    #[test]
    fn lines_are_read_as_globus_reads_them() {
        let good = |text: &str, dn: &str, accounts: &[&str]| {
            let accounts = accounts.iter().map(|a| (*a).to_owned()).collect();
            assert_eq!(one(text), Ok((dn.to_owned(), accounts)), "{text:?}");
        };
        good(r#""/DC=org/CN=Ann Example" ann"#, "/DC=org/CN=Ann Example", &["ann"]);
        good("/O=Grid/CN=ann ann,ann2  # both", "/O=Grid/CN=ann", &["ann", "ann2"]);
        good("  \t\"/O=Grid/CN=a\"\tann\r", "/O=Grid/CN=a", &["ann"]);
        good(r#""/O=\"G\" \\ co/CN=a" ann"#, r#"/O="G" \ co/CN=a"#, &["ann"]);
        good(r#""/O=G/CN=Andr\xc3\xa9" a"#, "/O=G/CN=André", &["a"]);
        good(r#""/O=G/CN=\xyz" a"#, "/O=G/CN=xyz", &["a"]);
        good(r"/O=G/CN=Ann\ Example ann", "/O=G/CN=Ann Example", &["ann"]);
        good(r#""/O=G/CN=host/n1.example" h"#, "/O=G/CN=host/n1.example", &["h"]);
        good("/dc=org/E=a@b/userid=a a", "/DC=org/emailAddress=a@b/UID=a", &["a"]);
        assert!(parse("\n# \"/O=G/CN=a\" ann\n   \n").is_empty());
        assert_eq!(parse("#\n\n/O=G/CN=a a")[0].number, 3);
    }

    /// If it failed, an import would map a group or a pool to one person, or a line that nobody
    /// understands to anybody.
    #[test]
    fn what_is_no_persons_account_is_refused() {
        let long = format!("/CN={} ann", "a".repeat(LINE_BYTES_MAX));
        for (text, fault) in [
            (r#""/O=G/CN=a" .cms"#, Fault::Pool(".cms".into())),
            (r#""/O=G/CN=a" ann,.cms"#, Fault::Pool(".cms".into())),
            (r#""/cms/Role=production" cmsprd"#, Fault::NoSubject),
            (r#""/cms/*" .cms"#, Fault::NoSubject),
            (r#""/O=G/CN=*" ann"#, Fault::NoSubject),
            ("ann ann", Fault::NoSubject),
            ("\"\" ann", Fault::NoSubject),
            ("/O=G/CN= ann", Fault::NoSubject),
            (r#""/O=G/CN=a ann"#, Fault::Quote),
            (r#""/O=G/CN=a"ann"#, Fault::Quote),
            (r#""/O=G/CN=\xff" ann"#, Fault::NoText),
            (r#""/O=G/CN=a\x0ab" ann"#, Fault::NoText),
            (r#""/O=G/CN=a""#, Fault::NoAccount),
            (r#""/O=G/CN=a" # ann"#, Fault::NoAccount),
            (r#""/O=G/CN=a" ann,,bob"#, Fault::NoAccount),
            ("/O=G/CN=Ann Example ann", Fault::More),
            (long.as_str(), Fault::Long),
        ] {
            assert_eq!(one(text), Err(fault), "{text:?}");
        }
    }

    /// If it failed, a subject would be matched by a name that its holder wrote into another part.
    #[test]
    fn only_the_last_part_names_the_person() {
        let name = |text: &str| Dn::parse(text).unwrap().name().map(str::to_owned);
        assert_eq!(name("/DC=org/CN=ann").as_deref(), Some("ann"));
        assert_eq!(name("/DC=org/UID=ann").as_deref(), Some("ann"));
        assert_eq!(name("/CN=ann/O=Grid"), None);
        assert_eq!(name("/CN=ann/emailAddress=a@b"), None);
    }

    fn quote(text: &str) -> String {
        format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
    }

    proptest! {
        /// If it failed, one odd line could stop an import, or put a line break into a terminal.
        #[test]
        fn nothing_that_a_file_holds_ends_the_import(
            text in "([/=\"\\\\#,.x0-9a-c \t\n]|CN=|\\PC){0,200}"
        ) {
            for line in parse(&text) {
                if let Ok(Mapping { dn, accounts }) = line.what {
                    prop_assert!(!dn.to_string().contains(char::is_control));
                    prop_assert!(!accounts.is_empty());
                    prop_assert!(accounts.iter().all(|a| !a.is_empty() && !a.starts_with('.')));
                }
            }
        }

        /// If it failed, a subject with odd characters would be taken for another person's.
        #[test]
        fn every_subject_is_read_as_it_was_written(
            org in "[A-Za-z \"\\\\,é#]{1,12}", name in "[a-z][A-Za-z \"\\\\.'é-]{0,12}"
        ) {
            let dn = format!("/O={org}/CN={name}");
            let read = one(&format!("{} ann", quote(&dn)));
            prop_assert_eq!(read, Ok((dn.clone(), vec!["ann".to_owned()])));
            prop_assert_eq!(Dn::parse(&dn).unwrap().to_string(), dn);
        }
    }
}
