//! Rights: two people, root, and uids that are nobody here.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use xtreemfs_client::Member;
use xtreemfs_mount::{Block, Mapping, UNKNOWN_ID};

use crate::site::Shape;
use crate::world::{ALICE, BOB, CAROL, STRANGER, UID_BASE, World, acting_as, errno, sh, shell};

fn mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn two_people_in_two_processes() {
    let Some(world) = World::start(Shape::default()) else { return };
    sh(
        ALICE,
        &world.path,
        "umask 077; echo secret > s; echo public > p; chmod 644 p; mkdir d; echo inner > d/f; chmod 644 d/f
         mkdir shared; chmod 777 shared; echo '#!/bin/sh\necho ran' > x; chmod 755 x; cp x y; chmod 744 y",
    );
    for script in [
        "cat s",
        "echo more >> p",
        "ls d",
        "cat d/f",
        "rm p",
        "mv p q",
        "chmod 666 s",
        "chown $(id -u) p",
        "cd d",
        "./y",
        "truncate -s 0 p",
        "touch d/g",
    ] {
        let (code, text) = shell(BOB, &world.path, script);
        assert_ne!(code, Some(0), "Bob did {script}: {text}");
        let words = ["ermission denied", "not permitted", "can't cd"];
        assert!(words.iter().any(|w| text.contains(w)), "{script}: {text}");
    }
    assert_eq!(
        sh(BOB, &world.path, "cat p; ./x; echo b > shared/b; stat -c %u shared/b"),
        format!("public\nran\n{BOB}\n")
    );
    assert_eq!(sh(ALICE, &world.path, "cat shared/b d/f s"), "b\ninner\nsecret\n");
}

#[test]
fn what_one_person_looked_up_or_read_does_not_help_another() {
    let Some(world) = World::start(Shape::default()) else { return };
    let (dir, file) = (world.join("d"), world.join("d/f"));
    acting_as(ALICE, || {
        fs::create_dir(&dir).unwrap();
        fs::write(&file, "read by Alice, so it is in the page cache").unwrap();
        mode(&file, 0o644);
        mode(&dir, 0o700);
        fs::read(&file).unwrap();
        fs::metadata(&file).unwrap();
    });
    acting_as(BOB, || {
        assert_eq!(errno(fs::read(&file)), Some(libc::EACCES), "content");
        assert_eq!(errno(fs::metadata(&file)), Some(libc::EACCES), "attributes");
        assert_eq!(errno(fs::read_dir(&dir)), Some(libc::EACCES), "names");
    });
    acting_as(ALICE, || mode(&dir, 0o755));
    acting_as(BOB, || fs::read(&file).unwrap());
    acting_as(ALICE, || mode(&file, 0o600));
    let open = acting_as(ALICE, || fs::File::open(&file).unwrap());
    acting_as(BOB, || assert_eq!(errno(fs::read(&file)), Some(libc::EACCES), "right taken away"));
    let mut text = String::new();
    (&open).read_to_string(&mut text).unwrap();
    assert!(text.starts_with("read by Alice"), "a descriptor that was passed on still reads");
}

#[test]
fn root_and_uids_that_are_nobody_here_have_no_rights() {
    let Some(world) = World::start(Shape::default()) else { return };
    let file = world.join("f");
    acting_as(ALICE, || {
        fs::write(&file, "x").unwrap();
        mode(&file, 0o666);
    });
    for uid in [0, STRANGER, CAROL] {
        acting_as(uid, || {
            assert_eq!(errno(fs::read(&file)), Some(libc::EACCES), "uid {uid} read");
            assert_eq!(errno(fs::write(&file, "y")), Some(libc::EACCES), "uid {uid} write");
            assert_eq!(errno(fs::metadata(&file)), Some(libc::EACCES), "uid {uid} stat");
            assert_eq!(errno(fs::read_dir(&world.path)), Some(libc::EACCES), "uid {uid} list");
            assert_eq!(
                errno(fs::create_dir(world.join("d"))),
                Some(libc::EACCES),
                "uid {uid} mkdir"
            );
        });
    }
    let open = acting_as(ALICE, || fs::File::open(&file).unwrap());
    world.site.people.0.lock().unwrap().remove(&crate::site::ALICE);
    acting_as(ALICE, || {
        assert_eq!(errno(fs::read(&file)), Some(libc::EACCES), "the ticket is gone");
    });
    drop(open);
}

/// If it failed, a member would be shown for a while what the mount made up for root, who may not
/// ask the MRC: a top that is nobody's and in which nobody may make anything.
#[test]
fn what_is_made_up_of_the_top_is_shown_to_no_member() {
    let Some(world) = World::start(Shape::default()) else { return };
    let seen = |uid| {
        acting_as(uid, || {
            let m = fs::metadata(&world.path).unwrap();
            (m.mode(), m.uid(), m.ctime())
        })
    };
    // Looked at by root first, as by what watches mounts; at once after it by a member.
    let made_up = seen(0);
    assert_eq!((made_up.1, made_up.2), (UNKNOWN_ID, 0));
    let alice = seen(ALICE);
    assert!(alice.2 > 0, "the kernel kept what was made up: {alice:?}");
    assert_eq!(seen(0), alice, "root sees what a member was told");
}

#[test]
fn the_mapping_changes_while_mounted_and_strange_owners_are_nobody() {
    let Some(world) = World::start(Shape::default()) else { return };
    let file = world.join("f");
    acting_as(ALICE, || fs::write(&file, "x").unwrap());
    let uids = Block { base: UID_BASE + 100_000, count: 8 };
    let gids = Block { base: UID_BASE, count: 1 };
    world.map.replace(Mapping { uids, gids, extra: HashMap::from([(0, Member(8))]), mark: None });
    acting_as(ALICE, || assert_eq!(errno(fs::read(&file)), Some(libc::EACCES)));
    acting_as(ALICE + 100_000, || assert_eq!(fs::read(&file).unwrap(), b"x"));
    acting_as(0, || {
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (ALICE + 100_000, UNKNOWN_ID));
        assert_eq!(errno(fs::write(&file, "y")), Some(libc::EACCES), "root acts as Bob now");
        assert_eq!(errno(std::os::unix::fs::chown(&file, Some(7), None)), Some(libc::EINVAL));
    });
}

#[test]
fn set_user_id_programs_gain_nothing() {
    let Some(world) = World::start(Shape::default()) else { return };
    sh(ALICE, &world.path, "cp /usr/bin/id . && chmod 4755 id");
    let (code, text) = shell(BOB, &world.path, "./id -u");
    assert_eq!((code, text.trim()), (Some(0), BOB.to_string().as_str()), "nosuid must hold");
}
