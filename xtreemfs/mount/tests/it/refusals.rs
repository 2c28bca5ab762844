//! What is not done says so, and the mount goes away cleanly.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode, SFlag, mknod};

use crate::site::Shape;
use crate::world::{ALICE, World, acting_as, errno, sh, shell};

#[test]
fn what_is_not_done_says_enotsup() {
    let Some(world) = World::start(Shape::default()) else { return };
    let at = |name: &str| world.join(name);
    acting_as(ALICE, || {
        fs::write(at("f"), "x").unwrap();
        assert_eq!(errno(fs::hard_link(at("f"), at("hard"))), Some(libc::EOPNOTSUPP), "link");
        for kind in [SFlag::S_IFIFO, SFlag::S_IFSOCK] {
            let made = mknod(&at("special"), kind, Mode::S_IRUSR, 0);
            assert_eq!(made, Err(Errno::EOPNOTSUPP), "{kind:?}");
        }
        mknod(&at("regular"), SFlag::S_IFREG, Mode::S_IRUSR, 0).unwrap();
        assert!(at("regular").metadata().unwrap().is_file());
        let file = File::options().write(true).open(at("f")).unwrap();
        let locked = Flock::lock(file.try_clone().unwrap(), FlockArg::LockExclusiveNonblock);
        assert_eq!(locked.map_err(|(_, errno)| errno).err(), Some(Errno::EOPNOTSUPP), "flock");
        let range = libc::flock {
            l_type: libc::F_WRLCK as i16,
            l_whence: 0,
            l_start: 0,
            l_len: 1,
            l_pid: 0,
        };
        let posix = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETLK(&range));
        assert_eq!(posix, Err(Errno::EOPNOTSUPP), "lockf");
        let reserved = nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, 10);
        assert_eq!(reserved, Err(Errno::EOPNOTSUPP), "fallocate");
        assert!(file.as_raw_fd() > 2);
    });
    let Some(python) = ["/usr/bin/python3"].into_iter().find(|p| std::path::Path::new(p).exists())
    else {
        eprintln!("skipped: no python3 to try xattrs and ioctls with");
        return;
    };
    let script = format!(
        "{python} -c '
import os, fcntl, errno
def refused(work):
    try: work()
    except OSError as e: assert e.errno == errno.EOPNOTSUPP, e
    else: assert False
refused(lambda: os.setxattr(\"f\", \"user.a\", b\"1\"))
refused(lambda: os.getxattr(\"f\", \"user.a\"))
refused(lambda: os.listxattr(\"f\"))
refused(lambda: os.removexattr(\"f\", \"user.a\"))
refused(lambda: fcntl.ioctl(os.open(\"f\", os.O_RDONLY), 0x80086601, bytes(8)))
'"
    );
    sh(ALICE, &world.path, &script);
}

#[test]
fn unmounting_flushes_and_leaves_nothing() {
    let Some(mut world) = World::start(Shape::default()) else { return };
    let path = world.join("f");
    let file = acting_as(ALICE, || {
        use std::io::Write;
        let mut file = File::create(&path).unwrap();
        file.write_all(b"not closed yet").unwrap();
        file
    });
    world.unmount().unwrap();
    assert_eq!(fs::read_dir(&world.path).unwrap().count(), 0, "the bare mount point");
    let size = world.runtime.block_on(async {
        let volume = world.site.volume().await;
        volume.lookup(crate::site::ALICE, volume.root(), b"f").await.unwrap().size
    });
    assert_eq!(size, 14, "what was accepted must have been flushed");
    drop(file);
}

#[test]
fn a_server_that_is_gone_does_not_hang_the_machine() {
    let shape = Shape { deadline: Duration::from_secs(2), ..Shape::default() };
    let Some(world) = World::start(shape) else { return };
    sh(ALICE, &world.path, "echo x > f");
    for n in 0..2 {
        world.site.memory.stop(&crate::site::osd_peer(n));
    }
    let (code, text) = shell(ALICE, &world.path, "cat f");
    assert!(code == Some(1) && text.contains("Input/output error"), "{text}");
    sh(ALICE, &world.path, "ls");
}

#[test]
fn a_panic_in_one_request_ends_only_that_request() {
    let Some(world) = World::start(Shape::default()) else { return };
    let path = world.join("f");
    acting_as(ALICE, || fs::write(&path, "x").unwrap());
    let bob = crate::site::BOB;
    world.site.people.0.lock().unwrap().insert(bob, crate::memory::PANIC);
    let refused = acting_as(crate::world::BOB, || errno(fs::metadata(&path)));
    assert_eq!(refused, Some(libc::EIO), "it must be answered");
    acting_as(ALICE, || assert_eq!(fs::read(&path).unwrap(), b"x"));
}
