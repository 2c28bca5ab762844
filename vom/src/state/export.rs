//! A VO as lines that one takes out.

use super::{Member, Vo};
use std::ops::Bound;
use xos_api::vom::{EXPORT_FORMAT, ExportLine, GROUP_MEMBERS, MemberState};
use xos_base::PersonId;

impl Vo {
    /// The first lines of an export: the VO and how one comes into it.
    pub fn export_head(&self) -> Vec<ExportLine> {
        let mut lines = vec![self.export_vo()];
        if let Some(t) = &self.enrolling.terms {
            let (text, consent_days, grace_days) = (t.text.clone(), t.consent_days, t.grace_days);
            lines.push(ExportLine::Terms { text, consent_days, grace_days });
        }
        if !self.enrolling.questions.list.is_empty() {
            let questions = self.enrolling.questions.list.clone();
            lines.push(ExportLine::Questions { questions });
        }
        if !self.enrolling.reminder_days.is_empty() {
            lines.push(ExportLine::Reminders { days: self.enrolling.reminder_days.clone() });
        }
        lines
    }

    fn export_vo(&self) -> ExportLine {
        ExportLine::Vo {
            format: EXPORT_FORMAT,
            vo: self.id.clone(),
            title: self.title.clone(),
            description: self.description.clone(),
            founded: self.founded,
            number: self.number,
            lease_s: self.lease_s,
            renewal_s: self.renewal_s,
            grace_s: self.grace_s,
            audit_opens: self.audit_opens,
            volumes: self.volumes.iter().cloned().collect(),
        }
    }

    /// All groups but the one that everybody is in, each after the one above it.
    pub fn export_groups(&self) -> Vec<ExportLine> {
        let mut names: Vec<_> =
            self.groups.iter().filter(|(name, _)| name.as_str() != GROUP_MEMBERS).collect();
        names.sort_by_key(|(name, g)| (self.lineage(name).count(), g.number));
        let line = |(name, g): (&xos_base::GroupName, &super::GroupRecord)| ExportLine::Group {
            name: name.clone(),
            parent: g.parent.clone(),
            managers: self.managers_of(name),
        };
        names.into_iter().map(line).collect()
    }

    /// Members after one, at most `limit`, and after whom to go on.
    pub fn export_members(
        &self,
        after: Option<&PersonId>,
        limit: usize,
    ) -> (Vec<ExportLine>, Option<PersonId>) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.members.range((from, Bound::Unbounded));
        let page: Vec<_> = rest.by_ref().take(limit).collect();
        let last = page.last().map(|(person, _)| (*person).clone());
        let next = last.filter(|_| rest.next().is_some());
        (page.into_iter().map(|(person, m)| line(person, m)).collect(), next)
    }
}

fn line(person: &PersonId, m: &Member) -> ExportLine {
    ExportLine::Member {
        person: person.clone(),
        groups: m.groups.iter().cloned().collect(),
        roles: m.roles.iter().cloned().collect(),
        expires: m.expires,
        since: Some(m.since),
        suspended: match &m.state {
            MemberState::Active => None,
            MemberState::Suspended { reason } => Some(reason.clone()),
        },
    }
}
