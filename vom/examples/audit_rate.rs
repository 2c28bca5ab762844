//! Prints how many events per second the audit brings to the disk here, from 1 and from 4,096 that
//! wait at a time, and how many lines it verifies per second. Takes a folder on the disk to measure.
#![allow(clippy::print_stdout)]

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use xos_api::audit::Event;
use xos_base::Millis;
use xos_base::when::SystemClock;
use xos_net::Audit;
use xos_vom::audit::{AuditLog, Options, verify_folder};

fn event() -> Result<Event, Box<dyn Error>> {
    let mut event = Event::new(Millis(1_800_000_000_000), "start_units");
    event.who = "alice@rennes".to_owned();
    event.person = Some("alice@rennes".parse()?);
    event.vo = Some("demo.rennes".parse()?);
    event.node = Some("n1.rennes".parse()?);
    event.on = "1234.rennes:0-99".to_owned();
    Ok(event)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let parent = env::args_os().nth(1).map_or_else(env::temp_dir, PathBuf::from);
    let dir = parent.join(format!("xos-audit-rate-{}", std::process::id()));
    let site = "rennes".parse()?;
    let log = AuditLog::open(&dir, site, Options::default(), Arc::new(SystemClock))?;
    let event = event()?;
    for (waiting, rounds) in [(1_u32, 2_000_u32), (4_096, 100)] {
        let start = Instant::now();
        for _ in 0..rounds {
            let receipts: Vec<_> = (0..waiting).map(|_| log.record(event.clone())).collect();
            for receipt in receipts {
                receipt.await?;
            }
        }
        let rate = f64::from(waiting * rounds) / start.elapsed().as_secs_f64();
        println!("audit: {waiting} at a time, {rate:.0} durable lines/s");
    }
    drop(log);
    let start = Instant::now();
    let check = verify_folder(&dir, None, &[])?;
    let took = start.elapsed().as_secs_f64();
    if let Some(fault) = check.faults.first() {
        return Err(format!("the audit has a fault: {fault:?}").into());
    }
    println!("audit: {:.0} lines/s verified", check.lines as f64 / took);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
