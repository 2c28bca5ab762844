use super::*;
use std::fmt::Write;
use xos_api::vom::{Change, Entry};

/// Shows a right that somebody gained or lost without meaning to.
#[tokio::test]
async fn golden_matrix() {
    let policy = Policy::built_in().await.unwrap();
    let mut text = format!("{:18}", "");
    for role in Role::ALL {
        write!(text, " {}", role.as_str()).unwrap();
    }
    for action in Action::ALL {
        write!(text, "\n{:18}", action.as_str()).unwrap();
        for role in Role::ALL {
            let mark = if policy.allows(*role, *action) { "yes" } else { "-" };
            write!(text, " {mark:<0$}", role.as_str().len()).unwrap();
        }
        text.truncate(text.trim_end().len());
    }
    text.push('\n');
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/matrix.txt");
    if std::env::var_os("XOS_BLESS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(text, golden, "rights changed; if meant so: XOS_BLESS=1 cargo nextest run");
}

/// If it failed, people would read names of rules and be told to become what they cannot.
#[tokio::test]
async fn refusals_are_told_in_plain_words() {
    for words in Action::ALL.iter().map(|a| a.plain()).chain(Role::ALL.iter().map(|r| r.plain())) {
        let plain = |c: char| c.is_ascii_lowercase() || matches!(c, ' ' | ',' | '\'' | 'V' | 'O');
        assert!(!words.is_empty() && words.chars().all(plain), "{words:?}");
    }
    let policy = Policy::built_in().await.unwrap();
    let owner: PersonId = "alice@rennes".parse().unwrap();
    let (title, description) = ("Demo".to_owned(), String::new());
    let vo = Vo::found(&Entry {
        vo: "demo.rennes".parse().unwrap(),
        number: 1,
        prev: String::new(),
        time: Millis(0),
        actor: Actor::Person(owner.clone()),
        change: Change::Founded { owner, title, description },
    })
    .unwrap();
    let carried = Carried::All;
    let bob = Subject::Person { person: "bob@rennes".parse().unwrap(), site_admin: false, carried };
    let told = |who: &Subject, action| {
        policy.authorise(&vo, who, action, Millis(0)).unwrap_err().to_string()
    };
    assert_eq!(
        told(&bob, Action::SeeApplications),
        "bob@rennes may not look at applications in demo.rennes; \
         that takes an administrator of the VO or an owner of the VO"
    );
    assert!(told(&bob, Action::ReadLog).ends_with("; only the cores of sites may"));
    let pisa = Subject::Core("pisa".parse().unwrap());
    assert!(told(&pisa, Action::Leave).ends_with("; only persons may"));
}
