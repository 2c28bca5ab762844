//! A node's `xosd` as an init system meets it.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use xos_testbed::{Exit, Host, Signal};

use crate::faults::{back, kill_all};
use crate::flow::processes;
use crate::tool::{count, node, state, units};
use crate::world::{World, sh, soon};

/// Where `xosd` tells how far it is, in the host.
const NOTIFY: &str = "/run/xosd.notify";
/// How long a state may take to be told.
const TOLD_MAX: Duration = Duration::from_secs(60);
/// How long `xosd` may take to end; an init system kills it after 90 s.
const STOPPED_MAX: Duration = Duration::from_secs(60);
/// Goes on when the file is there.
const UNIT: &str =
    "until [ -e /tmp/go-on ]; do sleep 0.1; done; echo went on at $XOS_NODE # serves-on";

/// If it failed, systemd would start what needs a node before it is one, kill one that ends in
/// order, or count its clean stop as a failure; or an upgrade would cost the units that run.
#[test]
fn a_node_tells_its_init_system_and_its_units_outlive_it() {
    let Some(w) = World::new() else { return };
    let host = &w.rennes.nodes[0];
    let socket = listen(&w, host);
    kill_all(host, "xosd", Some("run"));
    let mut xosd = w.rennes.start_node_notifying(host, NOTIFY).unwrap();
    told(&socket, "READY=1");
    back(&w.rennes);
    let wide = ["--on", "rennes", "--array", "0-1", "--cpus", "2", "--", "sh", "-c", UNIT];
    let job = w.start(&w.milo, &wide);
    soon("both nodes work", || {
        let shown = w.json(&w.milo, &["job", "show", &job]);
        (count(&shown, "running") == 2).then_some(())
    });

    xosd.signal(Signal::TERM).unwrap();
    told(&socket, "STOPPING=1");
    let exit = xosd.wait(STOPPED_MAX).unwrap();
    assert_eq!(exit, Exit::Code(0), "a clean stop is no failure");
    assert_eq!(processes(&w, "# serves-on"), 2, "a unit ended with its node's daemon");
    // It ends while there is nobody to report it.
    sh(host, "touch /tmp/go-on");
    soon("the unit ends", || (processes(&w, "# serves-on") == 1).then_some(()));
    let shown = w.json(&w.milo, &["job", "show", &job]);
    assert_eq!(count(&shown, "done"), 0, "who told that it has ended? {shown}");

    w.rennes.start_node_notifying(host, NOTIFY).unwrap();
    let states = told(&socket, "READY=1");
    assert!(states.iter().any(|s| s == "STATUS=node n1.rennes"), "{states:?}");
    let index = soon("its result arrives", || {
        let shown = w.json(&w.milo, &["job", "show", &job, "--units"]);
        units(&shown).iter().position(|u| node(u) == "n1.rennes" && state(u) == "done")
    });
    let said = w.run(&w.milo, "xout", &[&format!("{job}:{index}")]).ok();
    assert_eq!(said, "went on at n1.rennes\n");
    sh(&w.rennes.nodes[1], "touch /tmp/go-on");
    w.run(&w.milo, "xwait", &[&job]).ok();
    w.serves();
}

/// Listens, as an init system, at [`NOTIFY`] in a host.
fn listen(w: &World, host: &Host) -> UnixDatagram {
    let all = w.grid.testbed().hosts().unwrap();
    let this = all.iter().find(|one| one.name == *host.name()).expect("the host");
    let init = this.init.expect("a host that runs");
    let socket = UnixDatagram::bind(format!("/proc/{init}/root{NOTIFY}")).unwrap();
    socket.set_read_timeout(Some(TOLD_MAX)).unwrap();
    socket
}

/// The states that were told, until one of them is `last`.
fn told(socket: &UnixDatagram, last: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut bytes = [0; 4096];
    while !all.iter().any(|state| state == last) {
        let n = socket.recv(&mut bytes).unwrap_or_else(|e| panic!("{last} was not told: {e}"));
        all.extend(String::from_utf8_lossy(&bytes[..n]).lines().map(str::to_owned));
    }
    all
}
