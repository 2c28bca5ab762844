//! Rules of VOs and of this site, and what they would say.

use super::Vom;
use crate::decide::Command;
use crate::live::Live;
use crate::policy::Action as Right;
use crate::rules::book::{self, Book, Kept};
use crate::rules::{Asked, Finding, Judge, look};
use crate::state::{Violation, Vo};
use crate::told;
use std::sync::Arc;
use xos_api::policy::{
    GetSiteRules, GetVoRules, Matched, Place, Rule, RuleList, RulesSet, SetSiteRules, SetVoRules,
    Side, Verdict, WhatIf, Where,
};
use xos_api::vom::{Actor, GROUP_MEMBERS};
use xos_base::{Error, GroupName, SiteId};
use xos_net::Caller;
use xos_net::audit::asked;

/// Most changes of the rules of one VO in an hour: each is looked at before it counts, and every
/// site and node hears of it.
const RULE_CHANGES_PER_HOUR: u32 = 60;

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
        let allowed = self.authorise(&live, &caller, Right::ManageRules);
        if let Err(e) = allowed.and_then(|_| book::check(&r.rules, Kept::ByVo)) {
            return self.refuse(&caller, "change_rules", &r.vo, e).await;
        }
        let changes = format!("the rules of {}", r.vo);
        self.limit(&[(&changes, RULE_CHANGES_PER_HOUR)])?;
        let now = self.inner.clock.now();
        let (parts, tried) = {
            let vo = live.read();
            vo.rules.made_from(r.version, vo.id.as_str())?;
            let part = vo.rules.difference(&r.rules);
            if part == book::Part::default() {
                return Ok(RulesSet { version: r.version, warnings: Vec::new() });
            }
            (part.split(), look::Tried::of(&vo, self.inner.rules.court(&vo).vo, now))
        };
        let (version, wanted) = (r.version, r.rules);
        let warnings = self.look(move |judge| {
            let wanted = Book::with(version, wanted);
            look::check_owners(judge, &tried, &wanted)?;
            Ok(look::nobody_in(judge, &tried, &wanted))
        });
        let warnings = warnings.await?;
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

    /// Judges aside: it takes long, and requests go on meanwhile.
    async fn look(
        &self,
        f: impl FnOnce(&Judge) -> Result<Vec<String>, Error> + Send + 'static,
    ) -> Result<Vec<String>, Error> {
        let inner = self.inner.clone();
        let task = tokio::task::spawn_blocking(move || f(&inner.rules.judge));
        task.await.map_err(|e| Error::internal(format!("a look at rules failed: {e}")))?
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
        let served = inner.shares.all().into_iter().filter_map(|s| inner.vos.one(&s.vo));
        let tried = |live: Arc<Live>| {
            let vo = live.read();
            look::Tried::of(&vo, inner.rules.court(&vo).vo, inner.clock.now())
        };
        let vos: Vec<look::Tried> = served.take(look::VOS_TRIED).map(tried).collect();
        let (site, wanted) = (inner.site.clone(), Book::with(r.version, r.rules.clone()));
        let warnings =
            self.look(move |judge| Ok(look::nobody_at(judge, &site, &wanted, &vos))).await?;
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
        // As somebody else than they are, nobody may ask without being an administrator: the
        // site's rules are no business of theirs.
        let as_they_are = r.groups.is_empty() && r.roles.is_empty();
        let own = as_they_are && r.person.is_some() && r.person.as_ref() == subject.person();
        if own {
            self.authorise(&live, &caller, Right::See)?;
        } else if !caller.site_admin() {
            self.authorise(&live, &caller, Right::ManageRules)?;
        }
        let place = self.place(&r.place)?;
        let asked = {
            let vo = live.read();
            match &r.person {
                Some(person) if as_they_are => {
                    let member = vo.members.get(person);
                    let member = member.ok_or_else(|| Violation::NotMember(person.clone()))?;
                    vo.asked(person, member, r.what, &place)
                }
                _ => hypothetical(&vo, &r, &place)?,
            }
        };
        let court = self.inner.rules.court(&live.read());
        let mut finding = self.inner.rules.judge.decide(&court, &asked);
        if finding.side == Side::Site && !own && !caller.site_admin() {
            // What the site writes to those whom it keeps out is for them.
            finding.rule =
                finding.rule.map(|r| Arc::new(Rule { note: String::new(), ..(*r).clone() }));
        }
        let site: Vec<Arc<Rule>> = if caller.site_admin() {
            court.site.matching(&asked)
        } else {
            finding.rule.iter().filter(|_| finding.side == Side::Site).cloned().collect()
        };
        let site = site.into_iter().map(|r| (Side::Site, r));
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

/// Somebody in the groups, and all above them, and with the roles that are named.
fn hypothetical(vo: &Vo, r: &WhatIf, place: &Place) -> Result<Asked, Error> {
    let members: GroupName = GROUP_MEMBERS.parse()?;
    let above = vo.with_those_above(&r.groups).into_iter().filter(|g| **g != members).cloned();
    let groups = std::iter::once(members.clone()).chain(above).collect();
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
