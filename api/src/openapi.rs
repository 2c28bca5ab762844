//! The document of the API.

use crate::request;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The API described by itself (OpenAPI 3.1): every operation of this core, with its fields and
/// answers. Needs no proof of identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetOpenApi {}
request!(GetOpenApi => serde_json::Value, Get "/v1/openapi.json");
