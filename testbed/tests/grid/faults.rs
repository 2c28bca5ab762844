//! Machines and programs that die, and networks that break, during load.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use xos_testbed::Host;
use xos_testbed::grid::Site;

use crate::load::Ledger;
use crate::tool::{Json, Said};
use crate::world::{VO, VOLUME, World, soon};

/// How many kills, without XOS_KILLS: as many as a run of all tests has time for.
const KILLS: usize = 6;
/// Their order, without XOS_SEED: both cores, and one of every other sort, are among the first six.
const SEED: u64 = 2542;
/// What is killed.
const SORTS: [&str; 6] = ["core of rennes", "core of pisa", "xosd", "mount", "shim", "host"];
/// With so many kills each sort is certain: the rarest is one in twelve.
const KILLS_OF_ALL_SORTS: usize = 200;
/// How often the dice are thrown until something is there to be killed; most throws find it.
const THROWS_MAX: usize = 50;
/// Longest pause before a kill, in milliseconds.
const PAUSE_MS_MAX: u64 = 1500;
/// The shortest life that a site gives a certificate, in seconds.
const CERTIFICATE_S: u64 = 60;
/// Longest that a job may be watched which outlives it.
const WATCHED_MAX: Duration = Duration::from_secs(300);

/// Numbers that follow from the seed alone (xorshift64*, Vigna 2016).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// A number that the environment names.
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// If it failed, a crash would lose what people were told is safe, or do their work twice.
///
/// `XOS_KILLS` says how many, `XOS_SEED` in which order (`make test-full` draws one and prints it).
#[test]
fn nothing_acknowledged_is_lost_by_kills() {
    let Some(w) = World::new() else { return };
    let kills = number("XOS_KILLS").map_or(KILLS, |n| usize::try_from(n).unwrap());
    let seed = number("XOS_SEED").unwrap_or(SEED).max(1);
    println!("{kills} kills, XOS_SEED={seed}");
    keep_all_jobs(&w);
    let (mut dice, ledger) = (Dice(seed), Ledger::new(&w));
    let mut sorts: BTreeMap<&str, usize> = BTreeMap::new();
    std::thread::scope(|scope| {
        let _stop = Stop(&ledger);
        let (ledger, w) = (&ledger, &w);
        let workers = [Ledger::jobs, Ledger::files, Ledger::members];
        let workers = workers.map(|work| scope.spawn(move || work(ledger, w)));
        ledger.allow_jobs();
        ledger.begun();
        for n in 1..=kills {
            ledger.allow_jobs();
            let start = Instant::now();
            std::thread::sleep(Duration::from_millis(dice.below(PAUSE_MS_MAX)));
            let what = (0..THROWS_MAX).find_map(|_| kill(w, &mut dice));
            let (sort, what) = what.expect("something to kill");
            *sorts.entry(sort).or_default() += 1;
            ledger.compare(w);
            assert!(!workers.iter().any(|w| w.is_finished()), "a worker failed: see above");
            let took = start.elapsed().as_secs_f64();
            println!("{n:>3}: {what} ({took:.1} s); {}", ledger.summary());
        }
        ledger.stop();
        for worker in workers {
            worker.join().unwrap();
        }
    });
    ledger.compare(&w);
    ledger.demand();
    ledger.settle(&w);
    println!("killed: {sorts:?}");
    for sort in SORTS {
        let some = sorts.contains_key(sort) || kills < KILLS_OF_ALL_SORTS;
        assert!(some, "{kills} kills, and no {sort}: {sorts:?}");
    }
    w.serves();
}

/// Sites forget older jobs early; here all that were acknowledged are looked for.
fn keep_all_jobs(w: &World) {
    for site in [&w.rennes, &w.pisa] {
        configure(site, "[aem]", "keep_ended_jobs = 20000");
    }
}

/// Adds a line to a section of a core's configuration and starts it anew.
pub fn configure(site: &Site, section: &str, line: &str) {
    let path = "/etc/xos/xosd.toml";
    let config = String::from_utf8(site.core.read_file(path).unwrap()).unwrap();
    let config = config.replacen(section, &format!("{section}\n{line}"), 1);
    site.core.write_file(path, config.as_bytes(), 0o600).unwrap();
    kill_all(&site.core, "xosd", Some("run"));
    site.start_core().unwrap();
    back(site);
}

/// If it failed, who watches a long job would lose sight of it, and of what it wrote, when the
/// connection breaks after the certificate that it was submitted with has ended.
#[test]
fn a_watched_job_outlives_its_certificate() {
    let Some(w) = World::new() else { return };
    configure(&w.rennes, "[cda]", &format!("certificate_s = {CERTIFICATE_S}"));
    w.sign_in(&w.milo);
    let kept = format!("/home/milo/.xos/vo/{VO}/credential.json");
    let kept: Json = serde_json::from_slice(&w.laptop().read_file(kept).unwrap()).unwrap();
    let life = kept["expires"].as_u64().unwrap() - kept["issued"].as_u64().unwrap();
    assert!(life <= CERTIFICATE_S * 1000, "a certificate of {life} ms");
    // More than comes with the end of a job: it is asked for then.
    let written = 300_000;
    let script = format!("sleep 85; head -c {written} /dev/zero | tr '\\0' x; exit 3");
    let cmd = w.milo.command("xsub").args(["--on", "pisa", "--", "sh", "-c", script.as_str()]);
    let (cmd, laptop) = (cmd.limit(WATCHED_MAX), w.laptop());
    std::thread::scope(|scope| {
        let watched = scope.spawn(move || Said::of(&laptop, &cmd, "xsub"));
        std::thread::sleep(Duration::from_secs(CERTIFICATE_S + 5));
        assert!(!watched.is_finished(), "it ended too early to show anything");
        kill_all(&w.rennes.core, "xosd", Some("run"));
        w.rennes.start_core().unwrap();
        let said = watched.join().unwrap();
        assert_eq!(said.code, 3, "{}", said.err);
        assert_eq!(said.out.len(), written, "its output is not whole: {}", said.err);
    });
}

/// Tells the workers to stop, also when something failed.
struct Stop<'a>(&'a Ledger);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Kills something, lets it come back as an init system would, and says of what sort and what it
/// was; `None` when the dice chose what does not run now.
fn kill(w: &World, dice: &mut Dice) -> Option<(&'static str, String)> {
    let pisa = dice.below(2) == 1;
    let site = if pisa { &w.pisa } else { &w.rennes };
    let node = dice.one(&site.nodes);
    let killed = match dice.below(12) {
        0..=2 => {
            kill_all(&site.core, "xosd", Some("run"));
            site.start_core().unwrap();
            back(site);
            let sort = SORTS[usize::from(pisa)];
            (sort, sort.to_owned())
        }
        3..=5 => {
            kill_all(node, "xosd", Some("run"));
            site.start_node(node).unwrap();
            back(site);
            ("xosd", format!("xosd of {}", node.name()))
        }
        6..=7 => {
            kill_all(node, "xosd", Some("mount"));
            mounted(node);
            ("mount", format!("mount of {}", node.name()))
        }
        8..=10 => {
            let shims = find(node, "xos-shim", None);
            if shims.is_empty() {
                return None;
            }
            node.kill(*dice.one(&shims), Signal::KILL).unwrap();
            ("shim", format!("shim of {}", node.name()))
        }
        _ => {
            let core = dice.below(3) == 0;
            let host = if core { &site.core } else { node };
            host.crash().unwrap();
            host.restart().unwrap();
            if core {
                site.start_core().unwrap();
            } else {
                site.start_node(node).unwrap();
                mounted(node);
            }
            back(site);
            ("host", format!("host {}", host.name()))
        }
    };
    Some(killed)
}

/// Waits until a site's nodes are connected.
pub fn back(site: &Site) {
    site.wait_for_nodes().unwrap_or_else(|e| panic!("{} is not back: {e}", site.name));
}

/// Waits until a node has a mount process and a mount.
pub fn mounted(node: &Host) {
    soon(&format!("the mount of {}", node.name()), || {
        let mounts = crate::world::sh(node, "cat /proc/mounts");
        let served = !find(node, "xosd", Some("mount")).is_empty();
        (served && mounts.contains(&format!(" {VOLUME} "))).then_some(())
    });
}

/// The pids on the machine of a host's processes of this program and first argument.
pub fn find(host: &Host, program: &str, argument: Option<&str>) -> Vec<i32> {
    let fits = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let name = words[0].rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        name == program.as_bytes() && argument.is_none_or(|a| words.get(1) == Some(&a.as_bytes()))
    };
    let mut pids = host.pids().unwrap();
    pids.retain(fits);
    pids.sort_unstable();
    pids
}

/// Kills those processes and waits until they are gone.
pub fn kill_all(host: &Host, program: &str, argument: Option<&str>) {
    let pids = find(host, program, argument);
    assert!(!pids.is_empty(), "{program} {argument:?} does not run on {}", host.name());
    for pid in &pids {
        host.kill(*pid, Signal::KILL).unwrap();
    }
    // As an init system waits: until its last thread has let go of locks, and it was collected.
    let gone = |pid: &i32| !std::path::Path::new(&format!("/proc/{pid}")).exists();
    soon("the killed process is gone", || pids.iter().all(gone).then_some(()));
}
