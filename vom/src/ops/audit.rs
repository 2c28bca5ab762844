//! The site's audit: nodes report, administrators and people look, sites witness.

use super::Vom;
use super::searches::Searches;
use crate::audit::heads::Recorded;
use crate::audit::{Scope, Verdict, cost, exchange, reread};
use crate::policy::Action;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use xos_api::Done;
use xos_api::audit::{
    AuditCheck, AuditFault, AuditHead, AuditHeads, AuditPage, HEAD_STATEMENT_MAX, HeadsOf, Outcome,
    REPORT_EVENTS_MAX, RecordHead, ReportEvents, SearchAudit, TEXT_MAX, VerifyAudit,
};
use xos_base::{Error, Millis, VoId};
use xos_net::audit::asked;
use xos_net::sign::Kind;
use xos_net::{Audit, Caller, Principal};

/// For how long somebody who looks for the same again is noted once.
pub const LOOK_NOTED_EVERY: Duration = Duration::from_secs(600);
/// Most looks that are remembered; beyond it each one is noted.
const LOOKS_MAX: usize = 10_000;
/// Most heads that one site brings in an hour: it has one every ten seconds.
const HEADS_PER_HOUR: u32 = 1000;
/// Longest name of a node's count, in bytes.
const SERIES_MAX: usize = 64;

/// Who looks, and what of that was noted lately: a page that is loaded again and again does not
/// fill the audit.
#[derive(Default)]
pub(crate) struct Looks {
    noted: Mutex<HashMap<String, Millis>>,
    searches: Searches,
}

impl Looks {
    /// Whether it is to be noted.
    pub(super) fn fresh(&self, what: &str, now: Millis) -> bool {
        let mut looks = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.get(what).is_some_and(|t| now.since(*t) < LOOK_NOTED_EVERY && *t <= now) {
            return false;
        }
        if looks.len() >= LOOKS_MAX {
            looks.retain(|_, t| now.since(*t) < LOOK_NOTED_EVERY);
        }
        if looks.len() < LOOKS_MAX {
            looks.insert(what.to_owned(), now);
        }
        true
    }

    /// Forgets one that could not be noted.
    pub(super) fn forget(&self, what: &str) {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).remove(what);
    }
}

impl Vom {
    /// A node's own word on what happened there. It is stored as that node's, whatever it says.
    pub(super) async fn report_events(
        &self,
        caller: Caller,
        r: ReportEvents,
    ) -> Result<Done, Error> {
        let inner = &self.inner;
        let node = caller.node()?;
        if node.site() != inner.site {
            let text = format!("node {node} does not belong to site {}", inner.site);
            return Err(Error::denied(text));
        }
        if r.events.len() > REPORT_EVENTS_MAX {
            return Err(Error::too_large(format!("over {REPORT_EVENTS_MAX} events in one report")));
        }
        let plain = r.series.bytes().all(|b| b.is_ascii_graphic());
        if r.series.is_empty() || r.series.len() > SERIES_MAX || !plain || r.first == 0 {
            return Err(Error::invalid("a report names its count and its place there")
                .hint("numbers begin with 1"));
        }
        if r.first.checked_add(REPORT_EVENTS_MAX as u64).is_none() {
            return Err(Error::invalid("the report's numbers are too high"));
        }
        if r.events.is_empty() {
            return Ok(Done {});
        }
        let now = inner.clock.now();
        let verdict = {
            let mut budget = inner.budget.lock().unwrap_or_else(PoisonError::into_inner);
            budget.take(node, &r.events, now)
        };
        if verdict == Verdict::OverAndTold {
            tracing::warn!(%node, "a node reports more than its part of the audit");
            let mut event = asked(&caller, now, "reports_limited");
            event.node = Some(node.clone());
            event.outcome = Outcome::Refused;
            event.why = "it reports more events than one node may; it is taken again later".into();
            let _unheard = inner.log.record(event);
        }
        if verdict != Verdict::Taken {
            return Err(Error::limited(format!("too many events come from node {node}"))
                .hint("report again in a minute"));
        }
        let cost = cost(&r.events);
        let stored = inner.log.report(node.clone(), r.series, r.first, r.events).await;
        if stored.is_err() {
            let mut budget = inner.budget.lock().unwrap_or_else(PoisonError::into_inner);
            budget.give_back(node, cost);
        }
        stored.map(|()| Done {})
    }

    pub(super) async fn search_audit(
        &self,
        caller: Caller,
        r: SearchAudit,
    ) -> Result<AuditPage, Error> {
        for text in [&r.who, &r.what, &r.text].into_iter().flatten() {
            if text.chars().count() > TEXT_MAX {
                return Err(Error::too_large(format!("a text is over {TEXT_MAX} characters")));
            }
        }
        let inner = &self.inner;
        inner.looks.searches.count(&caller, &inner.site, inner.clock.now())?;
        let scope = self.audit_scope(&caller, r.vo.as_ref());
        if !matches!(scope, Ok(Scope::Own(..))) {
            self.note_look(&caller, &r, &scope).await?;
        }
        let scope = scope?;
        let _turn = inner.looks.searches.turn(caller.describe(), caller.site_admin()).await?;
        let log = inner.log.clone();
        let found = tokio::task::spawn_blocking(move || log.search(&scope, &r)).await;
        found.map_err(|e| Error::internal(format!("the search failed: {e}")))?
    }

    /// What the caller may see: all, because they administer the site whose audit it is; the lines
    /// of a VO, because they administer it; else those that concern them.
    fn audit_scope(&self, caller: &Caller, vo: Option<&VoId>) -> Result<Scope, Error> {
        if caller.site_admin() {
            return Ok(Scope::All);
        }
        let known = vo.and_then(|vo| self.known(vo).ok());
        if let Some(live) = known
            && self.authorise(&live, caller, Action::SeeAudit).is_ok()
        {
            return Ok(Scope::Vo(live.id().clone()));
        }
        match caller.principal() {
            Principal::Person(person) => Ok(Scope::Own(person.clone(), None)),
            // A VO's home says who its members are: that opens no line of another VO.
            Principal::Member(m) => Ok(Scope::Own(m.person.clone(), Some(m.vo.clone()))),
            Principal::Core(_) | Principal::Node(_) => {
                let text = format!("{} may not look at the audit", caller.describe());
                Err(Error::denied(text).hint("administrators and persons may"))
            }
        }
    }

    /// Whoever looks at what concerns others is seen themselves.
    async fn note_look(
        &self,
        caller: &Caller,
        r: &SearchAudit,
        scope: &Result<Scope, Error>,
    ) -> Result<(), Error> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let mut event = asked(caller, now, "search_audit");
        let own = event.person.is_some() && event.person == r.person;
        if own {
            return Ok(());
        }
        event.on = conditions(r);
        event.vo.clone_from(&r.vo);
        if r.person.is_some() {
            event.person.clone_from(&r.person);
        }
        if let Err(e) = scope {
            event.outcome = Outcome::Refused;
            event.why.clone_from(&e.message);
        }
        let look = match scope {
            Ok(_) => format!("{} {:?} {:?} {}", event.who, event.vo, event.person, event.on),
            Err(_) => format!("{} refused", event.who),
        };
        if !inner.looks.fresh(&look, now) {
            return Ok(());
        }
        let noted = inner.log.record(event.cut()).await;
        if noted.is_err() {
            inner.looks.forget(&look);
        }
        noted
    }

    pub(super) async fn verify_audit(
        &self,
        caller: Caller,
        r: VerifyAudit,
    ) -> Result<AuditCheck, Error> {
        self.site_admin(&caller)?;
        let inner = &self.inner;
        let failed = |e| Error::internal(format!("verifying failed: {e}"));
        let first = r.from.as_ref().map_or(1, |place| place.number);
        let (log, from) = (inner.log.clone(), r.from.clone());
        let beyond = tokio::task::spawn_blocking(move || log.beyond(from.as_ref()));
        let beyond = beyond.await.map_err(failed)??;
        // Asked before the files are read: what was witnessed is on the disk then.
        let seen = exchange::seen(inner, first, beyond).await;
        let (log, witnesses) = (inner.log.clone(), seen.witnesses);
        let task = tokio::task::spawn_blocking(move || log.check(r.from.as_ref(), witnesses));
        let mut check = task.await.map_err(failed)??;
        (check.silent, check.unverified) = (seen.silent, seen.unverified);
        if let Some(fault) = check.faults.first() {
            self.note_fault(&caller, fault);
        }
        Ok(check)
    }

    fn note_fault(&self, caller: &Caller, fault: &AuditFault) {
        let now = self.inner.clock.now();
        let why = format!("{}, line {}: {}", fault.file, fault.number, fault.detail);
        tracing::error!(fault = %why, "the audit was tampered with");
        if !self.inner.looks.fresh(&why, now) {
            return;
        }
        let mut event = asked(caller, now, "verify_audit");
        event.outcome = Outcome::Failed;
        event.why = why;
        let _unheard = self.inner.log.record(event.cut());
    }

    /// A core says how far its own site's audit is; nobody else can.
    pub(super) async fn record_head(&self, caller: Caller, r: RecordHead) -> Result<Done, Error> {
        let inner = &self.inner;
        let site = caller.core()?;
        if r.statement.len() > HEAD_STATEMENT_MAX {
            return Err(Error::too_large(format!("a head is over {HEAD_STATEMENT_MAX} bytes")));
        }
        self.limit(&[(&format!("the audit of {site}"), HEADS_PER_HOUR)])?;
        let head: AuditHead = inner.trust.verify(Kind::AuditHead, &r.statement, site)?;
        let hash = head.hash.len() == 64 && head.hash.bytes().all(|b| b.is_ascii_hexdigit());
        if head.site != *site || head.number == 0 || !hash {
            return Err(Error::invalid(format!("that is no head of the audit of {site}")));
        }
        let now = inner.clock.now();
        match inner.heads.record(site, (&head, &r.statement), now).await? {
            Recorded::Taken => Ok(Done {}),
            Recorded::Contradicts(held) => {
                let number = reread(&held).map_or(0, |h| h.number);
                let why = format!(
                    "the audit of site {site} is not the one that was witnessed here up to line \
                     {number}"
                );
                self.note_rewritten(&caller, &why, [&held, &r.statement]);
                Err(Error::conflict(why).hint("`xos audit verify` at that site says what differs"))
            }
        }
    }

    /// A site that has written its history anew: loud, with both of its own signatures as proof.
    fn note_rewritten(&self, caller: &Caller, why: &str, [held, came]: [&String; 2]) {
        let now = self.inner.clock.now();
        if !self.inner.looks.fresh(why, now) {
            return;
        }
        tracing::error!(%why, %held, %came, "a site has written its audit anew");
        let mut event = asked(caller, now, "audit_rewritten");
        event.outcome = Outcome::Refused;
        event.why = format!("{why}: {held} and {came}");
        let _unheard = self.inner.log.record(event.cut());
    }

    /// A site hears what is held of its own audit; its administrators, and those of this site, hear
    /// it from their own core.
    pub(super) async fn heads_of(&self, caller: Caller, r: HeadsOf) -> Result<AuditHeads, Error> {
        let inner = &self.inner;
        let itself = matches!(caller.principal(), Principal::Core(site) if *site == r.site);
        if !itself {
            self.site_admin(&caller)?;
        }
        if r.site == inner.site {
            return Ok(exchange::collect(inner, r.after).await);
        }
        let (held, next) = inner.heads.of(&r.site, &inner.site, r.after).await?;
        Ok(AuditHeads { site: r.site, held, silent: Vec::new(), unverified: 0, next })
    }
}

/// What was looked for, in words.
fn conditions(r: &SearchAudit) -> String {
    let mut said = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        said.extend(value.map(|v| format!("{name} {v}")));
    };
    add("who", r.who.clone());
    add("what", r.what.clone());
    add("node", r.node.as_ref().map(ToString::to_string));
    add("text", r.text.clone());
    add("since", r.since.map(|t| t.to_string()));
    add("until", r.until.map(|t| t.to_string()));
    said.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a page that is loaded all the time would fill the audit, or who looks often
    /// would be seen once for ever.
    #[test]
    fn the_same_look_is_noted_once_in_a_while() {
        let looks = Looks::default();
        let at = Millis::from_secs(10_000);
        assert!(looks.fresh("a", at) && !looks.fresh("a", at.plus(Duration::from_secs(599))));
        assert!(looks.fresh("b", at) && looks.fresh("a", at.plus(LOOK_NOTED_EVERY)));
        assert!(looks.fresh("a", at), "a clock set back hides nothing");
        looks.forget("a");
        assert!(looks.fresh("a", at));
        for n in 0..LOOKS_MAX {
            looks.fresh(&n.to_string(), at);
        }
        assert!(looks.fresh("z", at) && looks.fresh("z", at), "what is too many is noted");
    }
}
