//! From an invitation to the end of a membership: what a VO's administrator, a group's manager and
//! those who come in do in the browser.

use crate::browser::{Browser, Page};
use crate::check::Album;
use crate::{VO, World, person};
use serde_json::json;
use xos_testbed::grid::Person;

/// Terms of use; they must be shown, never obeyed.
const TERMS: &str = "Be kind & it's <b>fun</b>.\n<script>document.title = 'taken'</script>";
/// A question, and what milo answers.
const QUESTION: &str = "What do you \"want\" to <i>do</i>?";
const ANSWER: &str = "Make <u>pictures</u> & 'films'";

/// All chapters.
pub fn all(world: &World, browser: &Browser) {
    let album = Album::new(world.test);
    let nina = person(&world.grid, &world.rennes, "nina");
    let page = |scripts| browser.page(&world.origin, scripts);
    // Rows of questions come and go without a script.
    let (plain, vera, milo, other) = (page(false), page(true), page(true), page(true));
    vera_asks(world, &plain);
    vera.visit("/");
    vera.sign_in("vera", &world.vera.password);
    vera_sets_terms(&vera, &album);
    vera_makes_a_group(&vera);
    let link = vera_invites(&vera, &album, true);
    milo_follows(&milo, &world.milo, &link, &album);
    vera_approves(&vera, &album);
    let link = vera_invites(&vera, &album, false);
    nina_joins(&other, &nina, &link);
    milo_fills_the_group(&vera, &milo, &album);
    vera_extends(&vera, &album);
    vera_removes(&vera, &other);
    for page in [&plain, &vera, &milo, &other] {
        page.check(200);
    }
    assert!(browser.flaws.borrow().is_empty(), "{:#?}", browser.flaws.borrow());
}

fn vera_asks(world: &World, plain: &Page) {
    plain.visit("/");
    plain.sign_in("vera", &world.vera.password);
    plain.visit(&format!("/vo/{VO}/settings"));
    plain.go("#to-questions");
    plain.fill("#text-0", "is taken away again");
    plain.go("#add-question");
    plain.fill("#text-1", QUESTION);
    plain.click("#required-1");
    plain.go("#remove-0");
    let kept = plain.eval("document.querySelector('#text-0').value");
    assert_eq!(kept, QUESTION, "another row was removed");
    plain.fill("#id-0", "plan");
    plain.go("#save-questions");
    assert!(plain.text("#notice").contains("asked now: 1"));
}

fn vera_sets_terms(vera: &Page, album: &Album) {
    vera.visit(&format!("/vo/{VO}/settings"));
    album.keep(vera, "settings");
    vera.go("#to-terms");
    vera.fill("#text", TERMS);
    vera.go("#look");
    shown_as_text(vera, ".terms", TERMS);
    vera.go("#set-terms");
    assert!(vera.text("#notice").contains("Version 1"));
    // An owner agrees like everybody else.
    vera.go("#tab-overview");
    assert!(vera.text("#todo").contains("consent"), "{}", vera.text("main"));
    vera.go("#to-terms");
    vera.click("#agree");
    vera.go("#agree-button");
    assert!(vera.text("#notice").contains("You agreed to version 1"));
}

/// A text that people wrote is what they read, and nothing else.
fn shown_as_text(page: &Page, selector: &str, text: &str) {
    assert_eq!(page.text(selector), text);
    assert!(!page.has(&format!("{selector} *")), "a text became elements of the page");
    assert_ne!(page.eval("document.title"), "taken", "a text ran");
}

fn vera_makes_a_group(vera: &Page) {
    vera.go("#tab-groups");
    vera.fill("#name", "pictures");
    vera.go("#create-group");
    vera.go("#groups [data-group='pictures'] a");
    vera.fill("#name", "films");
    vera.go("#create-within");
    assert!(vera.text("#below").contains("films"));
}

/// Makes an invitation and answers its link. `asks`: who follows it applies.
fn vera_invites(vera: &Page, album: &Album, asks: bool) -> String {
    vera.visit(&format!("/vo/{VO}"));
    vera.go("#tab-invitations");
    if asks {
        vera.choose("#invite-form", "groups", "pictures");
        vera.click("#ask");
    }
    vera.go("#invite");
    let link = vera.eval("document.querySelector('#link').value");
    let link = link.as_str().expect("a link").trim().to_owned();
    assert!(link.starts_with(&format!("{}/join/{VO}/", vera.origin)), "{link}");
    if asks {
        album.keep(vera, "invitation");
    }
    link
}

/// From a letter's link by the sign-in to the form.
fn follow(page: &Page, person: &Person, link: &str) {
    page.open(link).expect("the link opens");
    let there = "document.readyState === 'complete' \
        && document.querySelector('#sign-in-form') !== null";
    page.until("the link leads to the sign-in", there);
    page.check(200);
    page.fill("#user", &person.name);
    page.fill("#password", &person.password);
    page.go("#sign-in");
    assert_eq!(page.path(), format!("{}/form", link.trim_start_matches(&page.origin)));
    assert!(page.text("#invited").contains("vera@rennes"));
    shown_as_text(page, ".terms", TERMS);
    page.fill("#q-plan", ANSWER);
    page.click("#agree");
}

fn milo_follows(milo: &Page, person: &Person, link: &str, album: &Album) {
    follow(milo, person, link);
    album.keep(milo, "join");
    milo.go("#join");
    assert!(milo.text("#notice").contains("You applied"));
    assert!(milo.has("#my-application"));
}

fn vera_approves(vera: &Page, album: &Album) {
    vera.visit(&format!("/vo/{VO}"));
    assert!(vera.text("#todo").contains("Applications that wait: 1"));
    album.keep(vera, "overview");
    vera.go(&format!("#todo a[href='/vo/{VO}/applications']"));
    let said = vera.text("#application-1");
    assert!(said.contains(QUESTION) && said.contains(ANSWER), "{said}");
    assert!(!vera.has("#application-1 u") && !vera.has("#application-1 i"));
    in_days(vera, "#until-1", 20);
    vera.go("#approve-1");
    vera.go("#tab-members");
    let row = vera.text("#members [data-person='milo@rennes']");
    assert!(row.contains("pictures"), "what the invitation gives is missing: {row}");
}

/// Chooses the day so many days from now.
fn in_days(page: &Page, selector: &str, days: u32) {
    page.eval(&format!(
        "document.querySelector({}).value = \
         new Date(Date.now() + {days} * 86400000).toISOString().slice(0, 10)",
        json!(selector)
    ));
}

fn nina_joins(page: &Page, person: &Person, link: &str) {
    follow(page, person, link);
    page.go("#join");
    assert!(page.text("#notice").contains("You are a member"), "{}", page.text("main"));
    assert!(page.has("#my-place"));
}

fn milo_fills_the_group(vera: &Page, milo: &Page, album: &Album) {
    let group = format!("/vo/{VO}/group/pictures");
    milo.visit(&group);
    assert!(!milo.has("#add-member-form"), "a member fills a group that is not theirs");
    vera.visit(&group);
    vera.fill("#manager", "milo@rennes");
    vera.go("#add-manager");
    milo.visit(&group);
    assert!(!milo.has("#move-form") && !milo.has("#add-manager-form"));
    milo.fill("#member", "nina@rennes");
    milo.go("#add-member");
    assert!(milo.text("#notice").contains("nina@rennes is in the group pictures now"));
    assert!(milo.has("#group-members [data-person='nina@rennes']"));
    album.keep(milo, "group");
}

fn vera_extends(vera: &Page, album: &Album) {
    let home = format!("/vo/{VO}");
    vera.visit(&home);
    vera.go(&format!("#todo a[href='{home}/expiring']"));
    vera.choose("#extend-form", "person", "milo@rennes");
    in_days(vera, "#until", 300);
    album.keep(vera, "expiring");
    vera.go("#extend");
    assert!(vera.text("#notice").contains("have a new end: 1"));
    assert!(!vera.has("#expiring [data-person='milo@rennes']"), "milo still ends soon");
}

fn vera_removes(vera: &Page, other: &Page) {
    vera.go("#tab-members");
    vera.fill("#find", "nina");
    vera.go("#find-button");
    vera.go("#to-record");
    let record = vera.text("#history");
    assert!(record.contains("joined by the invitation") && record.contains("pictures"), "{record}");
    assert!(vera.text("#enrolment").contains(ANSWER));
    vera.visit(&format!("/vo/{VO}/member/nina@rennes"));
    vera.go("#to-remove");
    vera.fill("#reason", "the project is over");
    vera.go("#remove");
    assert!(!vera.has("#members [data-person='nina@rennes']"));
    other.visit(&format!("/vo/{VO}"));
    assert!(other.has("#apply-form"), "who was removed still has a place");
}
