//! What tests of this module and of its neighbours share.

use super::Job;
use crate::cell::proto::{Account, Program, Stdio};
use crate::cgroup::Limits;

/// A person's program that nobody follows.
pub(crate) fn job(uid: u32) -> Job {
    Job {
        account: Account { uid, gid: uid, groups: Vec::new() },
        program: Program {
            argv: vec!["/bin/true".into()],
            env: Vec::new(),
            cwd: "/".into(),
            umask: 0o22,
            rlimits: Vec::new(),
            cgroups: Vec::new(),
            stdio: Stdio::Three,
        },
        attached: false,
        pid: None,
        own_net: false,
        birth: 1u8.try_into().unwrap(),
        shell: false,
        wanted: false,
        carried: None,
        limits: Limits::default(),
    }
}
