//! What is noted: of a VO over its sites, of this site, of oneself. Whether the record is whole.

mod filter;
mod verify;

pub(crate) use verify::{show_heads, verify};

use super::sign_in::kindly;
use super::site::SiteHead;
use super::vo::{self, Head};
use crate::view::{Badge, Frame, When, page};
use crate::visit::{Shown, Stop, Visit};
use askama::Template;
use filter::{Before, Filter};
use futures_util::future::join_all;
use xos_api::audit::{AuditPage, Line, Outcome, SearchAudit};
use xos_api::vom::WhoServes;
use xos_base::{SiteId, VoId};

/// Lines on one page.
const LINES_MAX: usize = 100;
/// Most sites that one page asks.
const SITES_MAX: usize = 32;
/// Longest text that is shown of a line, in characters.
const TEXT_SHOWN: usize = 300;

#[derive(Template)]
#[template(path = "audit.html")]
struct View {
    frame: Frame,
    vo: Option<Head>,
    site: Option<SiteHead>,
    heading: String,
    path: String,
    /// The person's own lines: whom they concern is no question.
    own: bool,
    filter: Filter,
    troubles: Vec<String>,
    lines: Vec<Row>,
    /// The query of the next part.
    older: Option<String>,
}

/// A line in words.
struct Row {
    at: When,
    place: String,
    number: u64,
    what: String,
    who: String,
    on: String,
    person: String,
    vo: String,
    outcome: Badge,
    why: String,
    from: String,
    /// When it happened, where that is another time than when it was noted.
    happened: Option<When>,
}

fn shown(text: &str) -> String {
    if text.chars().count() <= TEXT_SHOWN {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(TEXT_SHOWN).collect();
    cut.push('…');
    cut
}

fn outcome(outcome: Outcome) -> Badge {
    match outcome {
        Outcome::Done => Badge { word: "done", sign: "✓", class: "good" },
        Outcome::Refused => Badge { word: "refused", sign: "✕", class: "bad" },
        Outcome::Failed => Badge { word: "failed", sign: "!", class: "bad" },
    }
}

/// A line of the site that was asked, whatever it says of itself.
fn row(site: &SiteId, l: &Line) -> Row {
    let e = &l.event;
    let noted = When::from(l.noted);
    let happened = Some(When::from(e.time)).filter(|t| t.text != noted.text);
    Row {
        at: noted,
        happened,
        place: e.node.as_ref().map_or_else(|| site.to_string(), ToString::to_string),
        number: l.number,
        what: shown(&e.what),
        who: if e.who.is_empty() { "nobody proved".to_owned() } else { shown(&e.who) },
        on: shown(&e.on),
        person: e.person.as_ref().map(ToString::to_string).unwrap_or_default(),
        vo: e.vo.as_ref().map(ToString::to_string).unwrap_or_default(),
        outcome: outcome(e.outcome),
        why: shown(&e.why),
        from: e.from.map(|a| a.to_string()).unwrap_or_default(),
    }
}

/// The lines of a VO, at all its sites: its administrators see them, others what concerns them.
pub(crate) async fn of_vo(visit: Visit) -> Shown {
    let info = vo::info(&visit).await?;
    let vo = visit.vo()?;
    let filter = Filter::read(&visit.query)?;
    let ask = SearchAudit { vo: Some(vo.clone()), ..filter.search() };
    let sites = sites(&visit, &vo).await?;
    let mut found = search(&visit, sites, &ask, &filter.before).await?;
    if found.own && found.troubles.is_empty() {
        found.troubles.push("You see what concerns you: all of it is for administrators.".into());
    }
    let head = Head::new(&info, "audit");
    show(&visit, (Some(head), None), &format!("/vo/{vo}/audit"), filter, found).await
}

/// The lines of this site, for its administrators.
pub(crate) async fn of_site(visit: Visit) -> Shown {
    super::site::administrator(&visit).await?;
    let filter = Filter::read(&visit.query)?;
    let own = vec![visit.console.grid.site().clone()];
    let found = search(&visit, own, &filter.search(), &filter.before).await?;
    let head = SiteHead::new("audit");
    show(&visit, (None, Some(head)), "/site/audit", filter, found).await
}

/// What concerns the visitor, at this site.
pub(crate) async fn of_me(visit: Visit) -> Shown {
    let filter = Filter::read(&visit.query)?;
    let own = vec![visit.console.grid.site().clone()];
    let person = Some(visit.session.person.clone());
    let ask = SearchAudit { person, ..filter.search() };
    let found = search(&visit, own, &ask, &filter.before).await?;
    show(&visit, (None, None), "/audit", filter, found).await
}

/// The home of a VO and the sites that serve it.
async fn sites(visit: &Visit, vo: &VoId) -> Result<Vec<SiteId>, Stop> {
    let serving = visit.ask_either(vo, WhoServes { vo: vo.clone() }).await?;
    let mut sites = vec![vo.site()];
    for serving in serving {
        if !sites.contains(&serving.site) && sites.len() < SITES_MAX {
            sites.push(serving.site);
        }
    }
    Ok(sites)
}

/// What was found.
struct Found {
    lines: Vec<(SiteId, Line)>,
    before: Before,
    troubles: Vec<String>,
    own: bool,
}

/// Asks all sites for the next part of each, and shows the newest of what they say.
async fn search(
    visit: &Visit,
    sites: Vec<SiteId>,
    ask: &SearchAudit,
    before: &Before,
) -> Result<Found, Stop> {
    let open: Vec<SiteId> = sites.into_iter().filter(|s| !before.is_over(s)).collect();
    let limit = u32::try_from(LINES_MAX).ok();
    let asked: Vec<_> = open
        .iter()
        .map(|site| {
            let before = before.of(site);
            visit.ask_at(site, SearchAudit { before, limit, ..ask.clone() })
        })
        .collect();
    let answers = join_all(asked).await;
    let mut found =
        Found { lines: Vec::new(), before: before.clone(), troubles: Vec::new(), own: false };
    let mut next = Vec::new();
    for (site, answer) in open.into_iter().zip(answers) {
        match answer {
            Ok(page) => {
                if page.unreadable > 0 {
                    found.troubles.push(format!(
                        "{site}: {} lines cannot be read; its administrators verify the audit.",
                        page.unreadable
                    ));
                }
                found.own |= page.own;
                next.push((site.clone(), take(&mut found, &site, page)));
            }
            Err(Stop::Failed(e)) => {
                found.troubles.push(format!("{site}: {} Its lines are missing.", kindly(&e)));
            }
            Err(stop) => return Err(stop),
        }
    }
    newest(&mut found, next);
    Ok(found)
}

/// Adds a site's lines; gives back where its next part begins.
fn take(found: &mut Found, site: &SiteId, page: AuditPage) -> Option<u64> {
    let AuditPage { lines, next, .. } = page;
    let lines = lines.into_iter().take(LINES_MAX).map(|l| (site.clone(), l));
    found.lines.extend(lines);
    next
}

/// Keeps the newest lines, and notes for each site where the next part begins: before its last
/// line that is shown, or where the site said, when all of its lines are.
fn newest(found: &mut Found, next: Vec<(SiteId, Option<u64>)>) {
    found.lines.sort_by(|(a, x), (b, y)| {
        y.noted.cmp(&x.noted).then(a.cmp(b)).then(y.number.cmp(&x.number))
    });
    let left = found.lines.split_off(found.lines.len().min(LINES_MAX));
    for (site, next) in next {
        let last = found.lines.iter().filter(|(s, _)| *s == site).map(|(_, l)| l.number).min();
        let hidden = left.iter().any(|(s, _)| *s == site);
        match (hidden, last) {
            (true, Some(number)) => found.before.set(site, number),
            // Nothing of it was shown: its part begins where it began.
            (true, None) => {}
            (false, _) => found.before.set(site, next.unwrap_or(0)),
        }
    }
}

async fn show(
    visit: &Visit,
    (vo, site): (Option<Head>, Option<SiteHead>),
    path: &str,
    filter: Filter,
    found: Found,
) -> Shown {
    let (heading, section) = match (&vo, &site) {
        (Some(head), _) => (format!("What is noted in {}", head.id), "vos"),
        (None, Some(_)) => ("What is noted at this site".to_owned(), "site"),
        (None, None) => ("What is noted of me".to_owned(), "home"),
    };
    let older = found.before.goes_on().then(|| filter.query(&found.before)).transpose()?;
    page(&View {
        frame: Frame::of(visit, &heading, section).await,
        own: vo.is_none() && site.is_none(),
        vo,
        site,
        heading,
        path: path.to_owned(),
        filter,
        troubles: found.troubles,
        lines: found.lines.iter().map(|(site, l)| row(site, l)).collect(),
        older,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_api::audit::Event;
    use xos_base::Millis;

    fn line(site: &str, number: u64, noted: u64) -> (SiteId, Line) {
        let site: SiteId = site.parse().unwrap();
        let event = Event::new(Millis(noted), "sign_in");
        let noted = Millis(noted);
        let line =
            Line { site: site.clone(), number, prev: String::new(), noted, reported: None, event };
        (site, line)
    }

    /// If it failed, lines between two parts would never be shown, or be shown twice.
    #[test]
    fn each_site_goes_on_where_its_last_shown_line_was() {
        let (pisa, rennes): (SiteId, SiteId) = ("pisa".parse().unwrap(), "rennes".parse().unwrap());
        let mut found = Found {
            lines: (0..LINES_MAX as u64).map(|i| line("pisa", 1000 - i, 9000 - i)).collect(),
            before: Before::default(),
            troubles: Vec::new(),
            own: false,
        };
        found.lines.push(line("rennes", 7, 8950));
        found.lines.push(line("rennes", 6, 1));
        let mut late = Found {
            lines: vec![line("rennes", 6, 1)],
            before: Before::default(),
            troubles: Vec::new(),
            own: false,
        };
        newest(&mut found, vec![(pisa.clone(), Some(901)), (rennes.clone(), None)]);
        assert_eq!(found.lines.len(), LINES_MAX);
        assert_eq!(found.lines[51].0, rennes, "lines are sorted over sites");
        // One of pisa's lines had no place any more.
        assert_eq!(found.before.of(&pisa), Some(902));
        assert_eq!(found.before.of(&rennes), Some(7));
        newest(&mut late, vec![(pisa.clone(), Some(5)), (rennes.clone(), None)]);
        assert_eq!(late.before.of(&pisa), Some(5), "a part without lines still goes on");
        assert!(late.before.is_over(&rennes) && late.before.goes_on());
    }

    /// If it failed, a long text of a hostile site would fill the page.
    #[test]
    fn long_texts_are_cut() {
        let (site, mut l) = line("pisa", 1, 1);
        l.event.why = "é".repeat(5000);
        let row = row(&site, &l);
        assert_eq!(row.why.chars().count(), TEXT_SHOWN + 1);
        assert_eq!((row.who.as_str(), row.place.as_str()), ("nobody proved", "pisa"));
        assert!(row.happened.is_none());
    }
}
