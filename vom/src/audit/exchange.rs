//! Lets other sites witness how far this site's audit is, and asks them what they saw.

use super::End;
use crate::Inner;
use futures_util::StreamExt;
use futures_util::stream;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use xos_api::audit::{
    AuditHead, AuditHeads, Event, HEADS_MAX, HeadsOf, HeldHead, Outcome, RecordHead,
};
use xos_base::{Error, Kind as ErrorKind, SiteId};
use xos_net::Audit;
use xos_net::sign::Kind;

/// How many sites are spoken to at a time.
const SITES_AT_ONCE: usize = 16;
/// How long one site may take.
const SITE_WAIT: Duration = Duration::from_secs(10);
/// Most heads that are taken of one site's answer.
const OF_ONE_SITE_MAX: usize = 200;

/// What each site was told.
#[derive(Default)]
struct Told {
    number: HashMap<SiteId, u64>,
    /// Those that hold something else, of which it was noted.
    refused: HashSet<SiteId>,
    /// Those that were not reached, of which it was noted.
    silent: HashSet<SiteId>,
}

/// Runs until it is dropped.
pub(crate) async fn run(inner: Arc<Inner>) {
    let told = Mutex::new(Told::default());
    loop {
        tokio::time::sleep(inner.log.witnessed_every()).await;
        let end = inner.log.end();
        if end.number == 0 {
            continue;
        }
        if let Err(error) = round(&inner, &end, &told).await {
            tracing::error!(%error, "the head of the audit cannot be signed");
        }
    }
}

/// Tells all who have not heard of `end` yet.
async fn round(inner: &Inner, end: &End, told: &Mutex<Told>) -> Result<(), Error> {
    let due: Vec<SiteId> = {
        let told = told.lock().unwrap_or_else(PoisonError::into_inner);
        others(inner).filter(|s| told.number.get(s) != Some(&end.number)).collect()
    };
    if due.is_empty() {
        return Ok(());
    }
    let head = AuditHead {
        site: inner.site.clone(),
        number: end.number,
        hash: end.hash.clone(),
        time: inner.clock.now(),
    };
    let statement = inner.signer.sign(Kind::AuditHead, &head)?;
    stream::iter(due)
        .for_each_concurrent(SITES_AT_ONCE, |site| {
            let r = RecordHead { statement: statement.clone() };
            async move {
                let call = inner.holders.record_head(&site, r);
                let answer = tokio::time::timeout(SITE_WAIT, call).await.unwrap_or_else(|_| {
                    Err(Error::unavailable(format!("site {site} did not answer in time")))
                });
                answered(inner, site, end.number, answer, told);
            }
        })
        .await;
    Ok(())
}

fn answered(
    inner: &Inner,
    site: SiteId,
    number: u64,
    answer: Result<(), Error>,
    told: &Mutex<Told>,
) {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let refused = match answer {
        Ok(()) => {
            told.number.insert(site.clone(), number);
            told.refused.remove(&site);
            told.silent.remove(&site);
            return;
        }
        Err(error) if error.kind == ErrorKind::Conflict => error,
        Err(error) => {
            if told.silent.insert(site.clone()) {
                tracing::warn!(%site, %error, "a site does not witness the audit yet");
            }
            return;
        }
    };
    told.number.insert(site.clone(), number);
    if told.refused.insert(site.clone()) {
        tracing::error!(%site, error = %refused, "another site saw another audit of this site: \
            `xos audit verify` says what differs");
        let mut event = Event::new(inner.clock.now(), "audit_contradicted");
        event.who = format!("core of {site}");
        event.outcome = Outcome::Failed;
        event.why = refused.message;
        let _unheard = inner.log.record(event.cut());
    }
}

/// The trusted sites without this one.
fn others(inner: &Inner) -> impl Iterator<Item = SiteId> + use<> {
    let own = inner.site.clone();
    inner.trust.descriptors().into_iter().map(|d| d.site).filter(move |s| *s != own)
}

/// What all other sites hold of this site's audit.
pub(crate) async fn collect(inner: &Inner) -> AuditHeads {
    let site = &inner.site;
    let asked = stream::iter(others(inner).collect::<Vec<_>>())
        .map(|by| async move {
            let call = inner.holders.heads_of(&by, HeadsOf { site: site.clone() });
            let answer = tokio::time::timeout(SITE_WAIT, call).await;
            (by, answer)
        })
        .buffer_unordered(SITES_AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let mut all = AuditHeads { site: site.clone(), held: Vec::new(), silent: Vec::new() };
    let mut older: Vec<HeldHead> = Vec::new();
    for (by, answer) in asked {
        match answer {
            Ok(Ok(heads)) => {
                // Whoever answers speaks for itself only.
                let held = heads.held.into_iter().take(OF_ONE_SITE_MAX);
                let mut held = held.map(|h| HeldHead { by: by.clone(), ..h });
                all.held.extend(held.next());
                older.extend(held);
            }
            Ok(Err(error)) => {
                tracing::warn!(%by, %error, "a site does not say what it saw of the audit");
                all.silent.push(by);
            }
            Err(_) => all.silent.push(by),
        }
    }
    // The newest of each say most.
    all.held.extend(older);
    all.held.truncate(HEADS_MAX);
    all
}
