//! One machine's view: own accounts, own PAM services, own log, and the module as it was built.

use crate::module::built;
use crate::namespace::{bind, in_own_namespace, tmpfs};
use nix::mount::{MsFlags, mount};
use nss_xos as _;
use pam_xos as _;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, SystemTime};
use std::{fs, thread};
use xos_base::Millis;
use xos_base::accounts::{AccountsBuilder, DEFAULT_PATH, User};

/// A grid account of the machine.
pub(crate) const ALICE: &str = "alice.demo";
/// Her uid.
pub(crate) const ALICE_UID: u32 = 1_879_048_202;
/// Her VO's gid.
const DEMO_GID: u32 = 1_879_048_192;
/// The PAM service of the tests.
const SERVICE: &str = "xos-test";
/// What a host has in `/dev`, as far as programs here use it.
const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
/// Ends what was logged so far.
const MARK: &str = "mark";
/// Ends the log.
const END: &str = "end";

/// A machine of a test's own, and its folder.
pub(crate) struct Machine {
    dir: tempfile::TempDir,
    log: Receiver<String>,
}

/// How `pamtester` ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Whether every operation was done.
    pub(crate) good: bool,
    /// Its process.
    pub(crate) pid: u32,
    /// What it printed, messages of the module among it.
    pub(crate) out: String,
    /// Error messages, and PAM's words for a failure.
    pub(crate) err: String,
}

/// PAM's words for its codes (`pam_strerror`).
pub(crate) mod words {
    pub(crate) const PERM_DENIED: &str = "Permission denied";
    pub(crate) const AUTH_ERR: &str = "Authentication failure";
    pub(crate) const UNAVAIL: &str = "Authentication service cannot retrieve authentication info";
    pub(crate) const EXPIRED: &str = "User account has expired";
    pub(crate) const SESSION_ERR: &str = "Cannot make/remove an entry for the specified session";
}

impl Machine {
    /// Must run in a thread that made its own mount namespace.
    fn furnish() -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::copy(built("libnss_xos.so"), at("libnss_xos.so.2")).unwrap();
        fs::copy(built("libpam_xos.so"), at("pam_xos.so")).unwrap();
        fs::write(at("nsswitch.conf"), "passwd: files xos\ngroup: files xos\n").unwrap();
        bind(&at("nsswitch.conf"), Path::new("/etc/nsswitch.conf"));
        fs::create_dir(at("pam.d")).unwrap();
        bind(&at("pam.d"), Path::new("/etc/pam.d"));
        fs::create_dir(at("seen")).unwrap();
        fs::set_permissions(at("seen"), fs::Permissions::from_mode(0o700)).unwrap();
        tmpfs(Path::new("/var/lib"));
        fs::create_dir_all(Path::new(DEFAULT_PATH).parent().unwrap()).unwrap();
        accounts().write_atomic(Path::new(DEFAULT_PATH)).unwrap();

        fs::create_dir(at("dev")).unwrap();
        tmpfs(&at("dev"));
        for device in DEVICES {
            let place = at("dev").join(device);
            fs::write(&place, "").unwrap();
            bind(&Path::new("/dev").join(device), &place);
        }
        let none = None::<&str>;
        mount(Some(&at("dev")), "/dev", none, MsFlags::MS_MOVE, none).unwrap();
        let machine = Machine { log: listen(), dir };
        machine.service("", "", "");
        machine
    }

    /// A path in the machine's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where `xosd` would listen.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("socket")
    }

    /// The record of when Alice was let in before.
    pub(crate) fn seen(&self) -> PathBuf {
        self.path("seen").join(ALICE_UID.to_string())
    }

    /// Writes that record, as `xosd` does.
    pub(crate) fn write_seen(&self, until: Millis) {
        let _ = fs::remove_file(self.seen());
        fs::write(self.seen(), until.0.to_string()).unwrap();
        fs::set_permissions(self.seen(), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Writes the PAM service: the example, with more arguments for the module, and more lines
    /// before and after those that are there.
    pub(crate) fn service(&self, arguments: &str, before: &str, after: &str) {
        let line = format!(
            "{} socket={} seen={} {arguments}",
            self.path("pam_xos.so").display(),
            self.socket().display(),
            self.path("seen").display()
        );
        let example = include_str!("../../pam.d.example");
        assert_eq!(example.matches("  pam_xos.so\n").count(), 4, "{example}");
        let text = example.replace("pam_xos.so\n", &format!("{line}\n"));
        let text = format!("{before}\n{text}\n{after}\n");
        fs::write(self.path("pam.d").join(SERVICE), text).unwrap();
    }

    /// Runs `pamtester` for a user, who types this.
    pub(crate) fn pam(&self, options: &[&str], user: &str, what: &[&str], typed: &str) -> Ended {
        let mut command = Command::new("pamtester");
        command.args(options).args([SERVICE, user]).args(what);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LD_LIBRARY_PATH", self.dir.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let pid = child.id();
        // It may end without reading.
        let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.code().is_some(), "{user:?} {what:?}: it died: {ended:?}");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&ended.stdout), text(&ended.stderr));
        Ended { good: ended.status.success(), pid, out, err }
    }

    /// The account phase for Alice.
    pub(crate) fn account(&self) -> Ended {
        self.pam(&[], ALICE, &["acct_mgmt"], "")
    }

    /// What was logged since the last time, a line each.
    pub(crate) fn logged(&self) -> Vec<String> {
        write_log(MARK);
        self.log.iter().take_while(|line| line != MARK).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        write_log(END);
    }
}

fn write_log(line: &str) {
    UnixDatagram::unbound().unwrap().send_to(line.as_bytes(), "/dev/log").unwrap();
}

fn accounts() -> AccountsBuilder {
    let mut builder = AccountsBuilder::new(1);
    let (home, shell) = ("/home/xos/alice", "/bin/sh");
    let alice = User { name: ALICE, uid: ALICE_UID, gid: DEMO_GID, gecos: "A Person", home, shell };
    builder.user(alice).unwrap();
    builder.group("demo", DEMO_GID, []).unwrap();
    builder
}

/// Reads what programs log, so that none of them waits.
fn listen() -> Receiver<String> {
    let socket = UnixDatagram::bind("/dev/log").unwrap();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(length) = socket.recv(&mut buffer) {
            let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if line == END || sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A time that a record of somebody seen before may hold.
pub(crate) fn in_an_hour() -> Millis {
    Millis::of(SystemTime::now()).plus(Duration::from_secs(3600))
}

/// Refused with PAM's words, and with ours on the person's screen and in the log.
#[track_caller]
pub(crate) fn refused(machine: &Machine, ended: &Ended, pam: &str, ours: &str) {
    assert!(!ended.good && ended.err.contains(pam), "{ended:?}");
    assert!(ended.err.contains(ours), "not told to the person: {ended:?}");
    let log = machine.logged();
    let told = log.iter().any(|l| l.contains("pam_xos(xos-test:") && l.contains(ours));
    assert!(told, "not told to the log: {log:#?}");
}

/// Runs `test` on a machine of its own, or says why it cannot.
pub(crate) fn on_a_machine(test: impl FnOnce(&Machine) + Send + 'static) {
    if Command::new("pamtester").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        println!("skipped: no pamtester on this machine");
        return;
    }
    in_own_namespace(|| test(&Machine::furnish()));
}
