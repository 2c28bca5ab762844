//! The cluster that is measured, and the tool by which a member uses it.

use super::inside::GHOST;
use super::{SOON, until};
use crate::bench::suite::Run;
use crate::bench::world::{SITE, VO, World};
use crate::bench::{Progress, failed};
use crate::grid::SiteSpec;
use crate::{Cmd, Host, Result, Stdio};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use xos_api::cluster::{ClusterNode, ClusterNodeState, ClusterRun, ClusterTree, ClusterTreeState};

/// Its name.
pub(super) const CLUSTER: &str = "c1.rennes";
/// This program on each node: what moves must be the same on all of them.
pub(super) const PROGRAM: &str = "/usr/local/bin/xos-bench";
/// A program that wants a processor for good, and lets all others go first.
pub(super) const HOG: [&str; 6] = ["nice", "-n", "19", PROGRAM, "within", "hog"];
/// The shell whose lines are placed.
pub(super) const SHELL: &str = "/usr/local/bin/xos-sh";
/// Longest that one command may take: also a move of a gigabyte, and a build.
const LIMIT: Duration = Duration::from_secs(1200);

/// What a cluster is made from.
pub(super) struct Size {
    pub(super) nodes: usize,
    /// Thousandths of a processor that all of a node has together; none: it has the machine's.
    pub(super) limit_milli: Option<u32>,
    /// Whether programs are moved by themselves.
    pub(super) balance: bool,
}

/// A cluster of all nodes of the grid's site.
pub(super) struct Cluster {
    pub(super) world: World,
}

/// A program that somebody on the laptop follows.
pub(super) struct Followed {
    pub(super) tree: u64,
    pub(super) pid: i32,
    log: PathBuf,
}

/// What `xos cluster nodes` tells.
#[derive(Deserialize)]
struct Nodes {
    nodes: Vec<ClusterNode>,
}

/// What `xos cluster ps` tells.
#[derive(Deserialize)]
struct Ps {
    trees: Vec<ClusterTree>,
}

impl Cluster {
    /// Starts the grid in `dir`, and puts its nodes into the cluster; both end with this value.
    pub(super) fn start(dir: &Path, run: &Run, size: &Size, say: Progress) -> Result<Cluster> {
        let spec = SiteSpec {
            nodes: size.nodes,
            // At least one, which the job asks for that waits for the VO's accounts.
            cpu_milli: size.limit_milli.unwrap_or(0).max(1000),
            memory_bytes: 8 << 30,
            cluster: true,
            cluster_config: format!("balance = {}\n", size.balance),
            ..SiteSpec::new(SITE)
        };
        let cluster = Cluster { world: World::with(dir, &run.program, &spec, say)? };
        let nodes = &cluster.world.site.nodes;
        for node in nodes {
            install(node, run)?;
            if let Some(milli) = size.limit_milli {
                node.limit_cpu(milli)?;
            }
        }
        let labels: Vec<String> = (1..=nodes.len()).map(|n| format!("n{n}")).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        cluster.world.site.admin(&["cluster", "create", "c1"])?;
        cluster.world.site.admin(&[&["cluster", "add", "c1"], labels.as_slice()].concat())?;
        cluster.wait()?;
        say(&format!("{} nodes are in a cluster", labels.len()));
        Ok(cluster)
    }

    /// Waits until each node is online and has the VO's volume.
    ///
    /// # Errors
    /// When one is not in time, or lets no programs come and go.
    pub(super) fn wait(&self) -> Result<()> {
        let nodes = until("all nodes of the cluster", 2 * SOON, || {
            let said = self.world.site.admin(&["cluster", "nodes", "c1", "--json"])?;
            let said: Nodes = parse("xos cluster nodes", &said)?;
            let online = said.nodes.iter().filter(|n| n.state == ClusterNodeState::Online);
            Ok((online.count() == self.world.site.nodes.len()).then_some(said.nodes))
        })?;
        if let Some(node) = nodes.iter().find(|n| !n.moves) {
            return Err(failed(&format!("moving programs to {}", node.node), &node.moves_not));
        }
        for node in &self.world.site.nodes {
            until(&format!("the volume on {}", node.name()), SOON, || {
                let mounts = node.run(&Cmd::new("cat").arg("/proc/mounts"))?.ok()?;
                Ok(mounts.contains(&format!(" {} ", volume())).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Runs the tool as the member on the laptop, however long it takes.
    pub(super) fn xos(&self, args: &[&str]) -> Result<String> {
        let cmd = self.world.person.command("xos").args(args).limit(LIMIT);
        self.world.grid.laptop()?.run(&cmd)?.ok()
    }

    /// The same, with what it says as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let said = self.xos(&[&["--json"], args].concat())?;
        parse(&format!("xos {}", args.join(" ")), &said)
    }

    /// Runs a program in a cluster shell's place, in a folder of the volume: elsewhere nothing is
    /// placed. What it writes.
    pub(super) fn shell(&self, folder: &str, argv: &[&str]) -> Result<String> {
        let args = ["cluster", "shell", CLUSTER, "--node", "n1", "--cwd", folder, "--"];
        self.xos(&[args.as_slice(), argv].concat())
    }

    /// The member's programs.
    pub(super) fn trees(&self) -> Result<Vec<ClusterTree>> {
        Ok(self.json::<Ps>(&["cluster", "ps", CLUSTER])?.trees)
    }

    /// One of them.
    pub(super) fn tree(&self, number: u64) -> Result<ClusterTree> {
        let found = self.trees()?.into_iter().find(|t| t.tree == number);
        found.ok_or_else(|| failed("xos cluster ps", format!("tree {number} is not known")))
    }

    /// Places a program that nobody follows; its number.
    pub(super) fn begin(&self, node: &str, options: &[&str], argv: &[&str]) -> Result<u64> {
        let args = ["cluster", "run", CLUSTER, "--detach", "--node", node];
        let args = [args.as_slice(), options, &["--"], argv].concat();
        Ok(self.json::<ClusterRun>(&args)?.tree)
    }

    /// Starts a program with `--label LABEL` as its last arguments, which somebody follows, and
    /// waits until it runs.
    pub(super) fn follow(&self, label: &str, node: &str, argv: &[&str]) -> Result<Followed> {
        let run = ["cluster", "run", CLUSTER, "--node", node, "--"];
        let cmd = self.world.person.command("xos").args(run).args(argv).args(["--label", label]);
        let cmd = cmd.stdio(Stdio::LogAs(label.parse()?));
        let process = self.world.grid.laptop()?.spawn(&cmd)?;
        let log = process.log().map(Path::to_owned);
        let log = log.ok_or_else(|| failed(label, "its output is nowhere"))?;
        until(&format!("the start of {label}"), SOON, || {
            let mine = |t: &ClusterTree| t.argv.last().is_some_and(|word| word == label);
            let trees = self.trees()?;
            let found = trees.iter().find(|t| mine(t) && t.state == ClusterTreeState::Running);
            let found = found.and_then(|t| Some((t.tree, t.pid?)));
            Ok(found.map(|(tree, pid)| Followed { tree, pid, log: log.clone() }))
        })
    }

    /// Moves a program, and waits until it is there.
    pub(super) fn migrate(&self, pid: i32, to: &str) -> Result<()> {
        self.xos(&["cluster", "migrate", CLUSTER, &pid.to_string(), to]).map(drop)
    }

    /// Ends all programs that are there, and waits until they are over.
    pub(super) fn clear(&self) -> Result<()> {
        let is_open =
            |t: &ClusterTree| !matches!(t.state, ClusterTreeState::Ended | ClusterTreeState::Lost);
        until("the end of all programs", SOON, || {
            let trees = self.trees()?;
            let open: Vec<u64> = trees.iter().filter(|t| is_open(t)).map(|t| t.tree).collect();
            for tree in &open {
                // Refused while it begins or moves: then the next round ends it.
                let _later = self.cancel(*tree);
            }
            Ok(open.is_empty().then_some(()))
        })
    }

    /// Ends a program.
    pub(super) fn cancel(&self, tree: u64) -> Result<()> {
        self.xos(&["cluster", "cancel", CLUSTER, &tree.to_string()]).map(drop)
    }
}

impl Followed {
    /// What it wrote so far, and the tool about it.
    pub(super) fn text(&self) -> Result<String> {
        let bytes = std::fs::read(&self.log);
        let bytes = bytes.map_err(|e| failed(&format!("reading {}", self.log.display()), e))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The VO's volume, on every node.
pub(super) fn volume() -> String {
    format!("/xtreemfs/{VO}")
}

/// What was said, as JSON.
pub(super) fn parse<T: DeserializeOwned>(who: &str, said: &str) -> Result<T> {
    serde_json::from_str(said).map_err(|e| failed(who, format!("{e} in {said:?}")))
}

/// Copies what runs in clusters to a node: members need not reach the folder of the build.
fn install(node: &Host, run: &Run) -> Result<()> {
    let own = run.program.display();
    let ghost = run.program.with_file_name("xos-ghost");
    let ghost = ghost.display();
    let script = format!(
        "set -e\n\
         cp --remove-destination {own} {PROGRAM}\n\
         for copy in {GHOST} {SHELL}; do cp --remove-destination {ghost} $copy; done\n\
         chmod 755 {PROGRAM} {GHOST} {SHELL}\n"
    );
    node.run(&Cmd::shell(script))?.ok().map(drop)
}
