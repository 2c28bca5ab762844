//! What a node tells of itself for the merged `/proc` of the others, read from its own.

use crate::wire::{CPUS_MAX, CpuTimes, ProcessMore};
use std::io;
use xos_base::Millis;

/// How the kernel counts on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// When the machine booted.
    pub booted: Millis,
    /// `USER_HZ`.
    pub ticks_per_second: u64,
}

/// What is read of `/proc/stat`.
///
/// # Errors
/// That it cannot be read.
pub fn machine() -> io::Result<(Scale, Vec<CpuTimes>)> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let booted = text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    let booted = Millis::from_secs(booted.unwrap_or(0));
    Ok((Scale { booted, ticks_per_second }, cpu_times(&text, ticks_per_second)))
}

/// The processors of a `/proc/stat`.
fn cpu_times(text: &str, ticks_per_second: u64) -> Vec<CpuTimes> {
    let hundredths = |ticks: u64| ticks.saturating_mul(100) / ticks_per_second.max(1);
    let cpu = |line: &str| {
        let (name, rest) = line.split_once(' ')?;
        name.strip_prefix("cpu")?.parse::<u32>().ok()?;
        let mut columns = rest.split_whitespace().map(|n| hundredths(n.parse().unwrap_or(0)));
        let mut next = || columns.next().unwrap_or(0);
        Some(CpuTimes {
            user: next(),
            nice: next(),
            system: next(),
            idle: next(),
            iowait: next(),
            irq: next(),
            softirq: next(),
            steal: next(),
        })
    };
    text.lines().filter_map(cpu).take(CPUS_MAX).collect()
}

/// What a `/proc/PID/stat` says of a process; `None` when it has another form.
pub fn process(stat: &str, scale: &Scale) -> Option<ProcessMore> {
    // The name before may hold anything. Then come the state, which is field 3, and numbers.
    let rest = stat.rsplit_once(')')?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number.checked_sub(3)?).copied();
    let ms = |ticks: u64| ticks.saturating_mul(1000) / scale.ticks_per_second.max(1);
    let number = |at: usize| field(at)?.parse::<u64>().ok();
    Some(ProcessMore {
        user_ms: ms(number(14)?),
        system_ms: ms(number(15)?),
        nice: field(19)?.parse().ok()?,
        threads: field(20)?.parse().ok()?,
        started: Millis(scale.booted.0.saturating_add(ms(number(22)?))),
        virtual_bytes: number(23)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::process::tests::{MACHINE, look};
    use super::super::process::{File, text};
    use super::*;

    const SCALE: Scale =
        Scale { booted: MACHINE.booted, ticks_per_second: MACHINE.ticks_per_second };

    #[test]
    fn what_is_read_is_what_is_shown() {
        // wrong: a process would look different on the node where it runs and on another
        let shown = String::from_utf8(text(File::Stat, &look(), &MACHINE)).unwrap();
        assert_eq!(process(&shown, &SCALE), Some(look().more));
        let forged = "7 (a) R 1 1) S 1 7 7 0 -1 0 0 0 0 0 500 20 0 0 20 0 1 0 100 4096 1 0";
        let more = process(forged, &SCALE).unwrap();
        assert_eq!((more.user_ms, more.nice, more.threads), (5000, 0, 1));
        assert_eq!(process("7 (a) S 1 7", &SCALE), None);
        assert_eq!(process("", &SCALE), None);
    }

    #[test]
    fn this_machine_is_read() {
        // wrong: a node would tell nothing of its processors
        let (scale, cpus) = machine().unwrap();
        assert!(!cpus.is_empty() && scale.booted > Millis(0));
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        let more = process(&own, &scale).unwrap();
        assert!(more.threads >= 1 && more.started >= scale.booted && more.virtual_bytes > 0);
        let text = "cpu  9 9\ncpu0 1 2 3 4 5 6 7 8 9\ncpux 1\ncpu1 1\nintr 5\n";
        let cpus = cpu_times(text, 50);
        assert_eq!((cpus.len(), cpus[0].user, cpus[0].steal, cpus[1].nice), (2, 2, 16, 0));
    }
}
