//! The way of two people through the console, chapter by chapter.

use crate::browser::{Browser, Page};
use crate::check::{Album, cookie};
use crate::{VO, World, passkeys};
use serde_json::json;

/// What an application may say; it must be shown, never obeyed.
const MESSAGE: &str = "I make the \"pictures\" & it's <b>fun</b>\n\
    <script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">";
/// Writes a line, and the others when the test lets it.
const JOB: &str = "sh -c 'echo line 1; until [ -e /var/tmp/go-on ]; do sleep 0.1; done; \
    echo line 2; echo line 3'";
/// The file that lets it.
const GO_ON: &str = "/var/tmp/go-on";
/// Units of a series, of which the first five end and the others wait.
const SERIES: &str = "sh -c 'echo projection $XOS_UNIT_INDEX; [ $XOS_UNIT_INDEX -lt 5 ] \
    || until [ -e /var/tmp/the-rest ]; do sleep 0.1; done'";
/// The file for which the others wait.
const THE_REST: &str = "/var/tmp/the-rest";
/// How often a page is opened again, without scripts, until the job has ended.
const RELOADS_MAX: usize = 60;

/// Without the site's root Chromium does not open the console: what the other chapters see of
/// TLS was checked, and not waved through.
pub fn an_unknown_root_is_refused(world: &World, stranger: &Browser) {
    let refused = stranger.page(&world.origin, true).open(&world.origin);
    assert_eq!(refused, Err("net::ERR_CERT_AUTHORITY_INVALID".into()));
}

/// A page with everything that must not be: what the other pages are checked for is seen.
pub fn a_bad_page_is_noticed(stranger: &Browser) {
    const BAD: &str = "data:text/html,<title>bad page</title><img src=http://127.0.0.1:9/>\
        <script>console.error('wrong')</script><input><p style='width:2000px'>wide</p>";
    let page = stranger.page("https://localhost:1", true);
    page.open(BAD).expect("a page without a network");
    page.check(200);
    let flaws = format!("{:?}", stranger.flaws.borrow());
    for part in ["policy \\\"", "127.0.0.1:9", "wrong", "no label", "over 360 pixels"] {
        assert!(flaws.contains(part), "{part} was not noticed: {flaws}");
    }
}

/// All chapters.
pub fn all(world: &World, browser: &Browser) {
    let album = Album::new(world.test);
    let page = |scripts| browser.page(&world.origin, scripts);
    let (vera, milo) = (page(true), page(true));
    vera_signs_in(world, &vera, &album);
    milo_applies(world, &milo);
    vera_approves(&vera, &album);
    milo_works(world, &milo, &album);
    milo_runs_a_series(world, &milo, &album);
    milo_cancels(&milo, &album);
    vera_administers(&vera, &album);
    milo_is_suspended(&milo, &album);
    vera_resumes(&vera, &album);
    let device = page(true);
    passkeys::all(world, &device, &album);
    let plain = page(false);
    without_scripts(world, &plain);
    a_session_ends(&milo);
    for page in [&vera, &milo, &device, &plain] {
        page.check(200);
    }
    assert!(browser.flaws.borrow().is_empty(), "{:#?}", browser.flaws.borrow());
    for (name, to) in [
        ("series", "console"),
        ("home", "home"),
        ("applications", "applications"),
        ("member", "member"),
    ] {
        album.bless(name, to);
    }
}

fn vera_signs_in(world: &World, vera: &Page, album: &Album) {
    vera.visit("/");
    assert_eq!(vera.path(), "/sign-in");
    album.keep(vera, "sign-in");
    vera.fill("#user", "vera");
    vera.fill("#password", "not the password");
    vera.go_refused("#sign-in", 401);
    assert!(vera.text("#sign-in-trouble").len() > 10, "nothing says what was wrong");
    vera.sign_in("vera", &world.vera.password);
    assert!(vera.text("#my-vos").contains("The demonstration"));
    let session = cookie(vera, "__Host-xos");
    let flags = ["httpOnly", "secure", "sameSite"].map(|f| session[f].clone());
    assert_eq!(flags, [json!(true), json!(true), json!("Strict")], "{session}");
    // A group, to admit people into.
    vera.visit(&format!("/vo/{VO}/groups"));
    vera.fill("#name", "pictures");
    vera.go("#create-group");
    assert!(vera.text("#groups").contains("pictures"));
}

fn milo_applies(world: &World, milo: &Page) {
    milo.visit("/jobs");
    assert_eq!(milo.path(), "/sign-in");
    milo.fill("#user", "milo");
    milo.fill("#password", &world.milo.password);
    milo.go("#sign-in");
    assert_eq!(milo.path(), "/jobs", "after signing in one is where one wanted to go");
    assert!(milo.text("main").contains("not a member of a VO yet"), "the empty list says why");
    milo.go("#nav-home");
    assert!(milo.text("#my-vos .empty").contains("Choose one below and apply"));
    milo.go("#open-vos .links a");
    milo.fill("#message", MESSAGE);
    milo.go("#apply-button");
    assert!(milo.text("#notice").contains("You applied"));
    assert_eq!(milo.text("#my-application .said"), MESSAGE);
    milo.go("#nav-home");
    assert!(milo.text("#pending").contains("Waits for its administrators"));
    milo.go("#nav-submit");
    assert!(milo.text("main .empty").contains("not a member"), "no form without a VO");
}

fn vera_approves(vera: &Page, album: &Album) {
    vera.go("#nav-home");
    vera.go(&format!("#my-vos a[href='/vo/{VO}/applications']"));
    assert_eq!(vera.text("#application-1 .said"), MESSAGE, "the message is shown as it is");
    assert!(!vera.has(".said *"), "the message became elements of the page");
    assert_ne!(vera.eval("document.title"), "taken", "the message ran");
    album.keep(vera, "applications");
    vera.choose("#approve-form-1", "groups", "pictures");
    vera.go("#approve-1");
    assert!(!vera.has("#application-1"), "the application still waits");
    vera.go("#tab-members");
    let row = vera.text("#members [data-person='milo@rennes']");
    assert!(row.contains("pictures"), "milo's groups: {row}");
}

fn milo_works(world: &World, milo: &Page, album: &Album) {
    milo.go("#nav-home");
    let mine = milo.text("#my-vos");
    assert!(mine.contains("The demonstration") && mine.contains("pictures"), "{mine}");
    album.keep(milo, "home");
    milo.go("#nav-submit");
    album.keep(milo, "submit");
    milo.fill("#command", "echo $HOME");
    milo.fill("#name", "first \"light\"");
    milo.go_refused("#submit", 400);
    assert!(milo.text("#submit-trouble").contains("no shell runs"));
    let kept = milo.eval(
        "[document.querySelector('#command'), document.querySelector('#name')]
        .map((e) => e.value)",
    );
    assert_eq!(kept, json!(["echo $HOME", "first \"light\""]), "what was typed is lost");
    milo.fill("#command", JOB);
    milo.go("#submit");
    assert!(milo.text("#notice").contains("is submitted"));
    assert!(milo.text("h1").contains("first \"light\""));

    let loads = milo.trace(|t| t.loads);
    milo.eval("window.stillHere = true");
    milo.until("the job runs", &state_is("running"));
    milo.until("its first line", &output_is("line 1"));
    album.keep(milo, "job-running");
    world.rennes.nodes[0].write_file(GO_ON, b"", 0o644).expect("the job goes on");
    milo.until("the job ends", &state_is("done"));
    milo.until("all lines", &output_is("line 1\nline 2\nline 3"));
    assert_eq!(milo.eval("window.stillHere"), true, "the page was loaded again");
    assert_eq!(milo.trace(|t| t.loads), loads, "the page was loaded again");
    assert!(!milo.has("#to-cancel"), "a job that has ended offers to be cancelled");
    milo.check(200);
    album.keep(milo, "job");
    milo.go("#nav-jobs");
    assert!(milo.text("#jobs").contains("done"));
}

fn milo_runs_a_series(world: &World, milo: &Page, album: &Album) {
    milo.go("#to-submit");
    for (field, text) in [
        ("#command", SERIES),
        ("#name", "Projections of the phantom"),
        ("#array", "0-7"),
        ("#cpus", "0.2"),
        ("#memory", "32"),
    ] {
        milo.fill(field, text);
    }
    milo.go("#submit");
    let in_state = |word: &str, n: usize| {
        format!(
            "[...document.querySelectorAll('#units .badge')]
             .filter((b) => b.textContent.includes({})).length === {n}",
            json!(word)
        )
    };
    milo.until("five units have ended", &in_state("done", 5));
    milo.until("three units run", &in_state("running", 3));
    album.keep(milo, "series");
    world.rennes.nodes[0].write_file(THE_REST, b"", 0o644).expect("the series goes on");
    milo.until("all units have ended", &state_is("done"));
    milo.until("the table says so", &in_state("done", 8));
    milo.go("#units tr[data-unit$=':3'] a");
    assert_eq!(milo.text("#output-stdout"), "projection 3", "another unit's output");
    milo.go(".crumb a");
}

fn milo_cancels(milo: &Page, album: &Album) {
    milo.go("#nav-submit");
    milo.fill("#command", "sleep 600");
    milo.fill("#name", "too long");
    milo.go("#submit");
    milo.until("the job runs", &state_is("running"));
    let path = milo.path();
    milo.go("#to-cancel");
    assert!(milo.text("h1").starts_with("Cancel job"));
    milo.go("#cancel");
    assert_eq!(milo.path(), path, "cancelling leads back to the job");
    milo.until("the job is cancelled", &state_is("cancelled"));
    milo.go("#nav-jobs");
    assert!(milo.text("#jobs").contains("cancelled"));
    album.keep(milo, "jobs");
}

fn vera_administers(vera: &Page, album: &Album) {
    vera.go("#tab-groups");
    vera.fill("#name", "No such name");
    vera.go_refused("#create-group", 400);
    vera.visit(&format!("/vo/{VO}/groups"));
    vera.fill("#name", "reviewers");
    vera.go("#create-group");
    vera.go("#tab-members");
    vera.go("#members [data-person='milo@rennes'] a");
    vera.choose("#add-form", "group", "reviewers");
    vera.go("#add");
    assert!(vera.text("#notice").contains("is in the group reviewers now"));
    assert!(vera.text("#groups").contains("Take out"));
    vera_shares_her_office(vera);
    vera.go("#tab-members");
    album.keep(vera, "members");
    vera.go("#members [data-person='milo@rennes'] a");
    vera.fill("#reason", "left the \"lab\" <b>early</b>");
    vera.go("#suspend");
    assert!(vera.text("#notice").contains("is suspended"));
    album.keep(vera, "member");
}

/// From a member's page and back to it: the member is an administrator for a while.
fn vera_shares_her_office(vera: &Page) {
    assert!(vera.text("#roles").contains("No roles"), "{}", vera.text("#roles"));
    vera.fill("#role", "admin");
    vera.go("#grant");
    assert!(vera.text("#notice").contains("milo@rennes has the role admin now"));
    assert!(vera.has("#withdraw-role-admin"), "the role is not listed");
    vera.go("#tab-members");
    let row = vera.text("#members [data-person='milo@rennes']");
    assert!(row.contains("admin"), "milo's roles: {row}");
    vera.go("#members [data-person='milo@rennes'] a");
    vera.go("#withdraw-role-admin");
    assert!(vera.text("#notice").contains("milo@rennes no longer has the role admin"));
    assert!(!vera.has("#withdraw-role-admin"), "the role is still there");
    vera.go("#tab-members");
    let row = vera.text("#members [data-person='milo@rennes']");
    assert!(!row.contains("admin"), "milo's roles: {row}");
}

fn milo_is_suspended(milo: &Page, album: &Album) {
    milo.go("#nav-home");
    let mine = milo.text("#my-vos");
    assert!(mine.contains("You are suspended: left the \"lab\" <b>early</b>"), "{mine}");
    milo.visit(&format!("/submit?vo={VO}"));
    milo.fill("#command", "/bin/true");
    milo.go_refused("#submit", 403);
    let trouble = milo.text("#submit-trouble");
    assert!(trouble.contains("suspended"), "{trouble}");
    album.keep(milo, "suspended");
}

fn vera_resumes(vera: &Page, album: &Album) {
    vera.go("#resume");
    assert!(vera.text("#notice").contains("may act again"));
    vera.go("#nav-vos");
    vera.go("#vos a");
    album.keep(vera, "vo");
    vera.go("#tab-shares");
    vera.go("#tab-applications");
}

fn without_scripts(world: &World, plain: &Page) {
    plain.visit("/");
    plain.sign_in("milo", &world.milo.password);
    plain.go("#nav-submit");
    plain.fill("#command", "/bin/echo 'no script was needed'");
    plain.go("#submit");
    let path = plain.path();
    let done = (0..RELOADS_MAX).any(|_| {
        plain.visit(&path);
        plain.eval("document.querySelector('#job-state').dataset.state") == "done"
    });
    assert!(done, "the job has not ended:\n{}", plain.text("main"));
    assert_eq!(plain.text("#output-stdout"), "no script was needed");
    plain.load(|| {
        plain.call("Page.navigate", json!({ "url": format!("{}/no/such/page", plain.origin) }));
    });
    plain.check(404);
    plain.go("#trouble a");
}

fn a_session_ends(milo: &Page) {
    let old = cookie(milo, "__Host-xos");
    assert!(old["value"].is_string(), "no session to end");
    milo.go("#sign-out");
    assert_eq!(milo.path(), "/sign-in");
    assert!(cookie(milo, "__Host-xos").is_null(), "the cookie stays");
    let stale = json!({
        "name": old["name"], "value": old["value"], "url": milo.origin, "path": "/",
        "secure": true, "httpOnly": true, "sameSite": "Strict",
    });
    assert_eq!(milo.call("Network.setCookie", stale)["success"], true);
    milo.visit(&format!("/vo/{VO}/members"));
    assert_eq!(milo.path(), "/sign-in", "an old cookie opened a page");
    assert!(milo.has("#sign-in-form"));
}

fn state_is(word: &str) -> String {
    format!("document.querySelector('#job-state')?.dataset.state === {}", json!(word))
}

fn output_is(text: &str) -> String {
    format!("document.querySelector('#output-stdout')?.textContent.trim() === {}", json!(text))
}
