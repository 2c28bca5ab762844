//! What CRIU leaves in its image folder about what it did: `stats-dump` and `files.img`
//! (criu: images/stats.proto, images/fdinfo.proto, images/regfile.proto, criu/include/magic.h).

use super::files::Opened;
use super::images::OpenFile;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Of files that describe a run (`IMG_SERVICE_MAGIC`).
const SERVICE_MAGIC: u32 = 0x5510_5940;
const STATS_MAGIC: u32 = 0x5709_3306;
/// Of images (`IMG_COMMON_MAGIC`).
pub(super) const COMMON_MAGIC: u32 = 0x5456_4319;
const FILES_MAGIC: u32 = 0x5630_3138;
const FDINFO_MAGIC: u32 = 0x5621_3732;
const IDS_MAGIC: u32 = 0x5443_2030;

#[derive(Clone, PartialEq, Message)]
struct StatsEntry {
    #[prost(message, optional, tag = "1")]
    dump: Option<DumpStats>,
}

/// How a dump went.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct DumpStats {
    /// Microseconds.
    #[prost(uint32, tag = "2")]
    pub(super) frozen_time: u32,
    /// Pages.
    #[prost(uint64, tag = "7")]
    pub(super) pages_written: u64,
}

#[derive(Clone, PartialEq, Message)]
struct FileEntry {
    #[prost(message, optional, tag = "3")]
    reg: Option<RegFile>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct RegFile {
    #[prost(uint32, tag = "2")]
    flags: u32,
    #[prost(uint64, tag = "3")]
    position: u64,
    #[prost(string, tag = "6")]
    name: String,
    #[prost(uint64, optional, tag = "8")]
    size: Option<u64>,
    #[prost(uint32, optional, tag = "10")]
    mode: Option<u32>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Descriptor {
    #[prost(uint32, tag = "4")]
    number: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Ids {
    #[prost(uint32, tag = "2")]
    files: u32,
}

/// How the dump went whose `stats-dump` this is; else what is wrong with it.
pub(super) fn dump(bytes: &[u8]) -> Result<DumpStats, String> {
    let mut entries = Entries::of(bytes, SERVICE_MAGIC, STATS_MAGIC)?;
    let entry = entries.next().ok_or("it is empty")??;
    let entry = StatsEntry::decode(entry).map_err(|e| e.to_string())?;
    entry.dump.ok_or_else(|| "it is not of a dump".into())
}

/// The files that were open for writing, by the `files.img` of a dump; else what is wrong with it.
///
/// CRIU keeps no size of a file that is only appended to. Then it is the larger of where the
/// program stood in it and of what it had `before` the dump: no less than all that the program
/// wrote, and no more than it had when the program stood still.
pub(super) fn open_files(
    bytes: &[u8],
    before: &BTreeMap<PathBuf, u64>,
) -> Result<Vec<OpenFile>, String> {
    let mut found: BTreeMap<PathBuf, (u64, BTreeSet<Opened>)> = BTreeMap::new();
    for entry in Entries::of(bytes, COMMON_MAGIC, FILES_MAGIC)? {
        let entry = FileEntry::decode(entry?).map_err(|e| e.to_string())?;
        let Some(file) = entry.reg else { continue };
        let access = file.flags & libc::O_ACCMODE.cast_unsigned();
        let regular = file.mode.is_some_and(|mode| mode & libc::S_IFMT == libc::S_IFREG);
        if !regular || access == libc::O_RDONLY.cast_unsigned() {
            continue;
        }
        let path = PathBuf::from(file.name);
        let known = before.get(&path).copied().unwrap_or(0);
        let size = file.size.unwrap_or(known.max(file.position));
        let (kept, opened) = found.entry(path).or_default();
        *kept = size.max(*kept);
        opened.insert(Opened { flags: file.flags, position: file.position });
    }
    let open_file = |(path, (size_bytes, opened))| OpenFile { path, size_bytes, opened, was: None };
    Ok(found.into_iter().map(open_file).collect())
}

/// The names of all files and folders in a `files.img`; else what is wrong with it.
pub(super) fn names(bytes: &[u8]) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for entry in Entries::of(bytes, COMMON_MAGIC, FILES_MAGIC)? {
        let entry = FileEntry::decode(entry?).map_err(|e| e.to_string())?;
        found.extend(entry.reg.map(|file| PathBuf::from(file.name)));
    }
    Ok(found)
}

/// The numbers of the descriptors in an `fdinfo-`; else what is wrong with it.
pub(super) fn descriptors(bytes: &[u8]) -> Result<Vec<i32>, String> {
    let mut found = Vec::new();
    for entry in Entries::of(bytes, COMMON_MAGIC, FDINFO_MAGIC)? {
        let number = Descriptor::decode(entry?).map_err(|e| e.to_string())?.number;
        found.push(i32::try_from(number).map_err(|_| format!("{number} is no descriptor"))?);
    }
    Ok(found)
}

/// Which `fdinfo-` has a process's descriptors, by its `ids-`; else what is wrong with that.
pub(super) fn descriptors_of(bytes: &[u8]) -> Result<u32, String> {
    let entry = Entries::of(bytes, COMMON_MAGIC, IDS_MAGIC)?.next().ok_or("it is empty")??;
    Ok(Ids::decode(entry).map_err(|e| e.to_string())?.files)
}

/// The entries of an image: two magic numbers, then each with its length before it.
pub(super) struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    pub(super) fn of(bytes: &'a [u8], kind: u32, magic: u32) -> Result<Entries<'a>, String> {
        let mut rest = Entries(bytes);
        let found = (rest.number(), rest.number());
        if found == (Some(kind), Some(magic)) {
            Ok(rest)
        } else {
            Err("it is of another kind".into())
        }
    }

    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*number))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<&'a [u8], String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let size = self.number().and_then(|size| usize::try_from(size).ok());
        let split = size.and_then(|size| self.0.split_at_checked(size));
        // Nothing can be read behind a torn entry.
        let (entry, rest) = split.unzip();
        self.0 = rest.unwrap_or_default();
        Some(entry.ok_or_else(|| "it ends in the middle".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of CRIU 4.2.1, for a pipeline of three shells.
    const STATS: &[u8] = &[
        0x40, 0x59, 0x10, 0x55, 0x06, 0x33, 0x09, 0x57, 0x23, 0, 0, 0, 0x0a, 0x21, 0x08, 0xdb,
        0x02, 0x10, 0x9b, 0x50, 0x18, 0xfe, 0x0a, 0x20, 0xd1, 0x02, 0x28, 0xc6, 0x01, 0x30, 0,
        0x38, 0x79, 0x40, 0, 0x48, 0, 0x50, 0x18, 0x58, 0x18, 0x60, 0, 0x68, 0, 0x70, 0,
    ];

    fn files(entries: &[FileEntry]) -> Vec<u8> {
        let mut image = [COMMON_MAGIC.to_le_bytes(), FILES_MAGIC.to_le_bytes()].concat();
        for entry in entries {
            let bytes = entry.encode_to_vec();
            image.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
            image.extend(bytes);
        }
        image
    }

    #[test]
    fn a_run_s_figures_are_read() {
        // wrong: people would be told another time for which their program stood still
        let stats = dump(STATS).unwrap();
        assert_eq!((stats.frozen_time, stats.pages_written), (10_267, 121));
    }

    #[test]
    fn damaged_figures_are_errors() {
        for cut in 0..STATS.len() {
            assert!(dump(&STATS[..cut]).is_err(), "{cut} bytes");
        }
        assert!(open_files(STATS, &BTreeMap::new()).is_err(), "another kind");
    }

    #[test]
    fn only_files_open_for_writing_count_and_each_once() {
        // wrong: after a crash a log would not be brought back to where its program stood, or lose
        // what was in it before
        let file = |flags: i32, name: &str, position, size| FileEntry {
            reg: Some(RegFile {
                flags: flags.cast_unsigned(),
                position,
                name: name.into(),
                size,
                mode: Some(libc::S_IFREG | 0o600),
            }),
        };
        let mut device = file(libc::O_RDWR, "/dev/null", 0, None);
        device.reg.as_mut().unwrap().mode = Some(libc::S_IFCHR | 0o666);
        let append = libc::O_WRONLY | libc::O_APPEND;
        let image = files(&[
            file(libc::O_RDONLY, "/usr/bin/dash", 0, Some(9)),
            file(append, "/vo/log", 380, None),
            FileEntry { reg: None },
            file(libc::O_RDWR, "/vo/a", 0, Some(5)),
            file(append, "/vo/log", 0, None),
            file(append, "/vo/old", 0, None),
            device,
        ]);
        let before = BTreeMap::from([("/vo/old".into(), 1000), ("/vo/log".into(), 300)]);
        let open = |how: i32, position| Opened { flags: how.cast_unsigned(), position };
        let file = |path: &str, size_bytes, opened: &[Opened]| OpenFile {
            path: path.into(),
            size_bytes,
            opened: opened.iter().copied().collect(),
            was: None,
        };
        let expected = [
            file("/vo/a", 5, &[open(libc::O_RDWR, 0)]),
            file("/vo/log", 380, &[open(append, 380), open(append, 0)]),
            file("/vo/old", 1000, &[open(append, 0)]),
        ];
        assert_eq!(open_files(&image, &before).unwrap(), expected);
        assert!(open_files(&image[..image.len() - 1], &before).is_err(), "torn");
        let names: Vec<PathBuf> = names(&image).unwrap();
        assert_eq!(names.len(), 6, "all, whatever they are open for: {names:?}");
    }

    /// The descriptors of a Python of CRIU 4.2.1, which has those from 0 to 5.
    const FDINFO: &[u8] = &[
        0x19, 0x43, 0x56, 0x54, 0x32, 0x37, 0x21, 0x56, 0x08, 0x00, 0x00, 0x00, 0x08, 0x0a, 0x10,
        0x00, 0x18, 0x01, 0x20, 0x00, 0x08, 0x00, 0x00, 0x00, 0x08, 0x0b, 0x10, 0x00, 0x18, 0x01,
        0x20, 0x01, 0x08, 0x00, 0x00, 0x00, 0x08, 0x0c, 0x10, 0x00, 0x18, 0x01, 0x20, 0x02, 0x08,
        0x00, 0x00, 0x00, 0x08, 0x0d, 0x10, 0x01, 0x18, 0x01, 0x20, 0x03, 0x08, 0x00, 0x00, 0x00,
        0x08, 0x0e, 0x10, 0x01, 0x18, 0x01, 0x20, 0x04, 0x08, 0x00, 0x00, 0x00, 0x08, 0x0f, 0x10,
        0x01, 0x18, 0x01, 0x20, 0x05,
    ];

    /// Of the same program.
    const IDS: &[u8] = &[
        0x19, 0x43, 0x56, 0x54, 0x30, 0x20, 0x43, 0x54, 0x18, 0x00, 0x00, 0x00, 0x08, 0x02, 0x10,
        0x02, 0x18, 0x02, 0x20, 0x02, 0x28, 0x01, 0x30, 0x02, 0x38, 0x03, 0x40, 0x04, 0x48, 0x06,
        0x50, 0x07, 0x58, 0x08, 0x60, 0x05,
    ];

    #[test]
    fn the_numbers_of_descriptors_are_read() {
        // wrong: files that a copy got would be taken for CRIU's own, and not be looked at
        assert_eq!(descriptors(FDINFO).unwrap(), [0, 1, 2, 3, 4, 5]);
        assert!(descriptors(&FDINFO[..FDINFO.len() - 1]).is_err(), "torn");
        assert!(descriptors(STATS).is_err(), "another kind");
        assert_eq!(descriptors_of(IDS).unwrap(), 2);
        assert!(descriptors_of(&IDS[..8]).is_err() && descriptors_of(FDINFO).is_err());
    }
}
