//! The folder of keys: made once, kept, never silently replaced.

use super::*;
use crate::issue;
use rcgen::KeyPair;
use rustls_pki_types::pem::PemObject;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};
use xos_net::Trust;
use xos_net::key::LocalKey;
use xos_net::trust::{Subject, Usage, core_name};

fn now() -> Millis {
    Millis::of(SystemTime::now())
}

fn site() -> SiteId {
    "rennes".parse().unwrap()
}

fn open(dir: &Path, names: &[&str], at: Millis) -> Result<SiteKeys, Error> {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    SiteKeys::create_or_open(dir, &site(), &names, None, at)
}

#[test]
fn a_restart_keeps_keys_and_files_are_for_the_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), &["localhost"], now()).unwrap();
    let again = open(dir.path(), &["localhost"], now()).unwrap();
    assert_eq!(first.fingerprint(), again.fingerprint());
    assert_eq!(first.signer().public(), again.signer().public());
    assert_eq!(first.core_identity().get().chain(), again.core_identity().get().chain());
    let folder = dir.path().join(FOLDER);
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    for file in fs::read_dir(&folder).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
}

#[test]
fn the_cores_chain_holds_under_the_root_and_names_the_core() {
    let dir = tempfile::tempdir().unwrap();
    let keys = open(dir.path(), &["localhost", "127.0.0.1", "::1"], now()).unwrap();
    let trust = Trust::new();
    trust.add(keys.descriptor(vec![])).unwrap();
    let identity = keys.core_identity().get();
    for usage in [Usage::Client, Usage::Server] {
        let subject = trust.verify_chain(identity.chain(), usage, now()).unwrap();
        assert_eq!(subject, Subject::Core(site()));
    }
}

#[test]
fn a_missing_readable_or_foreign_file_is_refused() {
    let others = [Role::Root.file(), CORE_FILE];
    for role in others.into_iter().chain(Purpose::ALL.map(Purpose::file)) {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), &[], now()).unwrap();
        let file = dir.path().join(FOLDER).join(role);
        let mut open_to_all = fs::metadata(&file).unwrap().permissions();
        open_to_all.set_mode(0o644);
        fs::set_permissions(&file, open_to_all).unwrap();
        let e = open(dir.path(), &[], now()).err().unwrap();
        assert!(e.message.contains("read by others"), "{e}");
        fs::remove_file(&file).unwrap();
        let e = open(dir.path(), &[], now()).err().unwrap();
        assert!(e.to_string().contains("restore"), "without {role}: {e}");
    }
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), &[], now()).unwrap();
    let pisa = "pisa".parse().unwrap();
    assert!(SiteKeys::create_or_open(dir.path(), &pisa, &[], None, now()).is_err());
}

#[test]
fn a_set_up_that_was_cut_off_is_made_again_from_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(FOLDER_NEW)).unwrap();
    fs::write(dir.path().join(FOLDER_NEW).join("root.pem"), "half a key").unwrap();
    open(dir.path(), &[], now()).unwrap();
    assert!(!dir.path().join(FOLDER_NEW).exists());
}

#[test]
fn the_core_is_renewed_at_two_thirds_and_when_its_names_change() {
    let dir = tempfile::tempdir().unwrap();
    let start = now();
    let keys = open(dir.path(), &["localhost"], start).unwrap();
    let cell = keys.core_identity();
    let first = cell.get();
    assert!(!keys.renew_if_due(start.plus(CORE_LIFE / 2)).unwrap());
    assert!(keys.renew_if_due(start.plus(CORE_LIFE * 3 / 4)).unwrap());
    let second = cell.get();
    assert_ne!(first.chain(), second.chain(), "the cell must show the new certificate");
    let other = open(dir.path(), &["localhost", "grid.example"], start).unwrap();
    assert_ne!(other.core_identity().get().chain(), second.chain());
    assert_eq!(other.fingerprint(), keys.fingerprint());
}

#[test]
fn authorities_are_renewed_with_their_keys() {
    // People's certificates that are in use must hold on under the renewed authority.
    let dir = tempfile::tempdir().unwrap();
    let start = now();
    let keys = open(dir.path(), &[], start).unwrap();
    let (old_people, old_machines) = (keys.people(), keys.machines());
    let later = start.plus(Duration::from_secs(600 * 24 * 3600));
    assert!(keys.renew_if_due(later).unwrap());
    assert_ne!(keys.people().der, old_people.der);
    assert_eq!(keys.people().issuer.key().public(), old_people.issuer.key().public());
    assert!(keys.machines().span.until > old_machines.span.until);
    let trust = Trust::new();
    trust.add(keys.descriptor(vec![])).unwrap();
    let chain = keys.core_identity().get();
    trust.verify_chain(chain.chain(), Usage::Server, later).unwrap();
    let again = open(dir.path(), &[], later).unwrap();
    assert_eq!(again.people().der, keys.people().der);
}

/// If it failed, replacing a key would void every SSH certificate and JWT that is in use.
#[test]
fn a_key_put_first_signs_and_the_others_still_count() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), &[], now()).unwrap();
    let known = |keys: &SiteKeys| {
        let trust = Trust::new();
        trust.add(keys.descriptor(vec![])).unwrap();
        trust.ssh_keys(&site()).unwrap()
    };
    let before = known(&first);
    assert_eq!((before.people.len(), before.machines.len(), first.jwks().len()), (1, 1, 1));
    assert_ne!(before.people, before.machines, "one key for two purposes");
    let folder = dir.path().join(FOLDER);
    let put_first = |file: &str, key: &[u8]| {
        let old = fs::read_to_string(folder.join(file)).unwrap();
        fs::write(folder.join(file), format!("{}{old}", pem("PRIVATE KEY", key))).unwrap();
    };
    for purpose in [Purpose::SshPeople, Purpose::SshMachines, Purpose::Jwt] {
        put_first(purpose.file(), &LocalKey::generate(purpose.kind()).unwrap());
    }
    let later = open(dir.path(), &[], now()).unwrap();
    let after = known(&later);
    for (old, new, signs) in [
        (&before.people, &after.people, later.ssh_people()),
        (&before.machines, &after.machines, later.ssh_machines()),
    ] {
        assert_eq!(new.len(), 2);
        assert_eq!(new[1], old[0], "the old key is forgotten");
        assert_eq!(STANDARD.encode(new[0]), signs.public());
    }
    assert_eq!(later.jwks()[1..], first.jwks());
    assert_eq!(&later.jwks()[0], later.jwt().public());
    let file = Purpose::Jwt.file();
    fs::write(folder.join(file), "").unwrap();
    let e = open(dir.path(), &[], now()).err().unwrap();
    assert!(e.message.contains(file), "{e}");
}

#[test]
fn names_that_xos_gives_out_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(open(dir.path(), &["core.pisa.xos.internal"], now()).is_err());
    assert!(open(dir.path(), &["not a name"], now()).is_err());
}

#[test]
fn the_peoples_authority_cannot_sign_for_a_machine() {
    // Who got hold of it could else stand for the core.
    let dir = tempfile::tempdir().unwrap();
    let keys = open(dir.path(), &[], now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let until = now().plus(Duration::from_secs(3600));
    let name = core_name(&site());
    let forged = issue::machine(&keys.people(), &name, &[], &key, (now(), until)).unwrap();
    let chain: Vec<_> = CertificateDer::pem_slice_iter(forged.chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap();
    let trust = Trust::new();
    trust.add(keys.descriptor(vec![])).unwrap();
    for usage in [Usage::Client, Usage::Server] {
        trust.verify_chain(&chain, usage, now()).unwrap_err();
    }
}
