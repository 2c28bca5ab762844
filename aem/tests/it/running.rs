//! Who runs what: sessions beside jobs, for whom the rules let see them.

use crate::world::{Site, until};
use xos_api::aem::*;
use xos_api::policy::{Action, Denial, Side};

/// If it failed, a member would watch others whom the rules keep from that, or not find their own
/// sessions; or each page of a long list would repeat all sessions.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_shown_to_whom_the_rules_let_see() {
    let site = Site::new("rennes", &["n1", "n2"]).await;
    let aem = site.start(|_| {}).await;
    let (alice, bob) =
        (site.caller(&site, "alice@rennes", &[]), site.caller(&site, "bob@rennes", &["admin"]));
    let list = || ListRunning { vo: "demo.rennes".parse().unwrap(), after: None };
    // The test's nodes each tell of a session of alice.
    let page = until("both nodes are known", async || {
        let page = site.ask(&bob, list()).await.unwrap();
        (page.sessions.len() == 2).then_some(page)
    })
    .await;
    assert!(page.unheard.is_empty(), "{page:?}");
    let nodes: Vec<String> = page.sessions.iter().map(|s| s.node.to_string()).collect();
    assert_eq!(nodes, ["n1.rennes", "n2.rennes"]);
    let later = ListRunning { after: Some("1.rennes".parse().unwrap()), ..list() };
    assert!(site.ask(&bob, later).await.unwrap().sessions.is_empty());
    let denial = Denial { side: Side::Vo, rule: None, text: "own only".into() };
    for person in ["alice@rennes", "bob@rennes"] {
        let denied = (person.parse().unwrap(), Action::See, denial.clone());
        site.denials.0.lock().unwrap().push(denied);
    }
    assert!(site.ask(&bob, list()).await.unwrap().sessions.is_empty());
    assert_eq!(site.ask(&alice, list()).await.unwrap().sessions.len(), 2, "her own");
    aem.stop().await;
}
