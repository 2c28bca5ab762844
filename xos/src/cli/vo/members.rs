//! Members of a VO: applications, decisions, roles.

use crate::cli::output::{Outcome, Style, Table, clean, list, when};
use crate::cli::pages;
use crate::cli::session::Session;
use crate::cli::values::{self, When};
use xos_api::Done;
use xos_api::vom::{
    ApplicationPage, Approve as ApproveRequest, GrantRole, ListApplications, ListMembers,
    MemberInfo, MemberPage, MemberState, Reject, RemoveMember, ResumeMember, SetExpiry,
    SuspendMember, WithdrawRole,
};
use xos_base::{GroupName, Millis, PersonId, RoleName, VoId};

/// `xos vo approve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos vo approve demo.rennes bob@pisa
  xos vo approve demo.rennes bob@pisa --group physics --role admin --expires 2027-01-31")]
pub struct Approve {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The applicant, as bob@pisa.
    person: PersonId,
    /// Put them into this group; may be given several times.
    #[arg(short, long = "group", value_name = "GROUP", value_delimiter = ',')]
    groups: Vec<GroupName>,
    /// Give them this role; may be given several times.
    #[arg(short, long = "role", value_name = "ROLE", value_delimiter = ',')]
    roles: Vec<RoleName>,
    /// When the membership ends by itself: 2027-01-31 (inclusive, UTC), or 90d from now.
    #[arg(long, value_parser = values::time, value_name = "DATE")]
    expires: Option<When>,
}

/// A command about a member.
#[derive(Debug, clap::Args)]
pub struct OfMember {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The person, as bob@pisa.
    person: PersonId,
}

/// A command about a member that needs a reason.
#[derive(Debug, clap::Args)]
pub struct WithReason {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The person, as bob@pisa.
    person: PersonId,
    /// Why; the person sees it.
    #[arg(short = 'm', long = "reason", value_name = "REASON")]
    reason: String,
}

/// `xos vo remove`.
#[derive(Debug, clap::Args)]
pub struct RemoveArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The person, as bob@pisa.
    person: PersonId,
    /// Why; the person sees it.
    #[arg(short = 'm', long = "reason", value_name = "REASON", default_value = "")]
    reason: String,
}

/// `xos vo expiry`.
#[derive(Debug, clap::Args)]
pub struct Expiry {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The person, as bob@pisa.
    person: PersonId,
    /// The end: 2027-01-31 (inclusive, UTC), 90d from now, or never.
    #[arg(value_parser = end, value_name = "DATE")]
    end: End,
}

/// When a membership ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Never,
    At(When),
}

fn end(text: &str) -> Result<End, String> {
    if text == "never" { Ok(End::Never) } else { values::time(text).map(End::At) }
}

/// `xos vo role …`.
#[derive(Debug, clap::Subcommand)]
pub enum RoleCommand {
    /// Give a member a role (VO administrators; admin and owner: owners).
    #[command(after_help = "Example:\n  xos vo role grant demo.rennes bob@pisa admin")]
    Grant(RoleArgs),
    /// Take a role from a member.
    #[command(after_help = "Example:\n  xos vo role withdraw demo.rennes bob@pisa admin")]
    Withdraw(RoleArgs),
}

/// A member and a role.
#[derive(Debug, clap::Args)]
pub struct RoleArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The person, as bob@pisa.
    person: PersonId,
    /// The role: admin, owner, or one of the VO's own.
    role: RoleName,
}

/// Shows who asks to become a member.
pub async fn applications(s: &Session, vo: VoId) -> Outcome {
    let client = s.vo_client(&vo).await?;
    let ask = |after| ListApplications { vo: vo.clone(), after, limit: None };
    let all =
        pages::all(&client, ask, |page: ApplicationPage| (page.applications, page.next)).await?;
    let now = s.now();
    s.out.show(&all, || {
        let mut table = Table::new(&["PERSON", "SINCE", "INVITED TO", "MESSAGE"]);
        for a in &all {
            let message: String = clean(&a.message).chars().take(100).collect();
            let gives = a.gives.as_ref();
            let groups = gives.into_iter().flat_map(|g| g.groups.iter().map(ToString::to_string));
            let roles = gives.into_iter().flat_map(|g| g.roles.iter().map(ToString::to_string));
            let ends = gives.and_then(|g| g.ends).map(|end| format!("until {end}"));
            let invited = groups.chain(roles).chain(ends).collect::<Vec<_>>().join(", ");
            table.row([a.person.to_string(), when(a.since, now), invited, message]);
        }
        table.text("Nobody waits for a decision.")
    })?;
    Ok(0)
}

/// Admits an applicant.
pub async fn approve(s: &Session, args: Approve) -> Outcome {
    let request = ApproveRequest {
        vo: args.of.clone(),
        person: args.person,
        groups: args.groups,
        roles: args.roles,
        expires: args.expires.map(|e| e.from(s.now())),
    };
    let member = s.vo_client(&args.of).await?.call(request).await?;
    s.out.show(&member, || format!("{} is a member of {} now.", member.person, args.of))?;
    Ok(0)
}

/// Turns an applicant down.
pub async fn reject(s: &Session, args: WithReason) -> Outcome {
    let WithReason { of: vo, person, reason } = args;
    let client = s.vo_client(&vo).await?;
    let done = client.call(Reject { vo, person: person.clone(), reason }).await?;
    said(s, done, || format!("{person} is turned down."))
}

fn said(s: &Session, done: Done, text: impl FnOnce() -> String) -> Outcome {
    s.out.show(&done, text)?;
    Ok(0)
}

/// Shows the members.
pub async fn list_members(s: &Session, vo: VoId) -> Outcome {
    let client = s.vo_client(&vo).await?;
    let ask = |after| ListMembers { vo: vo.clone(), after, limit: None };
    let all = pages::all(&client, ask, |page: MemberPage| (page.members, page.next)).await?;
    s.out.show(&all, || members_table(&all, s.now()))?;
    Ok(0)
}

/// Members as a table.
pub fn members_table(members: &[MemberInfo], now: Millis) -> String {
    let mut table = Table::new(&["PERSON", "GROUPS", "ROLES", "STATE", "SINCE", "ENDS"]);
    for m in members {
        let state = match &m.state {
            MemberState::Active if m.expires.is_some_and(|e| e <= now) => {
                Style::Bad.mark("expired")
            }
            MemberState::Active if !m.acts => Style::Bad.mark("cannot act"),
            MemberState::Active => Style::Good.mark("active"),
            MemberState::Suspended { reason } => {
                Style::Bad.mark(&format!("suspended: {}", clean(reason)))
            }
        };
        table.row([
            m.person.to_string(),
            list(&m.groups),
            list(&m.roles),
            state,
            when(m.since, now),
            m.expires.map(|e| when(e, now)).unwrap_or_default(),
        ]);
    }
    table.text("The VO has no members.")
}

/// Suspends a member.
pub async fn suspend(s: &Session, args: WithReason) -> Outcome {
    let WithReason { of: vo, person, reason } = args;
    let client = s.vo_client(&vo).await?;
    let done = client.call(SuspendMember { vo, person: person.clone(), reason }).await?;
    said(s, done, || format!("{person} is suspended."))
}

/// Resumes a member.
pub async fn resume(s: &Session, args: OfMember) -> Outcome {
    let OfMember { of: vo, person } = args;
    let client = s.vo_client(&vo).await?;
    let done = client.call(ResumeMember { vo, person: person.clone() }).await?;
    said(s, done, || format!("{person} can act again."))
}

/// Removes a member.
pub async fn remove(s: &Session, args: RemoveArgs) -> Outcome {
    let RemoveArgs { of: vo, person, reason } = args;
    let client = s.vo_client(&vo).await?;
    let request = RemoveMember { vo: vo.clone(), person: person.clone(), reason };
    let done = client.call(request).await?;
    said(s, done, || format!("{person} is no longer a member of {vo}; their work there ends."))
}

/// Sets when a membership ends.
pub async fn expiry(s: &Session, args: Expiry) -> Outcome {
    let Expiry { of: vo, person, end } = args;
    let expires = match end {
        End::Never => None,
        End::At(when) => Some(when.from(s.now())),
    };
    let client = s.vo_client(&vo).await?;
    let done = client.call(SetExpiry { vo, person: person.clone(), expires }).await?;
    let text = expires.map_or("never".to_owned(), |e| e.to_string());
    said(s, done, || format!("The membership of {person} ends: {text}."))
}

/// Gives or takes a role.
pub async fn role(s: &Session, command: RoleCommand) -> Outcome {
    match command {
        RoleCommand::Grant(RoleArgs { of: vo, person, role }) => {
            let client = s.vo_client(&vo).await?;
            let request = GrantRole { vo, person: person.clone(), role: role.clone() };
            let done = client.call(request).await?;
            said(s, done, || format!("{person} has the role {role}."))
        }
        RoleCommand::Withdraw(RoleArgs { of: vo, person, role }) => {
            let client = s.vo_client(&vo).await?;
            let request = WithdrawRole { vo, person: person.clone(), role: role.clone() };
            let done = client.call(request).await?;
            said(s, done, || format!("{person} has the role {role} no longer."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::golden;
    use xos_base::{Epoch, MemberNumber};

    #[test]
    fn the_table_of_members() {
        let member = |person: &str, state, acts, expires| MemberInfo {
            person: person.parse().unwrap(),
            number: MemberNumber(1),
            epoch: Epoch(1),
            groups: vec!["members".parse().unwrap(), "physics".parse().unwrap()],
            roles: vec![],
            since: Millis(0),
            expires,
            state,
            acts,
        };
        let reason = "laptop\u{1b}[31m stolen".to_owned();
        let members = [
            member("alice@rennes", MemberState::Active, true, None),
            member("bob@pisa", MemberState::Suspended { reason }, false, Some(Millis(9_000_000))),
            member("carl@pisa", MemberState::Active, false, None),
            member("eve@pisa", MemberState::Active, false, Some(Millis(7_000_000))),
        ];
        let text = members_table(&members, Millis(8_000_000));
        let plain: String =
            text.chars().filter(|c| !('\u{2060}'..='\u{2064}').contains(c)).collect();
        golden::check("members.txt", &(plain + "\n"));
    }
}
