//! Who wants to come into a VO.

use super::vo::{self, Head};
use crate::view::{Frame, When, page};
use crate::visit::{Shown, Visit, done};
use askama::Template;
use xos_api::vom::{Approve, GROUP_MEMBERS, ListApplications, REASON_MAX, Reject};
use xos_base::PersonId;

/// Applications in one part of the list.
const LIST_MAX: u32 = 25;

#[derive(Template)]
#[template(path = "applications.html")]
struct View {
    frame: Frame,
    head: Head,
    applications: Vec<Row>,
    /// Groups that an applicant can be put into.
    groups: Vec<String>,
    next: Option<String>,
    reason_max: usize,
}

struct Row {
    person: String,
    message: String,
    since: When,
}

/// The applications that wait.
pub(crate) async fn show(visit: Visit) -> Shown {
    let info = vo::info_at_home(&visit).await?;
    let vo = visit.vo()?;
    let after = visit.query.id_if("after")?;
    let r = ListApplications { vo: vo.clone(), after, limit: Some(LIST_MAX) };
    let part = visit.ask_home(&vo, r).await?;
    let frame = Frame::of(&visit, &format!("Applications to {vo}"), "vos").await;
    let groups = info.details.iter().flat_map(|d| &d.groups).map(|g| g.name.to_string());
    let applications = part.applications.into_iter().map(|a| Row {
        person: a.person.to_string(),
        message: a.message,
        since: a.since.into(),
    });
    page(&View {
        frame,
        head: Head::new(&info, "applications"),
        applications: applications.collect(),
        groups: groups.filter(|g| g != GROUP_MEMBERS).collect(),
        next: part.next.map(|p| p.to_string()),
        reason_max: REASON_MAX,
    })
}

/// Admits an applicant.
pub(crate) async fn approve(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let person: PersonId = visit.place("person")?;
    let r = Approve {
        vo: vo.clone(),
        person: person.clone(),
        groups: visit.form.ids("groups")?,
        roles: visit.form.ids("roles")?,
        expires: None,
    };
    visit.ask_home(&vo, r).await?;
    done(&visit, format!("/vo/{vo}/applications"), format!("{person} is a member of {vo} now."))
}

/// Turns an applicant down.
pub(crate) async fn reject(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let person: PersonId = visit.place("person")?;
    let reason = visit.form.text("reason").to_owned();
    visit.ask_home(&vo, Reject { vo: vo.clone(), person: person.clone(), reason }).await?;
    done(&visit, format!("/vo/{vo}/applications"), format!("{person} was turned down."))
}
