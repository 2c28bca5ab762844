use crate::world::{Site, until};
use crate::{found, id, join};
use std::time::Duration;
use xos_api::audit::*;
use xos_api::vom::{AcceptShare, GrantRole, MembershipOf, OfferShare};
use xos_base::{Kind, Millis, NodeId};
use xos_net::sign::Kind as Statement;
use xos_net::{Audit, Caller};
use xos_vom::Vom;
use xos_vom::audit::{NODE_EVENTS_BURST, reread};

async fn sites() -> (Site, Vom, Site, Vom) {
    let (rennes, pisa) = (Site::new("rennes").await, Site::new("pisa").await);
    rennes.trusts(&pisa);
    pisa.trusts(&rennes);
    let (home, other) = (rennes.start().await, pisa.start().await);
    (rennes, home, pisa, other)
}

/// Notes something of bob's in a VO.
async fn note(site: &Site, vo: Option<&str>, why: &str) {
    let event = Event {
        who: "bob@rennes".into(),
        person: Some(id("bob@rennes")),
        vo: vo.map(id),
        why: why.into(),
        ..Event::new(Millis(5), "try_it")
    };
    site.audit().record(event).await.unwrap();
}

/// Waits until `holder` holds a head of `site` at its present end, and what it holds then.
async fn witnessed(holder: &Site, site: &Site) -> Vec<HeldHead> {
    let end = site.audit().end().number;
    for _ in 0..3000 {
        let core = holder.core_of(site);
        let heads =
            holder.ask(&core, HeadsOf { site: site.id.clone(), after: None }).await.unwrap();
        let newest = heads.held.first().and_then(|h| reread(&h.statement));
        if newest.is_some_and(|h| h.number >= end) {
            return heads.held;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the head of {} did not come to {}", site.id, holder.id);
}

async fn verify(site: &Site) -> AuditCheck {
    site.ask(&site.admin(), VerifyAudit::default()).await.unwrap()
}

fn noted(site: &Site, what: &str) -> Vec<Event> {
    let log = site.audit();
    let ask = SearchAudit { what: Some(what.into()), ..SearchAudit::default() };
    let page = log.search(&xos_vom::audit::Scope::All, &ask).unwrap();
    page.lines.into_iter().map(|l| l.event).collect()
}

fn statement(site: &Site, of: &str, number: u64, hash: &str, time: u64) -> RecordHead {
    let (of, hash) = (id(of), hash.to_owned());
    let head = AuditHead { site: of, number, hash, time: Millis(time) };
    RecordHead { statement: site.signer.sign(Statement::AuditHead, &head).unwrap() }
}

/// If it failed, whoever has a core could change or cut its audit, and no other site would tell.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_site_witnessed_shows_what_was_changed_and_cut() {
    let (rennes, _home, pisa, _other) = sites().await;
    for n in 0..30 {
        note(&rennes, None, &n.to_string()).await;
    }
    let held = witnessed(&pisa, &rennes).await;
    assert_eq!(held[0].by, pisa.id);
    let check = verify(&rennes).await;
    assert_eq!((check.faults.len(), check.silent.len(), check.next.clone()), (0, 0, None));
    assert!(check.lines >= 30 && check.witnessed >= 30 && check.heads >= 1, "{check:?}");
    // The site's administrator gets the same from their own core; others get nothing.
    let ask = HeadsOf { site: rennes.id.clone(), after: None };
    let all = rennes.ask(&rennes.admin(), ask.clone()).await.unwrap();
    assert_eq!(all.held[0].statement, held[0].statement);
    let denied = rennes.ask(&rennes.own("eve"), ask.clone()).await.unwrap_err();
    assert_eq!(denied.kind, Kind::Denied);
    let denied = pisa.ask(&pisa.own("eve"), ask).await.unwrap_err();
    assert_eq!(denied.kind, Kind::Denied);

    let first = rennes.folder.path().join(format!("{:020}.jsonl", 1));
    let good = std::fs::read_to_string(&first).unwrap();
    std::fs::write(&first, good.replacen("bob@rennes", "eve@rennes", 1)).unwrap();
    let check = verify(&rennes).await;
    let fault = check.faults.first().expect("the changed line");
    assert_eq!((fault.number, fault.kind), (1, FaultKind::Altered));
    until("it is noted", || (!noted(&rennes, "verify_audit").is_empty()).then_some(())).await;
    std::fs::write(&first, good).unwrap();
    assert_eq!(verify(&rennes).await.faults, []);
}

/// If it failed, a site could write its history anew, or one site could speak for another.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_wrote_its_audit_anew_is_found_out_by_the_others() {
    let (rennes, home, pisa, _other) = sites().await;
    for n in 0..30 {
        note(&rennes, None, &n.to_string()).await;
    }
    witnessed(&pisa, &rennes).await;
    // The core is stopped, its newest lines are removed, and it goes on with others.
    home.stop();
    rennes.audit().close();
    *rennes.log.lock().unwrap() = None;
    let mut files: Vec<_> = std::fs::read_dir(rennes.folder.path())
        .unwrap()
        .map(|f| f.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    files.sort();
    std::fs::remove_file(files.pop().unwrap()).unwrap();
    let _again = rennes.vom_through(std::sync::Arc::new(rennes.grid.clone())).await;
    note(&rennes, None, "something else").await;
    until("pisa notes it", || noted(&pisa, "audit_rewritten").pop()).await;
    let event = noted(&pisa, "audit_rewritten").remove(0);
    assert_eq!((event.who.as_str(), event.outcome), ("core of rennes", Outcome::Refused));
    // Both signatures are there whole: the proof.
    let signed = event.why.split(' ').filter(|w| reread(w).is_some());
    let valid = signed
        .filter(|s| pisa.trust.verify::<AuditHead>(Statement::AuditHead, s, &rennes.id).is_ok());
    assert_eq!(valid.count(), 2, "{}", event.why);
    until("rennes notes it", || noted(&rennes, "audit_contradicted").pop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_taken_from_the_core_whose_audit_it_is() {
    let (rennes, _home, pisa, _other) = sites().await;
    let hash = "a".repeat(64);
    let core = pisa.core_of(&rennes);
    let kind = async |caller: &Caller, r: RecordHead| pisa.ask(caller, r).await.map_err(|e| e.kind);
    let good = || statement(&rennes, "rennes", 7, &hash, 10);
    assert_eq!(kind(&pisa.own("eve"), good()).await, Err(Kind::Denied));
    assert_eq!(kind(&pisa.node_of(&rennes, "n1"), good()).await, Err(Kind::Denied));
    let other = statement(&rennes, "pisa", 7, &hash, 10);
    assert_eq!(kind(&core, other).await, Err(Kind::Invalid));
    let forged = statement(&pisa, "rennes", 7, &hash, 10);
    assert_eq!(kind(&core, forged).await, Err(Kind::Unauthenticated));
    assert_eq!(kind(&core, statement(&rennes, "rennes", 7, "x", 10)).await, Err(Kind::Invalid));
    kind(&core, good()).await.unwrap();
    kind(&core, good()).await.unwrap();
    let (b, later) = ("b".repeat(64), 20);
    let anew = || statement(&rennes, "rennes", 7, &b, later);
    assert_eq!(kind(&core, anew()).await, Err(Kind::Conflict));
    assert_eq!(kind(&core, anew()).await, Err(Kind::Conflict));
    let back = statement(&rennes, "rennes", 6, &hash, later);
    assert_eq!(kind(&core, back).await, Err(Kind::Conflict));
    // Whoever sends it again and again does not fill this site's audit.
    until("it is noted", || noted(&pisa, "audit_rewritten").pop()).await;
    assert_eq!(noted(&pisa, "audit_rewritten").len(), 1);
}

async fn see(site: &Site, caller: &Caller, vo: Option<&str>) -> Result<(Vec<String>, bool), Kind> {
    let what = Some("try_it".to_owned());
    let ask = SearchAudit { vo: vo.map(id), what, ..SearchAudit::default() };
    let page = site.ask(caller, ask).await.map_err(|e| e.kind)?;
    Ok((page.lines.into_iter().map(|l| l.event.why).collect(), page.own))
}

/// If it failed, somebody would read of others what is not for them, or could not see what
/// concerns them; or an administrator could look unseen.
#[tokio::test(flavor = "multi_thread")]
async fn each_sees_what_is_theirs_and_whoever_looks_is_seen() {
    let (rennes, _home, pisa, _other) = sites().await;
    found(&rennes).await;
    join(&rennes, &rennes.own("bob"), "demo.rennes").await;
    note(&rennes, Some("demo.rennes"), "in demo").await;
    note(&rennes, Some("other.pisa"), "elsewhere").await;
    note(&rennes, None, "in no VO").await;
    let lines = |all: &[&str], own: bool| -> Result<(Vec<String>, bool), Kind> {
        Ok((all.iter().map(|s| (*s).to_owned()).collect(), own))
    };
    let (demo, all) = (["in demo"], ["in no VO", "elsewhere", "in demo"]);
    let vo = Some("demo.rennes");

    assert_eq!(see(&rennes, &rennes.own("eve"), None).await, lines(&[], true));
    assert_eq!(see(&rennes, &rennes.own("eve"), vo).await, lines(&[], true));
    assert_eq!(see(&rennes, &rennes.own("alice"), None).await, lines(&[], true));
    assert_eq!(see(&rennes, &rennes.own("bob"), None).await, lines(&all, true));
    assert_eq!(see(&rennes, &rennes.own("bob"), vo).await, lines(&demo, true));
    assert_eq!(noted(&rennes, "search_audit"), [], "one's own lines are one's own");
    assert_eq!(see(&rennes, &rennes.own("alice"), vo).await, lines(&demo, false));
    assert_eq!(see(&rennes, &rennes.own("alice"), vo).await, lines(&demo, false));
    let looked = noted(&rennes, "search_audit");
    assert_eq!((looked.len(), looked[0].who.as_str()), (1, "alice@rennes"));
    assert_eq!(looked[0].vo, vo.map(id));
    assert_eq!(see(&rennes, &rennes.admin(), None).await, lines(&all, false));
    assert_eq!(noted(&rennes, "search_audit")[0].who, "root@rennes");
    // Of whom somebody else's lines are looked for, theirs is the look too.
    let ask = SearchAudit { person: Some(id("bob@rennes")), ..SearchAudit::default() };
    rennes.ask(&rennes.admin(), ask).await.unwrap();
    assert_eq!(noted(&rennes, "search_audit")[0].person, Some(id("bob@rennes")));
    for machine in [rennes.core_of(&pisa), rennes.node_of(&rennes, "n1")] {
        assert_eq!(see(&rennes, &machine, None).await, Err(Kind::Denied));
    }
    let refused = noted(&rennes, "search_audit");
    assert_eq!(refused[0].outcome, Outcome::Refused);

    // A credential in a VO shows that VO's part; one of a member only their own.
    let member = async |name: &str| {
        let (vo, person) = (id("demo.rennes"), id(&format!("{name}@rennes")));
        let of = MembershipOf { vo, person, since: None };
        let m = rennes.serve_ask(of).await.unwrap().membership;
        rennes.caller(&rennes, &format!("{name}@rennes"), Some(&m), false)
    };
    assert_eq!(see(&rennes, &member("alice").await, vo).await, lines(&demo, false));
    assert_eq!(see(&rennes, &member("bob").await, None).await, lines(&demo, true));
    assert_eq!(see(&rennes, &member("bob").await, vo).await, lines(&demo, true));
    let r = GrantRole { vo: id("demo.rennes"), person: id("bob@rennes"), role: id("admin") };
    rennes.ask(&rennes.own("alice"), r).await.unwrap();
    assert_eq!(see(&rennes, &rennes.own("bob"), vo).await, lines(&demo, false));
    for person in [rennes.own("alice"), rennes.own("bob")] {
        let denied = rennes.ask(&person, VerifyAudit::default()).await.unwrap_err();
        assert_eq!(denied.kind, Kind::Denied);
    }
}

/// If it failed, a VO's administrators could not see what became of their members elsewhere; or a
/// site's people could see what VOs that it does not serve did.
#[tokio::test(flavor = "multi_thread")]
async fn a_vos_administrator_sees_its_lines_at_a_site_that_serves_it() {
    let (rennes, _home, pisa, _other) = sites().await;
    found(&rennes).await;
    note(&pisa, Some("demo.rennes"), "at pisa").await;
    note(&pisa, Some("other.pisa"), "another").await;
    let alice = || pisa.caller(&rennes, "alice@rennes", None, false);
    let vo = Some("demo.rennes");
    assert_eq!(see(&pisa, &alice(), vo).await, Ok((vec![], true)), "pisa knows no such VO");
    let offer = OfferShare {
        vo: id("demo.rennes"),
        cpu_milli: 1000,
        memory_bytes: 1 << 30,
        storage_bytes: 0,
        until: None,
        base: None,
    };
    pisa.ask(&pisa.admin(), offer).await.unwrap();
    let accept = || AcceptShare { vo: id("demo.rennes"), site: id("pisa"), version: 1 };
    let mut accepted = false;
    for _ in 0..3000 {
        accepted = accepted || rennes.ask(&rennes.own("alice"), accept()).await.is_ok();
        if see(&pisa, &alice(), vo).await == Ok((vec!["at pisa".to_owned()], false)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("alice does not see her VO at pisa; accepted: {accepted}");
}

/// If it failed, a node could speak for another one, or fill the core's disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_reports_of_itself_and_no_more_than_its_part() {
    let (rennes, _home, pisa, _other) = sites().await;
    let node = rennes.node_of(&rennes, "n1");
    let report = |first: u64, count: usize| {
        let mut event = Event::new(Millis(3), "start_unit");
        event.node = Some(id("n2.rennes"));
        ReportEvents { first, series: "s".into(), events: vec![event; count] }
    };
    let kind =
        async |caller: &Caller, r: ReportEvents| rennes.ask(caller, r).await.map_err(|e| e.kind);
    for stranger in [rennes.node_of(&pisa, "n1"), rennes.own("bob"), rennes.core_of(&pisa)] {
        assert_eq!(kind(&stranger, report(1, 1)).await, Err(Kind::Denied));
    }
    assert_eq!(kind(&node, report(0, 1)).await, Err(Kind::Invalid));
    assert_eq!(kind(&node, report(u64::MAX, 1)).await, Err(Kind::Invalid));
    assert_eq!(kind(&node, report(1, REPORT_EVENTS_MAX + 1)).await, Err(Kind::TooLarge));
    let nameless = ReportEvents { series: String::new(), ..report(1, 1) };
    assert_eq!(kind(&node, nameless).await, Err(Kind::Invalid));
    kind(&node, report(1, 2)).await.unwrap();
    kind(&node, report(1, 3)).await.unwrap();
    let own: NodeId = id("n1.rennes");
    let nodes: Vec<_> = noted(&rennes, "start_unit").into_iter().map(|e| e.node).collect();
    assert_eq!(nodes, vec![Some(own); 3]);
    // It reports without end; nothing of it is new, but it counts.
    let mut asked = 0;
    let refused = loop {
        match kind(&node, report(1, REPORT_EVENTS_MAX)).await {
            Ok(_) => asked += REPORT_EVENTS_MAX as u64,
            Err(kind) => break kind,
        }
        assert!(asked <= 2 * NODE_EVENTS_BURST, "a node may report without end");
    };
    assert_eq!(refused, Kind::Limited);
    until("it is noted", || noted(&rennes, "reports_limited").pop()).await;
}
