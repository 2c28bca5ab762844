//! The account phase.

use crate::machine::{ALICE, ALICE_UID, Ended, in_an_hour, on_a_machine, refused, words};
use crate::xosd::{Answer, Xosd, framed, no, yes};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::time::SystemTime;
use xos_base::accounts::{DEFAULT_PATH, write_atomic};
use xos_base::local::{LoginState, MayLogin};
use xos_base::{Error, Millis};

#[track_caller]
fn allowed(ended: &Ended) {
    assert!(ended.good && ended.out.contains("account management done"), "{ended:?}");
}

/// If it failed, members could not come in, or others could; or nobody would know why not.
#[test]
fn what_the_node_says_is_what_happens() {
    on_a_machine(|machine| {
        let text = |what: &str| format!("{what}; ask ann@demo.example");
        let cases = [
            (LoginState::Ended { text: text("ended") }, words::EXPIRED, "ended; ask ann"),
            (LoginState::Held { text: text("held") }, words::PERM_DENIED, "held; ask ann"),
            (LoginState::Denied { text: text("banned") }, words::PERM_DENIED, "banned; ask ann"),
            (LoginState::NotOurs {}, words::PERM_DENIED, "no membership belongs"),
        ];
        // Who was let in before gains nothing by it while the node answers.
        machine.write_seen(in_an_hour());
        for (state, pam, ours) in cases {
            let xosd = Xosd::start(&machine.socket(), move |_, _| yes(&state));
            refused(machine, &machine.account(), pam, ours);
            assert_eq!(xosd.asked().len(), 1);
        }
        let xosd = Xosd::start(&machine.socket(), |_, _| yes(LoginState::Allowed {}));
        let options = ["-Irhost=laptop.example", "-Itty=pts/7"];
        let ended = machine.pam(&options, ALICE, &["acct_mgmt"], "");
        allowed(&ended);
        let log = machine.logged();
        let ours = log.iter().any(|l| l.contains("pam_xos"));
        assert!(!ended.out.contains("xosd") && !ours, "{ended:?} {log:#?}");
        let (call, with) = xosd.asked().remove(0);
        let wanted = MayLogin {
            user: ALICE.into(),
            service: "xos-test".into(),
            rhost: Some("laptop.example".into()),
            tty: Some("pts/7".into()),
        };
        assert_eq!(call, "may-login");
        assert_eq!(serde_json::from_value::<MayLogin>(with).unwrap(), wanted);
    });
}

/// If it failed, a host that wants no messages (cron) would mail them, or the log would lack them.
#[test]
fn a_silent_host_shows_nothing_and_logs_all() {
    on_a_machine(|machine| {
        let held = || yes(LoginState::Held { text: "the VO is suspended".into() });
        let _xosd = Xosd::start(&machine.socket(), move |_, _| held());
        let ended = machine.pam(&[], ALICE, &["acct_mgmt(PAM_SILENT)"], "");
        assert!(!ended.good && ended.err.contains(words::PERM_DENIED), "{ended:?}");
        assert!(!ended.err.contains("suspended") && !ended.out.contains("suspended"), "{ended:?}");
        assert!(machine.logged().iter().any(|line| line.contains("the VO is suspended")));
    });
}

/// If it failed, a restart of the daemon would lock people out; or a stolen laptop, put off the
/// net, would let in for ever.
#[test]
fn without_the_daemon_only_a_good_record_lets_in() {
    on_a_machine(|machine| {
        refused(machine, &machine.account(), words::UNAVAIL, "does not run on this machine");
        machine.write_seen(in_an_hour());
        let ended = machine.account();
        allowed(&ended);
        assert!(ended.out.contains("it let you in before"), "{ended:?}");
        assert!(machine.logged().iter().any(|line| line.contains("it let you in before")));

        machine.write_seen(Millis::of(SystemTime::now()));
        refused(machine, &machine.account(), words::UNAVAIL, "counted until");
    });
}

/// If it failed, whoever can put a file somewhere could let themselves in while the daemon is down.
#[test]
fn a_forged_record_lets_nobody_in() {
    on_a_machine(|machine| {
        let forged = || refused(machine, &machine.account(), words::UNAVAIL, "is not believed");
        let good = || machine.write_seen(in_an_hour());
        good();
        allowed(&machine.account());
        chown(machine.seen(), Some(ALICE_UID), None).unwrap();
        forged();
        good();
        fs::set_permissions(machine.seen(), fs::Permissions::from_mode(0o666)).unwrap();
        forged();
        good();
        let elsewhere = machine.path("elsewhere");
        fs::rename(machine.seen(), &elsewhere).unwrap();
        symlink(&elsewhere, machine.seen()).unwrap();
        forged();
        good();
        fs::set_permissions(machine.path("seen"), fs::Permissions::from_mode(0o777)).unwrap();
        forged();
        fs::set_permissions(machine.path("seen"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(machine.seen(), "+99999999999999").unwrap();
        forged();
        good();
        allowed(&machine.account());
    });
}

/// If it failed, an `xosd` that hangs would hang every login of the machine.
#[test]
fn a_node_that_never_answers_counts_as_absent() {
    on_a_machine(|machine| {
        machine.service("timeout_ms=50", "", "");
        let _xosd = Xosd::start(&machine.socket(), |_, _| Answer::Silence);
        refused(machine, &machine.account(), words::UNAVAIL, "does not answer in time");
        machine.write_seen(in_an_hour());
        allowed(&machine.account());
    });
}

/// If it failed, nonsense from the socket would crash the host, or make an old record count.
#[test]
fn nonsense_lets_nobody_in() {
    on_a_machine(|machine| {
        machine.write_seen(in_an_hour());
        for bad in [
            Vec::new(),
            vec![0, 0],
            vec![0xff; 64],
            framed(""),
            framed("{}"),
            framed(r#"{"ok":{"state":"root"}}"#),
            framed(r#"{"ok":null}"#),
        ] {
            let _xosd = Xosd::start(&machine.socket(), move |_, _| Answer::Bytes(bad.clone()));
            refused(machine, &machine.account(), words::UNAVAIL, "answers nonsense");
        }
        for (error, pam) in [
            (Error::denied("only root may ask"), words::PERM_DENIED),
            (Error::unavailable("not ready"), words::UNAVAIL),
        ] {
            let ours = error.message.clone();
            let _xosd = Xosd::start(&machine.socket(), move |_, _| no(error.clone()));
            refused(machine, &machine.account(), pam, &ours);
        }
    });
}

/// If it failed, root and local people would be locked out by a node in trouble, or their names
/// would be sent around.
#[test]
fn nobody_is_asked_about_local_and_strange_names() {
    on_a_machine(|machine| {
        let xosd = Xosd::start(&machine.socket(), |_, _| Answer::Silence);
        allowed(&machine.pam(&[], "root", &["acct_mgmt"], ""));
        let (long, path) = ("a".repeat(256), format!("../{ALICE}"));
        // With a Cyrillic letter, and with a sign that no terminal shows.
        let (alike, unseen) = (ALICE.replacen('a', "\u{430}", 1), format!("{ALICE}\u{200b}"));
        let strange = [
            alike.as_str(),
            unseen.as_str(),
            "a\nb",
            "alice.demo\n",
            "alice:demo",
            "alice/demo",
            path.as_str(),
            long.as_str(),
            "%s%n",
            "",
        ];
        for name in strange {
            // Nobody has the name: pam_unix refuses it, and the module says nothing.
            let ended = machine.pam(&[], name, &["acct_mgmt"], "");
            assert!(!ended.good, "{name:?}: {ended:?}");
        }
        let calls = xosd.asked();
        assert!(calls.is_empty(), "{calls:?}");
    });
}

/// If it failed, a damaged account file would crash sshd, or lock root out.
#[test]
fn a_damaged_account_file_leaves_the_machine_usable() {
    on_a_machine(|machine| {
        let good = fs::read(DEFAULT_PATH).unwrap();
        let xosd = Xosd::start(&machine.socket(), |_, _| yes(LoginState::Allowed {}));
        for at in (0..good.len()).step_by(61) {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            write_atomic(DEFAULT_PATH.as_ref(), &bad).unwrap();
            assert!(!machine.account().good, "byte {at}");
        }
        for length in [0, 10, good.len() - 1] {
            write_atomic(DEFAULT_PATH.as_ref(), &good[..length]).unwrap();
            assert!(!machine.account().good, "length {length}");
            allowed(&machine.pam(&[], "root", &["acct_mgmt"], ""));
        }
        assert!(xosd.asked().is_empty());
        write_atomic(DEFAULT_PATH.as_ref(), &good).unwrap();
        allowed(&machine.account());
    });
}

/// If it failed, a slip in a line of `/etc/pam.d` would lock everybody out, or nobody would hear of
/// it.
#[test]
fn arguments_that_are_not_understood_are_told_to_the_log() {
    on_a_machine(|machine| {
        machine.service("debug use_first_pass timeout_ms=soon", "", "");
        let _xosd = Xosd::start(&machine.socket(), |_, _| yes(LoginState::Allowed {}));
        allowed(&machine.account());
        let log = machine.logged().join("\n");
        for word in ["\"use_first_pass\" is not understood", "\"timeout_ms=soon\"", "Success"] {
            assert!(log.contains(word), "{word}: {log}");
        }
    });
}
