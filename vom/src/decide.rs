//! From a command to the change that it makes, without I/O.

use crate::policy::{Action, Grant, Role};
use crate::state::{Member, Vo, privileged};
use xos_api::vom::{Change, Terms, VoState};
use xos_base::{Error, GroupName, GroupNumber, MemberNumber, Millis, PersonId, RoleName, SiteId};

/// What somebody wants changed in one VO.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The fields are those of the requests in `xos_api::vom`.
pub enum Command {
    /// Become a member.
    Apply { message: String },
    /// Take one's application back.
    WithdrawApplication,
    /// Admit an applicant.
    Approve {
        person: PersonId,
        groups: Vec<GroupName>,
        roles: Vec<RoleName>,
        expires: Option<Millis>,
    },
    /// Turn an applicant down.
    Reject { person: PersonId, reason: String },
    /// Suspend a member.
    SuspendMember { person: PersonId, reason: String },
    /// Resume a member.
    ResumeMember { person: PersonId },
    /// End a membership.
    RemoveMember { person: PersonId, reason: String },
    /// Set a membership's end.
    SetExpiry { person: PersonId, expires: Option<Millis> },
    /// Give a role.
    GrantRole { person: PersonId, role: RoleName },
    /// Take a role.
    WithdrawRole { person: PersonId, role: RoleName },
    /// Make a group.
    CreateGroup { name: GroupName },
    /// Delete a group.
    DeleteGroup { name: GroupName },
    /// Put a member into a group.
    AddToGroup { name: GroupName, person: PersonId },
    /// Take a member out of a group.
    RemoveFromGroup { name: GroupName, person: PersonId },
    /// Offer the own site's share.
    OfferShare { site: SiteId, terms: Terms },
    /// End the own site's share; `version` is its last offer.
    WithdrawShare { site: SiteId, version: u32, reason: String },
    /// Accept a site's offer.
    AcceptShare { site: SiteId, version: u32 },
    /// Refuse a site's offer.
    RefuseShare { site: SiteId, version: u32, reason: String },
    /// End a site's share from the VO's side.
    EndShare { site: SiteId, reason: String },
    /// Suspend the VO.
    SuspendVo { reason: String },
    /// Resume the VO.
    ResumeVo,
    /// Set the VO's lease.
    SetLease { lease_s: u64 },
    /// Set for how long after a sign-in the VO's credentials are renewed.
    SetRenewal { renewal_s: u64 },
    /// Note a volume.
    MakeVolume { name: String },
    /// Have opened files noted, or no longer.
    SetFileAudit { opens: bool },
}

impl Command {
    /// What one must be allowed to do for it, in this VO as it is.
    pub fn action(&self, vo: &Vo, asker: Option<&PersonId>) -> Action {
        let of = |person: &PersonId, plain: Action| {
            let high = vo.members.get(person).is_some_and(Member::privileged);
            if high { Action::ManagePrivileged } else { plain }
        };
        match self {
            Command::Apply { .. } | Command::WithdrawApplication => Action::Apply,
            Command::Approve { roles, .. } if roles.iter().any(privileged) => {
                Action::ManagePrivileged
            }
            Command::Approve { .. } | Command::Reject { .. } => Action::Admit,
            Command::RemoveMember { person, .. } if asker == Some(person) => Action::Leave,
            Command::SuspendMember { person, .. }
            | Command::ResumeMember { person }
            | Command::RemoveMember { person, .. }
            | Command::SetExpiry { person, .. } => of(person, Action::ManageMember),
            Command::GrantRole { role, .. } | Command::WithdrawRole { role, .. }
                if privileged(role) =>
            {
                Action::ManagePrivileged
            }
            Command::GrantRole { .. } => Action::ManageRole,
            Command::WithdrawRole { person, .. } if asker != Some(person) => {
                of(person, Action::ManageRole)
            }
            Command::WithdrawRole { .. } => Action::ManageRole,
            Command::RemoveFromGroup { person, .. } if asker != Some(person) => {
                of(person, Action::ManageGroup)
            }
            Command::CreateGroup { .. }
            | Command::DeleteGroup { .. }
            | Command::AddToGroup { .. }
            | Command::RemoveFromGroup { .. } => Action::ManageGroup,
            Command::OfferShare { .. } | Command::WithdrawShare { .. } => Action::OfferShare,
            Command::AcceptShare { .. }
            | Command::RefuseShare { .. }
            | Command::EndShare { .. } => Action::ManageShare,
            Command::ResumeVo if matches!(vo.state, VoState::Suspended { by_site: true, .. }) => {
                Action::OverruleSite
            }
            Command::SuspendVo { .. } | Command::ResumeVo => Action::SuspendVo,
            Command::SetLease { .. } => Action::SetLease,
            Command::SetRenewal { .. } => Action::SetRenewal,
            Command::MakeVolume { .. } => Action::MakeVolume,
            Command::SetFileAudit { .. } => Action::SetFileAudit,
        }
    }

    /// Whether it may be done in a suspended VO: what lets it work again, and what only takes.
    fn allowed_suspended(&self) -> bool {
        matches!(
            self,
            Command::ResumeVo
                | Command::SuspendVo { .. }
                | Command::SuspendMember { .. }
                | Command::RemoveMember { .. }
                | Command::WithdrawRole { .. }
                | Command::WithdrawApplication
                | Command::WithdrawShare { .. }
                | Command::EndShare { .. }
        )
    }
}

/// The change that `command` makes; `None` when it is so already and asking twice is no error.
///
/// # Errors
/// Why not, for the person who asked.
pub fn decide(
    vo: &Vo,
    command: &Command,
    grant: &Grant,
    now: Millis,
) -> Result<Option<Change>, Error> {
    let needed = command.action(vo, grant.subject().person());
    if grant.vo() != &vo.id || grant.action() != needed {
        return Err(Error::internal("a grant was used for something else"));
    }
    if !vo.active() && !command.allowed_suspended() {
        let who = match vo.state {
            VoState::Suspended { by_site: true, .. } => "an administrator of its home site",
            _ => "its owner",
        };
        return Err(Error::denied(format!("{} is suspended: nothing can change in it", vo.id))
            .hint(format!("{who} resumes it with `xos vo resume-vo {}`", vo.id)));
    }
    let Some(change) = propose(vo, command, grant, now)? else { return Ok(None) };
    vo.check_change(&change)?;
    Ok(Some(change))
}

fn propose(
    vo: &Vo,
    command: &Command,
    grant: &Grant,
    now: Millis,
) -> Result<Option<Change>, Error> {
    let change = match command.clone() {
        Command::Apply { message } => Change::Applied { person: asker(grant)?, message },
        Command::WithdrawApplication => Change::ApplicationWithdrawn { person: asker(grant)? },
        Command::Approve { person, groups, roles, expires } => {
            approve(vo, grant, now, person, groups, roles, expires)?
        }
        Command::Reject { person, reason } => Change::ApplicationRejected { person, reason },
        Command::SuspendMember { person, reason } => Change::MemberSuspended { person, reason },
        Command::ResumeMember { person } => {
            not_oneself(grant, &person, "resume")?;
            Change::MemberResumed { person }
        }
        Command::RemoveMember { person, reason } => Change::MemberRemoved { person, reason },
        Command::SetExpiry { person, expires } => {
            in_future(expires, now)?;
            if vo.members.get(&person).is_some_and(|m| m.expires == expires) {
                return Ok(None);
            }
            Change::MemberExpirySet { person, expires }
        }
        Command::GrantRole { person, role } => Change::RoleGranted { person, role },
        Command::WithdrawRole { person, role } => Change::RoleWithdrawn { person, role },
        Command::CreateGroup { name } => {
            Change::GroupCreated { name, number: GroupNumber(vo.next_group) }
        }
        Command::DeleteGroup { name } => Change::GroupDeleted { name },
        Command::AddToGroup { name, person } => Change::GroupMemberAdded { name, person },
        Command::RemoveFromGroup { name, person } => Change::GroupMemberRemoved { name, person },
        Command::AcceptShare { site, version } => {
            let offered = vo.shares.get(&site).and_then(|s| s.offered.as_ref());
            if let Some(terms) = offered.filter(|t| t.version == version) {
                in_future(terms.until, now)?;
            }
            Change::ShareAccepted { site, version }
        }
        Command::RefuseShare { site, version, reason } => {
            Change::ShareRefused { site, version, reason }
        }
        Command::EndShare { site, reason } => Change::ShareWithdrawn { site, reason },
        Command::OfferShare { site, terms } => return offer(vo, grant, now, site, terms),
        Command::WithdrawShare { site, version, reason } => {
            own_site(grant, &site)?;
            let share = vo.shares.get(&site);
            let over = share.is_none_or(|s| s.accepted.is_none() && s.offered.is_none());
            // A withdrawal that comes late must not end the offer made after it.
            if over || share.is_some_and(|s| s.last > version) {
                return Ok(None);
            }
            Change::ShareWithdrawn { site, reason }
        }
        Command::SuspendVo { reason } => {
            Change::VoSuspended { reason, by_site: !grant.has(Role::Owner) }
        }
        Command::ResumeVo => Change::VoResumed {},
        Command::SetLease { lease_s } if vo.lease_s() == lease_s => return Ok(None),
        Command::SetLease { lease_s } => Change::LeaseSet { lease_s },
        Command::SetRenewal { renewal_s } if vo.renewal_s() == renewal_s => return Ok(None),
        Command::SetRenewal { renewal_s } => Change::RenewalSet { renewal_s },
        Command::MakeVolume { name } if vo.volumes.contains(&name) => return Ok(None),
        Command::MakeVolume { name } => Change::VolumeMade { name },
        Command::SetFileAudit { opens } if vo.audit_opens == opens => return Ok(None),
        Command::SetFileAudit { opens } => Change::FileAuditSet { opens },
    };
    Ok(Some(change))
}

fn asker(grant: &Grant) -> Result<PersonId, Error> {
    grant
        .subject()
        .person()
        .cloned()
        .ok_or_else(|| Error::denied(format!("{} is not a person", grant.subject())))
}

fn not_oneself(grant: &Grant, person: &PersonId, what: &str) -> Result<(), Error> {
    if grant.subject().person() == Some(person) && !grant.has(Role::Owner) {
        return Err(Error::denied(format!("you cannot {what} yourself"))
            .hint("ask another administrator of the VO"));
    }
    Ok(())
}

fn in_future(time: Option<Millis>, now: Millis) -> Result<(), Error> {
    match time {
        Some(t) if t <= now => {
            Err(Error::invalid(format!("{t} is past; it is {now} now")).hint("name a later time"))
        }
        _ => Ok(()),
    }
}

fn approve(
    vo: &Vo,
    grant: &Grant,
    now: Millis,
    person: PersonId,
    groups: Vec<GroupName>,
    roles: Vec<RoleName>,
    expires: Option<Millis>,
) -> Result<Change, Error> {
    not_oneself(grant, &person, "admit")?;
    in_future(expires, now)?;
    if !vo.members.contains_key(&person) && !vo.applications.contains_key(&person) {
        return Err(crate::state::Violation::NoApplication(person).into());
    }
    let number = MemberNumber(vo.next_member);
    let epoch = vo.next_epoch(&person);
    Ok(Change::Admitted { person, number, epoch, groups, roles, expires })
}

fn own_site(grant: &Grant, site: &SiteId) -> Result<(), Error> {
    if grant.subject().actor() == xos_api::vom::Actor::Site(site.clone()) {
        Ok(())
    } else {
        Err(Error::denied(format!("{} does not speak for site {site}", grant.subject())))
    }
}

fn offer(
    vo: &Vo,
    grant: &Grant,
    now: Millis,
    site: SiteId,
    terms: Terms,
) -> Result<Option<Change>, Error> {
    own_site(grant, &site)?;
    if let Some(s) = vo.shares.get(&site) {
        let known = |t: &Option<Terms>| t.as_ref() == Some(&terms);
        if known(&s.offered) || known(&s.accepted) {
            return Ok(None);
        }
    }
    in_future(terms.until, now)?;
    Ok(Some(Change::ShareOffered { site, terms }))
}

#[cfg(test)]
mod tests;
