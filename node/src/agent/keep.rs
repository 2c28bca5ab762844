//! Small state files of the node, replaced atomically.

use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use xos_base::Error;

/// Longest state file that is read, in bytes.
const FILE_MAX: u64 = 256 * 1024 * 1024;

/// Writes `value` as JSON to `path`, mode 0600: whole or not at all, also after a power loss.
///
/// # Errors
/// [`xos_base::Kind::Internal`] naming the file.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value)
        .map_err(|e| Error::internal(format!("cannot write {}: {e}", path.display())))?;
    write_bytes(path, &bytes)
}

/// The same with bytes.
///
/// # Errors
/// As [`write`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let fail = |e: std::io::Error| {
        Error::internal(format!("cannot write {}: {e}", path.display()))
            .hint("check the disk's space and the folder's rights")
    };
    let new = path.with_extension("new");
    let mut file = fresh(&new).map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fail)?;
    std::fs::rename(&new, path).map_err(fail)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|f| f.sync_all()).map_err(fail)
}

/// Removes a file that [`write`] wrote, also after a power loss; it may be gone already.
///
/// # Errors
/// [`xos_base::Kind::Internal`] naming the file.
pub fn remove(path: &Path) -> Result<(), Error> {
    let fail =
        |e: std::io::Error| Error::internal(format!("cannot remove {}: {e}", path.display()));
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(fail)?,
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|f| f.sync_all()).map_err(fail)
}

/// Writes a text that is made anew at each start: whole or not at all, and not brought to the disk.
/// What is there already, in the same words, stays.
///
/// # Errors
/// As [`write`].
pub fn write_text(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let fail = |e: std::io::Error| {
        Error::internal(format!("cannot write {}: {e}", path.display()))
            .hint("check the disk's space and the folder's rights")
    };
    match std::fs::read_to_string(path) {
        Ok(present) if present == text => return Ok(()),
        // A link, or what cannot be read as a text, is replaced.
        _ => {}
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = fresh(&new).map_err(fail)?;
    file.write_all(text.as_bytes()).map_err(fail)?;
    // Whatever the daemon's umask is.
    file.set_permissions(Permissions::from_mode(mode)).map_err(fail)?;
    std::fs::rename(&new, path).map_err(fail)
}

/// A new file, of the owner alone: never what somebody left at `path`, nor through a link there.
fn fresh(path: &Path) -> std::io::Result<File> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Makes a folder that only this program's user can change, and makes sure that it is one.
///
/// # Errors
/// [`xos_base::Kind::Internal`] when something else has its place.
pub fn own_folder(path: &Path, mode: u32) -> Result<(), Error> {
    let shown = path.display();
    let fail = |e: std::io::Error| Error::internal(format!("cannot make {shown}: {e}"));
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(fail(e)),
        _ => {}
    }
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, how, Mode::empty()).map_err(|e| fail(e.into()))?;
    let stat = rustix::fs::fstat(&fd).map_err(|e| fail(e.into()))?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Error::internal(format!("{shown} is another's folder"))
            .hint("remove it, and start xosd again"));
    }
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(|e| fail(e.into()))
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

    /// If it failed, a local user could have root write over a file of their choice, or read and
    /// change what is root's alone.
    #[test]
    fn what_others_put_in_the_way_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "as it was").unwrap();
        let path = dir.path().join("text");
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("text.new")).unwrap();
        write_text(&path, "new", 0o644).unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "as it was");
        assert!(!path.is_symlink());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o644);
        let state = dir.path().join("state.json");
        std::os::unix::fs::symlink(&victim, &state).unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("state.new")).unwrap();
        write(&state, &7u32).unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "as it was");
        assert_eq!((read::<u32>(&state).unwrap(), mode(&state)), (Some(7), 0o600));

        let folder = dir.path().join("folder");
        std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &folder).unwrap();
        assert!(own_folder(&folder, 0o755).is_err(), "a link");
        std::fs::remove_file(&folder).unwrap();
        std::fs::write(&folder, "x").unwrap();
        assert!(own_folder(&folder, 0o755).is_err(), "a file");
        std::fs::remove_file(&folder).unwrap();
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
        own_folder(&folder, 0o700).unwrap();
        assert_eq!(mode(&folder), 0o700, "others could change what is in it");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&folder, Some(70_001), None).unwrap();
            assert!(own_folder(&folder, 0o700).is_err(), "another's");
        } else {
            println!("skipped: needs root to give folders away");
        }
    }
}
