use super::super::spools::{Spools, locked};
use super::*;
use crate::cell::proto::Tree;
use crate::cluster::messages::Stretch;
use crate::ghost::spool::{Follow, Limits, Piece, receive};

const UID: u32 = 100_001;
const TREE: u64 = 7;

fn at(out: u64) -> Offsets {
    Offsets { out, err: 0 }
}

fn line(number: u64, fork: u64) -> Line {
    Line { number, fork: at(fork) }
}

/// A node whose spool of the tree has this output, which begins at an offset.
fn node(from: u64, text: &str) -> (tempfile::TempDir, Spools) {
    let dir = tempfile::tempdir().unwrap();
    let spools = Spools::new(dir.path());
    if !text.is_empty() {
        let folder = spools.folder(TREE);
        std::fs::create_dir(&folder).unwrap();
        let (epoch, exit, refused, owner) = (1, None, [false; 2], UID);
        let kept = Kept { epoch, from: [from, 0], exit, refused, owner, line: 0 };
        keep(&folder, &kept, false).unwrap();
        std::fs::write(folder.join(OUTPUT_FILE), text).unwrap();
    }
    (dir, spools)
}

/// Has one node fetch from another one what lacks of a line up to an offset.
fn fetch(to: &Spools, from: &Spools, line: Line, upto: u64) -> io::Result<()> {
    let second = to.second(TREE, UID)?;
    locked(&second).take_line(line)?;
    let lacks = locked(&second).lacks(at(upto));
    if let Some((begin, upto)) = lacks {
        let mut sent = Vec::new();
        let ask = Stretch { from: begin, upto, line };
        from.send(TREE, &ask, &mut sent)?;
        receive(&second, &ask, &mut &sent[..])?;
    }
    let mut second = locked(&second);
    second.join()?;
    second.settle(at(upto))
}

fn text(spools: &Spools, from: u64) -> String {
    let Piece { bytes, .. } = spools.read(TREE, false, from, 1 << 20).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn adopt(spools: &Spools, from: u64) -> bool {
    spools.adopt(Tree { id: TREE, epoch: 2 }, [from, 0], 1).unwrap()
}

#[test]
fn what_is_kept_becomes_the_spool_also_after_a_new_start() {
    // wrong: what a program wrote would be gone with its node though a checkpoint is elsewhere
    let (_birth, birth) = node(0, "abcdefgh");
    let (dir, other) = node(0, "");
    fetch(&other, &birth, line(0, 0), 3).unwrap();
    fetch(&other, &birth, line(0, 0), 5).unwrap();
    assert_eq!(text(&other, 0), "", "it is nobody's spool yet");
    let other = Spools::new(dir.path());
    assert!(adopt(&other, 5));
    assert_eq!(text(&other, 0), "abcde");
    assert!(other.seconds().unwrap().is_empty());
}

#[test]
fn only_what_lacks_is_fetched_and_from_who_keeps_it_too() {
    // wrong: with each checkpoint all output would go over the network; or with its spool's node
    // all copies would be of no use
    let (_birth, birth) = node(0, "abcdefgh");
    let (_two, two) = node(0, "");
    let (_three, three) = node(0, "");
    fetch(&two, &birth, line(0, 0), 3).unwrap();
    let mut sent = Vec::new();
    let ask = Stretch { from: at(3), upto: at(5), line: line(0, 0) };
    birth.send(TREE, &ask, &mut sent).unwrap();
    assert!(sent.ends_with(b"de") && !sent.ends_with(b"cde"));
    fetch(&three, &two, line(0, 0), 3).unwrap();
    assert!(adopt(&three, 3));
    assert_eq!(text(&three, 0), "abc");
    assert!(fetch(&two, &three, line(0, 0), 9).is_ok(), "less than was asked for is no fault");
    let second = two.second(TREE, UID).unwrap();
    assert!(locked(&second).lacks(at(9)).is_some(), "and is not taken for all");
}

#[test]
fn what_another_life_of_the_tree_wrote_is_not_mixed_in() {
    // wrong: a reader would get the end of one life behind the beginning of another one
    let (_birth, birth) = node(0, "abcdefgh");
    let (_two, two) = node(0, "");
    fetch(&two, &birth, line(0, 0), 6).unwrap();
    // The next spool was begun with a checkpoint at byte 4.
    let (_next, next) = node(0, "abcdEFGH");
    fetch(&two, &next, line(1, 4), 8).unwrap();
    assert!(adopt(&two, 8));
    assert_eq!(text(&two, 0), "abcdEFGH");
    // Two spools later nothing is known of what was the same.
    let (_three, three) = node(0, "");
    fetch(&three, &birth, line(0, 0), 6).unwrap();
    let (_last, last) = node(0, "ABCDEFGH");
    fetch(&three, &last, line(2, 4), 8).unwrap();
    assert!(adopt(&three, 8));
    assert_eq!(text(&three, 0), "ABCDEFGH");
}

#[test]
fn a_copy_here_adds_what_it_writes_and_takes_it_along() {
    // wrong: what a program wrote since its last checkpoint would be lost with the node of its
    // spool, though the program lives; or what a dead copy wrote be taken for the tree's
    let (_birth, birth) = node(0, "abcdef");
    let (_two, two) = node(0, "");
    let follow = Follow::new([4, 0]);
    follow.read(0, 4, b"ef", 0);
    let second = two.second(TREE, UID).unwrap();
    locked(&second).take_line(line(0, 0)).unwrap();
    follow.begin(&second).unwrap();
    follow.read(0, 6, b"gh", 0);
    let lacks = locked(&second).lacks(at(5));
    assert_eq!(lacks, Some((at(0), at(6))), "all that is before what it adds");
    fetch(&two, &birth, line(0, 0), 5).unwrap();
    follow.read(0, 8, b"ij", 0);
    assert_eq!(locked(&second).ends(), at(10));
    // A spool that has more from an earlier life takes none of this.
    follow.read(0, 10, b"xxkl", 12);
    assert_eq!(follow.stop(), [4, 0]);
    assert_eq!(locked(&second).ends(), at(5), "a gap is not filled with what follows");
    let follow = Follow::new([5, 0]);
    follow.begin(&second).unwrap();
    follow.read(0, 5, b"fghijkl", 0);
    follow.stop();
    assert!(adopt(&two, 10));
    assert_eq!(text(&two, 0), "abcdefghijkl");

    let (_three, three) = node(0, "");
    fetch(&three, &birth, line(0, 0), 5).unwrap();
    let second = three.second(TREE, UID).unwrap();
    let follow = Follow::new([5, 0]);
    follow.begin(&second).unwrap();
    follow.read(0, 5, b"dead", 0);
    drop(follow);
    assert_eq!(locked(&second).ends(), at(5));
}

#[test]
fn a_gap_begins_a_spool_anew() {
    // wrong: bytes would be read in the places of others, or the program wait for ever
    let (_birth, birth) = node(0, "abcdefgh");
    let (_two, two) = node(0, "");
    fetch(&two, &birth, line(0, 0), 4).unwrap();
    assert!(!adopt(&two, 6));
    assert!(two.seconds().unwrap().is_empty());
    assert_eq!(text(&two, 6), "");
    two.read(TREE, false, 5, 9).unwrap_err();
    // What the spool itself dropped is not asked for again and again.
    let (_late, late) = node(5, "fgh");
    fetch(&two, &late, line(0, 0), 7).unwrap();
    assert!(adopt(&two, 7));
    assert_eq!(text(&two, 5), "fg");
    two.read(TREE, false, 4, 9).unwrap_err();
}

#[test]
fn what_breaks_off_or_is_something_else_is_not_taken_for_all() {
    // wrong: a node could fill another one's disk, or half an output count as kept
    let (_birth, birth) = node(0, "abcdefgh");
    let (_two, two) = node(0, "");
    let second = two.second(TREE, UID).unwrap();
    let ask = Stretch { from: at(0), upto: at(6), line: line(0, 0) };
    let mut sent = Vec::new();
    birth.send(TREE, &ask, &mut sent).unwrap();
    for cut in 0..sent.len() - 6 {
        receive(&second, &ask, &mut &sent[..cut]).unwrap_err();
    }
    receive(&second, &ask, &mut &sent[..sent.len() - 2]).unwrap_err();
    assert!(locked(&second).lacks(at(6)).is_some());
    // More than was asked for.
    let less = Stretch { upto: at(2), ..ask };
    receive(&second, &less, &mut &sent[..]).unwrap_err();
    let long = [&u32::MAX.to_le_bytes()[..], b"{}"].concat();
    receive(&second, &ask, &mut &long[..]).unwrap_err();
    two.send(9, &ask, &mut Vec::new()).unwrap_err();
}

#[test]
fn what_is_kept_has_the_limits_of_a_spool() {
    // wrong: the output of one person would fill a node where nothing of theirs runs
    let (_birth, birth) = node(0, &"0123456789".repeat(10));
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { stream: 40, part: 10, person: 1 << 20, reserve: 0 };
    let two = Spools::within(dir.path(), limits);
    fetch(&two, &birth, line(0, 0), 95).unwrap();
    assert!(adopt(&two, 95));
    // Its last parts.
    assert_eq!(text(&two, 90), "01234");
    two.read(TREE, false, 0, 9).unwrap_err();
    // What is wanted whole ends there, as in the spool itself.
    birth.begin(TREE, UID, true).unwrap();
    let three = tempfile::tempdir().unwrap();
    let three = Spools::within(three.path(), limits);
    fetch(&three, &birth, line(0, 0), 95).unwrap();
    assert!(adopt(&three, 95), "no more of it is to come");
    let Piece { bytes, .. } = three.read(TREE, false, 0, 1 << 20).unwrap();
    assert_eq!(bytes.len(), 40);
}

#[test]
fn what_a_person_keeps_counts_and_goes() {
    // wrong: it would not be seen how much somebody has, or stay when nobody needs it
    let (_birth, birth) = node(0, "abcdefgh");
    let (dir, two) = node(0, "");
    fetch(&two, &birth, line(0, 0), 6).unwrap();
    two.sweep_seconds(|tree| tree == TREE).unwrap();
    assert_eq!(two.seconds().unwrap(), [TREE]);
    let two = Spools::new(dir.path());
    two.count().unwrap();
    two.sweep_seconds(|_| false).unwrap();
    two.forget_second(TREE).unwrap();
    assert!(two.seconds().unwrap().is_empty());
}

#[test]
fn a_late_order_takes_no_spool_away() {
    // wrong: a word that was long on its way would remove the only output that there is
    let (_birth, birth) = node(0, "abcdefgh");
    let (_two, two) = node(0, "");
    fetch(&two, &birth, line(0, 0), 5).unwrap();
    assert!(adopt(&two, 5));
    // What it kept for the line before, and that it is to keep something for its own.
    two.leave(TREE, 0).unwrap_err();
    two.leave(TREE, 1).unwrap_err();
    assert_eq!(text(&two, 0), "abcde");
    two.renew(Tree { id: TREE, epoch: 3 }, 4).unwrap();
    two.leave(TREE, 4).unwrap_err();
    two.unspool(Tree { id: TREE, epoch: 2 }).unwrap();
    assert_eq!(text(&two, 0), "abcde");
    two.leave(TREE, 5).unwrap();
    assert!(!two.folder(TREE).exists());
    two.leave(TREE, 5).unwrap();
}

#[test]
fn a_spool_of_before_goes_unless_it_is_used_again() {
    // wrong: a node that comes back would answer with the output of another life of the program
    let (dir, birth) = node(0, "abcdefgh");
    assert_eq!(birth.unfinished().unwrap(), [(TREE, 1)]);
    birth.unspool(Tree { id: TREE, epoch: 0 }).unwrap();
    assert_eq!(text(&birth, 0), "abcdefgh", "a newer copy wrote to it");
    birth.unspool(Tree { id: TREE, epoch: 1 }).unwrap();
    assert!(!dir.path().join(TREE.to_string()).exists());
    assert!(birth.unfinished().unwrap().is_empty());
}
