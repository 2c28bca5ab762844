//! Running a program in a cluster.

use super::super::ClusterService;
use super::super::one::Cluster;
use super::super::policy::Action;
use super::{find_mut, no_node, refused};
use crate::cluster::place::{self, Choice, Need, Policy};
use crate::cluster::trees::Owner;
use crate::pids::NodeNumber;
use crate::wire::Program;
use xos_api::cluster::{ClusterRun, PROGRAM_BYTES_MAX, RunInCluster};
use xos_api::policy::{Action as Ruled, Place};
use xos_api::vom::ServedVo;
use xos_base::{Error, Membership};
use xos_net::Caller;

/// The mask of modes of new files: group and others may read.
const UMASK: u32 = 0o022;

impl ClusterService {
    pub(super) async fn run_in_cluster(
        &self,
        caller: Caller,
        r: RunInCluster,
    ) -> Result<ClusterRun, Error> {
        let ran = self.ran(&caller, &r).await;
        let what = match &ran {
            Ok(run) => format!("tree {} on {}", run.tree, run.node),
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
        let owner = owner(member, vo)?;
        let mut all = self.clusters.lock().await;
        let c = find_mut(&mut all, &r.cluster)?;
        self.room(c, &owner)?;
        let node = chosen(c, &self.policy, &owner, r)?;
        let name = c.name(node).ok_or_else(|| Error::internal("a node has no name"))?;
        let pid = c.free_pid(node).ok_or_else(|| {
            Error::limited("all pids for programs on that node are taken")
                .hint("name another node with --node, or try again")
        })?;
        let (tree, effects) =
            c.controller.start(pid, &owner, node, node, r.restartable).map_err(refused)?;
        let program = Program {
            argv: r.argv.clone(),
            env: r.env.clone(),
            cwd: r.cwd.clone(),
            umask: UMASK,
            vo: owner.vo.clone(),
            person: member.person.clone(),
            member: member.number,
            uid: owner.uid,
            terminal: false,
            pid: Some(pid),
            birth: name.clone(),
            unit: None,
        };
        c.programs.insert(tree, program);
        c.comes(node);
        let told = self.commit(c, effects).await?;
        self.send(c, told);
        Ok(ClusterRun { tree: tree.0, pid, node: name })
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
fn check(r: &RunInCluster) -> Result<(), Error> {
    if r.argv.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("no program was named"));
    }
    if !r.cwd.starts_with('/') {
        return Err(Error::invalid(format!("{} is no absolute path of a folder", r.cwd)));
    }
    let env = || r.env.iter().flat_map(|(name, value)| [name, value]);
    let texts = || r.argv.iter().chain(env()).chain([&r.cwd]);
    if texts().any(|text| text.contains('\0')) {
        return Err(Error::invalid("arguments and variables hold no NUL"));
    }
    if r.env.keys().any(|name| name.is_empty() || name.contains('=')) {
        return Err(Error::invalid("a variable has no name, or '=' in it"));
    }
    // A pointer each, as execve(2) counts.
    if texts().map(|text| text.len() + 8).sum::<usize>() > PROGRAM_BYTES_MAX {
        return Err(Error::too_large(format!(
            "program, arguments and environment have more than {PROGRAM_BYTES_MAX} bytes"
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

fn chosen(
    c: &Cluster,
    policy: &Policy,
    owner: &Owner,
    r: &RunInCluster,
) -> Result<NodeNumber, Error> {
    if let Some(node) = &r.node {
        return c.number(node).ok_or_else(|| no_node(&r.cluster, node));
    }
    let need = Need { vo: owner.vo.clone(), cpu_group: None, near: None };
    match place::place(policy, &c.node_views(), &need) {
        Choice::On(node) => Ok(node),
        Choice::Queue => Err(Error::limited(format!("all nodes of {} are full", c.id))
            .hint("try again later, or name a node with --node")),
        Choice::Nowhere { reason } => {
            Err(Error::unsatisfiable(format!("{} cannot run it: {reason}", c.id))
                .hint(format!("xos cluster nodes {} shows how they are", c.id)))
        }
    }
}
