use super::*;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const UID: u32 = 70_001;

fn person() -> Person {
    Person::new(UID, UID, &[70_005])
}

#[test]
fn rights_are_the_persons_alone() {
    // wrong: a program would come back as another user, in another's groups, or with root's rights
    let good = "Name:\tUid:\nUid:\t70001\t70001\t70001\t70001\n\
        Gid:\t70001\t70001\t70001\t70001\nGroups:\t70005 \nCapInh:\t0000000000000000\n\
        CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\n\
        CapAmb:\t0000000000000000\n";
    rights(good, &person()).unwrap();
    rights(&good.replace("Groups:\t70005 ", "Groups:\t"), &person()).unwrap();
    for (from, to, what) in [
        ("Uid:\t70001\t70001\t70001", "Uid:\t70001\t70001\t0", "user 0"),
        ("Gid:\t70001\t70001", "Gid:\t70001\t42", "group 42"),
        ("Groups:\t70005", "Groups:\t70005 27", "group 27"),
        ("CapInh:\t0000", "CapInh:\t0001", "CapInh"),
        ("CapPrm:\t0000", "CapPrm:\t0001", "CapPrm"),
        ("CapEff:\t0000", "CapEff:\ta000", "CapEff"),
        ("CapAmb:\t0000", "CapAmb:\t0001", "CapAmb"),
        ("Groups:", "Croups:", "no Groups"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        let why = rights(&bad, &person()).unwrap_err();
        assert!(why.contains(what), "{why}");
    }
}

#[test]
fn how_files_are_used_is_read() {
    // wrong: a file that is only open for reading could be written, or a good program be refused
    let of = |flags: &str| opened(&format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t29\n"));
    assert_eq!(of("0100000"), Some(Access::READ_OK));
    assert_eq!(of("0102001"), Some(Access::WRITE_OK));
    assert_eq!(of("0100002"), Some(Access::READ_OK | Access::WRITE_OK));
    assert_eq!(of("012000000"), Some(Access::EXISTS));
    assert!(of("9").is_none() && opened("").is_none());
    let smaps = "00400000-00401000 r--p 00000000 fe:00 131 /usr/bin/a b\nSize: 4 kB\n\
        VmFlags: rd mr mw me\n7f00-7f01 r--s 00000000 fe:00 132 /vo/x\nRss: 0 kB\n\
        VmFlags: rd mr mw me ms sh\n7f02-7f03 r--s 00000000 fe:00 133 /usr/y\n\
        VmFlags: rd mr me ms sh\n";
    let expected =
        [((0x40_0000, 0x40_1000), false), ((0x7f00, 0x7f01), true), ((0x7f02, 0x7f03), false)];
    assert_eq!(shared(smaps), BTreeMap::from(expected));
    assert_eq!(range("400000-401000"), Some((0x40_0000, 0x40_1000)));
    assert!(range("Size:").is_none());
}

/// A program of the person's whose output goes to a file, and what images would say of it.
struct Real {
    child: Child,
    file: PathBuf,
    look: Look,
    _dir: tempfile::TempDir,
}

impl Real {
    fn new() -> Real {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let file = dir.path().canonicalize().unwrap().join("out");
        let out = File::create(&file).unwrap();
        chown(&file, Some(UID), Some(UID)).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        let mut child = Command::new("/usr/bin/cat")
            .current_dir("/")
            .uid(UID)
            .gid(UID)
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Once it answers it has loaded all that it needs.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        while std::fs::metadata(&file).unwrap().len() == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let pid = i32::try_from(child.id()).unwrap();
        let links = ["cwd", "exe"].map(|name| proc::of(pid, name)).into_iter();
        let all = ["fd", "map_files"].map(|name| read_dir(proc::of(pid, name)).unwrap());
        let links = links.chain(all.into_iter().flatten().map(|entry| entry.unwrap().path()));
        let recorded = Recorded {
            names: links.map(|link| read_link(link).unwrap()).collect(),
            processes: [(proc::inner_pid(pid).unwrap(), [0, 1, 2].into())].into(),
        };
        let look = Look { cell: None, person: person(), recorded };
        Real { child, file, look, _dir: dir }
    }

    /// What is strange about it, at both times.
    fn strange(&self) -> Option<String> {
        let pid = i32::try_from(self.child.id()).unwrap();
        let found = [When::Held, When::Made].map(|when| match self.look.at(pid, when) {
            Ok(()) => None,
            Err(DriverError::Strange { what, .. }) => Some(what),
            Err(error) => panic!("{error}"),
        });
        assert_eq!(found[0], found[1]);
        found[0].clone()
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// If it failed, a program would be given files that its person cannot open, or that lie where a
/// link led to; or none could move.
#[test]
fn only_files_of_their_names_that_the_person_may_open_are_good() {
    if !rustix::process::getuid().is_root() {
        return println!("skipped: needs root");
    }
    let mut real = Real::new();
    assert_eq!(real.strange(), None);
    let file = real.file.clone();
    let is = |real: &Real, part: &str| {
        let what = real.strange().unwrap_or_default();
        assert!(what.contains(part), "{part}: {what}");
    };
    // It is root's.
    chown(&file, Some(0), Some(0)).unwrap();
    is(&real, "may not open");
    chown(&file, Some(0), Some(70_005)).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o620)).unwrap();
    assert_eq!(real.strange(), None, "a group of the person's may write it");
    // Nobody said that it would have it.
    assert!(real.look.recorded.names.remove(&file));
    is(&real, "had not when it was saved");
    real.look.recorded.names.insert(file.clone());
    // It lies elsewhere, and a link leads there.
    let moved = file.with_file_name("moved");
    std::fs::rename(&file, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &file).unwrap();
    is(&real, "had not when it was saved");
    real.look.recorded.names.insert(moved.clone());
    assert_eq!(real.strange(), None);
    // A folder that the person cannot enter.
    std::fs::set_permissions(file.parent().unwrap(), PermissionsExt::from_mode(0o700)).unwrap();
    is(&real, "does not come to");
}

/// If it failed, a process that nobody saved would be taken for one of the program, or have its
/// rights overlooked.
#[test]
fn a_process_that_was_not_saved_or_is_another_users_is_none_of_it() {
    if !rustix::process::getuid().is_root() {
        return println!("skipped: needs root");
    }
    let mut real = Real::new();
    let pid = i32::try_from(real.child.id()).unwrap();
    let made = |real: &Real| real.look.at(pid, When::Made).unwrap_err().to_string();
    real.look.person = Person::new(UID + 1, UID, &[]);
    assert!(made(&real).contains("the rights of user 70001"), "{}", made(&real));
    real.look.recorded.processes.clear();
    assert!(made(&real).contains("was not saved"), "{}", made(&real));
    // At the gate it may be one of CRIU's.
    real.look.at(pid, When::Held).unwrap();
}
