//! What ends when, and what was.

use super::settings::Base;
use crate::cli::output::{Outcome, Style, Table, clean, list, when};
use crate::cli::pages;
use crate::cli::session::Session;
use crate::cli::values::{self, When};
use xos_api::vom::{
    Actor, Change, EXTEND_MAX, ExpiringMember, ExpiringPage, ExtendMemberships, Extended,
    HistoryEntry, HistoryPage, ListExpiring, MemberHistory, SetReminders,
};
use xos_base::{Error, Millis, PersonId, VoId};

/// `xos vo expiring`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  xos vo expiring demo.rennes\n  xos vo expiring demo.rennes --days 90"
)]
pub struct ExpiringArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// Within so many days [default: the largest of the VO's reminders].
    #[arg(long)]
    days: Option<u32>,
}

/// `xos vo extend`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos vo extend demo.rennes 2028-01-31 bob@pisa carla@rennes
  xos vo extend demo.rennes never bob@pisa")]
pub struct ExtendArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The end: 2028-01-31 (inclusive, UTC), 365d from now, or never.
    #[arg(value_parser = end, value_name = "DATE")]
    end: End,
    /// Whose memberships.
    #[arg(required = true, value_name = "PERSON")]
    persons: Vec<PersonId>,
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

/// `xos vo reminders`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  xos vo reminders demo.rennes 60 30 7")]
pub struct RemindersArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// How many days before an end; at most five numbers.
    #[arg(required = true, value_name = "DAYS")]
    days: Vec<u32>,
    #[command(flatten)]
    base: Base,
}

/// `xos vo history`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos vo history demo.rennes
  xos vo history demo.rennes bob@pisa    as administrator of the VO")]
pub struct HistoryArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The person; without one, you.
    person: Option<PersonId>,
}

/// Shows whose membership or consent ends soon.
pub async fn expiring(s: &Session, args: ExpiringArgs) -> Outcome {
    let (vo, days) = (args.of, args.days);
    let client = s.vo_client(&vo).await?;
    let ask = |after| ListExpiring { vo: vo.clone(), days, after, limit: None };
    let mut all = pages::all(&client, ask, |page: ExpiringPage| (page.members, page.next)).await?;
    all.sort_by_key(|m| [m.expires, m.lapses].into_iter().flatten().min());
    let now = s.now();
    s.out.show(&all, || ending(&all, now))?;
    Ok(0)
}

fn ending(all: &[ExpiringMember], now: Millis) -> String {
    let mut table = Table::new(&["PERSON", "MEMBERSHIP", "CONSENT DUE", "SUSPENDED"]);
    let cell = |at: Option<Millis>| match at {
        Some(at) if at <= now => Style::Bad.mark(&when(at, now)),
        Some(at) => when(at, now),
        None => String::new(),
    };
    for m in all {
        table.row([m.person.to_string(), cell(m.expires), cell(m.due), cell(m.lapses)]);
    }
    table.text("Nobody's membership or consent ends soon.")
}

/// Sets the end of many memberships.
pub async fn extend(s: &Session, args: ExtendArgs) -> Outcome {
    let vo = args.of;
    let expires = match args.end {
        End::Never => None,
        End::At(when) => Some(when.from(s.now())),
    };
    let client = s.vo_client(&vo).await?;
    let mut all: Vec<Extended> = Vec::new();
    for some in args.persons.chunks(EXTEND_MAX) {
        let persons = some.to_vec();
        all.extend(client.call(ExtendMemberships { vo: vo.clone(), persons, expires }).await?);
    }
    let text = expires.map_or("never".to_owned(), |e| e.to_string());
    s.out.show(&all, || {
        let mut table = Table::new(&["PERSON", "ENDS"]);
        for e in &all {
            let ends = match &e.trouble {
                None => text.clone(),
                Some(e) => Style::Bad.mark(&format!("not changed: {}", clean(&e.message))),
            };
            table.row([e.person.to_string(), ends]);
        }
        table.text("")
    })?;
    let failed = all.into_iter().find_map(|e| e.trouble);
    failed.map_or(Ok(0), |e: Error| Err(e.into()))
}

/// Sets when people are reminded.
pub async fn reminders(s: &Session, args: RemindersArgs) -> Outcome {
    let RemindersArgs { of: vo, days, base: Base { base } } = args;
    let text = list(&days);
    let done = s.vo_client(&vo).await?.call(SetReminders { vo: vo.clone(), days, base }).await?;
    s.out.show(&done, || format!("{vo} reminds its members {text} days before an end."))?;
    Ok(0)
}

/// Shows what happened to somebody in a VO.
pub async fn history(s: &Session, args: HistoryArgs) -> Outcome {
    let vo = args.of;
    let person = match args.person {
        Some(person) => person,
        None => s.signed_in()?.person,
    };
    let client = s.vo_client(&vo).await?;
    let ask = |after| MemberHistory { vo: vo.clone(), person: person.clone(), after, limit: None };
    let all = pages::all(&client, ask, |page: HistoryPage| (page.entries, page.next)).await?;
    let now = s.now();
    s.out.show(&all, || {
        let mut table = Table::new(&["WHEN", "WHAT", "BY"]);
        for e in &all {
            let (what, by) = told(e);
            table.row([when(e.time, now), what, by]);
        }
        table.text("Nothing is noted of this person.")
    })?;
    Ok(0)
}

/// What an entry says, and who did it.
fn told(e: &HistoryEntry) -> (String, String) {
    let because = |text: &str, reason: &str| match reason {
        "" => text.to_owned(),
        reason => format!("{text}: {}", clean(reason)),
    };
    let what = match &e.change {
        Change::Founded { .. } => "founded the VO".to_owned(),
        Change::Applied { message, .. } => because("applied", message),
        Change::ApplicationWithdrawn { .. } => "took the application back".to_owned(),
        Change::ApplicationRejected { reason, .. } => because("turned down", reason),
        Change::Admitted { groups, roles, expires, .. } => {
            let mut text = "admitted".to_owned();
            if !groups.is_empty() {
                text.push_str(&format!(", groups {}", list(groups)));
            }
            if !roles.is_empty() {
                text.push_str(&format!(", roles {}", list(roles)));
            }
            expires.iter().for_each(|at| text.push_str(&format!(", until {at}")));
            text
        }
        Change::Joined { invitation, .. } => format!("joined by invitation {}", clean(invitation)),
        Change::MemberSuspended { reason, .. } => because("suspended", reason),
        Change::MemberResumed { .. } => "resumed".to_owned(),
        Change::MemberRemoved { reason, .. } => because("removed", reason),
        Change::MemberExpirySet { expires: Some(at), .. } => format!("ends {at}"),
        Change::MemberExpirySet { expires: None, .. } => "ends never".to_owned(),
        Change::RoleGranted { role, .. } => format!("got the role {role}"),
        Change::RoleWithdrawn { role, .. } => format!("lost the role {role}"),
        Change::GroupMemberAdded { name, .. } => format!("came into the group {name}"),
        Change::GroupMemberRemoved { name, .. } => format!("left the group {name}"),
        Change::Agreed { version, .. } => format!("agreed to version {version} of the terms"),
        Change::GroupManagerAdded { name, .. } => format!("manages the group {name}"),
        Change::GroupManagerRemoved { name, .. } => format!("manages the group {name} no more"),
        Change::HandoverOffered { by, to } => format!("{by} offered the ownership to {to}"),
        Change::HandoverAccepted { by, to } => format!("{to} is owner in place of {by}"),
        Change::HandoverEnded { by } => format!("the offer of {by} to hand over ended"),
        _ => "another change".to_owned(),
    };
    let by = match &e.actor {
        Actor::Person(person) => person.to_string(),
        Actor::Site(site) => format!("site {site}"),
    };
    (what, by)
}
