use super::*;
use crate::agent::testing::{self, account};
use proptest::prelude::*;
use ssh_key::certificate::Builder;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{PrivateKey, PublicKey};
use xos_base::{Epoch, MemberNumber};

const NOW: u64 = 1_000_000;

fn key(seed: u8) -> PrivateKey {
    PrivateKey::new(KeypairData::from(Ed25519Keypair::from_seed(&[seed; 32])), "").unwrap()
}

fn public(seed: u8) -> [u8; 32] {
    Ed25519Keypair::from_seed(&[seed; 32]).public.0
}

/// Ann's, with a role: a certificate carries one too.
fn membership() -> Membership {
    Membership { roles: vec!["tester".parse().unwrap()], ..testing::membership() }
}

/// What a certificate is to be; the default is a good one.
struct Wanted {
    authority: u8,
    life: (u64, u64),
    kind: CertType,
    principals: Vec<&'static str>,
    critical: Option<&'static str>,
    membership: Option<Membership>,
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted {
            authority: 1,
            life: (NOW - 100, NOW + 100),
            kind: CertType::User,
            principals: vec!["ann@rennes/demo.rennes"],
            critical: None,
            membership: Some(membership()),
        }
    }
}

fn info(w: Wanted) -> String {
    let person = key(9);
    let subject: &PublicKey = person.public_key();
    let (after, before) = w.life;
    let mut b = Builder::new([5u8; 16], subject.key_data().clone(), after, before).unwrap();
    b.cert_type(w.kind).unwrap();
    for p in w.principals {
        b.valid_principal(p).unwrap();
    }
    if let Some(name) = w.critical {
        b.critical_option(name, "x").unwrap();
    }
    if let Some(m) = w.membership {
        b.extension(SSH_MEMBERSHIP, STANDARD.encode(m.to_der().unwrap())).unwrap();
    }
    b.extension("permit-pty", "").unwrap();
    format!("publickey {}\n", b.sign(&key(w.authority)).unwrap().to_openssh().unwrap())
}

fn check(info: &str) -> Result<Option<Proved>, Error> {
    proved(info, &account(), &[public(3), public(1)], Millis::from_secs(NOW))
}

/// If it failed, nobody would get their roles and their ticket at a login.
#[test]
fn a_good_certificate_proves_the_membership() {
    let proved = check(&info(Wanted::default())).unwrap().unwrap();
    assert_eq!(proved.membership, membership());
    assert_eq!(proved.until, Millis::from_secs(NOW + 100));
    let newer = Membership { epoch: Epoch(5), ..membership() };
    let ahead = Wanted { membership: Some(newer), ..Wanted::default() };
    assert!(check(&info(ahead)).is_ok(), "the accounts come a moment later");
}

/// If it failed, people who come by a password or by `su` could not sign in.
#[test]
fn who_comes_without_a_certificate_proves_nothing() {
    let plain = key(9).public_key().to_openssh().unwrap();
    for info in ["", "password\n", &format!("publickey {plain}\n"), "publickey\n", "publickey x\n"]
    {
        assert_eq!(check(info).unwrap(), None, "{info:?}");
    }
}

/// If it failed, a hostile site, a thief or a person who was narrowed would get rights that the
/// VO's home did not give them.
#[test]
fn each_flaw_is_refused() {
    let with = |m: Membership| Wanted { membership: Some(m), ..Wanted::default() };
    let flaws = [
        ("another authority", Wanted { authority: 2, ..Wanted::default() }),
        ("expired", Wanted { life: (NOW - 100, NOW), ..Wanted::default() }),
        ("not yet valid", Wanted { life: (NOW + 1, NOW + 100), ..Wanted::default() }),
        ("a machine's", Wanted { kind: CertType::Host, ..Wanted::default() }),
        ("another principal", Wanted { principals: vec!["root"], ..Wanted::default() }),
        (
            "two principals",
            Wanted { principals: vec!["ann@rennes/demo.rennes", "root"], ..Wanted::default() },
        ),
        ("an option", Wanted { critical: Some("verify-required"), ..Wanted::default() }),
        ("no membership", Wanted { membership: None, ..Wanted::default() }),
        ("another VO", with(Membership { vo: "demo.pisa".parse().unwrap(), ..membership() })),
        (
            "another person",
            with(Membership { person: "eve@rennes".parse().unwrap(), ..membership() }),
        ),
        ("another number", with(Membership { number: MemberNumber(8), ..membership() })),
        ("an old epoch", with(Membership { epoch: Epoch(3), ..membership() })),
    ];
    for (flaw, wanted) in flaws {
        let e = check(&info(wanted)).expect_err(flaw);
        assert_eq!(e.kind, xos_base::Kind::Denied, "{flaw}");
    }
}

/// If it failed, whoever changes a letter of a certificate would choose their own rights.
#[test]
fn a_changed_certificate_is_refused() {
    let good = info(Wanted::default());
    let start = good.find("AAAA").unwrap();
    let truth = check(&good).unwrap();
    // Without the last letters, whose spare bits base64 may not mind.
    for i in (start..good.len() - 6).step_by(3) {
        let mut bytes = good.clone().into_bytes();
        bytes[i] = if bytes[i] == b'B' { b'C' } else { b'B' };
        let text = String::from_utf8(bytes).unwrap();
        // The reader does not mind the length of a key's field, whose length is known.
        if let Ok(proved) = check(&text) {
            assert_eq!(proved, truth, "changed at {i} and accepted as another");
        }
    }
}

/// If it failed, sshd's files would name keys that are not the site's.
#[test]
fn a_key_is_written_as_openssh_writes_it() {
    let line = key(1).public_key().to_openssh().unwrap();
    assert_eq!(format!("ssh-ed25519 {}", key_text(&public(1))), line.trim_end());
}

proptest! {
    /// A panic here would let a person's client end the node's daemon.
    #[test]
    fn garbage_is_refused(text in ".{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let key = STANDARD.encode(&bytes);
        for info in [text.clone(), format!("publickey ssh-ed25519{CERTIFICATE_TYPE} {key}")] {
            prop_assert!(!matches!(check(&info), Ok(Some(_))));
        }
    }
}
