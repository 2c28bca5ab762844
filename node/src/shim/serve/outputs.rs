//! The units' output, while they run and when they end.

use super::super::launch::note;
use super::super::machine::Do;
use super::super::spool;
use super::Serve;
use crate::event::{Outcome, UnitUsage};
use std::os::fd::AsFd;

/// How often spool files are measured while something can write to them, milliseconds.
const SPOOL_CHECK_MS: u64 = 500;
/// Most spool files of ended units that are still watched because something may write to them.
const LEFT_OPEN_MAX: usize = 4096;

impl Serve<'_> {
    /// Init saw a unit's end.
    pub(super) fn unit_ended(
        &mut self,
        slot: u32,
        outcome: Outcome,
        mut usage: Option<UnitUsage>,
        out: &mut Vec<Do>,
    ) {
        let Some((key, spools)) = self.machine.at(slot) else { return };
        for (stream, name) in spool::names(key, spools) {
            let settled = match spool::settle(self.spool.as_fd(), &name) {
                Ok(s) => s,
                Err(e) => {
                    note(Some(format!("spool file {name}: {e}")));
                    continue;
                }
            };
            if let Some(u) = &mut usage {
                match stream {
                    spool::Stream::Stdout => u.stdout_bytes = settled.bytes,
                    spool::Stream::Stderr => u.stderr_bytes = settled.bytes,
                }
            }
            if settled.busy && self.left_open.len() < LEFT_OPEN_MAX {
                self.left_open.push(name);
            }
        }
        let by_kill = matches!(
            outcome,
            Outcome::Signaled { signal: 9, .. } | Outcome::Exited { code: 137, .. }
        );
        let oom = by_kill && self.oom_rose();
        self.machine.ended(slot, outcome, usage, oom, out);
    }

    pub(super) fn oom_rose(&mut self) -> bool {
        let seen = self.plan.cgroup.oom_kills();
        std::mem::replace(&mut self.oom_seen, seen) < seen
    }

    /// Keeps spool files within their limit.
    pub(super) fn check_spools(&mut self, now: u64, out: &mut Vec<Do>) {
        if now < self.spool_check_at {
            return;
        }
        self.spool_check_at = now + SPOOL_CHECK_MS;
        let max = self.plan.spec.spool_bytes_max;
        let dir = self.spool.as_fd();
        let over = |name: &str| match spool::cut(dir, name, max) {
            Ok(over) => over,
            Err(e) => {
                note(Some(format!("spool file {name}: {e}")));
                false
            }
        };
        let full: Vec<u32> = self
            .machine
            .running()
            .filter(|(_, key, s)| spool::names(key, *s).any(|(_, name)| over(&name)))
            .map(|(slot, ..)| slot)
            .collect();
        self.left_open.retain(|name| {
            over(name);
            spool::settle(dir, name).is_ok_and(|s| s.busy)
        });
        for slot in full {
            self.machine.spool_full(slot, now, out);
        }
    }
}
