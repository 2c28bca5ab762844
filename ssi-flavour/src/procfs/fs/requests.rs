//! The kernel's requests, one by one: look, answer.

use super::super::inode::Node;
use super::super::local::Asker;
use super::handles::Open;
use super::{GENERATION, Merged, NO_TTL, REAL_TTL};
use fuser::{
    Errno, FileHandle, Filesystem, FopenFlags, INodeNo, LockOwner, OpenAccMode, OpenFlags,
    ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, Request,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

fn asker(request: &Request) -> Asker {
    let tid = i32::try_from(request.pid()).unwrap_or(0);
    Asker { uid: request.uid(), gid: request.gid(), tid }
}

fn node(number: INodeNo) -> Result<Node, Errno> {
    Node::of(number.0).ok_or(Errno::ENOENT)
}

impl Filesystem for Merged {
    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let asker = asker(req);
        let found = node(parent).and_then(|parent| self.child(parent, name, asker));
        let found = found.and_then(|node| Ok((node, self.attributes(node, asker)?)));
        match found {
            Ok((node, attributes)) => {
                let names = if node == Node::Real { REAL_TTL } else { NO_TTL };
                reply.entry_with_ttls(&NO_TTL, &names, &attributes, GENERATION);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match node(ino).and_then(|node| self.attributes(node, asker(req))) {
            Ok(attributes) => reply.attr(&NO_TTL, &attributes),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        match node(ino).and_then(|node| self.target(node, asker(req))) {
            Ok(target) => reply.data(target.as_os_str().as_bytes()),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(Errno::EACCES);
        }
        let seen = node(ino).and_then(|node| self.look(node, asker(req)));
        match seen.and_then(|_| self.handles.open()) {
            // Its size is not known before.
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO),
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        // Who reads a file from its start again, as top does, sees what it says then.
        if offset == 0 {
            let text = node(ino).and_then(|node| self.text(node, asker(req)));
            let read = text.and_then(|text| self.handles.renew(fh.0, Open::Text(text)));
            if let Err(errno) = read {
                return reply.error(errno);
            }
        }
        self.handles.read(fh.0, offset, size, |bytes| reply.data(bytes));
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.handles.close(fh.0);
        reply.ok();
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let seen = node(ino).and_then(|node| self.look(node, asker(req)));
        match seen.and_then(|_| self.handles.open()) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        // As with files: rewinddir(3).
        if offset == 0 {
            let list = node(ino).and_then(|node| self.list(node, asker(req)));
            let read = list.and_then(|list| self.handles.renew(fh.0, Open::List(list)));
            if let Err(errno) = read {
                return reply.error(errno);
            }
        }
        self.handles.list(fh.0, offset, |next, listed| {
            reply.add(INodeNo(listed.node.number()), next, listed.kind, &listed.name)
        });
        reply.ok();
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.handles.close(fh.0);
        reply.ok();
    }
}
