//! The metadata server's procedures, typed, for one volume.

use std::sync::Arc;

use bytes::Bytes;
use xtreemfs_proto::mrc::{self, OpenReply};
use xtreemfs_proto::{Layout, Procedure};

use crate::cache::Entries;
use crate::call::Repeat;
use crate::file::rights::Grant;
use crate::link::Links;
use crate::{Attributes, Change, Entry, Error, Ino, Kind, Member, Page, Peer, Result, SetTime};

/// One volume at its MRC.
#[derive(Debug)]
pub(crate) struct Mrc {
    pub(crate) links: Arc<Links>,
    pub(crate) peer: Peer,
    pub(crate) volume: String,
    /// What is remembered of directories.
    pub(crate) entries: Entries<Member, Ino, Attributes>,
}

/// Attributes with the number of truncations they belong to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dated {
    pub(crate) attributes: Attributes,
    pub(crate) epoch: u64,
}

/// The answer of an open, a create or a truncation.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) dated: Dated,
    pub(crate) grant: Grant,
}

/// A file that lost its last name: what is needed to delete its content.
#[derive(Debug)]
pub(crate) struct Deleted {
    pub(crate) ino: Ino,
    pub(crate) grant: Grant,
}

impl Mrc {
    pub(crate) async fn call<P: Procedure>(
        &self,
        who: Member,
        request: &P::Request,
        repeat: Repeat,
    ) -> Result<P::Reply> {
        let call = self.links.call::<P>(&self.peer, Some(who), request, Bytes::new(), repeat);
        match call.await {
            Ok((reply, _)) => Ok(reply),
            Err(error) => {
                if error.is_refusal(libc::ESTALE) {
                    // What led to this inode is out of date: the next look-up must ask anew.
                    self.entries.forget_all();
                }
                Err(error)
            }
        }
    }

    fn invalid<P: Procedure>(&self, detail: &str) -> Error {
        let (peer, detail) = (self.peer.clone(), detail.to_owned());
        Error::Protocol { operation: P::NAME, peer, detail }
    }

    fn dated<P: Procedure>(&self, attr: Option<mrc::Attr>) -> Result<Dated> {
        let attr = attr.ok_or_else(|| self.invalid::<P>("no attributes"))?;
        let attributes =
            attributes(&attr).ok_or_else(|| self.invalid::<P>("attributes of no known kind"))?;
        Ok(Dated { attributes, epoch: attr.truncate_epoch })
    }

    fn grant<P: Procedure>(&self, token: Bytes, layout: Option<Layout>) -> Result<Grant> {
        let layout = layout.filter(Layout::is_valid);
        let layout = layout.ok_or_else(|| self.invalid::<P>("no valid layout"))?;
        Grant::new(token, Arc::new(layout)).ok_or_else(|| self.invalid::<P>("no capability"))
    }

    fn opened<P: Procedure>(&self, reply: OpenReply) -> Result<Opened> {
        let dated = self.dated::<P>(reply.attr)?;
        let grant = self.grant::<P>(reply.capability, reply.layout)?;
        Ok(Opened { dated, grant })
    }

    fn deleted<P: Procedure>(&self, deleted: Option<mrc::Deleted>) -> Result<Option<Deleted>> {
        let Some(d) = deleted else { return Ok(None) };
        let grant = self.grant::<P>(d.capability, d.layout)?;
        Ok(Some(Deleted { ino: Ino(d.inode), grant }))
    }

    fn inode(&self, ino: Ino) -> mrc::InodeRequest {
        mrc::InodeRequest { volume: self.volume.clone(), inode: ino.0 }
    }

    fn name(&self, parent: Ino, name: &[u8]) -> mrc::NameRequest {
        let name = Bytes::copy_from_slice(name);
        mrc::NameRequest { volume: self.volume.clone(), parent: parent.0, name }
    }

    pub(crate) async fn statistics(&self, who: Member) -> Result<mrc::StatfsReply> {
        let request = mrc::VolumeRequest { volume: self.volume.clone() };
        self.call::<mrc::Statfs>(who, &request, Repeat::Always).await
    }

    pub(crate) async fn lookup(&self, who: Member, parent: Ino, name: &[u8]) -> Result<Dated> {
        let request = self.name(parent, name);
        let reply = self.call::<mrc::Lookup>(who, &request, Repeat::Always).await?;
        self.dated::<mrc::Lookup>(reply.attr)
    }

    pub(crate) async fn attributes(&self, who: Member, ino: Ino) -> Result<Dated> {
        let reply = self.call::<mrc::Getattr>(who, &self.inode(ino), Repeat::Always).await?;
        self.dated::<mrc::Getattr>(reply.attr)
    }

    /// All but the size.
    pub(crate) async fn change(&self, who: Member, ino: Ino, change: Change) -> Result<Dated> {
        let time = |time: SetTime| match time {
            SetTime::Now => mrc::SetTime { ns: None },
            SetTime::At(ns) => mrc::SetTime { ns: Some(ns) },
        };
        let request = mrc::SetattrRequest {
            volume: self.volume.clone(),
            inode: ino.0,
            mode: change.mode,
            owner: change.owner,
            group: change.group,
            atime: change.accessed.map(time),
            mtime: change.modified.map(time),
        };
        let reply = self.call::<mrc::Setattr>(who, &request, Repeat::Always).await?;
        self.dated::<mrc::Setattr>(reply.attr)
    }

    pub(crate) async fn access(&self, who: Member, ino: Ino, mask: u32) -> Result<()> {
        let request = mrc::AccessRequest { volume: self.volume.clone(), inode: ino.0, mask };
        self.call::<mrc::Access>(who, &request, Repeat::Always).await?;
        Ok(())
    }

    pub(crate) async fn create(
        &self,
        who: Member,
        (parent, name): (Ino, &[u8]),
        mode: u32,
        flags: u32,
    ) -> Result<Opened> {
        let request = mrc::CreateRequest {
            volume: self.volume.clone(),
            parent: parent.0,
            name: Bytes::copy_from_slice(name),
            mode,
            flags,
        };
        // Creating what may be there is opening it; only an exclusive one must not be repeated.
        let exclusive = flags & mrc::open_flags::EXCLUSIVE != 0;
        let repeat = if exclusive { Repeat::Never } else { Repeat::Always };
        self.opened::<mrc::Create>(self.call::<mrc::Create>(who, &request, repeat).await?)
    }

    pub(crate) async fn open(&self, who: Member, ino: Ino, flags: u32) -> Result<Opened> {
        let request = mrc::OpenRequest { volume: self.volume.clone(), inode: ino.0, flags };
        self.opened::<mrc::Open>(self.call::<mrc::Open>(who, &request, Repeat::Always).await?)
    }

    pub(crate) async fn renew(&self, who: Member, old: &Grant) -> Result<Grant> {
        let request = mrc::CapabilityRequest { capability: old.token.clone() };
        let reply = self.call::<mrc::Renew>(who, &request, Repeat::Always).await?;
        let grant = Grant::new(reply.capability, Arc::clone(&old.layout));
        grant.ok_or_else(|| self.invalid::<mrc::Renew>("no capability"))
    }

    /// Tells size and time of the last write. `true` with the attributes: the file was truncated
    /// meanwhile, so that neither counted, and a renewed capability is needed.
    pub(crate) async fn commit(
        &self,
        who: Member,
        grant: &Grant,
        size: u64,
        mtime_ns: i64,
    ) -> Result<(Dated, bool)> {
        let capability = grant.token.clone();
        let request = mrc::SizeCommitRequest { capability, size, mtime_ns };
        let reply = self.call::<mrc::SizeCommit>(who, &request, Repeat::Always).await?;
        Ok((self.dated::<mrc::SizeCommit>(reply.attr)?, reply.stale_epoch))
    }

    /// Repeating it is harmless: the size is the same, only the epoch rises once more.
    pub(crate) async fn truncate(
        &self,
        who: Member,
        ino: Ino,
        size: u64,
        grant: Option<&Grant>,
    ) -> Result<Opened> {
        let capability = grant.map(|grant| grant.token.clone()).unwrap_or_default();
        let volume = self.volume.clone();
        let request = mrc::TruncateRequest { volume, inode: ino.0, size, capability };
        let reply = self.call::<mrc::Truncate>(who, &request, Repeat::Always).await?;
        self.opened::<mrc::Truncate>(reply)
    }

    /// Says that every OSD has made the truncation that a capability names.
    pub(crate) async fn cut_made(&self, who: Member, grant: &Grant) -> Result<()> {
        let request = mrc::CapabilityRequest { capability: grant.token.clone() };
        self.call::<mrc::CutMade>(who, &request, Repeat::Always).await?;
        Ok(())
    }

    pub(crate) async fn make_directory(
        &self,
        who: Member,
        (parent, name): (Ino, &[u8]),
        mode: u32,
    ) -> Result<Dated> {
        let (volume, name) = (self.volume.clone(), Bytes::copy_from_slice(name));
        let request = mrc::MkdirRequest { volume, parent: parent.0, name, mode };
        let reply = self.call::<mrc::Mkdir>(who, &request, Repeat::Never).await?;
        self.dated::<mrc::Mkdir>(reply.attr)
    }

    pub(crate) async fn remove_directory(
        &self,
        who: Member,
        parent: Ino,
        name: &[u8],
    ) -> Result<()> {
        let request = self.name(parent, name);
        self.call::<mrc::Rmdir>(who, &request, Repeat::Never).await?;
        Ok(())
    }

    pub(crate) async fn unlink(
        &self,
        who: Member,
        parent: Ino,
        name: &[u8],
    ) -> Result<Option<Deleted>> {
        let request = self.name(parent, name);
        let reply = self.call::<mrc::Unlink>(who, &request, Repeat::Never).await?;
        self.deleted::<mrc::Unlink>(reply.deleted)
    }

    pub(crate) async fn symlink(
        &self,
        who: Member,
        (parent, name): (Ino, &[u8]),
        target: &[u8],
    ) -> Result<Dated> {
        let request = mrc::SymlinkRequest {
            volume: self.volume.clone(),
            parent: parent.0,
            name: Bytes::copy_from_slice(name),
            target: Bytes::copy_from_slice(target),
        };
        let reply = self.call::<mrc::Symlink>(who, &request, Repeat::Never).await?;
        self.dated::<mrc::Symlink>(reply.attr)
    }

    pub(crate) async fn read_link(&self, who: Member, ino: Ino) -> Result<Bytes> {
        let reply = self.call::<mrc::Readlink>(who, &self.inode(ino), Repeat::Always).await?;
        Ok(reply.target)
    }

    /// Answers what was moved and what was overwritten and is gone.
    pub(crate) async fn rename(
        &self,
        who: Member,
        (parent, name): (Ino, &[u8]),
        (new_parent, new_name): (Ino, &[u8]),
        no_replace: bool,
    ) -> Result<(Dated, Option<Deleted>)> {
        let request = mrc::RenameRequest {
            volume: self.volume.clone(),
            parent: parent.0,
            name: Bytes::copy_from_slice(name),
            new_parent: new_parent.0,
            new_name: Bytes::copy_from_slice(new_name),
            flags: if no_replace { mrc::rename_flags::NOREPLACE } else { 0 },
        };
        let reply = self.call::<mrc::Rename>(who, &request, Repeat::Never).await?;
        let dated = self.dated::<mrc::Rename>(reply.attr)?;
        Ok((dated, self.deleted::<mrc::Rename>(reply.deleted)?))
    }

    /// A page of a directory, with the attributes of its entries.
    pub(crate) async fn list(
        &self,
        who: Member,
        ino: Ino,
        cookie: u64,
    ) -> Result<(Page, Vec<Dated>)> {
        let request =
            mrc::ReaddirRequest { volume: self.volume.clone(), inode: ino.0, cookie, limit: 0 };
        let reply = self.call::<mrc::Readdir>(who, &request, Repeat::Always).await?;
        let mut page = Page { parent: Ino(reply.parent), entries: Vec::new(), last: reply.end };
        let mut all = Vec::with_capacity(reply.entries.len());
        for entry in reply.entries {
            if !is_name(&entry.name) {
                return Err(self.invalid::<mrc::Readdir>("an impossible name"));
            }
            let dated = self.dated::<mrc::Readdir>(entry.attr)?;
            let Attributes { ino, kind, .. } = dated.attributes;
            page.entries.push(Entry { name: entry.name, ino, kind, cookie: entry.cookie });
            all.push(dated);
        }
        if page.entries.is_empty() && !page.last {
            return Err(self.invalid::<mrc::Readdir>("an empty page that is not the last"));
        }
        Ok((page, all))
    }
}

/// Whether this can be the name of a directory entry.
pub(crate) fn is_name(name: &[u8]) -> bool {
    let reserved = matches!(name, b"" | b"." | b"..");
    !reserved && name.len() <= mrc::NAME_BYTES_MAX && !name.iter().any(|b| matches!(b, 0 | b'/'))
}

fn attributes(attr: &mrc::Attr) -> Option<Attributes> {
    // The kernel's file sizes are signed.
    i64::try_from(attr.size).ok()?;
    let kind = match attr.kind() {
        mrc::Kind::File => Kind::File,
        mrc::Kind::Directory => Kind::Directory,
        mrc::Kind::Symlink => Kind::Symlink,
        mrc::Kind::Unknown => return None,
    };
    Some(Attributes {
        ino: Ino(attr.inode),
        kind,
        mode: attr.mode & 0o7777,
        links: attr.nlink,
        owner: attr.owner,
        group: attr.group,
        size: attr.size,
        accessed_ns: attr.atime_ns,
        modified_ns: attr.mtime_ns,
        changed_ns: attr.ctime_ns,
    })
}
