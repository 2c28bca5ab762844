//! What lies below a folder, for a person who asks for it or has changed something in it.
//!
//! There may be very much of it. It is looked at in pages, each a read by itself, so that whoever
//! writes waits for one page at most; and each person has a budget of looks.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use xtreemfs_proto::mrc::{FOLDER_NAMED_MAX, FolderReply, ROOT_INODE};
use xtreemfs_proto::{Layout, RpcError};

use crate::identity::Identity;
use crate::mrc::Mrc;
use crate::mrc::perm::{R, X, may};
use crate::mrc::record::{entries_prefix, inode_at_end};
use crate::mrc::space::{DEPTH_MAX, Space, damaged};

/// Most looks, at entries and into folders, for one answer.
pub const LOOKED_AT_MAX: usize = 20_000;
/// Looks of one page: the index is held for as long as they take.
const PAGE: usize = 256;
/// As many directories above a folder are gone through for the price of one look.
const DEPTH_PER_LOOK: usize = 32;
/// Looks that a person may have at once, whole pages counted.
const LOOKS_BURST: u64 = 100_000;
/// Looks that come back to them in a millisecond.
const LOOKS_PER_MS: u64 = 2;
/// People whose budgets are remembered before the full ones are forgotten.
const PEOPLE_MAX: usize = 4096;
/// Most bytes of names in one answer.
const NAMES_BYTES_MAX: usize = 2048;

/// What each person has left to look at.
#[derive(Debug, Default)]
pub(super) struct Looks(Mutex<HashMap<(Arc<str>, u32), Left>>);

#[derive(Debug)]
struct Left {
    looks: u64,
    at_ms: u64,
}

impl Left {
    fn now(&self, now_ms: u64) -> u64 {
        let back = now_ms.saturating_sub(self.at_ms).saturating_mul(LOOKS_PER_MS);
        self.looks.saturating_add(back).min(LOOKS_BURST)
    }
}

impl Looks {
    /// Takes as many looks as a person has left, `wanted` at most.
    fn take(&self, who: &Identity, wanted: usize, now_ms: u64) -> usize {
        let mut people = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if people.len() >= PEOPLE_MAX {
            people.retain(|_, left| left.now(now_ms) < LOOKS_BURST);
        }
        let full = Left { looks: LOOKS_BURST, at_ms: now_ms };
        let left = people.entry((who.vo.clone(), who.member)).or_insert(full);
        let taken = usize::try_from(left.now(now_ms)).unwrap_or(usize::MAX).min(wanted);
        *left = Left { looks: left.now(now_ms) - taken as u64, at_ms: now_ms };
        taken
    }
}

/// A folder that is yet to be looked into.
#[derive(Debug)]
struct Folder {
    inode: u64,
    pin: String,
    path: Vec<u8>,
    /// The key of the last entry that was looked at; empty: none yet.
    after: Vec<u8>,
}

/// The answer as far as it has come.
#[derive(Debug)]
struct Walk {
    reply: FolderReply,
    osds: BTreeSet<String>,
    others: BTreeSet<u32>,
    folders: Vec<Folder>,
}

impl Walk {
    fn file(&mut self, layout: &Layout, pin: &str, path: &[u8], site_of: &dyn Fn(&str) -> String) {
        let reply = &mut self.reply;
        reply.files += 1;
        let elsewhere = |osd: &String| !pin.is_empty() && site_of(osd) != pin;
        if layout.osds.iter().any(elsewhere) {
            reply.elsewhere += 1;
            let held: usize = reply.elsewhere_names.iter().map(Bytes::len).sum();
            let fits = held + path.len() <= NAMES_BYTES_MAX;
            if fits && reply.elsewhere_names.len() < FOLDER_NAMED_MAX {
                reply.elsewhere_names.push(Bytes::copy_from_slice(path));
            }
        }
        for osd in &layout.osds {
            if self.osds.len() < FOLDER_NAMED_MAX {
                self.osds.insert(osd.clone());
            }
        }
    }

    fn reply(self) -> FolderReply {
        let mut reply = self.reply;
        reply.osds = self.osds.into_iter().collect();
        reply.others = self.others.into_iter().take(FOLDER_NAMED_MAX).collect();
        reply
    }
}

impl Space<'_> {
    /// What is said of a folder itself, before anything below it is looked at; of a file, where it
    /// lies.
    ///
    /// # Errors
    /// `EACCES`, `ESTALE`.
    fn folder(&self, inode: u64, site_of: &dyn Fn(&str) -> String) -> Result<Walk, RpcError> {
        let record = self.reach(inode)?;
        let inside = if record.is_dir() { inode } else { record.parent };
        let pin = self.pin_at(inside)?;
        let reply = FolderReply {
            kind: record.kind,
            owner: record.owner,
            closed: record.closed,
            closed_above: inode != ROOT_INODE && self.closed_at(record.parent)?.is_some(),
            pinned_here: !record.pin.is_empty(),
            pin: pin.clone(),
            complete: true,
            ..FolderReply::default()
        };
        let (osds, others, folders) = Default::default();
        let mut walk = Walk { reply, osds, others, folders };
        if record.is_dir() {
            walk.folders.push(Folder { inode, pin, path: Vec::new(), after: Vec::new() });
        } else if let Some(layout) = &record.layout {
            walk.file(layout, &pin, &[], site_of);
        }
        Ok(walk)
    }

    /// Has `left` looks more, as far as the person may list what there is.
    ///
    /// # Errors
    /// `EIO` when the index contradicts itself.
    fn look_below(
        &self,
        walk: &mut Walk,
        mut left: usize,
        site_of: &dyn Fn(&str) -> String,
    ) -> Result<(), RpcError> {
        let mut before = walk.folders.len();
        while left > 0
            && let Some(mut at) = walk.folders.pop()
        {
            let is_new = walk.folders.len() >= before;
            before = before.min(walk.folders.len());
            let (may_list, cost) = self.may_list(at.inode, is_new);
            left = left.saturating_sub(cost);
            if !may_list {
                walk.reply.complete = false;
                continue;
            }
            let prefix = entries_prefix(self.volume.number, at.inode);
            let after = std::mem::take(&mut at.after);
            let mut last: &[u8] = &after;
            let mut more = false;
            for (key, name) in self.index().after(&prefix, &after) {
                if left == 0 {
                    more = true;
                    break;
                }
                left -= 1;
                last = key;
                self.look_at(walk, &at, (key, name), site_of)?;
            }
            if more {
                at.after = last.to_vec();
                walk.folders.push(at);
            }
        }
        Ok(())
    }

    /// Whether the person may list a directory now, and what it costs to tell. What was found on an
    /// earlier page may have been closed, moved or removed since.
    fn may_list(&self, dir: u64, is_new: bool) -> (bool, usize) {
        let found = match is_new {
            true => self.inode(dir).map(|record| (record, 0)),
            false => self.reach_depth(dir),
        };
        let Ok((record, depth)) = found else { return (false, 1 + DEPTH_MAX / DEPTH_PER_LOOK) };
        let listed = may(self.who, &record, R) && may(self.who, &record, X);
        let may_list = record.is_dir() && listed && self.need_not_closed(&record).is_ok();
        (may_list, 1 + depth / DEPTH_PER_LOOK)
    }

    fn look_at(
        &self,
        walk: &mut Walk,
        at: &Folder,
        (key, name): (&[u8], &[u8]),
        site_of: &dyn Fn(&str) -> String,
    ) -> Result<(), RpcError> {
        let inode = inode_at_end(key).ok_or_else(|| damaged("entry key"))?;
        let record = self.inode(inode).map_err(|_| damaged("entry"))?;
        if record.owner != walk.reply.owner {
            walk.others.insert(record.owner);
        }
        let path = join(&at.path, name);
        if let Some(layout) = &record.layout {
            walk.file(layout, &at.pin, &path, site_of);
        } else if record.is_dir() {
            let pin = if record.pin.is_empty() { at.pin.clone() } else { record.pin.clone() };
            walk.folders.push(Folder { inode, pin, path, after: Vec::new() });
        }
        Ok(())
    }
}

/// What is too long to be told anyway does not grow any more.
fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    match path.len() {
        0 => name.to_vec(),
        1..=NAMES_BYTES_MAX => [path, b"/", name].concat(),
        _ => path.to_vec(),
    }
}

impl Mrc {
    /// What is said of a folder, and what lies below it as far as the person may list it and has
    /// looks left; of a file, where it lies.
    ///
    /// # Errors
    /// `EACCES`, `ESTALE`.
    pub(super) async fn folder(
        &self,
        volume: &str,
        who: &Identity,
        inode: u64,
    ) -> Result<FolderReply, RpcError> {
        let osds = &self.parts.osds;
        let site_of = |osd: &str| osds.site_of(osd);
        let (_, mut walk) = self.read(volume, who, |space| space.folder(inode, &site_of))?;
        let mut looked = 0;
        while !walk.folders.is_empty() {
            let page = PAGE.min(LOOKED_AT_MAX - looked);
            let looks = self.looks.take(who, page, self.parts.clock.now_ms());
            if looks == 0 {
                walk.reply.complete = false;
                break;
            }
            looked += looks;
            self.read(volume, who, |space| space.look_below(&mut walk, looks, &site_of))?;
            tokio::task::yield_now().await;
        }
        Ok(walk.reply())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(member: u32) -> Identity {
        let (groups, admin) = (Vec::new(), false);
        Identity { vo: "demo".into(), member, groups, admin, epoch: 1, expires_ms: u64::MAX }
    }

    /// If it failed, one person could keep the metadata server busy with looking through a large
    /// folder, and everybody else's files would wait.
    #[test]
    fn a_person_has_a_budget_of_looks_and_nobody_elses() {
        let (looks, ann, bob) = (Looks::default(), person(10), person(11));
        let burst = LOOKS_BURST as usize;
        assert_eq!(looks.take(&ann, burst - 1, 5000), burst - 1);
        assert_eq!(looks.take(&ann, PAGE, 5000), 1, "what is left");
        assert_eq!(looks.take(&ann, PAGE, 5000), 0);
        assert_eq!(looks.take(&ann, PAGE, 4000), 0, "a clock that is set back gives nothing");
        assert_eq!(looks.take(&bob, PAGE, 5000), PAGE);
        assert_eq!(looks.take(&ann, PAGE, 4010), 10 * LOOKS_PER_MS as usize);
        assert_eq!(looks.take(&ann, 2 * burst, 10_000_000), burst, "and no more than at first");
    }

    /// If it failed, deep folders with long names would fill the server's memory.
    #[test]
    fn what_is_too_long_to_be_told_does_not_grow() {
        assert_eq!(join(&[], b"a"), b"a");
        assert_eq!(join(b"a", b"b"), b"a/b");
        let mut path = Vec::new();
        for _ in 0..100 {
            path = join(&path, &[b'x'; 255]);
        }
        assert!((NAMES_BYTES_MAX + 1..NAMES_BYTES_MAX + 300).contains(&path.len()));
    }
}
