//! `xos audit`: what happened, at all sites that serve a VO; and whether the record is whole.

mod verify;

use super::output::{Outcome as Ended, Style, Table, clean};
use super::session::Session;
use super::values::{self, When};
use std::time::Duration;
use xos_api::audit::{AUDIT_PAGE_MAX, Line, Outcome, SearchAudit};
use xos_api::vom::WhoServes;
use xos_base::{Error, Kind, Millis, NodeId, PersonId, SiteId, VoId};
use xos_net::Client;

/// The exit status when an audit was tampered with: behind those of sysexits.h.
pub const TAMPERED_STATUS: u8 = 79;
/// Most lines that can be asked for.
const LIMIT_MAX: u32 = 10_000;
/// Most requests to one site.
const REQUESTS_MAX: usize = 200;
/// Most characters of one text in the table.
const CELL_MAX: usize = 60;
const DAY: Duration = Duration::from_secs(86_400);
/// How long before midnight a day ends on the command line.
const MOMENT: Duration = Duration::from_millis(1);

const EXAMPLES: &str = "\
Examples:
  xos audit                                              what concerns you at your site
  xos audit --vo demo.rennes --since 7d                  a VO, at all its sites (its administrators)
  xos audit --person bob@pisa --outcome refused
  xos audit verify                                       is the record whole (site administrators)

Times are those at which a site's core noted something. --site asks one site only.";

/// `xos audit`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    search: Search,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Find out whether lines were removed, altered, reordered or cut off.
    Verify(verify::Verify),
    /// Show how far other sites witness your site's audit (site administrators).
    #[command(after_help = "\
Examples:
  xos audit heads
  xos audit heads --json > heads.json    for: xos audit verify --dir DIR --heads heads.json")]
    Heads,
}

#[derive(Debug, clap::Args)]
struct Search {
    /// What was done by somebody whose name holds this.
    #[arg(long, value_name = "TEXT")]
    who: Option<String>,
    /// What concerns this person, as bob@pisa.
    #[arg(long, value_name = "PERSON")]
    person: Option<PersonId>,
    /// This operation, as sign_in.
    #[arg(long, value_name = "WHAT")]
    what: Option<String>,
    /// What happened on this machine, as n1.rennes.
    #[arg(long, value_name = "NODE")]
    node: Option<NodeId>,
    /// What went like this: done, refused or failed.
    #[arg(long, value_parser = outcome, value_name = "OUTCOME")]
    outcome: Option<Outcome>,
    /// Where some text holds this.
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// From then on: 2027-01-31 (UTC), 2027-01-31T12:00:00Z, or 7d ago.
    #[arg(long, value_parser = since, value_name = "TIME")]
    since: Option<When>,
    /// Up to then: 2027-01-31 (inclusive, UTC), 2027-01-31T12:00:00Z, or 7d ago.
    #[arg(long, value_parser = values::time, value_name = "TIME")]
    until: Option<When>,
    /// At most so many lines, the newest.
    #[arg(long, default_value_t = 50, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(LIMIT_MAX)))]
    limit: u32,
}

fn outcome(text: &str) -> Result<Outcome, String> {
    match text {
        "done" => Ok(Outcome::Done),
        "refused" => Ok(Outcome::Refused),
        "failed" => Ok(Outcome::Failed),
        _ => Err("write done, refused or failed".to_owned()),
    }
}

/// As [`values::time`], but a day counts from its beginning.
fn since(text: &str) -> Result<When, String> {
    match values::time(text)? {
        When::At(end) if !text.contains('T') => Ok(When::At(end.plus(MOMENT).minus(DAY))),
        when => Ok(when),
    }
}

/// A point in time that has passed.
fn past(when: When, now: Millis) -> Millis {
    match when {
        When::At(t) => t,
        When::After(ago) => now.minus(ago),
    }
}

/// Runs `xos audit`.
///
/// # Errors
/// What the cores say.
pub async fn run(s: &Session, args: AuditArgs) -> Ended {
    match args.command {
        Some(Command::Verify(args)) => verify::verify(s, args).await,
        Some(Command::Heads) => verify::heads(s).await,
        None => search(s, args.search).await,
    }
}

async fn search(s: &Session, args: Search) -> Ended {
    let now = s.now();
    let vo = s.named_vo().cloned();
    let ask = SearchAudit {
        vo: vo.clone(),
        person: args.person,
        who: args.who,
        what: args.what,
        node: args.node,
        outcome: args.outcome,
        text: args.text,
        since: args.since.map(|t| past(t, now)),
        until: args.until.map(|t| past(t, now)),
        before: None,
        limit: None,
    };
    let (mut lines, mut answered, mut failed) = (Vec::new(), 0, None);
    for site in sites(s, vo.as_ref()).await? {
        let found = match client(s, &site, vo.as_ref()).await {
            Ok(client) => of_site(&client, &ask, args.limit).await,
            Err(e) => Err(e),
        };
        match found {
            Ok(found) => {
                answered += 1;
                lines.extend(found.lines);
                found.notes.iter().try_for_each(|e| s.out.warn(&at(&site, e.clone())))?;
                if found.own && vo.is_some() {
                    s.out.note(&format!("At {site} you see what concerns you only."))?;
                }
            }
            Err(e) => {
                s.out.warn(&at(&site, e.clone()))?;
                failed = Some(e);
            }
        }
    }
    if let (0, Some(e)) = (answered, failed) {
        return Err(e.into());
    }
    newest(&mut lines, args.limit);
    s.out.show(&lines, || table(&lines))?;
    Ok(0)
}

/// The same error, with the site from which it came.
fn at(site: &SiteId, e: Error) -> Error {
    Error { message: format!("{site}: {}", e.message), ..e }
}

/// Where to look: at the site that is named, else at all that serve the VO, else at one's own.
async fn sites(s: &Session, vo: Option<&VoId>) -> Result<Vec<SiteId>, Error> {
    if let Some(site) = s.named_site() {
        return Ok(vec![site.clone()]);
    }
    let Some(vo) = vo else { return Ok(vec![s.site()?]) };
    let home = vo.site();
    let serving = client(s, &home, Some(vo)).await?.call(WhoServes { vo: vo.clone() }).await?;
    let mut sites = vec![home];
    for serving in serving {
        if !sites.contains(&serving.site) {
            sites.push(serving.site);
        }
    }
    Ok(sites)
}

/// A client of `site`: as the person who signed in, else by the VO's certificate.
async fn client(s: &Session, site: &SiteId, vo: Option<&VoId>) -> Result<Client, Error> {
    match (s.person(site).await, vo) {
        (Err(e), Some(vo)) if e.kind == Kind::Unauthenticated => {
            Ok(s.member(vo, site).await?.client)
        }
        (client, _) => client,
    }
}

/// What one site said.
struct Found {
    lines: Vec<Line>,
    own: bool,
    notes: Vec<Error>,
}

async fn of_site(client: &Client, ask: &SearchAudit, limit: u32) -> Result<Found, Error> {
    let mut found = Found { lines: Vec::new(), own: false, notes: Vec::new() };
    let (mut before, mut unreadable) = (None, 0);
    for request in 1.. {
        let had = u32::try_from(found.lines.len()).unwrap_or(u32::MAX);
        let part = Some(limit.saturating_sub(had).min(AUDIT_PAGE_MAX));
        let page = client.call(SearchAudit { before, limit: part, ..ask.clone() }).await?;
        found.lines.extend(page.lines);
        found.own = page.own;
        unreadable += page.unreadable;
        let enough = found.lines.len() >= limit as usize;
        // A site that says "go on" and never comes to an end is not followed.
        before = page.next.filter(|next| before.is_none_or(|b| *next < b));
        if enough || before.is_none() {
            break;
        }
        if request >= REQUESTS_MAX {
            let more = Error::limited("older lines were not looked at").hint("narrow it: --until");
            found.notes.push(more);
            break;
        }
    }
    if unreadable > 0 {
        let text = format!("{unreadable} lines cannot be read");
        found.notes.push(Error::internal(text).hint("tell the site's administrator"));
    }
    Ok(found)
}

/// The newest lines of all sites, the newest first.
fn newest(lines: &mut Vec<Line>, limit: u32) {
    lines.sort_by(|a, b| {
        b.noted.cmp(&a.noted).then_with(|| a.site.cmp(&b.site)).then(b.number.cmp(&a.number))
    });
    lines.truncate(limit as usize);
}

fn table(lines: &[Line]) -> String {
    let mut table = Table::new(&["NOTED", "SITE", "WHAT", "WHO", "CONCERNS", "OUTCOME", "WHY"]);
    for line in lines {
        let e = &line.event;
        let outcome = match e.outcome {
            Outcome::Done => Style::Good.mark("done"),
            Outcome::Refused => Style::Bad.mark("refused"),
            Outcome::Failed => Style::Bad.mark("failed"),
        };
        let noted: String = line.noted.to_string().chars().take(19).collect();
        let noted = noted.replace('T', " ");
        let (what, who) = (cell(&e.what), cell(&e.who));
        table.row([noted, line.site.to_string(), what, who, concerns(line), outcome, cell(&e.why)]);
    }
    table.text("Nothing was found.")
}

/// Whom and what a line is about, beside who did it.
fn concerns(line: &Line) -> String {
    let e = &line.event;
    let person = e.person.as_ref().filter(|p| p.as_str() != e.who).map(ToString::to_string);
    let node = e.node.as_ref().map(|n| format!("on {n}"));
    let vo = e.vo.as_ref().map(|v| format!("in {v}"));
    let on = (!e.on.is_empty()).then(|| cell(&e.on));
    let parts: Vec<String> = [person, on, node, vo].into_iter().flatten().collect();
    parts.join(" ")
}

fn cell(text: &str) -> String {
    let mut short: String = clean(text).chars().take(CELL_MAX).collect();
    if text.chars().nth(CELL_MAX).is_some() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_api::audit::Event;

    fn line(site: &str, number: u64, noted: u64) -> Line {
        Line {
            site: site.parse().unwrap(),
            number,
            prev: String::new(),
            noted: Millis(noted),
            reported: None,
            event: Event {
                who: "bob@pisa".into(),
                person: Some("bob@pisa".parse().unwrap()),
                vo: Some("demo.rennes".parse().unwrap()),
                why: "tired\u{1b}[2J".into(),
                ..Event::new(Millis(1), "sign_in")
            },
        }
    }

    /// If it failed, lines of several sites would be in no order, or old ones in the place of new.
    #[test]
    fn lines_of_several_sites_are_put_in_order() {
        let mut all = vec![line("rennes", 5, 50), line("rennes", 4, 20)];
        all.extend([line("pisa", 9, 50), line("pisa", 8, 30)]);
        newest(&mut all, 3);
        let order: Vec<_> = all.iter().map(|l| (l.site.as_str(), l.number)).collect();
        assert_eq!(order, [("pisa", 9), ("rennes", 5), ("pisa", 8)]);
    }

    #[test]
    fn a_table_shows_no_control_characters_and_says_what_it_is_about() {
        let mut of_alice = line("rennes", 5, 1000);
        of_alice.event.person = Some("alice@rennes".parse().unwrap());
        let text = table(&[of_alice]);
        assert!(text.contains("alice@rennes in demo.rennes") && !text.contains('\u{1b}'), "{text}");
        assert!(text.contains("1970-01-01 00:00:01"), "{text}");
        assert_eq!(concerns(&line("rennes", 5, 1)), "in demo.rennes");
        assert_eq!(cell(&"x".repeat(CELL_MAX + 1)).len(), CELL_MAX + 3);
    }

    #[test]
    fn days_are_whole() {
        let now = Millis::from_secs(1_801_500_000);
        let day = past(since("2027-01-31").unwrap(), now);
        assert_eq!(day, Millis::from_secs(1_801_440_000 - 86_400));
        assert_eq!(past(values::time("2027-01-31").unwrap(), now), day.plus(DAY).minus(MOMENT));
        let noon = past(since("2027-01-31T12:00:00Z").unwrap(), now);
        assert_eq!(noon, day.plus(DAY / 2));
        assert_eq!(past(since("1h").unwrap(), now), now.minus(Duration::from_secs(3600)));
        assert!(outcome("Done").is_err() && outcome("done") == Ok(Outcome::Done));
    }
}
