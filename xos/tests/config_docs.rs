//! Keeps docs/config.md: made from the documentation comments of the configuration's structs, so
//! that no key can be added, renamed or given another meaning without the page saying so.
//! `XOS_BLESS=1` writes it anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The file with the struct of the whole configuration.
const WHOLE: &str = "xos/src/daemon/config.rs";
/// Which struct of which file each section is.
const SECTIONS: &[(&str, &str, &str)] = &[
    ("site", WHOLE, "Site"),
    ("port", "net/src/port.rs", "Config"),
    ("cda", "cda/src/config.rs", "Config"),
    ("vom", "vom/src/lib.rs", "Config"),
    ("aem", "aem/src/config.rs", "Config"),
    ("files", "xos/src/daemon/files.rs", "Config"),
    ("cluster", "ssi-flavour/src/service/mod.rs", "Config"),
    ("console", "console/src/lib.rs", "Config"),
    ("ssh_host", "node/src/hosts/mod.rs", "Config"),
    ("node", "node/src/agent/config.rs", "Config"),
    ("osd", "xos/src/daemon/osd.rs", "Config"),
];
/// Lists of tables inside a section: section, key, and their struct.
const TABLES: &[(&str, &str, &str, &str)] =
    &[("cda", "providers", "cda/src/oidc/config.rs", "Provider")];
/// Sections inside a section, present or not: section, key, and their struct.
const PARTS: &[(&str, &str, &str, &str)] = &[
    ("node", "login", "node/src/agent/config.rs", "Login"),
    ("node", "cluster", "node/src/agent/config.rs", "Cluster"),
    ("cda", "passkeys", "cda/src/passkeys/config.rs", "Passkeys"),
    ("cda", "kerberos", "cda/src/kerberos/config.rs", "Kerberos"),
    ("cda", "pkcs11", "cda/src/keys/token.rs", "Pkcs11"),
];
/// Widest line of the page.
const WIDTH: usize = 120;

/// What the page begins with.
const INTRO: &str = "\
One file, `/etc/xos/xosd.toml` unless `--config` names another, in TOML. `xosd setup` writes it for a
core, `xosd join` for a node. Each section is one service, and a section that is present means that
the service runs here. Unknown sections and keys are refused with line and column. `xosd check` reads
the file and says what is wrong. Changes count after a restart of `xosd`. A key that is not marked
\"needed\" may be left out.";
const NOTE: &str = "\
This page is made from the sources by the test `xos/tests/config_docs.rs`; to change a text, change the
comment there and run `XOS_BLESS=1 cargo nextest run -p xos --test config_docs`.";

const CORE_EXAMPLE: &str = "\
[site]
name = \"rennes\"

[port]
listen = \"0.0.0.0:7443\"

[cda]
addresses = [\"core.rennes.example:7443\"]
names = [\"localhost\", \"127.0.0.1\", \"::1\", \"core.rennes.example\"]

[vom]

[aem]

[files]

[cluster]

[console]
title = \"Rennes\"
";

const NODE_EXAMPLE: &str = "\
[site]
name = \"rennes\"

[node]
name = \"n1\"
cpu_milli = 16000
memory_bytes = 34359738368

[node.login]
deny = [\"mallory@pisa\"]

[osd]
reserve_bytes = 10737418240
";

/// One key of a section.
struct Key {
    name: String,
    kind: String,
    needed: bool,
    doc: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The public fields of a struct, read from its source.
fn keys(file: &str, name: &str) -> Vec<Key> {
    let text = std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    let head = format!("\npub struct {name} {{\n");
    let (before, body) =
        text.split_once(&head).unwrap_or_else(|| panic!("{file}: no struct {name}"));
    let body = body.split("\n}").next().unwrap();
    // Attributes and comments directly above the struct.
    let above = before.rsplit("\n\n").next().unwrap();
    let all_default = above.lines().any(|l| l.starts_with("#[serde(") && l.contains("default"));
    let (mut doc, mut optional, mut found) = (String::new(), all_default, Vec::new());
    for line in body.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("///") {
            doc.push_str(comment);
        } else if line.starts_with("#[") {
            optional |= line.contains("default");
        } else if let Some(field) = line.strip_prefix("pub ") {
            let (name, kind) = field.trim_end_matches(',').split_once(": ").unwrap();
            let inner = kind.strip_prefix("Option<").and_then(|k| k.strip_suffix('>'));
            found.push(Key {
                name: name.to_owned(),
                kind: inner.unwrap_or(kind).to_owned(),
                needed: inner.is_none() && !optional,
                doc: doc.trim().to_owned(),
            });
            (doc, optional) = (String::new(), all_default);
        }
    }
    assert!(!found.is_empty() || body.trim().is_empty(), "{file}: struct {name} is not understood");
    found
}

/// A Rust type as a person who writes the file knows it.
fn in_words(kind: &str) -> &'static str {
    match kind {
        "String" | "SiteId" | "ProviderId" | "Registration" | "Accounts" | "Found"
        | "SecondFactor" => "text",
        "PathBuf" => "path",
        "u32" | "u64" | "usize" => "number",
        "bool" => "true or false",
        "Vec<String>" => "list of texts",
        "Vec<PathBuf>" => "list of paths",
        "Vec<SiteId>" => "list of sites",
        "Vec<Provider>" => "list of tables",
        "BTreeMap<String, Wanted>" => "table",
        "Login" | "Cluster" | "PasskeyConfig" | "Kerberos" | "Pkcs11" => "section",
        other => panic!("say here what {other} is in the configuration file"),
    }
}

/// `text` in lines of at most [`WIDTH`], the first as it is, the others indented.
fn wrapped(text: &str, indent: &str) -> String {
    let (mut out, mut width) = (String::new(), 0);
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > WIDTH {
            write!(out, "\n{indent}{word}").unwrap();
            width = indent.len() + length;
        } else {
            out.push_str(if width > 0 { " " } else { "" });
            out.push_str(word);
            width += length + usize::from(width > 0);
        }
    }
    out + "\n"
}

fn list(out: &mut String, keys: &[Key]) {
    for key in keys {
        assert!(!key.doc.is_empty(), "{} has no documentation", key.name);
        let needed = if key.needed { ", needed" } else { "" };
        let line = format!("- **`{}`** ({}{needed}): {}", key.name, in_words(&key.kind), key.doc);
        out.push_str(&wrapped(&line, "  "));
    }
}

fn page() -> String {
    let mut out = String::from("# Configuration of `xosd`\n\n");
    out.push_str(&wrapped(INTRO, ""));
    write!(out, "\n{}", wrapped(NOTE, "")).unwrap();
    write!(out, "\n## A core\n\n```toml\n{CORE_EXAMPLE}```\n").unwrap();
    write!(out, "\n## A node\n\n```toml\n{NODE_EXAMPLE}```\n").unwrap();
    let whole = keys(WHOLE, "Config");
    let names: Vec<&str> = whole.iter().map(|k| k.name.as_str()).collect();
    let known: Vec<&str> = SECTIONS.iter().map(|s| s.0).collect();
    assert_eq!(names, known, "sections of {WHOLE} and those that this test knows");
    for (section, (name, file, item)) in whole.iter().zip(SECTIONS) {
        // "`[port]`: the core's port." -> "The core's port."
        let about = section.doc.split_once(": ").map_or(section.doc.as_str(), |(_, about)| about);
        let mut letters = about.chars();
        let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
        let about = wrapped(&format!("{first}{}", letters.as_str()), "");
        write!(out, "\n## `[{name}]`\n\n{about}\n").unwrap();
        list(&mut out, &keys(file, item));
        for (_, key, file, item) in TABLES.iter().filter(|t| t.0 == *name) {
            write!(out, "\n### `[[{name}.{key}]]`\n\n").unwrap();
            list(&mut out, &keys(file, item));
        }
        for (_, key, file, item) in PARTS.iter().filter(|p| p.0 == *name) {
            write!(out, "\n### `[{name}.{key}]`\n\n").unwrap();
            list(&mut out, &keys(file, item));
        }
    }
    out
}

/// A reference that is not the code's sends administrators after keys that are refused.
#[test]
fn the_reference_is_that_of_the_sources() {
    let path = root().join("docs/config.md");
    let want = page();
    if std::env::var_os("XOS_BLESS").is_some() {
        std::fs::write(&path, &want).unwrap();
    }
    let is = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        is, want,
        "docs/config.md is old; if the change is meant: XOS_BLESS=1 cargo nextest run"
    );
}

/// An example that is refused is worse than none.
#[test]
fn the_examples_are_accepted() {
    use xos::daemon::config::{Config, Role};
    for (text, role) in [(CORE_EXAMPLE, Role::Core), (NODE_EXAMPLE, Role::Node)] {
        let config: Config = xos_base::config::parse("xosd.toml", text).unwrap();
        assert_eq!(config.role().unwrap(), role);
    }
}
