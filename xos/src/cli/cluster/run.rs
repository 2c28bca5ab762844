//! Running a program in a cluster, and following one that runs.

use super::follow::{Followed, follow};
use super::{cluster_id, site_of};
use crate::cli::member::Member;
use crate::cli::node::node_id;
use crate::cli::output::{Failure, Outcome};
use crate::cli::session::Session;
use crate::cli::values;
use nix::sys::stat::{Mode, umask};
use std::io::IsTerminal;
use std::time::Duration;
use xos_api::cda::IssueClusterMandate;
use xos_api::cluster::{ClusterRun, ListProcesses, ListTrees, RunInCluster, TreeLimits};
use xos_base::{ClusterId, Error, VoId};
use xos_ssi::ghost::proto::GhostId;
use xos_ssi::ghost::{Manner, Signals};

/// How often it is looked for signals before the program is followed.
const SIGNALS_EVERY: Duration = Duration::from_millis(30);
/// Below this the folder is the same on all nodes.
const VOLUMES: &str = "/xtreemfs/";

/// `xos cluster run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos cluster run c1.rennes -- ./simulate 42
  xos cluster run c1 -- sh -c 'sort | uniq -c' <words >counts
  xos cluster run c1 -- bash                         on a terminal
  xos cluster run c1 -d --restartable -E SEED=7 -- ./simulate 42
  xos cluster run c1 --net own -- ./server-and-clients
  xos cluster run c1 --cpus 2 --memory 4G -- ./simulate 42

It is as if the program ran here: its output comes here, your input and Ctrl-C go there, and its \
exit status is that of this command (128 and the number, when a signal ended it; 255, when it is \
lost or you left it). On a terminal a line that begins with ~. leaves it; it goes on, as it does \
when this computer is closed: xos cluster attach follows it again.

It begins in your folder when that is on a volume (below /xtreemfs), else in /. With --json only \
what was placed is told, as with --detach.")]
pub struct Run {
    /// The cluster, as c1.rennes or c1.
    cluster: String,
    /// Only start it, and come back: its input is empty, its output is kept for `attach`.
    #[arg(short, long)]
    detach: bool,
    /// On a terminal [default: when input and output here are one].
    #[arg(short, long)]
    terminal: bool,
    /// Not on a terminal.
    #[arg(short = 'T', long, conflicts_with = "terminal")]
    no_terminal: bool,
    /// Run it on this node.
    #[arg(long)]
    node: Option<String>,
    /// Its network: its node's, or one of its own, in which only your programs that have one too are
    /// reached, and whose connections (TCP) move along.
    #[arg(long, value_enum, default_value_t = Net::Node)]
    net: Net,
    /// Begin in this folder of the node.
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Set a variable of its environment.
    #[arg(short = 'E', long, value_parser = values::variable, value_name = "NAME=VALUE")]
    env: Vec<(String, String)>,
    /// Checkpoint it now and then; when its node fails, it goes on from there elsewhere.
    #[arg(long)]
    restartable: bool,
    /// How often, in seconds [default: by what a checkpoint costs].
    #[arg(long, value_name = "SECONDS", requires = "restartable")]
    checkpoint_every: Option<u32>,
    /// Most processors that it gets, as 2 or 0.5 [default: as many as its node has].
    #[arg(long, value_parser = values::unit_cpus, value_name = "N")]
    cpus: Option<u32>,
    /// Most memory, as 2G: when it has all of it, one of its processes is ended [default: as much as
    /// its node has].
    #[arg(long, value_parser = values::size, value_name = "SIZE")]
    memory: Option<u64>,
    /// Most processes and threads at a time [default: 2048].
    #[arg(long, value_name = "N")]
    processes: Option<u64>,
    /// Be refused when all nodes are full, rather than wait until one has room.
    #[arg(long)]
    no_queue: bool,
    /// The program and its arguments, after --.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    argv: Vec<String>,
}

/// `xos cluster shell`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos cluster shell c1.rennes
  xos cluster shell c1 --node n2
  xos cluster shell c1 -- top                        this program in place of a shell

In it ps, top, free, uptime and nproc show the whole cluster. Programs run on other nodes when \
they are placed: `make SHELL=/usr/local/bin/xos-sh -j24`, `xos-ghost run -- PROGRAM`, in a folder \
of the volume. The shell itself never moves. It begins in your folder when that is on a volume, else in \
your home there. A line that begins with ~. leaves it; xos cluster attach follows it again.")]
pub struct Shell {
    /// The cluster, as c1.rennes or c1.
    cluster: String,
    /// On this node.
    #[arg(long)]
    node: Option<String>,
    /// On a terminal [default: when input and output here are one].
    #[arg(short, long)]
    terminal: bool,
    /// Not on a terminal.
    #[arg(short = 'T', long, conflicts_with = "terminal")]
    no_terminal: bool,
    /// Begin in this folder of the node.
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Set a variable of its environment.
    #[arg(short = 'E', long, value_parser = values::variable, value_name = "NAME=VALUE")]
    env: Vec<(String, String)>,
    /// A program and its arguments, after -- [default: a login shell].
    #[arg(last = true, value_name = "PROGRAM")]
    argv: Vec<String>,
}

/// Where a program has its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Net {
    /// On the network of its node: what is connected does not move
    Node,
    /// Among the person's programs that have one too: they move with them
    Own,
}

/// `xos cluster attach`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos cluster attach c1 65432
  xos cluster attach c1 7 --new        by its number; only what it writes from now on

Who follows a program feeds it: whoever followed it before is told, and ends. When nobody reads \
the output here any more the program goes on. On a terminal a line that begins with ~. leaves it.")]
pub struct Attach {
    /// The cluster, as c1.rennes or c1.
    cluster: String,
    /// Any process of the program, or its number in the cluster (TREE in `xos cluster ps`).
    program: u64,
    /// Only what it writes from now on.
    #[arg(long)]
    new: bool,
}

/// Runs `xos cluster run`.
pub(super) async fn run(s: &Session, args: Run) -> Outcome {
    start(s, args, false).await
}

/// Runs `xos cluster shell`.
pub(super) async fn shell(s: &Session, args: Shell) -> Outcome {
    let Shell { cluster, node, terminal, no_terminal, cwd, env, argv } = args;
    let cwd = match cwd {
        Some(cwd) => cwd,
        // Empty: the home at the node.
        None => on_volume()?.unwrap_or_default(),
    };
    let run = Run {
        cluster,
        detach: false,
        terminal,
        no_terminal,
        node,
        cwd: Some(cwd),
        env,
        restartable: false,
        checkpoint_every: None,
        cpus: None,
        memory: None,
        processes: None,
        no_queue: false,
        net: Net::Node,
        argv,
    };
    start(s, run, true).await
}

/// Runs a program, or a cluster shell.
async fn start(s: &Session, args: Run, shell: bool) -> Outcome {
    if args.detach || s.out.json {
        let (cluster, _, ran) = place(s, args, (false, shell)).await?;
        s.out.show(&ran, || match (&ran.node, ran.pid) {
            (Some(node), Some(pid)) => {
                format!("Tree {} runs on {node} as pid {pid} of {cluster}.", ran.tree)
            }
            _ => format!("Tree {} waits until a node of {cluster} has room.", ran.tree),
        })?;
        return Ok(0);
    }
    let manner = Manner::Follows { ghost: ghost(false)?, owns: true };
    // Before anything is started that another thread may do.
    let signals = Signals::take(manner).map_err(no_signals)?;
    let placed = tokio::select! {
        placed = place(s, args, (true, shell)) => placed?,
        signal = interrupted(&signals) => {
            s.out.note("Interrupted; if it was started it goes on: xos cluster ps")?;
            return Ok(status_of(signal?));
        }
    };
    let (cluster, member, ran) = placed;
    let what = Followed { cluster, tree: ran.tree, pid: ran.pid, at: ran.output_at };
    follow(s, member, what, manner, signals).await
}

/// Runs `xos cluster attach`.
pub(super) async fn attach(s: &Session, args: Attach) -> Outcome {
    let manner = Manner::Follows { ghost: ghost(args.new)?, owns: false };
    let signals = Signals::take(manner).map_err(no_signals)?;
    let found = tokio::select! {
        found = find(s, &args) => found?,
        signal = interrupted(&signals) => return Ok(status_of(signal?)),
    };
    let (member, what) = found;
    follow(s, member, what, manner, signals).await
}

/// Has the core place the program.
async fn place(
    s: &Session,
    args: Run,
    (attached, shell): (bool, bool),
) -> Result<(ClusterId, Member, ClusterRun), Failure> {
    let cluster = cluster_id(s, &args.cluster)?;
    let node = args.node.as_deref().map(|n| node_id(n, &cluster.site())).transpose()?;
    let cwd = match args.cwd {
        Some(cwd) => cwd,
        None => on_volume()?.unwrap_or_else(|| "/".to_owned()),
    };
    let here = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let terminal = args.terminal || attached && here && !args.no_terminal;
    let mut env: std::collections::BTreeMap<String, String> = args.env.into_iter().collect();
    if let (true, Ok(kind)) = (terminal, std::env::var("TERM")) {
        env.entry("TERM".to_owned()).or_insert(kind);
    }
    let vo = s.the_vo().await?;
    let mut member = s.member(&vo, &site_of(s, &cluster)).await?;
    let mandate = mandate(s, &vo, &cluster).await?;
    let r = RunInCluster {
        cluster: cluster.clone(),
        vo,
        argv: args.argv,
        env,
        cwd,
        shell,
        node,
        restartable: args.restartable,
        checkpoint_s: args.checkpoint_every,
        queue: !args.no_queue,
        attached,
        terminal,
        own_net: args.net == Net::Own,
        limits: TreeLimits {
            cpu_milli: args.cpus,
            memory_bytes: args.memory,
            processes: args.processes,
        },
        umask: mask(),
        mandate,
    };
    let ran = member.call(s, r).await?;
    Ok((cluster, member, ran))
}

/// The mandate by which nodes of the cluster get the right to the volume; without one the program
/// runs all the same, and the person is told.
async fn mandate(s: &Session, vo: &VoId, cluster: &ClusterId) -> Result<Option<String>, Failure> {
    let mut home = s.member(vo, &vo.site()).await?;
    let ask = IssueClusterMandate { vo: vo.clone(), cluster: cluster.clone() };
    match home.call(s, ask).await {
        Ok(mandate) => Ok(Some(mandate)),
        Err(e) => {
            let text = format!("the program is without the volume of {vo}: {}", e.message);
            s.out.warn(&Error { message: text, ..e })?;
            Ok(None)
        }
    }
}

/// The program that is meant, among the person's in the VO.
async fn find(s: &Session, args: &Attach) -> Result<(Member, Followed), Error> {
    let cluster = cluster_id(s, &args.cluster)?;
    let vo = s.the_vo().await?;
    let mut member = s.member(&vo, &site_of(s, &cluster)).await?;
    let trees = member.call(s, ListTrees { cluster: cluster.clone() }).await?;
    let pid = i32::try_from(args.program).ok();
    let of_process = match pid {
        Some(pid) if trees.iter().all(|t| t.pid != Some(pid) && t.tree != args.program) => {
            let processes = member.call(s, ListProcesses { cluster: cluster.clone() }).await?;
            processes.into_iter().find(|p| p.pid == pid).map(|p| p.tree)
        }
        _ => None,
    };
    // A pid may have been an older program's too.
    let root = trees.iter().rev().find(|t| t.pid.is_some() && t.pid == pid);
    let wanted = of_process.unwrap_or(args.program);
    let found = root.or_else(|| trees.iter().find(|t| t.tree == wanted)).ok_or_else(|| {
        Error::not_found(format!("no program {} of yours is known in {cluster}", args.program))
            .hint(format!("xos cluster ps {cluster} lists them"))
    })?;
    let at = found.output_at.clone();
    Ok((member, Followed { cluster, tree: found.tree, pid: found.pid, at }))
}

/// Who follows: nobody else has its number.
fn ghost(late: bool) -> Result<GhostId, Error> {
    let mut number = [0; 8];
    aws_lc_rs::rand::fill(&mut number)
        .map_err(|_| Error::internal("this computer gives no random numbers"))?;
    Ok(GhostId { number: u64::from_le_bytes(number), again: false, late })
}

fn no_signals(e: std::io::Error) -> Error {
    Error::internal(format!("cannot take signals: {e}"))
}

/// The first signal that asks to end. They wait in a descriptor, which this looks at now and then: a
/// person's finger is slower.
async fn interrupted(signals: &Signals) -> Result<i32, Error> {
    loop {
        while let Some(signal) = signals.next_waiting().map_err(no_signals)? {
            if [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP].contains(&signal) {
                return Ok(signal);
            }
        }
        tokio::time::sleep(SIGNALS_EVERY).await;
    }
}

/// As a shell has it.
pub(super) fn status_of(signal: i32) -> u8 {
    128u8.saturating_add(u8::try_from(signal).unwrap_or(127))
}

/// The mask of modes of this process, which can only be seen by setting another one.
fn mask() -> u32 {
    let mask = umask(Mode::empty());
    umask(mask);
    mask.bits()
}

/// The present folder where it is the same on the nodes.
fn on_volume() -> Result<Option<String>, Error> {
    let here = std::env::current_dir()
        .map_err(|e| Error::invalid(format!("the present folder is not known: {e}")))?;
    let text = here.to_str().filter(|text| text.starts_with(VOLUMES));
    Ok(text.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    fn parsed(words: &str) -> Result<Run, clap::Error> {
        Line::try_parse_from(words.split(' ')).map(|line| line.run)
    }

    /// If it failed, the program's own options would be taken for ours, or ours not be known.
    #[test]
    fn what_is_after_the_dashes_is_the_programs() {
        let run = parsed("run c1 -d -t -- ls -d -T").unwrap();
        assert!(run.detach && run.terminal && !run.no_terminal);
        assert_eq!(run.argv, ["ls", "-d", "-T"]);
        assert!(!parsed("run c1 -- ls").unwrap().detach);
        assert_eq!(parsed("run c1 --net own -- ls --net node").unwrap().net, Net::Own);
        assert_eq!(parsed("run c1 -- ls --net own").unwrap().net, Net::Node);
        assert!(parsed("run c1 -t -T -- ls").is_err());
        assert!(parsed("run c1").is_err());
    }

    /// If it failed, a script could not tell by what a program was ended.
    #[test]
    fn a_signal_is_told_as_a_shell_does() {
        assert_eq!(status_of(15), 143);
        assert_eq!(status_of(libc::SIGPIPE), 141);
    }
}
