//! What a request is.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The HTTP methods in use (RFC 9110).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Reads; its fields travel in path and query, and are texts, numbers or booleans.
    Get,
    /// Creates or acts; its fields travel in path and JSON body.
    Post,
    /// Replaces; its fields travel in path and JSON body.
    Put,
    /// Removes; its fields travel in path and query.
    Delete,
}

impl Method {
    /// The method's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
        }
    }

    /// Whether the fields outside the path travel in a JSON body.
    pub fn has_body(self) -> bool {
        matches!(self, Method::Post | Method::Put)
    }
}

/// A request with one reply.
///
/// Types carry `#[serde(deny_unknown_fields)]`, so that a misspelt field is an error and not
/// silence. Their schemas make the document of the API (`docs/openapi.json`), and their comments
/// its descriptions: what is written at a type and its fields is what users of the API read.
pub trait Request: Serialize + DeserializeOwned + JsonSchema + Send + 'static {
    /// What comes back when it went well.
    type Reply: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// The HTTP method.
    const METHOD: Method;
    /// The path, with fields in braces: `/v1/jobs/{job}`. A field in the path is a text.
    const PATH: &'static str;
}

/// A request answered by a stream of items, one JSON text a line (application/x-ndjson).
pub trait Subscribe: Serialize + DeserializeOwned + JsonSchema + Send + 'static {
    /// One line of the answer.
    type Item: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// The HTTP method.
    const METHOD: Method;
    /// The path, as for [`Request::PATH`].
    const PATH: &'static str;
}

/// Implements [`Request`] in one line: `request!(GetJob => JobView, Get "/v1/jobs/{job}");`
#[macro_export]
macro_rules! request {
    ($t:ty => $reply:ty, $method:ident $path:literal) => {
        impl $crate::Request for $t {
            type Reply = $reply;
            const METHOD: $crate::Method = $crate::Method::$method;
            const PATH: &'static str = $path;
        }
    };
}

/// Implements [`Subscribe`] in one line, as [`request!`].
#[macro_export]
macro_rules! subscribe {
    ($t:ty => $item:ty, $method:ident $path:literal) => {
        impl $crate::Subscribe for $t {
            type Item = $item;
            const METHOD: $crate::Method = $crate::Method::$method;
            const PATH: &'static str = $path;
        }
    };
}

/// The reply of requests that answer with nothing: an empty JSON object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
pub struct Done {}
