//! What a VO is called and what it is for, and two who change settings at once.

use super::*;
use xos_api::vom::{DESCRIPTION_MAX, TITLE_MAX};

fn describe(title: &str, description: &str, base: Option<u64>) -> Command {
    Command::DescribeVo { title: title.into(), description: description.into(), base }
}

/// If it failed, anybody could call the VO what they like, or its administrators not mend a title
/// that is wrong.
#[test]
fn administrators_change_title_and_description() {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &[]);
    h.join("carol@pisa", &["admin"]);
    let site_admin =
        Subject::Person { person: id("root@rennes"), site_admin: true, carried: Carried::All };
    assert_eq!(h.kind("bob@pisa", describe("Bob's", "", None)), Kind::Denied);
    assert_eq!(h.run(&site_admin, describe("Ours", "", None)).unwrap_err().kind, Kind::Denied);
    let (title, description) = ("x".repeat(TITLE_MAX + 1), "x".repeat(DESCRIPTION_MAX + 1));
    for (title, description) in
        [(title.as_str(), ""), ("two\nlines", ""), ("Demo", description.as_str())]
    {
        assert_eq!(h.kind("alice@rennes", describe(title, description, None)), Kind::Invalid);
    }
    h.ok("carol@pisa", describe("Phantoms", "Simulated\npictures.", None));
    assert_eq!(
        (h.vo.title.as_str(), h.vo.description.as_str()),
        ("Phantoms", "Simulated\npictures.")
    );
    let again = describe("Phantoms", "Simulated\npictures.", None);
    assert!(!h.run(&person("alice@rennes"), again).unwrap(), "no second entry");
}

/// If it failed, one administrator would undo what another set a moment ago, and neither would know.
#[test]
fn the_second_of_two_who_change_settings_is_told() {
    let mut h = Home::new(&policy());
    h.join("carol@pisa", &["admin"]);
    assert_eq!(h.vo.settings, 0);
    let seen = Some(h.vo.settings);
    h.ok("carol@pisa", Command::SetLease { lease_s: 900, base: seen });
    assert_eq!(h.vo.settings, h.vo.number);
    for late in [
        describe("Phantoms", "", seen),
        Command::SetLease { lease_s: 1800, base: seen },
        Command::SetGrace { grace_s: 60, base: seen },
        Command::SetRenewal { renewal_s: 7200, base: seen },
        Command::SetReminders { days: vec![5], base: seen },
        Command::SetFileAudit { opens: true, base: seen },
    ] {
        let e = h.run(&person("alice@rennes"), late.clone()).unwrap_err();
        assert_eq!(e.kind, Kind::Conflict, "{late:?}: {e}");
    }
    assert!(
        !h.run(&person("alice@rennes"), Command::SetLease { lease_s: 900, base: seen }).unwrap()
    );
    // Who looks again goes on, and other changes of the VO do not stand in the way.
    let seen = Some(h.vo.settings);
    h.ok("carol@pisa", Command::CreateGroup { name: id("physics") });
    h.ok("alice@rennes", Command::SetReminders { days: vec![5], base: seen });
    h.ok("alice@rennes", describe("Phantoms", "", Some(h.vo.settings)));
}
