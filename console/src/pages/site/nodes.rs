//! The site's nodes: which are connected, letting a machine join, removing one.

use super::{Ask, Once, SiteHead, confirm, once};
use crate::view::{Badge, Frame, When, page};
use crate::visit::{Shown, Visit, done};
use askama::Template;
use std::collections::HashSet;
use xos_api::cda::{CreateJoinToken, ListMachines, Machine, RemoveNode};
use xos_api::site::ConnectedNodes;
use xos_base::NodeId;

#[derive(Template)]
#[template(path = "site_nodes.html")]
struct View {
    frame: Frame,
    site_head: SiteHead,
    nodes: Vec<Row>,
}

struct Row {
    node: String,
    state: Badge,
    joined: When,
    until: When,
    key: String,
}

fn row(m: Machine, connected: &HashSet<NodeId>) -> Row {
    let state = if connected.contains(&m.node) {
        Badge { word: "connected", sign: "✓", class: "good" }
    } else {
        Badge { word: "not connected", sign: "?", class: "bad" }
    };
    Row {
        node: m.node.to_string(),
        state,
        joined: m.joined.into(),
        until: m.certificate_until.into(),
        key: m.key,
    }
}

/// The list.
pub(crate) async fn show(visit: Visit) -> Shown {
    let machines = visit.ask(ListMachines {}).await?;
    let connected: HashSet<NodeId> = visit.ask(ConnectedNodes {}).await?.into_iter().collect();
    page(&View {
        frame: Frame::of(&visit, "Nodes", "site").await,
        site_head: SiteHead::new("nodes"),
        nodes: machines.into_iter().map(|m| row(m, &connected)).collect(),
    })
}

/// Makes a right to join, shown once.
pub(crate) async fn invite(visit: Visit) -> Shown {
    let label = visit.form.text("label").to_owned();
    let made = visit.ask(CreateJoinToken { label }).await?;
    let until = When::from(made.expires).text;
    let shown = Once {
        heading: format!("Let a machine become {}", made.node),
        text: format!(
            "Type this on the machine, as root. Whoever has it first becomes the node; it is good \
             once, until {until}, and not shown again."
        ),
        shown: vec![("The right to join", made.token.to_string())],
        back: "/site/nodes",
    };
    once(&visit, "nodes", shown).await
}

/// Asks whether the node shall really go.
pub(crate) async fn confirm_remove(visit: Visit) -> Shown {
    let node: NodeId = visit.place("node")?;
    let ask = Ask {
        heading: format!("Remove the node {node}?"),
        text: "Its keys are refused from now on, here and at all sites that hear of it; what runs \
               on it is lost. This cannot be undone: to come back the machine joins anew."
            .to_owned(),
        action: format!("/site/nodes/{node}/remove"),
        reason: None,
        button: "Remove",
        back: "/site/nodes".to_owned(),
    };
    confirm(&visit, "nodes", ask).await
}

/// Removes the node.
pub(crate) async fn remove(visit: Visit) -> Shown {
    let node: NodeId = visit.place("node")?;
    visit.ask(RemoveNode { node: node.clone() }).await?;
    done(&visit, "/site/nodes".into(), format!("{node} is removed; its keys are refused."))
}
