use std::{
    ffi::{CStr, CString},
    fs, mem,
    path::PathBuf,
    ptr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use xos_base::accounts::{AccountsBuilder, User, write_atomic};

use super::{buffer::MEMBERS_LISTED_MAX, *};

const BASE: u32 = 1_879_048_192;

struct Machine {
    dir: tempfile::TempDir,
    file: AccountsFile,
    /// Nobody listens there.
    xosd: Node<PathBuf>,
}

fn sample() -> AccountsBuilder {
    let mut builder = AccountsBuilder::new(1);
    for (at, name) in ["alice.demo", "bob.demo"].iter().enumerate() {
        let (home, shell) = ("/home/xos/someone", "/bin/bash");
        let (uid, gid) = (BASE + 10 + at as u32, BASE);
        builder.user(User { name, uid, gid, gecos: "Some Öne", home, shell }).unwrap();
    }
    builder.group("demo", BASE, ["alice.demo", "bob.demo"]).unwrap();
    for at in 1..40 {
        builder.group(&format!("g{at}.demo"), BASE + at, ["alice.demo"]).unwrap();
    }
    builder
}

fn node() -> Machine {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("accounts");
    sample().write_atomic(&path).unwrap();
    let xosd = Node::new(dir.path().join("socket"));
    Machine { dir, file: AccountsFile::new(path, Owner::Anybody), xosd }
}

/// Calls `lookup` with a buffer of `length` bytes and gives what C would see of a user.
fn user_with(
    length: usize,
    lookup: impl FnOnce(Answer<passwd>) -> Result<(), Failure>,
) -> Result<String, (c_int, c_int)> {
    let mut buffer = vec![0x55u8; length + 8];
    // SAFETY: a struct of integers and pointers.
    let mut row: passwd = unsafe { mem::zeroed() };
    let mut errno = 0;
    // SAFETY: all pointers are to locals that outlive the call.
    let status = unsafe {
        let answer = Answer::new(&mut row, buffer.as_mut_ptr().cast(), length);
        finish(&mut errno, || lookup(answer))
    };
    assert_eq!(buffer[length..], [0x55; 8], "wrote behind the caller's buffer");
    if status != SUCCESS {
        return Err((status, errno));
    }
    // SAFETY: filled with C strings, since the status is success.
    let text = |p: *mut c_char| unsafe { CStr::from_ptr(p) }.to_str().unwrap().to_owned();
    let [name, password] = [row.pw_name, row.pw_passwd].map(text);
    let [gecos, home, shell] = [row.pw_gecos, row.pw_dir, row.pw_shell].map(text);
    Ok(format!("{name}:{password}:{}:{}:{gecos}:{home}:{shell}", row.pw_uid, row.pw_gid))
}

fn group_with(
    length: usize,
    lookup: impl FnOnce(Answer<group>) -> Result<(), Failure>,
) -> Result<(String, u32, Vec<String>), (c_int, c_int)> {
    let mut buffer = vec![0x55u8; length + 8];
    // SAFETY: a struct of integers and pointers.
    let mut row: group = unsafe { mem::zeroed() };
    let mut errno = 0;
    // SAFETY: all pointers are to locals that outlive the call. An odd start must not matter.
    let status = unsafe {
        let answer = Answer::new(&mut row, buffer.as_mut_ptr().add(1).cast(), length);
        finish(&mut errno, || lookup(answer))
    };
    assert_eq!(buffer[length + 1..], [0x55; 7], "wrote behind the caller's buffer");
    if status != SUCCESS {
        return Err((status, errno));
    }
    // SAFETY: filled with C strings and a table that ends with null, since the status is success.
    unsafe {
        let text = |p: *mut c_char| CStr::from_ptr(p).to_str().unwrap().to_owned();
        let mut members = Vec::new();
        while !(*row.gr_mem.add(members.len())).is_null() {
            members.push(text(*row.gr_mem.add(members.len())));
        }
        Ok((text(row.gr_name), row.gr_gid, members))
    }
}

fn groups_of(file: &AccountsFile, user: &str, limit: c_long) -> Result<Vec<gid_t>, (c_int, c_int)> {
    let (mut start, mut size, mut errno) = (1, 2, 0);
    // SAFETY: the list is glibc's: from malloc, two places, one taken.
    unsafe {
        let mut list: *mut gid_t = libc::malloc(8).cast();
        list.write(BASE);
        let ours = groups::List::new(&mut start, &mut size, &mut list, limit);
        let status = finish(&mut errno, || groups::add_groups(file, user, BASE, ours));
        let gids = std::slice::from_raw_parts(list, start as usize).to_vec();
        libc::free(list.cast());
        if status == SUCCESS { Ok(gids) } else { Err((status, errno)) }
    }
}

#[test]
fn a_user_is_answered_in_full() {
    let node = node();
    let line = |name, uid| format!("{name}:!*:{uid}:{BASE}:Some Öne:/home/xos/someone:/bin/bash");
    let found = user_with(1024, |a| lookup::user_by_name(&node.file, &node.xosd, "alice.demo", a));
    assert_eq!(found, Ok(line("alice.demo", BASE + 10)));
    let found = user_with(1024, |a| lookup::user_by_uid(&node.file, &node.xosd, BASE + 11, a));
    assert_eq!(found, Ok(line("bob.demo", BASE + 11)));
    let missing = user_with(1024, |a| lookup::user_by_name(&node.file, &node.xosd, "root", a));
    assert_eq!(missing, Err((0, libc::ENOENT)));
    assert_eq!(
        user_with(1024, |a| lookup::user_by_uid(&node.file, &node.xosd, 0, a)),
        Err((0, libc::ENOENT))
    );
}

#[test]
fn every_small_buffer_is_refused_and_never_overrun() {
    // glibc would keep a half-filled answer, or the process would be corrupted.
    let node = node();
    let needs = |length| {
        user_with(length, |a| lookup::user_by_name(&node.file, &node.xosd, "alice.demo", a))
    };
    let enough = (0..512).find(|length| needs(*length).is_ok()).unwrap();
    for length in 0..enough {
        assert_eq!(needs(length), Err((-2, libc::ERANGE)), "{length}");
    }
    assert_eq!(enough, "alice.demo0!*0Some Öne0/home/xos/someone0/bin/bash0".len());
    let needs = |length| group_with(length, |a| lookup::group_by_name(&node.file, "demo", a));
    let enough = (0..512).find(|length| needs(*length).is_ok()).unwrap();
    for length in 0..enough {
        assert_eq!(needs(length), Err((-2, libc::ERANGE)), "{length}");
    }
    let members = vec!["alice.demo".to_owned(), "bob.demo".to_owned()];
    assert_eq!(needs(enough), Ok(("demo".into(), BASE, members)));
    assert_eq!(
        group_with(512, |a| lookup::group_by_gid(&node.file, BASE + 3, a)).unwrap().0,
        "g3.demo"
    );
    assert_eq!(group_with(512, |a| lookup::group_by_gid(&node.file, 3, a)), Err((0, libc::ENOENT)));
}

#[test]
fn an_enumeration_repeats_what_did_not_fit_and_survives_a_replacement() {
    let node = node();
    let cursor = Cursor::new();
    cursor.begin(&node.file).unwrap();
    let next = |length| user_with(length, |a| lookup::next_user(&node.file, &cursor, a));
    assert_eq!(next(1), Err((-2, libc::ERANGE)));
    assert!(next(512).unwrap().starts_with("alice.demo:"));
    write_atomic(&node.dir.path().join("accounts"), b"junk").unwrap();
    assert!(next(512).unwrap().starts_with("bob.demo:"));
    assert_eq!(next(512), Err((0, libc::ENOENT)));
    cursor.end().unwrap();
    assert_eq!(next(512), Err((-1, libc::EIO)));
}

#[test]
fn groups_grow_the_list_within_the_callers_limit() {
    let node = node();
    let all = groups_of(&node.file, "alice.demo", -1).unwrap();
    assert_eq!(all.len(), 40);
    assert_eq!(all.iter().filter(|gid| **gid == BASE).count(), 1, "primary group twice");
    assert_eq!(groups_of(&node.file, "bob.demo", -1).unwrap(), [BASE]);
    assert_eq!(groups_of(&node.file, "alice.demo", 5).unwrap().len(), 5);
    assert_eq!(groups_of(&node.file, "root", -1), Err((0, libc::ENOENT)));
}

#[test]
fn a_group_too_long_to_list_still_counts() {
    let node = node();
    let mut builder = sample();
    let names: Vec<String> = (0..=MEMBERS_LISTED_MAX).map(|at| format!("u{at}.demo")).collect();
    for (at, name) in names.iter().enumerate() {
        let (uid, gid) = (BASE + 1000 + at as u32, BASE);
        builder.user(User { name, uid, gid, gecos: "", home: "/h", shell: "/s" }).unwrap();
    }
    builder.group("all.demo", BASE + 500, names.iter().map(String::as_str)).unwrap();
    builder.write_atomic(&node.dir.path().join("accounts")).unwrap();
    let found = group_with(1024, |a| lookup::group_by_name(&node.file, "all.demo", a)).unwrap();
    assert_eq!(found, ("all.demo".into(), BASE + 500, vec![]));
    assert_eq!(groups_of(&node.file, "u7.demo", -1).unwrap(), [BASE, BASE + 500]);
}

#[test]
fn a_missing_or_damaged_file_is_unavailable() {
    // NOTFOUND would be a lie about a person; TRYAGAIN would make callers wait.
    let node = node();
    let path = node.dir.path().join("accounts");
    let good = fs::read(&path).unwrap();
    let ask = || user_with(1024, |a| lookup::user_by_name(&node.file, &node.xosd, "alice.demo", a));
    for len in [0, 1, 63, 64, good.len() / 2, good.len() - 1] {
        write_atomic(&path, &good[..len]).unwrap();
        assert_eq!(ask(), Err((-1, libc::EIO)), "cut at {len}");
    }
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    write_atomic(&path, &bad).unwrap();
    assert_eq!(ask(), Err((-1, libc::EIO)));
    fs::remove_file(&path).unwrap();
    assert_eq!(ask(), Err((-1, libc::ENOENT)));
    write_atomic(&path, &good).unwrap();
    assert!(ask().is_ok());
}

/// Calls everything that C can call; whatever the file holds, each call ends.
fn poke(node: &Machine) {
    for name in ["alice.demo", "bob.demo", "root", "demo", ""] {
        drop(user_with(256, |a| lookup::user_by_name(&node.file, &node.xosd, name, a)));
        drop(group_with(256, |a| lookup::group_by_name(&node.file, name, a)));
        drop(groups_of(&node.file, name, -1));
    }
    for id in [0, BASE, BASE + 10, BASE + 500, u32::MAX] {
        drop(user_with(256, |a| lookup::user_by_uid(&node.file, &node.xosd, id, a)));
        drop(group_with(256, |a| lookup::group_by_gid(&node.file, id, a)));
    }
    let (users, groups) = (Cursor::new(), Cursor::new());
    for _ in 0..64 {
        drop(user_with(256, |a| lookup::next_user(&node.file, &users, a)));
        drop(group_with(256, |a| lookup::next_group(&node.file, &groups, a)));
    }
}

/// If it failed, a full disk or a careless `cp` would take sshd and every other program along.
#[test]
fn no_cut_harms_the_program_that_looks_up_a_name() {
    let node = node();
    let path = node.dir.path().join("accounts");
    let good = fs::read(&path).unwrap();
    let ask = |node: &Machine| {
        user_with(256, |a| lookup::user_by_name(&node.file, &node.xosd, "alice.demo", a))
    };
    for len in 0..good.len() {
        // Where it lies, which nobody does on purpose.
        fs::write(&path, &good[..len]).unwrap();
        assert_eq!(ask(&node), Err((-1, libc::EIO)), "cut at {len}");
        poke(&node);
    }
    fs::write(&path, &good).unwrap();
    assert!(ask(&node).is_ok());
}

/// As above, for a bad disk.
#[test]
fn no_flipped_byte_harms_the_program_that_looks_up_a_name() {
    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
    let node = node();
    let path = node.dir.path().join("accounts");
    let good = fs::read(&path).unwrap();
    let mut state = SEED;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..500 {
        let mut bad = good.clone();
        for _ in 0..=random(4) {
            bad[random(good.len())] ^= 1 << random(8);
        }
        if bad == good {
            continue;
        }
        fs::write(&path, &bad).unwrap();
        let found =
            user_with(256, |a| lookup::user_by_name(&node.file, &node.xosd, "alice.demo", a));
        assert_eq!(found, Err((-1, libc::EIO)));
        poke(&node);
    }
}

/// If it failed, somebody whose account is a moment old could not sign in, or everybody else would
/// wait for `xosd`.
#[test]
fn the_node_is_asked_for_grid_names_only() {
    let node = node();
    let ask = |name| user_with(256, |a| lookup::user_by_name(&node.file, &node.xosd, name, a));
    assert_eq!(ask("nobody.demo"), Err((0, libc::ENOENT)));
    assert_eq!(ask("nobody.demo.rennes"), Err((-1, libc::ENOENT)), "nobody answers there");
    let ask = |uid| user_with(256, |a| lookup::user_by_uid(&node.file, &node.xosd, uid, a));
    assert_eq!(ask(1000), Err((0, libc::ENOENT)));
    assert_eq!(ask(BASE + 500), Err((-1, libc::ENOENT)), "nobody answers there");
    fs::remove_file(node.dir.path().join("accounts")).unwrap();
    assert_eq!(ask(1000), Err((-1, libc::ENOENT)));
}

/// If it failed, a password could open a grid account, or `passwd -S` would end in an error.
#[test]
fn the_shadow_table_is_empty() {
    let (name, mut errno) = (CString::new("alice.demo").unwrap(), 0);
    // SAFETY: `errno` is a local; the rest is not looked at.
    unsafe {
        let none = ptr::null_mut();
        let found =
            shadow::_nss_xos_getspnam_r(name.as_ptr(), none, ptr::null_mut(), 0, &mut errno);
        assert_eq!((found, errno), (0, libc::ENOENT));
        assert_eq!(shadow::_nss_xos_setspent(0), SUCCESS);
        assert_eq!(shadow::_nss_xos_getspent_r(none, ptr::null_mut(), 0, &mut errno), 0);
        assert_eq!(shadow::_nss_xos_endspent(), SUCCESS);
    }
}

#[test]
fn a_panic_does_not_reach_c() {
    let mut errno = 0;
    // SAFETY: errno is a local.
    let status = unsafe { finish(&mut errno, || panic!("defect")) };
    assert_eq!((status, errno), (-1, libc::EIO));
}

#[test]
fn names_that_are_no_text_name_nobody() {
    // SAFETY: null, or a C string that outlives the call.
    unsafe {
        assert_eq!(lookup::text(ptr::null()), Err(Failure::NotFound));
        let odd = CString::new([0xff, 0xfe]).unwrap();
        assert_eq!(lookup::text(odd.as_ptr()), Err(Failure::NotFound));
    }
}

#[test]
fn threads_get_whole_answers_while_the_file_is_replaced() {
    let node = node();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let path = node.dir.path().join("accounts");
            let written = (2..80)
                .try_for_each(|generation| sample().generation(generation).write_atomic(&path));
            // Before the check, or the readers would go on for ever.
            done.store(true, Ordering::SeqCst);
            written.unwrap();
        });
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let alice = user_with(256, |a| {
                        lookup::user_by_name(&node.file, &node.xosd, "alice.demo", a)
                    });
                    assert!(alice.unwrap().contains(&(BASE + 10).to_string()));
                    assert_eq!(groups_of(&node.file, "alice.demo", -1).unwrap().len(), 40);
                }
            });
        }
    });
}
