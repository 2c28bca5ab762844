//! What the real CRIU makes of images, with the person's rights: also of those that a hostile
//! machine wrote.

use crate::criu::{COUNTER, OWNER, PATIENCE, Two, counts, forge, lines};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use xos_ssi::cell::proto::{Rlimit, RlimitKind};
use xos_ssi::driver::{Checkpointer, DriverError, DumpOrder, Leave, RestoreOrder, Tcp, Trust};

/// Has a descriptor of a file that everybody may read, which is as long as that of one that nobody
/// may.
const READER: &str = "exec 5</etc/passwd; while :; do echo a; sleep 0.02; done";

/// Adds a key to its session keyring (add_key(2)).
const KEEPS_KEY: &str = "
import ctypes, sys
add = int(sys.argv[1])
c = ctypes.CDLL(None, use_errno=True)
key = c.syscall(add, b'user', sys.argv[2].encode(), b'x', ctypes.c_size_t(1), -3)
sys.exit('no key: error %d' % ctypes.get_errno() if key < 0 else 0)
";
/// Says again and again whether it finds that key there (KEYCTL_SEARCH, keyctl(2)).
const SEES_KEY: &str = "
import ctypes, os, sys, time
keyctl, name = int(sys.argv[1]), sys.argv[2].encode()
c = ctypes.CDLL(None)
while True:
    found = c.syscall(keyctl, 10, -3, b'user', name, 0) > 0
    os.write(1, b'has it\\n' if found else b'has none\\n')
    time.sleep(0.02)
";

/// Of another site.
fn foreign(two: &Two, folder: &Path) -> RestoreOrder {
    RestoreOrder { trust: Trust::Foreign, ..two.restore_order(folder) }
}

/// Restores forged images; why nothing came of it.
async fn refused(two: &Two, pid: i32, folder: &Path) -> DriverError {
    let refused = two.criu.restore(foreign(two, folder)).await.unwrap_err();
    assert_eq!(two.there.outer(pid), None, "nothing of it is left: {refused}");
    refused
}

/// What the kernel says of a process, by its pid here.
fn status(pid: i32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mut lines = text.lines();
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap_or_else(|| panic!("no {name}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// If it failed, a program would come back with a right of CRIU's, which is root's, or its images
/// would stay open to others.
#[tokio::test]
async fn a_program_of_another_site_has_its_persons_rights_and_no_others() {
    let Some(mut two) = Two::new().await else { return };
    let out = two.file("out", 0o600);
    let pid = two.start(out.to_str().unwrap(), &["/bin/sh", "-c", COUNTER]);
    lines(&out, 10);
    let folder = two.folder("images");
    two.save(pid, &folder, Leave::Killed).await;
    let before = lines(&out, 10).len();
    let restored = two.criu.restore(foreign(&two, &folder)).await.unwrap();
    let root = restored.outer_pid.unwrap();
    let id = OWNER.to_string();
    for name in ["Uid", "Gid"] {
        assert_eq!(status(root, name), [id.as_str(); 4].join(" "), "{name}");
    }
    assert_eq!(status(root, "Groups"), id);
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(root, name), "0000000000000000", "{name}");
    }
    assert_eq!(status(root, "NoNewPrivs"), "1");
    counts(&lines(&out, before + 10), "a ");
    for entry in std::fs::read_dir(&folder).unwrap() {
        let metadata = entry.unwrap().metadata().unwrap();
        assert_eq!((metadata.mode() & 0o777, metadata.uid(), metadata.gid()), (0o600, 0, 0));
    }
    assert_eq!(std::fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
}

/// If it failed, a program that came back would have the keys of the node's agent, and share a
/// keyring with all others that came back.
#[tokio::test]
async fn a_program_that_comes_back_has_none_of_the_agents_keys() {
    // This thread's, which is the agent's here, and that of all that it starts.
    if let Err(e) = xos_ssi::sys::new_session_keyring() {
        return println!("skipped: no keyrings here: {e}");
    }
    let name = format!("xos-test-{}", std::process::id());
    let (add, keyctl) = (libc::SYS_add_key.to_string(), libc::SYS_keyctl.to_string());
    let python = "/usr/bin/python3";
    match std::process::Command::new(python).args(["-c", KEEPS_KEY, &add, &name]).status() {
        Ok(kept) if kept.success() => {}
        no => return println!("skipped: no key can be kept here: {no:?}"),
    }
    let Some(mut two) = Two::new().await else { return };
    let out = two.file("out", 0o600);
    let pid = two.start(out.to_str().unwrap(), &[python, "-c", SEES_KEY, &keyctl, &name]);
    let before = lines(&out, 10);
    assert!(before.iter().all(|line| line == "has it"), "nothing is tried here: {before:?}");
    let folder = two.folder("images");
    two.save(pid, &folder, Leave::Killed).await;
    let before = lines(&out, 10).len();
    two.criu.restore(two.restore_order(&folder)).await.unwrap();
    let after = lines(&out, before + 10);
    // The first may be of a search that was begun before.
    let after = &after[before + 1..];
    assert!(after.iter().all(|line| line == "has none"), "{after:?}");
}

/// If it failed, a program could have more processes or files once it moved than where it is now,
/// or be spared when memory is short and others are ended.
#[tokio::test]
async fn a_program_comes_back_within_the_limits_of_its_new_node() {
    let Some(mut two) = Two::new().await else { return };
    let out = two.file("out", 0o600);
    let pid = two.start(out.to_str().unwrap(), &["/bin/sleep", "1000"]);
    let folder = two.folder("images");
    two.save(pid, &folder, Leave::Killed).await;
    let most = |kind, most| vec![Rlimit { kind, soft: Some(most), hard: Some(most) }];
    let has = |root: i32, name: &str, most: &str| {
        let text = std::fs::read_to_string(format!("/proc/{root}/limits")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        assert_eq!(line.split_whitespace().take(2).collect::<Vec<_>>(), [most; 2], "{text}");
    };
    let rlimits = most(RlimitKind::Processes, 300);
    let order = RestoreOrder { rlimits, ..foreign(&two, &folder) };
    let root = two.criu.restore(order).await.unwrap().outer_pid.unwrap();
    has(root, "Max processes", "300");
    let score = std::fs::read_to_string(format!("/proc/{root}/oom_score_adj")).unwrap();
    assert!(score.trim().parse::<i32>().unwrap() >= 300, "{score}");
    // Where root may not lower what is another's, it does not come back.
    let (cell, rlimits) = (Some(two.here.cell), most(RlimitKind::OpenFiles, 64));
    match two.criu.restore(RestoreOrder { cell, rlimits, ..foreign(&two, &folder) }).await {
        Ok(restored) => has(restored.outer_pid.unwrap(), "Max open files", "64"),
        Err(DriverError::Strange { what, .. }) => {
            assert!(what.contains("a higher limit (Max open files)"), "{what}");
            assert_eq!(two.here.outer(pid), None, "nothing of it is left");
        }
        Err(other) => panic!("{other}"),
    }
}

/// If it failed, a program that waits by a clock would hang, or not wait, once it moved to a machine
/// that was started at another time, or could move only once.
#[tokio::test]
async fn clocks_go_along_each_time() {
    let Some(mut two) = Two::new().await else { return };
    if !Path::new("/proc/self/timens_offsets").exists() {
        return println!("skipped: no time namespaces");
    }
    let out = two.file("out", 0o600);
    let pid = two.start(out.to_str().unwrap(), &["/bin/sh", "-c", COUNTER]);
    lines(&out, 10);
    let first = two.folder("first");
    two.save(pid, &first, Leave::Killed).await;
    let restored = two.criu.restore(two.restore_order(&first)).await.unwrap();
    let there = restored.outer_pid.unwrap();
    let clocks = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/time")).unwrap();
    assert_ne!(clocks(there), clocks(std::process::id().try_into().unwrap()));
    let offsets = std::fs::read_to_string(format!("/proc/{there}/timens_offsets")).unwrap();
    // The time between is none that it saw.
    let behind = |name| {
        let line = offsets.lines().find(|line| line.starts_with(name));
        line.unwrap().split_whitespace().nth(1).unwrap().starts_with('-')
    };
    assert!(behind("monotonic") && behind("boottime"), "{offsets}");
    let second = two.folder("second");
    let order = DumpOrder {
        root: there,
        cell: Some(two.there.cell),
        folder: second.clone(),
        leave: Leave::Killed,
        externals: Vec::new(),
        tcp: Tcp::None,
        limit: PATIENCE,
    };
    two.saved(&order).await;
    let back = RestoreOrder { cell: Some(two.here.cell), ..two.restore_order(&second) };
    two.criu.restore(back).await.unwrap();
    let before = lines(&out, 10).len();
    counts(&lines(&out, before + 10), "a ");
}

/// If it failed, another site could have this one's root read any file for a program of its.
#[tokio::test]
async fn an_image_that_names_roots_file_gets_nobody_that_file() {
    let Some(mut two) = Two::new().await else { return };
    if std::fs::metadata("/etc/shadow").is_ok_and(|shadow| shadow.mode() & 0o004 != 0) {
        return println!("skipped: everybody may read /etc/shadow here");
    }
    let out = two.file("out", 0o600);
    let pid = two.start(out.to_str().unwrap(), &["/bin/sh", "-c", READER]);
    lines(&out, 10);
    let folder = two.folder("images");
    two.save(pid, &folder, Leave::Running).await;
    forge(&two, pid, &folder, "files.img", b"/etc/passwd", b"/etc/shadow").await;
    let why = refused(&two, pid, &folder).await;
    let DriverError::Refused { what, .. } = &why else { panic!("{why}") };
    assert!(what.contains("its person may not open"), "{what}");
}

/// If it failed, another site could have root write into a file of this one, or make one.
#[tokio::test]
async fn an_image_that_names_roots_path_for_writing_changes_nothing_there() {
    let Some(mut two) = Two::new().await else { return };
    let out = two.file("mine", 0o600);
    let theirs = two.path("root");
    std::fs::write(&theirs, "root's\n").unwrap();
    std::fs::set_permissions(&theirs, PermissionsExt::from_mode(0o644)).unwrap();
    let pid = two.start(out.to_str().unwrap(), &["/bin/sh", "-c", COUNTER]);
    lines(&out, 10);
    let folder = two.folder("images");
    two.save(pid, &folder, Leave::Running).await;
    let name = |path: &Path| path.to_str().unwrap().as_bytes().to_vec();
    forge(&two, pid, &folder, "files.img", &name(&out), &name(&theirs)).await;
    refused(&two, pid, &folder).await;
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "root's\n");
    // One that is not there is not made either, in a folder that is root's.
    std::fs::remove_file(&theirs).unwrap();
    refused(&two, pid, &folder).await;
    assert!(!theirs.exists());
}

/// If it failed, a program would come back as another one that has root's rights when it begins.
#[tokio::test]
async fn an_image_whose_program_is_roots_is_refused() {
    let Some(mut two) = Two::new().await else { return };
    let out = two.file("out", 0o600);
    let pid = two.start(out.to_str().unwrap(), &["/usr/bin/sleep", "1000"]);
    let folder = two.folder("images");
    two.save(pid, &folder, Leave::Running).await;
    // A program with setuid of the same length.
    forge(&two, pid, &folder, "files.img", b"/usr/bin/sleep", b"/usr/bin/mount").await;
    refused(&two, pid, &folder).await;
}

/// If it failed, a program could leave its cell, or be root in a place of its own.
#[tokio::test]
async fn an_image_that_names_another_namespace_is_refused() {
    let Some(mut two) = Two::new().await else { return };
    let out = two.file("out", 0o600);
    let pid = two.start(out.to_str().unwrap(), &["/usr/bin/sleep", "1000"]);
    let image = format!("ids-{pid}.img");
    // Of pids, networks, IPC, names, mounts and users (criu: images/core.proto, task_kobj_ids).
    for field in 5..=10 {
        let folder = two.folder(&format!("images{field}"));
        two.save(pid, &folder, Leave::Running).await;
        let bytes = std::fs::read(folder.join(&image)).unwrap();
        // After two magic numbers and the length: a key and a small number each.
        let mut pairs = bytes[12..].chunks_exact(2);
        let known = pairs.find(|pair| pair[0] >> 3 == field).expect("each process has one");
        forge(&two, pid, &folder, &image, known, &[known[0], 0x77]).await;
        refused(&two, pid, &folder).await;
    }
}

/// If it failed, CRIU would get a right on all networks of the machine for the images of another
/// site.
#[tokio::test]
async fn connections_of_another_site_are_not_taken_over() {
    let Some(mut two) = Two::new().await else { return };
    let out = two.file("out", 0o600);
    let pid = two.start(out.to_str().unwrap(), &["/usr/bin/sleep", "1000"]);
    let folder = two.folder("images");
    two.save(pid, &folder, Leave::Running).await;
    let order = RestoreOrder { tcp: Tcp::Established, ..foreign(&two, &folder) };
    let refused = two.criu.restore(order).await.unwrap_err();
    let DriverError::Refused { what, next, .. } = &refused else { panic!("{refused}") };
    assert!(what.contains("from another site") && next.contains("end the"), "{refused}");
    assert_eq!(two.there.outer(pid), None, "nothing was started");
}
