//! From what the core says of a program to what the agent is told: account, home, environment.

use super::Seated;
use crate::agent::Agent;
use crate::agent::units::{PATH, SHELL};
use std::collections::{BTreeMap, HashSet};
use xos_api::cda::Work;
use xos_base::{Error, Kind, Membership};
use xos_ssi::cell::proto::{Account, Program as CellProgram, Stdio};
use xos_ssi::cluster::messages::TreeId;
use xos_ssi::host::Job;
use xos_ssi::overlay::address;
use xos_ssi::wire::Program;

/// The variable with the address of a program that has a network of its own.
const ADDRESS: &str = "XOS_CLUSTER_ADDRESS";

/// Jobs for the agent, and trees that it may not run, with why.
pub(super) type Known = (Vec<(TreeId, Job)>, Vec<(TreeId, String)>);

impl Agent {
    /// What trees are, as this node has it. Those of persons that it does not know yet are left
    /// out: the core says them again.
    pub(super) async fn jobs(&self, seated: &Seated, programs: Vec<(TreeId, Program)>) -> Known {
        let (mut jobs, mut refused) = Known::default();
        for (tree, program) in programs {
            match self.job(seated, tree, program).await {
                Ok(job) => jobs.push((tree, job)),
                Err(error) if error.kind == Kind::Unavailable => {
                    tracing::debug!(%tree, %error, "a program waits for its person's account");
                }
                Err(error) => refused.push((tree, error.to_string())),
            }
        }
        (jobs, refused)
    }

    async fn job(&self, seated: &Seated, tree: TreeId, program: Program) -> Result<Job, Error> {
        let membership = self.member_of_program(&program)?;
        let account = self.account_of(&membership)?;
        if account.uid != program.uid {
            return Err(Error::conflict(format!(
                "the core says that {} has the number {} here, and it is {}",
                program.person, program.uid, account.uid
            )));
        }
        let birth = seated.seat.nodes.iter().find(|(_, id)| **id == program.birth);
        let birth = birth.map(|(number, _)| *number).ok_or_else(|| {
            Error::conflict(format!("{} is not in {}", program.birth, seated.seat.cluster))
        })?;
        self.make_home(&membership, &account).await?;
        let cwd = program.folder(&account.home);
        if let Some(unit) = &program.unit {
            self.take_unit_ticket(&membership, account.uid, &unit.envelope).await;
        }
        if let Some(mandate) = program.mandate {
            self.take_program_mandate(seated, &membership, mandate).await;
        }
        let own = BTreeMap::from([
            ("HOME", account.home.display().to_string()),
            ("USER", account.name.clone()),
            ("LOGNAME", account.name.clone()),
            ("SHELL", SHELL.to_owned()),
            ("PATH", PATH.to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
        ]);
        let mut env: BTreeMap<String, String> =
            own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        env.extend(program.env);
        env.insert("XOS_CLUSTER".to_owned(), seated.seat.cluster.to_string());
        if program.own_net {
            env.insert(ADDRESS.to_owned(), address(tree.0).to_string());
        }
        let groups = account.groups.iter().copied().filter(|gid| *gid != account.gid).collect();
        Ok(Job {
            account: Account { uid: account.uid, gid: account.gid, groups },
            program: CellProgram {
                argv: program.argv,
                env: env.into_iter().collect(),
                cwd,
                umask: program.umask,
                rlimits: Vec::new(),
                cgroups: Vec::new(),
                stdio: if program.terminal { Stdio::Terminal } else { Stdio::Three },
            },
            attached: program.attached,
            own_net: program.own_net,
            pid: program.pid,
            birth,
            shell: program.shell,
            wanted: program.unit.is_some(),
        })
    }

    /// Gets the person's right to the volume, for as long as they run something here. Without it the
    /// program runs all the same.
    async fn take_program_mandate(&self, seated: &Seated, m: &Membership, jws: String) {
        let Ok(clustered) = self.clustered() else { return };
        let account = {
            let homes = self.config.homes.display().to_string();
            let vos = self.lock_vos();
            let found = vos.by_number(&m.vo, m.number);
            found.map(|found| found.account(&homes, &HashSet::new()))
        };
        let Some(account) = account else { return };
        let now = self.now();
        let held = self.tickets.find(&m.vo, m.number, now);
        // Lines of make come many at a time, and all by one mandate.
        if held.is_some_and(|t| t.membership.epoch >= m.epoch)
            && clustered.mandates.brought(account.uid, &jws, now)
        {
            return;
        }
        let work = Work::Cluster { cluster: seated.seat.cluster.clone() };
        let taken = self.take_mandate(&clustered.mandates, &work, &account, jws).await;
        if let Err(error) = taken {
            tracing::warn!(person = %m.person, %error, "a program has no right to the volume");
        }
    }

    /// What this node knows of a program's person.
    fn member_of_program(&self, p: &Program) -> Result<Membership, Error> {
        let vos = self.lock_vos();
        let found = vos.by_number(&p.vo, p.member).ok_or_else(|| {
            Error::unavailable(format!("this node does not know {} in {} yet", p.person, p.vo))
        })?;
        if found.member.person != p.person {
            return Err(Error::denied(format!("member {} of {} is somebody else", p.member, p.vo)));
        }
        Ok(found.membership())
    }
}
