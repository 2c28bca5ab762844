//! `xos why file`: each folder on the way to a file, as the volume's metadata server decides it.
//!
//! Where the volume is mounted, as the person there: no sign-in of the tool's own counts.

use super::tell;
use crate::cli::file::person;
use crate::cli::output::Outcome;
use crate::cli::session::Session;
use nix::unistd::{Gid, Group};
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use xos_api::vom::{WhyPlace, WhyStep};
use xos_base::{Error, VoId};
use xtreemfs_mount::control::ask;
use xtreemfs_proto::control::{ControlReply, ControlRequest};
use xtreemfs_proto::mrc::{ExplainReply, ExplainStep, Kind as FileKind, WAY_NAMES_MAX, Way};

const AT: WhyPlace = WhyPlace::Volume;
/// Where nodes mount volumes.
const MOUNTS: &str = "/xtreemfs";

/// `xos why file`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos why file /xtreemfs/demo.rennes/alice/body.spect
  xos why file ~/vo/results --to write

Ask where it was denied: in a session or a job on a node. You are told of yourself only, and \
nothing of what lies behind a folder that you may not enter. Exits with 0 when nothing stands in \
the way, and with 1 when a step failed.")]
pub struct FileArgs {
    /// The file or folder.
    path: PathBuf,
    /// What you want to do with it.
    #[arg(long, value_enum, default_value_t = To::Read)]
    to: To,
}

/// What is wanted of a file or folder.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum To {
    /// Read a file, list a folder.
    Read,
    /// Write to a file, make or remove something in a folder.
    Write,
    /// Run a file, go through a folder.
    Execute,
}

impl To {
    fn bits(self) -> u32 {
        match self {
            To::Read => 4,
            To::Write => 2,
            To::Execute => 1,
        }
    }
}

/// Runs `xos why file`.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] when the path lies on no volume.
pub fn run(s: &Session, args: &FileArgs) -> Outcome {
    let path = resolved(&args.path)?;
    let (vo, names) = on_volume(&path)?;
    let way = Way {
        names: names.iter().map(|name| name.as_bytes().to_vec().into()).collect(),
        want: args.to.bits(),
    };
    let request = ControlRequest { explain: Some(way), ..ControlRequest::default() };
    let top = Path::new(MOUNTS).join(vo.as_str());
    let steps = match ask(&top, &request) {
        Ok(reply) => answered(&vo, &names, reply),
        Err(e) => vec![unasked(&vo, &e)],
    };
    tell(s, &steps)
}

/// The path without symbolic links, as far as the person may follow them.
fn resolved(path: &Path) -> Result<PathBuf, Error> {
    let path = std::path::absolute(path)
        .map_err(|e| Error::invalid(format!("{}: {e}", path.display())))?;
    let mut rest = Vec::new();
    for above in path.ancestors() {
        if let Ok(real) = above.canonicalize() {
            return Ok(rest.iter().rev().fold(real, |path, name| path.join(name)));
        }
        rest.extend(above.file_name());
    }
    Ok(path)
}

/// The VO whose volume a path lies on, and the names on the way.
fn on_volume(path: &Path) -> Result<(VoId, Vec<&OsStr>), Error> {
    let none = || {
        Error::invalid(format!("{} lies on no volume of a VO", path.display()))
            .hint("volumes are mounted on the nodes that serve the VO, below /xtreemfs")
    };
    let below = path.strip_prefix(MOUNTS).map_err(|_| none())?;
    let names = below.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    let mut names: Vec<&OsStr> = names.collect();
    if names.is_empty() {
        return Err(none());
    }
    let vo = names.remove(0).to_str().and_then(|vo| vo.parse().ok()).ok_or_else(none)?;
    if names.len() > WAY_NAMES_MAX {
        return Err(Error::invalid(format!("{} is too deep to be explained", path.display())));
    }
    Ok((vo, names))
}

/// The mount could not be asked.
fn unasked(vo: &VoId, e: &io::Error) -> WhyStep {
    let not_ours = matches!(e.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP));
    if not_ours || e.kind() == ErrorKind::NotFound {
        let text = format!("the volume of {vo} is not mounted on this machine");
        return WhyStep::failed(AT, "mount", text)
            .hint("nodes whose site serves the VO mount it: xos vo share list");
    }
    if e.kind() == ErrorKind::PermissionDenied {
        return no_ticket(format!("this machine may not act for you on the volume of {vo}"));
    }
    WhyStep::unknown(AT, "mount", format!("the volume of {vo} does not answer: {e}"))
}

fn no_ticket(text: String) -> WhyStep {
    WhyStep::failed(AT, "ticket", text).hint(
        "come in by `xos ssh`, or submit the job again: that brings a ticket as long as you are a \
         member; `xos why login` tells where you stand",
    )
}

fn answered(vo: &VoId, names: &[&OsStr], reply: ControlReply) -> Vec<WhyStep> {
    let Some(told) = reply.explained else {
        return vec![match reply.errno {
            libc::EACCES | libc::EPERM => no_ticket(reply.message),
            _ => WhyStep::unknown(AT, "answer", reply.message),
        }];
    };
    let mut steps =
        vec![WhyStep::ok(AT, "ticket", format!("the volume of {vo} takes you as a member"))];
    steps.extend(told.steps.iter().enumerate().map(|(n, step)| explained(vo, names, n, step)));
    steps.extend(stored(&told));
    steps
}

/// One file or folder on the way.
fn explained(vo: &VoId, names: &[&OsStr], n: usize, step: &ExplainStep) -> WhyStep {
    let mut path = Path::new(MOUNTS).join(vo.as_str());
    path.extend(names.iter().take(n));
    let what = if n == 0 { "top folder" } else { "path" };
    let shown = path.display();
    if step.kind() == FileKind::Unknown {
        return WhyStep::failed(AT, what, format!("{shown}: {}", step.message));
    }
    let mode = format!(
        "{shown} is {}'s, of group {}, with mode {:04o}",
        person(step.owner),
        group(step.group),
        step.mode
    );
    match step.errno {
        0 => WhyStep::ok(AT, what, mode),
        libc::EACCES if step.closed => {
            let text = format!("{mode}, and its owner has closed it to all others");
            let hint = format!("ask {}: only the owner opens it", person(step.owner));
            WhyStep::failed(AT, what, text).hint(hint)
        }
        libc::EACCES => WhyStep::failed(AT, what, format!("{mode}, which does not let you"))
            .hint(format!("ask {} for it: chmod, chgrp", person(step.owner))),
        libc::ENOTDIR if step.kind() == FileKind::Symlink => {
            WhyStep::failed(AT, what, format!("{shown} is a symbolic link"))
                .hint("ask for the path that it leads to")
        }
        _ => WhyStep::failed(AT, what, format!("{mode}: {}", step.message)),
    }
}

/// Whether the content can be had.
fn stored(told: &ExplainReply) -> Option<WhyStep> {
    if told.steps.last().is_none_or(|last| last.errno != 0 || last.kind() != FileKind::File) {
        return None;
    }
    if told.away.is_empty() {
        return Some(WhyStep::ok(AT, "content", "all nodes that hold it are up"));
    }
    let text = format!("it lies in part on nodes that are not up: {}", told.away.join(", "));
    Some(WhyStep::failed(AT, "content", text).hint("ask the administrator of their site"))
}

/// The local group's name.
fn group(gid: u32) -> String {
    match Group::from_gid(Gid::from_raw(gid)) {
        Ok(Some(group)) => group.name,
        _ => format!("g{gid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_api::vom::WhyOutcome;

    fn step(kind: FileKind, errno: i32, closed: bool) -> ExplainStep {
        let (kind, message) = (kind.into(), "no such file".to_owned());
        ExplainStep { kind, owner: 4_000_000_001, group: 7, mode: 0o700, closed, errno, message }
    }

    /// If it failed, the wrong volume would be asked, or a local file explained by a volume.
    #[test]
    fn a_path_on_a_volume_is_known() {
        let (vo, names) = on_volume(Path::new("/xtreemfs/demo.rennes/ann/f")).unwrap();
        assert_eq!((vo.as_str(), names.len()), ("demo.rennes", 2));
        assert!(on_volume(Path::new("/xtreemfs/demo.rennes")).unwrap().1.is_empty());
        for bad in ["/home/ann/f", "/xtreemfs", "/xtreemfs/no vo/f"] {
            assert!(on_volume(Path::new(bad)).is_err(), "{bad}");
        }
        assert_eq!(resolved(Path::new("/xtreemfs/x.y/z")).unwrap(), Path::new("/xtreemfs/x.y/z"));
    }

    /// If it failed, people would not learn which folder keeps them out, nor whom to ask.
    #[test]
    fn each_refusal_is_told_with_what_to_do() {
        let vo: VoId = "demo.rennes".parse().unwrap();
        let names = [OsStr::new("ann"), OsStr::new("f")];
        let told = |reply: ExplainReply| {
            let reply = ControlReply { explained: Some(reply), ..ControlReply::default() };
            answered(&vo, &names, reply)
        };
        let dir = || step(FileKind::Directory, 0, false);
        let closed = step(FileKind::Directory, libc::EACCES, true);
        let steps = told(ExplainReply { steps: vec![dir(), closed], away: vec![] });
        assert!(steps[2].text.contains("/xtreemfs/demo.rennes/ann ") && steps.len() == 3);
        assert!(steps[2].text.contains("closed") && steps[2].outcome == WhyOutcome::Failed);
        let gone = step(FileKind::Unknown, libc::ENOENT, false);
        let steps = told(ExplainReply { steps: vec![dir(), dir(), gone], away: vec![] });
        assert!(steps[3].text.ends_with("ann/f: no such file"), "{steps:?}");
        let file = || step(FileKind::File, 0, false);
        let well = told(ExplainReply { steps: vec![dir(), dir(), file()], away: vec![] });
        assert!(well.iter().all(|s| s.outcome == WhyOutcome::Ok), "{well:?}");
        let away = vec!["n1.pisa".to_owned()];
        let steps = told(ExplainReply { steps: vec![dir(), dir(), file()], away });
        assert!(steps[4].outcome == WhyOutcome::Failed && steps[4].text.contains("n1.pisa"));
        let refused = ControlReply { errno: libc::EACCES, ..ControlReply::default() };
        assert_eq!(answered(&vo, &names, refused)[0].what, "ticket");
        let away = ControlReply { errno: libc::EIO, ..ControlReply::default() };
        assert_eq!(answered(&vo, &names, away)[0].outcome, WhyOutcome::Unknown, "no refusal");
    }
}
