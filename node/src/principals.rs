//! `xos-principals`, sshd's `AuthorizedPrincipalsCommand` with `%u %k %K`: under which principals
//! a certificate may sign in as a user. sshd itself verifies the certificate.
//!
//! It asks the node's `xosd`. While that does not run, a file says the same of people who were let
//! in before, until the node's lease or their membership ends.

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use xos_base::accounts::ID_RANGE;
use xos_base::local::{LocalError, Principals, SOCKET, call_at};
use xos_base::when::{Clock, SystemClock};
use xos_base::{Kind, LocalName, Millis};

/// Where the file is when `xosd` keeps its state in the default place; anybody may read it.
pub const FILE: &str = "/var/lib/xos/node/ssh/principals";
/// Its name in the folder for sshd.
pub const FILE_NAME: &str = "principals";
/// How long `xosd` is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest file that is read, in bytes.
const FILE_MAX: u64 = 256 * 1024 * 1024;

/// An account of somebody who was let in before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Until when that counts.
    pub until: Millis,
    /// The local name.
    pub user: String,
    /// The principal of their certificates.
    pub principal: String,
    /// The keys of those who may sign them, base64.
    pub authorities: Vec<String>,
}

/// The file's text: a line each, `until user principal authority...`. What would not be read back
/// as it is, is left out.
pub fn write(entries: &[Entry]) -> String {
    let word = |w: &String| !w.is_empty() && w.chars().all(|c| c.is_ascii_graphic());
    let mut text = String::new();
    for e in entries {
        if [&e.user, &e.principal].into_iter().chain(&e.authorities).all(word) {
            let keys = e.authorities.join(" ");
            text.push_str(&format!("{} {} {} {keys}\n", e.until.0, e.user, e.principal));
        }
    }
    text
}

/// The principal under which a certificate of `authority` is good for `user` at `now`.
pub(crate) fn find<'a>(text: &'a str, user: &str, authority: &str, now: Millis) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut words = line.split(' ');
        let until: u64 = words.next()?.parse().ok()?;
        let (name, principal) = (words.next()?, words.next()?);
        let good = name == user && until > now.0 && !authority.is_empty();
        (good && words.any(|key| key == authority)).then_some(principal)
    })
}

/// The principals, from `xosd` at `socket`, or else from `file`.
fn principals(
    call: &Principals,
    (socket, file): (&Path, &Path),
    now: Millis,
) -> Result<Vec<String>, String> {
    let error = match call_at(socket, call, PATIENCE) {
        Ok(all) => return Ok(all),
        // It is there and says no, or something else answers.
        Err(LocalError::Refused(e)) if e.kind != Kind::Limited => return Err(e.to_string()),
        Err(e @ (LocalError::NotRoots | LocalError::Nonsense)) => return Err(e.to_string()),
        Err(e) => e,
    };
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|f| f.take(FILE_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => find(&text, &call.user, &call.authority, now)
            .map(|p| vec![p.to_owned()])
            .ok_or_else(|| format!("{error}, and {} was not let in lately", call.user)),
        Err(e) => Err(format!("{error}, and {} cannot be read: {e}", file.display())),
    }
}

/// Whether sshd means the grid's account by `user`, whom libc told it by `uid`. A name that a site
/// gave may be a local user's or a directory's too, and sshd would let the member in as that user;
/// so it counts only with a number that nobody but XOS gives.
fn is_grids(user: &str, uid: Option<u32>) -> bool {
    user.parse::<LocalName>().is_err() || uid.is_some_and(|uid| ID_RANGE.contains(&uid))
}

/// The program: what `main` calls.
#[allow(clippy::print_stderr)]
pub fn principals_main(mut args: impl Iterator<Item = String>) -> ExitCode {
    let (Some(user), Some(certificate), Some(authority), None) =
        (args.next(), args.next(), args.next(), args.next())
    else {
        eprintln!("xos-principals: to be called by sshd: xos-principals %u %k %K");
        return ExitCode::from(Kind::Invalid.exit_code());
    };
    let known = nix::unistd::User::from_name(&user).ok().flatten();
    if !is_grids(&user, known.map(|u| u.uid.as_raw())) {
        return ExitCode::SUCCESS;
    }
    let call = Principals { user, certificate, authority };
    let places = (Path::new(SOCKET), Path::new(FILE));
    let said = principals(&call, places, SystemClock.now()).and_then(|all| {
        let lines: String = all.iter().map(|p| format!("{p}\n")).collect();
        std::io::stdout().write_all(lines.as_bytes()).map_err(|e| e.to_string())
    });
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xos-principals: {why}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(user: &str, until: u64) -> Entry {
        Entry {
            until: Millis(until),
            user: user.into(),
            principal: "ann@rennes/demo.rennes".into(),
            authorities: vec!["AAAA1".into(), "AAAA2".into()],
        }
    }

    /// If it failed, nobody could sign in while the daemon is restarted, or people could who may
    /// not: another's account, another authority, after the lease.
    #[test]
    fn without_the_daemon_only_who_was_let_in_before_is() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, file) = (dir.path().join("no.sock"), dir.path().join("principals"));
        let text = write(&[entry("ann.demo", 100), entry("a b", 100), entry("x\ny", 100)]);
        assert_eq!(text.lines().count(), 1, "{text}");
        let ask = |user: &str, authority: &str, now: u64| {
            let (user, authority) = (user.to_owned(), authority.to_owned());
            let call = Principals { user, certificate: "c".into(), authority };
            principals(&call, (&socket, &file), Millis(now))
        };
        assert!(ask("ann.demo", "AAAA2", 50).unwrap_err().contains("cannot be read"));
        std::fs::write(&file, text).unwrap();
        assert_eq!(ask("ann.demo", "AAAA2", 99).unwrap(), ["ann@rennes/demo.rennes"]);
        for (user, authority, now) in [
            ("ann.demo", "AAAA2", 100),
            ("ann.demo", "AAAA", 50),
            ("ann.demo", "", 50),
            ("ann.demo", "ann@rennes/demo.rennes", 50),
            ("ann", "AAAA1", 50),
            ("", "AAAA1", 50),
            ("root", "AAAA1", 50),
            ("a", "AAAA1", 50),
        ] {
            assert!(ask(user, authority, now).is_err(), "{user} {authority} {now}");
        }
    }

    /// If it failed, a member whom the site calls `ann` could sign in as the machine's own ann, or
    /// as the one of the site's directory.
    #[test]
    fn a_name_that_a_site_gave_counts_with_a_number_of_the_grid() {
        assert!(is_grids("ann", Some(*ID_RANGE.start() + 1)));
        for uid in [None, Some(0), Some(1042), Some(*ID_RANGE.start() - 1), Some(u32::MAX)] {
            assert!(!is_grids("ann", uid), "{uid:?}");
        }
        assert!(is_grids("ann.demo.rennes", Some(200_001)), "a base that the site chose");
    }

    proptest! {
        /// If it failed, a name that somebody chose would let them into another account.
        #[test]
        fn no_name_reaches_another_entry(user in ".{0,40}", key in ".{0,40}") {
            let text = write(&[entry("ann.demo", 100), entry(&user, 50)]);
            let found = find(&text, "ann.demo", "AAAA1", Millis(60));
            prop_assert_eq!(found, Some("ann@rennes/demo.rennes"));
            prop_assume!(key != "AAAA1" && key != "AAAA2");
            prop_assert_eq!(find(&text, "ann.demo", &key, Millis(40)), None);
        }
    }
}
