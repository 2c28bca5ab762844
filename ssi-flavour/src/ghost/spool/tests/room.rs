//! The limits of room.

use super::super::quota::Room;
use super::super::spools::locked;
use super::*;
use std::io::Read;

const ENDED: Outcome = Outcome::Ended(End::Exit { code: 0 });
const SMALL: Limits = Limits { stream: 40, part: 10, person: 1 << 20, reserve: 0 };

/// A hundred bytes, no ten of which are the same.
fn hundred() -> String {
    (0..50).map(|n| format!("{n:02}")).collect()
}

/// A spool whose relay has sent so much that was not written yet.
fn filled(quota: &Arc<Quota>, folder: &Path, text: &str) -> Spool {
    let mut spool = Spool::open(folder, tree(1), [0, 0], quota, (OWNER, true)).unwrap();
    let mut relay = Machine::relay(tree(1), [0; 2], [0; 2]);
    let hello = relay.connected(false);
    relay.take(spool.connected()).unwrap();
    spool.machine.take(hello).unwrap();
    relay.out[0].push(text.as_bytes());
    while let Some(message) = relay.next_message() {
        spool.machine.take(message).unwrap();
    }
    spool
}

#[test]
fn the_oldest_of_what_nobody_follows_goes() {
    // wrong: `xos cluster run -d -- yes` would fill the node's disk and end all that runs there
    let dir = tempfile::tempdir().unwrap();
    let spools = Spools::within(dir.path(), SMALL);
    let text = hundred();
    assert_eq!(copy(&spools, 1, 0, &text), Served::Done);
    let mut guest = Guest::new(&spools, 1);
    let exit = guest.is_told(|c| matches!(c, Control::Exit { .. }));
    assert_eq!(exit, Control::Exit { exit: Exit::Code(0), ends: [100, 0] });
    assert_eq!(String::from_utf8_lossy(&guest.got), &text[60..]);
    let begins = Control::Begins { stream: Stream::Output, offset: 60 };
    assert!(guest.told.contains(&begins), "{:?}", guest.told);
    // Also for a node's program that is started anew.
    let spools = Spools::within(dir.path(), SMALL);
    assert_eq!(copy(&spools, 2, 90, &format!("{}more", &text[90..])), Served::Done);
    let piece = spools.read(ID, false, 98, 99).unwrap();
    assert_eq!((piece.bytes.as_slice(), piece.end), (&b"49"[..], false));
    assert_eq!(spools.read(ID, false, 100, 99).unwrap().bytes, b"more");
    assert_eq!(spools.read(ID, false, 0, 9).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn what_somebody_follows_waits_for_them() {
    // wrong: `xos cluster run c1 -- ./generate | less` would skip some of it
    let dir = tempfile::tempdir().unwrap();
    let quota = Arc::new(Quota::new(dir.path().to_owned(), SMALL));
    let mut spool = filled(&quota, &dir.path().join("7"), &hundred());
    spool.follows = Some([5, 0]);
    let before = spool.towards_relay();
    spool.write().unwrap();
    assert_eq!((spool.begins(), spool.written(), spool.stalled), ([0; 2], [40, 0], [true, false]));
    assert_ne!(spool.towards_relay(), before, "the relay is woken when this changes");
    spool.follows = Some([20, 0]);
    spool.write().unwrap();
    assert_eq!((spool.begins(), spool.written()), ([20, 0], [60, 0]));
    // They leave.
    spool.follows = None;
    spool.write().unwrap();
    assert_eq!((spool.begins(), spool.written(), spool.stalled), ([60, 0], [100, 0], [false; 2]));
}

#[test]
fn who_goes_away_lets_the_program_go_on() {
    // wrong: a program would wait for ever for somebody whose laptop is closed
    let dir = tempfile::tempdir().unwrap();
    let spools = Spools::within(dir.path(), SMALL);
    let mut spool = filled(&spools.quota, &spools.folder(ID), &hundred());
    spool.follows = Some([0, 0]);
    let shared = spools.state(ID);
    let (one, _other) = UnixStream::pair().unwrap();
    let wake = Arc::new(crate::ghost::wake::Wake::new().unwrap());
    let mut state = locked(&shared);
    let who = GhostId { number: 1, again: false, late: false };
    let number = state.admit(who, &one, &wake).unwrap().unwrap();
    state.spool = Some(spool);
    state.leave_guest(number + 1);
    assert!(state.spool.as_ref().unwrap().follows.is_some(), "another one is gone");
    state.leave_guest(number);
    assert!(state.spool.as_ref().unwrap().follows.is_none());
}

#[test]
fn what_is_wanted_whole_is_not_cut() {
    // wrong: `xout` could read nothing of a unit that wrote a lot, or would skip some silently
    let dir = tempfile::tempdir().unwrap();
    let spools = Spools::within(dir.path(), SMALL);
    spools.begin(ID, OWNER, true).unwrap();
    copy(&spools, 1, 0, &hundred());
    let piece = spools.read(ID, false, 0, 99).unwrap();
    assert_eq!(String::from_utf8(piece.bytes).unwrap(), &hundred()[..40]);
    let shared = spools.state(ID);
    assert_eq!(locked(&shared).spool.as_ref().unwrap().kept.refused, [true, false]);
}

#[test]
fn one_person_has_so_much_room_and_others_theirs() {
    // wrong: one member could push out what all others have, or fill the disk with many programs
    let dir = tempfile::tempdir().unwrap();
    let spools = Spools::within(dir.path(), Limits { stream: 100, person: 50, ..SMALL });
    let text = hundred();
    let run = |id: u64, uid: u32| {
        spools.begin(id, uid, false).unwrap();
        assert_eq!(copy_of(&spools, Tree { id, epoch: 1 }, 0, &text[..40]), Served::Done);
        spools.finish(id, &ENDED).unwrap();
    };
    run(8, OWNER);
    run(9, OWNER + 1);
    assert!(spools.folder(8).exists());
    run(10, OWNER);
    assert!(!spools.folder(8).exists(), "the oldest of theirs went");
    let part = |id, from| spools.read(id, false, from, 99).unwrap().bytes;
    assert_eq!(part(10, 30), &text.as_bytes()[30..40], "its end is kept");
    assert_eq!(part(9, 0), &text.as_bytes()[..10]);
}

#[test]
fn a_disk_that_is_short_keeps_its_reserve() {
    // wrong: output would take the room that the node's program needs to go on
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { reserve: 100, ..SMALL };
    assert!(limits.is_short(99, 1 << 20) && !limits.is_short(100, 1 << 20));
    assert!(limits.is_short(9, 200) && !limits.is_short(10, 200), "of a small disk less");
    let free = Quota::new(dir.path().to_owned(), SMALL).room(OWNER);
    assert_eq!(free, Room { part: 10, parts: 4 });
    let quota = Quota::new(dir.path().to_owned(), Limits { person: 9, ..SMALL });
    quota.add(OWNER, 10);
    let parts = |owner| quota.room(owner).parts;
    assert_eq!((parts(OWNER), parts(OWNER + 1)), (2, 4));
    quota.sub(OWNER, 5);
    assert_eq!(parts(OWNER), 4);
}

#[test]
fn nobody_takes_all_places_of_who_follows() {
    // wrong: one member could keep all others of a node from their programs
    let dir = tempfile::tempdir().unwrap();
    let spools = Spools::new(dir.path());
    let counted: Vec<_> = (0..OWN_GUESTS_MAX).map(|_| spools.places.take(OWNER).unwrap()).collect();
    assert!(spools.places.take(OWNER).is_err());
    let other = spools.places.take(OWNER + 1).unwrap();
    drop(counted);
    spools.places.take(OWNER).unwrap();
    drop(other);
    // Nor by saying nothing.
    let (one, mut silent) = UnixStream::pair().unwrap();
    spools.attach(ID, OWNER, one).unwrap();
    let (two, _other) = UnixStream::pair().unwrap();
    spools.attach(ID, OWNER, two).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0, "hung up");
}
