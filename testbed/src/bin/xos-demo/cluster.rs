//! The demo's cluster: the nodes of a site become one machine, and what runs there goes on while
//! one of them is drained and the other one is killed.

use crate::{Steps, VO, xsub};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};
use xos_api::cluster::{
    ClusterNode, ClusterNodeState, ClusterRun, ClusterTree, ClusterTreeState, ClusterView,
};
use xos_testbed::grid::{Grid, Person, Site, wait_within};
use xos_testbed::{Cmd, Error, Host, Result};

/// The cluster, as everybody calls it.
pub const CLUSTER: &str = "c1.rennes";
/// The same at its own site.
const NAME: &str = "c1";
/// Its nodes: the one that is drained, and the one that is killed.
const NODES: [&str; 2] = ["n1", "n2"];
/// Where each piece of the work begins.
const PIECES: [&str; 3] = ["n1", "n1", "n2"];
/// For how long the pieces run when nothing happens: longer than it takes to drain a node and to
/// make checkpoints.
const WORK: Duration = Duration::from_secs(10);
/// Photons by which it is measured how fast this machine is.
const TRIAL_PHOTONS: u64 = 1_000_000;
/// Most photons of a piece.
const PHOTONS_MAX: u64 = 1_000_000_000;
/// So many nodes have a checkpoint before a node is killed.
const COPIES: u32 = 2;
/// How long each thing that the cluster does may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Where all of it happens, and who does it.
pub struct Here<'a> {
    /// The grid.
    pub grid: &'a Grid,
    /// The site whose nodes are in the cluster.
    pub site: &'a Site,
    /// Whose work it is.
    pub member: &'a Person,
    /// Whether people sign in to the nodes by ssh.
    pub login: bool,
}

/// What `xos cluster ps` tells.
#[derive(Deserialize)]
struct Ps {
    trees: Vec<ClusterTree>,
}

/// Makes the cluster and shows what it does with pieces of work in `folder` on the volume, where
/// the phantom is. Whether the nodes are in it afterwards: not where programs cannot move.
///
/// # Errors
/// The first step that failed, with its output.
pub fn show(here: &Here<'_>, folder: &str, steps: &mut Steps) -> Result<bool> {
    here.site.admin(&["cluster", "create", NAME])?;
    here.site.admin(&[["cluster", "add", NAME].as_slice(), &NODES].concat())?;
    if let Some(node) = here.ready()?.into_iter().find(|node| !node.moves) {
        // Nodes in a cluster take no units by themselves, and hold them to no limits.
        for node in NODES {
            here.site.admin(&["cluster", "drain", NAME, node])?;
            here.site.admin(&["cluster", "del", NAME, node, "--yes"])?;
        }
        steps.done(&format!("no cluster: nothing moves at {}: {}", node.node, node.moves_not));
        return Ok(false);
    }
    steps.done(&format!("the nodes of {} are one machine, the cluster {CLUSTER}", here.site.name));
    let pieces = here.begin(folder)?;
    steps.done("three pieces of the example's work run there");
    here.drain(&pieces, steps)?;
    here.save(&pieces)?;
    steps.done("each has a checkpoint on both nodes");
    here.kill(&pieces, steps)?;
    wait_within(LIMIT, "the end of all pieces", || {
        let trees = here.trees(&pieces)?;
        Ok(trees.iter().all(|t| t.state == ClusterTreeState::Ended).then_some(()))
    })?;
    let merged = here.merge(folder)?;
    steps.done(&format!("all three ended well; merged at pisa: {merged}"));
    here.ready()?;
    steps.done(&format!("both nodes are in {CLUSTER}, and take jobs through it"));
    Ok(true)
}

impl Here<'_> {
    /// Waits until all nodes are online and have the VO's volume.
    fn ready(&self) -> Result<Vec<ClusterNode>> {
        let nodes = wait_within(LIMIT, "the nodes of the cluster", || {
            let said = self.site.admin(&["cluster", "nodes", NAME, "--json"])?;
            let view: ClusterView = parse("xos cluster nodes", &said)?;
            let online = view.nodes.iter().all(|n| n.state == ClusterNodeState::Online);
            Ok(online.then_some(view.nodes))
        })?;
        let volume = format!(" /xtreemfs/{VO} ");
        for node in &self.site.nodes {
            wait_within(LIMIT, &format!("the volume on {}", node.name()), || {
                let mounts = node.run(&Cmd::new("cat").arg("/proc/mounts"))?.ok()?;
                Ok(mounts.contains(&volume).then_some(()))
            })?;
        }
        Ok(nodes)
    }

    /// What the tool says to the member, as JSON.
    fn json<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let said = self.grid.xos(self.member, &[["--json"].as_slice(), args].concat())?;
        parse(&format!("xos {}", args.join(" ")), &said)
    }

    /// Starts the pieces; their numbers.
    fn begin(&self, folder: &str) -> Result<Vec<u64>> {
        let (phantom, out) = (format!("{folder}/body.spect"), format!("{folder}/cluster/"));
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let photons = photons(self.try_machine()?, processors).to_string();
        let units = PIECES.len().to_string();
        let mut pieces = Vec::new();
        for (unit, node) in PIECES.into_iter().enumerate() {
            let unit = unit.to_string();
            // Checkpoints are made when the demo comes to them.
            let run = ["cluster", "run", CLUSTER, "--detach", "--restartable"];
            let where_and_when = ["--checkpoint-every", "3600", "--node", node, "--"];
            let spect = ["spect", "simulate", "--phantom", &phantom, "--out", &out];
            let part = ["--unit", &unit, "--units", &units, "--photons", &photons];
            let args = [run.as_slice(), &where_and_when, &spect, &part].concat();
            pieces.push(self.json::<ClusterRun>(&args)?.tree);
        }
        wait_within(LIMIT, "the start of all pieces", || {
            let trees = self.trees(&pieces)?;
            let begun = |t: &ClusterTree| t.state != ClusterTreeState::Starting;
            Ok(trees.iter().all(begun).then_some(()))
        })?;
        Ok(pieces)
    }

    /// How long this machine needs for the photons of a trial.
    fn try_machine(&self) -> Result<Duration> {
        let laptop = self.grid.laptop()?;
        let spect = |args: &[&str]| laptop.run(&Cmd::new("spect").args(args).cwd("/tmp"))?.ok();
        spect(&["phantom", "trial.spect"])?;
        let (many, begin) = (TRIAL_PHOTONS.to_string(), Instant::now());
        let trial = ["simulate", "--phantom", "trial.spect", "--unit", "0", "--units", "1"];
        spect(&[trial.as_slice(), &["--photons", &many, "--out", "trial.hist"]].concat())?;
        Ok(begin.elapsed())
    }

    /// The pieces as they stand.
    ///
    /// # Errors
    /// Also when one is lost or did not end well.
    fn trees(&self, pieces: &[u64]) -> Result<Vec<ClusterTree>> {
        let mut trees = self.json::<Ps>(&["cluster", "ps", CLUSTER])?.trees;
        trees.retain(|t| pieces.contains(&t.tree));
        if let Some(t) = trees.iter().find(|t| came_to_nothing(t)) {
            return Err(failed(&format!("program {} of {CLUSTER}", t.tree), &t.reason));
        }
        Ok(trees)
    }

    /// Shows the member's programs.
    fn print(&self) -> Result<()> {
        let said = self.grid.xos(self.member, &["cluster", "ps", CLUSTER])?;
        // Their processes come after an empty line.
        println!("{}\n", said.split("\n\n").next().unwrap_or_default().trim_end());
        Ok(())
    }

    /// Waits until all pieces that have not ended run on a node; which these are.
    fn gather(&self, pieces: &[u64], node: &str) -> Result<Vec<u64>> {
        wait_within(LIMIT, &format!("all programs on {node}"), || {
            let trees = self.trees(pieces)?;
            let there = open_on(&trees, node);
            let open = |t: &&ClusterTree| t.state != ClusterTreeState::Ended;
            let all = trees.iter().filter(open).count() == there.len();
            let run = |t: &ClusterTree| t.state == ClusterTreeState::Running;
            let run = trees.iter().filter(open).all(run);
            Ok((all && run).then_some(there))
        })
    }

    /// Empties the first node, which takes programs again afterwards.
    fn drain(&self, pieces: &[u64], steps: &mut Steps) -> Result<()> {
        let [from, to] = NODES;
        self.print()?;
        let before = open_on(&self.trees(pieces)?, from);
        let drain = ["cluster", "drain", NAME, from];
        self.site.admin(&drain)?;
        let after = self.gather(pieces, to)?;
        self.site.admin(&[drain.as_slice(), &["--undo"]].concat())?;
        let moved = both(&before, &after);
        steps.done(&format!("{from} was drained: {moved} of them moved to {to} while they ran"));
        self.print()
    }

    /// Has checkpoints of all pieces made and copied.
    fn save(&self, pieces: &[u64]) -> Result<()> {
        wait_within(LIMIT, "checkpoints on both nodes", || {
            let mut trees = self.trees(pieces)?;
            trees.retain(|t| t.state != ClusterTreeState::Ended && !is_safe(t));
            for t in trees.iter().filter(|t| t.checkpoint.is_none() && !t.saving) {
                let Some(pid) = t.pid.map(|pid| pid.to_string()) else { continue };
                // Refused while it moves, as loads are evened out: then it is asked for again.
                self.grid.xos_output(self.member, &["cluster", "checkpoint", CLUSTER, &pid])?;
            }
            Ok(trees.is_empty().then_some(()))
        })
    }

    /// Kills the second node with all that it runs, and boots it once that goes on elsewhere.
    fn kill(&self, pieces: &[u64], steps: &mut Steps) -> Result<()> {
        let [other, name] = NODES;
        let label = format!("{}-{name}", self.site.name);
        let node = self.site.nodes.iter().find(|node| node.name().as_str() == label);
        let node = node.ok_or_else(|| failed("killing a node", format!("there is no {label}")))?;
        if !keeps_its_files(node)? {
            let dir = self.grid.testbed().dir().display();
            steps.done(&format!(
                "{name} is not killed: the file system of {dir} holds no overlay, so that nothing \
                 of its installation would be left; DEMO_DIR names another folder"
            ));
            return Ok(());
        }
        let before = open_on(&self.trees(pieces)?, name);
        node.crash()?;
        let after = self.gather(pieces, other)?;
        let went_on = both(&before, &after);
        steps.done(&format!(
            "{name} was killed: {went_on} of {} that ran there went on from checkpoints on {other}",
            before.len()
        ));
        self.site.boot_node(node, self.login)
    }

    /// Merges what the pieces counted, all of them; what the program says of it.
    fn merge(&self, folder: &str) -> Result<String> {
        let (phantom, picture) = (format!("{folder}/body.spect"), format!("{folder}/cluster.png"));
        let (units, counted) = (PIECES.len().to_string(), format!("{folder}/cluster/"));
        let spect = ["--on", "pisa", "--", "spect", "merge", "--phantom", &phantom];
        let more = ["--out", &picture, "--expect", &units, &counted];
        let said = xsub(self.grid, self.member, &[spect.as_slice(), &more].concat())?;
        Ok(said.split(" (").next().unwrap_or_default().trim().to_owned())
    }
}

/// How many of the one are in the other.
fn both(before: &[u64], after: &[u64]) -> usize {
    before.iter().filter(|tree| after.contains(tree)).count()
}

/// Photons of each piece, so that all of them run for [`WORK`] beside one another on this machine,
/// which needs so long for the trial.
fn photons(trial: Duration, processors: usize) -> u64 {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (all, of) = (PIECES.len(), processors.clamp(1, PIECES.len()));
    let (all, of) = (u64::try_from(all).unwrap_or(1), u64::try_from(of).unwrap_or(1));
    let alone = TRIAL_PHOTONS.saturating_mul(millis(WORK)) / millis(trial).max(1);
    (alone / all).saturating_mul(of).clamp(1, PHOTONS_MAX)
}

/// Whether a program will not do what it was started for.
fn came_to_nothing(t: &ClusterTree) -> bool {
    match t.state {
        ClusterTreeState::Lost => true,
        ClusterTreeState::Ended => t.status != Some(0),
        _ => false,
    }
}

/// Whether the failure of one node leaves a checkpoint of it.
fn is_safe(t: &ClusterTree) -> bool {
    t.checkpoint.as_ref().is_some_and(|c| c.copies >= COPIES)
}

/// Those that are on a node (by its name at its site) and have not ended.
fn open_on(trees: &[ClusterTree], node: &str) -> Vec<u64> {
    let there = |t: &&ClusterTree| {
        let name = t.node.as_ref().and_then(|at| at.as_str().split('.').next());
        t.state != ClusterTreeState::Ended && name == Some(node)
    };
    trees.iter().filter(there).map(|t| t.tree).collect()
}

/// Whether what was installed on a host is there after it was killed: where the folder of the
/// testbed cannot hold an overlay's changes, memory does.
fn keeps_its_files(host: &Host) -> Result<bool> {
    let in_memory = "^overlay /(etc|usr) .*upperdir=/tmp/";
    let found = host.run(&Cmd::new("grep").args(["-qE", in_memory, "/proc/mounts"]))?;
    Ok(!found.exit.is_success())
}

/// What was said, as JSON.
fn parse<T: DeserializeOwned>(who: &str, said: &str) -> Result<T> {
    serde_json::from_str(said).map_err(|e| failed(who, format!("{e} in {said:?}")))
}

fn failed(what: &str, reason: impl ToString) -> Error {
    Error::Start { what: what.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program as `xos cluster ps` tells of it.
    fn tree(number: u64, state: &str, node: &str) -> ClusterTree {
        let told = serde_json::json!({
            "tree": number, "person": "milo@rennes", "vo": "demo.rennes", "argv": ["spect"],
            "state": state, "node": node, "saving": false,
        });
        serde_json::from_value(told).unwrap()
    }

    /// If it failed, pieces would end before anything can be shown with them, or people wait long.
    #[test]
    fn pieces_take_as_long_on_any_machine() {
        let second = Duration::from_secs(1);
        assert_eq!(photons(second, 3), 9_999_999);
        assert_eq!(photons(second, 64), photons(second, 3));
        assert_eq!(photons(second, 1), 3_333_333);
        assert_eq!(photons(2 * second, 3), 4_999_998);
        assert_eq!(photons(Duration::ZERO, 8), PHOTONS_MAX);
        assert_eq!(photons(Duration::MAX, 0), 1);
    }

    /// If it failed, the demo would tell of moves and restarts that were none.
    #[test]
    fn what_ended_is_on_no_node() {
        let trees = [
            tree(1, "running", "n1.rennes"),
            tree(2, "ended", "n1.rennes"),
            tree(3, "running", "n12.rennes"),
        ];
        assert_eq!(open_on(&trees, "n1"), [1]);
        assert_eq!(both(&[1, 2], &[3, 1]), 1);
    }

    /// If it failed, the demo would wait for ever for a program that is lost, or call a failure
    /// work that is done.
    #[test]
    fn a_lost_or_failed_program_came_to_nothing() {
        let ended = |status| ClusterTree { status, ..tree(1, "ended", "n1.rennes") };
        assert!(!came_to_nothing(&ended(Some(0))));
        assert!(came_to_nothing(&ended(Some(1))) && came_to_nothing(&ended(None)));
        assert!(came_to_nothing(&tree(1, "lost", "n1.rennes")));
        assert!(!came_to_nothing(&tree(1, "moving", "n1.rennes")));
    }
}
