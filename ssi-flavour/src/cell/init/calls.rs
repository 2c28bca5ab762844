//! The agent's requests.

use super::hold::now_ms;
use super::{Init, Starting};
use crate::cell::HELPER_PIDS;
use crate::cell::proto::{
    Ask, Call, Program, Refusal, Start, Started, Status, TREES_MAX, Tree, TreeStatus,
};
use crate::cell::start::{self, Order};
use crate::pids::NodeNumber;
use crate::procs;
use crate::sys;
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

/// Highest number of a signal.
const SIGNAL_MAX: i32 = 64;

impl Init {
    /// Reads what a connection sent and answers. A peer that breaks the protocol is dropped.
    pub(super) fn hear(&mut self, i: usize) {
        let c = &mut self.connections[i];
        if !matches!(c.peer.fill(), Ok(true)) {
            c.alive = false;
        }
        loop {
            let c = &mut self.connections[i];
            let by = c.number;
            let call: Call = match c.peer.take() {
                Ok(Some(call)) => call,
                Ok(None) => return,
                Err(_) => {
                    c.alive = false;
                    return;
                }
            };
            let count = match &call.ask {
                Ask::Start(start) => start.program.stdio.count() + usize::from(start.own_net),
                Ask::Help(program) => program.stdio.count(),
                _ => 0,
            };
            let Ok(fds) = c.peer.take_fds(count) else {
                c.alive = false;
                return;
            };
            let by = (by, call.id);
            match self.answer(call.ask, fds, by) {
                Ok(Some(value)) => self.reply(by, Ok(value)),
                // It comes when the program runs.
                Ok(None) => {}
                Err(refusal) => self.reply(by, Err(refusal)),
            }
        }
    }

    fn answer(
        &mut self,
        ask: Ask,
        fds: Vec<OwnedFd>,
        by: (u64, u64),
    ) -> Result<Option<Value>, Refusal> {
        let done = Ok(Some(Value::Null));
        match ask {
            Ask::Start(start) => self.start(*start, fds, by),
            Ask::Help(program) => self.help(*program, fds, by),
            Ask::Signal { pid, signal, group } => self.signal(pid, signal, group).and(done),
            Ask::Status => Ok(Some(json(&self.status()?))),
            Ask::Lease { until_ms, end_after_ms } => {
                Ok(Some(json(&self.take_lease(until_ms, end_after_ms))))
            }
            Ask::Adopt { tree, pid } => self.adopt(tree, pid).map(|s| Some(json(&s))),
            Ask::Release { pid } => match self.watched.remove(&pid) {
                Some(_) => done,
                None => Err(Refusal::NoSuchProcess(pid)),
            },
            Ask::Widen { on } => {
                if let Some(c) = self.connections.iter_mut().find(|c| c.number == by.0) {
                    c.wide = on;
                }
                self.widen(false).and(done)
            }
            Ask::Acknowledge { seq } => {
                self.kept.acknowledge(seq);
                done
            }
            Ask::End => {
                self.ending = true;
                done
            }
        }
    }

    fn start(
        &mut self,
        start: Start,
        mut stdio: Vec<OwnedFd>,
        by: (u64, u64),
    ) -> Result<Option<Value>, Refusal> {
        start.account.check().map_err(Refusal::Invalid)?;
        if let Some(pid) = start.pid
            && NodeNumber::of(pid).is_none()
        {
            return Err(Refusal::Invalid(format!("pid {pid} is no node's of a cluster")));
        }
        if let Some(pid) = self.known(start.tree)? {
            return Ok(Some(json(&Started { pid, known: true })));
        }
        if self.lease.is_held(now_ms()) {
            return Err(Refusal::Held);
        }
        if let Some(helper) = start.merged_proc
            && self.watched.get(&helper) != Some(&None)
        {
            return Err(Refusal::Invalid(format!("process {helper} is no helper of this cell")));
        }
        let Start { tree, pid, own_net, merged_proc, ref program, .. } = start;
        let account = Some(&start.account);
        let network = if own_net { stdio.pop() } else { None };
        let order = Order { program, account, network, merged_proc, stdio };
        self.begin(Some(tree), &order, pid, by)?;
        Ok(None)
    }

    /// The pid of this life of a tree, when it runs.
    fn known(&self, tree: Tree) -> Result<Option<i32>, Refusal> {
        let watched = self.watched.iter().map(|(pid, tree)| (*pid, *tree));
        let mut all = watched.chain(self.starting.iter().map(|(pid, s)| (*pid, s.tree)));
        match all.find_map(|(pid, t)| t.filter(|t| t.id == tree.id).map(|t| (pid, t))) {
            Some((pid, _)) if self.starting.contains_key(&pid) => {
                Err(Refusal::Invalid(format!("{tree} is being started")))
            }
            Some((pid, there)) if there == tree => Ok(Some(pid)),
            Some((_, there)) => Err(Refusal::Running(there)),
            None if self.kept.waiting().any(|e| e.tree == Some(tree)) => Err(Refusal::Over(tree)),
            None => Ok(None),
        }
    }

    fn help(
        &mut self,
        program: Program,
        mut stdio: Vec<OwnedFd>,
        by: (u64, u64),
    ) -> Result<Option<Value>, Refusal> {
        for pid in HELPER_PIDS {
            let fds = stdio.iter().map(OwnedFd::try_clone).collect::<Result<Vec<_>, _>>();
            let fds = fds.map_err(|e| Refusal::System(format!("keep descriptors: {e}")))?;
            let fds = std::mem::replace(&mut stdio, fds);
            let (account, network, merged_proc, stdio) = (None, None, None, fds);
            let order = Order { program: &program, account, network, merged_proc, stdio };
            match self.begin(None, &order, Some(pid), by) {
                Err(Refusal::PidTaken(_)) => {}
                other => return other.map(|()| None),
            }
        }
        Err(Refusal::Full(format!("{} helpers run", HELPER_PIDS.count())))
    }

    fn begin(
        &mut self,
        tree: Option<Tree>,
        order: &Order<'_>,
        pid: Option<i32>,
        by: (u64, u64),
    ) -> Result<(), Refusal> {
        order.program.check().map_err(Refusal::Invalid)?;
        if self.kept.is_full() {
            let text = format!("{} ends wait to be acknowledged", self.kept.len());
            return Err(Refusal::Full(text));
        }
        if self.watched.len() + self.starting.len() >= TREES_MAX {
            return Err(Refusal::Full(format!("{TREES_MAX} trees run")));
        }
        let above = pid.is_some_and(|pid| pid > *self.pids.range().end());
        if above {
            self.widen(true)?;
        }
        let begun = start::begin(order, pid);
        if above {
            self.widen(false)?;
        }
        let (pid, pipe) = begun.map_err(|e| match (pid, e.raw_os_error()) {
            (Some(pid), Some(libc::EEXIST)) => Refusal::PidTaken(pid),
            (Some(pid), Some(libc::EINVAL)) => {
                Refusal::System(format!("this kernel has no pid {pid}: see kernel.pid_max"))
            }
            (_, Some(libc::EAGAIN)) => Refusal::Full("its limit of processes is reached".into()),
            _ => Refusal::System(format!("cannot make a process: {e}")),
        })?;
        self.childless = false;
        let program = order.program.clone();
        self.starting.insert(pid, Starting { tree, program, pipe, by, ended: None });
        Ok(())
    }

    fn adopt(&mut self, tree: Tree, pid: i32) -> Result<Started, Refusal> {
        if let Some(pid) = self.known(tree)? {
            return Ok(Started { pid, known: true });
        }
        if self.watched.contains_key(&pid) {
            return Err(Refusal::PidTaken(pid));
        }
        match procs::one(pid) {
            Some(p) if p.parent == 1 => {
                self.orphans.take(pid);
                self.childless = false;
                self.watched.insert(pid, Some(tree));
            }
            Some(p) => {
                return Err(Refusal::Invalid(format!(
                    "process {pid} is a child of {}, not of the cell's init: adopt it when what \
                     restored it has ended",
                    p.parent
                )));
            }
            None => {
                let (exit, usage) = self.orphans.take(pid).ok_or(Refusal::NoSuchProcess(pid))?;
                self.end(Some(tree), pid, exit, usage);
            }
        }
        Ok(Started { pid, known: false })
    }

    fn signal(&mut self, pid: i32, signal: i32, group: bool) -> Result<(), Refusal> {
        if pid <= 1 || !(1..=SIGNAL_MAX).contains(&signal) {
            return Err(Refusal::Invalid(format!("signal {signal} to process {pid}")));
        }
        if signal == libc::SIGCONT && self.lease.is_held(now_ms()) {
            return Err(Refusal::Held);
        }
        if signal == libc::SIGCONT {
            self.halted.remove(&pid);
        }
        match sys::kill(if group { -pid } else { pid }, signal) {
            Ok(()) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Err(Refusal::NoSuchProcess(pid)),
            Err(e) => Err(Refusal::System(format!("signal process {pid}: {e}"))),
        }
    }

    fn status(&self) -> Result<Status, Refusal> {
        let all = procs::all();
        let mut others: BTreeSet<i32> = all.iter().map(|p| p.pid).filter(|p| *p > 1).collect();
        let mut trees = Vec::new();
        for (pid, tree) in &self.watched {
            let members = procs::members(&all, *pid);
            others.retain(|p| !members.contains(p));
            let processes = members.into_iter().collect();
            trees.push(TreeStatus { tree: *tree, pid: *pid, processes });
        }
        Ok(Status {
            node: self.node,
            init_pid: self.pid_outside,
            last_pid: self.pids.last().map_err(Refusal::System)?,
            strayed: self.strayed,
            trees,
            others: others.into_iter().collect(),
            ended: self.kept.len(),
            lease_until_ms: self.lease.until_ms(),
            held: self.lease.is_held(now_ms()),
        })
    }

    /// Brings the limit of pids to what is asked for, here or by a connection.
    fn widen(&self, on: bool) -> Result<(), Refusal> {
        let on = on || self.connections.iter().any(|c| c.wide);
        self.pids.widen(on).map_err(Refusal::System)
    }
}

/// The answer of a process that now runs.
pub(super) fn started(pid: i32) -> Result<Value, Refusal> {
    Ok(json(&Started { pid, known: false }))
}

fn json<T: serde::Serialize>(value: &T) -> Value {
    // Numbers, texts and lists alone: JSON has all of them.
    serde_json::to_value(value).unwrap_or(Value::Null)
}
