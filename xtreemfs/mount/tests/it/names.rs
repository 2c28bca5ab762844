//! Names: directories, renames, links, odd and long ones, attributes.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use crate::site::Shape;
use crate::world::{ALICE, BOB, MEMBERS, World, acting_as, errno, sh};

fn names(path: &std::path::Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.as_bytes().to_vec()).collect();
    names.sort();
    names
}

#[test]
fn directories_and_renames() {
    let Some(world) = World::start(Shape::default()) else { return };
    let at = |name: &str| world.join(name);
    acting_as(ALICE, || {
        fs::create_dir_all(at("a/b/c")).unwrap();
        fs::write(at("a/b/f"), "content").unwrap();
        assert_eq!(errno(fs::create_dir(at("a"))), Some(libc::EEXIST));
        assert_eq!(errno(fs::remove_dir(at("a/b"))), Some(libc::ENOTEMPTY));
        assert_eq!(errno(fs::remove_dir(at("a/b/f"))), Some(libc::ENOTDIR));
        assert_eq!(errno(fs::remove_file(at("a/b/c"))), Some(libc::EISDIR));
        assert_eq!(names(&at("a/b")), [b"c", b"f"]);
        fs::rename(at("a/b"), at("moved")).unwrap();
        assert_eq!(fs::read_to_string(at("moved/f")).unwrap(), "content");
        assert_eq!(errno(fs::metadata(at("a/b"))), Some(libc::ENOENT));
        assert_eq!(errno(fs::rename(at("moved"), at("moved/c/d"))), Some(libc::EINVAL));
        fs::write(at("other"), "older").unwrap();
        fs::rename(at("moved/f"), at("other")).unwrap();
        assert_eq!(fs::read_to_string(at("other")).unwrap(), "content");
        fs::remove_dir(at("moved/c")).unwrap();
        fs::remove_dir(at("moved")).unwrap();
        assert_eq!(names(&world.path), [&b"a"[..], b"other"]);
    });
}

#[test]
fn rename_flags() {
    let Some(world) = World::start(Shape::default()) else { return };
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    acting_as(ALICE, || {
        fs::write(world.join("a"), "a").unwrap();
        fs::write(world.join("b"), "b").unwrap();
        let (a, b) = (world.join("a"), world.join("b"));
        let rename = |flags| renameat2(AT_FDCWD, &a, AT_FDCWD, &b, flags);
        assert_eq!(rename(RenameFlags::RENAME_NOREPLACE), Err(nix::errno::Errno::EEXIST));
        assert_eq!(rename(RenameFlags::RENAME_EXCHANGE), Err(nix::errno::Errno::EOPNOTSUPP));
        fs::remove_file(&b).unwrap();
        assert_eq!(rename(RenameFlags::RENAME_NOREPLACE), Ok(()));
        assert_eq!(fs::read_to_string(&b).unwrap(), "a");
    });
}

#[test]
fn odd_and_long_names() {
    let Some(world) = World::start(Shape::default()) else { return };
    acting_as(ALICE, || {
        let long = "n".repeat(255);
        let odd = [b"new\nline".to_vec(), long.clone().into_bytes(), vec![0xff, 0x01, b'*']];
        for name in &odd {
            fs::write(world.path.join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
        }
        let mut sorted = odd.to_vec();
        sorted.sort();
        assert_eq!(names(&world.path), sorted);
        for length in [256, 300] {
            let name = world.join(&"n".repeat(length));
            assert_eq!(errno(fs::write(&name, "")), Some(libc::ENAMETOOLONG), "{length}");
            assert_eq!(errno(fs::metadata(&name)), Some(libc::ENAMETOOLONG), "{length}");
            assert_eq!(errno(fs::create_dir(&name)), Some(libc::ENAMETOOLONG), "{length}");
            let renamed = fs::rename(world.join(&long), &name);
            assert_eq!(errno(renamed), Some(libc::ENAMETOOLONG), "{length}");
        }
    });
}

#[test]
fn symbolic_links() {
    let Some(world) = World::start(Shape::default()) else { return };
    acting_as(ALICE, || {
        fs::write(world.join("target"), "here").unwrap();
        symlink("target", world.join("link")).unwrap();
        assert_eq!(fs::read_link(world.join("link")).unwrap(), PathBuf::from("target"));
        assert_eq!(fs::read_to_string(world.join("link")).unwrap(), "here");
        assert!(fs::symlink_metadata(world.join("link")).unwrap().is_symlink());
        let long = "x/".repeat(2000);
        symlink(&long, world.join("far")).unwrap();
        assert_eq!(fs::read_link(world.join("far")).unwrap(), PathBuf::from(&long));
        fs::remove_file(world.join("link")).unwrap();
        assert_eq!(fs::read_to_string(world.join("target")).unwrap(), "here");
    });
}

#[test]
fn attributes_are_kept() {
    let Some(world) = World::start(Shape::default()) else { return };
    let path = world.join("f");
    acting_as(ALICE, || {
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        let then = UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
        file.set_modified(then).unwrap();
        drop(file);
        let metadata = path.metadata().unwrap();
        assert_eq!(metadata.modified().unwrap(), then);
        assert_eq!(
            (metadata.mode() & 0o7777, metadata.uid(), metadata.gid()),
            (0o640, ALICE, MEMBERS)
        );
        assert_eq!((metadata.nlink(), metadata.blocks()), (1, 1));
    });
    let listed = sh(ALICE, &world.path, "ls -ln --time-style=+%s f");
    assert!(
        listed.starts_with(&format!("-rw-r----- 1 {ALICE} {MEMBERS} 1 1234567890 f")),
        "{listed}"
    );
    sh(
        ALICE,
        &world.path,
        "umask 027; mkdir d; : > d/g; test $(stat -c %a d) = 750; test $(stat -c %a d/g) = 640
         touch -d @42 d/g; cp -p d/g d/h; test $(stat -c %Y d/h) = 42; echo more >> d/h
         tar cf t.tar d; mkdir out; tar xf t.tar -C out; test $(stat -c %Y out/d/g) = 42",
    );
}

#[test]
fn a_large_directory_is_listed_whole() {
    let Some(world) = World::start(Shape::default()) else { return };
    let dir = world.join("d");
    acting_as(ALICE, || {
        fs::create_dir(&dir).unwrap();
        std::thread::scope(|scope| {
            for part in 0..8 {
                let dir = &dir;
                let make = move || {
                    (0..200).for_each(|n| symlink("x", dir.join(format!("l{part}.{n}"))).unwrap())
                };
                scope.spawn(move || acting_as(ALICE, make));
            }
        });
    });
    sh(
        ALICE,
        &dir,
        "test $(ls | wc -l) = 1600 && test $(ls -l | grep -c -- '-> x') = 1600
         test $(find . -type l | sort -u | wc -l) = 1600
         rm -r ../d && test ! -e ../d",
    );
}

#[test]
fn statistics_and_the_mount_point_are_shown_to_everybody() {
    let Some(world) = World::start(Shape::default()) else { return };
    let stat = |uid| {
        acting_as(uid, || {
            let s = nix::sys::statvfs::statvfs(&world.path).unwrap();
            (s.blocks(), s.name_max())
        })
    };
    let alice = stat(ALICE);
    assert!(alice.0 > 0 && alice.1 == 255);
    assert_eq!(stat(0), alice, "root sees what a member was told");
    assert!(world.path.metadata().unwrap().is_dir(), "`mount` and `df` must work for root");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.contains(&*world.path.to_string_lossy())).unwrap();
    assert!(line.contains("xtreemfs:demo.rennes") && line.contains("nosuid,nodev"), "{line}");
}

#[test]
fn what_another_machine_changes_is_seen_at_the_next_open() {
    let Some(world) = World::start(Shape::default()) else { return };
    use crate::site::ALICE as WHO;
    use xtreemfs_client::OpenMode;
    let path = world.join("log");
    acting_as(ALICE, || fs::write(&path, "here ").unwrap());
    world.runtime.block_on(async {
        let volume = world.site.volume().await;
        let ino = volume.lookup(WHO, volume.root(), b"log").await.unwrap().ino;
        let mode = OpenMode { write: true, append: true, ..OpenMode::default() };
        let (_, file) = volume.open(WHO, ino, mode).await.unwrap();
        file.write(0, bytes::Bytes::from_static(b"there ")).await.unwrap();
        file.close().await.unwrap();
    });
    acting_as(ALICE, || {
        use std::io::Write;
        let mut log = fs::File::options().append(true).open(&path).unwrap();
        log.write_all(b"here again").unwrap();
        drop(log);
        assert_eq!(fs::read_to_string(&path).unwrap(), "here there here again");
    });
    assert_eq!(errno(acting_as(BOB, || fs::remove_file(&path))), Some(libc::EPERM));
}
