//! Prints how many durable appends per second the journal takes here, from 1 and from 64 appenders,
//! and how many guarded transactions the registry commits. Takes a folder on the disk to measure.
#![allow(clippy::print_stdout)]

use std::{env, error::Error, path::PathBuf, sync::Arc, time::Instant};

use bytes::Bytes;
use xos_store::{
    Key, Op, RedbStore, Store,
    journal::{Journal, Options},
};

const RECORD_BYTES: usize = 256;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let parent = env::args_os().nth(1).map_or_else(env::temp_dir, PathBuf::from);
    let dir = parent.join(format!("xos-journal-rate-{}", std::process::id()));
    for (appenders, each) in [(1, 2_000), (64, 2_000)] {
        let (journal, _) = Journal::open(dir.join(appenders.to_string()), Options::default())?;
        let journal = Arc::new(journal);
        let start = Instant::now();
        let tasks: Vec<_> = (0..appenders)
            .map(|_| {
                let journal = Arc::clone(&journal);
                tokio::spawn(async move {
                    for _ in 0..each {
                        journal.append(Bytes::from_static(&[7; RECORD_BYTES])).await?;
                    }
                    Ok::<_, xos_store::journal::JournalError>(())
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        let rate = f64::from(appenders * each) / start.elapsed().as_secs_f64();
        println!("journal: {appenders} appenders, {rate:.0} durable appends/s");
    }
    let store = Arc::new(RedbStore::open(dir.join("registry"))?);
    for (writers, each) in [(1, 200), (64, 100)] {
        let start = Instant::now();
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    for n in 0..each {
                        let key = Key::of([format!("{writer}"), format!("{n}")])?;
                        let ops = vec![Op::put(key, Bytes::from_static(&[7; RECORD_BYTES]))];
                        store.txn(vec![], ops).await?;
                    }
                    Ok::<_, Box<dyn Error + Send + Sync>>(())
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        let rate = f64::from(writers * each) / start.elapsed().as_secs_f64();
        println!("registry: {writers} writers, {rate:.0} durable transactions/s");
    }
    drop(store);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
