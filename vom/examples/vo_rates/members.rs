//! A VO of very many members at its home and at a site that serves it, both in this process, with a
//! real port between them: look-ups, and how a change comes to that site.

use crate::world::Site;
use crate::{Measured, Outcome, fill, micros, millis};
use async_trait::async_trait;
use futures_util::StreamExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use xos_api::vom::{
    Actor, Change, GetMember, LogItem, MembershipOf, RecordOffer, RecordWithdrawal, SuspendMember,
    Terms, VoAccounts, VoLog,
};
use xos_base::when::{Clock, SystemClock};
use xos_base::{Error, Membership, PersonId, SiteId, VoId};
use xos_net::{Caller, Grid, Standing};
use xos_vom::Vom;
use xos_vom::effects::{Homes, LogStream};
use xos_vom::log::{Chain, seal};
use xos_vom::registry::Registry;
use xos_vom::served::{BLOCK, Served, UID_BLOCKS_MAX};
use xos_vom::state::Block;

/// Look-ups of each kind.
const LOOKUPS: usize = 20_000;
/// Far apart.
const STRIDE: usize = 7919;
/// Changes, each of another member; the first is not counted.
const CHANGES: usize = 21;
/// Longest that anything is waited for.
const LIMIT: Duration = Duration::from_secs(120);
/// How often to look what the node was told.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// The first uid of the VO's members at the site that serves it.
const BASE: u32 = 2_000_000_000;

/// The log as the other site gets it, counted.
struct Counted {
    grid: Grid,
    entries: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

#[async_trait]
impl Homes for Counted {
    async fn offer(&self, home: &SiteId, r: RecordOffer) -> Result<(), Error> {
        Homes::offer(&self.grid, home, r).await
    }

    async fn withdraw(&self, home: &SiteId, r: RecordWithdrawal) -> Result<(), Error> {
        Homes::withdraw(&self.grid, home, r).await
    }

    async fn log(&self, home: &SiteId, r: VoLog) -> Result<LogStream, Error> {
        let items = Homes::log(&self.grid, home, r).await?;
        let (entries, bytes) = (self.entries.clone(), self.bytes.clone());
        let counted = items.inspect(move |item| {
            if let Ok(LogItem::Entry { jws }) = item {
                entries.fetch_add(1, Ordering::SeqCst);
                bytes.fetch_add(jws.len() as u64, Ordering::SeqCst);
            }
        });
        Ok(counted.boxed())
    }
}

/// Both sites, with the VO.
struct Pair {
    vo: VoId,
    home: Site,
    other: Site,
    replica: Vom,
    entries: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
    owner: Caller,
    /// Both work as long as they are held.
    _vom: Vom,
}

/// Measures with a VO of `count` members.
pub async fn measure(count: usize) -> Outcome<Measured> {
    let pair = Pair::start(count).await?;
    let told = pair.node_is_told(count).await?;
    if !told.iter().any(|part| part.full) {
        return Err("the node was never told all".into());
    }
    let mut measured = pair.look_ups(count).await?;
    let mut changes = Vec::with_capacity(CHANGES);
    for n in 0..CHANGES {
        changes.push(pair.change(n * STRIDE % (count - 1)).await?);
    }
    let column = |of: fn(&Seen) -> f64| -> Vec<f64> { changes.iter().skip(1).map(of).collect() };
    measured.extend([
        ("change.core", column(|s| s.core_ms)),
        ("change.node", column(|s| s.node_ms)),
        ("change.entry_bytes", column(|s| s.entry_bytes as f64)),
        ("change.account_bytes", column(|s| s.account_bytes as f64)),
    ]);
    Ok(measured)
}

/// One change, as the other site saw it. One entry and one account came there: else it is an error.
struct Seen {
    /// Until its core refused the member, in milliseconds since the change was asked for.
    core_ms: f64,
    /// Until its node was told.
    node_ms: f64,
    entry_bytes: u64,
    /// The account as JSON, which is what travels.
    account_bytes: usize,
}

impl Pair {
    async fn start(count: usize) -> Outcome<Pair> {
        let (home, other) = (Site::new("rennes").await, Site::new("pisa").await);
        home.trusts(&other);
        other.trusts(&home);
        let vo: VoId = "bench.rennes".parse()?;
        found(&vo, &home, &other).await?;
        for site in [&home, &other] {
            fill::fill(&Registry::new(site.store.clone()), &vo, count).await?;
        }
        let (entries, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let vom = home.start().await;
        let homes =
            Counted { grid: other.grid.clone(), entries: entries.clone(), bytes: bytes.clone() };
        let replica = other.vom_through(Arc::new(homes)).await;
        other.serve(&replica);
        let owner = home.own("alice");
        Ok(Pair { vo, home, other, replica, entries, bytes, owner, _vom: vom })
    }

    /// Waits until the node of the other site was told of so many members in one go; what it was
    /// told.
    async fn node_is_told(&self, members: usize) -> Outcome<Vec<VoAccounts>> {
        let told = async {
            loop {
                {
                    let mut heard =
                        self.other.ear.heard.lock().unwrap_or_else(PoisonError::into_inner);
                    let whole = heard.last().is_some_and(|part| !part.more);
                    if whole
                        && heard.iter().map(|part| part.members.len()).sum::<usize>() >= members
                    {
                        return std::mem::take(&mut *heard);
                    }
                }
                sleep(LOOK_EVERY).await;
            }
        };
        Ok(timeout(LIMIT, told).await?)
    }

    async fn membership(&self, person: &PersonId) -> Result<Membership, Error> {
        let r = MembershipOf { vo: self.vo.clone(), person: person.clone(), since: None };
        Ok(self.home.serve_ask(r).await?.membership)
    }

    /// What services ask at the home, what an administrator asks there, and what the other site
    /// makes of a credential; in microseconds.
    async fn look_ups(&self, count: usize) -> Outcome<Measured> {
        let (mut of, mut get, mut standing) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..LOOKUPS {
            let person = fill::person(n * STRIDE % (count - 1), &self.home.id)?;
            let start = Instant::now();
            let membership = self.membership(&person).await?;
            of.push(micros(start));
            let r = GetMember { vo: self.vo.clone(), person };
            let start = Instant::now();
            self.home.ask(&self.owner, r).await?;
            get.push(micros(start));
            let start = Instant::now();
            self.replica.effective(&membership, SystemClock.now())?;
            standing.push(micros(start));
        }
        Ok(Measured::from([
            ("look_up.membership", of),
            ("look_up.member", get),
            ("look_up.standing", standing),
        ]))
    }

    /// Suspends a member at the home.
    async fn change(&self, n: usize) -> Outcome<Seen> {
        let person = fill::person(n, &self.home.id)?;
        let membership = self.membership(&person).await?;
        let counted = || (self.entries.load(Ordering::SeqCst), self.bytes.load(Ordering::SeqCst));
        let before = counted();
        let mut grown = self.replica.changes();
        let reason = "measured".to_owned();
        let r = SuspendMember { vo: self.vo.clone(), person: person.clone(), reason };
        let start = Instant::now();
        self.home.ask(&self.owner, r).await?;
        let refused = async {
            while self.replica.effective(&membership, SystemClock.now()).is_ok() {
                grown.changed().await?;
            }
            Ok::<(), tokio::sync::watch::error::RecvError>(())
        };
        timeout(LIMIT, refused).await??;
        let core_ms = millis(start);
        let told = self.node_is_told(1).await?;
        let node_ms = millis(start);
        let (entries, bytes) = counted();
        let members: Vec<&PersonId> =
            told.iter().flat_map(|part| part.members.iter().map(|m| &m.person)).collect();
        let full = told.iter().any(|part| part.full);
        if full || members != [&person] || entries - before.0 != 1 {
            let (entries, members) = (entries - before.0, members.len());
            let what = format!("{entries} entries and {members} accounts travelled (all: {full})");
            return Err(format!("a change of one member is no increment: {what}").into());
        }
        let sizes = told.iter().map(serde_json::to_vec).collect::<Result<Vec<_>, _>>()?;
        let account_bytes = sizes.iter().map(Vec::len).sum();
        Ok(Seen { core_ms, node_ms, entry_bytes: bytes - before.1, account_bytes })
    }
}

/// Writes a VO that the other site serves, with room for all its members, into both registries.
async fn found(vo: &VoId, home: &Site, other: &Site) -> Outcome<()> {
    let terms =
        Terms { cpu_milli: 4000, memory_bytes: 1 << 30, storage_bytes: 0, until: None, version: 1 };
    let owner: PersonId = home.id.person("alice")?;
    let (by_owner, by_site) = (Actor::Person(owner.clone()), Actor::Site(other.id.clone()));
    let offered = Change::ShareOffered { site: other.id.clone(), terms: terms.clone() };
    let changes = [
        (
            by_owner.clone(),
            Change::Founded { owner, title: "Large".into(), description: String::new() },
        ),
        (by_site, offered),
        (by_owner, Change::ShareAccepted { site: other.id.clone(), version: 1 }),
    ];
    let registries = [home, other].map(|site| Registry::new(site.store.clone()));
    let (mut chain, now) = (Chain::start(), SystemClock.now());
    for (actor, change) in changes {
        let entry = chain.next(vo, actor, change, now);
        let jws = seal(&home.signer, &entry)?;
        for registry in &registries {
            registry.append(vo, entry.number, &jws).await?;
        }
        chain.advance(&entry, &jws);
    }
    let [_, registry] = &registries;
    let block = Block { base: BASE, size: BLOCK * UID_BLOCKS_MAX };
    let mut served = Served::new(vo.clone(), block);
    served.offers.insert(terms.version, terms);
    (served.last, served.told) = (1, 1);
    registry.put_served(&served, None).await?;
    Ok(registry.note_heard(vo, now).await?)
}
