//! Members and groups as resources (RFC 7643), and what is said about them.

use super::answers::Refused;
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use xos_api::vom::{GroupInfo, MemberInfo};
use xos_base::{GroupNumber, Millis, PersonId};

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
const LIST: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";
const CONFIG: &str = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig";
const TYPE: &str = "urn:ietf:params:scim:schemas:core:2.0:ResourceType";
const SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:Schema";
/// Attributes that every resource shows, whatever was asked for.
const ALWAYS: [&str; 3] = ["schemas", "id", "meta"];

/// A member. `number`: the number of a group by its name.
pub(super) fn user(
    member: &MemberInfo,
    number: impl Fn(&str) -> Option<GroupNumber>,
    base: &str,
) -> Value {
    let groups: Vec<Value> = member
        .groups
        .iter()
        .filter_map(|name| {
            let number = number(name.as_str())?;
            Some(json!({
                "value": number.to_string(),
                "display": name,
                "type": "direct",
                "$ref": format!("{base}/Groups/{number}"),
            }))
        })
        .collect();
    let roles: Vec<Value> = member.roles.iter().map(|role| json!({ "value": role })).collect();
    let resource = json!({
        "schemas": [USER],
        "id": member.person,
        "externalId": member.person,
        "userName": member.person,
        "displayName": member.person.name(),
        "active": member.acts,
        "groups": groups,
        "roles": roles,
    });
    let place = format!("{base}/Users/{}", member.person);
    with_meta(resource, "User", &place, Some(member.since))
}

/// A group; `members`: absent where they are not asked for.
pub(super) fn group(group: &GroupInfo, members: Option<&[PersonId]>, base: &str) -> Value {
    let mut resource = json!({
        "schemas": [GROUP],
        "id": group.number.to_string(),
        "externalId": group.name,
        "displayName": group.name,
    });
    if let Some(members) = members {
        let members = members.iter().map(|person| {
            json!({
                "value": person,
                "display": person.name(),
                "type": "User",
                "$ref": format!("{base}/Users/{person}"),
            })
        });
        resource["members"] = members.collect();
    }
    with_meta(resource, "Group", &format!("{base}/Groups/{}", group.number), None)
}

/// The version is of what is shown, so that it changes with it and with nothing else.
fn with_meta(mut resource: Value, kind: &str, place: &str, created: Option<Millis>) -> Value {
    let sum = digest(&SHA256, resource.to_string().as_bytes());
    let mut version = String::from("W/\"");
    for byte in &sum.as_ref()[..8] {
        // Writing to a String cannot fail.
        let _ = write!(version, "{byte:02x}");
    }
    version.push('"');
    let mut meta = json!({ "resourceType": kind, "location": place, "version": version });
    if let Some(created) = created {
        meta["created"] = created.to_string().into();
    }
    resource["meta"] = meta;
    resource
}

/// A part of a list (RFC 7644, 3.4.2).
pub(super) fn list(resources: Vec<Value>, total: usize, start: usize) -> Value {
    json!({
        "schemas": [LIST],
        "totalResults": total,
        "startIndex": start,
        "itemsPerPage": resources.len(),
        "Resources": resources,
    })
}

/// Which attributes are shown (RFC 7644, 3.9). Names count without regard to case, and what is
/// below an attribute stands for all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    only: Vec<String>,
    without: Vec<String>,
}

impl Attributes {
    /// Reads `attributes` and `excludedAttributes`.
    ///
    /// # Errors
    /// [`Refused`] when both are there.
    pub(super) fn parse(only: &str, without: &str) -> Result<Attributes, Refused> {
        let names = |text: &str| -> Vec<String> {
            let names = text.split(',').map(|name| {
                let name = name.trim();
                let name =
                    name.strip_prefix("urn:").and_then(|n| n.rsplit(':').next()).unwrap_or(name);
                name.split('.').next().unwrap_or_default().to_ascii_lowercase()
            });
            names.filter(|name| !name.is_empty()).collect()
        };
        if !only.is_empty() && !without.is_empty() {
            return Err(Refused::value("attributes and excludedAttributes exclude one another"));
        }
        Ok(Attributes { only: names(only), without: names(without) })
    }

    /// Whether an attribute is shown.
    pub(super) fn show(&self, name: &str) -> bool {
        let among = |list: &[String]| list.iter().any(|n| n.eq_ignore_ascii_case(name));
        ALWAYS.contains(&name)
            || (!among(&self.without) && (self.only.is_empty() || among(&self.only)))
    }

    /// The resource with what is shown.
    pub(super) fn of(&self, resource: Value) -> Value {
        match resource {
            Value::Object(fields) => Value::Object(
                fields.into_iter().filter(|(name, _)| self.show(name)).collect::<Map<_, _>>(),
            ),
            other => other,
        }
    }
}

/// What is done here (RFC 7643, 5).
pub(super) fn provider_config(base: &str, results_max: usize) -> Value {
    let no = || json!({ "supported": false });
    json!({
        "schemas": [CONFIG],
        "patch": no(),
        "bulk": { "supported": false, "maxOperations": 0, "maxPayloadSize": 0 },
        "filter": { "supported": true, "maxResults": results_max },
        "changePassword": no(),
        "sort": no(),
        "etag": { "supported": true },
        "authenticationSchemes": [{
            "type": "oauthbearertoken",
            "name": "Token",
            "description": "A token of the VO with the role admin (RFC 6750)",
            "primary": true,
        }],
        "meta": {
            "resourceType": "ServiceProviderConfig",
            "location": format!("{base}/ServiceProviderConfig"),
        },
    })
}

/// What kinds of resources there are (RFC 7643, 6).
pub(super) fn resource_types(base: &str) -> Vec<Value> {
    let kind = |name: &str, endpoint: &str, schema: &str| {
        json!({
            "schemas": [TYPE],
            "id": name,
            "name": name,
            "endpoint": endpoint,
            "schema": schema,
            "meta": {
                "resourceType": "ResourceType",
                "location": format!("{base}/ResourceTypes/{name}"),
            },
        })
    };
    vec![kind("User", "/Users", USER), kind("Group", "/Groups", GROUP)]
}

/// The attributes that are shown (RFC 7643, 7).
pub(super) fn schemas(base: &str) -> Vec<Value> {
    let attribute = |name: &str, kind: &str, many: bool, what: &str| {
        json!({
            "name": name,
            "type": kind,
            "multiValued": many,
            "description": what,
            "required": false,
            "caseExact": true,
            "mutability": "readOnly",
            "returned": "default",
            "uniqueness": "none",
        })
    };
    let schema = |id: &str, name: &str, what: &str, attributes: Vec<Value>| {
        json!({
            "schemas": [SCHEMA],
            "id": id,
            "name": name,
            "description": what,
            "attributes": attributes,
            "meta": { "resourceType": "Schema", "location": format!("{base}/Schemas/{id}") },
        })
    };
    let of_users = vec![
        attribute("userName", "string", false, "The person: <name>@<site>"),
        attribute("displayName", "string", false, "The person's name at their site"),
        attribute("active", "boolean", false, "Whether the member can act in the VO now"),
        attribute("groups", "complex", true, "The groups, by number"),
        attribute("roles", "complex", true, "The roles in the VO"),
    ];
    let of_groups = vec![
        attribute("displayName", "string", false, "The group's name"),
        attribute("members", "complex", true, "The members, by person"),
    ];
    vec![
        schema(USER, "User", "A member of the VO", of_users),
        schema(GROUP, "Group", "A group of the VO", of_groups),
    ]
}

#[cfg(test)]
mod tests;
