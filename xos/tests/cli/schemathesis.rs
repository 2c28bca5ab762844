//! The API against the document that it gives of itself: schemathesis asks whatever that allows,
//! and much that it does not, as a site's administrator and as a member of a VO.

use crate::world::{Core, PASSWORD};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use xos_api::Request;
use xos_api::cda::{IssueToken, Password, SignIn};
use xos_api::openapi::GetOpenApi;
use xos_api::site::SiteDescriptor;
use xos_net::{Client, Proof, Trust};

/// Cases of an operation and phase, at most.
const EXAMPLES: &str = "5";
/// The same cases in each run; XOS_SEED tries others.
const SEED: &str = "20261129";

struct Api {
    descriptor: SiteDescriptor,
    trust: Trust,
    runtime: tokio::runtime::Runtime,
}

impl Api {
    fn of(core: &Core) -> Api {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (descriptor, _) = runtime.block_on(xos_net::discover::discover(&core.address)).unwrap();
        let trust = Trust::new();
        trust.add(descriptor.clone()).unwrap();
        Api { descriptor, trust, runtime }
    }

    fn ask<R: Request>(&self, token: Option<&str>, r: R) -> R::Reply {
        let proof = token.map_or(Proof::None, |token| Proof::Token(token.into()));
        self.runtime.block_on(async {
            let client = Client::new(self.descriptor.site.clone(), &self.trust, &proof).unwrap();
            client.call(r).await.unwrap()
        })
    }

    fn sign_in(&self, name: &str) -> String {
        let password = Password(PASSWORD.to_owned());
        let r = SignIn { user: name.to_owned(), password, audience: None, memberships: false };
        self.ask(None, r).token.token
    }

    /// The root's certificate as other programs read it.
    fn root_pem(&self) -> String {
        let lines: Vec<&str> = self
            .descriptor
            .root
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        let text = lines.join("\n");
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }
}

fn program() -> Option<PathBuf> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let program = tree.join("target/schemathesis/bin/schemathesis");
    program.exists().then_some(program)
}

/// Operations that are asked elsewhere: streams, which do not end, and what follows the words of
/// other standards.
fn left_out(document: &Value) -> Vec<String> {
    let mut names = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for operation in methods.as_object().unwrap().values() {
            let answers = &operation["responses"]["200"]["content"];
            let stream = answers.get("application/x-ndjson").is_some();
            if stream || !path.starts_with("/v1/") {
                names.push(operation["operationId"].as_str().unwrap().to_owned());
            }
        }
    }
    names
}

/// If it failed, a program that keeps to the document would be told that it does not, or the core
/// would fall over what somebody sends.
#[test]
fn the_api_is_what_its_document_says() {
    let Some(program) = program() else {
        println!("skipped: no schemathesis here; `make deps-schemathesis` installs it");
        return;
    };
    let core = Core::start();
    let ada = core.signed_in("ada");
    ada.add_person("alice");
    // What the examples in the document name.
    ada.well(&["vo", "found", "demo", "--title", "Demonstration"]);
    let alice = core.signed_in("alice");
    alice.well(&["vo", "apply", "demo.rennes"]);
    ada.well(&["vo", "approve", "demo.rennes", "alice@rennes"]);
    let api = Api::of(&core);
    let document = api.ask(None, GetOpenApi {});
    let dir = core.dir();
    let (file, root) = (dir.join("openapi.json"), dir.join("root.pem"));
    std::fs::write(&file, document.to_string()).unwrap();
    std::fs::write(&root, api.root_pem()).unwrap();
    let administrator = api.sign_in("ada");
    let vo = "demo.rennes".parse().unwrap();
    let member = IssueToken { vo, audience: None, groups: None, roles: None };
    let member = api.ask(Some(&api.sign_in("alice")), member).token;
    let seed = std::env::var("XOS_SEED").unwrap_or_else(|_| SEED.to_owned());
    for (who, token) in [("a member", member), ("the administrator", administrator)] {
        let mut command = Command::new(&program);
        let config =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/schemathesis/schemathesis.toml");
        command
            .args(["--config-file", config, "run"])
            .arg(&file)
            .args(["--url", &format!("https://{}", core.address)])
            .arg("--tls-verify")
            .arg(&root)
            .args(["--header", &format!("Authorization: Bearer {token}")])
            .args(["--phases", "examples,coverage,fuzzing", "--checks", "all"])
            // A schema cannot say all limits: see the configuration.
            .args(["--exclude-checks", "positive_data_acceptance,unsupported_method"])
            .args(["--max-examples", EXAMPLES, "--seed", &seed, "--workers", "2"])
            .args(["--suppress-health-check", "all", "--generation-database", "none"])
            .args(["--continue-on-failure", "--warnings", "off", "--no-color"])
            .current_dir(dir);
        for name in left_out(&document) {
            command.args(["--exclude-operation-id", &name]);
        }
        let out = command.output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        let more = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "as {who}, XOS_SEED={seed}:\n{said}\n{more}");
    }
    // And it is still there.
    assert!(!api.sign_in("ada").is_empty());
}
