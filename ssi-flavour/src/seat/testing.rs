//! What tests of this module share.

use super::Plan;
use crate::cell::proto::Account;
use crate::cgroup::Cgroup;

/// The plan of node 1 of a cluster with this time to death.
pub(super) fn plan(dead_ms: u64) -> Plan {
    Plan {
        node: 1u8.try_into().unwrap(),
        heartbeat_ms: 1000,
        suspect_ms: 3000,
        dead_ms,
        criu: Vec::new(),
        path: "/usr/bin".into(),
        shared: vec!["/usr".into()],
        limit_s: 600,
        direct: true,
        cpus: 2,
        memory_bytes: 1 << 30,
        canary: Account { uid: 1, gid: 1, groups: Vec::new() },
        cgroup: Cgroup { parts: Vec::new() },
        place: "/run/xos/cluster/c1.rennes/place.sock".into(),
    }
}
