//! `xos site client`: services and programs to which people sign in by the site.

use super::ask;
use super::output::{Outcome, Table, clean, fields, list, when};
use super::session::Session;
use xos_api::cda::{Client, CreateClient, ListClients, RemoveClient, Scope};

/// What is shown below the help of the group.
pub const EXAMPLES: &str = "\
Examples:
  xos site client add Wiki --redirect https://wiki.rennes.example/oidc/callback --confidential
  xos site client list
  xos site client remove 0123456789abcdef0123456789abcdef";

/// `xos site client …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Register a service or program (site administrators).
    Add(Add),
    /// Show those that are registered (site administrators).
    #[command(after_help = "Examples:\n  xos site client list\n  xos site client list --json")]
    List,
    /// Take one away; nothing is issued to it any more (site administrators).
    Remove(Remove),
}

/// `xos site client add`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos site client add Wiki --redirect https://wiki.rennes.example/oidc/callback --confidential
  xos site client add oidc-agent --redirect http://localhost:4242 --device --scope offline_access
  xos site client add Storage --audience https://storage.rennes.example --confidential --introspect

Without --confidential it is a program on people's machines, which can keep no secret. People are \
asked each time, and read its name.")]
pub struct Add {
    /// What people read when they are asked.
    name: String,
    /// An address to which people's browsers may be sent back; any port on the person's own
    /// machine. May be given several times.
    #[arg(long = "redirect", value_name = "URL")]
    redirects: Vec<String>,
    /// It gets a secret, which is shown once.
    #[arg(long)]
    confidential: bool,
    /// It may sign people in by a code that they type at another device.
    #[arg(long)]
    device: bool,
    /// What it may ask for beside openid, profile, wlcg.groups and eduperson_entitlement:
    /// offline_access. With --only, nothing else.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<Scope>,
    /// It may ask for nothing but what --scope names.
    #[arg(long)]
    only: bool,
    /// The service that its access tokens are for, as that names itself [default: itself].
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// It may ask whether access tokens for its audience are good.
    #[arg(long)]
    introspect: bool,
}

/// `xos site client remove`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  xos site client remove 0123456789abcdef0123456789abcdef")]
pub struct Remove {
    /// Its id, as `xos site client list` shows it.
    id: String,
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
        Command::Add(args) => add(s, args).await,
        Command::List => show(s).await,
        Command::Remove(args) => remove(s, args).await,
    }
}

/// What a client may ask for.
fn scopes(named: Vec<Scope>, only: bool) -> Vec<Scope> {
    let usual = Scope::ALL.into_iter().filter(|s| !only && *s != Scope::OfflineAccess);
    usual.chain(named).collect()
}

async fn add(s: &Session, args: Add) -> Outcome {
    let request = CreateClient {
        name: args.name,
        redirects: args.redirects,
        confidential: args.confidential,
        device: args.device,
        scopes: scopes(args.scopes, args.only),
        audience: args.audience,
        introspect: args.introspect,
    };
    let made = s.person(&s.site()?).await?.call(request).await?;
    s.out.show(&made, || {
        let mut told = vec![("client id", clean(&made.client.id))];
        if let Some(secret) = &made.secret {
            told.push(("client secret", clean(&secret.0)));
        }
        fields(&told)
    })?;
    if made.secret.is_some() {
        s.out.note("The secret is shown once. Keep it where only the service reads it.")?;
    }
    Ok(0)
}

fn row(c: &Client) -> [String; 5] {
    let kind = if c.confidential { "service" } else { "program" };
    let mut ways: Vec<&str> = c.redirects.iter().map(String::as_str).collect();
    if c.device {
        ways.push("device");
    }
    if c.introspect {
        ways.push("introspection");
    }
    [clean(&c.id), clean(&c.name), kind.to_owned(), clean(&list(ways)), clean(&list(&c.scopes))]
}

async fn show(s: &Session) -> Outcome {
    let clients: Vec<Client> = s.person(&s.site()?).await?.call(ListClients {}).await?;
    let now = s.now();
    s.out.show(&clients, || {
        let mut table = Table::new(&["CLIENT", "NAME", "KIND", "BY", "SCOPES", "SINCE"]);
        for c in &clients {
            let [id, name, kind, ways, scopes] = row(c);
            table.row([id, name, kind, ways, scopes, when(c.created, now)]);
        }
        table.text("No client is registered; add one: xos site client add NAME")
    })?;
    Ok(0)
}

async fn remove(s: &Session, args: Remove) -> Outcome {
    if !args.yes {
        let question = format!("Nobody signs in to {} any more. Remove it?", clean(&args.id));
        ask::consent(&question, "add --yes", "nothing was changed")?;
    }
    let removed = RemoveClient { id: args.id.clone() };
    let done = s.person(&s.site()?).await?.call(removed).await?;
    s.out.show(&done, || format!("{} is removed.", clean(&args.id)))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a client would go on while people are away though nobody said so.
    #[test]
    fn going_on_while_people_are_away_is_named() {
        assert!(!scopes(vec![], false).contains(&Scope::OfflineAccess));
        assert_eq!(scopes(vec![Scope::OpenId], true), [Scope::OpenId]);
        assert_eq!(scopes(vec![Scope::OfflineAccess], false).len(), Scope::ALL.len());
    }
}
