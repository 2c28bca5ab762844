//! The merged `/proc` as the kernel asks for it. One thread serves it; nothing in here waits but
//! for the agent, and for that not long ([`super::feed`]).

mod handles;
mod names;
mod requests;

use super::feed::Feed;
use super::inode::{LINKS, Node};
use super::local::{Asker, Local};
use super::process::{self, File};
use super::system::{self, System};
use crate::wire::ProcessLook;
use fuser::{Errno, FileAttr, FileType, Generation, INodeNo};
use handles::{Handles, Listed};
use names::Names;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// The folder on which the real `/proc` is mounted; no listing shows it.
pub(super) const REAL: &str = ".local";
/// Nothing is kept by the kernel: who looks a name up decides what it is.
const NO_TTL: Duration = Duration::ZERO;
/// But that folder stays: a name that is looked up anew and not found loses its mount.
const REAL_TTL: Duration = Duration::from_secs(365 * 24 * 3600);
/// A file keeps its number as long as it is the same.
const GENERATION: Generation = Generation(0);
/// Of a process of another node: its threads' folder and its descriptors', which is empty.
const TASK: &str = "task";
const FD: &str = "fd";

/// The file system.
#[derive(Debug)]
pub(super) struct Merged {
    feed: Feed,
    local: Local,
    began: SystemTime,
    names: Names,
    handles: Handles,
}

/// User and group of a file.
#[derive(Clone, Copy)]
struct Owner(u32, u32);

const ROOT: Owner = Owner(0, 0);

/// What the kernel says of a process that ended while it was looked at.
fn errno(error: std::io::Error) -> Errno {
    match error.kind() {
        std::io::ErrorKind::NotFound => Errno::ENOENT,
        std::io::ErrorKind::PermissionDenied => Errno::EACCES,
        _ => Errno::from(error),
    }
}

impl Merged {
    /// Over the real `/proc` at `local`; `began`: the time that its files show.
    pub(super) fn new(feed: Feed, local: Local, began: SystemTime) -> Merged {
        Merged { feed, local, began, names: Names::default(), handles: Handles::default() }
    }

    /// The process of another node that has this pid, for the person whose shell it is.
    fn remote(&self, pid: i32, asker: Asker) -> Option<ProcessLook> {
        let may = asker.uid == 0 || asker.uid == self.feed.uid();
        may.then(|| self.feed.view().process(pid).cloned()).flatten()
    }

    fn remote_or_gone(&self, pid: i32, asker: Asker) -> Result<ProcessLook, Errno> {
        self.remote(pid, asker).ok_or(Errno::ENOENT)
    }

    fn owner(&self, pid: i32, tid: Option<i32>, asker: Asker) -> Result<Owner, Errno> {
        let owner = self.local.owner(pid, tid, asker).map_err(errno)?;
        Ok(Owner(owner.0, owner.1))
    }

    /// What has this name in a folder.
    fn child(&self, parent: Node, name: &OsStr, asker: Asker) -> Result<Node, Errno> {
        let name = name.to_str().ok_or(Errno::ENOENT)?;
        let number = || name.parse::<i32>().ok().filter(|n| *n > 0 && n.to_string() == name);
        let file = || File::ALL.iter().find(|(_, file)| *file == name).map(|(file, _)| *file);
        match parent {
            Node::Root => match number() {
                // A process that runs elsewhere may have a ghost of its pid here.
                Some(pid) if self.remote(pid, asker).is_some() => Ok(Node::Remote { pid }),
                Some(pid) => self.owner(pid, None, asker).map(|_| Node::Process { pid }),
                None => self.top(name),
            },
            Node::Process { pid } => {
                self.owner(pid, None, asker)?;
                match name {
                    TASK => Ok(Node::Tasks { pid }),
                    _ if self.local.has_entry(pid, None, name) => {
                        Ok(Node::Entry { pid, name: self.names.number(name)? })
                    }
                    _ => Err(Errno::ENOENT),
                }
            }
            Node::Tasks { pid } => {
                self.owner(pid, None, asker)?;
                let tid = number().ok_or(Errno::ENOENT)?;
                self.owner(pid, Some(tid), asker).map(|_| Node::Thread { pid, tid })
            }
            Node::Thread { pid, tid } => {
                self.owner(pid, Some(tid), asker)?;
                match self.local.has_entry(pid, Some(tid), name) {
                    true => Ok(Node::ThreadEntry { pid, tid, name: self.names.number(name)? }),
                    false => Err(Errno::ENOENT),
                }
            }
            Node::Remote { pid } => {
                self.remote_or_gone(pid, asker)?;
                let link = LINKS.iter().find(|(_, link)| *link == name).map(|(link, _)| *link);
                match (name, file(), link) {
                    (TASK, ..) => Ok(Node::RemoteTasks { pid }),
                    (FD, ..) => Ok(Node::RemoteFds { pid }),
                    (_, Some(file), _) => Ok(Node::RemoteText { pid, file }),
                    (_, _, Some(link)) => Ok(Node::RemoteLink { pid, link }),
                    _ => Err(Errno::ENOENT),
                }
            }
            Node::RemoteTasks { pid } => {
                self.remote_or_gone(pid, asker)?;
                let own = number() == Some(pid);
                if own { Ok(Node::RemoteThread { pid }) } else { Err(Errno::ENOENT) }
            }
            Node::RemoteThread { pid } => {
                self.remote_or_gone(pid, asker)?;
                file().map(|file| Node::RemoteThreadText { pid, file }).ok_or(Errno::ENOENT)
            }
            Node::RemoteFds { .. } => Err(Errno::ENOENT),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn top(&self, name: &str) -> Result<Node, Errno> {
        let system = System::ALL.iter().find(|(_, system)| *system == name);
        match (name, system) {
            (REAL, _) => Ok(Node::Real),
            ("self", _) => Ok(Node::Myself),
            ("thread-self", _) => Ok(Node::MyThread),
            (_, Some((system, _))) => Ok(Node::System(*system)),
            _ if self.local.has_top(name) => Ok(Node::Top { name: self.names.number(name)? }),
            _ => Err(Errno::ENOENT),
        }
    }

    /// Kind, mode and owner of a file, if the person sees it.
    fn look(&self, node: Node, asker: Asker) -> Result<(FileType, u16, Owner), Errno> {
        let folder = |owner| (FileType::Directory, 0o555, owner);
        let link = |owner| (FileType::Symlink, 0o777, owner);
        let remote = |pid| self.remote_or_gone(pid, asker).map(|look| Owner(look.uid, look.uid));
        Ok(match node {
            Node::Root | Node::Real => folder(ROOT),
            Node::Myself | Node::MyThread | Node::Top { .. } => link(ROOT),
            Node::System(_) => (FileType::RegularFile, 0o444, ROOT),
            Node::Process { pid } | Node::Tasks { pid } => folder(self.owner(pid, None, asker)?),
            Node::Thread { pid, tid } => folder(self.owner(pid, Some(tid), asker)?),
            Node::Entry { pid, .. } => link(self.owner(pid, None, asker)?),
            Node::ThreadEntry { pid, tid, .. } => link(self.owner(pid, Some(tid), asker)?),
            Node::Remote { pid } | Node::RemoteTasks { pid } | Node::RemoteThread { pid } => {
                folder(remote(pid)?)
            }
            Node::RemoteFds { pid } => (FileType::Directory, 0o500, remote(pid)?),
            Node::RemoteText { pid, file } | Node::RemoteThreadText { pid, file } => {
                let mode = if file == File::Environ { 0o400 } else { 0o444 };
                (FileType::RegularFile, mode, remote(pid)?)
            }
            Node::RemoteLink { pid, .. } => link(remote(pid)?),
        })
    }

    fn attributes(&self, node: Node, asker: Asker) -> Result<FileAttr, Errno> {
        let (kind, perm, Owner(uid, gid)) = self.look(node, asker)?;
        let (began, folder) = (self.began, kind == FileType::Directory);
        Ok(FileAttr {
            ino: INodeNo(node.number()),
            size: 0,
            blocks: 0,
            atime: began,
            mtime: began,
            ctime: began,
            crtime: began,
            kind,
            perm,
            nlink: if folder { 2 } else { 1 },
            uid,
            gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    /// What a link says.
    fn target(&self, node: Node, asker: Asker) -> Result<PathBuf, Errno> {
        let real = |steps: &str, rest: String| PathBuf::from(format!("{steps}{REAL}/{rest}"));
        // Who asks from outside of the cell is nobody here, as with the real /proc.
        let process = || self.local.process_of(asker.tid).filter(|_| asker.tid > 0);
        match node {
            Node::Myself => process().map(|pid| pid.to_string().into()).ok_or(Errno::ENOENT),
            Node::MyThread => {
                process().map(|pid| format!("{pid}/task/{}", asker.tid).into()).ok_or(Errno::ENOENT)
            }
            Node::Top { name } => {
                let name = self.names.name(name).ok_or(Errno::ENOENT)?;
                // As self/mounts: that is to be of the merged one.
                let says = self.local.top_link(&name).filter(|says| !says.is_absolute());
                Ok(says.unwrap_or_else(|| real("", name)))
            }
            Node::Entry { pid, name } => {
                self.owner(pid, None, asker)?;
                let name = self.names.name(name).ok_or(Errno::ENOENT)?;
                let says = self.local.link(pid, None, &name, asker).map_err(errno)?;
                Ok(says.unwrap_or_else(|| real("../", format!("{pid}/{name}"))))
            }
            Node::ThreadEntry { pid, tid, name } => {
                self.owner(pid, Some(tid), asker)?;
                let name = self.names.name(name).ok_or(Errno::ENOENT)?;
                let says = self.local.link(pid, Some(tid), &name, asker).map_err(errno)?;
                Ok(says.unwrap_or_else(|| real("../../../", format!("{pid}/task/{tid}/{name}"))))
            }
            // It is not told to other nodes.
            Node::RemoteLink { .. } => Err(Errno::EACCES),
            _ => Err(Errno::EINVAL),
        }
    }

    /// What a file says now.
    fn text(&self, node: Node, asker: Asker) -> Result<Vec<u8>, Errno> {
        match node {
            Node::System(system) => {
                let local = self.local.text(system.name()).map_err(errno)?;
                let machine = self.local.machine().map_err(errno)?;
                let view = self.feed.view();
                Ok(system::text(system, &view, &local, &machine).into_bytes())
            }
            Node::RemoteText { pid, file } | Node::RemoteThreadText { pid, file } => {
                let look = self.remote_or_gone(pid, asker)?;
                let machine = self.local.machine().map_err(errno)?;
                Ok(process::text(file, &look, &machine))
            }
            Node::Root | Node::Real | Node::Process { .. } | Node::Remote { .. } => {
                Err(Errno::EISDIR)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// What is in a folder.
    fn list(&self, node: Node, asker: Asker) -> Result<Vec<Listed>, Errno> {
        let mut all = vec![Listed::folder(node, "."), Listed::folder(Node::Root, "..")];
        let (folder, text, link) = (FileType::Directory, FileType::RegularFile, FileType::Symlink);
        let mut add = |node: Node, kind, name: String| all.push(Listed { node, kind, name });
        match node {
            Node::Root => {
                for name in self.local.top().map_err(errno)? {
                    // One name too many is not listed.
                    let Ok(node) = self.top(&name) else { continue };
                    add(node, if matches!(node, Node::System(_)) { text } else { link }, name);
                }
                let may = asker.uid == 0 || asker.uid == self.feed.uid();
                let view = self.feed.view();
                for pid in self.local.pids(asker).map_err(errno)? {
                    if !may || view.process(pid).is_none() {
                        add(Node::Process { pid }, folder, pid.to_string());
                    }
                }
                for pid in view.processes.iter().map(|seen| seen.look.pid).filter(|_| may) {
                    add(Node::Remote { pid }, folder, pid.to_string());
                }
            }
            Node::Process { pid } => {
                self.owner(pid, None, asker)?;
                for name in self.local.entries(pid, None).map_err(errno)? {
                    if name == TASK {
                        add(Node::Tasks { pid }, folder, name);
                    } else if let Ok(number) = self.names.number(&name) {
                        add(Node::Entry { pid, name: number }, link, name);
                    }
                }
            }
            Node::Tasks { pid } => {
                self.owner(pid, None, asker)?;
                for tid in self.local.tids(pid).map_err(errno)? {
                    add(Node::Thread { pid, tid }, folder, tid.to_string());
                }
            }
            Node::Thread { pid, tid } => {
                self.owner(pid, Some(tid), asker)?;
                for name in self.local.entries(pid, Some(tid)).map_err(errno)? {
                    if let Ok(number) = self.names.number(&name) {
                        add(Node::ThreadEntry { pid, tid, name: number }, link, name);
                    }
                }
            }
            Node::Remote { pid } => {
                self.remote_or_gone(pid, asker)?;
                for (file, name) in File::ALL {
                    add(Node::RemoteText { pid, file }, text, name.to_owned());
                }
                for (which, name) in LINKS {
                    add(Node::RemoteLink { pid, link: which }, link, name.to_owned());
                }
                add(Node::RemoteFds { pid }, folder, FD.to_owned());
                add(Node::RemoteTasks { pid }, folder, TASK.to_owned());
            }
            Node::RemoteTasks { pid } => {
                self.remote_or_gone(pid, asker)?;
                add(Node::RemoteThread { pid }, folder, pid.to_string());
            }
            Node::RemoteThread { pid } => {
                self.remote_or_gone(pid, asker)?;
                for (file, name) in File::ALL {
                    add(Node::RemoteThreadText { pid, file }, text, name.to_owned());
                }
            }
            Node::Real | Node::RemoteFds { .. } => {}
            _ => return Err(Errno::ENOTDIR),
        }
        Ok(all)
    }
}
