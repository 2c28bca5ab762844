//! The conversation: how the module speaks with the person, through the host.

use super::handle::Handle;
use crate::codes::Code;
use crate::texts;
use libc::{c_char, c_int, c_void};
use std::ffi::CStr;
use std::{fmt, ptr, slice};
use zeroize::Zeroize;

/// `PAM_CONV`, the item.
const PAM_CONV: c_int = 5;
/// `PAM_PROMPT_ECHO_OFF`.
const PROMPT_ECHO_OFF: c_int = 1;
/// `PAM_PROMPT_ECHO_ON`.
const PROMPT_ECHO_ON: c_int = 2;

/// What is said, when nothing is asked.
#[repr(i32)]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Style {
    /// `PAM_ERROR_MSG`.
    Error = 3,
    /// `PAM_TEXT_INFO`.
    Info = 4,
}

/// Why nobody was told or asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mute {
    /// The host gave no conversation.
    None,
    /// The host's conversation failed, with this code.
    Failed(c_int),
    /// Nothing was answered.
    Nothing,
    /// What was answered is no UTF-8.
    NoText,
}

impl fmt::Display for Mute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mute::None => f.write_str("the program has no conversation"),
            Mute::Failed(code) => write!(f, "the conversation failed (error {code})"),
            Mute::Nothing => f.write_str("nothing was answered"),
            Mute::NoText => f.write_str("what was answered is no text"),
        }
    }
}

/// `struct pam_message`.
#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

/// `struct pam_response`.
#[repr(C)]
pub(super) struct Response {
    pub(super) text: *mut c_char,
    pub(super) code: c_int,
}

type Converse = unsafe extern "C" fn(
    count: c_int,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    host: *mut c_void,
) -> c_int;

/// `struct pam_conv`.
#[repr(C)]
struct Conversation {
    converse: Option<Converse>,
    host: *mut c_void,
}

impl Handle {
    /// Tells the person something: one message, at most [`texts::MESSAGE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// Why it could not be.
    pub(crate) fn say(&self, style: Style, message: &str) -> Result<(), Mute> {
        self.converse(style as c_int, message).map(drop)
    }

    /// Asks the person something. Who gets the answer wipes it.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) fn ask(&self, prompt: &str, echo: bool) -> Result<String, Mute> {
        let style = if echo { PROMPT_ECHO_ON } else { PROMPT_ECHO_OFF };
        self.converse(style, prompt)?.text()
    }

    fn converse(&self, style: c_int, text: &str) -> Result<Responses, Mute> {
        let conversation = self.item_pointer(PAM_CONV).cast::<Conversation>();
        // SAFETY: the item is null or a `struct pam_conv` that lives as long as the handle.
        let conversation = unsafe { conversation.as_ref() }.ok_or(Mute::None)?;
        let converse = conversation.converse.ok_or(Mute::None)?;
        let text = texts::c_text(text);
        let message = Message { style, text: text.as_ptr() };
        let mut messages = [ptr::from_ref(&message)];
        let mut responses = ptr::null_mut();
        // SAFETY: one message, which outlives the call, as a pointer in an array of one; a place
        // for the responses; and what the host wants to have back.
        let code = unsafe { converse(1, messages.as_mut_ptr(), &mut responses, conversation.host) };
        // After a failure the responses are not set.
        if code != Code::Success.number() {
            return Err(Mute::Failed(code));
        }
        Ok(Responses(responses))
    }
}

/// The responses to one message, from `malloc`; wiped and freed when dropped.
pub(super) struct Responses(pub(super) *mut Response);

impl Responses {
    /// What was answered.
    pub(super) fn text(&self) -> Result<String, Mute> {
        // SAFETY: null or one response, by the contract of the conversation.
        let response = unsafe { self.0.as_ref() }.ok_or(Mute::Nothing)?;
        if response.text.is_null() {
            return Err(Mute::Nothing);
        }
        // SAFETY: not null, so a C string by the contract of the conversation.
        let text = unsafe { CStr::from_ptr(response.text) };
        text.to_str().map(str::to_owned).map_err(|_| Mute::NoText)
    }
}

impl Drop for Responses {
    fn drop(&mut self) {
        // SAFETY: null or one response, by the contract of the conversation, which nobody else has.
        let Some(response) = (unsafe { self.0.as_mut() }) else { return };
        if !response.text.is_null() {
            // SAFETY: a C string from `malloc`, which nobody else has; its length is its own.
            unsafe {
                let length = libc::strlen(response.text);
                slice::from_raw_parts_mut(response.text.cast::<u8>(), length).zeroize();
                libc::free(response.text.cast());
            }
        }
        // SAFETY: from `malloc`, by the contract of the conversation, and not used after this.
        unsafe { libc::free(self.0.cast()) };
    }
}
