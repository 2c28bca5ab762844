use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;

const BASE: u32 = 1_879_048_192;

fn user(name: &str, uid: u32) -> User<'_> {
    User { name, uid, gid: BASE, gecos: "A. Person", home: "/home/xos/a", shell: "/bin/bash" }
}

fn sample() -> AccountsBuilder {
    let mut builder = AccountsBuilder::new(7);
    for (at, name) in ["zoe.demo", "alice.demo", "bob.demo"].iter().enumerate() {
        builder.user(user(name, BASE + 10 + at as u32)).unwrap();
    }
    builder.group("demo", BASE, []).unwrap();
    builder.group("writers.demo", BASE + 1, ["bob.demo", "alice.demo", "bob.demo"]).unwrap();
    builder.group("admins.demo", BASE + 2, ["alice.demo"]).unwrap();
    builder
}

fn gids(view: &AccountsView<'_>, name: &str) -> Vec<u32> {
    view.groups_of(name).unwrap().unwrap().map(Result::unwrap).collect()
}

#[test]
fn every_lookup_finds_its_entry_and_nothing_else() {
    let bytes = sample().build().unwrap();
    let view = AccountsView::parse(&bytes).unwrap();
    assert_eq!(view.generation(), 7);
    assert_eq!(view.user_by_name("bob.demo").unwrap(), Some(user("bob.demo", BASE + 12)));
    assert_eq!(view.user_by_uid(BASE + 10).unwrap(), Some(user("zoe.demo", BASE + 10)));
    assert_eq!(view.user_by_name("bob").unwrap(), None);
    assert_eq!(view.user_by_uid(0).unwrap(), None);
    let writers = view.group_by_name("writers.demo").unwrap().unwrap();
    let members: Vec<&str> = writers.members.map(Result::unwrap).collect();
    assert_eq!((writers.gid, members), (BASE + 1, vec!["alice.demo", "bob.demo"]));
    assert_eq!(view.group_by_gid(BASE + 2).unwrap().unwrap().name, "admins.demo");
    assert_eq!(gids(&view, "alice.demo"), [BASE + 2, BASE + 1]);
    assert!(gids(&view, "zoe.demo").is_empty());
    assert!(view.groups_of("nobody").unwrap().is_none());
    let names: Vec<&str> = view.users().map(|u| u.unwrap().name).collect();
    assert_eq!(names, ["alice.demo", "bob.demo", "zoe.demo"]);
    assert_eq!(view.groups().count(), 3);
}

#[test]
fn an_empty_file_is_a_file() {
    // A node without members must answer "no such user", not "damaged".
    let bytes = AccountsBuilder::new(1).build().unwrap();
    let view = AccountsView::parse(&bytes).unwrap();
    assert_eq!(view.user_by_name("x").unwrap(), None);
    assert!(view.group_by_gid(1).unwrap().is_none());
}

#[test]
fn refuses_what_tools_would_misread() {
    let mut builder = sample();
    for name in ["", "a:b", "a\nb", "a b", "1000", "-rf", "+", "é", "a,b", "../x", &"a".repeat(33)]
    {
        let refused = builder.user(user(name, BASE + 99)).unwrap_err();
        assert!(matches!(refused, AccountsError::BadName { .. }), "{name:?}: {refused}");
        assert!(builder.group(name, BASE + 99, []).is_err(), "{name:?}");
    }
    let bad_home = User { home: "/a:b", ..user("carol", BASE + 99) };
    assert!(matches!(builder.user(bad_home), Err(AccountsError::BadField { field: "home", .. })));
    let bad_gecos = User { gecos: "x\nroot::0:0", ..user("carol", BASE + 99) };
    assert!(matches!(builder.user(bad_gecos), Err(AccountsError::BadField { .. })));
    let relative = User { shell: "bash", ..user("carol", BASE + 99) };
    assert!(matches!(builder.user(relative), Err(AccountsError::BadField { .. })));
}

#[test]
fn refuses_foreign_and_doubled_ids() {
    let mut builder = sample();
    for uid in [0, 1000, 100_000, BASE - 1, 2_147_352_576, u32::MAX] {
        let refused = builder.user(user("carol", uid)).unwrap_err();
        assert!(matches!(refused, AccountsError::OutOfRange { .. }), "{uid}: {refused}");
    }
    let twice = builder.user(user("carol", BASE + 10)).unwrap_err();
    assert!(matches!(twice, AccountsError::DuplicateId { .. }));
    let twice = builder.user(user("bob.demo", BASE + 50)).unwrap_err();
    assert!(matches!(twice, AccountsError::DuplicateName { .. }));
    assert!(matches!(builder.group("x", BASE, []), Err(AccountsError::DuplicateId { .. })));
    builder.group("x", BASE + 9, ["ghost"]).unwrap();
    assert!(matches!(builder.build(), Err(AccountsError::UnknownMember { .. })));
}

/// Runs every lookup there is; a damaged file may fail any of them but must not panic.
fn poke(bytes: &[u8]) {
    let Ok(layout) = layout::Layout::of(bytes) else { return };
    let view = AccountsView::checked(bytes, layout);
    for name in ["alice.demo", "zoe.demo", "writers.demo", ""] {
        drop((view.user_by_name(name), view.group_by_name(name)));
        if let Ok(Some(gids)) = view.groups_of(name) {
            gids.take(1000).for_each(drop);
        }
    }
    for id in [0, BASE, BASE + 11, u32::MAX] {
        drop((view.user_by_uid(id), view.group_by_gid(id)));
    }
    view.users().take(1000).for_each(drop);
    for group in view.groups().take(1000).flatten() {
        group.members.take(1000).for_each(drop);
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let good = sample().build().unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(AccountsView::parse(&bad).is_err(), "bit {bit}");
        poke(&bad);
    }
    for len in 0..good.len() {
        assert!(AccountsView::parse(&good[..len]).is_err(), "cut at {len}");
        poke(&good[..len]);
    }
}

#[test]
fn the_file_is_replaced_under_its_readers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("accounts");
    let missing = AccountsFile::open(path.clone(), Owner::Anybody).unwrap_err();
    assert!(matches!(missing, AccountsError::Missing { .. }));
    sample().write_atomic(&path).unwrap();
    let file = AccountsFile::open(path.clone(), Owner::Anybody).unwrap();
    let old = file.current().unwrap();
    assert!(Arc::ptr_eq(&old, &file.current().unwrap()), "mapped anew without need");
    let mut next = sample();
    next.generation(8);
    next.user(user("carol.demo", BASE + 20)).unwrap();
    next.write_atomic(&path).unwrap();
    assert_eq!(file.current().unwrap().view().generation(), 8);
    assert!(file.current().unwrap().view().user_by_name("carol.demo").unwrap().is_some());
    // Whoever is in the middle of an enumeration keeps what he began with.
    assert_eq!(old.view().user_by_name("carol.demo").unwrap(), None);
    write_atomic(&path, b"XOSACCT1 but not really").unwrap();
    assert!(matches!(file.current(), Err(AccountsError::Corrupt(_))));
    fs::remove_file(&path).unwrap();
    assert!(matches!(file.current(), Err(AccountsError::Missing { .. })));
}

/// If it failed, a look-up that comes often would tell for long of who is no more, or cost a system
/// call each.
#[test]
fn a_look_holds_for_a_moment_and_not_longer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("accounts");
    sample().write_atomic(&path).unwrap();
    let file = AccountsFile::seldom(path.clone(), Owner::Anybody);
    let old = file.current().unwrap();
    sample().generation(8).write_atomic(&path).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while file.current().unwrap().view().generation() == 7 {
        assert!(Instant::now() < end, "the new file is never seen");
    }
    assert_eq!(old.view().generation(), 7);
    fs::remove_file(&path).unwrap();
    while file.current().is_ok() {
        assert!(Instant::now() < end, "the end of the file is never seen");
    }
    // A failure is not remembered.
    assert!(file.current().is_err());
    sample().generation(9).write_atomic(&path).unwrap();
    assert_eq!(file.current().unwrap().view().generation(), 9);
}

/// A file so large that it is mapped.
fn large() -> AccountsBuilder {
    let mut builder = sample();
    let gecos = "x".repeat(FIELD_BYTES_MAX);
    for at in 0..2100 {
        let name = format!("p{at}.demo");
        let gecos = format!("{at}{}", &gecos[4..]);
        builder.user(User { gecos: &gecos, ..user(&name, BASE + 100 + at) }).unwrap();
    }
    builder
}

/// If it failed, `getent passwd` or sshd would die of SIGBUS by a mistake of the administrator.
#[test]
fn a_file_cut_short_where_it_lies_hurts_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("accounts");
    let cut =
        |to: u64| fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(to).unwrap();
    for (builder, is_copied) in [(sample(), true), (large(), false)] {
        builder.write_atomic(&path).unwrap();
        let file = AccountsFile::open(path.clone(), Owner::Anybody).unwrap();
        let held = file.current().unwrap();
        assert!(file.can_go_on(&held));
        cut(100);
        assert!(matches!(file.current(), Err(AccountsError::Corrupt(_))));
        assert_eq!(file.can_go_on(&held), is_copied);
        if is_copied {
            assert!(held.view().user_by_name("bob.demo").unwrap().is_some());
        }
        // Replaced while it is held: that one is whole.
        builder.write_atomic(&path).unwrap();
        let held = file.current().unwrap();
        sample().write_atomic(&path).unwrap();
        cut(0);
        assert!(file.can_go_on(&held));
        assert!(held.view().user_by_name("bob.demo").unwrap().is_some());
    }
}

/// If it failed, names that somebody chose for their hashes would lead to other people's accounts.
#[test]
fn names_with_one_hash_are_kept_apart() {
    // CRC-32 is linear: these differ, and their hashes do not.
    let [one, other] = ["plumless", "buckeroo"];
    assert_eq!(layout::name_hash(one), layout::name_hash(other));
    let mut builder = sample();
    builder.user(user(one, BASE + 40)).unwrap();
    builder.user(user(other, BASE + 41)).unwrap();
    let bytes = builder.build().unwrap();
    let view = AccountsView::parse(&bytes).unwrap();
    assert_eq!(view.user_by_name(one).unwrap().unwrap().uid, BASE + 40);
    assert_eq!(view.user_by_name(other).unwrap().unwrap().uid, BASE + 41);
}

#[test]
fn files_that_others_could_write_are_not_believed() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("accounts");
    sample().write_atomic(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    let refused = |path: &Path, owner| AccountsFile::open(path.to_path_buf(), owner).unwrap_err();
    assert!(matches!(refused(&link, Owner::Anybody), AccountsError::NotTrusted { .. }));
    assert!(matches!(refused(dir.path(), Owner::Anybody), AccountsError::NotTrusted { .. }));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    assert!(matches!(refused(&path, Owner::Root), AccountsError::NotTrusted { .. }));
}

#[test]
fn threads_look_up_while_the_file_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("accounts");
    sample().write_atomic(&path).unwrap();
    let file = AccountsFile::open(path.clone(), Owner::Anybody).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let written = (8..60)
                .try_for_each(|generation| sample().generation(generation).write_atomic(&path));
            // Before the check, or the readers would go on for ever.
            done.store(true, Ordering::SeqCst);
            written.unwrap();
        });
        for _ in 0..4 {
            scope.spawn(|| {
                let mut newest = 0;
                while !done.load(Ordering::SeqCst) {
                    let mapped = file.current().unwrap();
                    assert!(mapped.view().user_by_name("bob.demo").unwrap().is_some());
                    newest = newest.max(mapped.view().generation());
                }
                assert!(newest >= 7);
            });
        }
    });
    assert_eq!(file.current().unwrap().view().generation(), 59);
}

proptest! {
    /// A wrong answer here gives one person another's rights.
    #[test]
    fn agrees_with_a_plain_map(names in prop::collection::hash_set("[a-z][a-z0-9._-]{0,20}", 0..60)) {
        let mut builder = AccountsBuilder::new(1);
        let mut by_name = HashMap::new();
        for (at, name) in names.iter().enumerate() {
            let uid = BASE + (at as u32).wrapping_mul(7919) % 100_000;
            builder.user(user(name, uid)).unwrap();
            by_name.insert(name.as_str(), uid);
        }
        let even: Vec<&str> = by_name.iter().filter(|(_, u)| **u % 2 == 0).map(|(n, _)| *n).collect();
        builder.group("even", BASE + 5, even).unwrap();
        let bytes = builder.build().unwrap();
        let view = AccountsView::parse(&bytes).unwrap();
        for (name, uid) in &by_name {
            prop_assert_eq!(view.user_by_name(name).unwrap(), Some(user(name, *uid)));
            prop_assert_eq!(view.user_by_uid(*uid).unwrap().unwrap().name, *name);
            let expected: &[u32] = if uid % 2 == 0 { &[BASE + 5] } else { &[] };
            prop_assert_eq!(gids(&view, name), expected);
        }
    }

    /// Whoever can get past the checksum still must not crash the process that looks up a name.
    #[test]
    fn arbitrary_content_behind_a_true_checksum_never_panics(
        patches in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40)) {
        let mut bytes = sample().build().unwrap();
        for (at, byte) in patches {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        layout::Layout::seal(&mut bytes);
        poke(&bytes);
    }
}
