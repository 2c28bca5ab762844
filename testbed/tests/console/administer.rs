//! What administrators of a VO and of a site do by the console: rules, who runs what, the audit,
//! shares.

use crate::browser::{Browser, Page};
use crate::check::Album;
use crate::{VO, World};
use serde_json::json;

/// What the rule's note says; it must be shown, never obeyed.
const NOTE: &str = "not at \"night\" <b>please</b>";

/// All chapters; vera owns the VO, milo is its member.
pub fn all(world: &World, browser: &Browser) {
    let album = Album::new("administer");
    let page = || browser.page(&world.origin, true);
    let (vera, second, ada) = (page(), page(), page());
    for vera in [&vera, &second] {
        vera.visit("/");
        vera.sign_in("vera", &world.vera.password);
    }
    vera_sets_a_rule(&vera, &second, &album);
    vera_asks_what_it_would_say(&vera, &album);
    vera_finds_it_in_the_audit(&vera, &album);
    vera_removes_the_rule(&vera);
    vera_sees_who_runs_what(&vera, &album);
    ada.visit("/");
    ada.sign_in(&world.rennes.admin.name, &world.rennes.admin.password);
    ada_offers_a_share(&ada, &album);
    vera_accepts_it(&vera);
    ada_looks_after_the_site(&ada, &album);
    // The second was left with the refusal.
    for page in [&vera, &ada] {
        page.check(200);
    }
    assert!(browser.flaws.borrow().is_empty(), "{:#?}", browser.flaws.borrow());
}

fn fill_rule(page: &Page) {
    page.fill("#name", "no-nights");
    page.choose("#rule-form", "effect", "deny");
    page.choose("#rule-form", "who", "person");
    page.fill("#whom", "milo@rennes");
    page.choose("#rule-form", "what", "run");
    page.fill("#note", NOTE);
}

/// Both have the form open; the first sets the rule, the second is told.
fn vera_sets_a_rule(vera: &Page, second: &Page, album: &Album) {
    for page in [vera, second] {
        page.visit(&format!("/vo/{VO}"));
        page.go("#tab-rules");
        page.go("#to-new-rule");
        fill_rule(page);
    }
    album.keep(vera, "rule-form");
    vera.go("#set-rule");
    assert!(vera.text("#notice").contains("The rule no-nights is set"), "{}", vera.text("main"));
    let row = vera.text("#rules [data-rule='no-nights']");
    assert!(row.contains(NOTE) && row.contains("milo@rennes"), "{row}");
    assert!(!vera.has("#rules b"), "the note became an element of the page");
    album.keep(vera, "rules");

    second.go_refused("#set-rule", 409);
    let told = second.text("#rule-trouble");
    assert!(told.contains("vera@rennes set no-nights"), "{told}");
    let kept = second.eval("document.querySelector('#note').value");
    assert_eq!(kept, json!(NOTE), "what was typed is lost");
}

fn vera_asks_what_it_would_say(vera: &Page, album: &Album) {
    vera.fill("#ask-person", "milo@rennes");
    vera.choose("#what-if-form", "what", "run");
    vera.go("#ask");
    let verdict = vera.text("#verdict");
    assert!(verdict.contains("denied"), "{verdict}");
    assert!(vera.text("#decided-by").contains("no-nights"), "{verdict}");
    assert!(vera.text("#matched").contains("no-nights"), "{}", vera.text("main"));
    album.keep_part(vera, "what-if", "#what-if");
    vera.choose("#what-if-form", "what", "login");
    vera.go("#ask");
    assert!(vera.text("#verdict").contains("allowed"), "{}", vera.text("#verdict"));
}

fn vera_finds_it_in_the_audit(vera: &Page, album: &Album) {
    vera.go("#tab-audit");
    let noted = vera.text("#audit");
    assert!(noted.contains("rules") && noted.contains("vera@rennes"), "{noted}");
    album.keep(vera, "audit");
    vera.click("#narrow");
    vera.fill("#who", "nobody-of-that-name");
    vera.go("#search");
    assert!(vera.text("main .empty").contains("Leave a condition out"), "{}", vera.text("main"));
    vera.visit("/audit");
    assert!(vera.text("#audit").contains("vera@rennes"), "{}", vera.text("main"));
}

fn vera_removes_the_rule(vera: &Page) {
    vera.visit(&format!("/vo/{VO}/rules"));
    vera.go("#to-remove-no-nights");
    vera.go("#remove-rule");
    assert!(vera.text("#notice").contains("The rule no-nights is removed"));
    assert!(!vera.has("#rules [data-rule='no-nights']"), "the rule is still there");
}

fn vera_sees_who_runs_what(vera: &Page, album: &Album) {
    vera.visit(&format!("/submit?vo={VO}"));
    vera.fill("#command", "sleep 600");
    vera.go("#submit");
    let running = "document.querySelector('#job-state')?.dataset.state === \"running\"";
    vera.until("the job runs", running);
    let job = vera.path();
    vera.visit(&format!("/vo/{VO}/running"));
    assert!(vera.text("#live-people").contains("vera@rennes"), "{}", vera.text("main"));
    assert!(vera.text("#load").contains("rennes"), "{}", vera.text("main"));
    assert!(vera.has("#live-sites svg.chart title"), "there is no chart");
    album.keep(vera, "running");
    vera.go(&format!("#live-people a[href='{job}']"));
    vera.go("#to-cancel");
    vera.go("#cancel");
}

fn ada_offers_a_share(ada: &Page, album: &Album) {
    ada.go("#nav-site");
    album.keep(ada, "site");
    ada.go("#tab-vos");
    ada.fill("#vo", VO);
    for (field, text) in [("#cpus", "3"), ("#memory", "2"), ("#storage", "1")] {
        ada.fill(field, text);
    }
    ada.go("#offer-share");
    assert!(ada.text("#notice").contains("is offered a share"), "{}", ada.text("main"));
    let card = ada.text(&format!("#served [data-vo='{VO}']"));
    assert!(card.contains("not answered yet"), "{card}");
    album.keep(ada, "site-vos");
}

fn vera_accepts_it(vera: &Page) {
    vera.visit(&format!("/vo/{VO}/shares"));
    vera.go("#accept-rennes");
    assert!(vera.text("#notice").contains("now uses the share"), "{}", vera.text("main"));
}

fn ada_looks_after_the_site(ada: &Page, album: &Album) {
    ada.go("#tab-people");
    ada.fill("#from", "mi");
    ada.go("#find");
    assert!(!ada.has("#people [data-person='ada@rennes']"), "the list does not begin there");
    ada.go("#people [data-person='milo@rennes'] a");
    ada.go("#suspend");
    assert!(ada.text("#notice").contains("cannot sign in"), "{}", ada.text("main"));
    ada.go("#resume");
    ada.go("#tab-nodes");
    let node = ada.text("#nodes [data-node='n1.rennes']");
    assert!(node.contains("connected") && !node.contains("not connected"), "{node}");
    ada.fill("#label", "n9");
    ada.go("#make-token");
    assert!(ada.text("#once-1").starts_with("xos-join:n9.rennes:"), "{}", ada.text("main"));
    for tab in ["#tab-names", "#tab-sites", "#tab-services", "#tab-rules"] {
        ada.go(tab);
    }
    ada_makes_a_cluster(ada, album);
    ada.go("#tab-audit");
    ada.go("#verify");
    assert!(ada.text("#verdict").starts_with("Yes"), "{}", ada.text("main"));
    album.keep(ada, "audit-verified");
}

fn ada_makes_a_cluster(ada: &Page, album: &Album) {
    ada.go("#tab-clusters");
    assert!(ada.text("main .empty").contains("There is no cluster yet"), "{}", ada.text("main"));
    ada.fill("#label", "c1");
    ada.go("#create-cluster");
    assert!(ada.text("#notice").contains("c1.rennes is made"), "{}", ada.text("main"));
    ada.click("#add-1");
    ada.go("#add-nodes");
    let node = ada.text("#nodes [data-node='n1.rennes']");
    assert!(node.contains("possible"), "{node}");
    album.keep(ada, "site-cluster");
    ada.go("#change [data-node='n1.rennes'] a.danger");
    ada.go("#confirm");
    assert!(ada.text("#notice").contains("no longer in c1.rennes"), "{}", ada.text("main"));
    assert!(!ada.has("#nodes"), "the node is still there");
}
