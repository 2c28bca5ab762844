//! Who a request is for, and how it is answered.

use std::ffi::OsStr;
use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    Errno, FileHandle, FopenFlags, Generation, ReplyAttr, ReplyCreate, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyOpen, ReplyStatfs, Request,
};
use xtreemfs_client::{Error, Member, Statistics};

use crate::convert;
use crate::core::{Core, Shown};
use crate::serve::{Needs, Refuse, Server};

/// Names are never kept by the kernel: it would let one person walk through a directory that
/// another looked up, without asking whether this person may. Each look-up comes here and is
/// decided for the person who makes it.
const NAMES_TTL: Duration = Duration::ZERO;

/// The unit in which `statfs` counts, in bytes.
const STATFS_BLOCK_BYTES: u32 = 4096;

/// The longest name that `statfs` tells, in bytes.
const NAME_BYTES_MAX: u32 = 255;

/// The free inodes that `statfs` tells.
const FILES_FREE: u64 = 1 << 40;

/// Inode numbers are never used twice, so that one generation is enough.
const GENERATION: Generation = Generation(0);

/// The file system as the kernel sees it.
#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) core: Arc<Core>,
    pub(crate) server: Server,
}

impl Mount {
    /// The person behind a request.
    pub(crate) fn caller(&self, request: &Request) -> Option<Member> {
        let map = &self.core.map;
        map.member(request.uid()).or_else(|| {
            // The caller waits for the answer: its pid is nobody else's meanwhile.
            let groups = (request.uid() == 0).then(|| groups_of(request.pid()))??;
            map.acts_for(&groups)
        })
    }

    /// Runs work that goes by what an open handle may, at the expense of the person who opened it.
    pub(crate) fn by_handle<R, T, W, F, D>(
        &self,
        what: &'static str,
        (opener, needs): (Result<Member, Error>, Needs),
        reply: R,
        work: F,
        done: D,
    ) where
        R: Refuse,
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
        F: FnOnce(Arc<Core>) -> W,
        D: FnOnce(R, T) + Send + 'static,
    {
        match opener {
            Ok(who) => {
                self.server.run(what, (who, needs), reply, work(Arc::clone(&self.core)), done)
            }
            Err(error) => reply.refuse(convert::errno(&error)),
        }
    }

    /// Runs work as the person behind the calling uid; a uid without person has no rights.
    pub(crate) fn by_person<R, T, W, F, D>(
        &self,
        what: &'static str,
        request: &Request,
        reply: R,
        work: F,
        done: D,
    ) where
        R: Refuse,
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
        F: FnOnce(Arc<Core>, Member) -> W,
        D: FnOnce(R, T) + Send + 'static,
    {
        let Some(who) = self.caller(request) else {
            return reply.refuse(Errno::EACCES);
        };
        let work = work(Arc::clone(&self.core), who);
        self.server.run(what, (who, Needs::Nothing), reply, work, done);
    }
}

/// The supplementary groups of a thread of this machine (proc_pid_status(5)).
fn groups_of(pid: u32) -> Option<Vec<u32>> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"))?;
    groups.split_whitespace().map(|gid| gid.parse().ok()).collect()
}

pub(crate) fn entry(reply: ReplyEntry, shown: Shown) {
    reply.entry_with_ttls(&shown.ttl, &NAMES_TTL, &shown.attributes, GENERATION);
}

pub(crate) fn attr(reply: ReplyAttr, shown: Shown) {
    reply.attr(&shown.ttl, &shown.attributes);
}

pub(crate) fn done(reply: ReplyEmpty, (): ()) {
    reply.ok();
}

pub(crate) fn statfs(reply: ReplyStatfs, s: Statistics) {
    let block = u64::from(STATFS_BLOCK_BYTES);
    let (blocks, free) = (s.total_bytes / block, s.free_bytes / block);
    // There is no limit on files; `df -i` shows a number that no volume reaches.
    let files = s.files.saturating_add(FILES_FREE);
    let (block, name) = (STATFS_BLOCK_BYTES, NAME_BYTES_MAX);
    reply.statfs(blocks, free, free, files, FILES_FREE, block, name, block);
}

pub(crate) fn bytes(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}

pub(crate) fn opened(reply: ReplyOpen, handle: u64) {
    reply.opened(FileHandle(handle), FopenFlags::empty());
}

pub(crate) fn created(reply: ReplyCreate, (shown, handle): (Shown, u64)) {
    let flags = FopenFlags::empty();
    reply.created(&NAMES_TTL, &shown.attributes, GENERATION, FileHandle(handle), flags);
}

pub(crate) fn control(reply: ReplyIoctl, answer: Vec<u8>) {
    reply.ioctl(0, &answer);
}
