//! What is noted of a person in a VO: answers, consent, and what happened. For the person and the
//! VO's administrators.

use super::vo::{self, Head};
use crate::view::{Frame, When, list_text, page};
use crate::visit::{Shown, Stop, Visit};
use askama::Template;
use xos_api::vom::{
    Actor, Answered, Change, GetEnrolment, HISTORY_PAGE_MAX, HistoryEntry, MemberHistory,
};
use xos_base::{Kind, PersonId};

#[derive(Template)]
#[template(path = "record.html")]
struct View {
    frame: Frame,
    head: Head,
    person: String,
    enrolment: Option<Enrolled>,
    entries: Vec<Row>,
    next: Option<u64>,
}

struct Enrolled {
    answers: Vec<Answered>,
    agreed: Option<(u32, When)>,
    due: Option<When>,
    lapses: Option<When>,
    /// By whose invitation they came, and its id.
    invitation: Option<(String, String)>,
}

struct Row {
    time: When,
    what: String,
    by: String,
}

/// The page of what is noted.
pub(crate) async fn show(visit: Visit) -> Shown {
    let info = vo::info_at_home(&visit).await?;
    let (vo, person) = (visit.vo()?, visit.place::<PersonId>("person")?);
    let after = visit.query.number("after", "the entry's number")?;
    let ask = MemberHistory {
        vo: vo.clone(),
        person: person.clone(),
        after,
        limit: Some(HISTORY_PAGE_MAX),
    };
    let part = visit.ask_home(&vo, ask).await?;
    let ask = GetEnrolment { vo: vo.clone(), person: person.clone() };
    let enrolment = match visit.ask_home(&vo, ask).await {
        Ok(e) => Some(Enrolled {
            answers: e.answers,
            agreed: e.consent.agreed.map(|a| (a.version, a.at.into())),
            due: e.consent.due.map(When::from),
            lapses: e.consent.lapses.map(When::from),
            invitation: e.invitation.map(|i| (i.by.to_string(), i.invitation)),
        }),
        // Who left has a history, and no answers any more.
        Err(Stop::Failed(e)) if e.kind == Kind::NotFound => None,
        Err(stop) => return Err(stop),
    };
    let frame = Frame::of(&visit, &format!("What is noted of {person} in {vo}"), "vos").await;
    page(&View {
        frame,
        head: Head::new(&info, "members"),
        person: person.to_string(),
        enrolment,
        entries: part.entries.iter().map(row).collect(),
        next: part.next,
    })
}

fn row(e: &HistoryEntry) -> Row {
    let by = match &e.actor {
        Actor::Person(person) => person.to_string(),
        Actor::Site(site) => format!("site {site}"),
    };
    Row { time: e.time.into(), what: told(&e.change), by }
}

/// What a change that concerns a person says.
fn told(change: &Change) -> String {
    let because = |text: &str, reason: &str| match reason {
        "" => text.to_owned(),
        reason => format!("{text}: {reason}"),
    };
    match change {
        Change::Founded { .. } => "founded the VO".into(),
        Change::Applied { message, .. } => because("applied", message),
        Change::ApplicationWithdrawn { .. } => "took the application back".into(),
        Change::ApplicationRejected { reason, .. } => because("was turned down", reason),
        Change::Admitted { groups, roles, expires, .. } => {
            let mut text = "was admitted".to_owned();
            if !groups.is_empty() {
                text.push_str(&format!(", groups {}", list_text(groups)));
            }
            if !roles.is_empty() {
                text.push_str(&format!(", roles {}", list_text(roles)));
            }
            if let Some(end) = expires {
                text.push_str(&format!(", until {}", When::from(*end).text));
            }
            text
        }
        Change::Joined { invitation, .. } => format!("joined by the invitation {invitation}"),
        Change::MemberSuspended { reason, .. } => because("was suspended", reason),
        Change::MemberResumed { .. } => "may act again".into(),
        Change::MemberRemoved { reason, .. } => because("was removed, or left", reason),
        Change::MemberExpirySet { expires: Some(end), .. } => {
            format!("is a member until {}", When::from(*end).text)
        }
        Change::MemberExpirySet { expires: None, .. } => "is a member without an end".into(),
        Change::RoleGranted { role, .. } => format!("got the role {role}"),
        Change::RoleWithdrawn { role, .. } => format!("lost the role {role}"),
        Change::GroupMemberAdded { name, .. } => format!("came into the group {name}"),
        Change::GroupMemberRemoved { name, .. } => format!("left the group {name}"),
        Change::GroupManagerAdded { name, .. } => format!("manages the group {name}"),
        Change::GroupManagerRemoved { name, .. } => format!("manages the group {name} no longer"),
        Change::HandoverOffered { by, to } => format!("{by} offered the VO to {to}"),
        Change::HandoverAccepted { by, to } => format!("{to} took the VO over from {by}"),
        Change::Agreed { version, .. } => format!("agreed to version {version} of the terms"),
        _ => "another change".into(),
    }
}
