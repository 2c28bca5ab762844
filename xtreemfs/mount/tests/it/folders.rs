//! A folder that its owner closes while others work in it.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use xtreemfs_mount::control::ask;
use xtreemfs_proto::control::{ControlReply, ControlRequest};
use xtreemfs_proto::mrc::Pin;

use crate::site::Shape;
use crate::world::{ALICE, BOB, World, acting_as, errno};

fn closed(path: &Path, closed: bool) -> ControlReply {
    ask(path, &ControlRequest { closed: Some(closed), ..ControlRequest::default() }).unwrap()
}

/// Alice's folder with a file that all may read and write.
fn folder(world: &World) -> std::path::PathBuf {
    let path = world.join("alice");
    acting_as(ALICE, || {
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
        fs::write(path.join("f"), "hers").unwrap();
        fs::set_permissions(path.join("f"), PermissionsExt::from_mode(0o666)).unwrap();
    });
    path
}

/// Reads until it is refused, as it must be.
fn refused(file: &File) -> Option<i32> {
    loop {
        match file.read_at(&mut [0; 4], 0) {
            Ok(_) => std::thread::yield_now(),
            Err(error) => return error.raw_os_error(),
        }
    }
}

/// If it failed, who has a file open would go on reading what its owner has closed: from the OSDs,
/// or what the kernel keeps of it, also when the owner reads it again on the same machine.
#[test]
fn an_open_file_ends_when_its_folder_is_closed() {
    let Some(world) = World::start(Shape::default()) else { return };
    let path = folder(&world);
    let (file, other) = acting_as(BOB, || {
        let file = File::options().read(true).write(true).open(path.join("f")).unwrap();
        file.read_exact_at(&mut [0; 4], 0).unwrap();
        (file, File::open(path.join("f")).unwrap())
    });
    let told = acting_as(ALICE, || closed(&path, true)).folder.unwrap();
    assert!(told.closed && told.unconfirmed.is_empty());
    acting_as(BOB, || {
        assert_eq!(refused(&file), Some(libc::EACCES));
        assert_eq!(errno(fs::metadata(path.join("f"))), Some(libc::EACCES));
        assert_eq!(errno(fs::read_dir(&path)), Some(libc::EACCES));
    });
    acting_as(ALICE, || assert_eq!(fs::read(path.join("f")).unwrap(), b"hers"));
    acting_as(BOB, || {
        assert_eq!(refused(&other), Some(libc::EACCES), "she has just read it");
        assert_eq!(errno(file.write_all_at(b"no", 0).and_then(|()| file.sync_all())), Some(13));
        let mine = ask(&world.join("alice"), &ControlRequest::default());
        assert_eq!(mine.unwrap_err().raw_os_error(), Some(libc::EACCES));
    });
    acting_as(ALICE, || {
        assert_eq!(fs::read(path.join("f")).unwrap(), b"hers");
        assert!(!closed(&path, false).folder.unwrap().closed);
    });
    acting_as(BOB, || assert_eq!(fs::read(path.join("f")).unwrap(), b"hers"));
}

/// If it failed, the person would not be told why not, or whose files theirs are.
#[test]
fn what_is_asked_of_a_folder_is_answered_in_words() {
    let Some(world) = World::start(Shape::default()) else { return };
    let path = folder(&world);
    acting_as(BOB, || {
        let refused = closed(&path, true);
        assert_eq!((refused.errno, refused.folder), (libc::EPERM, None));
        assert!(refused.message.contains("owner"), "{}", refused.message);
        fs::write(path.join("bobs"), "his").unwrap();
    });
    acting_as(ALICE, || {
        let pin = Some(Pin { site: "pisa".into(), home: false });
        let pinned = ask(&path, &ControlRequest { pin, ..ControlRequest::default() })
            .unwrap()
            .folder
            .unwrap();
        assert_eq!((pinned.pin.as_str(), pinned.files, pinned.elsewhere), ("pisa", 2, 2));
        let shown = ask(&path, &ControlRequest::default()).unwrap().folder.unwrap();
        assert_eq!((shown.owner, shown.others), (ALICE, vec![BOB]));
        assert_eq!(errno(fs::write(path.join("new"), "x")), Some(libc::ENOSPC), "no OSD there");
        let file = ask(&path.join("f"), &ControlRequest::default()).unwrap().folder.unwrap();
        assert_eq!(file.pin, "pisa");
        assert!(file.osds.iter().all(|osd| osd.starts_with("osd")));
    });
    let elsewhere = ask(Path::new("/tmp"), &ControlRequest::default());
    assert!(elsewhere.is_err(), "no such volume");
}
