//! The API described by itself: an OpenAPI document (3.1.1) made from what a router serves and from
//! the types of its requests. Who reads it needs no other book for paths, fields and answers.
//!
//! What a schema cannot say (limits in characters, who may ask) stands in descriptions.

mod errors;
mod words;

use self::errors::{KINDS, response, status_only};
use self::words::{plain, summary};
use crate::router::{Router, Served};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use xos_api::openapi::GetOpenApi;
use xos_api::{Request, Subscribe};
use xos_base::Error;

/// The version of the API: the first part of its paths. What is added leaves it as it is.
const VERSION: &str = "1";
const ABOUT: &str = "XOS: virtual organizations, credentials and jobs of a grid's site. \
    docs/api.md shows how to begin. Times are milliseconds since 1970-01-01T00:00:00Z.";

/// What an operation takes and answers.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    name: fn() -> Cow<'static, str>,
    place: fn() -> Cow<'static, str>,
    takes: fn(&mut SchemaGenerator) -> Schema,
    answers: fn(&mut SchemaGenerator) -> Schema,
    stream: bool,
}

impl Shape {
    /// Of a request with one reply.
    pub(crate) fn of<R: Request>() -> Shape {
        Shape {
            name: <R as JsonSchema>::schema_name,
            place: <R as JsonSchema>::schema_id,
            takes: <R as JsonSchema>::json_schema,
            answers: SchemaGenerator::subschema_for::<R::Reply>,
            stream: false,
        }
    }

    /// Of a request with a stream of items.
    pub(crate) fn of_stream<S: Subscribe>() -> Shape {
        Shape {
            name: <S as JsonSchema>::schema_name,
            place: <S as JsonSchema>::schema_id,
            takes: <S as JsonSchema>::json_schema,
            answers: SchemaGenerator::subschema_for::<S::Item>,
            stream: true,
        }
    }

    /// The name of the request's type; it names the operation.
    pub fn name(&self) -> String {
        (self.name)().into_owned()
    }

    /// The part of the API that it belongs to: the module of its type.
    fn part(&self) -> String {
        (self.place)().split("::").nth(1).unwrap_or("other").to_owned()
    }
}

/// Serves the document of all that `router` serves by then, this request included. `more`:
/// documents' `paths` of what is served beside requests.
pub fn serve(router: &mut Router, more: &[Value]) {
    let said: Arc<OnceLock<Value>> = Arc::default();
    let told = said.clone();
    router.public::<GetOpenApi, _, _>(move |_, _| {
        let document = told.get().cloned();
        async move { document.ok_or_else(|| Error::unavailable("the core is only starting")) }
    });
    said.get_or_init(|| document(router, more));
}

/// The document of all that `router` serves, and of `more` paths.
pub fn document(router: &Router, more: &[Value]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.definitions_path = "/components/schemas".into();
        s.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    // First, so that no other type takes its name.
    let error = generator.subschema_for::<Error>().to_value();
    let (mut paths, mut parts) = (Map::new(), BTreeSet::new());
    for served in router.described() {
        parts.insert(served.shape.part());
        let operation = operation(&served, &mut generator);
        add(&mut paths, served.path, &served.method.as_str().to_lowercase(), operation);
    }
    for (path, methods) in more.iter().filter_map(Value::as_object).flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            parts.extend(operation["tags"][0].as_str().map(str::to_owned));
            add(&mut paths, path, method, operation.clone());
        }
    }
    let mut answers: Map<String, Value> =
        KINDS.iter().map(|k| (k.name.to_owned(), response(k.what, &error))).collect();
    for (name, what) in status_only() {
        answers.insert(name.to_owned(), response(what, &error));
    }
    let mut document = json!({
        "openapi": "3.1.1",
        "info": {
            "title": "XOS",
            "version": VERSION,
            "description": ABOUT,
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "/" }],
        "tags": parts.into_iter().map(|name| json!({ "name": name })).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "responses": answers,
            "securitySchemes": {
                "certificate": {
                    "type": "mutualTLS",
                    "description": "The certificate of a member, a node or a core.",
                },
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A token from signing in. It counts before a certificate.",
                },
            },
        },
    });
    plain(&mut document);
    document
}

fn add(paths: &mut Map<String, Value>, path: &str, method: &str, operation: Value) {
    let item = paths.entry(path).or_insert_with(|| json!({}));
    if let Value::Object(item) = item {
        item.insert(method.to_owned(), operation);
    }
}

fn operation(served: &Served<'_>, generator: &mut SchemaGenerator) -> Value {
    let shape = served.shape;
    let mut takes = (shape.takes)(generator).to_value();
    let answers = (shape.answers)(generator).to_value();
    let description = takes["description"].as_str().unwrap_or_default().to_owned();
    let security = match served.public {
        true => json!([]),
        false => json!([{ "certificate": [] }, { "token": [] }]),
    };
    let mut operation = json!({
        "operationId": shape.name(),
        "tags": [shape.part()],
        "summary": summary(&description),
        "description": description,
        "responses": responses(served, &answers),
        "security": security,
    });
    let mut parameters: Vec<Value> = path_fields(served.path)
        .map(|name| parameter("path", name, true, taken(&mut takes, name)))
        .collect();
    if served.method.has_body() {
        let needed = takes["required"].as_array().is_some_and(|names| !names.is_empty());
        operation["requestBody"] = json!({
            "required": needed,
            "content": { "application/json": { "schema": takes } },
        });
    } else {
        let names: Vec<String> =
            takes["properties"].as_object().into_iter().flatten().map(|(n, _)| n.clone()).collect();
        for name in names {
            let required = is_required(&takes, &name);
            let schema = taken(&mut takes, &name);
            parameters.push(parameter("query", &name, required, without_null(schema)));
        }
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}

/// The fields that a path names in braces.
fn path_fields(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}'))
}

fn is_required(takes: &Value, name: &str) -> bool {
    takes["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name))
}

/// Takes the schema of a field out of an object's.
fn taken(takes: &mut Value, name: &str) -> Value {
    if let Some(names) = takes.get_mut("required").and_then(Value::as_array_mut) {
        names.retain(|n| n != name);
    }
    let fields = takes.get_mut("properties").and_then(Value::as_object_mut);
    fields.and_then(|fields| fields.remove(name)).unwrap_or(Value::Bool(true))
}

fn parameter(place: &str, name: &str, required: bool, mut schema: Value) -> Value {
    let words = schema.as_object_mut().and_then(|s| s.remove("description"));
    let mut parameter = json!({ "in": place, "name": name, "required": required });
    parameter["schema"] = schema;
    if let Some(words) = words {
        parameter["description"] = words;
    }
    parameter
}

/// A query has no null: what is absent is left out.
fn without_null(schema: Value) -> Value {
    let Value::Object(mut schema) = schema else { return schema };
    let null = json!("null");
    if let Some(kind) = schema.get_mut("type")
        && let Value::Array(kinds) = kind
    {
        kinds.retain(|k| *k != null);
        if kinds.len() == 1 {
            let one = kinds.remove(0);
            *kind = one;
        }
    }
    if let Some(Value::Array(of)) = schema.get_mut("anyOf") {
        of.retain(|s| s["type"] != null);
        if let [Value::Object(one)] = of.as_slice() {
            let one = one.clone();
            schema.remove("anyOf");
            schema.extend(one);
        }
    }
    Value::Object(schema)
}

fn responses(served: &Served<'_>, answers: &Value) -> Value {
    let content = if served.shape.stream {
        let line = json!({
            "description": "One such text a line; an empty line is a sign of life. An error ends \
                            the stream.",
            "oneOf": [
                {
                    "type": "object",
                    "properties": { "ok": answers },
                    "required": ["ok"],
                    "additionalProperties": false,
                },
                {
                    "type": "object",
                    "properties": { "error": { "$ref": "#/components/schemas/Error" } },
                    "required": ["error"],
                    "additionalProperties": false,
                },
            ],
        });
        json!({ "application/x-ndjson": { "schema": line } })
    } else {
        json!({ "application/json": { "schema": answers } })
    };
    let mut responses = json!({ "200": { "description": "It was done.", "content": content } });
    let mut refused = |status: u16, name: &str| {
        responses[status.to_string()] = json!({ "$ref": format!("#/components/responses/{name}") });
    };
    for kind in &KINDS {
        refused(kind.kind.http_status(), kind.name);
    }
    if served.method.has_body() {
        refused(415, "UnsupportedMediaType");
    }
    responses
}

#[cfg(test)]
mod tests;
