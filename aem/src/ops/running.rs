//! Who runs what in a VO on this site's nodes.

use crate::core::Core;
use crate::state::host::Placement;
use std::collections::BTreeMap;
use std::sync::Arc;
use xos_api::aem::{ListRunning, RUNNING_MAX, Running, RunningPage};
use xos_api::policy::Action;
use xos_base::{Error, NodeId, PersonId};
use xos_net::Caller;

impl Core {
    pub(crate) async fn list_running(
        self: Arc<Self>,
        caller: Caller,
        r: ListRunning,
    ) -> Result<RunningPage, Error> {
        let only = self.whose_work(&caller, &r)?;
        self.ledger
            .read_stored(|s| {
                let wanted = |p: &&Placement| {
                    p.vo == r.vo
                        && only.as_ref().is_none_or(|person| p.member.person == *person)
                        && r.after.as_ref().is_none_or(|after| p.job > *after)
                };
                let mut page = RunningPage::default();
                for placement in s.hosted.active().filter(wanted) {
                    if page.running.len() >= RUNNING_MAX {
                        page.next = page.running.last().map(|last| last.job.clone());
                        break;
                    }
                    page.running.extend(lines(placement));
                }
                page
            })
            .await
    }

    /// Whose work the caller may see: all, or one person's.
    fn whose_work(&self, caller: &Caller, r: &ListRunning) -> Result<Option<PersonId>, Error> {
        if caller.site_admin() {
            return Ok(None);
        }
        let member = caller.member()?;
        if member.vo != r.vo {
            return Err(Error::denied(format!("you signed in to {}", member.vo))
                .hint(format!("sign in to it: `xos login --vo {}`", r.vo)));
        }
        match self.judge(member, Action::See) {
            Ok(()) => Ok(None),
            Err(_own_only) => Ok(Some(member.person.clone())),
        }
    }
}

/// The units of one job here, a line for each node.
fn lines(p: &Placement) -> Vec<Running> {
    let mut nodes: BTreeMap<&NodeId, (u32, u64, u64)> = BTreeMap::new();
    for envelope in p.envelopes.values().filter(|e| !e.open.is_empty()) {
        let (units, cpu, memory) = nodes.entry(&envelope.node).or_default();
        let busy = u64::from(envelope.busy());
        *units = units.saturating_add(envelope.open.len() as u32);
        *cpu = cpu.saturating_add(busy.saturating_mul(envelope.cpu_milli.into()));
        *memory = memory.saturating_add(busy.saturating_mul(envelope.memory_bytes));
    }
    let line = |node: Option<NodeId>, units, cpu_milli, memory_bytes| Running {
        person: p.member.person.clone(),
        job: p.job.clone(),
        node,
        units,
        cpu_milli,
        memory_bytes,
        since: p.since,
    };
    let at_nodes =
        nodes.into_iter().map(|(node, (n, cpu, mem))| line(Some(node.clone()), n, cpu, mem));
    let waiting = p.waiting.len() as u32;
    at_nodes.chain((waiting > 0).then(|| line(None, waiting, 0, 0))).collect()
}
