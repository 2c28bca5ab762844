//! Running a program in a cluster.

use super::super::ClusterService;
use super::super::keep::Waiting;
use super::super::one::Cluster;
use super::super::policy::Action;
use super::{no_node, refused};
use crate::cluster::interval::Interval;
use crate::cluster::place::{Choice, Policy};
use crate::cluster::trees::{Owner, Wish};
use crate::pids::NodeNumber;
use std::time::Duration;
use xos_api::cluster::{
    CHECKPOINT_S_MAX, CHECKPOINT_S_MIN, CPU_MILLI_MIN, ClusterRun, MEMORY_BYTES_MIN, PROCESSES_MAX,
    PROGRAM_BYTES_MAX, RunInCluster, TreeLimits,
};
use xos_api::policy::{Action as Ruled, Place};
use xos_api::vom::ServedVo;
use xos_base::{Error, Membership};
use xos_net::Caller;

/// How often it is looked whether all nodes have said that they are there, and how far apart.
const EARLY_LOOKS: u32 = 16;
const EARLY_EVERY: Duration = Duration::from_millis(250);
/// Most programs that wait in one cluster.
const QUEUE_MAX: usize = 10_000;
/// What a cluster shell is that names no program.
const LOGIN_SHELL: [&str; 2] = ["/bin/bash", "-l"];
/// Longest mandate, bytes: one with a large membership fits.
const MANDATE_BYTES_MAX: usize = 128 * 1024;

impl ClusterService {
    pub(super) async fn run_in_cluster(
        &self,
        caller: Caller,
        r: RunInCluster,
    ) -> Result<ClusterRun, Error> {
        let ran = self.ran(&caller, &r).await;
        let what = match &ran {
            Ok(ClusterRun { tree, node: Some(node), .. }) => format!("tree {tree} on {node}"),
            Ok(ClusterRun { tree, .. }) => format!("tree {tree} waits"),
            Err(_) => String::new(),
        };
        self.noted(&caller, "run_in_cluster", &r.cluster, &what, ran).await
    }

    async fn ran(&self, caller: &Caller, r: &RunInCluster) -> Result<ClusterRun, Error> {
        let served = self.authorise(caller, Action::Run).await?;
        let member = caller.member()?;
        if member.vo != r.vo {
            return Err(Error::denied(format!("{} does not act in {}", caller.describe(), r.vo)));
        }
        let vo = served.get(&r.vo).ok_or_else(|| {
            Error::denied(format!("{} does not serve {} now", self.site, r.vo))
                .hint(format!("xos vo share list {} shows who does", r.vo))
        })?;
        let place = Place { site: self.site.clone(), node: r.node.clone() };
        self.rules.judge(member, Ruled::Run, &place).map_err(|denial| {
            Error::denied(denial.text).hint("`xos vo rules show VO` shows the VO's rules")
        })?;
        check(r)?;
        let mut run = r.clone();
        if run.shell && run.argv.is_empty() {
            run.argv = LOGIN_SHELL.map(str::to_owned).to_vec();
        }
        let owner = owner(member, vo)?;
        let mut held = self.clusters.of(&r.cluster).await?;
        // When this core has just begun, its nodes come within a heartbeat or two.
        for _ in 0..EARLY_LOOKS {
            if !held.controller.is_early() {
                break;
            }
            drop(held);
            tokio::time::sleep(EARLY_EVERY).await;
            held = self.clusters.of(&r.cluster).await?;
        }
        let c = &mut *held;
        self.room(c, &owner)?;
        if let Some(mandate) = &r.mandate {
            c.brought(owner.uid, mandate);
        }
        let interval = match r.checkpoint_s {
            Some(s) => Interval::Every(Duration::from_secs(s.into())),
            None => Interval::Best,
        };
        let wish = Wish { owner, restartable: r.restartable, interval };
        let waiting = Waiting { wish, person: member.person.clone(), run };
        self.placed(c, waiting).await
    }

    /// Places a program, or has it wait.
    pub(in crate::service) async fn placed(
        &self,
        c: &mut Cluster,
        waiting: Waiting,
    ) -> Result<ClusterRun, Error> {
        // Whoever waits goes first.
        let begun = c.begin_waiting(&self.policy);
        if !begun.is_empty() {
            self.pass_on(c, begun).await;
        }
        let r = &waiting.run;
        let free = chosen(c, &self.policy, &waiting)?.and_then(|node| {
            let pid = c.free_pid(node)?;
            c.name(node).map(|name| (node, name, pid))
        });
        let Some((node, name, pid)) = free else {
            if r.queue && r.node.is_none() {
                return self.queued(c, waiting).await;
            }
            return Err(Error::limited(format!("all nodes of {} are full", c.id))
                .hint("try again later, name another node with --node, or let it wait"));
        };
        let started = c.controller.start(pid, &waiting.wish, node, node);
        let (tree, effects) = started.map_err(refused)?;
        c.programs.insert(tree, waiting.placed(pid, name.clone()));
        c.comes(node);
        self.begun(c, tree, effects).await?;
        let output_at = Some(name.clone());
        Ok(ClusterRun { tree: tree.0, pid: Some(pid), node: Some(name), output_at })
    }

    async fn queued(&self, c: &mut Cluster, waiting: Waiting) -> Result<ClusterRun, Error> {
        let queue = c.controller.state().trees.queue();
        if queue.len() >= QUEUE_MAX {
            let id = &c.id;
            return Err(Error::limited(format!("all nodes of {id} are full, and its queue too"))
                .hint("try again later"));
        }
        let (own, most) = (queue.count_of(&waiting.wish.owner), self.config.queue_per_member);
        if own >= most {
            let text = format!("all nodes of {} are full, and {own} of yours wait already", c.id);
            return Err(Error::limited(text)
                .hint("try again later; xos cluster ps lists them, xos cluster cancel ends one"));
        }
        let (tree, effects) = c.controller.queue(&waiting.wish);
        c.waiting.insert(tree, waiting);
        self.begun(c, tree, effects).await?;
        Ok(ClusterRun { tree: tree.0, pid: None, node: None, output_at: None })
    }

    fn room(&self, c: &Cluster, owner: &Owner) -> Result<(), Error> {
        let trees = c.controller.state().trees.iter();
        let own = trees.filter(|(_, t)| t.owner == *owner && !t.state.is_final()).count();
        if own < self.config.trees_per_member {
            return Ok(());
        }
        Err(Error::limited(format!("you have {own} programs in {} already", c.id))
            .hint("end some: xos cluster ps, xos cluster kill"))
    }
}

/// Whether this can be a program.
pub(super) fn check(r: &RunInCluster) -> Result<(), Error> {
    let login = r.shell && r.argv.is_empty();
    if !login && r.argv.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("no program was named"));
    }
    let home = r.shell && r.cwd.is_empty();
    if !home && !r.cwd.starts_with('/') {
        return Err(Error::invalid(format!("{} is no absolute path of a folder", r.cwd)));
    }
    if r.shell && r.restartable {
        return Err(Error::invalid("a cluster shell never moves, so that it is not restartable")
            .hint("programs that you start by xos cluster run may be"));
    }
    if r.umask > 0o777 {
        return Err(Error::invalid(format!("{:o} is no mask of modes", r.umask))
            .hint("name one between 0 and 777, octal, as umask(1) shows it"));
    }
    let env = || r.env.iter().flat_map(|(name, value)| [name, value]);
    let texts = || r.argv.iter().chain(env()).chain([&r.cwd]);
    if texts().any(|text| text.contains('\0')) {
        return Err(Error::invalid("arguments and variables hold no NUL"));
    }
    if r.env.keys().any(|name| name.is_empty() || name.contains('=')) {
        return Err(Error::invalid("a variable has no name, or '=' in it"));
    }
    check_limits(&r.limits)?;
    if let Some(s) = r.checkpoint_s {
        if !r.restartable {
            return Err(Error::invalid("checkpoint_s is for programs that are restartable"));
        }
        if !(CHECKPOINT_S_MIN..=CHECKPOINT_S_MAX).contains(&s) {
            return Err(Error::invalid(format!(
                "a checkpoint every {s} s is not possible: \
                 {CHECKPOINT_S_MIN} to {CHECKPOINT_S_MAX}"
            )));
        }
    }
    if r.mandate.as_ref().is_some_and(|m| m.len() > MANDATE_BYTES_MAX) {
        return Err(Error::too_large(format!("the mandate has over {MANDATE_BYTES_MAX} bytes")));
    }
    // A pointer each, as execve(2) counts.
    if texts().map(|text| text.len() + 8).sum::<usize>() > PROGRAM_BYTES_MAX {
        return Err(Error::too_large(format!(
            "program, arguments and environment have more than {PROGRAM_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

/// Whether a program can be limited so.
fn check_limits(l: &TreeLimits) -> Result<(), Error> {
    if l.cpu_milli.is_some_and(|milli| milli < CPU_MILLI_MIN) {
        return Err(Error::invalid("no program can be limited to so little of a processor")
            .hint("ask for a hundredth of one, 0.01, or more"));
    }
    if l.memory_bytes.is_some_and(|bytes| bytes < MEMORY_BYTES_MIN) {
        return Err(Error::invalid("no program can run with so little memory")
            .hint(format!("ask for {} MiB or more", MEMORY_BYTES_MIN / (1024 * 1024))));
    }
    if l.processes.is_some_and(|many| !(1..=PROCESSES_MAX).contains(&many)) {
        return Err(Error::invalid(format!(
            "a program in a cluster can have 1 to {PROCESSES_MAX} processes"
        )));
    }
    Ok(())
}

/// The account of a member at this site.
pub(in crate::service) fn owner(member: &Membership, vo: &ServedVo) -> Result<Owner, Error> {
    let uid = vo.base.checked_add(member.number.0).filter(|_| member.number.0 < vo.size);
    let uid = uid.ok_or_else(|| {
        Error::denied(format!("{} has no account at this site for {}", member.person, vo.vo))
            .hint("the site's administrator gives the VO more numbers")
    })?;
    Ok(Owner { vo: member.vo.clone(), member: member.number, uid })
}

/// Where a program goes; none: all nodes are full.
fn chosen(c: &Cluster, policy: &Policy, w: &Waiting) -> Result<Option<NodeNumber>, Error> {
    if let Some(node) = &w.run.node {
        return c.number(node).map(Some).ok_or_else(|| no_node(&c.id, node));
    }
    match c.place_new(policy, &w.wish.owner) {
        Choice::On(node) => Ok(Some(node)),
        Choice::Queue => Ok(None),
        Choice::Nowhere { reason } => {
            Err(Error::unsatisfiable(format!("{} cannot run it: {reason}", c.id))
                .hint(format!("xos cluster nodes {} shows how they are", c.id)))
        }
    }
}
