//! Staging: files copied between the VO's volume and the unit's working directory, before and
//! after its program. Runs as the person, inside the unit: what the person may not read or write
//! stays out of reach. Others write to the volume too, so a link there is followed only to places
//! on the volume: else it would turn the person's own rights against their files.
//!
//! The stager is the unit's first process, with which the unit ends. When the unit is to end, all
//! its processes get TERM: the stager leaves that to the program, and brings its results home
//! within the grace that is left.

mod beneath;

use crate::sys;
use beneath::{Place, Trouble};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use xos_api::aem::Stage;
use xos_base::Error;

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
    /// The person's home: links in a working directory in it may lead to all of it. Absent in plans
    /// of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<PathBuf>,
    /// Whether the stager itself makes the folder, if it is not there, and goes there: nobody did it
    /// before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enter: bool,
    /// From the volume to the folder, before.
    pub stage_in: Vec<Stage>,
    /// From the folder to the volume, after.
    pub stage_out: Vec<Stage>,
}

impl Plan {
    /// A program below the stager, which is the program `stager`.
    ///
    /// # Errors
    /// That the plan cannot be written, or the stager's path is no text.
    pub fn argv(&self, stager: &Path, program: &[String]) -> Result<Vec<String>, Error> {
        let plan = serde_json::to_string(self)
            .map_err(|e| Error::internal(format!("cannot encode a staging plan: {e}")))?;
        let stager = stager.to_str();
        let stager = stager.ok_or_else(|| Error::internal("the path of xosd is not UTF-8"))?;
        let mut argv = vec![stager.to_owned(), STAGE_ARG.to_owned(), plan, "--".to_owned()];
        argv.extend_from_slice(program);
        Ok(argv)
    }
}

/// Why a file could not be staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A path leaves the volume or the folder.
    #[error("{0} is not a path inside the {1}: write it without .. and a leading /")]
    Outside(String, &'static str),
    /// A link is in the way that somebody made, by mistake or to reach another's files.
    #[error(
        "{path}: a link leads out of the {what}: remove the link, or copy what it leads to into the \
         {what} and name that"
    )]
    Link {
        /// What was to be opened.
        path: PathBuf,
        /// What the link leaves.
        what: &'static str,
    },
    /// The volume, or the folder, cannot be entered.
    #[error("cannot open the {what} {path}: {source}")]
    Folder {
        /// Which it is.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
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
    if let Err(e) = enter(&plan) {
        complain(&format!("xos: cannot enter folder {}: {e}", plan.folder.display()));
        return EXIT_STAGING;
    }
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

fn enter(plan: &Plan) -> io::Result<()> {
    if !plan.enter {
        return Ok(());
    }
    if !plan.folder.is_dir() {
        std::fs::create_dir_all(&plan.folder)?;
    }
    std::env::set_current_dir(&plan.folder)
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
        copy(&on_volume(plan, s)?, &in_folder(plan, s)?, s)?;
    }
    Ok(())
}

fn copy_out(plan: &Plan) -> Result<(), StageError> {
    for s in &plan.stage_out {
        copy(&in_folder(plan, s)?, &on_volume(plan, s)?, s)?;
    }
    for s in plan.stage_in.iter().chain(&plan.stage_out).filter(|s| s.delete) {
        let place = in_folder(plan, s)?;
        place.remove().map_err(|t| trouble(t, &place, &place, &place))?;
    }
    Ok(())
}

fn on_volume(plan: &Plan, s: &Stage) -> Result<Place, StageError> {
    place(&plan.volume, inside(&s.volume, "volume")?, "volume")
}

/// Links may lead through all of the home, which is the person's alone, and through all of the
/// volume; from any other working directory they may not lead at all.
fn in_folder(plan: &Plan, s: &Stage) -> Result<Place, StageError> {
    let name = inside(&s.name, "working directory")?;
    let around = [(plan.home.as_deref(), "home"), (Some(plan.volume.as_path()), "volume")];
    for (around, what) in around {
        let within = around.and_then(|dir| plan.folder.strip_prefix(dir).ok());
        let within = within.filter(|w| w.components().all(|c| matches!(c, Component::Normal(_))));
        if let (Some(around), Some(within)) = (around, within) {
            return place(around, within.join(&name), what);
        }
    }
    place(&plan.folder, name, "working directory")
}

fn place(folder: &Path, path: PathBuf, what: &'static str) -> Result<Place, StageError> {
    Place::new(folder, path, what).map_err(|source| {
        let path = folder.to_owned();
        StageError::Folder { what, path, source }
    })
}

/// `path` without the slashes at its beginning.
fn inside(path: &str, what: &'static str) -> Result<PathBuf, StageError> {
    let path = Path::new(path.trim_start_matches('/'));
    let plain = path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if plain && path.file_name().is_some() {
        Ok(path.to_owned())
    } else {
        Err(StageError::Outside(path.display().to_string(), what))
    }
}

/// What a trouble with `place` means for a copy.
fn trouble(t: Trouble, place: &Place, from: &Place, to: &Place) -> StageError {
    match t {
        Trouble::Link => StageError::Link { path: place.shown(), what: place.what },
        Trouble::Io(source) => StageError::Copy { from: from.shown(), to: to.shown(), source },
    }
}

fn copy(from: &Place, to: &Place, s: &Stage) -> Result<(), StageError> {
    let with = |place| move |t| trouble(t, place, from, to);
    let mut source = from.read().map_err(with(from))?;
    to.make_parent().map_err(with(to))?;
    let Some(mut target) = to.write(s.mode).map_err(with(to))? else { return Ok(()) };
    let copied = io::copy(&mut source, &mut target);
    // An error of a late write comes here, not at close, where nobody would see it.
    copied.and_then(|_| target.sync_all()).map_err(|e| with(to)(Trouble::Io(e)))
}

#[cfg(test)]
mod tests;
