//! From what the core orders to what the shim is told: accounts, limits, environment.

use super::super::vos::{Vo, has_expired};
use super::names;
use crate::spec::{
    Account, Limits, PIDS_DEFAULT, PIDS_MIN, Rlimit, RlimitKind, SLOTS_MAX, UnitSpec,
};
use std::collections::BTreeMap;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use xos_api::aem::TaskSpec;
use xos_api::node::units::{Room, StartUnits, UnitOrder};
use xos_api::vom::AccountState;
use xos_base::{Error, Membership, Millis, NodeId};

/// The PATH of a unit's program unless its author sets one.
pub(in crate::agent) const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The SHELL of a unit's program unless its author sets one; the account itself has none.
pub(in crate::agent) const SHELL: &str = "/bin/bash";

/// The local account of a member, from the ticket's membership and the VO's base here.
///
/// # Errors
/// [`xos_base::Kind::Unavailable`] when this node does not know the VO or the member yet,
/// [`xos_base::Kind::Conflict`] when the ticket is of an older epoch,
/// [`xos_base::Kind::Denied`] when they may not work, or have no account at this site.
pub(super) fn account(
    vo: Option<&Vo>,
    m: &Membership,
    homes: &Path,
    local: &HashSet<String>,
    now: Millis,
) -> Result<Account, Error> {
    let unknown = || {
        Error::unavailable(format!("this node does not know the accounts of {} yet", m.vo))
            .hint("they come from the core within seconds")
    };
    let vo = vo.ok_or_else(unknown)?;
    let member = vo.members.get(&m.number).ok_or_else(unknown)?;
    let active = vo.state == AccountState::Active && member.state == AccountState::Active;
    if !active || has_expired(member, now) || vo.has_lapsed(member, now) {
        return Err(Error::denied(format!(
            "{} may not start work in {} now: the membership was suspended, or is over",
            m.person, m.vo
        )));
    }
    if m.epoch < member.epoch {
        // Not for good: with a ticket of the new epoch the same order is carried out.
        return Err(Error::conflict(format!(
            "the ticket of {} in {} is of before the membership was changed",
            m.person, m.vo
        ))
        .hint("ask for a new ticket"));
    }
    if member.person != m.person {
        return Err(Error::internal(format!("member {} of {} is two people", m.number, m.vo)));
    }
    if m.number.0 >= vo.size || m.groups.iter().any(|g| g.number.0 >= vo.size) {
        return Err(Error::denied(format!(
            "this site gives {} {} accounts, and the number of {} is beyond them",
            m.vo, vo.size, m.person
        )));
    }
    let mut gids = m.groups.iter().map(|g| vo.gid(g.number));
    let gid = gids.next().ok_or_else(|| Error::invalid("a membership has no group"))?;
    Ok(Account {
        uid: vo.uid(m.number),
        gid,
        groups: gids.collect(),
        home: homes.join(vo.default_name(member, local)),
        name: vo.account_name(member, local),
    })
}

/// What an envelope has beside its units' processes: its init. The shim stands outside.
const OWN_PROCESSES: u32 = 1;

/// What the envelope may use as a whole, and how many of its units run at a time. Processors and
/// memory are ordered for all units together; processes are asked for each, and the kernel counts
/// those of all: so many units run as can each have what it asked for. `most` is what the node
/// allows one job; who asks for nothing has that or [`PIDS_DEFAULT`] for each unit.
///
/// # Errors
/// [`xos_base::Kind::Unsatisfiable`] when not even one unit can have what it asks for.
pub(super) fn limits(room: &Room, task: &TaskSpec, most: u32) -> Result<(Limits, u32), Error> {
    let room_slots = room.slots.clamp(1, SLOTS_MAX);
    let most = most.saturating_sub(OWN_PROCESSES);
    let (processes, slots) = match task.limits.processes {
        None => (PIDS_DEFAULT.saturating_mul(room_slots).min(most), room_slots),
        Some(asked) => {
            let own = u32::from(is_staged(task));
            let each = u32::try_from(asked).ok().and_then(|n| n.checked_add(own));
            let Some(each) = each.filter(|n| asked > 0 && *n <= most) else {
                let most = most.saturating_sub(own);
                return Err(Error::unsatisfiable(format!(
                    "{asked} processes are asked for, and a unit can have 1 to {most} on this node"
                ))
                .hint("change what the task asks for, or choose other sites"));
            };
            let slots = room_slots.min(most / each);
            (each * slots, slots)
        }
    };
    let limits = Limits {
        cpu_millis: Some(room.cpu_milli.into()),
        memory_bytes: Some(room.memory_bytes),
        pids: processes.saturating_add(OWN_PROCESSES).max(PIDS_MIN),
    };
    Ok((limits, slots))
}

/// Whether files are copied for the task's units: then each has a process more, the stager.
fn is_staged(task: &TaskSpec) -> bool {
    !task.stage_in.is_empty() || !task.stage_out.is_empty()
}

/// One unit for the shim.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] when a path cannot be had.
pub(super) fn unit(
    order: &StartUnits,
    at: &UnitOrder,
    account: &Account,
    node: &NodeId,
    stager: &Path,
) -> Result<UnitSpec, Error> {
    let task = &order.task;
    let stage = is_staged(task);
    let cwd = match &task.cwd {
        Some(cwd) => account.home.join(order.path_of(at, cwd)),
        None if stage => {
            let jobs = account.home.join("jobs").join(order.envelope.job.to_string());
            jobs.join(at.unit.to_string())
        }
        None => account.home.clone(),
    };
    let place = |path: &Option<String>| path.as_ref().map(|p| cwd.join(order.path_of(at, p)));
    let argv = if stage { staged(order, account, stager, &cwd)? } else { task.argv.clone() };
    Ok(UnitSpec {
        key: names::unit(&order.envelope, at.unit, at.attempt)?,
        argv,
        env: environment(order, at, account, node),
        stdin: place(&task.stdin),
        stdout: place(&task.stdout),
        stderr: place(&task.stderr),
        umask: None,
        rlimits: rlimits(task),
        wall_ms: task.resources.wall_time_s.map(|s| s.saturating_mul(1000)),
        make_cwd: cwd != account.home,
        cwd: Some(cwd),
    })
}

fn environment(
    order: &StartUnits,
    at: &UnitOrder,
    account: &Account,
    node: &NodeId,
) -> Vec<(String, String)> {
    let home = account.home.display().to_string();
    let mut env = BTreeMap::from([
        ("HOME", home),
        ("USER", account.name.clone()),
        ("LOGNAME", account.name.clone()),
        ("SHELL", SHELL.to_owned()),
        ("PATH", PATH.to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
    ])
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v))
    .collect::<BTreeMap<_, _>>();
    env.extend(order.task.env.clone());
    env.extend(order.variables(at, node).into_iter().map(|(k, v)| (k.to_owned(), v)));
    env.into_iter().collect()
}

fn rlimits(task: &TaskSpec) -> Vec<Rlimit> {
    let l = &task.limits;
    [
        (RlimitKind::FileSize, l.file_size),
        (RlimitKind::Core, l.core_size),
        (RlimitKind::Data, l.data),
        (RlimitKind::Locked, l.locked_memory),
        (RlimitKind::OpenFiles, l.open_files),
        (RlimitKind::Stack, l.stack),
        (RlimitKind::CpuSeconds, l.cpu_time_s),
        (RlimitKind::AddressSpace, l.virtual_memory),
    ]
    .into_iter()
    .filter_map(|(kind, value)| value.map(|v| Rlimit { kind, value: Some(v) }))
    .collect()
}

/// The unit's program below the stager, which copies files as the person, before and after.
fn staged(
    order: &StartUnits,
    account: &Account,
    stager: &Path,
    cwd: &Path,
) -> Result<Vec<String>, Error> {
    let plan = crate::stage::Plan {
        volume: PathBuf::from(super::super::volumes::MOUNTS).join(order.vo.as_str()),
        folder: cwd.to_owned(),
        home: Some(account.home.clone()),
        enter: false,
        stage_in: order.task.stage_in.clone(),
        stage_out: order.task.stage_out.clone(),
    };
    plan.argv(stager, &order.task.argv)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_api::aem::{ProcessLimits, Stage};
    use xos_base::Kind;

    fn asking(processes: Option<u64>) -> TaskSpec {
        let limits = ProcessLimits { processes, ..ProcessLimits::default() };
        TaskSpec { limits, ..TaskSpec::default() }
    }

    /// Processes of the envelope and slots, for an order of so many slots.
    fn sizes(slots: u32, task: &TaskSpec, most: u32) -> Result<(u32, u32), Error> {
        let room = Room { slots, cpu_milli: 1000 * slots, memory_bytes: 1 << 30 };
        limits(&room, task, most).map(|(limits, slots)| (limits.pids, slots))
    }

    #[test]
    fn each_unit_has_the_processes_that_it_asked_for() {
        // wrong: units beside one another would share what each of them was promised
        assert_eq!(sizes(1, &asking(Some(10)), 1000), Ok((11, 1)));
        assert_eq!(sizes(4, &asking(Some(10)), 1000), Ok((41, 4)));
        // The stager is not the program's.
        let stage_in = vec![Stage::default()];
        assert_eq!(sizes(4, &TaskSpec { stage_in, ..asking(Some(10)) }, 1000), Ok((45, 4)));
        // Less than an envelope can live with is no reason to refuse.
        assert_eq!(sizes(1, &asking(Some(1)), 1000), Ok((PIDS_MIN, 1)));
    }

    #[test]
    fn without_a_wish_each_unit_has_the_default_within_what_the_node_allows() {
        // wrong: a job of many small units could take all processes of the machine, or such a job
        // would run one unit after the other although none needs many
        assert_eq!(sizes(2, &asking(None), 100_000), Ok((2 * PIDS_DEFAULT + 1, 2)));
        assert_eq!(sizes(100, &asking(None), 8000), Ok((8000, 100)));
        assert_eq!(sizes(u32::MAX / 1000, &asking(None), u32::MAX).unwrap().1, SLOTS_MAX);
    }

    #[test]
    fn a_wish_beyond_the_node_is_refused_and_never_cut() {
        // wrong: a unit would fail in its middle, having less than it was taken with
        assert_eq!(sizes(4, &asking(Some(400)), 1001), Ok((801, 2)), "fewer at a time");
        assert_eq!(sizes(4, &asking(Some(1000)), 1001), Ok((1001, 1)));
        for asked in [0, 1001, u64::from(u32::MAX), u64::MAX] {
            let e = sizes(4, &asking(Some(asked)), 1001).unwrap_err();
            assert_eq!(e.kind, Kind::Unsatisfiable);
            let said = format!("{asked} processes are asked for, and a unit can have 1 to 1000");
            assert!(e.to_string().contains(&said), "{e}");
        }
    }
}
