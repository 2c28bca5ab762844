use crate::support::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use xos_node::event::{Cursor, Event, Outcome};
use xos_node::proto::{StartAnswer, UnitState};
use xos_node::shim::Stream;
use xos_node::spec::{Rlimit, RlimitKind};

#[tokio::test]
async fn many_units_run_exactly_once() {
    // wrong: a unit is lost or runs twice; or silent units leave files
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |_| {}).await;
    let seen = node.home().join("seen");
    let script = format!("echo $0 >> {}", seen.display());
    let units = (0..100).map(|n| unit(n, &["sh", "-c", &script, &n.to_string()])).collect();
    let ended = run(&e, units).await;
    assert!(ended.values().all(|(o, _)| *o == exited(0)), "{ended:?}");
    let mut lines: Vec<u32> =
        std::fs::read_to_string(seen).unwrap().lines().map(|l| l.parse().unwrap()).collect();
    lines.sort_unstable();
    assert_eq!(lines, (0..100).collect::<Vec<_>>());
    let left: Vec<_> = std::fs::read_dir(e.spool()).unwrap().map(|f| f.unwrap()).collect();
    assert!(left.len() < 10, "no more than the next units need: {left:?}");
    assert!(left.iter().all(|f| f.metadata().unwrap().len() == 0), "{left:?}");
    // the numbers of units' events have no gap
    let mut all = Vec::new();
    let mut events = e.events(Cursor::default());
    while all.len() < 200 {
        let batch = patient(events.next()).await.unwrap().unwrap();
        all.extend(batch.into_iter().filter(|(e, _)| e.event.is_numbered()));
    }
    assert_eq!(all.iter().map(|(e, _)| e.seq).collect::<Vec<_>>(), (1..=200).collect::<Vec<_>>());
    // whoever stored a cursor goes on behind it
    let cursor = all[149].1;
    let (first, _) = patient(e.events(cursor).next()).await.unwrap().unwrap().remove(0);
    assert_eq!((cursor.seq, first.seq), (150, 151));
    node.finish(e).await;
}

#[tokio::test]
async fn ends_are_told_as_they_were() {
    // wrong: a job would look well when it failed, or the person would not learn why
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |_| {}).await;
    let ended = run(
        &e,
        vec![
            shell(0, "exit 42"),
            shell(1, "kill -SEGV $$"),
            shell(2, "echo out; echo err >&2"),
            unit(3, &["no-such-program"]),
            unit(4, &["/etc/passwd"]),
            {
                let mut u = shell(5, "pwd");
                u.cwd = Some("/root".into());
                u
            },
            {
                let mut u = shell(6, "pwd");
                u.cwd = Some("/usr/../etc".into());
                u
            },
            shell(7, "head -c 5000000 /dev/zero | wc -c; ulimit -c; umask"),
        ],
    )
    .await;
    let outcome = |n: u32| ended[&key(n)].0.clone();
    assert_eq!(outcome(0), exited(42));
    assert_eq!(outcome(1), Outcome::Signaled { signal: 11, cause: None });
    assert_eq!(outcome(2), exited(0));
    assert_eq!((output(&e, 2), text(&e, 2, Stream::Stderr)), ("out\n".into(), "err\n".into()));
    let usage = ended[&key(2)].1.unwrap();
    assert_eq!((usage.stdout_bytes, usage.stderr_bytes), (4, 4));
    assert!(usage.started <= usage.ended && usage.max_rss_bytes > 0, "{usage:?}");
    let reason = |n: u32| match outcome(n) {
        Outcome::StartFailed { reason, .. } => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(3).contains("\"no-such-program\": not found in PATH"), "{}", reason(3));
    assert!(reason(4).contains("Permission denied"), "{}", reason(4));
    assert!(reason(5).contains("/root") && reason(5).contains("ann.demo"), "{}", reason(5));
    assert_eq!(output(&e, 6), "/etc\n");
    assert_eq!(output(&e, 7), "5000000\n0\n0022\n");
    node.finish(e).await;
}

#[tokio::test]
async fn root_is_given_up_for_good() {
    // wrong: any member of any VO would own the node
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |_| {}).await;
    let secret = node.dir.path().join("secret");
    std::fs::write(&secret, "x").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    let other = node.dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::os::unix::fs::chown(&other, Some(UID + 1), Some(UID + 1)).unwrap();
    let tries = format!(
        "cat {} || touch {}/f || cat /proc/1/environ || ls {} || kill 1 || echo none",
        secret.display(),
        other.display(),
        node.dir.path().join("state").display()
    );
    let ended = run(
        &e,
        vec![
            shell(0, "id -u; id -g; id -G; grep -E '^(NoNewPrivs|Cap(Eff|Prm|Amb)|SigIgn|SigBlk):' /proc/self/status"),
            shell(1, &tries),
            shell(2, "ls /proc/self/fd | wc -l; cat /proc/self/oom_score_adj; cat /proc/keys | wc -l"),
            shell(3, "exec 3>/dev/stdout; echo x >/dev/stdout"),
        ],
    )
    .await;
    assert!(ended.values().all(|(o, _)| *o == exited(0)), "{ended:?}");
    let status = output(&e, 0);
    let mut lines = status.lines();
    assert_eq!(lines.next(), Some(&*UID.to_string()));
    assert_eq!(lines.next(), Some(&*UID.to_string()));
    assert_eq!(lines.next(), Some(&*format!("{UID} {GROUP}")));
    let zero = "0".repeat(16);
    for line in lines {
        let (name, value) = line.split_once(":\t").unwrap();
        assert_eq!(value, if name == "NoNewPrivs" { "1" } else { &zero }, "{line}");
    }
    assert_eq!(output(&e, 1), "none\n");
    // 0, 1, 2 and the one with which ls lists them
    assert!(output(&e, 2).starts_with("4\n300\n"), "{}", output(&e, 2));
    assert_eq!(output(&e, 3), "x\n");
    node.finish(e).await;
}

#[tokio::test]
async fn the_environment_is_exactly_what_was_given() {
    // wrong: secrets of the daemon's environment would reach users
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |_| {}).await;
    let mut u = unit(0, &["/usr/bin/env"]);
    u.env = vec![("A".into(), "1 2\n3".into()), ("B".into(), String::new())];
    let mut bare = unit(1, &["env"]);
    bare.env = vec![];
    let mut limited = shell(2, "ulimit -n; umask; cat");
    limited.rlimits = vec![Rlimit { kind: RlimitKind::OpenFiles, value: Some(77) }];
    limited.umask = Some(0o077);
    let input = node.home().join("in");
    std::fs::write(&input, "input").unwrap();
    limited.stdin = Some(input);
    run(&e, vec![u, bare, limited]).await;
    assert_eq!(output(&e, 0), "A=1 2\n3\nB=\n");
    assert_eq!(output(&e, 1), "");
    assert_eq!(output(&e, 2), "77\n0077\ninput");
    node.finish(e).await;
}

#[tokio::test]
async fn files_are_opened_as_the_person() {
    // wrong: `--stdout /etc/cron.d/x` would be written by root
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |_| {}).await;
    let target = node.dir.path().join("owned-by-root");
    let mut bad = shell(0, "echo pwned");
    bad.stdout = Some(target.clone());
    let mut good = shell(1, "echo a; echo b >&2");
    good.stdout = Some("both".into());
    good.stderr = Some("both".into());
    let mut unreadable = shell(2, "cat");
    unreadable.stdin = Some("/etc/shadow".into());
    let ended = run(&e, vec![bad, good, unreadable]).await;
    match &ended[&key(0)].0 {
        Outcome::StartFailed { reason, errno } => {
            assert_eq!(*errno, libc_eacces());
            assert!(
                reason.contains("standard output") && reason.contains("Permission"),
                "{reason}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(!target.exists());
    assert!(matches!(ended[&key(2)].0, Outcome::StartFailed { .. }));
    let both = node.home().join("both");
    assert_eq!(std::fs::read_to_string(&both).unwrap(), "a\nb\n");
    assert_eq!(std::fs::metadata(&both).unwrap().uid(), UID);
    node.finish(e).await;
}

fn libc_eacces() -> i32 {
    rustix::io::Errno::ACCESS.raw_os_error()
}

#[tokio::test]
async fn a_repeated_request_runs_nothing_again() {
    // wrong: a core that repeats what it got no answer to would run work twice
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |_| {}).await;
    let seen = node.home().join("seen");
    let once = shell(0, &format!("echo x >> {}; exit 5", seen.display()));
    run(&e, vec![once.clone()]).await;
    let again = e.start_units(vec![once.clone(), once]).await.unwrap();
    let known = StartAnswer::Known(UnitState::Ended(exited(5)));
    assert_eq!(again, [known.clone(), known]);
    run_marker(&e).await;
    assert_eq!(std::fs::read_to_string(seen).unwrap(), "x\n");
    node.finish(e).await;
}

/// Something after which whatever was wrongly started has ended too: one slot, in order.
async fn run_marker(e: &xos_node::envelopes::Envelope) {
    e.set_slots(1).await.unwrap();
    e.start_units(vec![unit(99, &["true"])]).await.unwrap();
    let mut events = e.events(Cursor::default());
    loop {
        for (entry, _) in patient(events.next()).await.unwrap().unwrap() {
            if matches!(&entry.event, Event::Ended { unit, .. } if *unit == key(99)) {
                return;
            }
        }
    }
}

#[tokio::test]
async fn envelopes_do_not_see_one_another() {
    // wrong: users would read other users' command lines, or signal between two jobs of one
    let Some(node) = Node::new() else { return };
    let a = node.start("1.rennes", |_| {}).await;
    let b = node.envelopes.start(node.spec("2.rennes")).await.unwrap();
    let mut events = a.events(Cursor::default());
    a.start_units(vec![unit(7, &["sleep", "7777"])]).await.unwrap();
    while !patient(events.next()).await.unwrap().unwrap().iter().any(|(e, _)| e.event.is_numbered())
    {
    }
    run(
        &b,
        vec![shell(
            0,
            "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; echo; echo $PPID; kill -0 -1 && echo others",
        )],
    )
    .await;
    let seen = output(&b, 0);
    assert!(!seen.contains("7777") && !seen.contains("cargo") && seen.contains("cat"), "{seen}");
    assert!(seen.contains("\n1\n"), "init is the parent: {seen}");
    b.end(std::time::Duration::ZERO).await.unwrap();
    let mut rest = b.events(Cursor::default());
    while patient(rest.next()).await.unwrap().is_some() {}
    node.envelopes.forget(&b.spec().id).await.unwrap();
    node.finish(a).await;
}

#[tokio::test]
async fn shared_memory_is_the_envelopes_and_ends_with_it() {
    // wrong: memory that a job leaves would stay on the node, beyond every limit; or the units of
    // one job could not share any
    let Some(node) = Node::new() else { return };
    let e = node.start("1.rennes", |_| {}).await;
    let name = format!("/dev/shm/xos-test-{}", std::process::id());
    let make = format!("ipcmk -M 4096 >/dev/null && echo shared > {name}");
    assert_eq!(run(&e, vec![shell(0, &make)]).await[&key(0)].0, exited(0));
    let mut events = e.events(Cursor::default());
    let look = format!("cat {name}; tail -n +2 /proc/sysvipc/shm | wc -l; stat -c %a /dev/shm");
    e.start_units(vec![shell(1, &look)]).await.unwrap();
    ends(&mut events, 2).await;
    assert_eq!(output(&e, 1), "shared\n1\n1777\n");
    let outside = || {
        let segments = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
        let ours = segments.lines().any(|l| l.split_whitespace().any(|w| w == UID.to_string()));
        ours || std::path::Path::new(&name).exists()
    };
    assert!(!outside(), "the envelope's memory is the node's");
    let other = node.start("2.rennes", |_| {}).await;
    run(&other, vec![shell(0, &look)]).await;
    assert_eq!(output(&other, 0), "0\n1777\n", "another job sees it");
    let mut events = other.events(Cursor::default());
    other.end(std::time::Duration::ZERO).await.unwrap();
    while patient(events.next()).await.unwrap().is_some() {}
    node.envelopes.forget(&other.spec().id).await.unwrap();
    node.finish(e).await;
    assert!(!outside());
}
