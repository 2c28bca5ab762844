//! Follows every link of the console, as each sort of person, and looks every page over.

use crate::axe::Axe;
use crate::browser::Page;
use crate::check::Album;
use crate::keys;
use crate::table::Route;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Pages of one kind (the same route and names in the query) that one person looks at.
/// Where a link may lead to a refusal that says why, and whose.
const REFUSED: &[(&str, &str)] = &[
    ("/jobs", "who cannot act in a VO now is told so in place of their jobs there"),
    ("/vo/{vo}/job/{job}", "who administers the site sees what runs, and is no member of the VO"),
];

const OF_A_KIND_MAX: usize = 4;
/// Pages that one person looks at; where there are more, two kinds are held for many.
const PAGES_MAX: usize = 170;

/// Where links lead.
const LINKS: &str = "[...document.querySelectorAll('a[href]')].map((a) => a.href)";
/// What none of our pages holds: it came from somebody's text.
const ALIEN: &str = "(() => {
    const never = 'iframe, object, embed, base, style, img:not([src^=\"/\"]),'
        + ' script:not([src^=\"/static/\"]), [href^=\"javascript:\" i]';
    const all = [...document.querySelectorAll('*')];
    const acts = (e) => [...e.attributes].some((a) => a.name.startsWith('on'));
    const found = [...document.querySelectorAll(never), ...all.filter(acts)];
    return found.map((e) => e.outerHTML.slice(0, 200));
})()";
/// The names before hostile texts that can be read, as [`crate::texts::hostile`] writes them.
const TEXTS: &str = "(() => {
    const fields = [...document.querySelectorAll('input, textarea')].map((e) => e.value);
    const text = [document.body.textContent, ...fields].join('\\n');
    return [...text.matchAll(/([A-Za-z.]+)\"'><img src=x onerror=alert\\(1\\)>/g)]
        .map((m) => m[1]);
})()";
/// What a page is made of, whatever stands in it.
const SHAPE: &str = "(() => {
    const name = (e) => [e.tagName, e.getAttribute('class'), e.getAttribute('role'), e.type];
    const all = [...document.querySelectorAll('body *')].map((e) => name(e).join('.'));
    return [...new Set(all)].sort().join(' ');
})()";

/// Who looks.
pub struct Visitor<'a> {
    /// As pictures and flaws name them.
    pub name: &'static str,
    /// Their tab, signed in unless nobody is.
    pub page: &'a Page,
    /// Nobody signed in there.
    pub nobody: bool,
}

/// What was seen so far.
pub struct Crawl {
    routes: Vec<Route>,
    axe: Axe,
    album: Album,
    /// Routes that a link or a known address leads to.
    pub reached: BTreeSet<String>,
    /// Hostile texts that were read as texts.
    pub read: BTreeSet<String>,
    /// What is wrong.
    pub flaws: BTreeSet<String>,
    shapes: BTreeSet<String>,
}

impl Crawl {
    /// Nothing yet. `routes`: all that the console has.
    pub fn new(routes: Vec<Route>, axe: Axe, album: Album) -> Crawl {
        let (reached, read, flaws) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Crawl { routes, axe, album, reached, read, flaws, shapes: BTreeSet::new() }
    }

    /// The route of a page for this path, which may have a query.
    pub fn route(&self, path: &str) -> Option<&Route> {
        let path = path.split('?').next().unwrap_or_default();
        let shown = self.routes.iter().filter(|r| r.method == "get" && fits(&r.path, path));
        // The one with the fewest variable places.
        shown.min_by_key(|r| r.path.matches('{').count())
    }

    /// Follows all links from these paths on.
    pub fn walk(&mut self, visitor: &Visitor<'_>, from: &[&str]) {
        let mut waiting: VecDeque<String> = from.iter().map(|p| (*p).to_owned()).collect();
        let mut known = BTreeSet::new();
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        let mut pages = 0;
        while let Some(path) = waiting.pop_front() {
            if !known.insert(path.clone()) {
                continue;
            }
            let Some(route) = self.route(&path).map(|r| r.path.clone()) else {
                self.flaw(visitor, &path, "a link leads to what is no page");
                continue;
            };
            self.reached.insert(route.clone());
            if is_file(&route) {
                continue;
            }
            let seen = kinds.entry(kind(&route, &path)).or_default();
            *seen += 1;
            if *seen > OF_A_KIND_MAX {
                continue;
            }
            pages += 1;
            assert!(
                pages <= PAGES_MAX,
                "more than {PAGES_MAX} pages for {}: {kinds:#?}",
                visitor.name
            );
            waiting.extend(self.visit(visitor, &path, &route));
        }
        println!("{}: {pages} pages", visitor.name);
    }

    /// Looks at one page; where its links lead.
    fn visit(&mut self, visitor: &Visitor<'_>, path: &str, route: &str) -> Vec<String> {
        let page = visitor.page;
        if let Err(why) = page.open(&format!("{}{path}", page.origin)) {
            self.flaw(visitor, path, &why);
            return Vec::new();
        }
        let status = page.trace(|t| t.document.as_ref().map_or(0, |d| d.status));
        let told_why = status == 403 && REFUSED.iter().any(|(at, _)| *at == route);
        if status != 200 && !told_why {
            self.flaw(visitor, path, &format!("{status}: {}", page.text("main")));
        }
        page.check(status);
        let came_to = self.route(&page.path()).cloned();
        if let Some(now) = &came_to {
            self.reached.insert(now.path.clone());
            if visitor.nobody && now.signed_in {
                self.flaw(visitor, path, "nobody signed in, and it is shown");
            }
        }
        for text in list(&page.eval(TEXTS)) {
            self.read.insert(text);
        }
        for alien in list(&page.eval(ALIEN)) {
            self.flaw(visitor, path, &format!("this came from somebody's text: {alien}"));
        }
        let links = list(&page.eval(LINKS));
        let shape = page.eval(SHAPE);
        let place = came_to.map_or_else(|| route.to_owned(), |r| r.path);
        if self.shapes.insert(format!("{place} {shape}")) {
            self.look_closely(visitor, path, &place);
        }
        links.iter().filter_map(|link| self.inside(visitor, path, link)).collect()
    }

    /// What takes long: once for each shape of a page.
    fn look_closely(&mut self, visitor: &Visitor<'_>, path: &str, route: &str) {
        let page = visitor.page;
        let mut found = self.axe.look(page);
        found.extend(self.axe.look_by_night(page));
        found.extend(keys::walk(page));
        for flaw in found {
            self.flaw(visitor, path, &flaw);
        }
        let name: String = route.chars().filter(|c| !"{}".contains(*c)).collect();
        self.album.keep(page, &format!("{}{}", visitor.name, name.replace('/', "-")));
    }

    /// A link as a path of the console.
    fn inside(&mut self, visitor: &Visitor<'_>, path: &str, link: &str) -> Option<String> {
        let inside = link.strip_prefix(&visitor.page.origin).filter(|p| p.starts_with('/'));
        if inside.is_none() {
            self.flaw(visitor, path, &format!("a link leaves the console: {link}"));
        }
        inside.map(|p| p.split('#').next().unwrap_or_default().to_owned())
    }

    fn flaw(&mut self, visitor: &Visitor<'_>, path: &str, what: &str) {
        self.flaws.insert(format!("{path} ({}): {what}", visitor.name));
    }
}

/// A page with everything that must not be: what the others are looked over for is seen.
pub fn a_bad_page_is_noticed(axe: &Axe, page: &Page) {
    const BAD: &str = "data:text/html,<html><title>bad page</title>\
        <button style='outline:none'></button><a href=javascript:0 tabindex=-1>x</a>\
        <p> Apply.message\"'>&lt;img src=x onerror=alert(1)>";
    page.open(BAD).expect("a page without a network");
    let found = format!("{:?}{:?}", axe.look(page), list(&page.eval(ALIEN)));
    for part in ["button-name (critical)", "html-has-lang (serious)", "javascript:0"] {
        assert!(found.contains(part), "{part} was not noticed: {found}");
    }
    assert_eq!(list(&page.eval(TEXTS)), ["Apply.message"]);
    let keys = keys::walk(page).join("\n");
    for part in ["no key leads to it: <a", "nobody sees that it has the focus: <button"] {
        assert!(keys.contains(part), "{part} was not noticed: {keys}");
    }
}

/// Pages of one kind differ in ids and values only.
fn kind(route: &str, path: &str) -> String {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let names: BTreeSet<&str> = query.split('&').filter_map(|f| f.split('=').next()).collect();
    format!("{route} {names:?}")
}

/// Whether a path is one of the route's: `{x}` stands for one part of it, `{x}.txt` for its
/// beginning.
fn fits(route: &str, path: &str) -> bool {
    let (mut want, mut parts) = (route.split('/'), path.split('/'));
    loop {
        let fit = match (want.next(), parts.next()) {
            (None, None) => return true,
            (Some(want), Some(part)) => match want.strip_prefix('{') {
                Some(rest) => {
                    let end = rest.split_once('}').map_or("", |(_, end)| end);
                    part.len() > end.len() && part.ends_with(end)
                }
                None => want == part,
            },
            _ => false,
        };
        if !fit {
            return false;
        }
    }
}

/// Files and streams are no pages.
fn is_file(route: &str) -> bool {
    let last = route.rsplit(['/', '}']).next().unwrap_or_default();
    last.contains('.') || last == "events"
}

fn list(value: &Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten();
    texts.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// If it failed, pages would be held for others, and pages that no link reaches not be missed.
#[test]
fn paths_are_known_by_their_routes() {
    assert!(fits("/", "/") && fits("/vo/{vo}", "/vo/demo.rennes"));
    assert!(fits("/vo/{vo}/unit/{unit}/{stream}.txt", "/vo/a.b/unit/1.b:0/stdout.txt"));
    for (route, path) in [
        ("/", "/vos"),
        ("/vo/{vo}", "/vo/"),
        ("/vo/{vo}", "/vo/demo.rennes/members"),
        ("/vo/{vo}/members", "/vo/demo.rennes/groups"),
        ("/unit/{stream}.txt", "/unit/stdout"),
    ] {
        assert!(!fits(route, path), "{route} {path}");
    }
    assert!(is_file("/vo/{vo}/unit/{unit}/{stream}.txt") && is_file("/vo/{vo}/job/{job}/events"));
    assert!(!is_file("/vo/{vo}") && !is_file("/vo/{vo}/members"));
    assert_eq!(kind("/jobs", "/jobs?vo=a&before=1"), kind("/jobs", "/jobs?before=2&vo=b"));
    assert_ne!(kind("/jobs", "/jobs?vo=a"), kind("/jobs", "/jobs"));
}
