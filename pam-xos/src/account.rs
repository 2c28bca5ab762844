//! The account phase: may this account sign in here now?

use crate::call::{Call, GridUser};
use crate::codes::{self, Code};
use crate::ffi::Item;
use std::time::Duration;
use xos_base::local::MayLogin;

/// How long the node may take: it knows without asking anybody.
const LIMIT: Duration = Duration::from_millis(2000);

/// `pam_sm_acct_mgmt`.
pub(crate) fn may_login(call: &Call, user: &GridUser) -> Code {
    let with = MayLogin {
        user: user.name.clone(),
        service: call.pam.item(Item::Service).unwrap_or_default(),
        rhost: call.pam.item(Item::Rhost),
        tty: call.pam.item(Item::Tty),
    };
    let answer = call.ask(&with, LIMIT);
    call.end(user, codes::account(&answer, || call.seen(user)))
}
