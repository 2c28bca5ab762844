//! What the document says of requests of each shape.

use super::*;
use serde::{Deserialize, Serialize};
use xos_api::{Done, request, subscribe};
use xos_base::{SiteId, VoId};

/// Names somebody. More [`Name`] words.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Name {
    /// The VO.
    vo: VoId,
    /// What they are called.
    title: String,
    #[serde(default)]
    note: Option<String>,
}
request!(Name => Done, Post "/v1/names/{vo}");

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Look {
    vo: VoId,
    /// Only after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<SiteId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    all: bool,
}
request!(Look => Vec<SiteId>, Get "/v1/names/{vo}");

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Hear {}
subscribe!(Hear => u32, Get "/v1/heard");

fn described() -> Value {
    let mut router = Router::new();
    router.on::<Name, _, _>(|_, _| async { Ok(Done {}) });
    router.public::<Look, _, _>(|_, _| async { Ok(Vec::new()) });
    router.stream::<Hear, _, _, _>(|_, _| async {
        Ok(futures_util::stream::empty::<Result<u32, Error>>())
    });
    let more = json!({ "/form": { "post": { "operationId": "form", "tags": ["forms"] } } });
    document(&router, &[more])
}

/// If it failed, programs that are made from the document would send what is refused.
#[test]
fn fields_stand_where_they_travel() {
    let document = described();
    let post = &document["paths"]["/v1/names/{vo}"]["post"];
    assert_eq!(post["operationId"], "Name");
    assert_eq!(post["summary"], "Names somebody.");
    assert_eq!(post["description"], "Names somebody. More `Name` words.");
    assert_eq!(post["parameters"][0]["in"], "path");
    assert_eq!(post["parameters"][0]["schema"]["$ref"], "#/components/schemas/VoId");
    assert_eq!(post["parameters"][0]["description"], "The VO.");
    let body = &post["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(body["required"], json!(["title"]));
    assert_eq!(body["additionalProperties"], false);
    assert!(body["properties"].get("vo").is_none(), "{body}");
    assert_eq!(post["security"], json!([{ "certificate": [] }, { "token": [] }]));
    assert_eq!(post["responses"]["415"]["$ref"], "#/components/responses/UnsupportedMediaType");

    let get = &document["paths"]["/v1/names/{vo}"]["get"];
    assert_eq!(get["security"], json!([]));
    assert!(get.get("requestBody").is_none() && get["responses"].get("415").is_none());
    let query = |name: &str| {
        let found = get["parameters"].as_array().unwrap().iter().find(|p| p["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {get}")).clone()
    };
    assert_eq!(query("after")["schema"], json!({ "$ref": "#/components/schemas/SiteId" }));
    assert_eq!(query("limit")["schema"]["type"], "integer");
    assert_eq!(query("limit")["required"], false);
    assert_eq!(query("all")["required"], true);
    assert_eq!(query("vo")["in"], "path");
}

#[test]
fn streams_errors_and_forms_are_there() {
    let document = described();
    let heard = &document["paths"]["/v1/heard"]["get"]["responses"];
    let line = &heard["200"]["content"]["application/x-ndjson"]["schema"]["oneOf"];
    assert_eq!(line[0]["properties"]["ok"]["type"], "integer");
    assert_eq!(heard["503"]["$ref"], "#/components/responses/Unavailable");
    let error = &document["components"]["responses"]["Unavailable"]["content"];
    assert_eq!(error["application/json"]["schema"]["$ref"], "#/components/schemas/Error");
    assert!(document["components"]["schemas"]["Error"]["properties"]["hint"].is_object());
    assert_eq!(document["paths"]["/form"]["post"]["operationId"], "form");
    let tags: Vec<&str> =
        document["tags"].as_array().unwrap().iter().filter_map(|t| t["name"].as_str()).collect();
    assert!(tags.contains(&"forms"), "{tags:?}");
}

/// A reference that leads nowhere makes tools refuse the whole document.
#[test]
fn every_reference_leads_somewhere() {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|v| walk(v, found));
            }
            Value::Array(values) => values.iter().for_each(|v| walk(v, found)),
            _ => {}
        }
    }
    let document = described();
    let mut found = Vec::new();
    walk(&document, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}
