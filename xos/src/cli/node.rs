//! `xos node`: the machines of a site.

use super::accounts;
use super::ask;
use super::output::{Outcome, Table, clean, when};
use super::session::Session;
use super::sites::SiteBook;
use serde::Serialize;
use xos_api::cda::{CreateJoinToken, ListMachines, Machine, RemoveNode};
use xos_api::site::ConnectedNodes;
use xos_base::{Error, NodeId, SiteId};

/// `xos node …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a one-time right for a machine to join the site (site administrators).
    #[command(after_help = "\
Examples:
  xos node token n1
  xos node token n1 --site rennes | ssh n1 xosd join - --core core.rennes.example:7443")]
    Token {
        /// The node's label: a-z, 0-9 and '-', beginning with a letter.
        label: String,
    },
    /// Show the machines of the site (site administrators).
    #[command(after_help = "Examples:\n  xos node list\n  xos node list --json")]
    List,
    /// Remove a machine from the site (site administrators).
    #[command(after_help = "Examples:\n  xos node remove n1.rennes\n  xos node remove n1 --yes")]
    Remove {
        /// The node, as n1.rennes or n1.
        node: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Names and numbers of grid accounts on this machine.
    #[command(
        subcommand,
        after_help = "Examples:\n  xos node accounts check\n  xos node accounts check --json"
    )]
    Accounts(accounts::Command),
}

/// Runs a command of this group.
///
/// # Errors
/// What the core says.
pub async fn run(s: &Session, command: Command) -> Outcome {
    match command {
        Command::Token { label } => token(s, label).await,
        Command::List => list(s).await,
        Command::Remove { node, yes } => remove(s, &node, yes).await,
        Command::Accounts(command) => accounts::run(s, command),
    }
}

async fn token(s: &Session, label: String) -> Outcome {
    let site = s.site()?;
    let made = s.person(&site).await?.call(CreateJoinToken { label }).await?;
    s.out.show(&made, || made.token.to_string())?;
    let core = SiteBook::read(&s.home)?
        .dialled(&site)
        .and_then(|d| d.addresses.into_iter().next())
        .unwrap_or_else(|| "ADDRESS".to_owned());
    s.out.note(&format!(
        "On the machine that becomes {}, as root: xosd join TOKEN --core {}\n\
         The token works once, until {}; whoever has it first becomes the node.",
        made.node,
        clean(&core),
        made.expires
    ))?;
    Ok(0)
}

/// A machine, and whether its core hears it.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    machine: Machine,
    connected: bool,
}

async fn list(s: &Session) -> Outcome {
    let core = s.person(&s.site()?).await?;
    let machines = core.call(ListMachines {}).await?;
    let connected = core.call(ConnectedNodes {}).await?;
    let now = s.now();
    let machines: Vec<Listed> = machines
        .into_iter()
        .map(|machine| Listed { connected: connected.contains(&machine.node), machine })
        .collect();
    s.out.show(&machines, || {
        let mut table = Table::new(&["NODE", "STATE", "JOINED", "CERTIFICATE ENDS", "KEY"]);
        for Listed { machine: m, connected } in &machines {
            let state = if *connected { "connected" } else { "away" };
            let key: String = clean(&m.key).chars().take(16).collect();
            let (joined, ends) = (when(m.joined, now), when(m.certificate_until, now));
            table.row([m.node.to_string(), state.to_owned(), joined, ends, key]);
        }
        table.text("No machine has joined yet; make a token: xos node token LABEL")
    })?;
    Ok(0)
}

/// `n1.rennes`, or `n1` of `site`.
pub(super) fn node_id(text: &str, site: &SiteId) -> Result<NodeId, Error> {
    Ok(if text.contains('.') { text.parse()? } else { site.node(text)? })
}

async fn remove(s: &Session, node: &str, yes: bool) -> Outcome {
    let node = node_id(node, &s.site()?)?;
    if !yes {
        let question = format!("Work on {node} ends and it must join anew. Remove it?");
        ask::consent(&question, "add --yes", "nothing was changed")?;
    }
    let site = s.named_site().cloned().unwrap_or_else(|| node.site());
    let done = s.person(&site).await?.call(RemoveNode { node: node.clone() }).await?;
    s.out.show(&done, || format!("{node} is removed."))?;
    Ok(0)
}
