//! One program of a cluster: how it stands, where, its processes, what is in the way of a move.

use super::{Asker, ProcessRow, ProgramRow, Whose, is_over, number, process_rows, said, takes};
use crate::command_line;
use crate::pages::sign_in::kindly;
use crate::pages::site::SiteHead;
use crate::pages::vo::{self, Head};
use crate::view::{Frame, page, page_with};
use crate::visit::{Shown, Stop, Visit};
use askama::Template;
use xos_api::cluster::{
    ClusterNode, ClusterProcess, ClusterTree, ClusterTreeState, GetCluster, ListProcesses, TreeWhy,
    WhyTree,
};
use xos_base::{ClusterId, Error};

/// Most processes of a program that are shown.
const PROCESSES_MAX: usize = 100;
/// Longest command, in characters.
const COMMAND_MAX: usize = 2000;
/// Most obstacles that are shown, and most nodes.
const OBSTACLES_MAX: usize = 100;

/// What stands at the top of the page: of a VO's, or of the site's.
pub(super) struct Top {
    pub(super) vo: Option<Head>,
    pub(super) site: Option<SiteHead>,
}

impl Top {
    pub(super) async fn of(visit: &Visit, whose: &Whose) -> Result<Top, Stop> {
        Ok(match whose {
            Whose::Vo(_) => {
                Top { vo: Some(Head::new(&vo::info(visit).await?, "clusters")), site: None }
            }
            Whose::Site => Top { vo: None, site: Some(SiteHead::new("clusters")) },
        })
    }
}

/// A program that an address names, and who asks about it.
pub(super) struct Named {
    pub(super) whose: Whose,
    pub(super) asker: Asker,
    pub(super) cluster: ClusterId,
    pub(super) tree: ClusterTree,
}

impl Named {
    pub(super) async fn of(visit: &Visit) -> Result<Named, Stop> {
        let whose = Whose::of(visit)?;
        let cluster: ClusterId = visit.place("cluster")?;
        let number = number(visit, "tree")?;
        let asker = Asker::at(visit, &whose, &cluster).await?;
        let tree = asker.tree(visit, &whose, &cluster, number).await?;
        Ok(Named { whose, asker, cluster, tree })
    }

    /// Its page.
    pub(super) fn path(&self) -> String {
        self.whose.program(&self.cluster, self.tree.tree)
    }

    /// The frame of one of its pages.
    pub(super) async fn frame(&self, visit: &Visit, title: &str) -> Frame {
        let title = format!("{title} {} of {}", self.tree.tree, self.cluster);
        Frame::of(visit, &title, self.whose.section()).await
    }

    async fn all_processes(&self, visit: &Visit) -> Result<Vec<ClusterProcess>, Stop> {
        let ask = ListProcesses { cluster: self.cluster.clone() };
        let mut all = self.asker.call(visit, ask).await?;
        all.retain(|p| p.tree == self.tree.tree);
        Ok(all)
    }

    /// Its first process.
    pub(super) fn first(&self) -> Result<i32, Error> {
        self.tree.pid.ok_or_else(|| {
            Error::conflict("the program was not started")
                .hint("it begins as soon as a node has room")
        })
    }

    /// Whether a process is one of the program's.
    pub(super) async fn has(&self, visit: &Visit, pid: i32) -> Result<bool, Stop> {
        Ok(self.all_processes(visit).await?.iter().any(|p| p.pid == pid))
    }

    /// Its processes: of many those that use most, the length of a full bar, whether there are
    /// more.
    pub(super) async fn processes(
        &self,
        visit: &Visit,
    ) -> Result<(Vec<ProcessRow>, u32, bool), Stop> {
        Ok(process_rows(self.all_processes(visit).await?, PROCESSES_MAX))
    }
}

#[derive(Template)]
#[template(path = "cluster_program.html")]
struct View {
    frame: Frame,
    top: Top,
    cluster: String,
    /// The list that it stands in.
    list: String,
    program: ProgramRow,
    command: String,
    over: bool,
    /// It can be asked what is in the way of a move, and be told of a signal.
    runs: bool,
    saves: bool,
    restarts: bool,
    /// Where it can be tried to move or restart it.
    targets: Vec<String>,
    processes: Vec<ProcessRow>,
    cpu_full: u32,
    more: bool,
    trouble: Option<String>,
}

/// The page of one program.
pub(crate) async fn show(visit: Visit) -> Shown {
    let named = Named::of(&visit).await?;
    show_with(&visit, &named, None).await
}

/// The same, with what came of something that was tried.
pub(super) async fn show_with(visit: &Visit, named: &Named, trouble: Option<Error>) -> Shown {
    let ask = GetCluster { cluster: named.cluster.clone() };
    let nodes = named.asker.call(visit, ask).await?.nodes;
    let (processes, cpu_full, more) = named.processes(visit).await?;
    let t = &named.tree;
    let runs = t.state == ClusterTreeState::Running;
    let status = trouble.as_ref().map_or(200, |e| e.kind.http_status());
    let view = View {
        frame: named.frame(visit, "Program").await,
        top: Top::of(visit, &named.whose).await?,
        cluster: named.cluster.to_string(),
        list: named.whose.list(&named.cluster),
        program: ProgramRow::new(&named.whose, &named.cluster, t),
        command: command_line::typed(&t.argv, COMMAND_MAX),
        over: is_over(t),
        runs,
        saves: runs && !t.saving,
        restarts: t.state == ClusterTreeState::Checkpointed,
        targets: targets(&nodes, t),
        processes,
        cpu_full,
        more,
        trouble: trouble.as_ref().map(kindly),
    };
    page_with(status, &view)
}

/// Where a program may go: what takes programs, but where it is.
fn targets(nodes: &[ClusterNode], t: &ClusterTree) -> Vec<String> {
    let here = t.node.as_ref().filter(|_| t.state == ClusterTreeState::Running);
    let here = here.map(ToString::to_string);
    takes(nodes).into_iter().filter(|node| Some(node) != here.as_ref()).collect()
}

#[derive(Template)]
#[template(path = "cluster_why.html")]
struct Why {
    frame: Frame,
    top: Top,
    path: String,
    tree: u64,
    command: String,
    /// What the program's node answered.
    answer: Option<Answer>,
    trouble: Option<String>,
}

struct Answer {
    obstacles: Vec<Obstacle>,
    /// Nodes, each with why it does not go there.
    nodes: Vec<(String, String)>,
}

struct Obstacle {
    pid: i32,
    what: String,
    next: String,
}

impl From<TreeWhy> for Answer {
    fn from(why: TreeWhy) -> Answer {
        let obstacles = why.obstacles.into_iter().take(OBSTACLES_MAX);
        let nodes = why.nodes.into_iter().take(OBSTACLES_MAX);
        Answer {
            obstacles: obstacles
                .map(|o| Obstacle { pid: o.pid, what: said(&o.what), next: said(&o.next) })
                .collect(),
            nodes: nodes.map(|n| (n.node.to_string(), said(&n.reason))).collect(),
        }
    }
}

/// What keeps the program from moving, as its node and the core say before anything is tried.
pub(crate) async fn why(visit: Visit) -> Shown {
    let named = Named::of(&visit).await?;
    let ask = WhyTree { cluster: named.cluster.clone(), pid: named.first()? };
    let (answer, trouble) = match named.asker.call(&visit, ask).await {
        Ok(why) => (Some(Answer::from(why)), None),
        // It moves at the moment, or its node is silent: the page says so.
        Err(Stop::Failed(e)) => (None, Some(kindly(&e))),
        Err(stop) => return Err(stop),
    };
    page(&Why {
        frame: named.frame(&visit, "What keeps program").await,
        top: Top::of(&visit, &named.whose).await?,
        path: named.path(),
        tree: named.tree.tree,
        command: command_line::typed(&named.tree.argv, COMMAND_MAX),
        answer,
        trouble,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_api::cluster::ClusterNodeState;

    /// If it failed, people would be offered a move to where the program is, or to a node that
    /// takes none; or a restart not on the node where it was before.
    #[test]
    fn a_program_may_go_where_programs_are_taken() {
        let node = |name: &str, state| ClusterNode {
            node: name.parse().unwrap(),
            number: 1,
            state,
            reason: String::new(),
            moves: true,
            moves_not: String::new(),
            trees: 0,
            looks: None,
        };
        let nodes = [
            node("n1.rennes", ClusterNodeState::Online),
            node("n2.rennes", ClusterNodeState::Online),
            node("n3.rennes", ClusterNodeState::Draining),
        ];
        let mut t = ClusterTree {
            tree: 1,
            pid: Some(1),
            person: "milo@rennes".parse().unwrap(),
            vo: "demo.rennes".parse().unwrap(),
            argv: Vec::new(),
            state: ClusterTreeState::Running,
            reason: String::new(),
            node: Some("n1.rennes".parse().unwrap()),
            output_at: None,
            to: None,
            status: None,
            checkpoint: None,
            saving: false,
            trouble: String::new(),
            cut: Vec::new(),
        };
        assert_eq!(targets(&nodes, &t), ["n2.rennes"]);
        t.state = ClusterTreeState::Checkpointed;
        assert_eq!(targets(&nodes, &t), ["n1.rennes", "n2.rennes"]);
    }
}
