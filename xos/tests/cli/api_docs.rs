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
