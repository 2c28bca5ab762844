//! By what clients tell that an OSD may have lost what they wrote and nobody synced.

use std::io;

/// Where Linux tells which boot this is: a random UUID.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Answered to every write and sync (the write verifier of NFSv3, RFC 1813, 3.3.7 and 3.3.21).
/// Another one than before: what was written under the old and not synced may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteVerifier(pub u64);

impl WriteVerifier {
    /// That of this boot of the machine. What was written lies in the kernel's memory until it is
    /// on the disk: it is lost with the kernel, and outlives the process of the OSD.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn of_this_boot() -> io::Result<Self> {
        let text = std::fs::read_to_string(BOOT_ID)?;
        let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
        let id = u128::from_str_radix(&digits, 16).map_err(|error| {
            let text = format!("{BOOT_ID}: {text:?} is no id: {error}");
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        Ok(Self((id >> 64) as u64 ^ id as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it changed while the machine runs, a restart of an OSD would be told as a loss of data.
    #[test]
    fn it_stays_while_the_machine_runs() {
        let verifier = WriteVerifier::of_this_boot().unwrap();
        assert_eq!(WriteVerifier::of_this_boot().unwrap(), verifier);
        assert_ne!(verifier, WriteVerifier(0));
    }
}
