//! The cores of sites, to which administrators sign in by ssh, each by the name that the world has
//! for it, as `core.rennes.example`.
//!
//! A site's word on such a name counts only where two say that the name is its core's: the person,
//! who added the site at that name and compared the fingerprint of its root, and the site. The
//! site alone could name any machine of the world, and so could the one from which it was learned.
//! The person alone may have come through a tunnel.

use super::config::{KNOWN_HOSTS, Where};
use crate::cli::sites::KnownSite;
use std::net::Ipv4Addr;
use xos_base::SiteId;

/// Longest host name and longest part of one, in bytes (RFC 1035, section 2.3.4).
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;
/// What ssh reads beside the person's own file unless it is told otherwise (ssh_config(5)).
const GLOBAL: &str = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2";

/// The name of a site's core for ssh; `None` when there is none that is surely its own. What ssh
/// takes for a node of one of `sites` is none.
pub(super) fn name(known: &KnownSite, sites: &[SiteId]) -> Option<String> {
    let reached = host(known.reached.as_deref()?)?;
    let said = known.descriptor.addresses.iter().filter_map(|a| host(a)).any(|h| h == reached);
    let of_a_node = |name: &str| {
        name.split_once('.').is_some_and(|(_, end)| sites.iter().any(|s| s.as_str() == end))
    };
    let good = said && is_name(&reached) && !of_a_node(&reached);
    (good && known.learned_from.is_none()).then_some(reached)
}

/// `host` of `host:port`, as ssh compares it.
fn host(address: &str) -> Option<String> {
    address.rsplit_once(':').map(|(host, _)| host.to_ascii_lowercase())
}

/// Whether a text is a host name that means the same machine everywhere (RFC 1123, section 2.1).
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= NAME_MAX
        && text.split('.').all(is_label)
        && text.parse::<Ipv4Addr>().is_err()
        && text.rsplit('.').next() != Some("localhost")
}

/// `ssh/config` for cores. Whether a core has a certificate is its administrator's business, so all
/// else stays as it is: the person's own files, the question where nothing is known, the account.
pub(super) fn text(at: &Where, names: &[String]) -> String {
    // Of these files ssh replaces no signs of per cent.
    let files = format!("{GLOBAL} \"{}/{KNOWN_HOSTS}\"", at.home);
    let block = |name: &String| format!("\nHost {name}\n    GlobalKnownHostsFile {files}\n");
    names.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use xos_api::site::SiteDescriptor;

    const CORE: &str = "core.rennes.example";

    fn rennes(reached: &str, addresses: &[&str]) -> KnownSite {
        KnownSite {
            descriptor: SiteDescriptor {
                site: "rennes".parse().unwrap(),
                addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
                root: String::new(),
                keys: String::new(),
                withdrawn: None,
            },
            fingerprint: String::new(),
            reached: Some(reached.to_owned()),
            learned_from: None,
        }
    }

    fn named(known: &KnownSite) -> Option<String> {
        let sites: [SiteId; 3] = ["com", "pisa", "rennes"].map(|s| s.parse().unwrap());
        name(known, &sites)
    }

    /// If it failed, a hostile site could pass for any machine of the world at the computers of all
    /// who know it; or administrators would be asked whether they know their core.
    #[test]
    fn a_name_counts_when_the_person_and_the_site_say_it() {
        for (reached, addresses) in [
            ("core.rennes.example:7443", &["core.rennes.example:7443"][..]),
            ("Core.Rennes.Example:7443", &["10.0.0.1:7443", "CORE.rennes.example:443"][..]),
        ] {
            assert_eq!(named(&rennes(reached, addresses)).as_deref(), Some(CORE), "{reached}");
        }
        let reached = format!("{CORE}:7443");
        for said in [&["github.com:7443"][..], &[], &["*:7443"], &["x.core.rennes.example:7443"]] {
            assert_eq!(named(&rennes(&reached, said)), None, "{said:?}");
        }
        assert_eq!(named(&rennes("localhost:9000", &[&reached])), None, "a tunnel");
        let known = rennes(&reached, &[&reached]);
        let learned = KnownSite { learned_from: Some("pisa".parse().unwrap()), ..known.clone() };
        assert_eq!(named(&learned), None);
        assert_eq!(named(&KnownSite { reached: None, ..known }), None);
    }

    /// If it failed, a name could become a pattern or a line of its own; or one site's core answer
    /// for a node of another, or a site called `com` for somebody's core.
    #[test]
    fn what_is_no_name_of_one_machine_is_none() {
        let long = ["a".repeat(64), ["a"; 128].join(".")];
        let bad = [
            "",
            "*",
            "?",
            "!a",
            "a,b",
            "a b",
            "a\tb",
            "a\nb",
            "a#b",
            "a_b",
            "a%b",
            "a..b",
            ".a",
            "a.",
            "-a",
            "a-",
            "a.-b",
            "10.0.0.1",
            "[::1]",
            "::1",
            "localhost",
            "x.localhost",
            "n1.pisa",
            "core.rennes",
            "rennes.com",
            "\u{e9}.example",
            &long[0],
            &long[1],
        ];
        for bad in bad {
            let address = format!("{bad}:7443");
            assert_eq!(named(&rennes(&address, &[&address])), None, "{bad:?}");
        }
        for good in ["rennes-core", "core.rennes.com", "a.b.pisa", "3com.example", "rennes"] {
            let address = format!("{good}:7443");
            assert_eq!(named(&rennes(&address, &[&address])).as_deref(), Some(good));
        }
    }

    /// If it failed, ssh would not read whose word counts, when a folder has an odd name; or go to
    /// a core by another way or as another than the person chose.
    #[test]
    fn ssh_reads_one_file_more_and_all_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let home = "/home/al ice's/50%d #1; `id`";
        let at = Where { program: "/usr/bin/xos".into(), home: home.into() };
        let file = dir.path().join("config");
        let asked = |written: &str| {
            std::fs::write(&file, written).unwrap();
            let out = Command::new("ssh").arg("-G").arg("-F").arg(&file).arg(CORE).output();
            match out {
                Ok(out) => String::from_utf8(out.stdout).unwrap(),
                Err(e) => panic!("these tests need OpenSSH's client: {e}"),
            }
        };
        let line = format!("globalknownhostsfile {GLOBAL}");
        let without = asked("");
        assert!(without.contains(&format!("{line}\n")), "{without}");
        let with = asked(&text(&at, &[CORE.to_owned()]));
        let want = without.replace(&line, &format!("{line} {home}/ssh/known_hosts"));
        assert_eq!(with, want);
        assert_eq!(asked(&text(&at, &["core.pisa.example".to_owned()])), without);
    }
}
