//! What would hurt: numbers or names that two have, and what keeps libc from finding grid accounts.
//! Pure.

use super::machine::{LocalUser, Named, Range};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// Numbers that other software of a stock machine takes for its own, whoever they are given to.
/// Source: systemd, "Users, Groups, UIDs and GIDs on systemd Systems".
const RESERVED: [(u32, u32, &str); 6] = [
    (60_001, 60_577, "systemd-homed"),
    (61_184, 65_519, "systemd's dynamic users"),
    (65_534, 65_535, "nobody and \"no user\" of 16 bits"),
    (524_288, 1_879_048_191, "systemd's containers"),
    (2_147_352_576, 2_147_418_111, "systemd's foreign images"),
    (2_147_483_648, u32::MAX, "numbers that many programs take for negative ones"),
];

/// The ranges from which useradd and its like give numbers: keys of `/etc/login.defs`, with what
/// holds where they are not set.
const GIVEN: [(&str, u32, &str, u32); 4] = [
    ("UID_MIN", 1000, "UID_MAX", 60_000),
    ("GID_MIN", 1000, "GID_MAX", 60_000),
    ("SUB_UID_MIN", 100_000, "SUB_UID_MAX", 600_100_000),
    ("SUB_GID_MIN", 100_000, "SUB_GID_MAX", 600_100_000),
];

/// The databases whose lines must name the module.
const DATABASES: [&str; 3] = ["passwd", "group", "shadow"];

/// All that is looked at.
#[derive(Clone, Debug)]
pub struct Machine {
    /// `/etc/passwd`.
    pub users: Vec<LocalUser>,
    /// `/etc/group`.
    pub groups: Vec<Named>,
    /// The users of the grid here.
    pub grid_users: Vec<Named>,
    /// The groups of the grid here.
    pub grid_groups: Vec<Named>,
    /// The names that the site gave to accounts of members.
    pub given: Vec<Given>,
    /// The numbers of each VO, users' and groups'.
    pub blocks: Vec<Range>,
    /// `/etc/subuid`.
    pub subuid: Vec<Range>,
    /// `/etc/subgid`.
    pub subgid: Vec<Range>,
    /// `/etc/login.defs`.
    pub login_defs: BTreeMap<String, u32>,
    /// `/etc/nsswitch.conf`.
    pub nsswitch: BTreeMap<String, Vec<String>>,
    /// Where libc would find the module and does not.
    pub module_missing: Option<PathBuf>,
    /// The place of the folder of homes, when something else is there.
    pub homes_taken: Option<PathBuf>,
}

/// A name that the site gave to the account of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The name.
    pub name: String,
    /// Whose.
    pub person: String,
    /// In which VO.
    pub vo: String,
    /// The account's uid.
    pub uid: u32,
    /// What the account is called where the name does not count.
    pub default: String,
}

/// Something that would hurt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// uid, gid, name, range, nsswitch, module or homes.
    pub about: &'static str,
    /// What was found.
    pub what: String,
    /// What to do.
    pub hint: String,
}

/// Users or groups: what differs between them.
struct Sort<'a> {
    word: &'static str,
    number: &'static str,
    file: &'static str,
    change: &'static str,
    grid: &'a [Named],
    blocks: &'a [Range],
}

/// Everything that would hurt, in the order of the files.
pub fn findings(m: &Machine) -> Vec<Finding> {
    let mut found = Vec::new();
    let users: Vec<&Named> = m.users.iter().map(|u| &u.user).collect();
    let (file, change) = ("/etc/passwd", "usermod -u NEW");
    let sort =
        Sort { word: "user", number: "uid", file, change, grid: &m.grid_users, blocks: &m.blocks };
    local(&users, &sort, &mut found);
    let groups: Vec<&Named> = m.groups.iter().collect();
    let (file, change) = ("/etc/group", "groupmod -g NEW");
    let sort = Sort {
        word: "group",
        number: "gid",
        file,
        change,
        grid: &m.grid_groups,
        blocks: &m.blocks,
    };
    local(&groups, &sort, &mut found);
    primary(m, &mut found);
    hidden(m, &mut found);
    ranges(m, &mut found);
    switch(&m.nsswitch, &mut found);
    installed(m, &mut found);
    found
}

/// Local entries that have a number or a name of the grid's.
fn local(entries: &[&Named], sort: &Sort<'_>, found: &mut Vec<Finding>) {
    let by_id: HashMap<u32, &str> = sort.grid.iter().map(|g| (g.id, g.name.as_str())).collect();
    let by_name: HashMap<&str, u32> = sort.grid.iter().map(|g| (g.name.as_str(), g.id)).collect();
    let Sort { word, number, file, change, .. } = *sort;
    for Named { name, id } in entries {
        let block = sort.blocks.iter().find(|b| b.holds(*id));
        let whose = match (by_id.get(id), block) {
            (Some(grid), _) => Some(format!("the grid {word} {grid}")),
            (None, Some(block)) => Some(format!("the VO {}, for its next members", block.owner)),
            (None, None) => None,
        };
        if let Some(whose) = whose {
            found.push(Finding {
                about: number,
                what: format!("{number} {id} belongs to {name} in {file} and to {whose}"),
                hint: format!(
                    "give {name} another {number}: {change} {name}; \
                     then change the owner of its files"
                ),
            });
        }
        if let Some(grid) = by_name.get(name.as_str()) {
            found.push(Finding {
                about: "name",
                what: format!("{word} {name} is in {file}, and the grid's has {number} {grid}"),
                hint: format!("give the local {word} another name; it hides the grid's"),
            });
        }
    }
}

/// Local users in a group of the grid by their line in `/etc/passwd`.
fn primary(m: &Machine, found: &mut Vec<Finding>) {
    for LocalUser { user, gid } in &m.users {
        let Some(block) = m.blocks.iter().find(|b| b.holds(*gid)) else { continue };
        found.push(Finding {
            about: "gid",
            what: format!(
                "{} in /etc/passwd has the group {gid} of the VO {}",
                user.name, block.owner
            ),
            hint: format!("give {0} a group of this machine: usermod -g GROUP {0}", user.name),
        });
    }
}

/// Names that the site gave and that local users have: the account is called otherwise here.
fn hidden(m: &Machine, found: &mut Vec<Finding>) {
    for Given { name, person, vo, uid, default } in &m.given {
        if !m.users.iter().any(|u| u.user.name == *name) {
            continue;
        }
        found.push(Finding {
            about: "name",
            what: format!(
                "user {name} is in /etc/passwd, and your site gave {person} in {vo} that name; \
                 here the account, uid {uid}, is called {default}"
            ),
            hint: format!(
                "rename or remove the local user, or choose another name: \
                 xos names give {vo} {person} NAME"
            ),
        });
    }
}

/// Numbers of VOs that something else uses or may give away.
fn ranges(m: &Machine, found: &mut Vec<Finding>) {
    const MOVE: &str = "or ask for another base when your site gives a VO its next share \
                        (xos vo share offer --base); one that has numbers keeps them";
    for block in &m.blocks {
        let mut meets = |other: &Range, whose: String, hint: String| {
            if !block.meets(other) {
                return;
            }
            let (first, last) = (other.first.max(block.first), other.last().min(block.last()));
            let what = format!("{first} to {last} of the VO {} are {whose} too", block.owner);
            found.push(Finding { about: "range", what, hint });
        };
        for (file, list) in [("/etc/subuid", &m.subuid), ("/etc/subgid", &m.subgid)] {
            for r in list {
                let hint =
                    format!("move the range of {} in {file}, and what its containers own", r.owner);
                meets(r, format!("of {} in {file}", r.owner), hint);
            }
        }
        for (low, least, high, most) in GIVEN {
            let value = |key: &str, other| m.login_defs.get(key).copied().unwrap_or(other);
            let range = Range::new(high, value(low, least), value(high, most));
            let hint = format!("set {high} in /etc/login.defs below {}", block.first);
            meets(&range, format!("what useradd gives ({low} to {high})"), hint);
        }
        for (first, last, who) in RESERVED {
            let hint = format!("do not use {who} on this machine, {MOVE}");
            meets(&Range::new(who, first, last), format!("those of {who}"), hint);
        }
    }
}

/// Lines of `/etc/nsswitch.conf` that do not come to the module, or come to it before the files.
fn switch(lines: &BTreeMap<String, Vec<String>>, found: &mut Vec<Finding>) {
    // Without a line of its own, initgroups goes by that of group.
    let own = lines.contains_key("initgroups").then_some("initgroups");
    for database in DATABASES.into_iter().chain(own) {
        let services = lines.get(database).map(Vec::as_slice).unwrap_or_default();
        let at = |service: &str| services.iter().position(|s| s == service);
        let (files, xos) = (at("files"), at("xos"));
        let ends = services.iter().position(|s| ends_unfound(s));
        let what = match xos {
            None => format!("the line {database} does not name xos"),
            Some(xos) if files.is_none_or(|files| files > xos) => {
                format!("the line {database} does not name files before xos")
            }
            Some(xos) if ends.is_some_and(|end| end < xos) => {
                format!("the line {database} ends before xos for names that are not found")
            }
            Some(_) => continue,
        };
        let hint = format!("in /etc/nsswitch.conf: {database}: files ... xos");
        found.push(Finding { about: "nsswitch", what, hint });
    }
}

/// Whether it is an action that ends the search for what was not found: `[NOTFOUND=return]`, or
/// `[!UNAVAIL=return]`.
fn ends_unfound(action: &str) -> bool {
    let Some(action) = action.strip_prefix('[') else { return false };
    let action = action.trim_end_matches(']').to_ascii_lowercase();
    action.split_whitespace().filter_map(|rule| rule.strip_suffix("=return")).any(|status| {
        status.strip_prefix('!').map_or(status == "notfound", |other| other != "notfound")
    })
}

fn installed(m: &Machine, found: &mut Vec<Finding>) {
    if let Some(path) = &m.module_missing {
        let path = path.display();
        found.push(Finding {
            about: "module",
            what: format!("there is no {path}"),
            hint: format!("install -m 644 libnss_xos.so {path}"),
        });
    }
    if let Some(path) = &m.homes_taken {
        let path = path.display();
        found.push(Finding {
            about: "homes",
            what: format!("{path}, where homes of grid accounts are made, is no folder"),
            hint: format!("move {path} away; xosd makes the folder at the first session"),
        });
    }
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;
