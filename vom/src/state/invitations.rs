//! Invitations: what they give, and who may still come in by them.

use super::enrolment::is_digest;
use super::{EnrolmentFault, Violation, Vo, privileged};
use crate::policy::Action;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use xos_api::vom::{
    Change, Gives, INVITATION_USES_MAX, INVITATIONS_MAX, InvitationInfo, InvitationPage,
    InvitationState, MEMBER_GROUPS_MAX, MEMBER_ROLES_MAX,
};
use xos_base::membership::{ROLE_ADMIN, ROLE_OWNER};
use xos_base::{Epoch, Error, GroupName, MemberNumber, Millis, PersonId, RoleName};

/// How many hexadecimal digits of the hash of its secret name an invitation.
pub const INVITATION_ID_LEN: usize = 16;

/// An invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    /// SHA-256 of its secret, hex.
    pub hash: String,
    /// Who made it.
    pub by: PersonId,
    /// What it gives to whom.
    pub gives: Gives,
    /// The digest by which is kept for whom it is meant.
    pub hint: Option<String>,
    /// When it was made.
    pub made: Millis,
    /// How many persons may still come in by it.
    pub left: u32,
    /// Whether it was withdrawn.
    pub withdrawn: bool,
}

impl Invitation {
    /// What became of it by `now`.
    pub fn state(&self, now: Millis) -> InvitationState {
        match self {
            i if i.withdrawn => InvitationState::Withdrawn,
            i if i.left == 0 => InvitationState::UsedUp,
            i if i.gives.expires <= now => InvitationState::Expired,
            _ => InvitationState::Open,
        }
    }

    /// For administrators; `hint` is what was kept of that.
    pub fn info(&self, id: &str, hint: String, now: Millis) -> InvitationInfo {
        InvitationInfo {
            invitation: id.to_owned(),
            gives: self.gives.clone(),
            by: self.by.clone(),
            made: self.made,
            left: self.left,
            state: self.state(now),
            hint,
        }
    }
}

/// What one must be allowed to do to invite to that. The one place where that is said, for making
/// an invitation; [`Vo::still_invites`] says the same of who made it when it is used.
pub fn inviting(gives: &Gives) -> Action {
    if gives.roles.iter().any(privileged) { Action::ManagePrivileged } else { Action::Invite }
}

impl Vo {
    /// The invitation whose secret has this hash, and its id.
    pub fn invitation(&self, hash: &str) -> Option<(&str, &Invitation)> {
        let id = hash.get(..INVITATION_ID_LEN)?;
        let (id, found) = self.enrolling.invitations.get_key_value(id)?;
        (found.hash == hash).then_some((id.as_str(), found))
    }

    /// Whether who made the invitation may still give what it gives: else those who were removed or
    /// lost a role would bring in others for as long as their links hold.
    pub fn still_invites(&self, i: &Invitation, now: Millis) -> bool {
        self.members.get(&i.by).is_some_and(|m| {
            let holds = |role: &str| m.roles.iter().any(|r| r.as_str() == role);
            let enough = match inviting(&i.gives) {
                Action::ManagePrivileged => holds(ROLE_OWNER),
                _ => holds(ROLE_OWNER) || holds(ROLE_ADMIN),
            };
            enough && m.acts(now) && self.consents(&i.by, m, now)
        })
    }

    /// Whether the invitation makes this person a member at once. Who was one before waits for an
    /// administrator: else whoever was removed would come back by a link.
    pub fn joins_at_once(&self, i: &Invitation, person: &PersonId) -> bool {
        i.gives.at_once && !self.epochs.contains_key(person)
    }

    /// The invitation by which an applicant came, as long as it counts: it was not withdrawn, and
    /// who made it may still give what it gives.
    fn invited_by(&self, person: &PersonId, now: Millis) -> Option<&Invitation> {
        let applied = self.applications.contains_key(person);
        let said = self.enrolling.said.get(person).filter(|_| applied)?;
        let i = self.enrolling.invitations.get(said.invitation.as_ref()?)?;
        // What counted no more at the last entry does not count again by a clock set back.
        (!i.withdrawn && self.still_invites(i, now.max(self.time))).then_some(i)
    }

    /// What an application gives when it is approved, by the invitation by which it was made.
    pub fn invited_to(&self, person: &PersonId, now: Millis) -> Option<&Gives> {
        self.invited_by(person, now).map(|i| &i.gives)
    }

    /// Whether the invitation of an applicant gives a role that only owners give.
    pub fn invited_high(&self, person: &PersonId) -> bool {
        self.invited_to(person, self.time).is_some_and(|g| g.roles.iter().any(privileged))
    }

    /// A group is no more: one made later under its name is not what people were invited to.
    pub(super) fn nobody_is_invited_to(&mut self, name: &GroupName) {
        for i in self.enrolling.invitations.values_mut() {
            i.gives.groups.retain(|g| g != name);
        }
    }

    /// Groups, roles and end of a membership that is approved: what the approver says, and what
    /// the invitation by which the applicant came gives besides, if it counts at `now`.
    pub fn with_invited(
        &self,
        person: &PersonId,
        mut groups: Vec<GroupName>,
        mut roles: Vec<RoleName>,
        ends: Option<Millis>,
        now: Millis,
    ) -> (Vec<GroupName>, Vec<RoleName>, Option<Millis>) {
        let Some(gives) = self.invited_to(person, now) else { return (groups, roles, ends) };
        for g in gives.groups.iter().filter(|g| self.groups.contains_key(*g)) {
            if !groups.contains(g) {
                groups.push(g.clone());
            }
        }
        for r in &gives.roles {
            if !roles.contains(r) {
                roles.push(r.clone());
            }
        }
        (groups, roles, ends.or(gives.ends))
    }

    /// Whether `person` may come in by the invitation at `now`.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] with why not, for who holds its secret.
    pub fn usable(
        &self,
        id: &str,
        i: &Invitation,
        person: &PersonId,
        now: Millis,
    ) -> Result<(), Error> {
        self.may_come_by(id, person)?;
        let fault = if i.gives.expires <= now || i.gives.ends.is_some_and(|t| t <= now) {
            EnrolmentFault::Expired
        } else if !self.still_invites(i, now) {
            EnrolmentFault::Uninviting(i.by.clone())
        } else {
            return Ok(());
        };
        Err(Violation::from(fault).into())
    }

    /// Whether `person` may come in by the invitation, as far as time does not matter.
    pub(super) fn may_come_by(&self, id: &str, person: &PersonId) -> Result<(), Violation> {
        let i = self.enrolling.invitations.get(id).ok_or(EnrolmentFault::NoInvitation)?;
        if i.withdrawn {
            return Err(EnrolmentFault::Withdrawn.into());
        }
        if i.left == 0 {
            return Err(EnrolmentFault::UsedUp.into());
        }
        match &i.gives.person {
            Some(other) if other != person => Err(EnrolmentFault::NotInvited(other.clone()).into()),
            _ => Ok(()),
        }
    }

    /// One more came in by the invitation.
    pub(super) fn use_invitation(&mut self, id: &str) {
        if let Some(i) = self.enrolling.invitations.get_mut(id) {
            i.left = i.left.saturating_sub(1);
        }
    }

    /// The admission that an invitation makes.
    fn admission(
        &self,
        i: &Invitation,
        person: &PersonId,
        (number, epoch): (MemberNumber, Epoch),
    ) -> Change {
        let known = |g: &&GroupName| self.groups.contains_key(*g);
        Change::Admitted {
            person: person.clone(),
            number,
            epoch,
            groups: i.gives.groups.iter().filter(known).cloned().collect(),
            roles: i.gives.roles.clone(),
            expires: i.gives.ends,
        }
    }

    pub(super) fn check_invitation(&self, change: &Change) -> Result<(), Violation> {
        match change {
            Change::InvitationMade { id, hash, gives, hint, .. } => {
                let named = hash.get(..INVITATION_ID_LEN) == Some(id.as_str());
                let digests = is_digest(hash) && hint.as_deref().is_none_or(is_digest);
                if !named || !digests {
                    return Err(Violation::Number);
                }
                if self.enrolling.invitations.contains_key(id) {
                    return Err(EnrolmentFault::Known.into());
                }
                let open = |i: &&Invitation| i.state(self.time) == InvitationState::Open;
                if self.enrolling.invitations.values().filter(open).count() >= INVITATIONS_MAX {
                    return Err(Violation::Limit(INVITATIONS_MAX as u64, "open invitations"));
                }
                self.may_give(gives)
            }
            Change::InvitationWithdrawn { id } => match self.enrolling.invitations.get(id) {
                None => Err(EnrolmentFault::NoInvitation.into()),
                Some(i) if i.withdrawn => Err(EnrolmentFault::Withdrawn.into()),
                Some(_) => Ok(()),
            },
            Change::Joined { person, invitation, number, epoch, agreed, answers } => {
                self.may_come_by(invitation, person)?;
                self.may_enrol(*agreed, answers.as_deref())?;
                let i = self.enrolling.invitations.get(invitation);
                let i = i.ok_or(EnrolmentFault::NoInvitation)?;
                self.may_admit(&self.admission(i, person, (*number, *epoch)))
            }
            _ => Err(Violation::NotFounded),
        }
    }

    fn may_give(&self, gives: &Gives) -> Result<(), Violation> {
        if !(1..=INVITATION_USES_MAX).contains(&gives.uses) {
            return Err(EnrolmentFault::Uses.into());
        }
        if gives.groups.len() > MEMBER_GROUPS_MAX {
            return Err(Violation::Limit(MEMBER_GROUPS_MAX as u64, "groups of a member"));
        }
        if gives.roles.len() > MEMBER_ROLES_MAX {
            return Err(Violation::Limit(MEMBER_ROLES_MAX as u64, "roles of a member"));
        }
        for g in &gives.groups {
            self.own_group(g)?;
        }
        let groups: BTreeSet<&GroupName> = gives.groups.iter().collect();
        let roles: BTreeSet<&RoleName> = gives.roles.iter().collect();
        if groups.len() != gives.groups.len() || roles.len() != gives.roles.len() {
            return Err(EnrolmentFault::Twice.into());
        }
        let owner = gives.roles.iter().any(|r| r.as_str() == ROLE_OWNER);
        if owner && gives.ends.is_some() { Err(Violation::OwnerExpires) } else { Ok(()) }
    }

    pub(super) fn apply_invitation(&mut self, change: &Change) {
        match change {
            Change::InvitationMade { id, hash, by, gives, hint } => {
                self.make_room();
                let made = Invitation {
                    hash: hash.clone(),
                    by: by.clone(),
                    gives: gives.clone(),
                    hint: hint.clone(),
                    made: self.time,
                    left: gives.uses,
                    withdrawn: false,
                };
                self.enrolling.invitations.insert(id.clone(), made);
            }
            Change::InvitationWithdrawn { id } => {
                if let Some(i) = self.enrolling.invitations.get_mut(id) {
                    i.withdrawn = true;
                }
            }
            Change::Joined { person, invitation, number, epoch, agreed, answers } => {
                let Some(i) = self.enrolling.invitations.get(invitation).cloned() else { return };
                self.applications.remove(person);
                self.enrol(person, *agreed, answers.as_deref(), Some(invitation.as_str()));
                self.admit(person, *number, *epoch, &i.gives.groups, &i.gives.roles, i.gives.ends);
            }
            _ => {}
        }
    }

    /// Forgets the oldest invitations that are over, when there are twice as many as may be open.
    fn make_room(&mut self) {
        let now = self.time;
        if self.enrolling.invitations.len() < 2 * INVITATIONS_MAX {
            return;
        }
        let over = |i: &Invitation| i.state(now) != InvitationState::Open;
        let all = self.enrolling.invitations.iter().filter(|(_, i)| over(i));
        let mut old: Vec<(Millis, String)> = all.map(|(id, i)| (i.made, id.clone())).collect();
        old.sort_unstable();
        for (_, id) in old.into_iter().take(INVITATIONS_MAX) {
            self.enrolling.invitations.remove(&id);
        }
    }

    /// Invitations after one, at most so many, each with the digest of what it was noted for.
    pub fn invitation_page(
        &self,
        after: Option<&str>,
        size: usize,
        now: Millis,
    ) -> (InvitationPage, Vec<Option<String>>) {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.enrolling.invitations.range::<str, _>((from, Bound::Unbounded));
        let page: Vec<(&String, &Invitation)> = rest.by_ref().take(size).collect();
        let more = rest.next().is_some();
        let next = page.last().filter(|_| more).map(|(id, _)| (*id).clone());
        let hints = page.iter().map(|(_, i)| i.hint.clone()).collect();
        let invitations = page.iter().map(|(id, i)| i.info(id, String::new(), now)).collect();
        (InvitationPage { invitations, next }, hints)
    }
}
