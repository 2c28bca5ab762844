use super::super::proc::{Descriptor, Stat, Status};
use super::*;

fn rules() -> Rules {
    Rules { shared: vec!["/usr".into(), "/vo".into(), "/proc".into()], filters_move: true }
}

/// A process that moves.
fn process(pid: i32) -> Process {
    Process {
        pid,
        stat: Stat { state: 'S', parent: 1, session: 100 },
        status: Status { uids: [7; 4], pids: vec![pid, pid + 32_768], ..Status::default() },
        descriptors: Vec::new(),
        mapped: BTreeSet::new(),
        folder: "/vo/demo".into(),
        merged_proc: false,
    }
}

fn found(tree: &[Process], rules: &Rules) -> Vec<Obstacle> {
    obstacles(tree, &BTreeSet::from([12]), rules)
}

/// What a descriptor or mapping with this name keeps from moving.
fn of_file(name: &str, stored_bytes: u64) -> Option<What> {
    let descriptor =
        Descriptor { number: 3, what: name.into(), stored_bytes, size_bytes: stored_bytes };
    let tree = [Process { descriptors: vec![descriptor], ..process(100) }];
    let found = found(&tree, &rules());
    assert!(found.len() < 2, "{found:?}");
    found.into_iter().next().map(|obstacle| obstacle.what)
}

/// If it failed, programs that could move would stay for ever.
#[test]
fn what_criu_carries_is_no_obstacle() {
    for name in [
        "/dev/null",
        "/dev/pts/3",
        "/vo/demo/out",
        "/usr/lib/libc.so.6",
        "/proc/self/status",
        "pipe:[12]",
        "socket:[11]",
        "anon_inode:[eventpoll]",
        "anon_inode:inotify",
        "anon_inode:[pidfd]",
        "/memfd:cache (deleted)",
        "/dev/zero (deleted)",
        "/home/me/small (deleted)",
        "[heap]",
        "[vdso]",
    ] {
        assert_eq!(of_file(name, 100), None, "{name}");
    }
    let mut zombie = process(101);
    zombie.stat.state = 'Z';
    let mut stopped = process(102);
    stopped.stat.state = 'T';
    assert!(found(&[process(100), zombie, stopped], &rules()).is_empty());
}

/// If it failed, people would hear CRIU's words instead of what to do.
#[test]
fn what_it_does_not_carry_is_named() {
    let path = |path: &str| path.to_owned();
    let kernel = |name: &str| Some(What::Kernel { name: name.into() });
    assert_eq!(of_file("anon_inode:[io_uring]", 0), kernel("io_uring"));
    assert_eq!(of_file("anon_inode:[perf_event]", 0), kernel("perf_event"));
    assert_eq!(of_file("anon_inode:seccomp notify", 0), Some(What::SeccompListener));
    assert_eq!(of_file("/dev/fuse", 0), Some(What::Device { path: path("/dev/fuse") }));
    assert_eq!(of_file("/dev/shm/x", 0), Some(What::Local { path: path("/dev/shm/x") }));
    assert_eq!(of_file("/usrlocal/x", 0), Some(What::Local { path: path("/usrlocal/x") }));
    assert_eq!(of_file("socket:[12]", 0), Some(What::Connection { fd: 3 }));
    let large = of_file("/vo/large (deleted)", DELETED_BYTES_MAX + 1);
    assert_eq!(large, Some(What::Deleted { path: path("/vo/large") }));
    let shared = of_file("/SYSV00000000 (deleted)", 0);
    assert_eq!(shared, Some(What::SharedMemory { name: path("/SYSV00000000") }));
}

#[test]
fn what_a_process_is_can_keep_it() {
    type Change = fn(&mut Process);
    let changes: [(Change, What); 9] = [
        (|p| p.stat.state = 'D', What::Uninterruptible),
        (|p| p.status.tracer = 9, What::Traced { by: 9 }),
        (|p| p.status.uids = [7, 0, 0, 0], What::OtherRights { uid: 0 }),
        (|p| p.status.uids = [8; 4], What::OtherOwner { uid: 8 }),
        (|p| p.status.pids.push(1), What::Nested),
        (|p| p.merged_proc = true, What::MergedProc),
        (|p| p.stat.session = 50, What::SessionOutside { leader: 50 }),
        (|p| p.folder = "/home/me".into(), What::Local { path: "/home/me".into() }),
        (|p| p.mapped = ["/opt/x.so".into()].into(), What::Local { path: "/opt/x.so".into() }),
    ];
    for (change, what) in changes {
        let mut child = process(101);
        change(&mut child);
        assert_eq!(found(&[process(100), child], &rules()), [Obstacle { pid: 101, what }]);
    }
    let mut filtered = process(100);
    filtered.status.seccomp = 2;
    assert!(found(std::slice::from_ref(&filtered), &rules()).is_empty());
    let unreadable = Rules { filters_move: false, ..rules() };
    let expected = [Obstacle { pid: 100, what: What::Seccomp }];
    assert_eq!(found(&[filtered], &unreadable), expected);
    let mut ended = process(100);
    ended.stat.state = 'Z';
    assert_eq!(found(&[ended], &rules()), [Obstacle { pid: 100, what: What::Ended }]);
}

#[test]
fn every_obstacle_says_what_to_do_and_a_large_tree_is_bounded() {
    let mut many = process(100);
    many.mapped = (0..OBSTACLES_MAX + 50).map(|i| format!("/opt/{i}")).collect();
    let found = found(&[many], &rules());
    assert_eq!(found.len(), OBSTACLES_MAX);
    for obstacle in found {
        assert!(!obstacle.what.to_string().is_empty() && !obstacle.what.next().is_empty());
    }
}

/// Real processes: one with a file of this machine alone and a connection.
#[test]
fn a_real_program_is_looked_at() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("local")).unwrap();
    let mut child = std::process::Command::new("sleep")
        .arg("1000")
        .current_dir("/usr")
        .stdin(std::os::fd::OwnedFd::from(stream))
        .stdout(file)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let shared = ["/usr", "/lib", "/lib64", "/bin"].map(PathBuf::from).to_vec();
    let found = why(pid, &Rules { shared, filters_move: true });
    child.kill().unwrap();
    child.wait().unwrap();
    let found = found.unwrap();
    let has = |what: &What| found.iter().any(|o| o.pid == pid && o.what == *what);
    assert!(has(&What::Connection { fd: 0 }), "{found:?}");
    let path = dir.path().canonicalize().unwrap().join("local").display().to_string();
    assert!(has(&What::Local { path }), "{found:?}");
    let outside = |o: &Obstacle| matches!(o.what, What::SessionOutside { .. });
    assert!(found.iter().any(outside), "the test's session stays: {found:?}");
    assert_eq!(why(pid, &Rules::default()).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

/// If it failed, a program that moves would lose its background processes without a word, or one
/// that starts processes in sessions of their own would not move.
#[test]
fn what_lost_its_parent_is_a_stray_and_what_has_one_is_not() {
    // In a session of its own: a worker whose parent ends, and one whose parent goes on.
    let text = "(sleep 1000 & echo $! >&3); setsid sleep 1000 & echo $! >&3; wait";
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut child = std::process::Command::new("setsid")
        .args(["sh", "-c", &format!("exec 3>&1 >/dev/null; {text}")])
        .stdin(std::process::Stdio::null())
        .stdout(writer)
        .spawn()
        .unwrap();
    let root = i32::try_from(child.id()).unwrap();
    let mut pids = Vec::new();
    while pids.len() < 2 {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            std::io::Read::read_exact(&mut reader, &mut byte).unwrap();
            line.extend(byte);
        }
        pids.push(String::from_utf8(line).unwrap().trim().parse::<i32>().unwrap());
    }
    let found = strays(root);
    for pid in proc::tree(root).unwrap().into_iter().chain([pids[0]]).rev() {
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    child.wait().unwrap();
    let stray = Obstacle { pid: pids[0], what: What::Stray };
    assert_eq!(found.unwrap(), [stray], "{pids:?}");
}
