//! The file that says whose objects lie in a folder. Without it, an object server whose disk is not
//! mounted would find an empty folder and serve zeros for every file.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::osd::error::{ObjectsError, at};

/// Its name; no VO's begins with a dot.
const MARKER: &str = ".osd-id";
/// Its name while it is being made.
const UNFINISHED: &str = ".osd-id-unfinished";

/// Checks that the folder is that of OSD `id`; makes it if this OSD had none before. The file that
/// is given keeps the disk from being unmounted while it is open.
pub(super) fn claim(root: &Path, id: &str, had_objects: bool) -> Result<File, ObjectsError> {
    let path = root.join(MARKER);
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if had_objects {
                return Err(ObjectsError::Missing { root: root.to_owned(), id: id.to_owned() });
            }
            make(root, id)?;
            at(&path, File::open(&path))?
        }
        opened => at(&path, opened)?,
    };
    let mut found = String::new();
    at(&path, file.read_to_string(&mut found))?;
    if found != id {
        let (root, id) = (root.to_owned(), id.to_owned());
        return Err(ObjectsError::Foreign { root, id, found });
    }
    Ok(file)
}

fn make(root: &Path, id: &str) -> Result<(), ObjectsError> {
    at(root, DirBuilder::new().recursive(true).mode(0o700).create(root))?;
    let path = root.join(UNFINISHED);
    let mut file = at(&path, File::create(&path))?;
    at(&path, file.write_all(id.as_bytes()).and_then(|()| file.sync_all()))?;
    at(&path, fs::rename(&path, root.join(MARKER)))?;
    let above = root.parent().filter(|above| !above.as_os_str().is_empty());
    for folder in [Some(root), above].into_iter().flatten() {
        at(folder, File::open(folder).and_then(|folder| folder.sync_all()))?;
    }
    Ok(())
}
