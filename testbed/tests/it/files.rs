use std::io::Read;
use std::path::Path;

use xos_testbed::{Cmd, Error, Share, Stdio};

use crate::{Bed, config, create, sh};

/// If it failed, a test could change the machine, or two hosts would share their accounts.
#[test]
fn etc_and_hostname_are_private() {
    let Some(bed) = Bed::new("etc") else { return };
    let (one, two) = (bed.host("one"), bed.host("two"));
    let passwd = std::fs::read("/etc/passwd").unwrap();
    sh(&one, "echo 'x:x:7777:7777::/home/x:/bin/sh' >> /etc/passwd; touch /usr/lib/ours /var/ours");
    assert_eq!(
        sh(&one, "getent passwd 7777 | cut -d: -f1; cat /etc/hostname; hostname"),
        "x\none\none"
    );
    assert_eq!(sh(&two, "getent passwd 7777; hostname"), "two");
    assert_eq!(std::fs::read("/etc/passwd").unwrap(), passwd);
    for path in ["/usr/lib/ours", "/var/ours", "/xtreemfs"] {
        assert!(!Path::new(path).exists(), "{path} appeared on the machine");
    }
    assert_ne!(sh(&one, "cat /etc/machine-id"), sh(&two, "cat /etc/machine-id"));
    assert_eq!(sh(&two, "grep -c one /etc/hosts"), "1");
}

/// If it failed, a FUSE mount made by one program of a host would be hidden from the next, or
/// seen by other hosts.
#[test]
fn mounts_are_seen_in_the_host_only() {
    let Some(bed) = Bed::new("mounts") else { return };
    let (one, two) = (bed.host("one"), bed.host("two"));
    sh(&one, "mkdir /xtreemfs/vo && mount -t tmpfs vo /xtreemfs/vo && echo in > /xtreemfs/vo/f");
    assert_eq!(sh(&one, "cat /xtreemfs/vo/f"), "in");
    assert_eq!(one.read_file("/xtreemfs/vo/f").unwrap(), b"in\n");
    // A mount made in a namespace of its own spreads to the host, as from a service's.
    let nested = "mkdir /xtreemfs/b; unshare -m --propagation shared mount -t tmpfs b /xtreemfs/b";
    sh(&one, nested);
    assert_eq!(sh(&one, "findmnt -n -o SOURCE /xtreemfs/b"), "b");
    assert_eq!(sh(&two, "ls /xtreemfs"), "");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("/xtreemfs"), "{mounts}");
    assert_eq!(sh(&one, "stat -c '%a %t:%T' /dev/fuse"), "666 a:e5");
}

/// If it failed, a crash would lose what a power cut does not, or keep what it does.
#[test]
fn own_folders_outlive_a_restart_and_memory_does_not() {
    let Some(bed) = Bed::new("restart") else { return };
    let host = bed.host("one");
    let folders = ["/home", "/var/lib/xos", "/var/log", "/etc", "/usr/local", "/root"];
    let memory = ["/run", "/tmp", "/dev/shm", "/xtreemfs"];
    for folder in folders.iter().chain(&memory) {
        host.write_file(format!("{folder}/mark/deep"), folder.as_bytes(), 0o640).unwrap();
    }
    host.crash().unwrap();
    assert!(matches!(host.run(&Cmd::new("true")), Err(Error::HostDown(_))));
    assert!(matches!(host.read_file("/etc/hosts"), Err(Error::HostDown(_))));
    let second = bed.host("two");
    host.restart().unwrap();
    for folder in folders {
        let content = host.read_file(format!("{folder}/mark/deep")).unwrap();
        assert_eq!(content, folder.as_bytes(), "{folder}");
    }
    for folder in memory {
        assert!(host.read_file(format!("{folder}/mark/deep")).is_err(), "{folder}");
    }
    assert_eq!(sh(&host, "stat -c %a /etc/mark/deep"), "640");
    assert_eq!(sh(&host, "grep -c two /etc/hosts"), "1", "a host added meanwhile is unknown");
    assert_eq!(sh(&second, "grep -c one /etc/hosts"), "1");
}

/// If it failed, a link in a host could make root write to the machine's files.
#[test]
fn links_are_followed_inside_the_host() {
    let Some(bed) = Bed::new("links") else { return };
    let host = bed.host("one");
    let outside = bed.folder.path().join("victim");
    std::fs::write(&outside, "safe").unwrap();
    let target = outside.display();
    sh(&host, &format!("ln -s {target} /home/out; ln -s /../../../../etc/hostname /home/up"));
    assert!(host.write_file("/home/out", b"changed", 0o644).is_err(), "its folder is not there");
    assert_eq!(std::fs::read(&outside).unwrap(), b"safe");
    assert_eq!(host.read_file("/home/up").unwrap(), b"one\n");
    assert!(matches!(host.read_file("home/up"), Err(Error::RelativePath(_))));
}

/// If it failed, a host would not see what is shared with it, or could change what it may not.
#[test]
fn shares_are_seen_and_protected() {
    let (read, write) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(read.path().join("f"), "shared\n").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), "shares");
    let share =
        |from: &Path, to: &str, writable| Share { from: from.into(), to: to.into(), writable };
    config.shares =
        vec![share(read.path(), "/share/r", false), share(write.path(), "/home/w", true)];
    let Some(testbed) = create(config) else { return };
    let host = testbed.add_host(xos_testbed::HostSpec::new("one").unwrap()).unwrap();
    assert_eq!(sh(&host, "cat /share/r/f; echo x > /share/r/f || echo refused"), "shared\nrefused");
    sh(&host, "echo back > /home/w/f");
    assert_eq!(std::fs::read(write.path().join("f")).unwrap(), b"back\n");
    let helper = env!("CARGO_BIN_EXE_testbed");
    assert!(sh(&host, &format!("{helper} --version")).starts_with("testbed "));
}

/// If it failed, a testbed below a folder that hosts cover with an overlay could not start.
#[test]
fn the_folder_may_lie_in_a_covered_one() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let Some(testbed) = create(config(folder.path(), "covered")) else { return };
    let host = testbed.add_host(xos_testbed::HostSpec::new("one").unwrap()).unwrap();
    sh(&host, "touch /var/mark /etc/mark");
    assert!(!Path::new("/var/mark").exists());
    host.write_file("/var/lib/xos/mark", b"kept", 0o600).unwrap();
    host.restart().unwrap();
    assert_eq!(host.read_file("/var/lib/xos/mark").unwrap(), b"kept");
    assert_eq!(sh(&host, "ls /etc/mark"), "/etc/mark");
}

/// If it failed, FUSE could not be used in a host, or a host whose file system hangs not be ended.
#[test]
fn a_host_with_a_hung_fuse_mount_ends() {
    let Some(bed) = Bed::new("fuse") else { return };
    let host = bed.host("one");
    // A file system whose server never answers.
    let script = "exec 3<>/dev/fuse
        mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 hung /xtreemfs
        echo mounted; exec sleep 1000";
    let mut server = host.spawn(&Cmd::shell(script).stdio(Stdio::Piped)).unwrap();
    let mut line = [0; 8];
    server.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(sh(&host, "findmnt -n -o FSTYPE /xtreemfs"), "fuse");
    let mut user = host.spawn(&Cmd::new("ls").arg("/xtreemfs")).unwrap();
    assert_eq!(user.try_wait().unwrap(), None);
    host.restart().unwrap();
    user.wait(std::time::Duration::from_secs(30)).unwrap();
    assert_eq!(sh(&host, "ls /xtreemfs"), "");
}
