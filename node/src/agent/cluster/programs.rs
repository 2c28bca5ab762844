//! From what the core says of a program to what the agent is told: account, home, environment.

use super::Seated;
use crate::agent::Agent;
use crate::agent::units::{PATH, SHELL};
use std::collections::BTreeMap;
use xos_base::{Error, Membership};
use xos_ssi::cell::proto::{Account, Program as CellProgram, Stdio};
use xos_ssi::cluster::messages::TreeId;
use xos_ssi::host::{Brought, Job};
use xos_ssi::overlay::address;
use xos_ssi::wire::Program;

/// The variable with the address of a program that has a network of its own.
const ADDRESS: &str = "XOS_CLUSTER_ADDRESS";

impl Agent {
    /// What a tree is, as this node has it; `Unavailable` while it does not know the person yet.
    pub(super) async fn job(
        &self,
        seated: &Seated,
        tree: TreeId,
        program: Program,
    ) -> Result<Job, Error> {
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
        self.first_right(&membership, account.uid).await;
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
        let base = account.uid.saturating_sub(membership.number.0);
        let (here, member) = (self.node.site(), membership.number);
        let carried = program.carried.map(|carried| {
            Box::new(Brought { carried: *carried, here, vo: membership.vo.clone(), member, base })
        });
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
            carried,
        })
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
