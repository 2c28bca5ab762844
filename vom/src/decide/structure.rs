//! Commands about how a VO is built and how it ends.

use super::asker;
use super::enrolment::in_person;
use crate::policy::{Action, Grant, Role};
use crate::state::Vo;
use serde::Serialize;
use xos_api::vom::{Change, VoState};
use xos_base::{Error, GroupName, GroupNumber, PersonId};

/// Most groups below a group to which its managers add some.
const BELOW_MANAGED_MAX: usize = 100;

/// What somebody wants changed in how a VO is built, or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // The fields are those of the requests in `xos_api::vom`.
pub enum Structural {
    /// Make a group within another one.
    CreateSubgroup { parent: GroupName, name: GroupName },
    /// Put a group under another one, or under none.
    MoveGroup { name: GroupName, parent: Option<GroupName> },
    /// Let a member manage a group.
    AddManager { name: GroupName, person: PersonId },
    /// Let a member manage a group no longer.
    RemoveManager { name: GroupName, person: PersonId },
    /// Offer one's own ownership to a member.
    OfferHandover { to: PersonId },
    /// Take an ownership over that was offered.
    AcceptHandover { by: PersonId },
    /// End an offer to hand over.
    EndHandover { by: PersonId },
    /// Dissolve the VO.
    Dissolve { reason: String },
    /// Take a dissolution back.
    UndoDissolve,
    /// Erase the VO, once it is time.
    Erase,
}

impl Structural {
    /// What one must be allowed to do for it, in this VO as it is.
    pub fn action(&self, vo: &Vo, asker: Option<&PersonId>) -> Action {
        let manages = |name: &GroupName| asker.is_some_and(|a| vo.manages(a, name));
        match self {
            // Rules of the VO and of sites match groups by name: who manages one group must not
            // take a name that a rule was, or will be, written for.
            Structural::CreateSubgroup { parent, name }
                if manages(parent) && within_name(parent, name) =>
            {
                Action::ManageOwnGroup
            }
            Structural::RemoveManager { name, person }
                if asker == Some(person) && manages(name) =>
            {
                Action::ManageOwnGroup
            }
            // It takes them out of the groups above, as deleting takes them out of one.
            Structural::MoveGroup { name, .. } if vo.privileged_in(name, asker) => {
                Action::ManagePrivileged
            }
            Structural::CreateSubgroup { .. }
            | Structural::MoveGroup { .. }
            | Structural::AddManager { .. }
            | Structural::RemoveManager { .. } => Action::ManageGroup,
            Structural::AcceptHandover { .. } => Action::TakeOver,
            Structural::EndHandover { by } if asker.is_some() && vo.handovers.get(by) == asker => {
                Action::TakeOver
            }
            Structural::OfferHandover { .. } | Structural::EndHandover { .. } => Action::HandOver,
            Structural::UndoDissolve
                if matches!(vo.state, VoState::Dissolved { by_site: true, .. }) =>
            {
                Action::OverruleSite
            }
            // Else an owner would have erased what the site stopped it for.
            Structural::Dissolve { .. }
                if matches!(vo.state, VoState::Suspended { by_site: true, .. }) =>
            {
                Action::OverruleSite
            }
            Structural::Dissolve { .. } | Structural::UndoDissolve => Action::DissolveVo,
            Structural::Erase => Action::EraseVo,
        }
    }

    /// Whether it may be done in a VO that does not work: what ends it or lets it work again, and
    /// what only takes.
    pub(super) fn allowed_halted(&self) -> bool {
        matches!(
            self,
            Structural::RemoveManager { .. }
                | Structural::EndHandover { .. }
                | Structural::Dissolve { .. }
                | Structural::UndoDissolve
                | Structural::Erase
        )
    }

    pub(super) fn propose(self, vo: &Vo, grant: &Grant) -> Result<Change, Error> {
        if grant.action() == Action::TakeOver {
            in_person(grant, "takes no ownership over", "accept or decline it then")?;
        }
        Ok(match self {
            Structural::CreateSubgroup { parent, name } => {
                if grant.action() == Action::ManageOwnGroup && !grant.has(Role::Admin) {
                    few_below(vo, &asker(grant)?, &parent)?;
                }
                Change::SubgroupCreated { name, number: GroupNumber(vo.next_group), parent }
            }
            Structural::MoveGroup { name, parent } => Change::GroupMoved { name, parent },
            Structural::AddManager { name, person } => Change::GroupManagerAdded { name, person },
            Structural::RemoveManager { name, person } => {
                Change::GroupManagerRemoved { name, person }
            }
            Structural::OfferHandover { to } => Change::HandoverOffered { by: asker(grant)?, to },
            Structural::AcceptHandover { by } => Change::HandoverAccepted { by, to: asker(grant)? },
            Structural::EndHandover { by } => Change::HandoverEnded { by },
            Structural::Dissolve { reason } => {
                Change::VoDissolved { reason, by_site: !grant.has(Role::Owner) }
            }
            Structural::UndoDissolve => Change::VoRestored {},
            Structural::Erase => Change::VoErased {},
        })
    }
}

/// Whether a group's name says within which group it is.
fn within_name(parent: &GroupName, name: &GroupName) -> bool {
    name.as_str().strip_prefix(parent.as_str()).is_some_and(|rest| rest.starts_with('-'))
}

/// A manager makes a bounded number of groups: the VO has so many for all.
fn few_below(vo: &Vo, manager: &PersonId, parent: &GroupName) -> Result<(), Error> {
    let managed = vo.managers.get(manager);
    let top = vo.lineage(parent).filter(|g| managed.is_some_and(|m| m.contains(*g))).last();
    let below = vo.subtree(top.unwrap_or(parent)).len().saturating_sub(1);
    if below < BELOW_MANAGED_MAX {
        return Ok(());
    }
    Err(Error::too_large(format!("its managers make at most {BELOW_MANAGED_MAX} groups in one"))
        .hint("ask an administrator of the VO to make it"))
}

/// Why nothing changes in a VO that does not work, and who lets it work again.
pub(super) fn halted(vo: &Vo) -> Error {
    let (by_site, what, command) = match vo.state {
        VoState::Dissolved { by_site, .. } => (
            by_site,
            "dissolved",
            format!("takes that back with `xos vo dissolve {} --undo`", vo.id),
        ),
        VoState::Suspended { by_site, .. } => {
            (by_site, "suspended", format!("resumes it with `xos vo resume-vo {}`", vo.id))
        }
        VoState::Active => return Error::internal(format!("{} works", vo.id)),
    };
    let who = if by_site { "an administrator of its home site" } else { "its owner" };
    Error::denied(format!("{} is {what}: nothing can change in it", vo.id))
        .hint(format!("{who} {command}"))
}
