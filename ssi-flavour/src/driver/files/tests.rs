use super::look::{Identity, see};
use super::*;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

const APPEND: i32 = libc::O_WRONLY | libc::O_APPEND;
const THEN: Stamp = Stamp { seconds: 1000, nanoseconds: 7 };
const LATER: Stamp = Stamp { seconds: 2000, nanoseconds: 0 };
const IS: Identity = Identity { device: (8, 1), inode: 5 };

/// A log of so many bytes, open as that, standing there.
fn log(size_bytes: u64, flags: i32, position: u64) -> OpenFile {
    OpenFile {
        path: "/vo/log".into(),
        size_bytes,
        opened: BTreeSet::from([Opened { flags: flags.cast_unsigned(), position }]),
        was: Some(Was {
            inode: Some(5),
            modified: THEN,
            edges: Some("begin and end".into()),
            volume: true,
            others: false,
        }),
    }
}

/// The same file, so long now.
fn there(size: u64) -> There {
    There {
        is: IS,
        again: false,
        lasting: true,
        size,
        modified: LATER,
        edges: Some("begin and end".into()),
        volume: true,
        own: true,
    }
}

fn now(file: &OpenFile, there: There) -> Verdict {
    judge(file, &Sight::There(there), false)
}

#[track_caller]
fn kept_by(verdict: &Verdict, why: &str) {
    let Verdict::Changed(said) = verdict else { panic!("{verdict:?}") };
    assert!(said.contains(why), "{said}");
}

#[test]
fn what_only_grew_is_cut_back() {
    // wrong: a log would have each line twice, or never be cut, so that nothing restarts
    let plan = |size| Plan { path: "/vo/log".into(), is: IS, size, modified: THEN };
    assert_eq!(now(&log(380, APPEND, 0), there(827)), Verdict::Cut(plan((380, 827))));
    let long = 10 * EDGE_BYTES;
    let cut = Verdict::Cut(plan((long, long + 1)));
    assert_eq!(now(&log(long, APPEND, 7), there(long + 1)), cut, "it goes to the end by itself");
    assert_eq!(now(&log(long, libc::O_WRONLY, long), there(long + 1)), cut, "it stood at the end");
    let small = now(&log(380, libc::O_RDWR, 3), there(381));
    assert_eq!(small, Verdict::Cut(plan((380, 381))), "all that it had is known");
}

#[test]
fn what_is_as_it_was_is_left_alone() {
    // wrong: programs whose files nobody touched would not be restarted, or one that was cut back
    // before, when the restart failed
    let untouched = There { modified: THEN, edges: None, ..there(380) };
    assert_eq!(now(&log(380, libc::O_RDWR, 3), untouched), Verdict::Same);
    assert_eq!(now(&log(380, libc::O_RDWR, 3), there(380)), Verdict::Same, "the same content");
    let long = 10 * EDGE_BYTES;
    assert_eq!(now(&log(long, APPEND, 0), there(long)), Verdict::Same, "only its end was touched");
    let older = OpenFile { was: None, ..log(380, APPEND, 0) };
    assert_eq!(now(&older, there(1)), Verdict::Same, "CRIU says what it makes of it");
}

#[test]
fn what_was_written_over_is_for_a_person_to_judge() {
    // wrong: a program would go on with a data base that is not the one that it has in memory
    let long = 10 * EDGE_BYTES;
    kept_by(&now(&log(long, libc::O_RDWR, 3), there(long)), "written over");
    kept_by(&now(&log(long, libc::O_RDWR, 3), there(long + 1)), "may have been written over");
    let other = |size| There { edges: Some("others".into()), ..there(size) };
    kept_by(&now(&log(380, APPEND, 0), other(380)), "written over");
    kept_by(&now(&log(380, APPEND, 0), other(381)), "what it had was written over");
    let unread = There { edges: None, ..there(381) };
    kept_by(&now(&log(380, APPEND, 0), unread), "may not read it");
}

#[test]
fn what_others_wrote_is_never_cut() {
    // wrong: lines of another program would be taken out of a log that both write
    let file = log(380, APPEND, 0);
    kept_by(&judge(&file, &Sight::There(there(381)), true), "has it open for writing");
    let mut shared = file.clone();
    shared.was.as_mut().unwrap().others = true;
    kept_by(&now(&shared, there(381)), "wrote to it too");
    kept_by(&now(&file, There { own: false, ..there(381) }), "others may write it");
    kept_by(&now(&file, There { again: true, ..there(381) }), "another name");
    // What it appended ended there, and something followed.
    assert!(left_behind(&log(380, APPEND, 370), 380));
    assert!(!left_behind(&log(380, APPEND, 380), 380) && !left_behind(&log(380, APPEND, 0), 380));
    assert!(!left_behind(&log(380, libc::O_RDWR, 7), 380), "it may have gone back by itself");
}

#[test]
fn what_shrank_is_gone_or_another_keeps_the_program() {
    // wrong: a program would go on with holes in its files, or write into another one
    let file = log(380, APPEND, 0);
    kept_by(&now(&file, there(379)), "it has 379 bytes, and had 380");
    kept_by(&judge(&file, &Sight::Not("it is gone"), false), "it is gone");
    let another = Identity { inode: 6, ..IS };
    kept_by(&now(&file, There { is: another, ..there(380) }), "another file");
    kept_by(&now(&file, There { volume: false, ..there(380) }), "another file");
    let mut elsewhere = file.clone();
    elsewhere.was.as_mut().unwrap().inode = None;
    assert_eq!(now(&elsewhere, There { is: another, modified: THEN, ..there(380) }), Verdict::Same);
}

#[test]
fn one_file_that_is_otherwise_keeps_all_from_being_cut() {
    // wrong: logs would be cut back for a program that is not restarted after all
    let file = log(380, APPEND, 0);
    let cut = || (&file, now(&file, there(827)));
    let changed = || (&file, now(&file, there(1)));
    assert_eq!(decide([cut(), (&file, Verdict::Same)].into_iter()).unwrap().len(), 1);
    let error = decide([cut(), changed()].into_iter()).unwrap_err().to_string();
    assert!(error.ends_with("/vo/log: it has 1 bytes, and had 380"), "{error}");
    let many = decide((0..20).map(|_| changed())).unwrap_err().to_string();
    assert!(many.ends_with("; and 12 more"), "{many}");
    let huge = now(&file, there(381 + CUT_BYTES_MAX));
    assert!(decide([(&file, huge)].into_iter()).is_err(), "a disk is not filled for it");
    let most = (0..=CUTS_MAX).map(|_| cut());
    assert!(decide(most).is_err());
}

#[test]
fn volumes_are_known_by_their_mounts() {
    // wrong: a file that is not there yet, since its volume is not, would be taken for gone
    let text = "36 35 8:1 / / rw - ext4 /dev/sda1 rw\n\
        40 36 0:50 / /xtreemfs/demo rw,nosuid shared:1 - fuse.xtreemfs demo.rennes rw\n\
        41 36 0:51 / /home rw - fuse.sshfs host: rw\nodd\n";
    let mounts = Mounts::parse(text);
    assert!(mounts.have_volume(Path::new("/xtreemfs/demo/log")));
    assert!(!mounts.have_volume(Path::new("/xtreemfs/demolition/log")));
    assert!(!mounts.have_volume(Path::new("/home/log")));
}

/// Who runs this test.
fn me(dir: &Path) -> Person {
    let own = std::fs::metadata(dir).unwrap();
    Person::new(own.uid(), own.gid(), &[])
}

fn looked(path: &Path, person: &Person) -> There {
    let sight = see(path, None, true, person, &Mounts::default()).unwrap();
    let Sight::There(there) = sight else { panic!("{sight:?}") };
    there
}

/// As a program has it that only appends to it.
fn recorded(path: &Path, person: &Person) -> OpenFile {
    let there = looked(path, person);
    let opened = BTreeSet::from([Opened { flags: APPEND.cast_unsigned(), position: 0 }]);
    let (size_bytes, was) = (there.size, Some(was(there, false)));
    OpenFile { path: path.into(), size_bytes, opened, was }
}

#[test]
fn links_and_other_things_are_no_files() {
    // wrong: who puts a link in the place of a file would have another one cut
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let person = me(&dir);
    let not = |path: &Path| {
        matches!(see(path, None, false, &person, &Mounts::default()).unwrap(), Sight::Not(_))
    };
    std::fs::create_dir(dir.join("real")).unwrap();
    std::fs::write(dir.join("real/log"), "x").unwrap();
    assert!(!not(&dir.join("real/log")));
    symlink(dir.join("real"), dir.join("by")).unwrap();
    symlink(dir.join("real/log"), dir.join("log")).unwrap();
    for path in ["by/log", "log", "real", "none", "real/log/none"] {
        assert!(not(&dir.join(path)), "{path}");
    }
    assert!(not(Path::new("/dev/null")));
}

#[test]
fn what_is_cut_is_kept_and_the_next_look_finds_it_as_it_was() {
    // wrong: lines would be lost that no program writes again, or a second try find a changed file
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let (path, person) = (dir.join("log"), me(&dir));
    std::fs::write(&path, "0\n1\n").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let file = recorded(&path, &person);
    std::fs::write(&path, "0\n1\n2\n3\n").unwrap();
    let plans = || {
        let sight = see(&path, Some(4), false, &person, &Mounts::default()).unwrap();
        decide([(&file, judge(&file, &sight, false))].into_iter())
    };
    let found = plans().unwrap();
    // An earlier attempt left something of that name.
    std::fs::write(dir.join("log.xos-cut-7-3"), "older").unwrap();
    let done = cut::cut(&found, "7-3").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "0\n1\n");
    let kept = dir.join("log.xos-cut-7-3.1");
    assert_eq!(done, [Cut { path: path.clone(), kept: kept.clone(), bytes: 4 }]);
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "2\n3\n");
    assert_eq!(std::fs::metadata(&kept).unwrap().mode() & 0o777, 0o600, "its person's alone");
    assert!(plans().unwrap().is_empty(), "nothing is left to be done");
    assert_eq!(looked(&path, &person).modified, file.was.as_ref().unwrap().modified);
}

#[test]
fn what_is_written_while_it_is_copied_is_not_cut() {
    // wrong: bytes that came between would be neither in the file nor beside it
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let path = dir.join("log");
    std::fs::write(&path, "0\n1\n2\n").unwrap();
    let is = looked(&path, &me(&dir)).is;
    let good = Plan { path: path.clone(), is, size: (2, 6), modified: THEN };
    let other = Identity { device: (is.device.0, is.device.1 + 1), ..is };
    for bad in [Plan { size: (2, 4), ..good.clone() }, Plan { is: other, ..good.clone() }] {
        let error = cut::cut(&[bad], "7-3").unwrap_err();
        assert!(matches!(error, FilesError::Changed { .. }), "{error}");
    }
    let second = dir.join("second");
    std::fs::hard_link(&path, &second).unwrap();
    let error = cut::cut(std::slice::from_ref(&good), "7-3").unwrap_err();
    assert!(matches!(error, FilesError::Changed { .. }), "{error}");
    std::fs::remove_file(&second).unwrap();
    let gone = Plan { path: dir.join("none"), ..good.clone() };
    assert!(cut::cut(&[good, gone], "7-3").is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "0\n1\n2\n");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "no copies stay");
}

#[test]
fn who_else_writes_a_file_is_seen() {
    // wrong: what another program wrote would be cut
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let (path, second) = (dir.join("log"), dir.join("second"));
    std::fs::write(&path, "x").unwrap();
    std::fs::hard_link(&path, &second).unwrap();
    let files = look::Files::from([(path.clone(), looked(&path, &me(&dir)).is)]);
    let names = BTreeSet::from([path.clone()]);
    let nobody = BTreeSet::new();
    let reader = File::open(&path).unwrap();
    assert!(look::writers(&files, &nobody).unwrap().is_empty(), "reading is no writing");
    for name in [&path, &second] {
        let writer = File::options().append(true).open(name).unwrap();
        assert_eq!(look::writers(&files, &nobody).unwrap(), names, "{name:?}");
        drop(writer);
    }
    let writer = File::options().append(true).open(&path).unwrap();
    let own = BTreeSet::from([i32::try_from(std::process::id()).unwrap()]);
    assert!(look::writers(&files, &own).unwrap().is_empty());
    let held = look::held(i32::try_from(std::process::id()).unwrap()).unwrap().unwrap();
    assert!(held.names.contains(&path) && held.pids.is_superset(&own));
    drop((reader, writer));
    assert!(look::held(i32::MAX).unwrap().is_none());
}

#[test]
fn who_has_a_file_mapped_writes_it() {
    // wrong: what a program writes without a descriptor would be cut
    if !rustix::process::getuid().is_root() {
        println!("skipped: needs root to look at what others have mapped");
        return;
    }
    let python = "/usr/bin/python3";
    if !Path::new(python).exists() {
        println!("skipped: needs {python}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let path = dir.join("log");
    std::fs::write(&path, "x").unwrap();
    let files = look::Files::from([(path.clone(), looked(&path, &me(&dir)).is)]);
    // mmap.mmap keeps a descriptor of its own.
    let map = "import ctypes, os, sys\n\
        c = ctypes.CDLL(None, use_errno=True)\n\
        c.mmap.restype = ctypes.c_void_p\n\
        number, at = ctypes.c_int, ctypes.c_void_p\n\
        c.mmap.argtypes = [at, ctypes.c_size_t, number, number, number, ctypes.c_long]\n\
        writes = sys.argv[2] == 'w'\n\
        f = os.open(sys.argv[1], os.O_RDWR if writes else os.O_RDONLY)\n\
        c.mmap(None, 1, 1, 1, f, 0)\n\
        os.close(f)\n\
        print('mapped', flush=True)\n\
        sys.stdin.read()\n";
    for (how, found) in [("w", 1), ("r", 0)] {
        let mut mapping = Command::new(python)
            .args(["-c", map, path.to_str().unwrap(), how])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(mapping.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "mapped\n");
        assert_eq!(look::writers(&files, &BTreeSet::new()).unwrap().len(), found, "{how}");
        drop(mapping.stdin.take());
        assert!(mapping.wait().unwrap().success());
    }
    let text = "00400000-00401000 rw-s 00000000 fe:00 77 /a b\n\
        7f00-7f01 rw-p 0 fe:00 77 /a\n7f02-7f03 rw-s 0 00:00 0\nodd\n";
    assert_eq!(look::shared(text), ["400000-401000"]);
}

#[test]
fn a_file_with_a_list_or_another_name_is_not_the_persons_alone() {
    // wrong: who is let write a file by acl(5), or by a second name, would lose lines
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let (path, person) = (dir.join("log"), me(&dir));
    std::fs::write(&path, "x").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let there = looked(&path, &person);
    assert!(there.own && !there.again);
    std::fs::hard_link(&path, dir.join("second")).unwrap();
    assert!(looked(&path, &person).again);
    // The person rw, user 1 rw, the group nothing, the mask rw, others nothing (version 2 of
    // include/uapi/linux/posix_acl_xattr.h).
    let entry = |tag: u16, rights: u16, id: u32| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let rights = [(1, 6), (2, 6), (4, 0), (16, 6), (32, 0)];
    let entries = rights.map(|(tag, may)| entry(tag, may, if tag == 2 { 1 } else { u32::MAX }));
    let list = [&2_u32.to_le_bytes()[..], &entries.concat()].concat();
    let flags = rustix::fs::XattrFlags::empty();
    match rustix::fs::setxattr(&path, "system.posix_acl_access", &list, flags) {
        Ok(()) => assert!(!looked(&path, &person).own),
        Err(e) => println!("skipped: no lists of rights here: {e}"),
    }
}

#[test]
fn nobody_opens_a_file_while_it_is_cut() {
    // wrong: what is appended between the last look and the cut would be lost
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, "x").unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    match crate::sys::lease(&file) {
        Ok(()) => {}
        Err(e) => {
            println!("skipped: no leases here: {e}");
            return;
        }
    }
    let waits = File::options().append(true).custom_flags(libc::O_NONBLOCK).open(&path);
    assert_eq!(waits.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    file.set_len(0).unwrap();
    drop(file);
    let writer = File::options().append(true).open(&path).unwrap();
    let other = File::options().read(true).write(true).open(&path).unwrap();
    assert_eq!(crate::sys::lease(&other).unwrap_err().raw_os_error(), Some(libc::EAGAIN));
    drop(writer);
}

#[test]
fn what_a_tree_writes_is_known_while_it_runs() {
    // wrong: a program that moves would stand still until all that it wrote is on the disk, or
    // files that it only reads be opened for nothing
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let (log, other) = (dir.join("log"), dir.join("other"));
    std::fs::write(&log, "0\n").unwrap();
    std::fs::write(&other, "x").unwrap();
    let writer = File::options().append(true).open(&log).unwrap();
    let reader = File::open(&other).unwrap();
    let names = look::written(i32::try_from(std::process::id()).unwrap()).unwrap();
    assert!(names.contains(&log) && !names.contains(&other));
    drop((reader, writer));
    assert!(look::written(i32::MAX).is_err());
}
