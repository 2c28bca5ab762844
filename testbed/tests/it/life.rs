use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use xos_testbed::{Cmd, Error, HostSpec, Testbed};

use crate::{Traces, config, create, machine_network, sh};

/// If it failed, `make stop` would leave something on the machine.
#[test]
fn destroy_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let before = machine_network();
    let Some(testbed) = create(config(folder.path(), "nothing")) else { return };
    let host = testbed.add_host(HostSpec::new("one").unwrap()).unwrap();
    testbed.add_host(HostSpec::new("two").unwrap()).unwrap();
    host.spawn(&Cmd::shell("setsid sleep 1000 & exec sleep 1000")).unwrap();
    sh(&host, "mount -t tmpfs x /xtreemfs; mkdir -p /sys/fs/cgroup/a /sys/fs/cgroup/*/a/b; true");
    let during = Traces::of("nothing", folder.path());
    assert!(during.0.iter().any(|line| line.contains("host-init")), "{during:?}");
    assert_eq!(machine_network(), before, "the machine's network changed");
    testbed.destroy().unwrap();
    let after = Traces::of("nothing", folder.path());
    assert!(after.is_empty(), "{after:?}");
    let left: Vec<_> =
        folder.path().read_dir().unwrap().map(|one| one.unwrap().file_name()).collect();
    assert_eq!(left, ["logs"]);
    assert!(matches!(Testbed::open(folder.path()), Err(Error::NoTestbed(_))));
}

/// If it failed, a test that panics would leave its testbed.
#[test]
fn dropping_destroys_unless_opened_or_detached() {
    let folder = tempfile::tempdir().unwrap();
    let Some(testbed) = create(config(folder.path(), "drop")) else { return };
    drop(Testbed::open(folder.path()).unwrap());
    sh(&testbed.add_host(HostSpec::new("one").unwrap()).unwrap(), "true");
    drop(testbed);
    let after = Traces::of("drop", folder.path());
    assert!(after.is_empty(), "{after:?}");

    let mut config = config(folder.path(), "drop");
    config.detach = true;
    let host = create(config.clone()).unwrap().add_host(HostSpec::new("one").unwrap()).unwrap();
    sh(&host, "true");
    assert!(matches!(Testbed::create(config), Err(Error::InUse { .. })));
    Testbed::open(folder.path()).unwrap().destroy().unwrap();
    let after = Traces::of("drop", folder.path());
    assert!(after.is_empty(), "{after:?}");
}

/// If it failed, a folder with somebody's files could be taken, or one that others may write to.
#[test]
fn unfit_folders_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis"), "").unwrap();
    match Testbed::create(config(folder.path(), "unfit")) {
        Err(Error::NeedsRoot) => crate::skipped("needs root"),
        Err(Error::Folder { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(matches!(Testbed::open(folder.path()), Err(Error::NoTestbed(_))));
    assert_eq!(folder.path().read_dir().unwrap().count(), 1);
}

/// If it failed, what a killed test or demo left could not be removed or replaced.
#[test]
fn a_testbed_of_a_killed_creator_is_removed() {
    for detach in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let Some(mut creator) = start_creator("killed", folder.path(), detach) else { return };
        let opened = Testbed::open(folder.path()).unwrap();
        let init = opened.hosts().unwrap()[0].init.unwrap().to_string();
        creator.kill().unwrap();
        creator.wait().unwrap();
        if detach {
            assert_eq!(sh(&opened.host("one").unwrap(), "hostname"), "one");
        } else {
            // tail ends when the host's first process does, by itself.
            let wait = ["60", "tail", "-f", "/dev/null", "--pid", &init];
            assert!(Command::new("timeout").args(wait).status().unwrap().success());
        }
        opened.destroy().unwrap();
        let after = Traces::of("killed", folder.path());
        assert!(after.is_empty(), "detached {detach}: {after:?}");
    }
}

/// If it failed, `make demo` after a crash would not work.
#[test]
fn create_replaces_what_a_crash_left() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut creator) = start_creator("replaced", folder.path(), true) else { return };
    let refused = Testbed::create(config(folder.path(), "replaced"));
    assert!(matches!(refused, Err(Error::InUse { .. })), "{refused:?}");
    creator.kill().unwrap();
    creator.wait().unwrap();
    // Even without its state file, as after a crash in the first moment.
    std::fs::remove_file(folder.path().join("state.json")).unwrap();
    std::fs::remove_dir_all(folder.path().join("hosts")).unwrap();
    let testbed = create(config(folder.path(), "replaced")).unwrap();
    assert_eq!(testbed.hosts().unwrap(), []);
    testbed.destroy().unwrap();
    let after = Traces::of("replaced", folder.path());
    assert!(after.is_empty(), "{after:?}");
}

/// Another process that has made a testbed with one host.
fn start_creator(name: &str, dir: &std::path::Path, detach: bool) -> Option<Child> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "life::creator", "--ignored", "--nocapture"])
        .env("TESTBED_NAME", name)
        .env("TESTBED_DIR", dir)
        .env("TESTBED_DETACH", detach.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let answer = lines.find(|line| line.contains("created") || line.contains("skipped"));
    if answer.expect("an answer").contains("created") {
        return Some(child);
    }
    crate::skipped("the other process was, too");
    child.wait().unwrap();
    None
}

/// Not a test: the process that the others kill.
#[test]
#[ignore = "run by the tests that kill it"]
fn creator() {
    let Ok(dir) = std::env::var("TESTBED_DIR") else { return };
    let mut config = config(dir.as_ref(), &std::env::var("TESTBED_NAME").unwrap());
    config.detach = std::env::var("TESTBED_DETACH").as_deref() == Ok("true");
    let Some(testbed) = create(config) else { return };
    let host = testbed.add_host(HostSpec::new("one").unwrap()).unwrap();
    host.spawn(&Cmd::new("sleep").arg("1000")).unwrap();
    println!("\ncreated");
    // Until the end of the process that started this one.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}
