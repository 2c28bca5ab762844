//! `xos vo running`: who runs what in a VO and who has sessions, over all sites that serve it.

use super::OfVo;
use crate::cli::output::{Outcome, Table, clean, cpus, list, size, when};
use crate::cli::session::Session;
use serde::Serialize;
use xos_api::aem::{ListRunning, Running, RunningSession};
use xos_api::vom::WhoServes;
use xos_base::{Error, Millis, NodeId, SiteId, VoId};

/// Most lines that are shown of one site.
const LINES_MAX: usize = 10_000;

/// A line of the answer.
#[derive(Debug, Serialize)]
struct At {
    /// The site whose nodes run it.
    site: SiteId,
    #[serde(flatten)]
    running: Running,
}

/// What is told.
#[derive(Debug, Default, Serialize)]
struct All {
    /// Units of jobs.
    running: Vec<At>,
    /// Open sessions.
    sessions: Vec<RunningSession>,
    /// Nodes whose sessions are missing, all or some.
    unheard: Vec<NodeId>,
}

/// Runs `xos vo running`. A site that does not answer is told, and makes the exit code its
/// error's.
pub async fn run(s: &Session, args: OfVo) -> Outcome {
    let vo = args.of;
    let serving = s.vo_client(&vo).await?.call(WhoServes { vo: vo.clone() }).await?;
    let (mut all, mut code) = (All::default(), 0);
    for site in serving.into_iter().map(|serving| serving.site) {
        match at(s, &vo, &site, &mut all).await {
            Ok(true) => {}
            Ok(false) => {
                let more = Error::limited(format!("more runs at {site} than is shown"));
                s.out.warn(&more.hint("ask by --json for a program, or look at one job"))?;
            }
            Err(error) => {
                code = error.kind.exit_code();
                let why = Error::new(error.kind, format!("{site}: {}", error.message));
                s.out.warn(&why.hint("what its nodes run is missing below"))?;
            }
        }
    }
    if !all.unheard.is_empty() {
        let nodes = clean(&list(&all.unheard));
        let why = Error::unavailable(format!("not all sessions are known of {nodes}"));
        s.out.warn(&why.hint("they did not answer in time, or have too many; try again"))?;
    }
    s.out.show(&all, || text(&all, s.now()))?;
    Ok(code)
}

/// Adds what a site tells; whether that is all.
async fn at(s: &Session, vo: &VoId, site: &SiteId, all: &mut All) -> Result<bool, Error> {
    let mut member = s.member(vo, site).await?;
    let (mut after, before) = (None, all.running.len());
    loop {
        let page = member.call(s, ListRunning { vo: vo.clone(), after: after.take() }).await?;
        let lines = page.running.into_iter();
        all.running.extend(lines.map(|running| At { site: site.clone(), running }));
        all.sessions.extend(page.sessions);
        all.unheard.extend(page.unheard);
        match page.next {
            Some(next) if all.running.len() - before < LINES_MAX => after = Some(next),
            Some(_) => return Ok(false),
            None => return Ok(true),
        }
    }
}

fn text(all: &All, now: Millis) -> String {
    format!("{}\n\n{}", table(&all.running, now), sessions(&all.sessions, now))
}

/// Who has a session where.
fn sessions(all: &[RunningSession], now: Millis) -> String {
    let mut table = Table::new(&["PERSON", "NODE", "SESSION", "SINCE"]);
    for s in all {
        table.row([
            s.person.to_string(),
            s.node.to_string(),
            clean(&s.service),
            when(s.since, now),
        ]);
    }
    table.text("No sessions are open.")
}

fn table(all: &[At], now: Millis) -> String {
    let mut table =
        Table::new(&["PERSON", "JOB", "SITE", "NODE", "UNITS", "CPUS", "MEMORY", "SINCE"]);
    for At { site, running: r } in all {
        let node = r.node.as_ref().map_or_else(|| "(waiting)".to_owned(), ToString::to_string);
        table.row([
            r.person.to_string(),
            r.job.to_string(),
            site.to_string(),
            node,
            r.units.to_string(),
            cpus(r.cpu_milli),
            size(r.memory_bytes),
            when(r.since, now),
        ]);
    }
    table.text("Nothing runs.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::golden;

    /// If it failed, what waits could not be told from what runs, or whose it is.
    #[test]
    fn the_table_of_what_runs() {
        let line = |person: &str, node: Option<&str>, units| At {
            site: "pisa".parse().unwrap(),
            running: Running {
                person: person.parse().unwrap(),
                job: "12.rennes".parse().unwrap(),
                node: node.map(|n| n.parse().unwrap()),
                units,
                cpu_milli: u64::from(units) * 1500,
                memory_bytes: u64::from(units) << 30,
                since: Millis(9000),
            },
        };
        let all = [line("alice@rennes", Some("n1.pisa"), 4), line("alice@rennes", None, 12)];
        let session = RunningSession {
            person: "petra@pisa".parse().unwrap(),
            node: "n1.pisa".parse().unwrap(),
            service: "ssh\u{1b}d".into(),
            since: Millis(9000),
        };
        let some = All { running: all.into(), sessions: vec![session], unheard: vec![] };
        let now = Millis(60_000);
        let text = format!("{}\n\n{}\n", text(&some, now), text(&All::default(), now));
        golden::check("running.txt", &text);
    }
}
