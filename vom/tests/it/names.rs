//! Names that a site gives to accounts of members of the VOs that it serves.

use crate::world::{Site, until};
use crate::{found, id, join};
use std::time::Duration;
use xos_api::vom::*;
use xos_base::{Error, Kind, LocalName};

/// Rennes with a VO that it serves, and bob in it.
async fn served() -> (Site, xos_vom::Vom) {
    let rennes = Site::new("rennes").await;
    let vom = rennes.start().await;
    found(&rennes).await;
    join(&rennes, &rennes.own("bob"), "demo.rennes").await;
    (rennes, vom)
}

async fn share(rennes: &Site) {
    let offer = OfferShare {
        vo: id("demo.rennes"),
        cpu_milli: 4000,
        memory_bytes: 1 << 30,
        storage_bytes: 0,
        until: None,
        base: Some(2_000_000_000),
    };
    rennes.ask(&rennes.admin(), offer).await.unwrap();
    let r = AcceptShare { vo: id("demo.rennes"), site: id("rennes"), version: 1 };
    rennes.ask(&rennes.own("alice"), r).await.unwrap();
}

fn give(names: &[(&str, &str)], dry_run: bool) -> GiveNames {
    let names = names.iter().map(|(p, n)| Naming { person: id(p), name: id(n) }).collect();
    GiveNames { vo: id("demo.rennes"), names, dry_run }
}

fn drop_name(person: &str) -> DropName {
    DropName { vo: id("demo.rennes"), person: id(person) }
}

async fn listed(site: &Site) -> Vec<(String, String, bool)> {
    let page = site.ask(&site.admin(), ListNames::default()).await.unwrap();
    let row = |n: AccountName| (n.name.to_string(), n.person.to_string(), n.used);
    page.names.into_iter().map(row).collect()
}

/// Waits until the node was last told that bob's account is called so.
async fn node_says(site: &Site, name: Option<&str>) {
    let want: Option<LocalName> = name.map(id);
    until(&format!("the node calls bob {name:?}"), || {
        let heard = site.ear.heard.lock().unwrap();
        let bob = heard.iter().rev().flat_map(|a| &a.members).find(|m| m.number.0 == 2)?;
        (bob.given == want).then_some(())
    })
    .await;
}

/// If it failed, a name would not reach the machines, or the uid would change with it and files
/// belong to somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_reaches_the_nodes_and_changes_nothing_else() {
    let (rennes, _vom) = served().await;
    let admin = rennes.admin();
    let e = rennes.ask(&admin, give(&[("bob@rennes", "robert")], false)).await.unwrap_err();
    assert_eq!(e.kind, Kind::NotFound, "no numbers here yet: {e}");
    share(&rennes).await;
    node_says(&rennes, None).await;

    let tried = rennes.ask(&admin, give(&[("bob@rennes", "robert")], true)).await.unwrap();
    let account = tried[0].account.clone().unwrap();
    assert_eq!((account.uid, account.default.as_str()), (2_000_000_002, "bob.demo.rennes"));
    assert!(listed(&rennes).await.is_empty(), "only tried");

    let given = rennes.ask(&admin, give(&[("bob@rennes", "robert")], false)).await.unwrap();
    assert_eq!(given[0].account, tried[0].account);
    node_says(&rennes, Some("robert")).await;
    let again = rennes.ask(&admin, give(&[("bob@rennes", "bobby")], false)).await.unwrap();
    assert_eq!(again[0].former, Some(id("robert")));
    node_says(&rennes, Some("bobby")).await;
    rennes.ask(&admin, drop_name("bob@rennes")).await.unwrap();
    node_says(&rennes, None).await;
    let e = rennes.ask(&admin, drop_name("bob@rennes")).await.unwrap_err();
    assert_eq!(e.kind, Kind::NotFound);
    let kept = |name: &str| (name.to_owned(), "bob@rennes".to_owned(), false);
    assert_eq!(listed(&rennes).await, [kept("bobby"), kept("robert")]);
}

/// If it failed, somebody could be given the name, and by it what files and lists of the site give
/// to that name, of another person; or half of an import would be made.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_given_again_only_once_it_was_released() {
    let (rennes, vom) = served().await;
    share(&rennes).await;
    let admin = rennes.admin();
    rennes.ask(&admin, give(&[("bob@rennes", "bob")], false)).await.unwrap();
    let both = give(&[("alice@rennes", "alice"), ("eve@rennes", "eve")], false);
    assert_eq!(rennes.ask(&admin, both).await.unwrap_err().kind, Kind::NotFound, "no member");
    let both = give(&[("bob@rennes", "robert"), ("alice@rennes", "bob")], false);
    assert_eq!(rennes.ask(&admin, both).await.unwrap_err().kind, Kind::Conflict);
    assert_eq!(listed(&rennes).await.len(), 1, "all or none");

    let release = ReleaseName { name: id("bob") };
    let e = rennes.ask(&admin, release.clone()).await.unwrap_err();
    assert_eq!(e.kind, Kind::Conflict, "the account is called so: {e}");
    let r = RemoveMember { vo: id("demo.rennes"), person: id("bob@rennes"), reason: "left".into() };
    rennes.ask(&rennes.own("alice"), r).await.unwrap();
    let take = || give(&[("alice@rennes", "bob")], false);
    let e = rennes.ask(&admin, take()).await.unwrap_err();
    assert_eq!(e.kind, Kind::Conflict, "he has left, and his files are there: {e}");

    // What was acknowledged is known after a restart.
    vom.stop();
    let mut again = Site::new("rennes").await;
    again.store = rennes.store.clone();
    let _vom = again.start().await;
    let admin = again.admin();
    let e = again.ask(&admin, take()).await.unwrap_err();
    assert_eq!(e.kind, Kind::Conflict, "{e}");
    again.ask(&admin, release).await.unwrap();
    let e = again.ask(&admin, take()).await.unwrap_err();
    assert_eq!(e.kind, Kind::Conflict, "sshd may hold who he was: {e}");
    again.clock.advance(Duration::from_secs(3600));
    again.ask(&admin, take()).await.unwrap();
    assert_eq!(listed(&again).await, [("bob".to_owned(), "alice@rennes".to_owned(), true)]);
}

/// If it failed, a member or an owner of a VO could call accounts on a site's machines as they
/// like.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_sites_administrator_names_accounts() {
    let (rennes, _vom) = served().await;
    share(&rennes).await;
    let named = [("bob@rennes", "robert")];
    rennes.ask(&rennes.admin(), give(&named, false)).await.unwrap();
    let denied = |e: Error| assert_eq!(e.kind, Kind::Denied, "{e}");
    // The owner of the VO, and the member.
    for caller in [rennes.own("alice"), rennes.own("bob")] {
        denied(rennes.ask(&caller, give(&[("bob@rennes", "bobby")], false)).await.unwrap_err());
        denied(rennes.ask(&caller, give(&named, true)).await.unwrap_err());
        denied(rennes.ask(&caller, drop_name("bob@rennes")).await.unwrap_err());
        denied(rennes.ask(&caller, ReleaseName { name: id("robert") }).await.unwrap_err());
        denied(rennes.ask(&caller, ListNames::default()).await.unwrap_err());
    }
    // Not even this site's core by itself: nobody would know who it was.
    denied(rennes.serve_ask(give(&named, false)).await.unwrap_err());
}

/// If it failed, two cores of a site could each give one name to somebody.
#[tokio::test(flavor = "multi_thread")]
async fn two_cores_of_a_site_give_a_name_once() {
    let (rennes, _vom) = served().await;
    share(&rennes).await;
    let mut twin = Site::new("rennes").await;
    twin.store = rennes.store.clone();
    let _twin = twin.start().await;
    rennes.ask(&rennes.admin(), give(&[("bob@rennes", "robert")], false)).await.unwrap();
    let take = |name: &str| give(&[("alice@rennes", name)], false);
    let e = twin.ask(&twin.admin(), take("robert")).await.unwrap_err();
    assert_eq!(e.kind, Kind::Conflict, "{e}");
    // What does not clash is given, though the other core has changed the names.
    rennes.ask(&rennes.admin(), give(&[("bob@rennes", "bobby")], false)).await.unwrap();
    twin.ask(&twin.admin(), take("alice")).await.unwrap();
    assert_eq!(listed(&twin).await.len(), 3);
}
