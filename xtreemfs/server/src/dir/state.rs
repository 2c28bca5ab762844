//! What the directory knows, without I/O.

use std::collections::{BTreeMap, HashMap};

use xtreemfs_proto::capability::VALID_MS_MAX;
use xtreemfs_proto::dir::{Osd, Volume};
use xtreemfs_proto::layout::OSD_ID_BYTES_MAX;
use xtreemfs_proto::{Errno, RpcError};

use crate::dir::SILENCE_MAX;
use crate::ids::VolumeId;
use crate::osd::CLOCK_SKEW_MS_MAX;

/// Most OSDs listed.
pub const OSDS_MAX: usize = 100_000;
/// Most OSDs of one site: a site that invents nodes must leave room for the others'.
pub const OSDS_PER_SITE_MAX: usize = 5_000;
/// Most volumes listed.
pub const VOLUMES_MAX: usize = 100_000;
/// Longest name or address, in bytes.
const TEXT_BYTES_MAX: usize = 255;
/// Most VOs that an OSD registers for.
pub const OSD_VOS_MAX: usize = 1024;
/// How long an OSD that was heard of may serve by a capability of then, in milliseconds.
const REMEMBERED_MS: u64 = VALID_MS_MAX + CLOCK_SKEW_MS_MAX;
/// Most bytes of OSDs or volumes in one answer: fits into a record's message.
const LIST_BYTES_MAX: usize = 768 << 10;

/// Something registered: by which peer, of which site (for OSDs), and when last.
#[derive(Debug, Clone)]
struct Entry<T> {
    value: T,
    peer: String,
    site: String,
    seen_ms: u64,
}

/// All registrations; volumes by name, OSDs by id.
#[derive(Debug, Default)]
pub(super) struct State {
    volumes: BTreeMap<String, Entry<Volume>>,
    osds: BTreeMap<String, Entry<Osd>>,
    /// By OSD, the VOs that it does not name any more, and when it did last.
    left: HashMap<String, BTreeMap<String, u64>>,
    /// How many OSDs there are of each site.
    of_site: HashMap<String, usize>,
}

impl<T> Entry<T> {
    fn alive(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.seen_ms) <= SILENCE_MAX.as_millis() as u64
    }
}

fn is_remembered(seen_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(seen_ms) <= REMEMBERED_MS
}

fn refused(what: &str) -> RpcError {
    RpcError::errno(Errno::EINVAL, format!("registration refused: {what}"))
}

fn fits(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len())
}

impl State {
    pub(super) fn volume(&self, name: &str, now_ms: u64) -> Result<Volume, RpcError> {
        let entry = self.volumes.get(name).filter(|entry| entry.alive(now_ms));
        let missing = || RpcError::errno(Errno::ENOENT, format!("no volume named {name} is known"));
        entry.map(|entry| entry.value.clone()).ok_or_else(missing)
    }

    pub(super) fn volumes(&self, vo: &str, now_ms: u64) -> Vec<Volume> {
        let wanted = |volume: &Volume| vo.is_empty() || volume.vo == vo;
        list(self.volumes.values(), now_ms, wanted)
    }

    pub(super) fn osds(&self, vo: &str, now_ms: u64) -> Vec<Osd> {
        let wanted = |osd: &Osd| vo.is_empty() || osd.vos.iter().any(|served| served == vo);
        list(self.osds.values(), now_ms, wanted)
    }

    /// Whether an OSD was heard of lately.
    pub(super) fn has_osd(&self, id: &str, now_ms: u64) -> bool {
        self.osds.get(id).is_some_and(|entry| entry.alive(now_ms))
    }

    /// Whether an OSD was heard of within the longest life of a capability.
    pub(super) fn remembers_osd(&self, id: &str, now_ms: u64) -> bool {
        self.osds.get(id).is_some_and(|entry| is_remembered(entry.seen_ms, now_ms))
    }

    /// The OSDs at which a capability of `vo` may count still: those that named it within the
    /// longest life of one, also if they have fallen silent or name it no more.
    pub(super) fn may_serve(&self, vo: &str, now_ms: u64) -> Vec<String> {
        let lately = |entry: &&Entry<Osd>| {
            let left = self.left.get(&entry.value.id).and_then(|left| left.get(vo)).copied();
            let named = entry.value.vos.iter().any(|served| served == vo);
            named.then_some(entry.seen_ms).or(left).is_some_and(|ms| is_remembered(ms, now_ms))
        };
        self.osds.values().filter(lately).map(|entry| entry.value.id.clone()).collect()
    }

    /// Shows each OSD that serves `vo`, and its site.
    pub(super) fn each_osd(&self, vo: &str, now_ms: u64, mut show: impl FnMut(&str, &Osd)) {
        let serves = |osd: &Osd| osd.vos.iter().any(|served| served == vo);
        for entry in self.osds.values().filter(|e| e.alive(now_ms) && serves(&e.value)) {
            show(&entry.site, &entry.value);
        }
    }

    pub(super) fn register_volume(
        &mut self,
        volume: Volume,
        peer: &str,
        now_ms: u64,
    ) -> Result<(), RpcError> {
        if VolumeId::parse(&volume.id).is_none() || volume.mrc_key.len() != 32 {
            return Err(refused("volume id or key is not valid"));
        }
        if ![&volume.name, &volume.vo, &volume.mrc_address].iter().all(|text| fits(text)) {
            return Err(refused("name, VO and address have 1 to 255 bytes"));
        }
        self.volumes.retain(|_, entry| entry.alive(now_ms));
        let clash = |entry: &&Entry<Volume>| {
            let same = entry.value.name == volume.name || entry.value.id == volume.id;
            same && (entry.peer != peer || entry.value.id != volume.id)
        };
        if self.volumes.values().any(|entry| clash(&entry)) {
            let text = format!("volume name {} or its id is taken", volume.name);
            return Err(RpcError::errno(Errno::EEXIST, text));
        }
        self.volumes.retain(|_, entry| entry.value.id != volume.id);
        if self.volumes.len() >= VOLUMES_MAX {
            return Err(RpcError::errno(Errno::ENOSPC, format!("{VOLUMES_MAX} volumes listed")));
        }
        let (peer, site) = (peer.to_owned(), String::new());
        let entry = Entry { peer, site, seen_ms: now_ms, value: volume };
        self.volumes.insert(entry.value.name.clone(), entry);
        Ok(())
    }

    pub(super) fn unregister_volume(&mut self, id: &str, peer: &str) -> Result<(), RpcError> {
        let found = self.volumes.values().find(|entry| entry.value.id == id);
        match found.map(|entry| (entry.peer == peer, entry.value.name.clone())) {
            None => Err(RpcError::errno(Errno::ENOENT, "no such volume is registered")),
            Some((false, _)) => {
                Err(RpcError::errno(Errno::EPERM, "another peer registered this volume"))
            }
            Some((true, name)) => {
                self.volumes.remove(&name);
                Ok(())
            }
        }
    }

    pub(super) fn register_osd(
        &mut self,
        mut osd: Osd,
        (peer, site): (&str, &str),
        now_ms: u64,
    ) -> Result<(), RpcError> {
        if !(1..=OSD_ID_BYTES_MAX).contains(&osd.id.len()) || !fits(&osd.address) {
            return Err(refused("OSD id and address have 1 to 255 bytes"));
        }
        if osd.vos.len() > OSD_VOS_MAX || !osd.vos.iter().all(|vo| fits(vo)) {
            return Err(refused("an OSD names at most 1024 VOs, of 1 to 255 bytes"));
        }
        let held = self.osds.get(&osd.id).filter(|entry| entry.alive(now_ms));
        if held.is_some_and(|entry| entry.peer != peer) {
            let text = format!("OSD id {} is taken by another peer", osd.id);
            return Err(RpcError::errno(Errno::EEXIST, text));
        }
        if !self.osds.contains_key(&osd.id) {
            self.room_for_osd(site, now_ms)?;
        }
        osd.vos.sort();
        osd.vos.dedup();
        osd.seen_ms = now_ms;
        self.leave(&osd, now_ms);
        let (peer, site) = (peer.to_owned(), site.to_owned());
        *self.of_site.entry(site.clone()).or_default() += 1;
        let entry = Entry { peer, site, seen_ms: now_ms, value: osd };
        if let Some(old) = self.osds.insert(entry.value.id.clone(), entry)
            && let Some(count) = self.of_site.get_mut(&old.site)
        {
            *count -= 1;
        }
        Ok(())
    }

    /// Notes which VOs an OSD names no more.
    fn leave(&mut self, osd: &Osd, now_ms: u64) {
        let Some(old) = self.osds.get(&osd.id) else { return };
        let left = self.left.entry(osd.id.clone()).or_default();
        left.extend(old.value.vos.iter().map(|vo| (vo.clone(), old.seen_ms)));
        let gone = |vo: &String| osd.vos.binary_search(vo).is_err();
        left.retain(|vo, seen_ms| gone(vo) && is_remembered(*seen_ms, now_ms));
        if left.is_empty() {
            self.left.remove(&osd.id);
        }
    }

    fn count_of(&self, site: &str) -> usize {
        self.of_site.get(site).copied().unwrap_or(0)
    }

    /// Refuses one more OSD of a site when there are too many, also without those that have been
    /// silent for so long that they serve nobody.
    fn room_for_osd(&mut self, site: &str, now_ms: u64) -> Result<(), RpcError> {
        if self.osds.len() >= OSDS_MAX || self.count_of(site) >= OSDS_PER_SITE_MAX {
            self.osds.retain(|_, entry| is_remembered(entry.seen_ms, now_ms));
            self.left.retain(|osd, _| self.osds.contains_key(osd));
            self.of_site.clear();
            for entry in self.osds.values() {
                *self.of_site.entry(entry.site.clone()).or_default() += 1;
            }
        }
        let full = |text: String| Err(RpcError::errno(Errno::ENOSPC, text));
        if self.count_of(site) >= OSDS_PER_SITE_MAX {
            return full(format!("{OSDS_PER_SITE_MAX} OSDs of site {site} listed"));
        }
        if self.osds.len() >= OSDS_MAX {
            return full(format!("{OSDS_MAX} OSDs listed"));
        }
        Ok(())
    }
}

/// The live entries that are wanted, as many as fit into one answer.
fn list<'a, T: prost::Message + Clone + 'a>(
    entries: impl Iterator<Item = &'a Entry<T>>,
    now_ms: u64,
    wanted: impl Fn(&T) -> bool,
) -> Vec<T> {
    let mut bytes = 0;
    let live = entries.filter(|entry| entry.alive(now_ms) && wanted(&entry.value));
    let fitting = live.take_while(|entry| {
        bytes += entry.value.encoded_len() + 8;
        bytes <= LIST_BYTES_MAX
    });
    fitting.map(|entry| entry.value.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(id: &str, name: &str) -> Volume {
        let (id, name, vo) = (id.into(), name.into(), "demo".into());
        Volume { id, name, vo, mrc_address: "a/b".into(), mrc_key: vec![1; 32].into() }
    }

    fn errno<T: std::fmt::Debug>(result: Result<T, RpcError>) -> Errno {
        result.unwrap_err().errno
    }

    /// A second MRC must not take over a volume's name or id: clients would go there, and OSDs
    /// would believe its capabilities.
    #[test]
    fn names_and_ids_are_not_taken_over() {
        let mut state = State::default();
        state.register_volume(volume("1", "home"), "mrc-a", 0).unwrap();
        state.register_volume(volume("1", "home"), "mrc-a", 1000).unwrap();
        assert_eq!(errno(state.register_volume(volume("1", "other"), "mrc-b", 0)), Errno::EEXIST);
        assert_eq!(errno(state.register_volume(volume("2", "home"), "mrc-b", 0)), Errno::EEXIST);
        assert_eq!(errno(state.register_volume(volume("2", "home"), "mrc-a", 0)), Errno::EEXIST);
        assert_eq!(errno(state.register_volume(volume("../x", "y"), "mrc-a", 0)), Errno::EINVAL);
        assert_eq!(errno(state.unregister_volume("1", "mrc-b")), Errno::EPERM);
        state.register_volume(volume("1", "renamed"), "mrc-a", 0).unwrap();
        assert_eq!(errno(state.volume("home", 0)), Errno::ENOENT);
        assert_eq!(state.volume("renamed", 0).unwrap().id, "1");
        state.unregister_volume("1", "mrc-a").unwrap();
        assert!(state.volumes("", 0).is_empty());
    }

    /// An OSD that fell silent must not be offered for new files, and comes back by itself.
    #[test]
    fn silent_osds_are_not_listed() {
        let mut state = State::default();
        let osd = |id: &str, vos: &[&str]| Osd {
            id: id.into(),
            address: "site/host".into(),
            vos: vos.iter().map(|vo| (*vo).to_owned()).collect(),
            ..Default::default()
        };
        state.register_osd(osd("a", &["demo"]), ("node-a", "s"), 0).unwrap();
        state.register_osd(osd("b", &["other"]), ("node-b", "s"), 50_000).unwrap();
        assert_eq!(state.osds("demo", 60_000).len(), 1);
        assert_eq!(state.osds("", 60_000).len(), 2);
        assert_eq!(state.osds("", 60_001)[0].id, "b");
        assert_eq!(
            errno(state.register_osd(osd("b", &[]), ("node-c", "s"), 60_000)),
            Errno::EEXIST
        );
        state.register_osd(osd("a", &["demo"]), ("node-a", "s"), 70_000).unwrap();
        assert_eq!(state.osds("demo", 70_000)[0].seen_ms, 70_000);
    }

    /// Else a site that invents nodes keeps other sites' OSDs out of the directory; and whoever
    /// chooses among OSDs must see all of them, also those that an answer has no room for.
    #[test]
    fn a_site_has_its_share_of_the_list() {
        let mut state = State::default();
        let osd = |n: usize| Osd {
            id: format!("{n:0200}"),
            address: "a/b".into(),
            vos: vec!["demo".into(); 3],
            ..Default::default()
        };
        for n in 0..OSDS_PER_SITE_MAX {
            state.register_osd(osd(n), ("p", "greedy"), 0).unwrap();
            state.register_osd(osd(n), ("p", "greedy"), 0).unwrap();
        }
        let one_more = osd(OSDS_PER_SITE_MAX);
        let refused = state.register_osd(one_more.clone(), ("p", "greedy"), 0);
        assert_eq!(errno(refused), Errno::ENOSPC);
        state.register_osd(one_more, ("q", "other"), 0).unwrap();
        let mut shown = 0;
        state.each_osd("demo", 0, |_, osd| shown += osd.vos.len());
        assert_eq!(shown, OSDS_PER_SITE_MAX + 1, "each once, for each VO once");
        assert!(state.osds("demo", 0).len() < OSDS_PER_SITE_MAX, "it fits into an answer");
        // Those that fell silent make room once nothing counts at them any more.
        let late = REMEMBERED_MS + 1;
        state.register_osd(osd(OSDS_PER_SITE_MAX + 1), ("p", "greedy"), late).unwrap();
        assert_eq!(state.osds.len(), 1);
    }

    /// If it failed, a folder would be said to be closed while an OSD that fell silent, or that
    /// names the VO no more, serves those who had files of it open.
    #[test]
    fn an_osd_counts_for_as_long_as_a_capability() {
        let mut state = State::default();
        let osd = |id: &str, vos: &[&str]| Osd {
            id: id.into(),
            address: "site/host".into(),
            vos: vos.iter().map(|vo| (*vo).to_owned()).collect(),
            ..Default::default()
        };
        for id in ["left", "silent"] {
            state.register_osd(osd(id, &["demo"]), (id, "s"), 0).unwrap();
        }
        state.register_osd(osd("other", &["other"]), ("other", "s"), 0).unwrap();
        for now_ms in [90_000, 100_000] {
            state.register_osd(osd("left", &["other"]), ("left", "s"), now_ms).unwrap();
        }
        assert!(state.osds("demo", 100_000).is_empty(), "none gets new files");
        assert_eq!(state.may_serve("demo", 100_000), ["left", "silent"]);
        assert_eq!(state.may_serve("demo", REMEMBERED_MS), ["left", "silent"]);
        assert!(state.may_serve("demo", REMEMBERED_MS + 1).is_empty());
        state.register_osd(osd("left", &["demo"]), ("left", "s"), 110_000).unwrap();
        assert!(!state.left["left"].contains_key("demo"), "it names it again");
    }
}
