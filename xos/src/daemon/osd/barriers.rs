//! Barriers of volumes, as their VOs' homes told them: capabilities of before count no more. Kept
//! in a file, so that a restart lets none of them count again.

use crate::daemon::durable;
use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};
use xos_base::{Error, VoId};
use xtreemfs_proto::dir::Barrier;
use xtreemfs_server::{VoName, VolumeId};

/// Most volumes of one VO whose barriers are remembered.
const VOLUMES_PER_VO_MAX: usize = 1024;

/// VOs that their home is asked about at once, and what is known of them.
pub type Asking = (Vec<String>, Vec<Barrier>);

/// By VO and volume.
type Known = BTreeMap<String, BTreeMap<String, u64>>;

/// See the module's text.
#[derive(Default)]
pub struct Barriers {
    known: RwLock<Known>,
    /// None: they are not kept.
    path: Option<PathBuf>,
    /// Held over the writing: the newest must be written last.
    writing: Mutex<()>,
}

impl Barriers {
    /// Those in the file `path`, in which they are kept from now on. Without it, or when it is
    /// damaged, the homes tell them again.
    pub fn open(path: PathBuf) -> Barriers {
        let known = read(&path).unwrap_or_else(|e| {
            tracing::warn!(path = %path.display(), error = %e, "barriers cannot be read");
            Known::default()
        });
        Barriers { known: RwLock::new(known), path: Some(path), writing: Mutex::default() }
    }

    /// The barrier of a volume of `vo`; 0: none was told.
    pub fn find(&self, vo: &VoName, volume: &VolumeId) -> u64 {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(vo.as_str()).and_then(|of| of.get(volume.as_str())).copied().unwrap_or(0)
    }

    /// All that are known of these VOs.
    pub fn of(&self, vos: &[VoId]) -> Vec<Barrier> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let of_vo = |vo: &VoId| {
            let volumes = known.get(vo.as_str()).into_iter().flatten();
            let barrier = |(volume, number): (&String, &u64)| Barrier {
                vo: vo.to_string(),
                volume: volume.clone(),
                number: *number,
            };
            volumes.map(barrier).collect::<Vec<_>>()
        };
        vos.iter().flat_map(of_vo).collect()
    }

    /// These VOs in parts of at most so many VOs and barriers, which one question may hold.
    pub fn parts(&self, vos: &[VoId], size: usize) -> Vec<Asking> {
        let mut parts: Vec<Asking> = Vec::new();
        for vo in vos {
            let known = self.of(std::slice::from_ref(vo));
            match parts.last_mut() {
                Some((vos, all)) if vos.len() < size && all.len() + known.len() <= size => {
                    vos.push(vo.to_string());
                    all.extend(known);
                }
                _ => parts.push((vec![vo.to_string()], known)),
            }
        }
        parts
    }

    /// Takes over what the home of `vos` told, for these alone; none falls. They count once they
    /// are in the file, so that none is confirmed that a restart would forget. Whether any was new.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] naming the file; then nothing counts that did not before.
    pub fn learn(&self, vos: &[VoId], told: Vec<Barrier>) -> Result<bool, Error> {
        let of_home: HashSet<&str> = vos.iter().map(VoId::as_str).collect();
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = self.known.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut any = false;
        for Barrier { vo, volume, number } in told {
            if !of_home.contains(vo.as_str()) || VolumeId::parse(&volume).is_none() {
                continue;
            }
            let of = known.entry(vo).or_default();
            if of.len() < VOLUMES_PER_VO_MAX || of.contains_key(&volume) {
                let held = of.entry(volume).or_default();
                any |= number > *held;
                *held = number.max(*held);
            }
        }
        if !any {
            return Ok(false);
        }
        if let Some(path) = &self.path {
            let text = serde_json::to_vec(&known)
                .map_err(|e| Error::internal(format!("cannot write barriers: {e}")))?;
            durable::replace(path, &text)?;
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(true)
    }
}

fn read(path: &Path) -> std::io::Result<Known> {
    match std::fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Known::default()),
        read => Ok(serde_json::from_slice(&read?)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn barrier(vo: &str, number: u64) -> Barrier {
        Barrier { vo: vo.into(), volume: "0f".into(), number }
    }

    /// If it failed, a restart of an object server would let capabilities count again that a closed
    /// folder had ended, or the home of another VO could shut a VO's members out.
    #[test]
    fn barriers_rise_outlive_a_restart_and_are_the_homes_to_tell() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("barriers.json");
        let demo: VoId = "demo.rennes".parse().unwrap();
        let (name, volume) = (VoName::parse("demo.rennes"), VolumeId::parse("0f"));
        let (name, volume) = (name.unwrap(), volume.unwrap());
        let barriers = Barriers::open(path.clone());
        assert_eq!(barriers.find(&name, &volume), 0);
        let own = std::slice::from_ref(&demo);
        assert!(barriers.learn(own, vec![barrier("demo.rennes", 7)]).unwrap());
        assert!(!barriers.learn(own, vec![barrier("demo.rennes", 6)]).unwrap(), "it never falls");
        let evil: VoId = "evil.pisa".parse().unwrap();
        assert!(!barriers.learn(&[evil], vec![barrier("demo.rennes", 9)]).unwrap());
        for barriers in [barriers, Barriers::open(path.clone())] {
            assert_eq!(barriers.find(&name, &volume), 7);
            assert_eq!(barriers.of(own), [barrier("demo.rennes", 7)]);
        }
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Barriers::open(path).find(&name, &volume), 0, "and it starts");
    }

    /// If it failed, a node would say that a folder is closed for it and open it again by a
    /// restart, since its disk was full.
    #[test]
    fn what_cannot_be_kept_is_not_confirmed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("barriers.json");
        let demo: VoId = "demo.rennes".parse().unwrap();
        let own = std::slice::from_ref(&demo);
        let barriers = Barriers::open(path.clone());
        std::fs::create_dir(&path).unwrap();
        assert!(barriers.learn(own, vec![barrier("demo.rennes", 7)]).is_err());
        assert!(barriers.of(own).is_empty());
        std::fs::remove_dir(&path).unwrap();
        assert!(barriers.learn(own, vec![barrier("demo.rennes", 7)]).unwrap(), "told again");
        assert_eq!(barriers.of(own), [barrier("demo.rennes", 7)]);
    }

    /// If it failed, a node with many VOs of one home would be told of no closed folder at all.
    #[test]
    fn many_vos_are_asked_about_in_parts() {
        let barriers = Barriers::default();
        let vos: Vec<VoId> = (0..5).map(|n| format!("v{n}.rennes").parse().unwrap()).collect();
        let told = |vo: &str, volume: &str| {
            let (vo, volume) = (vo.to_owned(), volume.to_owned());
            Barrier { vo, volume, number: 3 }
        };
        let some = [("v1.rennes", "0a"), ("v1.rennes", "0b"), ("v2.rennes", "0c")];
        barriers.learn(&vos, some.map(|(vo, volume)| told(vo, volume)).to_vec()).unwrap();
        let parts = barriers.parts(&vos, 2);
        let asked: Vec<_> = parts.iter().map(|(vos, known)| (vos.len(), known.len())).collect();
        assert_eq!(asked, [(2, 2), (2, 1), (1, 0)]);
        let all: Vec<_> = parts.into_iter().flat_map(|(vos, _)| vos).collect();
        assert_eq!(all, vos.iter().map(VoId::to_string).collect::<Vec<_>>());
        assert!(barriers.parts(&[], 2).is_empty());
    }
}
