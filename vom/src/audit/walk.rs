//! Whether lines follow one another: pure, one line after the other, in memory that does not grow.

use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;
use xos_api::audit::{AuditFault, FaultKind};
use xos_base::SiteId;

/// Most faults that are told of one audit; the rest is counted.
pub const FAULTS_MAX: usize = 16;

/// SHA-256 of a line without its newline, hex.
pub fn hash(line: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(64);
    for byte in digest(&SHA256, line).as_ref() {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// What another site witnessed: that a line has this hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Who.
    pub by: SiteId,
    /// The line's number.
    pub number: u64,
    /// Its hash.
    pub hash: String,
}

/// What of a line says where it belongs. An honest line escapes none of these texts.
#[derive(Deserialize)]
struct Place<'a> {
    site: &'a str,
    number: u64,
    prev: &'a str,
}

/// Goes over an audit from one line to the next.
#[derive(Debug)]
pub struct Walk {
    site: SiteId,
    /// The number that is due.
    next: u64,
    /// The hash that the next line must name; `None`: not known.
    prev: Option<String>,
    /// The highest number that was seen.
    highest: u64,
    lines: u64,
    file: String,
    /// The file of the line before.
    file_before: String,
    /// The oldest last.
    witnesses: Vec<Witness>,
    compared: u64,
    faults: Vec<AuditFault>,
    found: u64,
}

impl Walk {
    /// Begins with line `next`, which follows the line of hash `prev`: `None` takes the first line
    /// for what it says. Witnesses of lines before are not looked at.
    pub fn begin(
        site: SiteId,
        next: u64,
        prev: Option<String>,
        mut witnesses: Vec<Witness>,
    ) -> Walk {
        witnesses.retain(|w| w.number >= next);
        witnesses.sort_by_key(|w| std::cmp::Reverse(w.number));
        Walk {
            site,
            next,
            prev,
            highest: next.saturating_sub(1),
            lines: 0,
            file: String::new(),
            file_before: String::new(),
            witnesses,
            compared: 0,
            faults: Vec::new(),
            found: 0,
        }
    }

    /// The following lines lie in `name`, which says that they begin with line `first`.
    pub fn file(&mut self, name: &str, first: u64) {
        name.clone_into(&mut self.file);
        if first != self.next {
            let detail = format!("it begins with line {first} where line {} is due", self.next);
            let kind = if first > self.next { FaultKind::Missing } else { FaultKind::File };
            self.fault(name.to_owned(), self.next.min(first), kind, detail);
            self.resume(first, None);
        }
    }

    /// The lines up to this one lie in an archive, as the file `name` says.
    pub fn archived(&mut self, name: &str, number: u64, hash: &str) {
        name.clone_into(&mut self.file);
        name.clone_into(&mut self.file_before);
        self.witnessed(number, hash);
        self.resume(number.saturating_add(1), Some(hash.to_owned()));
    }

    /// The next line, without its newline.
    pub fn line(&mut self, bytes: &[u8]) {
        self.lines += 1;
        let place = match serde_json::from_slice::<Place<'_>>(bytes) {
            Ok(place) => place,
            Err(e) => return self.no_line(&format!("it is no line of an audit: {e}")),
        };
        let (due, number) = (self.next, place.number);
        if place.site != self.site.as_str() {
            let other: String = place.site.chars().take(40).collect();
            self.here(due, FaultKind::OtherSite, format!("it is a line of site {other:?}"));
        }
        if number > due {
            let detail = format!("line {number} stands where line {due} is due");
            self.here(due, FaultKind::Missing, detail);
        } else if number < due {
            let detail = format!("line {number} stands where line {due} is due");
            self.here(number, FaultKind::Order, detail);
        } else if self.prev.as_deref().is_some_and(|prev| prev != place.prev) {
            let before = due.saturating_sub(1);
            let detail = format!("line {due} follows another line {before} than the one here");
            self.fault(self.file_before.clone(), before, FaultKind::Altered, detail);
        }
        let hash = hash(bytes);
        self.witnessed(number, &hash);
        self.resume(number.saturating_add(1), Some(hash));
        if self.file_before != self.file {
            self.file_before.clone_from(&self.file);
        }
    }

    /// Bytes stand where a line is due that are none.
    pub fn no_line(&mut self, detail: &str) {
        self.here(self.next, FaultKind::Unreadable, detail.to_owned());
        self.resume(self.next.saturating_add(1), None);
        self.file_before.clone_from(&self.file);
    }

    /// A file that others follow ends in half a line.
    pub fn half_a_line(&mut self) {
        self.here(self.next, FaultKind::File, "it ends in half a line".to_owned());
    }

    /// The audit ends here: nobody may have witnessed more.
    pub fn end(&mut self) {
        let last = self.next.saturating_sub(1);
        while let Some(w) = self.witnesses.pop() {
            self.compared += 1;
            let detail = format!(
                "site {} witnessed line {}, but the audit ends with line {last}",
                w.by, w.number
            );
            self.here(last.saturating_add(1), FaultKind::Cut, detail);
        }
    }

    /// The number that is due, and the hash that it must name.
    pub fn due(&self) -> (u64, Option<&str>) {
        (self.next, self.prev.as_deref())
    }

    /// The highest number that was seen; before any line the one before the first.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// How many lines were looked at, and how many witnesses compared.
    pub fn counts(&self) -> (u64, u64) {
        (self.lines, self.compared)
    }

    /// Whether something is wrong.
    pub fn faulty(&self) -> bool {
        self.found > 0
    }

    /// What is wrong, the first first.
    pub fn into_faults(self) -> Vec<AuditFault> {
        self.faults
    }

    /// Goes on behind whatever stood here, so that later faults are found as well: nobody hides
    /// one behind another.
    fn resume(&mut self, next: u64, prev: Option<String>) {
        self.next = next;
        self.prev = prev;
        self.highest = self.highest.max(next.saturating_sub(1));
    }

    fn witnessed(&mut self, number: u64, hash: &str) {
        while let Some(w) = self.witnesses.pop_if(|w| w.number <= number) {
            // A line that is not there was told already.
            if w.number < number {
                continue;
            }
            self.compared += 1;
            if w.hash != hash {
                let detail = format!("site {} witnessed another line {number}", w.by);
                self.here(number, FaultKind::Rewritten, detail);
            }
        }
    }

    fn here(&mut self, number: u64, kind: FaultKind, detail: String) {
        self.fault(self.file.clone(), number, kind, detail);
    }

    fn fault(&mut self, file: String, number: u64, kind: FaultKind, detail: String) {
        self.found += 1;
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(AuditFault { file, number, kind, detail });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn site() -> SiteId {
        "rennes".parse().unwrap()
    }

    fn lines(count: u64) -> Vec<String> {
        let mut prev = String::new();
        let mut all = Vec::new();
        for number in 1..=count {
            let place = format!(r#""site":"rennes","number":{number},"prev":"{prev}""#);
            let line = format!(r#"{{{place},"noted":1,"what":"x{number}"}}"#);
            prev = hash(line.as_bytes());
            all.push(line);
        }
        all
    }

    fn witness(lines: &[String], number: u64) -> Witness {
        let at = usize::try_from(number).unwrap() - 1;
        Witness { by: "pisa".parse().unwrap(), number, hash: hash(lines[at].as_bytes()) }
    }

    fn faults(lines: &[String], witnesses: Vec<Witness>) -> Vec<AuditFault> {
        let mut walk = Walk::begin(site(), 1, Some(String::new()), witnesses);
        walk.file("1.jsonl", 1);
        lines.iter().for_each(|l| walk.line(l.as_bytes()));
        walk.end();
        assert_eq!(walk.faulty(), !walk.faults.is_empty());
        walk.into_faults()
    }

    fn first(lines: &[String], witnesses: Vec<Witness>) -> Option<(u64, FaultKind)> {
        faults(lines, witnesses).first().map(|f| (f.number, f.kind))
    }

    #[test]
    fn what_is_whole_has_no_fault() {
        let all = lines(9);
        assert_eq!(first(&all, vec![witness(&all, 3), witness(&all, 9), witness(&all, 3)]), None);
        assert_eq!(first(&[], vec![]), None);
    }

    #[test]
    fn each_way_to_tamper_is_named_where_it_is() {
        let all = lines(9);
        let but = |f: &dyn Fn(&mut Vec<String>)| {
            let mut some = all.clone();
            f(&mut some);
            some
        };
        let removed = but(&|l| drop(l.remove(4)));
        assert_eq!(first(&removed, vec![]), Some((5, FaultKind::Missing)));
        let altered = but(&|l| l[4] = l[4].replace("x5", "x6"));
        assert_eq!(first(&altered, vec![]), Some((5, FaultKind::Altered)));
        let swapped = but(&|l| l.swap(4, 5));
        assert_eq!(first(&swapped, vec![]), Some((5, FaultKind::Missing)));
        let twice = but(&|l| l.insert(4, l[3].clone()));
        assert_eq!(first(&twice, vec![]), Some((4, FaultKind::Order)));
        let rubbish = but(&|l| l[4] = "{}".to_owned());
        assert_eq!(first(&rubbish, vec![]), Some((5, FaultKind::Unreadable)));
        let other = but(&|l| l[4] = l[4].replace("rennes", "pisa"));
        assert_eq!(first(&other, vec![]), Some((5, FaultKind::OtherSite)));
    }

    /// If it failed, whoever has the core could write history anew, or end it early, unseen.
    #[test]
    fn what_others_witnessed_cannot_be_written_anew_nor_cut() {
        let all = lines(9);
        assert_eq!(first(&all[..6], vec![]), None, "nobody can tell without a witness");
        let seen = vec![witness(&all, 5), witness(&all, 8)];
        assert_eq!(first(&all[..6], seen.clone()), Some((7, FaultKind::Cut)));
        assert_eq!(first(&[], seen.clone()), Some((1, FaultKind::Cut)));
        // A whole chain of its own.
        let mut prev = String::new();
        let mut anew = Vec::new();
        for (i, line) in all.iter().enumerate() {
            let old = if i == 0 { String::new() } else { hash(all[i - 1].as_bytes()) };
            let line = line.replace(&format!("\"{old}\""), &format!("\"{prev}\""));
            let line = line.replace("x2", "y2");
            prev = hash(line.as_bytes());
            anew.push(line);
        }
        assert_eq!(first(&anew, vec![]), None, "it holds together");
        assert_eq!(first(&anew, seen), Some((5, FaultKind::Rewritten)));
    }

    #[test]
    fn one_fault_does_not_hide_the_next_and_many_are_bounded() {
        let mut all = lines(60);
        all[9] = all[9].replace("x10", "y");
        all[19] = "rubbish".into();
        let found: Vec<_> = faults(&all, vec![]).iter().map(|f| (f.number, f.kind)).collect();
        assert_eq!(found, [(10, FaultKind::Altered), (20, FaultKind::Unreadable)]);
        let rubbish = vec!["x".to_owned(); 100];
        assert_eq!(faults(&rubbish, vec![]).len(), FAULTS_MAX);
    }

    #[test]
    fn a_missing_or_renamed_file_is_told() {
        let all = lines(9);
        let run = |parts: &[(u64, &[String])]| {
            let mut walk = Walk::begin(site(), 1, Some(String::new()), vec![]);
            for (first, part) in parts {
                walk.file(&format!("{first}.jsonl"), *first);
                part.iter().for_each(|l| walk.line(l.as_bytes()));
            }
            walk.into_faults().first().map(|f| (f.file.clone(), f.number, f.kind))
        };
        assert_eq!(run(&[(1, &all[..3]), (4, &all[3..])]), None);
        let missing = run(&[(1, &all[..3]), (7, &all[6..])]);
        assert_eq!(missing, Some(("7.jsonl".into(), 4, FaultKind::Missing)));
        let renamed = run(&[(1, &all[..3]), (5, &all[3..])]);
        assert_eq!(renamed, Some(("5.jsonl".into(), 4, FaultKind::Missing)));
        // The last line of a file was altered: the next file tells.
        let mut bad = all.clone();
        bad[2] = bad[2].replace("x3", "y3");
        let altered = run(&[(1, &bad[..3]), (4, &bad[3..])]);
        assert_eq!(altered, Some(("1.jsonl".into(), 3, FaultKind::Altered)));
    }

    proptest! {
        /// Whatever one byte is changed to, it is found, unless it is the last line's and nobody
        /// witnessed that.
        #[test]
        fn any_changed_byte_is_found(line in 0_usize..8, at in 0_usize..100, to in any::<u8>()) {
            let all = lines(9);
            let mut bytes: Vec<Vec<u8>> = all.iter().map(|l| l.clone().into_bytes()).collect();
            let at = at % bytes[line].len();
            prop_assume!(bytes[line][at] != to && to != b'\n');
            bytes[line][at] = to;
            let mut walk = Walk::begin(site(), 1, Some(String::new()), vec![]);
            walk.file("1.jsonl", 1);
            bytes.iter().for_each(|l| walk.line(l));
            walk.end();
            prop_assert!(walk.faulty());
        }

        /// Any bytes are looked at without a panic.
        #[test]
        fn any_bytes_are_looked_at(
            all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..8),
        ) {
            let mut walk = Walk::begin(site(), 1, Some(String::new()), vec![]);
            all.iter().for_each(|l| walk.line(l));
            prop_assert_eq!(walk.faulty(), !all.is_empty());
        }
    }
}
