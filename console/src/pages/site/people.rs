//! The people of the site: making them known, suspending, administrators, recovery.

use super::{Ask, Once, SiteHead, confirm, once};
use crate::view::{Badge, Frame, When, page};
use crate::visit::{Shown, Stop, Visit, done};
use askama::Template;
use xos_api::cda::{
    CreatePerson, ListPeople, PASSWORD_MAX, PASSWORD_MIN, Password, Person, RecoverPerson,
    SetPerson,
};
use xos_base::{Error, PersonId};

/// People in one part of the list.
const LIST_MAX: u32 = 100;
/// Longest name of a person, in bytes.
const NAME_MAX: usize = 32;

#[derive(Template)]
#[template(path = "site_people.html")]
struct View {
    frame: Frame,
    site_head: SiteHead,
    people: Vec<Row>,
    from: String,
    next: Option<String>,
    password_min: usize,
    password_max: usize,
}

#[derive(Template)]
#[template(path = "site_person.html")]
struct One {
    frame: Frame,
    site_head: SiteHead,
    person: Row,
    /// Nobody changes themselves.
    myself: bool,
}

struct Row {
    person: String,
    state: Badge,
    disabled: bool,
    site_admin: bool,
    created: When,
}

impl From<Person> for Row {
    fn from(p: Person) -> Row {
        let state = if p.disabled {
            Badge { word: "suspended", sign: "‖", class: "bad" }
        } else {
            Badge { word: "active", sign: "✓", class: "good" }
        };
        Row {
            person: p.person.to_string(),
            state,
            disabled: p.disabled,
            site_admin: p.site_admin,
            created: p.created.into(),
        }
    }
}

/// The list, from a name on.
pub(crate) async fn show(visit: Visit) -> Shown {
    let from = visit.query.text("from").to_ascii_lowercase();
    let after = match visit.query.id_if("after")? {
        Some(after) => Some(after),
        None => before(visit.console.grid.site().as_str(), &from)?,
    };
    let part = visit.ask(ListPeople { after, limit: Some(LIST_MAX) }).await?;
    page(&View {
        frame: Frame::of(&visit, "People", "site").await,
        site_head: SiteHead::new("people"),
        people: part.people.into_iter().map(Row::from).collect(),
        from,
        next: part.next.map(|p| p.to_string()),
        password_min: PASSWORD_MIN,
        password_max: PASSWORD_MAX,
    })
}

/// The last possible person before all whose name begins with `name`: the list after them begins
/// there. `None`: it begins at the first person.
fn before(site: &str, name: &str) -> Result<Option<PersonId>, Error> {
    let name = name.split('@').next().unwrap_or_default().trim_end_matches('-');
    if name.is_empty() {
        return Ok(None);
    }
    // What is no name is told as such.
    format!("{name}@{site}").parse::<PersonId>()?;
    let (head, last) = name.split_at(name.len() - 1);
    // The order of bytes: - 0 to 9 _ a to z.
    let lower = match last.as_bytes()[0] {
        b'0' => b'-',
        b'_' => b'9',
        b'a' => b'_',
        other => other - 1,
    };
    let mut text = head.to_owned();
    text.push(char::from(lower));
    text.push_str(&"z".repeat(NAME_MAX.saturating_sub(text.len())));
    // Before all names that begin with the first letter there is nobody.
    Ok(format!("{text}@{site}").parse().ok())
}

/// Makes a person known.
pub(crate) async fn create(visit: Visit) -> Shown {
    let form = &visit.form;
    if form.raw("password") != form.raw("again") {
        return Err(Error::invalid("the two passwords differ").hint("type them again").into());
    }
    let ask = CreatePerson {
        name: form.text("name").to_owned(),
        password: Password(form.raw("password").to_owned()),
        site_admin: false,
    };
    let made = visit.ask(ask).await?;
    let notice = format!("{} is known. Tell them their first password.", made.person);
    done(&visit, path(&made.person), notice)
}

fn path(person: &PersonId) -> String {
    format!("/site/person/{person}")
}

/// One person, and what can be changed about them.
pub(crate) async fn show_one(visit: Visit) -> Shown {
    let person: PersonId = visit.place("person")?;
    let after = before(person.site().as_str(), person.name())?;
    let mut ask = ListPeople { after, limit: Some(LIST_MAX) };
    // The first part begins with them, if they are known.
    let found = loop {
        let part = visit.ask(ask.clone()).await?;
        let passed = part.people.iter().any(|p| p.person.name() > person.name());
        if let Some(found) = part.people.into_iter().find(|p| p.person == person) {
            break found;
        }
        match part.next {
            Some(next) if !passed => ask.after = Some(next),
            _ => {
                let text = format!("{person} is not known at this site");
                return Err(Error::not_found(text).hint("look in the list of people").into());
            }
        }
    };
    page(&One {
        frame: Frame::of(&visit, &person.to_string(), "site").await,
        site_head: SiteHead::new("people"),
        myself: person == visit.session.person,
        person: found.into(),
    })
}

/// Changes one thing about the person.
async fn set(visit: &Visit, r: SetPerson, notice: &str) -> Shown {
    let person = r.person.clone();
    visit.ask(r).await?;
    done(visit, path(&person), format!("{person} {notice}"))
}

fn as_is(visit: &Visit) -> Result<SetPerson, Stop> {
    Ok(SetPerson { person: visit.place("person")?, disabled: None, site_admin: None })
}

/// Keeps the person from signing in.
pub(crate) async fn suspend(visit: Visit) -> Shown {
    let r = SetPerson { disabled: Some(true), ..as_is(&visit)? };
    set(&visit, r, "cannot sign in; tokens in hand end within minutes.").await
}

/// Lets the person sign in again.
pub(crate) async fn resume(visit: Visit) -> Shown {
    let r = SetPerson { disabled: Some(false), ..as_is(&visit)? };
    set(&visit, r, "may sign in again.").await
}

/// Asks whether the person shall really administer this site.
pub(crate) async fn confirm_appoint(visit: Visit) -> Shown {
    let person: PersonId = visit.place("person")?;
    let ask = Ask {
        heading: format!("Make {person} an administrator of this site?"),
        text: "They can do everything that you can do here, and take it from you.".to_owned(),
        action: format!("{}/appoint", path(&person)),
        reason: None,
        button: "Make administrator",
        back: path(&person),
    };
    confirm(&visit, "people", ask).await
}

/// Lets the person administer this site.
pub(crate) async fn appoint(visit: Visit) -> Shown {
    let r = SetPerson { site_admin: Some(true), ..as_is(&visit)? };
    set(&visit, r, "administers this site now.").await
}

/// Lets the person administer it no longer.
pub(crate) async fn dismiss(visit: Visit) -> Shown {
    let r = SetPerson { site_admin: Some(false), ..as_is(&visit)? };
    set(&visit, r, "administers this site no longer.").await
}

/// Asks whether all ways in shall really go.
pub(crate) async fn confirm_recover(visit: Visit) -> Shown {
    let person: PersonId = visit.place("person")?;
    let ask = Ask {
        heading: format!("Recover the access of {person}?"),
        text: "Their password, passkeys and linked accounts go and their sessions end. You get a \
               code by which they make a new password or passkey; make sure that it comes to them \
               and to nobody else. They are told that you did it. This cannot be undone."
            .to_owned(),
        action: format!("{}/recover", path(&person)),
        reason: None,
        button: "Take all ways in",
        back: path(&person),
    };
    confirm(&visit, "people", ask).await
}

/// Takes all ways in; the code is shown once.
pub(crate) async fn recover(visit: Visit) -> Shown {
    let person: PersonId = visit.place("person")?;
    let made = visit.ask(RecoverPerson { person: person.clone() }).await?;
    let until = When::from(made.expires).text;
    let shown = Once {
        heading: format!("A code for {person}"),
        text: format!(
            "They open the address and type the code there. It is good once, until {until}, and \
             not shown again."
        ),
        shown: vec![("The code", made.code.0), ("The address", made.address)],
        back: "/site/people",
    };
    once(&visit, "people", shown).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a person who is looked for would stand before the part that is shown.
    #[test]
    fn the_list_begins_before_the_name() {
        let after = |name: &str| before("rennes", name).unwrap().map(|p| p.name().to_owned());
        let is_before = |name: &str| {
            after(name).is_none_or(|found| found.as_str() < name && !found.starts_with(name))
        };
        for name in ["a", "b", "milo", "alla", "b0", "b_", "x-9", "mi-", "milo@rennes"] {
            assert!(is_before(name.split('@').next().unwrap()), "{name}: {:?}", after(name));
        }
        // Nobody between what is left out and the name.
        assert_eq!(after("milo").unwrap(), format!("miln{}", "z".repeat(28)));
        assert_eq!(after("a"), None);
        assert_eq!(after(""), None);
        assert!(before("rennes", "Ü").is_err());
        assert!(before("rennes", "1a").is_err());
    }
}
