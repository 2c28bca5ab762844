//! How many events per second the audit brings to the disk, from one and from 4,096 that wait at a
//! time; how many lines it verifies per second; and how long a search takes.

use crate::{Measured, Outcome, millis};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use xos_api::audit::{Event, SearchAudit};
use xos_base::Millis;
use xos_base::when::SystemClock;
use xos_net::Audit;
use xos_vom::audit::{AuditLog, Options, Scope, verify_folder};

/// Events that wait together.
const TOGETHER: usize = 4096;
/// Events that are waited for one by one.
const ALONE: usize = 2000;
/// Those between two looks at the clock.
const ALONE_AT_A_TIME: usize = 100;
/// How often everything is verified, and searched.
const WHOLE: usize = 3;
/// How often the newest lines are searched for.
const NEWEST: usize = 200;
/// The operation of the first line, which no other has.
const OLDEST: &str = "found_vo";

fn event(what: &str) -> Outcome<Event> {
    let mut event = Event::new(Millis(1_800_000_000_000), what);
    event.who = "alice@rennes".to_owned();
    event.person = Some("alice@rennes".parse()?);
    event.vo = Some("demo.rennes".parse()?);
    event.node = Some("n1.rennes".parse()?);
    event.on = "1234.rennes:0-99".to_owned();
    Ok(event)
}

/// Measures with at least `lines` lines in a new folder in `parent`, which is removed.
pub async fn measure(parent: &Path, lines: usize) -> Outcome<Measured> {
    let dir = tempfile::Builder::new().prefix("audit-").tempdir_in(parent)?;
    let site = "rennes".parse()?;
    let log = AuditLog::open(dir.path(), site, Options::default(), Arc::new(SystemClock))?;
    log.record(event(OLDEST)?).await?;
    let usual = event("start_units")?;
    let alone = append(&log, &usual, (1, ALONE_AT_A_TIME), ALONE / ALONE_AT_A_TIME).await?;
    let together = append(&log, &usual, (TOGETHER, 1), lines.div_ceil(TOGETHER)).await?;
    let (newest, whole) = search(&log)?;
    drop(log);
    let verified = verify(dir.path())?;
    Ok(Measured::from([
        ("append.alone", alone),
        ("append.together", together),
        ("verify", verified),
        ("search.newest", newest),
        ("search.whole", whole),
    ]))
}

/// Durable lines per second in each round, in which `waiting` wait together so many `times`.
async fn append(
    log: &AuditLog,
    event: &Event,
    (waiting, times): (usize, usize),
    rounds: usize,
) -> Outcome<Vec<f64>> {
    let mut rates = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = Instant::now();
        for _ in 0..times {
            let receipts: Vec<_> = (0..waiting).map(|_| log.record(event.clone())).collect();
            for receipt in receipts {
                receipt.await?;
            }
        }
        rates.push((waiting * times) as f64 / start.elapsed().as_secs_f64());
    }
    Ok(rates)
}

/// Milliseconds until the newest lines are there, and until the oldest one is found.
fn search(log: &AuditLog) -> Outcome<(Vec<f64>, Vec<f64>)> {
    let mut newest = Vec::with_capacity(NEWEST);
    for _ in 0..NEWEST {
        let start = Instant::now();
        let page = log.search(&Scope::All, &SearchAudit::default())?;
        newest.push(millis(start));
        if page.lines.is_empty() {
            return Err("the audit shows no line".into());
        }
    }
    let mut whole = Vec::with_capacity(WHOLE);
    for _ in 0..WHOLE {
        let start = Instant::now();
        let mut ask = SearchAudit { what: Some(OLDEST.to_owned()), ..SearchAudit::default() };
        // One request looks at a bounded number of lines.
        loop {
            let page = log.search(&Scope::All, &ask)?;
            match page.next {
                _ if !page.lines.is_empty() => break,
                Some(next) => ask.before = Some(next),
                None => return Err("the oldest line is not found".into()),
            }
        }
        whole.push(millis(start));
    }
    Ok((newest, whole))
}

/// Lines verified per second.
fn verify(dir: &Path) -> Outcome<Vec<f64>> {
    let mut rates = Vec::with_capacity(WHOLE);
    for _ in 0..WHOLE {
        let start = Instant::now();
        let check = verify_folder(dir, None, &[])?;
        let took = start.elapsed().as_secs_f64();
        if let Some(fault) = check.faults.first() {
            return Err(format!("the audit has a fault: {fault:?}").into());
        }
        rates.push(check.lines as f64 / took);
    }
    Ok(rates)
}
