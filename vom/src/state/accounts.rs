//! What a node must hold of a VO: all of it, or what changed since some entry.

use super::{Member, Vo};
use crate::names::NamesOf;
use crate::rules::logins::Logins;
use std::collections::BTreeSet;
use xos_api::vom::{
    ACCOUNT_NAME_MAX, ACCOUNTS_PART_MAX, AccountMember, AccountState, MemberState, VoAccounts,
};
use xos_base::{Epoch, Group, GroupNumber, MemberNumber, Millis, PersonId};

/// A VO's numbers at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    /// uid = base + member number.
    pub base: u32,
    /// Numbers not below it have no account.
    pub size: u32,
}

impl Block {
    /// Whether a member's or group's number has a uid or gid here.
    pub fn holds(self, number: u32) -> bool {
        number < self.size
    }
}

impl Vo {
    /// The accounts, in parts in the order in which they must be sent: everything when `since` is
    /// absent, else what changed after that entry, or in `names` or `logins` since. At least one
    /// part.
    pub(crate) fn accounts(
        &self,
        block: Block,
        state: AccountState,
        since: Option<u64>,
        names: &NamesOf,
        logins: &Logins<'_>,
    ) -> Vec<VoAccounts> {
        let changed = |number: u64| since.is_none_or(|s| number > s);
        let (touched, left) = since.map(|since| self.touched_since(since)).unwrap_or_default();
        let tell = |(person, m): (&PersonId, &Member)| AccountMember {
            refused: logins.refusal(self, person, m),
            ..self.account(person, m, block, names)
        };
        let has_number = |(_, m): &(&PersonId, &Member)| block.holds(m.number.0);
        let mut members: Vec<AccountMember> = if since.is_none() {
            self.members.iter().filter(has_number).map(tell).collect()
        } else {
            let some: BTreeSet<&PersonId> =
                touched.into_iter().chain(&names.changed).chain(logins.differ()).collect();
            let some = some.into_iter().filter_map(|p| self.members.get_key_value(p));
            some.filter(has_number).map(tell).collect()
        };
        let left = left.into_iter().filter(|(n, _)| block.holds(n.0));
        members.extend(left.map(|(n, person)| self.ended(n, person, block)));
        let mut gone = Vec::new();
        if since.is_some() {
            let deleted = self.groups_gone.iter().filter(|(_, at)| changed(**at));
            gone.extend(deleted.map(|(number, _)| *number));
        }
        let groups: Vec<Group> = self
            .groups
            .iter()
            .filter(|(_, g)| changed(g.changed) && block.holds(g.number.0))
            .map(|(name, g)| Group { name: name.clone(), number: g.number })
            .collect();
        self.parts(block, state, since.is_none(), members, groups, gone)
    }

    /// The members who were changed after an entry, and those who were removed.
    fn touched_since(&self, entry: u64) -> (Vec<&PersonId>, Vec<(MemberNumber, &PersonId)>) {
        let (mut members, mut left) = (Vec::new(), Vec::new());
        for (number, person) in self.touched.after(entry) {
            if self.members.get(person).is_some_and(|m| m.number == number) {
                members.push(person);
            } else {
                left.push((number, person));
            }
        }
        (members, left)
    }

    fn parts(
        &self,
        block: Block,
        state: AccountState,
        full: bool,
        members: Vec<AccountMember>,
        groups: Vec<Group>,
        gone: Vec<GroupNumber>,
    ) -> Vec<VoAccounts> {
        let terms = self.account_terms();
        let empty = |full| VoAccounts {
            vo: self.id.clone(),
            number: self.number,
            full,
            more: true,
            base: block.base,
            size: block.size,
            state,
            members: Vec::new(),
            groups: Vec::new(),
            groups_gone: Vec::new(),
            lease_s: None,
            grace_s: None,
            terms: terms.clone(),
        };
        let mut parts = vec![empty(full)];
        // Groups go first: members name them.
        for chunk in gone.chunks(ACCOUNTS_PART_MAX) {
            parts.push(VoAccounts { groups_gone: chunk.to_vec(), ..empty(false) });
        }
        for chunk in groups.chunks(ACCOUNTS_PART_MAX) {
            parts.push(VoAccounts { groups: chunk.to_vec(), ..empty(false) });
        }
        for chunk in members.chunks(ACCOUNTS_PART_MAX) {
            parts.push(VoAccounts { members: chunk.to_vec(), ..empty(false) });
        }
        merge(&mut parts);
        if let Some(last) = parts.last_mut() {
            last.more = false;
        }
        parts
    }

    fn account(
        &self,
        person: &PersonId,
        m: &Member,
        block: Block,
        names: &NamesOf,
    ) -> AccountMember {
        let suspended = m.state != MemberState::Active;
        AccountMember {
            number: m.number,
            person: person.clone(),
            name: self.account_name(person, m.number, block),
            given: names.given.get(person).cloned(),
            state: if suspended { AccountState::Suspended } else { AccountState::Active },
            epoch: m.epoch,
            expires: m.expires,
            since: m.since,
            consent: self.account_consent(person),
            groups: self
                .effective_groups(m)
                .into_iter()
                .filter_map(|name| self.groups.get(name).map(|g| g.number))
                .filter(|n| block.holds(n.0))
                .collect(),
            roles: m.roles.iter().cloned().collect(),
            refused: None,
        }
    }

    fn ended(&self, number: MemberNumber, person: &PersonId, block: Block) -> AccountMember {
        AccountMember {
            number,
            person: person.clone(),
            name: plain(number, block),
            given: None,
            state: AccountState::Ended,
            epoch: Epoch(u64::MAX),
            expires: None,
            since: Millis::default(),
            consent: None,
            groups: Vec::new(),
            roles: Vec::new(),
            refused: None,
        }
    }

    /// What an account is called by the common rule.
    ///
    /// The person who had a name first keeps it for good, so that a name never leads to somebody
    /// else's account later.
    pub(crate) fn account_name(
        &self,
        person: &PersonId,
        number: MemberNumber,
        block: Block,
    ) -> String {
        let name = format!("{}.{}", person.name(), self.id);
        let first = self.names.get(person.name()) == Some(person);
        if first && name.len() <= ACCOUNT_NAME_MAX { name } else { plain(number, block) }
    }
}

fn plain(number: MemberNumber, block: Block) -> String {
    format!("u{}", block.base.saturating_add(number.0))
}

/// Joins the first parts as far as they fit into one: most changes need one message.
fn merge(parts: &mut Vec<VoAccounts>) {
    let size = |p: &VoAccounts| p.members.len() + p.groups.len() + p.groups_gone.len();
    if parts.iter().map(size).sum::<usize>() > ACCOUNTS_PART_MAX {
        return;
    }
    let rest = parts.split_off(1);
    if let Some(first) = parts.first_mut() {
        for p in rest {
            first.members.extend(p.members);
            first.groups.extend(p.groups);
            first.groups_gone.extend(p.groups_gone);
        }
    }
}
