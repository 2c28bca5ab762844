//! Who runs what in a VO on this site's nodes, and who has sessions there.

use crate::core::{Core, lock};
use crate::state::host::Placement;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use xos_api::aem::{ListRunning, RUNNING_MAX, Running, RunningPage, RunningSession};
use xos_api::node::sessions::{ListSessions, OpenSessions, SESSIONS_MAX};
use xos_api::policy::Action;
use xos_base::{Error, NodeId, PersonId, VoId};
use xos_net::Caller;

/// How long nodes may take to tell of their sessions; all are asked at once.
const SESSIONS_WAIT: Duration = Duration::from_secs(3);
/// Most sessions in one answer.
const ALL_SESSIONS_MAX: usize = 10_000;
/// Longest name of a service that is passed on, in characters: a node may say anything.
const SERVICE_CHARS_MAX: usize = 64;

impl Core {
    pub(crate) async fn list_running(
        self: Arc<Self>,
        caller: Caller,
        r: ListRunning,
    ) -> Result<RunningPage, Error> {
        let only = self.whose_work(&caller, &r)?;
        let read = self
            .ledger
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
            .await;
        let mut page = read?;
        if r.after.is_none() {
            let (sessions, unheard) = self.open_sessions(&r.vo, only.as_ref()).await;
            (page.sessions, page.unheard) = (sessions, unheard);
        }
        Ok(page)
    }

    /// The sessions of a VO's members, or one of them, on all connected nodes, and the nodes that
    /// did not tell all.
    async fn open_sessions(
        &self,
        vo: &VoId,
        only: Option<&PersonId>,
    ) -> (Vec<RunningSession>, Vec<NodeId>) {
        let nodes: Vec<NodeId> = lock(&self.host).nodes.keys().cloned().collect();
        let ask = |node: NodeId| async move {
            let asked = self.world.sessions(&node, ListSessions { vo: vo.clone() });
            let told = tokio::time::timeout(SESSIONS_WAIT, asked).await;
            (node, told.ok().and_then(Result::ok))
        };
        let (mut sessions, mut unheard) = (Vec::new(), Vec::new());
        for (node, told) in join_all(nodes.into_iter().map(ask)).await {
            let OpenSessions { sessions: open, more } = match told {
                Some(told) => told,
                None => OpenSessions { sessions: Vec::new(), more: true },
            };
            let before = sessions.len();
            let wanted = open.into_iter().filter(|s| only.is_none_or(|p| s.person == *p));
            let room = SESSIONS_MAX.min(ALL_SESSIONS_MAX.saturating_sub(before));
            let mut all = wanted.map(|s| RunningSession {
                person: s.person,
                node: node.clone(),
                service: s.service.chars().take(SERVICE_CHARS_MAX).collect(),
                since: s.since,
            });
            sessions.extend(all.by_ref().take(room));
            let cut = more || all.next().is_some();
            drop(all);
            if cut {
                unheard.push(node);
            }
        }
        (sessions, unheard)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{core, n1};
    use xos_api::node::sessions::OpenSession;
    use xos_base::Millis;

    /// If it failed, one node that hangs would keep the whole page from its reader, or it would not
    /// be seen that something is missing; or a member would see others' sessions.
    #[tokio::test]
    async fn nodes_that_do_not_answer_are_named() {
        let (core, world, _dir) = core(|_| {}).await;
        tokio::time::pause();
        let vo: VoId = "demo.rennes".parse().unwrap();
        assert_eq!(core.open_sessions(&vo, None).await, (vec![], vec![n1()]));
        let open = |who: &str| OpenSession {
            person: who.parse().unwrap(),
            service: "sshd".repeat(100),
            since: Millis(5),
        };
        lock(&world.open).insert(n1(), vec![open("alice@rennes"), open("bob@rennes")]);
        let (all, unheard) = core.open_sessions(&vo, None).await;
        assert_eq!((all.len(), unheard.len()), (2, 0));
        assert_eq!(all[0].service.len(), SERVICE_CHARS_MAX);
        let bob: PersonId = "bob@rennes".parse().unwrap();
        let (own, unheard) = core.open_sessions(&vo, Some(&bob)).await;
        assert_eq!((own.len(), &own[0].person, unheard.len()), (1, &bob, 0));
    }
}
