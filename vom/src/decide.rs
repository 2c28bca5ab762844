//! From a command to the change that it makes, without I/O.

mod enrolment;
mod structure;

pub use structure::Structural;

use crate::policy::{Action, Grant, Role};
use crate::state::{Member, Vo, inviting, privileged};
use serde::Serialize;
use xos_api::policy::{Rule, RuleName};
use xos_api::vom::{Change, Gives, Question, Terms, VoState};
use xos_base::{Error, GroupName, GroupNumber, MemberNumber, Millis, PersonId, RoleName, SiteId};

/// What somebody wants changed in one VO. Encoded only for the audit, of which the variant's name
/// is the event's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // The fields are those of the requests in `xos_api::vom`.
pub enum Command {
    /// Become a member.
    Apply { message: String, words: Words },
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
    /// Change what the VO is called and what it is for.
    DescribeVo { title: String, description: String, base: Option<u64> },
    /// Set the VO's lease.
    SetLease { lease_s: u64, base: Option<u64> },
    /// Set for how long the VO's work is held once the lease is over.
    SetGrace { grace_s: u64, base: Option<u64> },
    /// Set for how long after a sign-in the VO's credentials are renewed.
    SetRenewal { renewal_s: u64, base: Option<u64> },
    /// Note a volume.
    MakeVolume { name: String },
    /// Change the VO's rules: a part of it, as [`Change::RulesChanged`].
    ChangeRules { base: u64, part: u32, more: bool, put: Vec<Rule>, remove: Vec<RuleName> },
    /// Set the terms of use.
    SetTermsOfUse { text: String, consent_days: Option<u32>, grace_days: u32 },
    /// Agree to the terms of use.
    Agree { version: u32 },
    /// Set what applicants are asked.
    SetQuestions { questions: Vec<Question> },
    /// Set how many days before an end people are reminded.
    SetReminders { days: Vec<u32>, base: Option<u64> },
    /// Make an invitation.
    Invite { id: String, hash: String, gives: Gives, hint: Option<String> },
    /// Withdraw an invitation.
    WithdrawInvitation { id: String },
    /// Come in by the invitation whose secret has this hash.
    Join { hash: String, message: String, words: Words },
    /// Have opened files noted, or no longer.
    SetFileAudit { opens: bool, base: Option<u64> },
    /// Change how the VO is built, or end it.
    #[serde(untagged)]
    Structure(Structural),
}

/// What somebody says who comes in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Words {
    /// The version of the terms of use that they agree to.
    pub agreed: Option<u32>,
    /// Their answers.
    pub answers: Option<Sealed>,
}

/// Answers that are kept at the home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sealed {
    /// Their salted digest.
    pub digest: String,
    /// The number of the entry that set the questions which they answer.
    pub asked: u64,
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
            Command::Approve { person, roles, .. }
                if roles.iter().any(privileged) || vo.invited_high(person) =>
            {
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
            Command::AddToGroup { name, person } | Command::RemoveFromGroup { name, person }
                if of(person, Action::ManageGroup) == Action::ManageGroup
                    && asker.is_some_and(|a| vo.manages(a, name)) =>
            {
                Action::ManageOwnGroup
            }
            Command::RemoveFromGroup { person, .. } if asker != Some(person) => {
                of(person, Action::ManageGroup)
            }
            // Else it would void the credentials of those whom an administrator does not touch.
            Command::DeleteGroup { name } if vo.privileged_in(name, asker) => {
                Action::ManagePrivileged
            }
            Command::Structure(structural) => structural.action(vo, asker),
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
            Command::DescribeVo { .. } => Action::DescribeVo,
            Command::SetLease { .. } => Action::SetLease,
            Command::SetGrace { .. } => Action::SetGrace,
            Command::SetRenewal { .. } => Action::SetRenewal,
            Command::MakeVolume { .. } => Action::MakeVolume,
            Command::ChangeRules { .. } => Action::ManageRules,
            Command::Agree { .. } => Action::Agree,
            // It would stop owners too, before they could agree.
            Command::SetTermsOfUse { grace_days, .. }
                if *grace_days < 1
                    || vo.enrolling.terms.as_ref().is_some_and(|t| *grace_days < t.grace_days) =>
            {
                Action::ManagePrivileged
            }
            Command::SetTermsOfUse { .. }
            | Command::SetQuestions { .. }
            | Command::SetReminders { .. } => Action::SetEnrolment,
            Command::Invite { gives, .. } => inviting(gives),
            Command::WithdrawInvitation { .. } => Action::Invite,
            Command::Join { .. } => Action::Apply,
            Command::SetFileAudit { .. } => Action::SetFileAudit,
        }
    }

    /// The version of the settings that it was made from, if it says so.
    fn base(&self) -> Option<u64> {
        match self {
            Command::DescribeVo { base, .. }
            | Command::SetLease { base, .. }
            | Command::SetGrace { base, .. }
            | Command::SetRenewal { base, .. }
            | Command::SetReminders { base, .. }
            | Command::SetFileAudit { base, .. } => *base,
            _ => None,
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
                | Command::WithdrawInvitation { .. }
        ) || matches!(self, Command::Structure(s) if s.allowed_halted())
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
        return Err(structure::halted(vo));
    }
    let Some(change) = propose(vo, command, grant, now)? else { return Ok(None) };
    if command.base().is_some_and(|base| base != vo.settings) {
        return Err(Error::conflict(format!("the settings of {} are others meanwhile", vo.id))
            .hint("look at them again, and change what is still to be changed"));
    }
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
        Command::Apply { message, words } => {
            enrolment::apply(vo, asker(grant)?, message, words, None)?
        }
        Command::WithdrawApplication => Change::ApplicationWithdrawn { person: asker(grant)? },
        Command::Approve { person, groups, roles, expires } => {
            let (groups, roles, expires) = vo.with_invited(&person, groups, roles, expires, now);
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
        Command::Structure(structural) => structural.propose(vo, grant)?,
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
        Command::DescribeVo { title, description, .. }
            if vo.title == title && vo.description == description =>
        {
            return Ok(None);
        }
        Command::DescribeVo { title, description, .. } => Change::Described { title, description },
        Command::SetLease { lease_s, .. } if vo.lease_s() == lease_s => return Ok(None),
        Command::SetLease { lease_s, .. } => Change::LeaseSet { lease_s },
        Command::SetGrace { grace_s, .. } if vo.grace_s() == grace_s => return Ok(None),
        Command::SetGrace { grace_s, .. } => Change::GraceSet { grace_s },
        Command::SetRenewal { renewal_s, .. } if vo.renewal_s() == renewal_s => return Ok(None),
        Command::SetRenewal { renewal_s, .. } => Change::RenewalSet { renewal_s },
        Command::MakeVolume { name } if vo.volumes.contains(&name) => return Ok(None),
        Command::MakeVolume { name } => Change::VolumeMade { name },
        Command::ChangeRules { base, part, more, put, remove } => {
            Change::RulesChanged { base, part, more, put, remove }
        }
        Command::SetTermsOfUse { .. }
        | Command::Agree { .. }
        | Command::SetQuestions { .. }
        | Command::SetReminders { .. }
        | Command::Invite { .. }
        | Command::WithdrawInvitation { .. }
        | Command::Join { .. } => return enrolment::propose(vo, command, grant, now),
        Command::SetFileAudit { opens, .. } if vo.audit_opens == opens => return Ok(None),
        Command::SetFileAudit { opens, .. } => Change::FileAuditSet { opens },
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
