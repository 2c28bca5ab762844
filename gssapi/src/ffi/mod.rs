//! Safe words for what is called of the library.
//!
//! Handles of the library are owned by one value each ([`held`]), which gives them back. Nothing of
//! ours is called by the library.

mod accept;
mod held;
mod init;
mod raw;

pub use accept::{Accepted, Acceptor};
pub use init::Initiator;

use crate::GssError;
use held::Buffer;
use raw::{Api, FAILURE, KERBEROS, Number, OF_GSS, OF_MECHANISM, Oid};
use std::ffi::c_int;
use std::sync::OnceLock;

/// Most lines of one status that are read.
const LINES_MAX: usize = 8;

/// The library, loaded once.
fn api() -> Result<&'static Api, GssError> {
    static API: OnceLock<Result<Api, String>> = OnceLock::new();
    let loaded = API.get_or_init(|| Api::load().map_err(|e| e.to_string()));
    loaded.as_ref().map_err(|why| GssError::Library(why.clone()))
}

/// What the library says of a status.
fn said(api: &'static Api, status: Number, kind: c_int) -> String {
    let mechanism = Oid::of(KERBEROS);
    let (mut lines, mut more) = (Vec::new(), 0);
    for _ in 0..LINES_MAX {
        let (mut minor, mut line) = (0, Buffer::none(api));
        // SAFETY: each pointer is to a value of ours of the right type, which outlives the call;
        // the line is given back by its drop.
        let major = unsafe {
            (api.gss_display_status)(
                &raw mut minor,
                status,
                kind,
                &raw const mechanism,
                &raw mut more,
                line.raw_mut(),
            )
        };
        if major != raw::COMPLETE {
            lines.push(format!("status {status}"));
            break;
        }
        // It holds names that strangers chose.
        let text = String::from_utf8_lossy(line.bytes());
        let text = text.trim_end_matches('\0');
        lines.push(text.chars().map(|c| if c.is_control() { '?' } else { c }).collect());
        if more == 0 {
            break;
        }
    }
    lines.join("; ")
}

/// The error for a call that did not come to its end.
fn refused(api: &'static Api, what: &'static str, major: Number, minor: Number) -> GssError {
    let detail = if minor == 0 { String::new() } else { said(api, minor, OF_MECHANISM) };
    let why = match detail.as_str() {
        "" | "Success" => said(api, major, OF_GSS),
        detail if major == FAILURE => detail.to_owned(),
        detail => format!("{}: {detail}", said(api, major, OF_GSS)),
    };
    GssError::Refused { what, why }
}
