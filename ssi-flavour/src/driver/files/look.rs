//! Looking at files, and at who has them open.

use super::super::proc;
use super::{Cell, EDGE_BYTES, Person, Stamp};
use aws_lc_rs::digest::{Context, SHA256};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, fgetxattr, fsync,
    openat2, statx,
};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{File, read_dir, read_link};
use std::io::{Error, Result};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The kind of a volume's file system, as the kernel names it.
const VOLUME: &str = "fuse.xtreemfs";
/// Others of this kind number files as they like.
const FUSE: &str = "fuse";

/// The attribute of a file with the list of who else may use it (acl(5)).
const LIST: &str = "system.posix_acl_access";

/// What a person finds by a file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    There(There),
    /// Why there is none.
    Not(&'static str),
}

/// Which file it is on this machine, whatever its names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    /// The device of its file system.
    pub(super) device: (u32, u32),
    pub(super) inode: u64,
}

impl Identity {
    pub(super) fn of(stat: &Statx) -> Identity {
        let device = (stat.stx_dev_major, stat.stx_dev_minor);
        Identity { device, inode: stat.stx_ino }
    }

    /// That of what a link of `/proc` leads to. No file server is asked.
    fn behind(link: &Path) -> Result<Identity> {
        Ok(Identity::of(&statx(CWD, link, AtFlags::STATX_DONT_SYNC, StatxFlags::INO)?))
    }
}

/// Files by their names.
pub(super) type Files = BTreeMap<PathBuf, Identity>;

/// A plain file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct There {
    pub(super) is: Identity,
    /// Whether it has another name, by which others may come to it.
    pub(super) again: bool,
    /// Whether that is the file's number everywhere.
    pub(super) lasting: bool,
    pub(super) size: u64,
    pub(super) modified: Stamp,
    /// Of its begin and of the end that was asked for; none: its person may not read it.
    pub(super) edges: Option<String>,
    pub(super) volume: bool,
    /// Whether it is the person's, and nobody else may write it, by its mode alone: no list of
    /// others (acl(5)) is there.
    pub(super) own: bool,
}

/// The file systems that a tree sees.
#[derive(Clone, Debug, Default)]
pub(super) struct Mounts {
    /// By their devices.
    kinds: BTreeMap<(u32, u32), String>,
    /// Where volumes are.
    volumes: Vec<PathBuf>,
}

impl Mounts {
    /// Those of a cell; none: of this process.
    pub(super) fn of(cell: Option<Cell>) -> Result<Mounts> {
        let path = match cell {
            Some(cell) => proc::of(cell.pid, "mountinfo"),
            None => PathBuf::from("/proc/self/mountinfo"),
        };
        Ok(Mounts::parse(&proc::text(&path)?))
    }

    /// Those of a `mountinfo` (proc_pid_mountinfo(5)).
    pub(super) fn parse(text: &str) -> Mounts {
        let mut mounts = Mounts::default();
        for line in text.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let mut fields = before.split(' ').skip(2);
            let (Some(device), Some(point)) = (fields.next().and_then(device), fields.nth(1))
            else {
                continue;
            };
            let kind = after.split(' ').next().unwrap_or_default();
            if kind == VOLUME {
                mounts.volumes.push(PathBuf::from(point));
            }
            mounts.kinds.insert(device, kind.to_owned());
        }
        mounts
    }

    fn kind(&self, device: (u32, u32)) -> &str {
        self.kinds.get(&device).map_or("", String::as_str)
    }

    /// Whether a name leads into a volume.
    pub(super) fn have_volume(&self, path: &Path) -> bool {
        self.volumes.iter().any(|point| path.starts_with(point))
    }
}

/// A device, as `8:1`.
fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Opens what has this name, if no link leads to it.
pub(super) fn plain(path: &Path, how: OFlags) -> rustix::io::Result<OwnedFd> {
    // With a descriptor that only names a file nothing else goes (openat2(2)).
    let quiet = match how.contains(OFlags::PATH) {
        true => OFlags::empty(),
        false => OFlags::NOCTTY | OFlags::NONBLOCK,
    };
    let how = how | quiet | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(CWD, path, how, Mode::empty(), links)
}

/// What a file is, also where what is known of it here may be old.
pub(super) fn stat(file: impl AsFd) -> Result<Statx> {
    let how = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    Ok(statx(file, "", how, StatxFlags::BASIC_STATS)?)
}

/// Whether that is a plain file.
pub(super) fn is_plain(stat: &Statx) -> bool {
    FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile
}

/// Whether a file has more than one name.
pub(super) fn is_again(stat: &Statx) -> bool {
    stat.stx_nlink > 1
}

/// Whether a file has a list of who else may use it, of which the rights of its group in the mode
/// say nothing (acl(5)).
fn has_list(file: &File) -> bool {
    let mut list = [0_u8; 1];
    let found = fgetxattr(file, LIST, &mut list);
    !matches!(found, Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS))
}

/// Looks at a file, as the person who this thread is for files. `end`: where what it had ended;
/// none: where it ends. `sync`: what was written to it reaches the disk first.
pub(super) fn see(
    path: &Path,
    end: Option<u64>,
    sync: bool,
    person: &Person,
    mounts: &Mounts,
) -> Result<Sight> {
    let found = match plain(path, OFlags::PATH) {
        Ok(found) => found,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Sight::Not("it is gone")),
        Err(Errno::LOOP) => return Ok(Sight::Not("a link is on the way to it")),
        Err(Errno::ACCESS | Errno::PERM) => return Ok(Sight::Not("its person may not come to it")),
        Err(e) => return Err(e.into()),
    };
    // Before it is opened, which would do something to a device.
    if !is_plain(&stat(&found)?) {
        return Ok(Sight::Not("something else is in its place"));
    }
    let readable = match plain(path, OFlags::RDONLY) {
        Ok(file) => Some(File::from(file)),
        Err(Errno::ACCESS | Errno::PERM) => None,
        Err(e) => return Err(e.into()),
    };
    if let Some(file) = readable.as_ref().filter(|_| sync) {
        fsync(file)?;
    }
    let stat = match &readable {
        Some(file) => stat(file)?,
        None => stat(&found)?,
    };
    if !is_plain(&stat) {
        return Ok(Sight::Not("something else is in its place"));
    }
    let size = stat.stx_size;
    let end = end.unwrap_or(size).min(size);
    let alone = readable.as_ref().is_some_and(|file| !has_list(file));
    let edges = readable.map(|file| edges(&file, end)).transpose()?;
    let is = Identity::of(&stat);
    let kind = mounts.kind(is.device);
    let (mode, modified) = (stat.stx_mode, stat.stx_mtime);
    let group = mode & 0o020 == 0 || stat.stx_gid == person.gid;
    Ok(Sight::There(There {
        is,
        again: is_again(&stat),
        lasting: kind == VOLUME || !kind.starts_with(FUSE),
        size,
        modified: Stamp { seconds: modified.tv_sec, nanoseconds: modified.tv_nsec },
        edges,
        volume: kind == VOLUME,
        own: stat.stx_uid == person.uid && group && mode & 0o002 == 0 && alone,
    }))
}

/// Of the first and the last bytes before `end`.
fn edges(file: &File, end: u64) -> Result<String> {
    let head = end.min(EDGE_BYTES);
    let mut context = Context::new(&SHA256);
    for (from, to) in [(0, head), (end.saturating_sub(EDGE_BYTES).max(head), end)] {
        let length = usize::try_from(to - from).map_err(Error::other)?;
        let mut block = vec![0; length];
        file.read_exact_at(&mut block, from)?;
        context.update(&block);
    }
    let mut text = String::with_capacity(64);
    for byte in context.finish().as_ref() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// The processes of a tree, and the names of all that they have open or mapped.
pub(super) struct Holds {
    pub(super) pids: BTreeSet<i32>,
    pub(super) names: BTreeSet<PathBuf>,
}

/// What a tree has open; none: nothing of it is left.
pub(super) fn held(root: i32) -> Result<Option<Holds>> {
    let over = |e: Error| if proc::ended(&e) { Ok(None) } else { Err(e) };
    match proc::stat(root) {
        Ok(stat) if matches!(stat.state, 'Z' | 'X') => return Ok(None),
        Ok(_) => {}
        Err(e) => return over(e),
    }
    let pids = match proc::tree(root) {
        Ok(pids) => pids,
        Err(e) => return over(e),
    };
    let mut names = BTreeSet::new();
    for pid in &pids {
        match proc::process(*pid) {
            Ok(process) => {
                let open = process.descriptors.into_iter().map(|d| PathBuf::from(d.what));
                names.extend(open);
                names.extend(process.mapped.into_iter().map(PathBuf::from));
            }
            Err(e) if proc::ended(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Some(Holds { pids: pids.into_iter().collect(), names }))
}

/// The names of the plain files that a tree has open for writing.
pub(super) fn written(root: i32) -> Result<BTreeSet<PathBuf>> {
    let mut names = BTreeSet::new();
    for pid in proc::tree(root)? {
        match proc::process(pid) {
            Ok(process) => {
                let all = process.descriptors.into_iter();
                let plain = all.filter(|d| d.stored_bytes > 0 || d.size_bytes > 0);
                let written = plain.filter(|d| writes(pid, OsStr::new(&d.number.to_string())));
                names.extend(written.map(|d| PathBuf::from(d.what)));
            }
            Err(e) if proc::ended(&e) && pid != root => {}
            Err(e) => return Err(e),
        }
    }
    Ok(names)
}

/// Which of these files some process of this machine can write, but for some: it has them open for
/// that, or mapped, by whichever name. Where what a process has open cannot be looked at, as in a
/// mount of one person's alone, its name counts.
pub(super) fn writers(files: &Files, but: &BTreeSet<i32>) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    if files.is_empty() {
        return Ok(found);
    }
    let mut names: BTreeMap<Identity, Vec<&PathBuf>> = BTreeMap::new();
    for (name, is) in files {
        names.entry(*is).or_default().push(name);
    }
    let named = |path: &Path| match Identity::behind(path) {
        Ok(is) => names.get(&is).cloned().unwrap_or_default(),
        Err(_) => {
            let name = read_link(path).ok();
            name.and_then(|name| files.get_key_value(&name)).map(|(n, _)| n).into_iter().collect()
        }
    };
    for pid in proc::all()?.into_iter().filter(|pid| !but.contains(pid)) {
        // It ended meanwhile.
        let Ok(entries) = read_dir(proc::of(pid, "fd")) else { continue };
        for entry in entries.flatten() {
            let some = named(&entry.path());
            if !some.is_empty() && writes(pid, &entry.file_name()) {
                found.extend(some.into_iter().cloned());
            }
        }
        for range in shared(&proc::text(&proc::of(pid, "maps")).unwrap_or_default()) {
            let some = named(&proc::of(pid, "map_files").join(&range));
            if !some.is_empty() && writes_to(pid, &range) {
                found.extend(some.into_iter().cloned());
            }
        }
    }
    Ok(found)
}

/// Where files are mapped so that others see what is written there, by a `/proc/PID/maps`: the
/// names of those places in `map_files`.
pub(super) fn shared(text: &str) -> Vec<String> {
    let range = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights) = (fields.next()?, fields.next()?);
        // Offset, device, inode.
        let file = fields.nth(2)? != "0";
        (file && rights.ends_with('s')).then(|| plain_range(range)).flatten()
    };
    text.lines().filter_map(range).collect()
}

/// A range of addresses as `map_files` writes it: without zeros before it.
fn plain_range(range: &str) -> Option<String> {
    let (from, to) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(format!("{:x}-{:x}", number(from)?, number(to)?))
}

/// Whether what a process has mapped there may be written, now or as soon as it likes, by its
/// `smaps` (`mw` in proc_pid_smaps(5)). What cannot be made out may.
fn writes_to(pid: i32, range: &str) -> bool {
    let Ok(text) = proc::text(&proc::of(pid, "smaps")) else { return false };
    let is = |line: &&str| line.split(' ').next().and_then(plain_range).as_deref() == Some(range);
    let mut lines = text.lines().skip_while(|line| !is(line)).skip(1);
    let flags = lines.find_map(|line| line.strip_prefix("VmFlags:"));
    flags.is_none_or(|flags| flags.split_ascii_whitespace().any(|flag| flag == "mw"))
}

/// Whether a descriptor is open for writing, by its `fdinfo` (proc_pid_fdinfo(5)).
fn writes(pid: i32, number: &OsStr) -> bool {
    let info = proc::text(&proc::of(pid, "fdinfo").join(number)).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    let write = |flags: i32| flags & libc::O_ACCMODE != libc::O_RDONLY;
    flags.is_some_and(|flags| flags & libc::O_PATH == 0 && write(flags))
}
