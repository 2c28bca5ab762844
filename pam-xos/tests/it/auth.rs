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
    yes(AuthStep::Ask { attempt: "a7".into(), texts, prompt: prompt.into(), echo: false })
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
