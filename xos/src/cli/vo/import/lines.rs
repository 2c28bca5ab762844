//! The lines of a file that `xos vo export` wrote, or somebody by hand.

use super::settings::Settings;
use serde::Deserialize;
use std::io::BufRead;
use xos_api::policy::Rule;
use xos_api::vom::{EXPORT_FORMAT, ExpectedPerson, ExportLine, Question, TERMS_BYTES_MAX};
use xos_base::{GroupName, PersonId};

/// Longest line, in bytes: terms of use of [`TERMS_BYTES_MAX`], and JSON's escapes.
pub const LINE_MAX: u64 = 8 * TERMS_BYTES_MAX as u64;

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Settings of the VO.
    Settings(Settings),
    /// Terms of use.
    Terms { text: String, consent_days: Option<u32>, grace_days: u32 },
    /// Questions to applicants.
    Questions(Vec<Question>),
    /// How many days before an end people are reminded.
    Reminders(Vec<u32>),
    /// A rule.
    Rule(Rule),
    /// A group, and its managers.
    Group { name: GroupName, parent: Option<GroupName>, managers: Vec<PersonId> },
    /// A person to expect.
    Person(ExpectedPerson),
    /// The last line.
    End,
    /// Nothing: what is not imported, with why.
    Nothing(&'static str),
}

/// Only what kind a line is of.
#[derive(Deserialize)]
struct Kind {
    kind: String,
}

/// Kinds that this version knows; others are those of later ones.
const KINDS: [&str; 11] = [
    "vo",
    "terms",
    "questions",
    "reminders",
    "group",
    "rule",
    "expected",
    "member",
    "share",
    "entry",
    "end",
];

/// Reads one line after another, in bounded memory.
pub struct Lines<R> {
    from: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// From the beginning.
    pub fn new(from: R) -> Lines<R> {
        Lines { from, number: 0 }
    }

    /// The next line that is not empty, with its number: what it asks for, or what is wrong.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn line(&mut self) -> std::io::Result<Option<(u64, Result<Line, String>)>> {
        loop {
            let mut bytes = Vec::new();
            let read = self.part(&mut bytes)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            let mut long = false;
            while bytes.last() != Some(&b'\n') && bytes.len() as u64 >= LINE_MAX {
                long = true;
                bytes.clear();
                if self.part(&mut bytes)? == 0 {
                    break;
                }
            }
            let bad = || format!("it is longer than {LINE_MAX} bytes");
            if long {
                return Ok(Some((self.number, Err(bad()))));
            }
            if !bytes.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some((self.number, parse(&bytes))));
            }
        }
    }

    fn part(&mut self, into: &mut Vec<u8>) -> std::io::Result<usize> {
        std::io::Read::take(&mut self.from, LINE_MAX).read_until(b'\n', into)
    }
}

fn parse(bytes: &[u8]) -> Result<Line, String> {
    let kind: Kind = serde_json::from_slice(bytes).map_err(|e| format!("it is no line: {e}"))?;
    if !KINDS.contains(&kind.kind.as_str()) {
        return Ok(Line::Nothing("their kind is not known to this version"));
    }
    let line: ExportLine = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    Ok(match line {
        ExportLine::Vo { format, .. } if format != EXPORT_FORMAT => {
            return Err(format!(
                "format {format} is not known; this version reads {EXPORT_FORMAT}"
            ));
        }
        ExportLine::Vo { lease_s, grace_s, renewal_s, audit_opens, .. } => {
            Line::Settings(Settings { lease_s, grace_s, renewal_s, audit_opens })
        }
        ExportLine::Terms { text, consent_days, grace_days } => {
            Line::Terms { text, consent_days, grace_days }
        }
        ExportLine::Questions { questions } => Line::Questions(questions),
        ExportLine::Reminders { days } => Line::Reminders(days),
        ExportLine::Rule { rule } => Line::Rule(rule),
        ExportLine::Group { name, parent, managers } => Line::Group { name, parent, managers },
        ExportLine::Expected { person, groups, roles, expires } => {
            Line::Person(ExpectedPerson { person, groups, roles, expires })
        }
        ExportLine::Member { suspended: Some(_), .. } => {
            Line::Nothing("they were suspended, and are not expected")
        }
        ExportLine::Member { person, groups, roles, expires, .. } => {
            Line::Person(ExpectedPerson { person, groups, roles, expires })
        }
        ExportLine::Share { .. } => Line::Nothing("sites offer shares themselves"),
        ExportLine::Entry { .. } => Line::Nothing("the log of a VO stays its own"),
        ExportLine::End { .. } => Line::End,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<(u64, Result<Line, String>)> {
        let mut lines = Lines::new(text.as_bytes());
        std::iter::from_fn(|| lines.line().unwrap()).collect()
    }

    /// If it failed, a bad line would be told under another number, or those after it be lost.
    #[test]
    fn each_line_is_read_by_itself() {
        let long = "x".repeat(3 * LINE_MAX as usize);
        let text = format!(
            "{{\"kind\":\"group\",\"name\":\"physics\"}}\n\n{long}\nnot json\n\
             {{\"kind\":\"member\",\"person\":\"bob@pisa\",\"x\":1}}\n\
             {{\"kind\":\"weather\",\"text\":\"fine\"}}\n\
             {{\"kind\":\"member\",\"person\":\"bob@pisa\"}}\n{{\"kind\":\"end\",\"number\":3}}"
        );
        let lines = all(&text);
        let numbers: Vec<u64> = lines.iter().map(|l| l.0).collect();
        assert_eq!(numbers, [1, 3, 4, 5, 6, 7, 8]);
        let good: Vec<bool> = lines.iter().map(|l| l.1.is_ok()).collect();
        assert_eq!(good, [true, false, false, false, true, true, true]);
        assert!(matches!(lines[4].1, Ok(Line::Nothing(_))), "a later version's line");
        assert!(matches!(&lines[5].1, Ok(Line::Person(p)) if p.person.as_str() == "bob@pisa"));
        assert_eq!(lines[6].1, Ok(Line::End));
    }

    /// If it failed, an import would let somebody in whom an administrator had stopped.
    #[test]
    fn who_was_suspended_is_not_expected() {
        let text = "{\"kind\":\"member\",\"person\":\"bob@pisa\",\"suspended\":\"misuse\"}\n";
        assert!(matches!(all(text)[0].1, Ok(Line::Nothing(_))));
    }

    /// If it failed, a VO that is brought elsewhere would have other rules and terms than before.
    #[test]
    fn what_an_export_says_of_the_vo_is_read_again() {
        let rule = "{\"name\":\"a\",\"who\":\"*\",\"what\":\"*\",\"effect\":\"allow\"}";
        let rule: Rule = serde_json::from_str(rule).unwrap();
        let long = "\"\n".repeat(TERMS_BYTES_MAX / 2);
        let lines = [
            ExportLine::Terms { text: long.clone(), consent_days: Some(30), grace_days: 14 },
            ExportLine::Reminders { days: vec![7, 1] },
            ExportLine::Rule { rule: rule.clone() },
            ExportLine::Expected {
                person: "bob@pisa".parse().unwrap(),
                groups: vec![],
                roles: vec![],
                expires: None,
            },
        ];
        let text: Vec<String> = lines.iter().map(|l| serde_json::to_string(l).unwrap()).collect();
        let read: Vec<Line> = all(&text.join("\n")).into_iter().map(|l| l.1.unwrap()).collect();
        assert!(matches!(&read[0], Line::Terms { text, .. } if *text == long));
        assert_eq!(read[1], Line::Reminders(vec![7, 1]));
        assert_eq!(read[2], Line::Rule(rule));
        assert!(matches!(&read[3], Line::Person(p) if p.person.as_str() == "bob@pisa"));
    }
}
