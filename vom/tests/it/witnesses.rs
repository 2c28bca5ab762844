//! Other sites as witnesses, some of which do not answer, or answer with what is no witness.

use crate::id;
use crate::world::{Site, until};
use async_trait::async_trait;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use xos_api::audit::{AuditHead, AuditHeads, Event, HeadsOf, HeldHead, RecordHead, VerifyAudit};
use xos_base::{Error, Millis, SiteId};
use xos_net::Audit;
use xos_net::sign::Kind;
use xos_vom::audit::reread;
use xos_vom::effects::Holders;
use xos_vom::{Config, Vom};

/// The site `mute` never answers; others keep what they are told, and tell it with `more`.
#[derive(Default)]
struct Others {
    told: Mutex<Vec<u64>>,
    more: Mutex<Vec<HeldHead>>,
    mute_ended: Arc<AtomicBool>,
}

/// Tells that a call is over.
struct Ends(Arc<AtomicBool>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Holders for Others {
    async fn record_head(&self, site: &SiteId, r: RecordHead) -> Result<(), Error> {
        if site.as_str() == "mute" {
            let _ends = Ends(self.mute_ended.clone());
            std::future::pending::<()>().await;
        }
        let head = reread(&r.statement).unwrap();
        self.told.lock().unwrap().push(head.number);
        let held = HeldHead { by: site.clone(), heard: Millis(1), statement: r.statement };
        self.more.lock().unwrap().push(held);
        Ok(())
    }

    async fn heads_of(&self, _: &SiteId, r: HeadsOf) -> Result<AuditHeads, Error> {
        let held = self.more.lock().unwrap().clone();
        Ok(AuditHeads { site: r.site, held, silent: Vec::new(), unverified: 0, next: None })
    }
}

async fn note(site: &Site, why: &str) {
    let event = Event { why: why.into(), ..Event::new(Millis(5), "try_it") };
    site.audit().record(event).await.unwrap();
}

async fn start(rennes: &Site, others: &Arc<Others>) -> Vom {
    let mut deps = rennes.deps(Arc::new(rennes.grid.clone()));
    deps.holders = others.clone();
    Vom::start(Config::default(), deps).await.unwrap()
}

/// If it failed, one site that does not answer would have all others witness ten seconds later, as
/// long as it likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_does_not_answer_holds_up_no_other() {
    let rennes = Site::new("rennes").await;
    for other in ["pisa", "mute"] {
        rennes.trusts(&Site::new(other).await);
    }
    let others = Arc::new(Others::default());
    let _vom = start(&rennes, &others).await;
    for n in 1..4 {
        note(&rennes, "again").await;
        let told = || others.told.lock().unwrap().last().is_some_and(|t| *t >= n).then_some(());
        until("pisa is told", told).await;
    }
    assert!(!others.mute_ended.load(Ordering::SeqCst), "they waited for the one that is mute");
}

/// If it failed, a site whose heads cannot be verified would pass for one that witnesses, or nobody
/// would see that it tells rubbish.
#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_not_the_sites_word_are_counted() {
    let (rennes, pisa) = (Site::new("rennes").await, Site::new("pisa").await);
    rennes.trusts(&pisa);
    let others = Arc::new(Others::default());
    let vom = start(&rennes, &others).await;
    rennes.serve(&vom);
    note(&rennes, "one").await;
    until("pisa is told", || others.told.lock().unwrap().last().copied()).await;
    let check = rennes.ask(&rennes.admin(), VerifyAudit::default()).await.unwrap();
    assert_eq!((check.faults.as_slice(), check.unverified), (&[][..], 0));
    assert!(check.heads > 0, "{check:?}");

    let forged = AuditHead { site: id("rennes"), number: 1, hash: "b".repeat(64), time: Millis(9) };
    let statement = pisa.signer.sign(Kind::AuditHead, &forged).unwrap();
    let by = pisa.id.clone();
    others.more.lock().unwrap().push(HeldHead { by, heard: Millis(1), statement });
    let check = rennes.ask(&rennes.admin(), VerifyAudit::default()).await.unwrap();
    assert_eq!((check.faults.as_slice(), check.unverified), (&[][..], 1));
}

/// If it failed, whoever has a core could write its audit anew, have it witnessed by a head with a
/// higher number, and the heads of before would be forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_goes_on_does_not_hide_those_before() {
    let (rennes, pisa) = (Site::new("rennes").await, Site::new("pisa").await);
    pisa.trusts(&rennes);
    let _vom = pisa.start().await;
    let core = pisa.core_of(&rennes);
    let tell = async |number: u64, hash: &str| {
        let (site, hash) = (rennes.id.clone(), hash.repeat(64));
        let head = AuditHead { site, number, hash, time: Millis(number) };
        let statement = rennes.signer.sign(Kind::AuditHead, &head).unwrap();
        pisa.ask(&core, RecordHead { statement }).await.unwrap();
        pisa.clock.advance(std::time::Duration::from_secs(10));
    };
    tell(100, "a").await;
    tell(200, "a").await;
    // From here on it is another history.
    tell(300, "b").await;
    let ask = HeadsOf { site: rennes.id.clone(), after: Some(0) };
    let heads = pisa.ask(&core, ask).await.unwrap();
    let told: Vec<_> = heads.held.iter().filter_map(|h| reread(&h.statement)).collect();
    let told: Vec<_> = told.iter().map(|h| (h.number, &h.hash[..1])).collect();
    assert_eq!(told, [(100, "a"), (200, "a"), (300, "b")]);
}
