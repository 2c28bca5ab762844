//! Clusters: for members with programs in them, and for the site's administrators.

use crate::admin::{Form, done};
use crate::fake::clusters::CHILD;
use crate::html::{check, elements};
use crate::pages::{HOSTILE, escaped, golden};
use crate::world::{Browser, World};

/// Pages of the site's administrators, which are tried with all others of theirs.
pub const SITE_PAGES: &[(&str, &str)] = &[
    ("site_clusters", "/site/clusters"),
    ("site_cluster", "/site/cluster/c1.rennes"),
    ("site_cluster_drain", "/site/cluster/c1.rennes/node/n2.rennes/drain"),
    ("site_cluster_remove", "/site/cluster/c1.rennes/node/n4.rennes/remove"),
    ("site_program", "/site/cluster/c1.rennes/program/8"),
    ("site_program_why", "/site/cluster/c1.rennes/program/7/why"),
    ("site_program_signal", "/site/cluster/c1.rennes/program/7/signal"),
];

/// Their forms.
pub const SITE_FORMS: &[Form] = &[
    ("/site/clusters", &[("label", "c2")], "CreateCluster { cluster: ClusterId(\"c2.rennes\") }"),
    (
        "/site/cluster/c1.rennes/nodes",
        &[("node", "n1.rennes"), ("node", "n6.rennes")],
        "nodes: [NodeId(\"n1.rennes\"), NodeId(\"n6.rennes\")]",
    ),
    ("/site/cluster/c1.rennes/node/n2.rennes/drain", &[], "plan: false, undo: false"),
    ("/site/cluster/c1.rennes/node/n3.rennes/undrain", &[], "plan: false, undo: true"),
    ("/site/cluster/c1.rennes/node/n4.rennes/remove", &[], "RemoveClusterNode"),
    (
        "/site/cluster/c1.rennes/program/8/move",
        &[("node", "n5.rennes")],
        "pid: 8, node: NodeId(\"n5.rennes\")",
    ),
    ("/site/cluster/c1.rennes/program/8/save", &[], "CheckpointTree"),
    ("/site/cluster/c1.rennes/program/9/restart", &[("node", "")], "node: None, as_is: false"),
    ("/site/cluster/c1.rennes/program/9/restart", &[("as_is", "yes")], "as_is: true"),
    (
        "/site/cluster/c1.rennes/program/8/signal",
        &[("pid", "8"), ("signal", "9")],
        "pid: 8, signal: 9",
    ),
];

const LIST: &str = "/vo/demo.rennes/clusters";
const PROGRAM: &str = "/vo/demo.rennes/cluster/c1.rennes/program/7";

/// Forms of a member for their own program, and what of each comes to the core.
const FORMS: &[Form] = &[
    (
        "/vo/demo.rennes/cluster/c1.rennes/program/7/move",
        &[("node", "n5.rennes")],
        "MigrateTree { cluster: ClusterId(\"c1.rennes\"), pid: 7, node: NodeId(\"n5.rennes\") }",
    ),
    ("/vo/demo.rennes/cluster/c1.rennes/program/7/save", &[], "CheckpointTree"),
    (
        "/vo/demo.rennes/cluster/c1.rennes/program/9/restart",
        &[("node", "n5.rennes")],
        "tree: 9, node: Some(NodeId(\"n5.rennes\"))",
    ),
    (
        "/vo/demo.rennes/cluster/c1.rennes/program/7/signal",
        &[("pid", "65540"), ("signal", "15")],
        "pid: 65540, signal: 15",
    ),
    ("/vo/demo.rennes/cluster/c1.rennes/program/7/signal", &[("signal", "9")], "pid: 7, signal: 9"),
];

/// If it failed, what a program is called, or what a node says of it, would run in the browser of
/// whoever looks at it.
#[actix_web::test]
async fn hostile_texts_come_out_as_text_on_a_members_pages() {
    let world = World::new(HOSTILE);
    let milo = world.signed_in("milo").await;
    for (name, path) in [
        ("clusters", LIST.to_owned()),
        ("program", PROGRAM.to_owned()),
        ("program_why", format!("{PROGRAM}/why")),
        ("program_signal", format!("{PROGRAM}/signal")),
    ] {
        let page = milo.get(&path).await;
        assert_eq!(page.status, 200, "{name}: {}", page.body);
        escaped(name, &page);
        assert!(page.body.contains("&#60;script&#62;alert(1)"), "{name} does not show the text");
        golden(name, &page.body);
    }
    // What the core says against something is a text of others too.
    let page = milo.post(&format!("{PROGRAM}/move"), &[("node", "n9.rennes")]).await;
    assert_eq!(page.status, 409, "{}", page.body);
    escaped("refused", &page);
    assert!(page.body.contains("id=\"program-trouble\""), "{}", page.body);
}

/// If it failed, a member would see or handle another's program, or miss one of their own.
#[actix_web::test]
async fn members_have_their_own_programs_there_and_no_others() {
    let world = World::new("text");
    let milo = world.signed_in("milo").await;
    let page = milo.get(LIST).await;
    for tree in [7, 9, 10] {
        assert!(page.body.contains(&format!("program/{tree}\"")), "{tree}: {}", page.body);
    }
    assert!(!page.body.contains("program/8"), "vera's program is shown to milo");
    assert!(page.body.contains("What runs in its clusters is missing."), "pisa is not named");
    let others = "/vo/demo.rennes/cluster/c1.rennes/program/8";
    assert_eq!(milo.get(others).await.status, 404);
    assert_eq!(milo.post(&format!("{others}/save"), &[]).await.status, 404);
    let fields = [("pid", "8"), ("signal", "9")];
    let page = milo.post(&format!("{PROGRAM}/signal"), &fields).await;
    assert_eq!(page.status, 409, "a process of another program: {}", page.body);
    assert_eq!(done(&world), Vec::<String>::new());
    // The stand-in issues no token for a site that does not serve the VO.
    let page = milo.get("/vo/demo.rennes/cluster/c1.lyon/program/7").await;
    assert_eq!(page.status, 404, "{}", page.body);
    assert!(page.body.contains("Lyon does not serve demo.rennes."), "{}", page.body);

    let nina = world.signed_in("nina").await;
    assert_eq!(nina.get(LIST).await.status, 403);
    assert_eq!(nina.get(PROGRAM).await.status, 403);
    // Who administers the site has no programs in a VO that they are no member of.
    let ada = world.signed_in("ada").await;
    assert_eq!(ada.get(PROGRAM).await.status, 403);
}

#[actix_web::test]
async fn a_members_forms_do_what_they_say() {
    let world = World::new("text");
    let milo = world.signed_in("milo").await;
    milo.get("/").await;
    for (path, fields, want) in FORMS {
        let page = milo.post(path, fields).await;
        assert_eq!(page.status, 303, "{path}: {}", page.body);
        let last = done(&world).pop().unwrap_or_default();
        assert!(last.starts_with("milo@rennes ") && last.contains(want), "{path}: {last}");
        let page = milo.get(page.header("location")).await;
        assert!(page.body.contains("id=\"notice\""), "{path} says nothing");
    }
    let before = done(&world).len();
    for (path, fields) in [
        (format!("{PROGRAM}/signal"), [("signal", "11")]),
        (format!("{PROGRAM}/signal"), [("pid", "7")]),
        (format!("{PROGRAM}/move"), [("node", "here")]),
        (format!("{PROGRAM}/move"), [("place", "n5.rennes")]),
    ] {
        assert_eq!(milo.post(&path, &fields).await.status, 400, "{path} {fields:?}");
    }
    assert_eq!(done(&world).len(), before, "something was done");
}

/// If it failed, people would be offered what cannot be done with a program as it stands.
#[actix_web::test]
async fn a_program_offers_what_its_state_allows() {
    let world = World::new("text");
    let milo = world.signed_in("milo").await;
    for (tree, offered) in [(7, "move save to-why to-signal"), (9, "restart"), (10, "")] {
        let path = format!("/vo/demo.rennes/cluster/c1.rennes/program/{tree}");
        let page = milo.get(&path).await;
        check(&page.body);
        let all = elements(&page.body);
        let has = |id: &str| all.iter().any(|e| e.get("id") == Some(id));
        for id in ["move", "save", "to-why", "to-signal", "restart"] {
            assert_eq!(has(id), offered.split(' ').any(|o| o == id), "{tree}: {id}");
        }
    }
    let page = milo.get(&format!("{PROGRAM}/signal")).await;
    assert!(page.body.contains(&format!("value=\"{CHILD}\"")), "{}", page.body);
    // Where it is already, and what takes none, is no choice.
    let page = milo.get(PROGRAM).await;
    assert!(page.body.contains("<option value=\"n5.rennes\">"), "{}", page.body);
    for node in ["n2.rennes", "n3.rennes", "n4.rennes"] {
        assert!(!page.body.contains(&format!("<option value=\"{node}\">")), "{node}");
    }
}

/// If it failed, an administrator would drain a node without knowing what stays on it, or not see
/// load, trouble, and who uses the processors.
#[actix_web::test]
async fn a_sites_administrator_sees_how_a_cluster_does() {
    let world = World::new("a broken fan");
    let ada = world.signed_in("ada").await;
    let page = ada.get("/site/cluster/c1.rennes").await;
    for part in [
        "id=\"to-drain-n2.rennes\"",
        "id=\"undrain-n3.rennes\"",
        "id=\"to-remove-n4.rennes\"",
        "1.5 of 4",
        "2 GiB of 8 GiB",
        "A broken fan.",
        "program/7\"",
        "program/8\"",
        "value=\"n1.rennes\"",
        // What milo's two processes use, and vera's one.
        ">3.5<",
        ">1.75<",
    ] {
        assert!(page.body.contains(part), "{part} is missing: {}", page.body);
    }
    let all = elements(&page.body);
    let charts = all.iter().filter(|e| e.name == "svg" && e.get("role").is_some()).count();
    assert_eq!(charts, 2);
    assert!(!page.body.contains("to-remove-n2.rennes"), "it has programs");
    let page = ada.get("/site/cluster/c1.rennes/node/n2.rennes/drain").await;
    assert!(page.body.contains("stays: <bdi>A broken fan.</bdi>"), "{}", page.body);
    assert!(page.body.contains("stay as things are now: 1."), "{}", page.body);
    assert_eq!(done(&world), Vec::<String>::new(), "looking at the plan drained the node");
    let page = ada.get("/site").await;
    assert!(page.body.contains("n4.rennes failed in c1.rennes: a broken fan"), "{}", page.body);
    assert_eq!(ada.get("/site/cluster/c1.pisa").await.status, 404, "another site's");
    assert_eq!(ada.post("/site/cluster/c1.rennes/nodes", &[]).await.status, 400);
}

/// If it failed, people at a site without clusters would be told of a fault, and its administrator
/// not what to do.
#[actix_web::test]
async fn a_site_without_clusters_says_so() {
    let world = World::without_clusters();
    let ada = world.signed_in("ada").await;
    let page = ada.get("/site/clusters").await;
    assert_eq!(page.status, 200, "{}", page.body);
    check(&page.body);
    assert!(page.body.contains("id=\"no-section\""), "{}", page.body);
    assert!(page.body.contains("<code>[cluster]</code>"), "{}", page.body);
    assert!(!page.body.contains("create-form"), "{}", page.body);
    assert_eq!(ada.get("/site").await.status, 200);
    let milo = world.signed_in("milo").await;
    let page = milo.get(LIST).await;
    assert_eq!(page.status, 200, "{}", page.body);
    check(&page.body);
    assert!(page.body.contains("The site has no clusters."), "{}", page.body);
}

async fn followed_until_signed_out(browser: &Browser, path: &str) -> String {
    browser.get("/").await;
    let (events, _) =
        futures_util::future::join(browser.get_live(path), browser.post("/sign-out", &[])).await;
    assert_eq!(events.header("content-type"), "application/x-ndjson", "{path}");
    events.body
}

/// If it failed, what moves would still be told to the browser of somebody who signed out, or to
/// one who may not see it.
#[actix_web::test]
async fn pages_of_clusters_are_not_kept_up_for_others() {
    let world = World::new("text");
    let site = "/site/cluster/c1.rennes/events";
    let program = format!("{PROGRAM}/events");
    for path in [format!("{LIST}/events"), program.clone()] {
        let milo = world.signed_in("milo").await;
        let told = followed_until_signed_out(&milo, &path).await;
        assert!(told.trim().is_empty(), "{path}: {told}");
    }
    let ada = world.signed_in("ada").await;
    assert!(followed_until_signed_out(&ada, site).await.trim().is_empty());
    let milo = world.signed_in("milo").await;
    assert_eq!(milo.get_live(site).await.status, 403);
    let others = "/vo/demo.rennes/cluster/c1.rennes/program/8/events";
    assert_eq!(milo.get_live(others).await.status, 404);
    let nina = world.signed_in("nina").await;
    assert_eq!(nina.get_live(&program).await.status, 403);
    // A program that is over changes no more: its stream ends by itself.
    let over = milo.get_live("/vo/demo.rennes/cluster/c1.rennes/program/10/events").await;
    assert_eq!((over.status, over.body.trim()), (200, ""));
}
