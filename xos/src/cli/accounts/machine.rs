//! What a machine says about names and numbers, read from its files: never through NSS, which would
//! show both sides of a clash as one.

use std::collections::BTreeMap;

/// A user or a group, and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its uid or gid.
    pub id: u32,
}

/// Numbers that somebody uses or may give away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Who.
    pub owner: String,
    /// The first.
    pub first: u64,
    /// How many.
    pub count: u64,
}

impl Range {
    /// From the first to the last.
    pub fn new(owner: impl Into<String>, first: u32, last: u32) -> Range {
        let count = (u64::from(last) + 1).saturating_sub(u64::from(first));
        Range { owner: owner.into(), first: first.into(), count }
    }

    /// The last number.
    pub fn last(&self) -> u64 {
        self.first.saturating_add(self.count).saturating_sub(1)
    }

    /// Whether it holds the number.
    pub fn holds(&self, id: u32) -> bool {
        (self.first..=self.last()).contains(&u64::from(id)) && self.count > 0
    }

    /// Whether a number is in both.
    pub fn meets(&self, other: &Range) -> bool {
        let both = self.count > 0 && other.count > 0;
        both && self.first <= other.last() && other.first <= self.last()
    }
}

/// A user in `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalUser {
    /// Name and uid.
    pub user: Named,
    /// The primary group.
    pub gid: u32,
}

/// Lines of so many or more fields, without those that are no entries.
fn lines(text: &str, fields: usize) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().filter(|l| !l.starts_with(['#', '+', '-']));
    lines.map(|l| l.split(':').collect::<Vec<_>>()).filter(move |l| l.len() >= fields)
}

/// The users of `/etc/passwd`; lines that libc would not read either are left out.
pub fn passwd(text: &str) -> Vec<LocalUser> {
    lines(text, 4)
        .filter_map(|l| {
            let (id, gid) = (l[2].parse().ok()?, l[3].parse().ok()?);
            Some(LocalUser { user: Named { name: l[0].to_owned(), id }, gid })
        })
        .collect()
}

/// The groups of `/etc/group`.
pub fn group(text: &str) -> Vec<Named> {
    let groups = lines(text, 3);
    groups.filter_map(|l| Some(Named { name: l[0].to_owned(), id: l[2].parse().ok()? })).collect()
}

/// The ranges of `/etc/subuid` or `/etc/subgid`.
pub fn subordinate(text: &str) -> Vec<Range> {
    lines(text, 3)
        .filter_map(|l| {
            let (first, count) = (l[1].parse::<u32>().ok()?, l[2].parse::<u32>().ok()?);
            Some(Range { owner: l[0].to_owned(), first: first.into(), count: count.into() })
        })
        .collect()
}

/// The numbers that `/etc/login.defs` sets.
pub fn login_defs(text: &str) -> BTreeMap<String, u32> {
    text.lines()
        .filter_map(|l| {
            let mut words = l.split_whitespace();
            let (key, value) = (words.next()?, words.next()?);
            Some((key.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// For each database of `/etc/nsswitch.conf` its services, and actions in brackets between them.
pub fn nsswitch(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut databases = BTreeMap::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let Some((database, services)) = line.split_once(':') else { continue };
        let mut words: Vec<String> = Vec::new();
        let mut is_open = false;
        for word in services.split_whitespace() {
            match words.last_mut().filter(|_| is_open) {
                Some(action) => {
                    action.push(' ');
                    action.push_str(word);
                }
                None => words.push(word.to_owned()),
            }
            is_open = words.last().is_some_and(|w| w.starts_with('[') && !w.ends_with(']'));
        }
        databases.insert(database.trim().to_owned(), words);
    }
    databases
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a clash in a file with one odd line would not be seen.
    #[test]
    fn entries_are_found_among_odd_lines() {
        let text = "root:x:0:0:root:/root:/bin/sh\n# no\n+@nis\n\nbad:x:12\nneg:x:-1:0::/:\n\
                    big:x:4294967296:0::/:\nalice:x:1000:100:A:/h:/s\nlast:x:7:8";
        let found: Vec<(String, u32, u32)> =
            passwd(text).into_iter().map(|u| (u.user.name, u.user.id, u.gid)).collect();
        let want = [("root", 0, 0), ("alice", 1000, 100), ("last", 7, 8)];
        assert_eq!(found, want.map(|(n, u, g)| (n.to_owned(), u, g)));
        assert_eq!(group("wheel:x:10:a,b\nodd\n"), [Named { name: "wheel".into(), id: 10 }]);
        let ranges = subordinate("alice:100000:65536\nbob:x:1\n1001:165536:65536\n");
        assert_eq!((ranges.len(), ranges[0].last(), ranges[1].first), (2, 165_535, 165_536));
        let defs =
            login_defs("# UID_MAX 1\nUID_MAX\t\t 60000\nUMASK 022\nENCRYPT_METHOD YESCRYPT\n");
        assert_eq!((defs.get("UID_MAX"), defs.contains_key("#")), (Some(&60_000), false));
    }

    /// If it failed, a line that never comes to xos would pass for right.
    #[test]
    fn services_and_actions_are_told_apart() {
        let switch =
            nsswitch("passwd: files [NOTFOUND=return SUCCESS=merge]  xos # xos\n#group: xos\n");
        assert_eq!(switch["passwd"], ["files", "[NOTFOUND=return SUCCESS=merge]", "xos"]);
        assert!(!switch.contains_key("group"));
    }

    /// If it failed, an administrator's file could stop the check, or hide an overlap.
    #[test]
    fn ranges_at_the_ends_of_numbers_meet_rightly() {
        let all = Range::new("all", 0, u32::MAX);
        assert!(all.holds(0) && all.holds(u32::MAX) && all.meets(&all));
        let none = Range { owner: "none".into(), first: 5, count: 0 };
        assert!(!none.holds(5) && !none.holds(4) && !none.meets(&all) && !all.meets(&none));
        let (low, high) = (Range::new("low", 10, 19), Range::new("high", 20, 29));
        assert!(!low.meets(&high) && !high.meets(&low));
        assert!(low.meets(&Range::new("x", 19, 19)) && high.meets(&Range::new("x", 5, 20)));
        for text in ["a:4294967295:4294967295", ":::::", "a:0:0", "\0:\0:\0"] {
            subordinate(text).iter().for_each(|r| assert!(r.last() >= r.first || r.count == 0));
        }
    }
}
