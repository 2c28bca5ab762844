//! The secret by which a provider knows this core.

use openidconnect::ClientSecret;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use xos_base::Error;

/// Largest file of a secret, in bytes.
const SECRET_MAX: u64 = 4096;

/// Reads the secret in a file that nobody else may read. Blocks on the disk.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] that names the file.
pub(super) fn read(path: &Path) -> Result<ClientSecret, Error> {
    let bad = |why: &str| {
        Error::invalid(format!("[[cda.providers]] client_secret_file: {}: {why}", path.display()))
    };
    let about = std::fs::metadata(path).map_err(|e| bad(&e.to_string()))?;
    if about.mode() & 0o077 != 0 {
        return Err(bad("others may read it").hint(format!("chmod 600 {}", path.display())));
    }
    if about.len() > SECRET_MAX {
        return Err(bad("it is too large for a secret"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| bad(&e.to_string()))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() || secret.chars().any(char::is_control) {
        return Err(bad("it does not hold one line"));
    }
    Ok(ClientSecret::new(secret.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// If it failed, any user of the core's machine could act as the core at the provider.
    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let write = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read(&path)
        };
        assert_eq!(write("word\n", 0o600).unwrap().secret(), "word");
        assert!(write("word\n", 0o640).unwrap_err().message.contains("others"));
        assert!(write("word\n", 0o604).is_err());
        assert!(write("\n", 0o600).is_err());
        assert!(write("two\nlines\n", 0o600).is_err());
        assert!(read(&dir.path().join("none")).is_err());
    }
}
