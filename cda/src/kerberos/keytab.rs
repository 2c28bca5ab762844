//! The file with the keys of the service. Whoever reads it can make tickets for it that say
//! anything.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use xos_base::Error;

/// Refuses a file that others may read or change. Blocks on the disk.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] that names the file.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let shown = path.display();
    let bad = |why: &str| Error::invalid(format!("[cda.kerberos] keytab: {shown}: {why}"));
    if !path.is_absolute() {
        return Err(bad("its path must begin with /"));
    }
    let about = std::fs::metadata(path).map_err(|e| bad(&e.to_string()))?;
    if !about.is_file() {
        return Err(bad("it is no file"));
    }
    if about.mode() & 0o077 != 0 {
        return Err(bad("others may read it").hint(format!("chmod 600 {shown}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// If it failed, any user of the core's machine could sign in as anybody.
    #[test]
    fn a_keytab_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("core.keytab");
        std::fs::write(&path, "keys").unwrap();
        let with = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            check(&path)
        };
        with(0o600).unwrap();
        for mode in [0o640, 0o604, 0o620] {
            assert!(with(mode).unwrap_err().message.contains("others"), "{mode:o}");
        }
        assert!(check(dir.path()).unwrap_err().message.contains("no file"));
        assert!(check(&dir.path().join("none")).is_err());
        assert!(check(Path::new("core.keytab")).unwrap_err().message.contains('/'));
    }
}
