//! The texts about the whole cluster: this machine's, and what the view has of the others. Pure.
//!
//! What is not known of other nodes is this machine's alone: caches, swap, interrupts, how long it
//! has been up.

use super::process::Machine;
use super::view::{NodeView, View};
use crate::wire::CpuTimes;
use std::fmt::Write;

/// Columns of a processor in `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal,
/// guest, guest_nice.
const COLUMNS: usize = 10;
const IDLE: usize = 3;

/// A text about the whole cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    Cpuinfo,
    Loadavg,
    Meminfo,
    Stat,
    Uptime,
}

impl System {
    /// All of them, in their order, with their names.
    pub(super) const ALL: [(System, &'static str); 5] = [
        (System::Cpuinfo, "cpuinfo"),
        (System::Loadavg, "loadavg"),
        (System::Meminfo, "meminfo"),
        (System::Stat, "stat"),
        (System::Uptime, "uptime"),
    ];

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        let of = |(system, name): &(System, &'static str)| (*system == self).then_some(*name);
        System::ALL.iter().find_map(of).unwrap_or("")
    }
}

/// What a file says; `local`: what this machine's own says.
pub(super) fn text(system: System, view: &View, local: &str, machine: &Machine) -> String {
    match system {
        System::Cpuinfo => cpuinfo(view, local),
        System::Loadavg => loadavg(view, local),
        System::Meminfo => meminfo(view, local),
        System::Stat => stat(view, local, machine),
        System::Uptime => uptime(view, local),
    }
}

/// All nodes in the order of their numbers; `None` is this one.
fn order(view: &View) -> Vec<Option<&NodeView>> {
    let here = view.here;
    let mut nodes: Vec<_> = view.others().map(|node| (node.number, Some(node))).collect();
    nodes.push((here, None));
    nodes.sort_by_key(|(number, _)| *number);
    nodes.into_iter().map(|(_, node)| node).collect()
}

/// What each processor of a node did, in ticks; nothing where that is not known.
fn times(node: &NodeView, ticks_per_second: u64) -> impl Iterator<Item = [u64; COLUMNS]> {
    let known = node.cpu_times.iter().map(move |t: &CpuTimes| {
        let all = [t.user, t.nice, t.system, t.idle, t.iowait, t.irq, t.softirq, t.steal, 0, 0];
        all.map(|hundredths| hundredths.saturating_mul(ticks_per_second) / 100)
    });
    let cpus = usize::try_from(node.cpus).unwrap_or(0);
    known.chain(std::iter::repeat([0; COLUMNS])).take(cpus)
}

fn columns(rest: &str) -> [u64; COLUMNS] {
    let mut columns = [0; COLUMNS];
    for (column, text) in columns.iter_mut().zip(rest.split_whitespace()) {
        *column = text.parse().unwrap_or(0);
    }
    columns
}

fn cpu_line(text: &mut String, name: &str, columns: [u64; COLUMNS]) {
    text.push_str(name);
    for column in columns {
        // A String takes whatever is written.
        let _written = write!(text, " {column}");
    }
    text.push('\n');
}

fn states(view: &View, letter: char) -> usize {
    view.processes.iter().filter(|seen| seen.look.state == letter).count()
}

fn stat(view: &View, local: &str, machine: &Machine) -> String {
    let cpu = |line: &&str| line.starts_with("cpu");
    let own: Vec<[u64; COLUMNS]> = local
        .lines()
        .filter(cpu)
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| *name != "cpu")
        .map(|(_, rest)| columns(rest))
        .collect();
    let mut all = Vec::new();
    for node in order(view) {
        match node {
            Some(node) => all.extend(times(node, machine.ticks_per_second)),
            None => all.extend(&own),
        }
    }
    let mut sum = [0_u64; COLUMNS];
    for one in &all {
        sum.iter_mut().zip(one).for_each(|(sum, one)| *sum = sum.saturating_add(*one));
    }
    let mut text = String::new();
    // The kernel has two blanks there.
    cpu_line(&mut text, "cpu ", sum);
    for (number, one) in all.iter().enumerate() {
        cpu_line(&mut text, &format!("cpu{number}"), *one);
    }
    for line in local.lines().filter(|line| !cpu(line)) {
        let more = match line.split_once(' ') {
            Some((name @ "procs_running", n)) => Some((name, n, states(view, 'R'))),
            Some((name @ "procs_blocked", n)) => Some((name, n, states(view, 'D'))),
            _ => None,
        };
        let _written = match more {
            Some((name, n, more)) => {
                writeln!(text, "{name} {}", n.parse::<usize>().unwrap_or(0).saturating_add(more))
            }
            None => writeln!(text, "{line}"),
        };
    }
    text
}

fn meminfo(view: &View, local: &str) -> String {
    let sum = |of: fn(&NodeView) -> u64| {
        view.others().map(|node| of(node) / 1024).fold(0_u64, u64::saturating_add)
    };
    // What other nodes keep in caches is free there: programs can have it.
    let (total, free) = (sum(|n| n.memory_bytes), sum(|n| n.memory_free_bytes));
    let mut text = String::new();
    for line in local.lines() {
        let more = match line.split_once(':') {
            Some((name @ "MemTotal", value)) => Some((name, value, total)),
            Some((name @ ("MemFree" | "MemAvailable"), value)) => Some((name, value, free)),
            _ => None,
        };
        let _written = match more {
            Some((name, value, more)) => {
                let own: u64 =
                    value.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
                let name = format!("{name}:");
                writeln!(text, "{name:<16}{:>8} kB", own.saturating_add(more))
            }
            None => writeln!(text, "{line}"),
        };
    }
    text
}

fn cpuinfo(view: &View, local: &str) -> String {
    let is_cpu = |block: &&str| block.lines().any(|line| line.starts_with("processor"));
    let blocks: Vec<&str> = local.split("\n\n").filter(|block| !block.trim().is_empty()).collect();
    let mut text = String::new();
    let mut number = 0_usize;
    for node in order(view) {
        match node {
            None => {
                for block in blocks.iter().copied().filter(is_cpu) {
                    for line in block.trim_matches('\n').lines() {
                        let _written = match line.starts_with("processor") {
                            true => writeln!(text, "processor\t: {number}"),
                            false => writeln!(text, "{line}"),
                        };
                    }
                    text.push('\n');
                    number += 1;
                }
            }
            Some(node) => {
                for core in 0..node.cpus {
                    let (name, package) = (&node.name, node.number);
                    let _written = writeln!(
                        text,
                        "processor\t: {number}\nmodel name\t: processor of node {name}\n\
                         physical id\t: {package}\ncore id\t\t: {core}\n"
                    );
                    number += 1;
                }
            }
        }
    }
    // On some machines what is common to all comes last.
    for block in blocks.iter().copied().filter(|block| !is_cpu(block)) {
        text.push_str(block.trim_matches('\n'));
        text.push('\n');
    }
    text
}

fn loadavg(view: &View, local: &str) -> String {
    let load = view.others().map(|node| node.load_milli).fold(0_u64, u64::saturating_add);
    let mut fields = local.split_whitespace();
    let mut text = String::new();
    for _ in 0..3 {
        let hundredths = fields.next().map_or(0, hundredths).saturating_add(load / 10);
        let _written = write!(text, "{}.{:02} ", hundredths / 100, hundredths % 100);
    }
    let (running, all) = fields.next().and_then(|pair| pair.split_once('/')).unwrap_or(("0", "0"));
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    let threads =
        view.processes.iter().fold(0_u64, |n, p| n + u64::from(p.look.more.threads.max(1)));
    let running = number(running).saturating_add(u64::try_from(states(view, 'R')).unwrap_or(0));
    let all = number(all).saturating_add(threads);
    let last = fields.next().unwrap_or("0");
    let _written = writeln!(text, "{running}/{all} {last}");
    text
}

/// A number with two places behind its point, in hundredths.
fn hundredths(text: &str) -> u64 {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let part: u64 = part.parse().unwrap_or(0);
    whole.parse::<u64>().unwrap_or(0).saturating_mul(100).saturating_add(part.min(99))
}

/// How long this machine has been up: the processes' starts are counted from then. What all
/// processors were idle.
fn uptime(view: &View, local: &str) -> String {
    let mut fields = local.split_whitespace();
    let (up, idle) = (fields.next().unwrap_or("0.00"), fields.next().map_or(0, hundredths));
    let others = view.others().flat_map(|node| times(node, 100)).map(|columns| columns[IDLE]);
    let idle = others.fold(idle, u64::saturating_add);
    format!("{up} {}.{:02}\n", idle / 100, idle % 100)
}

#[cfg(test)]
mod tests {
    use super::super::process::tests::{MACHINE, look};
    use super::super::view::Seen;
    use super::*;
    use crate::pids::NodeNumber;

    fn number(n: u8) -> NodeNumber {
        NodeNumber::try_from(n).unwrap()
    }

    /// This node is the second of three; one has told nothing of its processors.
    fn view() -> View {
        let node = |n: u8, cpus: u32, cpu_times: Vec<CpuTimes>| NodeView {
            number: number(n),
            name: format!("n{n}"),
            cpus,
            cpu_times,
            load_milli: 1250,
            memory_bytes: 8 << 30,
            memory_free_bytes: 6 << 30,
        };
        let times = CpuTimes { user: 700, idle: 900, ..CpuTimes::default() };
        let processes = vec![Seen { node: number(1), look: look() }];
        let nodes = vec![node(1, 1, vec![times]), node(2, 2, Vec::new()), node(3, 2, Vec::new())];
        View { here: number(2), nodes, processes }
    }

    fn of(system: System, local: &str) -> String {
        text(system, &view(), local, &MACHINE)
    }

    #[test]
    fn processors_are_numbered_node_by_node() {
        // wrong: top would show some twice, or a sum that is not theirs
        let local = "cpu  30 0 0 50 0 0 0 0 0 0\ncpu0 10 0 0 20 0 0 0 0 0 0\n\
                     cpu1 20 0 0 30 0 0 0 0 0 0\nintr 5 1\nbtime 1000000\nprocesses 9\n\
                     procs_running 2\nprocs_blocked 0\n";
        assert_eq!(
            of(System::Stat, local),
            "cpu  730 0 0 950 0 0 0 0 0 0\ncpu0 700 0 0 900 0 0 0 0 0 0\n\
             cpu1 10 0 0 20 0 0 0 0 0 0\ncpu2 20 0 0 30 0 0 0 0 0 0\n\
             cpu3 0 0 0 0 0 0 0 0 0 0\ncpu4 0 0 0 0 0 0 0 0 0 0\nintr 5 1\nbtime 1000000\n\
             processes 9\nprocs_running 3\nprocs_blocked 0\n"
        );
        let local = "processor\t: 0\nmodel name\t: Fast\n\nprocessor\t: 1\nmodel name\t: Fast\n\n";
        let info = of(System::Cpuinfo, local);
        let numbers = info.lines().filter_map(|line| line.strip_prefix("processor\t: "));
        assert_eq!(numbers.collect::<Vec<_>>(), ["0", "1", "2", "3", "4"]);
        let models = info.lines().filter_map(|line| line.strip_prefix("model name\t: "));
        let (one, three) = ("processor of node n1", "processor of node n3");
        assert_eq!(models.collect::<Vec<_>>(), [one, "Fast", "Fast", three, three]);
    }

    #[test]
    fn memory_load_and_idleness_are_sums() {
        // wrong: free would show one node's memory as the cluster's
        let local = "MemTotal:        1000000 kB\nMemFree:          400000 kB\n\
                     MemAvailable:     600000 kB\nBuffers:              10 kB\nHugePages_Total:   0\n";
        assert_eq!(
            of(System::Meminfo, local),
            "MemTotal:       17777216 kB\nMemFree:        12982912 kB\n\
             MemAvailable:   13182912 kB\nBuffers:              10 kB\nHugePages_Total:   0\n"
        );
        assert_eq!(of(System::Loadavg, "0.10 0.72 3.06 1/91 77\n"), "2.60 3.22 5.56 2/95 77\n");
        assert_eq!(of(System::Uptime, "100.50 120.25\n"), "100.50 129.25\n");
    }

    #[test]
    fn alone_it_is_the_machines_own() {
        // wrong: a shell whose agent is away would show something else than its node
        let local = "cpu  30 0 0 50 0 0 0 0 0 0\ncpu0 30 0 0 50 0 0 0 0 0 0\nbtime 1000000\n";
        let alone = View::alone(number(2));
        assert_eq!(text(System::Stat, &alone, local, &MACHINE), local);
        for (system, name) in System::ALL {
            assert_eq!(system.name(), name);
            // what cannot be read ends no server
            text(system, &view(), "", &MACHINE);
            text(system, &view(), "x\u{fffd} : \n/ . - cpu", &MACHINE);
        }
    }
}
