//! Reading with a limit, and writing so that a file is there whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::codec::Fault;
use crate::histogram::{self, Histogram, UNITS_MAX};
use crate::phantom::{self, Phantom};

/// Ending of histogram files, by which a folder of them is read.
pub const HISTOGRAM_ENDING: &str = "hist";
/// Temporary names that are tried before giving up.
const TEMPORARY_NAMES_MAX: u32 = 64;

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused to read; the person checks path and rights.
    #[error("{}: cannot read: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused to write; the person checks path, rights and space.
    #[error("{}: cannot write: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The content is bad; the person supplies another file.
    #[error("{}: this is no valid {kind} file: {fault}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// `phantom` or `histogram`.
        kind: &'static str,
        /// What is wrong with it.
        fault: Fault,
    },
    /// A folder holds more histograms than a run can have.
    #[error("{}: more than {limit} histograms in this folder; give the files by name", path.display())]
    TooMany {
        /// The folder.
        path: PathBuf,
        /// The limit.
        limit: u32,
    },
}

/// Reads a phantom file.
///
/// # Errors
/// [`FileError::Read`] or [`FileError::Bad`].
pub fn read_phantom(path: &Path) -> Result<Phantom, FileError> {
    read(path, "phantom", phantom::FILE_BYTES_MAX, Phantom::decode)
}

/// Reads a histogram file.
///
/// # Errors
/// [`FileError::Read`] or [`FileError::Bad`].
pub fn read_histogram(path: &Path) -> Result<Histogram, FileError> {
    read(path, "histogram", histogram::FILE_BYTES_MAX, Histogram::decode)
}

fn read<T>(
    path: &Path,
    kind: &'static str,
    limit: u64,
    decode: impl Fn(&[u8]) -> Result<T, Fault>,
) -> Result<T, FileError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    let bad = |fault| FileError::Bad { path: path.to_owned(), kind, fault };
    if bytes.len() as u64 > limit {
        return Err(bad(Fault::TooLarge { limit }));
    }
    decode(&bytes).map_err(bad)
}

/// The histograms among `paths`: files as they are, folders replaced by their `*.hist` files in
/// order of name. Hidden files, such as unfinished ones, are left out.
///
/// # Errors
/// [`FileError::Read`] or [`FileError::TooMany`].
pub fn histograms_in(paths: &[PathBuf]) -> Result<Vec<PathBuf>, FileError> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let unreadable = |source| FileError::Read { path: path.clone(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(path).map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.path();
            let hidden = file.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
            if !hidden && file.extension().is_some_and(|ending| ending == HISTOGRAM_ENDING) {
                found.push(file);
            }
            if found.len() > UNITS_MAX as usize {
                return Err(FileError::TooMany { path: path.clone(), limit: UNITS_MAX });
            }
        }
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}

/// Where the histogram of a unit goes: `out` itself, or `unit-NNNNN.hist` in it when it is a folder
/// or ends with a slash. A folder that does not exist is made.
///
/// # Errors
/// [`FileError::Write`] when the folder cannot be made.
pub fn histogram_path(out: &Path, unit: u32) -> Result<PathBuf, FileError> {
    let names_folder = out.as_os_str().as_encoded_bytes().ends_with(b"/");
    if !names_folder && !out.is_dir() {
        return Ok(out.to_owned());
    }
    fs::create_dir_all(out).map_err(|source| FileError::Write { path: out.to_owned(), source })?;
    Ok(out.join(format!("unit-{unit:05}.{HISTOGRAM_ENDING}")))
}

/// Writes a file whole: under a temporary name in the same folder, synced, then renamed. Whoever
/// looks sees the old file or the new one, also after a crash.
///
/// # Errors
/// [`FileError::Write`]; the temporary file is then removed.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let failed = |source| FileError::Write { path: path.to_owned(), source };
    let name = path
        .file_name()
        .ok_or_else(|| failed(io::Error::new(ErrorKind::InvalidInput, "this names no file")))?;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let (temporary, mut file) = create_temporary(folder, name).map_err(failed)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(source) = written {
        return Err(failed(match fs::remove_file(&temporary) {
            Ok(()) => source,
            Err(left) => {
                let text = format!("{source}; {} stays behind: {left}", temporary.display());
                io::Error::new(source.kind(), text)
            }
        }));
    }
    sync_folder(folder).map_err(failed)
}

fn create_temporary(folder: &Path, name: &std::ffi::OsStr) -> io::Result<(PathBuf, File)> {
    let mut last = io::Error::from(ErrorKind::AlreadyExists);
    // Units on different machines may have one process id: the name alone does not keep them apart.
    for attempt in 0..TEMPORARY_NAMES_MAX {
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{attempt}.tmp", std::process::id()));
        let path = folder.join(hidden);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some file systems cannot sync a folder; the file itself is safe, so this is no failure.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::PermissionDenied
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader must never see half a file, and nothing may be left behind.
    #[test]
    fn replaces_whole_files_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.hist");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// A failed write must name the file and clean up.
    #[test]
    fn failed_write_cleans_up() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        fs::create_dir_all(taken.join("inner")).unwrap();
        let error = write_atomically(&taken, b"x").unwrap_err();
        assert!(error.to_string().starts_with(&taken.display().to_string()), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_atomically(&folder.path().join("no/such/file"), b"x").is_err());
        assert!(write_atomically(Path::new("/"), b"x").is_err());
    }

    /// A stale temporary file of a killed unit must not stop its next run.
    #[test]
    fn stale_temporary_file_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let stale = format!(".a.hist.{}-0.tmp", std::process::id());
        fs::write(folder.path().join(stale), b"half").unwrap();
        write_atomically(&folder.path().join("a.hist"), b"whole").unwrap();
        let found = histograms_in(&[folder.path().to_owned()]).unwrap();
        assert_eq!(found, [folder.path().join("a.hist")]);
    }

    /// A huge file must be refused by its size, before it fills the memory.
    #[test]
    fn oversized_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        for error in [read_phantom(&path).unwrap_err(), read_histogram(&path).unwrap_err()] {
            assert!(matches!(error, FileError::Bad { fault: Fault::TooLarge { .. }, .. }));
        }
    }

    /// Units that write into one folder must not overwrite one another.
    #[test]
    fn folder_gives_each_unit_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let new = format!("{}/new/", folder.path().display());
        let path = histogram_path(Path::new(&new), 7).unwrap();
        assert_eq!(path, folder.path().join("new/unit-00007.hist"));
        let plain = folder.path().join("plain.hist");
        assert_eq!(histogram_path(&plain, 7).unwrap(), plain);
    }
}
