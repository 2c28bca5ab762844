//! What tests of the agent share: the VO `demo.rennes` as a node knows it, and Ann, a member.

use super::config::Login;
use super::vos::Vos;
use serde_json::json;
use xos_api::vom::{AccountMember, VoAccounts};
use xos_base::local::Account;
use xos_base::{Epoch, Group, GroupNumber, MemberNumber, Membership};

/// Where the local ids of the VO begin.
pub(super) const BASE: u32 = 1_900_000_000;

/// `[node.login]` with nothing in it.
pub(super) fn login() -> Login {
    xos_base::config::parse("test", "").unwrap()
}

/// The account of a member who has this state, in no group but `members`.
pub(super) fn member(number: u32, name: &str, state: &str) -> AccountMember {
    serde_json::from_value(json!({
        "number": number, "person": format!("{name}@rennes"),
        "name": format!("{name}.demo.rennes"), "state": state, "epoch": 4, "since": 0,
        "groups": [],
    }))
    .unwrap()
}

/// The whole VO with these members, as its core tells it.
pub(super) fn accounts(members: Vec<AccountMember>) -> VoAccounts {
    serde_json::from_value(json!({
        "vo": "demo.rennes", "number": 1, "full": true, "more": false, "base": BASE,
        "size": 65_536, "state": "active", "members": members,
        "groups": [{"name": "members", "number": 1}, {"name": "physics", "number": 2}],
    }))
    .unwrap()
}

/// What a node knows that was told of these members: number, name, state.
pub(super) fn vos(members: &[(u32, &str, &str)]) -> Vos {
    let members = members.iter().map(|(number, name, state)| member(*number, name, state));
    let mut vos = Vos::default();
    vos.apply(accounts(members.collect()));
    vos
}

/// Ann's account.
pub(super) fn account() -> Account {
    Account {
        name: "ann.demo.rennes".into(),
        uid: BASE + 7,
        gid: BASE + 1,
        home: "/home/xos/ann.demo.rennes".into(),
        person: "ann@rennes".parse().unwrap(),
        vo: "demo.rennes".parse().unwrap(),
        number: MemberNumber(7),
        epoch: Epoch(4),
        expires: None,
    }
}

/// Her membership.
pub(super) fn membership() -> Membership {
    Membership {
        vo: "demo.rennes".parse().unwrap(),
        person: "ann@rennes".parse().unwrap(),
        number: MemberNumber(7),
        epoch: Epoch(4),
        groups: vec![Group { name: "members".parse().unwrap(), number: GroupNumber(1) }],
        roles: vec![],
        expires: None,
    }
}
