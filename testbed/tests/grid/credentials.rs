//! Programs that know nothing of XOS read its credentials: OpenSSL, ssh-keygen, and scitokens of
//! PyPI, as a service outside uses it.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;
use xos_base::Membership;
use xos_testbed::{Cmd, Host};

use crate::tool::{Json, Said, skipped};
use crate::wire::{Proof, ask};
use crate::world::{VO, World, sh};

/// Where the files of these tests are on the laptop.
const DIR: &str = "/opt/foreign";
/// The service that the tokens are for.
const AUDIENCE: &str = "https://storage.example";
/// What it runs.
const CHECK: &[u8] = include_bytes!("../../../tools/scitokens/check.py");
/// Signs claims by any key, as whoever stole it would.
const FORGE: &str = "\
import json, jwt, sys
f = json.load(sys.stdin)
print(jwt.encode(f['claims'], f['key'], 'ES256', headers={'kid': f['kid']}))
";

/// If it failed, services outside could not use what members hold, or would take what others made.
#[test]
fn foreign_programs_read_the_credentials() {
    let Some(w) = World::new() else { return };
    w.xos(&w.vera, &["vo", "group", "create", VO, "physics"]).ok();
    w.xos(&w.vera, &["vo", "group", "add", VO, "physics", &w.milo.id()]).ok();
    w.xos(&w.vera, &["vo", "role", "grant", VO, &w.milo.id(), "editor"]).ok();
    w.sign_in(&w.milo);
    w.step("openssl_follows_the_chain_to_the_right_root", openssl_follows_the_chain);
    w.step("certificate_and_ssh_certificate_say_the_same", certificate_and_ssh_certificate);
    if !bring_scitokens(&w) {
        return;
    }
    w.step("the_token_says_the_same", the_token_says_the_same);
    w.step("a_service_takes_only_tokens_for_itself", a_service_takes_only_tokens_for_itself);
    w.step("a_service_takes_no_forged_token", a_service_takes_no_forged_token);
}

impl World {
    /// What milo's three credentials shall say.
    fn milos(&self) -> Membership {
        let m = self.credential(&self.milo, VO).membership();
        let groups: Vec<&str> = m.groups.iter().map(|g| g.name.as_str()).collect();
        let roles: Vec<&str> = m.roles.iter().map(|r| r.as_str()).collect();
        assert_eq!((groups, roles), (vec!["members", "physics"], vec!["editor"]));
        m
    }

    /// Milo's chain and the roots of both sites, in files on the laptop.
    fn files(&self) -> [String; 3] {
        let laptop = self.laptop();
        let write = |name: &str, text: &str| {
            let path = format!("{DIR}/{name}.pem");
            laptop.write_file(&path, text.as_bytes(), 0o644).unwrap();
            path
        };
        let root = |core: &Host| sh(core, "openssl x509 -in /var/lib/xos/ca/root.pem") + "\n";
        let chain = self.credential(&self.milo, VO).chain;
        [
            write("chain", &chain),
            write("rennes", &root(&self.rennes.core)),
            write("pisa", &root(&self.pisa.core)),
        ]
    }

    /// A fresh token of milo's for a service.
    fn service_token(&self, audience: &str) -> String {
        let said = self.xos(&self.milo, &["token", "--vo", VO, "--audience", audience]);
        said.ok().trim().to_owned()
    }

    /// What a service says of a token that takes those of `issuer` for `audience`.
    fn service(&self, (issuer, audience): (&str, &str), token: &str) -> Said {
        let check = format!("{DIR}/check.py");
        let cmd = python(&[&check, issuer, audience]).stdin(token.as_bytes());
        Said::of(&self.laptop(), &cmd, "a service with scitokens")
    }

    /// A token of these claims, signed by the key of a site's core and naming `kid` for it.
    fn forge(&self, core: &Host, claims: &Json, kid: &str) -> String {
        let key = core.read_file("/var/lib/xos/ca/jwt.pem").unwrap();
        let key = String::from_utf8(key).unwrap();
        // Before it stands a line with its dates.
        let key = &key[key.find("-----BEGIN").expect("a key")..];
        let input = json!({ "key": key, "claims": claims, "kid": kid }).to_string();
        let cmd = python(&["-c", FORGE]).stdin(input);
        Said::of(&self.laptop(), &cmd, "forging a token").ok().trim().to_owned()
    }

    /// The name of the key with which a site signs tokens.
    fn kid(&self, site: &str) -> String {
        let said = ask(&self.laptop(), site, Proof::Nothing, "GET /jwks", b"");
        assert_eq!(said.status, 200, "{}", said.text);
        said.body["keys"][0]["kid"].as_str().expect("a key's name").to_owned()
    }
}

/// Python on the laptop, with the library, and with the roots of both sites as those of https.
fn python(args: &[&str]) -> Cmd {
    let cmd = Cmd::new("/usr/bin/python3").args(args).env("PYTHONPATH", format!("{DIR}/packages"));
    cmd.env("SSL_CERT_FILE", format!("{DIR}/roots.pem")).env("XDG_CACHE_HOME", DIR)
}

/// The folder that holds the library, in the one that `make deps-scitokens` fills.
fn packages() -> Option<PathBuf> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let versions = std::fs::read_dir(tree.join("target/scitokens/lib")).ok()?;
    let mut found = versions.flatten().map(|version| version.path().join("site-packages"));
    found.find(|packages| packages.join("scitokens").is_dir())
}

/// Copies the library to the laptop; `false`, with the reason told, where it is not installed.
fn bring_scitokens(w: &World) -> bool {
    let Some(packages) = packages() else {
        skipped("no scitokens here; `make deps-scitokens` installs it");
        return false;
    };
    let mut tar = Command::new("tar");
    let tar = tar.arg("-C").arg(packages).args(["--exclude=./pip", "-c", "."]).output().unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    let unpack = format!("mkdir -p {DIR}/packages && tar -x -C {DIR}/packages");
    w.laptop().run(&Cmd::shell(unpack).stdin(tar.stdout)).unwrap().ok().unwrap();
    w.laptop().write_file(format!("{DIR}/check.py"), CHECK, 0o644).unwrap();
    let [_, rennes, pisa] = w.files();
    sh(&w.laptop(), &format!("cat {rennes} {pisa} > {DIR}/roots.pem"));
    true
}

/// If it failed, a service outside would take a certificate of another site's making, or one for
/// what it is not, or none at all.
fn openssl_follows_the_chain(w: &World) {
    let [chain, rennes, pisa] = w.files();
    let verify = |root: &str, purpose: &str| {
        let line = format!(
            "openssl verify -x509_strict -no-CApath -CAfile {root} -untrusted {chain} \
             -purpose {purpose} {chain}"
        );
        Said::of(&w.laptop(), &Cmd::shell(line.as_str()), &line)
    };
    verify(&rennes, "sslclient").ok();
    verify(&rennes, "sslserver").refused(2, &["certificate purpose"]);
    verify(&pisa, "sslclient").refused(2, &["unable to get local issuer certificate"]);
}

/// If it failed, a service that reads one of them would grant what one that reads the other does
/// not.
fn certificate_and_ssh_certificate(w: &World) {
    let m = w.milos();
    let [chain, ..] = w.files();
    let laptop = w.laptop();
    let text = sh(&laptop, &format!("openssl x509 -in {chain} -noout -text -certopt ext_parse"));
    // GlobalPrimaryVOName, GlobalSecondaryVONames, GlobalUserID, GlobalPrimaryGroupName,
    // GlobalSecondaryGroupNames, Role, Group, Subgroup.
    let person = m.person.to_string();
    let original =
        [VO, "", &person, "members", "physics", "editor", "members,physics", ""].map(str::to_owned);
    assert_eq!(std::array::from_fn(|n| octets(&text, n + 1)), original, "{text}");
    let file = format!("/home/{}/.xos/vo/{VO}/ssh_key-cert.pub", w.milo.name);
    let shown = sh(&laptop, &format!("ssh-keygen -L -f {file}"));
    let lines: Vec<&str> = shown.lines().map(str::trim).collect();
    let at = lines.iter().position(|l| *l == "Principals:").expect("principals");
    assert_eq!(lines[at + 1], format!("{person}/{VO}"), "{shown}");
    let der = membership_of(&lines).unwrap_or_else(|| panic!("no membership: {shown}"));
    assert_eq!(Membership::from_der(&der).unwrap(), m);
    // The encoding, too, as OpenSSL sees it in the one and in the other.
    let parse = Cmd::shell("openssl asn1parse -inform DER").stdin(der);
    let in_ssh = Said::of(&laptop, &parse, "openssl asn1parse").ok();
    let in_ssh: Vec<String> = in_ssh.lines().map(words).collect();
    assert_eq!(extension(&text, 100), in_ssh);
}

/// The lines of an extension 1.34.5.0.14.N, as OpenSSL shows it.
fn extension(text: &str, n: usize) -> Vec<String> {
    let head = format!("1.34.5.0.14.{n}:");
    let lines = text.lines().map(words).skip_while(|line| *line != head).skip(1);
    lines.take_while(|line| !line.is_empty()).collect()
}

/// The text in such an extension, which is one OCTET STRING.
fn octets(text: &str, n: usize) -> String {
    let lines = extension(text, n);
    let [line] = lines.as_slice() else { panic!("extension {n}: {lines:?}") };
    let (_, value) = line.split_once("OCTET STRING").unwrap_or_else(|| panic!("{n}: {line}"));
    value.trim().trim_start_matches(':').to_owned()
}

/// One space between words, and none around.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The membership's encoding in what ssh-keygen shows: the extension is an SSH string of base64.
fn membership_of(lines: &[&str]) -> Option<Vec<u8>> {
    let mut found = lines.iter().filter_map(|l| l.strip_prefix("membership@xos UNKNOWN OPTION: "));
    let hex = found.next()?.split(' ').next()?;
    let digits: Option<Vec<u32>> = hex.chars().map(|c| c.to_digit(16)).collect();
    let bytes: Vec<u8> =
        digits?.chunks_exact(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect();
    STANDARD.decode(bytes.get(4..)?).ok()
}

const RENNES: &str = "https://rennes-core:7443";
const PISA: &str = "https://pisa-core:7443";

/// If it failed, a service outside would see other groups than the machines of the grid.
fn the_token_says_the_same(w: &World) {
    let m = w.milos();
    let claims = w.service((RENNES, AUDIENCE), &w.service_token(AUDIENCE)).json();
    assert_eq!(claims["sub"], m.person.as_str(), "{claims}");
    assert_eq!(claims["wlcg.groups"], json!([format!("/{VO}"), format!("/{VO}/physics")]));
    let of = |what: &str| format!("urn:xos:rennes:group:{VO}{what}#rennes-core");
    let entitlements = json!([of(""), of(":physics"), of(":role=editor")]);
    assert_eq!(claims["entitlements"], entitlements);
}

/// If it failed, a service that somebody's token was shown to could use it elsewhere, or a site's
/// word would count at those who do not trust it.
fn a_service_takes_only_tokens_for_itself(w: &World) {
    let token = w.service_token(AUDIENCE);
    w.service((RENNES, AUDIENCE), &token).ok();
    w.service((RENNES, "https://other.example"), &token).refused(1, &["refused", "'aud'"]);
    w.service((PISA, AUDIENCE), &token).refused(1, &["refused", "'iss'"]);
}

/// If it failed, a hostile site or a thief of an old token would be taken for a member.
fn a_service_takes_no_forged_token(w: &World) {
    let token = w.service_token(AUDIENCE);
    let parts: Vec<&str> = token.split('.').collect();
    let decoded = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
    let claims: Json = serde_json::from_slice(&decoded).unwrap();
    let (rennes, pisa) = (&w.rennes.core, &w.pisa.core);
    let (own, foreign) = (w.kid("rennes"), w.kid("pisa"));
    let service = |token: &str| w.service((RENNES, AUDIENCE), token);
    let with = |name: &str, value: Json| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    // So that what follows fails for its own reason.
    service(&w.forge(rennes, &claims, &own)).ok();
    let now = claims["iat"].as_u64().expect("a time");
    for (name, at, why) in [("exp", now - 60, "expired"), ("nbf", now + 3600, "not yet valid")] {
        let late = w.forge(rennes, &with(name, at.into()), &own);
        service(&late).refused(1, &["refused", why]);
    }
    // Pisa in the name of rennes, by its own key and by what it calls the one of rennes.
    service(&w.forge(pisa, &claims, &own)).refused(1, &["refused", "signature"]);
    service(&w.forge(pisa, &claims, &foreign)).refused(1, &["refused", "find key"]);
    let theirs = w.forge(pisa, &with("iss", PISA.into()), &foreign);
    service(&theirs).refused(1, &["refused", "'iss'"]);
    let encode = |json: &Json| URL_SAFE_NO_PAD.encode(json.to_string());
    let raised = encode(&with("wlcg.groups", json!([format!("/{VO}"), format!("/{VO}/staff")])));
    service(&format!("{}.{raised}.{}", parts[0], parts[2])).refused(1, &["refused", "signature"]);
    for algorithm in ["none", "HS256"] {
        let head = encode(&json!({ "typ": "JWT", "alg": algorithm, "kid": own }));
        service(&format!("{head}.{raised}.")).refused(1, &["refused"]);
    }
}
