//! The console as each sort of person finds it, from link to link.

use crate::axe::Axe;
use crate::browser::{Browser, Page};
use crate::check::Album;
use crate::crawl::{Crawl, Visitor};
use crate::scene::{self, ACID};
use crate::table::routes;
use crate::{World, passkeys, texts};
use std::path::Path;
use xos_testbed::grid::Person;

const NO_PROGRAM: &str = "only where a node joined a cluster: console/tests/it/clusters.rs";

/// Pages that no link and no known address leads to here, and what looks at them instead.
const ELSEWHERE: &[(&str, &str)] = &[
    ("/register", "only where people may register: console/tests/it/security.rs"),
    ("/sign-in/kerberos", "only where tickets are taken: console/tests/it/kerberos.rs"),
    ("/sign-in/callback/{provider}", "a provider leads there: console/tests/it/oidc.rs"),
    ("/sign-in/finish/{provider}", "the page before leads there: console/tests/it/oidc.rs"),
    ("/oauth/authorize", "a service leads there: services.rs"),
    ("/oauth/consent", "the page before leads there: services.rs"),
    ("/vo/{vo}/job/{job}/events", "a stream, which the page's script follows: walk.rs"),
    ("/vo/{vo}/running/events", "a stream, which the page's script follows"),
    ("/vo/{vo}/clusters/events", "a stream, which the page's script follows"),
    ("/site/cluster/{cluster}/events", "a stream, which the page's script follows"),
    ("/site/cluster/{cluster}/node/{node}/drain", NO_PROGRAM),
    ("/site/cluster/{cluster}/program/{tree}", NO_PROGRAM),
    ("/site/cluster/{cluster}/program/{tree}/events", NO_PROGRAM),
    ("/site/cluster/{cluster}/program/{tree}/why", NO_PROGRAM),
    ("/site/cluster/{cluster}/program/{tree}/signal", NO_PROGRAM),
    ("/vo/{vo}/cluster/{cluster}/program/{tree}", NO_PROGRAM),
    ("/vo/{vo}/cluster/{cluster}/program/{tree}/events", NO_PROGRAM),
    ("/vo/{vo}/cluster/{cluster}/program/{tree}/why", NO_PROGRAM),
    ("/vo/{vo}/cluster/{cluster}/program/{tree}/signal", NO_PROGRAM),
    ("/site/sites/{site}/forget", "only where another site is trusted: console/tests/it/admin.rs"),
    ("/site/names/{name}/release", "only where a name was given: console/tests/it/admin.rs"),
];

/// All of them.
pub fn all(world: &World, browser: &Browser, axe: Axe) {
    let cast = scene::set(world);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../console/src");
    let table = routes(&source);
    let mut crawl = Crawl::new(table.clone(), axe, Album::new(world.test));
    let nobody = browser.page(&world.origin, true);
    let visitor = Visitor { name: "nobody", page: &nobody, nobody: true };
    let invited = known(&crawl, &["/", &cast.join]);
    crawl.walk(&visitor, &invited);
    let milo = signed_in(world, browser, &world.milo);
    milo_leaves_texts(&milo);
    let tab = |person: &Person| signed_in(world, browser, person);
    let typed = known(&crawl, &["/", "/device"]);
    for (name, page, from) in [
        ("newcomer", tab(&cast.noor), &invited),
        ("applicant", tab(&cast.nina), &typed),
        ("member", milo, &typed),
        ("suspended", tab(&cast.susi), &typed),
        ("manager", tab(&cast.greta), &typed),
        ("administrator", tab(&cast.anna), &typed),
        ("owner", tab(&world.vera), &typed),
        ("site-administrator", tab(&world.rennes.admin), &typed),
    ] {
        crawl.walk(&Visitor { name, page: &page, nobody: false }, from);
    }
    let mut wrong: Vec<String> = browser.flaws.borrow().iter().cloned().collect();
    for route in table.iter().filter(|r| r.method == "get" && !crawl.reached.contains(&r.path)) {
        if !ELSEWHERE.iter().any(|(path, _)| *path == route.path) {
            wrong.push(format!("{}: nobody comes to it by a link", route.path));
        }
    }
    for (path, _) in ELSEWHERE {
        if !table.iter().any(|r| r.path == *path) {
            wrong.push(format!("{path} is no page any more"));
        }
    }
    wrong.extend(texts::untrue(&crawl.read));
    wrong.extend(crawl.flaws);
    assert!(wrong.is_empty(), "{} flaws: {wrong:#?}", wrong.len());
}

/// Those of the addresses at which there is a page.
fn known<'a>(crawl: &Crawl, paths: &[&'a str]) -> Vec<&'a str> {
    paths.iter().copied().filter(|p| crawl.route(p).is_some()).collect()
}

fn signed_in(world: &World, browser: &Browser, person: &Person) -> Page {
    let page = browser.page(&world.origin, true);
    page.visit("/");
    page.sign_in(&person.name, &person.password);
    page
}

/// A passkey, a job that has ended and one that runs.
fn milo_leaves_texts(milo: &Page) {
    passkeys::device(milo);
    milo.visit("/account");
    milo.go("#add-passkey");
    milo.fill("#name", &texts::hostile("FinishPasskey", "name"));
    milo.go("#passkey-go");
    submit(milo, &scene::job(), &scene::command(), "done");
    submit(milo, "a long one", "/bin/sleep 3600", "running");
}

fn submit(milo: &Page, name: &str, command: &str, state: &str) {
    milo.visit(&format!("/submit?vo={ACID}"));
    milo.fill("#name", name);
    milo.fill("#command", command);
    milo.go("#submit");
    let there = format!("document.querySelector('#job-state')?.dataset.state === '{state}'");
    milo.until(&format!("the job is {state}"), &there);
}
