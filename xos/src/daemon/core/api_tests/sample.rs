//! A request made from what the document says of it: with ids of mia's, and otherwise as little as
//! it takes.

use super::world::{DEMO, MIA};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use xos_api::Method;

/// What each kind of id is in samples.
const IDS: [(&str, &str); 11] = [
    ("VoId", DEMO),
    ("PersonId", MIA),
    ("JobId", "1.rennes"),
    ("UnitId", "1.rennes:0"),
    ("NodeId", "n1.rennes"),
    ("ClusterId", "c1.rennes"),
    ("SiteId", "pisa"),
    ("ProviderId", "uni"),
    ("GroupName", "physics"),
    ("RoleName", "editor"),
    ("LocalName", "mia"),
];
/// Texts of which something else than one letter is wanted.
const TEXTS: [(&str, &str); 8] = [
    ("name", "physics"),
    ("label", "fresh"),
    ("who", "*"),
    ("what", "*"),
    ("password", "a long enough password"),
    ("digest", "0000000000000000000000000000000000000000000000000000000000000000"),
    ("node_key", "0000000000000000000000000000000000000000000000000000000000000000"),
    ("key", "0000000000000000000000000000000000000000000000000000000000000000"),
];

/// A request as it is sent.
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub body: Bytes,
}

/// A request for what is mia's.
pub fn request(document: &Value, method: Method, path: &str, operation: &Value) -> Asked {
    let mut asked =
        Asked { method, path: path.to_owned(), query: String::new(), body: Bytes::new() };
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap();
        let text = match value(document, &parameter["schema"], name) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        if parameter["in"] == "path" {
            asked.path = asked.path.replace(&format!("{{{name}}}"), &text);
        } else if parameter["required"] == true {
            let joint = if asked.query.is_empty() { "" } else { "&" };
            asked.query += &format!("{joint}{name}={text}");
        }
    }
    assert!(!asked.path.contains('{'), "a field of {path} is not described");
    if method.has_body() {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        asked.body = value(document, schema, "").to_string().into();
    }
    asked
}

/// The least that a schema takes. `name`: the field's.
pub fn value(document: &Value, schema: &Value, name: &str) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let kind = reference.rsplit('/').next().unwrap();
        if let Some((_, id)) = IDS.iter().find(|(k, _)| *k == kind) {
            return json!(id);
        }
        return value(document, &document["components"]["schemas"][kind], name);
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(first) = schema[choice].as_array().and_then(|of| of.first()) {
            // What stands beside a choice counts with each of them.
            return merged(value(document, first, name), object(document, schema));
        }
    }
    if let Some(all) = schema["allOf"].as_array() {
        let parts = all.iter().map(|part| value(document, part, name));
        return parts.fold(object(document, schema), merged);
    }
    if let Some(only) = schema.get("const") {
        return only.clone();
    }
    if let Some(first) = schema["enum"].as_array().and_then(|of| of.first()) {
        return first.clone();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.first().and_then(Value::as_str),
        kind => kind.as_str(),
    };
    match kind {
        Some("object") => object(document, schema),
        Some("array") if schema.get("prefixItems").is_some() => {
            let items = schema["prefixItems"].as_array().unwrap();
            items.iter().map(|item| value(document, item, "")).collect()
        }
        Some("array") => json!([value(document, &schema["items"], "")]),
        Some("integer" | "number") => json!(schema["minimum"].as_u64().unwrap_or(0).max(1)),
        Some("boolean") => json!(false),
        Some("null") => Value::Null,
        Some(_) => {
            let text = TEXTS.iter().find(|(field, _)| *field == name);
            json!(text.map_or("x", |(_, text)| *text))
        }
        None => json!({}),
    }
}

fn object(document: &Value, schema: &Value) -> Value {
    let mut fields = Map::new();
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        fields.insert(name.to_owned(), value(document, &schema["properties"][name], name));
    }
    Value::Object(fields)
}

fn merged(one: Value, other: Value) -> Value {
    match (one, other) {
        (Value::Object(mut one), Value::Object(other)) => {
            one.extend(other);
            Value::Object(one)
        }
        (one, _) => one,
    }
}
