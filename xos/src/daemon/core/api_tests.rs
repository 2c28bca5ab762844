//! The whole API of a core, with every service in it: the document that it gives of itself, and
//! who may ask for what. Both are kept; `XOS_BLESS=1` writes them anew.

mod sample;
mod world;

use self::sample::request;
use self::world::{Base, DEMO, Site};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use xos_api::Method;

/// Parts of paths by which people outside a VO change something there: to apply, to withdraw that.
const FOR_OUTSIDERS: [&str; 1] = ["/applications"];

/// Compares with the file below the folder of the workspace.
fn golden(path: &str, text: &str, changed: &str) {
    let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("XOS_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == kept, "{changed}; {path} says what was; if it is meant so: XOS_BLESS=1");
}

/// If it failed, the API could change unseen by those who write programs for it.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_of_the_api_is_the_kept_one() {
    let site = Site::empty("rennes").await;
    let document = site.document();
    let mut names = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap_or_default();
            assert!(names.insert(name.to_owned()), "two operations are called {name:?}");
            let words = operation["description"].as_str().unwrap_or_default();
            assert!(!words.is_empty(), "{method} {path} has no description");
        }
    }
    let twice = |name: &&String| name.ends_with(|c: char| c.is_ascii_digit());
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let doubled: Vec<&String> = schemas.keys().filter(twice).collect();
    assert!(doubled.is_empty(), "two types have one name, see {doubled:?}");
    let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
    golden("docs/openapi.json", &text, "the API changed");
    site.stop().await;
}

/// Who may do what to something of mia's, a member of `demo.rennes`: to her membership, her VO, her
/// job. The table is `xos/tests/api_matrix.txt`: each request that is not for anybody, and the
/// answers with those who get them. `done`: it was done; every other word is the kind of the error,
/// and only `denied`, `not_found` and `unauthenticated` keep somebody out. A request that is served
/// and not in the table fails the test.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_reaches_what_is_anothers() {
    let base = Base::new().await;
    let mut site = base.open().await;
    let document = site.document();
    let (mut table, mut public) = (String::new(), String::new());
    for (method, path, open) in site.served() {
        let line = format!("{} {path}", method.as_str());
        if open {
            writeln!(public, "    {line}").unwrap();
            continue;
        }
        let operation = &document["paths"][path][method.as_str().to_lowercase()];
        let request = request(&document, method, path, operation);
        let mut answers: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (name, proof) in &base.roles {
            let answer = site.ask(proof, &request).await;
            // What was done must not change what the next one finds.
            if answer == "done" && method != Method::Get {
                site.stop().await;
                site = base.open().await;
            }
            answers.entry(answer).or_default().push(name);
        }
        writeln!(table, "{line}").unwrap();
        for (answer, who) in answers {
            writeln!(table, "    {answer:<16} {}", who.join(", ")).unwrap();
        }
        outsiders_are_kept_out(&line, path, &site, &request, &base).await;
    }
    writeln!(table, "for anybody\n{}", public.trim_end()).unwrap();
    site.stop().await;
    golden("xos/tests/api_matrix.txt", &table, "who may do what has changed");
}

/// Whatever the table says: who proved nothing gets nothing, and a VO's members and administrators
/// change nothing in another VO.
async fn outsiders_are_kept_out(
    line: &str,
    path: &str,
    site: &Site,
    request: &sample::Asked,
    base: &Base,
) {
    let of = |name: &str| &base.roles.iter().find(|(n, _)| *n == name).unwrap().1;
    assert_eq!(site.ask(of("nobody"), request).await, "unauthenticated", "{line}");
    let changes = request.method != Method::Get && path.contains("{vo}");
    if changes && !FOR_OUTSIDERS.iter().any(|part| path.contains(part)) {
        for name in ["member of another VO", "owner of another VO"] {
            assert_ne!(site.ask(of(name), request).await, "done", "{line}: {name} of {DEMO}");
        }
    }
}

/// If it failed, the table would show that a request which is none is refused.
#[test]
fn samples_are_what_their_schemas_say() {
    let document = serde_json::json!({ "components": { "schemas": {
        "VoId": { "type": "string" },
        "Word": { "oneOf": [{ "const": "a" }, { "const": "b" }] },
        "Deep": {
            "type": "object",
            "properties": { "word": { "$ref": "#/components/schemas/Word" }, "no": {} },
            "required": ["word"],
        },
    } } });
    let schema = serde_json::json!({
        "type": "object",
        "properties": {
            "vo": { "$ref": "#/components/schemas/VoId" },
            "deep": { "type": "array", "items": { "$ref": "#/components/schemas/Deep" } },
            "n": { "type": ["integer", "null"], "minimum": 3 },
            "left": { "type": "string" },
        },
        "required": ["vo", "deep", "n"],
    });
    let sampled: Value = sample::value(&document, &schema, "");
    let want = serde_json::json!({ "vo": DEMO, "deep": [{ "word": "a" }], "n": 3 });
    assert_eq!(sampled, want);
}
