//! The commands of Kerrighed, as its users know them: `krgadm`, `migrate`, `checkpoint`, `restart`.

use super::{Asker, cluster_id, leave, nodes, site_of, trees};
use crate::cli::output::Outcome;
use crate::cli::session::Session;
use xos_api::cluster::{GetCluster, ListClusters};
use xos_base::Error;

/// The variable that names the cluster.
const VARIABLE: &str = "XOS_CLUSTER";

/// `xos krg …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// The cluster as a whole.
    #[command(subcommand, after_help = "Example:\n  xos krg cluster status")]
    Cluster(Whole),
    /// Its nodes.
    #[command(
        subcommand,
        after_help = "\
Examples:
  xos krg nodes status
  xos krg nodes add -n n3,n4"
    )]
    Nodes(Nodes),
    /// Move a program to another node.
    #[command(after_help = "Example:\n  xos krg migrate 65432 n2      also: migrate 65432 n2")]
    Migrate {
        /// Any process of the program.
        pid: i32,
        /// Where to: a node, or its number.
        node: String,
        /// Which cluster.
        #[command(flatten)]
        at: At,
    },
    /// Make a checkpoint of a program, which goes on.
    #[command(after_help = "Example:\n  xos krg checkpoint 65432      also: checkpoint 65432")]
    Checkpoint {
        /// Any process of the program.
        pid: i32,
        /// Which cluster.
        #[command(flatten)]
        at: At,
    },
    /// Restart a program that waits as a checkpoint.
    #[command(after_help = "\
Examples:
  xos krg restart 7 n2      also: restart 7 n2
  xos krg restart 7 --as-is")]
    Restart {
        /// The program's number in the cluster.
        tree: u64,
        /// Where: a node, or its number [default: the least loaded one].
        node: Option<String>,
        /// Go on with the files that it had open as they are: cut none back, and refuse none.
        #[arg(long)]
        as_is: bool,
        /// Which cluster.
        #[command(flatten)]
        at: At,
    },
}

/// `xos krg cluster …`.
#[derive(Debug, clap::Subcommand)]
pub enum Whole {
    /// Show the clusters of the site.
    #[command(after_help = "Example:\n  xos krg cluster status      also: krgadm cluster status")]
    Status,
}

/// `xos krg nodes …`.
#[derive(Debug, clap::Subcommand)]
pub enum Nodes {
    /// Show the nodes of the cluster.
    #[command(after_help = "Example:\n  xos krg nodes status      also: krgadm nodes status")]
    Status {
        /// Which cluster.
        #[command(flatten)]
        at: At,
    },
    /// Take nodes up (site administrators).
    #[command(after_help = "Example:\n  xos krg nodes add -n n3,n4")]
    Add {
        /// The nodes, with commas between them.
        #[arg(short, long, required = true, value_delimiter = ',')]
        nodes: Vec<String>,
        /// Which cluster.
        #[command(flatten)]
        at: At,
    },
    /// Move all programs away from nodes, and take these out (site administrators).
    #[command(after_help = "Example:\n  xos krg nodes del -n n3      also: krgadm nodes del -n n3")]
    Del {
        /// The nodes or their numbers, with commas between them.
        #[arg(short, long, required = true, value_delimiter = ',')]
        nodes: Vec<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Which cluster.
        #[command(flatten)]
        at: At,
    },
}

/// Which cluster.
#[derive(Debug, clap::Args)]
pub struct At {
    /// The cluster [default: what XOS_CLUSTER names, else the site's only one].
    #[arg(long)]
    cluster: Option<String>,
}

/// Runs a command of this group.
///
/// # Errors
/// What the core says.
pub async fn run(s: &Session, command: Command) -> Outcome {
    match command {
        Command::Cluster(Whole::Status) => nodes::status(s).await,
        Command::Nodes(Nodes::Status { at }) => nodes::nodes(s, &at.name(s).await?).await,
        Command::Nodes(Nodes::Add { nodes, at }) => nodes::add(s, &at.name(s).await?, &nodes).await,
        Command::Nodes(Nodes::Del { nodes, yes, at }) => {
            let cluster = at.name(s).await?;
            let mut named = Vec::with_capacity(nodes.len());
            for node in &nodes {
                named.push(numbered(s, &cluster, node).await?);
            }
            leave::del(s, &cluster, &named, yes).await
        }
        Command::Migrate { pid, node, at } => {
            let cluster = at.name(s).await?;
            trees::migrate(s, &cluster, pid, &numbered(s, &cluster, &node).await?).await
        }
        Command::Checkpoint { pid, at } => trees::checkpoint(s, &at.name(s).await?, pid).await,
        Command::Restart { tree, node, as_is, at } => {
            let cluster = at.name(s).await?;
            let node = match node {
                Some(node) => Some(numbered(s, &cluster, &node).await?),
                None => None,
            };
            trees::restart(s, &cluster, tree, node.as_deref(), as_is).await
        }
    }
}

impl At {
    /// The name of the cluster that is meant.
    async fn name(&self, s: &Session) -> Result<String, Error> {
        let variable = || std::env::var(VARIABLE).ok().filter(|name| !name.is_empty());
        if let Some(name) = self.cluster.clone().or_else(variable) {
            return Ok(name);
        }
        let site = s.site()?;
        let mut core = Asker::at(s, &site).await?;
        let mut all = core.call(s, ListClusters {}).await?;
        match (all.pop(), all.is_empty()) {
            (Some(one), true) => Ok(one.cluster.to_string()),
            (Some(_), false) => Err(Error::invalid(format!("{site} has several clusters"))
                .hint(format!("name one with --cluster or {VARIABLE}; see xos cluster status"))),
            (None, _) => Err(Error::not_found(format!("{site} has no cluster"))),
        }
    }
}

/// The name of a node that may be given by its number.
async fn numbered(s: &Session, cluster: &str, node: &str) -> Result<String, Error> {
    let Ok(number) = node.parse::<u8>() else { return Ok(node.to_owned()) };
    let cluster = cluster_id(s, cluster)?;
    let mut core = Asker::at(s, &site_of(s, &cluster)).await?;
    let view = core.call(s, GetCluster { cluster: cluster.clone() }).await?;
    let found = view.nodes.iter().find(|n| n.number == number).map(|n| n.node.to_string());
    found.ok_or_else(|| {
        Error::not_found(format!("{cluster} has no node {number}"))
            .hint(format!("xos cluster nodes {cluster} lists them"))
    })
}
