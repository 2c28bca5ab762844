//! Files that were moved to an archive.

use super::*;

/// If it failed, a core whose disk is small could never make room; or whoever moves files away
/// could have anything stand for them.
#[tokio::test]
async fn what_is_archived_is_followed_by_what_is_here() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1000);
    fill(&log, 1, 30).await;
    let old = files(dir.path()).remove(0);
    let last = fs::read_to_string(&old.path).unwrap().lines().last().unwrap().to_owned();
    let number = files(dir.path())[1].first - 1;
    fs::remove_file(&old.path).unwrap();
    let verified = || log.check(None, Vec::new()).unwrap();
    assert_eq!(verified().faults[0].kind, FaultKind::Missing, "nobody said that it is archived");
    let write = |hash: &str| {
        let text = format!(r#"{{"number": {number}, "hash": "{hash}"}}"#);
        fs::write(dir.path().join("archived.json"), text).unwrap();
    };
    write(&hash(last.as_bytes()));
    let mut check = verified();
    while let Some(from) = check.next.take() {
        assert_eq!(check.faults, []);
        check = log.check(Some(&from), Vec::new()).unwrap();
    }
    assert_eq!((check.faults.as_slice(), check.archived), (&[][..], number));
    assert_eq!(first_fault(dir.path(), &[]), None);
    // What others witnessed of the last line that is archived still counts.
    let by = "pisa".parse().unwrap();
    let seen = [Witness { by, number, hash: "other".into() }];
    assert_eq!(first_fault(dir.path(), &seen).unwrap().2, FaultKind::Rewritten);
    assert!(!everything(&log).is_empty(), "a search ends where files were moved away");
    write("another");
    assert_eq!(verified().faults[0].kind, FaultKind::Altered);
    drop(log);
    let log = open(dir.path(), 1000);
    fill(&log, 31, 1).await;
    assert_eq!(log.end().number, 31);
}
