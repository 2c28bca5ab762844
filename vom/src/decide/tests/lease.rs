//! How long a VO goes on where nothing is heard.

use super::*;
use xos_api::vom::{GRACE_S_DEFAULT, GRACE_S_MAX, LEASE_S_DEFAULT, LEASE_S_MAX, LEASE_S_MIN};

/// If it failed, anybody could have a VO's work held everywhere by a short lease, or let those who
/// were removed go on for good by a long one.
#[test]
fn administrators_set_the_lease_within_bounds() {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &[]);
    h.join("carol@pisa", &["admin"]);
    let lease = |lease_s| Command::SetLease { lease_s, base: None };
    assert_eq!(h.vo.lease_s(), LEASE_S_DEFAULT);
    assert_eq!(h.kind("bob@pisa", lease(7200)), Kind::Denied);
    let site_admin =
        Subject::Person { person: id("root@rennes"), site_admin: true, carried: Carried::All };
    assert_eq!(h.run(&site_admin, lease(7200)).unwrap_err().kind, Kind::Denied);
    assert_eq!(h.run(&Subject::Core(id("pisa")), lease(7200)).unwrap_err().kind, Kind::Denied);
    for bad in [0, LEASE_S_MIN - 1, LEASE_S_MAX + 1, u64::MAX] {
        let e = h.run(&person("alice@rennes"), lease(bad)).unwrap_err();
        assert_eq!(e.kind, Kind::Invalid, "{bad}");
        assert!(e.to_string().contains("from 5 min to 7 d"), "{e}");
    }
    for good in [LEASE_S_MIN, LEASE_S_MAX] {
        h.ok("carol@pisa", lease(good));
        assert_eq!(h.vo.lease_s(), good);
    }
    assert!(!h.run(&person("alice@rennes"), lease(LEASE_S_MAX)).unwrap(), "no second entry");
}

/// If it failed, a site could not read the checkpoints that it wrote before there were leases.
#[test]
fn a_checkpoint_without_a_lease_is_read() {
    let h = Home::new(&policy());
    let text = serde_json::to_string(&h.vo).unwrap();
    assert!(!text.contains("lease"));
    assert_eq!(serde_json::from_str::<Vo>(&text).unwrap(), h.vo);
}

/// If it failed, anybody could have held work ended at once by a cut of the network, or kept
/// waiting for good for members who were removed.
#[test]
fn administrators_set_the_grace_within_bounds() {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &[]);
    h.join("carol@pisa", &["admin"]);
    let grace = |grace_s| Command::SetGrace { grace_s, base: None };
    assert_eq!(h.vo.grace_s(), GRACE_S_DEFAULT);
    assert_eq!(h.kind("bob@pisa", grace(7200)), Kind::Denied);
    assert_eq!(h.run(&Subject::Core(id("pisa")), grace(7200)).unwrap_err().kind, Kind::Denied);
    for bad in [GRACE_S_MAX + 1, u64::MAX] {
        assert_eq!(h.kind("alice@rennes", grace(bad)), Kind::Invalid, "{bad}");
    }
    for good in [0, GRACE_S_MAX] {
        h.ok("carol@pisa", grace(good));
        assert_eq!(h.vo.grace_s(), good);
    }
    assert!(!h.run(&person("alice@rennes"), grace(GRACE_S_MAX)).unwrap(), "no second entry");
}
