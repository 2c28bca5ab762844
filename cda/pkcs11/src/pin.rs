//! The file with the token's PIN.

use cryptoki::types::AuthPin;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use xos_base::Error;

/// Longest PIN, in bytes, with the line's end.
const PIN_MAX: usize = 256;

/// Reads the PIN, refusing a file that others may read.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] naming the file.
pub(crate) fn read(path: &Path) -> Result<AuthPin, Error> {
    let failed = |what: &str| {
        Error::invalid(format!("the token's PIN in {}: {what}", path.display()))
            .hint("[cda.pkcs11] pin_file names a file with the PIN alone, which root alone reads")
    };
    let file = File::open(path).map_err(|e| failed(&e.to_string()))?;
    let meta = file.metadata().map_err(|e| failed(&e.to_string()))?;
    if meta.permissions().mode() & 0o077 != 0 {
        return Err(failed("the file can be read by others"));
    }
    let mut text = String::with_capacity(PIN_MAX + 1);
    file.take(PIN_MAX as u64 + 1).read_to_string(&mut text).map_err(|e| failed(&e.to_string()))?;
    if text.len() > PIN_MAX {
        return Err(failed("it is too long"));
    }
    // In place, so that no copy is left in memory.
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    match text.is_empty() {
        true => Err(failed("it is empty")),
        false => Ok(AuthPin::new(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// If it failed, another account of the machine could use the site's keys, or an end of line
    /// would lock the token.
    #[test]
    fn a_pin_is_read_from_a_file_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        let put = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read(&path)
        };
        for good in ["1234", "1234\n", "1234\r\n"] {
            put(good, 0o600).unwrap();
        }
        let long = "1".repeat(PIN_MAX + 1);
        for (text, mode) in
            [("1234", 0o640), ("1234", 0o604), ("\n", 0o600), (long.as_str(), 0o600)]
        {
            let e = put(text, mode).err().unwrap();
            assert!(e.message.contains("pin"), "{e}");
            assert!(!e.to_string().contains("1234"), "the PIN is told");
        }
        fs::remove_file(&path).unwrap();
        assert!(read(&path).is_err());
    }
}
