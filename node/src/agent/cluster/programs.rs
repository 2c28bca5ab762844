//! From what the core says of a program to what the agent is told: account, home, environment.

use super::Seated;
use crate::agent::Agent;
use crate::agent::units::{PATH, SHELL};
use crate::agent::volumes::MOUNTS;
use crate::stage::Plan;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use xos_api::aem::ProcessLimits;
use xos_api::cluster::TreeLimits;
use xos_base::{Error, Membership};
use xos_ssi::cell::proto::{Account, Program as CellProgram, Rlimit, RlimitKind, Stdio};
use xos_ssi::cgroup::{CPU_MILLIS_MIN, Limits, MEMORY_BYTES_MIN, PIDS_DEFAULT};
use xos_ssi::cluster::messages::TreeId;
use xos_ssi::host::{Brought, Job};
use xos_ssi::overlay::address;
use xos_ssi::wire::{Program, Staged};

/// The variable with the address of a program that has a network of its own.
const ADDRESS: &str = "XOS_CLUSTER_ADDRESS";
/// Fewest processes that a person can have: with fewer nothing useful runs.
const PERSON_PROCESSES_MIN: u32 = 16;

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
        let person = self.clustered()?.config.person_processes.max(PERSON_PROCESSES_MIN);
        // Wherever it moves it keeps what it began with.
        if birth == seated.seat.number {
            may_have(&program, self.processes.min(person))?;
        }
        self.make_home(&membership, &account).await?;
        let folder = program.folder(&account.home);
        let (argv, cwd) = match &program.staged {
            // It makes the folder, as the person, and then goes there.
            Some(files) => {
                let plan = stages(&program, files, folder, &account.home);
                (plan.argv(&self.stager, &program.argv)?, account.home.clone())
            }
            None => (program.argv.clone(), folder),
        };
        let limits = limits(&program.limits, self.processes);
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
                argv,
                env: env.into_iter().collect(),
                cwd,
                umask: program.umask,
                rlimits: rlimits(&program.each, person),
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
            limits,
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

/// A unit has as many processes as it asked for, or is not begun.
fn may_have(program: &Program, most: u32) -> Result<(), Error> {
    let (Some(_), Some(asked)) = (&program.unit, program.each.processes) else { return Ok(()) };
    // Who copies the files is a process more.
    let most = u64::from(most).saturating_sub(u64::from(program.staged.is_some()));
    if (1..=most).contains(&asked) {
        return Ok(());
    }
    Err(Error::unsatisfiable(format!(
        "{asked} processes are asked for, and a unit can have 1 to {most} on this node"
    ))
    .hint("change what the task asks for, or choose other sites"))
}

/// What all of a program may use at most; never more processes than this node allows one job.
fn limits(asked: &TreeLimits, most: u32) -> Limits {
    let processes = asked.processes.map_or(PIDS_DEFAULT, |n| u32::try_from(n).unwrap_or(most));
    Limits {
        // Less the kernel does not take.
        cpu_millis: asked.cpu_milli.map(|milli| u64::from(milli).max(CPU_MILLIS_MIN)),
        memory_bytes: asked.memory_bytes.map(|bytes| bytes.max(MEMORY_BYTES_MIN)),
        pids: processes.clamp(1, most.max(1)),
    }
}

/// What each process of a program may. The program's number of them is the control group's; this
/// one is of all that the account has on the node, `person`: else who has many programs sleep would
/// leave nobody a pid.
fn rlimits(each: &ProcessLimits, person: u32) -> Vec<Rlimit> {
    let all = [
        (RlimitKind::Processes, Some(person.into())),
        (RlimitKind::FileSize, each.file_size),
        (RlimitKind::Core, each.core_size),
        (RlimitKind::Data, each.data),
        (RlimitKind::Locked, each.locked_memory),
        (RlimitKind::OpenFiles, each.open_files),
        (RlimitKind::Stack, each.stack),
        (RlimitKind::CpuSeconds, each.cpu_time_s),
        (RlimitKind::AddressSpace, each.virtual_memory),
    ];
    let set = all.into_iter().filter(|(_, value)| value.is_some());
    set.map(|(kind, value)| Rlimit { kind, soft: value, hard: value }).collect()
}

/// What is copied for a program that begins in a folder, and from where.
fn stages(program: &Program, files: &Staged, folder: PathBuf, home: &Path) -> Plan {
    Plan {
        volume: Path::new(MOUNTS).join(program.vo.as_str()),
        folder,
        home: Some(home.to_owned()),
        enter: true,
        stage_in: files.stage_in.clone(),
        stage_out: files.stage_out.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a program would be refused for what the kernel does not take, or have more
    /// processes than the node's administrator allows.
    #[test]
    fn limits_are_what_the_node_can_hold() {
        assert_eq!(limits(&TreeLimits::default(), 1 << 16), Limits::default());
        let asked = |processes| TreeLimits {
            cpu_milli: Some(1),
            memory_bytes: Some(1),
            processes: Some(processes),
        };
        let least = limits(&asked(7), 100);
        assert_eq!(least.cpu_millis, Some(CPU_MILLIS_MIN));
        assert_eq!((least.memory_bytes, least.pids), (Some(MEMORY_BYTES_MIN), 7));
        assert_eq!(limits(&asked(1 << 40), 100).pids, 100);
        assert_eq!(limits(&TreeLimits::default(), 100).pids, 100);
    }

    /// If it failed, a unit would fail in the middle of its work for the processes that its node
    /// does not allow one job, and be told to ask for more.
    #[test]
    fn a_unit_that_asks_for_more_processes_than_a_job_may_have_is_refused() {
        let envelope =
            xos_api::node::units::EnvelopeId { job: "1.rennes".parse().unwrap(), serial: 1 };
        let program = |processes, staged, unit| Program {
            carried: None,
            argv: vec!["sim".into()],
            env: BTreeMap::new(),
            cwd: String::new(),
            umask: 0o022,
            vo: "demo.rennes".parse().unwrap(),
            person: "alice@rennes".parse().unwrap(),
            member: xos_base::MemberNumber(1),
            uid: 100_001,
            terminal: false,
            attached: false,
            shell: false,
            own_net: false,
            limits: TreeLimits::default(),
            each: ProcessLimits { processes, ..ProcessLimits::default() },
            staged: bool::then(staged, Staged::default),
            pid: Some(40_000),
            birth: "n1.rennes".parse().unwrap(),
            unit: bool::then(unit, || xos_ssi::wire::TreeUnit {
                envelope: envelope.clone(),
                unit: 0,
                attempt: 0,
            }),
            mandate: None,
        };
        let may = |processes, staged, unit| may_have(&program(processes, staged, unit), 100);
        assert!(may(Some(100), false, true).is_ok() && may(Some(99), true, true).is_ok());
        assert!(may(None, false, true).is_ok(), "it has what there is");
        assert!(may(Some(4096), false, false).is_ok(), "what members run has at most so many");
        let said = may(Some(101), false, true).unwrap_err().message;
        let text = "101 processes are asked for, and a unit can have 1 to 100 on this node";
        assert_eq!(said, text);
        assert!(may(Some(100), true, true).unwrap_err().message.contains("1 to 99"));
    }

    /// If it failed, what a unit asked for its processes would not hold in a cluster.
    #[test]
    fn limits_of_processes_are_those_of_the_task() {
        let each =
            ProcessLimits { open_files: Some(64), processes: Some(9), ..ProcessLimits::default() };
        let one = |kind, value| Rlimit { kind, soft: Some(value), hard: Some(value) };
        let all = [one(RlimitKind::Processes, 8192), one(RlimitKind::OpenFiles, 64)];
        assert_eq!(rlimits(&each, 8192), all);
    }
}
