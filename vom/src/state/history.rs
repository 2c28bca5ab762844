//! Whom a change concerns, and what ends when.

use super::{Vo, days, page_size};
use std::ops::Bound;
use xos_api::vom::{Change, Ending, ExpiringMember, ExpiringPage, Reminder};
use xos_base::{Millis, PersonId};

/// Most members that are looked at for one page of some of them.
pub(super) const LOOKED_AT_MAX: usize = 20_000;

/// The persons in whose history a change stands. What concerns a group or the VO as a whole stands
/// in nobody's: it may concern a million.
pub fn about(change: &Change) -> Vec<&PersonId> {
    match change {
        Change::Founded { owner: person, .. }
        | Change::Applied { person, .. }
        | Change::ApplicationWithdrawn { person }
        | Change::ApplicationRejected { person, .. }
        | Change::Admitted { person, .. }
        | Change::MemberSuspended { person, .. }
        | Change::MemberResumed { person }
        | Change::MemberRemoved { person, .. }
        | Change::MemberExpirySet { person, .. }
        | Change::RoleGranted { person, .. }
        | Change::RoleWithdrawn { person, .. }
        | Change::GroupMemberAdded { person, .. }
        | Change::GroupMemberRemoved { person, .. }
        | Change::Agreed { person, .. }
        | Change::Joined { person, .. }
        | Change::GroupManagerAdded { person, .. }
        | Change::GroupManagerRemoved { person, .. }
        | Change::HandoverEnded { by: person } => vec![person],
        Change::HandoverOffered { by, to } | Change::HandoverAccepted { by, to } => vec![by, to],
        _ => Vec::new(),
    }
}

impl Vo {
    /// Members after one whose membership or consent ends by `until`.
    pub fn expiring_page(
        &self,
        after: Option<&PersonId>,
        limit: Option<u32>,
        until: Millis,
    ) -> ExpiringPage {
        let size = page_size(limit);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let soon = |at: &Millis| *at <= until;
        let (mut members, mut next) = (Vec::new(), None);
        for (looked, (person, m)) in self.members.range((from, Bound::Unbounded)).enumerate() {
            if members.len() >= size || looked >= LOOKED_AT_MAX {
                return ExpiringPage { members, next };
            }
            next = Some(person.clone());
            let consent = self.consent(person);
            let due = consent.due.filter(soon);
            let expires = m.expires.filter(soon);
            if due.is_some() || expires.is_some() {
                let lapses = consent.lapses.filter(|_| due.is_some());
                members.push(ExpiringMember { person: person.clone(), expires, due, lapses });
            }
        }
        ExpiringPage { members, next: None }
    }

    /// What a member is to be reminded of.
    pub fn reminders(&self, person: &PersonId, now: Millis) -> Vec<Reminder> {
        let Some(m) = self.members.get(person) else { return Vec::new() };
        let reminder = |what, at: Millis, todo: String| {
            let title = self.title.clone();
            Reminder { vo: self.id.clone(), title, what, at, days: self.within(at, now), todo }
        };
        let most = self.enrolling.reminders().first().copied().unwrap_or_default();
        let horizon = now.plus(days(most));
        let mut all = Vec::new();
        if let Some(at) = m.expires.filter(|at| *at <= horizon) {
            let todo = super::owners_hint(self);
            all.push(reminder(Ending::Membership, at, todo));
        }
        let consent = self.consent(person);
        if consent.due.is_some_and(|due| due <= horizon)
            && let Some(at) = consent.lapses
        {
            let todo = format!("read the terms of use and agree: xos vo agree {}", self.id);
            all.push(reminder(Ending::Consent, at, todo));
        }
        all
    }

    /// The smallest of the VO's numbers of days within which `at` is; beyond all of them the
    /// largest; 0 when it is past.
    fn within(&self, at: Millis, now: Millis) -> u32 {
        if at <= now {
            return 0;
        }
        let all = self.enrolling.reminders();
        let fits = all.iter().rev().find(|n| at <= now.plus(days(**n)));
        fits.or(all.first()).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::GroupRecord;
    use xos_api::vom::{Actor, Entry};
    use xos_base::{Epoch, GroupName, GroupNumber, MemberNumber};

    const DAY: u64 = 24 * 60 * 60 * 1000;

    fn vo(members: u32) -> Vo {
        let alice: PersonId = "alice@rennes".parse().unwrap();
        let mut entry = Entry {
            vo: "demo.rennes".parse().unwrap(),
            number: 1,
            prev: String::new(),
            time: Millis(0),
            actor: Actor::Person(alice.clone()),
            change: Change::Founded { owner: alice, title: "Demo".into(), description: "".into() },
        };
        let mut vo = Vo::found(&entry).unwrap();
        for n in 0..members {
            entry.number += 1;
            entry.change = Change::Admitted {
                person: format!("p{n:06}@pisa").parse().unwrap(),
                number: MemberNumber(n + 2),
                epoch: Epoch(1),
                groups: vec![],
                roles: vec![],
                expires: (n % 10 == 0).then_some(Millis(u64::from(n) * DAY)),
            };
            vo.apply(&entry);
        }
        vo
    }

    /// If it failed, an administrator would not see who is about to be shut out; or one request
    /// would hold a large VO for as long as its members are counted.
    #[test]
    fn those_whose_time_ends_are_found_page_by_page() {
        let vo = vo(25_000);
        let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = vo.expiring_page(after.as_ref(), Some(40), Millis(20_000 * DAY));
            assert!(page.members.len() <= 40);
            found.extend(page.members);
            pages += 1;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found.len(), 2001, "each tenth until day 20,000");
        assert!(pages >= 51, "{pages}");
        let none = vo.expiring_page(None, None, Millis(0));
        assert_eq!(none.members.len(), 1);
        assert!(none.next.is_some(), "it looked at some and left the others to the next page");
    }

    /// If it failed, people would hear of the end of a membership too late, or all the time.
    #[test]
    fn a_member_is_reminded_when_the_vo_says() {
        let mut vo = vo(101);
        let bob: PersonId = "p000100@pisa".parse().unwrap();
        let told = |vo: &Vo, day: u64| {
            let all = vo.reminders(&bob, Millis(day * DAY));
            all.iter().map(|r| (r.what, r.days)).collect::<Vec<_>>()
        };
        assert_eq!(told(&vo, 69), []);
        assert_eq!(told(&vo, 70), [(Ending::Membership, 30)]);
        assert_eq!(told(&vo, 93), [(Ending::Membership, 7)]);
        assert_eq!(told(&vo, 99), [(Ending::Membership, 1)]);
        assert_eq!(told(&vo, 100), [(Ending::Membership, 0)]);
        vo.enrolling.reminder_days = vec![2];
        assert_eq!(told(&vo, 97), []);
        vo.set_terms("Be kind.", None, 14);
        assert_eq!(told(&vo, 5), [(Ending::Consent, 2)], "due since day 0, lapses at day 14");
        assert_eq!(told(&vo, 14), [(Ending::Consent, 0)]);
    }

    /// If it failed, a person's history would not say when they became manager or owner.
    #[test]
    fn managing_and_handing_over_stand_in_the_history() {
        let (a, b): (PersonId, PersonId) = ("a@x".parse().unwrap(), "b@x".parse().unwrap());
        let (by, to) = (a.clone(), b.clone());
        let handed = Change::HandoverAccepted { by: by.clone(), to: to.clone() };
        assert_eq!(about(&handed), [&a, &b]);
        assert_eq!(about(&Change::HandoverOffered { by: by.clone(), to }), [&a, &b]);
        assert_eq!(about(&Change::HandoverEnded { by }), [&a]);
        let (name, person) = ("optics".parse().unwrap(), b.clone());
        assert_eq!(about(&Change::GroupManagerAdded { name, person }), [&b]);
    }

    /// If it failed, one request for a small group would hold a VO of a million members for as long
    /// as they are counted, or miss some.
    #[test]
    fn members_of_a_small_group_are_looked_for_in_bounded_steps() {
        let mut vo = vo(25_000);
        let name: GroupName = "physics".parse().unwrap();
        let number = GroupNumber(2);
        let record = GroupRecord { number, count: 1, changed: 1, parent: None };
        vo.groups.insert(name.clone(), record);
        let last: PersonId = "p024999@pisa".parse().unwrap();
        vo.members.get_mut(&last).unwrap().groups.insert(name.clone());
        let first = vo.group_member_page(&name, None, None, Millis(0));
        assert!(first.members.is_empty() && first.next.is_some(), "it goes on");
        let second = vo.group_member_page(&name, first.next.as_ref(), None, Millis(0));
        assert_eq!(second.members.len(), 1);
        assert_eq!(second.next, None);
    }
}
