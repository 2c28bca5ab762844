//! Who a site's machines are told of: members of VOs that the site serves, and nobody else.

use crate::world::{Site, until};
use crate::{id, join};
use std::collections::BTreeSet;
use xos_api::Request;
use xos_api::vom::*;
use xos_base::{Error, Kind, VoId};
use xos_net::Caller;

/// Served by pisa.
const DEMO: &str = "demo.rennes";
/// Offered a share by pisa, and later accepted.
const LATER: &str = "later.rennes";
/// Pisa has nothing to do with it.
const OTHER: &str = "other.rennes";

async fn found(site: &Site, vo: &str) {
    let label = id::<VoId>(vo).label().to_owned();
    let r = FoundVo { label, title: "A VO".into(), description: String::new() };
    site.ask(&site.own("alice"), r).await.unwrap();
}

async fn offer(pisa: &Site, vo: &str) {
    let r = OfferShare {
        vo: id(vo),
        cpu_milli: 4000,
        memory_bytes: 1 << 30,
        storage_bytes: 0,
        until: None,
        base: None,
    };
    pisa.ask(&pisa.admin(), r).await.unwrap();
}

async fn accept(rennes: &Site, vo: &str) {
    let r = AcceptShare { vo: id(vo), site: id("pisa"), version: 1 };
    rennes.ask(&rennes.own("alice"), r).await.unwrap();
}

/// The VOs of whose members or groups the node of `site` was told.
fn told(site: &Site) -> BTreeSet<String> {
    let heard = site.ear.heard.lock().unwrap();
    let of = heard.iter().filter(|a| !a.members.is_empty() || !a.groups.is_empty());
    of.map(|a| a.vo.to_string()).collect()
}

/// If it failed, a node could let people in, and give them accounts, who have no business at its
/// site; and a rooted one would learn who they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_told_of_members_of_served_vos_alone() {
    let (rennes, pisa) = (Site::new("rennes").await, Site::new("pisa").await);
    rennes.trusts(&pisa);
    pisa.trusts(&rennes);
    let (_home, _replica) = (rennes.start().await, pisa.start().await);
    let bob = rennes.caller(&pisa, "bob@pisa", None, false);
    for vo in [DEMO, LATER, OTHER] {
        found(&rennes, vo).await;
        join(&rennes, &bob, vo).await;
    }
    offer(&pisa, DEMO).await;
    offer(&pisa, LATER).await;
    accept(&rennes, DEMO).await;
    until("the node knows the members of what is served", || {
        told(&pisa).contains(DEMO).then_some(())
    })
    .await;
    // Whatever changes there meanwhile: one of the served VO comes, and so all before it came.
    for vo in [OTHER, LATER, DEMO] {
        let r = SuspendMember { vo: id(vo), person: id("bob@pisa"), reason: "x".into() };
        rennes.ask(&rennes.own("alice"), r).await.unwrap();
    }
    until("the node knows of the suspension", || {
        let heard = pisa.ear.heard.lock().unwrap();
        let suspended = |m: &AccountMember| m.state == AccountState::Suspended;
        let of_demo = |a: &VoAccounts| a.vo == id::<VoId>(DEMO) && a.members.iter().any(suspended);
        heard.iter().any(of_demo).then_some(())
    })
    .await;
    assert_eq!(told(&pisa), BTreeSet::from([DEMO.to_owned()]));
    // At home, too, a VO has accounts only where it was given a share.
    assert_eq!(told(&rennes), BTreeSet::new());
    accept(&rennes, LATER).await;
    until("the node knows the members of what is served now", || {
        told(&pisa).contains(LATER).then_some(())
    })
    .await;
    assert!(!told(&pisa).contains(OTHER));
    // The end of a share: what is told then names nobody.
    let r = WithdrawShare { vo: id(LATER), reason: "no room".into() };
    pisa.ask(&pisa.admin(), r).await.unwrap();
    until("the accounts have ended", || {
        let heard = pisa.ear.heard.lock().unwrap();
        let last = heard.iter().rfind(|a| a.vo == id::<VoId>(LATER))?;
        (last.state == AccountState::Ended && last.members.is_empty()).then_some(())
    })
    .await;
}

/// A request was refused to `caller`, for what they are.
async fn denied<R: Request>(site: &Site, caller: &Caller, r: R)
where
    R::Reply: std::fmt::Debug,
{
    let e: Error = site.ask(caller, r).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "{}: {e}", caller.describe());
}

/// If it failed, a rooted node, or a hostile site, would read the members of any VO.
#[tokio::test(flavor = "multi_thread")]
async fn machines_that_ask_for_members_are_refused() {
    let (rennes, pisa) = (Site::new("rennes").await, Site::new("pisa").await);
    rennes.trusts(&pisa);
    pisa.trusts(&rennes);
    let (_home, _replica) = (rennes.start().await, pisa.start().await);
    let bob = rennes.caller(&pisa, "bob@pisa", None, false);
    for vo in [DEMO, OTHER] {
        found(&rennes, vo).await;
        join(&rennes, &bob, vo).await;
    }
    offer(&pisa, DEMO).await;
    accept(&rennes, DEMO).await;
    let machines = [
        rennes.node_of(&rennes, "n1"),
        rennes.node_of(&pisa, "n1"),
        // As a core it reads the log of what it serves, and asks for nobody's membership.
        rennes.core_of(&pisa),
    ];
    for caller in &machines {
        for vo in [DEMO, OTHER] {
            let (vo, person) = (id::<VoId>(vo), id("bob@pisa"));
            let all = ListMembers { vo: vo.clone(), after: None, limit: None };
            denied(&rennes, caller, all).await;
            let one = GetMember { vo: vo.clone(), person };
            denied(&rennes, caller, one.clone()).await;
            let of = MembershipOf { vo: vo.clone(), person: one.person, since: None };
            denied(&rennes, caller, of).await;
            denied(&rennes, caller, ListGroups { vo, after: None, limit: None }).await;
        }
        denied(&rennes, caller, Memberships { person: id("bob@pisa") }).await;
        denied(&rennes, caller, ServedVos {}).await;
        let log = VoLog { vo: id(OTHER), after: 0 };
        let e = rennes.grid.local_stream(caller.clone(), log).await.err().unwrap();
        assert_eq!(e.kind, Kind::Denied, "{}: {e}", caller.describe());
    }
    // The log of what is served is for the core, not for its nodes.
    for caller in &machines[..2] {
        let log = VoLog { vo: id(DEMO), after: 0 };
        let e = rennes.grid.local_stream(caller.clone(), log).await.err().unwrap();
        assert_eq!(e.kind, Kind::Denied, "{}: {e}", caller.describe());
    }
    let log = VoLog { vo: id(DEMO), after: 0 };
    assert!(rennes.grid.local_stream(machines[2].clone(), log).await.is_ok());
    // Were it refused to everybody, the above would show nothing.
    let own = MembershipOf { vo: id(OTHER), person: id("bob@pisa"), since: None };
    rennes.serve_ask(own).await.unwrap();
}
