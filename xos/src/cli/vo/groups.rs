//! Groups of a VO.

use super::OfVo;
use crate::cli::output::{Outcome, Table};
use crate::cli::pages;
use crate::cli::session::Session;
use xos_api::vom::{AddToGroup, CreateGroup, DeleteGroup, GroupPage, ListGroups, RemoveFromGroup};
use xos_base::{GroupName, PersonId, VoId};

/// `xos vo group …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show the groups.
    #[command(after_help = "Example:\n  xos vo group list demo.rennes")]
    List(OfVo),
    /// Make a group (VO administrators).
    #[command(after_help = "Example:\n  xos vo group create demo.rennes physics")]
    Create(OfGroup),
    /// Delete a group (VO administrators).
    #[command(after_help = "Example:\n  xos vo group delete demo.rennes physics")]
    Delete(OfGroup),
    /// Put a member into a group (VO administrators).
    #[command(after_help = "Example:\n  xos vo group add demo.rennes physics bob@pisa")]
    Add(InGroup),
    /// Take a member out of a group (VO administrators).
    #[command(after_help = "Example:\n  xos vo group drop demo.rennes physics bob@pisa")]
    Drop(InGroup),
}

/// A group.
#[derive(Debug, clap::Args)]
pub struct OfGroup {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The group.
    group: GroupName,
}

/// A group and a member.
#[derive(Debug, clap::Args)]
pub struct InGroup {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The group.
    group: GroupName,
    /// The person, as bob@pisa.
    person: PersonId,
}

/// Runs a command of this group.
pub async fn run(s: &Session, command: Command) -> Outcome {
    match command {
        Command::List(args) => return list(s, args.of).await,
        Command::Create(OfGroup { of: vo, group: name }) => {
            let made = s.vo_client(&vo).await?.call(CreateGroup { vo, name }).await?;
            s.out.show(&made, || format!("The group {} is there.", made.name))?;
        }
        Command::Delete(OfGroup { of: vo, group }) => {
            let client = s.vo_client(&vo).await?;
            let done = client.call(DeleteGroup { vo, name: group.clone() }).await?;
            s.out.show(&done, || format!("The group {group} is deleted."))?;
        }
        Command::Add(InGroup { of: vo, group, person }) => {
            let client = s.vo_client(&vo).await?;
            let ask = AddToGroup { vo, name: group.clone(), person: person.clone() };
            let done = client.call(ask).await?;
            s.out.show(&done, || format!("{person} is in the group {group}."))?;
        }
        Command::Drop(InGroup { of: vo, group, person }) => {
            let client = s.vo_client(&vo).await?;
            let ask = RemoveFromGroup { vo, name: group.clone(), person: person.clone() };
            let done = client.call(ask).await?;
            s.out.show(&done, || format!("{person} is in the group {group} no longer."))?;
        }
    }
    Ok(0)
}

async fn list(s: &Session, vo: VoId) -> Outcome {
    let client = s.vo_client(&vo).await?;
    let ask = |after| ListGroups { vo: vo.clone(), after, limit: None };
    let all = pages::all(&client, ask, |page: GroupPage| (page.groups, page.next)).await?;
    s.out.show(&all, || {
        let mut table = Table::new(&["GROUP", "NUMBER", "MEMBERS"]);
        for g in &all {
            table.row([g.name.to_string(), g.number.to_string(), g.members.to_string()]);
        }
        table.text("The VO has no groups.")
    })?;
    Ok(0)
}
