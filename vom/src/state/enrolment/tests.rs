use super::*;

fn question(id: &str, kind: QuestionKind, required: bool, choices: &[&str]) -> Question {
    let choices = choices.iter().map(|c| (*c).to_owned()).collect();
    Question { id: id.into(), text: "What?".into(), kind, required, choices }
}

fn answer(question: &str, value: &str) -> Answer {
    Answer { question: question.into(), value: value.into() }
}

/// If it failed, somebody would come in without what the VO must know of them, or fill its
/// home with what nobody asked.
#[test]
fn required_questions_are_answered_and_others_may_be() {
    let asked = [
        question("name", QuestionKind::Line, true, &[]),
        question("why", QuestionKind::Text, false, &[]),
        question("status", QuestionKind::Choice, false, &["staff", "student"]),
        question("adult", QuestionKind::Check, true, &[]),
    ];
    check_questions(&asked).unwrap();
    let ok = vec![answer("name", "Bob"), answer("adult", "yes"), answer("why", " ")];
    let got = answered(&asked, ok).unwrap();
    let values: Vec<&str> = got.iter().map(|a| a.value.as_str()).collect();
    assert_eq!(values, ["Bob", "yes"], "in the order of the questions, empty ones left out");
    let with = |q: &str, v: &str| {
        let mut all = vec![answer("name", "Bob"), answer("adult", "yes")];
        all.retain(|a| a.question != q);
        all.push(answer(q, v));
        answered(&asked, all).unwrap_err()
    };
    assert_eq!(with("name", ""), EnrolmentFault::Unanswered("name".into()));
    assert_eq!(with("adult", "no"), EnrolmentFault::Unanswered("adult".into()));
    assert!(matches!(with("adult", "on"), EnrolmentFault::NoAnswer(..)));
    assert!(matches!(with("status", "boss"), EnrolmentFault::NoAnswer(..)));
    assert!(matches!(with("name", "a\nb"), EnrolmentFault::Answer(..)));
    assert!(matches!(with("why", &"x".repeat(2001)), EnrolmentFault::Answer(..)));
    assert!(matches!(with("shoe", "44"), EnrolmentFault::NotAsked(_)));
    let twice = vec![answer("name", "a"), answer("name", "b"), answer("adult", "yes")];
    assert!(matches!(answered(&asked, twice).unwrap_err(), EnrolmentFault::NotAsked(_)));
}

/// If it failed, a question could stand on a form that nobody can answer.
#[test]
fn questions_that_cannot_be_answered_are_refused() {
    let line = QuestionKind::Line;
    let mut long = question("a", QuestionKind::Choice, true, &["x"; 21]);
    assert!(check_questions(&[long.clone()]).is_err());
    long.choices.truncate(20);
    assert!(check_questions(&[long]).is_ok());
    for bad in [
        question("", line, true, &[]),
        question("A", line, true, &[]),
        question("1a", line, true, &[]),
        question("a b", line, true, &[]),
        question(&"a".repeat(33), line, true, &[]),
        question("a", line, true, &["x"]),
        question("a", QuestionKind::Choice, true, &[]),
        question("a", QuestionKind::Choice, true, &["x\ny"]),
        Question { text: "\u{202e}".into(), ..question("a", line, true, &[]) },
    ] {
        assert!(check_questions(std::slice::from_ref(&bad)).is_err(), "{bad:?}");
    }
    let twice = [question("a", line, true, &[]), question("a", line, false, &[])];
    assert!(check_questions(&twice).is_err());
    let many =
        |n: usize| (0..n).map(|i| question(&format!("q{i}"), line, true, &[])).collect::<Vec<_>>();
    assert!(check_questions(&many(20)).is_ok() && check_questions(&many(21)).is_err());
}
