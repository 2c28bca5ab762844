//! docs/api.md: its examples against a real core, as they stand.

use crate::world::{Core, PASSWORD};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

const PAGE: &str = include_str!("../../../docs/api.md");
/// The address in the page.
const ADDRESS: &str = "core.rennes.example:7443";
/// What the examples need beside a shell.
const NEEDS: [&str; 3] = ["/usr/bin/curl", "/usr/bin/jq", "/usr/bin/openssl"];
/// So many examples are in it at least; fewer mean that they are not found.
const LEAST: usize = 15;

/// An example, and what it prints, where the page shows that.
struct Example {
    shell: String,
    shown: Option<Value>,
}

fn examples() -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    for block in PAGE.split("\n```").skip(1).step_by(2) {
        if let Some(shell) = block.strip_prefix("sh\n") {
            found.push(Example { shell: shell.to_owned(), shown: None });
        } else if let Some(json) = block.strip_prefix("json\n") {
            let shown = serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json}"));
            let last = found.last_mut().expect("JSON before any example");
            assert!(last.shown.replace(shown).is_none(), "two answers to one example: {json}");
        } else {
            panic!("neither shell nor JSON: {block}");
        }
    }
    found
}

/// Whether an answer has all that the page shows. Of numbers only that they are numbers; a text
/// with an ellipsis stands for any.
fn has(answer: &Value, shown: &Value) -> bool {
    match (answer, shown) {
        (Value::Object(answer), Value::Object(shown)) => {
            shown.iter().all(|(name, s)| answer.get(name).is_some_and(|a| has(a, s)))
        }
        (Value::Array(answer), Value::Array(shown)) => {
            answer.len() == shown.len() && answer.iter().zip(shown).all(|(a, s)| has(a, s))
        }
        (Value::String(_), Value::String(s)) if s.contains('…') => true,
        (Value::Number(_), Value::Number(_)) => true,
        (answer, shown) => answer == shown,
    }
}

/// If it failed, whoever follows the page would be refused, or told something else.
#[test]
fn the_examples_of_the_api_work_as_they_stand() {
    if let Some(missing) = NEEDS.iter().find(|program| !Path::new(program).exists()) {
        println!("skipped: {missing} is not installed");
        return;
    }
    let core = Core::start();
    core.signed_in("ada").add_person("alice");
    let dir = tempfile::tempdir().unwrap();
    let examples = examples();
    assert!(examples.len() >= LEAST, "only {} examples are found", examples.len());
    let mut script = "set -euo pipefail\n".to_owned();
    for (i, example) in examples.iter().enumerate() {
        let shell = example.shell.replace(ADDRESS, &core.address);
        writeln!(script, "exec >out.{i}\n{shell}").unwrap();
    }
    let out = Command::new("bash")
        .args(["-c", &script])
        .current_dir(dir.path())
        .env("PASSWORD", PASSWORD)
        .env("HOME", dir.path())
        .output()
        .unwrap();
    let printed = |i: usize| std::fs::read_to_string(dir.path().join(format!("out.{i}")));
    let reached = (0..examples.len()).take_while(|i| printed(*i).is_ok()).count();
    let last = &examples[reached.saturating_sub(1)].shell;
    let said = String::from_utf8_lossy(&out.stderr);
    let told = printed(reached.saturating_sub(1)).unwrap_or_default();
    assert!(out.status.success(), "{last}\nprinted {told}\nand said {said}");
    for (i, example) in examples.iter().enumerate() {
        let Some(shown) = &example.shown else { continue };
        let text = printed(i).unwrap();
        // A stream has more items; the page shows the first.
        let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        let answer = values.next().and_then(Result::ok).unwrap_or_default();
        assert!(has(&answer, shown), "{}\nprinted {text}\nthe page shows {shown}", example.shell);
    }
}

/// If it failed, any member could take the list of all others with them, or read it of a VO that
/// is not theirs.
#[test]
fn scim_is_for_those_who_administer_the_vo() {
    if let Some(missing) = NEEDS.iter().find(|program| !Path::new(program).exists()) {
        println!("skipped: {missing} is not installed");
        return;
    }
    let core = Core::start();
    let ada = core.signed_in("ada");
    ada.add_person("alice");
    ada.well(&["vo", "found", "demo", "--title", "Demonstration"]);
    let alice = core.signed_in("alice");
    alice.well(&["vo", "apply", "demo.rennes"]);
    ada.well(&["vo", "approve", "demo.rennes", "alice@rennes"]);
    alice.well(&["vo", "found", "other", "--title", "Another"]);
    let script = r#"
        set -euo pipefail
        ask() { curl -sSk "$@"; }
        token_of() {
            jq -n --arg user "$1" --arg password "$PASSWORD" '{$user, $password}' |
                ask --json @- $core/v1/sign-in | jq -r .token.token
        }
        in_vo() {
            ask --json "$2" -H "Authorization: Bearer $1" $core/v1/token | jq -r .token
        }
        status() {
            ask -o /dev/null -w '%{http_code}\n' -H "Authorization: Bearer $1" \
                "$core/scim/v2/demo.rennes/$2"
        }
        ada=$(token_of ada)
        alice=$(token_of alice)
        owner=$(in_vo $ada '{"vo": "demo.rennes"}')
        narrow=$(in_vo $ada '{"vo": "demo.rennes", "groups": [], "roles": []}')
        member=$(in_vo $alice '{"vo": "demo.rennes"}')
        elsewhere=$(in_vo $alice '{"vo": "other.rennes"}')
        for token in $ada $owner $narrow $member $elsewhere $alice; do status $token Users; done
        for what in Groups Groups/1 Users/alice@rennes Schemas ResourceTypes/User \
            ServiceProviderConfig Users?count=0 Users/nobody@rennes Groups/99 Nothing \
            'Users?filter=nickName%20eq%20%22a%22' Users?startIndex=x; do
            status $owner "$what"
        done
        users=$core/scim/v2/demo.rennes/Users
        ask -H "Authorization: Bearer $owner" "$users?startIndex=2&count=1" |
            jq -r '.totalResults, .startIndex, .itemsPerPage, .Resources[0].userName'
    "#;
    let out = Command::new("bash")
        .args(["-c", script])
        .env("PASSWORD", PASSWORD)
        .env("core", format!("https://{}", core.address))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    let printed = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    let (who, rest) = lines.split_at(6);
    assert_eq!(who, ["200", "200", "403", "403", "403", "403"], "{said}");
    let (what, page) = rest.split_at(12);
    let found =
        ["200", "200", "200", "200", "200", "200", "200", "404", "404", "404", "400", "400"];
    assert_eq!(what, found, "{said}");
    assert_eq!(page, ["2", "2", "1", "alice@rennes"], "{said}");
}
