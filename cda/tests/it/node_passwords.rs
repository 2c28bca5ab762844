//! Passwords that people type at machines of their own site.

use crate::machines::node;
use crate::oidc::provider;
use crate::passkeys::device::Device;
use crate::passkeys::with_second_factor;
use crate::world::{ADMIN_PASSWORD, World};
use std::time::Duration;
use xos_api::cda::{
    CheckNodePassword, CreatePerson, NodeLogin, Password, RemoveNode, SetPassword, SetPerson,
};
use xos_base::{Error, Kind};
use xos_net::Caller;

const SPELL: Duration = Duration::from_secs(30);

fn typed(node: &Caller, person: &str, password: &str) -> CheckNodePassword {
    let login = NodeLogin {
        node: node.node().unwrap().clone(),
        user: "alice.demo.rennes".into(),
        service: "sudo".into(),
        person: person.parse().unwrap(),
        vo: None,
    };
    CheckNodePassword { login, password: Password(password.into()) }
}

async fn check(w: &World, node: &Caller, password: &str) -> Result<(), Kind> {
    let checked = w.call(node, typed(node, "alice@rennes", password)).await;
    checked.map(drop).map_err(|e| e.kind)
}

#[track_caller]
fn denied<T: std::fmt::Debug>(result: Result<T, Error>, word: &str) {
    let e = result.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains(word), "{e}");
}

/// If it failed, a person could not come in by their password, or somebody by another.
#[tokio::test]
async fn the_right_password_counts_and_no_other() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    let n1 = node(&w, "n1").await;
    check(&w, &n1, ADMIN_PASSWORD).await.unwrap();
    for wrong in ["", "correct horse batter", &"x".repeat(2000)] {
        assert_eq!(check(&w, &n1, wrong).await, Err(Kind::Unauthenticated), "{wrong:?}");
    }
    let set = SetPassword {
        person: "alice@rennes".parse().unwrap(),
        present: Some(Password(ADMIN_PASSWORD.into())),
        password: Password("a new password".into()),
    };
    w.call(&alice, set).await.unwrap();
    assert_eq!(check(&w, &n1, ADMIN_PASSWORD).await, Err(Kind::Unauthenticated));
    check(&w, &n1, "a new password").await.unwrap();
}

/// If it failed, other sites, people or machines that were removed could try passwords here.
#[tokio::test]
async fn only_a_node_of_the_site_asks_for_itself_and_its_sites_people() {
    let (w, pisa) = (World::new("rennes").await, World::new("pisa").await);
    w.trusts(&pisa);
    let alice = w.person("alice").await;
    let (n1, n2) = (node(&w, "n1").await, node(&w, "n2").await);
    let good = |who: &Caller| typed(who, "alice@rennes", ADMIN_PASSWORD);
    for caller in [&alice, &w.root().await, &w.core_of(&pisa)] {
        denied(w.call(caller, good(&n1)).await, "is not a node");
    }
    denied(w.call(&n2, good(&n1)).await, "does not ask for n1.rennes");
    let foreign = node(&pisa, "n1").await;
    denied(w.call(&foreign, good(&foreign)).await, "is no machine of site rennes");
    denied(w.call(&n1, typed(&n1, "petra@pisa", ADMIN_PASSWORD)).await, "is not of site rennes");
    let mut odd = good(&n1);
    odd.login.service = "sudo as root; say yes".into();
    assert_eq!(w.call(&n1, odd).await.unwrap_err().kind, Kind::Invalid);
    let removed = RemoveNode { node: n1.node().unwrap().clone() };
    w.call(&w.root().await, removed).await.unwrap();
    denied(w.call(&n1, good(&n1)).await, "is no machine of site rennes");
}

/// If it failed, a password would be enough for who is let in by more, or no more; or a machine
/// would learn whether it is right.
#[tokio::test]
async fn whom_a_password_alone_does_not_let_in_is_refused_right_or_wrong() {
    let w = World::new("rennes").await;
    with_second_factor(&w, &mut Device::new()).await;
    let root = w.root().await;
    let bob = CreatePerson {
        name: "bob".into(),
        password: Password(ADMIN_PASSWORD.into()),
        site_admin: false,
    };
    w.call(&root, bob).await.unwrap();
    let disable =
        SetPerson { person: "bob@rennes".parse().unwrap(), disabled: Some(true), site_admin: None };
    w.call(&root, disable).await.unwrap();
    let n1 = node(&w, "n1").await;
    for person in ["alice@rennes", "bob@rennes", "nobody@rennes"] {
        for password in [ADMIN_PASSWORD, "a wrong password"] {
            denied(w.call(&n1, typed(&n1, person, password)).await, "is taken at machines");
        }
    }
    let (dir, store) = (w.dir.clone(), w.store.clone());
    let without = World::open(w.site.clone(), dir, store, w.clock.clone(), |c| {
        c.providers.push(provider("http://127.0.0.1:1", ""));
        c.passwords = false;
    });
    let without = without.await.unwrap();
    let asked = typed(&n1, "root@rennes", ADMIN_PASSWORD);
    denied(without.call(&n1, asked).await, "takes no passwords");
}

/// If it failed, a node that somebody broke into could guess passwords as fast as it can ask, or
/// keep people from signing in elsewhere.
#[tokio::test]
async fn a_node_that_guesses_is_slowed_and_locks_nobody_out() {
    let w = World::new("rennes").await;
    w.person("alice").await;
    let (n1, n2) = (node(&w, "n1").await, node(&w, "n2").await);
    let mut tried = 0;
    while check(&w, &n1, "guess").await == Err(Kind::Unauthenticated) {
        tried += 1;
        assert!(tried < 20, "no limit holds");
    }
    assert_eq!(check(&w, &n1, ADMIN_PASSWORD).await, Err(Kind::Limited), "the right one as well");
    check(&w, &n2, ADMIN_PASSWORD).await.expect("another machine");
    w.sign_in("alice", ADMIN_PASSWORD).await.expect("the sign-in");
    w.clock.advance(SPELL);
    check(&w, &n1, ADMIN_PASSWORD).await.expect("time heals");
}
