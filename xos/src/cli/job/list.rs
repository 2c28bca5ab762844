//! `xos job list`, `xps`.

use super::state;
use crate::cli::output::{Outcome, Table, clean, when};
use crate::cli::session::Session;
use xos_api::aem::{Counts, JOB_NODES_MAX, JobFilter, JobSummary, ListJobs, PAGE_MAX};
use xos_base::{Error, Millis, NodeId, VoId};

/// How many jobs are shown when none of the options says so.
const SHOWN: usize = 20;
/// Most jobs with --all.
const ALL_MAX: usize = 10_000;

/// `xos job list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos job list
  xos job list --open
  xos job list --everyone --vo demo.rennes    the jobs of all members (VO administrators)")]
pub struct List {
    /// Show all jobs that are still known, not only the newest.
    #[arg(short, long)]
    all: bool,
    /// Only jobs that have not ended: those that wait, and those that run.
    #[arg(short, long)]
    open: bool,
    /// The jobs of every member (VO administrators).
    #[arg(long)]
    everyone: bool,
}

/// Runs `xos job list`.
pub async fn run(s: &Session, args: &List) -> Outcome {
    let mut jobs: Vec<JobSummary> = Vec::new();
    for vo in vos(s, args).await? {
        jobs.extend(of(s, args, vo).await?);
    }
    jobs.sort_by(|a, b| b.submitted.cmp(&a.submitted).then_with(|| b.job.cmp(&a.job)));
    let more = cut(&mut jobs, if args.all { ALL_MAX } else { SHOWN });
    s.out.show(&jobs, || table(&jobs, s.now(), args.everyone))?;
    match more {
        // Who asked for all, be it a program, must not take these for all.
        Some(more) if args.all => s.out.warn(&more)?,
        Some(_) => s.out.note("There are more: xos job list --all")?,
        None => {}
    }
    Ok(0)
}

/// Leaves the newest `limit` jobs; the warning when there are more.
fn cut(jobs: &mut Vec<JobSummary>, limit: usize) -> Option<Error> {
    let more = jobs.len() > limit;
    jobs.truncate(limit);
    more.then(|| {
        Error::limited(format!("there are more jobs than the newest {limit}, which are shown"))
            .hint("ask for one VO by --vo, or for --open ones only")
    })
}

/// The VOs whose jobs are shown: the named one, else all that one is in.
async fn vos(s: &Session, args: &List) -> Result<Vec<VoId>, Error> {
    let vos = if s.named_vo().is_some() || args.everyone { Vec::new() } else { s.vos()? };
    if vos.is_empty() { Ok(vec![s.the_vo().await?]) } else { Ok(vos) }
}

async fn of(s: &Session, args: &List, vo: VoId) -> Result<Vec<JobSummary>, Error> {
    let mut member = s.member(&vo, &s.site_of(&vo)).await?;
    let limit = if args.all { PAGE_MAX } else { SHOWN as u32 + 1 };
    let filter = if args.open { JobFilter::Open } else { JobFilter::All };
    let mut jobs = Vec::new();
    let mut before = None;
    loop {
        let ask = ListJobs {
            vo: Some(vo.clone()),
            everyone: args.everyone,
            filter,
            before: before.take(),
            limit: Some(limit),
        };
        let page = member.call(s, ask).await?;
        jobs.extend(page.jobs);
        match page.next {
            // One page more than are shown tells that there are more.
            Some(next) if args.all && jobs.len() <= ALL_MAX => before = Some(next),
            _ => return Ok(jobs),
        }
    }
}

fn table(jobs: &[JobSummary], now: Millis, people: bool) -> String {
    let mut table = if people {
        Table::new(&["JOB", "PERSON", "NAME", "VO", "STATE", "UNITS", "WHERE", "SUBMITTED"])
    } else {
        Table::new(&["JOB", "NAME", "VO", "STATE", "UNITS", "WHERE", "SUBMITTED"])
    };
    for j in jobs {
        let name: String = clean(&j.name).chars().take(30).collect();
        let (job, vo, submitted) = (j.job.to_string(), j.vo.to_string(), when(j.submitted, now));
        let (stands, counts, at) = (state(&j.state), units(&j.counts), places(&j.nodes));
        if people {
            let person = j.person.to_string();
            table.row([job, person, name, vo, stands, counts, at, submitted]);
        } else {
            table.row([job, name, vo, stands, counts, at, submitted]);
        }
    }
    table.text("No jobs. Submit one: xsub -- PROGRAM")
}

/// `n1.rennes`, `n1.rennes +2`; as many as a core names are perhaps not all.
fn places(nodes: &[NodeId]) -> String {
    match nodes {
        [] => String::new(),
        [one] => one.to_string(),
        [first, more @ ..] => {
            let open = if nodes.len() >= JOB_NODES_MAX { "..." } else { "" };
            format!("{first} +{}{open}", more.len())
        }
    }
}

/// `3/16 done, 2 running`.
pub fn units(c: &Counts) -> String {
    let mut text = format!("{}/{} done", c.done, c.total());
    for (n, word) in [(c.running, "running"), (c.failed + c.lost + c.refused, "failed")] {
        if n > 0 {
            text.push_str(&format!(", {n} {word}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::golden;
    use xos_api::aem::{JobState, Usage};

    fn job(n: u64, name: &str, state: JobState, counts: Counts) -> JobSummary {
        JobSummary {
            job: format!("{n}.rennes").parse().unwrap(),
            name: name.into(),
            vo: "demo.rennes".parse().unwrap(),
            person: "alice@rennes".parse().unwrap(),
            submitted: Millis(n * 1000),
            state,
            counts,
            seq: 1,
            usage: Usage::default(),
            nodes: Vec::new(),
        }
    }

    fn at(nodes: &[&str], job: JobSummary) -> JobSummary {
        JobSummary { nodes: nodes.iter().map(|n| n.parse().unwrap()).collect(), ..job }
    }

    /// If it failed, a job on many nodes would look as if it were on few, or break the list.
    #[test]
    fn many_nodes_are_counted() {
        let nodes: Vec<NodeId> =
            (0..JOB_NODES_MAX).map(|n| format!("n{n}.rennes").parse().unwrap()).collect();
        assert_eq!(places(&nodes), "n0.rennes +7...");
        assert_eq!(places(&nodes[..3]), "n0.rennes +2");
    }

    /// If it failed, a list that was cut off would be taken for all jobs.
    #[test]
    fn a_list_that_is_cut_says_so() {
        let of = |n| (0..n).map(|n| job(n, "x", JobState::Queued, Counts::default())).collect();
        let mut jobs: Vec<JobSummary> = of(ALL_MAX as u64);
        assert!(cut(&mut jobs, ALL_MAX).is_none(), "nothing was cut");
        jobs.extend(of(1));
        let why = cut(&mut jobs, ALL_MAX).expect("one is left out");
        assert!(why.message.contains("10000"), "{why}");
        assert_eq!(jobs.len(), ALL_MAX);
    }

    #[test]
    fn the_list_of_jobs() {
        let jobs = [
            job(
                12,
                "a\x1b[31m very long name that goes on and on",
                JobState::Queued,
                Counts { queued: 4, ..Counts::default() },
            ),
            at(
                &["c1.rennes", "n2.pisa"],
                job(
                    7,
                    "spect",
                    JobState::Running { since: Millis(9000) },
                    Counts { done: 3, running: 2, waiting: 11, ..Counts::default() },
                ),
            ),
            at(
                &["n1.rennes"],
                job(
                    3,
                    "true",
                    JobState::Failed { at: Millis(9000) },
                    Counts { failed: 1, ..Counts::default() },
                ),
            ),
        ];
        let strip = |t: String| -> String {
            t.chars().filter(|c| !('\u{2060}'..='\u{2064}').contains(c)).collect()
        };
        let own = strip(table(&jobs, Millis(60_000), false));
        let everyone = strip(table(&jobs, Millis(60_000), true));
        let text = format!("{own}\n\n{everyone}\n");
        golden::check("jobs.txt", &text);
    }
}
