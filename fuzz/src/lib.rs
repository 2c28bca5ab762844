//! What is fuzzed: a function for each decoder of what comes from outside. It must end without a
//! panic, whatever it is given. `corpus/` holds inputs for each: seeds, and what fuzzing found.
//!
//! `xos/tests/fuzz.rs` has this file too: every run of the tests gives each function what is kept
//! for it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use xos::cli::names::fuzzing as names;
use xos::cli::ssh::key::SshKey;
use xos::cli::token::KeptJwt;
use xos::daemon::config::Config;
use xos_api::cda::JoinToken;
use xos_api::site::{SiteDescriptor, SiteKeys};
use xos_base::accounts::AccountsView;
use xos_base::local::{
    AuthBegin, AuthNext, CloseLogin, Envelope, FindUser, LocalCall, MayLogin, OpenLogin,
    Principals, Reply,
};
use xos_base::when::Clock;
use xos_base::{Epoch, Group, GroupNumber, MemberNumber, Membership, Millis, SiteId};
use xos_net::key::{KeyKind, LocalKey};
use xos_net::sign::{Kind, Signer, verify_with, vouch};
use xos_net::{Trust, Verifier, submission, ticket};

/// Feeds bytes to a decoder.
pub type Target = fn(&[u8]);

/// The decoders, each under the name of its program and of its folder in `corpus/`.
pub const TARGETS: [(&str, Target); 22] = [
    ("account_file", account_file),
    ("certificate_request", certificate_request),
    ("console_form", console_form),
    ("grid_config", grid_config),
    ("grid_mapfile", grid_mapfile),
    ("grid_people", grid_people),
    ("id_token", id_token),
    ("join_token", join_token),
    ("jsdl", jsdl),
    ("kerberos_principal", kerberos_principal),
    ("local_call", local_call),
    ("membership", membership),
    ("principals_file", principals_file),
    ("provider_redirect", provider_redirect),
    ("provider_token", provider_token),
    ("seen_file", seen_file),
    ("signed", signed),
    ("site_descriptor", site_descriptor),
    ("ssh_auth_info", ssh_auth_info),
    ("ssh_certificate", ssh_certificate),
    ("ssh_key", ssh_key),
    ("webauthn", webauthn),
];

/// When everything is read.
const NOW: Millis = Millis(2_000_000_000_000);
/// Most entries of one file that are looked at.
const ENTRIES_MAX: usize = 1000;
/// Where the checksum of an account file begins, and where it ends and what it covers begins.
const CHECKSUM: (usize, usize) = (8, 12);

fn text(data: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(data)
}

/// The mapped account file, which `libnss_xos` reads in every process: whatever stands behind a
/// true checksum.
pub fn account_file(data: &[u8]) {
    let mut bytes = data.to_vec();
    if let Some(covered) = data.get(CHECKSUM.1..) {
        let sum = crc32fast::hash(covered);
        bytes[CHECKSUM.0..CHECKSUM.1].copy_from_slice(&sum.to_le_bytes());
    }
    let Ok(view) = AccountsView::parse(&bytes) else { return };
    for name in ["ann.demo.rennes", "members.demo.rennes", ""] {
        // Whether it is found does not matter, only that it is answered; so in all that follows.
        view.user_by_name(name).ok();
        view.group_by_name(name).ok();
        if let Ok(Some(gids)) = view.groups_of(name) {
            gids.take(ENTRIES_MAX).for_each(drop);
        }
    }
    for user in view.users().take(ENTRIES_MAX).flatten() {
        view.user_by_uid(user.uid).ok();
    }
    for group in view.groups().take(ENTRIES_MAX).flatten() {
        view.group_by_gid(group.gid).ok();
        group.members.take(ENTRIES_MAX).for_each(drop);
    }
}

/// A certificate request: in PEM, or what stands in it.
pub fn certificate_request(data: &[u8]) {
    let kind = "CERTIFICATE REQUEST";
    let inside = STANDARD.encode(data);
    xos_cda::fuzzing::certificate_request(&text(data));
    xos_cda::fuzzing::certificate_request(&format!(
        "-----BEGIN {kind}-----\n{inside}\n-----END {kind}-----\n"
    ));
}

/// What browsers and programs send to the console.
pub fn console_form(data: &[u8]) {
    xos_console::fuzzing::form(data);
}

/// The configuration of `xosd`.
pub fn grid_config(data: &[u8]) {
    if let Ok(config) = xos_base::config::parse::<Config>("xosd.toml", &text(data)) {
        config.role().ok();
    }
}

/// A legacy grid-mapfile, of which a site imports the names of accounts.
pub fn grid_mapfile(data: &[u8]) {
    names::gridmap(&text(data));
}

/// The file that says which person stands behind a subject of a grid-mapfile.
pub fn grid_people(data: &[u8]) {
    names::people(&text(data));
}

/// What an OpenID provider says.
pub fn id_token(data: &[u8]) {
    xos_cda::fuzzing::id_token(&text(data));
}

/// A machine's right to join.
pub fn join_token(data: &[u8]) {
    if let Ok(token) = text(data).parse::<JoinToken>() {
        assert_eq!(
            token.to_string().parse::<JoinToken>(),
            Ok(token),
            "it is not written as it was read"
        );
    }
}

/// A description of a job (JSDL), as somebody else may have written it.
pub fn jsdl(data: &[u8]) {
    let vo = "demo.rennes".parse().unwrap();
    for vo in [None, Some(&vo)] {
        if let Ok(job) = xos_aem::jsdl::parse(&text(data), vo) {
            xos_aem::jsdl::write(&job).ok();
        }
    }
}

/// Whose Kerberos ticket it is.
pub fn kerberos_principal(data: &[u8]) {
    xos_cda::fuzzing::kerberos_principal(&text(data));
}

/// A call at the node's local socket, or the answer to one.
pub fn local_call(data: &[u8]) {
    let call = serde_json::from_slice::<Envelope<Box<RawValue>>>(data).ok();
    let with = call.as_ref().map(|call| call.with.get());
    said::<MayLogin>(with, data);
    said::<OpenLogin>(with, data);
    said::<CloseLogin>(with, data);
    said::<Principals>(with, data);
    said::<FindUser>(with, data);
    said::<AuthBegin>(with, data);
    said::<AuthNext>(with, data);
}

fn said<C: LocalCall>(call: Option<&str>, reply: &[u8]) {
    if let Some(Ok(call)) = call.map(serde_json::from_str::<C>) {
        let again = serde_json::to_string(&call).map(|text| serde_json::from_str::<C>(&text));
        assert!(matches!(again, Ok(Ok(_))), "it is not written as it was read");
    }
    serde_json::from_slice::<Reply<C::Answer>>(reply).ok();
}

/// The encoding that stands in every credential.
pub fn membership(data: &[u8]) {
    if let Ok(m) = Membership::from_der(data) {
        assert_eq!(m.to_der().as_deref(), Ok(data), "one membership has two encodings");
    }
}

/// The file by which sshd is answered while `xosd` does not run.
pub fn principals_file(data: &[u8]) {
    xos_node::agent::fuzzing::principals_file(&text(data));
}

/// Where a service wants browsers sent back to.
pub fn provider_redirect(data: &[u8]) {
    xos_cda::fuzzing::provider_redirect(&text(data));
}

/// What a service brings to the core as an OpenID provider.
pub fn provider_token(data: &[u8]) {
    xos_cda::fuzzing::provider_token(&text(data));
}

/// The record of when somebody was let in before.
pub fn seen_file(data: &[u8]) {
    pam_xos::fuzzing::seen_file(data);
}

/// Tickets, mandates, tokens and submissions, well signed or not; and JWTs for services outside.
pub fn signed(data: &[u8]) {
    let site = Site::of_all();
    site.look(&text(data));
    // What a hostile home signs is well signed, whatever stands in it.
    if let Ok(body) = serde_json::from_slice::<Value>(data) {
        for kind in [Kind::Ticket, Kind::Mandate, Kind::Token] {
            if let Ok(jws) = site.signer.sign(kind, &body) {
                site.look(&jws);
            }
        }
    }
}

/// What a site says of itself: all of it, or only the root's word on its keys.
pub fn site_descriptor(data: &[u8]) {
    if let Ok(descriptor) = serde_json::from_slice::<SiteDescriptor>(data) {
        Trust::new().add(descriptor).ok();
    }
    let good = Site::of_all().descriptor.clone();
    Trust::new().add(SiteDescriptor { keys: text(data).into_owned(), ..good }).ok();
}

/// What sshd leaves in `SSH_AUTH_INFO_0`.
pub fn ssh_auth_info(data: &[u8]) {
    xos_node::agent::fuzzing::ssh_auth_info(&text(data));
}

/// A person's SSH certificate, as the tool gets it from a core.
pub fn ssh_certificate(data: &[u8]) {
    static KEY: OnceLock<SshKey> = OnceLock::new();
    let key = KEY.get_or_init(|| SshKey::make().unwrap());
    key.certified(&text(data), &ann()).ok();
}

/// A person's or a machine's public SSH key.
pub fn ssh_key(data: &[u8]) {
    xos_cda::fuzzing::ssh_key(&text(data));
}

/// What browsers answer about passkeys.
pub fn webauthn(data: &[u8]) {
    xos_cda::fuzzing::webauthn(&text(data));
}

fn ann() -> Membership {
    Membership {
        vo: "demo.rennes".parse().unwrap(),
        person: "ann@rennes".parse().unwrap(),
        number: MemberNumber(7),
        epoch: Epoch(4),
        groups: vec![Group { name: "members".parse().unwrap(), number: GroupNumber(1) }],
        roles: Vec::new(),
        expires: None,
    }
}

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Millis {
        NOW
    }
}

/// A site whose word counts.
struct Site {
    signer: Signer,
    descriptor: SiteDescriptor,
    trust: Trust,
    verifier: Verifier,
}

impl Site {
    /// The one of all runs of a process: its keys are made once.
    fn of_all() -> &'static Site {
        static SITE: OnceLock<Site> = OnceLock::new();
        SITE.get_or_init(Site::new)
    }

    fn new() -> Site {
        let site: SiteId = "rennes".parse().unwrap();
        let (key, signer) = (KeyPair::generate().unwrap(), Signer::generate().unwrap());
        let root = CertificateParams::default().self_signed(&key).unwrap();
        let root_key = LocalKey::from_pkcs8(KeyKind::P256, &key.serialize_der()).unwrap();
        let keys = SiteKeys::signing(&site, vec![signer.public()], Millis(1));
        let descriptor = SiteDescriptor {
            site: site.clone(),
            addresses: vec!["core.rennes.example:7443".to_owned()],
            root: STANDARD.encode(root.der()),
            keys: vouch(&root_key, &keys).unwrap(),
            withdrawn: None,
        };
        let trust = Trust::new();
        trust.add(descriptor.clone()).unwrap();
        let verifier = Verifier::new(site, trust.clone(), Arc::new(Fixed));
        Site { signer, descriptor, trust, verifier }
    }

    fn look(&self, jws: &str) {
        ticket::verify_ticket(&self.trust, jws, NOW).ok();
        ticket::verify_mandate(&self.trust, jws, NOW).ok();
        submission::verify(&self.trust, jws, NOW).ok();
        self.verifier.token(jws, None).ok();
        verify_with::<Value>(Kind::VoLog, jws, &[7; 32]).ok();
        KeptJwt::of(jws.to_owned()).ok();
    }
}
