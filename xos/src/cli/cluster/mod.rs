//! `xos cluster`: nodes of a site that work as one machine.

mod follow;
pub mod krg;
mod leave;
mod nodes;
mod run;
mod trees;

use super::member::Member;
use super::output::Outcome;
use super::session::Session;
use xos_api::Request;
use xos_base::{ClusterId, Error, SiteId};
use xos_net::Client;

/// `xos cluster …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a cluster (site administrators).
    #[command(after_help = "Example:\n  xos cluster create c1")]
    Create {
        /// Its name, as c1.rennes or c1.
        cluster: String,
    },
    /// Show the clusters of a site.
    #[command(after_help = "\
Examples:
  xos cluster status
  xos cluster status --site rennes --json")]
    Status,
    /// Show the nodes of a cluster: how they stand, their loads, what they cannot do and why.
    #[command(after_help = "Examples:\n  xos cluster nodes c1\n  xos cluster nodes c1 --json")]
    Nodes {
        /// The cluster, as c1.rennes or c1.
        cluster: String,
    },
    /// Take nodes of the site up into a cluster (site administrators).
    #[command(after_help = "Example:\n  xos cluster add c1 n1 n2")]
    Add {
        /// The cluster, as c1.rennes or c1.
        cluster: String,
        /// The nodes, as n1.rennes or n1.
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Take a node that has no programs out of its cluster (site administrators).
    #[command(after_help = "\
Examples:
  xos cluster drain c1 n1
  xos cluster del c1 n1")]
    Del {
        /// The cluster, as c1.rennes or c1.
        cluster: String,
        /// The node, as n1.rennes or n1.
        node: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Move all programs away from a node, which gets no new ones (site administrators).
    #[command(after_help = "\
Examples:
  xos cluster drain c1 n1 --plan    only say what would move where, and what cannot
  xos cluster drain c1 n1
  xos cluster drain c1 n1 --undo    the node takes programs again")]
    Drain {
        /// The cluster, as c1.rennes or c1.
        cluster: String,
        /// The node, as n1.rennes or n1.
        node: String,
        /// Only say what would become of each program.
        #[arg(long)]
        plan: bool,
        /// Take programs again.
        #[arg(long, conflicts_with = "plan")]
        undo: bool,
    },
    /// Run a program in a cluster as if it ran here: on its least loaded node, unless you name one.
    Run(run::Run),
    /// Open a shell on a node of a cluster that shows the whole cluster: its processes, processors
    /// and memory.
    Shell(run::Shell),
    /// Follow a program that runs in a cluster, or what it wrote.
    Attach(run::Attach),
    /// Show the programs of a cluster and their processes: yours, or all to site administrators.
    #[command(after_help = "Examples:\n  xos cluster ps c1\n  xos cluster ps c1 --json")]
    Ps {
        /// The cluster, as c1.rennes or c1.
        cluster: String,
    },
    /// Show once what uses most of a cluster's processors, and the loads of its nodes.
    #[command(after_help = "Example:\n  xos cluster top c1")]
    Top {
        /// The cluster, as c1.rennes or c1.
        cluster: String,
    },
    /// Send a signal to a process, wherever it is.
    #[command(after_help = "\
Examples:
  xos cluster kill c1 65432
  xos cluster kill c1 65432 --signal KILL")]
    Kill {
        /// The cluster, as c1.rennes or c1.
        cluster: String,
        /// The process.
        pid: i32,
        /// The signal, by name or number.
        #[arg(short, long, default_value = "TERM", value_parser = trees::signal)]
        signal: u8,
    },
    /// End a program by its number, whatever it does: also one that waits until a node has room.
    #[command(after_help = "Example:\n  xos cluster cancel c1 7")]
    Cancel {
        /// The cluster, as c1.rennes or c1.
        cluster: String,
        /// The program's number in the cluster (TREE in `xos cluster ps`).
        tree: u64,
    },
    /// Say what keeps a program from moving, before anything is tried.
    #[command(after_help = "Example:\n  xos cluster why c1 65432")]
    Why {
        /// The cluster, as c1.rennes or c1.
        cluster: String,
        /// Any process of the program.
        pid: i32,
    },
    /// Move a program to another node, and wait until it is there.
    #[command(after_help = "Example:\n  xos cluster migrate c1 65432 n2")]
    Migrate {
        /// The cluster, as c1.rennes or c1.
        cluster: String,
        /// Any process of the program.
        pid: i32,
        /// Where to, as n2.rennes or n2.
        node: String,
    },
    /// Make a checkpoint of a program, which goes on, and wait until it is complete.
    #[command(after_help = "Example:\n  xos cluster checkpoint c1 65432")]
    Checkpoint {
        /// The cluster, as c1.rennes or c1.
        cluster: String,
        /// Any process of the program.
        pid: i32,
    },
    /// Restart a program that waits as a checkpoint since its node failed.
    #[command(after_help = "\
Examples:
  xos cluster restart c1 7
  xos cluster restart c1 7 n2
  xos cluster restart c1 7 --as-is")]
    Restart {
        /// The cluster, as c1.rennes or c1.
        cluster: String,
        /// The program's number in the cluster (TREE in `xos cluster ps`).
        tree: u64,
        /// Where, as n2.rennes or n2 [default: the least loaded node].
        node: Option<String>,
        /// Go on with the files that it had open as they are: cut none back, and refuse none.
        #[arg(long)]
        as_is: bool,
    },
}

/// Runs a command of this group.
///
/// # Errors
/// What the core says.
pub async fn run(s: &Session, command: Command) -> Outcome {
    match command {
        Command::Create { cluster } => nodes::create(s, &cluster).await,
        Command::Status => nodes::status(s).await,
        Command::Nodes { cluster } => nodes::nodes(s, &cluster).await,
        Command::Add { cluster, nodes } => nodes::add(s, &cluster, &nodes).await,
        Command::Del { cluster, node, yes } => nodes::del(s, &cluster, &node, yes).await,
        Command::Drain { cluster, node, plan, undo } => {
            nodes::drain(s, &cluster, &node, (plan, undo)).await
        }
        Command::Run(args) => run::run(s, args).await,
        Command::Shell(args) => run::shell(s, args).await,
        Command::Attach(args) => run::attach(s, args).await,
        Command::Ps { cluster } => trees::ps(s, &cluster).await,
        Command::Top { cluster } => trees::top(s, &cluster).await,
        Command::Kill { cluster, pid, signal } => trees::kill(s, &cluster, pid, signal).await,
        Command::Cancel { cluster, tree } => trees::cancel(s, &cluster, tree).await,
        Command::Why { cluster, pid } => trees::why(s, &cluster, pid).await,
        Command::Migrate { cluster, pid, node } => trees::migrate(s, &cluster, pid, &node).await,
        Command::Checkpoint { cluster, pid } => trees::checkpoint(s, &cluster, pid).await,
        Command::Restart { cluster, tree, node, as_is } => {
            trees::restart(s, &cluster, tree, node.as_deref(), as_is).await
        }
    }
}

/// `c1.rennes`, or `c1` of the site that is asked.
fn cluster_id(s: &Session, text: &str) -> Result<ClusterId, Error> {
    if text.contains('.') {
        return Ok(text.parse()?);
    }
    Ok(format!("{text}.{}", s.site()?).parse()?)
}

/// The site whose core knows a cluster.
fn site_of(s: &Session, cluster: &ClusterId) -> SiteId {
    s.named_site().cloned().unwrap_or_else(|| cluster.site())
}

/// Who asks a core about clusters.
enum Asker {
    /// An administrator of the site.
    Person(Client),
    /// A member of a VO.
    Member(Box<Member>),
}

impl Asker {
    /// The VO that was named acts; without one an administrator of the site does, else the only VO.
    async fn at(s: &Session, site: &SiteId) -> Result<Asker, Error> {
        let administers = s.login()?.is_some_and(|l| l.site_admin && l.person.site() == *site);
        if s.named_vo().is_none() && administers {
            return Ok(Asker::Person(s.person(site).await?));
        }
        let vo = s.the_vo().await?;
        Ok(Asker::Member(Box::new(s.member(&vo, site).await?)))
    }

    async fn call<R: Request + Clone>(&mut self, s: &Session, r: R) -> Result<R::Reply, Error> {
        match self {
            Asker::Person(client) => client.call(r).await,
            Asker::Member(member) => member.call(s, r).await,
        }
    }
}
