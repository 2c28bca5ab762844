//! The password phase: grid accounts have no password on this machine.

use crate::call::{Call, GridUser};
use crate::codes::{Code, Verdict};

/// `pam_sm_chauthtok`.
pub(crate) fn refuse(call: &Call, user: &GridUser) -> Code {
    let text = "a grid account has no password on this machine; change the one that you sign in \
                with by xos person passwd";
    call.end(user, Verdict::told(Code::PermDenied, text))
}
