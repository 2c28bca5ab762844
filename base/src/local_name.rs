//! Names that a site's administrator gives to accounts of members.

use crate::ids::IdError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest local name, in bytes: what `useradd` and utmp take.
pub const LOCAL_NAME_MAX: usize = 31;

/// Users and groups that systems make for themselves, of Debian's base-passwd and of well-known
/// services. Those that begin with `_` or `systemd-` are refused without a list.
const SYSTEM: [&str; 59] = [
    "adm",
    "admin",
    "administrator",
    "avahi",
    "backup",
    "bin",
    "colord",
    "crontab",
    "daemon",
    "disk",
    "dnsmasq",
    "docker",
    "ftp",
    "games",
    "gdm",
    "gnats",
    "halt",
    "irc",
    "kmem",
    "kvm",
    "libvirt-qemu",
    "list",
    "lp",
    "mail",
    "man",
    "messagebus",
    "munge",
    "mysql",
    "news",
    "nobody",
    "nogroup",
    "ntp",
    "operator",
    "polkitd",
    "postfix",
    "postgres",
    "proxy",
    "root",
    "shadow",
    "shutdown",
    "slurm",
    "src",
    "sshd",
    "sssd",
    "staff",
    "statd",
    "sudo",
    "sync",
    "sys",
    "syslog",
    "tape",
    "toor",
    "tss",
    "tty",
    "users",
    "uucp",
    "video",
    "wheel",
    "www-data",
];

/// A name that a site's administrator gives to the account of one member: `ann`.
///
/// No account has such a name by itself: those that the grid gives hold a dot, or are `u` with a
/// number (docs/architecture.md, "Numbers").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LocalName(String);

impl LocalName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LocalName {
    type Err = IdError;

    fn from_str(s: &str) -> Result<LocalName, IdError> {
        match fault(s) {
            None => Ok(LocalName(s.to_owned())),
            Some(want) => {
                let text = s.chars().take(64).collect();
                Err(IdError { text, what: "name for an account", want })
            }
        }
    }
}

/// The rule that a text breaks, if it breaks one.
fn fault(s: &str) -> Option<&'static str> {
    let of_set = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    let begins = s.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if !begins || s.len() > LOCAL_NAME_MAX || !s.bytes().all(of_set) {
        return Some("it is 1 to 31 of a-z, 0-9, '-' and '_', beginning with a letter");
    }
    if s.starts_with('_') || s.starts_with("systemd-") || SYSTEM.contains(&s) {
        return Some("systems use it for themselves");
    }
    let number = s.strip_prefix(['u', 'g']).unwrap_or_default();
    if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) {
        return Some("the grid itself calls accounts so: u or g with a number");
    }
    None
}

impl TryFrom<String> for LocalName {
    type Error = IdError;

    fn try_from(s: String) -> Result<LocalName, IdError> {
        s.parse()
    }
}

impl From<LocalName> for String {
    fn from(name: LocalName) -> String {
        name.0
    }
}

impl fmt::Display for LocalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SiteId, VoId};
    use proptest::prelude::*;

    /// If it failed, an administrator's slip could make a member root's namesake, or another
    /// member's.
    #[test]
    fn names_of_systems_and_of_the_grid_are_not_given() {
        let longest = "a".repeat(LOCAL_NAME_MAX);
        for good in ["ann", "a", "ann-2", "a_b", "user1", "u1a", "g", "uucp2", longest.as_str()] {
            assert_eq!(good.parse::<LocalName>().unwrap().as_str(), good);
        }
        let long = "a".repeat(LOCAL_NAME_MAX + 1);
        for bad in [
            "",
            "root",
            "nobody",
            "www-data",
            "systemd-network",
            "_apt",
            "_",
            "u1879048193",
            "u1",
            "g7",
            "Ann",
            "1ann",
            "-ann",
            "ann.demo.rennes",
            "ann ",
            "ann\n",
            "a/b",
            "a:b",
            "änn",
            "ann$",
            long.as_str(),
        ] {
            assert!(bad.parse::<LocalName>().is_err(), "{bad:?}");
            let json = serde_json::to_string(bad).unwrap();
            assert!(serde_json::from_str::<LocalName>(&json).is_err(), "{bad:?}");
        }
        assert!(SYSTEM.is_sorted(), "somebody adds a name twice");
    }

    proptest! {
        /// If it failed, a given name could lead to the account of somebody who has it by default.
        #[test]
        fn no_given_name_is_one_by_default(
            person in "[a-z][a-z0-9_-]{0,8}[a-z0-9]", label in "[a-z][a-z0-9]{0,5}",
            uid in any::<u32>()
        ) {
            let site: SiteId = "rennes".parse().unwrap();
            let vo: VoId = format!("{label}.{site}").parse().unwrap();
            let default = format!("{}.{vo}", site.person(&person).unwrap().name());
            prop_assert!(default.parse::<LocalName>().is_err());
            let default = format!("u{uid}");
            prop_assert!(default.parse::<LocalName>().is_err());
        }
    }
}
