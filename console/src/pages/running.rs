//! Who runs what in a VO, over all sites that serve it, and how much of their shares that takes.

use super::sign_in::kindly;
use super::vo::{self, Head};
use crate::backend::in_time;
use crate::chart::{Chart, Part};
use crate::live;
use crate::view::{Frame, When, bytes_text, cpus_text, page};
use crate::visit::{Reply, Shown, Stop, Visit};
use askama::Template;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::time::Duration;
use xos_api::aem::{ListRunning, Running};
use xos_api::vom::{ServingSite, Terms, WhoServes};
use xos_base::{PersonId, SiteId, VoId};

/// Most sites that one page asks.
const SITES_MAX: usize = 32;
/// Most lines that are shown of one site.
const LINES_MAX: usize = 2000;
/// How often an open page looks again.
const AGAIN_EVERY: Duration = Duration::from_secs(15);

#[derive(Template)]
#[template(path = "running.html")]
struct View {
    frame: Frame,
    head: Head,
    /// When the sites were asked.
    at: When,
    members: Option<u64>,
    troubles: Vec<String>,
    sites: Vec<SiteRow>,
    site_chart: Chart,
    people: Vec<PersonRows>,
    people_chart: Chart,
}

/// What a site gives, and what of that is used.
struct SiteRow {
    site: String,
    running: u64,
    waiting: u64,
    cpus: String,
    cpus_of: String,
    memory: String,
    memory_of: String,
}

/// One person's work.
struct PersonRows {
    person: String,
    units: u64,
    cpus: String,
    memory: String,
    rows: Vec<Row>,
}

struct Row {
    job: String,
    /// The job's page is here: this core owns it.
    here: bool,
    site: String,
    node: Option<String>,
    units: u32,
    cpus: String,
    memory: String,
    since: When,
}

/// What one site said.
struct AtSite {
    site: SiteId,
    terms: Terms,
    running: Vec<Running>,
    trouble: Option<String>,
}

/// Sums of some lines.
#[derive(Clone, Copy, Default)]
struct Sum {
    running: u64,
    waiting: u64,
    cpu_milli: u64,
    memory_bytes: u64,
}

impl Sum {
    fn of<'a>(lines: impl Iterator<Item = &'a Running>) -> Sum {
        let mut sum = Sum::default();
        for r in lines {
            let units = if r.node.is_some() { &mut sum.running } else { &mut sum.waiting };
            *units = units.saturating_add(r.units.into());
            sum.cpu_milli = sum.cpu_milli.saturating_add(r.cpu_milli);
            sum.memory_bytes = sum.memory_bytes.saturating_add(r.memory_bytes);
        }
        sum
    }
}

/// The page.
pub(crate) async fn show(visit: Visit) -> Shown {
    let info = vo::info(&visit).await?;
    let vo = visit.vo()?;
    let serving = visit.ask_either(&vo, WhoServes { vo: vo.clone() }).await?;
    let left_out = serving.len().saturating_sub(SITES_MAX);
    let asked: Vec<_> =
        serving.into_iter().take(SITES_MAX).map(|s| at_site(&visit, &vo, s)).collect();
    let answers = join_all(asked).await.into_iter().collect::<Result<Vec<AtSite>, Stop>>()?;
    let mut troubles: Vec<String> = answers.iter().filter_map(|a| a.trouble.clone()).collect();
    if left_out > 0 {
        troubles.push(format!("{left_out} more sites serve this VO and were not asked."));
    }
    let people = by_person(&answers, visit.console.grid.site());
    page(&View {
        frame: Frame::of(&visit, &format!("Running in {vo}"), "vos").await,
        head: Head::new(&info, "running"),
        at: visit.console.clock.now().into(),
        members: info.details.as_ref().map(|d| d.members),
        troubles,
        sites: answers.iter().map(site_row).collect(),
        site_chart: site_chart(&answers),
        people_chart: people_chart(&answers),
        people,
    })
}

/// Asks one site; that it does not answer is told on the page.
async fn at_site(visit: &Visit, vo: &VoId, serving: ServingSite) -> Result<AtSite, Stop> {
    let ServingSite { site, terms } = serving;
    match in_time(&site, lines(visit, vo, &site)).await {
        Ok((running, trouble)) => Ok(AtSite { site, terms, running, trouble }),
        Err(Stop::Failed(e)) => {
            let trouble = Some(format!("{site}: {} What its nodes run is missing.", kindly(&e)));
            Ok(AtSite { site, terms, running: Vec::new(), trouble })
        }
        Err(stop) => Err(stop),
    }
}

/// The lines of one site, and a word when there are more.
async fn lines(
    visit: &Visit,
    vo: &VoId,
    site: &SiteId,
) -> Result<(Vec<Running>, Option<String>), Stop> {
    // A site's administrators see all of their own site, members or not.
    let own = site == visit.console.grid.site();
    let as_admin = own && visit.session.site_admin();
    let client = if as_admin { None } else { visit.member_at(vo, site).await? };
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let ask = ListRunning { vo: vo.clone(), after: after.take() };
        let part = match &client {
            Some(client) => client.call(ask).await?,
            None if as_admin => visit.ask(ask).await?,
            None => visit.ask_member(vo, ask).await?,
        };
        // A site that tells the same again, or more than it may, is not followed.
        let last = all.last().map(|r: &Running| r.job.clone());
        all.extend(part.running);
        after = part.next.filter(|next| last.is_none_or(|last| *next > last));
        if all.len() >= LINES_MAX {
            all.truncate(LINES_MAX);
            return Ok((all, Some(format!("{site}: more runs there than is shown."))));
        }
        if after.is_none() {
            return Ok((all, None));
        }
    }
}

fn site_row(a: &AtSite) -> SiteRow {
    let sum = Sum::of(a.running.iter());
    SiteRow {
        site: a.site.to_string(),
        running: sum.running,
        waiting: sum.waiting,
        cpus: cpus_text(sum.cpu_milli),
        cpus_of: cpus_text(a.terms.cpu_milli),
        memory: bytes_text(sum.memory_bytes),
        memory_of: bytes_text(a.terms.memory_bytes),
    }
}

fn site_chart(answers: &[AtSite]) -> Chart {
    let part = |a: &AtSite| {
        let used = Sum::of(a.running.iter()).cpu_milli;
        Part {
            label: a.site.to_string(),
            text: format!("{} of {}", cpus_text(used), cpus_text(a.terms.cpu_milli)),
            value: used,
            of: Some(a.terms.cpu_milli),
        }
    };
    let title = "Processors in use of the share of each site";
    Chart::new("sites", title, answers.iter().map(part).collect())
}

/// All lines with their site, by person.
fn grouped(answers: &[AtSite]) -> BTreeMap<&PersonId, Vec<(&SiteId, &Running)>> {
    let mut people: BTreeMap<&PersonId, Vec<(&SiteId, &Running)>> = BTreeMap::new();
    for a in answers {
        for r in &a.running {
            people.entry(&r.person).or_default().push((&a.site, r));
        }
    }
    people
}

fn by_person(answers: &[AtSite], own: &SiteId) -> Vec<PersonRows> {
    let rows = |(person, lines): (&PersonId, Vec<(&SiteId, &Running)>)| {
        let sum = Sum::of(lines.iter().map(|(_, r)| *r));
        PersonRows {
            person: person.to_string(),
            units: sum.running.saturating_add(sum.waiting),
            cpus: cpus_text(sum.cpu_milli),
            memory: bytes_text(sum.memory_bytes),
            rows: lines.into_iter().map(|(site, r)| row(site, r, own)).collect(),
        }
    };
    grouped(answers).into_iter().map(rows).collect()
}

fn row(site: &SiteId, r: &Running, own: &SiteId) -> Row {
    Row {
        job: r.job.to_string(),
        here: r.job.site == *own,
        site: site.to_string(),
        node: r.node.as_ref().map(ToString::to_string),
        units: r.units,
        cpus: cpus_text(r.cpu_milli),
        memory: bytes_text(r.memory_bytes),
        since: r.since.into(),
    }
}

fn people_chart(answers: &[AtSite]) -> Chart {
    let part = |(person, lines): (&PersonId, Vec<(&SiteId, &Running)>)| {
        let used = Sum::of(lines.iter().map(|(_, r)| *r)).cpu_milli;
        let text = cpus_text(used);
        Part { label: person.to_string(), text, value: used, of: None }
    };
    let mut parts: Vec<Part> = grouped(answers).into_iter().map(part).collect();
    parts.sort_by_key(|p| std::cmp::Reverse(p.value));
    Chart::new("people", "Processors in use by each person", parts)
}

/// Tells an open page now and then to look again.
pub(crate) async fn events(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    // Whoever may not see the VO keeps no stream open.
    visit.ask_either(&vo, WhoServes { vo: vo.clone() }).await?;
    Ok(Reply::Lines(live::lines(&visit, live::ticks(AGAIN_EVERY))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_base::Millis;

    fn line(person: &str, job: &str, node: Option<&str>, units: u32) -> Running {
        Running {
            person: person.parse().unwrap(),
            job: job.parse().unwrap(),
            node: node.map(|n| n.parse().unwrap()),
            units,
            cpu_milli: if node.is_some() { u64::from(units) * 1000 } else { 0 },
            memory_bytes: 0,
            since: Millis(1),
        }
    }

    fn at(site: &str, running: Vec<Running>) -> AtSite {
        let terms =
            Terms { cpu_milli: 8000, memory_bytes: 0, storage_bytes: 0, until: None, version: 1 };
        AtSite { site: site.parse().unwrap(), terms, running, trouble: None }
    }

    /// If it failed, work at a second site would be missed, what waits would count as running, or
    /// a link would lead to a job that this core does not own.
    #[test]
    fn work_is_summed_over_sites_and_told_by_person() {
        let all = [
            at("pisa", vec![line("bob@pisa", "3.rennes", Some("n1.pisa"), 2)]),
            at(
                "rennes",
                vec![
                    line("bob@pisa", "9.pisa", Some("n1.rennes"), 4),
                    line("alice@rennes", "1.rennes", None, 5),
                ],
            ),
        ];
        let people = by_person(&all, &"rennes".parse().unwrap());
        let told: Vec<_> =
            people.iter().map(|p| (p.person.as_str(), p.units, p.cpus.as_str())).collect();
        assert_eq!(told, [("alice@rennes", 5, "0"), ("bob@pisa", 6, "6")]);
        let links: Vec<_> = people[1].rows.iter().map(|r| (r.site.as_str(), r.here)).collect();
        assert_eq!(links, [("pisa", true), ("rennes", false)]);
        let here = site_row(&all[1]);
        assert_eq!((here.running, here.waiting, here.cpus.as_str()), (4, 5, "4"));
        assert_eq!(people_chart(&all).bars[0].label, "bob@pisa");
        assert_eq!(site_chart(&all).bars[0].text, "2 of 8");
    }
}
