//! A VO as readers see it.

use super::history::LOOKED_AT_MAX;
use super::{Member, Vo};
use std::ops::Bound;
use xos_api::vom::{
    Application, ApplicationPage, GROUP_MEMBERS, GroupInfo, GroupPage, Handover, MemberInfo,
    MemberPage, PAGE_MAX, ServingSite, ShareInfo, VoDetails, VoSummary,
};
use xos_base::{GroupName, GroupNumber, Millis, PersonId};

/// How many entries a page holds when `limit` was asked for.
pub fn page_size(limit: Option<u32>) -> usize {
    limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX) as usize
}

fn from<T>(after: Option<&T>) -> (Bound<&T>, Bound<&T>) {
    (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

impl Vo {
    /// What everybody may know.
    pub fn summary(&self) -> VoSummary {
        VoSummary {
            vo: self.id.clone(),
            title: self.title.clone(),
            description: self.description.clone(),
        }
    }

    /// What members see. Groups beyond the first page are left to their own list.
    pub fn details(&self) -> VoDetails {
        VoDetails {
            founded: self.founded,
            members: self.members.len() as u64,
            applications: self.applications.len() as u64,
            groups: self.group_page(None, None).groups,
            volumes: self.volumes.iter().cloned().collect(),
            shares: self.share_infos(),
            number: self.number,
            handovers: self.handover_infos(),
            lease_s: self.lease_s,
            grace_s: self.grace_s,
            renewal_s: self.renewal_s,
            audit_opens: self.audit_opens,
            settings: self.settings,
        }
    }

    /// One member, as they stand at `now`.
    pub fn member_info(&self, person: &PersonId, now: Millis) -> Option<MemberInfo> {
        self.members.get(person).map(|m| self.info(person, m, now))
    }

    fn info(&self, person: &PersonId, m: &Member, now: Millis) -> MemberInfo {
        MemberInfo {
            person: person.clone(),
            number: m.number,
            epoch: m.epoch,
            groups: self.groups_of(m).into_iter().map(|g| g.name).collect(),
            roles: m.roles.iter().cloned().collect(),
            since: m.since,
            expires: m.expires,
            state: m.state.clone(),
            acts: self.standing(person, now).is_ok(),
        }
    }

    /// Members after one, at most [`PAGE_MAX`], as they stand at `now`.
    pub fn member_page(
        &self,
        after: Option<&PersonId>,
        limit: Option<u32>,
        now: Millis,
    ) -> MemberPage {
        let size = page_size(limit);
        let mut rest = self.members.range(from(after));
        let members: Vec<_> = rest.by_ref().take(size).map(|(p, m)| self.info(p, m, now)).collect();
        let more = rest.next().is_some();
        let next = members.last().filter(|_| more).map(|m| m.person.clone());
        MemberPage { members, next }
    }

    /// Applications after one person's, at most [`PAGE_MAX`], each with what it gives at `now`.
    pub fn application_page(
        &self,
        after: Option<&PersonId>,
        limit: Option<u32>,
        now: Millis,
    ) -> ApplicationPage {
        let size = page_size(limit);
        let mut rest = self.applications.range(from(after));
        let shown = |(person, a): (&PersonId, &Application)| Application {
            gives: self.invited_to(person, now).cloned(),
            ..a.clone()
        };
        let applications: Vec<_> = rest.by_ref().take(size).map(shown).collect();
        let more = rest.next().is_some();
        let next = applications.last().filter(|_| more).map(|a| a.person.clone());
        ApplicationPage { applications, next }
    }

    /// One group.
    pub fn group_info(&self, name: &GroupName) -> Option<GroupInfo> {
        let g = self.groups.get(name)?;
        let everybody = name.as_str() == GROUP_MEMBERS;
        let members = if everybody { self.members.len() as u64 } else { g.count };
        let parent = g.parent.clone();
        let managers = self.managers_of(name);
        Some(GroupInfo { name: name.clone(), number: g.number, members, parent, managers })
    }

    /// Groups after one, by number, at most [`PAGE_MAX`].
    pub fn group_page(&self, after: Option<GroupNumber>, limit: Option<u32>) -> GroupPage {
        let size = page_size(limit);
        let all = self.groups.iter().filter(|(_, g)| after.is_none_or(|a| g.number > a));
        let mut numbered: Vec<(GroupNumber, &GroupName)> =
            all.map(|(name, g)| (g.number, name)).collect();
        numbered.sort_unstable();
        let more = numbered.len() > size;
        let page = numbered.into_iter().take(size);
        let groups: Vec<GroupInfo> = page.filter_map(|(_, name)| self.group_info(name)).collect();
        let next = groups.last().filter(|_| more).map(|g| g.number);
        GroupPage { groups, next }
    }

    /// All shares, by site.
    pub fn share_infos(&self) -> Vec<ShareInfo> {
        self.shares.iter().map(|(site, s)| s.info(site)).collect()
    }

    /// The offers to hand over that wait.
    fn handover_infos(&self) -> Vec<Handover> {
        let all = self.handovers.iter();
        all.map(|(by, to)| Handover { by: by.clone(), to: to.clone() }).collect()
    }

    /// The members of a group and those below it after one, at most [`PAGE_MAX`]; fewer, and how to
    /// go on, when many others stand between.
    pub fn group_member_page(
        &self,
        name: &GroupName,
        after: Option<&PersonId>,
        limit: Option<u32>,
        now: Millis,
    ) -> MemberPage {
        let size = page_size(limit);
        let (everybody, tree) = (name.as_str() == GROUP_MEMBERS, self.subtree(name));
        let (mut members, mut last) = (Vec::new(), None::<&PersonId>);
        for (looked, (person, m)) in self.members.range(from(after)).enumerate() {
            if members.len() >= size || looked >= LOOKED_AT_MAX {
                return MemberPage { members, next: last.cloned() };
            }
            last = Some(person);
            if everybody || !m.groups.is_disjoint(&tree) {
                members.push(self.info(person, m, now));
            }
        }
        MemberPage { members, next: None }
    }

    /// The sites that serve the VO at `now`: none when it is dissolved.
    pub fn serving(&self, now: Millis) -> Vec<ServingSite> {
        if self.dissolved() {
            return Vec::new();
        }
        self.shares
            .iter()
            .filter_map(|(site, s)| {
                Some(ServingSite { site: site.clone(), terms: s.in_force(now)?.clone() })
            })
            .collect()
    }
}
