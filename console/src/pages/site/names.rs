//! Names that this site gives to accounts of members.

use super::{Ask, SiteHead, confirm};
use crate::view::{Frame, When, page};
use crate::visit::{Shown, Visit, done};
use askama::Template;
use xos_api::vom::{AccountName, DropName, GiveNames, ListNames, Naming, ReleaseName};
use xos_base::{LocalName, PersonId, VoId};

/// Names in one part of the list.
const LIST_MAX: u32 = 100;

#[derive(Template)]
#[template(path = "site_names.html")]
struct View {
    frame: Frame,
    site_head: SiteHead,
    names: Vec<Row>,
    next: Option<String>,
}

struct Row {
    name: String,
    vo: String,
    person: String,
    used: bool,
    since: When,
    uid: Option<u32>,
}

fn row(n: AccountName) -> Row {
    Row {
        name: n.name.to_string(),
        vo: n.vo.to_string(),
        person: n.person.to_string(),
        used: n.used,
        since: n.since.into(),
        uid: n.account.map(|a| a.uid),
    }
}

/// The list, and the form to give a name.
pub(crate) async fn show(visit: Visit) -> Shown {
    let after = visit.query.id_if("after")?;
    let part = visit.ask(ListNames { vo: None, after, limit: Some(LIST_MAX) }).await?;
    page(&View {
        frame: Frame::of(&visit, "Names of accounts", "site").await,
        site_head: SiteHead::new("names"),
        names: part.names.into_iter().map(row).collect(),
        next: part.next.map(|n| n.to_string()),
    })
}

/// Gives a name.
pub(crate) async fn give(visit: Visit) -> Shown {
    let (vo, person): (VoId, PersonId) = (visit.form.id("vo")?, visit.form.id("person")?);
    let name: LocalName = visit.form.id("name")?;
    let notice = format!("The account of {person} in {vo} is called {name} here.");
    visit.ask(GiveNames { vo, names: vec![Naming { person, name }], dry_run: false }).await?;
    done(&visit, "/site/names".into(), notice)
}

/// Lets an account be called by the common rule again.
pub(crate) async fn drop_name(visit: Visit) -> Shown {
    let (vo, person): (VoId, PersonId) = (visit.form.id("vo")?, visit.form.id("person")?);
    let dropped = visit.ask(DropName { vo, person }).await?;
    let notice = format!("{} is not used now. It stays kept for {}.", dropped.name, dropped.person);
    done(&visit, "/site/names".into(), notice)
}

/// Asks whether the name shall really be taken from its person.
pub(crate) async fn confirm_release(visit: Visit) -> Shown {
    let name: LocalName = visit.place("name")?;
    let ask = Ask {
        heading: format!("Release the name {name}?"),
        text: "An hour later it can be given to somebody else. What is kept under it in files and \
               lists of the site is then read as theirs. This cannot be undone."
            .to_owned(),
        action: format!("/site/names/{name}/release"),
        reason: None,
        button: "Release",
        back: "/site/names".to_owned(),
    };
    confirm(&visit, "names", ask).await
}

/// Takes the name from its person.
pub(crate) async fn release(visit: Visit) -> Shown {
    let name: LocalName = visit.place("name")?;
    visit.ask(ReleaseName { name: name.clone() }).await?;
    done(&visit, "/site/names".into(), format!("The name {name} is nobody's in an hour."))
}
