//! Coming into a VO.

use super::Vom;
use crate::decide::Command;
use crate::policy::Action;
use std::collections::HashMap;
use std::sync::PoisonError;
use xos_api::Done;
use xos_api::vom::{
    ApplicationPage, Apply, Approve, ListApplications, MemberInfo, Reject, WithdrawApplication,
};
use xos_base::{Error, Millis, PersonId, VoId};
use xos_net::Caller;

/// Most applications of one person in an hour, and withdrawals of them: each one stays in a log for
/// good.
pub const APPLICATIONS_PER_HOUR: u32 = 20;
/// The same of all people of one other site, which can invent as many as it likes.
pub const APPLICATIONS_PER_SITE_AND_HOUR: u32 = 100;
/// Most changes of one person in one VO in an hour: who administers a VO could fill its log.
pub const CHANGES_PER_HOUR: u32 = 10_000;
/// As how many changes a part of a change of rules counts: it takes as much of a log, which every
/// serving site keeps.
pub const RULES_PART_CHANGES: u32 = 100;
/// Most offers that one other site's core brings in an hour.
pub const OFFERS_PER_HOUR: u32 = 60;
/// Most persons and sites counted in one hour; beyond it nobody new can apply until it is over.
const COUNTED_MAX: usize = 100_000;

/// Counts what people and sites add to logs, by who it is and hour.
#[derive(Default)]
pub(crate) struct Limiter {
    hour: u64,
    counts: HashMap<String, u32>,
}

impl Limiter {
    /// As [`Limiter::count_many`] of one, but who finds no room to be counted is not.
    pub(super) fn count_if_room(&mut self, whom: &[(&str, u32)], now: Millis) -> Result<(), Error> {
        self.turn(now);
        let room = |who: &str| self.counts.len() < COUNTED_MAX || self.counts.contains_key(who);
        let whom: Vec<_> = whom.iter().filter(|(who, _)| room(who)).copied().collect();
        self.count(&whom, now)
    }

    fn turn(&mut self, now: Millis) {
        let hour = now.secs() / 3600;
        if hour != self.hour {
            self.hour = hour;
            self.counts.clear();
        }
    }

    /// Counts one for each of `whom`, who may have so many; none when it is too much for one.
    pub(super) fn count(&mut self, whom: &[(&str, u32)], now: Millis) -> Result<(), Error> {
        self.count_many(whom, 1, now)
    }

    /// The same for something that counts as `many`.
    pub(super) fn count_many(
        &mut self,
        whom: &[(&str, u32)],
        many: u32,
        now: Millis,
    ) -> Result<(), Error> {
        self.turn(now);
        for (who, max) in whom {
            let full = self.counts.len() >= COUNTED_MAX && !self.counts.contains_key(*who);
            let count = if full { u32::MAX } else { self.counts.get(*who).copied().unwrap_or(0) };
            if count.saturating_add(many) > *max {
                let text = format!("too much comes from {who}: {max} an hour are taken");
                return Err(Error::limited(text).hint("try again in an hour"));
            }
        }
        for (who, _) in whom {
            let count = self.counts.entry((*who).to_owned()).or_default();
            *count = count.saturating_add(many);
        }
        Ok(())
    }
}

impl Vom {
    pub(super) async fn apply(&self, caller: Caller, r: Apply) -> Result<Done, Error> {
        self.limit_applicant(&caller, &r.vo).await?;
        let words = self.words(&caller, &r.vo, r.agreed, r.answers).await?;
        let message = r.message;
        let apply = |words| Command::Apply { message, words };
        let done = self.change_saying(&caller, &r.vo, words, apply).await?;
        if let Some(person) = self.inner.subject(&caller, &r.vo)?.person() {
            self.admit_expected(&r.vo, person).await;
        }
        Ok(done)
    }

    /// Counts an application, or its withdrawal: of the person, and of a person's other site unless
    /// the VO expects the person, whom the site did not invent then.
    async fn limit_applicant(&self, caller: &Caller, vo: &VoId) -> Result<(), Error> {
        let subject = self.inner.subject(caller, vo)?;
        self.home(vo)?;
        let Some(person) = subject.person() else { return Ok(()) };
        // Not the key of the site's core: people must not use up what it may bring.
        let people = format!("people of {}", person.site());
        let mut whom = vec![(person.as_str(), APPLICATIONS_PER_HOUR)];
        if person.site() != self.inner.site
            && self.inner.registry.expected(vo, person).await?.is_none()
        {
            whom.push((people.as_str(), APPLICATIONS_PER_SITE_AND_HOUR));
        }
        self.limit(&whom)
    }

    /// Counts something that people or sites add to a log.
    pub(super) fn limit(&self, whom: &[(&str, u32)]) -> Result<(), Error> {
        let mut limiter = self.inner.outsiders.lock().unwrap_or_else(PoisonError::into_inner);
        limiter.count(whom, self.inner.clock.now())
    }

    /// Counts a change that a person makes in a VO, by how much of the log it takes. Nobody is kept
    /// from taking something away by how many others make changes.
    pub(super) fn limit_change(
        &self,
        person: &PersonId,
        vo: &VoId,
        command: &Command,
        only_takes: bool,
    ) -> Result<(), Error> {
        let rules = matches!(command, Command::ChangeRules { .. });
        let many = if rules { RULES_PART_CHANGES } else { 1 };
        let (who, now) = (format!("{person} in {vo}"), self.inner.clock.now());
        let whom = [(who.as_str(), CHANGES_PER_HOUR)];
        let mut limiter = self.inner.outsiders.lock().unwrap_or_else(PoisonError::into_inner);
        if only_takes {
            limiter.count_if_room(&whom, now)
        } else {
            limiter.count_many(&whom, many, now)
        }
    }

    pub(super) async fn withdraw_application(
        &self,
        caller: Caller,
        r: WithdrawApplication,
    ) -> Result<Done, Error> {
        self.limit_applicant(&caller, &r.vo).await?;
        match self.inner.subject(&caller, &r.vo)?.person().cloned() {
            Some(person) => {
                let command = Command::WithdrawApplication;
                self.change_and_forget(&caller, &r.vo, &person, command).await
            }
            None => Err(Error::denied(format!("{} has not applied", caller.describe()))),
        }
    }

    pub(super) async fn list_applications(
        &self,
        caller: Caller,
        r: ListApplications,
    ) -> Result<ApplicationPage, Error> {
        let live = self.home(&r.vo)?;
        self.authorise(&live, &caller, Action::SeeApplications)?;
        let now = self.inner.clock.now();
        Ok(live.read().application_page(r.after.as_ref(), r.limit, now))
    }

    pub(super) async fn approve(&self, caller: Caller, r: Approve) -> Result<MemberInfo, Error> {
        let person = r.person.clone();
        let command = Command::Approve {
            person: r.person,
            groups: r.groups,
            roles: r.roles,
            expires: r.expires,
        };
        self.change(&caller, &r.vo, command).await?;
        self.expected_came(&r.vo, &person).await;
        self.member_now(&r.vo, &person)
    }

    pub(super) async fn reject(&self, caller: Caller, r: Reject) -> Result<Done, Error> {
        let person = r.person.clone();
        let command = Command::Reject { person: r.person, reason: r.reason };
        let done = self.change_and_forget(&caller, &r.vo, &person, command).await?;
        // Whoever is turned down must not come in by an earlier note.
        self.drop_expected(&r.vo, std::slice::from_ref(&person)).await?;
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applying_without_end_is_stopped_and_only_for_that_person() {
        // Else one person fills every log of the site.
        let mut l = Limiter::default();
        for _ in 0..3 {
            l.count(&[("alice@rennes", 3)], Millis(5)).unwrap();
        }
        assert!(l.count(&[("alice@rennes", 3)], Millis(6)).is_err());
        l.count(&[("bob@rennes", 3)], Millis(6)).unwrap();
        l.count(&[("alice@rennes", 3)], Millis::from_secs(3600)).unwrap();
    }

    /// If it failed, whoever has many names could keep administrators from removing them.
    #[test]
    fn a_full_limiter_keeps_nobody_from_taking() {
        let mut l = Limiter::default();
        let now = Millis(5);
        for n in 0..COUNTED_MAX {
            l.count(&[(&n.to_string(), 3)], now).unwrap();
        }
        assert!(l.count(&[("alice in demo.rennes", 3)], now).is_err());
        for _ in 0..9 {
            l.count_if_room(&[("alice in demo.rennes", 3)], now).unwrap();
        }
        for _ in 0..2 {
            l.count_if_room(&[("7", 3)], now).unwrap();
        }
        assert!(l.count_if_room(&[("7", 3)], now).is_err(), "one's own limit still counts");
        assert_eq!(l.counts.len(), COUNTED_MAX);
    }

    #[test]
    fn what_takes_more_of_a_log_counts_more() {
        // Else whoever administers a VO fills the registries of all sites that serve it.
        let mut l = Limiter::default();
        let mut change = |many| l.count_many(&[("alice in demo", 250)], many, Millis(5)).is_ok();
        assert!(change(100) && change(100) && !change(100));
        assert!(change(50) && !change(1), "what was refused counts for nothing");
    }

    #[test]
    fn people_that_a_site_invents_count_as_that_site() {
        // Else a hostile site fills the log of any VO, which is frozen then.
        let mut l = Limiter::default();
        let mut ask = |person: &str, site| l.count(&[(person, 3), (site, 5)], Millis(5));
        let taken = (0..50).filter(|i| ask(&format!("p{i}@pisa"), "pisa").is_ok()).count();
        assert_eq!(taken, 5);
        for _ in 0..9 {
            ask("alice@lyon", "lyon").ok();
        }
        ask("bob@lyon", "lyon").expect("what one was refused counts for nobody else");
    }
}
