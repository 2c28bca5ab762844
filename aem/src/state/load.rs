//! What an owner's units have waiting at each site.

use std::collections::HashMap;
use xos_api::aem::Resources;

/// What waits at one site for a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Units.
    pub units: u32,
    /// Processors that they ask for, thousandths.
    pub cpu_milli: u64,
    /// Memory that they ask for, bytes.
    pub memory_bytes: u64,
}

/// The same for all sites.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loads(HashMap<u16, Load>);

impl Loads {
    /// What waits at a site.
    pub fn at(&self, site: u16) -> Load {
        self.0.get(&site).copied().unwrap_or_default()
    }

    /// A unit that waited at `from` now waits at `to`.
    pub(super) fn moved(&mut self, from: Option<u16>, to: Option<u16>, r: &Resources) {
        if from == to {
            return;
        }
        if let Some(site) = from
            && let Some(l) = self.0.get_mut(&site)
        {
            l.units = l.units.saturating_sub(1);
            l.cpu_milli = l.cpu_milli.saturating_sub(r.cpu_milli.into());
            l.memory_bytes = l.memory_bytes.saturating_sub(r.memory_bytes);
            if l.units == 0 {
                self.0.remove(&site);
            }
        }
        if let Some(site) = to {
            let l = self.0.entry(site).or_default();
            l.units += 1;
            l.cpu_milli = l.cpu_milli.saturating_add(r.cpu_milli.into());
            l.memory_bytes = l.memory_bytes.saturating_add(r.memory_bytes);
        }
    }
}
