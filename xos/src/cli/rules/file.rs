//! Files of rules, TOML or JSON.

use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::Path;
use xos_api::policy::{Rule, RuleList, RulesChange};
use xos_base::Error;

/// Longest file that is read, in bytes.
const FILE_MAX: u64 = 8 * 1024 * 1024;
/// What is said with each error.
const HINT: &str = "each rule is a table [[rules]] with name, who, what, where, effect and note";

/// What a file of rules holds. JSON as `show --json` prints it is one too.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesFile {
    /// The version that they are made from; absent: whichever is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// All rules.
    pub rules: Vec<Rule>,
    /// Who changed them last: of no matter when they are set.
    #[serde(default, skip_serializing)]
    changed: Option<RulesChange>,
}

impl RulesFile {
    /// A list in a file.
    pub fn of(list: &RuleList) -> RulesFile {
        RulesFile { version: Some(list.version), rules: list.rules.clone(), changed: None }
    }

    /// The file's text in TOML.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`].
    pub fn toml(&self) -> Result<String, Error> {
        toml::to_string(self).map_err(|e| Error::internal(format!("cannot write TOML: {e}")))
    }

    /// Reads a file; `-` is standard input.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] with line and column of what is wrong.
    pub fn read(path: &Path) -> Result<RulesFile, Error> {
        let shown = path.display().to_string();
        let fail =
            |why: &dyn std::fmt::Display| Error::invalid(format!("cannot read {shown}: {why}"));
        let mut bytes = Vec::new();
        let read = if path == Path::new("-") {
            std::io::stdin().lock().take(FILE_MAX + 1).read_to_end(&mut bytes)
        } else {
            std::fs::File::open(path).and_then(|f| f.take(FILE_MAX + 1).read_to_end(&mut bytes))
        };
        read.map_err(|e| fail(&e))?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(fail(&format!("it is longer than {FILE_MAX} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|_| fail(&"it is no text in UTF-8"))?;
        RulesFile::parse(&shown, &text)
    }

    /// Reads a text that stands in `path`: JSON when it begins with a brace, else TOML.
    fn parse(path: &str, text: &str) -> Result<RulesFile, Error> {
        if text.trim_start().starts_with('{') {
            return serde_json::from_str(text).map_err(|e| {
                let said = e.to_string();
                let said = said.split(" at line ").next().unwrap_or_default();
                let (line, column) = (e.line(), e.column());
                Error::invalid(format!("{path}:{line}:{column}: {said}")).hint(HINT)
            });
        }
        xos_base::config::parse(path, text).map_err(|e| Error::invalid(e.message).hint(HINT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "version = 7\n\n[[rules]]\nname = \"no-pisa\"\nwho = \"site:pisa\"\n\
        what = \"run\"\neffect = \"deny\"\n";

    /// If it failed, what `show` writes could not be set again.
    #[test]
    fn what_is_written_is_read_again() {
        let file = RulesFile::parse("x", TOML).unwrap();
        assert_eq!((file.version, file.rules.len()), (Some(7), 1));
        assert_eq!(RulesFile::parse("x", &file.toml().unwrap()).unwrap(), file);
        let list = RuleList { version: 7, rules: file.rules.clone(), changed: None };
        assert_eq!(RulesFile::of(&list), file);
        let json = serde_json::to_string(&list).unwrap();
        assert_eq!(RulesFile::parse("x", &json).unwrap(), file);
    }

    /// If it failed, whoever makes a slip in a long file would have to look for it.
    #[test]
    fn what_is_wrong_is_told_with_line_and_column() {
        let wrong = TOML.replace("site:pisa", "pisa");
        let e = RulesFile::parse("rules.toml", &wrong).unwrap_err();
        assert!(e.message.starts_with("rules.toml:5:"), "{e}");
        assert!(e.message.contains("person:<person>"), "{e}");
        let wrong = TOML.replace("effect", "effekt");
        let e = RulesFile::parse("rules.toml", &wrong).unwrap_err();
        assert!(e.message.starts_with("rules.toml:7:"), "{e}");
        let e = RulesFile::parse("r.json", "{\"version\": 1,\n \"rules\": [3]}").unwrap_err();
        assert!(e.message.starts_with("r.json:2:"), "{e}");
        assert!(RulesFile::parse("x", "version = 1\n").is_err(), "no rules are not all rules gone");
    }
}
