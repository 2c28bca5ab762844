//! A host's file system, built by its first process in its own mount namespace.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::pivot_root;

use crate::cgroup::Hierarchy;
use crate::error::Context as _;
use crate::{Result, Share};

/// Where the new root is put together. Always there, and never one of the folders shown in hosts.
const STAGE: &str = "/tmp";
/// The machine's folders that a host changes without changing the machine.
const COPY_ON_WRITE: [&str; 6] = ["etc", "opt", "root", "srv", "usr", "var"];
/// Folders at the top that are the host's own or of no use in it.
const NOT_SHOWN: [&str; 10] =
    ["boot", "dev", "home", "lost+found", "proc", "run", "sys", "tmp", "xtreemfs", ".cow"];
/// The host's own folders, kept over restarts: path, name in the testbed's folder, mode.
const OWN: [(&str, &str, u32); 4] = [
    ("home", "home", 0o755),
    ("var/lib/xos", "var-lib-xos", 0o755),
    ("var/log", "var-log", 0o755),
    ("var/tmp", "var-tmp", 0o1777),
];
/// Devices: path below /dev, major, minor.
const DEVICES: [(&str, u64, u64); 8] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
    ("fuse", 10, 229),
    ("net/tun", 10, 200),
];
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What the file system is made from.
pub(crate) struct Plan<'a> {
    /// The testbed's folder.
    pub(crate) dir: &'a Path,
    /// The host's folder in it.
    pub(crate) host_dir: &'a Path,
    pub(crate) helper: &'a Path,
    pub(crate) shares: &'a [Share],
    pub(crate) hierarchies: &'a [Hierarchy],
}

/// Builds the host's root and makes it the calling process's. The caller is the first process of
/// new mount, pid, network and cgroup namespaces. Mounts are shared inside the host afterwards.
pub(crate) fn enter_new_root(plan: &Plan<'_>) -> Result<()> {
    mount_flags("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    let shares = open_shares(plan)?;
    // Everything of the testbed's folder is named relative to it from here on: the new root may
    // cover the folder.
    std::env::set_current_dir(plan.host_dir).context(|| "entering the host's folder".to_owned())?;
    mount_new("tmpfs", STAGE, "mode=755")?;
    show_machine(plan)?;
    own_folders()?;
    in_memory()?;
    devices()?;
    kernel_views(plan.hierarchies)?;
    for (share, fd) in &shares {
        bind_share(share, fd)?;
    }
    std::env::set_current_dir(STAGE).context(|| "entering the new root".to_owned())?;
    pivot_root(".", ".").context(|| "changing the root".to_owned())?;
    umount2(".", MntFlags::MNT_DETACH).context(|| "letting the old root go".to_owned())?;
    std::env::set_current_dir("/").context(|| "entering the new root".to_owned())?;
    mount_flags("/", MsFlags::MS_REC | MsFlags::MS_SHARED)
}

/// The machine's folders: copy-on-write, or read-only.
fn show_machine(plan: &Plan<'_>) -> Result<()> {
    let what = || "listing the machine's root folder".to_owned();
    for entry in Path::new("/").read_dir().context(what)? {
        let entry = entry.context(what)?;
        let (name, kind) = (entry.file_name(), entry.file_type().context(what)?);
        let target = staged(&name);
        if kind.is_symlink() {
            let to = std::fs::read_link(entry.path()).context(what)?;
            symlink(to, &target).context(|| format!("making {}", target.display()))?;
        } else if kind.is_dir() && !NOT_SHOWN.iter().any(|&one| name == one) {
            make_dir(&target, 0o755)?;
            match COPY_ON_WRITE.iter().find(|&&one| name == one) {
                Some(top) => copy_on_write(top, plan.dir)?,
                None => show_read_only(&entry.path(), &target)?,
            }
        }
    }
    Ok(())
}

/// Covers a folder of the machine with an overlay. Changes go to the host's folder; to memory if
/// that lies in the covered folder, or on a file system that cannot hold them.
fn copy_on_write(top: &str, dir: &Path) -> Result<()> {
    let mut result = None;
    for store in [format!("cow/{top}"), format!("{STAGE}/.cow/{top}")] {
        let in_memory = store.starts_with(STAGE);
        if !in_memory && dir.starts_with(Path::new("/").join(top)) {
            continue;
        }
        if in_memory {
            make_dir(&staged(".cow"), 0o700)?;
        }
        let (upper, work) = (format!("{store}/upper"), format!("{store}/work"));
        copy_permissions(&Path::new("/").join(top), Path::new(&upper))?;
        make_dir(Path::new(&work), 0o700)?;
        let options = format!("lowerdir=/{top},upperdir={upper},workdir={work}");
        let target = staged(top);
        let mounted =
            mount(Some("overlay"), &target, Some("overlay"), MsFlags::empty(), Some(&*options));
        match mounted {
            Ok(()) => return Ok(()),
            Err(error) => result = Some(error),
        }
    }
    Err(io::Error::from(result.unwrap_or(nix::Error::EINVAL)))
        .context(|| format!("covering /{top} with an overlay"))
}

/// The root of an overlay shows the permissions of its upper layer.
fn copy_permissions(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        return Ok(());
    }
    let what = || format!("making {}", to.display());
    let mode = from.metadata().context(what)?.permissions().mode();
    make_dir(to, mode & 0o7777)
}

fn show_read_only(from: &Path, to: &Path) -> Result<()> {
    bind(from, to, MsFlags::MS_REC)?;
    remount_read_only(to)
}

fn own_folders() -> Result<()> {
    for (path, name, mode) in OWN {
        let (source, target) = (Path::new("own").join(name), staged(path));
        if !source.exists() {
            make_dir(&source, mode)?;
        }
        make_dir(&target, 0o755)?;
        bind(&source, &target, MsFlags::empty())?;
    }
    Ok(())
}

fn in_memory() -> Result<()> {
    for (path, mode) in [("run", 0o755), ("tmp", 0o1777)] {
        make_dir(&staged(path), 0o755)?;
        mount_new("tmpfs", staged(path), &format!("mode={mode:o}"))?;
    }
    make_dir(&staged("run/lock"), 0o1777)?;
    make_dir(&staged("xtreemfs"), 0o755)
}

fn devices() -> Result<()> {
    make_dir(&staged("dev"), 0o755)?;
    mount_new("tmpfs", staged("dev"), "mode=755")?;
    make_dir(&staged("dev/net"), 0o755)?;
    for (name, major, minor) in DEVICES {
        let path = staged("dev").join(name);
        let mode = Mode::from_bits_truncate(0o666);
        let what = || format!("making the device {name}");
        mknod(&path, SFlag::S_IFCHR, mode, makedev(major, minor)).context(what)?;
        set_mode(&path, 0o666)?;
    }
    for (name, to) in DEVICE_LINKS {
        symlink(to, staged("dev").join(name)).context(|| format!("making /dev/{name}"))?;
    }
    make_dir(&staged("dev/pts"), 0o755)?;
    mount_new("devpts", staged("dev/pts"), "newinstance,ptmxmode=0666,mode=620,gid=5")?;
    make_dir(&staged("dev/shm"), 0o1777)?;
    mount_new("tmpfs", staged("dev/shm"), "mode=1777")
}

/// /proc, /sys and the cgroups as seen from the host's namespaces.
fn kernel_views(hierarchies: &[Hierarchy]) -> Result<()> {
    for (kind, path) in [("proc", "proc"), ("sysfs", "sys")] {
        make_dir(&staged(path), 0o755)?;
        mount_new(kind, staged(path), "")?;
    }
    let top = staged("sys/fs/cgroup");
    let at_top = hierarchies.iter().any(|one| one.place() == Some(Path::new("")));
    if !at_top {
        mount_new("tmpfs", &top, "mode=755")?;
    }
    for hierarchy in hierarchies {
        let Some(place) = hierarchy.place() else { continue };
        let target = if place == Path::new("") { top.clone() } else { top.join(place) };
        make_dir(&target, 0o755)?;
        match hierarchy.options() {
            Some(options) => mount_new("cgroup", &target, options)?,
            None => mount_new("cgroup2", &target, "")?,
        }
    }
    Ok(())
}

/// Opens what is shared before anything is covered; the helper's folder is always shared, so that
/// programs built beside it are found at their usual path.
fn open_shares(plan: &Plan<'_>) -> Result<Vec<(Share, OwnedFd)>> {
    let beside = plan.helper.parent().unwrap_or(Path::new("/"));
    let own = Share { from: beside.to_owned(), to: beside.to_owned(), writable: false };
    let open = |share: &Share| {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let fd = rustix::fs::open(&share.from, flags, rustix::fs::Mode::empty())
            .context(|| format!("opening the shared folder {}", share.from.display()))?;
        Ok((share.clone(), fd))
    };
    std::iter::once(&own).chain(plan.shares).map(open).collect()
}

fn bind_share(share: &Share, fd: &OwnedFd) -> Result<()> {
    let Ok(inside) = share.to.strip_prefix("/") else {
        return Err(crate::Error::RelativePath(share.to.clone()));
    };
    let (source, target) = (format!("/proc/self/fd/{}", fd.as_raw_fd()), staged(inside));
    let what = || format!("making {}", target.display());
    if std::fs::metadata(&source).context(what)?.is_dir() {
        make_dir(&target, 0o755)?;
    } else if !target.exists() {
        make_dir(target.parent().unwrap_or(Path::new(STAGE)), 0o755)?;
        File::create(&target).context(what)?;
    }
    bind(Path::new(&source), &target, MsFlags::empty())?;
    if share.writable { Ok(()) } else { remount_read_only(&target) }
}

fn staged(path: impl AsRef<Path>) -> PathBuf {
    Path::new(STAGE).join(path)
}

/// Makes a folder and those above it; sets the mode of a new one.
fn make_dir(path: &Path, mode: u32) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let what = || format!("making the folder {}", path.display());
    DirBuilder::new().recursive(true).mode(0o755).create(path).context(what)?;
    set_mode(path, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .context(|| format!("setting the mode of {}", path.display()))
}

fn mount_new(kind: &str, target: impl AsRef<Path>, options: &str) -> Result<()> {
    let target = target.as_ref();
    let flags = match kind {
        "proc" | "sysfs" | "cgroup" | "cgroup2" => {
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
        }
        _ => MsFlags::empty(),
    };
    mount(Some(kind), target, Some(kind), flags, Some(options))
        .context(|| format!("mounting {kind} ({options}) on {}", target.display()))
}

fn mount_flags(target: &str, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
        .context(|| format!("changing the mount {target}"))
}

fn bind(from: &Path, to: &Path, extra: MsFlags) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | extra, None::<&str>)
        .context(|| format!("showing {} as {}", from.display(), to.display()))
}

fn remount_read_only(path: &Path) -> Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
        .context(|| format!("making {} read-only", path.display()))
}
