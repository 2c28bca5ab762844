//! The members of a VO.

use super::vo::{self, Head};
use crate::view::{Badge, Frame, When, list_text, page};
use crate::visit::{Reply, Shown, Stop, Visit};
use askama::Template;
use xos_api::vom::{ListMembers, MemberInfo, MemberState};
use xos_base::PersonId;

/// Members in one part of the list.
const LIST_MAX: u32 = 100;

#[derive(Template)]
#[template(path = "members.html")]
struct View {
    frame: Frame,
    head: Head,
    members: Vec<Row>,
    next: Option<String>,
}

struct Row {
    person: String,
    state: Badge,
    groups: String,
    roles: String,
    since: When,
    expires: Option<When>,
}

/// A member's state as a badge.
pub(crate) fn badge(m: &MemberInfo) -> Badge {
    match m.state {
        MemberState::Active if m.acts => Badge { word: "active", sign: "✓", class: "good" },
        MemberState::Active => Badge { word: "cannot act", sign: "‖", class: "bad" },
        MemberState::Suspended { .. } => Badge { word: "suspended", sign: "‖", class: "bad" },
    }
}

fn row(m: MemberInfo) -> Row {
    Row {
        person: m.person.to_string(),
        state: badge(&m),
        groups: list_text(&m.groups),
        roles: list_text(&m.roles),
        since: m.since.into(),
        expires: m.expires.map(When::from),
    }
}

/// The list of members.
pub(crate) async fn show(visit: Visit) -> Shown {
    let info = vo::info_at_home(&visit).await?;
    let vo = visit.vo()?;
    let after = visit.query.id_if("after")?;
    let r = ListMembers { vo: vo.clone(), after, limit: Some(LIST_MAX) };
    let part = visit.ask_home(&vo, r).await?;
    let frame = Frame::of(&visit, &format!("Members of {vo}"), "vos").await;
    page(&View {
        frame,
        head: Head::new(&info, "members"),
        members: part.members.into_iter().map(row).collect(),
        next: part.next.map(|p| p.to_string()),
    })
}

/// The person whom a form names; who stands there without a site is one of the VO's home.
pub(super) fn named(visit: &Visit, field: &str) -> Result<PersonId, Stop> {
    let text = visit.form.text(field);
    if text.contains('@') {
        return Ok(text.parse::<PersonId>()?);
    }
    Ok(visit.vo()?.site().person(text)?)
}

/// To the page of a member whose name was typed.
pub(crate) async fn find(visit: Visit) -> Shown {
    let (vo, person) = (visit.vo()?, named(&visit, "person")?);
    Ok(Reply::Elsewhere(format!("/vo/{vo}/member/{person}")))
}
