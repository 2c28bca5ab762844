//! Keys are replaced while the site works: nobody is refused who was not before.

use crate::machines::{invite, join};
use crate::withdrawn::{pair, until};
use crate::world::{ADMIN_PASSWORD, World, certificate_request, chain, keyed, member, ssh_line};
use serde_json::{Value, json};
use ssh_key::HashAlg;
use ssh_key::public::{Ed25519PublicKey, KeyData};
use std::time::Duration;
use xos_api::cda::{Certificate, GetJwks, IssueCertificate, RemoveNode};
use xos_base::when::Clock;
use xos_base::{Kind, Millis};
use xos_cda::{Config, KNOWN_AFTER, KeyState, KeyView, Purpose, list_keys, roll_key};
use xos_net::sign::Kind as Statement;
use xos_net::trust::Usage;
use xos_net::{Caller, Trust};

const VO: &str = "demo.rennes";
const SERVICE: &str = "https://storage.example.org";
const MOMENT: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What `xosd keys roll` does, in another process.
fn roll(w: &World, purpose: Purpose, at_once: bool) -> Result<Vec<KeyView>, xos_base::Error> {
    let config = Config::new(vec!["core.example:7443".into()]);
    roll_key((w.dir.path(), &w.site), &config, None, (purpose, at_once), w.clock.now())
}

fn states(keys: &[KeyView]) -> Vec<KeyState> {
    keys.iter().map(|k| k.state).collect()
}

fn now_states(w: &World, purpose: Purpose) -> Vec<KeyState> {
    let mut all = list_keys(w.dir.path(), w.clock.now()).unwrap();
    all.retain(|k| k.purpose == purpose.name());
    states(&all)
}

/// Moves the time of all `worlds` to `at`, by which `first` goes.
fn go_to(worlds: [&World; 2], at: Millis) {
    let by = at.since(worlds[0].clock.now());
    for w in worlds {
        w.clock.advance(by);
    }
}

fn says(w: &World, kind: Statement) -> String {
    w.keys.signer().sign(kind, &json!({"a": 1})).unwrap()
}

fn believes(trust: &Trust, of: &World, kind: Statement, jws: &str) -> bool {
    trust.verify::<Value>(kind, jws, &of.site).is_ok()
}

/// When the waiting key signs, and until when the one before it counts.
fn plan(keys: &[KeyView]) -> (Millis, Millis) {
    match states(keys)[..] {
        [KeyState::SignsFrom(signs), KeyState::Signs] => {
            let counts = Config::new(Vec::new()).mandate_s + 3600;
            (signs, signs.plus(Duration::from_secs(counts)))
        }
        ref other => panic!("{other:?}"),
    }
}

/// If it failed, jobs that run would lose their files, or another site would refuse people, because
/// the administrator did what is good practice.
#[tokio::test(flavor = "multi_thread")]
async fn a_signing_key_rolls_and_every_statement_counts_as_long_as_it_may() {
    let (mut rennes, pisa) = pair().await;
    let late = Trust::new();
    late.add(rennes.cda.descriptor()).unwrap();
    let (first, before) = (rennes.keys.signer().public(), says(&rennes, Statement::Mandate));
    let entry = says(&rennes, Statement::VoLog);
    let (signs, gone) = plan(&roll(&rennes, Purpose::Signing, false).unwrap());
    assert_eq!(signs, rennes.clock.now().plus(KNOWN_AFTER));
    rennes.cda.renew_if_due().unwrap();
    assert!(!rennes.cda.renew_if_due().unwrap());
    let told = rennes.cda.descriptor().keys;
    until("pisa hears of it by itself", || {
        pisa.trust.descriptor(&rennes.site).unwrap().keys == told
    })
    .await;
    let mut said = vec![before];
    for (at, present) in [(rennes.clock.now(), true), (signs.minus(MOMENT), true), (signs, false)] {
        go_to([&rennes, &pisa], at);
        for restart in [false, true] {
            if restart {
                rennes = rennes.restarted().await.unwrap();
            }
            rennes.cda.renew_if_due().unwrap();
            assert_eq!(rennes.keys.signer().public() == first, present, "{at}, {restart}");
            said.push(says(&rennes, Statement::Mandate));
        }
        if present {
            // Whoever hears of it last, hears of it before it signs.
            late.add(rennes.cda.descriptor()).unwrap();
        }
        for (i, jws) in said.iter().enumerate() {
            for trust in [&rennes.trust, &pisa.trust, &late] {
                assert!(believes(trust, &rennes, Statement::Mandate, jws), "{at}: word {i}");
            }
        }
    }
    let by_new = said.pop().unwrap();
    go_to([&rennes, &pisa], gone.minus(MOMENT));
    assert!(!rennes.cda.renew_if_due().unwrap());
    assert!(believes(&rennes.trust, &rennes, Statement::Mandate, &said[0]));
    go_to([&rennes, &pisa], gone);
    rennes.cda.renew_if_due().unwrap();
    late.add(rennes.cda.descriptor()).unwrap();
    assert_eq!(now_states(&rennes, Purpose::Signing), [KeyState::Signs, KeyState::CountsForLogs]);
    let again = rennes.restarted().await.unwrap();
    for trust in [&rennes.trust, &again.trust, &late] {
        assert!(believes(trust, &rennes, Statement::Mandate, &by_new));
        assert!(!believes(trust, &rennes, Statement::Mandate, &said[0]), "it counts for ever");
        // Or no new site could ever serve a VO that is older than the key.
        assert!(believes(trust, &rennes, Statement::VoLog, &entry), "the log cannot be read");
        assert!(!believes(trust, &rennes, Statement::Mandate, &entry));
    }
}

/// Alice after another sign-in.
async fn again(w: &World) -> Caller {
    w.by_token(&w.sign_in("alice", ADMIN_PASSWORD).await.unwrap().token.token)
}

async fn all_three(w: &World, alice: &Caller) -> Certificate {
    let r = IssueCertificate {
        ssh_key: Some(ssh_line()),
        jwt_audience: Some(SERVICE.into()),
        ..certificate_request(VO, &keyed().csr_pem)
    };
    w.call(alice, r).await.unwrap()
}

/// Whether sshd at a site that knows rennes by `descriptor` takes it at `now`.
fn sshd_takes(w: &World, line: &str, now: Millis) -> bool {
    let known = Trust::new();
    known.add(w.cda.descriptor()).unwrap();
    let keys = known.ssh_keys(&w.site).unwrap().people.clone();
    let print = |k: [u8; 32]| KeyData::Ed25519(Ed25519PublicKey(k)).fingerprint(HashAlg::Sha256);
    let keys: Vec<_> = keys.into_iter().map(print).collect();
    ssh_key::Certificate::from_openssh(line).unwrap().validate_at(now.secs(), &keys).is_ok()
}

/// Whether a service outside finds the key that it names.
async fn is_published(w: &World, jwt: &str) -> bool {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let header = URL_SAFE_NO_PAD.decode(jwt.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    let jwks = w.public(GetJwks {}).await.unwrap();
    jwks.keys.iter().any(|k| header["kid"] == k.kid.as_str())
}

/// If it failed, people could not sign in to machines or services until everybody had heard of the
/// new key, or with what they got the minute before.
#[tokio::test(flavor = "multi_thread")]
async fn keys_for_ssh_and_jwts_roll_under_what_is_in_use() {
    let w = World::new("rennes").await;
    let kid = |c: &Certificate| c.jwt.as_ref().unwrap().token.split('.').next().unwrap().to_owned();
    let first = all_three(&w, &w.alice_in(VO).await).await;
    for purpose in [Purpose::SshPeople, Purpose::Jwt] {
        roll(&w, purpose, false).unwrap();
    }
    let known_before = w.cda.descriptor().keys;
    w.cda.renew_if_due().unwrap();
    assert_ne!(w.cda.descriptor().keys, known_before, "the new key is not named");
    w.clock.advance(KNOWN_AFTER - MINUTE);
    w.cda.renew_if_due().unwrap();
    let during = all_three(&w, &again(&w).await).await;
    assert_eq!(kid(&first), kid(&during), "it signs before others can know it");
    w.clock.advance(MINUTE);
    w.cda.renew_if_due().unwrap();
    let after = all_three(&w, &again(&w).await).await;
    assert_ne!(kid(&first), kid(&after), "it does not sign when its time has come");
    for c in [&first, &during, &after] {
        let then = c.expires.minus(Duration::from_secs(1));
        assert!(sshd_takes(&w, c.ssh.as_ref().unwrap(), then));
        assert!(is_published(&w, &c.jwt.as_ref().unwrap().token).await);
    }
    let life = Duration::from_secs(Config::new(Vec::new()).certificate_s);
    w.clock.advance(life.max(Duration::from_secs(24 * 3600)) + Duration::from_secs(3600));
    w.cda.renew_if_due().unwrap();
    for (c, counts) in [(&first, false), (&during, false), (&after, true)] {
        let then = c.expires.minus(Duration::from_secs(1));
        assert_eq!(sshd_takes(&w, c.ssh.as_ref().unwrap(), then), counts);
        assert_eq!(is_published(&w, &c.jwt.as_ref().unwrap().token).await, counts);
    }
    for purpose in [Purpose::SshPeople, Purpose::Jwt] {
        assert_eq!(now_states(&w, purpose), [KeyState::Signs]);
    }
}

/// If it failed, replacing an authority would sign everybody out and cut off all nodes.
#[tokio::test(flavor = "multi_thread")]
async fn authorities_roll_and_what_they_signed_holds() {
    let (rennes, pisa) = pair().await;
    let alice = rennes.alice_in(VO).await;
    pisa.vos.set(member(VO, "alice@rennes"));
    let before = all_three(&rennes, &alice).await.chain_pem;
    let node = join(&rennes, &invite(&rennes, "n1").await, &keyed()).await.unwrap().chain_pem;
    let core = rennes.keys.core_identity().get();
    for purpose in [Purpose::People, Purpose::Machines] {
        assert_eq!(states(&roll(&rennes, purpose, false).unwrap()), [KeyState::Signs]);
    }
    rennes.cda.renew_if_due().unwrap();
    let after = all_three(&rennes, &alice).await.chain_pem;
    assert_ne!(chain(&before)[1], chain(&after)[1], "the old authority still signs");
    let other = rennes.keys.core_identity().get();
    assert_ne!(core.chain(), other.chain());
    for w in [&rennes, &pisa] {
        for pem in [&before, &after, &node] {
            w.by_certificate(pem).unwrap();
        }
        for identity in [&core, &other] {
            w.trust.verify_chain(identity.chain(), Usage::Server, w.clock.now()).unwrap();
        }
    }
}

/// If it failed, a thief of an authority's key would make members and machines for two years.
#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_was_stolen_is_refused_everywhere_and_stays_so() {
    let (rennes, pisa) = pair().await;
    let alice = rennes.alice_in(VO).await;
    pisa.vos.set(member(VO, "alice@rennes"));
    let stolen = all_three(&rennes, &alice).await.chain_pem;
    let node = join(&rennes, &invite(&rennes, "n1").await, &keyed()).await.unwrap().chain_pem;
    let old_core = rennes.keys.core_identity().get();
    for purpose in [Purpose::People, Purpose::Machines] {
        let expected = [KeyState::Signs, KeyState::Refused];
        assert_eq!(states(&roll(&rennes, purpose, true).unwrap()), expected);
    }
    // Killed between the files: those of the authorities are new, the core's is not.
    let rennes = rennes.restarted().await.unwrap();
    rennes.vos.set(member(VO, "alice@rennes"));
    pisa.trust.add(rennes.cda.descriptor()).unwrap();
    let good = all_three(&rennes, &alice).await.chain_pem;
    let core = rennes.keys.core_identity().get();
    for w in [&rennes, &pisa] {
        for pem in [&stolen, &node] {
            let e = w.by_certificate(pem).err().unwrap();
            assert_eq!(e.kind, Kind::Unauthenticated, "{e}");
        }
        w.by_certificate(&good).unwrap();
        let holds = |chain: &[_]| w.trust.verify_chain(chain, Usage::Server, w.clock.now());
        assert!(holds(old_core.chain()).is_err(), "the thief is the core still");
        holds(core.chain()).unwrap();
    }
    // Another site cannot be made to refuse what is not the site's own.
    let own = pisa.keys.core_identity().get();
    pisa.trust.verify_chain(own.chain(), Usage::Server, pisa.clock.now()).unwrap();
}

/// If it failed, a stolen signing key would be good until the next planned roll, or what was
/// withdrawn before would come back with the new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_signing_key_counts_no_more_at_once_and_withdrawn_nodes_stay_out() {
    let (rennes, pisa) = pair().await;
    let joined = join(&rennes, &invite(&rennes, "n1").await, &keyed()).await.unwrap();
    let root = rennes.root().await;
    rennes.call(&root, RemoveNode { node: joined.node }).await.unwrap();
    let token = rennes.sign_in("root", ADMIN_PASSWORD).await.unwrap().token.token;
    let (word, entry) = (says(&rennes, Statement::Ticket), says(&rennes, Statement::VoLog));
    // One that waits is in the same folder, and may be in the same hands.
    roll(&rennes, Purpose::Signing, false).unwrap();
    let expected = [KeyState::Signs, KeyState::CountsForLogs];
    assert_eq!(states(&roll(&rennes, Purpose::Signing, true).unwrap()), expected);
    rennes.cda.renew_if_due().unwrap();
    let fresh = says(&rennes, Statement::Ticket);
    until("pisa hears of it", || believes(&pisa.trust, &rennes, Statement::Ticket, &fresh)).await;
    assert!(rennes.verifier.token(&token, None).is_err(), "a token by the stolen key is taken");
    let again = rennes.restarted().await.unwrap();
    let pisa_again = pisa.restarted().await.unwrap();
    for trust in [&rennes.trust, &again.trust, &pisa.trust, &pisa_again.trust] {
        assert!(believes(trust, &rennes, Statement::Ticket, &fresh));
        assert!(!believes(trust, &rennes, Statement::Ticket, &word));
        assert!(believes(trust, &rennes, Statement::VoLog, &entry));
    }
    for w in [&rennes, &again, &pisa, &pisa_again] {
        assert!(w.by_certificate(&joined.chain_pem).is_err(), "a withdrawn node is back");
    }
}

/// If it failed, two administrators would roll one key twice, or a roll that failed would leave a
/// site without keys.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rolled_is_refused_and_nothing_changes() {
    let w = World::new("rennes").await;
    for purpose in [Purpose::Signing, Purpose::SshPeople, Purpose::SshMachines, Purpose::Jwt] {
        roll(&w, purpose, false).unwrap();
        let before = list_keys(w.dir.path(), w.clock.now()).unwrap();
        let e = roll(&w, purpose, false).unwrap_err();
        assert!(e.kind == Kind::Conflict && e.hint.unwrap().contains("--now"));
        assert_eq!(list_keys(w.dir.path(), w.clock.now()).unwrap(), before);
    }
    // What a write that was cut off leaves does not count.
    std::fs::write(w.dir.path().join("ca/signing.pem.new"), "half a key").unwrap();
    w.restarted().await.unwrap();
    let nowhere = tempfile::tempdir().unwrap();
    let e = list_keys(nowhere.path(), w.clock.now()).unwrap_err();
    assert_eq!(e.kind, Kind::NotFound);
    let prints: Vec<_> = list_keys(w.dir.path(), w.clock.now())
        .unwrap()
        .into_iter()
        .map(|k| k.fingerprint)
        .collect();
    assert_eq!(prints[0], w.keys.fingerprint(), "the root is the first");
    let different: std::collections::BTreeSet<_> = prints.iter().collect();
    assert_eq!(different.len(), prints.len(), "one key for two purposes");
}
