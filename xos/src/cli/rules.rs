//! `xos vo rules` and `xos site rules`: who may do what, where.

mod file;

use super::ask;
use super::output::{Failure, Outcome, Style, Table, clean, fields, when};
use super::session::Session;
use file::RulesFile;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use xos_api::policy::{
    Action, Effect, GetSiteRules, GetVoRules, Rule, RuleList, RulesSet, SetSiteRules, SetVoRules,
    Side, Verdict, WhatIf, Where,
};
use xos_base::{Error, GroupName, Kind, Millis, PersonId, RoleName, VoId};
use xos_net::Client;

/// The file in the person's folder in which rules are edited.
const DRAFT: &str = "rules.toml";

/// What is shown below the help of `xos vo rules`.
pub const VO_EXAMPLES: &str = "\
Examples:
  xos vo rules show demo.rennes
  xos vo rules edit demo.rennes
  xos vo rules test demo.rennes --what run --person bob@pisa";
/// What is shown below the help of `xos site rules`.
pub const SITE_EXAMPLES: &str = "\
Examples:
  xos site rules show
  xos site rules edit
  xos site rules test demo.rennes --what run --person bob@pisa";

/// `xos vo rules …`.
#[derive(Debug, clap::Subcommand)]
pub enum VoCommand {
    /// Show the VO's rules.
    #[command(after_help = "\
Examples:
  xos vo rules show demo.rennes
  xos vo rules show demo.rennes --toml > rules.toml")]
    Show(VoShow),
    /// Change the VO's rules in an editor (VO administrators).
    #[command(after_help = "\
Example:
  xos vo rules edit demo.rennes

The editor is that of VISUAL or EDITOR, else vi.")]
    Edit(OfVo),
    /// Set the VO's rules to those in a file, TOML or JSON (VO administrators).
    #[command(after_help = "\
Examples:
  xos vo rules set demo.rennes rules.toml
  xos vo rules set demo.rennes - < rules.json

Rules that the file does not hold go. With the version in it, as `show --toml` writes it, nothing \
is set when somebody else changed the rules meanwhile.")]
    Set(VoSet),
    /// Ask what the rules of VO and site would say (yourself, or administrators).
    #[command(after_help = "\
Examples:
  xos vo rules test demo.rennes --what run --person bob@pisa
  xos vo rules test demo.rennes --what login --group physics --where node:n1.pisa")]
    Test(Test),
}

/// `xos site rules …`.
#[derive(Debug, clap::Subcommand)]
pub enum SiteCommand {
    /// Show your site's rules (site administrators).
    #[command(after_help = "\
Examples:
  xos site rules show
  xos site rules show --toml > rules.toml")]
    Show(SiteShow),
    /// Change your site's rules in an editor (site administrators).
    #[command(after_help = "\
Example:
  xos site rules edit

The editor is that of VISUAL or EDITOR, else vi.")]
    Edit,
    /// Set your site's rules to those in a file, TOML or JSON (site administrators).
    #[command(after_help = "\
Examples:
  xos site rules set rules.toml
  xos site rules set - --site pisa < rules.json

Rules that the file does not hold go. With the version in it, as `show --toml` writes it, nothing \
is set when somebody else changed the rules meanwhile.")]
    Set(SiteSet),
    /// Ask what the rules of a VO and your site would say (yourself, or administrators).
    #[command(after_help = "\
Examples:
  xos site rules test demo.rennes --what run --person bob@pisa
  xos site rules test demo.rennes --what login --role pilot --where node:n1.rennes")]
    Test(Test),
}

/// A VO.
#[derive(Debug, clap::Args)]
pub struct OfVo {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
}

/// `xos vo rules show`.
#[derive(Debug, clap::Args)]
pub struct VoShow {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// As TOML, for a file that can be changed and set.
    #[arg(long)]
    toml: bool,
}

/// `xos site rules show`.
#[derive(Debug, clap::Args)]
pub struct SiteShow {
    /// As TOML, for a file that can be changed and set.
    #[arg(long)]
    toml: bool,
}

/// `xos vo rules set`.
#[derive(Debug, clap::Args)]
pub struct VoSet {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The file (`-`: standard input).
    file: PathBuf,
}

/// `xos site rules set`.
#[derive(Debug, clap::Args)]
pub struct SiteSet {
    /// The file (`-`: standard input).
    file: PathBuf,
}

/// `xos vo rules test` and `xos site rules test`.
#[derive(Debug, clap::Args)]
pub struct Test {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// What would be done: login, submit, run, see or cancel.
    #[arg(long, value_name = "ACTION")]
    what: Action,
    /// By whom; without --group and --role as they are in the VO.
    #[arg(long, value_name = "PERSON")]
    person: Option<PersonId>,
    /// By somebody in this group. May be given several times.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<GroupName>,
    /// By somebody with this role. May be given several times.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<RoleName>,
    /// Where: site:SITE or node:NODE.SITE; that site's core is asked.
    #[arg(long = "where", value_name = "PLACE", default_value = "*")]
    place: Where,
}

/// Whose rules.
enum Whose {
    Vo(VoId),
    Site,
}

/// Runs a command of `xos vo rules`.
///
/// # Errors
/// What the core says.
pub async fn run_vo(s: &Session, command: VoCommand) -> Outcome {
    match command {
        VoCommand::Show(VoShow { of, toml }) => show(s, &Whose::Vo(of), toml).await,
        VoCommand::Edit(OfVo { of }) => edit(s, &Whose::Vo(of)).await,
        VoCommand::Set(VoSet { of, file }) => set(s, &Whose::Vo(of), &file).await,
        VoCommand::Test(args) => {
            let site = s.site_of(&args.of);
            test(s, args, site).await
        }
    }
}

/// Runs a command of `xos site rules`.
///
/// # Errors
/// What the core says.
pub async fn run_site(s: &Session, command: SiteCommand) -> Outcome {
    match command {
        SiteCommand::Show(SiteShow { toml }) => show(s, &Whose::Site, toml).await,
        SiteCommand::Edit => edit(s, &Whose::Site).await,
        SiteCommand::Set(SiteSet { file }) => set(s, &Whose::Site, &file).await,
        SiteCommand::Test(args) => test(s, args, s.site()?).await,
    }
}

impl Whose {
    async fn client(&self, s: &Session) -> Result<Client, Error> {
        match self {
            Whose::Vo(vo) => s.vo_client(vo).await,
            Whose::Site => s.person(&s.site()?).await,
        }
    }

    async fn list(&self, client: &Client) -> Result<RuleList, Error> {
        match self {
            Whose::Vo(vo) => client.call(GetVoRules { vo: vo.clone() }).await,
            Whose::Site => client.call(GetSiteRules {}).await,
        }
    }

    async fn set(
        &self,
        client: &Client,
        version: u64,
        rules: Vec<Rule>,
    ) -> Result<RulesSet, Error> {
        match self {
            Whose::Vo(vo) => client.call(SetVoRules { vo: vo.clone(), version, rules }).await,
            Whose::Site => client.call(SetSiteRules { version, rules }).await,
        }
    }
}

async fn show(s: &Session, whose: &Whose, toml: bool) -> Outcome {
    let list = whose.list(&whose.client(s).await?).await?;
    let text = if toml { Some(RulesFile::of(&list).toml()?) } else { None };
    s.out.show(&list, || text.unwrap_or_else(|| table(&list, s.now())))?;
    Ok(0)
}

/// Rules as a table, and who changed them last.
fn table(list: &RuleList, now: Millis) -> String {
    let mut table = Table::new(&["RULE", "EFFECT", "WHO", "VO", "WHAT", "WHERE", "NOTE"]);
    for rule in &list.rules {
        let effect = match rule.effect {
            Effect::Allow => Style::Good.mark("allow"),
            Effect::Deny => Style::Bad.mark("deny"),
        };
        table.row([
            rule.name.to_string(),
            effect,
            rule.who.to_string(),
            rule.vo.to_string(),
            rule.what.to_string(),
            rule.place.to_string(),
            clean(&rule.note),
        ]);
    }
    let text = table.text("There is no rule: nobody may do anything.");
    match &list.changed {
        None => text,
        Some(change) => {
            let by = match &change.by {
                xos_api::vom::Actor::Person(person) => person.to_string(),
                xos_api::vom::Actor::Site(site) => format!("the core of {site}"),
            };
            format!("{text}\n\nChanged by {by} {}.", when(change.time, now))
        }
    }
}

async fn set(s: &Session, whose: &Whose, path: &Path) -> Outcome {
    let file = RulesFile::read(path)?;
    let client = whose.client(s).await?;
    let version = match file.version {
        Some(version) => version,
        None => whose.list(&client).await?.version,
    };
    told(s, whose.set(&client, version, file.rules).await?)
}

fn told(s: &Session, set: RulesSet) -> Outcome {
    s.out.show(&set, || {
        let warned =
            set.warnings.iter().map(|w| format!("\n{}: {}", Style::Busy.mark("warning"), clean(w)));
        format!("The rules are set, version {}.{}", set.version, warned.collect::<String>())
    })?;
    Ok(0)
}

/// Edits until the rules are taken or the person gives up.
async fn edit(s: &Session, whose: &Whose) -> Outcome {
    if !std::io::stdin().is_terminal() {
        return Err(Error::invalid("there is no terminal to edit on")
            .hint("write the rules to a file by `show --toml`, and set them by `set FILE`")
            .into());
    }
    let client = whose.client(s).await?;
    let list = whose.list(&client).await?;
    let before = RulesFile::of(&list).toml()?;
    s.home.write_text(DRAFT, &before)?;
    let path = s.home.absolute()?.join(DRAFT);
    loop {
        open_editor(&path)?;
        let taken = match RulesFile::read(&path) {
            Ok(file) if file.rules == list.rules => {
                s.home.remove(DRAFT)?;
                s.out.note("Nothing was changed.")?;
                return Ok(0);
            }
            Ok(file) => whose.set(&client, file.version.unwrap_or(list.version), file.rules).await,
            Err(e) => Err(e),
        };
        match taken {
            Ok(set) => {
                s.home.remove(DRAFT)?;
                return told(s, set);
            }
            Err(e) if matches!(e.kind, Kind::Invalid | Kind::TooLarge) => {
                s.out.warn(&e)?;
                let kept = format!("your rules are kept in {}", path.display());
                if !ask::confirm("Edit again?", &kept)? {
                    return Err(Failure::Error(e.hint(kept)));
                }
            }
            Err(e) => {
                let kept = format!("your rules are kept in {}", path.display());
                let hint = e.hint.clone().map_or(kept.clone(), |hint| format!("{hint}; {kept}"));
                return Err(Failure::Error(e.hint(hint)));
            }
        }
    }
}

/// Lets the person edit a file. The shell reads the variables, which may hold options too.
fn open_editor(path: &Path) -> Result<(), Error> {
    let editor = std::process::Command::new("sh")
        .args(["-c", "exec ${VISUAL:-${EDITOR:-vi}} \"$1\"", "sh"])
        .arg(path)
        .status();
    match editor {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Error::invalid(format!("the editor ended with {status}"))
            .hint("nothing was changed; VISUAL or EDITOR names the editor")),
        Err(e) => Err(Error::invalid(format!("the editor cannot be started: {e}"))),
    }
}

async fn test(s: &Session, args: Test, site: xos_base::SiteId) -> Outcome {
    let site = match &args.place {
        Where::Any => site,
        Where::Site(site) => site.clone(),
        Where::Node(node) => node.site(),
    };
    let Test { of: vo, what, person, groups, roles, place } = args;
    let ask = WhatIf { vo, person, groups, roles, what, place };
    let verdict = s.person(&site).await?.call(ask).await?;
    s.out.show(&verdict, || describe(&verdict))?;
    Ok(0)
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Site => "site",
        Side::Vo => "VO",
    }
}

fn describe(verdict: &Verdict) -> String {
    let said =
        if verdict.allowed { Style::Good.mark("allowed") } else { Style::Bad.mark("denied") };
    let rule = verdict.rule.as_ref().map_or("none: the default", |rule| rule.name.as_str());
    let head = fields(&[
        ("verdict", said),
        ("decided by", format!("the {}'s rules", side(verdict.side))),
        ("rule", rule.to_owned()),
        ("why", clean(&verdict.text)),
    ]);
    let mut table = Table::new(&["SIDE", "RULE", "EFFECT", "WHO", "WHAT", "WHERE"]);
    for matched in &verdict.matched {
        let rule = &matched.rule;
        table.row([
            side(matched.side).to_owned(),
            rule.name.to_string(),
            rule.effect.as_str().to_owned(),
            rule.who.to_string(),
            rule.what.to_string(),
            rule.place.to_string(),
        ]);
    }
    format!("{head}\n\n{}", table.text("No rule speaks of it."))
}
