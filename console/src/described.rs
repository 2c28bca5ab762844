//! What programs are served beside requests, for the API's document (OpenAPI 3.1).

use crate::scim;
use serde_json::{Map, Value, json};
use xos_api::cda::{DEVICE_GRANT_PATH, INTROSPECT_PATH, REVOKE_PATH, TOKEN_PATH, USERINFO_PATH};

/// The `paths` of OAuth's endpoints and of SCIM. Pages for people are left out.
pub fn described() -> Value {
    let mut paths = Map::new();
    let mut add = |path: &str, method: &str, operation: Value| {
        paths.entry(path).or_insert_with(|| json!({}))[method] = operation;
    };
    add(TOKEN_PATH, "post", form("OAuthToken", "Gives a client tokens (RFC 6749, 3.2)."));
    let device = "Begins a sign-in by another device (RFC 8628, 3.1).";
    add(DEVICE_GRANT_PATH, "post", form("OAuthDevice", device));
    let introspect = "Tells a service about a token (RFC 7662).";
    add(INTROSPECT_PATH, "post", form("OAuthIntrospect", introspect));
    add(REVOKE_PATH, "post", form("OAuthRevoke", "Takes a token back (RFC 7009)."));
    let info = "The claims of a token's person (OpenID Connect Core, 5.3).";
    add(USERINFO_PATH, "get", operation("OAuthUserInfo", info, json!([{ "token": [] }])));
    add(USERINFO_PATH, "post", operation("OAuthUserInfoPost", info, json!([{ "token": [] }])));
    if let Value::Object(more) = scim::described() {
        paths.extend(more);
    }
    Value::Object(paths)
}

fn form(name: &str, what: &str) -> Value {
    let mut described = operation(name, what, json!([]));
    let fields = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    described["requestBody"] = json!({
        "required": true,
        "content": { "application/x-www-form-urlencoded": { "schema": fields } },
    });
    described
}

fn operation(name: &str, what: &str, security: Value) -> Value {
    let object = json!({ "application/json": { "schema": { "type": "object" } } });
    json!({
        "operationId": name,
        "tags": ["oauth"],
        "summary": what,
        "description": what,
        "security": security,
        "responses": {
            "200": { "description": "What was asked for.", "content": object },
            "default": { "description": "An error (RFC 6749, 5.2).", "content": object },
        },
    })
}
