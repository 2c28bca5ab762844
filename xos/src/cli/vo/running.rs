//! `xos vo running`: who runs what in a VO, over all sites that serve it.

use super::OfVo;
use crate::cli::output::{Outcome, Table, cpus, size, when};
use crate::cli::session::Session;
use serde::Serialize;
use xos_api::aem::{ListRunning, Running};
use xos_api::vom::WhoServes;
use xos_base::{Error, Millis, SiteId, VoId};

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

/// Runs `xos vo running`. A site that does not answer is told, and makes the exit code its
/// error's.
pub async fn run(s: &Session, args: OfVo) -> Outcome {
    let vo = args.of;
    let serving = s.vo_client(&vo).await?.call(WhoServes { vo: vo.clone() }).await?;
    let (mut all, mut code) = (Vec::new(), 0);
    for site in serving.into_iter().map(|serving| serving.site) {
        match at(s, &vo, &site).await {
            Ok((here, more)) => {
                if more {
                    let more = Error::limited(format!("more runs at {site} than is shown"));
                    s.out.warn(&more.hint("`xos job show` tells of one job"))?;
                }
                all.extend(here.into_iter().map(|running| At { site: site.clone(), running }));
            }
            Err(error) => {
                code = error.kind.exit_code();
                let why = Error::new(error.kind, format!("{site}: {}", error.message));
                s.out.warn(&why.hint("what its nodes run is missing below"))?;
            }
        }
    }
    s.out.show(&all, || table(&all, s.now()))?;
    Ok(code)
}

/// What runs at a site, and whether there is more.
async fn at(s: &Session, vo: &VoId, site: &SiteId) -> Result<(Vec<Running>, bool), Error> {
    let mut member = s.member(vo, site).await?;
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = member.call(s, ListRunning { vo: vo.clone(), after: after.take() }).await?;
        all.extend(page.running);
        match page.next {
            Some(next) if all.len() < LINES_MAX => after = Some(next),
            more => return Ok((all, more.is_some())),
        }
    }
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
        let text = format!("{}\n\n{}\n", table(&all, Millis(60_000)), table(&[], Millis(60_000)));
        golden::check("running.txt", &text);
    }
}
