use super::*;
use crate::follow::tests::owner_of;
use xos_api::aem::UnitRun;

/// If it failed, the units of a silent site would be more than a record may be: refused by the
/// journal, the state loaded anew, and given up again, for ever.
#[tokio::test]
async fn what_a_silent_site_has_is_lost_however_much_it_is() {
    const UNITS: u32 = 30_000;
    let (core, _dir) = owner_of("0-29999", UnitRun { first: 0, count: UNITS }).await;
    lock(&core.silent_sites).insert("pisa".parse().unwrap(), Millis(0));
    core.give_up_sites().await;
    assert!(!core.ledger.is_broken());
    let (lost, state) = core.ledger.read(|s| {
        let job = s.jobs.job(1).unwrap();
        (job.tally.counts().lost, job.state.clone())
    });
    assert_eq!((lost, state.word()), (UNITS, "failed"));
}
