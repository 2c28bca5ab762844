//! What ends when, and what was.

use super::Vom;
use crate::decide::Command;
use crate::live::Live;
use crate::policy::Action;
use crate::state::days;
use std::collections::BTreeSet;
use xos_api::Done;
use xos_api::vom::{
    Change, EXTEND_MAX, ExpiringPage, ExtendMemberships, Extended, HISTORY_PAGE_MAX, HistoryEntry,
    HistoryPage, ListExpiring, MemberHistory, REMINDER_DAYS_MAX, Reminder, Reminders, SetReminders,
};
use xos_base::{Error, PersonId};
use xos_net::Caller;

/// Most reminders of one person in one answer.
const REMINDED_MAX: usize = 1000;

impl Vom {
    pub(super) async fn set_reminders(
        &self,
        caller: Caller,
        r: SetReminders,
    ) -> Result<Done, Error> {
        let command = Command::SetReminders { days: r.days, base: r.base };
        self.change(&caller, &r.vo, command).await
    }

    pub(super) async fn list_expiring(
        &self,
        caller: Caller,
        r: ListExpiring,
    ) -> Result<ExpiringPage, Error> {
        let live = self.home(&r.vo)?;
        self.authorise(&live, &caller, Action::SeeRecords)?;
        let vo = live.read();
        let most = vo.enrolling.reminders().first().copied().unwrap_or_default();
        let within = days(r.days.unwrap_or(most).min(REMINDER_DAYS_MAX));
        let until = self.inner.clock.now().plus(within);
        Ok(vo.expiring_page(r.after.as_ref(), r.limit, until))
    }

    pub(super) async fn extend_memberships(
        &self,
        caller: Caller,
        r: ExtendMemberships,
    ) -> Result<Vec<Extended>, Error> {
        if r.persons.len() > EXTEND_MAX {
            return Err(Error::too_large(format!("at most {EXTEND_MAX} memberships at once"))
                .hint("name fewer, and ask again for the others"));
        }
        let live = self.home(&r.vo)?;
        if let Err(e) = self.authorise(&live, &caller, Action::ManageMember) {
            return self.refuse(&caller, "set_expiry", &r.vo, e).await;
        }
        let mut all = Vec::new();
        for person in r.persons.into_iter().collect::<BTreeSet<PersonId>>() {
            let command = Command::SetExpiry { person: person.clone(), expires: r.expires };
            let trouble = self.change(&caller, &r.vo, command).await.err();
            all.push(Extended { person, trouble });
        }
        Ok(all)
    }

    pub(super) async fn reminders(
        &self,
        caller: Caller,
        r: Reminders,
    ) -> Result<Vec<Reminder>, Error> {
        self.may_see_memberships(&caller, &r.person)?;
        let now = self.inner.clock.now();
        let all = self.inner.vos.after(None, usize::MAX);
        let told = all.iter().flat_map(|live| live.read().reminders(&r.person, now));
        Ok(told.take(REMINDED_MAX).collect())
    }

    pub(super) async fn member_history(
        &self,
        caller: Caller,
        r: MemberHistory,
    ) -> Result<HistoryPage, Error> {
        let live = self.home(&r.vo)?;
        let own = self.may_see_records(&live, &caller, &r.person)?;
        let size = r.limit.unwrap_or(HISTORY_PAGE_MAX).clamp(1, HISTORY_PAGE_MAX) as usize;
        let after = r.after.unwrap_or(0);
        let (found, more) = self.inner.registry.about(&r.vo, &r.person, after, size).await?;
        let shown = |change| if own { without_reason(change) } else { change };
        let entries: Vec<HistoryEntry> = found
            .into_iter()
            .map(|e| HistoryEntry {
                number: e.number,
                time: e.time,
                actor: e.actor,
                change: shown(e.change),
            })
            .collect();
        let next = entries.last().filter(|_| more).map(|e| e.number);
        Ok(HistoryPage { entries, next })
    }

    /// Whether the caller may see what is noted of `person` in a VO: the person themselves, who
    /// came as themselves or with a credential in this VO, and has applied, is a member or was
    /// one; and the VO's administrators. Whether it is only as the person.
    pub(super) fn may_see_records(
        &self,
        live: &Live,
        caller: &Caller,
        person: &PersonId,
    ) -> Result<bool, Error> {
        let subject = self.inner.subject(caller, live.id())?;
        let refused = match self.authorise(live, caller, Action::SeeRecords) {
            Ok(_) => return Ok(false),
            Err(e) => e,
        };
        let vo = live.read();
        let noted = vo.members.contains_key(person)
            || vo.applications.contains_key(person)
            || vo.epochs.contains_key(person);
        let own = subject.person() == Some(person) && !subject.carries_nothing();
        if own && noted { Ok(true) } else { Err(refused) }
    }
}

/// A change as the person sees it: why an application was turned down is for administrators.
fn without_reason(change: Change) -> Change {
    match change {
        Change::ApplicationRejected { person, .. } => {
            Change::ApplicationRejected { person, reason: String::new() }
        }
        other => other,
    }
}
