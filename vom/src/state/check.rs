//! Which changes may follow.

use super::structure::Fault;
use super::{
    APPLICATIONS_MAX, EnrolmentFault, GROUP_NUMBER_MAX, GROUPS_MAX, LOG_ENTRIES_MAX,
    LOG_RESERVED_FROM, MEMBER_NUMBER_MAX, MEMBERS_MAX, Member, SHARES_MAX, VOLUMES_MAX, Vo,
};
use crate::text::{self, TextFault};
use std::collections::BTreeSet;
use xos_api::vom::{
    Change, DESCRIPTION_MAX, Entry, GRACE_S_MAX, GROUP_MEMBERS, LEASE_S_MAX, LEASE_S_MIN,
    MEMBER_GROUPS_MAX, MEMBER_ROLES_MAX, MESSAGE_MAX, MemberState, REASON_MAX, RENEWAL_S_MAX,
    RENEWAL_S_MIN, TITLE_MAX, Terms, VOLUME_NAME_MAX, VoState,
};
use xos_base::membership::ROLE_OWNER;
use xos_base::{Error, GroupName, Kind, Millis, PersonId, RoleName, SiteId};

/// Why a change cannot follow. Who acts: the requester, who looks again; for [`Violation::Number`],
/// [`Violation::NotFounded`], [`Violation::Time`] and [`Violation::Epoch`], which no request can
/// cause, the home site's administrator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The messages say it.
pub enum Violation {
    #[error("the log does not begin with the founding of the VO, or has it twice")]
    NotFounded,
    #[error("a number is out of order")]
    Number,
    #[error("the time goes backwards")]
    Time,
    #[error("an epoch does not rise")]
    Epoch,
    #[error("{0} is not a member")]
    NotMember(PersonId),
    #[error("{0} is a member already")]
    Member(PersonId),
    #[error("{0} has applied already")]
    HasApplied(PersonId),
    #[error("{0} has not applied, or the application was decided already")]
    NoApplication(PersonId),
    #[error("{0} is suspended already")]
    MemberSuspended(PersonId),
    #[error("{0} is not suspended")]
    MemberActive(PersonId),
    #[error("there is no group {0}")]
    NoGroup(GroupName),
    #[error("there is a group {0} already")]
    Group(GroupName),
    #[error("everybody is in the group {0}: it cannot be changed")]
    BuiltIn(GroupName),
    #[error("{1} is in the group {0} already")]
    InGroup(GroupName, PersonId),
    #[error("{1} is not in the group {0}")]
    NotInGroup(GroupName, PersonId),
    #[error("{1} holds the role {0} already")]
    HasRole(RoleName, PersonId),
    #[error("{1} does not hold the role {0}")]
    NoRole(RoleName, PersonId),
    #[error("{0} is the only owner who can act without an end")]
    LastOwner(PersonId),
    #[error("an owner's membership cannot have an end")]
    OwnerExpires,
    #[error("site {0} has no offer of that version that waits")]
    NoOffer(SiteId),
    #[error("site {0} gives no share")]
    NoShare(SiteId),
    #[error("site {0} made a later offer already")]
    OldOffer(SiteId),
    #[error("the share is empty: it has neither processors with memory nor storage")]
    EmptyShare,
    #[error("the VO is suspended already")]
    Suspended,
    #[error("the VO is not suspended")]
    Active,
    #[error("the VO has that volume already")]
    Volume,
    #[error(
        "a volume is named by 1 to {VOLUME_NAME_MAX} of a-z, 0-9 and '-', beginning with a letter"
    )]
    VolumeName,
    #[error("a lease lasts from {} to {}", span(LEASE_S_MIN), span(LEASE_S_MAX))]
    Lease,
    #[error("work is held for at most {} after the lease", span(GRACE_S_MAX))]
    Grace,
    #[error(
        "credentials are renewed for {} to {} after a sign-in",
        span(RENEWAL_S_MIN),
        span(RENEWAL_S_MAX)
    )]
    Renewal,
    #[error("{0}")]
    OldRules(String),
    #[error("{0}")]
    Rule(String),
    #[error("the VO has reached its limit of {0} {1}")]
    Limit(u64, &'static str),
    #[error("the VO's log is nearly full: it only takes what ends or suspends something")]
    NearlyFull,
    #[error("the {0} {1}")]
    Text(&'static str, TextFault),
    #[error("{0}")]
    Enrolment(EnrolmentFault),
    #[error("{0}")]
    Structure(Fault),
}

/// A length of time in the largest unit of which it is a whole number.
fn span(s: u64) -> String {
    match s {
        _ if s.is_multiple_of(24 * 3600) => format!("{} d", s / (24 * 3600)),
        _ if s.is_multiple_of(3600) => format!("{} h", s / 3600),
        _ if s.is_multiple_of(60) => format!("{} min", s / 60),
        _ => format!("{s} s"),
    }
}

impl From<Violation> for Error {
    fn from(v: Violation) -> Error {
        let kind = match &v {
            Violation::NotMember(_)
            | Violation::NoApplication(_)
            | Violation::NoGroup(_)
            | Violation::NoOffer(_)
            | Violation::NoShare(_) => Kind::NotFound,
            Violation::Text(..)
            | Violation::VolumeName
            | Violation::Lease
            | Violation::Grace
            | Violation::Renewal
            | Violation::Rule(_)
            | Violation::EmptyShare
            | Violation::OwnerExpires => Kind::Invalid,
            Violation::Limit(..) | Violation::NearlyFull => Kind::TooLarge,
            Violation::NotFounded | Violation::Number | Violation::Time | Violation::Epoch => {
                Kind::Internal
            }
            Violation::Enrolment(fault) => fault.kind(),
            Violation::Structure(fault) => fault.kind(),
            _ => Kind::Conflict,
        };
        let e = Error::new(kind, v.to_string());
        match v {
            Violation::LastOwner(_) => e.hint("make somebody else an owner first"),
            Violation::OwnerExpires => e.hint("give the role of owner without an end"),
            Violation::Structure(fault) => match fault.hint() {
                Some(hint) => e.hint(hint),
                None => e,
            },
            Violation::NearlyFull => e.hint("found a new VO for further work"),
            Violation::OldRules(_) => {
                e.hint("look at the rules again, and make your change to those")
            }
            Violation::NoOffer(_) => e.hint("look at the shares again and name the version shown"),
            Violation::Enrolment(fault) => match fault.hint() {
                Some(hint) => e.hint(hint),
                None => e,
            },
            _ => e,
        }
    }
}

type Checked = Result<(), Violation>;

/// The VO's texts.
pub(super) fn described(title: &str, description: &str) -> Checked {
    text::line(title, TITLE_MAX).map_err(|e| Violation::Text("title", e))?;
    text::lines(description, DESCRIPTION_MAX).map_err(|e| Violation::Text("description", e))
}

fn reason(text: &str) -> Checked {
    text::lines(text, REASON_MAX).map_err(|e| Violation::Text("reason", e))
}

fn limit(full: bool, max: u64, what: &'static str) -> Checked {
    if full { Err(Violation::Limit(max, what)) } else { Ok(()) }
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> Violation) -> Checked {
    if holds { Ok(()) } else { Err(otherwise()) }
}

impl Vo {
    /// Whether `entry` may follow: its number, its time and its change.
    ///
    /// # Errors
    /// The first [`Violation`] found.
    pub fn check(&self, entry: &Entry) -> Checked {
        ensure(entry.vo == self.id, || Violation::Number)?;
        ensure(entry.number == self.number.saturating_add(1), || Violation::Number)?;
        limit(entry.number > LOG_ENTRIES_MAX, LOG_ENTRIES_MAX, "changes")?;
        ensure(entry.number < LOG_RESERVED_FROM || ends(&entry.change), || Violation::NearlyFull)?;
        ensure(entry.time >= self.time, || Violation::Time)?;
        self.timely(entry)?;
        self.check_change(&entry.change)
    }

    /// Whether the log takes only what ends something.
    pub(super) fn nearly_full(&self) -> bool {
        self.number.saturating_add(1) >= LOG_RESERVED_FROM
    }

    /// Whether `change` may be the next one.
    ///
    /// # Errors
    /// The first [`Violation`] found.
    pub fn check_change(&self, change: &Change) -> Checked {
        self.takes(change)?;
        match change {
            Change::Founded { .. } => Err(Violation::NotFounded),
            Change::Applied { person, message, agreed, answers, invitation } => {
                self.may_apply(person, message)?;
                self.may_enrol(*agreed, answers.as_deref())?;
                invitation.as_ref().map_or(Ok(()), |id| self.may_come_by(id, person))
            }
            Change::ApplicationWithdrawn { person } => self.applicant(person),
            Change::ApplicationRejected { person, reason: r } => {
                reason(r).and_then(|()| self.applicant(person))
            }
            Change::Admitted { .. } => self.may_admit(change),
            Change::MemberSuspended { person, reason: r } => {
                reason(r)?;
                let m = self.member(person)?;
                ensure(m.state == MemberState::Active, || {
                    Violation::MemberSuspended(person.clone())
                })?;
                self.leaves_an_owner(person)
            }
            Change::MemberResumed { person } => {
                let m = self.member(person)?;
                ensure(m.state != MemberState::Active, || Violation::MemberActive(person.clone()))
            }
            Change::MemberRemoved { person, reason: r } => {
                reason(r)?;
                self.member(person)?;
                self.leaves_an_owner(person)
            }
            Change::MemberExpirySet { person, expires } => {
                self.member(person)?;
                let owner = self.owners.contains(person);
                ensure(!(owner && expires.is_some()), || Violation::OwnerExpires)
            }
            Change::RoleGranted { person, role } => self.may_grant(person, role),
            Change::RoleWithdrawn { person, role } => {
                let m = self.member(person)?;
                ensure(m.roles.contains(role), || Violation::NoRole(role.clone(), person.clone()))?;
                if role.as_str() == ROLE_OWNER { self.leaves_an_owner(person) } else { Ok(()) }
            }
            Change::GroupCreated { .. }
            | Change::GroupDeleted { .. }
            | Change::GroupMemberAdded { .. }
            | Change::GroupMemberRemoved { .. } => self.check_group(change),
            Change::SubgroupCreated { .. }
            | Change::GroupMoved { .. }
            | Change::GroupManagerAdded { .. }
            | Change::GroupManagerRemoved { .. }
            | Change::HandoverOffered { .. }
            | Change::HandoverAccepted { .. }
            | Change::HandoverEnded { .. }
            | Change::VoDissolved { .. }
            | Change::VoRestored {}
            | Change::VoErased {} => Ok(self.check_structure(change)?),
            Change::ShareOffered { .. }
            | Change::ShareAccepted { .. }
            | Change::ShareRefused { .. }
            | Change::ShareWithdrawn { .. } => self.check_share(change),
            Change::VoSuspended { reason: r, by_site } => {
                reason(r)?;
                // An owner's own suspension, which the owner may end, does not stop the site's.
                let stronger = matches!(self.state, VoState::Suspended { by_site: false, .. });
                ensure(self.active() || (*by_site && stronger), || Violation::Suspended)
            }
            Change::VoResumed {} => ensure(!self.active(), || Violation::Active),
            Change::VolumeMade { name } => {
                ensure(volume_name(name), || Violation::VolumeName)?;
                ensure(!self.volumes.contains(name), || Violation::Volume)?;
                limit(self.volumes.len() >= VOLUMES_MAX, VOLUMES_MAX as u64, "volumes")
            }
            Change::Described { title, description } => described(title, description),
            Change::LeaseSet { lease_s } => {
                ensure((LEASE_S_MIN..=LEASE_S_MAX).contains(lease_s), || Violation::Lease)
            }
            Change::GraceSet { grace_s } => ensure(*grace_s <= GRACE_S_MAX, || Violation::Grace),
            Change::RenewalSet { renewal_s } => {
                ensure((RENEWAL_S_MIN..=RENEWAL_S_MAX).contains(renewal_s), || Violation::Renewal)
            }
            Change::RulesChanged { .. } => self.check_rules(change),
            Change::TermsOfUseSet { .. }
            | Change::Agreed { .. }
            | Change::QuestionsSet { .. }
            | Change::RemindersSet { .. }
            | Change::InvitationMade { .. }
            | Change::InvitationWithdrawn { .. }
            | Change::Joined { .. } => self.check_enrolling(change),
            Change::FileAuditSet { .. } => Ok(()),
        }
    }

    pub(super) fn member(&self, person: &PersonId) -> Result<&Member, Violation> {
        self.members.get(person).ok_or_else(|| Violation::NotMember(person.clone()))
    }

    fn applicant(&self, person: &PersonId) -> Checked {
        ensure(self.applications.contains_key(person), || Violation::NoApplication(person.clone()))
    }

    fn may_apply(&self, person: &PersonId, message: &str) -> Checked {
        text::lines(message, MESSAGE_MAX).map_err(|e| Violation::Text("message", e))?;
        ensure(!self.members.contains_key(person), || Violation::Member(person.clone()))?;
        ensure(!self.applications.contains_key(person), || Violation::HasApplied(person.clone()))?;
        let full = self.applications.len() >= APPLICATIONS_MAX;
        limit(full, APPLICATIONS_MAX as u64, "open applications")
    }

    pub(super) fn may_admit(&self, change: &Change) -> Checked {
        let Change::Admitted { person, number, epoch, groups, roles, expires } = change else {
            return Err(Violation::NotFounded);
        };
        ensure(!self.members.contains_key(person), || Violation::Member(person.clone()))?;
        ensure(number.0 == self.next_member, || Violation::Number)?;
        limit(number.0 > MEMBER_NUMBER_MAX, MEMBER_NUMBER_MAX.into(), "member numbers")?;
        limit(self.members.len() >= MEMBERS_MAX, MEMBERS_MAX as u64, "members")?;
        ensure(*epoch == self.next_epoch(person), || Violation::Epoch)?;
        let all = self.with_those_above(groups).len();
        limit(all > MEMBER_GROUPS_MAX, MEMBER_GROUPS_MAX as u64, "groups of a member")?;
        limit(roles.len() > MEMBER_ROLES_MAX, MEMBER_ROLES_MAX as u64, "roles of a member")?;
        let mut seen = BTreeSet::new();
        for g in groups {
            self.own_group(g)?;
            ensure(seen.insert(g), || Violation::InGroup(g.clone(), person.clone()))?;
        }
        let mut seen = BTreeSet::new();
        for r in roles {
            ensure(seen.insert(r), || Violation::HasRole(r.clone(), person.clone()))?;
        }
        let owner = roles.iter().any(|r| r.as_str() == ROLE_OWNER);
        ensure(!(owner && expires.is_some()), || Violation::OwnerExpires)
    }

    fn may_grant(&self, person: &PersonId, role: &RoleName) -> Checked {
        let m = self.member(person)?;
        ensure(!m.roles.contains(role), || Violation::HasRole(role.clone(), person.clone()))?;
        let owner = role.as_str() == ROLE_OWNER;
        ensure(!(owner && m.expires.is_some()), || Violation::OwnerExpires)?;
        let full = m.roles.len() >= MEMBER_ROLES_MAX;
        limit(full, MEMBER_ROLES_MAX as u64, "roles of a member")
    }

    /// Some owner other than `person` can act.
    fn leaves_an_owner(&self, person: &PersonId) -> Checked {
        if !self.owners.contains(person) {
            return Ok(());
        }
        // Owners have no end, hence the time does not matter.
        let other = self.owners.iter().any(|o| o != person && self.acts(o, Millis(0)));
        ensure(other, || Violation::LastOwner(person.clone()))
    }

    /// A group other than the built-in one.
    pub(super) fn own_group(&self, name: &GroupName) -> Checked {
        ensure(name.as_str() != GROUP_MEMBERS, || Violation::BuiltIn(name.clone()))?;
        ensure(self.groups.contains_key(name), || Violation::NoGroup(name.clone()))
    }

    fn check_group(&self, change: &Change) -> Checked {
        match change {
            Change::GroupCreated { name, number } => {
                ensure(!self.groups.contains_key(name), || Violation::Group(name.clone()))?;
                ensure(number.0 == self.next_group, || Violation::Number)?;
                limit(number.0 > GROUP_NUMBER_MAX, GROUP_NUMBER_MAX.into(), "group numbers")?;
                limit(self.groups.len() >= GROUPS_MAX, GROUPS_MAX as u64, "groups")
            }
            Change::GroupDeleted { name } => {
                self.own_group(name)?;
                Ok(self.may_delete(name)?)
            }
            Change::GroupMemberAdded { name, person } => {
                self.own_group(name)?;
                let m = self.member(person)?;
                let inside = m.groups.contains(name);
                ensure(!inside, || Violation::InGroup(name.clone(), person.clone()))?;
                Ok(self.has_room(&m.groups, name)?)
            }
            Change::GroupMemberRemoved { name, person } => {
                self.own_group(name)?;
                let inside = self.member(person)?.groups.contains(name);
                ensure(inside, || Violation::NotInGroup(name.clone(), person.clone()))
            }
            _ => Ok(()),
        }
    }

    fn check_share(&self, change: &Change) -> Checked {
        match change {
            Change::ShareOffered { site, terms } => {
                let last = self.shares.get(site).map_or(0, |s| s.last);
                ensure(terms.version > last, || Violation::OldOffer(site.clone()))?;
                ensure(!empty(terms), || Violation::EmptyShare)?;
                let full = !self.shares.contains_key(site) && self.shares.len() >= SHARES_MAX;
                limit(full, SHARES_MAX as u64, "sites with a share")
            }
            Change::ShareAccepted { site, version } => self.waiting(site, *version),
            Change::ShareRefused { site, version, reason: r } => {
                reason(r).and_then(|()| self.waiting(site, *version))
            }
            Change::ShareWithdrawn { site, reason: r } => {
                reason(r)?;
                let some = self
                    .shares
                    .get(site)
                    .is_some_and(|s| s.accepted.is_some() || s.offered.is_some());
                ensure(some, || Violation::NoShare(site.clone()))
            }
            _ => Ok(()),
        }
    }

    fn waiting(&self, site: &SiteId, version: u32) -> Checked {
        let offered = self.shares.get(site).and_then(|s| s.offered.as_ref());
        let waits = offered.is_some_and(|t| t.version == version);
        ensure(waits, || Violation::NoOffer(site.clone()))
    }
}

/// Whether a change only takes: such can come a bounded number of times without others between,
/// but for what owners and the site do to the VO as a whole.
fn ends(change: &Change) -> bool {
    matches!(
        change,
        Change::MemberSuspended { .. }
            | Change::MemberRemoved { .. }
            | Change::RoleWithdrawn { .. }
            | Change::GroupMemberRemoved { .. }
            | Change::GroupDeleted { .. }
            | Change::GroupManagerRemoved { .. }
            | Change::HandoverEnded { .. }
            | Change::VoDissolved { .. }
            | Change::VoRestored {}
            | Change::VoErased {}
            | Change::ApplicationRejected { .. }
            | Change::ShareRefused { .. }
            | Change::ShareWithdrawn { .. }
            | Change::VoSuspended { .. }
            | Change::VoResumed {}
            | Change::InvitationWithdrawn { .. }
    )
}

/// Whether a share gives nothing to run on.
fn empty(terms: &Terms) -> bool {
    (terms.cpu_milli == 0 || terms.memory_bytes == 0) && terms.storage_bytes == 0
}

fn volume_name(name: &str) -> bool {
    let b = name.as_bytes();
    !b.is_empty()
        && b.len() <= VOLUME_NAME_MAX
        && b[0].is_ascii_lowercase()
        && b[b.len() - 1] != b'-'
        && b.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-')
}
