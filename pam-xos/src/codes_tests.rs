use super::*;
use std::io;
use xos_base::Error;

const UNTIL: Millis = Millis(1_800_000_000_000);

fn failures() -> Vec<LocalError> {
    let of = |kind| LocalError::Refused(Error::new(kind, "it says no").hint("ask ann"));
    vec![
        LocalError::Absent,
        LocalError::Late,
        LocalError::Full,
        LocalError::NotRoots,
        LocalError::Nonsense,
        LocalError::Io(io::Error::from_raw_os_error(libc::EPIPE)),
        of(Kind::Denied),
        of(Kind::Limited),
        of(Kind::Unavailable),
        of(Kind::Internal),
    ]
}

fn row(what: &str, verdict: &Verdict) -> String {
    let text = verdict.text.as_deref().unwrap_or("-");
    format!("{what} -> {} {:?}: {text}\n", verdict.code.number(), verdict.code)
}

/// Every answer to the account phase and the session's begin, seen before and not.
fn table() -> String {
    let mut table = String::new();
    let text = || "ask ann".to_owned();
    for state in [
        LoginState::NotOurs {},
        LoginState::Allowed {},
        LoginState::Ended { text: text() },
        LoginState::Held { text: text() },
        LoginState::Denied { text: text() },
    ] {
        let what = format!("account {state:?}");
        // An answer counts alone: what was seen before is not even looked at.
        let verdict = account(&Ok(state), || panic!("{what}: looked at what was seen before"));
        table += &row(&what, &verdict);
    }
    for (at, failure) in failures().iter().enumerate() {
        let what = match failure {
            LocalError::Refused(e) => format!("Refused {:?}", e.kind),
            LocalError::Io(_) => "Io".to_owned(),
            other => format!("{other:?}"),
        };
        for (seen, before) in [(true, ", seen"), (false, "")] {
            let look = || if seen { Ok(UNTIL) } else { Err(NotSeen::Never) };
            let may = account(&Err(failures().remove(at)), look);
            table += &row(&format!("account {what}{before}"), &may);
            let begun = session(&Err(failures().remove(at)), look);
            table += &row(&format!("session {what}{before}"), &begun);
        }
    }
    table
}

/// If it failed, somebody would be let in whom the node refused, or kept out without a reason.
#[test]
fn each_answer_has_one_code_and_text() {
    let wanted = include_str!("codes_golden.txt");
    let table = table();
    assert_eq!(table, wanted, "what PAM is told has changed:\n{table}");
}

/// If it failed, whoever makes the node answer nonsense, or keeps it from being asked, would be let
/// in by an old record.
#[test]
fn only_silence_makes_an_old_record_count() {
    for failure in failures() {
        let silent = matches!(failure, LocalError::Absent | LocalError::Late);
        let verdict = account(&Err(failure), || Ok(UNTIL));
        assert_eq!(verdict.code == Code::Success, silent, "{verdict:?}");
    }
}

/// If it failed, a password would be asked that nobody needs, or a proof would never end.
#[test]
fn a_proof_goes_on_or_ends() {
    let attempt = || "7".to_owned();
    let ask = AuthStep::Ask {
        attempt: attempt(),
        texts: vec!["t".into()],
        prompt: "Password:".into(),
        echo: false,
        password: true,
    };
    let step = auth(Ok(ask)).unwrap();
    let question = Question { prompt: "Password:".into(), echo: false, password: true };
    assert_eq!(
        step,
        Step { attempt: attempt(), texts: vec!["t".into()], question: Some(question) }
    );
    let wait = auth(Ok(AuthStep::Wait { attempt: attempt(), texts: vec![] })).unwrap();
    assert_eq!(wait, Step { attempt: attempt(), texts: vec![], question: None });

    let end = |answer| auth(answer).unwrap_err();
    assert_eq!(end(Ok(AuthStep::Proved {})), Verdict::plain(Code::Success));
    assert_eq!(end(Ok(AuthStep::NotOurs {})), Verdict::plain(Code::Ignore));
    let refused = AuthStep::Refused { text: "the code was not used in time".into() };
    let told = Verdict::told(Code::AuthErr, "the code was not used in time");
    assert_eq!(end(Ok(refused)), told);
    let codes: Vec<i32> = failures().into_iter().map(|e| end(Err(e)).code.number()).collect();
    assert_eq!(codes, [9, 9, 9, 9, 9, 9, 7, 7, 9, 9]);
}

/// If it failed, somebody could not leave while the node is away.
#[test]
fn a_session_ends_whatever_the_node_says() {
    assert_eq!(close(&Ok(())), Verdict::plain(Code::Success));
    for failure in failures() {
        let verdict = close(&Err(failure));
        assert_eq!(verdict.code, Code::Success);
        assert!(verdict.text.is_some_and(|text| text.contains("could not be told")));
    }
}
