//! Small state files of the node, replaced atomically.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use xos_base::Error;

/// Longest state file that is read, in bytes.
const FILE_MAX: u64 = 256 * 1024 * 1024;

/// Writes `value` as JSON to `path`, mode 0600: whole or not at all, also after a power loss.
///
/// # Errors
/// [`xos_base::Kind::Internal`] naming the file.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let fail = |e: std::io::Error| {
        Error::internal(format!("cannot write {}: {e}", path.display()))
            .hint("check the disk's space and the folder's rights")
    };
    let bytes = serde_json::to_vec(value).map_err(|e| fail(e.into()))?;
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .map_err(fail)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(fail)?;
    std::fs::rename(&new, path).map_err(fail)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|f| f.sync_all()).map_err(fail)
}

/// Reads what [`write`] wrote; `None` when there is no such file.
///
/// # Errors
/// [`xos_base::Kind::Internal`] naming the file, when it cannot be read or is damaged.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let fail = |why: String| Error::internal(format!("cannot read {}: {why}", path.display()));
    let size = match std::fs::metadata(path) {
        Ok(m) => m.len(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(fail(e.to_string())),
    };
    if size > FILE_MAX {
        return Err(fail(format!("it has more than {FILE_MAX} bytes")));
    }
    let bytes = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|e| fail(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert_eq!(read::<u32>(&path).unwrap(), None);
        write(&path, &7u32).unwrap();
        write(&path, &8u32).unwrap();
        assert_eq!(read::<u32>(&path).unwrap(), Some(8));
        std::fs::write(&path, b"{").unwrap();
        assert!(read::<u32>(&path).unwrap_err().message.contains("a.json"));
    }
}
