//! Entries for `fuzz/`: decoders of what comes from outside, each alone. No part of the interface.

use crate::fields::Fields;
use crate::guard::own_path;
use crate::pages::consent::{request, sent};
use crate::pages::provider::Begun;
use crate::programs::{client, device, introspect, revoke, tokens};
use actix_web::http::header::HeaderValue;

fn is_own(path: &str) -> bool {
    path.starts_with('/') && !path.starts_with("//")
}

/// What comes to the console: in the first line the header `Authorization` or a cookie, behind it a
/// form or a query.
pub fn form(data: &[u8]) {
    let mut parts = data.splitn(2, |b| *b == b'\n');
    let (first, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if let Some(begun) = std::str::from_utf8(first).ok().and_then(Begun::read) {
        assert!(is_own(&begun.next), "a cookie leads to another site");
    }
    let Ok(form) = Fields::parse(rest) else { return };
    assert!(is_own(&own_path(form.text("next"))), "a form leads to another site");
    request(&sent(|name| form.raw(name)));
    let header = HeaderValue::from_bytes(first).ok().filter(|h| !h.is_empty());
    let Ok(client) = client(header.as_ref(), &form) else { return };
    // Whether it is refused does not matter, only that it is answered.
    tokens(client.clone(), &form).ok();
    device(client.clone(), &form).ok();
    introspect(client.clone(), &form).ok();
    revoke(client, &form).ok();
}
