//! Whom rules do not let sign in to a node.
//!
//! Members are many, those whom rules tell apart are few: each kind is judged once for all nodes,
//! and the members are gone through in parts, so that a change of the VO waits for one at most.

use super::court::{ClassKey, Court, Finding, Judge, KNOWN_MAX};
use super::engine::Asked;
use crate::Inner;
use crate::live::Live;
use crate::state::{Member, Vo};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use xos_api::policy::{Action, Place};
use xos_base::{NodeId, PersonId, SiteId, VoId};

/// How many members are copied at a time while the VO is locked.
const COPIED_MAX: usize = 5_000;
/// Most VOs and nodes whose findings are remembered, and most comparisons. When there are more,
/// all are forgotten.
const REMEMBERED_MAX: usize = 1_000;

/// What the rules of one court say to sign-ins at one place, by class of members.
pub(crate) struct Findings {
    court: Court,
    place: Place,
    found: Mutex<HashMap<ClassKey, Finding>>,
}

impl Findings {
    /// For one node; where no rule means it, for all of the site.
    pub(crate) fn new(court: &Court, site: &SiteId, node: &NodeId) -> Findings {
        let place = Place { site: site.clone(), node: Some(node.clone()) };
        let place = Place { node: court.node(&place), ..place };
        Findings { court: court.clone(), place, found: Mutex::default() }
    }

    fn finding(&self, judge: &Judge, asked: &Asked) -> Finding {
        let class = self.court.class(asked);
        if let Some(finding) = self.lock().get(&class) {
            return finding.clone();
        }
        let finding = judge.decide(&self.court, asked);
        let mut found = self.lock();
        if found.len() >= KNOWN_MAX {
            found.clear();
        }
        found.insert(class, finding.clone());
        finding
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ClassKey, Finding>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many classes were judged.
    #[cfg(test)]
    pub(crate) fn judged(&self) -> usize {
        self.lock().len()
    }

    /// Judges every member, so that nobody is judged while the VO is locked.
    pub(crate) fn prepare(&self, judge: &Judge, live: &Live) {
        if !self.court.login_is_free() {
            self.each(live, &self.place, |asked| {
                self.finding(judge, &asked);
            });
        }
    }

    /// The members of whom a node must be told another thing than by the rules `before`.
    pub(crate) fn differing(&self, judge: &Judge, live: &Live, before: &Findings) -> Differ {
        let (mut who, number) = (Vec::new(), live.read().number);
        let place = if self.place.node.is_some() { &self.place } else { &before.place };
        self.each(live, place, |asked| {
            let of = |findings: &Findings| {
                Some(findings.finding(judge, &asked)).filter(|finding| !finding.allowed)
            };
            if of(before) != of(self) {
                who.extend(asked.person);
            }
        });
        Differ { who, number }
    }

    /// Who changes meanwhile is told of as changed.
    fn each(&self, live: &Live, place: &Place, mut f: impl FnMut(Asked)) {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut last: Option<PersonId> = None;
        loop {
            let part: Vec<Asked> = {
                let vo = live.read();
                let from = last.as_ref().map_or(Unbounded, Excluded);
                let members = vo.members.range::<PersonId, _>((from, Unbounded));
                let asked = |(p, m): (&PersonId, &Member)| vo.asked(p, m, Action::Login, place);
                members.take(COPIED_MAX).map(asked).collect()
            };
            let Some(end) = part.last() else { return };
            last.clone_from(&end.person);
            part.into_iter().for_each(&mut f);
        }
    }
}

/// The members of whom nodes must be told anew since rules changed.
pub(crate) struct Differ {
    /// Them.
    pub(crate) who: Vec<PersonId>,
    /// The number of the VO when that was found out.
    pub(crate) number: u64,
}

impl Differ {
    /// A change of rules that concerns nobody.
    pub(crate) fn nobody() -> Arc<Differ> {
        Arc::new(Differ { who: Vec::new(), number: u64::MAX })
    }
}

/// The rules of sign-ins to one node, as its accounts are told.
pub(crate) struct Logins<'a> {
    judge: &'a Judge,
    now: Arc<Findings>,
    differ: Arc<Differ>,
}

impl<'a> Logins<'a> {
    /// `differ`: those of whom the node must be told anew since rules changed.
    pub(crate) fn new(judge: &'a Judge, now: Arc<Findings>, differ: Arc<Differ>) -> Logins<'a> {
        Logins { judge, now, differ }
    }

    /// The refusal that a member reads.
    pub(crate) fn refusal(&self, vo: &Vo, person: &PersonId, member: &Member) -> Option<String> {
        if self.now.court.login_is_free() {
            return None;
        }
        let asked = vo.asked(person, member, Action::Login, &self.now.place);
        let finding = self.now.finding(self.judge, &asked);
        Some(finding.denial(&asked, &self.now.place.site)?.text)
    }

    /// Those of whom the node must be told anew since rules changed.
    pub(crate) fn differ(&self) -> &[PersonId] {
        &self.differ.who
    }
}

/// A VO, the versions of both sides' rules, and the node where rules mean it.
type At = (VoId, (u64, u64), Option<NodeId>);

/// What was found, for all nodes.
pub(crate) struct Shared {
    findings: Mutex<HashMap<(VoId, Option<NodeId>), Arc<Findings>>>,
    /// By the rules now and before; none yet: it is being found out.
    differ: Mutex<HashMap<(At, At), Option<Arc<Differ>>>>,
    ready: watch::Sender<u64>,
}

impl Default for Shared {
    fn default() -> Shared {
        let ready = watch::Sender::new(0);
        Shared { findings: Mutex::default(), differ: Mutex::default(), ready }
    }
}

impl Shared {
    /// Tells when it is found whom a change of rules concerns.
    pub(crate) fn ready(&self) -> watch::Receiver<u64> {
        self.ready.subscribe()
    }

    /// The findings of a court at a node: shared when none of newer rules are known.
    pub(crate) fn findings(
        &self,
        vo: &VoId,
        court: &Court,
        (site, node): (&SiteId, &NodeId),
    ) -> Arc<Findings> {
        let new = Arc::new(Findings::new(court, site, node));
        let at = (vo.clone(), new.place.node.clone());
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        match findings.get(&at) {
            Some(known) if known.court == *court => return known.clone(),
            Some(known) if known.court.versions() > court.versions() => return new,
            Some(_) => {}
            None if findings.len() >= REMEMBERED_MAX => findings.clear(),
            None => {}
        }
        findings.insert(at, new.clone());
        new
    }
}

/// Of whom a node must be told since rules are no more those of `before`; `None`: that is being
/// found out, and [`Shared::ready`] tells when it is.
pub(crate) fn differing(
    inner: &Arc<Inner>,
    live: &Arc<Live>,
    (before, now): (&Court, &Court),
    node: &NodeId,
) -> Option<Arc<Differ>> {
    let free = |court: &Court| court.login_is_free();
    if before == now || (free(before) && free(now)) {
        return Some(Differ::nobody());
    }
    let shared = &inner.rules.logins;
    let findings = |court: &Court| shared.findings(live.id(), court, (&inner.site, node));
    let at = |court: &Court, findings: &Findings| {
        (live.id().clone(), court.versions(), findings.place.node.clone())
    };
    let (old, new) = (findings(before), findings(now));
    let key = (at(now, &new), at(before, &old));
    {
        let mut differ = shared.differ.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = differ.get(&key) {
            return found.clone();
        }
        let (vo, versions) = (live.id(), now.versions());
        let full = differ.len() >= REMEMBERED_MAX;
        differ.retain(|((of, now, _), _), found| {
            found.is_none() || (!full && (of != vo || *now == versions))
        });
        differ.insert(key.clone(), None);
    }
    let (task, live) = (inner.clone(), live.clone());
    inner.spawn(async move {
        let of = task.clone();
        let find = move || new.differing(&of.rules.judge, &live, &old);
        let found = tokio::task::spawn_blocking(find).await;
        let shared = &task.rules.logins;
        let mut differ = shared.differ.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(found) => {
                differ.insert(key, Some(Arc::new(found)));
                drop(differ);
                shared.ready.send_modify(|n| *n = n.wrapping_add(1));
            }
            Err(error) => {
                tracing::error!(%error, "whom new rules keep out was not found out: tried again");
                differ.remove(&key);
            }
        }
    });
    None
}
