//! Files of the daemon, for root's eyes, that are there whole or not at all, also after a power
//! loss.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use xos_base::Error;

/// Writes a file that must not exist yet; its folder is made.
///
/// # Errors
/// [`xos_base::Kind::Internal`] naming the file.
pub fn write_new(path: &Path, content: impl AsRef<[u8]>) -> Result<(), Error> {
    let draft = draft(path, content.as_ref())?;
    // Unlike renaming, this fails when somebody else made the file meanwhile.
    let linked = fs::hard_link(&draft, path).map_err(|e| cannot_write(path, &e));
    fs::remove_file(&draft).map_err(|e| cannot_write(path, &e))?;
    linked?;
    sync_folder(path)
}

/// Writes a file in the place of what is there, if anything.
///
/// # Errors
/// As [`write_new`].
pub fn replace(path: &Path, content: impl AsRef<[u8]>) -> Result<(), Error> {
    let draft = draft(path, content.as_ref())?;
    fs::rename(&draft, path).map_err(|e| cannot_write(path, &e))?;
    sync_folder(path)
}

/// Makes sure that a file can be written there, before something is done that cannot be undone.
///
/// # Errors
/// As [`write_new`].
pub fn check_place(path: &Path) -> Result<(), Error> {
    let draft = draft(path, b"probe")?;
    fs::remove_file(draft).map_err(|e| cannot_write(path, &e))
}

fn cannot_write(path: &Path, e: &std::io::Error) -> Error {
    Error::internal(format!("cannot write {}: {e}", path.display()))
}

/// The content beside the file's place, synced.
fn draft(path: &Path, content: &[u8]) -> Result<PathBuf, Error> {
    let fail = |e: std::io::Error| cannot_write(path, &e);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fail)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let draft = PathBuf::from(name);
    // Of an earlier try that was cut short.
    match fs::remove_file(&draft) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&draft).map_err(fail)?;
    file.write_all(content).map_err(fail)?;
    file.sync_all().map_err(fail)?;
    Ok(draft)
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| cannot_write(path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// If it failed, a second `xosd join` would write over the key of a working node, or what a
    /// crash left would be in the way for ever.
    #[test]
    fn a_new_file_replaces_nothing_and_a_draft_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node/key.pem");
        check_place(&path).unwrap();
        assert!(!path.exists(), "looking made the file");
        fs::write(folder.path().join("node/key.pem.new"), "half a k").unwrap();
        write_new(&path, "first").unwrap();
        let e = write_new(&path, "second").unwrap_err();
        assert!(e.message.contains("key.pem"), "{e}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        replace(&path, "third").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "third");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 1, "a draft is left");
    }
}
