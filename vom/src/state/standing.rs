//! What a VO makes of a credential, now.

use super::{Member, Vo};
use xos_api::vom::{GROUP_MEMBERS, MemberState, VoState};
use xos_base::{Epoch, Error, Group, GroupNumber, Membership, Millis, PersonId, RoleName};

/// Most owners named in a hint.
const OWNERS_SHOWN: usize = 3;

impl Vo {
    /// What a credential for `person` says now.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] with whom to ask when there is none.
    pub fn membership(&self, person: &PersonId, now: Millis) -> Result<Membership, Error> {
        let member = self.standing(person, now)?;
        Ok(Membership {
            vo: self.id.clone(),
            person: person.clone(),
            number: member.number,
            epoch: member.epoch,
            groups: self.groups_of(member),
            roles: member.roles.iter().cloned().collect(),
            expires: member.expires,
        })
    }

    /// Whether a mandate that was given under `since` still holds: a suspension ends those made
    /// before it, since whoever made them may not have been the person. Whether what a mandate
    /// carries was taken since is for who gives tickets under it.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] with what to do.
    pub fn mandated(&self, person: &PersonId, since: Epoch) -> Result<(), Error> {
        match self.members.get(person) {
            Some(m) if since < m.mandates => Err(Error::denied(format!(
                "{person} was suspended in {} after the job was submitted",
                self.id
            ))
            .hint("submit the job again")),
            _ => Ok(()),
        }
    }

    /// The right that a credential and this VO give together.
    ///
    /// A credential may know more than this view (it was issued a moment ago) or less (it was
    /// issued before a role was granted): only what both say counts.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] or [`xos_base::Kind::Unauthenticated`] when nothing is left.
    pub fn effective(&self, m: &Membership, now: Millis) -> Result<Membership, Error> {
        let member = self.standing(&m.person, now)?;
        if m.number != member.number || m.epoch < member.epoch {
            return Err(Error::unauthenticated(format!("your membership in {} changed", self.id))
                .hint("sign in again"));
        }
        let expires = match (m.expires, member.expires) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if expires.is_some_and(|t| t <= now) {
            return Err(self.expired(&m.person));
        }
        let here = self.groups_of(member);
        let groups: Vec<Group> = here.into_iter().filter(|g| m.groups.contains(g)).collect();
        if groups.is_empty() {
            return Err(Error::unauthenticated("the credential names no group of the VO")
                .hint("sign in again"));
        }
        let roles: Vec<RoleName> =
            member.roles.iter().filter(|r| m.roles.contains(r)).cloned().collect();
        Ok(Membership {
            vo: self.id.clone(),
            person: m.person.clone(),
            number: m.number,
            epoch: m.epoch,
            groups,
            roles,
            expires,
        })
    }

    /// The member, if VO and membership are in force.
    pub(super) fn standing(&self, person: &PersonId, now: Millis) -> Result<&Member, Error> {
        if let VoState::Suspended { reason, by_site } = &self.state {
            let e = Error::denied(format!("{} is suspended{}", self.id, because(reason)));
            return Err(if *by_site {
                e.hint(format!("ask the administrator of site {}", self.id.site()))
            } else {
                e.hint(owners_hint(self))
            });
        }
        if let VoState::Dissolved { reason, by_site, until } = &self.state {
            let why = because(reason);
            let e = Error::denied(format!("{} was dissolved{why}; erased at {until}", self.id));
            return Err(if *by_site {
                e.hint(format!("ask the administrator of site {}", self.id.site()))
            } else {
                e.hint(owners_hint(self))
            });
        }
        let Some(member) = self.members.get(person) else {
            let e = Error::denied(format!("{person} is not a member of {}", self.id));
            return Err(if self.epochs.contains_key(person) {
                e.hint(owners_hint(self))
            } else {
                e.hint(format!(
                    "if you joined just now, try again in a minute; else ask to join: xos vo \
                     apply {}",
                    self.id
                ))
            });
        };
        if let MemberState::Suspended { reason } = &member.state {
            return Err(Error::denied(format!(
                "your membership in {} is suspended{}",
                self.id,
                because(reason)
            ))
            .hint(owners_hint(self)));
        }
        if member.expires.is_some_and(|t| t <= now) {
            return Err(self.expired(person));
        }
        if !self.consents(person, member, now) {
            return Err(self.lapsed(person));
        }
        Ok(member)
    }

    fn expired(&self, person: &PersonId) -> Error {
        Error::denied(format!("the membership of {person} in {} has expired", self.id))
            .hint(owners_hint(self))
    }

    /// A member's groups and those above: `members` first, as the primary one, then by number.
    pub(super) fn groups_of(&self, member: &Member) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::with_capacity(member.groups.len() + 1);
        for name in self.effective_groups(member) {
            if let Some(g) = self.groups.get(name) {
                groups.push(Group { name: name.clone(), number: g.number });
            }
        }
        if let Ok(name) = GROUP_MEMBERS.parse() {
            groups.push(Group { name, number: GroupNumber(1) });
        }
        groups.sort_by_key(|g| g.number);
        groups
    }
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {}", reason.replace('\n', " ")) }
}

/// Whom to ask about a VO.
pub fn owners_hint(vo: &Vo) -> String {
    let names: Vec<&str> = vo.owners.iter().take(OWNERS_SHOWN).map(PersonId::as_str).collect();
    format!("ask the VO's owner: {}", names.join(", "))
}
