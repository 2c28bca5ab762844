//! `xos file`: what you alone say of your folders on a VO's volume.
//!
//! Where the volume is mounted, as the person there: no sign-in of the tool's own counts.

use super::output::{Outcome, clean, fields, list};
use super::session::Session;
use nix::unistd::{Uid, User};
use serde::Serialize;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use xos_base::{Error, Kind, NodeId, SiteId};
use xtreemfs_mount::control::ask;
use xtreemfs_proto::control::{ControlReply, ControlRequest};
use xtreemfs_proto::mrc::{FolderReply, Kind as FileKind, Pin};

/// `xos file …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Close a folder of yours to everybody else, at once.
    Close(Close),
    /// Open a folder that you closed.
    Open(Open),
    /// Have new files below a folder of yours stored at one site only.
    Pin(PinArgs),
    /// No longer pin a folder of yours.
    Unpin(Unpin),
    /// Show whose a file or folder is, where it lies, and whether it is closed or pinned.
    Show(Show),
}

/// `xos file close`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos file close /xtreemfs/demo.rennes/alice
  xos file close /xtreemfs/demo.rennes/alice --json

Nobody but you reaches what is in it then, by name or by a file that they have open: no administrator \
of the VO or of a site either. Others lose their own files in it too; the answer names them.")]
pub struct Close {
    /// The folder.
    dir: PathBuf,
}

/// `xos file open`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  xos file open /xtreemfs/demo.rennes/alice

From then on its mode says again who gets to what.")]
pub struct Open {
    /// The folder.
    dir: PathBuf,
}

/// `xos file pin`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos file pin /xtreemfs/demo.rennes/alice
  xos file pin /xtreemfs/demo.rennes/alice --site pisa

Without --site it is your home site; the site must give the VO storage. While no store of that site can be reached, new files cannot be made there: they are never stored \
elsewhere. Files that were there before stay where they lie; `xos file show` names them, and a copy \
of such a file lies at the site.")]
pub struct PinArgs {
    /// The folder.
    dir: PathBuf,
}

/// `xos file unpin`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  xos file unpin /xtreemfs/demo.rennes/alice")]
pub struct Unpin {
    /// The folder.
    dir: PathBuf,
}

/// `xos file show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos file show /xtreemfs/demo.rennes/alice
  xos file show /xtreemfs/demo.rennes/alice/body.spect --json")]
pub struct Show {
    /// The file or folder.
    path: PathBuf,
}

/// What is told of a file or folder.
#[derive(Debug, Serialize)]
struct Told {
    path: PathBuf,
    owner: String,
    folder: bool,
    /// The folder itself is closed.
    closed: bool,
    /// A folder above it is.
    closed_above: bool,
    /// The site that new files are pinned to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned: Option<String>,
    /// This folder says so.
    pinned_here: bool,
    /// Sites and nodes that hold its content.
    sites: Vec<String>,
    nodes: Vec<String>,
    files: u64,
    /// Files that lie elsewhere than they are pinned to, and the first of them.
    elsewhere: u64,
    elsewhere_names: Vec<String>,
    /// Others who own something below it.
    others: Vec<String>,
    /// Everything below it was looked at.
    complete: bool,
    /// Nodes that may still serve others for up to ten minutes.
    unconfirmed: Vec<String>,
}

/// Runs a command of this group; `site` is the one that was named.
///
/// # Errors
/// What the mount and the VO's metadata server say.
pub fn run(s: &Session, command: Command, site: Option<SiteId>) -> Outcome {
    match command {
        Command::Close(Close { dir }) => {
            let told = change(&dir, Some(true), None)?;
            s.out.show(&told, || closed(&told))?;
        }
        Command::Open(Open { dir }) => {
            let told = change(&dir, Some(false), None)?;
            s.out.show(&told, || format!("{} is open again, as its mode says.", at(&told)))?;
        }
        Command::Pin(PinArgs { dir }) => {
            let home = site.is_none();
            let site = site.map(|site| site.to_string()).unwrap_or_default();
            let told = change(&dir, None, Some(Pin { site, home }))?;
            s.out.show(&told, || pinned(&told))?;
        }
        Command::Unpin(Unpin { dir }) => {
            let told = change(&dir, None, Some(Pin::default()))?;
            s.out.show(&told, || match &told.pinned {
                Some(site) => {
                    format!("{} itself is not pinned; a folder above it is, to {site}.", at(&told))
                }
                None => format!("New files in {} lie at any site.", at(&told)),
            })?;
        }
        Command::Show(Show { path }) => {
            let told = change(&path, None, None)?;
            s.out.show(&told, || shown(&told))?;
        }
    }
    Ok(0)
}

fn change(path: &Path, closed: Option<bool>, pin: Option<Pin>) -> Result<Told, Error> {
    let name = path.display();
    let reply = ask(path, &ControlRequest { closed, pin, explain: None }).map_err(|e| {
        let not_ours = matches!(e.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP));
        match e.kind() {
            _ if not_ours => Error::invalid(format!("{name} lies on no volume of a VO"))
                .hint("volumes are mounted on the nodes that serve the VO, below /xtreemfs"),
            ErrorKind::NotFound => Error::new(Kind::NotFound, format!("there is no {name}")),
            ErrorKind::PermissionDenied => Error::denied(format!("{name} cannot be opened: {e}")),
            _ => Error::unavailable(format!("{name}: {e}")),
        }
    })?;
    match reply {
        ControlReply { folder: Some(folder), .. } => Ok(told(path, folder)),
        ControlReply { errno, message, .. } => {
            let text = format!("{name}: {message}");
            Err(match errno {
                libc::EPERM | libc::EACCES => Error::denied(text),
                libc::EINVAL | libc::ENOTDIR => Error::invalid(text),
                libc::ESTALE | libc::ENOENT => Error::new(Kind::NotFound, text),
                _ => Error::unavailable(text),
            })
        }
    }
}

fn told(path: &Path, folder: FolderReply) -> Told {
    let mut sites: Vec<String> = folder.osds.iter().map(|osd| site_of(osd)).collect();
    sites.sort();
    sites.dedup();
    let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    Told {
        path: path.to_owned(),
        owner: person(folder.owner),
        folder: folder.kind() == FileKind::Directory,
        closed: folder.closed,
        closed_above: folder.closed_above,
        pinned: (!folder.pin.is_empty()).then_some(folder.pin),
        pinned_here: folder.pinned_here,
        sites,
        nodes: folder.osds,
        files: folder.files,
        elsewhere: folder.elsewhere,
        elsewhere_names: folder.elsewhere_names.iter().map(|n| name(n)).collect(),
        others: folder.others.into_iter().map(person).collect(),
        complete: folder.complete,
        unconfirmed: folder.unconfirmed,
    }
}

fn site_of(osd: &str) -> String {
    osd.parse::<NodeId>().map_or_else(|_| osd.to_owned(), |node| node.site().to_string())
}

/// The local account's name.
pub(super) fn person(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => format!("u{uid}"),
    }
}

fn at(told: &Told) -> String {
    clean(&told.path.display().to_string())
}

fn closed(told: &Told) -> String {
    let mut text = format!("{} is closed: nobody but you gets to what is in it.", at(told));
    if !told.others.is_empty() {
        let more = if told.complete { "" } else { ", and perhaps others," };
        text += &format!(
            "\n{}{more} own something in it, and do not get to that either until you open it.",
            clean(&list(&told.others))
        );
    }
    if !told.unconfirmed.is_empty() {
        text += &format!(
            "\nNot reached: {}. Whoever has files open there may use them for up to ten minutes; \
             closing it again tries again.",
            clean(&list(&told.unconfirmed))
        );
    }
    text
}

fn pinned(told: &Told) -> String {
    let site = clean(told.pinned.as_deref().unwrap_or_default());
    format!("New files in {} lie at {site} only.{}", at(told), elsewhere(told))
}

/// Which files lie elsewhere than they should.
fn elsewhere(told: &Told) -> String {
    if told.elsewhere == 0 {
        return String::new();
    }
    let more = if told.complete { "" } else { " at least" };
    let names = told.elsewhere_names.iter().map(|name| format!("\n  {}", clean(name)));
    format!(
        "\n{}{more} of {} files lie elsewhere, from before; copies of them lie there:{}",
        told.elsewhere,
        told.files,
        names.collect::<String>()
    )
}

fn shown(told: &Told) -> String {
    let closed = match (told.closed, told.closed_above) {
        (true, _) => "yes: only its owner gets to what is in it",
        (false, true) => "yes, a folder above it",
        (false, false) => "no",
    };
    let pinned = match &told.pinned {
        Some(site) if told.pinned_here || !told.folder => format!("to {site}"),
        Some(site) => format!("to {site}, by a folder above it"),
        None => "no".to_owned(),
    };
    let mut pairs = vec![
        ("owner", clean(&told.owner)),
        ("closed", closed.to_owned()),
        ("pinned", pinned),
        ("lies at", clean(&list(&told.sites))),
        ("on nodes", clean(&list(&told.nodes))),
    ];
    if told.folder {
        let more = if told.complete { "" } else { " or more" };
        pairs.push(("files in it", format!("{}{more}", told.files)));
        pairs.push(("owned by others too", clean(&list(&told.others))));
    }
    format!("{}{}", fields(&pairs), elsewhere(told))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> FolderReply {
        FolderReply {
            kind: FileKind::Directory.into(),
            owner: 4_000_000_000,
            closed: true,
            pin: "rennes".into(),
            pinned_here: true,
            osds: vec!["n1.rennes".into(), "n2.pisa".into(), "n1.pisa".into()],
            files: 3,
            elsewhere: 2,
            elsewhere_names: vec!["a\x1b[31m".into(), "b/c".into()],
            others: vec![4_000_000_001],
            complete: false,
            unconfirmed: vec!["n2.pisa".into()],
            ..FolderReply::default()
        }
    }

    /// If it failed, a person would believe that a folder is closed or pinned wholly when it is
    /// not; or a file's name would change their terminal.
    #[test]
    fn what_is_not_as_asked_is_said() {
        let told = told(Path::new("/xtreemfs/demo.rennes/alice"), folder());
        let text = closed(&told);
        assert!(text.contains("u4000000001, and perhaps others,"), "{text}");
        assert!(text.contains("Not reached: n2.pisa"), "{text}");
        let text = pinned(&told);
        assert!(text.contains("2 at least of 3 files") && text.contains("b/c"), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
        let text = shown(&told);
        assert!(text.contains("pisa, rennes"), "{text}");
    }

    /// If it failed, whoever names a folder of their own disk would not be told what is wrong.
    #[test]
    fn a_folder_that_is_no_volumes_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let refused = change(folder.path(), Some(true), None).unwrap_err();
        assert!(refused.to_string().contains("lies on no volume"), "{refused}");
        let absent = change(&folder.path().join("absent"), None, None).unwrap_err();
        assert_eq!(absent.kind, Kind::NotFound);
    }
}
