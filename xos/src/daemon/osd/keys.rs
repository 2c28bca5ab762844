//! Keys of volumes, each for the VO whose home listed it. What a home says of an id tells nothing
//! of another VO's volume with that id, so that no home can shadow or open what is not its own.
//!
//! They are kept in a file, so that a node that starts anew serves at once, its VOs' homes heard or
//! not.

use crate::daemon::durable;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use xos_base::Error;
use xtreemfs_proto::dir::Volume;
use xtreemfs_server::{PublicKey, VoName, VolumeId};

/// Most volumes of one VO that are remembered.
const VOLUMES_PER_VO_MAX: usize = 1024;

/// By VO and volume.
type Known = HashMap<VoName, HashMap<VolumeId, PublicKey>>;

/// The keys that this node has heard of.
#[derive(Default)]
pub struct Keys {
    known: Mutex<Known>,
    /// None: they are not kept.
    path: Option<PathBuf>,
    /// What the file holds.
    kept: Mutex<Vec<u8>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keys {
    /// Those in the file `path`, in which they are kept from now on. Without it, or when it is
    /// damaged, the homes are asked again.
    pub fn open(path: PathBuf) -> Keys {
        let known = read(&path).unwrap_or_else(|e| {
            tracing::warn!(path = %path.display(), error = %e, "keys of volumes cannot be read");
            Known::default()
        });
        Keys { known: Mutex::new(known), path: Some(path), kept: Mutex::default() }
    }

    /// Takes over what the home of `vo` listed for it; whether it listed anything. The home speaks
    /// for its own VO only, whatever else it lists; of an id that it listed before, its newer word
    /// counts.
    pub fn learn(&self, vo: &VoName, listed: Vec<Volume>) -> bool {
        let listed: HashMap<VolumeId, PublicKey> = listed
            .into_iter()
            .filter(|v| v.vo == vo.as_str())
            .filter_map(|v| {
                let key = PublicKey(v.mrc_key.as_ref().try_into().ok()?);
                Some((VolumeId::parse(&v.id)?, key))
            })
            .take(VOLUMES_PER_VO_MAX)
            .collect();
        let any = !listed.is_empty();
        let mut keys = lock(&self.known);
        let known = keys.entry(vo.clone()).or_default();
        if known.len() + listed.len() > VOLUMES_PER_VO_MAX {
            known.clear();
        }
        known.extend(listed);
        any
    }

    /// The key of a volume of `vo`.
    pub fn find(&self, vo: &VoName, volume: &VolumeId) -> Option<PublicKey> {
        lock(&self.known).get(vo)?.get(volume).copied()
    }

    /// Writes those of `vos` to the file, if it does not hold just them.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] naming the file.
    pub fn keep(&self, vos: &HashSet<VoName>) -> Result<(), Error> {
        let Some(path) = &self.path else { return Ok(()) };
        // Held over the writing: the newest must be written last.
        let mut kept = lock(&self.kept);
        let text = {
            let known = lock(&self.known);
            let mut of_vos: BTreeMap<&str, BTreeMap<&str, [u8; 32]>> = BTreeMap::new();
            for (vo, volumes) in known.iter().filter(|(vo, _)| vos.contains(*vo)) {
                let volumes = volumes.iter().map(|(id, key)| (id.as_str(), key.0));
                of_vos.insert(vo.as_str(), volumes.collect());
            }
            serde_json::to_vec(&of_vos)
                .map_err(|e| Error::internal(format!("cannot write {}: {e}", path.display())))?
        };
        if *kept != text {
            durable::replace(path, &text)?;
            *kept = text;
        }
        Ok(())
    }
}

/// The keys in a file; none if it is missing.
fn read(path: &Path) -> std::io::Result<Known> {
    let text = match std::fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Known::default()),
        read => read?,
    };
    let of_vos: BTreeMap<String, BTreeMap<String, [u8; 32]>> = serde_json::from_slice(&text)?;
    let mut known = Known::new();
    for (vo, volumes) in of_vos {
        let Some(vo) = VoName::parse(&vo) else { continue };
        let volumes = volumes.into_iter();
        let parsed = volumes.filter_map(|(id, key)| Some((VolumeId::parse(&id)?, PublicKey(key))));
        known.insert(vo, parsed.collect());
    }
    Ok(known)
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
            let held = keys.known.lock().unwrap()[&vo].len();
            assert_eq!(held, VOLUMES_PER_VO_MAX);
        }
        keys.learn(&vo, vec![volume("evil.pisa", "last", 1)]);
        assert!(keys.find(&vo, &VolumeId::parse("last").unwrap()).is_some());
    }

    /// If it failed, a node that starts anew while a home is away could not serve that home's VOs;
    /// a file that was cut short would keep it from starting; or the keys of VOs that are no longer
    /// served here would pile up.
    #[test]
    fn keys_outlive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let (demo, gone) = (vo("demo.rennes"), vo("gone.pisa"));
        let id = VolumeId::parse("0f").unwrap();
        let keys = Keys::open(path.clone());
        assert!(keys.learn(&demo, vec![volume("demo.rennes", "0f", 1)]));
        assert!(keys.learn(&gone, vec![volume("gone.pisa", "0f", 2)]));
        assert!(!keys.learn(&demo, vec![volume("gone.pisa", "0e", 3)]), "nothing of its own");
        keys.keep(&[demo.clone()].into()).unwrap();
        let again = Keys::open(path.clone());
        assert_eq!(again.find(&demo, &id), Some(PublicKey([1; 32])));
        assert_eq!(again.find(&gone, &id), None);
        std::fs::write(&path, "{").unwrap();
        let anew = Keys::open(path);
        assert_eq!(anew.find(&demo, &id), None);
        anew.learn(&demo, vec![volume("demo.rennes", "0f", 4)]);
        anew.keep(&[demo.clone()].into()).unwrap();
        assert_eq!(anew.find(&demo, &id), Some(PublicKey([4; 32])));
    }
}
