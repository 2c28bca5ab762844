//! The files and folders of control groups.

use super::{CgroupError, REMOVE_TRIES_MAX};
use std::io::Read;
use std::path::Path;

/// Says what was tried, and where.
pub fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError::Io { doing, path, source }
}

/// Makes a folder; one that is there is good.
///
/// # Errors
/// The kernel's.
pub fn make(dir: &Path) -> Result<(), CgroupError> {
    match std::fs::create_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(io("make it", dir)),
    }
}

/// Removes a folder; one that is not there is gone.
///
/// # Errors
/// [`CgroupError::StillBusy`] when processes stay; the kernel's.
pub fn remove(dir: &Path) -> Result<(), CgroupError> {
    for _ in 0..REMOVE_TRIES_MAX {
        match std::fs::remove_dir(dir) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                // The kernel tells nobody when a v1 cgroup is free: ask again.
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => return other.map_err(io("remove it", dir)),
        }
    }
    Err(CgroupError::StillBusy(dir.to_owned()))
}

/// Reads a file, at most so many bytes.
///
/// # Errors
/// The kernel's.
pub fn read(path: &Path, max: u64) -> Result<String, CgroupError> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(io("open it", path))?;
    file.take(max).read_to_string(&mut text).map_err(io("read it", path))?;
    Ok(text)
}

/// Writes a value to a file of a cgroup's folder.
///
/// # Errors
/// The kernel's: the value is not taken.
pub fn write(dir: &Path, file: &'static str, value: &str) -> Result<(), CgroupError> {
    let path = dir.join(file);
    let opened = std::fs::OpenOptions::new().write(true).open(&path);
    // One write call: cgroup files take the value whole.
    opened
        .and_then(|mut f| std::io::Write::write_all(&mut f, value.as_bytes()))
        .map_err(io("write to it", &path))
}
