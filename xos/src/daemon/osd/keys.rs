//! Keys of volumes, each for the VO whose home listed it. What a home says of an id tells nothing
//! of another VO's volume with that id, so that no home can shadow or open what is not its own.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use xtreemfs_proto::dir::Volume;
use xtreemfs_server::{PublicKey, VoName, VolumeId};

/// Most volumes of one VO that are remembered.
const VOLUMES_PER_VO_MAX: usize = 1024;

/// The keys that this node has heard of.
#[derive(Default)]
pub struct Keys(Mutex<HashMap<VoName, HashMap<VolumeId, PublicKey>>>);

impl Keys {
    /// Takes over what the home of `vo` listed for it. The home speaks for its own VO only,
    /// whatever else it lists; of an id that it listed before, its newer word counts.
    pub fn learn(&self, vo: &VoName, listed: Vec<Volume>) {
        let listed: HashMap<VolumeId, PublicKey> = listed
            .into_iter()
            .filter(|v| v.vo == vo.as_str())
            .filter_map(|v| {
                let key = PublicKey(v.mrc_key.as_ref().try_into().ok()?);
                Some((VolumeId::parse(&v.id)?, key))
            })
            .take(VOLUMES_PER_VO_MAX)
            .collect();
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = keys.entry(vo.clone()).or_default();
        if known.len() + listed.len() > VOLUMES_PER_VO_MAX {
            known.clear();
        }
        known.extend(listed);
    }

    /// The key of a volume of `vo`.
    pub fn find(&self, vo: &VoName, volume: &VolumeId) -> Option<PublicKey> {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(vo)?.get(volume).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vo(name: &str) -> VoName {
        VoName::parse(name).unwrap()
    }

    fn volume(vo: &str, id: &str, key: u8) -> Volume {
        let mrc_key = vec![key; 32].into();
        Volume { id: id.into(), vo: vo.into(), mrc_key, ..Volume::default() }
    }

    /// If it failed, a site that homes a VO of its own could claim another VO's volume: whoever is
    /// asked first after a restart would have it, and the other's members lose it.
    #[test]
    fn a_claim_on_another_vos_volume_does_not_shadow_the_true_one() {
        let (true_vo, hostile) = (vo("demo.rennes"), vo("evil.pisa"));
        let id = VolumeId::parse("0f").unwrap();
        let of_true = vec![volume("demo.rennes", "0f", 1)];
        let of_hostile = vec![volume("evil.pisa", "0f", 2), volume("demo.rennes", "0f", 2)];
        for hostile_first in [true, false] {
            let keys = Keys::default();
            if hostile_first {
                keys.learn(&hostile, of_hostile.clone());
                assert_eq!(keys.find(&true_vo, &id), None, "it spoke for another VO");
            }
            keys.learn(&true_vo, of_true.clone());
            keys.learn(&hostile, of_hostile.clone());
            assert_eq!(keys.find(&true_vo, &id), Some(PublicKey([1; 32])), "{hostile_first}");
            assert_eq!(keys.find(&hostile, &id), Some(PublicKey([2; 32])), "{hostile_first}");
        }
    }

    /// If it failed, a home could fill the memory of other sites' nodes; or a home that lists
    /// little for a moment, as after its start, would lose its volumes.
    #[test]
    fn what_a_home_listed_stays_within_a_bound() {
        let (keys, vo) = (Keys::default(), vo("evil.pisa"));
        keys.learn(&vo, vec![volume("evil.pisa", "first", 1)]);
        keys.learn(&vo, Vec::new());
        assert!(keys.find(&vo, &VolumeId::parse("first").unwrap()).is_some());
        for round in 0..3 {
            let ids = (0..2 * VOLUMES_PER_VO_MAX).map(|n| format!("{round}-{n}"));
            keys.learn(&vo, ids.map(|id| volume("evil.pisa", &id, 1)).collect());
            let held = keys.0.lock().unwrap()[&vo].len();
            assert_eq!(held, VOLUMES_PER_VO_MAX);
        }
        keys.learn(&vo, vec![volume("evil.pisa", "last", 1)]);
        assert!(keys.find(&vo, &VolumeId::parse("last").unwrap()).is_some());
    }
}
