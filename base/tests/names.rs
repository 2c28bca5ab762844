//! Names that a file, a path, a terminal or a reader would take for another than they are.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::fmt::Debug;
use std::str::FromStr;
use xos_base::accounts::{AccountsBuilder, AccountsError, User};
use xos_base::{GroupName, JobId, NodeId, PersonId, RoleName, SiteId, UnitId, VoId};

/// What is made of a good name: whoever types or sends such a one means another, or none.
fn strange(name: &str) -> Vec<String> {
    let mut all = vec![
        format!("{name}\n"),
        format!("\n{name}"),
        format!("{name}\nroot:x:0:0:::"),
        format!("{name}\r"),
        format!("{name}\0"),
        format!("{name}:x"),
        format!("{name}/"),
        format!("/{name}"),
        format!("../{name}"),
        format!("{name}/../root"),
        format!(" {name}"),
        format!("{name}\t"),
        format!("{name}%s%n"),
        format!("{name}$(id)"),
        format!("{name}\u{1b}[2J"),
        "a".repeat(256),
        "a".repeat(100_000),
        // What no terminal shows, or shows from right to left, or as an accent on the last letter.
        format!("{name}\u{200b}"),
        format!("{name}\u{ad}"),
        format!("\u{feff}{name}"),
        format!("\u{202e}{name}"),
        format!("{name}\u{301}"),
    ];
    // Cyrillic, full width, a dotless i, a long s, the sign for kelvin.
    let pairs = [('a', '\u{430}'), ('e', '\u{435}'), ('o', '\u{43e}'), ('e', '\u{ff45}')];
    let more = [('i', '\u{131}'), ('s', '\u{17f}'), ('k', '\u{212a}')];
    for (plain, other) in pairs.into_iter().chain(more) {
        let alike = name.replacen(plain, &other.to_string(), 1);
        assert_ne!(alike, name, "{plain} is not in the name");
        all.push(alike);
    }
    all
}

fn is_nothing<T: FromStr + Debug>(good: &str)
where
    T::Err: Debug + ToString,
{
    good.parse::<T>().unwrap();
    for bad in strange(good) {
        let e = bad.parse::<T>().expect_err(&bad);
        let shown = e.to_string();
        assert!(shown.len() < 1000, "the message is as long as what was sent");
        assert!(!shown.contains(['\n', '\r', '\0', '\u{1b}']), "{shown:?} moves a terminal");
    }
}

/// If it failed, somebody would be taken for another person, or write lines, paths and commands by
/// their name.
#[test]
fn a_name_that_could_be_read_otherwise_is_no_id() {
    is_nothing::<PersonId>("jakosie@rennes");
    is_nothing::<VoId>("jakosie.rennes");
    is_nothing::<NodeId>("jakosie.rennes");
    is_nothing::<SiteId>("jakosie");
    is_nothing::<GroupName>("jakosie");
    is_nothing::<RoleName>("jakosie");
    is_nothing::<JobId>("1.jakosie");
    is_nothing::<UnitId>("1.jakosie:0");
}

/// If it failed, libc would hand out lines of `passwd` that somebody wrote by their name.
#[test]
fn a_name_that_could_be_read_otherwise_is_no_account() {
    let user = |name: &str| -> Result<(), AccountsError> {
        let mut builder = AccountsBuilder::new(1);
        let (gid, home, shell) = (1_900_000_001, "/home/x", "/bin/sh");
        builder.user(User { name, uid: 1_900_000_007, gid, gecos: "", home, shell })?;
        builder.build().map(drop)
    };
    let group = |name: &str| -> Result<(), AccountsError> {
        let mut builder = AccountsBuilder::new(1);
        builder.group(name, 1_900_000_001, [])?;
        builder.build().map(drop)
    };
    user("jakosie.demo.rennes").unwrap();
    group("jakosie.demo.rennes").unwrap();
    // Plain signs that no name of the grid has, but that stand for themselves in such a file.
    let harmless = |name: &str| name.bytes().all(|b| b.is_ascii_graphic() && !b":/".contains(&b));
    let mut harmful = strange("jakosie.demo.rennes");
    harmful.retain(|name| name.len() > 32 || !harmless(name));
    assert!(harmful.len() > 20, "{harmful:?}");
    for name in &harmful {
        for refused in [user(name), group(name)] {
            assert!(matches!(refused, Err(AccountsError::BadName { .. })), "{name:?}: {refused:?}");
        }
    }
}
