use super::*;
use crate::core::lock;
use crate::state::carry::Goal;
use crate::testing;
use xos_api::aem::{HostedEvent, HostedRun, UnitRun};

fn site(name: &str) -> SiteId {
    name.parse().unwrap()
}

/// A job of one unit that runs in a cluster at pisa.
fn running() -> Vec<JobRecord> {
    let mut spec = testing::spec(&[("main", "0", &[])]);
    spec.tasks[0].checkpointable = true;
    let (spec, member) = (Box::new(spec), Box::new(testing::alice()));
    let (job, at, units) = (1, Millis(5), vec![UnitRun { first: 0, count: 1 }]);
    let what = HostedRun::Started { node: site("pisa").node("c1").unwrap() };
    let events = vec![HostedEvent { unit: 0, at, what }];
    let (task, attempt, seq) = (0, 0, 1);
    vec![
        JobRecord::Submitted { job, at, spec, member, proof: None, watched: false },
        JobRecord::Mandated { job, mandate: "m".into() },
        JobRecord::Offered { job, task, site: site("pisa"), units, attempt },
        JobRecord::Happened { site: site("pisa"), seq, job, attempt, at, events },
    ]
}

async fn put(core: &Core, records: Vec<JobRecord>) {
    let change = core.ledger.transact(|t| {
        records.into_iter().for_each(|r| t.put(r));
        Ok(())
    });
    core.ledger.stored(change.unwrap().1).await.unwrap();
}

fn sent(to: &str, at: u64) -> JobRecord {
    let (to, by) = (Goal { site: site(to), cluster: None }, "alice".to_owned());
    JobRecord::Going { job: 1, unit: 0, attempt: 0, to, at: Millis(at), by }
}

/// If it failed, a unit whose image takes long to save would be told to stay, and go then to a site
/// that nobody named.
#[tokio::test]
async fn a_goal_is_kept_until_the_site_says_that_the_unit_stays() {
    let (core, world, _dir) = testing::core(|_| {}).await;
    put(&core, running()).await;
    // It was asked for days ago.
    put(&core, vec![sent("delft", 10)]).await;
    let goal = || core.ledger.read(|s| s.jobs.job(1)?.going.get(&0).cloned());
    assert_eq!(core.do_moves(1).await, Next::Later);
    lock(&world.stays).push_back(Error::unavailable("it is being saved"));
    assert_eq!(core.do_moves(1).await, Next::Later);
    assert!(goal().is_some(), "it goes wherever it can");
    let asked: Vec<Millis> = lock(&world.leaves).iter().map(|r| r.at).collect();
    assert_eq!(asked, [Millis(10); 2], "the same wish is another one");
    lock(&world.stays).push_back(Error::conflict("unit 0 stays: it waits for a node"));
    assert_eq!(core.do_moves(1).await, Next::Rest);
    assert_eq!(goal(), None);
    let why = core.ledger.read(|s| s.jobs.job(1).unwrap().reasons.last().cloned()).unwrap();
    assert!(why.text.contains("it waits for a node"), "{why:?}");
}

/// If it failed, the answer to one wish would undo the next one.
#[tokio::test]
async fn an_answer_counts_for_the_wish_that_it_is_for() {
    let (core, _world, _dir) = testing::core(|_| {}).await;
    put(&core, running()).await;
    put(&core, vec![sent("delft", 10)]).await;
    put(&core, vec![sent("lyon", 20)]).await;
    let stays = || Err(Error::conflict("it stays"));
    assert!(!core.goes(1, (0, Millis(10)), &site("pisa"), stays()).await);
    let goal = || core.ledger.read(|s| s.jobs.job(1)?.going.get(&0).map(|g| g.to.site.clone()));
    assert_eq!(goal(), Some(site("lyon")));
    assert!(!core.goes(1, (0, Millis(20)), &site("pisa"), stays()).await);
    assert_eq!(goal(), None);
}
