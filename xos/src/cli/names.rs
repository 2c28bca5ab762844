//! `xos names`: what accounts of members are called at a site, where it is not the common rule.

pub mod fuzzing;
mod gridmap;
mod import;
mod people;
mod plan;

use super::ask;
use super::output::{Outcome, Style, Table, when};
use super::pages;
use super::session::Session;
use xos_api::vom::{AccountName, DropName, GiveNames, ListNames, NamePage, Naming, ReleaseName};
use xos_base::{LocalName, Millis, PersonId, VoId};

/// `xos names …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Give a member's account a name of your site's choice (site administrators).
    Give(Give),
    /// Show the names that your site gave (site administrators).
    List(List),
    /// Take a name from the person to whom it belongs (site administrators).
    Release(Release),
    /// Give the names in a legacy grid-mapfile (site administrators).
    Import(import::Import),
}

/// `xos names give`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos names give demo.rennes alice@rennes alice
  xos names give demo.rennes alice@rennes --default

The uid and the home stay as they are. On a machine that has a local user of that name, the \
account is called as before; `xos node accounts check` there says so.")]
pub struct Give {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The member, as alice@rennes.
    person: PersonId,
    /// What the account is to be called: 1 to 31 of a-z, 0-9, '-' and '_'.
    #[arg(required_unless_present = "default", conflicts_with = "default")]
    name: Option<LocalName>,
    /// Call it by the common rule again; the name stays the person's.
    #[arg(long)]
    default: bool,
}

/// `xos names list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos names list
  xos names list demo.rennes --json")]
pub struct List {
    /// Of this VO only.
    #[arg(value_name = "VO")]
    of: Option<VoId>,
}

/// `xos names release`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  xos names release alice

Files and lists of your site that name the person so will then be read as the next one's. It goes to
nobody else for an hour, since connections that were opened before may be the person's.")]
pub struct Release {
    /// The name.
    name: LocalName,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// Runs a command of this group.
///
/// # Errors
/// What the core says.
pub async fn run(s: &Session, command: Command) -> Outcome {
    match command {
        Command::Give(args) => give(s, args).await,
        Command::List(args) => list(s, args).await,
        Command::Release(args) => release(s, args).await,
        Command::Import(args) => import::import(s, args).await,
    }
}

async fn give(s: &Session, args: Give) -> Outcome {
    let Give { of: vo, person, name, .. } = args;
    let core = s.person(&s.site()?).await?;
    let Some(name) = name else {
        let dropped = core.call(DropName { vo, person }).await?;
        s.out.show(&dropped, || match &dropped.account {
            Some(a) => format!("The account of {} is called {} again.", dropped.person, a.default),
            None => format!("{} has no account here now.", dropped.person),
        })?;
        return Ok(0);
    };
    let ask = GiveNames { vo, names: vec![Naming { person, name }], dry_run: false };
    let given = core.call(ask).await?;
    s.out.show(&given, || given.iter().map(told).collect::<Vec<_>>().join("\n"))?;
    Ok(0)
}

fn told(given: &AccountName) -> String {
    let AccountName { name, person, vo, .. } = given;
    let uid = given.account.as_ref().map(|a| format!(", uid {},", a.uid)).unwrap_or_default();
    let former = given.former.as_ref().map(|f| format!(" {f} stays kept for them."));
    format!(
        "The account of {person} in {vo}{uid} is called {name} now.{}",
        former.unwrap_or_default()
    )
}

async fn list(s: &Session, args: List) -> Outcome {
    let core = s.person(&s.site()?).await?;
    let ask = |after| ListNames { vo: args.of.clone(), after, limit: None };
    let all = pages::all(&core, ask, |page: NamePage| (page.names, page.next)).await?;
    let now = s.now();
    s.out.show(&all, || table(&all, now))?;
    Ok(0)
}

fn table(all: &[AccountName], now: Millis) -> String {
    let mut table = Table::new(&["NAME", "PERSON", "VO", "UID", "STATE", "SINCE"]);
    for row in all {
        let state = match (row.used, &row.account) {
            (true, Some(_)) => Style::Good.mark("used"),
            (true, None) => "kept: no member now".to_owned(),
            (false, _) => "kept".to_owned(),
        };
        table.row([
            row.name.to_string(),
            row.person.to_string(),
            row.vo.to_string(),
            row.account.as_ref().map(|a| a.uid.to_string()).unwrap_or_default(),
            state,
            when(row.since, now),
        ]);
    }
    table.text("All accounts are called by the common rule.")
}

async fn release(s: &Session, args: Release) -> Outcome {
    let Release { name, yes } = args;
    if !yes {
        let question = format!(
            "Files and lists of your site that say {name} will be read as the next holder's. \
             Release it?"
        );
        ask::consent(&question, "add --yes", "nothing was changed")?;
    }
    let core = s.person(&s.site()?).await?;
    let released = core.call(ReleaseName { name }).await?;
    s.out.show(&released, || {
        let AccountName { name, person, .. } = &released;
        format!("{name} is {person}'s no more; somebody else can be given it in an hour.")
    })?;
    Ok(0)
}
