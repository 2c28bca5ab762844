use super::*;
use crate::state::JobRecord;
use crate::testing;
use xos_api::aem::{HostedEvent, HostedRun, UnitRun, Usage};
use xos_base::{JobId, Millis};

fn site(name: &str) -> SiteId {
    name.parse().unwrap()
}

fn id() -> JobId {
    "1.rennes".parse().unwrap()
}

/// A job of one unit that wrote 30 bytes at pisa, 15 more at delft, and runs at lyon.
fn moved_twice() -> Vec<JobRecord> {
    let mut spec = testing::spec(&[("main", "0", &[])]);
    spec.tasks[0].checkpointable = true;
    let (spec, member) = (Box::new(spec), Box::new(testing::alice()));
    let (job, task, at) = (1, 0, Millis(5));
    let mut all = vec![
        JobRecord::Submitted { job, at, spec, member, proof: None, watched: false },
        JobRecord::Mandated { job, mandate: "m".into() },
    ];
    for (attempt, at_site, wrote) in [(0, "pisa", 30), (1, "delft", 45), (2, "lyon", 0)] {
        let node = || site(at_site).node("c1").unwrap();
        let carried = testing::carried(&site(at_site), wrote);
        let (usage, why) = (Usage::default(), String::new());
        let mut runs = vec![HostedRun::Started { node: node() }];
        if wrote > 0 {
            runs.push(HostedRun::Left { node: node(), usage, carried, why });
        }
        let units = vec![UnitRun { first: 0, count: 1 }];
        all.push(JobRecord::Offered { job, task, site: site(at_site), units, attempt });
        let events = runs.into_iter().map(|what| HostedEvent { unit: 0, at, what }).collect();
        let (seq, site) = (1, site(at_site));
        all.push(JobRecord::Happened { site, seq, job, attempt, at, events });
    }
    all
}

/// If it failed, all that a unit wrote after it moved would be out of reach once the node where it
/// was born is gone, or a site says that there is more than it has.
#[tokio::test]
async fn what_is_nowhere_any_more_is_passed_over() {
    let (core, world, _dir) = testing::core(|_| {}).await;
    let change = core.ledger.transact(|t| {
        moved_twice().into_iter().for_each(|r| t.put(r));
        Ok(())
    });
    core.ledger.stored(change.unwrap().1).await.unwrap();
    let read = |offset, answers: Vec<Result<OutputPart, Error>>| {
        lock(&world.outputs).extend(answers);
        let (core, stream) = (core.clone(), OutputStream::Stdout);
        async move {
            let r = ReadOutput { unit: id().unit(0), stream, offset, limit: None };
            core.output_of(Grant { job: id(), by: String::new() }, r).await
        }
    };
    let some = |eof| Ok(OutputPart::new("eA==".into(), eof));
    let asked = || {
        let all = std::mem::take(&mut *lock(&world.reads));
        all.into_iter().map(|(s, a, offset, _)| (s.to_string(), a, offset)).collect::<Vec<_>>()
    };
    let part = read(3, vec![some(true)]).await.unwrap();
    assert_eq!((part.eof, part.from), (false, None), "more follows, elsewhere");
    assert_eq!(asked(), [("pisa".to_owned(), Some(0), 3)]);
    let gone = || Err(Error::not_found("it went with a node"));
    let part = read(3, vec![gone(), some(false)]).await.unwrap();
    assert_eq!((part.data.as_str(), part.eof, part.from), ("eA==", false, Some(30)));
    let delft = ("delft".to_owned(), Some(1), 30);
    assert_eq!(asked(), [("pisa".to_owned(), Some(0), 3), delft.clone()]);
    let end = || Ok(OutputPart::new(String::new(), true));
    let part = read(30, vec![end(), some(true)]).await.unwrap();
    assert_eq!((part.eof, part.from), (true, Some(45)));
    assert_eq!(asked(), [delft, ("lyon".to_owned(), None, 45)]);
    // Who is only away may come back.
    let away = vec![Err(Error::unavailable("delft is not reached"))];
    assert_eq!(read(30, away).await.unwrap_err().kind, Kind::Unavailable);
}
