//! `xos site`: getting to know sites, and trust between them.

use super::output::{Outcome, Style, Table, clean, fields, list, when};
use super::session::Session;
use super::sites::{KnownSite, SiteBook};
use super::ssh;
use super::values;
use super::{ask, clients, rules};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use xos_api::cda::{
    AcceptTrust, ForgetSite, ListSites, OfferTrust, OfferView, ReadOffer, TrustedSite,
};
use xos_base::{Error, SiteId};

/// Longest invitation, in bytes.
const OFFER_MAX: u64 = 128 * 1024;

/// `xos site …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Get to know a site, so that you can sign in there.
    Add(Add),
    /// Show the sites that your site trusts, or that this computer knows.
    List(List),
    /// Invite another site to exchange trust (site administrators).
    Offer(Offer),
    /// Accept another site's invitation (site administrators).
    Accept(Accept),
    /// End the trust in a site (site administrators), or make this computer forget it.
    Forget(Forget),
    /// Services and programs to which people sign in by your site (site administrators).
    #[command(subcommand, after_help = clients::EXAMPLES)]
    Client(clients::Command),
    /// Rules of your site, which win over those of VOs (site administrators).
    #[command(subcommand, after_help = rules::SITE_EXAMPLES)]
    Rules(rules::SiteCommand),
}

/// `xos site add`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos site add core.rennes.example
  xos site add 10.0.0.1:7443 --fingerprint sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

The fingerprint says which site it really is. Get it from the site's administrator by another \
way (their web page, a call) and compare.")]
pub struct Add {
    /// Where the site's core listens: a name or address, with :PORT when it is not 7443.
    address: String,
    /// The site's fingerprint, as its administrator told you; then nothing is asked.
    #[arg(long, value_parser = values::fingerprint, value_name = "sha256:HEX")]
    fingerprint: Option<String>,
    /// Believe whoever answers, without comparing the fingerprint.
    #[arg(long)]
    yes: bool,
}

/// `xos site list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  xos site list\n  xos site list --local")]
pub struct List {
    /// Show what this computer knows; your site is not asked.
    #[arg(long)]
    local: bool,
}

/// `xos site offer`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos site offer pisa --out to-pisa.offer
  xos site offer pisa --site rennes > to-pisa.offer

Send the invitation to the other site's administrator by a way that others do not read, and \
tell them the fingerprint by another. They run `xos site accept`.")]
pub struct Offer {
    /// The invited site.
    invited: SiteId,
    /// Write the invitation to this file instead of printing it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The invited site's fingerprint, when you know it: then nobody else can accept.
    #[arg(long, value_parser = values::fingerprint, value_name = "sha256:HEX")]
    fingerprint: Option<String>,
}

/// `xos site accept`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos site accept to-pisa.offer --fingerprint sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
  xos site accept - --yes --fingerprint sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

Afterwards both sites accept each other's machines, and people of VOs at home there, as far as \
your site gives those VOs a share.")]
pub struct Accept {
    /// The file that the other administrator sent (`-`: standard input).
    file: PathBuf,
    /// The inviting site's fingerprint, as its administrator told you.
    #[arg(long, value_parser = values::fingerprint, value_name = "sha256:HEX")]
    fingerprint: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// `xos site forget`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos site forget pisa            your site trusts pisa no longer
  xos site forget pisa --local    only this computer forgets it")]
pub struct Forget {
    /// The site.
    forgotten: SiteId,
    /// Only this computer forgets it.
    #[arg(long)]
    local: bool,
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
        Command::List(args) => show(s, &args).await,
        Command::Offer(args) => offer(s, args).await,
        Command::Accept(args) => accept(s, args).await,
        Command::Forget(args) => forget(s, args).await,
        Command::Client(command) => clients::run(s, command).await,
        Command::Rules(command) => rules::run_site(s, command).await,
    }
}

async fn add(s: &Session, args: Add) -> Outcome {
    let (descriptor, fingerprint) = xos_net::discover::discover(&args.address).await?;
    let site = descriptor.site.clone();
    if let Some(named) = s.named_site()
        && *named != site
    {
        return Err(Error::unauthenticated(format!("{} is the core of {site}", args.address))
            .hint(format!("you asked for {named}: check the address"))
            .into());
    }
    match &args.fingerprint {
        Some(told) if *told != fingerprint => {
            return Err(Error::unauthenticated(format!(
                "{} shows the fingerprint {fingerprint}, not {told}; nothing was kept",
                args.address
            ))
            .hint("somebody may be in between: ask the site's administrator")
            .into());
        }
        Some(_) => {}
        None if args.yes => {}
        None => {
            s.out.note(&fields(&[
                ("site", Style::Head.mark(site.as_str())),
                ("fingerprint", fingerprint.clone()),
            ]))?;
            let question = "Is this the fingerprint that the site's administrator told you?";
            let instead = format!(
                "compare it and run: xos site add {} --fingerprint {fingerprint}",
                args.address
            );
            ask::consent(question, &instead, "nothing was kept")?;
        }
    }
    let known = KnownSite {
        descriptor,
        fingerprint,
        reached: Some(xos_net::discover::with_port(&args.address)?),
        learned_from: None,
    };
    let mut book = SiteBook::read(&s.home)?;
    book.learn(known.clone())?;
    book.write(&s.home)?;
    ssh::sites_changed(s);
    s.out.show(&known, || format!("Site {site} is known now. Sign in: xos login NAME@{site}"))?;
    Ok(0)
}

async fn show(s: &Session, args: &List) -> Outcome {
    if args.local || s.login()?.is_none() {
        return show_local(s);
    }
    let sites: Vec<TrustedSite> = s.person(&s.site()?).await?.call(ListSites {}).await?;
    let now = s.now();
    s.out.show(&sites, || {
        let mut table = Table::new(&["SITE", "TRUSTED", "ADDRESSES", "FINGERPRINT"]);
        for t in &sites {
            let since = t.since.map_or("this site".to_owned(), |since| when(since, now));
            let d = &t.descriptor;
            table.row([
                d.site.to_string(),
                since,
                clean(&list(&d.addresses)),
                clean(&t.fingerprint),
            ]);
        }
        table.text("No site is trusted.")
    })?;
    Ok(0)
}

fn show_local(s: &Session) -> Outcome {
    let book = SiteBook::read(&s.home)?;
    s.out.show(&book, || {
        let mut table = Table::new(&["SITE", "KNOWN", "ADDRESSES", "FINGERPRINT"]);
        for k in &book.sites {
            let how = match &k.learned_from {
                Some(site) => format!("from {site}"),
                None => "added by you".to_owned(),
            };
            let addresses = book.dialled(&k.descriptor.site).map(|d| list(&d.addresses));
            table.row([
                k.descriptor.site.to_string(),
                how,
                clean(&addresses.unwrap_or_default()),
                clean(&k.fingerprint),
            ]);
        }
        table.text("This computer knows no site yet; add yours: xos site add ADDRESS")
    })?;
    Ok(0)
}

async fn offer(s: &Session, args: Offer) -> Outcome {
    let request = OfferTrust { site: args.invited.clone(), fingerprint: args.fingerprint };
    let offer = s.person(&s.site()?).await?.call(request).await?;
    if let Some(path) = &args.out {
        write_private(path, &offer.offer)?;
    }
    let told = fields(&[
        ("fingerprint", Style::Head.mark(&clean(&offer.fingerprint))),
        ("valid until", offer.expires.to_string()),
    ]);
    if s.out.json {
        s.out.value(&offer)?;
    } else if args.out.is_none() {
        s.out.text(&clean_token(&offer.offer))?;
        s.out.note(&told)?;
    } else {
        s.out.text(&told)?;
    }
    s.out.note(&format!(
        "Send the invitation to the administrator of {}; tell them the fingerprint by another way.",
        args.invited
    ))?;
    Ok(0)
}

/// An invitation or token is one line of plain characters.
fn clean_token(text: &str) -> String {
    clean(text.trim())
}

fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let write = || -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
        writeln!(file, "{}", text.trim())
    };
    write().map_err(|e| {
        Error::invalid(format!("cannot write {}: {e}", path.display()))
            .hint("name a new file with --out")
    })
}

fn read_offer(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(OFFER_MAX + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|f| f.take(OFFER_MAX + 1).read_to_string(&mut text))
    };
    read.map_err(|e| Error::invalid(format!("cannot read {}: {e}", path.display())))?;
    if text.len() as u64 > OFFER_MAX || text.trim().is_empty() {
        return Err(Error::invalid(format!("{} holds no invitation", path.display())));
    }
    Ok(text.trim().to_owned())
}

async fn accept(s: &Session, args: Accept) -> Outcome {
    let offer = read_offer(&args.file)?;
    let client = s.person(&s.site()?).await?;
    let view: OfferView = client.call(ReadOffer { offer: offer.clone() }).await?;
    if view.fingerprint != args.fingerprint {
        return Err(Error::unauthenticated(format!(
            "the invitation is by a site with the fingerprint {}, not {}; nothing was accepted",
            clean(&view.fingerprint),
            args.fingerprint
        ))
        .hint(format!("ask the administrator of {}", view.site))
        .into());
    }
    if !args.yes {
        s.out.note(&fields(&[
            ("site", Style::Head.mark(view.site.as_str())),
            ("addresses", clean(&list(&view.addresses))),
            ("fingerprint", clean(&view.fingerprint)),
            ("valid until", view.expires.to_string()),
        ]))?;
        let question = format!("Exchange trust with {}?", view.site);
        ask::consent(&question, "add --yes", "nothing was accepted")?;
    }
    let accepted = client.call(AcceptTrust { offer, fingerprint: args.fingerprint }).await?;
    s.out.show(&accepted, || {
        format!("{} and {} trust each other now.", client_site(s), accepted.descriptor.site)
    })?;
    Ok(0)
}

fn client_site(s: &Session) -> String {
    s.site().map_or("Your site".to_owned(), |site| site.to_string())
}

async fn forget(s: &Session, args: Forget) -> Outcome {
    let site = &args.forgotten;
    if args.local {
        let mut book = SiteBook::read(&s.home)?;
        if !book.forget(site) {
            return Err(Error::not_found(format!("this computer does not know {site}")).into());
        }
        book.write(&s.home)?;
        ssh::sites_changed(s);
        s.out.show(&book, || format!("This computer has forgotten {site}."))?;
        return Ok(0);
    }
    let own = s.site()?;
    if !args.yes {
        let question = format!("Work between {own} and {site} stops. End the trust?");
        ask::consent(&question, "add --yes", "nothing was changed")?;
    }
    let done = s.person(&own).await?.call(ForgetSite { site: site.clone() }).await?;
    s.out.show(&done, || format!("{own} trusts {site} no longer."))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_is_written_for_its_owner_and_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("to-pisa.offer");
        write_private(&path, "secret").unwrap();
        assert_eq!(read_offer(&path).unwrap(), "secret");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&path).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600, "others could read the invitation's secret");
        assert!(write_private(&path, "other").is_err());
    }
}
