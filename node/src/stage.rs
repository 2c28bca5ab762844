//! Staging: files copied between the VO's volume and the unit's working directory, before and
//! after its program. Runs as the person, inside the unit: what the person may not read or write
//! stays out of reach.
//!
//! The stager is the unit's first process, with which the unit ends. When the unit is to end, all
//! its processes get TERM: the stager leaves that to the program, and brings its results home within
//! the grace that is left.

use crate::sys;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
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
    ExitCode::from(stage(args))
}

/// Gives the exit code; does not return when the program ended by a signal.
fn stage(args: &[String]) -> u8 {
    let [plan, dashes, argv @ ..] = args else {
        complain("usage: xosd stage PLAN -- PROGRAM ARGS; started by a unit, not by hand");
        return 64;
    };
    let (Ok(plan), "--", Some(program)) =
        (serde_json::from_str::<Plan>(plan), dashes.as_str(), argv.first())
    else {
        complain("the staging plan is malformed");
        return 64;
    };
    if let Err(e) = copy_in(&plan) {
        complain(&format!("xos: staging in: {e}"));
        return EXIT_STAGING;
    }
    let status = match run(program, &argv[1..]) {
        Ok(status) => status,
        Err(e) => {
            complain(&format!("xos: cannot start {program}: {e}"));
            return if e.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        }
    };
    // What the program made is brought home also when it failed: people look at it then.
    if let Err(e) = copy_out(&plan) {
        complain(&format!("xos: staging out: {e}"));
        if status.success() {
            return EXIT_STAGING;
        }
    }
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(1),
        (None, signal) => {
            // End by the same signal, so that the unit's record says so.
            let number = signal.unwrap_or(9);
            let e = Command::new("/bin/sh").args(["-c", &format!("kill -{number} $$")]).exec();
            complain(&format!("xos: the program ended by signal {number}: {e}"));
            128u8.saturating_add(u8::try_from(number).unwrap_or(0))
        }
    }
}

/// Runs the program to its end, whatever TERM comes meanwhile.
fn run(program: &str, args: &[String]) -> io::Result<ExitStatus> {
    sys::note_term()?;
    let mut child = Command::new(program).args(args).spawn()?;
    if sys::term_came() {
        // It may have come to a child that was not the program yet.
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
    }
    child.wait()
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

    fn file(name: &str, volume: &str, mode: StageMode, delete: bool) -> Stage {
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
            stage_in: vec![file("sub/a", "/in", StageMode::Overwrite, true)],
            stage_out: vec![file("sub/a", "out/b", StageMode::Append, false)],
        };
        copy_in(&plan).unwrap();
        copy_out(&plan).unwrap();
        assert_eq!(fs::read_to_string(volume.join("out/b")).unwrap(), "one");
        assert!(!folder.join("sub/a").exists(), "it was to be removed");
        copy_in(&plan).unwrap();
        copy_out(&plan).unwrap();
        assert_eq!(fs::read_to_string(volume.join("out/b")).unwrap(), "oneone");
    }

    /// What a stager is given, in a process of its own.
    const ARGS: &str = "XOS_TEST_STAGE_ARGS";

    #[test]
    #[ignore = "is the stager of the next test"]
    fn stager() {
        if let Ok(args) = std::env::var(ARGS) {
            std::process::exit(stage(&serde_json::from_str::<Vec<String>>(&args).unwrap()).into());
        }
    }

    /// What is on the volume after a unit got TERM as a cancellation or a limit sends it, and how
    /// its first process ended.
    fn terminated(script: &str) -> (String, ExitStatus) {
        let dir = tempfile::tempdir().unwrap();
        let (volume, folder) = (dir.path().join("v"), dir.path().join("f"));
        fs::create_dir_all(&volume).unwrap();
        fs::create_dir_all(&folder).unwrap();
        let plan = Plan {
            volume: volume.clone(),
            folder: folder.clone(),
            stage_in: vec![],
            stage_out: vec![file("result", "result", StageMode::Overwrite, false)],
        };
        let plan = serde_json::to_string(&plan).unwrap();
        let args = [plan.as_str(), "--", "/bin/sh", "-c", script];
        let mut unit = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "stage::tests::stager", "--ignored", "--nocapture"])
            .env(ARGS, serde_json::to_string(&args).unwrap())
            .current_dir(&folder)
            .process_group(0)
            .spawn()
            .unwrap();
        let leader = Pid::from_raw(unit.id().cast_signed());
        for _ in 0..1000 {
            if folder.join("ready").exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        // In the test's stager the unit's processes are its group.
        nix::sys::signal::killpg(leader, Signal::SIGTERM).unwrap();
        let status = unit.wait().unwrap();
        (fs::read_to_string(volume.join("result")).unwrap_or_default(), status)
    }

    /// If it failed, a program that is told to end would be killed before it has written its result,
    /// and nothing of it would come to the volume.
    #[test]
    fn what_a_terminated_program_wrote_comes_home() {
        let wait = "touch ready; while :; do sleep 0.05; done";
        let (result, status) =
            terminated(&format!("trap 'sleep 0.3; echo whole > result; exit 3' TERM; {wait}"));
        assert_eq!((result.as_str(), status.code()), ("whole\n", Some(3)));
        // Without a trap it ends by TERM, and so does the unit.
        let (result, status) = terminated(&format!("echo part > result; {wait}"));
        assert_eq!((result.as_str(), status.signal()), ("part\n", Some(15)));
    }

    #[test]
    fn paths_outside_are_refused() {
        for bad in ["../x", "a/../../x", "", "/", "..", "a/.."] {
            assert!(inside(Path::new("/v"), bad, "volume").is_err(), "{bad:?}");
        }
        assert_eq!(inside(Path::new("/v"), "/a/./b", "volume").unwrap(), Path::new("/v/a/./b"));
    }
}
