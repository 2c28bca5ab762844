//! The cell's real `/proc`, as root's server reads it. What only the process's own user may read is
//! not read here, but for three links.

use super::process::Machine;
use std::fs::{File, read_dir, read_link, symlink_metadata};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use xos_base::Millis;

/// Longest text that is taken; the kernel's are shorter.
const TEXT_BYTES_MAX: u64 = 4 << 20;
/// Most entries of one folder that are taken.
const ENTRIES_MAX: usize = 65_536;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The thread, in the cell's pid namespace; 0: from outside of it.
    pub(super) tid: i32,
}

/// A procfs mount.
#[derive(Debug)]
pub(super) struct Local(PathBuf);

impl Local {
    pub(super) fn at(root: &Path) -> Local {
        Local(root.to_owned())
    }

    /// A text about the whole machine.
    pub(super) fn text(&self, name: &str) -> Result<String> {
        let mut text = String::new();
        File::open(self.0.join(name))?.take(TEXT_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    }

    /// What the texts are measured by.
    pub(super) fn machine(&self) -> Result<Machine> {
        let text = self.text("stat")?;
        let booted = text.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok());
        let booted = booted.ok_or_else(|| Error::new(ErrorKind::InvalidData, "no btime"))?;
        Ok(Machine {
            page_bytes: u64::try_from(rustix::param::page_size()).unwrap_or(4096),
            ticks_per_second: rustix::param::clock_ticks_per_second(),
            booted: Millis::from_secs(booted),
        })
    }

    fn folder(&self, pid: i32, tid: Option<i32>) -> PathBuf {
        let process = self.0.join(pid.to_string());
        match tid {
            Some(tid) => process.join("task").join(tid.to_string()),
            None => process,
        }
    }

    fn names(folder: &Path) -> Result<Vec<String>> {
        let names = read_dir(folder)?.take(ENTRIES_MAX).filter_map(|entry| {
            // What ends meanwhile is not there.
            entry.ok()?.file_name().into_string().ok()
        });
        Ok(names.collect())
    }

    /// Names of what is of no process.
    pub(super) fn top(&self) -> Result<Vec<String>> {
        let names = Self::names(&self.0)?.into_iter();
        Ok(names.filter(|name| name.parse::<i32>().is_err()).collect())
    }

    /// What a top name is a link to, if it is one.
    pub(super) fn top_link(&self, name: &str) -> Option<PathBuf> {
        read_link(self.0.join(name)).ok()
    }

    pub(super) fn has_top(&self, name: &str) -> bool {
        symlink_metadata(self.0.join(name)).is_ok()
    }

    /// The processes that a person sees: their own, as with `hidepid=2`; root sees all.
    pub(super) fn pids(&self, asker: Asker) -> Result<Vec<i32>> {
        let names = Self::names(&self.0)?.into_iter();
        let pids = names.filter_map(|name| name.parse::<i32>().ok());
        Ok(pids.filter(|pid| self.owner(*pid, None, asker).is_ok()).collect())
    }

    /// The threads of a process.
    pub(super) fn tids(&self, pid: i32) -> Result<Vec<i32>> {
        let names = Self::names(&self.folder(pid, None).join("task"))?.into_iter();
        Ok(names.filter_map(|name| name.parse::<i32>().ok()).collect())
    }

    /// Names of what is in the folder of a process or of a thread of it.
    pub(super) fn entries(&self, pid: i32, tid: Option<i32>) -> Result<Vec<String>> {
        Self::names(&self.folder(pid, tid))
    }

    pub(super) fn has_entry(&self, pid: i32, tid: Option<i32>, name: &str) -> bool {
        symlink_metadata(self.folder(pid, tid).join(name)).is_ok()
    }

    /// User and group of a process or thread, if the person sees it.
    ///
    /// # Errors
    /// `NotFound`, as for one that is not there.
    pub(super) fn owner(&self, pid: i32, tid: Option<i32>, asker: Asker) -> Result<(u32, u32)> {
        let metadata = symlink_metadata(self.folder(pid, tid))?;
        let sees = asker.uid == 0 || asker.uid == metadata.uid();
        match sees {
            true => Ok((metadata.uid(), metadata.gid())),
            false => Err(ErrorKind::NotFound.into()),
        }
    }

    /// The process that a thread belongs to.
    pub(super) fn process_of(&self, tid: i32) -> Option<i32> {
        let status = self.text(&format!("{tid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
    }

    /// What a link in the folder of a process or thread says; `None`: it is no link. As the kernel
    /// has it, only to whom the process belongs, with all that it may: the link is then theirs.
    ///
    /// # Errors
    /// `PermissionDenied` for others.
    pub(super) fn link(
        &self,
        pid: i32,
        tid: Option<i32>,
        name: &str,
        asker: Asker,
    ) -> Result<Option<PathBuf>> {
        let path = self.folder(pid, tid).join(name);
        let metadata = symlink_metadata(&path)?;
        if !metadata.is_symlink() {
            return Ok(None);
        }
        let own = (metadata.uid(), metadata.gid()) == (asker.uid, asker.gid);
        if asker.uid != 0 && !own {
            return Err(ErrorKind::PermissionDenied.into());
        }
        read_link(path).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_processes_are_hidden() {
        // wrong: a person would see which programs others run
        let local = Local::at(Path::new("/proc"));
        let own = i32::try_from(std::process::id()).unwrap();
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let me = Asker { uid, gid, tid: own };
        let other = Asker { uid: 1_900_000_001, gid: 1_900_000_001, tid: own };
        assert!(local.pids(me).unwrap().contains(&own));
        assert!(!local.pids(other).unwrap().contains(&own));
        assert_eq!(local.owner(own, None, other).unwrap_err().kind(), ErrorKind::NotFound);
        let exe = local.link(own, None, "exe", me).unwrap();
        assert_eq!(exe, Some(std::env::current_exe().unwrap()));
        let denied = local.link(own, None, "exe", other).unwrap_err().kind();
        assert_eq!(denied, ErrorKind::PermissionDenied);
        assert_eq!(local.link(own, None, "stat", me).unwrap(), None);
    }

    #[test]
    fn a_thread_is_found_to_be_of_its_process() {
        // wrong: /proc/self of a program with threads would be a thread's
        let local = Local::at(Path::new("/proc"));
        let own = i32::try_from(std::process::id()).unwrap();
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        assert_eq!(local.process_of(tid), Some(own));
        assert!(local.tids(own).unwrap().contains(&tid));
        assert!(local.machine().unwrap().booted > Millis(0));
    }
}
