//! Lets other sites witness how far this site's audit is, and asks them what they saw.

use super::{End, Witness, reread, witnesses};
use crate::Inner;
use futures_util::StreamExt;
use futures_util::stream;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};
use xos_api::audit::{
    AuditHead, AuditHeads, Event, HEAD_STATEMENT_MAX, HEADS_MAX, HeadsOf, HeldHead, Outcome,
    RecordHead,
};
use xos_base::{Error, Kind as ErrorKind, Millis, SiteId};
use xos_net::Audit;
use xos_net::sign::Kind;

/// How many sites are asked at a time.
const SITES_AT_ONCE: usize = 16;
/// How long one site may take.
const SITE_WAIT: Duration = Duration::from_secs(10);
/// For how long one that did not answer is not asked for further parts.
const SILENT_FOR: Duration = Duration::from_secs(60);
/// Most parts in which heads are asked for.
const PARTS_MAX: usize = 1024;

/// What each site was told.
#[derive(Default)]
struct Told {
    number: HashMap<SiteId, u64>,
    /// Those that hold something else, of which it was noted.
    refused: HashSet<SiteId>,
    /// Those that were not reached, of which it was noted.
    silent: HashSet<SiteId>,
}

/// Those that are being told: one that does not answer holds up no other.
#[derive(Default)]
struct UnderWay {
    tasks: JoinSet<()>,
    sites: HashMap<SiteId, AbortHandle>,
}

/// Runs until it is dropped.
pub(crate) async fn run(inner: Arc<Inner>) {
    let told = Arc::new(Mutex::new(Told::default()));
    let mut under_way = UnderWay::default();
    loop {
        tokio::time::sleep(inner.log.witnessed_every()).await;
        while let Some(ended) = under_way.tasks.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "telling a site how far the audit is ended early");
            }
        }
        under_way.sites.retain(|_, task| !task.is_finished());
        let end = inner.log.end();
        if end.number == 0 {
            continue;
        }
        if let Err(error) = round(&inner, &end, &told, &mut under_way) {
            tracing::error!(%error, "the head of the audit cannot be signed");
        }
    }
}

/// Begins to tell all who have not heard of `end` yet and are not being told.
fn round(
    inner: &Arc<Inner>,
    end: &End,
    told: &Arc<Mutex<Told>>,
    under_way: &mut UnderWay,
) -> Result<(), Error> {
    let due: Vec<SiteId> = {
        let told = told.lock().unwrap_or_else(PoisonError::into_inner);
        others(inner)
            .filter(|s| told.number.get(s) != Some(&end.number))
            .filter(|s| !under_way.sites.contains_key(s))
            .collect()
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
    for site in due {
        let (inner, told, number) = (inner.clone(), told.clone(), end.number);
        let (to, r) = (site.clone(), RecordHead { statement: statement.clone() });
        let task = under_way.tasks.spawn(async move {
            let call = inner.holders.record_head(&to, r);
            let answer = tokio::time::timeout(SITE_WAIT, call).await.unwrap_or_else(|_| {
                Err(Error::unavailable(format!("site {to} did not answer in time")))
            });
            answered(&inner, to, number, answer, &told);
        });
        under_way.sites.insert(site, task);
    }
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

/// The sites that did not say what they hold, and when that was: not each part of one answer is to
/// wait for them.
#[derive(Default)]
pub(super) struct Silent(Mutex<HashMap<SiteId, Millis>>);

impl Silent {
    fn is(&self, site: &SiteId, now: Millis) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(site).is_some_and(|at| now.since(*at).max(at.since(now)) < SILENT_FOR)
    }

    fn set(&self, site: &SiteId, silent: bool, now: Millis) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if silent {
            all.insert(site.clone(), now);
        } else {
            all.remove(site);
        }
    }
}

/// A part of what all other sites hold of this site's audit; `after` as in [`HeadsOf`].
pub(crate) async fn collect(inner: &Inner, after: Option<u64>) -> AuditHeads {
    let site = &inner.site;
    let (silent, now) = (&inner.heads.silent, inner.clock.now());
    let goes_on = after.is_some_and(|number| number > 0);
    let (skipped, due): (Vec<_>, Vec<_>) =
        others(inner).partition(|by| goes_on && silent.is(by, now));
    let answers = stream::iter(due)
        .map(|by| async move {
            let call = inner.holders.heads_of(&by, HeadsOf { site: site.clone(), after });
            let answer = tokio::time::timeout(SITE_WAIT, call).await;
            (by, answer)
        })
        .buffer_unordered(SITES_AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let open = |s: &str| inner.trust.verify::<AuditHead>(Kind::AuditHead, s, site).ok();
    let mut gathered = Gathered::new(site.clone(), after);
    gathered.heads.silent = skipped;
    for (by, answer) in answers {
        silent.set(&by, !matches!(answer, Ok(Ok(_))), now);
        match answer {
            Ok(Ok(heads)) => gathered.take(by, heads, open),
            Ok(Err(error)) => {
                tracing::warn!(%by, %error, "a site does not say what it saw of the audit");
                gathered.heads.silent.push(by);
            }
            Err(_) => gathered.heads.silent.push(by),
        }
    }
    gathered.end()
}

/// What other sites saw of a part of this site's audit.
pub(crate) struct Seen {
    pub(crate) witnesses: Vec<Witness>,
    pub(crate) unverified: u64,
    pub(crate) silent: Vec<SiteId>,
}

/// What other sites saw of the lines from number `first` to before `beyond`.
pub(crate) async fn seen(inner: &Inner, first: u64, beyond: Option<u64>) -> Seen {
    let mut found: BTreeMap<(u64, String), Witness> = BTreeMap::new();
    let (mut silent, mut unverified) = (BTreeSet::new(), 0_u64);
    let mut after = Some(first.saturating_sub(1));
    let mut parts = 0;
    while after.is_some() {
        if parts == PARTS_MAX {
            tracing::warn!("other sites hold more heads of the audit than are compared");
            silent.extend(others(inner));
            break;
        }
        parts += 1;
        let part = collect(inner, after).await;
        unverified = unverified.saturating_add(part.unverified);
        let (witnesses, _) = witnesses(&part, reread);
        for w in witnesses.into_iter().filter(|w| beyond.is_none_or(|b| w.number < b)) {
            found.entry((w.number, w.hash.clone())).or_insert(w);
        }
        silent.extend(part.silent);
        after = part.next.filter(|next| beyond.is_none_or(|b| *next < b));
    }
    let (witnesses, silent) = (found.into_values().collect(), silent.into_iter().collect());
    Seen { witnesses, unverified, silent }
}

/// What the answers of several sites come to. Whoever answers speaks for itself only.
struct Gathered {
    after: Option<u64>,
    heads: AuditHeads,
    /// By number and statement: many sites hold the same.
    older: BTreeMap<(u64, String), HeldHead>,
    /// The statements that were verified, and the numbers of those that are this site's.
    known: HashMap<String, Option<u64>>,
    /// Up to which number no site holds more than it said.
    whole: Option<u64>,
}

impl Gathered {
    fn new(site: SiteId, after: Option<u64>) -> Gathered {
        let (held, silent) = (Vec::new(), Vec::new());
        let heads = AuditHeads { site, held, silent, unverified: 0, next: None };
        let (older, known) = (BTreeMap::new(), HashMap::new());
        Gathered { after, heads, older, known, whole: None }
    }

    fn take(&mut self, by: SiteId, answer: AuditHeads, open: impl Fn(&str) -> Option<AuditHead>) {
        let mut first = self.after.is_none();
        let (mut last, mut count) = (self.after.unwrap_or(0), 0_usize);
        for held in answer.held.into_iter().take(HEADS_MAX + 1) {
            let newest = std::mem::take(&mut first);
            let Some(number) = self.number(&held.statement, &open) else {
                self.heads.unverified += 1;
                continue;
            };
            let held = HeldHead { by: by.clone(), ..held };
            if newest {
                self.heads.held.push(held);
            } else if number > last {
                last = number;
                count += 1;
                self.older.entry((number, held.statement.clone())).or_insert(held);
            }
        }
        // A part that is not full is no reason to ask for more: one site could make it endless.
        if answer.next.is_some() && count >= HEADS_MAX {
            self.whole = Some(self.whole.map_or(last, |whole| whole.min(last)));
        }
    }

    /// The number of a head that this site signed.
    fn number(&mut self, statement: &str, open: impl Fn(&str) -> Option<AuditHead>) -> Option<u64> {
        if statement.len() > HEAD_STATEMENT_MAX {
            return None;
        }
        if let Some(known) = self.known.get(statement) {
            return *known;
        }
        let head = open(statement).filter(|head| head.site == self.heads.site);
        let number = head.map(|head| head.number);
        self.known.insert(statement.to_owned(), number);
        number
    }

    fn end(self) -> AuditHeads {
        let Gathered { mut heads, older, whole, .. } = self;
        let newest: HashSet<String> = heads.held.iter().map(|h| h.statement.clone()).collect();
        let within = |number: u64| whole.is_none_or(|whole| number <= whole);
        let older = older.into_iter().filter(|((number, _), _)| within(*number));
        let older = older.filter(|((_, statement), _)| !newest.contains(statement));
        heads.held.extend(older.map(|(_, held)| held));
        heads.next = whole;
        heads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(statement: &str) -> Option<AuditHead> {
        let number = statement.strip_prefix('s')?.parse().ok()?;
        let site = "rennes".parse().unwrap();
        Some(AuditHead { site, number, hash: "a".into(), time: Millis(1) })
    }

    fn answer(statements: impl IntoIterator<Item = String>, next: Option<u64>) -> AuditHeads {
        let by: SiteId = "eve".parse().unwrap();
        let held = |statement| HeldHead { by: by.clone(), heard: Millis(1), statement };
        AuditHeads {
            site: "rennes".parse().unwrap(),
            held: statements.into_iter().map(held).collect(),
            silent: Vec::new(),
            unverified: 0,
            next,
        }
    }

    /// If it failed, each of sixty parts would wait ten seconds for a site that is down.
    #[test]
    fn who_did_not_answer_is_not_asked_for_each_part() {
        let (silent, pisa) = (Silent::default(), "pisa".parse().unwrap());
        let at = Millis::from_secs(1000);
        assert!(!silent.is(&pisa, at));
        silent.set(&pisa, true, at);
        assert!(silent.is(&pisa, at) && !silent.is(&pisa, at.plus(SILENT_FOR)));
        silent.set(&pisa, false, at);
        assert!(!silent.is(&pisa, at));
    }

    /// If it failed, heads of some lines would be left out between two parts, one site could make
    /// the asking endless, or what is no head would be passed over in silence.
    #[test]
    fn parts_of_several_sites_fit_together() {
        let all = |from: u64| (from..from + HEADS_MAX as u64).map(|n| format!("s{n}"));
        let (pisa, oslo): (SiteId, SiteId) = ("pisa".parse().unwrap(), "oslo".parse().unwrap());
        let mut gathered = Gathered::new("rennes".parse().unwrap(), Some(10));
        let full = HEADS_MAX as u64 + 10;
        gathered.take(pisa.clone(), answer(all(11), Some(full)), open);
        // It holds fewer, and one that the other would tell in its next part.
        let few = ["s12".into(), "s13".into(), format!("s{}", full + 5), "x".into()];
        gathered.take(oslo.clone(), answer(few, Some(13)), open);
        let heads = gathered.end();
        assert_eq!((heads.next, heads.unverified), (Some(full), 1));
        assert_eq!(heads.held.len(), HEADS_MAX, "each once, none beyond the next part");
        assert!(heads.held.iter().all(|h| h.by == pisa));

        // From the beginning: of each the newest first.
        let mut gathered = Gathered::new("rennes".parse().unwrap(), None);
        for (by, newest) in [(&pisa, "s9"), (&oslo, "s8")] {
            let told = [newest, "s1", "s8"].map(str::to_owned);
            gathered.take(by.clone(), answer(told, None), open);
        }
        let heads = gathered.end();
        let told: Vec<_> = heads.held.iter().map(|h| (&h.by, h.statement.as_str())).collect();
        assert_eq!(told, [(&pisa, "s9"), (&oslo, "s8"), (&pisa, "s1")]);
        assert_eq!(heads.next, None);
    }
}
