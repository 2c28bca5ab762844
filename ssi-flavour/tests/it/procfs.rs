//! A merged `/proc` in a pid namespace, and the programs of procps as they are.

use crate::namespace::Namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use xos_base::Millis;
use xos_ssi::cluster::messages::TreeId;
use xos_ssi::driver::why::{Rules, What, why};
use xos_ssi::pids::NodeNumber;
use xos_ssi::procfs::{NodeView, READY, Seen, View, Views, serve};
use xos_ssi::wire::{CpuTimes, ProcessLook, ProcessMore};

/// Whose shell it is, and somebody else.
const PERSON: u32 = 1_900_000_001;
const OTHER: u32 = 1_900_000_002;
/// The process of another node, and its words.
const PID: i32 = 70_000;
const COMMAND: &str = "/usr/bin/simulate --steps 42";
const REMOTE_CPUS: usize = 3;
const REMOTE_KIB: u64 = 8 << 20;
/// No test waits longer.
const PATIENCE: Duration = Duration::from_secs(120);

struct Two;

impl Views for Two {
    fn view(&self, uid: u32) -> View {
        let number = |n: u8| NodeNumber::try_from(n).unwrap();
        let look = ProcessLook {
            pid: PID,
            parent: 1,
            tree: TreeId(1),
            uid,
            command: COMMAND.into(),
            state: 'R',
            cpu_milli: 990,
            memory_bytes: 40 << 20,
            more: ProcessMore {
                started: Millis::of(std::time::SystemTime::now()),
                threads: 4,
                user_ms: 12_340,
                system_ms: 560,
                nice: 0,
                virtual_bytes: 80 << 20,
            },
        };
        let node = NodeView {
            number: number(2),
            name: "n2".into(),
            cpus: u32::try_from(REMOTE_CPUS).unwrap(),
            cpu_times: vec![CpuTimes { user: 100, idle: 900, ..CpuTimes::default() }; REMOTE_CPUS],
            load_milli: 7000,
            memory_bytes: REMOTE_KIB * 1024,
            memory_free_bytes: REMOTE_KIB * 512,
        };
        let processes = vec![Seen { node: number(2), look }];
        View { here: number(1), nodes: vec![node], processes }
    }
}

/// A pid namespace with a keeper in it.
struct Shell {
    namespace: Namespace,
    /// As it is seen from here.
    keeper: i32,
    _dir: TempDir,
}

impl Shell {
    /// `None`, with the reason printed, where this cannot be.
    fn new() -> Option<Shell> {
        Shell::try_new().map_err(|why| println!("skipped: {why}")).ok()
    }

    fn try_new() -> Result<Shell, String> {
        for file in ["/dev/fuse", "/usr/bin/nsenter", "/usr/bin/ps", "/usr/bin/top"] {
            if !Path::new(file).exists() {
                return Err(format!("no {file}"));
            }
        }
        let mut namespace = Namespace::new(32_768)?;
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("views.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let views: Arc<dyn Views> = Arc::new(Two);
        std::thread::spawn(move || serve(&listener, &views));
        let program = env!("CARGO_BIN_EXE_xos-proc");
        let words = [program, socket.to_str().unwrap(), &PERSON.to_string(), "1"];
        let pid = namespace.start("-", &words);
        let keeper = namespace.outer(pid);
        let mut said = String::new();
        BufReader::new(&mut namespace.output).read_line(&mut said).unwrap();
        if said != READY {
            assert!(said.contains("Operation not permitted"), "{said}");
            return Err(said);
        }
        Ok(Shell { namespace, keeper: keeper.unwrap(), _dir: dir })
    }

    /// Runs a program as the shell would.
    fn run(&self, uid: u32, words: &[&str]) -> Output {
        let (target, uid) = (self.keeper.to_string(), uid.to_string());
        Command::new("nsenter")
            .args(["--target", &target, "--mount", "--pid", "-S", &uid, "-G", &uid, "--"])
            .args(words)
            .env("TERM", "dumb")
            .env("LC_ALL", "C")
            .current_dir("/")
            .output()
            .unwrap()
    }

    fn text(&self, uid: u32, words: &[&str]) -> String {
        let output = self.run(uid, words);
        let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(output.status.success(), "{words:?}: {} {err}", output.status);
        String::from_utf8(out).unwrap()
    }

    fn merged(&self) -> bool {
        let output = self.run(PERSON, &["cat", &format!("/proc/{PID}/comm")]);
        output.status.success() && output.stdout == b"simulate\n"
    }

    fn server(&self) -> Option<i32> {
        let children = format!("/proc/{0}/task/{0}/children", self.keeper);
        std::fs::read_to_string(children).ok()?.trim().parse().ok()
    }
}

fn until(what: &str, good: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !good() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::yield_now();
    }
}

fn kib(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// If it failed, unmodified programs would not show the cluster, or stop at what they read.
#[test]
fn procps_shows_the_whole_cluster() {
    let Some(shell) = Shell::new() else { return };
    for words in
        [&["ps", "-ef"][..], &["ps", "aux"], &["ps", "-eLf"], &["top", "-b", "-n1", "-w200"]]
    {
        let text = shell.text(PERSON, words);
        let line = text.lines().find(|line| line.split_whitespace().any(|w| w == "70000"));
        assert!(line.is_some_and(|line| line.contains("simulate")), "{words:?}: {text}");
    }
    let line = shell.text(PERSON, &["ps", "-o", "uid=,nlwp=,rss=,args=", "-p", &PID.to_string()]);
    let fields: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(fields[..3], [PERSON.to_string().as_str(), "4", "40960"]);
    assert!(line.trim_end().ends_with(COMMAND), "{line}");

    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let free = shell.text(PERSON, &["free", "-k"]);
    let total = free.lines().find_map(|line| line.strip_prefix("Mem:")).unwrap();
    let total: u64 = total.split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(total, kib(&meminfo, "MemTotal") + REMOTE_KIB);

    let cpus = |text: &str| {
        text.lines().filter(|l| l.starts_with("cpu") && !l.starts_with("cpu ")).count()
    };
    let own = cpus(&std::fs::read_to_string("/proc/stat").unwrap());
    assert_eq!(cpus(&shell.text(PERSON, &["cat", "/proc/stat"])), own + REMOTE_CPUS);
    let uptime = shell.text(PERSON, &["uptime"]);
    let load = uptime.trim_end().rsplit("load average: ").next().unwrap();
    let load: f64 = load.split(',').next().unwrap().parse().unwrap();
    assert!(load >= 7.0, "{uptime}");
}

/// If it failed, programs would take themselves for others, or read what is not theirs.
#[test]
fn each_program_is_itself_and_sees_its_own() {
    let Some(mut shell) = Shell::new() else { return };
    assert_eq!(shell.text(PERSON, &["cat", "/proc/self/comm"]), "cat\n");
    let comm = shell.text(PERSON, &["cat", "/proc/thread-self/comm"]);
    assert_eq!(comm, "cat\n");
    let exe = shell.text(PERSON, &["readlink", "/proc/self/exe"]);
    assert!(exe.trim_end().ends_with("readlink") && exe.starts_with('/'), "{exe}");
    let itself = shell.text(PERSON, &["sh", "-c", "echo $$; exec readlink /proc/self"]);
    let lines: Vec<&str> = itself.lines().collect();
    assert_eq!(lines[0], lines[1], "self is whoever asks");
    assert!(shell.text(PERSON, &["cat", "/proc/sys/kernel/ostype"]).contains("Linux"));
    assert!(shell.text(PERSON, &["cat", "/proc/mounts"]).contains("fuse.xos-proc"));
    assert!(shell.text(PERSON, &["ls", "/proc/self/fd/"]).contains('0'));
    assert!(shell.text(PERSON, &["sh", "-c", "echo 500 > /proc/self/oom_score_adj"]).is_empty());

    // Another's, which is of the namespace: init's.
    let hidden = shell.namespace.start("-", &["/bin/sleep", "1000"]).to_string();
    let seen = |uid: u32| shell.text(uid, &["ls", "/proc"]);
    let has = |list: &str, pid: &str| list.lines().any(|line| line == pid);
    assert!(has(&seen(0), &hidden) && has(&seen(0), "1"));
    assert!(!has(&seen(PERSON), &hidden) && !has(&seen(PERSON), "1"));
    let denied = [format!("/proc/{hidden}/stat"), format!("/proc/.local/{hidden}/stat")];
    for path in &denied {
        assert!(!shell.run(PERSON, &["cat", path]).status.success(), "{path}");
    }
    // What runs elsewhere is for whose shell it is.
    assert!(has(&seen(PERSON), "70000") && !has(&seen(OTHER), "70000"));
    assert!(!shell.run(OTHER, &["cat", "/proc/70000/stat"]).status.success());
    assert!(shell.text(PERSON, &["ls", "/proc/70000/fd"]).is_empty());
    assert!(shell.text(PERSON, &["cat", "/proc/70000/environ"]).is_empty());
    let cwd = shell.run(PERSON, &["ls", "/proc/70000/cwd/"]);
    assert!(String::from_utf8_lossy(&cwd.stderr).contains("Permission denied"));
}

/// If it failed, a server that dies would leave shells in which nothing works any more.
#[test]
fn a_dead_server_leaves_the_real_proc_and_is_replaced() {
    let Some(shell) = Shell::new() else { return };
    let server = shell.server().unwrap();
    kill(Pid::from_raw(server), Signal::SIGKILL).unwrap();
    until("another server serves", || {
        shell.server().is_some_and(|s| s != server) && shell.merged()
    });
    assert_eq!(shell.text(PERSON, &["cat", "/proc/self/comm"]), "cat\n");
    let sleeper = shell.run(PERSON, &["ls", "/proc/self/ns"]);
    assert!(sleeper.status.success());
}

/// If it failed, a keeper that dies would leave them so.
#[test]
fn a_dead_keeper_leaves_the_real_proc() {
    let Some(shell) = Shell::new() else { return };
    // Something that stays in the shell's mounts, with files of the merged /proc in sight.
    let mut stays = Command::new("nsenter")
        .args(["--target", &shell.keeper.to_string(), "--mount", "--pid", "--", "sleep", "1000"])
        .spawn()
        .unwrap();
    let child = || {
        let children = format!("/proc/{0}/task/{0}/children", stays.id());
        std::fs::read_to_string(children).ok()?.trim().parse::<i32>().ok()
    };
    until("it is in there", || {
        let mounts = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        child().is_some_and(|pid| mounts(pid) == mounts(shell.keeper))
    });
    let pid = child().unwrap();
    let obstacles = why(pid, &Rules::default()).unwrap();
    assert!(obstacles.iter().any(|o| o.what == What::MergedProc), "{obstacles:?}");
    kill(Pid::from_raw(shell.keeper), Signal::SIGKILL).unwrap();
    let merged = || {
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        mounts.contains("fuse.xos-proc")
    };
    until("the merged one is gone", || !merged());
    let words = ["--target", &pid.to_string(), "--mount", "--pid", "--", "cat", "/proc/self/comm"];
    let cat = Command::new("nsenter").args(words).output().unwrap();
    assert_eq!(cat.stdout, b"cat\n");
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    stays.wait().unwrap();
}
