//! What a hostile home signs: good entries made bad. None may panic, hang or take much memory at
//! the site that follows the log.

#[path = "../../../tools/mutate.rs"]
mod mutate;

use crate::hostile::{admitted, log};
use crate::id;
use crate::world::Site;
use mutate::{modest, survives};
use xos_api::policy::Rule;
use xos_api::vom::{Change, Entry, Gives, Question, QuestionKind, Terms};
use xos_base::{Epoch, GroupNumber, Millis};
use xos_net::sign::Kind;
use xos_vom::log::{open, reread};
use xos_vom::state::Vo;

const ROUNDS: usize = 20_000;

fn rule() -> Rule {
    let rule = r#"{"name":"no-x","who":"group:x","what":"login","where":"node:n1.pisa",
        "effect":"deny","note":"why"}"#;
    serde_json::from_str(rule).unwrap()
}

/// One of each kind of change.
fn changes() -> Vec<Change> {
    let (bob, carol) = (|| id("bob@pisa"), || id("carol@pisa"));
    let reason = || "why".to_owned();
    let terms = Terms {
        cpu_milli: 4000,
        memory_bytes: 1 << 30,
        storage_bytes: 1 << 40,
        until: Some(Millis(5000)),
        version: 2,
    };
    vec![
        applied(bob(), "hello"),
        Change::ApplicationWithdrawn { person: bob() },
        applied(carol(), ""),
        Change::ApplicationRejected { person: carol(), reason: reason() },
        admitted("bob@pisa", 2),
        Change::MemberSuspended { person: bob(), reason: reason() },
        Change::MemberResumed { person: bob() },
        Change::MemberExpirySet { person: bob(), expires: Some(Millis(9000)) },
        Change::RoleGranted { person: bob(), role: id("admin") },
        Change::RoleWithdrawn { person: bob(), role: id("admin") },
        Change::GroupCreated { name: id("physics"), number: GroupNumber(2) },
        Change::GroupMemberAdded { name: id("physics"), person: bob() },
        Change::GroupMemberRemoved { name: id("physics"), person: bob() },
        Change::SubgroupCreated {
            name: id("optics"),
            number: GroupNumber(3),
            parent: id("physics"),
        },
        Change::GroupManagerAdded { name: id("optics"), person: bob() },
        Change::GroupManagerRemoved { name: id("optics"), person: bob() },
        Change::GroupMoved { name: id("optics"), parent: None },
        Change::HandoverOffered { by: id("alice@rennes"), to: bob() },
        Change::HandoverEnded { by: id("alice@rennes") },
        Change::HandoverAccepted { by: id("alice@rennes"), to: bob() },
        Change::GroupDeleted { name: id("physics") },
        Change::MemberRemoved { person: bob(), reason: reason() },
        Change::Admitted {
            person: bob(),
            number: xos_base::MemberNumber(3),
            epoch: Epoch(9),
            groups: vec![],
            roles: vec![id("owner")],
            expires: Some(Millis(9000)),
        },
        Change::ShareOffered { site: id("pisa"), terms },
        Change::ShareRefused { site: id("pisa"), version: 2, reason: reason() },
        Change::VoSuspended { reason: reason(), by_site: true },
        Change::VoResumed {},
        Change::VolumeMade { name: "main".into() },
        Change::Described { title: "Demo 2".into(), description: reason() },
        Change::LeaseSet { lease_s: 7200 },
        Change::GraceSet { grace_s: 7200 },
        Change::RenewalSet { renewal_s: 7200 },
        Change::RulesChanged { base: 0, part: 0, more: true, put: vec![rule()], remove: vec![] },
        Change::RulesChanged {
            base: 0,
            part: 1,
            more: false,
            put: vec![],
            remove: vec![id("members-run")],
        },
        Change::FileAuditSet { opens: true },
        Change::ShareWithdrawn { site: id("pisa"), reason: reason() },
        Change::QuestionsSet {
            questions: vec![Question {
                id: "status".into(),
                text: "What are you?".into(),
                kind: QuestionKind::Choice,
                required: true,
                choices: vec!["staff".into(), "student".into()],
            }],
        },
        Change::TermsOfUseSet {
            version: 1,
            text: "Be kind.".into(),
            consent_days: Some(365),
            grace_days: 14,
        },
        Change::Agreed { person: id("alice@rennes"), version: 1 },
        Change::RemindersSet { days: vec![30, 7] },
        invitation(),
        Change::Joined {
            person: id("dave@pisa"),
            invitation: HASH[..16].into(),
            number: xos_base::MemberNumber(3),
            epoch: Epoch(1),
            agreed: Some(1),
            answers: Some(HASH.into()),
        },
        Change::InvitationWithdrawn { id: HASH[..16].into() },
        Change::VoDissolved { reason: reason(), by_site: false },
        Change::VoRestored {},
        Change::VoErased {},
    ]
}

const HASH: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

fn applied(person: xos_base::PersonId, message: &str) -> Change {
    let message = message.to_owned();
    Change::Applied { person, message, agreed: None, answers: None, invitation: None }
}

fn invitation() -> Change {
    Change::InvitationMade {
        id: HASH[..16].into(),
        hash: HASH.into(),
        by: id("alice@rennes"),
        gives: Gives {
            groups: vec![],
            roles: vec![id("pilot")],
            uses: 2,
            expires: Millis(9000),
            person: None,
            ends: Some(Millis(9000)),
            at_once: true,
        },
        hint: Some(HASH.into()),
    }
}

#[tokio::test]
async fn entries_of_a_hostile_home() {
    let rennes = Site::new("rennes").await;
    let all = log(&rennes, "demo.rennes", changes());
    let entries: Vec<Entry> = all.iter().map(|jws| reread(jws).unwrap()).collect();
    // The states between, so that a change meets the one that it was made for.
    let mut states = vec![Vo::found(&entries[0]).unwrap()];
    for entry in &entries[1..] {
        let mut next = states[states.len() - 1].clone();
        // Some kinds do not follow here, which is as good a state for the mutants.
        if next.check(entry).is_ok() {
            next.apply(entry);
        }
        states.push(next);
    }
    let mut samples: Vec<Vec<u8>> =
        entries.iter().map(|e| serde_json::to_vec(e).unwrap()).collect();
    samples.push(all[0].clone().into_bytes());
    let vo = id("demo.rennes");
    let mut turn = 0;
    survives(
        &samples,
        ROUNDS,
        |n| modest(n) + (2 << 20),
        |input| {
            let text = String::from_utf8_lossy(input);
            // Whether it is refused does not matter, only that it is answered.
            reread(&text).ok();
            open(&rennes.trust, &vo, &text).ok();
            let Ok(body) = serde_json::from_slice::<serde_json::Value>(input) else { return };
            let jws = rennes.signer.sign(Kind::VoLog, &body).unwrap();
            let Ok(entry) = open(&rennes.trust, &vo, &jws) else { return };
            Vo::found(&entry).ok();
            turn = (turn + 1) % states.len();
            let before = &states[turn];
            for number in [entry.number, before.number.saturating_add(1)] {
                let entry = Entry { number, ..entry.clone() };
                if before.check(&entry).is_ok() {
                    let mut after = before.clone();
                    after.apply(&entry);
                    // What is kept as a checkpoint must be read again.
                    let kept = serde_json::to_vec(&after).unwrap();
                    assert_eq!(serde_json::from_slice::<Vo>(&kept).unwrap(), after);
                }
            }
        },
    );
}
