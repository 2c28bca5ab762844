//! How a node is: load, memory, processes.

use super::proto::Plan;
use crate::cell::proto::{Status, Tree};
use crate::cluster::members::Moves;
use crate::cluster::messages::TreeId;
use crate::cluster::place::{Load, ONE};
use crate::host::Hands;
use crate::procfs::look::{self, Scale};
use crate::wire::{COMMAND_MAX, NodeLooks, PROCESSES_MAX, ProcessLook, ProcessMore};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the load is sampled, as the probe wants it.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// What a node says of itself, sampled by a thread as long as the agent lives.
#[derive(Clone)]
pub(super) struct Looks(Arc<Mutex<NodeLooks>>);

impl Looks {
    /// Begins to look; `moves`, `registers`: what the canary showed, and what its driver saves of
    /// the processors.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn begin(
        hands: Hands,
        plan: &Plan,
        moves: Moves,
        registers: &str,
    ) -> io::Result<Looks> {
        let (scale, cpu_times) = look::machine()?;
        let cpu_words = cpu_words(&std::fs::read_to_string("/proc/cpuinfo")?, registers);
        let first = NodeLooks {
            load: Load::default(),
            cpus: plan.cpus,
            memory_bytes: plan.memory_bytes,
            memory_free_bytes: plan.memory_bytes.min(memory_free()?),
            moves: Some(moves),
            cpu_group: cpu_group(&cpu_words),
            cpu_words,
            limit_s: plan.limit_s,
            cpu_times,
            processes: Vec::new(),
        };
        let looks = Looks(Arc::new(Mutex::new(first)));
        let kept = looks.clone();
        std::thread::Builder::new().name("looks".to_owned()).spawn(move || {
            let proc = PathBuf::from(format!("/proc/{}/root/proc", hands.init_pid()));
            let (ticks, at) = (BTreeMap::new(), Instant::now());
            let mut sampler = Sampler { proc, scale, ticks, at };
            loop {
                std::thread::sleep(SAMPLE_EVERY);
                match hands.status() {
                    Ok(status) => kept.sample(&mut sampler, &status),
                    Err(error) => tracing::warn!(%error, "the cell is not seen"),
                }
            }
        })?;
        Ok(looks)
    }

    /// As it was seen last.
    pub(super) fn now(&self) -> NodeLooks {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn sample(&self, sampler: &mut Sampler, status: &Status) {
        let (wanting, processes) = sampler.look(status);
        let (free, machine) = (memory_free(), look::machine());
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looks.load.sample(wanting.saturating_mul(ONE));
        looks.processes = processes;
        match free {
            Ok(free) => looks.memory_free_bytes = looks.memory_bytes.min(free),
            Err(error) => tracing::warn!(%error, "how much memory is free is not known"),
        }
        match machine {
            Ok((_, times)) => looks.cpu_times = times,
            Err(error) => tracing::warn!(%error, "what the processors did is not known"),
        }
    }
}

/// What was seen before.
struct Sampler {
    /// The cell's `/proc`.
    proc: PathBuf,
    scale: Scale,
    /// Processor time of each process, in clock ticks.
    ticks: BTreeMap<i32, u64>,
    at: Instant,
}

impl Sampler {
    /// How many threads of trees want to run, and the processes of trees, those that use most of
    /// the processors first.
    fn look(&mut self, status: &Status) -> (u64, Vec<ProcessLook>) {
        let (now, mut ticks) = (Instant::now(), BTreeMap::new());
        let elapsed = now.duration_since(self.at);
        let (mut wanting, mut processes) = (0, Vec::new());
        let mut seen = BTreeSet::new();
        for t in &status.trees {
            let Some(tree) = t.tree else { continue };
            for pid in &t.processes {
                // One that ended meanwhile has nothing to show.
                let Some(found) = Seen::read(&self.proc, *pid, &self.scale) else { continue };
                if !seen.insert(*pid) {
                    continue;
                }
                wanting += found.wanting;
                let before = self.ticks.get(pid).copied().unwrap_or(found.ticks);
                ticks.insert(*pid, found.ticks);
                processes.push(found.look(*pid, tree, before, elapsed));
            }
        }
        (self.ticks, self.at) = (ticks, now);
        processes.sort_by_key(|p| (std::cmp::Reverse(p.cpu_milli), p.pid));
        processes.truncate(PROCESSES_MAX);
        (wanting, processes)
    }
}

/// What `/proc` says of a process (proc(5)).
struct Seen {
    state: char,
    parent: i32,
    ticks: u64,
    resident_pages: u64,
    uid: u32,
    command: String,
    more: ProcessMore,
    /// Threads that run or would.
    wanting: u64,
}

impl Seen {
    fn read(proc: &Path, pid: i32, scale: &Scale) -> Option<Seen> {
        let folder = proc.join(pid.to_string());
        let stat = text(&folder.join("stat"))?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // The third field of the file is the first here.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let status = text(&folder.join("status"))?;
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        let argv = std::fs::read(folder.join("cmdline")).unwrap_or_default();
        let command = match argv.is_empty() {
            true => format!("[{name}]"),
            false => String::from_utf8_lossy(&argv).trim_end_matches('\0').replace('\0', " "),
        };
        Some(Seen {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            ticks: number(14)? + number(15)?,
            resident_pages: number(24)?,
            uid: uid.split_whitespace().next()?.parse().ok()?,
            command: cut(command, COMMAND_MAX),
            more: look::process(&stat, scale)?,
            wanting: wanting(&folder.join("task")),
        })
    }

    fn look(self, pid: i32, tree: Tree, before: u64, elapsed: Duration) -> ProcessLook {
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        let used_us = self.ticks.saturating_sub(before) * 1_000_000 / per_second;
        let milli = u128::from(used_us) * 1000 / elapsed.as_micros().max(1);
        let page = rustix::param::page_size() as u64;
        ProcessLook {
            pid,
            parent: self.parent,
            tree: TreeId(tree.id),
            uid: self.uid,
            command: self.command,
            state: self.state,
            cpu_milli: u32::try_from(milli).unwrap_or(u32::MAX),
            memory_bytes: self.resident_pages.saturating_mul(page),
            more: self.more,
        }
    }
}

/// A file of `/proc`. A program names itself: what is no text must not hide it.
fn text(path: &Path) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Threads below a `task` folder that run, would, or wait for a disk.
fn wanting(tasks: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(tasks) else { return 0 };
    let wants = |task: &std::fs::DirEntry| {
        let stat = text(&task.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        matches!(state, Some('R' | 'D'))
    };
    entries.flatten().filter(wants).count() as u64
}

/// At most so many bytes, whole letters.
fn cut(mut text: String, most: usize) -> String {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// Memory that programs can have at once, bytes.
fn memory_free() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("/proc/meminfo has another form"))
}

/// What processors can, by what the kernel calls their features, and what is saved of their
/// registers ([`crate::driver::Abilities::registers`]): words in one order.
fn cpu_words(cpuinfo: &str, registers: &str) -> String {
    let line = |name: &str| {
        let mut all = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        all.find(|(key, _)| key.trim() == name).map(|(_, value)| value)
    };
    let features = line("flags").or_else(|| line("Features")).unwrap_or_default();
    let mut words: BTreeSet<&str> = features.split_whitespace().collect();
    words.extend(Some(registers).filter(|word| !word.is_empty()));
    words.insert(std::env::consts::ARCH);
    words.into_iter().collect::<Vec<_>>().join(" ")
}

/// The same as a number, which others have whose words are the same.
fn cpu_group(words: &str) -> u64 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, words.as_bytes());
    // Four bytes: a number that all who read JSON can hold.
    digest.as_ref().iter().take(4).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_that_can_the_same_are_one_group() {
        // wrong: nothing would move between like machines, or a program die of an instruction that
        // its new machine does not have
        let info = |flags: &str| format!("processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\n");
        let group = |flags: &str, saved: &str| cpu_group(&cpu_words(&info(flags), saved));
        assert_eq!(group("fpu sse2 avx", "x1"), group("avx fpu sse2", "x1"));
        assert_ne!(group("fpu sse2 avx", "x1"), group("fpu sse2", "x1"));
        // The same features, and registers that are saved elsewhere.
        assert_ne!(group("fpu avx", "xsave-7-832"), group("fpu avx", "xsave-e7-2696"));
        assert_eq!(cpu_words(&info("b a"), ""), cpu_words(&info("a b a"), ""));
    }

    #[test]
    fn what_a_process_is_called_cannot_confuse() {
        // wrong: a program could call itself so that its node is silent, or lies about its load
        assert_eq!(cut("äb".to_owned(), 1), "");
        assert_eq!(cut("äb".to_owned(), 2), "ä");
        assert_eq!(cut("ab".to_owned(), 9), "ab");
        let (scale, _) = look::machine().unwrap();
        let proc = Path::new("/proc");
        let own = Seen::read(proc, std::process::id() as i32, &scale).unwrap();
        assert!(own.resident_pages > 0 && own.wanting >= 1 && !own.command.is_empty());
        assert_eq!(own.uid, rustix::process::getuid().as_raw());
        let look = own.look(7, Tree { id: 9, epoch: 1 }, 0, Duration::from_secs(1));
        assert_eq!((look.pid, look.tree), (7, TreeId(9)));
        assert!(look.more.threads >= 1 && look.more.started >= scale.booted);
        assert!(Seen::read(proc, -1, &scale).is_none());
    }

    #[test]
    fn a_name_that_is_no_text_hides_nothing() {
        // wrong: a program would run without load, seen by nobody
        let (scale, _) = look::machine().unwrap();
        let (told, named) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let name = std::ffi::CString::new(b"\xff\xfe) R".to_vec()).unwrap();
            rustix::thread::set_name(&name).unwrap();
            told.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            // Lives until it was looked at.
            let _ended = ends.recv();
        });
        let tid = named.recv().unwrap();
        let proc = PathBuf::from(format!("/proc/{}/task", std::process::id()));
        let seen = Seen::read(&proc, tid, &scale);
        drop(end);
        thread.join().unwrap();
        assert_eq!(seen.unwrap().uid, rustix::process::getuid().as_raw());
    }
}
