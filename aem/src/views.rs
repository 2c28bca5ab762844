//! What the VO service last said of each VO.

use crate::core::lock;
use crate::world::World;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use xos_api::vom::VoSnapshot;
use xos_base::{Error, Kind, Millis, VoId};

/// How old a view may be before an operation asks anew.
const FRESH: Duration = Duration::from_secs(1);
/// Most VOs remembered.
const VIEWS_MAX: usize = 10_000;

/// A memory of VO views.
#[derive(Default)]
pub(crate) struct Views {
    map: Mutex<HashMap<VoId, (Arc<VoSnapshot>, Millis)>>,
}

impl Views {
    /// The VO as it is now.
    pub(crate) async fn view(
        &self,
        world: &dyn World,
        vo: &VoId,
        now: Millis,
    ) -> Result<Arc<VoSnapshot>, Error> {
        if let Some((view, at)) = lock(&self.map).get(vo)
            && now.since(*at) < FRESH
        {
            return Ok(view.clone());
        }
        self.anew(world, vo, now).await
    }

    /// The same, asked for also when it was a moment ago: for what would be final.
    pub(crate) async fn anew(
        &self,
        world: &dyn World,
        vo: &VoId,
        now: Millis,
    ) -> Result<Arc<VoSnapshot>, Error> {
        match world.view(vo).await {
            Ok(view) => {
                let view = Arc::new(view);
                let mut map = lock(&self.map);
                if map.len() >= VIEWS_MAX && !map.contains_key(vo) {
                    map.clear();
                }
                map.insert(vo.clone(), (view.clone(), now));
                Ok(view)
            }
            Err(e) => {
                if matches!(e.kind, Kind::NotFound | Kind::Denied) {
                    lock(&self.map).remove(vo);
                }
                Err(e)
            }
        }
    }

    /// What was last said, however old.
    pub(crate) fn known(&self, vo: &VoId) -> Option<Arc<VoSnapshot>> {
        lock(&self.map).get(vo).map(|(v, _)| v.clone())
    }

    /// The VOs that were asked for.
    pub(crate) fn vos(&self) -> Vec<VoId> {
        lock(&self.map).keys().cloned().collect()
    }
}
