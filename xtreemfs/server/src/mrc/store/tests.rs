use super::starts::START_TIME_S;
use super::*;
use crate::mrc::index::{Index, STARTS_MAX};

/// A store whose log's thread is the test.
fn still() -> (tempfile::TempDir, Shared) {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    let (index, _) = folder.load().unwrap();
    (dir, Shared::new(folder, index, LOG_BYTES_CHECKPOINT))
}

fn put(shared: &Shared, value: u8) -> Durable {
    let change = Change::Put { key: b"key".to_vec(), value: vec![value] };
    let begun = shared.begin(|_| Ok((vec![change], ()))).unwrap();
    begun.1.expect("a change waits for the disk")
}

fn seen(shared: &Shared) -> (Option<Vec<u8>>, Option<Durable>) {
    shared.look(|index| Ok(index.value(b"key").map(<[u8]>::to_vec))).unwrap()
}

/// Else a capability is signed, or a repeated commit acknowledged, for what a crash or a full disk
/// takes back: whoever looked must wait for what it saw, also while that is being written.
#[test]
fn who_looks_waits_for_what_it_saw() {
    let (_dir, shared) = still();
    assert!(seen(&shared).1.is_none(), "nothing to wait for");
    let mut first = put(&shared, 1);
    let (value, mut queued) = seen(&shared);
    assert_eq!(value, Some(vec![1]));
    let batch = shared.next_batch();
    let mut written = seen(&shared).1.expect("it is being written");
    let nothing = shared.begin(|_| Ok((Vec::new(), ()))).unwrap().1;
    let mut nothing = nothing.expect("a decision to change nothing saw it as well");
    let queued = queued.as_mut().expect("it is queued");
    assert!(queued.try_recv().is_err() && written.try_recv().is_err());
    batch.into_iter().for_each(|pending| tell(pending.done, Ok(())));
    assert_eq!(first.try_recv().unwrap(), Ok(()));
    assert_eq!(queued.try_recv().unwrap(), Ok(()));
    // Those who came while it was written are told with the next batch.
    let batch = shared.next_batch();
    batch.into_iter().for_each(|pending| tell(pending.done, Ok(())));
    assert_eq!(written.try_recv().unwrap(), Ok(()));
    assert_eq!(nothing.try_recv().unwrap(), Ok(()));
    shared.queue().stop = true;
    assert!(shared.next_batch().is_empty());
    assert!(seen(&shared).1.is_none(), "all is on disk");
}

/// Else somebody is told that all is well with what was taken back.
#[test]
fn who_saw_what_is_taken_back_is_told() {
    let (_dir, shared) = still();
    let _first = put(&shared, 1);
    let mut queued = seen(&shared).1.unwrap();
    let batch = shared.next_batch();
    let mut written = seen(&shared).1.unwrap();
    shared.fail(batch, AppendError::Undone(io::ErrorKind::StorageFull.into()));
    assert_eq!(queued.try_recv().unwrap().unwrap_err().errno, Errno::ENOSPC);
    assert_eq!(written.try_recv().unwrap().unwrap_err().errno, Errno::ENOSPC);
    assert_eq!(seen(&shared).0, None, "it was taken back");
}

/// A number that was seen and whose file was taken back, or lost with the end of the log, must not
/// be given to another file: what was remembered or signed for the first would open the second.
#[test]
fn inode_numbers_are_given_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut given = std::collections::HashSet::new();
    for _ in 0..3 {
        // What a start gives is nowhere on the disk when the next one begins.
        let store = Store::open(dir.path(), LOG_BYTES_CHECKPOINT, Duration::ZERO).unwrap();
        for _ in 0..10 {
            let number = store.read(|index| index.new_inode()).unwrap();
            assert!(given.insert(number), "{number} was given twice");
        }
    }
    let mut index = MemIndex::default();
    index.number_from(STARTS_MAX - 1);
    let last = index.new_inode().unwrap();
    assert!(i64::try_from(last).is_ok(), "{last} is no inode number for Linux");
}

/// The objects of files that an old copy of the metadata does not know of are still there, with the
/// truncations they saw: their numbers must not be given again after it is restored, nor epochs
/// that the object servers take for older ones.
#[test]
fn a_restored_copy_goes_on_behind_what_it_does_not_know_of() {
    let day = |n: u64| Duration::from_secs(START_TIME_S + n * 86_400);
    let starts = |dir: &Path, day| {
        let store = Store::open(dir, LOG_BYTES_CHECKPOINT, day).unwrap();
        store.read(|index| (index.new_inode().unwrap(), index.first_epoch()))
    };
    let dir = tempfile::tempdir().unwrap();
    let (now, copy) = (dir.path().join("now"), dir.path().join("copy"));
    starts(&now, day(100));
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(&now).unwrap().map(|file| file.unwrap()) {
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let lost = [1, 2, 3].map(|_| starts(&now, day(101))).into_iter().max().unwrap();
    let restored = starts(&copy, day(102));
    assert!(restored.0 > lost.0 && restored.1 > lost.1, "{restored:?} after {lost:?}");
    // A clock that was set back, or runs far ahead, does no harm.
    let back = starts(&copy, Duration::ZERO);
    assert!(back.0 > restored.0 && back.1 > restored.1);
    starts(&copy, Duration::from_secs(u64::MAX));
    starts(&copy, Duration::from_secs(u64::MAX));
}
