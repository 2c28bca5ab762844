//! What is killed while a program moves: the agents of both nodes, their cells, CRIU, the program,
//! and who follows it.

use std::collections::BTreeMap;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use rustix::process::Signal;
use xos_testbed::grid::SiteSpec;
use xos_testbed::{Host, Stdio};

use crate::cluster::{
    CLUSTER, N1, N2, SETTLED_MAX, all_online, nodes_join_and_are_tried, saved_twice, term, tree,
};
use crate::cluster_kinds::follow::{counted, stop_file};
use crate::faults::{Dice, number};
use crate::signed_in::account;
use crate::tool::{Json, Said};
use crate::world::{VOLUME, World, soon_within};

/// How many kills, without XOS_CLUSTER_KILLS: one of each sort.
const KILLS: usize = SORTS.len();
/// Their moments and sides, without XOS_SEED.
const SEED: u64 = 2010;
const SORTS: [Sort; 5] = [Sort::Agent, Sort::Criu, Sort::Cell, Sort::Program, Sort::Follower];
/// Longest pause from the beginning of a move to a kill, in milliseconds.
const PAUSE_MS_MAX: u64 = 150;
/// How often it is looked for what is to be killed.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long a move may take, or may not be told to have failed.
const MOVE_MAX: Duration = Duration::from_secs(240);
/// So many more lines show that it goes on.
const MORE: usize = 10;
/// How often a program goes back in what it did when it is restarted from its checkpoint: once, and
/// once more where its clock was read before and its line written after.
const BACK_MAX: usize = 2;
/// Writes a number to its output, and the same with the time into a file of its home on whichever
/// node it is.
const TRAIL: &str = r#"
n=0
while [ ! -e "$STOP" ]; do
    echo "a $n"; echo "$n $(date +%s%N)" >> "$HOME/$TRAIL"; n=$((n+1)); sleep 0.02
done
"#;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Agent,
    Cell,
    Criu,
    Program,
    Follower,
}

/// If it failed, the death of one process would have a program run twice, or end without a word.
///
/// `XOS_CLUSTER_KILLS` says how many, `XOS_SEED` at which moments (`make test-full` draws one and
/// prints it).
#[test]
fn no_program_is_lost_or_doubled_by_kills_during_moves() {
    let cluster_config = "balance = false\n".to_owned();
    let rennes = SiteSpec { cluster: true, cluster_config, ..SiteSpec::new("rennes") };
    let Some(w) = World::with(&rennes, &SiteSpec::new("pisa")) else { return };
    let kills = number("XOS_CLUSTER_KILLS").map_or(KILLS, |n| usize::try_from(n).unwrap());
    let seed = number("XOS_SEED").unwrap_or(SEED).max(1);
    println!("{kills} kills, XOS_SEED={seed}");
    w.step("nodes_join_and_are_tried", nodes_join_and_are_tried);
    let (mut dice, mut met) = (Dice(seed), BTreeMap::<Sort, usize>::new());
    for n in 0..kills {
        let sort = SORTS[n % SORTS.len()];
        let mover = Mover::begin(&w, &mut dice, n);
        w.step(&format!("{n}: {sort:?}, {}", mover.what()), |_| {
            let before = term(mover.host(mover.victim));
            let killed = mover.moves_under_a_kill(sort, &mut dice);
            if killed {
                *met.entry(sort).or_default() += 1;
            }
            mover.comes_to_its_end(sort, killed);
            if killed && matches!(sort, Sort::Agent | Sort::Cell) {
                soon_within(SETTLED_MAX, "the node has joined anew", || {
                    (term(mover.host(mover.victim)) > before).then_some(())
                });
            }
        });
        all_online(&w);
    }
    println!("killed: {met:?}");
    // These are there for the whole of a move.
    for sort in SORTS.iter().take(kills).filter(|sort| **sort != Sort::Criu) {
        assert!(met.contains_key(sort), "no {sort:?} was killed: {met:?}");
    }
}

/// A program that is to move.
struct Mover<'a> {
    w: &'a World,
    name: String,
    tree: u64,
    pid: String,
    /// Where it is and goes, by the places of nodes.
    from: usize,
    to: usize,
    /// At which of these something is killed.
    victim: usize,
}

impl<'a> Mover<'a> {
    /// One that goes on from a checkpoint that both nodes have. What it writes is collected at the
    /// second node.
    fn begin(w: &'a World, dice: &mut Dice, n: usize) -> Mover<'a> {
        let name = format!("trail.{n}");
        let (stop, trail) = (format!("STOP={}", stop_file(&name)), format!("TRAIL={name}"));
        let run = ["--json", "cluster", "run", CLUSTER, "--cwd", VOLUME, "--node", N2];
        let kept = ["--restartable", "--checkpoint-every", "86400", "-E", &stop, "-E", &trail];
        let argv = ["--", "sh", "-c", TRAIL];
        let ran = w.xos(&w.milo, &[&run[..], &kept, &argv].concat()).json();
        let tree = ran["tree"].as_u64().expect("a number");
        let pid = ran["pid"].as_i64().expect("a pid").to_string();
        let from = usize::from(dice.below(2) == 1);
        let victim = usize::from(dice.below(2) == 1);
        let mover = Mover { w, name, tree, pid, from, to: 1 - from, victim };
        mover.writes(MORE);
        if from == 0 {
            // One that has a file of its home open just then stays, and is asked again.
            soon_within(SETTLED_MAX, "it moves", || (mover.migrate(N1).code == 0).then_some(()));
        }
        saved_twice(w, tree);
        mover
    }

    fn what(&self) -> String {
        let at = if self.victim == self.from { "where it is" } else { "where it goes" };
        format!("{at}, from {}", self.host(self.from).name())
    }

    fn host(&self, at: usize) -> &'a Host {
        &self.w.rennes.nodes[at]
    }

    fn seen(&self) -> Json {
        tree(self.w, &self.w.milo, self.tree)
    }

    fn migrate(&self, to: &str) -> Said {
        let args = ["cluster", "migrate", CLUSTER, &self.pid, to];
        let cmd = self.w.milo.command("xos").args(args).limit(MOVE_MAX);
        Said::of(&self.w.laptop(), &cmd, &args.join(" "))
    }

    /// The whole lines of both nodes: time and number, the earliest first.
    fn trail(&self) -> Vec<(u64, u64)> {
        let path = format!("/home/xos/{}/{}", account(&self.w.milo), self.name);
        let mut all = Vec::new();
        for host in &self.w.rennes.nodes {
            let text = host.read_file(&path).unwrap_or_default();
            let text = String::from_utf8(text).unwrap();
            let whole = text.rfind('\n').map_or("", |at| &text[..at]);
            all.extend(whole.lines().map(|line| {
                let (n, at) = line.split_once(' ').unwrap_or_else(|| panic!("torn: {line:?}"));
                let number =
                    |s: &str| s.parse::<u64>().unwrap_or_else(|_| panic!("torn: {line:?}"));
                (number(at), number(n))
            }));
        }
        all.sort_unstable();
        all
    }

    /// Waits until it has written more, or is over.
    fn writes(&self, more: usize) {
        let before = self.trail().len();
        soon_within(SETTLED_MAX, "it goes on", || {
            let over = || ["ended", "lost"].iter().any(|s| self.seen()["state"] == *s);
            (self.trail().len() >= before + more || over()).then_some(())
        });
    }

    /// Has it move, and kills something meanwhile; whether that was there.
    fn moves_under_a_kill(&self, sort: Sort, dice: &mut Dice) -> bool {
        let number = self.tree.to_string();
        let attach = ["cluster", "attach", CLUSTER, &number];
        let attach =
            self.w.milo.command("xos").args(attach).stdio(Stdio::LogAs("attach".parse().unwrap()));
        let follower = self.w.laptop().spawn(&attach).unwrap();
        let (pause, to) = (Duration::from_millis(dice.below(PAUSE_MS_MAX)), [N1, N2][self.to]);
        let (killed, said) = std::thread::scope(|scope| {
            let moving = scope.spawn(move || self.migrate(to));
            // The moment is what is tested.
            std::thread::sleep(pause);
            let killed = match sort {
                Sort::Follower => {
                    follower.signal(Signal::KILL).unwrap();
                    true
                }
                _ => self.kill(sort, &moving),
            };
            (killed, moving.join().unwrap())
        });
        // One that waits for a program that goes on is not needed any more.
        follower.signal(Signal::KILL).unwrap();
        println!("after {pause:?}: killed {killed}; {} {}", said.code, said.err.trim());
        assert!(said.code == 0 || !said.err.trim().is_empty(), "no reason is told: {said:?}");
        killed
    }

    /// Kills it as soon as it is there, unless the move is over before.
    fn kill(&self, sort: Sort, moving: &ScopedJoinHandle<'_, Said>) -> bool {
        let host = self.host(self.victim);
        while !moving.is_finished() {
            let found = self.victims(sort, host);
            for pid in &found {
                host.kill(*pid, Signal::KILL).unwrap();
            }
            if !found.is_empty() {
                return true;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        false
    }

    /// The pids on the machine of what is to be killed.
    fn victims(&self, sort: Sort, host: &Host) -> Vec<i32> {
        let is = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            let words: Vec<&str> = line.split('\0').collect();
            let program = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
            match sort {
                Sort::Agent => program(words[0]) == "xos-agent",
                Sort::Cell => program(words[0]) == "xos-cell",
                // Also by its loader, or by what enters the cell with it.
                Sort::Criu => words.iter().copied().any(|word| program(word) == "criu"),
                Sort::Program => words.contains(&TRAIL) && self.is_root(*pid),
                Sort::Follower => false,
            }
        };
        let mut pids = host.pids().unwrap();
        pids.retain(is);
        pids
    }

    /// Whether a process is the program's first one.
    fn is_root(&self, pid: i32) -> bool {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let pids = text.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        pids.split_whitespace().next_back() == Some(self.pid.as_str())
    }

    /// It goes on, ends when it is to, and there never were two of it; or its person is told how it
    /// ended.
    fn comes_to_its_end(&self, sort: Sort, killed: bool) {
        let far = self.trail().iter().map(|(_, n)| *n).max();
        self.writes(MORE);
        // What it wrote before is there again: it ends no earlier than it had come.
        soon_within(SETTLED_MAX, "it is as far as it was", || {
            let over = || ["ended", "lost"].iter().any(|s| self.seen()["state"] == *s);
            (self.trail().last().map(|(_, n)| *n) > far || over()).then_some(())
        });
        let stop = stop_file(&self.name);
        self.w.xsub(&self.w.milo, &["--on", "pisa", "--", "touch", &stop]).ok();
        let t = soon_within(SETTLED_MAX, "it comes to its end", || {
            let t = self.seen();
            (t["state"] == "ended" || t["state"] == "lost").then_some(t)
        });
        println!("{}: {t}", self.name);
        let well = t["state"] == "ended" && t["status"] == 0;
        // CRIU dies with its hands in the program.
        let hurt = killed && matches!(sort, Sort::Program | Sort::Criu);
        let told = t["status"].as_u64().is_some_and(|status| status > 128)
            || t["reason"].as_str().is_some_and(|why| !why.is_empty());
        assert!(well || hurt && told, "{t}");
        let restarted = killed && matches!(sort, Sort::Agent | Sort::Cell);
        let last = one_after_another(&self.trail(), if restarted { BACK_MAX } else { 0 });
        // Where its agent died, what was collected before is told to be gone.
        let kept = !restarted || self.victim == 0;
        if well && kept {
            let number = self.tree.to_string();
            let text = self.w.xos(&self.w.milo, &["cluster", "attach", CLUSTER, &number]).ok();
            assert_eq!(counted(&text, "a") as u64, last + 1, "{text}");
        }
    }
}

/// By their times the numbers follow one another, but so often at most for a step back; the last.
fn one_after_another(trail: &[(u64, u64)], back_max: usize) -> u64 {
    let (mut back, mut next) = (0, 0);
    for (at, n) in trail {
        assert!(*n <= next, "{n} at {at} comes too early, after {next}: {trail:?}");
        back += usize::from(*n < next);
        next = n + 1;
    }
    assert!(back <= back_max, "{back} steps back: two of it ran, or it was restarted: {trail:?}");
    next.checked_sub(1).expect("it wrote something")
}

/// If it failed, two programs that run at the same time would pass for one.
#[test]
fn what_two_copies_write_is_seen() {
    let one: Vec<(u64, u64)> = (0..20).map(|n| (n * 10, n)).collect();
    assert_eq!(one_after_another(&one, 0), 19);
    let again: Vec<(u64, u64)> = one.iter().copied().chain((15..30).map(|n| (n * 20, n))).collect();
    assert_eq!(one_after_another(&again, BACK_MAX), 29);
    let mut both: Vec<(u64, u64)> =
        one.iter().copied().chain((10..20).map(|n| (n * 10 + 5, n))).collect();
    both.sort_unstable();
    assert!(std::panic::catch_unwind(|| one_after_another(&both, BACK_MAX)).is_err());
}
