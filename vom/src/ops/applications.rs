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
use xos_base::{Error, Millis};
use xos_net::Caller;

/// Most applications of one person in an hour: each one stays in a log for good.
pub const APPLICATIONS_PER_HOUR: u32 = 20;
/// Most offers that one other site's core brings in an hour.
pub const OFFERS_PER_HOUR: u32 = 60;
/// Most persons and sites counted in one hour; beyond it nobody new can apply until it is over.
const COUNTED_MAX: usize = 100_000;

/// Counts what outsiders add to logs, by who it is and hour.
#[derive(Default)]
pub(crate) struct Limiter {
    hour: u64,
    counts: HashMap<String, u32>,
}

impl Limiter {
    /// Counts one of at most `max`.
    pub(super) fn count(&mut self, who: &str, max: u32, now: Millis) -> Result<(), Error> {
        let hour = now.secs() / 3600;
        if hour != self.hour {
            self.hour = hour;
            self.counts.clear();
        }
        let full = self.counts.len() >= COUNTED_MAX && !self.counts.contains_key(who);
        let count = if full { u32::MAX } else { self.counts.get(who).copied().unwrap_or(0) };
        if count >= max {
            return Err(Error::limited(format!("{who} asks too often; {max} an hour are taken"))
                .hint("try again in an hour"));
        }
        self.counts.insert(who.to_owned(), count + 1);
        Ok(())
    }
}

impl Vom {
    pub(super) async fn apply(&self, caller: Caller, r: Apply) -> Result<Done, Error> {
        let subject = self.inner.subject(&caller, &r.vo)?;
        self.home(&r.vo)?;
        if let Some(person) = subject.person() {
            self.limit(person.as_str(), APPLICATIONS_PER_HOUR)?;
        }
        self.change(&caller, &r.vo, Command::Apply { message: r.message }).await
    }

    /// Counts something that an outsider adds to a log.
    pub(super) fn limit(&self, who: &str, max: u32) -> Result<(), Error> {
        let mut limiter = self.inner.outsiders.lock().unwrap_or_else(PoisonError::into_inner);
        limiter.count(who, max, self.inner.clock.now())
    }

    pub(super) async fn withdraw_application(
        &self,
        caller: Caller,
        r: WithdrawApplication,
    ) -> Result<Done, Error> {
        self.change(&caller, &r.vo, Command::WithdrawApplication).await
    }

    pub(super) async fn list_applications(
        &self,
        caller: Caller,
        r: ListApplications,
    ) -> Result<ApplicationPage, Error> {
        let live = self.home(&r.vo)?;
        self.authorise(&live, &caller, Action::SeeApplications)?;
        Ok(live.read().application_page(r.after.as_ref(), r.limit))
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
        self.member_now(&r.vo, &person)
    }

    pub(super) async fn reject(&self, caller: Caller, r: Reject) -> Result<Done, Error> {
        self.change(&caller, &r.vo, Command::Reject { person: r.person, reason: r.reason }).await
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
            l.count("alice@rennes", 3, Millis(5)).unwrap();
        }
        assert!(l.count("alice@rennes", 3, Millis(6)).is_err());
        l.count("bob@rennes", 3, Millis(6)).unwrap();
        l.count("alice@rennes", 3, Millis::from_secs(3600)).unwrap();
    }
}
