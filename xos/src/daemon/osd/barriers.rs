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

    /// Takes over what the home of `vos` told, for these alone; none falls. They count at once, and
    /// are in the file on return. Whether any was new.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] naming the file.
    pub fn learn(&self, vos: &[VoId], told: Vec<Barrier>) -> Result<bool, Error> {
        let of_home: HashSet<&str> = vos.iter().map(VoId::as_str).collect();
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let text = {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
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
            serde_json::to_vec(&*known)
                .map_err(|e| Error::internal(format!("cannot write barriers: {e}")))?
        };
        if let Some(path) = &self.path {
            durable::replace(path, &text)?;
        }
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
}
