//! Programs that tell on their node that they go on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use xos_testbed::grid::Person;
use xos_testbed::{Cmd, Host};

use crate::cluster::CLUSTER;
use crate::world::{World, sh, soon, soon_within};

/// Something of a person's in the cluster that writes the time into a file of their home on a node,
/// again and again.
pub struct Pulse<'a> {
    w: &'a World,
    /// Where it is.
    pub node: &'a Host,
    file: String,
    /// Its number in the cluster.
    pub tree: u64,
    /// The pid of its first process there.
    pub pid: String,
}

impl<'a> Pulse<'a> {
    /// Runs one as a person in a VO, on a node, and waits until it goes on. `kind`: `run` or
    /// `shell`.
    pub fn begin(
        w: &'a World,
        (person, vo): (&Person, &str),
        kind: &str,
        at: usize,
        options: &[&str],
    ) -> Pulse<'a> {
        static BEGUN: AtomicUsize = AtomicUsize::new(0);
        let name = format!("pulse.{}", BEGUN.fetch_add(1, Ordering::Relaxed));
        let script = format!("while :; do date +%s%N > ~/{name}; sleep 0.05; done");
        let (node, label) = (&w.rennes.nodes[at], format!("n{}", at + 1));
        let head = ["--vo", vo, "--json", "cluster", kind, CLUSTER, "--node", &label];
        let argv = ["--", "sh", "-c", script.as_str()];
        let line = [&head[..], options, &argv].concat();
        // A VO may be served from a moment on only.
        let ran = soon("it is begun", || {
            let said = w.xos(person, &line);
            (said.code == 0).then(|| said.json())
        });
        let tree = ran["tree"].as_u64().expect("a number");
        let pid = ran["pid"].as_i64().expect("a pid").to_string();
        let file = format!("/home/xos/{}.{vo}/{name}", person.name);
        let pulse = Pulse { w, node, file, tree, pid };
        pulse.goes_on();
        pulse
    }

    /// What it is, for people.
    pub fn what(&self) -> String {
        format!("tree {} ({} on {})", self.tree, self.file, self.node.name())
    }

    /// What it wrote last.
    pub fn read(&self) -> Vec<u8> {
        self.node.read_file(&self.file).unwrap_or_default()
    }

    /// Waits until it goes on.
    #[track_caller]
    pub fn goes_on(&self) {
        let before = self.read();
        soon(&format!("{} goes on", self.what()), || {
            let now = self.read();
            (!now.is_empty() && now != before).then_some(())
        });
    }

    /// Waits until it stands still, as far as can be seen.
    #[track_caller]
    pub fn stands_still(&self, limit: Duration) {
        soon_within(limit, &format!("{} stands still", self.what()), || {
            let before = self.read();
            sh(self.node, "sleep 0.5");
            (self.read() == before).then_some(())
        });
    }

    /// The site's administrator ends it.
    pub fn end(&self) {
        let number = self.tree.to_string();
        self.w.rennes.admin(&["cluster", "cancel", "c1", &number]).unwrap();
    }

    /// The pid of its first process as the node sees it.
    pub fn outer(&self) -> String {
        // The second number of two: the cell's.
        let own = format!("'^NSpid:\\t[0-9]+\\t{}$'", self.pid);
        sh(self.node, &format!("grep -slP {own} /proc/[0-9]*/status | cut -d/ -f3"))
    }
}

/// Both streams of a script that an account of a node runs, outside of any cell, whatever its
/// status.
pub fn as_account(host: &Host, account: &str, script: &str) -> String {
    let ids = ["-u", "-g"].map(|which| sh(host, &format!("id {which} {account}")));
    let [uid, gid] = ids;
    let switch =
        format!("exec setpriv --reuid {uid} --regid {gid} --clear-groups sh -c \"$0\" 2>&1");
    let out = host.run(&Cmd::new("sh").args(["-c", &switch, script])).unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}
