//! What images say that a tree has: the files that it uses, by name, its descriptors, by number,
//! and its processes.

use super::images::{ImageError, Manifest};
use super::stats;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Longest image of files or descriptors, in bytes.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What images say that a tree has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Recorded {
    /// The names of its files and folders.
    pub(super) names: BTreeSet<PathBuf>,
    /// The numbers of the descriptors of all its processes.
    pub(super) numbers: BTreeSet<i32>,
    /// Its processes that have memory, by their pids in the cell: others have ended already, or
    /// only begin a session for these.
    pub(super) pids: BTreeSet<i32>,
}

impl Recorded {
    /// What the images of a folder say, which was compared with its manifest.
    pub(super) fn read(folder: &Path, manifest: &Manifest) -> Result<Recorded, ImageError> {
        let mut recorded = Recorded::default();
        for (name, image) in &manifest.files {
            recorded.pids.extend(pid(name));
            let descriptors = name.starts_with("fdinfo-");
            if !descriptors && name != "files.img" {
                continue;
            }
            let path = folder.join(name);
            let altered = |what: String| ImageError::Altered { path: path.clone(), what };
            if image.size_bytes > BYTES_MAX {
                return Err(altered("it is too long".to_owned()));
            }
            let bytes = std::fs::read(&path);
            let bytes =
                bytes.map_err(|source| ImageError::System { path: path.clone(), source })?;
            if descriptors {
                recorded.numbers.extend(stats::descriptors(&bytes).map_err(&altered)?);
            } else {
                recorded.names.extend(stats::names(&bytes).map_err(&altered)?);
            }
        }
        Ok(recorded)
    }
}

/// The process whose memory an image describes.
fn pid(name: &str) -> Option<i32> {
    name.strip_prefix("mm-")?.strip_suffix(".img")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_images_of_memory_name_processes() {
        // wrong: a process that is no program's would be judged as one, or one that is be left out
        assert_eq!(pid("mm-32769.img"), Some(32_769));
        assert!(pid("pagemap-7.img").is_none() && pid("mm-x.img").is_none());
    }
}
