//! Vom with real callers, a registry in memory and a real port.

// Tests end by panicking, and print why they are skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod audit;
mod audit_disk;
mod enrolment;
mod hostile;
mod invitations;
mod mutated;
mod names;
mod one_site;
mod rules;
mod structure;
mod told;
mod two_sites;
mod unserved;
mod why;
mod witnesses;
mod world;

use xos_api::vom::{Apply, Approve, FoundVo};
use xos_net::Caller;

fn id<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap()
}

/// Founds `demo.<site>` in alice's name.
async fn found(site: &world::Site) {
    let r = FoundVo { label: "demo".into(), title: "Demo".into(), description: String::new() };
    site.ask(&site.own("alice"), r).await.unwrap();
}

/// An application to a VO that has neither terms of use nor questions.
fn apply(vo: &str, message: &str) -> Apply {
    Apply { vo: id(vo), message: message.into(), agreed: None, answers: vec![] }
}

/// Lets a caller apply to a VO of `site` and alice approve.
async fn join(site: &world::Site, caller: &Caller, vo: &str) {
    site.ask(caller, apply(vo, "hello")).await.unwrap();
    let r = Approve {
        vo: id(vo),
        person: caller.person().unwrap(),
        groups: vec![],
        roles: vec![],
        expires: None,
    };
    site.ask(&site.own("alice"), r).await.unwrap();
}
