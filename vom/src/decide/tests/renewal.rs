//! For how long after a sign-in a VO's credentials are renewed.

use super::*;
use xos_api::vom::{RENEWAL_S_DEFAULT, RENEWAL_S_MAX, RENEWAL_S_MIN};

/// If it failed, anybody could let a thief renew what they stole for longer than the VO wants, or
/// make everybody sign in again and again.
#[test]
fn administrators_set_the_renewal_within_bounds() {
    let mut h = Home::new(&policy());
    h.join("bob@pisa", &[]);
    h.join("carol@pisa", &["admin"]);
    let renewal = |renewal_s| Command::SetRenewal { renewal_s, base: None };
    assert_eq!(h.vo.renewal_s(), RENEWAL_S_DEFAULT);
    assert_eq!(h.kind("bob@pisa", renewal(7200)), Kind::Denied);
    let site_admin =
        Subject::Person { person: id("root@rennes"), site_admin: true, carried: Carried::All };
    assert_eq!(h.run(&site_admin, renewal(7200)).unwrap_err().kind, Kind::Denied);
    assert_eq!(h.run(&Subject::Core(id("pisa")), renewal(7200)).unwrap_err().kind, Kind::Denied);
    for bad in [0, RENEWAL_S_MIN - 1, RENEWAL_S_MAX + 1, u64::MAX] {
        assert_eq!(h.kind("alice@rennes", renewal(bad)), Kind::Invalid, "{bad}");
    }
    for good in [RENEWAL_S_MIN, RENEWAL_S_MAX] {
        h.ok("carol@pisa", renewal(good));
        assert_eq!(h.vo.renewal_s(), good);
    }
    assert!(!h.run(&person("alice@rennes"), renewal(RENEWAL_S_MAX)).unwrap(), "no second entry");
}

/// If it failed, a site could not read the checkpoints that it wrote before this could be set.
#[test]
fn a_checkpoint_without_a_renewal_is_read() {
    let h = Home::new(&policy());
    let text = serde_json::to_string(&h.vo).unwrap();
    assert!(!text.contains("renewal"));
    assert_eq!(serde_json::from_str::<Vo>(&text).unwrap(), h.vo);
}
