//! Why somebody can sign in to a node, or cannot: what this core decides of it, and what the node
//! says. Each step asks the code that decides, and none decides anew.

use super::Vom;
use crate::live::Live;
use crate::policy::Action as Right;
use crate::rules::logins::{Differ, Findings, Logins};
use crate::served::{Home, Served};
use crate::state::{Vo, owners_hint};
use std::sync::Arc;
use std::time::Duration;
use xos_api::node::sessions::WhyNode;
use xos_api::policy::{Action, Place, Side};
use xos_api::vom::{AccountState, WhyAnswer, WhyLogin, WhyPlace, WhyStep};
use xos_base::{Error, MemberNumber, Millis, NodeId, PersonId};
use xos_net::Caller;

/// How long the node may take to answer.
const NODE_WAIT: Duration = Duration::from_secs(5);
/// Most steps that are passed on from a node, which may say anything.
const NODE_STEPS_MAX: usize = 16;
/// Longest text of them, in characters.
const NODE_TEXT_MAX: usize = 1000;

/// About whom is asked.
struct Whom {
    person: PersonId,
    /// They ask themselves.
    own: bool,
    /// The caller looks after the VO or this site, and may know all of it.
    looks_after: bool,
}

impl Vom {
    pub(super) async fn why_login(&self, caller: Caller, r: WhyLogin) -> Result<WhyAnswer, Error> {
        let live = self.known(&r.vo)?;
        let whom = self.whom(&live, &caller, r.person)?;
        let (mut steps, number) = self.steps_here(&live, &r.node, &whom);
        if let Some(number) = number {
            steps.extend(self.node_steps(&r.node, WhyNode { vo: r.vo, number }).await);
        }
        Ok(WhyAnswer { steps })
    }

    /// Oneself; others for who looks after the VO or this site.
    fn whom(&self, live: &Live, caller: &Caller, asked: Option<PersonId>) -> Result<Whom, Error> {
        let me = self.inner.subject(caller, live.id())?.person().cloned();
        let named = asked.or_else(|| me.clone());
        let person = named.ok_or_else(|| Error::invalid("it is not said about whom"))?;
        let own = me.as_ref() == Some(&person);
        let grant = self.authorise(live, caller, Right::SeeRecords);
        let looks_after = caller.site_admin() || grant.is_ok();
        if !own && !looks_after {
            grant?;
        }
        Ok(Whom { person, own, looks_after })
    }

    /// What this core decides; the member's number when the node is to be asked too. Whoever does
    /// not act in the VO learns why, and nothing of the site.
    fn steps_here(
        &self,
        live: &Live,
        node: &NodeId,
        whom: &Whom,
    ) -> (Vec<WhyStep>, Option<MemberNumber>) {
        let (inner, now, vo) = (&self.inner, self.inner.clock.now(), live.read());
        let (home, serves) = (vo.id.site() == inner.site, node.site() == inner.site);
        if !home && !serves {
            return (Vec::new(), None);
        }
        let at = if home { WhyPlace::Home } else { WhyPlace::Site };
        let (membership, acts) = membership(&vo, at, whom, now);
        if !serves || !(acts || whom.looks_after) {
            return (membership, None);
        }
        let served = inner.shares.one(&vo.id);
        let share = self.share_steps(live, &vo, served.as_ref(), now);
        let (mut steps, rest) = if home { (membership, share) } else { (share, membership) };
        steps.extend(rest);
        let (Some(member), Some(served)) = (vo.members.get(&whom.person), served) else {
            return (steps, None);
        };
        steps.extend(self.account_steps(&vo, whom, node, &served));
        (steps, Some(member.number))
    }

    /// Whether this site serves the VO now.
    fn share_steps(
        &self,
        live: &Live,
        vo: &Vo,
        served: Option<&Served>,
        now: Millis,
    ) -> Vec<WhyStep> {
        const AT: WhyPlace = WhyPlace::Site;
        let (inner, site, home) = (&self.inner, &self.inner.site, vo.id.site());
        let (ask, state) = (self.ask_site(), inner.home_of(live, vo, now));
        let mut steps = Vec::new();
        if home != *site {
            steps.push(match state {
                Home::Forgotten => {
                    let text = format!("site {site} trusts {home}, the home of {}, no more", vo.id);
                    WhyStep::failed(AT, "trust", text).hint(&ask)
                }
                _ => WhyStep::ok(AT, "trust", format!("site {site} trusts {home}")),
            });
        }
        let Some(served) = served else {
            let text = format!("site {site} gives {} no share", vo.id);
            steps.push(WhyStep::failed(AT, "share", text).hint(&ask));
            return steps;
        };
        // Of the share alone: what the home is has a step of its own.
        let given = served.account_state(site, vo, now, Home::Heard);
        steps.push(if given == AccountState::Ended {
            let info = served.info(site, Some(vo), now, state, inner.trouble(&vo.id));
            let ended = || format!("the share of site {site} for {} has ended", vo.id);
            WhyStep::failed(AT, "share", info.trouble.unwrap_or_else(ended)).hint(&ask)
        } else {
            WhyStep::ok(AT, "share", format!("site {site} gives {} a share", vo.id))
        });
        if home != *site && state != Home::Forgotten {
            let (heard, lease) = (live.heard(), inner.lease_s(vo));
            let text = format!("site {site} heard {home}, the home of {}, at {heard}", vo.id);
            steps.push(match state {
                Home::Heard => {
                    WhyStep::ok(AT, "lease", format!("{text}; that counts for {lease} s"))
                }
                _ => {
                    let text = format!("{text}, which is longer ago than the lease of {lease} s");
                    WhyStep::failed(AT, "lease", text).hint(&ask)
                }
            });
        }
        steps
    }

    /// Whether a member has an account here, and the rules of both sides.
    fn account_steps(&self, vo: &Vo, whom: &Whom, node: &NodeId, served: &Served) -> Vec<WhyStep> {
        const AT: WhyPlace = WhyPlace::Site;
        let (inner, site) = (&self.inner, &self.inner.site);
        let Some(member) = vo.members.get(&whom.person) else { return Vec::new() };
        let (number, block) = (member.number.0, served.block());
        let mut steps = vec![if block.holds(number) {
            let name = vo.account_name(&whom.person, member.number, block);
            WhyStep::ok(AT, "account", format!("site {site} has the account {name}"))
        } else {
            let text = format!(
                "member number {number} lies beyond the {} numbers that site {site} keeps for {}",
                block.size, vo.id
            );
            WhyStep::failed(AT, "account", text).hint(self.ask_site())
        }];
        let place = Place { site: site.clone(), node: Some(node.clone()) };
        let (judge, court) = (&inner.rules.judge, inner.rules.court(vo));
        let asked = vo.asked(&whom.person, member, Action::Login, &place);
        let finding = judge.decide(&court, &asked);
        let findings = Arc::new(Findings::new(&court, site, node));
        let logins = Logins::new(judge, findings, Differ::nobody());
        steps.push(match logins.refusal(vo, &whom.person, member) {
            Some(text) => {
                let hint = match finding.side {
                    Side::Site => self.ask_site(),
                    Side::Vo => owners_hint(vo),
                };
                WhyStep::failed(AT, "rules", text).hint(hint)
            }
            None => WhyStep::ok(AT, "rules", finding.text(&asked, site)),
        });
        steps
    }

    fn ask_site(&self) -> String {
        format!("ask the administrator of site {}", self.inner.site)
    }

    /// What the node says of a member.
    async fn node_steps(&self, node: &NodeId, r: WhyNode) -> Vec<WhyStep> {
        if !self.inner.nodes.connected().contains(node) {
            let text = format!("node {node} is not connected to its core");
            let hint = "check that xosd runs there and reaches the core; or take another node";
            return vec![WhyStep::failed(WhyPlace::Site, "node", text).hint(hint)];
        }
        let connected = format!("node {node} is connected to its core");
        let mut steps = vec![WhyStep::ok(WhyPlace::Site, "node", connected)];
        let unknown = |text: String| WhyStep::unknown(WhyPlace::Node, "answer", text);
        match tokio::time::timeout(NODE_WAIT, self.inner.nodes.why(node, r)).await {
            Ok(Ok(told)) => steps.extend(told.steps.into_iter().take(NODE_STEPS_MAX).map(bounded)),
            Ok(Err(e)) => steps.push(unknown(format!("{node} cannot say: {}", e.message))),
            Err(_) => steps.push(unknown(format!("{node} did not answer in time"))),
        }
        steps
    }
}

/// A step that a node told, as its own and of bounded length.
fn bounded(step: WhyStep) -> WhyStep {
    let cut = |text: String| text.chars().take(NODE_TEXT_MAX).collect::<String>();
    let hint = step.hint.map(cut);
    WhyStep { at: WhyPlace::Node, what: cut(step.what), text: cut(step.text), hint, ..step }
}

/// Where a person stands in the VO, and whether they act. Who is no member is told that alone,
/// whatever the VO's state is.
fn membership(vo: &Vo, at: WhyPlace, whom: &Whom, now: Millis) -> (Vec<WhyStep>, bool) {
    let (person, standing) = (&whom.person, vo.membership(&whom.person, now));
    if !vo.members.contains_key(person) {
        let text = format!("{person} is not a member of {}", vo.id);
        let hint = format!("ask to join: xos vo apply {}", vo.id);
        return (vec![WhyStep::failed(at, "membership", text).hint(hint)], false);
    }
    let refused = |what: &str, e: Error| {
        let text = if whom.own { e.message } else { format!("{person} is told: {}", e.message) };
        let step = WhyStep::failed(at, what, text);
        match e.hint {
            Some(hint) => step.hint(hint),
            None => step,
        }
    };
    let works = WhyStep::ok(at, "VO", format!("{} is active", vo.id));
    match standing {
        Ok(m) => {
            let until = m.expires.map(|at| format!(", until {at}")).unwrap_or_default();
            let text = format!("{person} is member number {} of {}{until}", m.number.0, vo.id);
            (vec![works, WhyStep::ok(at, "membership", text)], true)
        }
        Err(e) if vo.active() => (vec![works, refused("membership", e)], false),
        Err(e) => (vec![refused("VO", e)], false),
    }
}
