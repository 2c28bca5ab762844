//! `xos person`: the people of a site.

use super::ask;
use super::output::{Outcome, Style, Table, clean, holds, when};
use super::pages;
use super::session::Session;
use super::values::PersonArg;
use std::path::PathBuf;
use xos_api::cda::{CreatePerson, ListPeople, PeoplePage, RecoverPerson, SetPassword, SetPerson};
use xos_base::PersonId;

/// `xos person …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a person known to the site (site administrators).
    Add(Add),
    /// Show the people of the site (site administrators).
    #[command(after_help = "Examples:\n  xos person list\n  xos person list --json")]
    List,
    /// Change your password, or as administrator another person's.
    Passwd(Passwd),
    /// Let a person sign in no longer (site administrators).
    #[command(after_help = "Example:\n  xos person disable mallory")]
    Disable {
        /// The person, as mallory or mallory@rennes.
        person: PersonArg,
    },
    /// Let a disabled person sign in again (site administrators).
    #[command(after_help = "Example:\n  xos person enable mallory")]
    Enable {
        /// The person, as mallory or mallory@rennes.
        person: PersonArg,
    },
    /// Take all ways to sign in from a person and get a code by which they make a new one (site
    /// administrators).
    #[command(after_help = RECOVER_EXAMPLES)]
    Recover {
        /// The person, as alice or alice@rennes.
        person: PersonArg,
    },
}

const RECOVER_EXAMPLES: &str = "\
Example:
  xos person recover alice

For who lost password and passkeys, or had them stolen. Password, passkeys and linked accounts are \
gone at once and all sessions end. Make sure that it is them, and tell them the code by a way that \
others do not hear. It is good once, for an hour. They are told who did it when they sign in.";

/// `xos person add`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos person add alice
  xos person add ada --site-admin
  xos person add bob --password-file bob.txt

Tell the person their first password; they change it by `xos person passwd`.")]
pub struct Add {
    /// The name: a-z, 0-9, '-' and '_', beginning with a letter.
    name: PersonArg,
    /// They shall administer the site.
    #[arg(long)]
    site_admin: bool,
    /// Read the first password from this file (`-`: standard input) instead of asking.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// `xos person passwd`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos person passwd
  xos person passwd bob --password-file new.txt    as administrator

Whose password an administrator sets is told so at each sign-in for 30 days.")]
pub struct Passwd {
    /// The person; without one, you.
    person: Option<PersonArg>,
    /// Read the new password from this file (`-`: standard input) instead of asking.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Read your present password from this file instead of asking.
    #[arg(long, value_name = "FILE")]
    present_file: Option<PathBuf>,
}

/// Runs a command of this group.
///
/// # Errors
/// What the core says.
pub async fn run(s: &Session, command: Command) -> Outcome {
    match command {
        Command::Add(args) => add(s, args).await,
        Command::List => list(s).await,
        Command::Passwd(args) => passwd(s, args).await,
        Command::Disable { person } => set(s, &person, true).await,
        Command::Enable { person } => set(s, &person, false).await,
        Command::Recover { person } => recover(s, &person).await,
    }
}

async fn add(s: &Session, args: Add) -> Outcome {
    let site = args.name.site().cloned().map_or_else(|| s.site(), Ok)?;
    let person = args.name.at(&site)?;
    let client = s.person(&site).await?;
    let prompt = format!("First password of {person}: ");
    let password = ask::new_password(&prompt, args.password_file.as_deref())?;
    let name = person.name().to_owned();
    let made = client.call(CreatePerson { name, password, site_admin: args.site_admin }).await?;
    s.out.show(&made, || format!("{} can sign in: xos login {0}", made.person))?;
    Ok(0)
}

async fn list(s: &Session) -> Outcome {
    let client = s.person(&s.site()?).await?;
    let ask = |after| ListPeople { after, limit: None };
    let people = pages::all(&client, ask, |page: PeoplePage| (page.people, page.next)).await?;
    let now = s.now();
    s.out.show(&people, || {
        let mut table = Table::new(&["PERSON", "RIGHTS", "STATE", "SINCE"]);
        for p in &people {
            let state = match p.disabled {
                true => Style::Bad.mark("disabled"),
                false => Style::Good.mark("active"),
            };
            let rights = if p.site_admin { "site admin" } else { "" };
            table.row([p.person.to_string(), rights.into(), state, when(p.created, now)]);
        }
        table.text("Nobody is known here.")
    })?;
    Ok(0)
}

async fn passwd(s: &Session, args: Passwd) -> Outcome {
    let me = s.signed_in()?.person;
    let person = match &args.person {
        Some(person) => person.at(&me.site())?,
        None => me.clone(),
    };
    let client = s.person(&person.site()).await?;
    let own = person == me;
    let present = match own {
        true => Some(ask::password("Your present password: ", args.present_file.as_deref())?),
        false => None,
    };
    let prompt = format!("New password of {person}: ");
    let password = ask::new_password(&prompt, args.password_file.as_deref())?;
    let done = client.call(SetPassword { person: person.clone(), present, password }).await?;
    if own {
        // The sign-in that it was done with has ended.
        s.end_login()?;
    }
    s.out.show(&done, || password_set(&person, own, done.first))?;
    Ok(0)
}

/// What is said about a new password. `first`: there was none before.
fn password_set(person: &PersonId, own: bool, first: bool) -> String {
    let told = match own {
        true => format!("Sign in with it: xos login {person}"),
        false => "They are told at each sign-in for 30 days that you set it.".to_owned(),
    };
    match first && !own {
        true => format!(
            "{person} had no password. Whatever else they sign in by, this one lets them in too. \
             {told}"
        ),
        false => format!("The password of {person} is changed. {told}"),
    }
}

async fn set(s: &Session, person: &PersonArg, disabled: bool) -> Outcome {
    let site = person.site().cloned().map_or_else(|| s.site(), Ok)?;
    let person = person.at(&site)?;
    let request = SetPerson { person, disabled: Some(disabled), site_admin: None };
    let now = s.person(&site).await?.call(request).await?;
    s.out.show(&now, || match now.disabled {
        true => format!("{} cannot sign in any more.", now.person),
        false => format!("{} can sign in.", now.person),
    })?;
    Ok(0)
}

async fn recover(s: &Session, person: &PersonArg) -> Outcome {
    let site = person.site().cloned().map_or_else(|| s.site(), Ok)?;
    let person = person.at(&site)?;
    let made = s.person(&site).await?.call(RecoverPerson { person }).await?;
    let now = s.now();
    s.out.show(&made, || {
        format!(
            "All ways in of {} are gone. Tell them to open\n  {}\nand to type there their name and \
             this code, good once, {}:\n  {}",
            made.person,
            clean(&made.address),
            holds(made.expires, now),
            clean(&made.code.0)
        )
    })?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, an administrator would not hear that they opened one more way in, or that its
    /// person learns of it.
    #[test]
    fn what_a_new_password_changes_is_said() {
        let bob: PersonId = "bob@rennes".parse().unwrap();
        let said = password_set(&bob, false, true);
        assert!(said.contains("had no password") && said.contains("are told"), "{said}");
        let said = password_set(&bob, false, false);
        assert!(said.contains("is changed") && said.contains("are told"), "{said}");
        for first in [true, false] {
            let said = password_set(&bob, true, first);
            assert!(said.contains("xos login bob@rennes") && !said.contains("told"), "{said}");
        }
    }
}
