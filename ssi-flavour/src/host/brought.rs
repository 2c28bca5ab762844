//! Trees that left another cluster, mostly one of another site, and go on here: their images are
//! fetched from there, and made those of their person's account here.
//!
//! Such an image is hostile input. What it may hold, [`reown`] says; [`trust`] says whose word it is
//! to who starts a program from it.

use super::fetch::Fetch;
use super::images::{Fetching, Taking};
use super::{Host, Job};
use crate::cell::proto::Account;
use crate::cluster::messages::{Image, TreeId};
use crate::driver::Trust;
use crate::driver::images::{Ids, ImageError, manifest, reown, verify};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use xos_api::aem::Carried;
use xos_base::{MemberNumber, SiteId, VoId};

/// Largest manifest of an image, bytes, as far as it counts for the size of the whole.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What a tree that came goes on from, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brought {
    /// The image.
    pub carried: Carried,
    /// This site.
    pub here: SiteId,
    /// The VO of its person.
    pub vo: VoId,
    /// The person's number in it.
    pub member: MemberNumber,
    /// From which number on the VO's members have their accounts here.
    pub base: u32,
}

impl Brought {
    /// The user that the image is of where it was made.
    fn uid_there(&self) -> u32 {
        self.carried.base.saturating_add(self.member.0)
    }

    /// The person's numbers there and here. Groups have the same numbers in the VO.
    fn ids(&self, account: &Account) -> Ids {
        let there = |gid: u32| gid.checked_sub(self.base)?.checked_add(self.carried.base);
        let here = std::iter::once(account.gid).chain(account.groups.iter().copied());
        let gids: BTreeMap<u32, u32> = here.filter_map(|gid| Some((there(gid)?, gid))).collect();
        Ids { uid: (self.uid_there(), account.uid), gids }
    }

    /// The same for an image that names who they are here, be it that it was made theirs before or
    /// that the other site wrote it so.
    fn ids_here(&self, account: &Account) -> Ids {
        let gids = self.ids(account).gids.into_values().map(|gid| (gid, gid)).collect();
        Ids { uid: (account.uid, account.uid), gids }
    }

    /// Whether the image was made at another site.
    fn is_foreign(&self) -> bool {
        self.carried.cluster.site() != self.here
    }
}

impl Host {
    /// What the image of an order is brought from, if it is not one of this cluster's nodes.
    pub(super) fn brought(job: &Job, image: &Image) -> Option<Brought> {
        let of = |b: &&Brought| image.nodes.is_empty() && b.carried.version == image.version;
        job.carried.as_deref().filter(of).cloned()
    }
}

/// Has the image of a tree that came here, as one of its person's account, on the disk. Waits. The
/// error is for the person.
pub(super) fn bring(
    fetching: &Fetching,
    (tree, account): (TreeId, &Account),
    b: &Brought,
    way: &Fetch,
) -> Result<(), String> {
    let (store, version) = (&fetching.store, b.carried.version);
    if !store.has(tree, version) {
        // Another site does not choose what this node connects to.
        let most = b.carried.bytes.saturating_add(MANIFEST_BYTES_MAX);
        let taking = Taking { direct: false, lasts: true, most };
        let mut why = "no node has its image".to_owned();
        let found = b.carried.nodes.iter().any(|node| {
            let got = fetching.peers.carried(node, b);
            let got = got.and_then(|socket| fetching.take(socket, (tree, version), way, taking));
            got.map_err(|e| why = format!("cannot fetch its image from {node}: {e}")).is_ok()
        });
        if !found {
            return Err(why);
        }
    }
    let made = own(&store.folder(tree, version), b, account);
    made.map_err(|why| {
        // What is refused once is no better the next time, and another's memory.
        let left = store.discard(tree, version).err().map(|e| format!("; and it stays: {e}"));
        format!("its image is refused: {why}{}", left.unwrap_or_default())
    })
}

/// Makes an image the person's here. Of another site's all that it names is looked at, also when it
/// says that it is theirs already.
fn own(folder: &Path, b: &Brought, account: &Account) -> Result<(), ImageError> {
    let bound = |what: String| Err(ImageError::Bound { path: folder.into(), what });
    // It is a checkpoint here from the first moment on.
    if !manifest(folder)?.lasts() {
        return bound(
            "it has no digests, as if it were to move within its cluster only".to_owned(),
        );
    }
    let made = match verify(folder, account.uid) {
        Err(ImageError::Foreign { .. }) => reown(folder, &b.ids(account))?,
        Ok(_) if b.is_foreign() => reown(folder, &b.ids_here(account))?,
        other => other?,
    };
    if made.origin.pid == b.carried.pid {
        return Ok(());
    }
    bound(format!("it is of process {}, not {}", made.origin.pid, b.carried.pid))
}

/// Whose word an image of a tree is. The one that came stays the other site's, whichever node of
/// this cluster it is fetched from later.
pub(super) fn trust(job: &Job, version: u64) -> Trust {
    let foreign = |b: &Brought| b.is_foreign() && b.carried.version == version;
    match job.carried.as_deref().is_some_and(foreign) {
        true => Trust::Foreign,
        false => Trust::OwnSite,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use crate::driver::images::{Origin, seal};
    use std::io::Write;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

    fn brought() -> Brought {
        let carried = Carried {
            cluster: "c1.rennes".parse().unwrap(),
            tree: 7,
            version: 2,
            nodes: vec!["n1.rennes".parse().unwrap()],
            key: "0".repeat(64),
            bytes: 1,
            pid: 65_432,
            cpu_group: 1,
            base: 1_000_000,
            stdout_bytes: 3,
            stderr_bytes: 0,
            to: None,
        };
        let (here, vo) = ("pisa".parse().unwrap(), "demo.rennes".parse().unwrap());
        Brought { carried, here, vo, member: MemberNumber(7), base: 2_000_000 }
    }

    /// If it failed, a program would have the account of another member at its new site, or a group
    /// that its person does not have.
    #[test]
    fn a_person_is_the_same_one_at_both_sites() {
        let groups = vec![2_000_003, 44];
        let account = Account { uid: 2_000_007, gid: 2_000_001, groups };
        let ids = brought().ids(&account);
        assert_eq!(ids.uid, (1_000_007, 2_000_007));
        let gids = BTreeMap::from([(1_000_001, 2_000_001), (1_000_003, 2_000_003)]);
        assert_eq!(ids.gids, gids, "a group of this machine is none of the VO's");
    }

    fn job(carried: Option<Brought>) -> Job {
        let account = Account { uid: 2_000_007, gid: 2_000_001, groups: Vec::new() };
        Job { account, carried: carried.map(Box::new), ..testing::job(2_000_007) }
    }

    /// If it failed, another site's image would be trusted as this site's own, once a neighbour has
    /// a copy of it.
    #[test]
    fn an_image_of_another_site_stays_that_sites() {
        assert_eq!(trust(&job(Some(brought())), 2), Trust::Foreign);
        assert_eq!(trust(&job(Some(brought())), 3), Trust::OwnSite, "what was saved here");
        let own = Brought { here: "rennes".parse().unwrap(), ..brought() };
        assert_eq!(trust(&job(Some(own)), 2), Trust::OwnSite);
        assert_eq!(trust(&job(None), 2), Trust::OwnSite);
    }

    /// A core of CRIU's (`core-1.img`) with who signed in, as the bytes of that field.
    fn core(login: &[u8]) -> Vec<u8> {
        let size = u8::try_from(login.len()).unwrap();
        let entry = [&[0x08, 0x01, 0x1a, size][..], login].concat();
        let head = [0x5456_4319_u32.to_le_bytes(), 0x5505_3847_u32.to_le_bytes()].concat();
        let length = u32::try_from(entry.len()).unwrap().to_le_bytes();
        [head, length.to_vec(), entry].concat()
    }

    /// If it failed, a program from another site would keep whoever that site says had signed in
    /// for it, as soon as the image is sent as if it were made the person's here already.
    #[test]
    fn what_names_the_person_here_already_is_looked_at_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let b = brought();
        let account = Account { uid: 2_000_007, gid: 2_000_001, groups: Vec::new() };
        let told = |name: &str, bytes: &[u8], b: &Brought| {
            let folder = dir.path().join(name);
            std::fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
            let mut how = std::fs::OpenOptions::new();
            how.write(true).create_new(true).mode(0o600);
            let path = folder.join("core-1.img");
            how.open(&path).unwrap().write_all(bytes).unwrap();
            let (pid, owner, criu) = (b.carried.pid, account.uid, "4.2.1".to_owned());
            seal(&folder, Origin { pid, owner, epoch: 1, criu, open_files: Vec::new() }).unwrap();
            own(&folder, b, &account).map(|()| std::fs::read(path).unwrap())
        };
        // User 1000.
        let signed_in = core(&[0x68, 0xe8, 0x07]);
        let nobody = core(&[0x68, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(told("foreign", &signed_in, &b).unwrap(), nobody);
        // User 0 with the rights of root.
        let root = [signed_in.clone(), vec![0x06, 0, 0, 0, 0x2a, 0x04, 0x52, 0x02, 0x08, 0x00]];
        assert!(matches!(told("root", &root.concat(), &b), Err(ImageError::Bound { .. })));
        let near = Brought { here: "rennes".parse().unwrap(), ..b };
        assert_eq!(told("near", &signed_in, &near).unwrap(), signed_in, "it is this site's own");
    }
}
