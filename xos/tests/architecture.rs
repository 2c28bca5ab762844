//! Holds docs/architecture.md: who may depend on whom, and what must not be linked. And the
//! documents: no path of somebody's machine, no test that is not there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The services, which meet in `api` only.
const APART: [&str; 3] = ["xos-vom", "xos-cda", "xos-aem"];
/// Crates that must not be linked: TLS and cryptography come from rustls with aws-lc.
const UNWANTED: [&str; 2] = ["ring", "openssl-sys"];
/// Where developers work. Written in parts, so that this file does not hold them.
const MACHINE_PATHS: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).current_dir(root()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {}: {said}", args.join(" "));
    String::from_utf8(out.stdout).unwrap()
}

fn cargo(args: &[&str]) -> String {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    run(&program, args)
}

/// A crate of the workspace: its folder, and the crates of the workspace that it uses.
struct Member {
    folder: String,
    uses: BTreeSet<String>,
    uses_in_tests: BTreeSet<String>,
}

fn members() -> BTreeMap<String, Member> {
    let text = cargo(&["metadata", "--offline", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&text).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
    let names: BTreeSet<String> = packages.iter().map(|p| text(&p["name"])).collect();
    let member = |p: &serde_json::Value| {
        let manifest = PathBuf::from(text(&p["manifest_path"]));
        let folder = manifest.parent().unwrap().strip_prefix(root()).unwrap();
        let used = |in_tests: bool| {
            let all = p["dependencies"].as_array().unwrap().iter();
            let all = all.filter(|d| (d["kind"].as_str() == Some("dev")) == in_tests);
            all.map(|d| text(&d["name"])).filter(|n| names.contains(n)).collect()
        };
        let folder = folder.display().to_string();
        Member { folder, uses: used(false), uses_in_tests: used(true) }
    };
    packages.iter().map(|p| (text(&p["name"]), member(p))).collect()
}

/// The table in section "Folders": each folder, and the folders that it may use.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let page = read("docs/architecture.md");
    let section = page.split("\n## Folders\n").nth(1).expect("a section Folders");
    let section = section.split("\n## ").next().unwrap();
    let mut table: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in section.lines().filter(|l| l.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (folder, may) = (cells[1].trim_matches('`').to_owned(), cells[3]);
        if may.contains("<-") {
            // "a <- b" in a folder of several crates: b may use a.
            for chain in may.split(", ") {
                let links: Vec<String> =
                    chain.split("<-").map(|l| format!("{folder}/{}", l.trim())).collect();
                for (i, link) in links.iter().enumerate() {
                    table.entry(link.clone()).or_default().extend(links[..i].iter().cloned());
                }
            }
            continue;
        }
        let uses = match may {
            "-" | "programs only" => BTreeSet::new(),
            "all above" => table.keys().cloned().collect(),
            list => list.split(", ").filter(|n| *n != "libc").map(str::to_owned).collect(),
        };
        table.insert(folder, uses);
    }
    table
}

/// A crate that reaches where it must not makes the walls between services a matter of memory.
#[test]
fn crates_use_what_the_table_allows() {
    let (members, allowed) = (members(), allowed());
    let mut wrong = Vec::new();
    for (name, member) in &members {
        let Some(may) = allowed.get(&member.folder) else {
            wrong.push(format!("{name}: {} is not in the table of folders", member.folder));
            continue;
        };
        for used in &member.uses {
            let folder = &members[used].folder;
            if !may.contains(folder) {
                wrong.push(format!(
                    "{} uses {folder}, which the table does not allow",
                    member.folder
                ));
            }
        }
    }
    for folder in allowed.keys().filter(|f| !members.values().any(|m| m.folder == **f)) {
        wrong.push(format!("{folder} is in the table of folders, and there is no such crate"));
    }
    assert!(wrong.is_empty(), "docs/architecture.md is not held:\n{}", wrong.join("\n"));
}

/// Two services that know one another could not be changed, tested or replaced alone.
#[test]
fn services_never_meet_but_in_api() {
    for (name, member) in members().iter().filter(|(name, _)| APART.contains(&name.as_str())) {
        for other in member.uses.union(&member.uses_in_tests) {
            assert!(!APART.contains(&other.as_str()), "{name} depends on {other}");
        }
    }
}

/// The module is loaded into every process of the machine: a runtime in it would be in all of them.
#[test]
fn the_nss_module_links_no_runtime() {
    let tree = cargo(&["tree", "--offline", "-p", "nss-xos", "-e", "normal", "--prefix", "none"]);
    for line in tree.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        assert!(!name.starts_with("tokio") && name != "mio", "nss-xos links {name}");
    }
}

/// A second cryptographic library would be one more to watch, and OpenSSL's is not on every
/// machine.
#[test]
fn one_cryptographic_library_is_linked() {
    let tree = cargo(&["tree", "--offline", "--workspace", "--prefix", "none"]);
    for line in tree.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        assert!(!UNWANTED.contains(&name), "{name} is linked: see cargo tree -i {name}");
    }
}

/// Such a path works on one machine only, and tells strangers about it.
#[test]
fn no_file_names_a_path_of_a_developers_machine() {
    if !root().join(".git").exists() {
        println!("skipped: this is no git checkout, so it is not known which files are ours");
        return;
    }
    let mut found = Vec::new();
    for name in run("git", &["ls-files", "-z"]).split_terminator('\0') {
        let Ok(text) = std::fs::read_to_string(root().join(name)) else { continue };
        // The testbed's hosts have a /root of their own.
        let ours = name.starts_with("testbed/");
        for (i, line) in text.lines().enumerate() {
            let bad = MACHINE_PATHS.iter().find(|p| names_path(line, p));
            if let Some(path) = bad.filter(|p| !(ours && **p == MACHINE_PATHS[1])) {
                found.push(format!("{name}:{}: {path}", i + 1));
            }
        }
    }
    assert!(found.is_empty(), "paths of a machine:\n{}", found.join("\n"));
}

/// Whether a line names an absolute path below `dir`: one such as `aem/src/work/` is ours.
fn names_path(line: &str, dir: &str) -> bool {
    // `/proc/PID/root/` is another process's root, whatever stands for the pid.
    let ours = |c: char| c.is_alphanumeric() || matches!(c, '}' | '>' | ')');
    line.match_indices(dir).any(|(at, _)| !line[..at].ends_with(ours))
}

/// A page that points to a test which is gone promises what nobody checks.
#[test]
fn tests_named_in_the_documents_are_there() {
    let mut named = 0;
    for page in ["docs/security.md", "docs/architecture.md"] {
        for quoted in read(page).split('`').skip(1).step_by(2) {
            let Some((file, test)) = quoted.split_once(".rs::") else { continue };
            named += 1;
            let file = format!("{file}.rs");
            assert!(
                read(&file).contains(&format!("fn {test}(")),
                "{page}: no test {test} in {file}"
            );
        }
    }
    assert!(named > 0, "docs/security.md names no test");
}
