//! What holds on every page that the test sees, and the pictures.

use crate::browser::{DESKTOP, PHONE, Page, Size};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// The narrowest phone that pages are made for.
const NARROW: Size = (360, 800);
/// Largest picture that goes into the project's history, in bytes.
const PICTURE_MAX: usize = 150_000;
/// The pictures that the documents show, in `docs/images`.
const PICTURES: [&str; 5] = ["console", "home", "applications", "member", "consent"];

/// One `h1`, a title, ids that are unique, a label for every field.
const SOUND: &str = "(() => {
    const bad = [];
    const all = (s) => [...document.querySelectorAll(s)];
    if (all('h1').length !== 1) bad.push(all('h1').length + ' h1');
    if (document.title.length < 3) bad.push('no title');
    if (!document.documentElement.lang) bad.push('no language');
    const ids = all('[id]').map((e) => e.id);
    bad.push(...ids.filter((id, i) => ids.indexOf(id) !== i).map((id) => 'two of #' + id));
    for (const field of all('input:not([type=hidden]), select, textarea')) {
        if (!field.labels.length) bad.push('no label: ' + field.outerHTML);
    }
    return bad;
})()";

/// The page's width, and what stands out of the window without a scroller of its own; tables that
/// must be scrolled sideways, for which a phone shows no sign.
const WIDTH: &str = "(() => {
    const scrolls = (e) => e && e !== document.body
        && (getComputedStyle(e).overflowX !== 'visible' || scrolls(e.parentElement));
    const out = [...document.querySelectorAll('body *')].filter((e) =>
        e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 0.5
        && !scrolls(e.parentElement));
    const name = (e) => e.tagName + (e.id && '#' + e.id) + ' ' + e.textContent.slice(0, 60);
    const wide = (e) => e.scrollWidth > e.clientWidth;
    out.push(...[...document.querySelectorAll('.scroll')].filter(wide));
    return { width: document.documentElement.scrollWidth, out: out.slice(0, 5).map(name) };
})()";

impl Page {
    /// Opens a path of the console and checks the page.
    pub fn visit(&self, path: &str) {
        self.open(&format!("{}{path}", self.origin)).unwrap_or_else(|e| panic!("{path}: {e}"));
        self.check(200);
    }

    /// Presses a link or a button and checks the page that it leads to.
    pub fn go(&self, selector: &str) {
        self.go_refused(selector, 200);
    }

    /// The same for a page that says with `status` what is wrong.
    pub fn go_refused(&self, selector: &str, status: u64) {
        self.load(|| self.click(selector));
        self.check(status);
    }

    /// Checks everything that holds on every page; what does not is collected.
    pub fn check(&self, status: u64) {
        // A page that looks again by itself may just be replaced.
        self.until(
            "a document",
            "document.readyState === 'complete' && !!document.documentElement",
        );
        let path = self.path();
        self.trace(|t| {
            let document = t.document.as_ref().expect("a document");
            assert_eq!(document.status, status, "status of {}", document.url);
            let policy = document.header("content-security-policy").unwrap_or_default();
            for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
                self.want(policy.contains(part), || format!("{path}: policy {policy:?}"));
            }
            let bare = std::mem::take(&mut t.bare_redirects);
            self.want(bare.is_empty(), || format!("no content policy on {bare:?}"));
            let own = format!("{}/", self.origin);
            // The browser draws its own signs in fields, from data that it holds.
            let inside =
                |r: &str| r == "about:blank" || r.starts_with("data:image/svg+xml;base64,");
            let away = |r: &&String| !r.starts_with(&own) && !inside(r);
            let away: Vec<&String> = t.requests.iter().filter(away).collect();
            self.want(away.is_empty(), || format!("{path}: requests to other hosts: {away:?}"));
            t.requests.clear();
            // The browser writes the status that the test waits for on its console.
            let expected = format!("responded with a status of {status} ");
            let mut faults = std::mem::take(&mut t.faults);
            faults.retain(|f| status == 200 || !f.contains(&expected));
            self.want(faults.is_empty(), || format!("{path}: on the console: {faults:?}"));
        });
        let sound = self.eval(SOUND);
        self.want(sound == json!([]), || format!("{path}: {sound}"));
        self.check_width("");
        // The menu of VOs, when it is there, fits too.
        if self.has("#vo-switch") {
            self.eval("document.querySelector('#vo-switch').open = true");
            self.check_width(" with its menu open");
            self.eval("document.querySelector('#vo-switch').open = false");
        }
    }

    fn check_width(&self, how: &str) {
        self.resize(NARROW);
        let seen = self.eval(WIDTH);
        self.resize(DESKTOP);
        let fits = seen["width"].as_u64() == Some(u64::from(NARROW.0)) && seen["out"] == json!([]);
        self.want(fits, || format!("{}{how}: over {} pixels: {seen}", self.path(), NARROW.0));
    }

    fn want(&self, good: bool, flaw: impl FnOnce() -> String) {
        if !good {
            self.flaws.borrow_mut().insert(flaw());
        }
    }

    /// Signs in by the form on the present page.
    pub fn sign_in(&self, name: &str, password: &str) {
        self.fill("#user", name);
        self.fill("#password", password);
        self.go("#sign-in");
        assert_eq!(self.path(), "/", "signing in leads to the first page");
        assert!(self.text("#person").starts_with(name), "{name} is not named as who signed in");
    }
}

/// `target/console`: what these tests leave for people to look at, each in a folder of its own.
pub fn album() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    target.join("console")
}

/// The folder of a test's pictures.
pub struct Album(PathBuf);

impl Album {
    /// A new, empty one for `test`.
    pub fn new(test: &str) -> Album {
        let folder = album().join(test);
        if folder.exists() {
            fs::remove_dir_all(&folder).expect("the old pictures go");
        }
        fs::create_dir_all(&folder).expect("a folder");
        Album(folder)
    }

    /// Keeps the page as it looks on a desk and on a phone, by day and on a desk by night.
    pub fn keep(&self, page: &Page, name: &str) {
        self.keep_part(page, name, "body");
    }

    /// The same of a long page from an element on.
    pub fn keep_part(&self, page: &Page, name: &str, selector: &str) {
        let scheme = |value: &str| {
            let feature = json!([{ "name": "prefers-color-scheme", "value": value }]);
            page.call("Emulation.setEmulatedMedia", json!({ "features": feature }));
        };
        // What the last click left focused or open is not part of the picture.
        page.eval("document.activeElement?.blur()");
        for (suffix, size, colours) in
            [("", DESKTOP, "light"), ("-phone", PHONE, "light"), ("-dark", DESKTOP, "dark")]
        {
            page.resize(size);
            scheme(colours);
            page.eval(&format!(
                "document.querySelector({}).scrollIntoView({{ behavior: 'instant' }})",
                json!(selector)
            ));
            let png = STANDARD.decode(page.picture()).expect("base64 of Chromium");
            assert_eq!(dimensions(&png), Some(size), "the picture's size");
            fs::write(self.0.join(format!("{name}{suffix}.png")), png).expect("a picture");
        }
        scheme("");
        page.resize(DESKTOP);
    }

    /// With `XOS_BLESS=1` the picture `name` becomes that of the documents, `docs/images/<to>.png`.
    pub fn bless(&self, name: &str, to: &str) {
        assert!(PICTURES.contains(&to), "{to} is no picture of the documents");
        if !blesses() {
            return;
        }
        let png = fs::read(self.0.join(format!("{name}.png"))).expect("the picture");
        assert!(png.len() <= PICTURE_MAX, "the picture {name} has {} bytes", png.len());
        let to = picture(to);
        fs::write(&to, png).expect("the document's picture");
        println!("blessed {}", to.display());
    }
}

fn blesses() -> bool {
    std::env::var_os("XOS_BLESS").is_some_and(|v| v == "1")
}

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn picture(name: &str) -> PathBuf {
    tree().join(format!("docs/images/{name}.png"))
}

/// If it failed, a document would show a picture that is not there, or one that no test makes
/// anew.
#[test]
fn the_pictures_of_the_documents_are_made_by_tests() {
    let mut shown: Vec<String> = Vec::new();
    let pages = fs::read_dir(tree().join("docs")).expect("the documents");
    let pages = pages.map(|page| page.expect("a document").path());
    for page in pages.chain([tree().join("README.md")]) {
        if page.extension().is_some_and(|e| e == "md") {
            let text = fs::read_to_string(&page).expect("a document");
            let parts = text.split("images/").skip(1);
            shown.extend(parts.filter_map(|p| Some(p.split_once(".png)")?.0.to_owned())));
        }
    }
    shown.sort();
    shown.dedup();
    let mut made = PICTURES.map(str::to_owned);
    made.sort();
    assert_eq!(shown, made, "what the documents show, and what tests make");
    // Those of a first run are on their way.
    for name in PICTURES.iter().filter(|_| !blesses()) {
        let png = fs::read(picture(name)).unwrap_or_else(|e| panic!("{name}: {e}: XOS_BLESS=1"));
        assert_eq!(dimensions(&png), Some(DESKTOP), "the size of {name}");
        assert!(png.len() <= PICTURE_MAX, "{name} has {} bytes", png.len());
    }
}

/// Width and height of a PNG (ISO/IEC 15948, 11.2.2).
fn dimensions(png: &[u8]) -> Option<Size> {
    let number = |at: usize| Some(u32::from_be_bytes(png.get(at..at + 4)?.try_into().ok()?));
    Some((number(16)?, number(20)?))
}

/// Takes a cookie of the page's site as Chromium keeps it.
pub fn cookie(page: &Page, name: &str) -> Value {
    let all = page.call("Network.getCookies", json!({ "urls": [page.origin] }));
    let all = all["cookies"].as_array().expect("cookies");
    all.iter().find(|c| c["name"] == name).cloned().unwrap_or_default()
}
