//! What the testbed writes into a host's /etc.

use crate::state::{HostState, State};

const BEGIN: &str = "# testbed: hosts, kept up to date";
const END: &str = "# testbed: end";
const FIRST: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";

/// The new /etc/hosts: all hosts of the testbed in a marked block, the rest of `present` as it is.
/// Without such a block the file is the machine's and is replaced.
pub(crate) fn hosts_file(present: &str, state: &State) -> String {
    let (front, back) = split(present).unwrap_or((FIRST, ""));
    let mut text = format!("{front}{BEGIN}\n{} switch\n", state.prefix.switch());
    for host in &state.hosts {
        text.push_str(&format!("{} {}\n", host.address, host.name));
    }
    text + END + "\n" + back
}

/// The host's /etc/machine-id (machine-id(5)): its own, and the same after a restart.
pub(crate) fn machine_id(state: &State, host: &HostState) -> String {
    let testbed = state.cgroups.id();
    format!("{testbed:016x}{:016x}", u64::from(u32::from(host.address)))
}

fn split(present: &str) -> Option<(&str, &str)> {
    let (front, rest) = present.split_once(BEGIN)?;
    let (_, back) = rest.split_once(END)?;
    Some((front, back.strip_prefix('\n').unwrap_or(back)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Tree;
    use crate::{HostName, Prefix};

    /// If it failed, adding a host would lose what a test wrote, or list a host twice.
    #[test]
    fn the_block_is_replaced_and_the_rest_kept() {
        let name: HostName = "n1".parse().unwrap();
        let tree = Tree::empty_for_tests();
        let mut state =
            State::new(name.clone(), Prefix::DEFAULT, "/h".into(), Vec::new(), tree).unwrap();
        let first = hosts_file("192.0.2.1 machine\n", &state);
        assert!(!first.contains("machine") && first.starts_with(FIRST));
        let edited = format!("1.1.1.1 before\n{first}2.2.2.2 after\n");
        let address = "10.77.0.2".parse().unwrap();
        state.hosts.push(HostState { name, port: 2, address, init: None, cut: false });
        let text = hosts_file(&edited, &state);
        assert_eq!(text, hosts_file(&text, &state));
        assert!(text.starts_with("1.1.1.1 before\n") && text.ends_with("2.2.2.2 after\n"));
        assert_eq!(text.matches("10.77.0.2 n1\n").count(), 1);
    }
}
