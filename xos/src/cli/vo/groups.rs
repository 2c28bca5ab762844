//! Groups of a VO.

use super::OfVo;
use crate::cli::output::{self, Outcome, Table};
use crate::cli::pages;
use crate::cli::session::Session;
use xos_api::vom::{
    AddManager, AddToGroup, CreateGroup, CreateSubgroup, DeleteGroup, GroupPage, ListGroupMembers,
    ListGroups, MemberPage, MoveGroup, RemoveFromGroup, RemoveManager,
};
use xos_base::{GroupName, PersonId, VoId};

/// `xos vo group …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show the groups.
    #[command(after_help = "Example:\n  xos vo group list demo.rennes")]
    List(OfVo),
    /// Make a group (VO administrators; within a group: its managers too).
    #[command(after_help = "\
Examples:
  xos vo group create demo.rennes physics
  xos vo group create demo.rennes students --in physics")]
    Create(Create),
    /// Delete a group (VO administrators; owners when an administrator is in it).
    #[command(after_help = "Example:\n  xos vo group delete demo.rennes physics")]
    Delete(OfGroup),
    /// Put a member into a group (VO administrators and managers of the group).
    #[command(after_help = "Example:\n  xos vo group add demo.rennes physics bob@pisa")]
    Add(InGroup),
    /// Take a member out of a group (VO administrators and managers of the group).
    #[command(after_help = "Example:\n  xos vo group drop demo.rennes physics bob@pisa")]
    Drop(InGroup),
    /// Show who is in a group or in one below it.
    #[command(after_help = "Example:\n  xos vo group members demo.rennes physics")]
    Members(OfGroup),
    /// Put a group within another one, or on top (VO administrators).
    #[command(after_help = "\
Examples:
  xos vo group move demo.rennes students --in physics
  xos vo group move demo.rennes students --top")]
    Move(Move),
    /// Let a member manage a group and those below it (VO administrators).
    #[command(after_help = "Example:\n  xos vo group manage demo.rennes physics bob@pisa")]
    Manage(InGroup),
    /// Let a member manage a group no longer (VO administrators, and the member).
    #[command(after_help = "Example:\n  xos vo group unmanage demo.rennes physics bob@pisa")]
    Unmanage(InGroup),
}

/// `xos vo group create`.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The group.
    group: GroupName,
    /// Within this group: who is in the new one is in this one too.
    #[arg(long = "in", value_name = "GROUP")]
    parent: Option<GroupName>,
}

/// `xos vo group move`.
#[derive(Debug, clap::Args)]
pub struct Move {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The group.
    group: GroupName,
    /// Within this group from now on.
    #[arg(long = "in", value_name = "GROUP", required_unless_present = "top")]
    parent: Option<GroupName>,
    /// Within no group.
    #[arg(long, conflicts_with = "parent")]
    top: bool,
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
        Command::Members(args) => return members(s, args).await,
        Command::Move(Move { of: vo, group: name, parent, .. }) => {
            let moved = s.vo_client(&vo).await?.call(MoveGroup { vo, name, parent }).await?;
            s.out.show(&moved, || match &moved.parent {
                Some(parent) => format!("The group {} is within {parent}.", moved.name),
                None => format!("The group {} is within no other.", moved.name),
            })?;
        }
        Command::Manage(InGroup { of: vo, group, person }) => {
            let ask = AddManager { vo: vo.clone(), name: group.clone(), person: person.clone() };
            let done = s.vo_client(&vo).await?.call(ask).await?;
            s.out.show(&done, || format!("{person} manages the group {group}."))?;
        }
        Command::Unmanage(InGroup { of: vo, group, person }) => {
            let ask = RemoveManager { vo: vo.clone(), name: group.clone(), person: person.clone() };
            let done = s.vo_client(&vo).await?.call(ask).await?;
            s.out.show(&done, || format!("{person} manages the group {group} no longer."))?;
        }
        Command::Create(Create { of: vo, group: name, parent }) => {
            let client = s.vo_client(&vo).await?;
            let made = match parent {
                Some(parent) => client.call(CreateSubgroup { vo, parent, name }).await?,
                None => client.call(CreateGroup { vo, name }).await?,
            };
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
        let mut table = Table::new(&["GROUP", "NUMBER", "MEMBERS", "WITHIN", "MANAGERS"]);
        for g in &all {
            table.row([
                g.name.to_string(),
                g.number.to_string(),
                g.members.to_string(),
                g.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
                output::list(&g.managers),
            ]);
        }
        table.text("The VO has no groups.")
    })?;
    Ok(0)
}

async fn members(s: &Session, args: OfGroup) -> Outcome {
    let OfGroup { of: vo, group: name } = args;
    let client = s.vo_client(&vo).await?;
    let ask = |after| ListGroupMembers { vo: vo.clone(), name: name.clone(), after, limit: None };
    let all = pages::all(&client, ask, |page: MemberPage| (page.members, page.next)).await?;
    s.out.show(&all, || super::members::members_table(&all, s.now()))?;
    Ok(0)
}
