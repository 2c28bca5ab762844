//! Checkpoints of units that run in clusters.

use super::{Grant, Want};
use crate::core::Core;
use crate::host::REASON_MAX;
use crate::owner::cut;
use crate::state::host::Stage;
use crate::state::runs;
use crate::state::unit::Phase;
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xos_api::aem::{
    CHECKPOINTS_MAX, CheckpointUnits, Checkpoints, HostCheckpoints, ListCheckpoints, UNITS_MAX,
};
use xos_api::node::units::EnvelopeId;
use xos_base::{Error, NodeId, SiteId};
use xos_net::Caller;

impl Core {
    pub(crate) async fn checkpoint_units(
        self: Arc<Self>,
        caller: Caller,
        r: CheckpointUnits,
    ) -> Result<Checkpoints, Error> {
        let event = self.of_job(&caller, "checkpoint_units", &r.job);
        let units: Option<BTreeSet<u32>> = r.units.map(|units| units.iter().collect());
        let saved = match self.authorise(&caller, &r.job, Want::Cancel) {
            Ok(grant) => self.checkpoints(&grant, units.as_ref(), true).await,
            Err(e) => Err(e),
        };
        self.teller.end(event, saved).await
    }

    pub(crate) async fn list_checkpoints(
        self: Arc<Self>,
        caller: Caller,
        r: ListCheckpoints,
    ) -> Result<Checkpoints, Error> {
        let grant = self.authorise(&caller, &r.job, Want::See)?;
        self.checkpoints(&grant, None, false).await
    }

    /// Asks all sites where units of the job run, at once.
    async fn checkpoints(
        self: &Arc<Self>,
        grant: &Grant,
        units: Option<&BTreeSet<u32>>,
        save: bool,
    ) -> Result<Checkpoints, Error> {
        let (sites, cut_off) = self
            .with_job(grant, |table, job| {
                let mut sites: BTreeMap<SiteId, Vec<u32>> = BTreeMap::new();
                let (mut count, mut cut_off) = (0, false);
                for (unit, u) in (0_u32..).zip(&job.units) {
                    let Phase::Running { at, .. } = &u.phase else { continue };
                    if units.is_some_and(|wanted| !wanted.contains(&unit)) {
                        continue;
                    }
                    let spec = job.task_spec(job.task_of(unit));
                    let Some(site) = table.site_name(at.site) else { continue };
                    if spec.is_none_or(|task| !task.checkpointable) {
                        continue;
                    }
                    if count >= CHECKPOINTS_MAX {
                        cut_off = true;
                        break;
                    }
                    count += 1;
                    sites.entry(site.clone()).or_default().push(unit);
                }
                (sites, cut_off)
            })
            .await?;
        if save && sites.is_empty() {
            let text = format!("no unit of job {} that can be checkpointed runs", grant.job);
            return Err(Error::conflict(text)
                .hint("submit it with --checkpointable; `xos job show` tells where units are"));
        }
        let ask = |(site, units): (SiteId, Vec<u32>)| {
            let (job, units) = (grant.job.clone(), runs::pack(units));
            let request = HostCheckpoints { job, units, save };
            async move {
                let told = if site == self.site {
                    self.checkpoints_here(request).await
                } else {
                    self.world.host_checkpoints(&site, request).await
                };
                (site, told)
            }
        };
        let mut all = Checkpoints { more: cut_off, ..Checkpoints::default() };
        for (site, told) in join_all(sites.into_iter().map(ask)).await {
            match told {
                Ok(told) => {
                    all.units.extend(told.units.into_iter().take(CHECKPOINTS_MAX));
                    all.more |= told.more;
                }
                Err(e) => all.trouble.push(cut(&format!("{site}: {e}"), REASON_MAX)),
            }
        }
        for unit in &mut all.units {
            unit.trouble = cut(&unit.trouble, REASON_MAX);
        }
        all.units.sort_by_key(|unit| unit.unit);
        all.more |= all.units.len() > CHECKPOINTS_MAX;
        all.units.truncate(CHECKPOINTS_MAX);
        Ok(all)
    }

    pub(crate) async fn host_checkpoints(
        self: Arc<Self>,
        caller: Caller,
        r: HostCheckpoints,
    ) -> Result<Checkpoints, Error> {
        let owner = caller.core()?;
        if *owner != r.job.site {
            return Err(Error::denied(format!("job {} is not owned by {owner}", r.job)));
        }
        let few = |n: &u32| *n as usize <= CHECKPOINTS_MAX && r.units.len() <= runs::RUNS_MAX;
        if runs::total(&r.units, UNITS_MAX).filter(few).is_none() {
            return Err(Error::invalid("the units are malformed, or too many for one request"));
        }
        self.checkpoints_here(r).await
    }

    /// Of units here; of those that do not run in a cluster nothing is told.
    pub(crate) async fn checkpoints_here(
        self: &Arc<Self>,
        r: HostCheckpoints,
    ) -> Result<Checkpoints, Error> {
        let found = self
            .ledger
            .read_stored(|s| {
                let mut at: BTreeMap<(NodeId, u32), BTreeSet<u32>> = BTreeMap::new();
                let Some(p) = s.hosted.placement(&r.job) else { return at };
                for unit in runs::unpack(&r.units) {
                    if let Some(Stage::Running { serial, .. }) = p.units.get(&unit).map(|h| h.stage)
                        && let Some(e) = p.envelopes.get(&serial)
                    {
                        at.entry((e.node.clone(), serial)).or_default().insert(unit);
                    }
                }
                at
            })
            .await?;
        let mut all = Checkpoints::default();
        for ((node, serial), units) in found {
            let Some(clusters) = self.cluster(&node) else { continue };
            let envelope = EnvelopeId { job: r.job.clone(), serial };
            let told = clusters.checkpoints(&node, &envelope, &units, r.save).await?;
            all.units.extend(told);
        }
        Ok(all)
    }
}
