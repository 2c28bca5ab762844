//! Two nodes on this machine, with real cells and the real CRIU, under a controller.

mod files;
mod limits;
mod output;
mod steps;
mod trouble;

use crate::groups::{leave_none, own_group};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use xos_base::when::{Clock, SystemClock};
use xos_base::{MemberNumber, Millis, NodeId};
use xos_ssi::cell::proto::{Account, Program, Stdio, Tree};
use xos_ssi::cgroup::{Cgroup, Limits};
use xos_ssi::cluster::controller::Controller;
use xos_ssi::cluster::interval::Interval;
use xos_ssi::cluster::members::{Moves, NodeState, Times};
use xos_ssi::cluster::messages::{End, Fact, Stretch, ToController, ToNode, TreeId};
use xos_ssi::cluster::record::{Effect, State};
use xos_ssi::cluster::trees::{Owner, TreeState, Wish};
use xos_ssi::driver::Checkpointer;
use xos_ssi::driver::criu::Criu;
use xos_ssi::driver::why::Rules;
use xos_ssi::ghost::proto::{Control, GhostId, Message, Stream, VERSION, encode};
use xos_ssi::ghost::spool::{OUTPUT_FILE, Spools};
use xos_ssi::host::{Brought, Core, Hands, Heard, Host, Job, Peers, Setup};
use xos_ssi::pids::NodeNumber;
use xos_ssi::wire::TreeUse;

/// No test waits longer for one thing.
const PATIENCE: Duration = Duration::from_secs(90);
const UID: u32 = 1_900_000_001;
/// Its pid and a number, line by line.
const COUNTER: &str = "
import os, time
n = 0
while True:
    os.write(1, f'{os.getpid()} {n}\\n'.encode())
    n += 1
    time.sleep(0.02)
";

/// A clock of the day that somebody set wrong, on each node by another hour. Leases, and what depends
/// on them, go by clocks that nobody can set, so that no test here may notice.
struct Wrong(NodeNumber);

impl Clock for Wrong {
    fn now(&self) -> Millis {
        SystemClock.now().plus(Duration::from_secs(3600 * u64::from(u8::from(self.0))))
    }
}

/// A cell whose /run is a tmpfs as a real machine's: CRIU keeps its cache on nothing else.
const CELL: &str = concat!(
    "#!/bin/sh -e\n",
    "exec unshare --mount sh -ec 'mount -t tmpfs -o mode=755 tmpfs /run; exec \"$@\"' sh ",
    env!("CARGO_BIN_EXE_xos-cell"),
    " \"$@\"\n"
);

/// The controller, in memory, and the ways between the nodes.
struct Site {
    controller: Mutex<Controller>,
    told: Mutex<BTreeMap<NodeNumber, UnboundedSender<Heard>>>,
    jobs: Mutex<BTreeMap<TreeId, Job>>,
    nodes: Mutex<BTreeMap<NodeNumber, Arc<Spools>>>,
    hands: Mutex<BTreeMap<NodeNumber, Hands>>,
    /// Images lose their end on the way.
    tears: AtomicBool,
    /// They are changed on the way.
    spoils: AtomicBool,
    /// Nothing of them comes; the other ends of what they should come over.
    silent: AtomicBool,
    kept: Mutex<Vec<UnixStream>>,
    /// Copies that nodes said to be gone.
    gone: Mutex<BTreeSet<(TreeId, u64)>>,
    /// The nodes of which a heartbeat came.
    beats: Mutex<BTreeSet<NodeNumber>>,
    /// How nodes said that trees ended.
    ends: Mutex<BTreeMap<TreeId, End>>,
    /// Nobody reaches the controller.
    away: AtomicBool,
    /// Nobody has what others have of output.
    mute: AtomicBool,
}

impl Site {
    fn jobs(&self) -> Vec<(TreeId, Job)> {
        self.jobs.lock().unwrap().iter().map(|(tree, job)| (*tree, job.clone())).collect()
    }

    /// What is told to one node is returned, what to others sent.
    fn effects(&self, asks: Option<NodeNumber>, effects: Vec<Effect>) -> Vec<ToNode> {
        let mut own = Vec::new();
        for effect in effects {
            let Effect::Tell { node, message } = effect else { continue };
            if asks == Some(node) {
                own.push(message);
            } else if let Some(told) = self.told.lock().unwrap().get(&node) {
                // A node that is gone hears nothing.
                let _gone = told.send(Heard {
                    messages: vec![message],
                    jobs: self.jobs(),
                    refused: vec![],
                });
            }
        }
        own
    }

    fn decide<E: std::fmt::Debug>(
        &self,
        what: impl FnOnce(&mut Controller, Millis) -> Result<Vec<Effect>, E>,
    ) {
        let mut controller = self.controller.lock().unwrap();
        let effects = what(&mut controller, SystemClock.up()).unwrap();
        self.effects(None, effects);
    }

    /// Whether a node said that nothing of a copy is left.
    fn is_gone(&self, tree: TreeId, epoch: u64) -> bool {
        self.gone.lock().unwrap().contains(&(tree, epoch))
    }

    /// Nobody reaches what a dead node has.
    fn lives(&self, number: NodeNumber) -> io::Result<()> {
        match self.told.lock().unwrap().contains_key(&number) {
            true => Ok(()),
            false => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Waits until the controller's state is as wanted.
    async fn until(&self, what: &str, good: impl Fn(&State) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            {
                let mut controller = self.controller.lock().unwrap();
                let effects = controller.tick(SystemClock.up());
                self.effects(None, effects);
                if good(controller.state()) {
                    return;
                }
                assert!(Instant::now() < until, "{what}: {:?}", controller.state());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The lines of a tree's output, once there are `many`.
    async fn lines(&self, node: NodeNumber, tree: TreeId, many: usize) -> Vec<String> {
        let folder = self.nodes.lock().unwrap()[&node].folder(tree.0);
        let until = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(folder.join(OUTPUT_FILE)).unwrap_or_default();
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let lines: Vec<String> =
                whole.lines().map(|line| line.trim_end_matches('\r').to_owned()).collect();
            if lines.len() >= many {
                return lines;
            }
            assert!(Instant::now() < until, "only {} of {many} lines: {text}", lines.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A node's way to the controller.
struct Way(NodeNumber, Arc<Site>);

#[async_trait::async_trait]
impl Core for Way {
    async fn say(&self, message: ToController, _: Vec<TreeUse>) -> io::Result<Heard> {
        if self.1.away.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if let ToController::Facts { facts, .. } = &message {
            let gone = facts.iter().filter_map(|fact| match fact {
                Fact::Gone { tree, epoch } => Some((*tree, *epoch)),
                _ => None,
            });
            self.1.gone.lock().unwrap().extend(gone);
            for fact in facts {
                if let Fact::Refused { reason, .. }
                | Fact::NotRestored { reason, .. }
                | Fact::Barred { reason, .. }
                | Fact::NotSaved { reason, .. }
                | Fact::NotHeld { reason, .. } = fact
                {
                    println!("{}: {reason}", self.0);
                }
            }
            let ends = facts.iter().filter_map(|fact| match fact {
                Fact::Ended { tree, end, .. } => Some((*tree, *end)),
                _ => None,
            });
            self.1.ends.lock().unwrap().extend(ends);
        }
        let mut controller = self.1.controller.lock().unwrap();
        let effects = controller.message(self.0, &message, SystemClock.up());
        let messages = self.1.effects(Some(self.0), effects);
        if matches!(message, ToController::Beat { .. }) {
            self.1.beats.lock().unwrap().insert(self.0);
        }
        Ok(Heard { messages, jobs: self.1.jobs(), refused: vec![] })
    }
}

impl Peers for Site {
    fn image(&self, from: NodeNumber, tree: TreeId, version: u64) -> io::Result<UnixStream> {
        let (one, other) = UnixStream::pair()?;
        if self.silent.load(Ordering::SeqCst) {
            self.kept.lock().unwrap().push(other);
            return Ok(one);
        }
        let hands = self.hands.lock().unwrap()[&from].clone();
        let harm = match (self.tears.load(Ordering::SeqCst), self.spoils.load(Ordering::SeqCst)) {
            (true, _) => Some(Harm::Tears),
            (_, true) => Some(Harm::Spoils),
            _ => None,
        };
        let to = match harm {
            None => other,
            Some(harm) => {
                let (sent, sends) = UnixStream::pair()?;
                // Both sides hang up.
                std::thread::spawn(move || harmed(sent, other, harm));
                sends
            }
        };
        std::thread::spawn(move || {
            // Who does not want it hangs up.
            let _gone = hands.send_image(tree, version, to);
        });
        Ok(one)
    }

    fn output(&self, at: NodeNumber, tree: Tree, from: [u64; 2]) -> io::Result<UnixStream> {
        self.lives(at)?;
        let (one, other) = UnixStream::pair()?;
        let spools = self.nodes.lock().unwrap()[&at].clone();
        spools.serve(tree, from, one)?;
        Ok(other)
    }

    fn written(&self, from: NodeNumber, tree: TreeId, ask: &Stretch) -> io::Result<UnixStream> {
        self.lives(from)?;
        if self.mute.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let (one, mut other) = UnixStream::pair()?;
        let (spools, ask) = (self.nodes.lock().unwrap()[&from].clone(), *ask);
        std::thread::spawn(move || {
            // Who does not want it hangs up.
            let _gone = spools.send(tree.0, &ask, &mut other);
        });
        Ok(one)
    }

    /// No tree of these tests comes from another cluster.
    fn carried(&self, _: &NodeId, _: &Brought) -> io::Result<UnixStream> {
        Err(io::ErrorKind::NotFound.into())
    }

    /// No tree of these tests has a network of its own.
    fn packets(&self, _: NodeNumber) -> io::Result<UnixStream> {
        Err(io::ErrorKind::NotConnected.into())
    }
}

/// What happens to an image on its way.
#[derive(Clone, Copy)]
enum Harm {
    Tears,
    Spoils,
}

/// Carries an image, all of it this way, with some harm.
fn harmed(mut from: UnixStream, mut to: UnixStream, harm: Harm) -> io::Result<()> {
    let wanted = frame(&mut to)?;
    from.write_all(&wanted)?;
    // Its sender can be reached by nobody else.
    frame(&mut from)?;
    let nowhere = br#"{"at":[]}"#;
    to.write_all(&(nowhere.len() as u32).to_le_bytes())?;
    to.write_all(nowhere)?;
    let way = frame(&mut to)?;
    from.write_all(&way)?;
    let way = frame(&mut from)?;
    to.write_all(&way)?;
    let mut bytes = [0; 100];
    from.read_exact(&mut bytes)?;
    match harm {
        Harm::Tears => return to.write_all(&bytes),
        Harm::Spoils => bytes[60] ^= 0xff,
    }
    to.write_all(&bytes)?;
    io::copy(&mut from, &mut to).map(drop)
}

/// A length of four bytes, and so much after it.
fn frame(from: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame)?;
    let len = u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize;
    frame.resize(4 + len, 0);
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}

struct Grid {
    site: Arc<Site>,
    hosts: BTreeMap<NodeNumber, (JoinHandle<io::Result<()>>, i32)>,
    /// What their canaries showed.
    moves: BTreeMap<NodeNumber, Moves>,
    /// The control groups of their copies, where this machine has some.
    groups: BTreeMap<NodeNumber, Cgroup>,
    /// Their folders are on disks of their own, which a test can fill.
    small: Option<Small>,
    dir: TempDir,
}

/// Small disks, with what fills each.
#[derive(Default)]
struct Small(Vec<PathBuf>);

impl Small {
    fn mount(&mut self, folder: &Path) -> nix::Result<()> {
        let (kind, none) = (Some("tmpfs"), MsFlags::empty());
        mount(kind, folder, kind, none, Some("size=64m,mode=700"))?;
        self.0.push(folder.join("fill"));
        Ok(())
    }

    fn fill(&self) {
        for path in &self.0 {
            let mut file = std::fs::File::create(path).unwrap();
            let page = [1; 4096];
            while file.write_all(&page).is_ok() {}
        }
    }

    fn clear(&self) {
        for path in &self.0 {
            std::fs::remove_file(path).unwrap();
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        for path in &self.0 {
            // Nothing else can be done about it.
            let _stays = umount2(path.parent().unwrap(), MntFlags::MNT_DETACH);
        }
    }
}

fn node(number: u8) -> NodeNumber {
    NodeNumber::try_from(number).unwrap()
}

impl Grid {
    /// `None`, with the reason printed, where this cannot be.
    async fn new() -> Option<Grid> {
        let made = Grid::try_new(None, None).await;
        made.map_err(|why| println!("skipped: {why}")).ok()
    }

    /// With a driver that is no real one: without CRIU, and untried.
    async fn faked(driver: Arc<dyn Checkpointer>) -> Option<Grid> {
        let made = Grid::try_new(None, Some(driver)).await;
        made.map_err(|why| println!("skipped: {why}")).ok()
    }

    /// With disks that can be filled.
    async fn small() -> Option<Grid> {
        let made = Grid::try_new(Some(Small::default()), None).await;
        made.map_err(|why| println!("skipped: {why}")).ok()
    }

    async fn try_new(
        small: Option<Small>,
        fake: Option<Arc<dyn Checkpointer>>,
    ) -> Result<Grid, String> {
        if !rustix::process::getuid().is_root() {
            return Err("needs root".to_owned());
        }
        if !Path::new("/usr/bin/python3").exists() {
            return Err("no /usr/bin/python3".to_owned());
        }
        let dir = tempfile::tempdir().unwrap();
        let is_fake = fake.is_some();
        let driver = match fake {
            Some(driver) => driver,
            None => criu(&dir.path().join("logs")).await?,
        };
        let heartbeat = Duration::from_millis(200);
        let suspect = Duration::from_secs(1);
        let times = Times::new(heartbeat, suspect, Duration::from_secs(4)).unwrap();
        let site = Arc::new(Site {
            controller: Mutex::new(Controller::new(State::default(), times, SystemClock.up())),
            told: Mutex::default(),
            jobs: Mutex::default(),
            nodes: Mutex::default(),
            hands: Mutex::default(),
            tears: AtomicBool::new(false),
            spoils: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            kept: Mutex::default(),
            gone: Mutex::default(),
            ends: Mutex::default(),
            beats: Mutex::default(),
            away: AtomicBool::new(false),
            mute: AtomicBool::new(false),
        });
        let cell = dir.path().join("cell");
        std::fs::write(&cell, CELL).unwrap();
        std::fs::set_permissions(&cell, PermissionsExt::from_mode(0o700)).unwrap();
        let (hosts, moves, groups) = Default::default();
        let mut grid = Grid { site, hosts, moves, groups, small, dir };
        for number in [1, 2] {
            grid.begin(node(number), times, (&driver, is_fake)).await?;
        }
        let present =
            |state: NodeState| move |s: &State| s.members.iter().all(|(_, m)| m.state == state);
        grid.site.until("the nodes join", present(NodeState::Present)).await;
        for number in [1, 2] {
            let moves = grid.moves[&node(number)].clone();
            assert_eq!(moves, Moves::Yes);
            grid.site.decide(|c, _| c.prove(node(number), moves, 1));
            // Before that nothing is begun for somebody there.
            let beats = || grid.site.beats.lock().unwrap().contains(&node(number));
            trouble::when("the node's first heartbeat comes", beats).await;
        }
        Ok(grid)
    }

    async fn begin(
        &mut self,
        number: NodeNumber,
        times: Times,
        (driver, is_fake): (&Arc<dyn Checkpointer>, bool),
    ) -> Result<(), String> {
        let id = format!("n{number}.rennes").parse().unwrap();
        let vo: xos_base::VoId = "demo.rennes".parse().unwrap();
        self.site.decide(|c, _| c.add(&id, [vo].into()));
        let folder: PathBuf = self.dir.path().join(number.to_string());
        std::fs::create_dir(&folder).unwrap();
        if let Some(small) = &mut self.small {
            small.mount(&folder).map_err(|e| e.to_string())?;
        }
        let spools = self.dir.path().join(format!("spools-{number}"));
        let spools = Arc::new(Spools::new(spools));
        self.site.nodes.lock().unwrap().insert(number, spools.clone());
        let unique = self.dir.path().file_name().unwrap().to_str().unwrap().to_owned();
        if let Some(group) = own_group(&format!("xos-ssi{unique}-{number}")) {
            self.groups.insert(number, group);
        }
        let setup = Setup {
            folder,
            node: number,
            times,
            cell_program: self.dir.path().join("cell"),
            driver: driver.clone(),
            rules: Rules { shared: vec!["/".into()], filters_move: true },
            limit: PATIENCE,
            direct: true,
            core: Arc::new(Way(number, self.site.clone())),
            peers: self.site.clone(),
            spools,
            cgroup: self.groups.get(&number).cloned(),
            shells: None,
            clock: Arc::new(Wrong(number)),
        };
        let host = match Host::begin(setup).await {
            Ok(host) => host,
            Err(e) if e.to_string().contains("Operation not permitted") => {
                return Err(e.to_string());
            }
            Err(e) => panic!("{e}"),
        };
        self.site.hands.lock().unwrap().insert(number, host.hands());
        let account = Account { uid: UID, gid: UID, groups: vec![] };
        let moves = match is_fake {
            true => Moves::Yes,
            false => host.canary(account).await.unwrap(),
        };
        self.moves.insert(number, moves);
        let (tell, told) = unbounded_channel();
        self.site.told.lock().unwrap().insert(number, tell);
        let init = host.init_pid();
        self.hosts.insert(number, (tokio::spawn(host.run(told)), init));
        Ok(())
    }

    /// Starts a program on a node where it is born; its tree, once it runs and wrote something.
    async fn count(&self, on: NodeNumber) -> TreeId {
        let tree = self.runs(on, COUNTER, Stdio::Three, false).await;
        self.site.lines(on, tree, 10).await;
        tree
    }

    /// Starts a program in Python on a node where it is born.
    async fn runs(&self, on: NodeNumber, text: &str, stdio: Stdio, attached: bool) -> TreeId {
        let tree = self.wish(on, |job| {
            job.program.argv[2] = text.to_owned();
            (job.program.stdio, job.attached) = (stdio, attached);
        });
        self.site.until("it runs", |s| runs(s, tree, on)).await;
        tree
    }

    /// Has the counter started, or what is made of it, on a node where it is born.
    fn wish(&self, on: NodeNumber, change: impl FnOnce(&mut Job)) -> TreeId {
        let site = &self.site;
        let owner = Owner { vo: "demo.rennes".parse().unwrap(), member: MemberNumber(1), uid: UID };
        let mut tree = TreeId(0);
        site.decide(|c, _| {
            let wish = Wish { owner: owner.clone(), restartable: true, interval: Interval::Best };
            let (id, effects) = c.start(0, &wish, on, on)?;
            tree = id;
            let program = Program {
                argv: ["/usr/bin/python3", "-c", COUNTER].map(str::to_owned).to_vec(),
                env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
                cwd: "/".into(),
                umask: 0o22,
                rlimits: vec![],
                cgroups: vec![],
                stdio: Stdio::Three,
            };
            let account = Account { uid: UID, gid: UID, groups: vec![] };
            let (attached, shell, wanted, own_net) = (false, false, false, false);
            let (pid, birth, limits, carried) = (None, on, Limits::default(), None);
            let mut job = Job {
                account,
                program,
                attached,
                pid,
                own_net,
                birth,
                shell,
                wanted,
                limits,
                carried,
            };
            change(&mut job);
            site.jobs.lock().unwrap().insert(id, job);
            Ok::<_, xos_ssi::cluster::controller::Refused>(effects)
        });
        tree
    }

    /// Attaches to a program where it was born and feeds it; what it writes is seen in the spool.
    fn feed(&self, at: NodeNumber, tree: TreeId, offset: u64, input: &[u8]) -> UnixStream {
        let spools = self.site.nodes.lock().unwrap()[&at].clone();
        let (one, mut other) = UnixStream::pair().unwrap();
        spools.attach(tree.0, UID, one).unwrap();
        let hello = Control::Hello {
            version: VERSION,
            tree: tree.0,
            epoch: 0,
            received: [0; 2],
            passed: [0; 2],
            refused: [false; 2],
            terminal: true,
            ghost: Some(GhostId { number: 1, again: false, late: false }),
        };
        let bytes = input.to_vec();
        let data = Message::Data { stream: Stream::Input, offset, end: false, bytes };
        let mut frames = Vec::new();
        encode(&Message::Control(hello), &mut frames).unwrap();
        encode(&data, &mut frames).unwrap();
        other.write_all(&frames).unwrap();
        other
    }

    /// The machine dies: its host, and with its cell all that ran there.
    async fn kill(&mut self, number: NodeNumber) {
        let (host, init) = self.hosts.remove(&number).unwrap();
        host.abort();
        assert!(host.await.unwrap_err().is_cancelled());
        self.site.told.lock().unwrap().remove(&number);
        let init = nix::unistd::Pid::from_raw(init);
        nix::sys::signal::kill(init, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}

impl Drop for Grid {
    fn drop(&mut self) {
        for (host, init) in self.hosts.values() {
            host.abort();
            let init = nix::unistd::Pid::from_raw(*init);
            // It may be dead already.
            let _gone = nix::sys::signal::kill(init, nix::sys::signal::Signal::SIGKILL);
        }
        for group in self.groups.values() {
            leave_none(group);
        }
    }
}

/// Whether the person's processes in a cell all stand still.
fn stand_still(init: i32) -> bool {
    let proc = format!("/proc/{init}/root/proc");
    let mut stopped = Vec::new();
    for entry in std::fs::read_dir(&proc).unwrap() {
        let status = entry.unwrap().path().join("status");
        // No process, or one that ended meanwhile.
        let Ok(text) = std::fs::read_to_string(status) else { continue };
        let of = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).map(str::trim);
        if of("Uid:").is_some_and(|uids| uids.starts_with(&UID.to_string())) {
            stopped.push(of("State:").is_some_and(|s| s.starts_with('T')));
        }
    }
    !stopped.is_empty() && stopped.into_iter().all(|s| s)
}

/// The real driver.
async fn criu(logs: &Path) -> Result<Arc<dyn Checkpointer>, String> {
    let private = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/criu/criu");
    let private = private.canonicalize().unwrap_or(private);
    let path = std::env::var("PATH").unwrap();
    let criu = Criu::find(&[private], &path, logs);
    let criu = criu.ok_or("no CRIU: make deps-criu gets one")?;
    criu.probe().await.map_err(|e| e.to_string())?;
    Ok(Arc::new(criu))
}

fn runs(state: &State, tree: TreeId, on: NodeNumber) -> bool {
    let t = state.trees.tree(tree).unwrap();
    t.state == TreeState::Running && t.confirmed && t.node == on
}

/// That one process counted from 0 without a gap or anything twice.
#[track_caller]
fn counts(lines: &[String]) {
    let pid = lines[0].split_once(' ').unwrap().0.to_owned();
    for (n, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("{pid} {n}"));
    }
}

/// If it failed, a program would lose or repeat work or output on its way, or change its pid.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_moves_away_and_back() {
    let Some(grid) = Grid::new().await else { return };
    let (one, two) = (node(1), node(2));
    let tree = grid.count(one).await;
    for to in [two, one] {
        grid.site.decide(|c, now| c.migrate(tree, to, now));
        grid.site.until("it moves", |s| runs(s, tree, to)).await;
        let before = grid.site.lines(one, tree, 0).await.len();
        counts(&grid.site.lines(one, tree, before + 10).await);
    }
}

/// If it failed, a node's death would take work along, or output would be lost or doubled.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_nodes_program_goes_on_from_its_checkpoint() {
    let Some(mut grid) = Grid::new().await else { return };
    let (one, two) = (node(1), node(2));
    let tree = grid.count(one).await;
    // Its image comes along, so that one that survives has it.
    grid.site.decide(|c, now| c.migrate(tree, two, now));
    grid.site.until("it moves", |s| runs(s, tree, two)).await;
    let before = grid.site.lines(one, tree, 0).await.len();
    grid.site.lines(one, tree, before + 10).await;
    grid.kill(two).await;
    let waits = |s: &State| {
        let t = s.trees.tree(tree).unwrap();
        matches!(t.state, TreeState::Checkpointed { .. })
    };
    grid.site.until("its node is taken for dead", waits).await;
    let before = grid.site.lines(one, tree, 0).await.len();
    grid.site.decide(|c, now| c.restart(tree, one, now));
    grid.site.until("it is restarted", |s| runs(s, tree, one)).await;
    counts(&grid.site.lines(one, tree, before + 10).await);
}

/// If it failed, a program would run without a lease, or a node that was out of reach for a moment
/// never go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_stands_still_while_the_controller_is_away_and_goes_on_after() {
    let Some(grid) = Grid::new().await else { return };
    let one = node(1);
    let tree = grid.count(one).await;
    // From here on the controller looks at no clock, so that it takes nobody for dead.
    grid.site.away.store(true, Ordering::SeqCst);
    let until = Instant::now() + PATIENCE;
    while !stand_still(grid.hosts[&one].1) {
        assert!(Instant::now() < until, "it runs without a lease");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let before = grid.site.lines(one, tree, 0).await.len();
    grid.site.away.store(false, Ordering::SeqCst);
    counts(&grid.site.lines(one, tree, before + 30).await);
}

/// If it failed, making a checkpoint would disturb the program, or never be complete.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_lets_the_program_go_on() {
    let Some(grid) = Grid::new().await else { return };
    let one = node(1);
    let tree = grid.count(one).await;
    grid.site.decide(|c, now| c.save(tree, now));
    let saved = |s: &State| s.trees.tree(tree).unwrap().checkpoint.is_some();
    grid.site.until("it is saved", saved).await;
    let before = grid.site.lines(one, tree, 0).await.len();
    counts(&grid.site.lines(one, tree, before + 10).await);
}

/// If it failed, a program would be lost with the node that made its only checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_checkpoint_outlives_the_node_that_made_it() {
    let Some(mut grid) = Grid::new().await else { return };
    let (one, two) = (node(1), node(2));
    let tree = grid.count(one).await;
    grid.site.decide(|c, now| c.save(tree, now));
    let nodes = |s: &State| {
        let t = s.trees.tree(tree).unwrap();
        t.checkpoint.as_ref().map(|image| image.nodes.len()).unwrap_or_default()
    };
    grid.site.until("it is saved", |s| nodes(s) == 1).await;
    grid.site.decide(|c, now| c.hold(tree, two, now));
    grid.site.until("it is copied", |s| nodes(s) == 2).await;
    grid.kill(one).await;
    let waits = |s: &State| {
        let t = s.trees.tree(tree).unwrap();
        matches!(t.state, TreeState::Checkpointed { .. })
    };
    grid.site.until("its node is taken for dead", waits).await;
    grid.site.decide(|c, now| c.restart(tree, two, now));
    grid.site.until("it is restarted from the copy", |s| runs(s, tree, two)).await;
}

/// If it failed, what goes on from the image of a move would be lost with the memory of two nodes,
/// or the memory be taken for ever.
#[tokio::test(flavor = "multi_thread")]
async fn the_image_of_a_move_becomes_a_checkpoint_of_both_nodes() {
    let Some(grid) = Grid::new().await else { return };
    let (one, two) = (node(1), node(2));
    let tree = grid.count(one).await;
    grid.site.decide(|c, now| c.migrate(tree, two, now));
    grid.site.until("it moves", |s| runs(s, tree, two)).await;
    let kept = |s: &State| {
        let image = s.trees.tree(tree).and_then(|t| t.checkpoint.clone());
        image.is_some_and(|image| image.brief.is_empty() && image.nodes.len() == 2)
    };
    grid.site.until("both have it for good", kept).await;
    for number in ["1", "2"] {
        let image = grid.dir.path().join(format!("{number}/images/{tree}/1/manifest.json"));
        let manifest = std::fs::read_to_string(image).unwrap();
        assert!(manifest.contains("sha256"), "{manifest}");
    }
    let before = grid.site.lines(one, tree, 0).await.len();
    counts(&grid.site.lines(one, tree, before + 10).await);
}

/// If it failed, a program that left for another cluster would be lost with its node's agent: when
/// its copy is gone nothing else is left of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_leaves_is_on_the_disk_when_its_copy_is_gone() {
    let Some(grid) = Grid::new().await else { return };
    let tree = grid.count(node(1)).await;
    grid.site.decide(|c, now| c.leave(tree, now));
    let away = |s: &State| s.trees.tree(tree).is_some_and(|t| t.state == TreeState::Away);
    grid.site.until("it leaves", away).await;
    assert!(grid.site.is_gone(tree, 1));
    let image = grid.dir.path().join(format!("1/images/{tree}/1/manifest.json"));
    let manifest = std::fs::read_to_string(image).unwrap();
    assert!(manifest.contains("sha256"), "{manifest}");
}

/// If it failed, an attempt to move a program could end it.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_whose_image_is_torn_on_the_way_goes_on_where_it_was() {
    let Some(grid) = Grid::new().await else { return };
    let (one, two) = (node(1), node(2));
    let tree = grid.count(one).await;
    grid.site.tears.store(true, Ordering::SeqCst);
    grid.site.decide(|c, now| c.migrate(tree, two, now));
    grid.site.until("it goes on", |s| runs(s, tree, one)).await;
    let before = grid.site.lines(one, tree, 0).await.len();
    counts(&grid.site.lines(one, tree, before + 10).await);
    assert_eq!(grid.site.controller.lock().unwrap().state().trees.tree(tree).unwrap().epoch, 1);
}

/// Repeats the lines of its input slowly, and reads no more than it needs.
const REPEATER: &str = r"
import os, time
while True:
    line = b''
    while not line.endswith(b'\n'):
        line += os.read(0, 1)
    os.write(1, b'%d %s' % (os.getpid(), line))
    time.sleep(0.01)
";

/// If it failed, what a program had not read yet would be lost or doubled when it moves.
#[tokio::test(flavor = "multi_thread")]
async fn input_that_waits_moves_along() {
    let Some(grid) = Grid::new().await else { return };
    let (one, two) = (node(1), node(2));
    let tree = grid.runs(one, REPEATER, Stdio::Three, true).await;
    let input: String = (0..300).map(|n| format!("{n}\n")).collect();
    let _guest = grid.feed(one, tree, 0, input.as_bytes());
    grid.site.lines(one, tree, 10).await;
    grid.site.decide(|c, now| c.migrate(tree, two, now));
    grid.site.until("it moves", |s| runs(s, tree, two)).await;
    counts(&grid.site.lines(one, tree, 300).await);
}

/// If it failed, a program on a terminal could not move, or not be reached by its keys afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_on_a_terminal_moves_and_hears_its_keys() {
    let Some(grid) = Grid::new().await else { return };
    let (one, two) = (node(1), node(2));
    let tree = grid.runs(one, COUNTER, Stdio::Terminal, true).await;
    grid.site.lines(one, tree, 10).await;
    grid.site.decide(|c, now| c.migrate(tree, two, now));
    grid.site.until("it moves", |s| runs(s, tree, two)).await;
    let before = grid.site.lines(one, tree, 0).await.len();
    counts(&grid.site.lines(one, tree, before + 10).await);
    // Ctrl-C.
    let _guest = grid.feed(one, tree, 0, b"\x03");
    let over = |s: &State| s.trees.tree(tree).is_none_or(|t| t.state.is_final());
    grid.site.until("it is interrupted", over).await;
}

/// A counter, and a worker that counts too and whose parent has ended, as `(worker &)` of a shell.
const STRAY: &str = r"
import os, time
if os.fork() == 0:
    if os.fork():
        os._exit(0)
    n = 0
    while True:
        os.write(1, b'worker %d\n' % n)
        n += 1
        time.sleep(0.02)
os.wait()
n = 0
while True:
    os.write(1, b'%d %d\n' % (os.getpid(), n))
    n += 1
    time.sleep(0.02)
";

/// If it failed, a move would end part of a program without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_whose_part_would_stay_behind_stays_whole() {
    let Some(grid) = Grid::new().await else { return };
    let (one, two) = (node(1), node(2));
    let tree = grid.runs(one, STRAY, Stdio::Three, false).await;
    let workers = |lines: &[String]| -> Vec<String> {
        lines.iter().filter(|line| line.starts_with("worker ")).cloned().collect()
    };
    grid.site.lines(one, tree, 40).await;
    grid.site.decide(|c, now| c.migrate(tree, two, now));
    grid.site.until("it goes on", |s| runs(s, tree, one)).await;
    assert_eq!(grid.site.controller.lock().unwrap().state().trees.tree(tree).unwrap().epoch, 1);
    let before = grid.site.lines(one, tree, 0).await;
    let after = grid.site.lines(one, tree, before.len() + 40).await;
    let (before, after) = (workers(&before), workers(&after));
    assert!(after.len() > before.len(), "the worker is gone: {after:?}");
    for (n, line) in after.iter().enumerate() {
        assert_eq!(*line, format!("worker {n}"));
    }
}
