//! What others do on the same machine. A peer that is not installed is left out.

pub(super) mod openssl;
pub(super) mod slapd;
pub(super) mod slurm;

use std::path::Path;

/// Where Debian puts programs.
const FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/usr/local/bin", "/usr/bin"];

/// Those of `programs` that are not installed.
fn missing<'a>(programs: &[&'a str]) -> Vec<&'a str> {
    let there = |name: &str| FOLDERS.iter().any(|f| Path::new(f).join(name).is_file());
    programs.iter().copied().filter(|name| !there(name)).collect()
}
