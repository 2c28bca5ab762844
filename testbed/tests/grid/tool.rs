//! What the `xos` tool says, and what stands in its JSON.

use xos_testbed::{Cmd, Exit, Host};

/// An answer of the tool.
pub type Json = serde_json::Value;

/// How a command ended, and what it printed.
#[derive(Debug)]
pub struct Said {
    pub line: String,
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Runs `cmd`, shown as `line`.
    #[track_caller]
    pub fn of(host: &Host, cmd: &Cmd, line: &str) -> Said {
        let out = host.run(cmd).unwrap_or_else(|e| panic!("{line}: {e}"));
        let code = match out.exit {
            Exit::Code(code) => code,
            Exit::Signal(number) => panic!("{line}: ended by signal {number}"),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { line: line.to_owned(), code, out: text(&out.stdout), err: text(&out.stderr) }
    }

    /// What it printed; it ended with status 0.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "`{}` failed: {}{}", self.line, self.out, self.err);
        self.out
    }

    /// The same as JSON.
    #[track_caller]
    pub fn json(self) -> Json {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("no JSON: {e}: {text}"))
    }

    /// It ended with this status and said each of `words` on standard error; case is not looked
    /// at.
    #[track_caller]
    pub fn refused(self, code: i32, words: &[&str]) -> String {
        assert_eq!(self.code, code, "`{}` said: {}{}", self.line, self.out, self.err);
        let said = self.err.to_lowercase();
        for word in words {
            let there = said.contains(&word.to_lowercase());
            assert!(there, "`{}` does not say {word:?}: {}", self.line, self.err);
        }
        self.err
    }
}

/// Says that a test is skipped, and why; with `XOS_NO_SKIP=1` that is a failure.
#[track_caller]
pub fn skipped(why: &str) {
    assert!(std::env::var_os("XOS_NO_SKIP").is_none_or(|v| v != "1"), "not to be skipped: {why}");
    println!("skipped: {why}");
}

/// The units of `xos job show --json`.
pub fn units(shown: &Json) -> &[Json] {
    shown["units"].as_array().map(Vec::as_slice).expect("a list of units")
}

/// The state of a unit, one word.
pub fn state(unit: &Json) -> &str {
    unit["state"]["state"].as_str().expect("a unit's state")
}

/// The node that a unit ran on.
pub fn node(unit: &Json) -> &str {
    unit["state"]["node"].as_str().unwrap_or_default()
}

/// How many units of a shown job are in a state.
pub fn count(shown: &Json, state: &str) -> u64 {
    shown["job"]["summary"]["counts"][state].as_u64().expect("a count of units")
}

/// The first job that a text names.
#[track_caller]
pub fn job_of(text: &str) -> String {
    let mut words = text.split(|c: char| c.is_whitespace() || c == ':');
    let number = |w: &str| w.split_once('.').is_some_and(|(n, _)| n.parse::<u64>().is_ok());
    let found = words.find(|w| number(w));
    found.unwrap_or_else(|| panic!("no job is named: {text}")).to_owned()
}
