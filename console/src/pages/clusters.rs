//! Clusters of nodes, and the programs in them: what the pages of members share with those of a
//! site's administrators.

pub(crate) mod handle;
pub(crate) mod mine;
pub(crate) mod program;
pub(crate) mod watch;

use crate::backend::in_time;
use crate::command_line;
use crate::view::{Badge, bytes_text, cpus_text, cut, sentence};
use crate::visit::{Stop, Visit};
use xos_api::Request;
use xos_api::cluster::{
    ClusterCheckpoint, ClusterNode, ClusterNodeState, ClusterProcess, ClusterTree,
    ClusterTreeState, ClusterView, ListClusters, ListTrees,
};
use xos_api::vom::WhoServes;
use xos_base::{ClusterId, Error, Kind, SiteId, VoId};
use xos_net::Client;

/// Longest command in a list, in characters.
const COMMAND_SHOWN: usize = 120;
/// Longest text of a node or a core, in characters.
const SAID_SHOWN: usize = 400;
/// Most files that were cut back and are named.
const CUTS_SHOWN: usize = 3;

/// Whose page this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// A member's, who acts in the VO: it shows their own programs.
    Vo(VoId),
    /// The site's administrators': it shows all programs.
    Site,
}

impl Whose {
    /// As the path says.
    fn of(visit: &Visit) -> Result<Whose, Stop> {
        if visit.places.iter().any(|(k, _)| k == "vo") {
            return Ok(Whose::Vo(visit.vo()?));
        }
        Ok(Whose::Site)
    }

    /// Which entry of the main menu its pages belong to.
    fn section(&self) -> &'static str {
        match self {
            Whose::Vo(_) => "vos",
            Whose::Site => "site",
        }
    }

    /// The page that lists programs.
    pub(super) fn list(&self, cluster: &ClusterId) -> String {
        match self {
            Whose::Vo(vo) => format!("/vo/{vo}/clusters"),
            Whose::Site => format!("/site/cluster/{cluster}"),
        }
    }

    /// The page of one program.
    fn program(&self, cluster: &ClusterId, tree: u64) -> String {
        match self {
            Whose::Vo(vo) => format!("/vo/{vo}/cluster/{cluster}/program/{tree}"),
            Whose::Site => format!("/site/cluster/{cluster}/program/{tree}"),
        }
    }

    /// Whether a program belongs there. Members who administer a site are told of all by its core.
    fn shows(&self, visit: &Visit, t: &ClusterTree) -> bool {
        match self {
            Whose::Vo(vo) => t.vo == *vo && t.person == visit.session.person,
            Whose::Site => true,
        }
    }
}

/// Who asks which core.
pub(super) enum Asker {
    /// An administrator of the site asks this core.
    Site,
    /// A member of a VO asks this core.
    Member(VoId),
    /// A member of a VO asks another site's core.
    Afar(SiteId, Client),
}

impl Asker {
    /// Who asks the core of a site that serves the VO.
    async fn of(visit: &Visit, whose: &Whose, site: &SiteId) -> Result<Asker, Stop> {
        match whose {
            Whose::Site if *site == *visit.console.grid.site() => Ok(Asker::Site),
            Whose::Site => Err(Stop::NoSuchPage),
            Whose::Vo(vo) => Ok(match visit.member_at(vo, site).await? {
                None => Asker::Member(vo.clone()),
                Some(client) => Asker::Afar(site.clone(), client),
            }),
        }
    }

    /// Who asks about a cluster that an address names. Whoever wrote the address does not choose
    /// the site to which a membership is proved: it must serve the VO.
    pub(super) async fn at(
        visit: &Visit,
        whose: &Whose,
        cluster: &ClusterId,
    ) -> Result<Asker, Stop> {
        let site = cluster.site();
        if let Whose::Vo(vo) = whose
            && site != *visit.console.grid.site()
        {
            let serving = visit.ask_either(vo, WhoServes { vo: vo.clone() }).await?;
            if !serving.iter().any(|s| s.site == site) {
                return Err(Error::not_found(format!("{site} does not serve {vo}"))
                    .hint("the VO's page of clusters shows those of the sites that do")
                    .into());
            }
        }
        Asker::of(visit, whose, &site).await
    }

    pub(super) async fn call<R: Request>(&self, visit: &Visit, r: R) -> Result<R::Reply, Stop> {
        match self {
            Asker::Site => visit.ask(r).await,
            Asker::Member(vo) => visit.ask_member(vo, r).await,
            Asker::Afar(site, client) => {
                let answer = async { Ok::<_, Stop>(client.call(r).await?) };
                in_time(site, answer).await
            }
        }
    }

    /// The clusters of the site; none: its core has no section `[cluster]`.
    async fn clusters(&self, visit: &Visit) -> Result<Option<Vec<ClusterView>>, Stop> {
        let trust = visit.console.grid.trust();
        // A site that is not known here is not found either, and that says nothing of its clusters.
        let afar = match self {
            Asker::Afar(site, _) => trust.descriptors().iter().any(|known| known.site == *site),
            Asker::Site | Asker::Member(_) => false,
        };
        if !matches!(self, Asker::Afar(..)) && !served_here(visit) {
            return Ok(None);
        }
        match self.call(visit, ListClusters {}).await {
            Ok(all) => Ok(Some(all)),
            // Over the network, what a core does not serve does not exist there.
            Err(Stop::Failed(e)) if afar && e.kind == Kind::NotFound => Ok(None),
            Err(stop) => Err(stop),
        }
    }

    /// A program of the visitor's; of the site's administrators': any.
    async fn tree(
        &self,
        visit: &Visit,
        whose: &Whose,
        cluster: &ClusterId,
        tree: u64,
    ) -> Result<ClusterTree, Stop> {
        let all = self.call(visit, ListTrees { cluster: cluster.clone() }).await?;
        let found = all.into_iter().find(|t| t.tree == tree && whose.shows(visit, t));
        found.ok_or_else(|| no_program(cluster, tree))
    }
}

fn no_program(cluster: &ClusterId, tree: u64) -> Stop {
    let e = Error::not_found(format!("no program {tree} of yours is known in {cluster}"));
    Stop::Failed(e.hint("it ended a while ago, or is another's; the list has those that are known"))
}

/// Whether this core has a section `[cluster]`.
pub(super) fn served_here(visit: &Visit) -> bool {
    visit.console.grid.serves::<ListClusters>()
}

/// A number at a variable place of the path.
fn number(visit: &Visit, name: &str) -> Result<u64, Stop> {
    visit.place_text(name)?.parse().map_err(|_| Stop::NoSuchPage)
}

/// What a node or a core said, for a page.
pub(super) fn said(text: &str) -> String {
    sentence(&cut(text, SAID_SHOWN))
}

/// A cluster in a line.
pub(crate) struct Summary {
    pub(crate) cluster: String,
    pub(crate) nodes: usize,
    pub(crate) online: usize,
    pub(crate) cpus: u64,
    pub(crate) load: String,
    pub(crate) load_milli: u64,
    pub(crate) trees: u64,
}

impl From<&ClusterView> for Summary {
    fn from(c: &ClusterView) -> Summary {
        let looks = || c.nodes.iter().filter_map(|n| n.looks.as_ref());
        let load_milli = looks().fold(0_u64, |sum, l| sum.saturating_add(l.load_milli));
        Summary {
            cluster: c.cluster.to_string(),
            nodes: c.nodes.len(),
            online: c.nodes.iter().filter(|n| n.state == ClusterNodeState::Online).count(),
            cpus: looks().map(|l| u64::from(l.cpus)).sum(),
            load: cpus_text(load_milli),
            load_milli,
            trees: c.trees,
        }
    }
}

/// Whether a program is over.
fn is_over(t: &ClusterTree) -> bool {
    matches!(t.state, ClusterTreeState::Ended | ClusterTreeState::Lost)
}

/// A program in a list, or at the top of its own page.
pub(crate) struct ProgramRow {
    pub(crate) tree: u64,
    /// Nothing: it was not started.
    pub(crate) pid: String,
    /// Its page.
    pub(crate) path: String,
    pub(crate) person: String,
    pub(crate) vo: String,
    pub(crate) command: String,
    pub(crate) state: Badge,
    pub(crate) node: String,
    /// Where it moves to, or is restarted.
    pub(crate) to: Option<String>,
    pub(crate) checkpoint: Option<String>,
    pub(crate) saving: bool,
    /// Why it is so, what went wrong last, and what became of its files.
    pub(crate) notes: Vec<String>,
}

impl ProgramRow {
    pub(super) fn new(whose: &Whose, cluster: &ClusterId, t: &ClusterTree) -> ProgramRow {
        ProgramRow {
            tree: t.tree,
            pid: t.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            path: whose.program(cluster, t.tree),
            person: t.person.to_string(),
            vo: t.vo.to_string(),
            command: command_line::typed(&t.argv, COMMAND_SHOWN),
            state: t.state.into(),
            node: t.node.as_ref().map(ToString::to_string).unwrap_or_default(),
            to: t.to.as_ref().map(ToString::to_string),
            checkpoint: t.checkpoint.as_ref().map(checkpoint_text),
            saving: t.saving,
            notes: {
                let said = notes(&[t.reason.as_str(), t.trouble.as_str()]);
                said.into_iter().chain(cuts(t)).collect()
            },
        }
    }
}

fn checkpoint_text(c: &ClusterCheckpoint) -> String {
    let size = bytes_text(c.bytes);
    let nodes = match c.copies {
        1 => "on one node only".to_owned(),
        n => format!("on {n} nodes"),
    };
    format!("number {}, {size}, {nodes}, it stood still for {} ms", c.version, c.freeze_ms)
}

/// The files that were cut back last when a program was restarted.
fn cuts(t: &ClusterTree) -> impl Iterator<Item = String> {
    t.cut.iter().rev().take(CUTS_SHOWN).map(|cut| {
        let bytes = bytes_text(cut.bytes);
        said(&format!("{} was cut back: {bytes} of it are in {}", cut.path, cut.kept))
    })
}

/// Those of the texts that say something.
pub(super) fn notes(texts: &[&str]) -> Vec<String> {
    texts.iter().filter(|text| !text.is_empty()).map(|text| said(text)).collect()
}

/// Programs for a list, those that go on first: at most `max`, and whether there are more.
pub(super) fn program_rows(
    whose: &Whose,
    cluster: &ClusterId,
    mut trees: Vec<ClusterTree>,
    max: usize,
) -> (Vec<ProgramRow>, bool) {
    // What ended last is of more interest than what ended first.
    trees.sort_by_key(|t| (is_over(t), std::cmp::Reverse(t.tree)));
    let rows = trees.iter().take(max).map(|t| ProgramRow::new(whose, cluster, t)).collect();
    (rows, trees.len() > max)
}

/// A process in a list.
pub(crate) struct ProcessRow {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) tree: u64,
    pub(crate) node: String,
    pub(crate) person: String,
    pub(crate) command: String,
    pub(crate) state: String,
    pub(crate) cpu_milli: u32,
    pub(crate) cpu: String,
    pub(crate) memory: String,
}

impl From<&ClusterProcess> for ProcessRow {
    fn from(p: &ClusterProcess) -> ProcessRow {
        ProcessRow {
            pid: p.pid,
            parent: p.parent,
            tree: p.tree,
            node: p.node.to_string(),
            person: p.person.as_ref().map(ToString::to_string).unwrap_or_default(),
            command: cut(&p.command, COMMAND_SHOWN),
            state: p.state.to_string(),
            cpu_milli: p.cpu_milli,
            cpu: cpus_text(p.cpu_milli.into()),
            memory: bytes_text(p.memory_bytes),
        }
    }
}

/// The processes that use most, at most `max`; the full length of their bars, in thousandths of a
/// processor; whether there are more.
pub(super) fn process_rows(
    mut all: Vec<ClusterProcess>,
    max: usize,
) -> (Vec<ProcessRow>, u32, bool) {
    all.sort_by_key(|p| (std::cmp::Reverse(p.cpu_milli), p.pid));
    let full = all.first().map_or(0, |p| p.cpu_milli).max(1000);
    (all.iter().take(max).map(ProcessRow::from).collect(), full, all.len() > max)
}

/// Nodes that take programs, for a choice.
fn takes(nodes: &[ClusterNode]) -> Vec<String> {
    let online = nodes.iter().filter(|n| n.state == ClusterNodeState::Online);
    online.map(|n| n.node.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(tree: u64, state: ClusterTreeState) -> ClusterTree {
        ClusterTree {
            tree,
            pid: Some(1),
            person: "milo@rennes".parse().unwrap(),
            vo: "demo.rennes".parse().unwrap(),
            argv: vec!["x".repeat(9000)],
            state,
            reason: "y".repeat(9000),
            node: None,
            output_at: None,
            to: None,
            status: None,
            checkpoint: None,
            saving: false,
            trouble: String::new(),
            cut: Vec::new(),
        }
    }

    /// If it failed, programs that run would be left out of a list in favour of those that ended,
    /// or a stranger's texts make a page as long as they like.
    #[test]
    fn what_goes_on_comes_first_and_texts_are_cut() {
        use ClusterTreeState::{Checkpointed, Ended, Lost, Running};
        let all = vec![tree(1, Ended), tree(2, Running), tree(3, Lost), tree(4, Checkpointed)];
        let cluster = "c1.rennes".parse().unwrap();
        let (rows, more) = program_rows(&Whose::Site, &cluster, all, 3);
        assert_eq!(rows.iter().map(|r| r.tree).collect::<Vec<_>>(), [4, 2, 3]);
        assert!(more);
        assert_eq!(rows[0].command.chars().count(), COMMAND_SHOWN + 1);
        assert_eq!(rows[0].notes[0].chars().count(), SAID_SHOWN + 1);
        assert_eq!(rows[0].path, "/site/cluster/c1.rennes/program/4");
    }

    /// If it failed, a process that uses many processors would draw a bar out of its place.
    #[test]
    fn bars_of_processes_are_as_long_as_the_busiest() {
        let process = |pid, cpu_milli| ClusterProcess {
            pid,
            parent: 1,
            tree: 1,
            node: "n1.rennes".parse().unwrap(),
            person: None,
            command: String::new(),
            state: 'R',
            cpu_milli,
            memory_bytes: 0,
        };
        assert_eq!(process_rows(Vec::new(), 5).1, 1000);
        let (rows, full, more) = process_rows(vec![process(7, 10), process(8, 2500)], 1);
        assert_eq!((rows[0].pid, full, more), (8, 2500, true));
    }
}
