//! Telling of files that are opened, for VOs that ask for it.

use bytes::Bytes;
use xtreemfs_proto::mrc::{ROOT_INODE, open_flags};
use xtreemfs_proto::{Errno, RpcError};

use crate::identity::{Identity, Peer};
use crate::mrc::entries::Opened;
use crate::mrc::record::{VolumeRecord, entry_key};
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
    /// Names from the root of the volume on, with `/` between them; empty: it has no name.
    pub path: Bytes,
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

impl Space<'_> {
    /// Names from the root on; empty when there are none.
    fn path(&self, inode: u64) -> Vec<u8> {
        let (mut names, mut at) = (Vec::new(), inode);
        for _ in 0..DEPTH_MAX {
            if at == ROOT_INODE {
                break;
            }
            let Ok(record) = self.inode(at) else { return Vec::new() };
            let key = entry_key(self.volume.number, record.parent, at);
            let Some(name) = self.index().value(&key) else { return Vec::new() };
            names.push(name.to_vec());
            at = record.parent;
        }
        names.reverse();
        names.join(&b'/')
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
            let mut path = Space::new(index, &volume, who, now_ns)?.path(inode);
            if failed && let Some(name) = asked.name {
                path = if path.is_empty() {
                    name.to_vec()
                } else {
                    [path.as_slice(), name].join(&b'/')
                };
            }
            Ok::<_, RpcError>((volume, path))
        });
        let Ok((volume, path)) = told else { return };
        opens.opened(FileOpen {
            volume: volume.name,
            vo: volume.vo,
            member: who.member,
            path: path.into(),
            read: asked.flags & open_flags::READ != 0,
            write: asked.flags & open_flags::WRITE != 0,
            created,
            peer: asked.peer.id.clone(),
            refused,
        });
    }
}
