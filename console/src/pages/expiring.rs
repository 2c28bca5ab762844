//! Whose membership or consent ends soon, and a new end for many at once.

use super::sign_in::kindly;
use super::vo::{self, Head};
use crate::view::{Frame, When, page};
use crate::visit::{Shown, Visit, done};
use askama::Template;
use xos_api::vom::{ExpiringMember, ExtendMemberships, ListExpiring, REMINDER_DAYS_MAX};
use xos_base::{Error, Millis, PersonId};

/// Members in one part of the list.
const LIST_MAX: u32 = 100;
/// Distances that can be chosen, in days.
const DAYS: [u32; 4] = [7, 30, 90, REMINDER_DAYS_MAX];

#[derive(Template)]
#[template(path = "expiring.html")]
struct View {
    frame: Frame,
    head: Head,
    /// How far ahead, if chosen; 0: as far as the VO reminds people.
    days: u32,
    choices: [u32; 4],
    members: Vec<Row>,
    next: Option<String>,
    /// For whom nothing was changed, and why.
    troubles: Vec<String>,
}

struct Row {
    person: String,
    expires: Option<End>,
    due: Option<End>,
    lapses: Option<End>,
}

struct End {
    at: When,
    past: bool,
}

fn row(m: ExpiringMember, now: Millis) -> Row {
    let end = |at: Option<Millis>| at.map(|at| End { at: at.into(), past: at <= now });
    Row {
        person: m.person.to_string(),
        expires: end(m.expires),
        due: end(m.due),
        lapses: end(m.lapses),
    }
}

/// The list of those whose time ends.
pub(crate) async fn show(visit: Visit) -> Shown {
    list(&visit, Vec::new()).await
}

async fn list(visit: &Visit, troubles: Vec<String>) -> Shown {
    let info = vo::info_at_home(visit).await?;
    let vo = visit.vo()?;
    let days = visit.query.number("days", "the days")?;
    let after = visit.query.id_if("after")?;
    let ask = ListExpiring { vo: vo.clone(), days, after, limit: Some(LIST_MAX) };
    let part = visit.ask_home(&vo, ask).await?;
    let now = visit.console.clock.now();
    let frame = Frame::of(visit, &format!("Who ends soon in {vo}"), "vos").await;
    page(&View {
        frame,
        head: Head::new(&info, "members"),
        days: days.unwrap_or(0),
        choices: DAYS,
        members: part.members.into_iter().map(|m| row(m, now)).collect(),
        next: part.next.map(|p| p.to_string()),
        troubles,
    })
}

/// Sets the end of the memberships that were ticked.
pub(crate) async fn extend(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let persons: Vec<PersonId> = visit.form.ids("person")?;
    if persons.is_empty() {
        return Err(Error::invalid("nobody was chosen")
            .hint("go back and tick those whose membership shall have another end")
            .into());
    }
    let expires = visit.form.day("until", "the last day")?;
    let ends = match (expires, visit.form.text("end")) {
        (Some(end), _) => When::from(end).text,
        (None, "never") => "never".to_owned(),
        (None, _) => {
            return Err(Error::invalid("no day was chosen")
                .hint("go back and choose the last day, or tick that there is no end")
                .into());
        }
    };
    let count = persons.len();
    let all = visit.ask_home(&vo, ExtendMemberships { vo: vo.clone(), persons, expires }).await?;
    let told = |person: PersonId, e: &Error| format!("{person}: {}", kindly(e));
    let troubles: Vec<String> =
        all.into_iter().filter_map(|e| e.trouble.map(|trouble| told(e.person, &trouble))).collect();
    if troubles.is_empty() {
        let notice = format!("Memberships that have a new end: {count}. They end: {ends}.");
        return done(&visit, format!("/vo/{vo}/expiring"), notice);
    }
    list(&visit, troubles).await
}
