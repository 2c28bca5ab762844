//! The shapes of RFC 7643, section 8, as far as members and groups have them.

use super::*;
use xos_api::vom::MemberState;
use xos_base::{Epoch, MemberNumber};

const BASE: &str = "https://core.test/scim/v2/demo.rennes";

fn member() -> MemberInfo {
    MemberInfo {
        person: "alice@rennes".parse().unwrap(),
        number: MemberNumber(7),
        epoch: Epoch(1),
        groups: vec!["members".parse().unwrap(), "physics".parse().unwrap()],
        roles: vec!["admin".parse().unwrap()],
        since: Millis(1_795_000_000_000),
        expires: None,
        state: MemberState::Active,
        acts: true,
    }
}

fn shown(member: &MemberInfo) -> Value {
    let number = |name: &str| Some(GroupNumber(if name == "members" { 1 } else { 2 }));
    user(member, number, BASE)
}

/// If it failed, services would keep accounts of people who may not act.
#[test]
fn a_member_is_a_user_as_the_standard_shows_it() {
    let user = shown(&member());
    assert_eq!(user["schemas"], json!([USER]));
    assert_eq!(user["userName"], "alice@rennes");
    assert_eq!(user["active"], true);
    assert_eq!(user["groups"][1]["value"], "2");
    assert_eq!(user["groups"][1]["$ref"], format!("{BASE}/Groups/2"));
    assert_eq!(user["meta"]["resourceType"], "User");
    assert_eq!(user["meta"]["location"], format!("{BASE}/Users/alice@rennes"));
    let created = user["meta"]["created"].as_str().unwrap();
    assert!(created.starts_with("2026-") && created.ends_with('Z'), "{created}");
    assert_eq!(shown(&MemberInfo { acts: false, ..member() })["active"], false);
}

#[test]
fn a_version_changes_with_what_is_shown_and_with_nothing_else() {
    let version = |m: &MemberInfo| shown(m)["meta"]["version"].clone();
    assert_eq!(version(&member()), version(&member()));
    assert_ne!(version(&member()), version(&MemberInfo { roles: vec![], ..member() }));
    assert!(version(&member()).as_str().unwrap().starts_with("W/\""));
}

#[test]
fn attributes_are_left_out_on_wish_but_never_the_id() {
    let only = Attributes::parse("USERNAME, urn:ietf:params:scim:schemas:core:2.0:User:roles", "");
    let user = only.unwrap().of(shown(&member()));
    let mut names: Vec<&str> = user.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["id", "meta", "roles", "schemas", "userName"]);
    let without = Attributes::parse("", "members.value,id").unwrap();
    assert!(!without.show("members") && without.show("id") && without.show("displayName"));
    assert!(Attributes::parse("a", "b").is_err());
}

#[test]
fn a_group_names_its_members() {
    let name = "physics".parse().unwrap();
    let info =
        GroupInfo { name, number: GroupNumber(2), members: 1, parent: None, managers: vec![] };
    let shown = group(&info, Some(&["alice@rennes".parse().unwrap()]), BASE);
    assert_eq!((&shown["id"], &shown["displayName"]), (&json!("2"), &json!("physics")));
    assert_eq!(shown["members"][0]["value"], "alice@rennes");
    assert!(group(&info, None, BASE).get("members").is_none());
    let page = list(vec![shown], 5, 3);
    assert_eq!((&page["totalResults"], &page["itemsPerPage"]), (&json!(5), &json!(1)));
    for resource in resource_types(BASE).iter().chain(&schemas(BASE)) {
        assert!(resource["id"].is_string() && resource["meta"]["location"].is_string());
    }
}
