//! How each change alters a VO. Total: what a change names and the VO has not is passed over.

use super::{Gone, GroupRecord, Member, Vo, share::Share};
use std::collections::BTreeSet;
use xos_api::vom::{Application, Change, Entry, GROUP_MEMBERS, MemberState, VoState};
use xos_base::membership::{ROLE_ADMIN, ROLE_OWNER};
use xos_base::{Epoch, GroupName, GroupNumber, MemberNumber, Millis, PersonId, RoleName, SiteId};

/// Whether a change is one of the settings that have a version together.
fn sets(change: &Change) -> bool {
    matches!(
        change,
        Change::Described { .. }
            | Change::LeaseSet { .. }
            | Change::GraceSet { .. }
            | Change::RenewalSet { .. }
            | Change::RemindersSet { .. }
            | Change::FileAuditSet { .. }
    )
}

impl Vo {
    /// Makes the entry's change. Numbers, epochs and the order of entries are for
    /// [`Vo::check`] and the log's chain to judge.
    pub fn apply(&mut self, entry: &Entry) {
        self.number = entry.number;
        self.time = entry.time;
        if !matches!(entry.change, Change::RulesChanged { more: true, .. }) {
            self.news = entry.number;
        }
        match &entry.change {
            Change::Founded { .. } => {}
            Change::Applied { person, message, agreed, answers, invitation } => {
                let a = Application {
                    person: person.clone(),
                    message: message.clone(),
                    since: entry.time,
                    gives: None,
                };
                self.applications.insert(person.clone(), a);
                self.enrol(person, *agreed, answers.as_deref(), invitation.as_deref());
            }
            Change::ApplicationWithdrawn { person }
            | Change::ApplicationRejected { person, .. } => {
                self.applications.remove(person);
                self.enrolling.said.remove(person);
            }
            Change::Admitted { person, number, epoch, groups, roles, expires } => {
                self.applications.remove(person);
                self.admit(person, *number, *epoch, groups, roles, *expires);
            }
            Change::MemberSuspended { person, reason } => {
                self.change(person, true, |m| {
                    m.state = MemberState::Suspended { reason: reason.clone() };
                });
                if let Some(m) = self.members.get_mut(person) {
                    m.mandates = m.epoch;
                    m.suspended = Some(entry.time);
                }
                self.no_handover(person);
            }
            Change::MemberResumed { person } => {
                self.change(person, false, |m| m.state = MemberState::Active);
            }
            Change::MemberRemoved { person, .. } => self.remove(person),
            Change::MemberExpirySet { person, expires } => {
                let narrower =
                    self.members.get(person).is_some_and(|m| earlier(*expires, m.expires));
                self.change(person, narrower, |m| m.expires = *expires);
            }
            Change::RoleGranted { person, role } => self.role(person, role, true),
            Change::RoleWithdrawn { person, role } => self.role(person, role, false),
            Change::GroupCreated { name, number } => self.create_group(name, *number),
            Change::GroupDeleted { name } => self.delete_group(name),
            Change::GroupMemberAdded { name, person } => self.join(name, person),
            Change::GroupMemberRemoved { name, person } => self.leave(name, person),
            Change::SubgroupCreated { .. }
            | Change::GroupMoved { .. }
            | Change::GroupManagerAdded { .. }
            | Change::GroupManagerRemoved { .. }
            | Change::HandoverOffered { .. }
            | Change::HandoverAccepted { .. }
            | Change::HandoverEnded { .. }
            | Change::VoDissolved { .. }
            | Change::VoRestored {}
            | Change::VoErased {} => self.apply_structure(&entry.change),
            Change::VoSuspended { reason, by_site } => {
                self.state = VoState::Suspended { reason: reason.clone(), by_site: *by_site };
            }
            Change::VoResumed {} => self.state = VoState::Active,
            Change::VolumeMade { name } => {
                self.volumes.insert(name.clone());
            }
            Change::Described { title, description } => {
                self.title.clone_from(title);
                self.description.clone_from(description);
            }
            Change::LeaseSet { lease_s } => self.lease_s = Some(*lease_s),
            Change::GraceSet { grace_s } => self.grace_s = Some(*grace_s),
            Change::RenewalSet { renewal_s } => self.renewal_s = Some(*renewal_s),
            Change::RulesChanged { .. } => self.change_rules(entry),
            Change::FileAuditSet { opens } => self.audit_opens = *opens,
            Change::ShareOffered { site, terms } => {
                let share = self.shares.entry(site.clone()).or_insert_with(Share::none);
                share.offer(terms.clone());
            }
            Change::ShareAccepted { site, version } => self.share(site, |s| s.accept(*version)),
            Change::ShareRefused { site, reason, .. } => self.share(site, |s| s.refuse(reason)),
            Change::ShareWithdrawn { site, reason } => {
                let number = self.number;
                self.share(site, |s| s.end(reason, number));
            }
            Change::TermsOfUseSet { .. }
            | Change::Agreed { .. }
            | Change::QuestionsSet { .. }
            | Change::RemindersSet { .. }
            | Change::InvitationMade { .. }
            | Change::InvitationWithdrawn { .. }
            | Change::Joined { .. } => self.apply_enrolling(&entry.change),
        }
        if sets(&entry.change) {
            self.settings = entry.number;
        }
    }

    /// The first entry's content: the group `members` and the owner.
    pub(super) fn begin(&mut self, owner: &PersonId) {
        if let Ok(name) = GROUP_MEMBERS.parse::<GroupName>() {
            self.create_group(&name, GroupNumber(1));
        }
        let roles: Vec<RoleName> = ROLE_OWNER.parse().into_iter().collect();
        self.admit(owner, MemberNumber(1), Epoch(1), &[], &roles, None);
    }

    fn share(&mut self, site: &SiteId, f: impl FnOnce(&mut Share)) {
        if let Some(s) = self.shares.get_mut(site) {
            f(s);
        }
    }

    pub(super) fn admit(
        &mut self,
        person: &PersonId,
        number: MemberNumber,
        epoch: Epoch,
        groups: &[GroupName],
        roles: &[RoleName],
        expires: Option<Millis>,
    ) {
        self.names.entry(person.name().to_owned()).or_insert_with(|| person.clone());
        self.next_member = self.next_member.max(number.0.saturating_add(1));
        let mut member = Member {
            number,
            epoch,
            mandates: epoch,
            suspended: None,
            groups: BTreeSet::new(),
            roles: roles.iter().cloned().collect(),
            since: self.time,
            expires,
            state: MemberState::Active,
            changed: self.number,
        };
        if roles.iter().any(|r| r.as_str() == ROLE_OWNER) {
            self.owners.insert(person.clone());
        }
        if roles.iter().any(|r| r.as_str() == ROLE_ADMIN) {
            self.admins.insert(person.clone());
        }
        self.touched.note(person, &mut member, self.number);
        self.members.insert(person.clone(), member);
        for group in groups {
            self.join(group, person);
        }
    }

    /// Changes a member; `narrower` voids the credentials issued so far.
    pub(super) fn change(
        &mut self,
        person: &PersonId,
        narrower: bool,
        f: impl FnOnce(&mut Member),
    ) {
        if let Some(m) = self.members.get_mut(person) {
            f(m);
            self.touched.note(person, m, self.number);
            if narrower {
                m.epoch = Epoch(m.epoch.0.saturating_add(1));
            }
        }
    }

    fn remove(&mut self, person: &PersonId) {
        let Some(m) = self.members.remove(person) else { return };
        self.enrolling.said.remove(person);
        for name in &m.groups {
            if let Some(g) = self.groups.get_mut(name) {
                g.count = g.count.saturating_sub(1);
                self.grouped.leave(g.number, m.number);
            }
        }
        self.owners.remove(person);
        self.admins.remove(person);
        self.manages_nothing(person);
        self.no_handover(person);
        self.epochs.insert(person.clone(), Epoch(m.epoch.0.saturating_add(1)));
        let gone = Gone { person: person.clone(), changed: self.number };
        self.gone.insert(m.number, gone);
        self.touched.note_gone(&m, self.number);
    }

    pub(super) fn role(&mut self, person: &PersonId, role: &RoleName, granted: bool) {
        self.change(person, !granted, |m| {
            if granted {
                m.roles.insert(role.clone());
            } else {
                m.roles.remove(role);
            }
        });
        if role.as_str() == ROLE_ADMIN {
            if granted && self.members.contains_key(person) {
                self.admins.insert(person.clone());
            } else if !granted {
                self.admins.remove(person);
            }
        }
        if role.as_str() == ROLE_OWNER {
            self.no_handover(person);
            if granted && self.members.contains_key(person) {
                self.owners.insert(person.clone());
            } else if !granted {
                self.owners.remove(person);
            }
        }
    }

    fn create_group(&mut self, name: &GroupName, number: GroupNumber) {
        self.next_group = self.next_group.max(number.0.saturating_add(1));
        let record = GroupRecord { number, count: 0, changed: self.number, parent: None };
        self.groups.insert(name.clone(), record);
    }

    fn delete_group(&mut self, name: &GroupName) {
        let inside: Vec<PersonId> = self.put_into([name]).into_iter().cloned().collect();
        let Some(g) = self.groups.remove(name) else { return };
        self.groups_gone.insert(g.number, self.number);
        self.nobody_manages(name);
        self.nobody_is_invited_to(name);
        self.grouped.forget(g.number);
        for person in inside {
            self.change(&person, true, |m| {
                m.groups.remove(name);
            });
        }
    }

    fn join(&mut self, name: &GroupName, person: &PersonId) {
        let Some(g) = self.groups.get_mut(name) else { return };
        let mut joined = false;
        if let Some(m) = self.members.get_mut(person) {
            joined = m.groups.insert(name.clone());
            self.grouped.join(g.number, m.number);
            self.touched.note(person, m, self.number);
        }
        g.count = g.count.saturating_add(u64::from(joined));
    }

    fn leave(&mut self, name: &GroupName, person: &PersonId) {
        let mut left = None;
        self.change(person, true, |m| left = m.groups.remove(name).then_some(m.number));
        if let (Some(g), Some(member)) = (self.groups.get_mut(name), left) {
            g.count = g.count.saturating_sub(1);
            self.grouped.leave(g.number, member);
        }
    }
}

/// Whether end `a` comes before end `b`; no end comes last.
fn earlier(a: Option<Millis>, b: Option<Millis>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a < b,
        (Some(_), None) => true,
        (None, _) => false,
    }
}
