//! Stand-in operations on clusters: `c1.rennes`, in which milo and vera run programs.

use super::{Fake, id};
use std::sync::Arc;
use xos_api::Done;
use xos_api::cluster::*;
use xos_base::Error;
use xos_net::{Caller, Router};

/// The process of a tree beside its first one, whose pid is the tree's number.
pub const CHILD: i32 = 65_540;

impl Fake {
    fn cluster_node(&self, name: &str, number: u8, state: ClusterNodeState) -> ClusterNode {
        let looks = ClusterNodeLooks {
            load_milli: 1500,
            cpus: 4,
            memory_bytes: 8 << 30,
            memory_free_bytes: 6 << 30,
            cpu_group: 1,
            age_ms: 300,
        };
        ClusterNode {
            node: id(name),
            number,
            state,
            reason: self.t(),
            moves: false,
            moves_not: self.t(),
            trees: u64::from(state == ClusterNodeState::Online),
            looks: (state != ClusterNodeState::Failed).then_some(looks),
        }
    }

    fn cluster(&self, cluster: &str) -> ClusterView {
        use ClusterNodeState::{Draining, Failed, Online};
        let nodes = vec![
            self.cluster_node("n2.rennes", 1, Online),
            self.cluster_node("n3.rennes", 2, Draining),
            self.cluster_node("n4.rennes", 3, Failed),
            self.cluster_node("n5.rennes", 4, Online),
        ];
        ClusterView { cluster: id(cluster), nodes, trees: 3, waiting: 0 }
    }

    fn tree(&self, tree: u64, person: &str, state: ClusterTreeState) -> ClusterTree {
        let checkpoint = ClusterCheckpoint { version: 3, bytes: 5 << 20, freeze_ms: 41, copies: 2 };
        let moves = state == ClusterTreeState::Moving;
        ClusterTree {
            tree,
            pid: Some(i32::try_from(tree).unwrap()),
            person: id(person),
            vo: id("demo.rennes"),
            argv: vec!["./simulate".into(), self.t()],
            state,
            reason: self.t(),
            node: Some(id("n2.rennes")),
            output_at: None,
            to: moves.then(|| id("n5.rennes")),
            status: None,
            checkpoint: (tree != 8).then_some(checkpoint),
            saving: moves,
            trouble: self.t(),
            cut: Vec::new(),
        }
    }

    /// Those that the caller sees.
    fn trees(&self, c: &Caller) -> Result<Vec<ClusterTree>, Error> {
        use ClusterTreeState::{Checkpointed, Ended, Moving, Running};
        self.sees(c)?;
        let mut all = vec![
            self.tree(7, "milo@rennes", Running),
            self.tree(8, "vera@rennes", Moving),
            self.tree(9, "milo@rennes", Checkpointed),
            self.tree(10, "milo@rennes", Ended),
        ];
        let person = c.person()?;
        all.retain(|t| c.site_admin() || t.person == person);
        Ok(all)
    }

    fn sees(&self, c: &Caller) -> Result<(), Error> {
        if c.site_admin() { Ok(()) } else { c.member().map(|_| ()) }
    }

    /// The tree of a process that the caller handles; noted.
    fn handles<R: std::fmt::Debug>(
        &self,
        c: &Caller,
        pid: i32,
        r: &R,
    ) -> Result<ClusterTree, Error> {
        let pid = if pid == CHILD { 7 } else { pid };
        let found = self.trees(c)?.into_iter().find(|t| t.pid == Some(pid));
        let tree = found.ok_or_else(|| Error::not_found(format!("no process {pid} of yours")))?;
        self.note(&c.person()?, r);
        Ok(tree)
    }

    fn changes_cluster<R: std::fmt::Debug>(&self, c: &Caller, r: &R) -> Result<(), Error> {
        self.is_site_admin(c)?;
        self.note(&c.person()?, r);
        Ok(())
    }

    fn processes(&self, c: &Caller) -> Result<Vec<ClusterProcess>, Error> {
        let process = |pid: i32, parent: i32, t: &ClusterTree| ClusterProcess {
            pid,
            parent,
            tree: t.tree,
            node: id("n2.rennes"),
            person: Some(t.person.clone()),
            command: self.t(),
            // What a node says is not believed to be a letter.
            state: '<',
            cpu_milli: 1750,
            memory_bytes: 3 << 20,
        };
        let mut all = Vec::new();
        for t in self.trees(c)?.iter().filter(|t| t.tree < 9) {
            let Some(pid) = t.pid else { continue };
            all.push(process(pid, 1, t));
            if t.tree == 7 {
                all.push(process(CHILD, pid, t));
            }
        }
        Ok(all)
    }

    fn plan(&self) -> DrainPlan {
        let stays = DrainedTree { tree: 7, pid: 7, to: None, reason: self.t() };
        let goes =
            DrainedTree { to: Some(id("n5.rennes")), reason: String::new(), ..stays.clone() };
        DrainPlan { trees: vec![stays, DrainedTree { tree: 8, pid: 8, ..goes }] }
    }

    /// Registers them: a core with a section `[cluster]`.
    pub fn register_clusters(self: &Arc<Self>, router: &mut Router) {
        serve! { self, router:
            on |f: &Fake, c: Caller, _: ListClusters| {
                f.sees(&c)?;
                Ok(vec![f.cluster("c1.rennes")])
            };
            on |f: &Fake, c: Caller, r: GetCluster| {
                f.sees(&c)?;
                if r.cluster.as_str() != "c1.rennes" {
                    return Err(Error::not_found(format!("there is no cluster {}", r.cluster)));
                }
                Ok(f.cluster("c1.rennes"))
            };
            on |f: &Fake, c: Caller, r: CreateCluster| {
                f.changes_cluster(&c, &r)?;
                Ok(f.cluster("c2.rennes"))
            };
            on |f: &Fake, c: Caller, r: AddClusterNodes| {
                f.changes_cluster(&c, &r)?;
                Ok(f.cluster("c1.rennes"))
            };
            on |f: &Fake, c: Caller, r: RemoveClusterNode| {
                f.changes_cluster(&c, &r).map(|()| Done {})
            };
            on |f: &Fake, c: Caller, r: DrainClusterNode| {
                if r.plan {
                    f.is_site_admin(&c)?;
                } else {
                    f.changes_cluster(&c, &r)?;
                }
                Ok(f.plan())
            };
            on |f: &Fake, c: Caller, _: ListTrees| f.trees(&c);
            on |f: &Fake, c: Caller, _: ListProcesses| f.processes(&c);
            on |f: &Fake, c: Caller, r: MigrateTree| {
                if r.node.as_str() == "n9.rennes" {
                    return Err(Error::conflict(format!("n9.rennes takes none: {}", f.text)));
                }
                f.handles(&c, r.pid, &r)
            };
            on |f: &Fake, c: Caller, r: CheckpointTree| f.handles(&c, r.pid, &r);
            on |f: &Fake, c: Caller, r: RestartTree| {
                f.handles(&c, i32::try_from(r.tree).unwrap(), &r)
            };
            on |f: &Fake, c: Caller, r: KillTree| f.handles(&c, r.pid, &r).map(|_| Done {});
            on |f: &Fake, c: Caller, r: WhyTree| {
                let obstacle = TreeObstacle { pid: r.pid, what: f.t(), next: f.t() };
                let node = NodeObstacle { node: id("n3.rennes"), reason: f.t() };
                if f.trees(&c)?.iter().all(|t| t.pid != Some(r.pid)) {
                    return Err(Error::not_found(format!("no process {} of yours", r.pid)));
                }
                let (obstacles, nodes) = (vec![obstacle], vec![node]);
                Ok(TreeWhy { tree: 7, obstacles, nodes })
            };
        }
    }
}
