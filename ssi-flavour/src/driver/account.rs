//! As whom a program ran, by its images. CRIU may not change users or groups, so it begins as who
//! the program is to be.

use super::Person;
use super::images::ImageError;
use super::recorded::Images;
use super::stats::{COMMON_MAGIC, Entries};
use super::sys::As;
use prost::Message;
use rustix::process::Gid;
use rustix::thread::CapabilitySet;

const CORE_MAGIC: u32 = 0x5505_3847;

/// Of a `core-` (criu: images/core.proto).
#[derive(Clone, PartialEq, Message)]
struct Core {
    /// A process that has ended has none.
    #[prost(message, optional, tag = "5")]
    thread: Option<Thread>,
}

#[derive(Clone, PartialEq, Message)]
struct Thread {
    #[prost(message, optional, tag = "10")]
    creds: Option<Creds>,
}

/// Of criu: images/creds.proto.
#[derive(Clone, PartialEq, Eq, Message)]
struct Creds {
    #[prost(uint32, tag = "1")]
    uid: u32,
    #[prost(uint32, tag = "2")]
    gid: u32,
    #[prost(uint32, tag = "3")]
    effective_uid: u32,
    #[prost(uint32, tag = "4")]
    effective_gid: u32,
    #[prost(uint32, tag = "5")]
    saved_uid: u32,
    #[prost(uint32, tag = "6")]
    saved_gid: u32,
    #[prost(uint32, tag = "7")]
    file_uid: u32,
    #[prost(uint32, tag = "8")]
    file_gid: u32,
    #[prost(uint32, repeated, packed = "false", tag = "14")]
    groups: Vec<u32>,
}

/// As whom the program of these images ran, in all of its processes and threads.
///
/// # Errors
/// When that was not `owner`, with no groups but their own, or not the same in all.
pub(super) fn of_images(images: &Images<'_>, owner: &Person) -> Result<As, ImageError> {
    let mut found: Option<As> = None;
    for name in images.names().filter(|name| name.starts_with("core-")) {
        let Some(creds) = images.parse(name, creds)? else { continue };
        let of = account(&creds, owner).map_err(|what| images.bound(name, what))?;
        if found.as_ref().is_some_and(|first| *first != of) {
            let what = "its threads differ in their groups, which nobody but root can bring back";
            return Err(images.bound(name, what.to_owned()));
        }
        found = Some(of);
    }
    let none = || images.bound("pstree.img", "no process of it is alive".to_owned());
    found.ok_or_else(none)
}

fn creds(bytes: &[u8]) -> Result<Option<Creds>, String> {
    let entry = Entries::of(bytes, COMMON_MAGIC, CORE_MAGIC)?.next().ok_or("it is empty")??;
    let core = Core::decode(entry).map_err(|e| e.to_string())?;
    Ok(core.thread.and_then(|thread| thread.creds))
}

fn account(creds: &Creds, owner: &Person) -> Result<As, String> {
    let users = [creds.uid, creds.effective_uid, creds.saved_uid, creds.file_uid];
    if let Some(uid) = users.into_iter().find(|uid| *uid != owner.uid) {
        return Err(format!("it names user {uid}, another one"));
    }
    let gid = creds.gid;
    if [creds.effective_gid, creds.saved_gid, creds.file_gid] != [gid; 3] {
        return Err("it has one group really and another one in effect".to_owned());
    }
    let all = creds.groups.iter().copied().chain([gid]);
    if let Some(gid) = all.into_iter().find(|gid| !owner.gids.contains(gid)) {
        return Err(format!("it names group {gid}, which the person does not have here"));
    }
    let groups = creds.groups.iter().copied().map(Gid::from_raw).collect();
    Ok(As { uid: owner.uid, gid, groups, capabilities: CapabilitySet::empty() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uid: u32, gid: u32, groups: &[u32]) -> Creds {
        Creds {
            uid,
            gid,
            effective_uid: uid,
            effective_gid: gid,
            saved_uid: uid,
            saved_gid: gid,
            file_uid: uid,
            file_gid: gid,
            groups: groups.to_vec(),
        }
    }

    /// If it failed, CRIU would be started as somebody whom an image names.
    #[test]
    fn only_the_person_with_their_groups_is_what_criu_begins_as() {
        let owner = Person::new(70_001, 70_002, &[70_005]);
        let good = account(&of(70_001, 70_002, &[70_002, 70_005]), &owner).unwrap();
        assert_eq!((good.uid, good.gid, good.groups.len()), (70_001, 70_002, 2));
        assert!(good.capabilities.is_empty());
        // Also in another group of theirs, and with fewer of them.
        assert_eq!(account(&of(70_001, 70_005, &[]), &owner).unwrap().gid, 70_005);
        let saved = Creds { saved_uid: 0, ..of(70_001, 70_002, &[]) };
        let effective = Creds { effective_gid: 70_005, ..of(70_001, 70_002, &[]) };
        let bad = [of(0, 70_002, &[]), of(70_001, 0, &[]), of(70_001, 70_002, &[0]), saved];
        for creds in bad.into_iter().chain([effective]) {
            assert!(account(&creds, &owner).is_err(), "{creds:?}");
        }
    }

    #[test]
    fn a_core_s_rights_are_read_and_an_ended_process_has_none() {
        // wrong: a program that has reaped not yet all of its children could not move
        let image = |core: &Core| {
            let entry = core.encode_to_vec();
            let size = u32::try_from(entry.len()).unwrap();
            let head = [COMMON_MAGIC, CORE_MAGIC, size].map(u32::to_le_bytes).concat();
            [head, entry].concat()
        };
        let creds_of = of(70_001, 70_001, &[70_001]);
        let thread = Some(Thread { creds: Some(creds_of.clone()) });
        assert_eq!(creds(&image(&Core { thread })).unwrap(), Some(creds_of));
        assert_eq!(creds(&image(&Core { thread: None })).unwrap(), None);
        assert!(creds(&[]).is_err() && creds(b"another kind").is_err());
    }
}
