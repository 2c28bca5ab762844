use crate::world::{Site, until};
use crate::{found, id, join};
use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use std::future::ready;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use xos_api::vom::*;
use xos_base::{Error, Kind, SiteId, VoId};
use xos_net::Standing;
use xos_vom::Vom;
use xos_vom::effects::{Homes, LogStream};
use xos_vom::log::{Chain, seal};

/// A home that sends what a test gives it, then stays silent until told to end the stream.
pub struct Sends(Mutex<Vec<String>>, watch::Sender<()>);

impl Sends {
    pub fn new(log: Vec<String>) -> Arc<Sends> {
        Arc::new(Sends(Mutex::new(log), watch::Sender::new(())))
    }
}

#[async_trait]
impl Homes for Sends {
    async fn offer(&self, _: &SiteId, _: RecordOffer) -> Result<(), Error> {
        Ok(())
    }

    async fn withdraw(&self, _: &SiteId, _: RecordWithdrawal) -> Result<(), Error> {
        Ok(())
    }

    async fn log(&self, _: &SiteId, r: VoLog) -> Result<LogStream, Error> {
        let all = self.0.lock().unwrap().clone();
        let after = usize::try_from(r.after).unwrap().min(all.len());
        let items = all.into_iter().skip(after).map(|jws| Ok(LogItem::Entry { jws }));
        let mut end = self.1.subscribe();
        let silence = stream::once(async move { end.changed().await }).filter_map(|_| ready(None));
        Ok(stream::iter(items.collect::<Vec<_>>()).chain(silence).boxed())
    }
}

/// A log of `demo.rennes` signed by `signer`: founded, share of pisa, then `rest`.
pub fn log(signer: &Site, vo: &str, rest: Vec<Change>) -> Vec<String> {
    let vo: VoId = id(vo);
    let terms =
        Terms { cpu_milli: 4000, memory_bytes: 1 << 30, storage_bytes: 0, until: None, version: 1 };
    let mut changes = vec![
        Change::Founded {
            owner: id("alice@rennes"),
            title: "Demo".into(),
            description: String::new(),
        },
        Change::ShareOffered { site: id("pisa"), terms },
        Change::ShareAccepted { site: id("pisa"), version: 1 },
    ];
    changes.extend(rest);
    let mut chain = Chain::start();
    changes
        .into_iter()
        .map(|change| {
            let actor = Actor::Person(id("alice@rennes"));
            let entry = chain.next(&vo, actor, change, xos_base::Millis(1000));
            let jws = seal(&signer.signer, &entry).unwrap();
            chain.advance(&entry, &jws);
            jws
        })
        .collect()
}

pub fn admitted(person: &str, number: u32) -> Change {
    Change::Admitted {
        person: id(person),
        number: xos_base::MemberNumber(number),
        epoch: xos_base::Epoch(1),
        groups: vec![],
        roles: vec![],
        expires: None,
    }
}

/// Lets pisa follow `log`; returns what it says is wrong and how far it came.
async fn followed(pisa: &Site, log: Vec<String>) -> (String, u64) {
    follow(pisa, Sends::new(log)).await;
    disbelieved(pisa).await
}

/// Lets pisa follow what `home` sends.
pub async fn follow(pisa: &Site, home: Arc<Sends>) -> Vom {
    let vom = pisa.vom_through(home).await;
    pisa.serve(&vom);
    let offer = OfferShare {
        vo: id("demo.rennes"),
        cpu_milli: 4000,
        memory_bytes: 1 << 30,
        storage_bytes: 0,
        until: None,
        base: None,
    };
    pisa.ask(&pisa.admin(), offer).await.unwrap();
    vom
}

/// Waits until pisa believes the log no more; returns why, and how far it came.
pub async fn disbelieved(pisa: &Site) -> (String, u64) {
    for _ in 0..3000 {
        let served = pisa.serve_ask(ServedVos {}).await.unwrap();
        let trouble = served[0].trouble.clone().unwrap_or_default();
        if trouble.contains("cannot be believed") {
            let view = pisa.serve_ask(VoView { vo: id("demo.rennes") }).await;
            return (trouble, view.map_or(0, |v| v.number));
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the log was believed");
}

async fn pair() -> (Site, Site) {
    let (rennes, pisa) = (Site::new("rennes").await, Site::new("pisa").await);
    pisa.trusts(&rennes);
    (rennes, pisa)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_entry_stops_the_replica_and_changes_nothing() {
    let good = |rennes: &Site| log(rennes, "demo.rennes", vec![admitted("bob@pisa", 2)]);
    // Signed by another site that is trusted, for its own VOs.
    let (rennes, pisa) = pair().await;
    let mut forged = good(&rennes);
    forged[3] = log(&pisa, "demo.rennes", vec![admitted("eve@pisa", 2)])[3].clone();
    assert_eq!(followed(&pisa, forged).await.1, 3);

    // Changed on the way.
    let (rennes, pisa) = pair().await;
    let mut tampered = good(&rennes);
    let middle = tampered[3].len() / 2;
    tampered[3].insert(middle, 'A');
    assert_eq!(followed(&pisa, tampered).await.1, 3);

    // Another history by the true home: the fourth entry follows another third one.
    let (rennes, pisa) = pair().await;
    let mut forked = good(&rennes);
    let other = vec![admitted("eve@pisa", 2), admitted("bob@pisa", 3)];
    let other = log(&rennes, "demo.rennes", other);
    forked.push(other[4].clone());
    forked[3] = log(&rennes, "demo.rennes", vec![admitted("carol@pisa", 2)])[3].clone();
    let (why, number) = followed(&pisa, forked).await;
    assert!(number == 4 && why.contains("entry 5 does not follow"), "{why}");

    // Entries of another VO of the same home.
    let (rennes, pisa) = pair().await;
    let (why, number) = followed(&pisa, log(&rennes, "other.rennes", vec![])).await;
    assert!(number == 0 && why.contains("other.rennes"), "{why}");
}

/// Waits until pisa has the log up to `number` and finds nothing wrong with it.
async fn believed(pisa: &Site, number: u64) {
    for _ in 0..3000 {
        let served = pisa.serve_ask(ServedVos {}).await.unwrap();
        let view = pisa.serve_ask(VoView { vo: id("demo.rennes") }).await;
        if served[0].trouble.is_none() && view.is_ok_and(|v| v.number == number) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("a good log is not taken up again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_met_a_bad_entry_goes_on_by_itself_but_takes_no_other_history() {
    let (rennes, pisa) = pair().await;
    let (bob, carol, dave) =
        (admitted("bob@pisa", 2), admitted("carol@pisa", 3), admitted("dave@pisa", 4));
    let good = log(&rennes, "demo.rennes", vec![bob.clone(), carol, dave]);
    let mut tampered = good.clone();
    tampered[4].insert(100, 'A');
    let home = Sends::new(tampered);
    follow(&pisa, home.clone()).await;
    assert_eq!(disbelieved(&pisa).await.1, 4);
    *home.0.lock().unwrap() = good[..5].to_vec();
    believed(&pisa, 5).await;

    // The home forgets carol, and goes on without her: well signed, but another history.
    let eve = vec![bob, admitted("eve@pisa", 3), admitted("dave@pisa", 4)];
    let other = log(&rennes, "demo.rennes", eve);
    *home.0.lock().unwrap() = other;
    home.1.send_replace(());
    let (why, number) = disbelieved(&pisa).await;
    assert!(number == 5 && why.contains("does not follow"), "{why}");
    *home.0.lock().unwrap() = good;
    believed(&pisa, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_home_cannot_put_two_people_under_one_uid() {
    let (rennes, pisa) = pair().await;
    let twice = vec![admitted("bob@pisa", 2), admitted("eve@pisa", 2)];
    let (why, number) = followed(&pisa, log(&rennes, "demo.rennes", twice)).await;
    assert!(number == 4 && why.contains("number is out of order"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_home_gets_no_share_that_was_not_offered() {
    // The log says that pisa offered ten times as much, and that it was accepted.
    let (rennes, pisa) = pair().await;
    let terms = Terms {
        cpu_milli: u64::MAX,
        memory_bytes: u64::MAX,
        storage_bytes: 0,
        until: None,
        version: 7,
    };
    let more = vec![
        Change::ShareOffered { site: id("pisa"), terms },
        Change::ShareAccepted { site: id("pisa"), version: 7 },
    ];
    follow(&pisa, Sends::new(log(&rennes, "demo.rennes", more))).await;
    for _ in 0..3000 {
        if pisa.serve_ask(VoView { vo: id("demo.rennes") }).await.is_ok_and(|v| v.number == 5) {
            let served = pisa.serve_ask(ServedVos {}).await.unwrap();
            assert!(served[0].accepted.is_none() && !served[0].serving, "{served:?}");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the log was not followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_vo_proves_nobodys_name() {
    // pisa issues a membership in its own VO to alice@rennes, whom only rennes vouches for.
    let (rennes, pisa) = (Site::new("rennes").await, Site::new("pisa").await);
    rennes.trusts(&pisa);
    let (_vom, other) = (rennes.start().await, pisa.start().await);
    found(&rennes).await;
    found_at_pisa(&rennes, &pisa).await;
    let m = xos_base::Membership {
        vo: id("evil.pisa"),
        person: id("alice@rennes"),
        number: xos_base::MemberNumber(2),
        epoch: xos_base::Epoch(1),
        groups: vec![xos_base::Group { name: id("members"), number: xos_base::GroupNumber(1) }],
        roles: vec![id("owner")],
        expires: None,
    };
    // Rennes serves evil.pisa, hence lets its members in, as members of evil.pisa.
    let standing = until("rennes serves evil.pisa", || {
        let now = xos_base::when::Clock::now(&xos_base::when::SystemClock);
        _vom.effective(&m, now).ok()
    })
    .await;
    let eve = rennes.caller(&pisa, "alice@rennes", Some(&standing), false);
    let r = CreateGroup { vo: id("demo.rennes"), name: id("mine") };
    assert_eq!(rennes.ask(&eve, r).await.unwrap_err().kind, Kind::Denied);
    let r = FoundVo { label: "mine".into(), title: "Mine".into(), description: String::new() };
    assert_eq!(rennes.ask(&eve, r).await.unwrap_err().kind, Kind::Denied);
    let r = Memberships { person: id("alice@rennes") };
    assert_eq!(rennes.ask(&eve, r).await.unwrap_err().kind, Kind::Denied);
    drop(other);
}

/// `evil.pisa` with alice@rennes as member, served by rennes.
async fn found_at_pisa(rennes: &Site, pisa: &Site) {
    pisa.trusts(rennes);
    let alice = pisa.own("alice");
    let r = FoundVo { label: "evil".into(), title: "Evil".into(), description: String::new() };
    pisa.ask(&alice, r).await.unwrap();
    join(pisa, &pisa.caller(rennes, "alice@rennes", None, false), "evil.pisa").await;
    let offer = OfferShare {
        vo: id("evil.pisa"),
        cpu_milli: 4000,
        memory_bytes: 1 << 30,
        storage_bytes: 0,
        until: None,
        base: None,
    };
    rennes.ask(&rennes.admin(), offer).await.unwrap();
    let r = AcceptShare { vo: id("evil.pisa"), site: id("rennes"), version: 1 };
    pisa.ask(&alice, r).await.unwrap();
}
