//! The session phase, and the password.

use crate::machine::{ALICE, ALICE_UID, Ended, Machine, in_an_hour, on_a_machine, refused, words};
use crate::xosd::{Answer, Xosd, no, yes};
use std::fs;
use xos_base::Error;
use xos_base::local::{CloseLogin, OpenLogin, Opened};

const BOTH: [&str; 2] = ["open_session", "close_session"];

fn opened() -> Opened {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Opened {
        session: "login-7".into(),
        environment: vec![pair("XOS_VO", "demo.rennes"), pair("", "x"), pair("XOS_A", "b=c d")],
        keyring: r#"{"person":"alice","vo":"demo.rennes"}"#.into(),
        notes: vec!["your membership ends tomorrow".into(), "a\u{1b}[2Jb".into()],
    }
}

/// An `xosd` that opens and closes sessions.
fn xosd(machine: &Machine) -> Xosd {
    Xosd::start(&machine.socket(), |call, _| match call {
        "open-login" => yes(opened()),
        _ => yes(()),
    })
}

/// A line that shows what a program of the session sees, in a file of this name.
fn shows(machine: &Machine, name: &str, program: &str) -> String {
    let file = machine.path(name);
    format!("session required pam_exec.so quiet log={} {program}", file.display())
}

/// What such a line showed while the session was opened.
fn shown(machine: &Machine, name: &str) -> String {
    let text = fs::read_to_string(machine.path(name)).unwrap();
    // Each run begins with a line of three stars and the time.
    text.split("*** ").nth(1).expect("pam_exec showed nothing").to_owned()
}

#[track_caller]
fn open_and_closed(ended: &Ended) {
    let both = ended.out.contains("successfully opened a session")
        && ended.out.contains("session has successfully been closed");
    assert!(ended.good && both, "{ended:?}");
}

/// If it failed, a login would run outside its control group, without its variables, or would never
/// be seen to end.
#[test]
fn a_session_is_opened_furnished_and_closed() {
    on_a_machine(|machine| {
        machine.service("", "", &shows(machine, "env", "/usr/bin/env"));
        let xosd = xosd(machine);
        let certificate = "publickey ssh-ed25519-cert-v01@openssh.com AAAA";
        let info = format!("-ESSH_AUTH_INFO_0={certificate}");
        let options = [info.as_str(), "-Irhost=laptop.example", "-Itty=pts/7"];
        let ended = machine.pam(&options, ALICE, &BOTH, "");
        open_and_closed(&ended);
        assert!(ended.out.contains("your membership ends tomorrow\n"), "{ended:?}");
        assert!(ended.out.contains("a\u{fffd}[2Jb\n"), "{ended:?}");
        let env = shown(machine, "env");
        assert!(env.contains("\nXOS_VO=demo.rennes\n") && env.contains("\nXOS_A=b=c d\n"), "{env}");
        let log = machine.logged().join("\n");
        assert!(log.contains("variable \"\" is not set"), "{log}");

        let mut calls = xosd.asked();
        assert_eq!(calls.len(), 2, "{calls:?}");
        let (call, with) = calls.remove(1);
        let close = serde_json::from_value::<CloseLogin>(with).unwrap();
        assert_eq!((call.as_str(), close.session.as_str()), ("close-login", "login-7"));
        let (call, with) = calls.remove(0);
        let wanted = OpenLogin {
            user: ALICE.into(),
            service: "xos-test".into(),
            rhost: Some("laptop.example".into()),
            tty: Some("pts/7".into()),
            pid: ended.pid,
            ssh_auth_info: Some(certificate.into()),
        };
        assert_eq!(call, "open-login");
        assert_eq!(serde_json::from_value::<OpenLogin>(with).unwrap(), wanted);
    });
}

/// The columns of the keys that `/proc/keys` shows under a name: serial number, owner.
fn keys(shown: &str, name: &str) -> Vec<(String, String)> {
    let columns = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let named = columns.filter(|c| c.get(8).is_some_and(|n| n.trim_end_matches(':') == name));
    named.map(|c| (c[0].to_owned(), c[5].to_owned())).collect()
}

/// If it failed, a program of the session would not find whose membership it runs under, or the
/// keyring of whoever called `su` would be written to.
#[test]
fn the_session_has_its_membership_in_a_keyring_of_its_own() {
    on_a_machine(|machine| {
        let (before, after) = ("keys-before", "keys-after");
        let cat = "/bin/cat /proc/keys";
        for (keyinit, same) in [("", false), ("session required pam_keyinit.so force\n", true)] {
            for name in [before, after] {
                let _ = fs::remove_file(machine.path(name));
            }
            let first = format!("{keyinit}{}", shows(machine, before, cat));
            machine.service("", &first, &shows(machine, after, cat));
            let _xosd = xosd(machine);
            open_and_closed(&machine.pam(&[], ALICE, &BOTH, ""));
            let log = machine.logged();
            if let Some(why) = log.iter().find(|line| line.contains("no keyring entry")) {
                println!("skipped: this kernel gives no keyring: {why}");
                return;
            }
            let (before, after) = (shown(machine, before), shown(machine, after));
            let uid = ALICE_UID.to_string();
            let entries = keys(&after, "xos:membership");
            assert!(matches!(&entries[..], [(_, owner)] if *owner == uid), "{after}");
            let ours = |shown: &str| {
                let all = keys(shown, "_ses").into_iter();
                all.filter(|(_, owner)| *owner == uid).map(|(serial, _)| serial).collect::<Vec<_>>()
            };
            assert_eq!(ours(&after).len(), 1, "{after}");
            assert_eq!(ours(&before) == ours(&after), same, "{before}\n{after}");
            let here = fs::read_to_string("/proc/keys").unwrap();
            assert!(keys(&here, "xos:membership").is_empty(), "it came into the caller's: {here}");
        }
    });
}

/// If it failed, a refused session would begin all the same.
#[test]
fn a_refused_session_does_not_begin() {
    on_a_machine(|machine| {
        let why = "this certificate is not this account's";
        let open = move || no(Error::denied(why).hint("xos login"));
        let xosd = Xosd::start(&machine.socket(), move |_, _| open());
        // Seen before is no way around it.
        machine.write_seen(in_an_hour());
        let ended = machine.pam(&[], ALICE, &["open_session"], "");
        refused(machine, &ended, words::SESSION_ERR, "not this account's; xos login");
        assert_eq!(xosd.asked().len(), 1);
        let long = format!("-ESSH_AUTH_INFO_0={}", "A".repeat(125_000));
        let ended = machine.pam(&[long.as_str()], ALICE, &["open_session"], "");
        refused(machine, &ended, words::SESSION_ERR, "your SSH certificate is longer than");
        assert!(xosd.asked().is_empty());
    });
}

/// If it failed, whoever got at a home once could put a key into it, and come in as its person for
/// as long as the membership lasts, whatever is done about it.
#[test]
fn only_a_certificate_or_what_pam_asked_opens_a_session_of_sshd() {
    on_a_machine(|machine| {
        let certificate = "publickey ssh-ed25519-cert-v01@openssh.com AAAA\n";
        let by = |info: &str, what: &[&str]| {
            let info = format!("-ESSH_AUTH_INFO_0={info}");
            machine.pam(&[info.as_str()], ALICE, what, "")
        };
        let refuse = || {
            for (info, why) in [
                ("publickey ssh-ed25519 AAAA\n".to_owned(), "authorized_keys do not count"),
                (format!("{certificate}publickey ssh-rsa AAAA\n"), "authorized_keys do not count"),
                ("gssapi-with-mic ann@EXAMPLE.ORG\n".to_owned(), "by a way that does not count"),
            ] {
                refused(machine, &by(&info, &["open_session"]), words::SESSION_ERR, why);
            }
        };
        // Not without the daemon, though it let her in before; nor with it.
        machine.write_seen(in_an_hour());
        refuse();
        let xosd = xosd(machine);
        refuse();
        assert!(xosd.asked().is_empty());
        for info in [certificate, "keyboard-interactive/pam\n", "password\n"] {
            open_and_closed(&by(info, &BOTH));
        }
    });
}

/// If it failed, people could not work while the daemon is restarted, or would not know that the
/// volume is not theirs.
#[test]
fn without_the_daemon_a_session_begins_only_by_a_good_record() {
    on_a_machine(|machine| {
        let ended = machine.pam(&[], ALICE, &["open_session"], "");
        refused(machine, &ended, words::SESSION_ERR, "does not run on this machine");
        machine.write_seen(in_an_hour());
        let ended = machine.pam(&[], ALICE, &["acct_mgmt", BOTH[0], BOTH[1]], "");
        open_and_closed(&ended);
        assert!(ended.out.contains("the VO's volume is not yours in this session"), "{ended:?}");
    });
}

/// If it failed, somebody could not leave when the daemon is gone, or nobody would know.
#[test]
fn a_session_ends_whatever_the_node_says() {
    on_a_machine(|machine| {
        let _xosd = Xosd::start(&machine.socket(), |call, _| match call {
            "open-login" => yes(opened()),
            _ => Answer::Bytes(b"nonsense".to_vec()),
        });
        open_and_closed(&machine.pam(&[], ALICE, &BOTH, ""));
        let log = machine.logged().join("\n");
        assert!(log.contains("the end of the session could not be told"), "{log}");
    });
}

/// If it failed, root's and local people's sessions would wait for the node.
#[test]
fn local_sessions_are_not_told() {
    on_a_machine(|machine| {
        let xosd = Xosd::start(&machine.socket(), |_, _| Answer::Silence);
        open_and_closed(&machine.pam(&[], "root", &BOTH, ""));
        assert!(xosd.asked().is_empty());
    });
}

/// If it failed, `passwd` would look as if it had changed something, or say nothing.
#[test]
fn a_password_is_not_changed_here() {
    on_a_machine(|machine| {
        let ended = machine.pam(&[], ALICE, &["chauthtok"], "");
        refused(machine, &ended, words::PERM_DENIED, "xos person passwd");
    });
}
