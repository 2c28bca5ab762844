//! Services that may sign people of this site in.

use super::{Ask, Once, SiteHead, confirm, once};
use crate::view::{Frame, When, list_text, page};
use crate::visit::{Shown, Stop, Visit, done};
use askama::Template;
use xos_api::cda::{Client, CreateClient, ListClients, RemoveClient, Scope};

#[derive(Template)]
#[template(path = "site_services.html")]
struct View {
    frame: Frame,
    site_head: SiteHead,
    clients: Vec<Row>,
    scopes: Vec<&'static str>,
}

struct Row {
    id: String,
    name: String,
    kind: &'static str,
    redirects: String,
    scopes: String,
    audience: String,
    created: When,
}

fn row(c: Client) -> Row {
    Row {
        kind: match (c.confidential, c.device) {
            (true, false) => "keeps a secret",
            (true, true) => "keeps a secret; by another device too",
            (false, false) => "a program on people's machines",
            (false, true) => "a program on people's machines; by another device too",
        },
        redirects: list_text(&c.redirects),
        scopes: list_text(&c.scopes),
        audience: c.audience,
        created: c.created.into(),
        id: c.id,
        name: c.name,
    }
}

/// The list, and the form that registers one.
pub(crate) async fn show(visit: Visit) -> Shown {
    let clients = visit.ask(ListClients {}).await?;
    page(&View {
        frame: Frame::of(&visit, "Services", "site").await,
        site_head: SiteHead::new("services"),
        clients: clients.into_iter().map(row).collect(),
        scopes: Scope::ALL.iter().map(|s| s.as_str()).collect(),
    })
}

/// Registers a service; its secret is shown once.
pub(crate) async fn register(visit: Visit) -> Shown {
    let form = &visit.form;
    let lines = form.text("redirects").lines().map(str::trim);
    let ask = CreateClient {
        name: form.text("name").to_owned(),
        redirects: lines.filter(|l| !l.is_empty()).map(str::to_owned).collect(),
        confidential: !form.text("confidential").is_empty(),
        device: !form.text("device").is_empty(),
        scopes: form.ids("scopes")?,
        audience: Some(form.text("audience").to_owned()).filter(|a| !a.is_empty()),
        introspect: !form.text("introspect").is_empty(),
    };
    let made = visit.ask(ask).await?;
    let mut shown = vec![("client_id", made.client.id)];
    shown.extend(made.secret.map(|s| ("client_secret", s.0)));
    let view = Once {
        heading: format!("{} is registered", made.client.name),
        text: "Give these to the service. A secret is not shown again.".to_owned(),
        shown,
        back: "/site/services",
    };
    once(&visit, "services", view).await
}

fn client(visit: &Visit) -> Result<String, Stop> {
    let id = visit.places.iter().find(|(k, _)| k == "client").map(|(_, v)| v.clone());
    id.ok_or(Stop::NoSuchPage)
}

/// Asks whether the service shall really go.
pub(crate) async fn confirm_remove(visit: Visit) -> Shown {
    let id = client(&visit)?;
    let known = visit.ask(ListClients {}).await?.into_iter().find(|c| c.id == id);
    let known = known.ok_or(Stop::NoSuchPage)?;
    let ask = Ask {
        heading: format!("Remove {}?", known.name),
        text: "Nobody can sign in to it by this site any more, and what it holds is not renewed. \
               This cannot be undone: registered again, it has another id and secret."
            .to_owned(),
        action: format!("/site/services/{}/remove", known.id),
        reason: None,
        button: "Remove",
        back: "/site/services".to_owned(),
    };
    confirm(&visit, "services", ask).await
}

/// Removes the service.
pub(crate) async fn remove(visit: Visit) -> Shown {
    visit.ask(RemoveClient { id: client(&visit)? }).await?;
    done(&visit, "/site/services".into(), "The service is removed.")
}
