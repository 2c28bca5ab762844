//! Staging: files copied between the VO's volume and the unit's working directory, before and
//! after its program. Runs as the person, inside the unit: what the person may not read or write
//! stays out of reach.

use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, ExitCode};
use xos_api::aem::{Stage, StageMode};

/// The first argument that makes `xosd` a stager.
pub const STAGE_ARG: &str = "stage";
/// The exit code of a unit whose files could not be staged (EX_IOERR of sysexits.h).
pub const EXIT_STAGING: u8 = 74;

/// What to copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The mounted volume.
    pub volume: PathBuf,
    /// The working directory.
    pub folder: PathBuf,
    /// From the volume to the folder, before.
    pub stage_in: Vec<Stage>,
    /// From the folder to the volume, after.
    pub stage_out: Vec<Stage>,
}

/// Why a file could not be staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A path leaves the volume or the folder.
    #[error("{0} is not a path inside the {1}: write it without .. and a leading /")]
    Outside(String, &'static str),
    /// A file could not be copied.
    #[error("cannot copy {from} to {to}: {source}")]
    Copy {
        /// From where.
        from: PathBuf,
        /// To where.
        to: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// `xosd stage PLAN -- PROGRAM ARGS..`: copies in, runs the program, copies out, and ends as the
/// program did.
pub fn stage_main(args: &[String]) -> ExitCode {
    let [plan, dashes, argv @ ..] = args else {
        complain("usage: xosd stage PLAN -- PROGRAM ARGS; started by a unit, not by hand");
        return ExitCode::from(64);
    };
    let (Ok(plan), "--", Some(program)) =
        (serde_json::from_str::<Plan>(plan), dashes.as_str(), argv.first())
    else {
        complain("the staging plan is malformed");
        return ExitCode::from(64);
    };
    if let Err(e) = copy_in(&plan) {
        complain(&format!("xos: staging in: {e}"));
        return ExitCode::from(EXIT_STAGING);
    }
    let status = match Command::new(program).args(&argv[1..]).status() {
        Ok(status) => status,
        Err(e) => {
            complain(&format!("xos: cannot start {program}: {e}"));
            return ExitCode::from(if e.kind() == io::ErrorKind::NotFound { 127 } else { 126 });
        }
    };
    // What the program made is brought home also when it failed: people look at it then.
    if let Err(e) = copy_out(&plan) {
        complain(&format!("xos: staging out: {e}"));
        if status.success() {
            return ExitCode::from(EXIT_STAGING);
        }
    }
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        (None, signal) => {
            // End by the same signal, so that the unit's record says so.
            let number = signal.unwrap_or(9);
            let e = Command::new("/bin/sh").args(["-c", &format!("kill -{number} $$")]).exec();
            complain(&format!("xos: the program ended by signal {number}: {e}"));
            ExitCode::from(128u8.saturating_add(u8::try_from(number).unwrap_or(0)))
        }
    }
}

#[allow(clippy::print_stderr)] // the person reads it in the unit's output
fn complain(text: &str) {
    eprintln!("{text}");
}

fn copy_in(plan: &Plan) -> Result<(), StageError> {
    for s in &plan.stage_in {
        let from = inside(&plan.volume, &s.volume, "volume")?;
        copy(&from, &inside(&plan.folder, &s.name, "working directory")?, s.mode)?;
    }
    Ok(())
}

fn copy_out(plan: &Plan) -> Result<(), StageError> {
    for s in &plan.stage_out {
        let from = inside(&plan.folder, &s.name, "working directory")?;
        copy(&from, &inside(&plan.volume, &s.volume, "volume")?, s.mode)?;
    }
    for s in plan.stage_in.iter().chain(&plan.stage_out).filter(|s| s.delete) {
        let path = inside(&plan.folder, &s.name, "working directory")?;
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StageError::Copy { from: path.clone(), to: path, source }),
        }
    }
    Ok(())
}

fn inside(base: &Path, path: &str, what: &'static str) -> Result<PathBuf, StageError> {
    let path = Path::new(path.trim_start_matches('/'));
    let plain = path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if plain && path.components().next().is_some() {
        Ok(base.join(path))
    } else {
        Err(StageError::Outside(path.display().to_string(), what))
    }
}

fn copy(from: &Path, to: &Path, mode: StageMode) -> Result<(), StageError> {
    let fail = |source| StageError::Copy { from: from.into(), to: to.into(), source };
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(fail)?;
    }
    let mut source = File::open(from).map_err(fail)?;
    let mut options = OpenOptions::new();
    options.write(true);
    match mode {
        StageMode::Overwrite => options.create(true).truncate(true),
        StageMode::Append => options.create(true).append(true),
        StageMode::DontOverwrite => options.create_new(true),
    };
    let mut target = match options.open(to) {
        Ok(f) => f,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && mode == StageMode::DontOverwrite => {
            return Ok(());
        }
        Err(e) => return Err(fail(e)),
    };
    io::copy(&mut source, &mut target).map_err(fail)?;
    // An error of a late write comes here, not at close, where nobody would see it.
    target.sync_all().map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, volume: &str, mode: StageMode, delete: bool) -> Stage {
        Stage { name: name.into(), volume: volume.into(), mode, delete }
    }

    #[test]
    fn files_travel_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, folder) = (dir.path().join("v"), dir.path().join("f"));
        fs::create_dir_all(&volume).unwrap();
        fs::create_dir_all(&folder).unwrap();
        fs::write(volume.join("in"), "one").unwrap();
        let plan = Plan {
            volume: volume.clone(),
            folder: folder.clone(),
            stage_in: vec![stage("sub/a", "/in", StageMode::Overwrite, true)],
            stage_out: vec![stage("sub/a", "out/b", StageMode::Append, false)],
        };
        copy_in(&plan).unwrap();
        copy_out(&plan).unwrap();
        assert_eq!(fs::read_to_string(volume.join("out/b")).unwrap(), "one");
        assert!(!folder.join("sub/a").exists(), "it was to be removed");
        copy_in(&plan).unwrap();
        copy_out(&plan).unwrap();
        assert_eq!(fs::read_to_string(volume.join("out/b")).unwrap(), "oneone");
    }

    #[test]
    fn paths_outside_are_refused() {
        for bad in ["../x", "a/../../x", "", "/", "..", "a/.."] {
            assert!(inside(Path::new("/v"), bad, "volume").is_err(), "{bad:?}");
        }
        assert_eq!(inside(Path::new("/v"), "/a/./b", "volume").unwrap(), Path::new("/v/a/./b"));
    }
}
