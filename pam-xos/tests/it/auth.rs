//! The auth phase.

use crate::machine::{ALICE, Machine, in_an_hour, on_a_machine, refused, words};
use crate::xosd::{Answer, Xosd, yes};
use serde_json::Value;
use xos_base::local::AuthStep;

const PROVED: &str = "successfully authenticated";

fn wait(texts: &[&str]) -> Answer {
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    yes(AuthStep::Wait { attempt: "a7".into(), texts })
}

fn ask(texts: &[&str], prompt: &str) -> Answer {
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    let (attempt, prompt) = ("a7".into(), prompt.into());
    yes(AuthStep::Ask { attempt, texts, prompt, echo: false, password: false })
}

/// The question for a password, or for a code.
fn ask_for_password() -> Answer {
    let (attempt, prompt) = ("a7".into(), "Password, or Enter for a code: ".into());
    yes(AuthStep::Ask { attempt, texts: Vec::new(), prompt, echo: false, password: true })
}

/// An `xosd` that takes one password, and shows a code to who gives none.
fn takes_a_password(machine: &Machine) -> Xosd {
    Xosd::start(&machine.socket(), |call, with: &Value| {
        match (call, with["answer"].as_str(), with["reused"] == true) {
            ("auth-begin", ..) => ask_for_password(),
            ("auth-next", Some("correct horse"), _) => yes(AuthStep::Proved {}),
            ("auth-next", Some(""), _) => wait(&["type AB-CD"]),
            ("auth-next", None, _) => refuse("you said no"),
            ("auth-next", Some(_), true) => ask_for_password(),
            _ => refuse("wrong password"),
        }
    })
}

/// What was answered, and whether for another module.
fn answers(xosd: &Xosd) -> Vec<(String, bool)> {
    let asked = xosd.asked().into_iter().filter(|(call, _)| call == "auth-next");
    let answer = |with: &Value| with["answer"].as_str().unwrap_or("-").to_owned();
    asked.map(|(_, with)| (answer(&with), with["reused"] == true)).collect()
}

fn refuse(text: &str) -> Answer {
    yes(AuthStep::Refused { text: text.into() })
}

/// An `xosd` that asks for a word, and takes one only.
fn asks_for_a_word(machine: &Machine) -> Xosd {
    Xosd::start(&machine.socket(), |call, with: &Value| match (call, with["answer"].as_str()) {
        ("auth-begin", _) => ask(&[], "The word: "),
        ("auth-next", Some("s\u{e9}same")) => yes(AuthStep::Proved {}),
        _ => refuse("that is not the word"),
    })
}

/// If it failed, a person at a console could not come in, or one with a wrong password could.
#[test]
fn a_question_is_asked_and_its_answer_counts() {
    on_a_machine(|machine| {
        let xosd = asks_for_a_word(machine);
        let options = ["-Irhost=laptop.example"];
        let ended = machine.pam(&options, ALICE, &["authenticate"], "s\u{e9}same\n");
        assert!(ended.good && ended.out.contains(PROVED), "{ended:?}");
        assert!(ended.err.contains("The word: "), "{ended:?}");
        let asked = xosd.asked();
        let names: Vec<&str> = asked.iter().map(|(call, _)| call.as_str()).collect();
        assert_eq!(names, ["auth-begin", "auth-next"]);
        assert_eq!(asked[0].1["user"], ALICE);
        assert_eq!(asked[0].1["service"], "xos-test");
        assert_eq!(asked[0].1["rhost"], "laptop.example");
        assert_eq!(asked[0].1["uid"], nix::unistd::getuid().as_raw());
        assert_eq!(asked[1].1["attempt"], "a7");

        let ended = machine.pam(&[], ALICE, &["authenticate"], "guess\n");
        refused(machine, &ended, words::AUTH_ERR, "that is not the word");
        assert!(!ended.out.contains("guess") && !ended.err.contains("guess"), "{ended:?}");
    });
}

/// If it failed, the code for another device could not be read, scanned, or waited for.
#[test]
fn a_picture_is_shown_whole_and_the_other_device_is_waited_for() {
    on_a_machine(|machine| {
        let row = "\u{2588}\u{2580}".repeat(25);
        let picture = vec![row.as_str(); 27].join("\n");
        let shown = picture.clone();
        let mut steps = 0;
        let xosd = Xosd::start(&machine.socket(), move |_, _| {
            steps += 1;
            match steps {
                1 => wait(&["Open https://x.example/device and type AB-CD", &shown]),
                2 | 3 => wait(&[]),
                4 => wait(&["confirmed\u{1b}[0m"]),
                _ => yes(AuthStep::Proved {}),
            }
        });
        // A host that wants no messages gets these all the same: they are the question.
        let ended = machine.pam(&[], ALICE, &["authenticate(PAM_SILENT)"], "");
        assert!(ended.good && ended.out.contains(PROVED), "{ended:?}");
        let wanted = format!("Open https://x.example/device and type AB-CD\n{picture}\n");
        assert!(ended.out.contains(&wanted), "{}", ended.out);
        assert!(ended.out.contains("confirmed\u{fffd}[0m\n"), "{}", ended.out);
        assert_eq!(xosd.asked().len(), 5);
    });
}

/// If it failed, an account without another way in would be let in by a local password, or one that
/// other modules know would be kept out.
#[test]
fn other_modules_decide_when_the_node_steps_aside() {
    on_a_machine(|machine| {
        let xosd = Xosd::start(&machine.socket(), |_, _| yes(AuthStep::NotOurs {}));
        let ended = machine.pam(&[], ALICE, &["authenticate"], "guess\n");
        assert!(!ended.good && ended.err.contains(words::AUTH_ERR), "{ended:?}");
        assert!(ended.err.contains("Password: "), "pam_unix was not reached: {ended:?}");
        assert_eq!(xosd.asked().len(), 1);
    });
}

/// If it failed, a record of an earlier login would be a password.
#[test]
fn without_the_daemon_nobody_is_proved() {
    on_a_machine(|machine| {
        machine.write_seen(in_an_hour());
        let ended = machine.pam(&[], ALICE, &["authenticate"], "guess\n");
        refused(machine, &ended, words::UNAVAIL, "does not run on this machine");
    });
}

/// If it failed, a host that gives no answer would hang, or an empty answer would be sent for it.
#[test]
fn who_does_not_answer_is_not_proved() {
    on_a_machine(|machine| {
        let xosd = asks_for_a_word(machine);
        let ended = machine.pam(&[], ALICE, &["authenticate"], "");
        assert!(!ended.good && ended.err.contains("you could not be asked"), "{ended:?}");
        assert_eq!(xosd.asked().len(), 1);
    });
}

/// If it failed, a node gone wrong would hold a login for ever.
#[test]
fn a_proof_that_never_ends_is_ended() {
    on_a_machine(|machine| {
        let xosd = Xosd::start(&machine.socket(), |_, _| wait(&[]));
        let ended = machine.pam(&[], ALICE, &["authenticate"], "");
        refused(machine, &ended, words::AUTH_ERR, "the proof took longer than");
        assert!(xosd.asked().len() > 100);
    });
}

/// If it failed, a person could not come in by a password or by a code as they choose, or their
/// password would stand on the screen or in the log.
#[test]
fn a_password_or_a_code_as_the_person_likes() {
    on_a_machine(|machine| {
        machine.service("debug", "", "");
        let xosd = takes_a_password(machine);
        let ended = machine.pam(&[], ALICE, &["authenticate"], "correct horse\n");
        assert!(ended.good && ended.out.contains(PROVED), "{ended:?}");
        assert!(ended.err.contains("Password, or Enter for a code: "), "{ended:?}");
        assert_eq!(answers(&xosd), [("correct horse".to_owned(), false)]);
        let ended = machine.pam(&[], ALICE, &["authenticate"], "battery staple\n");
        assert!(!ended.good && ended.err.contains(words::AUTH_ERR), "{ended:?}");
        let log = machine.logged().join("\n");
        assert!(ended.err.contains("wrong password") && log.contains("wrong password"), "{log}");
        let shown = format!("{ended:?}{log}");
        assert!(!shown.contains("horse") && !shown.contains("staple"), "{shown}");
        xosd.asked();
        let ended = machine.pam(&[], ALICE, &["authenticate"], "\n");
        refused(machine, &ended, words::AUTH_ERR, "you said no");
        assert!(ended.out.contains("type AB-CD"), "{ended:?}");
        assert_eq!(answers(&xosd), [(String::new(), false), ("-".to_owned(), false)]);
    });
}

/// If it failed, a person would be asked twice for one password, a wrong one of another module
/// would keep them out, or one would be tried without end.
#[test]
fn a_password_of_an_earlier_module_is_tried_once() {
    on_a_machine(|machine| {
        machine.service("", "auth optional pam_unix.so nodelay", "");
        let xosd = takes_a_password(machine);
        let ended = machine.pam(&[], ALICE, &["authenticate"], "correct horse\n");
        assert!(ended.good && ended.out.contains(PROVED), "{ended:?}");
        assert!(ended.err.contains("Password: ") && !ended.err.contains("or Enter"), "{ended:?}");
        assert_eq!(answers(&xosd), [("correct horse".to_owned(), true)]);
        let typed = "local one\ncorrect horse\n";
        let ended = machine.pam(&[], ALICE, &["authenticate"], typed);
        assert!(ended.good && ended.err.contains("or Enter for a code"), "{ended:?}");
        let wanted = [("local one".to_owned(), true), ("correct horse".to_owned(), false)];
        assert_eq!(answers(&xosd), wanted);
    });
}

/// If it failed, keyrings after this module would ask for the password once more.
#[test]
fn a_password_that_was_right_is_left_to_later_modules() {
    on_a_machine(|machine| {
        let module = machine.path("pam_xos.so");
        let (module, socket) = (module.display(), machine.socket());
        machine.service("", &format!("auth optional {module} socket={}", socket.display()), "");
        let xosd = takes_a_password(machine);
        let ended = machine.pam(&[], ALICE, &["authenticate"], "correct horse\n");
        assert!(ended.good && ended.out.contains(PROVED), "{ended:?}");
        let wanted = [false, true].map(|reused| ("correct horse".to_owned(), reused));
        assert_eq!(answers(&xosd), wanted);
    });
}

/// If it failed, who uses sudo, which wants no messages, would not know why they were refused; or
/// programs that ask nobody anything would be sent messages that they do not want.
#[test]
fn who_was_asked_hears_the_end_of_it_from_a_silent_host_too() {
    on_a_machine(|machine| {
        let silent = ["authenticate(PAM_SILENT)"];
        {
            let _xosd = asks_for_a_word(machine);
            let ended = machine.pam(&[], ALICE, &silent, "guess\n");
            refused(machine, &ended, words::AUTH_ERR, "that is not the word");
        }
        let _xosd = Xosd::start(&machine.socket(), |_, _| refuse("the VO is suspended"));
        let ended = machine.pam(&[], ALICE, &silent, "");
        assert!(!ended.good && !ended.err.contains("suspended"), "{ended:?}");
        assert!(machine.logged().join("\n").contains("the VO is suspended"));
    });
}
