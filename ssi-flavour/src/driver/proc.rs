//! What /proc says of processes (proc(5)).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{read_dir, read_link, read_to_string};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is read of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) stat: Stat,
    pub(super) status: Status,
    pub(super) descriptors: Vec<Descriptor>,
    /// What is mapped: files, and names that the kernel gives.
    pub(super) mapped: BTreeSet<String>,
    pub(super) folder: String,
    /// Whether its `/proc` is one of [`crate::procfs`].
    pub(super) merged_proc: bool,
}

/// Of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) state: char,
    pub(super) parent: i32,
    pub(super) session: i32,
}

/// Of `/proc/PID/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// Real, effective, saved, of files.
    pub(super) uids: [u32; 4],
    pub(super) gids: [u32; 4],
    /// Effective capabilities (capabilities(7)), as bits.
    pub(super) effective: u64,
    /// 0: nobody.
    pub(super) tracer: i32,
    /// 0: none, 1: strict, 2: filters.
    pub(super) seccomp: u8,
    /// In each pid namespace, the process's own last.
    pub(super) pids: Vec<i32>,
}

/// An open file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) number: i32,
    /// What its link in `/proc/PID/fd` says.
    pub(super) what: String,
    /// What it takes on the disk, in bytes; 0: no plain file.
    pub(super) stored_bytes: u64,
    /// Its size in bytes; 0: no plain file.
    pub(super) size_bytes: u64,
}

impl Stat {
    pub(super) fn parse(text: &str) -> Option<Stat> {
        // The name before may hold anything.
        let mut rest = text.rsplit_once(')')?.1.split_whitespace();
        let state = rest.next()?.chars().next()?;
        let mut number = || -> Option<i32> { rest.next()?.parse().ok() };
        let (parent, _group, session) = (number()?, number()?, number()?);
        Some(Stat { state, parent, session })
    }
}

impl Status {
    pub(super) fn parse(text: &str) -> Option<Status> {
        let field = |name: &str| {
            let mut values =
                text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            values.next()
        };
        let uids: Vec<u32> = numbers(field("Uid")?)?;
        let gids: Vec<u32> = numbers(field("Gid")?)?;
        Some(Status {
            uids: uids.try_into().ok()?,
            gids: gids.try_into().ok()?,
            effective: u64::from_str_radix(field("CapEff")?.trim(), 16).ok()?,
            tracer: field("TracerPid")?.trim().parse().ok()?,
            // Kernels without it have no line.
            seccomp: field("Seccomp").map_or(Some(0), |value| value.trim().parse().ok())?,
            pids: numbers(field("NSpid")?)?,
        })
    }
}

fn numbers<T: std::str::FromStr>(text: &str) -> Option<Vec<T>> {
    text.split_whitespace().map(|one| one.parse().ok()).collect()
}

/// The names in a `/proc/PID/maps`.
pub(super) fn mapped(text: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let mut rest = line;
        // Address, rights, offset, device, inode.
        for _ in 0..5 {
            rest = rest.trim_start().split_once(' ')?.1;
        }
        let name = rest.trim_start();
        (!name.is_empty()).then(|| name.to_owned())
    };
    text.lines().filter_map(name).collect()
}

/// Whether a `/proc/PID/mountinfo` has a merged `/proc`.
fn merged(text: &str) -> bool {
    let kind = |line: &str| line.split_once(" - ")?.1.split(' ').next().map(str::to_owned);
    text.lines().filter_map(kind).any(|kind| kind == crate::procfs::FILE_SYSTEM)
}

/// The inodes of sockets in a `/proc/PID/net/tcp` or `tcp6` that are connected, or about to be.
pub(super) fn connected(text: &str) -> BTreeSet<u64> {
    /// `TCP_CLOSE` and `TCP_LISTEN` (include/net/tcp_states.h).
    const UNCONNECTED: [&str; 2] = ["07", "0A"];
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let connected = !UNCONNECTED.contains(fields.get(3)?);
        fields.get(9)?.parse::<u64>().ok().filter(|_| connected)
    };
    text.lines().skip(1).filter_map(inode).collect()
}

pub(super) fn malformed(path: &Path) -> Error {
    Error::new(ErrorKind::InvalidData, format!("{} has another form", path.display()))
}

pub(super) fn of(pid: i32, name: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(name)
}

pub(super) fn stat(pid: i32) -> Result<Stat> {
    let path = of(pid, "stat");
    Stat::parse(&text(&path)?).ok_or_else(|| malformed(&path))
}

pub(super) fn status(pid: i32) -> Result<Status> {
    read_status(&of(pid, "status"))
}

/// This process's.
pub(super) fn own_status() -> Result<Status> {
    read_status(Path::new("/proc/self/status"))
}

fn read_status(path: &Path) -> Result<Status> {
    Status::parse(&text(path)?).ok_or_else(|| malformed(path))
}

/// What a file says, also when a program's name in it is no text.
pub(super) fn text(path: &Path) -> Result<String> {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// What a link says, without failing for what cannot be followed, as a zombie's.
pub(super) fn link(path: &Path) -> Option<String> {
    read_link(path).ok().map(|to| to.to_string_lossy().into_owned())
}

/// Whether an error only says that a process ended meanwhile.
pub(super) fn ended(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// All pids that this process sees.
pub(super) fn all() -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(pids)
}

/// The pids of a process and all that descend from it, the root first.
///
/// # Errors
/// `NotFound` when there is no root.
pub(super) fn tree(root: i32) -> Result<Vec<i32>> {
    stat(root)?;
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for pid in all()? {
        match stat(pid) {
            Ok(stat) => children.entry(stat.parent).or_default().push(pid),
            Err(e) if ended(&e) => {}
            Err(e) => return Err(e),
        }
    }
    let (mut found, mut next) = (Vec::new(), VecDeque::from([root]));
    while let Some(pid) = next.pop_front() {
        found.push(pid);
        next.extend(children.remove(&pid).unwrap_or_default());
    }
    Ok(found)
}

/// A process's pid in its own namespace.
pub(super) fn inner_pid(pid: i32) -> Result<i32> {
    status(pid)?.pids.last().copied().ok_or_else(|| malformed(&of(pid, "status")))
}

/// The pid, as this process sees it, of the process that has `inner` in the pid namespace of
/// process `cell`; `None` for `cell`: in this process's own.
pub(super) fn outer_pid(cell: Option<i32>, inner: i32) -> Result<Option<i32>> {
    let Some(cell) = cell else {
        return Ok(of(inner, "stat").exists().then_some(inner));
    };
    let namespace = read_link(of(cell, "ns/pid"))?;
    for pid in all()? {
        let same = status(pid).is_ok_and(|status| status.pids.last() == Some(&inner))
            && read_link(of(pid, "ns/pid")).is_ok_and(|other| other == namespace);
        if same {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// Everything that is read of a process.
///
/// # Errors
/// Those of the system; `NotFound` or `ESRCH` when it ended.
pub(super) fn process(pid: i32) -> Result<Process> {
    let stat = stat(pid)?;
    let status = status(pid)?;
    if stat.state == 'Z' {
        return Ok(Process { pid, stat, status, ..Process::default() });
    }
    let mut descriptors = Vec::new();
    for entry in read_dir(of(pid, "fd"))? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok());
        // Closed meanwhile.
        let (Some(number), Some(what)) = (number, link(&path)) else { continue };
        let plain = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file);
        // stat(2): blocks of 512 bytes.
        let sizes = plain.map(|file| (file.blocks() * 512, file.len()));
        let (stored_bytes, size_bytes) = sizes.unwrap_or_default();
        descriptors.push(Descriptor { number, what, stored_bytes, size_bytes });
    }
    descriptors.sort_by_key(|descriptor| descriptor.number);
    let mapped = mapped(&read_to_string(of(pid, "maps"))?);
    let folder = link(&of(pid, "cwd")).unwrap_or_default();
    let merged_proc = merged(&read_to_string(of(pid, "mountinfo"))?);
    Ok(Process { pid, stat, status, descriptors, mapped, folder, merged_proc })
}

/// The connected sockets (TCP) of a process's network.
pub(super) fn connections(pid: i32) -> Result<BTreeSet<u64>> {
    let mut found = connected(&read_to_string(of(pid, "net/tcp"))?);
    match read_to_string(of(pid, "net/tcp6")) {
        Ok(text) => found.extend(connected(&text)),
        // A kernel without IPv6.
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    Ok(found)
}

/// Whether a process has another network than this one.
pub(super) fn own_net(pid: i32) -> Result<bool> {
    Ok(read_link(of(pid, "ns/net"))? != read_link("/proc/self/ns/net")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_anything_in_it_is_passed_over() {
        // wrong: a program could name itself so that it seems to be another's child
        let stat = Stat::parse("7 (a) S 1 (x) D 3 8 9 0 -1").unwrap();
        assert_eq!(stat, Stat { state: 'D', parent: 3, session: 9 });
        assert_eq!(Stat::parse("7 (a) S 1 2"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn what_a_status_says() {
        let text = "Name:\tsh\nTracerPid:\t0\nUid:\t1000\t0\t0\t0\nGid:\t7\t8\t9\t9\nNSpid:\t24733\t32769\n\
            CapPrm:\t1\nCapEff:\t000001fffeffffff\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let status = Status::parse(text).unwrap();
        let expected = Status {
            uids: [1000, 0, 0, 0],
            gids: [7, 8, 9, 9],
            effective: 0x1ff_feff_ffff,
            tracer: 0,
            seccomp: 2,
            pids: vec![24_733, 32_769],
        };
        assert_eq!(status, expected);
        assert_eq!(Status::parse("Uid:\t1000\t0\n"), None);
    }

    #[test]
    fn names_of_mappings_with_spaces_and_without() {
        let text = "55d0-55d1 r--p 00000000 fe:00 131 /usr/bin/my prog\n\
            7f00-7f01 rw-p 00000000 00:00 0 \n\
            7f02-7f03 rw-s 00000000 00:01 5   /SYSV00000000 (deleted)\n";
        let names: Vec<String> = mapped(text).into_iter().collect();
        assert_eq!(names, ["/SYSV00000000 (deleted)", "/usr/bin/my prog"]);
    }

    #[test]
    fn a_merged_proc_is_seen() {
        // wrong: CRIU would be let loose on a shell that it cannot restore
        let own = "90 24 0:60 / /proc rw - proc proc rw,hidepid=2";
        let merged = format!("{own}\n91 90 0:61 / /proc ro - fuse.xos-proc xos-proc ro\n");
        assert!(super::merged(&merged) && !super::merged(own));
    }

    #[test]
    fn listening_is_not_connected() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0\n\
            1: 0100007F:1F90 0100007F:8888 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0 20 4 30 10 -1\n";
        assert_eq!(connected(text), BTreeSet::from([12]));
    }

    #[test]
    fn this_process_is_found() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let tree = tree(own).unwrap();
        assert_eq!(tree.first(), Some(&own));
        assert!(tree.contains(&pid), "the child");
        assert_eq!(outer_pid(Some(pid), inner_pid(pid).unwrap()).unwrap(), Some(pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(ended(&process(pid).unwrap_err()));
        assert_eq!(outer_pid(Some(own), i32::MAX).unwrap(), None);
    }
}
