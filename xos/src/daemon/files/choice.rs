//! The OSDs that the MRC chooses among. What a node says of its room is its word; that a site has
//! promised no more than its share is the VO's.

use super::knowledge::Knowledge;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use xos_base::{NodeId, SiteId};
use xtreemfs_proto::dir::Barrier;
use xtreemfs_server::dir::Dir;
use xtreemfs_server::mrc::choose::FREE_BYTES_MIN;
use xtreemfs_server::mrc::record::VolumeRecord;
use xtreemfs_server::mrc::{OsdChoice, OsdStatus};

/// How long a person who closes a folder waits for the object servers: less than a client waits for
/// an answer.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);

/// The OSDs that registered, as far as their sites' shares go.
pub(super) struct KnownOsds {
    pub(super) dir: Arc<Dir>,
    pub(super) knowledge: Arc<Knowledge>,
}

#[async_trait::async_trait]
impl OsdChoice for KnownOsds {
    fn osds(&self, _: &str, vo: &str) -> Vec<OsdStatus> {
        let mut sites: BTreeMap<String, Vec<OsdStatus>> = BTreeMap::new();
        self.dir.each_osd(vo, |site, osd| {
            let status = OsdStatus {
                id: osd.id.clone(),
                site: site.to_owned(),
                free_bytes: osd.free_bytes,
                total_bytes: osd.total_bytes,
            };
            match sites.get_mut(site) {
                Some(osds) => osds.push(status),
                None => drop(sites.insert(site.to_owned(), vec![status])),
            }
        });
        let given = self.knowledge.given(vo);
        let bounded = sites.into_iter().flat_map(|(site, osds)| {
            let site = site.parse::<SiteId>().ok();
            within(osds, site.and_then(|site| given.get(&site).copied()).unwrap_or(0))
        });
        bounded.collect()
    }

    fn settled(&self) -> bool {
        self.dir.is_settled()
    }

    fn site_of(&self, osd: &str) -> String {
        osd.parse::<NodeId>().map(|node| node.site().to_string()).unwrap_or_default()
    }

    fn home_of(&self, vo: &str, member: u32) -> Option<String> {
        self.knowledge.member(vo, member).map(|m| m.person.site().to_string())
    }

    fn stores(&self, vo: &str, site: &str) -> bool {
        site.parse().is_ok_and(|site: SiteId| self.knowledge.given(vo).contains_key(&site))
    }

    fn raised(&self, volume: &VolumeRecord, barrier: u64, by: u32) {
        self.dir.raise_barrier(&barrier_of(volume, barrier), Some(by));
    }

    async fn confirmed(&self, volume: &VolumeRecord, barrier: u64, also: &[String]) -> Vec<String> {
        self.dir.confirmed(&barrier_of(volume, barrier), also, CONFIRMED_WITHIN).await
    }
}

/// A volume's barrier as the directory tells it.
pub(super) fn barrier_of(volume: &VolumeRecord, number: u64) -> Barrier {
    Barrier { vo: volume.vo.clone(), volume: volume.id.clone(), number }
}

/// The OSDs of a site that gives so many bytes: their room, free and in all, is scaled so that it
/// is no more than that together. Of a small share only those with most room are left, so that each
/// has as much as it takes to get new files.
fn within(mut osds: Vec<OsdStatus>, given: u64) -> Vec<OsdStatus> {
    let most = usize::try_from(given / FREE_BYTES_MIN).unwrap_or(usize::MAX).max(1);
    osds.sort_by(|a, b| b.free_bytes.cmp(&a.free_bytes).then_with(|| a.id.cmp(&b.id)));
    osds.truncate(most);
    let given = u128::from(given);
    let free: u128 = osds.iter().map(|osd| u128::from(osd.free_bytes)).sum();
    let total: u128 = osds.iter().map(|osd| u128::from(osd.total_bytes)).sum();
    // No more than `bytes`, so that it fits.
    let part = |bytes: u64, sum: u128| {
        if sum > given { (u128::from(bytes) * given / sum) as u64 } else { bytes }
    };
    for osd in &mut osds {
        osd.free_bytes = part(osd.free_bytes, free);
        osd.total_bytes = part(osd.total_bytes, total);
    }
    osds
}

#[cfg(test)]
mod tests {
    use super::*;
    use xtreemfs_server::mrc::choose::choose;

    const GIB: u64 = 1 << 30;

    fn osds(site: &str, count: usize, free_bytes: u64) -> Vec<OsdStatus> {
        let osd = |n| OsdStatus {
            id: format!("n{n}.{site}"),
            site: site.to_owned(),
            free_bytes,
            total_bytes: u64::MAX,
        };
        (0..count).map(osd).collect()
    }

    /// Else a site that gives little has its nodes say that they have much, and gets all new files
    /// of a VO: to read, to change, and to lose.
    #[test]
    fn a_site_gets_new_files_by_what_it_gives_not_by_what_its_nodes_say() {
        let small = within(osds("pisa", 3, u64::MAX), GIB);
        for bytes in [|osd: &OsdStatus| osd.free_bytes, |osd: &OsdStatus| osd.total_bytes] {
            assert!(small.iter().map(bytes).sum::<u64>() <= GIB);
        }
        let large = within(osds("rennes", 2, 50 * GIB), 2000 * GIB);
        assert!(large.iter().all(|osd| osd.free_bytes == 50 * GIB), "less than it gives");
        let all = [small, large].concat();
        let at_pisa = |seed: &u64| choose(&all, &[], 1, *seed)[0].ends_with(".pisa");
        let count = (0..4000).filter(at_pisa).count();
        assert!((10..100).contains(&count), "{count} of 4000, expected about 40");
    }

    /// Else the share of a site with many nodes is cut into pieces of which none is large enough
    /// for a file; or a site that gives nothing gets files all the same.
    #[test]
    fn a_small_share_of_many_nodes_is_used() {
        let some = within(osds("pisa", 500, 100 * GIB), GIB);
        assert_eq!(some.len() as u64, GIB / FREE_BYTES_MIN);
        assert_eq!(choose(&some, &[], 4, 7).len(), 4);
        assert!(choose(&within(osds("pisa", 5, 100 * GIB), 0), &[], 4, 7).is_empty());
    }
}
