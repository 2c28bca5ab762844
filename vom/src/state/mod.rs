//! One VO as its log tells it: pure, without I/O.
//!
//! [`Vo::check`] says whether a change may follow; [`Vo::apply`] makes it and cannot fail. The home
//! checks before it signs, every other site before it believes: a hostile home cannot make a site
//! hold two members under one number.

mod accounts;
mod apply;
mod check;
mod enrolment;
mod export;
mod grouped;
mod history;
mod invitations;
mod nested;
mod rules;
mod share;
mod standing;
mod structure;
mod terms;
mod touched;
mod views;

pub use accounts::Block;
pub use check::Violation;
pub use enrolment::{Enrolling, EnrolmentFault, Questions, Said, Whose, answered};
pub use grouped::Grouped;
pub use history::about;
pub use invitations::{INVITATION_ID_LEN, Invitation, inviting};
pub use rules::Staged;
pub use share::{Readable, Share};
pub use standing::owners_hint;
pub use structure::Fault;
pub(crate) use terms::days;
pub use terms::{Consented, TermsInForce};
pub use touched::Touched;
#[cfg(test)]
pub(crate) use touched::tests::check_index;
pub use views::page_size;

use crate::rules::Book;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use xos_api::vom::{
    Application, Change, Entry, GRACE_S_DEFAULT, LEASE_S_DEFAULT, MemberState, RENEWAL_S_DEFAULT,
    VoState,
};
use xos_base::membership::{ROLE_ADMIN, ROLE_OWNER};
use xos_base::{Epoch, GroupName, GroupNumber, MemberNumber, Millis, PersonId, RoleName};
use xos_base::{SiteId, VoId};

/// Most members of one VO.
pub const MEMBERS_MAX: usize = 1_000_000;
/// Largest member number: what is gone keeps its number.
pub const MEMBER_NUMBER_MAX: u32 = 16_000_000;
/// Most groups of one VO.
pub const GROUPS_MAX: usize = 10_000;
/// Largest group number.
pub const GROUP_NUMBER_MAX: u32 = 60_000;
/// Most applications that wait in one VO.
pub const APPLICATIONS_MAX: usize = 10_000;
/// Most sites that ever offered a share to one VO.
pub const SHARES_MAX: usize = 1_000;
/// Most volumes of one VO.
pub const VOLUMES_MAX: usize = 16;
/// Most entries in one VO's log.
pub const LOG_ENTRIES_MAX: u64 = 10_000_000;
/// From this number on the log takes only what ends something, so that whoever fills it does not
/// keep members from being suspended and removed.
pub const LOG_RESERVED_FROM: u64 = LOG_ENTRIES_MAX / 10 * 9;

/// A VO after some number of log entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vo {
    /// Its id.
    pub id: VoId,
    /// The number of the last entry applied.
    pub number: u64,
    /// When that entry was made.
    pub time: Millis,
    /// What it is called.
    pub title: String,
    /// What it is for.
    pub description: String,
    /// When it was founded.
    pub founded: Millis,
    /// Who founded it.
    pub founder: PersonId,
    /// Whether it works.
    pub state: VoState,
    /// Its members.
    pub members: BTreeMap<PersonId, Member>,
    /// Members that are no more, by number.
    pub gone: BTreeMap<MemberNumber, Gone>,
    /// The last epoch of persons who were members.
    pub epochs: BTreeMap<PersonId, Epoch>,
    /// Which person had a name first; only they get it as local account name.
    pub names: BTreeMap<String, PersonId>,
    /// The next member's number.
    pub next_member: u32,
    /// Its groups.
    pub groups: BTreeMap<GroupName, GroupRecord>,
    /// Deleted groups by number, with the number of the entry that deleted them.
    pub groups_gone: BTreeMap<GroupNumber, u64>,
    /// The next group's number.
    pub next_group: u32,
    /// The groups that members manage, by member.
    pub managers: BTreeMap<PersonId, BTreeSet<GroupName>>,
    /// Who manages each of those groups.
    pub managed_by: BTreeMap<GroupName, BTreeSet<PersonId>>,
    /// The members that hold the role of administrator.
    pub admins: BTreeSet<PersonId>,
    /// The members that hold the role of owner.
    pub owners: BTreeSet<PersonId>,
    /// To whom owners offer their ownership.
    pub handovers: BTreeMap<PersonId, PersonId>,
    /// What a dissolved VO was before.
    pub before: Option<VoState>,
    /// Whether it is no more: this site erases it.
    pub erased: bool,
    /// Who waits to become a member.
    pub applications: BTreeMap<PersonId, Application>,
    /// The sites' shares.
    pub shares: BTreeMap<SiteId, Share>,
    /// Its volumes.
    pub volumes: BTreeSet<String>,
    /// Its lease in seconds; absent: it was never set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<u64>,
    /// For how many seconds its work is held once the lease is over; absent: it was never set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<u64>,
    /// For how many seconds after a sign-in its credentials are renewed; absent: it was never set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_s: Option<u64>,
    /// Its rules.
    pub rules: Book,
    /// A change of them that is not complete yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<Staged>,
    /// How one comes into it, and what those said who came.
    #[serde(default, skip_serializing_if = "Enrolling::is_unused")]
    pub enrolling: Enrolling,
    /// Whether the home's audit notes which files are opened.
    pub audit_opens: bool,
    /// The number of the last entry that changed its settings; 0: they are as founded.
    pub settings: u64,
    /// The number of the last entry of which nodes hear: of a change of rules in parts, the last
    /// one.
    pub news: u64,
    /// Who was changed by which entry.
    #[serde(skip)]
    pub touched: Touched,
    /// Who was put into which group.
    #[serde(skip)]
    pub grouped: Grouped,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The number in this VO.
    pub number: MemberNumber,
    /// How often the membership was narrowed.
    pub epoch: Epoch,
    /// The epoch that its last suspension made; before the first one, that of its admission.
    /// Mandates of an earlier epoch are void.
    pub mandates: Epoch,
    /// When it was last suspended, if ever. Sign-ins from before count no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Millis>,
    /// Groups besides `members`.
    pub groups: BTreeSet<GroupName>,
    /// Roles.
    pub roles: BTreeSet<RoleName>,
    /// Since when.
    pub since: Millis,
    /// When it ends by itself.
    pub expires: Option<Millis>,
    /// Whether the member may act.
    pub state: MemberState,
    /// The number of the last entry that changed it.
    pub changed: u64,
}

impl Member {
    /// Whether the member may act at `now`, as far as suspension and end go; see also
    /// [`Vo::consents`].
    pub fn acts(&self, now: Millis) -> bool {
        self.state == MemberState::Active && self.expires.is_none_or(|t| t > now)
    }

    /// Whether the member is an administrator or owner.
    pub fn privileged(&self) -> bool {
        self.roles.iter().any(privileged)
    }
}

/// Whether a role is one of the two that administer the VO.
pub fn privileged(role: &RoleName) -> bool {
    role.as_str() == ROLE_OWNER || role.as_str() == ROLE_ADMIN
}

/// A member that was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gone {
    /// The person.
    pub person: PersonId,
    /// The number of the entry that removed them.
    pub changed: u64,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRecord {
    /// The number in this VO.
    pub number: GroupNumber,
    /// How many members are in it; of `members` not counted here.
    pub count: u64,
    /// The number of the entry that made it.
    pub changed: u64,
    /// The group above it.
    pub parent: Option<GroupName>,
}

impl Vo {
    /// The VO that a log's first entry founds.
    ///
    /// # Errors
    /// [`Violation`] when it is not a sound first entry.
    pub fn found(entry: &Entry) -> Result<Vo, Violation> {
        let Change::Founded { owner, title, description } = &entry.change else {
            return Err(Violation::NotFounded);
        };
        if entry.number != 1 {
            return Err(Violation::NotFounded);
        }
        check::described(title, description)?;
        let mut vo = Vo {
            id: entry.vo.clone(),
            number: 1,
            time: entry.time,
            title: title.clone(),
            description: description.clone(),
            founded: entry.time,
            founder: owner.clone(),
            state: VoState::Active,
            members: BTreeMap::new(),
            gone: BTreeMap::new(),
            epochs: BTreeMap::new(),
            names: BTreeMap::new(),
            next_member: 1,
            groups: BTreeMap::new(),
            groups_gone: BTreeMap::new(),
            next_group: 1,
            managers: BTreeMap::new(),
            managed_by: BTreeMap::new(),
            admins: BTreeSet::new(),
            owners: BTreeSet::new(),
            handovers: BTreeMap::new(),
            before: None,
            erased: false,
            applications: BTreeMap::new(),
            shares: BTreeMap::new(),
            volumes: BTreeSet::new(),
            lease_s: None,
            grace_s: None,
            renewal_s: None,
            rules: Book::of_vo(),
            staged: None,
            enrolling: Enrolling::default(),
            audit_opens: false,
            settings: 0,
            news: 1,
            touched: Touched::default(),
            grouped: Grouped::default(),
        };
        vo.begin(owner);
        Ok(vo)
    }

    /// Whether the person is a member that may act at `now`.
    pub fn acts(&self, person: &PersonId, now: Millis) -> bool {
        self.members.get(person).is_some_and(|m| m.acts(now))
    }

    /// The epoch of a new membership of `person`: above every one they had here.
    pub fn next_epoch(&self, person: &PersonId) -> Epoch {
        Epoch(self.epochs.get(person).map_or(1, |e| e.0.saturating_add(1)))
    }

    /// Its lease in seconds.
    pub fn lease_s(&self) -> u64 {
        self.lease_s.unwrap_or(LEASE_S_DEFAULT)
    }

    /// For how many seconds its work is held once the lease is over.
    pub fn grace_s(&self) -> u64 {
        self.grace_s.unwrap_or(GRACE_S_DEFAULT)
    }

    /// For how many seconds after a sign-in its credentials are renewed.
    pub fn renewal_s(&self) -> u64 {
        self.renewal_s.unwrap_or(RENEWAL_S_DEFAULT)
    }

    /// Whether the VO works.
    pub fn active(&self) -> bool {
        self.state == VoState::Active
    }
}
