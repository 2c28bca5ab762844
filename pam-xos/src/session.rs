//! The session phase: control group, volume, environment and keyring entry of a login.

use crate::call::{Call, GridUser};
use crate::codes::{self, Code, Verdict};
use crate::ffi::{Item, KeyringError, Priority, Style, keep_membership};
use std::time::Duration;
use xos_base::local::{CloseLogin, FRAME_MAX, OpenLogin, Opened, ssh_proof};

/// How long the node may take: it makes a control group and gets a ticket.
const LIMIT: Duration = Duration::from_millis(5000);
/// The longest that sshd may leave in `SSH_AUTH_INFO_0`, in bytes: the rest of the call needs room
/// in its frame.
const AUTH_INFO_BYTES_MAX: usize = FRAME_MAX - 8192;

/// `pam_sm_open_session`.
pub(crate) fn open(call: &Call, user: &GridUser) -> Code {
    let ssh_auth_info = call.pam.env(c"SSH_AUTH_INFO_0");
    if ssh_auth_info.as_ref().is_some_and(|info| info.len() > AUTH_INFO_BYTES_MAX) {
        let text = format!(
            "your SSH certificate is longer than {AUTH_INFO_BYTES_MAX} bytes; get one with fewer \
             names by xos login"
        );
        return call.end(user, Verdict::told(Code::SessionErr, text));
    }
    // Before the node is asked, so that it holds while nobody answers too.
    if let Some(Err(why)) = ssh_auth_info.as_deref().map(ssh_proof) {
        return call.end(user, Verdict::told(Code::SessionErr, why.to_string()));
    }
    let with = OpenLogin {
        user: user.name.clone(),
        service: call.pam.item(Item::Service).unwrap_or_default(),
        rhost: call.pam.item(Item::Rhost),
        tty: call.pam.item(Item::Tty),
        pid: std::process::id(),
        ssh_auth_info,
    };
    let answer = call.ask(&with, LIMIT);
    let mut verdict = codes::session(&answer, || call.seen(user));
    if let Ok(opened) = answer
        && let Err(failed) = furnish(call, user, opened)
    {
        verdict = failed;
    }
    call.end(user, verdict)
}

/// Puts what the node gave into the session. What fails here is told to the node, which opened it.
fn furnish(call: &Call, user: &GridUser, opened: Opened) -> Result<(), Verdict> {
    let Opened { session, environment, keyring, notes } = opened;
    if let Err(number) = call.pam.keep(session.clone()) {
        tell_closed(call, user, session);
        let text = format!("libpam does not keep the session's name (error {number})");
        return Err(Verdict::told(Code::SessionErr, text));
    }
    for (name, value) in &environment {
        if let Err(why) = call.pam.put_env(name, value) {
            call.pam.log(Priority::Warning, &format!("variable {name:?} is not set: {why}"));
        }
    }
    match keep_membership(user.uid, &keyring) {
        Ok(()) => {}
        Err(KeyringError::Refused(e)) => {
            let text = format!("{}: no keyring entry: {e}", user.name);
            call.pam.log(Priority::Notice, &text);
        }
        Err(KeyringError::Stuck(e)) => {
            tell_closed(call, user, session);
            let text = format!("the process cannot take its own user back: {e}");
            return Err(Verdict::told(Code::SessionErr, text));
        }
    }
    for note in &notes {
        call.tell(Style::Info, note);
    }
    Ok(())
}

/// `pam_sm_close_session`. A session that began while the node did not answer has no name, and
/// nothing to end.
pub(crate) fn close(call: &Call, user: &GridUser) -> Code {
    match call.pam.kept() {
        Some(session) => tell_closed(call, user, session),
        None => Code::Success,
    }
}

fn tell_closed(call: &Call, user: &GridUser, session: String) -> Code {
    let Verdict { code, text } = codes::close(&call.ask(&CloseLogin { session }, LIMIT));
    if let Some(text) = text {
        call.pam.log(Priority::Warning, &format!("{}: {text}", user.name));
    }
    code
}
