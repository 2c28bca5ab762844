use super::*;

const V2: &str = "35 24 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
const V1: &str = "33 24 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                  34 24 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
const HYBRID: &str = "34 24 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      35 24 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

/// If it failed, sessions would be taken away from systemd that holds them.
#[test]
fn what_is_in_the_own_slice_of_systemd_is_left_to_it() {
    for (mounts, list) in [
        (V2, "0::/user.slice/user-1900000007.slice/session-4.scope\n"),
        (V2, "0::/user.slice/user-1900000007.slice/user@1900000007.service/app.slice\n"),
        (
            HYBRID,
            "1:name=systemd:/user.slice/user-1900000007.slice/session-4.scope\n\
             0::/user.slice/user-1900000007.slice/session-4.scope\n",
        ),
    ] {
        assert!(in_own_slice(1_900_000_007, mounts, list), "{list}");
    }
}

/// If it failed, who is entered by `su` from another user's session, or where nothing can be
/// stopped, would be neither limited nor held when they are suspended.
#[test]
fn a_session_that_nothing_else_holds_is_ours() {
    for (mounts, list) in [
        (V2, "0::/user.slice/user-1000.slice/session-4.scope\n"),
        (V2, "0::/user.slice/user-1900000070.slice/session-4.scope\n"),
        (V2, "0::/user.slice/user-1000.slice/user@1000.service/user-1900000007.slice\n"),
        (V2, "0::/session-c2.scope\n"),
        (V2, "0::/system.slice/ssh.service\n"),
        (V2, "0::/user.slice\n"),
        (V2, "0::/xos/login-1900000007\n"),
        (HYBRID, "1:name=systemd:/user.slice/user-1900000007.slice/session-4.scope\n0::/\n"),
        (
            V1,
            "12:pids:/user.slice/user-1900000007.slice/session-4.scope\n\
             1:name=systemd:/user.slice/user-1900000007.slice/session-4.scope\n",
        ),
        (V1, "12:pids:/\n1:name=elogind:/c2\n"),
        (V2, ""),
        (V2, "\n::\n"),
    ] {
        assert!(!in_own_slice(1_900_000_007, mounts, list), "{list}");
    }
}

/// If it failed, a person's sessions could not be held when they are suspended, nor ended with
/// their membership, whatever they started in them.
#[test]
fn what_a_session_started_is_held_and_ended_with_it() {
    use std::process::Command;
    if !rustix::process::getuid().is_root() {
        println!("skipped: needs root for control groups");
        return;
    }
    let instance = format!("xos-login-test-{}", std::process::id());
    let cgroups = match Cgroups::prepare(&instance.parse().unwrap(), None) {
        Ok(c) if c.missing().0.is_empty() => c,
        Ok(c) => {
            println!("skipped: no cgroup controllers {:?}", c.missing());
            return;
        }
        Err(e) => {
            println!("skipped: {e}");
            return;
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { cpu_millis: None, memory_bytes: None, pids: 20 };
    let groups = Groups::open(cgroups.clone(), limits, dir.path().join("held")).unwrap();
    let mut leader = Command::new("sh")
        .args(["-c", "read go; sleep 600 & exec sleep 600"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let uid = 1_999_990_100;
    // Whoever runs this test, it is in no slice of theirs.
    assert!(groups.enter(uid, leader.id()).unwrap());
    assert_eq!(groups.uids().unwrap(), BTreeSet::from([uid]));
    drop(leader.stdin.take());
    groups.freeze(uid, true).unwrap();
    assert!(!groups.is_empty(uid).unwrap());
    groups.freeze(uid, false).unwrap();
    groups.end(uid).unwrap();
    assert!(!leader.wait().unwrap().success());
    assert!(groups.uids().unwrap().is_empty());
    cgroups.remove().unwrap();
    assert!(groups.enter(uid, u32::MAX).is_err(), "no such process");
}
