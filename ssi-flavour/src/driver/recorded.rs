//! What images say that a tree has: the files that it uses, by name, its descriptors, by number,
//! and its processes.

use super::images::{ImageError, Manifest};
use super::stats;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Longest image of files or descriptors, in bytes.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What images say that a tree has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Recorded {
    /// The names of its files and folders.
    pub(super) names: BTreeSet<PathBuf>,
    /// Its processes that have memory, by their pids in the cell, and the numbers of their
    /// descriptors. Others have ended already, or only begin a session for these.
    pub(super) processes: BTreeMap<i32, BTreeSet<i32>>,
}

impl Recorded {
    /// What images say.
    pub(super) fn read(images: &Images<'_>) -> Result<Recorded, ImageError> {
        let names = images.parse("files.img", stats::names)?;
        let mut recorded = Recorded { names: names.into_iter().collect(), ..Recorded::default() };
        for pid in images.names().filter_map(pid) {
            let list = images.parse(&format!("ids-{pid}.img"), stats::descriptors_of)?;
            let list = format!("fdinfo-{list}.img");
            // A process without descriptors has none.
            let numbers = match images.has(&list) {
                true => images.parse(&list, stats::descriptors)?,
                false => Vec::new(),
            };
            recorded.processes.insert(pid, numbers.into_iter().collect());
        }
        Ok(recorded)
    }
}

/// The images of a folder that was compared with its manifest.
pub(super) struct Images<'a> {
    folder: &'a Path,
    manifest: &'a Manifest,
}

impl<'a> Images<'a> {
    pub(super) fn of(folder: &'a Path, manifest: &'a Manifest) -> Images<'a> {
        Images { folder, manifest }
    }

    /// The names of all.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.manifest.files.keys().map(String::as_str)
    }

    /// Whether there is one.
    pub(super) fn has(&self, name: &str) -> bool {
        self.manifest.files.contains_key(name)
    }

    /// What is wrong with one.
    pub(super) fn bound(&self, name: &str, what: String) -> ImageError {
        ImageError::Bound { path: self.folder.join(name), what }
    }

    /// What one says.
    pub(super) fn parse<T>(
        &self,
        name: &str,
        parse: fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, ImageError> {
        let path = self.folder.join(name);
        let altered = |what: &str| ImageError::Altered { path: path.clone(), what: what.into() };
        let image = self.manifest.files.get(name).ok_or_else(|| altered("it is gone"))?;
        if image.size_bytes > BYTES_MAX {
            return Err(altered("it is too long"));
        }
        match std::fs::read(&path) {
            Ok(bytes) => parse(&bytes).map_err(|what| altered(&what)),
            Err(source) => Err(ImageError::System { path: path.clone(), source }),
        }
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
