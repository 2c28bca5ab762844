//! Rules of VOs and of this site, and what they would say.

use super::Vom;
use crate::decide::Command;
use crate::policy::Action as Right;
use crate::rules::book::{self, Book, Kept};
use crate::rules::{Asked, Finding, look};
use crate::state::Violation;
use crate::told;
use std::sync::Arc;
use xos_api::policy::{
    GetSiteRules, GetVoRules, Matched, Place, RuleList, RulesSet, SetSiteRules, SetVoRules, Side,
    Verdict, WhatIf, Where,
};
use xos_api::vom::{Actor, GROUP_MEMBERS};
use xos_base::{Error, GroupName, SiteId};
use xos_net::Caller;
use xos_net::audit::asked;

impl Vom {
    pub(super) async fn get_vo_rules(
        &self,
        caller: Caller,
        r: GetVoRules,
    ) -> Result<RuleList, Error> {
        let live = self.known(&r.vo)?;
        self.authorise(&live, &caller, Right::See)?;
        Ok(live.read().rules.list())
    }

    pub(super) async fn set_vo_rules(
        &self,
        caller: Caller,
        r: SetVoRules,
    ) -> Result<RulesSet, Error> {
        let live = self.home(&r.vo)?;
        self.authorise(&live, &caller, Right::ManageRules)?;
        book::check(&r.rules, Kept::ByVo)?;
        let (now, judge) = (self.inner.clock.now(), &self.inner.rules.judge);
        let (parts, warnings) = {
            let vo = live.read();
            vo.rules.made_from(r.version, vo.id.as_str())?;
            let part = vo.rules.difference(&r.rules);
            if part == book::Part::default() {
                return Ok(RulesSet { version: r.version, warnings: Vec::new() });
            }
            let wanted = Book::with(r.version, r.rules);
            look::check_owners(judge, &vo, &wanted, now)?;
            (part.split(), look::nobody_in(judge, &vo, &wanted, now))
        };
        // Should one part fail, those before it count for nothing, and the next change begins anew.
        let last = parts.len().saturating_sub(1);
        for (at, part) in parts.into_iter().enumerate() {
            let command = Command::ChangeRules {
                base: r.version,
                part: u32::try_from(at).unwrap_or(u32::MAX),
                more: at < last,
                put: part.put,
                remove: part.remove,
            };
            self.change(&caller, &r.vo, command).await?;
        }
        let version = live.read().rules.version;
        Ok(RulesSet { version, warnings })
    }

    pub(super) async fn get_site_rules(
        &self,
        caller: Caller,
        _: GetSiteRules,
    ) -> Result<RuleList, Error> {
        self.site_admin(&caller)?;
        Ok(self.inner.rules.own.list())
    }

    /// No rule keeps an administrator of the site from it: so what was set can be undone.
    pub(super) async fn set_site_rules(
        &self,
        caller: Caller,
        r: SetSiteRules,
    ) -> Result<RulesSet, Error> {
        let mut event = asked(&caller, self.inner.clock.now(), "set_site_rules");
        let allowed = self.site_admin(&caller).and_then(|()| book::check(&r.rules, Kept::BySite));
        if let Err(e) = allowed {
            return self.inner.told.end(event, Err(e)).await;
        }
        let known = self.inner.rules.own.list();
        told::fill(&mut event, &Book::with(known.version, known.rules).difference(&r.rules))?;
        let (inner, by) = (self.inner.clone(), Actor::Person(caller.person()?));
        let warnings = {
            let wanted = Book::with(r.version, r.rules.clone());
            let served = inner.shares.all().into_iter().filter_map(|s| inner.vos.one(&s.vo));
            let lives: Vec<_> = served.take(look::VOS_TRIED).collect();
            let vos: Vec<_> = lives.iter().map(|live| live.read()).collect();
            look::nobody_at(&inner.rules.judge, &inner.site, &wanted, vos.iter().map(|vo| &**vo))
        };
        // A caller who goes away does not undo it half-way: it runs as a task of its own.
        let task = tokio::spawn(async move {
            let now = inner.clock.now();
            let of = format!("site {}", inner.site);
            let wanted = (r.version, r.rules);
            let set = inner.rules.own.set(&inner.registry, wanted, (by, now), &of).await;
            inner.told.end(event, set).await
        });
        let version = task.await.map_err(|e| {
            tracing::error!(error = %e, "a change of rules ended without a result");
            Error::internal("the change failed").hint("look whether it was made")
        })??;
        tracing::info!(version, by = %caller.describe(), "rules of the site set");
        Ok(RulesSet { version, warnings })
    }

    pub(super) async fn what_if(&self, caller: Caller, r: WhatIf) -> Result<Verdict, Error> {
        let live = self.known(&r.vo)?;
        let subject = self.inner.subject(&caller, &r.vo)?;
        let own = r.person.is_some() && r.person.as_ref() == subject.person();
        if own {
            self.authorise(&live, &caller, Right::See)?;
        } else if !caller.site_admin() {
            self.authorise(&live, &caller, Right::ManageRules)?;
        }
        let place = self.place(&r.place)?;
        let asked = {
            let vo = live.read();
            match &r.person {
                Some(person) if r.groups.is_empty() && r.roles.is_empty() => {
                    let member = vo.members.get(person);
                    let member = member.ok_or_else(|| Violation::NotMember(person.clone()))?;
                    vo.asked(person, member, r.what, &place)
                }
                _ => hypothetical(&r, &place)?,
            }
        };
        let court = self.inner.rules.court(&live.read());
        let finding = self.inner.rules.judge.decide(&court, &asked);
        let seen = |rule: &Arc<_>| caller.site_admin() || finding.rule.as_ref() == Some(rule);
        let site = court.site.matching(&asked).into_iter().filter(seen).map(|r| (Side::Site, r));
        let vo = court.vo.matching(&asked).into_iter().map(|r| (Side::Vo, r));
        let matched =
            site.chain(vo).map(|(side, r)| Matched { side, rule: (*r).clone() }).collect();
        Ok(verdict(&finding, &asked, &self.inner.site, matched))
    }

    /// A place of this site: other sites' rules only they know.
    fn place(&self, place: &Where) -> Result<Place, Error> {
        let own = self.inner.site.clone();
        let (site, node) = match place {
            Where::Any => (own.clone(), None),
            Where::Site(site) => (site.clone(), None),
            Where::Node(node) => (node.site(), Some(node.clone())),
        };
        if site != own {
            return Err(Error::invalid(format!("site {own} does not know the rules of {site}"))
                .hint(format!("ask the core of {site}: --site {site}")));
        }
        Ok(Place { site, node })
    }
}

/// Somebody in the groups and with the roles that are named.
fn hypothetical(r: &WhatIf, place: &Place) -> Result<Asked, Error> {
    let mut groups = r.groups.clone();
    let members: GroupName = GROUP_MEMBERS.parse()?;
    if !groups.contains(&members) {
        groups.insert(0, members);
    }
    let (vo, person, roles) = (r.vo.clone(), r.person.clone(), r.roles.clone());
    Ok(Asked { vo, person, groups, roles, action: r.what, place: place.clone() })
}

fn verdict(finding: &Finding, asked: &Asked, site: &SiteId, matched: Vec<Matched>) -> Verdict {
    Verdict {
        allowed: finding.allowed,
        side: finding.side,
        rule: finding.rule.as_deref().cloned(),
        text: finding.text(asked, site),
        matched,
    }
}
