//! The daemon's requests.

use super::{Do, Serve};
use crate::cgroup::CgroupError;
use crate::event::Cause;
use crate::proto::{Ask, Call, Refusal, Status, Tell};
use crate::spec::{SLOTS_MAX, check_limits};
use serde_json::Value;

impl Serve<'_> {
    /// Reads what a connection sent and answers. A peer that breaks the protocol is dropped.
    pub(super) fn hear_connection(&mut self, i: usize) {
        let c = &mut self.connections[i];
        if !matches!(c.inbox.fill(&mut c.socket), Ok(true)) {
            c.alive = false;
        }
        loop {
            let c = &mut self.connections[i];
            let call: Call = match c.inbox.next() {
                Ok(Some(call)) => call,
                Ok(None) => return,
                Err(_) => {
                    c.alive = false;
                    return;
                }
            };
            let tell = match self.answer(call.ask) {
                Ok(value) => Tell::Reply { id: call.id, value },
                Err(refusal) => Tell::Refused { id: call.id, refusal },
            };
            let c = &mut self.connections[i];
            c.alive &= c.outbox.push(&tell).is_ok();
        }
    }

    fn answer(&mut self, ask: Ask) -> Result<Value, Refusal> {
        let now = self.now();
        let mut out = Vec::new();
        let value = match ask {
            Ask::Start { units } => {
                self.log_works()?;
                let answers = self.machine.start(units, &mut out);
                self.look_at_disk();
                self.machine.fill(now, &mut out);
                self.effects(std::mem::take(&mut out))?;
                // What is not on file is not acknowledged; asked again, the units are known.
                self.log_works()?;
                json(&answers)
            }
            Ask::Kill { unit, grace_ms } => {
                self.machine.kill(&unit, grace_ms, now, &mut out).and_then(|s| json(&s))
            }
            Ask::KillAll { grace_ms } => {
                self.machine.kill_all(Cause::Asked, grace_ms, now, &mut out);
                Ok(Value::Null)
            }
            Ask::Freeze { on } => self.freeze(on, now).map(|()| Value::Null),
            Ask::Limit { limits } => check_limits(&limits)
                .map_err(|e| Refusal::Invalid(e.to_string()))
                .and_then(|()| self.plan.cgroup.limit(&limits).map_err(system))
                .map(|()| Value::Null),
            Ask::Slots { slots } if (1..=SLOTS_MAX).contains(&slots) => {
                self.machine.set_slots(slots);
                self.machine.fill(now, &mut out);
                Ok(Value::Null)
            }
            Ask::Slots { .. } => Err(Refusal::Invalid(format!("slots are 1 to {SLOTS_MAX}"))),
            Ask::Adopt => Err(Refusal::Invalid("it is an envelope already".into())),
            Ask::Unit { unit } => json(&self.machine.state(&unit)),
            Ask::Status => json(&self.status()),
            Ask::End { grace_ms } => {
                self.begin_end(grace_ms, &mut out);
                Ok(Value::Null)
            }
        };
        self.effects(out)?;
        value
    }

    fn log_works(&self) -> Result<(), Refusal> {
        self.log.trouble().map_or(Ok(()), |t| Err(Refusal::System(t.to_owned())))
    }

    fn effects(&mut self, out: Vec<Do>) -> Result<(), Refusal> {
        self.perform(out).map_err(|e| Refusal::System(e.to_string()))
    }

    fn freeze(&mut self, on: bool, now: u64) -> Result<(), Refusal> {
        if self.end_at.is_some() {
            return Err(Refusal::Ending);
        }
        self.plan.cgroup.freeze(on).map_err(system)?;
        if on {
            self.machine.frozen(now);
        } else {
            self.machine.thawed(now);
        }
        Ok(())
    }

    fn status(&self) -> Status {
        let (waiting, ended, slots, frozen, ending) = self.machine.counts();
        Status {
            shim_pid: std::process::id() as i32,
            init_pid: self.init.pid.as_raw_nonzero().get(),
            waiting,
            running: self.machine.running().map(|(_, key, _)| key.clone()).collect(),
            ended,
            slots,
            frozen,
            ending,
            log_bytes: self.log.len(),
            usage: self.plan.cgroup.usage(),
            trouble: self.log.trouble().map(str::to_owned),
        }
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<Value, Refusal> {
    serde_json::to_value(value).map_err(|e| Refusal::System(e.to_string()))
}

fn system(e: CgroupError) -> Refusal {
    Refusal::System(e.to_string())
}
