//! The VO's rules in its log: changed in parts, which count once they are all there.

use super::{Member, Violation, Vo};
use crate::rules::Asked;
use crate::rules::book::{Kept, Part, check_rule};
use serde::{Deserialize, Serialize};
use xos_api::policy::{Action, Place, RULES_BYTES_MAX, RULES_MAX};
use xos_api::vom::{Change, Entry};
use xos_base::PersonId;

/// A change of rules of which parts are still to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Staged {
    /// The version that it was made from.
    base: u64,
    /// How many parts are there.
    parts: u32,
    /// Them.
    change: Part,
}

impl Vo {
    /// Whether a part of a change of rules may follow.
    pub(super) fn check_rules(&self, change: &Change) -> Result<(), Violation> {
        let Change::RulesChanged { base, part, more, put, remove } = change else { return Ok(()) };
        self.rules
            .made_from(*base, self.id.as_str())
            .map_err(|e| Violation::OldRules(e.message))?;
        let staged = self.staged.as_ref().filter(|_| *part > 0);
        if *part > 0 && staged.is_none_or(|s| s.base != *base || s.parts != *part) {
            let text = format!("another change of the rules of {} began meanwhile", self.id);
            return Err(Violation::OldRules(text));
        }
        for rule in put {
            check_rule(rule, Kept::ByVo).map_err(Violation::Rule)?;
        }
        let mut whole = staged.map_or_else(Part::default, |s| s.change.clone());
        whole.extend(Part { put: put.clone(), remove: remove.clone() });
        let full = whole.put.len() > RULES_MAX
            || whole.remove.len() > RULES_MAX
            || (!more && self.rules.count_after(&whole) > RULES_MAX);
        if full {
            return Err(Violation::Limit(RULES_MAX as u64, "rules"));
        }
        let bytes = if *more { whole.bytes() } else { self.rules.bytes_after(&whole) };
        if bytes > RULES_BYTES_MAX {
            return Err(Violation::Limit(RULES_BYTES_MAX as u64, "bytes of rules"));
        }
        Ok(())
    }

    /// Takes a part of a change of rules.
    pub(super) fn change_rules(&mut self, entry: &Entry) {
        let Change::RulesChanged { base, part, more, put, remove } = &entry.change else { return };
        let next = Part { put: put.clone(), remove: remove.clone() };
        let mut staged = match self.staged.take() {
            Some(staged) if *part > 0 => staged,
            // A first part begins anew, whatever was there.
            _ => Staged { base: *base, parts: 0, change: Part::default() },
        };
        staged.change.extend(next);
        staged.parts = part.saturating_add(1);
        if *more {
            self.staged = Some(staged);
        } else {
            self.rules.change(entry.number, entry.actor.clone(), entry.time, staged.change);
        }
    }

    /// The question whether rules let a member do something.
    pub(crate) fn asked(
        &self,
        person: &PersonId,
        member: &Member,
        action: Action,
        place: &Place,
    ) -> Asked {
        Asked {
            vo: self.id.clone(),
            person: Some(person.clone()),
            groups: self.groups_of(member).into_iter().map(|g| g.name).collect(),
            roles: member.roles.iter().cloned().collect(),
            action,
            place: place.clone(),
        }
    }
}
