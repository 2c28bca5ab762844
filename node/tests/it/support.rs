use std::collections::HashMap;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use xos_base::Millis;
use xos_node::cgroup::Cgroups;
use xos_node::envelopes::{Envelope, Envelopes, Events, ShimProgram};
use xos_node::event::{Cursor, Entry, Event, Outcome, UnitUsage};
use xos_node::proto::StartAnswer;
use xos_node::spec::{Account, EnvelopeSpec, Limits, UnitKey, UnitSpec};

/// No test waits longer; a machine so slow that it does is reported as such.
pub const PATIENCE: Duration = Duration::from_secs(120);
pub const UID: u32 = 1_900_000_001;
pub const GROUP: u32 = 1_900_000_077;

/// Leaves nothing behind when a test fails.
pub struct Guard {
    state: PathBuf,
    cgroups: Cgroups,
}

impl Guard {
    /// The names of the cgroups that there are.
    fn groups(&self) -> Vec<String> {
        let some = self.cgroups.envelope(&"some".parse().unwrap());
        let above = some.parts.iter().filter_map(|p| p.dir.parent());
        above
            .flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten())
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .map(|e| e.file_name().into_string().unwrap())
            .collect()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let named = std::fs::read_dir(self.state.join("envelopes")).into_iter().flatten();
        let names = named.map(|e| e.unwrap().file_name().into_string().unwrap());
        let names: std::collections::BTreeSet<String> = names.chain(self.groups()).collect();
        for name in names {
            let cgroup = self.cgroups.envelope(&name.parse().unwrap());
            if let Err(e) = cgroup.kill().and_then(|()| cgroup.remove()) {
                println!("left behind: {e}");
            }
        }
        if let Err(e) = self.cgroups.remove() {
            println!("left behind: {e}");
        }
    }
}

pub struct Node {
    pub guard: Guard,
    pub dir: TempDir,
    pub cgroups: Cgroups,
    pub envelopes: Envelopes,
}

pub fn now() -> Millis {
    Millis::of(SystemTime::now())
}

fn instance() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("xos-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn open(state: &Path, cgroups: &Cgroups) -> Envelopes {
    let shim = ShimProgram::at(Path::new(env!("CARGO_BIN_EXE_xos-shim")));
    Envelopes::open(state, shim, cgroups.clone(), now).unwrap()
}

impl Node {
    /// `None`, with the reason printed, where this machine cannot run envelopes.
    pub fn new() -> Option<Node> {
        if !rustix::process::getuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        let cgroups = match Cgroups::prepare(&instance().parse().unwrap(), None) {
            Ok(c) => c,
            Err(e) => {
                println!("skipped: {e}");
                return None;
            }
        };
        if !cgroups.missing().0.is_empty() {
            println!("skipped: no cgroup controllers {:?}", cgroups.missing());
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        // Units must get through to their home.
        let open_to = |p: &Path| std::fs::set_permissions(p, PermissionsExt::from_mode(0o711));
        open_to(dir.path()).unwrap();
        let home = dir.path().join("home");
        std::fs::create_dir(&home).unwrap();
        chown(&home, Some(UID), Some(UID)).unwrap();
        let envelopes = open(&dir.path().join("state"), &cgroups);
        let guard = Guard { state: dir.path().join("state"), cgroups: cgroups.clone() };
        Some(Node { guard, dir, cgroups, envelopes })
    }

    /// The same folders with other cgroups.
    pub fn with(self, cgroups: Cgroups) -> Node {
        let state = self.dir.path().join("state");
        let envelopes = open(&state, &cgroups);
        let guard = Guard { state, cgroups: cgroups.clone() };
        drop(self.guard);
        Node { guard, dir: self.dir, cgroups, envelopes }
    }

    /// The same folders with new cgroups: those of before may be removed.
    pub fn again(self) -> Node {
        let cgroups = Cgroups::prepare(&instance().parse().unwrap(), None).unwrap();
        self.with(cgroups)
    }

    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub fn spec(&self, id: &str) -> EnvelopeSpec {
        spec(id, &self.home())
    }

    pub async fn start(&self, id: &str, change: impl FnOnce(&mut EnvelopeSpec)) -> Envelope {
        let mut spec = self.spec(id);
        change(&mut spec);
        self.envelopes.start(spec).await.unwrap()
    }

    /// Ends an envelope and proves that nothing is left of it.
    pub async fn finish(self, envelope: Envelope) {
        let id = envelope.spec().id.clone();
        let status = envelope.status().await.unwrap();
        let mut events = envelope.events(Cursor::default());
        envelope.end(Duration::ZERO).await.unwrap();
        while patient(events.next()).await.unwrap().is_some() {}
        self.nothing_left(&[status.shim_pid, status.init_pid]).await;
        self.envelopes.forget(&id).await.unwrap();
        let left: Vec<_> = std::fs::read_dir(self.dir.path().join("state/envelopes"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// No process, cgroup or mount.
    pub async fn nothing_left(&self, pids: &[i32]) {
        for pid in pids {
            patient(async {
                // The shim's parent is the machine's init, which collects it when it likes.
                while alive(*pid) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
        }
        self.cgroups.remove().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&*self.dir.path().to_string_lossy()), "{mounts}");
    }
}

pub fn alive(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(s) => !matches!(s.rsplit(')').next(), Some(rest) if rest.starts_with(" Z")),
        Err(_) => false,
    }
}

pub fn spec(id: &str, home: &Path) -> EnvelopeSpec {
    EnvelopeSpec {
        id: id.parse().unwrap(),
        account: Account {
            uid: UID,
            gid: UID,
            groups: vec![UID, GROUP],
            name: "ann.demo".into(),
            home: home.to_owned(),
        },
        limits: Limits { pids: 256, ..Limits::default() },
        slots: 4,
        spool_bytes_max: 1 << 20,
        spool_total_bytes_max: 1 << 30,
        // Tests end what they start; those about rest say when.
        rest_after_ms: 600_000,
        carries: None,
    }
}

pub async fn patient<T>(f: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, f).await.expect("nothing came in two minutes")
}

pub fn key(n: u32) -> UnitKey {
    format!("1.rennes:{n}").parse().unwrap()
}

pub fn unit(n: u32, argv: &[&str]) -> UnitSpec {
    let path = ("PATH".to_owned(), "/usr/bin:/bin".to_owned());
    UnitSpec {
        key: key(n),
        argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        env: vec![path],
        cwd: None,
        make_cwd: false,
        stdin: None,
        stdout: None,
        stderr: None,
        umask: None,
        rlimits: vec![],
        wall_ms: None,
    }
}

pub fn shell(n: u32, script: &str) -> UnitSpec {
    unit(n, &["sh", "-c", script])
}

pub type Ends = HashMap<UnitKey, (Outcome, Option<UnitUsage>)>;

/// Reads events until `n` units have ended; checks that each started and ended once.
pub async fn ends(events: &mut Events, n: usize) -> Ends {
    let mut started: Vec<UnitKey> = Vec::new();
    let mut ended = Ends::new();
    while ended.len() < n {
        let batch: Vec<(Entry, Cursor)> =
            patient(events.next()).await.unwrap().expect("the envelope closed too early");
        for (entry, _) in batch {
            match entry.event {
                Event::Starting { unit } => {
                    assert!(!started.contains(&unit), "{unit} started twice");
                    started.push(unit);
                }
                Event::Ended { unit, outcome, usage } => {
                    let again = ended.insert(unit.clone(), (outcome, usage));
                    assert_eq!(again, None, "{unit} ended twice");
                }
                _ => {}
            }
        }
    }
    ended
}

pub async fn run(envelope: &Envelope, units: Vec<UnitSpec>) -> Ends {
    let n = units.len();
    let keys: Vec<UnitKey> = units.iter().map(|u| u.key.clone()).collect();
    let mut events = envelope.events(Cursor::default());
    let answers = envelope.start_units(units).await.unwrap();
    assert!(answers.iter().all(|a| *a == StartAnswer::Taken), "{answers:?}");
    let ended = ends(&mut events, n).await;
    assert!(keys.iter().all(|k| ended.contains_key(k)), "{ended:?}");
    ended
}

pub fn output(envelope: &Envelope, n: u32) -> String {
    text(envelope, n, xos_node::shim::Stream::Stdout)
}

pub fn text(envelope: &Envelope, n: u32, stream: xos_node::shim::Stream) -> String {
    let piece = xos_node::output::read(&envelope.spool(), &key(n), stream, 0, 1 << 20).unwrap();
    String::from_utf8(piece.bytes).unwrap()
}

/// Waits until the unit has written a line: it runs its own code.
pub async fn wait_output(e: &Envelope, n: u32) {
    patient(async {
        while output(e, n).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub fn exited(code: u8) -> Outcome {
    Outcome::Exited { code, cause: None }
}
