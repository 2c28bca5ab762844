//! Telling of files that are opened, for VOs that ask for it.

use bytes::Bytes;
use xtreemfs_proto::mrc::{ROOT_INODE, open_flags};
use xtreemfs_proto::{Errno, RpcError};

use crate::identity::{Identity, Peer};
use crate::mrc::entries::Opened;
use crate::mrc::perm::{X, may};
use crate::mrc::record::{InodeRecord, VolumeRecord, entry_key};
use crate::mrc::space::{DEPTH_MAX, Space};
use crate::mrc::{Mrc, find};

/// A file that somebody opened, or was refused to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOpen {
    /// Name of the volume.
    pub volume: String,
    /// The VO.
    pub vo: String,
    /// Member number.
    pub member: u32,
    /// Inode number; of a file that was to be made and was not: its directory's.
    pub inode: u64,
    /// Names from the root of the volume on, with `/` between them.
    pub path: Bytes,
    /// The path leads to the inode, and to what was to be made there. Else it has no name, or the
    /// rest is not told: below a closed folder names are its owner's alone, and who was refused is
    /// told of nothing that they do not get to.
    pub whole: bool,
    /// To read.
    pub read: bool,
    /// To write.
    pub write: bool,
    /// It was made by this.
    pub created: bool,
    /// Id of the machine.
    pub peer: String,
    /// Why it was refused; `None`: it was opened.
    pub refused: Option<String>,
}

/// Wants to know of files that are opened.
pub trait OpenAudit: Send + Sync + 'static {
    /// Whether opens in this VO are told. Asked at each open: must answer from memory.
    fn wants(&self, vo: &str) -> bool;

    /// Takes note of one. Must not wait.
    fn opened(&self, open: FileOpen);
}

/// How a file is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) who: &'a Identity,
    pub(super) peer: &'a Peer,
    /// Inode number; of a file that may be made: its directory.
    pub(super) at: u64,
    /// Its name there, if it may be made.
    pub(super) name: Option<&'a [u8]>,
    pub(super) flags: u32,
}

/// Names from the root on, as far as they are told, and whether that is all.
#[derive(Debug, Default)]
struct Told {
    path: Vec<u8>,
    whole: bool,
}

impl Space<'_> {
    /// The path of an inode, and of `name` in it. It ends where a folder is closed, and, when the
    /// person was refused, where they get no further; a file that was opened has none then.
    fn told(&self, inode: u64, name: Option<&[u8]>, refused: bool) -> Told {
        let Some(steps) = self.steps(inode, name) else { return Told::default() };
        let mut told = Told { path: Vec::new(), whole: true };
        for (dir, name) in steps.iter().rev() {
            if dir.closed || (refused && !may(self.who, dir, X)) {
                return if refused { Told { whole: false, ..told } } else { Told::default() };
            }
            if !told.path.is_empty() {
                told.path.push(b'/');
            }
            told.path.extend_from_slice(name);
        }
        told
    }

    /// The directories above an inode, each with the name in it that leads there, from below; none
    /// if it has no name.
    fn steps(&self, inode: u64, name: Option<&[u8]>) -> Option<Vec<(InodeRecord, Vec<u8>)>> {
        let (mut steps, mut at) = (Vec::new(), inode);
        let mut record = self.inode(at).ok()?;
        if let Some(name) = name {
            steps.push((record.clone(), name.to_vec()));
        }
        for _ in 0..DEPTH_MAX {
            if at == ROOT_INODE {
                return Some(steps);
            }
            let above = record.parent;
            let name = self.index().value(&entry_key(self.volume.number, above, at))?.to_vec();
            record = self.inode(above).ok()?;
            steps.push((record.clone(), name));
            at = above;
        }
        None
    }
}

impl Mrc {
    /// Tells of an open if the VO wants it; costs one question else.
    pub(super) fn note_open(
        &self,
        volume: &str,
        asked: Asked<'_>,
        result: &Result<(VolumeRecord, Opened), RpcError>,
    ) {
        let (who, opens) = (asked.who, &self.parts.opens);
        if !opens.wants(&who.vo) {
            return;
        }
        let (inode, created, refused) = match result {
            Ok((_, opened)) => (opened.inode, opened.created, None),
            Err(error) if matches!(error.errno, Errno::EACCES | Errno::EPERM) => {
                (asked.at, false, Some(error.message.clone()))
            }
            // Nothing was opened, and nothing denied.
            Err(_) => return,
        };
        let (now_ns, failed) = (self.parts.clock.now_ns(), result.is_err());
        let told = self.store.read(|index| {
            let volume = find(index, volume)?;
            // Another VO's volume has no place in this one's audit.
            let name = asked.name.filter(|_| failed);
            let told = Space::new(index, &volume, who, now_ns)?.told(inode, name, failed);
            Ok::<_, RpcError>((volume, told))
        });
        let Ok((volume, told)) = told else { return };
        opens.opened(FileOpen {
            volume: volume.name,
            vo: volume.vo,
            member: who.member,
            inode,
            path: told.path.into(),
            whole: told.whole,
            read: asked.flags & open_flags::READ != 0,
            write: asked.flags & open_flags::WRITE != 0,
            created,
            peer: asked.peer.id.clone(),
            refused,
        });
    }
}
