//! The texts about a process of another node, as proc_pid(5) has them. Pure.

use crate::wire::ProcessLook;
use std::fmt::Write;
use xos_base::Millis;

/// Longest name of a program, in characters (`TASK_COMM_LEN`, less its end).
const COMM_MAX: usize = 15;
/// The group that stands for one that is not known.
const NO_GROUP: u32 = crate::cell::proto::OVERFLOW_ID;

/// What the texts are measured by: this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) page_bytes: u64,
    /// `USER_HZ`.
    pub(super) ticks_per_second: u64,
    pub(super) booted: Millis,
}

/// A file in a process's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    Cmdline,
    Comm,
    Environ,
    Stat,
    Statm,
    Status,
}

impl File {
    /// All of them, in their order, with their names.
    pub(super) const ALL: [(File, &'static str); 6] = [
        (File::Cmdline, "cmdline"),
        (File::Comm, "comm"),
        (File::Environ, "environ"),
        (File::Stat, "stat"),
        (File::Statm, "statm"),
        (File::Status, "status"),
    ];
}

/// What a file says.
pub(super) fn text(file: File, look: &ProcessLook, machine: &Machine) -> Vec<u8> {
    match file {
        File::Cmdline => cmdline(look),
        File::Comm => format!("{}\n", comm(look)).into_bytes(),
        // It is not told to other nodes.
        File::Environ => Vec::new(),
        File::Stat => stat(look, machine).into_bytes(),
        File::Statm => statm(look, machine).into_bytes(),
        File::Status => status(look).into_bytes(),
    }
}

/// Each word is an argument: which blanks were in one is not known.
fn cmdline(look: &ProcessLook) -> Vec<u8> {
    let words = look.command.split(' ').filter(|word| !word.is_empty() && look.state != 'Z');
    words.flat_map(|word| word.bytes().chain([0])).collect()
}

fn comm(look: &ProcessLook) -> String {
    let word = look.command.split(' ').find(|word| !word.is_empty()).unwrap_or("?");
    let name = word.rsplit('/').find(|part| !part.is_empty()).unwrap_or(word);
    // A login shell's own name begins so.
    let name = name.strip_prefix('-').filter(|name| !name.is_empty()).unwrap_or(name);
    let name = name.trim_matches(['[', ']', '(', ')']);
    let name: String = name.chars().take(COMM_MAX).collect();
    if name.is_empty() { "?".to_owned() } else { name }
}

/// proc_pid_stat(5): 52 fields.
fn stat(look: &ProcessLook, machine: &Machine) -> String {
    let more = &look.more;
    let ticks = |ms: u64| ms.saturating_mul(machine.ticks_per_second) / 1000;
    // What began before this machine booted would be of the future else.
    let started = ticks(more.started.0.saturating_sub(machine.booted.0));
    let (pid, parent, comm, state) = (look.pid, look.parent, comm(look), look.state);
    let (user, system) = (ticks(more.user_ms), ticks(more.system_ms));
    let nice = more.nice.clamp(-20, 19);
    let (priority, threads) = (20 + nice, more.threads.max(1));
    let (size, resident) = (more.virtual_bytes, look.memory_bytes / machine.page_bytes.max(1));
    // Its group, session and terminal are not known: itself, itself and none.
    format!(
        "{pid} ({comm}) {state} {parent} {pid} {pid} 0 -1 0 0 0 0 0 {user} {system} 0 0 \
         {priority} {nice} {threads} 0 {started} {size} {resident} 18446744073709551615 \
         0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    )
}

fn statm(look: &ProcessLook, machine: &Machine) -> String {
    let pages = |bytes: u64| bytes / machine.page_bytes.max(1);
    let (size, resident) = (pages(look.more.virtual_bytes), pages(look.memory_bytes));
    format!("{size} {resident} 0 0 0 {resident} 0\n")
}

fn status(look: &ProcessLook) -> String {
    let (pid, uid, group) = (look.pid, look.uid, NO_GROUP);
    let kib = |bytes: u64| bytes / 1024;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // A String takes whatever is written.
        let _written = writeln!(text, "{name}:\t{value}");
    };
    line("Name", &comm(look));
    line("State", &format!("{} ({})", look.state, state(look.state)));
    line("Tgid", &pid.to_string());
    line("Ngid", "0");
    line("Pid", &pid.to_string());
    line("PPid", &look.parent.to_string());
    line("TracerPid", "0");
    line("Uid", &format!("{uid}\t{uid}\t{uid}\t{uid}"));
    line("Gid", &format!("{group}\t{group}\t{group}\t{group}"));
    line("FDSize", "0");
    line("Groups", "");
    for name in ["NStgid", "NSpid", "NSpgid", "NSsid"] {
        line(name, &pid.to_string());
    }
    if look.state != 'Z' {
        line("VmSize", &format!("{:>8} kB", kib(look.more.virtual_bytes)));
        line("VmRSS", &format!("{:>8} kB", kib(look.memory_bytes)));
        line("VmSwap", &format!("{:>8} kB", 0));
    }
    line("Threads", &look.more.threads.max(1).to_string());
    for name in ["SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"] {
        line(name, "0000000000000000");
    }
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        line(name, "0000000000000000");
    }
    line("NoNewPrivs", "1");
    text
}

/// fs/proc/array.c, `task_state_array`.
fn state(letter: char) -> &'static str {
    match letter {
        'R' => "running",
        'S' => "sleeping",
        'D' => "disk sleep",
        'T' => "stopped",
        't' => "tracing stop",
        'X' => "dead",
        'Z' => "zombie",
        'P' => "parked",
        'I' => "idle",
        _ => "unknown",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cluster::messages::TreeId;
    use crate::wire::ProcessMore;

    pub(in super::super) fn look() -> ProcessLook {
        ProcessLook {
            pid: 70_000,
            parent: 65_600,
            tree: TreeId(1),
            uid: 1_900_000_001,
            command: "/usr/bin/simulate --steps 42".into(),
            state: 'R',
            cpu_milli: 990,
            memory_bytes: 40 << 20,
            more: ProcessMore {
                started: Millis(1_000_060_000),
                threads: 4,
                user_ms: 12_340,
                system_ms: 560,
                nice: 5,
                virtual_bytes: 80 << 20,
            },
        }
    }

    pub(in super::super) const MACHINE: Machine =
        Machine { page_bytes: 4096, ticks_per_second: 100, booted: Millis(1_000_000_000) };

    fn of(file: File, look: &ProcessLook) -> String {
        String::from_utf8(text(file, look, &MACHINE)).unwrap()
    }

    #[test]
    fn texts_are_as_the_kernel_writes_them() {
        // wrong: ps and top would show nonsense of what runs on other nodes, or stop
        let look = look();
        assert_eq!(
            of(File::Stat, &look),
            "70000 (simulate) R 65600 70000 70000 0 -1 0 0 0 0 0 1234 56 0 0 25 5 4 0 6000 \
             83886080 10240 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 \
             0 0 0 0\n"
        );
        assert_eq!(of(File::Stat, &look).split_whitespace().count(), 52);
        assert_eq!(of(File::Statm, &look), "20480 10240 0 0 0 10240 0\n");
        assert_eq!(of(File::Cmdline, &look), "/usr/bin/simulate\0--steps\x0042\0");
        assert_eq!(of(File::Comm, &look), "simulate\n");
        assert_eq!(of(File::Environ, &look), "");
        let status = of(File::Status, &look);
        assert!(status.starts_with("Name:\tsimulate\nState:\tR (running)\nTgid:\t70000\n"));
        let uid = "Uid:\t1900000001\t1900000001\t1900000001\t1900000001\n";
        assert!(status.contains(uid) && status.contains("VmRSS:\t   40960 kB\n"), "{status}");
    }

    #[test]
    fn a_name_cannot_forge_fields() {
        // wrong: a program could show another owner or parent of itself than it has
        let name = |command: &str| {
            let look = ProcessLook { command: command.into(), ..look() };
            of(File::Comm, &look).trim_end().to_owned()
        };
        assert_eq!(name("-bash"), "bash");
        assert_eq!(name("[kworker/0:1]"), "0:1");
        assert_eq!(name(""), "?");
        assert_eq!(name("/a/b/"), "b");
        assert_eq!(name("())"), "?");
        assert_eq!(name("averyveryverylongname x"), "averyveryverylo");
    }

    #[test]
    fn what_began_before_this_machine_began_with_it() {
        // wrong: top would show a start in the far future
        let mut look = look();
        look.more.started = Millis(5);
        assert_eq!(of(File::Stat, &look).split_whitespace().nth(21), Some("0"));
    }
}
