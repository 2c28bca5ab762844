//! Stand-in operations on VOs: members, groups, shares.

use super::{Fake, id};
use xos_api::vom::*;
use xos_base::{Epoch, Error, GroupNumber, MemberNumber, Millis, PersonId};
use xos_net::Caller;

impl Fake {
    pub(super) fn member(&self, person: &PersonId) -> Option<MemberInfo> {
        let (number, roles) = match person.name() {
            "vera" => (1, vec![id("owner")]),
            "milo" => (2, vec![]),
            "susi" => (3, vec![]),
            _ => return None,
        };
        let state = match person.name() {
            "susi" => MemberState::Suspended { reason: self.t() },
            _ => MemberState::Active,
        };
        Some(MemberInfo {
            person: person.clone(),
            number: MemberNumber(number),
            epoch: Epoch(1),
            groups: vec![id("members"), id("physics")],
            acts: state == MemberState::Active,
            roles,
            since: Millis(1_700_000_000_000),
            expires: (number == 2).then_some(Millis(1_900_000_000_000)),
            state,
        })
    }

    pub(super) fn info(&self, person: &PersonId, r: &GetVo) -> Result<VoInfo, Error> {
        let application = Application {
            person: person.clone(),
            message: self.t(),
            since: Millis(1_790_000_000_000),
            gives: None,
        };
        let summary = VoSummary { vo: r.vo.clone(), title: self.t(), description: self.t() };
        let state = VoState::Active;
        match r.vo.as_str() {
            "demo.rennes" => {
                let me = self.member(person);
                let details = me.is_some().then(|| self.details());
                Ok(VoInfo { summary, state, me, application: None, details })
            }
            "open.rennes" => {
                let applied = (person.name() == "milo").then_some(application);
                Ok(VoInfo { summary, state, me: None, application: applied, details: None })
            }
            other => Err(Error::not_found(format!("no VO {other}"))),
        }
    }

    fn details(&self) -> VoDetails {
        VoDetails {
            founded: Millis(1_700_000_000_000),
            members: 3,
            applications: 1,
            groups: self.groups(),
            volumes: vec!["home".into()],
            shares: self.shares(),
            number: 9,
            handovers: vec![Handover { by: id("vera@rennes"), to: id("milo@rennes") }],
            lease_s: None,
            grace_s: None,
            renewal_s: None,
            audit_opens: false,
            settings: 7,
        }
    }

    pub(super) fn groups(&self) -> Vec<GroupInfo> {
        let group =
            |(name, number, members, parent, manager): (&str, u32, u64, &str, &str)| GroupInfo {
                name: id(name),
                number: GroupNumber(number),
                members,
                parent: (!parent.is_empty()).then(|| id(parent)),
                managers: if manager.is_empty() { Vec::new() } else { vec![id(manager)] },
            };
        let all = [
            ("members", 1, 3, "", ""),
            ("physics", 2, 2, "", "milo@rennes"),
            ("press", 3, 0, "", ""),
            ("optics", 4, 0, "physics", ""),
        ];
        all.map(group).to_vec()
    }

    pub(super) fn shares(&self) -> Vec<ShareInfo> {
        let terms = Terms {
            cpu_milli: 8000,
            memory_bytes: 16 << 30,
            storage_bytes: 1 << 40,
            until: None,
            version: 1,
        };
        let offered = Terms { version: 2, until: Some(Millis(1_900_000_000_000)), ..terms.clone() };
        vec![
            ShareInfo {
                site: self.site.clone(),
                state: ShareState::Accepted,
                accepted: Some(terms),
                offered: None,
                reason: None,
            },
            ShareInfo {
                site: id("pisa"),
                state: ShareState::Offered,
                accepted: None,
                offered: Some(offered),
                reason: Some(self.t()),
            },
        ]
    }

    pub(super) fn memberships(&self, caller: &Caller) -> Result<Vec<MembershipView>, Error> {
        let member = self.member(&caller.person()?);
        let view = |member| MembershipView {
            vo: id("demo.rennes"),
            title: self.t(),
            vo_state: VoState::Active,
            member,
        };
        Ok(member.map(view).into_iter().collect())
    }

    pub(super) fn members(&self, caller: &Caller, _: &ListMembers) -> Result<MemberPage, Error> {
        let person = caller.person()?;
        if self.member(&person).is_none() {
            return Err(Error::denied(format!(
                "{person} may not look at members, groups and shares"
            )));
        }
        let all = ["milo@rennes", "susi@rennes", "vera@rennes"];
        let members = all.iter().filter_map(|p| self.member(&id(p))).collect();
        Ok(MemberPage { members, next: None })
    }

    pub(super) fn applications(
        &self,
        caller: &Caller,
        _: &ListApplications,
    ) -> Result<ApplicationPage, Error> {
        let person = caller.person()?;
        if person.name() != "vera" {
            return Err(Error::denied(format!("{person} may not look at applications")));
        }
        let (person, since) = (id("nina@rennes"), self.clock.now());
        let gives = Some(self.gives());
        let application = Application { person, message: self.t(), since, gives };
        Ok(ApplicationPage { applications: vec![application], next: None })
    }
}
