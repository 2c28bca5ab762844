//! How large the image of a tree becomes: what its memory and its files without a name take.

use super::proc::{self, ended, link, of, text};
use std::collections::BTreeMap;
use std::fs::{Metadata, metadata, read_dir};
use std::io::{ErrorKind, Result};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the kernel writes after the name of a file that has none any more, or never had one, as
/// shared memory.
const NAMELESS: &str = " (deleted)";

/// What files take, in bytes, by device and inode.
type Files = BTreeMap<(u64, u64), u64>;

/// How much memory a tree has that no file with a name has, in bytes, as far as its processes tell:
/// what an image of it is about as large as. What several of its processes share counts once.
///
/// # Errors
/// Those of the system; that it has ended is one.
pub(crate) fn memory_bytes(root: i32) -> Result<u64> {
    let (mut bytes, mut shared) = (0_u64, Files::new());
    for pid in proc::tree(root)? {
        match process(pid, &mut shared) {
            Ok(own) => bytes = bytes.saturating_add(own),
            Err(e) if ended(&e) && pid != root => {}
            Err(e) => return Err(e),
        }
    }
    Ok(shared.into_values().fold(bytes, u64::saturating_add))
}

/// What one process has for itself; what others may have too comes to `shared`.
fn process(pid: i32, shared: &mut Files) -> Result<u64> {
    let own = private(&text(&of(pid, "status"))?);
    open(pid, shared)?;
    mapped(pid, shared)?;
    Ok(own)
}

/// By a `/proc/PID/status` (proc_pid_status(5)), in which a zombie has none.
fn private(status: &str) -> u64 {
    let of = |line: &str| -> Option<u64> {
        let (name, value) = line.split_once(':')?;
        if !["RssAnon", "VmSwap"].contains(&name) {
            return None;
        }
        value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    status.lines().filter_map(of).fold(0, u64::saturating_add)
}

/// Files that are open, be they mapped or not.
fn open(pid: i32, shared: &mut Files) -> Result<()> {
    for entry in read_dir(of(pid, "fd"))? {
        let path = entry?.path();
        if link(&path).filter(|name| name.ends_with(NAMELESS)).is_none() {
            continue;
        }
        shared.extend(nameless(metadata(&path))?);
    }
    Ok(())
}

/// Files that are mapped, be they open or not.
fn mapped(pid: i32, shared: &mut Files) -> Result<()> {
    let maps = text(&of(pid, "maps"))?;
    for line in maps.lines().filter(|line| line.ends_with(NAMELESS)) {
        let malformed = || proc::malformed(Path::new("maps"));
        let (from, to, inode) = mapping(line).ok_or_else(malformed)?;
        let path = of(pid, "map_files").join(format!("{from:x}-{to:x}"));
        match nameless(metadata(path)) {
            Ok(found) => shared.extend(found),
            // To look takes a right that root may lack (proc_pid_map_files(5)): all of it counts.
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                shared.insert((u64::MAX, inode), to.saturating_sub(from));
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// What a file takes that is in an image as no name leads to it, also where it is swapped; `None`:
/// it is none, or gone meanwhile.
fn nameless(found: Result<Metadata>) -> Result<Option<((u64, u64), u64)>> {
    match found {
        // stat(2): blocks of 512 bytes.
        Ok(file) if file.is_file() && file.nlink() == 0 => {
            Ok(Some(((file.dev(), file.ino()), file.blocks().saturating_mul(512))))
        }
        Ok(_) => Ok(None),
        Err(e) if ended(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Addresses and inode of a line of `/proc/PID/maps` (proc_pid_maps(5)).
fn mapping(line: &str) -> Option<(u64, u64, u64)> {
    let mut fields = line.split_whitespace();
    let (from, to) = fields.next()?.split_once('-')?;
    // Rights, offset and device are between.
    let inode = fields.nth(3)?.parse().ok()?;
    Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?, inode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::io::Write;
    use std::process::{Child, Command, Stdio};

    const MIB: u64 = 1 << 20;
    /// Has 16 MiB of memory that it shares with a child, and used the half of it.
    const SHARES: &str = "
import mmap, os, time
memory = mmap.mmap(-1, 16 << 20)
memory[:8 << 20] = b'x' * (8 << 20)
if os.fork():
    os.write(1, b'x')
time.sleep(1000)
";

    fn own() -> i32 {
        std::process::id().try_into().unwrap()
    }

    /// Started, and as it says so.
    fn said(command: &mut Command) -> Child {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = child.stdout.as_mut().unwrap();
        std::io::Read::read_exact(out, &mut [0]).unwrap();
        child
    }

    #[test]
    fn memory_without_that_of_files() {
        // wrong: an image would be begun in memory that has no room for it
        let text = "Name:\tRssAnon: 7 kB\nVmRSS:\t 900 kB\nRssAnon:\t     100 kB\n\
            RssFile:\t 800 kB\nRssShmem:\t 20 kB\nVmSwap:\t 3 kB\n";
        assert_eq!(private(text), 103 * 1024);
        assert_eq!(private("State:\tZ (zombie)\n"), 0);
    }

    #[test]
    fn what_is_open_and_has_no_name_counts_once_though_it_is_not_mapped() {
        // wrong: a program could have an image that takes more of a node's memory than was held for
        // it, by a file in memory or one that it removed
        let mut memory =
            std::fs::File::from(memfd_create("xos-test", MemfdFlags::CLOEXEC).unwrap());
        memory.write_all(&vec![1; 4 << 20]).unwrap();
        let mut removed = tempfile::tempfile().unwrap();
        removed.write_all(&vec![1; 2 << 20]).unwrap();
        removed.sync_all().unwrap();
        let _again = memory.try_clone().unwrap();
        let mut shared = Files::new();
        open(own(), &mut shared).unwrap();
        // A disk may pack what is written.
        for (file, least) in [(&memory, 4 * MIB), (&removed, 1)] {
            let stat = file.metadata().unwrap();
            let counted = shared.get(&(stat.dev(), stat.ino()));
            assert!(counted.is_some_and(|bytes| *bytes >= least), "{counted:?}");
        }
        // One with a name is in no image.
        let named = tempfile::NamedTempFile::new().unwrap();
        let stat = named.as_file().metadata().unwrap();
        open(own(), &mut shared).unwrap();
        assert!(!shared.contains_key(&(stat.dev(), stat.ino())));
    }

    #[test]
    fn what_processes_share_counts_once() {
        // wrong: a program whose processes share memory would be held more room than there is, or
        // less than its image takes
        let python = Path::new("/usr/bin/python3");
        if !python.exists() {
            return println!("skipped: no {}", python.display());
        }
        let mut child = said(Command::new(python).args(["-c", SHARES]));
        let pid = i32::try_from(child.id()).unwrap();
        let tree = proc::tree(pid).unwrap();
        assert_eq!(tree.len(), 2, "{tree:?}");
        let mut shared = Files::new();
        tree.iter().for_each(|pid| mapped(*pid, &mut shared).unwrap());
        let large: Vec<u64> = shared.values().copied().filter(|bytes| *bytes >= MIB * 8).collect();
        // All of it, where mappings cannot be looked at.
        assert!(large == [8 * MIB] || large == [16 * MIB], "{shared:?}");
        assert!(memory_bytes(pid).unwrap() >= 8 * MIB);
        for pid in tree {
            crate::sys::kill(pid, libc::SIGKILL).unwrap();
        }
        child.wait().unwrap();
    }

    #[test]
    fn a_mapping_is_of_addresses_and_an_inode() {
        // wrong: the kernel writes it otherwise than is read here, and no program could move
        let line = "00400000-00401000 rw-s 00000000 00:01 5 /memfd:a b (deleted)";
        assert_eq!(mapping(line), Some((0x40_0000, 0x40_1000, 5)));
        assert_eq!(mapping("x-y rw-s"), None);
    }
}
