//! Whether a tree that CRIU made is what its images say, and has no more than its person may have.
//!
//! CRIU opens files with the person's rights, by their names, and follows links. Who may put a link
//! in the place of a file would have a program write into another one of the person's, and whoever
//! writes images have it open what the program never had. So a tree is looked at before CRIU lets
//! go of it, and again before it goes on: each file must be the one of that name without any link,
//! and be open to the person.

use super::person::Person;
use super::proc;
use super::recorded::Recorded;
use super::{Cell, DriverError};
use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, accessat, fstat, open, openat2,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, read_dir, read_link};
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files that are open here at once.
const BATCH: usize = 64;
/// Namespaces that a tree shares with its cell.
const NAMESPACES: [&str; 5] = ["mnt", "pid", "user", "ipc", "uts"];
/// What a descriptor is that is no file's.
const UNNAMED: [&str; 4] = ["pipe:[", "socket:[", "anon_inode:", "pidfd:["];
/// What the kernel calls memory that belongs to no file (mm/shmem.c, ipc/shm.c, fs/aio.c).
const MEMORY: [&str; 5] = ["/memfd:", "/dev/zero (deleted)", "/SYSV", "/[aio]", "/anon_hugepage"];

/// When a tree is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Its processes are CRIU's yet, with its rights and with descriptors of its own.
    Held,
    /// It stands still, and is its person's.
    Made,
}

/// What a tree is compared with.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) cell: Option<Cell>,
    pub(super) person: Person,
    pub(super) recorded: Recorded,
}

/// Why a tree is not as it should be, or that this cannot be said.
#[derive(Debug)]
enum Fault {
    Strange(String),
    System(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::System(error)
    }
}

/// A file of a process.
struct Used {
    /// Where /proc has it.
    link: PathBuf,
    /// How it is used; one of both suffices.
    access: [Access; 2],
}

/// The same, open here without any rights on it.
struct Seen {
    name: PathBuf,
    file: OwnedFd,
    access: [Access; 2],
}

impl Look {
    /// Looks at the tree below `root`, as this process sees it.
    ///
    /// # Errors
    /// [`DriverError::Strange`], and those of the system.
    pub(super) fn at(&self, root: i32, when: When) -> std::result::Result<(), DriverError> {
        let seeing = |pid: i32| DriverError::system(format!("look at process {pid}"));
        for pid in proc::tree(root).map_err(seeing(root))? {
            match self.process(pid, when) {
                Ok(()) => {}
                Err(Fault::Strange(what)) => return Err(DriverError::Strange { pid, what }),
                // Nothing of it is left.
                Err(Fault::System(e)) if proc::ended(&e) && !Path::new(&proc_of(pid)).exists() => {}
                Err(Fault::System(e)) => return Err(seeing(pid)(e)),
            }
        }
        Ok(())
    }

    fn process(&self, pid: i32, when: When) -> std::result::Result<(), Fault> {
        if matches!(proc::stat(pid)?.state, 'Z' | 'X') {
            return Ok(());
        }
        let Some(numbers) = self.recorded.processes.get(&proc::inner_pid(pid)?) else {
            // CRIU's alone, and gone before the tree goes on.
            return match when {
                When::Held => Ok(()),
                When::Made => strange("it was not saved"),
            };
        };
        self.place(pid)?;
        if when == When::Made {
            for task in read_dir(proc::of(pid, "task"))? {
                let status = proc::text(&task?.path().join("status"))?;
                rights(&status, &self.person).map_err(Fault::Strange)?;
            }
        }
        let own = match when {
            // CRIU's have other numbers.
            When::Held => Some(numbers),
            When::Made => None,
        };
        for batch in used(pid, own)?.chunks(BATCH) {
            let mut seen = Vec::with_capacity(batch.len());
            for used in batch {
                seen.extend(self.see(used, when)?);
            }
            self.judge(&seen)?;
        }
        Ok(())
    }

    /// Whether a process is where its cell is.
    fn place(&self, pid: i32) -> std::result::Result<(), Fault> {
        let cell = self.cell.map_or_else(|| "/proc/self".to_owned(), |cell| proc_of(cell.pid));
        let own = proc_of(pid);
        let same = |cell: &str, name: &str| -> Result<bool> {
            Ok(read_link(format!("{own}/ns/{name}"))? == read_link(format!("{cell}/ns/{name}"))?)
        };
        for name in NAMESPACES {
            if !same(&cell, name)? {
                return strange(format!("it is in another namespace ({name}) than its cell"));
            }
        }
        if !self.cell.is_some_and(|cell| cell.own_net) && !same("/proc/self", "net")? {
            return strange("it has another network");
        }
        let root = |process: &str| -> Result<(u64, u64)> {
            let root = std::fs::metadata(format!("{process}/root"))?;
            Ok((root.dev(), root.ino()))
        };
        if root(&own)? != root(&cell)? {
            return strange("it has another root folder");
        }
        Ok(())
    }

    /// Opens a file without any rights on it; `None`: there is nothing to judge.
    fn see(&self, used: &Used, when: When) -> std::result::Result<Option<Seen>, Fault> {
        let name = read_link(&used.link)?;
        let text = name.to_string_lossy().into_owned();
        if UNNAMED.iter().any(|kind| text.starts_with(kind))
            || MEMORY.iter().any(|kind| text.starts_with(kind))
        {
            return Ok(None);
        }
        if !text.starts_with('/') {
            return strange(format!("it has {text} open"));
        }
        if when == When::Held && self.own_proc(&name) {
            // CRIU's, as long as the process is.
            return Ok(None);
        }
        let how = OFlags::PATH | OFlags::CLOEXEC;
        let file = open(&used.link, how, Mode::empty()).map_err(Error::from)?;
        Ok(Some(Seen { name, file, access: used.access }))
    }

    /// Whether a file is in `/proc`, of a process of the tree, and was recorded.
    fn own_proc(&self, name: &Path) -> bool {
        let Ok(rest) = name.strip_prefix("/proc") else { return false };
        let first = rest.iter().next().and_then(|first| first.to_str()?.parse::<i32>().ok());
        first.is_some_and(|pid| self.recorded.processes.contains_key(&pid))
            && self.recorded.names.contains(name)
    }

    /// Judges files as the person sees them, in the cell.
    fn judge(&self, seen: &[Seen]) -> std::result::Result<(), Fault> {
        let mounts = self.cell.map(|cell| File::open(format!("{}/ns/mnt", proc_of(cell.pid))));
        let mounts = mounts.transpose()?;
        let own = File::open("/proc/self/fd")?;
        let found = self.person.among(mounts.as_ref(), || {
            for one in seen {
                if let Some(what) = self.wrong(one, &own)? {
                    return Ok(Some(what));
                }
            }
            Ok(None)
        })?;
        match found {
            Some(what) => strange(what),
            None => Ok(()),
        }
    }

    /// What is wrong with a file; `own`: the folder of this process's descriptors.
    fn wrong(&self, seen: &Seen, own: &File) -> Result<Option<String>> {
        let stat = fstat(&seen.file)?;
        let name = seen.name.display();
        let number = seen.file.as_raw_fd().to_string();
        let may = |access| accessat(own, &number, access, AtFlags::EACCESS).is_ok();
        // Its owner can open it to themself.
        if stat.st_uid != self.person.uid && !seen.access.into_iter().any(may) {
            return Ok(Some(format!("it has {name} open, which its person may not open so")));
        }
        let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        // A terminal has another number here. What was removed has no name.
        if device || stat.st_nlink == 0 {
            return Ok(None);
        }
        if !self.recorded.names.contains(&seen.name) {
            return Ok(Some(format!("it has {name} open, which it had not when it was saved")));
        }
        let how = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let plain = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let Ok(there) = openat2(CWD, &seen.name, how, Mode::empty(), plain) else {
            return Ok(Some(format!("its person does not come to {name}, which it has open")));
        };
        let there = fstat(&there)?;
        let same = (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino);
        Ok((!same).then(|| format!("it has another file open than {name}")))
    }
}

/// All files of a process: open, mapped, its program and its folder; of its descriptors those with
/// these numbers (`None`: all).
fn used(pid: i32, own: Option<&BTreeSet<i32>>) -> Result<Vec<Used>> {
    let both = |access| [access, access];
    let mut used = vec![
        Used { link: proc::of(pid, "cwd"), access: both(Access::EXEC_OK) },
        Used { link: proc::of(pid, "exe"), access: both(Access::EXEC_OK) },
    ];
    for entry in read_dir(proc::of(pid, "fd"))? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.parse::<i32>().ok());
        let number = number.ok_or_else(|| malformed("fd"))?;
        if own.is_none_or(|own| own.contains(&number)) {
            let info = proc::text(&proc::of(pid, "fdinfo").join(&name))?;
            let access = opened(&info).ok_or_else(|| malformed("fdinfo"))?;
            used.push(Used { link: entry.path(), access: both(access) });
        }
    }
    let shared = shared(&proc::text(&proc::of(pid, "smaps"))?);
    for entry in read_dir(proc::of(pid, "map_files"))? {
        let entry = entry?;
        let range = entry.file_name().to_str().and_then(range);
        let range = range.ok_or_else(|| malformed("map_files"))?;
        let access = match shared.get(&range) {
            Some(false) => [Access::READ_OK, Access::EXEC_OK],
            _ => both(Access::WRITE_OK),
        };
        used.push(Used { link: entry.path(), access });
    }
    Ok(used)
}

fn strange<T>(what: impl Into<String>) -> std::result::Result<T, Fault> {
    Err(Fault::Strange(what.into()))
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("{what} of a process has another form"))
}

fn proc_of(pid: i32) -> String {
    format!("/proc/{pid}")
}

/// Whether a thread, by its `status` (proc_pid_status(5)), has its person's rights and no others.
fn rights(status: &str, person: &Person) -> std::result::Result<(), String> {
    let field = |name: &str| {
        let mut lines = status.lines();
        let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.ok_or_else(|| format!("its rights cannot be seen: no {name}"))
    };
    let numbers = |name: &str| -> std::result::Result<Vec<u32>, String> {
        let parsed = field(name)?.split_whitespace().map(|one| one.parse::<u32>());
        parsed.collect::<std::result::Result<_, _>>().map_err(|e| format!("its {name}: {e}"))
    };
    if let Some(uid) = numbers("Uid")?.into_iter().find(|uid| *uid != person.uid) {
        return Err(format!("it has the rights of user {uid}"));
    }
    let groups = [numbers("Gid")?, numbers("Groups")?].concat();
    if let Some(gid) = groups.into_iter().find(|gid| !person.gids.contains(gid)) {
        return Err(format!("it has the rights of group {gid}"));
    }
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        if field(name)?.trim().bytes().any(|digit| digit != b'0') {
            return Err(format!("it has rights of root ({name})"));
        }
    }
    Ok(())
}

/// How a descriptor is open, by its `fdinfo` (proc_pid_fdinfo(5)).
fn opened(info: &str) -> Option<Access> {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let flags = i32::from_str_radix(flags.trim(), 8).ok()?;
    Some(match flags & libc::O_ACCMODE {
        // To stand in it or to name it is all that can be done with it.
        _ if flags & libc::O_PATH != 0 => Access::EXISTS,
        libc::O_RDONLY => Access::READ_OK,
        libc::O_WRONLY => Access::WRITE_OK,
        _ => Access::READ_OK | Access::WRITE_OK,
    })
}

/// The ranges of a `/proc/PID/smaps` (proc_pid_smaps(5)), and whether what is written there goes to
/// the file, or may do so once the process asks for it (mprotect(2)).
fn shared(smaps: &str) -> BTreeMap<(u64, u64), bool> {
    let (mut found, mut last) = (BTreeMap::new(), None);
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let has = |flag: &str| flags.split_whitespace().any(|one| one == flag);
            found.extend(last.map(|range| (range, has("sh") && has("mw"))));
        } else if let Some(range) = line.split(' ').next().and_then(range) {
            last = Some(range);
        }
    }
    found
}

/// A range of addresses, as `1000-2000`.
fn range(text: &str) -> Option<(u64, u64)> {
    let (from, to) = text.split_once('-')?;
    Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
}

#[cfg(test)]
#[path = "look_tests.rs"]
mod tests;
