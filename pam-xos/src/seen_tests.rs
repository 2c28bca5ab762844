use super::*;
use proptest::prelude::*;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

const NOW: Millis = Millis(1_000_000);
const UID: u32 = 1_879_048_202;

/// A folder with a record; its owner is who runs the test.
fn folder(content: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    put(&dir, content);
    dir
}

fn put(dir: &tempfile::TempDir, content: &[u8]) {
    fs::write(record(dir), content).unwrap();
    fs::set_permissions(record(dir), Permissions::from_mode(0o600)).unwrap();
}

fn record(dir: &tempfile::TempDir) -> std::path::PathBuf {
    dir.path().join(UID.to_string())
}

fn me() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn ask(dir: &tempfile::TempDir) -> Result<Millis, NotSeen> {
    until(dir.path(), me(), UID, NOW)
}

/// If it failed, people would be locked out while the daemon is restarted, or stay in after the end
/// of their membership.
#[test]
fn a_record_counts_until_its_time() {
    let dir = folder(b"1000001");
    assert_eq!(ask(&dir).unwrap(), Millis(1_000_001));
    put(&dir, b"1000001\n");
    assert_eq!(ask(&dir).unwrap(), Millis(1_000_001));
    put(&dir, b"1000000");
    assert!(matches!(ask(&dir), Err(NotSeen::Ended(NOW))));
    fs::remove_file(record(&dir)).unwrap();
    assert!(matches!(ask(&dir), Err(NotSeen::Never)));
    let nowhere = until(&dir.path().join("none"), me(), UID, NOW);
    assert!(matches!(nowhere, Err(NotSeen::Never)));
}

/// If it failed, somebody who can write one file could let themselves in.
#[test]
fn what_others_could_have_made_is_not_believed() {
    let refused = |dir: &tempfile::TempDir, what: &str| {
        assert!(matches!(ask(dir), Err(NotSeen::NotTrusted(_))), "{what}: {:?}", ask(dir));
    };
    let dir = folder(b"2000000");
    for mode in [0o620, 0o602, 0o666] {
        fs::set_permissions(record(&dir), Permissions::from_mode(mode)).unwrap();
        refused(&dir, "writable by others");
    }
    fs::set_permissions(record(&dir), Permissions::from_mode(0o600)).unwrap();
    assert!(ask(&dir).is_ok());
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    refused(&dir, "a folder that others may write to");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    let stranger = until(dir.path(), me() + 1, UID, NOW);
    assert!(matches!(stranger, Err(NotSeen::NotTrusted(_))), "{stranger:?}");

    // The record itself is good, and somebody put a link to it.
    let other = dir.path().join("other");
    fs::rename(record(&dir), &other).unwrap();
    symlink(&other, record(&dir)).unwrap();
    refused(&dir, "a link");
    let around = tempfile::tempdir().unwrap();
    let linked = around.path().join("seen");
    symlink(dir.path(), &linked).unwrap();
    let through = until(&linked, me(), UID, NOW);
    assert!(matches!(through, Err(NotSeen::NotTrusted(_))), "{through:?}");

    fs::remove_file(record(&dir)).unwrap();
    fs::create_dir(record(&dir)).unwrap();
    refused(&dir, "a folder");
    fs::remove_dir(record(&dir)).unwrap();
    let fifo = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::unistd::mkfifo(&record(&dir), fifo).unwrap();
    refused(&dir, "a pipe, which would wait for ever");
}

/// If it failed, a person's own file would let them in.
#[test]
fn a_record_of_another_owner_is_not_believed() {
    if me() != 0 {
        println!("skipped: giving a file away needs root");
        return;
    }
    let dir = folder(b"2000000");
    chown(record(&dir), Some(UID), None).unwrap();
    assert!(matches!(ask(&dir), Err(NotSeen::NotTrusted(_))));
}

/// If it failed, a half-written record would count.
#[test]
fn what_is_no_number_is_refused() {
    for bad in [
        &b""[..],
        b"\n",
        b"+2000000",
        b"-2000000",
        b" 2000000",
        b"2000000 ",
        b"2000000\n\n",
        b"2000000\n1",
        b"0x7fffffff",
        b"18446744073709551616",
        b"000000000000000000002000000",
        b"\xff",
        b"2000000\0",
    ] {
        let dir = folder(bad);
        assert!(matches!(ask(&dir), Err(NotSeen::NotTrusted(_))), "{bad:?}: {:?}", ask(&dir));
    }
}

proptest! {
    /// If it failed, some bytes would crash the host, or count as a time that nobody wrote.
    #[test]
    fn only_the_digits_of_a_time_count(
        content in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "[0-9+\\- \n]{0,24}".prop_map(String::into_bytes),
        ],
        time in any::<u64>(),
    ) {
        if let Some(Millis(read)) = parse(&content) {
            let text = std::str::from_utf8(&content).unwrap();
            let digits = text.strip_suffix('\n').unwrap_or(text);
            prop_assert!(digits.bytes().all(|b| b.is_ascii_digit()));
            prop_assert_eq!(digits.parse::<u64>().unwrap(), read);
        }
        prop_assert_eq!(parse(time.to_string().as_bytes()), Some(Millis(time)));
        prop_assert_eq!(parse(format!("{time}\n").as_bytes()), Some(Millis(time)));
    }
}
