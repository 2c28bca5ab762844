//! Changes of how a VO is built and how it ends: which may follow, and what they do. Groups are in
//! [`super::nested`].

use super::{Vo, check};
use crate::text::{self, TextFault};
use xos_api::vom::{
    Change, DISSOLVED_FOR, Entry, GROUP_CHANGE_MAX, GROUP_DEPTH_MAX, MANAGED_MAX, MANAGERS_MAX,
    MEMBER_GROUPS_MAX, MEMBER_ROLES_MAX, MemberState, REASON_MAX, VoState,
};
use xos_base::membership::ROLE_OWNER;
use xos_base::{GroupName, Kind, Millis, PersonId, RoleName};

/// Why a change of a VO's structure cannot follow. Who acts: the requester.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The messages say it.
pub enum Fault {
    #[error("a number is out of order")]
    Number,
    #[error("{0} is not a member")]
    NotMember(PersonId),
    #[error("there is no group {0}")]
    NoGroup(GroupName),
    #[error("there is a group {0} already")]
    Group(GroupName),
    #[error("everybody is in the group {0}: it is above no other, below none, and nobody's")]
    BuiltIn(GroupName),
    #[error("the VO has no number or place for another group")]
    GroupLimit,
    #[error("{1} is {0} itself or below it: a group cannot be within itself")]
    Cycle(GroupName, GroupName),
    #[error("{0} would be too deep: groups lie at most {GROUP_DEPTH_MAX} deep")]
    Depth(GroupName),
    #[error("the group {0} is there already")]
    There(GroupName),
    #[error("there are groups within {0}")]
    Children(GroupName),
    #[error(
        "{1} memberships are in {0} and below it; one change takes or moves at most \
         {GROUP_CHANGE_MAX}"
    )]
    TooMany(GroupName, u64),
    #[error("somebody would be in more than {MEMBER_GROUPS_MAX} groups, those above counted")]
    Groups,
    #[error("{1} manages {0} already")]
    Manages(GroupName, PersonId),
    #[error("{1} does not manage {0}")]
    ManagesNot(GroupName, PersonId),
    #[error("a VO has at most {MANAGERS_MAX} managers, each of at most {MANAGED_MAX} groups")]
    ManagerLimit,
    #[error("{0} is not an owner who can act")]
    NoOwner(PersonId),
    #[error("{0} is an owner already")]
    Owner(PersonId),
    #[error("{0} is suspended")]
    Suspended(PersonId),
    #[error("the membership of {0} has an end, which an owner's cannot have")]
    Expires(PersonId),
    #[error("{0} has too many roles to become an owner")]
    Roles(PersonId),
    #[error("{0} has offered that to {1} already")]
    Offered(PersonId, PersonId),
    #[error("{0} offers nothing, or to somebody else")]
    NoHandover(PersonId),
    #[error("the VO is dissolved: nothing can change in it")]
    Dissolved,
    #[error("the VO is not dissolved")]
    NotDissolved,
    #[error("the VO is erased at {0}, not before")]
    TooEarly(Millis),
    #[error("the VO is erased")]
    Erased,
    #[error("the {0} {1}")]
    Text(&'static str, TextFault),
}

impl Fault {
    /// What kind of error it is to the requester.
    pub fn kind(&self) -> Kind {
        match self {
            Fault::NotMember(_)
            | Fault::NoGroup(_)
            | Fault::ManagesNot(..)
            | Fault::NoHandover(_)
            | Fault::Erased => Kind::NotFound,
            Fault::Text(..) | Fault::Expires(_) => Kind::Invalid,
            Fault::GroupLimit
            | Fault::Groups
            | Fault::Depth(_)
            | Fault::TooMany(..)
            | Fault::ManagerLimit
            | Fault::Roles(_) => Kind::TooLarge,
            Fault::Number => Kind::Internal,
            _ => Kind::Conflict,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Fault::Children(_) => Some("delete or move those first"),
            Fault::TooMany(..) => {
                Some("move the groups within it one by one, or take members out first")
            }
            Fault::Expires(_) => Some("take the end away first: xos vo expiry VO PERSON never"),
            Fault::Depth(_) => Some("put it under a group that lies higher"),
            Fault::Suspended(_) => Some("resume the member first"),
            _ => None,
        }
    }
}

type Checked = Result<(), Fault>;

impl Vo {
    /// Whether the VO is dissolved: nobody acts in it, and no site serves it.
    pub fn dissolved(&self) -> bool {
        matches!(self.state, VoState::Dissolved { .. })
    }

    /// When the VO is to be erased, if it is dissolved and is not erased yet.
    pub fn erased_at(&self) -> Option<Millis> {
        match self.state {
            VoState::Dissolved { until, .. } if !self.erased => Some(until),
            _ => None,
        }
    }

    /// What a dissolved VO takes: to be restored or erased, and that a site ends its share.
    pub(super) fn takes(&self, change: &Change) -> Checked {
        if self.erased {
            return Err(Fault::Erased);
        }
        let last = matches!(
            change,
            Change::VoRestored {} | Change::VoErased {} | Change::ShareWithdrawn { .. }
        );
        if self.dissolved() && !last { Err(Fault::Dissolved) } else { Ok(()) }
    }

    /// Whether the entry comes at its time: a VO is not erased before its members could save what
    /// they need.
    pub(super) fn timely(&self, entry: &Entry) -> Checked {
        match (&entry.change, self.erased_at()) {
            (Change::VoErased {}, Some(until)) if entry.time < until => Err(Fault::TooEarly(until)),
            _ => Ok(()),
        }
    }

    /// Whether the VO's last entry can be this one, when those between are gone: one who knows the
    /// VO as dissolved knows when it may be erased; else at least its dissolution lies between.
    ///
    /// # Errors
    /// Why not.
    pub fn may_end_by(&self, last: &Entry) -> Result<(), Fault> {
        let until = match self.erased_at() {
            Some(until) => until,
            None if last.number >= self.number.saturating_add(2) => self.time.plus(DISSOLVED_FOR),
            None => return Err(Fault::NotDissolved),
        };
        if last.time < until { Err(Fault::TooEarly(until)) } else { Ok(()) }
    }

    pub(super) fn check_structure(&self, change: &Change) -> Checked {
        match change {
            Change::SubgroupCreated { name, number, parent } => {
                self.may_create_below(name, *number, parent)
            }
            Change::GroupMoved { name, parent } => self.may_move(name, parent.as_ref()),
            Change::GroupManagerAdded { name, person } => self.may_manage(name, person),
            Change::GroupManagerRemoved { name, person } => self.managing(name, person),
            Change::HandoverOffered { by, to } => {
                self.may_hand_over(by, to)?;
                let same = self.handovers.get(by) == Some(to);
                if same { Err(Fault::Offered(by.clone(), to.clone())) } else { Ok(()) }
            }
            Change::HandoverAccepted { by, to } => {
                if self.handovers.get(by) != Some(to) {
                    return Err(Fault::NoHandover(by.clone()));
                }
                self.may_hand_over(by, to)
            }
            Change::HandoverEnded { by } if self.handovers.contains_key(by) => Ok(()),
            Change::HandoverEnded { by } => Err(Fault::NoHandover(by.clone())),
            Change::VoDissolved { reason, .. } => {
                text::lines(reason, REASON_MAX).map_err(|e| Fault::Text("reason", e))
            }
            Change::VoRestored {} | Change::VoErased {} if self.dissolved() => Ok(()),
            Change::VoRestored {} | Change::VoErased {} => Err(Fault::NotDissolved),
            _ => Ok(()),
        }
    }

    /// Owners have no end, hence whether they can act does not depend on the time.
    fn may_hand_over(&self, by: &PersonId, to: &PersonId) -> Checked {
        if !self.owners.contains(by) || !self.acts(by, Millis(0)) {
            return Err(Fault::NoOwner(by.clone()));
        }
        let Some(m) = self.members.get(to) else { return Err(Fault::NotMember(to.clone())) };
        if self.owners.contains(to) {
            return Err(Fault::Owner(to.clone()));
        }
        if m.state != MemberState::Active {
            return Err(Fault::Suspended(to.clone()));
        }
        if m.expires.is_some() {
            return Err(Fault::Expires(to.clone()));
        }
        if m.roles.len() >= MEMBER_ROLES_MAX { Err(Fault::Roles(to.clone())) } else { Ok(()) }
    }

    pub(super) fn apply_structure(&mut self, change: &Change) {
        match change {
            Change::SubgroupCreated { name, number, parent } => {
                self.create_below(name, *number, parent);
            }
            Change::GroupMoved { name, parent } => self.move_group(name, parent.as_ref()),
            Change::GroupManagerAdded { name, person } => self.add_manager(name, person),
            Change::GroupManagerRemoved { name, person } => self.remove_manager(name, person),
            Change::HandoverOffered { by, to } => {
                self.handovers.insert(by.clone(), to.clone());
            }
            Change::HandoverAccepted { by, to } => {
                let owner: Result<RoleName, _> = ROLE_OWNER.parse();
                if let Ok(owner) = owner {
                    self.role(to, &owner, true);
                    self.role(by, &owner, false);
                }
            }
            Change::HandoverEnded { by } => {
                self.handovers.remove(by);
            }
            Change::VoDissolved { reason, by_site } => {
                let until = self.time.plus(DISSOLVED_FOR);
                let dissolved =
                    VoState::Dissolved { reason: reason.clone(), by_site: *by_site, until };
                self.before = Some(std::mem::replace(&mut self.state, dissolved));
            }
            Change::VoRestored {} => {
                // What the home site had suspended before, it has suspended now.
                self.state = self.before.take().unwrap_or(VoState::Active);
            }
            Change::VoErased {} => self.erased = true,
            _ => {}
        }
    }

    /// Whoever was removed, suspended or is owner no longer has nothing to hand over, and whoever
    /// is no member or is owner already takes nothing over: else an owner who was stopped would
    /// make an owner later.
    pub(super) fn no_handover(&mut self, person: &PersonId) {
        self.handovers.retain(|by, to| by != person && to != person);
    }
}

impl From<Fault> for check::Violation {
    fn from(fault: Fault) -> check::Violation {
        check::Violation::Structure(fault)
    }
}
