//! Who wants to come into a VO.

use super::sign_in::kindly;
use super::vo::{self, Head};
use crate::view::{Frame, When, list_text, page};
use crate::visit::{Shown, Stop, Visit, done};
use askama::Template;
use xos_api::vom::{
    Answered, Application, Approve, Enrolment, GROUP_MEMBERS, GetEnrolment, Gives,
    ListApplications, REASON_MAX, Reject,
};
use xos_base::{PersonId, VoId};

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
    answers: Vec<Answered>,
    /// The version of the terms of use that the applicant agreed to.
    agreed: Option<u32>,
    /// By whose invitation they come.
    by: Option<String>,
    /// What that gives besides when they are approved now; absent: it counts no more.
    gives: Option<Given>,
    /// Why it is not known what they answered.
    trouble: Option<String>,
}

/// What an approval gives by the invitation.
struct Given {
    groups: String,
    roles: String,
    ends: Option<When>,
}

impl From<Gives> for Given {
    fn from(g: Gives) -> Given {
        Given {
            groups: list_text(&g.groups),
            roles: list_text(&g.roles),
            ends: g.ends.map(When::from),
        }
    }
}

impl Row {
    fn new(a: Application, said: Result<Enrolment, String>) -> Row {
        let (said, trouble) = match said {
            Ok(said) => (Some(said), None),
            Err(why) => (None, Some(why)),
        };
        Row {
            person: a.person.to_string(),
            message: a.message,
            since: a.since.into(),
            gives: a.gives.map(Given::from),
            agreed: said.as_ref().and_then(|e| e.consent.agreed.as_ref()).map(|a| a.version),
            by: said.as_ref().and_then(|e| e.invitation.as_ref()).map(|i| i.by.to_string()),
            answers: said.map(|e| e.answers).unwrap_or_default(),
            trouble,
        }
    }
}

/// What an applicant answered; why it is not known, if so.
async fn said(
    visit: &Visit,
    vo: &VoId,
    person: &PersonId,
) -> Result<Result<Enrolment, String>, Stop> {
    let ask = GetEnrolment { vo: vo.clone(), person: person.clone() };
    match visit.ask_home(vo, ask).await {
        Ok(said) => Ok(Ok(said)),
        Err(Stop::Failed(e)) => Ok(Err(kindly(&e))),
        Err(stop) => Err(stop),
    }
}

/// The applications that wait.
pub(crate) async fn show(visit: Visit) -> Shown {
    let info = vo::info_at_home(&visit).await?;
    let vo = visit.vo()?;
    let after = visit.query.id_if("after")?;
    let r = ListApplications { vo: vo.clone(), after, limit: Some(LIST_MAX) };
    let part = visit.ask_home(&vo, r).await?;
    let frame = Frame::of(&visit, &format!("Applications to {vo}"), "vos").await;
    let mut applications = Vec::new();
    for a in part.applications {
        let said = said(&visit, &vo, &a.person).await?;
        applications.push(Row::new(a, said));
    }
    let groups = info.details.iter().flat_map(|d| &d.groups).map(|g| g.name.to_string());
    page(&View {
        frame,
        head: Head::new(&info, "applications"),
        applications,
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
        expires: visit.form.day("until", "the last day")?,
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
