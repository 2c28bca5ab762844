//! `xos-principals`, sshd's `AuthorizedPrincipalsCommand` with `%u %k %K %U`: under which
//! principals a certificate may sign in as a user. sshd itself verifies the certificate.
//!
//! sshd looks a user up once for each connection, and gives the session the uid that it found then.
//! So a name counts with that uid only.
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
use xos_base::{Kind, Millis};

/// Where the file is when `xosd` keeps its state in the default place; anybody may read it.
pub const FILE: &str = "/var/lib/xos/node/ssh/principals";
/// Its name in the folder for sshd.
pub const FILE_NAME: &str = "principals";
/// Its first line: the form of the others. Of another form nothing is believed; `xosd` writes the
/// file anew when it starts.
const HEAD: &str = "xos-principals 2";
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
    /// The account's uid.
    pub uid: u32,
    /// The principal of their certificates.
    pub principal: String,
    /// The keys of those who may sign them, base64.
    pub authorities: Vec<String>,
}

/// The file's text: [`HEAD`], then a line each, `until uid user principal authority...`. What would
/// not be read back as it is, is left out.
pub fn write(entries: &[Entry]) -> String {
    let word = |w: &String| !w.is_empty() && w.chars().all(|c| c.is_ascii_graphic());
    let mut text = format!("{HEAD}\n");
    for e in entries {
        if [&e.user, &e.principal].into_iter().chain(&e.authorities).all(word) {
            let keys = e.authorities.join(" ");
            let Entry { until: Millis(until), uid, user, principal, .. } = e;
            text.push_str(&format!("{until} {uid} {user} {principal} {keys}\n"));
        }
    }
    text
}

/// The principal under which the certificate of a call is good for its user at `now`.
pub(crate) fn find<'a>(text: &'a str, call: &Principals, now: Millis) -> Option<&'a str> {
    let mut lines = text.lines();
    if lines.next() != Some(HEAD) {
        return None;
    }
    let Principals { user, uid, authority, .. } = call;
    lines.find_map(|line| {
        let mut words = line.split(' ');
        let until: u64 = words.next()?.parse().ok()?;
        let number: u32 = words.next()?.parse().ok()?;
        let (name, principal) = (words.next()?, words.next()?);
        let good = name == user && number == *uid && until > now.0 && !authority.is_empty();
        (good && words.any(|key| key == authority)).then_some(principal)
    })
}

/// The principals, from `xosd` at `socket`, or else from `file`.
fn principals(
    call: &Principals,
    (socket, file): (&Path, &Path),
    now: Millis,
) -> Result<Vec<String>, String> {
    // Before anybody is asked: what sshd calls somebody else's is not the grid's to answer for.
    if !ID_RANGE.contains(&call.uid) {
        return Ok(Vec::new());
    }
    let error = match call_at(socket, call, PATIENCE) {
        Ok(all) => return Ok(all),
        Err(e @ (LocalError::Absent | LocalError::Late)) => e,
        // Only sshd's own questions make it say so.
        Err(LocalError::Refused(e)) if e.kind == Kind::Limited => LocalError::Refused(e),
        // It is there and says no, something else answers, or somebody keeps it from being asked.
        Err(e) => return Err(e.to_string()),
    };
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|f| f.take(FILE_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => find(&text, call, now)
            .map(|p| vec![p.to_owned()])
            .ok_or_else(|| format!("{error}, and {} was not let in lately", call.user)),
        Err(e) => Err(format!("{error}, and {} cannot be read: {e}", file.display())),
    }
}

/// What sshd asks by the words that it calls the program with: `%u %k %K %U`.
fn asked(mut words: impl Iterator<Item = String>) -> Option<Principals> {
    let (user, certificate, authority) = (words.next()?, words.next()?, words.next()?);
    let uid = words.next()?.parse().ok()?;
    words.next().is_none().then_some(Principals { user, uid, certificate, authority })
}

/// The program: what `main` calls.
#[allow(clippy::print_stderr)]
pub fn principals_main(args: impl Iterator<Item = String>) -> ExitCode {
    let Some(call) = asked(args) else {
        eprintln!(
            "xos-principals: to be called by sshd: xos-principals %u %k %K %U; put the xos.conf \
             of this version into /etc/ssh/sshd_config.d"
        );
        return ExitCode::from(Kind::Invalid.exit_code());
    };
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

    /// Ann's.
    const UID: u32 = *ID_RANGE.start() + 7;

    fn entry(user: &str, until: u64) -> Entry {
        Entry {
            until: Millis(until),
            user: user.into(),
            uid: UID,
            principal: "ann@rennes/demo.rennes".into(),
            authorities: vec!["AAAA1".into(), "AAAA2".into()],
        }
    }

    fn call(user: &str, uid: u32, authority: &str) -> Principals {
        let (user, authority) = (user.to_owned(), authority.to_owned());
        Principals { user, uid, certificate: "c".into(), authority }
    }

    /// If it failed, nobody could sign in while the daemon is restarted, or people could who may
    /// not: another's account, another authority, after the lease.
    #[test]
    fn without_the_daemon_only_who_was_let_in_before_is() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, file) = (dir.path().join("no.sock"), dir.path().join("principals"));
        let text = write(&[entry("ann.demo", 100), entry("a b", 100), entry("x\ny", 100)]);
        assert_eq!(text.lines().count(), 2, "{text}");
        let ask = |user: &str, authority: &str, now: u64| {
            principals(&call(user, UID, authority), (&socket, &file), Millis(now))
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

    /// If it failed, whoever keeps a connection open while a name passes to them would get the
    /// uid of the one who had it before.
    #[test]
    fn a_name_counts_with_the_uid_that_it_had() {
        let text = write(&[entry("ann.demo", 100), entry("ann", 100)]);
        for name in ["ann.demo", "ann"] {
            assert!(find(&text, &call(name, UID, "AAAA1"), Millis(50)).is_some());
            assert_eq!(find(&text, &call(name, UID + 1, "AAAA1"), Millis(50)), None, "{name}");
        }
    }

    /// If it failed, a member could sign in as the machine's own user, or the directory's, who has
    /// the name, be it one with dots.
    #[test]
    fn a_name_counts_with_a_number_of_the_grid_only() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, file) = (dir.path().join("no.sock"), dir.path().join("principals"));
        let outside = [0, 1042, 200_001, *ID_RANGE.start() - 1, *ID_RANGE.end() + 1, u32::MAX];
        for uid in outside {
            // Who had the file say so, has nothing of it.
            let said = [entry("ann", 100), entry("ann.demo", 100)].map(|e| Entry { uid, ..e });
            std::fs::write(&file, write(&said)).unwrap();
            for name in ["ann", "ann.demo"] {
                let told = principals(&call(name, uid, "AAAA1"), (&socket, &file), Millis(50));
                assert_eq!(told, Ok(Vec::new()), "{name} {uid}");
            }
        }
    }

    /// If it failed, a file of before, which has no uids, would be read as if it had.
    #[test]
    fn a_file_of_another_form_is_not_believed() {
        let good = write(&[entry("ann.demo", 100)]);
        let asked = call("ann.demo", UID, "AAAA1");
        assert!(find(&good, &asked, Millis(50)).is_some());
        let headless = good.split_once('\n').unwrap().1;
        let former = "100 ann.demo ann@rennes/demo.rennes AAAA1 AAAA2\n";
        let newer = good.replacen(HEAD, "xos-principals 3", 1);
        for text in ["", "\n", headless, former, newer.as_str()] {
            assert_eq!(find(text, &asked, Millis(50)), None, "{text}");
        }
    }

    /// If it failed, a program of the machine that fills the socket's queue would have old records
    /// believed.
    #[test]
    fn a_full_queue_does_not_make_the_file_count() {
        use rustix::net::{
            AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen,
            socket_with,
        };
        let dir = tempfile::tempdir().unwrap();
        let (path, file) = (dir.path().join("s"), dir.path().join("principals"));
        std::fs::write(&file, write(&[entry("ann.demo", 100)])).unwrap();
        let asked = call("ann.demo", UID, "AAAA1");
        let ask = || principals(&asked, (&path, &file), Millis(50));
        assert_eq!(ask().unwrap(), ["ann@rennes/demo.rennes"], "nobody listens");
        let address = SocketAddrUnix::new(&path).unwrap();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = || socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let listener = socket();
        bind(&listener, &address).unwrap();
        listen(&listener, 1).unwrap();
        let wait = || Some(socket()).filter(|fd| connect(fd, &address).is_ok());
        let waiting: Vec<_> = std::iter::from_fn(wait).take(100).collect();
        assert!((1..100).contains(&waiting.len()), "the queue is not full");
        assert!(ask().unwrap_err().contains("too many programs"));
    }

    /// If it failed, sshd's question would be read as another, or none answered.
    #[test]
    fn sshd_asks_by_four_words() {
        let words = |all: &[&str]| asked(all.iter().map(|w| (*w).to_owned()));
        assert_eq!(words(&["ann", "c", "AAAA1", "7"]), Some(call("ann", 7, "AAAA1")));
        for bad in [
            &["ann", "c", "AAAA1"][..],
            &["ann", "c", "AAAA1", "7", "8"],
            &["ann", "c", "AAAA1", ""],
            &["ann", "c", "AAAA1", "-1"],
            &["ann", "c", "AAAA1", "4294967296"],
            &["ann", "c", "AAAA1", "seven"],
            &[],
        ] {
            assert_eq!(words(bad), None, "{bad:?}");
        }
    }

    proptest! {
        /// If it failed, a name that somebody chose would let them into another account.
        #[test]
        fn no_name_reaches_another_entry(user in ".{0,40}", key in ".{0,40}") {
            let text = write(&[entry("ann.demo", 100), entry(&user, 50)]);
            let found = find(&text, &call("ann.demo", UID, "AAAA1"), Millis(60));
            prop_assert_eq!(found, Some("ann@rennes/demo.rennes"));
            prop_assume!(key != "AAAA1" && key != "AAAA2");
            prop_assert_eq!(find(&text, &call("ann.demo", UID, &key), Millis(40)), None);
        }
    }
}
