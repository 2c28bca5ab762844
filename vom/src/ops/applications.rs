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
use xos_base::{Error, Millis, PersonId};
use xos_net::Caller;

/// Most applications of one person in an hour: each one stays in a log for good.
pub const APPLICATIONS_PER_HOUR: u32 = 20;
/// Most persons counted in one hour; beyond it nobody new can apply until it is over.
const COUNTED_MAX: usize = 100_000;

/// Counts applications by person and hour.
#[derive(Default)]
pub(crate) struct Limiter {
    hour: u64,
    counts: HashMap<PersonId, u32>,
}

impl Limiter {
    /// Counts one.
    fn count(&mut self, person: &PersonId, now: Millis) -> Result<(), Error> {
        let hour = now.secs() / 3600;
        if hour != self.hour {
            self.hour = hour;
            self.counts.clear();
        }
        let full = self.counts.len() >= COUNTED_MAX && !self.counts.contains_key(person);
        let count = if full { u32::MAX } else { self.counts.get(person).copied().unwrap_or(0) };
        if count >= APPLICATIONS_PER_HOUR {
            return Err(Error::limited("too many applications").hint("try again in an hour"));
        }
        self.counts.insert(person.clone(), count + 1);
        Ok(())
    }
}

impl Vom {
    pub(super) async fn apply(&self, caller: Caller, r: Apply) -> Result<Done, Error> {
        let subject = self.inner.subject(&caller, &r.vo)?;
        self.home(&r.vo)?;
        if let Some(person) = subject.person() {
            let mut limiter =
                self.inner.applications.lock().unwrap_or_else(PoisonError::into_inner);
            limiter.count(person, self.inner.clock.now())?;
        }
        self.change(&caller, &r.vo, Command::Apply { message: r.message }).await
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
        let alice: PersonId = "alice@rennes".parse().unwrap();
        for _ in 0..APPLICATIONS_PER_HOUR {
            l.count(&alice, Millis(5)).unwrap();
        }
        assert!(l.count(&alice, Millis(6)).is_err());
        l.count(&"bob@rennes".parse().unwrap(), Millis(6)).unwrap();
        l.count(&alice, Millis::from_secs(3600)).unwrap();
    }
}
