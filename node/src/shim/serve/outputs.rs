//! The units' output, while they run and when they end.
//!
//! All envelopes of a node share its disk, which also holds their logs. So a unit's file has a
//! limit, an envelope's files have one together, and while the disk has less free than a reserve
//! no unit is started, and one with more than a little output is ended.

use super::super::launch::note;
use super::super::machine::{Do, Spools};
use super::super::spool;
use super::Serve;
use crate::event::{Outcome, UnitUsage};
use crate::spec::UnitSpec;
use std::collections::BTreeMap;
use std::os::fd::AsFd;

/// How often spool files are measured while something can write to them, milliseconds.
const SPOOL_CHECK_MS: u64 = 500;
/// Most spool files of ended units to which something may still write. An envelope that leaves
/// more is ended, and with it whatever has them open.
const LEFT_OPEN_MAX: usize = 1024;
/// What stays free on the spool's disk for the records of all envelopes, at most.
const RESERVE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// The same on a small disk, as a part of it.
const RESERVE_PART: u64 = 20;
/// Largest output of a unit that goes on while the disk has less than the reserve free.
const SHORT_BYTES_MAX: u64 = 1024 * 1024;
/// Most empty files that wait for a unit.
const SPARE_MAX: usize = 64;

/// What is known of the spool folder.
#[derive(Default)]
pub(super) struct Outputs {
    /// Files of ended units that are still watched.
    pub left_open: Vec<String>,
    /// What the files of ended units hold that are not.
    kept_bytes: u64,
    /// Files that may not grow beyond a length below the limit.
    held: BTreeMap<String, u64>,
    /// Empty files of ended units, for the next ones; while there are any they are measured.
    pub spare: Vec<String>,
    /// When it is looked at next.
    pub check_at: u64,
    /// What was last wrong with it.
    trouble: Option<String>,
}

impl Outputs {
    /// In a folder whose files hold that much.
    pub(super) fn new(kept_bytes: u64) -> Outputs {
        Outputs { kept_bytes, ..Outputs::default() }
    }

    fn note(&mut self, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            note(Some(trouble.clone()));
            self.trouble = Some(trouble);
        }
    }
}

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
        let names: Vec<_> = spool::names(key, spools).collect();
        for (stream, name) in names {
            let bytes = self.end_output(name);
            if let Some(u) = &mut usage {
                match stream {
                    spool::Stream::Stdout => u.stdout_bytes = bytes,
                    spool::Stream::Stderr => u.stderr_bytes = bytes,
                }
            }
        }
        let reached = self.reached(slot, &outcome);
        self.machine.ended(slot, outcome, usage, reached, out);
        if self.outputs.left_open.len() > LEFT_OPEN_MAX && self.end_at.is_none() {
            note(Some(format!(
                "ended: processes that its units left have more than {LEFT_OPEN_MAX} outputs open"
            )));
            self.begin_end(0, out);
        }
    }

    /// Keeps the file of a unit that ended for another one, or settles it. How long it is.
    fn end_output(&mut self, name: String) -> u64 {
        let room = self.outputs.spare.len() < SPARE_MAX;
        if room && spool::is_unused(self.spool.as_fd(), &name) == Ok(true) {
            self.outputs.held.remove(&name);
            self.outputs.spare.push(name);
            return 0;
        }
        self.settle(name)
    }

    /// Settles the file of a unit that ended. How long it is.
    pub(super) fn settle(&mut self, name: String) -> u64 {
        let settled = match spool::settle(self.spool.as_fd(), &name) {
            Ok(Some(settled)) => settled,
            Ok(None) => {
                self.outputs.held.remove(&name);
                return 0;
            }
            Err(e) => {
                self.outputs.note(format!("spool file {name}: {e}"));
                self.outputs.left_open.push(name);
                return 0;
            }
        };
        if settled.busy {
            self.outputs.left_open.push(name);
            return settled.bytes;
        }
        self.outputs.held.remove(&name);
        self.outputs.kept_bytes += settled.bytes;
        if settled.bytes == 0
            && let Err(e) = spool::remove(self.spool.as_fd(), &name)
        {
            self.outputs.note(format!("spool file {name}: {e}"));
        }
        settled.bytes
    }

    /// Gives a unit that is about to start the files of ones that ended. It makes what is missing.
    pub(super) fn hand_on(&mut self, unit: &UnitSpec) {
        for (_, name) in spool::names(&unit.key, Spools::of(unit)) {
            let Some(spare) = self.outputs.spare.pop() else { return };
            if let Err(e) = spool::hand_on(self.spool.as_fd(), &spare, &name) {
                self.outputs.note(format!("spool files cannot be handed on: {e}"));
                self.settle(spare);
            }
        }
    }

    /// Settles the files that wait for a unit: all of them, or those to which something was
    /// written.
    pub(super) fn settle_spare(&mut self, all: bool) {
        for name in std::mem::take(&mut self.outputs.spare) {
            match spool::length(self.spool.as_fd(), &name) {
                Ok(0) if !all => self.outputs.spare.push(name),
                _ => drop(self.settle(name)),
            }
        }
    }

    /// Sees whether the disk has little room. If that cannot be seen, it has.
    pub(super) fn look_at_disk(&mut self) -> bool {
        let short = match rustix::fs::fstatvfs(&self.spool) {
            Ok(fs) => {
                let bytes = |blocks: u64| blocks.saturating_mul(fs.f_frsize);
                let reserve = (bytes(fs.f_blocks) / RESERVE_PART).min(RESERVE_BYTES_MAX);
                bytes(fs.f_bavail) < reserve
            }
            Err(e) => {
                self.outputs.note(format!("cannot see how full the disk is: {e}"));
                true
            }
        };
        self.machine.set_short(short);
        short
    }

    /// Keeps spool files within their limits.
    pub(super) fn check_spools(&mut self, now: u64, out: &mut Vec<Do>) {
        if now < self.outputs.check_at {
            return;
        }
        self.outputs.check_at = now + SPOOL_CHECK_MS;
        let short = self.look_at_disk();
        self.settle_spare(self.machine.is_idle());
        let left = self.check_left_open(short);
        let running: Vec<(u32, Vec<String>)> = self
            .machine
            .running()
            .map(|(slot, key, s)| (slot, spool::names(key, s).map(|(_, name)| name).collect()))
            .collect();
        let (mut sizes, mut full) = (Vec::new(), Vec::new());
        for (slot, names) in &running {
            let mut bytes = 0;
            for name in names {
                let (length, over) = self.cut_back(name);
                bytes += length;
                if over {
                    full.push(*slot);
                }
            }
            sizes.push((bytes, *slot, names));
        }
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let all = self.outputs.kept_bytes + left + sizes.iter().map(|s| s.0).sum::<u64>();
        let mut excess = all.saturating_sub(self.plan.spec.spool_total_bytes_max);
        for (bytes, slot, names) in sizes {
            let beyond_short = short && bytes > SHORT_BYTES_MAX;
            if bytes == 0 || (excess == 0 && !beyond_short) {
                break;
            }
            for name in names {
                let (length, _) = self.cut_back(name);
                let less = excess.min(length);
                excess -= less;
                self.outputs.held.insert(name.clone(), length - less);
                self.cut_back(name);
            }
            full.push(slot);
        }
        for slot in full {
            self.machine.spool_full(slot, now, out);
        }
    }

    /// Files to which left-over processes may write. How much those hold.
    fn check_left_open(&mut self, short: bool) -> u64 {
        let mut all = 0;
        for name in std::mem::take(&mut self.outputs.left_open) {
            let (length, _) = self.cut_back(&name);
            if short {
                self.outputs.held.entry(name.clone()).or_insert(length);
            }
            let before = self.outputs.left_open.len();
            self.settle(name);
            if self.outputs.left_open.len() > before {
                all += length;
            }
        }
        all
    }

    /// Cuts a file back to what it may have. How long it is then, and whether it was longer.
    fn cut_back(&mut self, name: &str) -> (u64, bool) {
        let dir = self.spool.as_fd();
        let most = self.plan.spec.spool_bytes_max;
        let max = self.outputs.held.get(name).map_or(most, |held| most.min(*held));
        let seen = spool::length(dir, name).and_then(|length| {
            spool::cut(dir, name, max)?;
            Ok(length)
        });
        match seen {
            Ok(length) => (length.min(max), length > max),
            Err(e) => {
                self.outputs.note(format!("spool file {name}: {e}"));
                (0, false)
            }
        }
    }
}
