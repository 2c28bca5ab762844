//! SCIM's answers and errors (RFC 7644, 3.12, 3.14), and what the API's document says of them.

use super::ROOT;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, WWW_AUTHENTICATE,
};
use serde_json::{Value, json};
use xos_base::ids::IdError;
use xos_base::{Error, Kind};

/// The type of all answers (RFC 7644, 8.1).
pub(super) const SCIM: &str = "application/scim+json";
const ERROR: &str = "urn:ietf:params:scim:api:messages:2.0:Error";

/// What is shown.
#[derive(Debug)]
pub(super) struct Shown(pub(super) Value);

impl Shown {
    /// The response; `known`: the version that the client has already.
    pub(super) fn response(&self, known: Option<&HeaderValue>) -> HttpResponse {
        let version = self.0["meta"]["version"].as_str();
        let same = version.is_some_and(|v| {
            let known = known.and_then(|k| k.to_str().ok()).unwrap_or_default();
            known.split(',').any(|k| k.trim() == v)
        });
        let status = if same { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        let mut response = HttpResponse::build(status);
        response.insert_header((CACHE_CONTROL, "no-store"));
        if let Some(version) = version {
            response.insert_header((ETAG, version));
        }
        if same {
            return response.finish();
        }
        response.insert_header((CONTENT_TYPE, SCIM)).body(self.0.to_string())
    }
}

/// Why nothing is shown.
#[derive(Debug)]
pub(super) struct Refused {
    status: u16,
    /// `scimType` (RFC 7644, table 9).
    kind: Option<&'static str>,
    detail: String,
}

impl Refused {
    /// Of a filter that is not understood.
    pub(super) fn filter(detail: impl Into<String>) -> Refused {
        Refused { status: 400, kind: Some("invalidFilter"), detail: detail.into() }
    }

    /// Of a parameter that is out of its limits.
    pub(super) fn value(detail: impl Into<String>) -> Refused {
        Refused { status: 400, kind: Some("invalidValue"), detail: detail.into() }
    }

    /// Of more than one answer holds.
    pub(super) fn too_many(detail: impl Into<String>) -> Refused {
        Refused { status: 400, kind: Some("tooMany"), detail: detail.into() }
    }

    /// Of every method that changes something.
    pub(super) fn read_only() -> Refused {
        let detail = "members and groups are changed by the API and the console, not by SCIM";
        Refused { status: 405, kind: None, detail: detail.to_owned() }
    }

    /// The response.
    pub(super) fn response(&self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        response.insert_header((CACHE_CONTROL, "no-store"));
        match self.status {
            401 => {
                response.insert_header((WWW_AUTHENTICATE, "Bearer realm=\"xos\""));
            }
            405 => {
                response.insert_header((ALLOW, "GET"));
            }
            _ => {}
        }
        let mut said = json!({
            "schemas": [ERROR],
            "status": self.status.to_string(),
            "detail": self.detail,
        });
        if let Some(kind) = self.kind {
            said["scimType"] = kind.into();
        }
        response.insert_header((CONTENT_TYPE, SCIM)).body(said.to_string())
    }
}

impl From<Error> for Refused {
    fn from(e: Error) -> Refused {
        let kind = (e.kind == Kind::Invalid).then_some("invalidValue");
        Refused { status: e.kind.http_status(), kind, detail: e.to_string() }
    }
}

impl From<IdError> for Refused {
    fn from(e: IdError) -> Refused {
        Error::from(e).into()
    }
}

/// The paths for the API's document.
pub(super) fn described() -> Value {
    let text = |name: &str, what: &str| {
        json!({
            "in": "query", "name": name, "required": false, "description": what,
            "schema": { "type": "string" },
        })
    };
    let number = |name: &str, what: &str| {
        json!({
            "in": "query", "name": name, "required": false, "description": what,
            "schema": { "type": "integer" },
        })
    };
    let list = [
        text("filter", "`attribute eq \"value\"`, joined by `and`."),
        number("startIndex", "The first of the list to show, from 1."),
        number("count", "At most so many."),
    ];
    let shown = [
        text("attributes", "Only these, by commas."),
        text("excludedAttributes", "Without these, by commas."),
    ];
    let lists = || list.iter().chain(&shown).cloned().collect::<Vec<_>>();
    let mut paths = json!({});
    let mut add = |path: &str, name: &str, what: &str, more: Vec<Value>| {
        let vo = ["vo", "id"].into_iter().filter(|f| path.contains(&format!("{{{f}}}")));
        let fields = vo.map(|f| {
            json!({ "in": "path", "name": f, "required": true, "schema": { "type": "string" } })
        });
        let object = json!({ "type": "object" });
        paths[format!("{ROOT}/{path}")] = json!({ "get": {
            "operationId": name,
            "tags": ["scim"],
            "summary": what,
            "description": what,
            "parameters": fields.chain(more).collect::<Vec<_>>(),
            "security": [{ "token": [] }],
            "responses": {
                "200": { "description": "What was asked for.",
                    "content": { SCIM: { "schema": object } } },
                "default": { "description": "An error (RFC 7644, 3.12).",
                    "content": { SCIM: { "schema": object } } },
            },
        } });
    };
    add("{vo}/Users", "ScimUsers", "The members of a VO (RFC 7644).", lists());
    add("{vo}/Users/{id}", "ScimUser", "One member, by person.", shown.to_vec());
    add("{vo}/Groups", "ScimGroups", "The groups of a VO.", lists());
    add("{vo}/Groups/{id}", "ScimGroup", "One group, by number.", shown.to_vec());
    add("{vo}/ServiceProviderConfig", "ScimConfig", "What is done of SCIM here.", vec![]);
    add("{vo}/ResourceTypes", "ScimResourceTypes", "Users and groups.", vec![]);
    add("{vo}/Schemas", "ScimSchemas", "The attributes that resources have.", vec![]);
    paths
}
