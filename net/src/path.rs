//! Requests to and from path, query and body.

use crate::router::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use xos_api::Method;
use xos_base::Error;

/// Longest path with query, in bytes.
pub const PATH_MAX: usize = 4096;
/// How the paths of requests begin; others are pages'.
pub const API: &str = "/v1/";

/// A path with fields in braces.
#[derive(Debug)]
pub struct Template(Vec<Segment>);

#[derive(Debug)]
enum Segment {
    Fixed(&'static str),
    Field(&'static str),
}

impl Template {
    /// Reads `/v1/jobs/{job}`.
    pub fn parse(path: &'static str) -> Template {
        Template(
            path.split('/')
                .map(|s| match s.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
                    Some(name) => Segment::Field(name),
                    None => Segment::Fixed(s),
                })
                .collect(),
        )
    }

    /// The fields of `path`, percent-decoded, when it fits.
    pub fn matches(&self, path: &str) -> Option<Vec<(&'static str, String)>> {
        let mut fields = Vec::new();
        let mut parts = path.split('/');
        for segment in &self.0 {
            let part = parts.next()?;
            match segment {
                Segment::Fixed(s) if *s == part => {}
                Segment::Fixed(_) => return None,
                Segment::Field(name) => fields.push((*name, decode(part)?)),
            }
        }
        parts.next().is_none().then_some(fields)
    }

    fn names(&self, field: &str) -> bool {
        self.0.iter().any(|s| matches!(s, Segment::Field(name) if *name == field))
    }
}

/// A path as it may stand in a message: at most 200 characters, none that moves a terminal.
pub fn shown(path: &str) -> String {
    path.chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn decode(part: &str) -> Option<String> {
    let mut out = Vec::with_capacity(part.len());
    let mut bytes = part.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            // By digit: the parser of numbers would take a sign.
            let mut digit = || (bytes.next()? as char).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            out.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).ok()
}

fn encode(text: &str, out: &mut String) {
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~:@,".contains(&b) {
            out.push(b as char);
        } else {
            out.push('%');
            out.push_str(&crate::identity::hex(&[b]).to_uppercase());
        }
    }
}

/// Reads a request that arrived.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] with line and column of a JSON error.
pub fn read<R: DeserializeOwned>(method: Method, parts: &Parts) -> Result<R, Error> {
    if !method.has_body() {
        let mut pairs: Vec<(String, String)> = serde_urlencoded::from_str(&parts.query)
            .map_err(|e| Error::invalid(format!("the query is malformed: {e}")))?;
        pairs.extend(parts.path.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        let text = serde_urlencoded::to_string(&pairs)
            .map_err(|e| Error::invalid(format!("the query is malformed: {e}")))?;
        return serde_urlencoded::from_str(&text)
            .map_err(|e| Error::invalid(format!("the request is malformed: {e}")));
    }
    if !parts.query.is_empty() {
        return Err(Error::invalid("this request takes no query, only a JSON body"));
    }
    let body = with_fields(&parts.body, &parts.path)?;
    serde_json::from_slice(&body).map_err(|e| json_error(&e))
}

/// A JSON error with its place.
pub fn json_error(e: &serde_json::Error) -> Error {
    // The message of serde_json ends in "at line L column C".
    Error::invalid(format!("the JSON is not what this request takes: {e}"))
}

/// The body with the path's fields put before its last brace, so that the places in error
/// messages stay those of the body that was sent.
fn with_fields(body: &[u8], fields: &[(&'static str, String)]) -> Result<Vec<u8>, Error> {
    let body = body.trim_ascii_end();
    if fields.is_empty() {
        return Ok(if body.is_empty() { b"{}".to_vec() } else { body.to_vec() });
    }
    let open: &[u8] = match body.strip_suffix(b"}") {
        Some(open) => open,
        None if body.is_empty() => b"{",
        None => {
            // Not an object: let the JSON parser say where and why.
            return match serde_json::from_slice::<Value>(body) {
                Err(e) => Err(json_error(&e)),
                Ok(_) => Err(Error::invalid("the body must be a JSON object")),
            };
        }
    };
    let mut out = open.to_vec();
    let mut first = open.trim_ascii_end().ends_with(b"{") && open.trim_ascii().len() == 1;
    for (name, value) in fields {
        let text = serde_json::to_string(&(name, value)).map_err(|e| json_error(&e))?;
        // ("name","value") is written as an array; its inside with a colon is a member.
        let inside = text.trim_start_matches('[').strip_suffix(']').unwrap_or(&text);
        let (k, v) = inside.split_once(',').unwrap_or((inside, "null"));
        if !first {
            out.push(b',');
        }
        first = false;
        out.extend_from_slice(format!("{k}:{v}").as_bytes());
    }
    out.push(b'}');
    Ok(out)
}

/// A request as it is sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Path and query.
    pub target: String,
    /// The JSON body, empty for methods without one.
    pub body: Vec<u8>,
}

/// Writes a request.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] when a field cannot travel where it must.
pub fn write<R: Serialize>(
    method: Method,
    path: &'static str,
    request: &R,
) -> Result<Outgoing, Error> {
    let value = serde_json::to_value(request)
        .map_err(|e| Error::invalid(format!("cannot encode a request: {e}")))?;
    let Value::Object(mut fields) = value else {
        return Err(Error::invalid("a request is a structure with named fields"));
    };
    let template = Template::parse(path);
    let mut target = String::new();
    for (i, segment) in template.0.iter().enumerate() {
        if i > 0 {
            target.push('/');
        }
        match segment {
            Segment::Fixed(s) => target.push_str(s),
            Segment::Field(name) => match fields.get(*name) {
                Some(Value::String(s)) => encode(s, &mut target),
                _ => return Err(Error::invalid(format!("{name} must be a text in {path}"))),
            },
        }
    }
    fields.retain(|k, _| !template.names(k));
    if method.has_body() {
        let body = serde_json::to_vec(&fields)
            .map_err(|e| Error::invalid(format!("cannot encode a request: {e}")))?;
        return Ok(Outgoing { target, body });
    }
    let mut pairs = Vec::new();
    for (k, v) in fields {
        match v {
            Value::Null => {}
            Value::String(s) => pairs.push((k, s)),
            Value::Bool(b) => pairs.push((k, b.to_string())),
            Value::Number(n) => pairs.push((k, n.to_string())),
            _ => return Err(Error::invalid(format!("{k} cannot travel in a query"))),
        }
    }
    if !pairs.is_empty() {
        let query = serde_urlencoded::to_string(&pairs)
            .map_err(|e| Error::invalid(format!("cannot encode a query: {e}")))?;
        target.push('?');
        target.push_str(&query);
    }
    Ok(Outgoing { target, body: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    #[test]
    fn only_two_hexadecimal_digits_are_a_byte() {
        // Else one thing has two paths, and what looks at paths sees another than what serves them.
        assert_eq!(decode("a%2fB%C3%A9").as_deref(), Some("a/Bé"));
        for bad in ["%+f", "%-f", "% f", "%f", "%", "%g0", "%0x", "%é1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Put {
        vo: String,
        text: String,
        n: u32,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Look {
        vo: String,
        after: Option<u64>,
        all: bool,
    }

    fn parts(template: &'static str, out: &Outgoing) -> Parts {
        let (path, query) = out.target.split_once('?').unwrap_or((&out.target, ""));
        let path = Template::parse(template).matches(path).expect("the path fits");
        Parts { path, query: query.to_owned(), body: Bytes::from(out.body.clone()) }
    }

    proptest! {
        #[test]
        fn any_text_survives_path_and_body(vo in "\\PC{1,40}", text in ".{0,60}", n in any::<u32>()) {
            let p = Put { vo, text, n };
            let out = write(Method::Post, "/v1/x/{vo}/y", &p).unwrap();
            let back: Put = read(Method::Post, &parts("/v1/x/{vo}/y", &out)).unwrap();
            prop_assert_eq!(back, p);
        }

        #[test]
        fn any_text_survives_the_query(vo in ".{1,40}", after in any::<Option<u64>>()) {
            let l = Look { vo, after, all: true };
            let out = write(Method::Get, "/v1/{vo}", &l).unwrap();
            let back: Look = read(Method::Get, &parts("/v1/{vo}", &out)).unwrap();
            prop_assert_eq!(back, l);
        }

        #[test]
        fn garbage_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let p = Parts {
                path: vec![("vo", "a\"b".into())], query: String::new(), body: body.into(),
            };
            prop_assert!(read::<Put>(Method::Post, &p).is_err());
        }
    }

    #[test]
    fn errors_name_line_and_column_of_the_body_as_sent() {
        let p = Parts {
            path: vec![("vo", "demo".into())],
            query: String::new(),
            body: Bytes::from_static(b"{\"text\": \"a\",\n \"n\": true}"),
        };
        let e = read::<Put>(Method::Post, &p).unwrap_err();
        assert!(e.message.contains("line 2 column 10"), "{e}");
    }

    #[test]
    fn an_unknown_field_is_named() {
        let p = Parts {
            path: vec![("vo", "demo".into())],
            query: String::new(),
            body: Bytes::from_static(b"{\"text\":\"a\",\"n\":1,\"colour\":2}"),
        };
        let e = read::<Put>(Method::Post, &p).unwrap_err();
        assert!(e.message.contains("unknown field `colour`"), "{e}");
    }

    #[test]
    fn a_path_field_in_the_body_too_is_refused() {
        let p = Parts {
            path: vec![("vo", "demo".into())],
            query: String::new(),
            body: Bytes::from_static(b"{\"vo\":\"other\",\"text\":\"a\",\"n\":1}"),
        };
        assert!(read::<Put>(Method::Post, &p).is_err());
    }
}
