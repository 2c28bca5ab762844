//! Sign-in by OpenID Connect providers: against the real one of npm, and ([`attacks`]) against one
//! that lies.

mod attacks;
mod fake;
mod npm;
mod several;

use crate::world::{ADMIN_PASSWORD, World};
use npm::{Browser, Npm, SECRET};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use xos_api::cda::{
    Answer, BeginDevice, BeginSignIn, BegunSignIn, Code, FinishSignIn, Flow, LinkIdentity,
    ListIdentities, Password, PollDevice, SetPassword, SetPerson, SignInOptions, SignedIn,
    UnlinkIdentity, WhoAmI,
};
use xos_base::{Error, Kind};
use xos_cda::Provider;
use xos_net::Caller;

pub const REDIRECT: &str = "http://127.0.0.1:4444/sign-in/callback/lab";

pub fn provider(issuer: &str, more: &str) -> Provider {
    let text = format!(
        "id = \"lab\"\ntitle = \"The Lab\"\nissuer = \"{issuer}\"\nclient_id = \"xos\"\n\
         insecure_loopback = true\n{more}"
    );
    xos_base::config::parse("x", &text).unwrap()
}

/// The parts of an address that a provider sends a browser to.
fn query(url: &str) -> Vec<(String, String)> {
    serde_urlencoded::from_str(url.split_once('?').unwrap().1).unwrap()
}

pub fn part(url: &str, name: &str) -> String {
    query(url).into_iter().find(|(k, _)| k == name).map(|(_, v)| v).unwrap_or_default()
}

pub fn answer(url: &str) -> Answer {
    Answer {
        provider: "lab".parse().unwrap(),
        state: Code(part(url, "state")),
        code: Code(part(url, "code")),
        iss: Some(part(url, "iss")).filter(|iss| !iss.is_empty()),
    }
}

pub fn finishing(flow: &Flow, answer: Answer) -> FinishSignIn {
    FinishSignIn { flow: flow.clone(), answer, audience: None, memberships: false }
}

pub async fn begin(w: &World) -> Result<BegunSignIn, Error> {
    let provider = "lab".parse().unwrap();
    w.public(BeginSignIn { provider, redirect: REDIRECT.into() }).await
}

/// A site that signs in by a real provider.
struct Lab {
    w: World,
    npm: Npm,
}

impl Lab {
    async fn new(claims: Value, more: &str) -> Option<Lab> {
        Some(Lab::with(Npm::start(claims, false)?, more).await)
    }

    async fn with(npm: Npm, more: &str) -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, SECRET).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let secret = format!("client_secret_file = \"{}\"\n{more}", secret.display());
        let provider = provider(&npm.issuer, &secret);
        let w = World::with("rennes", |c| c.providers.push(provider)).await;
        Lab { w, npm }
    }

    /// Proves an account in a browser; the flow and what came back.
    async fn proved(&self, login: &str) -> (Flow, Answer) {
        let begun = begin(&self.w).await.unwrap();
        let back = Browser::default().walk(&begun.authorize_url, login);
        assert!(back.starts_with(REDIRECT), "{back}");
        (begun.flow, answer(&back))
    }

    async fn sign_in(&self, login: &str) -> Result<SignedIn, Error> {
        let (flow, answer) = self.proved(login).await;
        self.w.public(finishing(&flow, answer)).await
    }

    async fn link(&self, caller: &Caller, login: &str) -> Result<(), Error> {
        let (flow, answer) = self.proved(login).await;
        let linked = self.w.call(caller, LinkIdentity { flow, answer: Some(answer) }).await?;
        assert!(linked.identity.is_some());
        Ok(())
    }

    async fn known(&self, login: &str) -> Option<String> {
        self.sign_in(login).await.ok().map(|s| s.person.to_string())
    }
}

/// If it failed, nobody could sign in by a provider, or one person would be two.
#[tokio::test]
async fn a_browser_signs_in_and_the_first_time_makes_the_person() {
    let Some(lab) = Lab::new(json!({}), "accounts = \"create\"").await else { return };
    let rules = lab.w.public(SignInOptions {}).await.unwrap();
    assert_eq!((rules.passwords, rules.providers[0].title.as_str()), (true, "The Lab"));
    let signed_in = lab.sign_in("alice").await.unwrap();
    assert_eq!((signed_in.person.as_str(), signed_in.site_admin), ("alice@rennes", false));
    let caller = lab.w.by_token(&signed_in.token.token);
    let me = lab.w.call(&caller, WhoAmI {}).await.unwrap();
    assert_eq!(me.person.unwrap().as_str(), "alice@rennes");
    assert_eq!(lab.known("alice").await.as_deref(), Some("alice@rennes"));
    let ways = lab.w.call(&caller, ListIdentities {}).await.unwrap();
    assert_eq!((ways.password, ways.identities.len()), (false, 1));
    // A name that can be nobody's is changed into none.
    let e = lab.sign_in("Alice Smith").await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("is no name here"), "{e}");
    // A disabled person stays out, whatever the provider says.
    let root = lab.w.root().await;
    let person = signed_in.person;
    lab.w.call(&root, SetPerson { person, disabled: Some(true), site_admin: None }).await.unwrap();
    assert_eq!(lab.sign_in("alice").await.unwrap_err().kind, Kind::Denied);
}

/// If it failed, what stands in a browser's history, or came by another browser, would sign in.
#[tokio::test]
async fn a_wrong_state_and_a_used_code_sign_nobody_in() {
    let Some(lab) = Lab::new(json!({}), "accounts = \"create\"").await else { return };
    let (flow, good) = lab.proved("alice").await;
    let bad = Answer { state: Code("another".into()), ..good.clone() };
    let e = lab.w.public(finishing(&flow, bad)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "{e}");
    let again = lab.w.public(finishing(&flow, good)).await.unwrap_err();
    assert_eq!(again, e, "a flow is over after one try, and the answers tell nothing");

    let (flow, good) = lab.proved("alice").await;
    lab.w.public(finishing(&flow, good.clone())).await.unwrap();
    assert_eq!(lab.w.public(finishing(&flow, good.clone())).await.unwrap_err(), e);
    // The same code in a flow of one's own: the provider refuses it, and PKCE would.
    let mine = begin(&lab.w).await.unwrap();
    let state = Code(part(&mine.authorize_url, "state"));
    let stolen = Answer { state, ..good };
    let e = lab.w.public(finishing(&mine.flow, stolen)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "{e}");

    // A code that nobody used yet, in another flow.
    let (_, fresh) = lab.proved("alice").await;
    let mine = begin(&lab.w).await.unwrap();
    let state = Code(part(&mine.authorize_url, "state"));
    let stolen = Answer { state, ..fresh };
    let e = lab.w.public(finishing(&mine.flow, stolen)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "{e}");
    let (flow, good) = lab.proved("alice").await;
    let mixed = Answer { iss: Some("https://other.example".into()), ..good };
    assert!(lab.w.public(finishing(&flow, mixed)).await.is_err(), "mix-up of two providers");
}

/// If it failed, people at a shell without a browser could not sign in.
#[tokio::test]
async fn another_device_signs_in() {
    let Some(lab) = Lab::new(json!({}), "accounts = \"create\"").await else { return };
    let begun = lab.w.public(BeginDevice { provider: "lab".parse().unwrap() }).await.unwrap();
    assert_eq!(begun.verification_uri, format!("{}/device", lab.npm.issuer));
    let poll = || PollDevice { flow: begun.flow.clone(), audience: None, memberships: true };
    let wait = Duration::from_secs(begun.interval_s);
    let early = lab.w.public(poll()).await.unwrap();
    assert!(early.signed_in.is_none() && early.interval_s <= begun.interval_s);
    lab.w.clock.advance(wait);
    let pending = lab.w.public(poll()).await.unwrap();
    assert_eq!((pending.signed_in, pending.interval_s), (None, begun.interval_s));
    let page = begun.verification_uri_complete.clone().unwrap();
    let last = Browser::default().walk(&page, "alice");
    assert!(last.contains("Sign-in Success"), "{last}");
    let early = lab.w.public(poll()).await.unwrap();
    assert!(early.signed_in.is_none(), "the provider was asked before its time");
    lab.w.clock.advance(wait);
    let signed_in = lab.w.public(poll()).await.unwrap().signed_in.unwrap();
    assert_eq!(signed_in.person.as_str(), "alice@rennes");
    assert_eq!(signed_in.memberships, Some(Vec::new()));
    let e = lab.w.public(poll()).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "a flow is finished once: {e}");
}

/// If it failed, a provider's outage would look like a wrong account, or stay after it ended.
#[tokio::test]
async fn a_provider_that_is_down_is_told_and_comes_back() {
    let Some(mut lab) = Lab::new(json!({}), "accounts = \"create\"").await else { return };
    let (flow, answer) = lab.proved("alice").await;
    lab.npm.stop();
    let e = lab.w.public(finishing(&flow, answer)).await.unwrap_err();
    assert!(e.kind == Kind::Unavailable && e.message.contains("The Lab"), "{e}");
    lab.w.sign_in("root", ADMIN_PASSWORD).await.expect("other ways go on");
    lab.npm.restart();
    lab.w.clock.advance(Duration::from_secs(61));
    assert_eq!(lab.known("alice").await.as_deref(), Some("alice@rennes"));
    // What the provider says of itself is known for an hour; then it is asked anew.
    lab.npm.stop();
    lab.w.clock.advance(Duration::from_secs(3600));
    assert_eq!(begin(&lab.w).await.unwrap_err().kind, Kind::Unavailable);
}

/// If it failed, a provider that changes its keys, as all do, would lock everybody out; or each
/// wrong token would make the core ask it again.
#[tokio::test]
async fn new_keys_of_a_provider_are_taken_up_once_a_minute() {
    let Some(mut lab) = Lab::new(json!({}), "accounts = \"create\"").await else { return };
    lab.sign_in("alice").await.unwrap();
    lab.npm.restart();
    let e = lab.sign_in("alice").await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "the keys were fetched a moment ago: {e}");
    lab.w.clock.advance(Duration::from_secs(61));
    lab.sign_in("alice").await.unwrap();
}

/// If it failed, everybody at the provider would be let in, where the site means some.
#[tokio::test]
async fn who_lacks_a_required_claim_stays_out() {
    let claims = json!({ "bob": { "groups": ["staff"] }, "carol": { "groups": ["guests"] } });
    for slim in [false, true] {
        let more = "accounts = \"create\"\nrequired = { groups = [\"staff\", \"board\"] }";
        let Some(npm) = Npm::start(claims.clone(), slim) else { return };
        let lab = Lab::with(npm, more).await;
        for login in ["alice", "carol"] {
            let e = lab.sign_in(login).await.unwrap_err();
            assert!(e.kind == Kind::Denied && e.message.contains("groups"), "{login}: {e}");
        }
        assert_eq!(lab.known("bob").await.as_deref(), Some("bob@rennes"), "slim: {slim}");
    }
}

/// If it failed, who may choose a name at the provider would become a person who is here already.
#[tokio::test]
async fn a_name_that_is_taken_is_not_taken_over() {
    let claims = json!({ "mallory": { "preferred_username": "root" } });
    let Some(lab) = Lab::new(claims, "accounts = \"create\"").await else { return };
    for login in ["root", "mallory"] {
        let e = lab.sign_in(login).await.unwrap_err();
        assert!(e.kind == Kind::Conflict && e.message.contains("root@rennes"), "{login}: {e}");
    }
    let alice = lab.sign_in("alice").await.unwrap();
    let Some(other) = Lab::new(json!({}), "").await else { return };
    let e = other.sign_in("alice").await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("nobody here has linked"), "{e}");
    assert_eq!(alice.person.as_str(), "alice@rennes");
}

/// If it failed, an account could be linked by who left a session open, or to two people.
#[tokio::test]
async fn an_account_is_linked_by_proving_both_in_one_go() {
    let Some(lab) = Lab::new(json!({}), "accounts = \"known\"").await else { return };
    let alice = lab.w.person("alice").await;
    assert_eq!(lab.known("account7").await, None);
    lab.link(&alice, "account7").await.unwrap();
    lab.link(&alice, "account7").await.expect("linking again changes nothing");
    assert_eq!(lab.known("account7").await.as_deref(), Some("alice@rennes"));
    let bob = lab.w.person("bob").await;
    let e = lab.link(&bob, "account7").await.unwrap_err();
    assert!(e.kind == Kind::Conflict && !e.to_string().contains("alice"), "{e}");
    assert_eq!(lab.known("account7").await.as_deref(), Some("alice@rennes"));
    // The other way round: who came by the account links another one.
    let came = lab.sign_in("account7").await.unwrap();
    lab.link(&lab.w.by_token(&came.token.token), "account8").await.unwrap();
    assert_eq!(lab.known("account8").await.as_deref(), Some("alice@rennes"));
    lab.w.clock.advance(Duration::from_secs(5 * 60 + 1));
    let e = lab.link(&alice, "account9").await.unwrap_err();
    assert!(e.kind == Kind::Unauthenticated && e.message.contains("five minutes"), "{e}");
    assert_eq!(lab.known("account9").await, None);
}

/// If it failed, people could lock themselves out, or somebody with their old account stay in.
#[tokio::test]
async fn unlinking_ends_sessions_and_spares_the_last_way_in() {
    let Some(lab) = Lab::new(json!({}), "accounts = \"create\"").await else { return };
    let came = lab.sign_in("alice").await.unwrap();
    let caller = lab.w.by_token(&came.token.token);
    let ways = lab.w.call(&caller, ListIdentities {}).await.unwrap();
    let first = ways.identities[0].clone();
    let unlink = || UnlinkIdentity { provider: first.provider.clone(), key: first.key.clone() };
    let e = lab.w.call(&caller, unlink()).await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("last way"), "{e}");
    let unknown = UnlinkIdentity { key: "00".repeat(32), ..unlink() };
    assert_eq!(lab.w.call(&caller, unknown).await.unwrap_err().kind, Kind::NotFound);
    // Who has no password yet sets one by a fresh sign-in.
    let password = Password("a new password".into());
    let set = SetPassword { person: came.person.clone(), present: None, password };
    lab.w.clock.advance(Duration::from_secs(1));
    lab.w.call(&caller, set).await.unwrap();
    let signed_in = lab.w.sign_in("alice", "a new password").await.unwrap();
    let caller = lab.w.by_token(&signed_in.token.token);
    lab.w.clock.advance(Duration::from_secs(1));
    lab.w.call(&caller, unlink()).await.unwrap();
    let e = lab.w.call(&caller, unlink()).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "sessions from before end: {e}");
    let e = lab.sign_in("alice").await.unwrap_err();
    assert_eq!(e.kind, Kind::Conflict, "the name is taken, the account nobody's: {e}");
}

/// If it failed, a site that trusts its provider alone would still be open to guesses.
#[tokio::test]
async fn a_site_without_passwords_takes_none() {
    let provider = provider("http://127.0.0.1:1", "");
    let w = World::with("rennes", |c| {
        c.providers.push(provider);
        c.passwords = false;
    })
    .await;
    let e = w.sign_in("root", ADMIN_PASSWORD).await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("takes no passwords"), "{e}");
    assert!(!w.public(SignInOptions {}).await.unwrap().passwords);
    assert_eq!(begin(&w).await.unwrap_err().kind, Kind::Unavailable, "nobody listens there");
}
