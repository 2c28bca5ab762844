//! What waits for a person: what ends, what they were offered, and what an administrator decides.

use super::sign_in::kindly;
use crate::view::When;
use crate::visit::{Stop, Visit};
use std::time::Duration;
use xos_api::vom::{
    Consent, Ending, InvitationState, ListExpiring, ListInvitations, PAGE_MAX, Reminder, Reminders,
    VoInfo,
};
use xos_base::{Millis, PersonId, VoId};

/// How long before an end it is told on the pages of a VO.
const AHEAD: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long before its end an invitation is told.
const INVITATIONS_AHEAD: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// One line of what waits, with where to go for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Todo {
    pub(crate) text: String,
    pub(crate) link: String,
    pub(crate) label: &'static str,
    /// The person cannot act, or soon will not.
    pub(crate) urgent: bool,
}

fn todo(text: String, link: String, label: &'static str) -> Todo {
    Todo { text, link, label, urgent: false }
}

/// What a person's memberships wait for, over all their VOs. That it is not known stops no page.
pub(crate) async fn reminders(visit: &Visit) -> Vec<Todo> {
    match visit.ask(Reminders { person: visit.session.person.clone() }).await {
        Ok(all) => all.iter().map(reminder).collect(),
        Err(stop) => {
            tracing::debug!(?stop, "what ends is not known");
            Vec::new()
        }
    }
}

fn reminder(r: &Reminder) -> Todo {
    let (vo, at) = (&r.vo, When::from(r.at).text);
    let (what, link, label) = match (r.what, r.days) {
        (Ending::Consent, 0) => (
            format!("{}: you cannot act since {at}, until you agree to the terms", r.title),
            format!("/vo/{vo}/terms"),
            "Read the terms",
        ),
        (Ending::Consent, _) => (
            format!("{}: agree to the terms before {at}", r.title),
            format!("/vo/{vo}/terms"),
            "Read the terms",
        ),
        (Ending::Membership, 0) => (
            format!("{}: your membership ended {at}; its administrators can extend it", r.title),
            format!("/vo/{vo}"),
            "Open",
        ),
        (Ending::Membership, _) => (
            format!("{}: your membership ends {at}; its administrators can extend it", r.title),
            format!("/vo/{vo}"),
            "Open",
        ),
    };
    Todo { urgent: true, ..todo(what, link, label) }
}

/// What waits for the visitor in one VO, as far as the VO itself says it.
pub(crate) fn of_vo(
    info: &VoInfo,
    visitor: &PersonId,
    admin: bool,
    consent: Option<&Consent>,
    now: Millis,
) -> Vec<Todo> {
    let vo = &info.summary.vo;
    let mut all = Vec::new();
    all.extend(consent.and_then(|c| of_consent(vo, c, now)));
    let end = info.me.as_ref().and_then(|m| m.expires).filter(|end| *end < now.plus(AHEAD));
    if let Some(end) = end {
        let word = if end <= now { "ended" } else { "ends" };
        let text = format!("Your membership {word} {}", When::from(end).text);
        let who = if admin { "Extend it" } else { "Find an administrator" };
        let link = match admin {
            true => format!("/vo/{vo}/member/{visitor}"),
            false => format!("/vo/{vo}/members"),
        };
        all.push(Todo { urgent: true, ..todo(text, link, who) });
    }
    let Some(d) = &info.details else { return all };
    for h in d.handovers.iter().filter(|h| h.to == *visitor) {
        let text = format!("{} offers you to own this VO in their place", h.by);
        all.push(todo(text, format!("/vo/{vo}/ending"), "Decide"));
    }
    if !admin {
        return all;
    }
    if d.applications > 0 {
        let text = format!("Applications that wait: {}", d.applications);
        all.push(todo(text, format!("/vo/{vo}/applications"), "Decide"));
    }
    for s in d.shares.iter().filter(|s| s.offered.is_some()) {
        let text = format!("Site {} offers a share", s.site);
        all.push(todo(text, format!("/vo/{vo}/shares"), "Look at it"));
    }
    if d.members <= 1 {
        let text = "Nobody but you is a member yet".to_owned();
        all.push(todo(text, format!("/vo/{vo}/invitations"), "Invite people"));
    }
    all
}

fn of_consent(vo: &VoId, c: &Consent, now: Millis) -> Option<Todo> {
    let due = c.due.filter(|due| *due < now.plus(AHEAD))?;
    let (due, lapses) = (When::from(due).text, c.lapses.map(|at| (at <= now, When::from(at).text)));
    let text = match lapses {
        Some((true, at)) => format!("You cannot act since {at}, until you agree to the terms"),
        Some((false, at)) => format!(
            "Your consent to the terms of use is due {due}; without it you cannot act from {at} on"
        ),
        None => format!("Your consent to the terms of use is due {due}"),
    };
    Some(Todo { urgent: true, ..todo(text, format!("/vo/{vo}/terms"), "Read and agree") })
}

/// What else waits for an administrator: invitations and memberships that end. What cannot be asked
/// is told as such.
pub(crate) async fn of_admin(visit: &Visit, vo: &VoId) -> Result<Vec<Todo>, Stop> {
    let mut all = Vec::new();
    let now = visit.console.clock.now();
    let ask = ListInvitations { vo: vo.clone(), after: None, limit: Some(PAGE_MAX) };
    let link = format!("/vo/{vo}/invitations");
    match visit.ask_home(vo, ask).await {
        Ok(part) => {
            let soon = part.invitations.iter().filter(|i| {
                i.state == InvitationState::Open && i.gives.expires < now.plus(INVITATIONS_AHEAD)
            });
            let count = soon.count();
            if count > 0 {
                let text = format!("Invitations that end within three days: {count}");
                all.push(todo(text, link, "Look at them"));
            }
        }
        Err(stop) => all.push(todo(told("Invitations", stop)?, link, "Try")),
    }
    let ask = ListExpiring { vo: vo.clone(), days: None, after: None, limit: Some(PAGE_MAX) };
    let link = format!("/vo/{vo}/expiring");
    match visit.ask_home(vo, ask).await {
        Ok(part) => {
            let more = if part.next.is_some() { " or more" } else { "" };
            if !part.members.is_empty() || part.next.is_some() {
                let count = part.members.len();
                let text = format!("Memberships or consents that end: {count}{more}");
                all.push(todo(text, link, "Look at them"));
            }
        }
        Err(stop) => all.push(todo(told("What ends", stop)?, link, "Try")),
    }
    Ok(all)
}

/// Why something is not known, unless the session is over.
fn told(what: &str, stop: Stop) -> Result<String, Stop> {
    match stop {
        Stop::Failed(e) => Ok(format!("{what}: {}", kindly(&e))),
        stop => Err(stop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_api::vom::{Handover, VoDetails, VoState, VoSummary};

    const DAY: u64 = 24 * 60 * 60 * 1000;

    fn info(members: u64) -> VoInfo {
        let vo: VoId = "demo.rennes".parse().unwrap();
        let (vera, milo) = ("vera@rennes".parse().unwrap(), "milo@rennes".parse().unwrap());
        VoInfo {
            summary: VoSummary { vo, title: "Demo".into(), description: String::new() },
            state: VoState::Active,
            me: None,
            application: None,
            details: Some(VoDetails {
                founded: Millis(0),
                members,
                applications: 2,
                groups: Vec::new(),
                volumes: Vec::new(),
                shares: Vec::new(),
                number: 1,
                handovers: vec![Handover { by: vera, to: milo }],
                lease_s: None,
                grace_s: None,
                renewal_s: None,
                audit_opens: false,
                settings: 7,
            }),
        }
    }

    fn links(admin: bool, who: &str, consent: Option<&Consent>, now: u64) -> Vec<String> {
        let who: PersonId = who.parse().unwrap();
        let all = of_vo(&info(1), &who, admin, consent, Millis(now));
        all.into_iter().map(|t| t.link).collect()
    }

    /// If it failed, a person would not be told what only they can do, or be told of what is not
    /// theirs to decide.
    #[test]
    fn each_is_told_what_is_theirs_to_do() {
        let applications = "/vo/demo.rennes/applications";
        let invite = "/vo/demo.rennes/invitations";
        assert_eq!(links(true, "vera@rennes", None, 0), [applications, invite]);
        assert_eq!(links(false, "milo@rennes", None, 0), ["/vo/demo.rennes/ending"]);
        assert!(links(false, "susi@rennes", None, 0).is_empty());
        let due = |at| Consent { agreed: None, due: Some(Millis(at)), lapses: None };
        assert!(links(false, "susi@rennes", Some(&due(31 * DAY)), 0).is_empty());
        assert_eq!(links(false, "susi@rennes", Some(&due(29 * DAY)), 0), ["/vo/demo.rennes/terms"]);
    }

    /// If it failed, who is shut out would read that there is still time.
    #[test]
    fn a_consent_that_lapsed_is_told_as_such() {
        let vo: VoId = "demo.rennes".parse().unwrap();
        let consent = Consent { agreed: None, due: Some(Millis(1)), lapses: Some(Millis(DAY)) };
        let text = |now| of_consent(&vo, &consent, Millis(now)).unwrap().text;
        assert!(text(2).contains("is due") && text(2).contains("2 Jan 1970"), "{}", text(2));
        assert!(text(DAY).starts_with("You cannot act since 2 Jan 1970"), "{}", text(DAY));
    }
}
