//! The one line in the person's own `~/.ssh/config` by which plain `ssh` knows the grid's machines.

use crate::cli::place::Place;
use std::path::Path;
use xos_base::Error;

/// The line. It stands first: below a `Host` line it would count for that host only.
pub const LINE: &str = "Include ~/.xos/ssh/config";
/// Tells the person where the line is from, and `xos logout` that it may take it out.
const MARK: &str = "# From `xos login`; `xos logout` takes it out again.";
const FOLDER: &str = ".ssh";
const FILE: &str = "config";

fn block() -> String {
    format!("{MARK}\n{LINE}\n")
}

fn holds_line(text: &str) -> bool {
    text.lines().any(|line| line.trim() == LINE)
}

/// Whether the line is there. `home` is the person's home folder.
///
/// # Errors
/// As [`Place::open`].
pub fn is_there(home: &Path) -> Result<bool, Error> {
    let Some(place) = Place::open(home, &[FOLDER], false)? else { return Ok(false) };
    Ok(place.read(FILE)?.is_some_and(|kept| holds_line(&kept.text)))
}

/// Adds the line, unless it is there; whether it was added now. `home` is the person's home folder.
///
/// # Errors
/// As [`Place::open`]: a file that is a link, or that others can write, is left as it is.
pub fn add(home: &Path) -> Result<bool, Error> {
    let Some(place) = Place::open(home, &[FOLDER], true)? else { return Ok(false) };
    let kept = place.read(FILE)?;
    let text = kept.as_ref().map_or("", |k| k.text.as_str());
    if holds_line(text) {
        return Ok(false);
    }
    place.write(FILE, kept.as_ref(), &(block() + text))?;
    Ok(true)
}

/// Takes the line out that [`add`] put there; whether there was one. What the person wrote
/// themselves stays.
///
/// # Errors
/// As [`add`].
pub fn remove(home: &Path) -> Result<bool, Error> {
    let Some(place) = Place::open(home, &[FOLDER], false)? else { return Ok(false) };
    let Some(kept) = place.read(FILE)? else { return Ok(false) };
    let Some((before, after)) = split(&kept.text) else { return Ok(false) };
    if before.is_empty() && after.is_empty() {
        place.remove(FILE, &kept)?;
    } else {
        place.write(FILE, Some(&kept), &format!("{before}{after}"))?;
    }
    Ok(true)
}

/// What stands before and after our lines.
fn split(text: &str) -> Option<(&str, &str)> {
    let block = block();
    let begins_line = |at: &usize| *at == 0 || text[..*at].ends_with('\n');
    let at = text.match_indices(block.as_str()).map(|(at, _)| at).find(begins_line)?;
    Some((&text[..at], &text[at + block.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;
    use xos_base::Kind;

    fn home() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let file = dir.path().join(".ssh/config");
        (dir, file)
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    /// If it failed, each sign-in would add a line, or a sign-out leave the file changed.
    #[test]
    fn the_line_is_added_once_and_taken_out_again() {
        let (home, file) = home();
        std::fs::create_dir(home.path().join(".ssh")).unwrap();
        std::fs::set_permissions(home.path().join(".ssh"), PermissionsExt::from_mode(0o700))
            .unwrap();
        let own = "Host *.example\r\n    User alice\n\nHost old";
        std::fs::write(&file, own).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(add(home.path()).unwrap());
        assert!(!add(home.path()).unwrap());
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text, format!("{MARK}\n{LINE}\n{own}"));
        assert_eq!(mode(&file), 0o644);
        assert!(remove(home.path()).unwrap());
        assert!(!remove(home.path()).unwrap());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), own);
    }

    /// If it failed, who never used ssh would be left with an open folder, or an empty file.
    #[test]
    fn a_file_that_was_made_goes_again() {
        let (home, file) = home();
        assert!(!remove(home.path()).unwrap());
        assert!(!home.path().join(".ssh").exists());
        assert!(add(home.path()).unwrap());
        assert_eq!((mode(&file), mode(&home.path().join(".ssh"))), (0o600, 0o700));
        assert!(remove(home.path()).unwrap());
        assert!(!file.exists());
    }

    /// If it failed, a line that the person wrote would be gone after a sign-out.
    #[test]
    fn the_persons_own_line_stays() {
        let (home, file) = home();
        assert!(add(home.path()).unwrap() && remove(home.path()).unwrap());
        let own = format!("  {LINE}\nHost *\n");
        std::fs::write(&file, &own).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        assert!(!add(home.path()).unwrap() && !remove(home.path()).unwrap());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), own);
    }

    /// If it failed, a link planted in the person's folder would have them write elsewhere, and a
    /// file kept elsewhere on purpose would be replaced by a copy.
    #[test]
    fn a_link_is_never_followed() {
        let (home, file) = home();
        assert!(add(home.path()).unwrap());
        let real = home.path().join("real");
        std::fs::rename(&file, &real).unwrap();
        std::fs::write(&real, "kept").unwrap();
        symlink(&real, &file).unwrap();
        assert_eq!(add(home.path()).unwrap_err().kind, Kind::Denied);
        assert_eq!(remove(home.path()).unwrap_err().kind, Kind::Denied);
        assert_eq!(std::fs::read_to_string(&real).unwrap(), "kept");
        assert!(std::fs::symlink_metadata(&file).unwrap().is_symlink());
    }
}
