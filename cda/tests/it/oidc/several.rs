//! Several providers at one site: none speaks for another's accounts, whatever it says.

use super::fake::{Fake, Reply};
use super::{finishing, part};
use crate::world::World;
use serde_json::{Value, json};
use std::sync::Arc;
use xos_api::cda::{Answer, BeginSignIn, BegunSignIn, Code, SignInOptions, SignedIn};
use xos_base::when::Clock;
use xos_base::{Error, Kind};
use xos_cda::Provider;

/// A site with the providers `lab` and `uni`, at which whoever comes is made known.
struct Two {
    w: World,
    lab: Arc<Fake>,
    uni: Arc<Fake>,
}

fn provider(id: &str, issuer: &str) -> Provider {
    let text = format!(
        "id = \"{id}\"\ntitle = \"The {id}\"\nissuer = \"{issuer}\"\nclient_id = \"xos\"\n\
         insecure_loopback = true\naccounts = \"create\""
    );
    xos_base::config::parse("x", &text).unwrap()
}

impl Two {
    async fn new() -> Two {
        let (lab, uni) = (Fake::start().await, Fake::start().await);
        let providers = [provider("lab", &lab.issuer), provider("uni", &uni.issuer)];
        let w = World::with("rennes", |c| c.providers.extend(providers)).await;
        Two { w, lab, uni }
    }

    async fn begin(&self, id: &str) -> BegunSignIn {
        let redirect = format!("http://127.0.0.1:4444/sign-in/callback/{id}");
        self.w.public(BeginSignIn { provider: id.parse().unwrap(), redirect }).await.unwrap()
    }

    /// What `by` says of an account, for a sign-in that was begun.
    fn claims(&self, by: &Fake, begun: &BegunSignIn, (sub, name): (&str, &str)) -> Value {
        let now = self.w.clock.now().secs();
        json!({
            "iss": by.issuer, "aud": "xos", "sub": sub, "iat": now, "exp": now + 600,
            "nonce": part(&begun.authorize_url, "nonce"), "preferred_username": name,
            "email": "alice@example.org", "email_verified": true,
        })
    }

    /// Signs in at `id` as an account of that provider's.
    async fn sign_in(&self, id: &str, account: (&str, &str)) -> Result<SignedIn, Error> {
        let by = if id == "lab" { &self.lab } else { &self.uni };
        let begun = self.begin(id).await;
        by.tell(Reply::Token(by.signed(&self.claims(by, &begun, account))));
        self.w.public(finishing(&begun.flow, answer(id, &begun))).await
    }

    async fn person(&self, id: &str, account: (&str, &str)) -> String {
        self.sign_in(id, account).await.unwrap().person.to_string()
    }
}

fn answer(id: &str, begun: &BegunSignIn) -> Answer {
    let state = Code(part(&begun.authorize_url, "state"));
    Answer { provider: id.parse().unwrap(), state, code: Code("c".into()), iss: None }
}

/// If it failed, whoever may choose a number, a name or a mail address at one provider would be
/// somebody whom another provider knows.
#[tokio::test]
async fn accounts_of_two_providers_are_two_people() {
    let site = Two::new().await;
    let rules = site.w.public(SignInOptions {}).await.unwrap();
    let titles: Vec<&str> = rules.providers.iter().map(|p| p.title.as_str()).collect();
    assert_eq!(titles, ["The lab", "The uni"]);
    assert_eq!(site.person("lab", ("1", "alice")).await, "alice@rennes");
    // The same number, name and mail address: that account is nobody's here.
    site.sign_in("uni", ("1", "alice")).await.expect_err("one provider took another's name");
    assert_eq!(site.person("uni", ("1", "bob")).await, "bob@rennes");
    for _ in 0..2 {
        assert_eq!(site.person("lab", ("1", "alice")).await, "alice@rennes");
        assert_eq!(site.person("uni", ("1", "bob")).await, "bob@rennes");
    }
    // What an account is called later makes nobody else of it.
    assert_eq!(site.person("uni", ("1", "alice")).await, "bob@rennes");
}

/// If it failed, one provider would sign in the people of another, by its own tokens or by codes
/// that it had sent to it.
#[tokio::test]
async fn a_provider_finishes_its_own_sign_ins_alone() {
    let site = Two::new().await;
    site.person("lab", ("1", "alice")).await;
    let alice = ("1", "alice");
    let refused = |what: &str, result: Result<SignedIn, Error>| {
        let e = result.map(|s| s.person).expect_err(what);
        assert_eq!(e.kind, Kind::Unauthenticated, "{what}: {e}");
    };
    // What comes from lab's token endpoint in a sign-in at lab, signed by uni.
    for (what, speaker) in [("as itself", &site.uni), ("as lab", &site.lab)] {
        let begun = site.begin("lab").await;
        let claims = site.claims(speaker, &begun, alice);
        site.lab.tell(Reply::Token(site.uni.signed(&claims)));
        refused(what, site.w.public(finishing(&begun.flow, answer("lab", &begun))).await);
    }
    // A sign-in begun at one that comes back as if from the other.
    for (begins, ends) in [("lab", "uni"), ("uni", "lab")] {
        let begun = site.begin(begins).await;
        for by in [&site.lab, &site.uni] {
            by.tell(Reply::Token(by.signed(&site.claims(by, &begun, alice))));
        }
        let result = site.w.public(finishing(&begun.flow, answer(ends, &begun))).await;
        refused(begins, result);
    }
    // The state of one in the flow of another.
    let (ours, theirs) = (site.begin("lab").await, site.begin("uni").await);
    site.lab.tell(Reply::Token(site.lab.signed(&site.claims(&site.lab, &ours, alice))));
    let mixed = answer("lab", &theirs);
    refused("a foreign state", site.w.public(finishing(&ours.flow, mixed)).await);
    assert_eq!(site.person("lab", alice).await, "alice@rennes", "nothing was shown");
}
