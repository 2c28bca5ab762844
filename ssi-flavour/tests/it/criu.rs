//! The real CRIU.

mod files;

use crate::namespace::Namespace;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use xos_ssi::driver::criu::Criu;
use xos_ssi::driver::images::{ImageError, Origin};
use xos_ssi::driver::why::{Rules, What, why};
use xos_ssi::driver::{
    Abilities, Cell, Checkpointer, DriverError, DumpOrder, Dumped, ExternalFd, Inherited, Leave,
    Person, RestoreOrder, Step, Tcp, Trust,
};

/// No step takes longer; a machine so slow that it does is reported as such.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const OWNER: u32 = 70_001;
/// Numbers its lines, in a pipeline.
const PIPELINE: &str = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done | \
    while read n; do echo \"a $n\"; done";
pub const COUNTER: &str = "i=0; while :; do echo \"a $i\"; i=$((i+1)); sleep 0.02; done";
/// The same in two threads.
const THREADS: &str = "
import _thread, os, time
def count(name):
    n = 0
    while True:
        os.write(1, f'{name} {n}\\n'.encode())
        n += 1
        time.sleep(0.02)
_thread.start_new_thread(count, ('b',))
count('a')
";

/// Brings its loopback up (SIOCSIFFLAGS, IFF_UP), and is another user's next program.
const LOOPBACK: &str = "
import fcntl, os, socket, struct, sys
up = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(up, 0x8914, struct.pack('16sh22x', b'lo', 1))
setpriv = ['/usr/bin/setpriv', '--no-new-privs', '--reuid', sys.argv[1], '--regid', sys.argv[1], '--groups', sys.argv[1]]
os.execv(setpriv[0], setpriv + ['--', '/usr/bin/python3', '-c', sys.argv[2]])
";
/// Two processes with a connection between them.
const CONNECTED: &str = "
import os, socket, time
server = socket.create_server(('127.0.0.1', 0))
if os.fork() == 0:
    one, _ = server.accept()
    stream = one.makefile('rwb')
    for line in stream:
        stream.write(line)
        stream.flush()
    os._exit(0)
stream = socket.create_connection(server.getsockname()).makefile('rwb')
n = 0
while True:
    stream.write(b'%d\\n' % n)
    stream.flush()
    os.write(1, b'a ' + stream.readline())
    n += 1
    time.sleep(0.02)
";

/// Two namespaces with different pids, and CRIU.
pub struct Two {
    pub here: Namespace,
    pub there: Namespace,
    pub criu: Criu,
    abilities: Abilities,
    dir: TempDir,
}

impl Two {
    /// `None`, with the reason printed, where this cannot be.
    pub async fn new() -> Option<Two> {
        let made = Two::try_new().await;
        made.map_err(|why| println!("skipped: {why}")).ok()
    }

    async fn try_new() -> Result<Two, String> {
        let private = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/criu/criu");
        let private = private.canonicalize().unwrap_or(private);
        let path = std::env::var("PATH").unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let criu = Criu::find(&[private], &path, dir.path().join("logs"));
        let criu = criu.ok_or("no CRIU: make deps-criu gets one")?;
        let (here, there) = (Namespace::new(1000)?, Namespace::new(10_000)?);
        let abilities = criu.probe().await.map_err(|e| e.to_string())?;
        Ok(Two { here, there, criu, abilities, dir })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new image folder.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.path(name);
        std::fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
        folder
    }

    /// A new file of the owner's.
    pub fn file(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(&path, Some(OWNER), Some(OWNER)).unwrap();
        path
    }

    /// Starts a program of the owner's; returns its pid, once it is theirs.
    pub fn start(&mut self, out: &str, words: &[&str]) -> i32 {
        let id = OWNER.to_string();
        let theirs = ["/usr/bin/setpriv", "--no-new-privs", "--reuid", &id, "--regid", &id];
        let pid = self.here.start(out, &[&theirs[..], &["--groups", &id, "--"], words].concat());
        let path = format!("/proc/{}/cmdline", self.here.outer(pid).unwrap());
        let until = Instant::now() + PATIENCE;
        while std::fs::read_to_string(&path).unwrap() != words.join("\0") + "\0" {
            assert!(Instant::now() < until, "it does not become {words:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        pid
    }

    pub fn dump_order(&self, pid: i32, folder: &Path, leave: Leave) -> DumpOrder {
        DumpOrder {
            root: self.here.outer(pid).unwrap(),
            cell: Some(self.here.cell),
            folder: folder.to_owned(),
            leave,
            externals: Vec::new(),
            tcp: Tcp::None,
            limit: PATIENCE,
        }
    }

    /// Saves a program and seals its images.
    pub async fn save(&self, pid: i32, folder: &Path, leave: Leave) -> Dumped {
        self.saved(&self.dump_order(pid, folder, leave)).await
    }

    pub async fn saved(&self, order: &DumpOrder) -> Dumped {
        let dumped = self.criu.dump(order).await.unwrap();
        let origin = Origin {
            pid: dumped.pid,
            owner: OWNER,
            epoch: 1,
            criu: dumped.version.clone(),
            open_files: dumped.open_files.clone(),
        };
        self.criu.seal(&order.folder, origin).await.unwrap();
        dumped
    }

    pub fn restore_order(&self, folder: &Path) -> RestoreOrder {
        RestoreOrder {
            folder: folder.to_owned(),
            trust: Trust::OwnSite,
            owner: person(OWNER),
            cell: Some(self.there.cell),
            cgroups: Vec::new(),
            rlimits: Vec::new(),
            inherited: Vec::new(),
            network: None,
            tcp: Tcp::None,
            stopped: false,
            limit: PATIENCE,
        }
    }
}

fn person(uid: u32) -> Person {
    Person::new(uid, uid, &[])
}

/// Lines of a file, once there are `many`.
pub fn lines(path: &Path, many: usize) -> Vec<String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.len() >= many {
            return lines;
        }
        assert!(Instant::now() < until, "only {} of {many} lines: {text}", lines.len());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// That `name` counts from 0 without a gap or anything twice.
#[track_caller]
pub fn counts(lines: &[String], name: &str) {
    let own = lines.iter().filter_map(|line| line.strip_prefix(name));
    let numbers: Vec<usize> = own.map(|number| number.trim().parse().unwrap()).collect();
    assert!(numbers.len() > 5, "{name} stands still: {lines:?}");
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
}

fn state(pid: i32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().next().unwrap().to_owned()
}

/// What a node does to prove itself: save, restore, the processor's features.
#[tokio::test]
async fn a_canary_is_saved_and_lives_beside_itself() {
    let Some(mut two) = Two::new().await else { return };
    assert!(two.abilities.version.starts_with("4.") || two.abilities.version.starts_with("5."));
    println!("{:?}", two.abilities);
    let out = two.file("out", 0o600);
    let pid = two.start(out.to_str().unwrap(), &["/bin/sleep", "1000"]);
    let folder = two.folder("images");
    let dumped = two.save(pid, &folder, Leave::Running).await;
    assert_eq!(dumped.pid, pid);
    assert!(dumped.frozen_us > 0 && dumped.pages > 0 && dumped.size_bytes > 4096, "{dumped:?}");
    assert!(two.here.outer(pid).is_some(), "it goes on");
    let restored = two.criu.restore(two.restore_order(&folder)).await.unwrap();
    assert_eq!((restored.pid, restored.outer_pid), (pid, two.there.outer(pid)));
    assert!(restored.outer_pid.is_some());
    let taken = two.criu.restore(two.restore_order(&folder)).await.unwrap_err();
    assert!(matches!(taken, DriverError::PidTaken { pid: p } if p == pid), "{taken}");
    let logs = std::fs::read_dir(two.path("logs")).unwrap().count();
    assert_eq!(logs, 0, "logs of what went well are not kept");
}

/// If it failed, a program would lose or repeat work when it moves.
#[tokio::test]
async fn a_pipeline_goes_on_in_another_cell() {
    let Some(mut two) = Two::new().await else { return };
    let out = two.file("out", 0o600);
    let pid = two.start(out.to_str().unwrap(), &["/bin/sh", "-c", PIPELINE]);
    lines(&out, 10);
    let folder = two.folder("images");
    let dumped = two.save(pid, &folder, Leave::Killed).await;
    assert_eq!(two.here.outer(pid), None, "it is gone here");
    let before = lines(&out, 10);
    let written = dumped.open_files.iter().find(|file| file.path == out).unwrap();
    assert_eq!(written.size_bytes, std::fs::metadata(&out).unwrap().len());
    two.criu.restore(two.restore_order(&folder)).await.unwrap();
    counts(&lines(&out, before.len() + 10), "a ");
}

#[tokio::test]
async fn threads_stand_still_until_they_go_on_elsewhere() {
    let Some(mut two) = Two::new().await else { return };
    let out = two.file("out", 0o600);
    let pid = two.start(out.to_str().unwrap(), &["/usr/bin/python3", "-c", THREADS]);
    lines(&out, 20);
    let folder = two.folder("images");
    two.save(pid, &folder, Leave::Stopped).await;
    let original = two.here.outer(pid).unwrap();
    assert_eq!(state(original), "T");
    let before = lines(&out, 20).len();
    two.criu.restore(two.restore_order(&folder)).await.unwrap();
    let after = lines(&out, before + 20);
    assert_eq!(state(original), "T", "both must not run");
    counts(&after, "a ");
    counts(&after, "b ");
}

/// If it failed, what a program writes to a person's terminal or file would end with its move.
#[tokio::test]
async fn a_pipe_to_outside_is_replaced() {
    let Some(mut two) = Two::new().await else { return };
    let pid = two.start("-", &["/bin/sh", "-c", COUNTER]);
    let key = ExternalFd::of(&two.here.output).unwrap().unwrap();
    let mut reader = BufReader::new(two.here.output.try_clone().unwrap());
    let mut told = String::new();
    for _ in 0..10 {
        reader.read_line(&mut told).unwrap();
    }
    let folder = two.folder("images");
    two.save(pid, &folder, Leave::Killed).await;
    let (output, writer) = std::io::pipe().unwrap();
    let order = RestoreOrder {
        inherited: vec![Inherited { key, fd: writer.into() }],
        ..two.restore_order(&folder)
    };
    two.criu.restore(order).await.unwrap();
    let Two { here, there, .. } = two;
    // Nobody else has the other end.
    drop(here);
    reader.read_to_string(&mut told).unwrap();
    let mut reader = BufReader::new(output);
    for _ in 0..10 {
        reader.read_line(&mut told).unwrap();
    }
    drop(there);
    reader.read_to_string(&mut told).unwrap();
    counts(&told.lines().map(str::to_owned).collect::<Vec<_>>(), "a ");
}

/// If it failed, an attempt to move a program could end it.
#[tokio::test]
async fn what_cannot_be_saved_goes_on_and_the_reason_is_told() {
    let Some(mut two) = Two::new().await else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connected = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; {COUNTER}");
    let out = two.file("out", 0o600);
    let pid = two.start(out.to_str().unwrap(), &["/bin/bash", "-c", &connected]);
    lines(&out, 10);
    let folder = two.folder("images");
    let order = two.dump_order(pid, &folder, Leave::Killed);
    let obstacles = why(order.root, &Rules::default()).unwrap();
    let connection = |what: &What| *what == What::Connection { fd: 3 };
    assert!(obstacles.iter().any(|obstacle| connection(&obstacle.what)), "{obstacles:?}");
    let error = two.criu.dump(&order).await.unwrap_err();
    let DriverError::Refused { step: Step::Dump, what, log: Some(log), .. } = &error else {
        panic!("{error}");
    };
    assert!(what.contains("connection over the network"), "{what}");
    assert!(std::fs::metadata(log).unwrap().len() > 0, "the log is kept");
    let before = lines(&out, 10).len();
    counts(&lines(&out, before + 10), "a ");
    let not_empty = two.criu.dump(&order).await.unwrap_err();
    assert!(matches!(not_empty, DriverError::System { .. }), "{not_empty}");
    let gone = DumpOrder { root: i32::MAX, ..order };
    let gone = two.criu.dump(&gone).await.unwrap_err();
    assert!(matches!(gone, DriverError::Gone { .. }), "{gone}");
}

/// If it failed, no person's program could move where root lacks a capability, or it would end.
#[tokio::test]
async fn another_users_program_is_saved_also_where_root_lacks_a_capability() {
    let Some(mut two) = Two::new().await else { return };
    let out = two.file("out", 0o600);
    let pid = two.start(out.to_str().unwrap(), &["/bin/sh", "-c", PIPELINE]);
    lines(&out, 10);
    let folder = two.folder("images");
    let dumped = two.criu.dump(&two.dump_order(pid, &folder, Leave::Running)).await.unwrap();
    assert_eq!(dumped.pid, pid);
    let before = lines(&out, 10).len();
    counts(&lines(&out, before + 10), "a ");
}

/// If it failed, a program would find connections within itself broken, or bytes of them missing,
/// after a checkpoint or a move, or would need rights that root lacks in containers.
#[tokio::test]
async fn connections_within_a_program_go_along() {
    let Some(mut two) = Two::new().await else { return };
    let out = two.file("out", 0o600);
    let id = OWNER.to_string();
    let python = ["/usr/bin/python3", "-c", LOOPBACK, &id, CONNECTED];
    let own = [&["/usr/bin/unshare", "--net", "--"][..], &python].concat();
    let pid = two.here.start(out.to_str().unwrap(), &own);
    lines(&out, 10);
    let with = |cell: Cell| Some(Cell { own_net: true, ..cell });
    let order = |two: &Two, name: &str, leave: Leave| DumpOrder {
        cell: with(two.here.cell),
        tcp: Tcp::Established,
        ..two.dump_order(pid, &two.folder(name), leave)
    };
    let saved = two.criu.dump(&order(&two, "checkpoint", Leave::Running)).await.unwrap();
    assert_eq!(saved.pid, pid);
    let before = lines(&out, 10).len();
    counts(&lines(&out, before + 10), "a ");
    two.saved(&order(&two, "move", Leave::Killed)).await;
    let before = lines(&out, 10).len();
    let to = RestoreOrder {
        cell: with(two.there.cell),
        tcp: Tcp::Established,
        ..two.restore_order(&two.path("move"))
    };
    two.criu.restore(to).await.unwrap();
    counts(&lines(&out, before + 10), "a ");
}

/// If it failed, half of a program, or another person's, would be started.
#[tokio::test]
async fn only_whole_images_of_the_owner_are_started() {
    let Some(mut two) = Two::new().await else { return };
    let out = two.file("out", 0o600);
    let pid = two.start(out.to_str().unwrap(), &["/bin/sleep", "1000"]);
    let torn = two.folder("torn");
    let order = two.dump_order(pid, &torn, Leave::Running);
    two.criu.dump(&order).await.unwrap();
    let refused = two.criu.restore(two.restore_order(&torn)).await.unwrap_err();
    assert!(matches!(refused, DriverError::Images(ImageError::Torn { .. })), "{refused}");
    let folder = two.folder("images");
    two.save(pid, &folder, Leave::Running).await;
    let foreign = RestoreOrder { owner: person(OWNER + 1), ..two.restore_order(&folder) };
    let refused = two.criu.restore(foreign).await.unwrap_err();
    assert!(matches!(refused, DriverError::Images(ImageError::Foreign { .. })), "{refused}");
    let pages = std::fs::OpenOptions::new().write(true).open(folder.join("pages-1.img")).unwrap();
    pages.set_len(pages.metadata().unwrap().len() - 1).unwrap();
    let refused = two.criu.restore(two.restore_order(&folder)).await.unwrap_err();
    assert!(matches!(refused, DriverError::Images(ImageError::Altered { .. })), "{refused}");
    assert_eq!(two.there.outer(pid), None, "nothing was started");
}

/// Writes images anew, as who is root on another node can.
pub async fn forge(two: &Two, pid: i32, folder: &Path, image: &str, from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let path = folder.join(image);
    let mut bytes = std::fs::read(&path).unwrap();
    let found: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
    assert!(!found.is_empty(), "{image} has no {from:x?}");
    for at in found {
        bytes[at..at + from.len()].copy_from_slice(to);
    }
    std::fs::write(&path, bytes).unwrap();
    std::fs::remove_file(folder.join("manifest.json")).unwrap();
    let (criu, open_files) = ("4.2.1".to_owned(), Vec::new());
    let origin = Origin { pid, owner: OWNER, epoch: 1, criu, open_files };
    two.criu.seal(folder, origin).await.unwrap();
}

/// If it failed, a person's program would write where a link leads that another program of theirs
/// put in the place of a file while it moved; and if CRIU were root, the person would be that too.
#[tokio::test]
async fn a_link_in_the_place_of_a_file_gets_nobody_what_it_leads_to() {
    let Some(mut two) = Two::new().await else { return };
    let victim = two.path("victim");
    std::fs::write(&victim, "root\n").unwrap();
    std::fs::set_permissions(&victim, PermissionsExt::from_mode(0o644)).unwrap();
    let out = two.file("out", 0o644);
    let pid = two.start(out.to_str().unwrap(), &["/bin/sh", "-c", PIPELINE]);
    lines(&out, 10);
    let folder = two.folder("images");
    two.save(pid, &folder, Leave::Killed).await;
    let kept = two.path("kept");
    std::fs::rename(&out, &kept).unwrap();
    // Where it leads to is the person's in the second case: a link is no file all the same.
    for (target, opened) in [(&victim, false), (&kept, true)] {
        std::os::unix::fs::symlink(target, &out).unwrap();
        let refused = two.criu.restore(two.restore_order(&folder)).await.unwrap_err();
        match &refused {
            DriverError::Strange { .. } => assert!(opened, "{refused}"),
            DriverError::Refused { what, .. } => {
                assert!(!opened && what.contains("may not open"), "{what}");
            }
            other => panic!("{other}"),
        }
        assert_eq!(two.there.outer(pid), None, "nothing of it is left");
        std::fs::remove_file(&out).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "root\n");
    std::fs::rename(&kept, &out).unwrap();
    two.criu.restore(two.restore_order(&folder)).await.unwrap();
    let before = lines(&out, 10).len();
    counts(&lines(&out, before + 10), "a ");
}

/// If it failed, who is root on one node of a cluster would be root on all: they write images as
/// they like, with manifest and all.
#[tokio::test]
async fn forged_images_get_nobody_more_than_the_person_has() {
    let Some(mut two) = Two::new().await else { return };
    let out = two.file("mine", 0o600);
    let theirs = two.path("root");
    std::fs::write(&theirs, "root's\n").unwrap();
    std::fs::set_permissions(&theirs, PermissionsExt::from_mode(0o600)).unwrap();
    let pid = two.start(out.to_str().unwrap(), &["/bin/sh", "-c", COUNTER]);
    lines(&out, 10);
    let core = format!("core-{pid}.img");
    // The effective user, the group, effective capabilities (`creds_entry`).
    let user: (&[u8], &[u8]) = (&[0x18, 0xf1, 0xa2, 0x04], &[0x18, 0x80, 0x80, 0x00]);
    let group: (&[u8], &[u8]) = (&[0x20, 0xf1, 0xa2, 0x04], &[0x20, 0x80, 0x80, 0x00]);
    let rights: (&[u8], &[u8]) = (&[0x58, 0x00, 0x58, 0x00], &[0x58, 0x02, 0x58, 0x00]);
    for (n, (from, to)) in [user, group, rights].into_iter().enumerate() {
        let folder = two.folder(&format!("rights{n}"));
        two.save(pid, &folder, Leave::Running).await;
        forge(&two, pid, &folder, &core, from, to).await;
        let refused = two.criu.restore(two.restore_order(&folder)).await.unwrap_err();
        assert!(matches!(refused, DriverError::Images(ImageError::Bound { .. })), "{refused}");
        assert_eq!(two.there.outer(pid), None, "nothing was started");
    }
    // A file that the person cannot open, by its own name.
    let folder = two.folder("files");
    two.save(pid, &folder, Leave::Running).await;
    let name = |path: &Path| path.to_str().unwrap().as_bytes().to_vec();
    forge(&two, pid, &folder, "files.img", &name(&out), &name(&theirs)).await;
    let refused = two.criu.restore(two.restore_order(&folder)).await.unwrap_err();
    let DriverError::Refused { what, .. } = &refused else { panic!("{refused}") };
    assert!(what.contains("its person may not open"), "{what}");
    assert_eq!(two.there.outer(pid), None, "nothing of it is left");
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "root's\n");
}
