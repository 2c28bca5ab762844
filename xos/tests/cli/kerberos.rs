//! Sign-in by Kerberos: a real KDC of MIT Kerberos, the real core, the real tool; and what an
//! attacker would try with tickets.

mod kdc;

use crate::world::{Core, PASSWORD, Person, said};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kdc::{ABROAD, HOME, Kdc, holds};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use xos_api::cda::{
    FirstProof, FirstStep, KerberosToken, LinkKerberos, Password, SignIn, SignInKerberos,
    SignInOptions, SignedIn, SignedInKerberos, Stepped,
};
use xos_base::{Error, Kind};
use xos_gssapi::Initiator;
use xos_net::client::Far;
use xos_net::identity::end_point;
use xos_net::{Client, Proof, Trust};

const SERVICE: &str = "HTTP@localhost";

type Variables = Vec<(&'static str, PathBuf)>;

/// A site whose people hold tickets.
struct Site {
    kdc: Kdc,
    core: Core,
}

impl Site {
    /// `None`, with the reason printed, where there is no KDC.
    fn start(more: &str) -> Option<Site> {
        let mut core = Core::set_up();
        let kdc = Kdc::start(core.dir())?;
        let path = core.dir().join("xosd.toml");
        let keytab = core.dir().join("core.keytab");
        let text = std::fs::read_to_string(&path).unwrap();
        let section = format!(
            "\n[cda.kerberos]\nkeytab = \"{}\"\nservice = \"{SERVICE}\"\n\
             realms = [\"{HOME}\"]\n{more}",
            keytab.display()
        );
        std::fs::write(path, format!("{text}{section}")).unwrap();
        let variables = kdc.variables();
        let variables: Vec<_> = variables.iter().map(|(k, v)| (*k, v.as_path())).collect();
        core.start_with(&variables);
        Some(Site { kdc, core })
    }

    /// Somebody at a computer that knows the core by its host's name.
    fn person(&self) -> Person {
        let person = self.core.person();
        let address = self.core.address.replace("127.0.0.1", "localhost");
        person.well(&["site", "add", &address, "--yes"]);
        person
    }

    /// A client that proves itself by `proof`.
    async fn client(&self, proof: &Proof) -> Client {
        let (descriptor, _) = xos_net::discover::discover(&self.core.address).await.unwrap();
        let (site, trust) = (descriptor.site.clone(), Trust::new());
        trust.add(descriptor).unwrap();
        Client::new(site, &trust, proof).unwrap()
    }

    async fn send(&self, token: &[u8]) -> Result<SignedInKerberos, Error> {
        let token = KerberosToken(STANDARD.encode(token));
        let ask = SignInKerberos { token, audience: None, memberships: false };
        self.client(&Proof::None).await.call(ask).await
    }

    /// What tokens for this core are bound to.
    async fn binding(&self) -> Vec<u8> {
        let mut shown = None;
        let client = self.client(&Proof::None).await;
        let look = async |far: Far| {
            shown = Some(far);
            Ok::<_, Error>(SignInOptions {})
        };
        assert!(client.call_bound(look).await.unwrap().kerberos);
        end_point(&shown.unwrap().certificate)
    }
}

/// Signs in with the tool.
fn login(person: &Person, variables: &Variables, more: &[&str]) -> (i32, String) {
    let mut words = vec!["login", "--kerberos"];
    words.extend(more);
    let out = person.xos(&words).envs(variables.clone()).output().unwrap();
    (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
}

/// A token as the holder of a ticket makes it, by [`makes_a_token`] in a process of its own, since
/// the environment says where tickets are.
fn token(variables: &Variables, service: &str, binding: Option<&[u8]>) -> Vec<u8> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "kerberos::makes_a_token", "--ignored", "--nocapture"]);
    command.envs(variables.clone()).env("XOS_TEST_SERVICE", service);
    if let Some(binding) = binding {
        command.env("XOS_TEST_BINDING", STANDARD.encode(binding));
    }
    let out = command.output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("token:"));
    STANDARD.decode(line.unwrap_or_else(|| panic!("{text}"))).unwrap()
}

/// If it failed, the tests that run it would say so.
#[test]
#[ignore = "run by other tests, as a process of its own"]
fn makes_a_token() {
    let Ok(service) = std::env::var("XOS_TEST_SERVICE") else { return };
    let binding = std::env::var("XOS_TEST_BINDING").ok().map(|b| STANDARD.decode(b).unwrap());
    let (_, token) = Initiator::begin(&service, binding.as_deref()).unwrap();
    println!("\ntoken:{}", STANDARD.encode(token));
}

/// If it failed, who holds a ticket could not sign in by it, or would become two persons.
#[test]
fn who_holds_a_ticket_signs_in_by_it() {
    let Some(site) = Site::start("accounts = \"create\"\n") else { return };
    let (person, alice) = (site.person(), site.kdc.ticket("alice", &[]));
    let (status, why) = login(&person, &alice, &[]);
    assert_eq!(status, 0, "{why}");
    assert_eq!(person.json(&["id"])["person"], "alice@rennes");
    assert_eq!(login(&person, &alice, &["alice@rennes"]).0, 0, "a second time");
    let (status, why) = login(&person, &alice, &["bob@rennes"]);
    assert_eq!(status, 78, "{why}");
    assert!(why.contains("alice@rennes's, not bob@rennes's"), "{why}");
    // The service that is asked for is the one that is named.
    let (status, why) = login(&person, &alice, &["--kerberos-service", "HTTP@elsewhere.test"]);
    assert!(status == 78 && why.contains("HTTP@elsewhere.test"), "{why}");
    let (status, why) = login(&person, &site.kdc.variables(), &[]);
    assert!(status == 78 && why.contains("kinit"), "{why}");
}

/// If it failed, who works in a shell could not come in by a ticket as the person they are already.
#[test]
fn a_ticket_is_linked_by_the_tool() {
    let Some(site) = Site::start("") else { return };
    let (ada, alice) = (site.person(), site.kdc.ticket("alice", &[]));
    ada.login("ada");
    let link = ["account", "link", "kerberos"];
    let out = ada.xos(&link).envs(alice.clone()).output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(ada.json(&["account", "list"])["identities"][0]["provider"], "kerberos");
    let other = site.person();
    let (status, why) = login(&other, &alice, &[]);
    assert_eq!(status, 0, "{why}");
    assert_eq!(other.json(&["id"])["person"], "ada@rennes");
}

/// So often an ended ticket is shown.
const TRIES_MAX: usize = 100;

/// If it failed, somebody whose ticket has ended would not be told to get a new one.
#[test]
fn a_ticket_that_has_ended_is_told() {
    let Some(site) = Site::start("accounts = \"create\"\n") else { return };
    let (person, alice) = (site.person(), site.kdc.ticket("alice", &["-l", "1s"]));
    while holds(&alice) {
        std::thread::yield_now();
    }
    // The KDC minds an end only when its clock may not be behind any more.
    let tries = || (0..TRIES_MAX).map(|_| login(&person, &alice, &[]));
    let (status, why) = tries().find(|(status, _)| *status != 0).expect("it is never refused");
    assert!(status == 78 && why.contains("expired") && why.contains("kinit"), "{why}");
}

/// If it failed, administrators' instances, people of other realms, or who was put out could come
/// in; or a newcomer would take over the account of somebody with the same name.
#[test]
fn only_people_of_the_site_come_in_each_as_themselves() {
    let Some(site) = Site::start("accounts = \"create\"\n") else { return };
    let person = site.person();
    let bob = format!("bob@{ABROAD}");
    for (principal, status, why) in [
        ("alice/admin", 77, "is an instance"),
        (bob.as_str(), 77, "is not of a realm"),
        ("ada", 73, "ada@rennes, is taken here"),
    ] {
        let (is, said) = login(&person, &site.kdc.ticket(principal, &[]), &[]);
        assert!(is == status && said.contains(why), "{principal}: {is}: {said}");
        assert!(!person.folder().join("login.json").exists(), "{principal}");
    }
    let alice = site.kdc.ticket("alice", &[]);
    assert_eq!(login(&person, &alice, &[]).0, 0);
    let ada = site.core.signed_in("ada");
    ada.well(&["person", "disable", "alice"]);
    let (status, why) = login(&person, &alice, &[]);
    assert!(status == 77 && why.contains("may not sign in here"), "{why}");
}

/// If it failed, whoever gets hold of a token, as a hostile host to which it is shown, could sign
/// in by it, or learn from refusals what to change.
#[tokio::test]
async fn a_token_counts_once_for_this_core_and_untouched() {
    let Some(site) = Site::start("accounts = \"create\"\n") else { return };
    let (alice, here) = (site.kdc.ticket("alice", &[]), site.binding().await);
    let good = token(&alice, SERVICE, Some(&here));
    let person = site.send(&good).await.unwrap().signed_in.person;
    assert_eq!(person.as_str(), "alice@rennes");
    let mut tampered = token(&alice, SERVICE, Some(&here));
    let middle = tampered.len() / 2;
    tampered[middle] ^= 1;
    let other = [&here[..here.len() - 1], &[here[here.len() - 1] ^ 1]].concat();
    let mut said = Vec::new();
    for (what, token) in [
        ("replayed", good),
        ("tampered", tampered),
        ("for another service whose key is here", token(&alice, "host@localhost", Some(&here))),
        ("bound to another core", token(&alice, SERVICE, Some(&other))),
        ("nonsense", b"hello".to_vec()),
    ] {
        let e = site.send(&token).await.expect_err(what);
        assert_eq!(e.kind, Kind::Unauthenticated, "{what}: {e}");
        said.push(e);
    }
    assert!(said.iter().all(|e| *e == said[0]), "{said:?}");
    // One step does not do.
    assert_eq!(site.send(b"").await.unwrap_err().kind, Kind::Unsupported);
    let e = site.send(&token(&alice, SERVICE, None)).await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("not bound"), "{e}");
    let e = site.send(&vec![0; 48_100]).await.unwrap_err();
    assert_eq!(e.kind, Kind::TooLarge, "{e}");
}

/// If it failed, a site could not let in browsers that do not bind tickets, or would then take
/// those that are bound to somebody else.
#[tokio::test]
async fn where_it_is_set_so_a_token_may_be_unbound_but_not_bound_elsewhere() {
    let Some(site) = Site::start("accounts = \"create\"\nrequire_binding = false\n") else {
        return;
    };
    let alice = site.kdc.ticket("alice", &[]);
    site.send(&token(&alice, SERVICE, None)).await.unwrap();
    let elsewhere = token(&alice, SERVICE, Some(b"tls-server-end-point:elsewhere"));
    assert_eq!(site.send(&elsewhere).await.unwrap_err().kind, Kind::Unauthenticated);
}

async fn by_password(site: &Site) -> SignedIn {
    let (user, password) = ("ada".to_owned(), Password(PASSWORD.into()));
    let ask = SignIn { user, password, audience: None, memberships: false };
    site.client(&Proof::None).await.call(ask).await.unwrap()
}

/// If it failed, everybody of the realm would become a person where only known people may, or who
/// is known could not link their principal.
#[tokio::test]
async fn where_people_are_known_a_principal_is_linked_first() {
    let Some(site) = Site::start("") else { return };
    let (alice, here) = (site.kdc.ticket("alice", &[]), site.binding().await);
    let e = site.send(&token(&alice, SERVICE, Some(&here))).await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("linked"), "{e}");
    let ada = Proof::Token(by_password(&site).await.token.token.into());
    let link = |token: Vec<u8>| LinkKerberos { token: KerberosToken(STANDARD.encode(token)) };
    let stranger = site.client(&Proof::None).await;
    let e = stranger.call(link(token(&alice, SERVICE, Some(&here)))).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "who is not signed in linked a principal");
    let client = site.client(&ada).await;
    let linked = client.call(link(token(&alice, SERVICE, Some(&here)))).await.unwrap();
    assert_eq!((linked.provider.as_str(), linked.name.as_str()), ("kerberos", "alice@RENNES.TEST"));
    let signed_in = site.send(&token(&alice, SERVICE, Some(&here))).await.unwrap().signed_in;
    assert_eq!(signed_in.person.as_str(), "ada@rennes");
}

/// If it failed, a ticket alone would do where a passkey is wanted too; or who has nothing but a
/// ticket could not make their first one.
#[tokio::test]
async fn where_a_passkey_is_wanted_a_ticket_is_the_first_step() {
    let required = "accounts = \"create\"\n[cda.passkeys]\nsecond_factor = \"required\"\n";
    let Some(site) = Site::start(required) else { return };
    let (alice, here) = (site.kdc.ticket("alice", &[]), site.binding().await);
    let e = site.send(&token(&alice, SERVICE, Some(&here))).await.unwrap_err();
    assert!(e.kind == Kind::Unauthenticated && e.message.contains("passkey"), "{e}");
    let (status, why) = login(&site.person(), &alice, &[]);
    assert!(status == 78 && why.contains("--code"), "{why}");
    let token = KerberosToken(STANDARD.encode(token(&alice, SERVICE, Some(&here))));
    let proof = FirstProof::Kerberos { token };
    let ask = FirstStep { proof, audience: None, memberships: false };
    let stepped = site.client(&Proof::None).await.call(ask).await.unwrap();
    assert!(matches!(stepped, Stepped::Enrol(_)), "{stepped:?}");
}

/// If it failed, a core would come up without the sign-in that its people need, or with keys that
/// every user of its machine can read.
#[test]
fn a_core_without_usable_keys_does_not_start() {
    let Some(mut site) = Site::start("") else { return };
    site.core.kill();
    let run = || {
        let mut command = crate::world::xosd(site.core.dir());
        command.args(["run", "--config", "xosd.toml"]).envs(site.kdc.variables());
        said(64, &["run"], &command.output().unwrap())
    };
    let keytab = site.core.dir().join("core.keytab");
    let mode = |mode| {
        std::fs::set_permissions(&keytab, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o644);
    assert!(run().contains("chmod 600"), "keys that others may read were used");
    mode(0o600);
    let path = site.core.dir().join("xosd.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(SERVICE, "HTTP@elsewhere.test")).unwrap();
    assert!(run().contains("HTTP@elsewhere.test"), "a service without a key was begun");
}
