//! Every text that people can write by the API, and how it fares: written hostile by
//! [`crate::scene`] and read as text by [`crate::crawl`], or why not.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// How a text fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is written hostile, and the crawl reads it on a page.
    Shown,
    /// It is not written hostile. With why.
    Bare(&'static str),
}
use Fate::{Bare, Shown};

/// Stands for all other fields of a request.
const OTHERS: &str = "*";
const PROOF: Fate = Bare("a proof or a secret: compared, and shown nowhere");
const NAME: Fate = Bare("an id or a name with an alphabet of its own: markup is refused");
const MACHINE: Fate = Bare("a core or a node says it, proved by its certificate");
const PROGRAM: Fate = Bare("OAuth's words, compared with what is registered");

/// The request, its field, what becomes of it.
pub const TEXTS: &[(&str, &str, Fate)] = &[
    ("FoundVo", "title", Shown),
    ("FoundVo", "description", Shown),
    ("FoundVo", "label", NAME),
    ("DescribeVo", OTHERS, Bare("as with FoundVo, in whose places it stands")),
    ("SuspendVo", "reason", Shown),
    ("DissolveVo", "reason", Shown),
    ("RecordVolume", OTHERS, MACHINE),
    ("Apply", "message", Shown),
    ("Apply", "answers.value", Shown),
    ("Apply", "answers.question", NAME),
    ("Reject", "reason", Shown),
    ("SetTermsOfUse", "text", Shown),
    ("SetQuestions", "questions.text", Shown),
    ("SetQuestions", "questions.choices", Shown),
    ("SetQuestions", "questions.id", NAME),
    ("Invite", "hint", Shown),
    ("Invite", OTHERS, NAME),
    ("LookAtInvitation", OTHERS, PROOF),
    ("Join", "message", Shown),
    ("Join", OTHERS, Bare("as with Apply; the secret is a proof")),
    ("SuspendMember", "reason", Shown),
    ("RemoveMember", "reason", Shown),
    ("WithdrawShare", "reason", Shown),
    ("RecordWithdrawal", OTHERS, MACHINE),
    ("RefuseShare", "reason", Shown),
    ("EndShare", "reason", Shown),
    ("SetVoRules", "rules.note", Shown),
    ("SetVoRules", OTHERS, NAME),
    ("SetSiteRules", "rules.note", Shown),
    ("SetSiteRules", OTHERS, NAME),
    ("WhatIf", OTHERS, NAME),
    ("ExpectPeople", OTHERS, NAME),
    ("ForgetExpected", OTHERS, NAME),
    ("ExtendMemberships", OTHERS, NAME),
    ("GiveNames", OTHERS, NAME),
    ("SubmitJob", "spec.name", Shown),
    ("SubmitJob", "spec.tasks.argv", Shown),
    ("SubmitJob", OTHERS, Bare("read by machines; the page of a job shows name and command")),
    ("SubmitAndWatch", OTHERS, Bare("as with SubmitJob")),
    ("RunInCluster", "argv", Bare("no program runs in the scene: console/tests/it/clusters.rs")),
    ("RunInCluster", OTHERS, Bare("handed to the program as it is: no page shows it")),
    ("ClusterSay", OTHERS, MACHINE),
    ("ClusterMay", OTHERS, MACHINE),
    ("PlaceInCluster", OTHERS, MACHINE),
    ("CreateClient", "name", Shown),
    ("CreateClient", OTHERS, PROGRAM),
    ("FinishPasskey", "name", Shown),
    ("EnrolPasskey", OTHERS, Bare("as with FinishPasskey")),
    ("FinishPasskey", OTHERS, PROOF),
    ("FinishPasskeySignIn", OTHERS, PROOF),
    ("CreatePerson", OTHERS, NAME),
    ("Register", OTHERS, NAME),
    ("CreateJoinToken", OTHERS, NAME),
    ("SetPassword", OTHERS, PROOF),
    ("SignIn", OTHERS, PROOF),
    ("SignInByCode", OTHERS, PROOF),
    ("SignInKerberos", OTHERS, PROOF),
    ("LinkKerberos", OTHERS, PROOF),
    ("BeginSignIn", OTHERS, PROOF),
    ("FinishSignIn", OTHERS, PROOF),
    ("BeginDevice", OTHERS, PROOF),
    ("PollDevice", OTHERS, PROOF),
    ("LinkIdentity", OTHERS, PROOF),
    ("FirstStep", OTHERS, PROOF),
    ("FinishRecovery", OTHERS, PROOF),
    ("BeginRecovery", OTHERS, PROOF),
    ("RenewToken", OTHERS, NAME),
    ("IssueToken", OTHERS, NAME),
    ("IssueCertificate", OTHERS, PROOF),
    ("IssueMandate", OTHERS, PROOF),
    ("IssueLoginMandate", OTHERS, PROOF),
    ("IssueClusterMandate", OTHERS, PROOF),
    ("IssueVouchedMandate", OTHERS, PROOF),
    ("IssueTicket", OTHERS, PROOF),
    ("JoinMachine", OTHERS, PROOF),
    ("RenewMachine", OTHERS, PROOF),
    ("CertifyHost", OTHERS, PROOF),
    ("OfferTrust", OTHERS, PROOF),
    ("ReadOffer", OTHERS, PROOF),
    ("AcceptTrust", OTHERS, PROOF),
    ("CompleteTrust", OTHERS, PROOF),
    ("VerifyAudit", OTHERS, PROOF),
    ("RecordHead", OTHERS, PROOF),
    ("SiteChanged", OTHERS, MACHINE),
    ("HostUnits", OTHERS, MACHINE),
    ("Hello", OTHERS, MACHINE),
    ("DialBack", OTHERS, MACHINE),
    ("UnitEvents", OTHERS, MACHINE),
    ("ReportEvents", OTHERS, MACHINE),
    ("BeginNodeLogin", OTHERS, MACHINE),
    ("PollNodeLogin", OTHERS, MACHINE),
    ("CheckNodePassword", OTHERS, MACHINE),
    ("ShowDevice", OTHERS, PROOF),
    ("DecideDevice", OTHERS, PROOF),
    ("ShowAuthorization", OTHERS, PROGRAM),
    ("DecideAuthorization", OTHERS, PROGRAM),
    ("GetTokens", OTHERS, PROGRAM),
    ("BeginDeviceGrant", OTHERS, PROGRAM),
    ("GetUserInfo", OTHERS, PROGRAM),
    ("IntrospectToken", OTHERS, PROGRAM),
    ("RevokeToken", OTHERS, PROGRAM),
];

/// What breaks out of texts and attributes wherever one is not escaped; within the shortest limit.
const MARKUP: &str = "\"'><img src=x onerror=alert(1)></script>";
/// An address that is code, letters that are read from the right, one of 4 bytes.
const MORE: &str = "<a href=javascript:alert(1)>\u{5d0}\u{5d1}\u{1f512}";

/// The hostile text for a field, which begins with its name.
///
/// # Panics
/// When [`TEXTS`] does not say that it is written.
pub fn hostile(request: &str, field: &str) -> String {
    let fate = TEXTS.iter().find(|(r, f, _)| *r == request && *f == field).map(|(.., fate)| *fate);
    assert!(matches!(fate, Some(Shown)), "{request}.{field}: {fate:?}");
    format!("{request}.{field}{MARKUP}")
}

/// The same with more in it, where there is room.
pub fn long(request: &str, field: &str) -> String {
    hostile(request, field) + MORE
}

/// What [`TEXTS`] says against what the crawl read; what is not true.
pub fn untrue(read: &BTreeSet<String>) -> Vec<String> {
    let wrong = TEXTS.iter().filter_map(|(request, field, fate)| {
        let name = format!("{request}.{field}");
        // What stands before it, without a blank, counts to it.
        let missed = *fate == Shown && !read.iter().any(|r| r.ends_with(&name));
        missed.then(|| format!("{name} was on no page"))
    });
    wrong.collect()
}

/// If it failed, a new text of people could come to a page without that anybody tried what it does
/// there.
#[test]
fn every_text_of_the_api_is_known() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let document: Value = serde_json::from_slice(&text).expect("JSON");
    let mut found = BTreeSet::new();
    for methods in document["paths"].as_object().expect("paths").values() {
        for (method, operation) in methods.as_object().expect("methods") {
            // SCIM's are not requests of ours, and only read.
            let name = operation["operationId"].as_str().unwrap_or_default();
            if method != "get" {
                let mut fields = BTreeSet::new();
                collect(&document, operation, &mut fields);
                found.extend(fields.into_iter().map(|field| (name, field)));
            }
        }
    }
    let known = |request: &str, field: &str| {
        TEXTS.iter().any(|(r, f, _)| *r == request && (*f == field || *f == OTHERS))
    };
    let missing: Vec<_> = found.iter().filter(|(request, field)| !known(request, field)).collect();
    assert!(missing.is_empty(), "say in texts.rs what becomes of these: {missing:#?}");
    let told = |fate: &Fate| matches!(fate, Bare(why) if !why.is_empty());
    assert!(TEXTS.iter().all(|(.., fate)| *fate == Shown || told(fate)), "say why");
    let written = |fate: &Fate| !matches!(fate, Bare(_));
    let gone: Vec<_> = TEXTS
        .iter()
        .filter(|(request, field, fate)| {
            written(fate) && !found.contains(&(*request, (*field).to_owned()))
        })
        .collect();
    assert!(gone.is_empty(), "these are no texts of the API: {gone:#?}");
}

/// The fields of an operation that take any text.
fn collect(document: &Value, operation: &Value, found: &mut BTreeSet<String>) {
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        if parameter["in"] == "query" {
            let name = parameter["name"].as_str().unwrap_or_default();
            texts(document, &parameter["schema"], name, 0, found);
        }
    }
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    texts(document, body, "", 0, found);
}

/// The texts in a schema. What has a type of its own, as ids do, takes not any text. `depth`: how
/// many types it is inside of, since some hold themselves.
fn texts(document: &Value, schema: &Value, name: &str, depth: usize, found: &mut BTreeSet<String>) {
    const DEPTH_MAX: usize = 8;
    if let Some(reference) = schema["$ref"].as_str() {
        let kind = reference.rsplit('/').next().unwrap_or_default();
        let named = &document["components"]["schemas"][kind];
        if depth < DEPTH_MAX && named["type"] != "string" {
            texts(document, named, name, depth + 1, found);
        }
    }
    let is_text = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(|k| k == "string"),
        kind => kind == "string",
    };
    let narrowed = ["enum", "const", "pattern", "format"].iter().any(|k| schema.get(k).is_some());
    if is_text && !narrowed {
        found.insert(name.to_owned());
    }
    for choice in ["oneOf", "anyOf", "allOf", "prefixItems"] {
        for one in schema[choice].as_array().into_iter().flatten() {
            texts(document, one, name, depth, found);
        }
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            texts(document, &schema[inner], name, depth, found);
        }
    }
    for (field, inner) in schema["properties"].as_object().into_iter().flatten() {
        let joint = if name.is_empty() { "" } else { "." };
        texts(document, inner, &format!("{name}{joint}{field}"), depth, found);
    }
}
