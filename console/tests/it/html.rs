//! Looks a page over: well formed, accessible by the rules that can be checked, and without
//! anything that a content security policy would have to stop.

use std::collections::HashSet;

const VOID: &[&str] = &["meta", "link", "input", "br", "img", "hr"];
/// Attributes that lead somewhere.
const LINKS: &[&str] = &["href", "src", "action", "data-follow", "formaction", "poster", "srcset"];

#[derive(Debug)]
pub struct Element {
    pub name: String,
    pub attributes: Vec<(String, String)>,
}

impl Element {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

/// Reads a page; panics with what is wrong.
pub fn elements(html: &str) -> Vec<Element> {
    let mut rest = html.strip_prefix("<!doctype html>").expect("no doctype");
    let mut open: Vec<String> = Vec::new();
    let mut found = Vec::new();
    while let Some((text, tag)) = rest.split_once('<') {
        assert!(!text.contains('>'), "a bare > in the text {text:?}");
        let raw = open.last().is_some_and(|n| n == "script" || n == "style");
        assert!(!raw || text.trim().is_empty(), "inline script or style: {text:?}");
        let (tag, after) = cut_tag(tag);
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name.trim()), "closed what was not open");
            continue;
        }
        let closed = tag.ends_with('/');
        let element = parse(tag.trim_end_matches('/'));
        if !closed && !VOID.contains(&element.name.as_str()) {
            open.push(element.name.clone());
        }
        found.push(element);
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    found
}

/// The tag up to its `>`, which may not stand inside quotes.
fn cut_tag(text: &str) -> (&str, &str) {
    let mut quoted = false;
    for (i, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '>' if !quoted => return (&text[..i], &text[i + 1..]),
            '<' => panic!("a < inside a tag: {text:.80}"),
            _ => {}
        }
    }
    panic!("a tag without end: {text:.80}")
}

fn parse(tag: &str) -> Element {
    let (name, mut rest) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
    assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric()), "tag {tag:?}");
    let mut attributes: Vec<(String, String)> = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            break;
        }
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let key = rest[..end].to_owned();
        assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{key:?} in {tag:?}");
        assert!(!attributes.iter().any(|(k, _)| *k == key), "{key} twice in {tag:?}");
        rest = &rest[end..];
        let mut value = String::new();
        if let Some(quoted) = rest.strip_prefix('=') {
            let quoted = quoted.strip_prefix('"').expect("an unquoted attribute");
            let (v, after) = quoted.split_once('"').expect("a quote never closed");
            value = v.to_owned();
            rest = after;
        }
        attributes.push((key, value));
    }
    Element { name: name.to_owned(), attributes }
}

/// Panics when a page breaks a rule.
pub fn check(html: &str) {
    let all = elements(html);
    // The title inside a drawing is named by it, and is not the page's.
    let own = |e: &&Element| e.name != "title" || e.get("id").is_none();
    let count = |name: &str| all.iter().filter(own).filter(|e| e.name == name).count();
    for name in ["html", "head", "title", "body", "header", "main", "footer", "h1"] {
        assert_eq!(count(name), 1, "<{name}> stands there so many times");
    }
    let mut ids = HashSet::new();
    for id in all.iter().filter_map(|e| e.get("id")) {
        assert!(!id.is_empty() && !id.contains(char::is_whitespace), "id {id:?}");
        assert!(ids.insert(id), "id {id} twice");
    }
    let labels: HashSet<&str> = all.iter().filter_map(|e| e.get("for")).collect();
    for e in &all {
        harmless(e);
        references(e, &ids);
        let hidden = e.get("type") == Some("hidden");
        if matches!(e.name.as_str(), "input" | "select" | "textarea") && !hidden {
            let labelled = e.get("id").is_some_and(|id| labels.contains(id));
            assert!(labelled, "a field without label: {e:?}");
        }
        if e.name == "th" {
            assert!(e.get("scope").is_some(), "a heading cell without scope: {e:?}");
        }
        if e.name == "td" {
            let label = e.get("data-label").unwrap_or_default();
            assert!(!label.is_empty(), "a cell that a phone shows without its column: {e:?}");
        }
        if e.name == "nav" || e.name == "progress" {
            assert!(e.get("aria-label").is_some(), "without a name: {e:?}");
        }
    }
    // The `name` of the hidden field, once in each form that changes something; never in one whose
    // fields come to stand in the address.
    let tokens = all.iter().filter(|e| e.get("name") == Some("csrf"));
    let tokens: Vec<_> = tokens.filter_map(|e| e.get("value")).collect();
    let posts = all.iter().filter(|e| e.name == "form" && e.get("method") == Some("post")).count();
    assert_eq!(tokens.len(), posts, "a form without token, or a token outside of one");
    assert!(tokens.iter().all(|t| t.len() == 32), "an empty token");
}

fn harmless(e: &Element) {
    for (k, v) in &e.attributes {
        assert!(!k.starts_with("on") && k != "style" && k != "srcdoc", "{e:?}");
        if LINKS.contains(&k.as_str()) {
            let inside = (v.starts_with('/') && !v.starts_with("//")) || v.starts_with(['#', '?']);
            assert!(inside, "leads out of the console: {e:?}");
        }
    }
    let allowed = !matches!(e.name.as_str(), "iframe" | "object" | "embed" | "base" | "style");
    assert!(allowed, "{e:?}");
    assert!(e.name != "script" || e.get("src").is_some(), "an inline script");
    let searches = e.get("method") == Some("get") && e.get("role") == Some("search");
    assert!(e.name != "form" || e.get("method") == Some("post") || searches, "{e:?}");
}

fn references(e: &Element, ids: &HashSet<&str>) {
    for attribute in ["for", "aria-labelledby", "aria-describedby", "list"] {
        if let Some(id) = e.get(attribute) {
            assert!(ids.contains(id), "{attribute}={id:?} names nothing");
        }
    }
}
