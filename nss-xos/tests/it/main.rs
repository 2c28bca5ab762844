//! The module inside glibc: real `getent` and `id` in a private mount namespace, so that nothing on
//! the machine is touched.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod module;
mod namespace;
mod programs;

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use nss_xos as _;
use xos_base::{
    accounts::{AccountsBuilder, DEFAULT_PATH, User, write_atomic},
    local::{Envelope, FindUser, FoundUser, Reply, SOCKET, UserKey},
};

use module::{Linked, built};
use namespace::{bind, in_own_namespace, tmpfs};

const BASE: u32 = 1_879_048_192;
/// The module, as cargo names it.
const MODULE: &str = "libnss_xos.so";

/// One machine's view: own nsswitch.conf, own account file, the module in a folder of ours.
struct Machine {
    modules: tempfile::TempDir,
}

impl Machine {
    /// Must run in a thread that made its own mount namespace.
    fn furnish() -> Self {
        let modules = tempfile::tempdir().unwrap();
        fs::copy(built(MODULE), modules.path().join("libnss_xos.so.2")).unwrap();
        let switch = modules.path().join("nsswitch.conf");
        let lines =
            ["passwd", "group", "initgroups", "shadow"].map(|d| format!("{d}: files xos\n"));
        fs::write(&switch, lines.concat()).unwrap();
        bind(&switch, Path::new("/etc/nsswitch.conf"));
        for folder in ["/var/lib", "/run"] {
            tmpfs(Path::new(folder));
        }
        fs::create_dir_all(accounts().parent().unwrap()).unwrap();
        Self { modules }
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(args).env("LD_LIBRARY_PATH", self.modules.path()).output().unwrap()
    }

    /// What the program printed, or its exit code.
    fn ask(&self, program: &str, args: &[&str]) -> Result<String, i32> {
        let output = self.run(program, args);
        match output.status.code() {
            Some(0) => Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned()),
            Some(code) => Err(code),
            None => panic!("{program} {args:?} died: {output:?}"),
        }
    }
}

fn accounts() -> &'static Path {
    Path::new(DEFAULT_PATH)
}

fn sample() -> AccountsBuilder {
    let mut builder = AccountsBuilder::new(1);
    for (at, name) in ["alice.demo", "bob.demo"].iter().enumerate() {
        let (uid, gid) = (BASE + 10 + at as u32, BASE);
        let home = format!("/home/xos/{name}");
        let user = User { name, uid, gid, gecos: "A Person", home: &home, shell: "/bin/sh" };
        builder.user(user).unwrap();
    }
    builder.group("demo", BASE, []).unwrap();
    builder.group("writers.demo", BASE + 1, ["alice.demo", "bob.demo"]).unwrap();
    for at in 2..30 {
        builder.group(&format!("g{at}.demo"), BASE + at, ["alice.demo"]).unwrap();
    }
    builder
}

/// Runs `test` on a machine of its own, or says why it cannot.
fn on_a_machine(test: impl FnOnce(&Machine) + Send + 'static) {
    in_own_namespace(|| test(&Machine::furnish()));
}

#[test]
fn getent_and_id_know_the_members() {
    on_a_machine(|machine| {
        sample().write_atomic(accounts()).unwrap();
        let alice =
            format!("alice.demo:!*:{}:{BASE}:A Person:/home/xos/alice.demo:/bin/sh", BASE + 10);
        assert_eq!(machine.ask("getent", &["passwd", "alice.demo"]).unwrap(), alice);
        let uid = (BASE + 10).to_string();
        assert_eq!(machine.ask("getent", &["passwd", &uid]).unwrap(), alice);
        let writers = format!("writers.demo:!*:{}:alice.demo,bob.demo", BASE + 1);
        assert_eq!(machine.ask("getent", &["group", "writers.demo"]).unwrap(), writers);
        let gid = (BASE + 1).to_string();
        assert_eq!(machine.ask("getent", &["group", &gid]).unwrap(), writers);
        let everybody = machine.ask("getent", &["passwd"]).unwrap();
        assert!(everybody.lines().any(|l| l.starts_with("root:")) && everybody.contains(&alice));
        assert_eq!(machine.ask("getent", &["group"]).unwrap().matches(".demo:!*:").count(), 29);
        let groups = machine.ask("getent", &["initgroups", "alice.demo"]).unwrap();
        assert_eq!(groups.split_whitespace().count(), 1 + 29, "{groups}");
        let id = machine.ask("id", &["alice.demo"]).unwrap();
        assert!(id.starts_with(&format!("uid={uid}(alice.demo) gid={BASE}(demo)")), "{id}");
        assert!(id.contains("(writers.demo)") && id.contains("(g29.demo)"), "{id}");
        assert_eq!(machine.ask("getent", &["passwd", "nobody.demo"]), Err(2));
    });
}

#[test]
fn a_missing_damaged_or_foreign_file_leaves_the_machine_usable() {
    on_a_machine(|machine| {
        let ask = |name| machine.ask("getent", &["passwd", name]);
        assert_eq!(ask("alice.demo"), Err(2));
        let good = sample().build().unwrap();
        for len in [0, 10, 64, good.len() - 1] {
            write_atomic(accounts(), &good[..len]).unwrap();
            assert_eq!(ask("alice.demo"), Err(2));
            assert!(ask("root").is_ok());
            assert!(machine.ask("getent", &["passwd"]).is_ok());
        }
        for at in (0..good.len()).step_by(97) {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            write_atomic(accounts(), &bad).unwrap();
            assert_eq!(ask("alice.demo"), Err(2), "byte {at}");
        }
        // Written by a user who found a way into the folder: not believed.
        write_atomic(accounts(), &good).unwrap();
        assert!(ask("alice.demo").is_ok());
        std::os::unix::fs::chown(accounts(), Some(65534), None).unwrap();
        assert_eq!(ask("alice.demo"), Err(2));
    });
}

/// Answers `count` calls as `xosd` would, and gives what was asked.
fn xosd(count: usize) -> thread::JoinHandle<Vec<UserKey>> {
    fs::create_dir_all(Path::new(SOCKET).parent().unwrap()).unwrap();
    let listener = UnixListener::bind(SOCKET).unwrap();
    thread::spawn(move || {
        let answer = |_| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 4];
            stream.read_exact(&mut head).unwrap();
            let mut body = vec![0; u32::from_le_bytes(head) as usize];
            stream.read_exact(&mut body).unwrap();
            let asked: Envelope<FindUser> = serde_json::from_slice(&body).unwrap();
            let carol = FoundUser {
                name: "carol.demo.rennes".into(),
                uid: BASE + 77,
                gid: BASE,
                gecos: "Carol".into(),
                home: "/home/xos/carol.demo.rennes".into(),
                shell: "/bin/sh".into(),
            };
            let known = match &asked.with.by {
                UserKey::Name(name) => *name == carol.name,
                UserKey::Uid(uid) => *uid == carol.uid,
            };
            let body = serde_json::to_vec(&Reply::Ok(known.then_some(carol))).unwrap();
            stream.write_all(&u32::try_from(body.len()).unwrap().to_le_bytes()).unwrap();
            stream.write_all(&body).unwrap();
            asked.with.by
        };
        (0..count).map(answer).collect()
    })
}

/// If it failed, somebody who was just made a member could not sign in until the file was written.
#[test]
fn the_node_is_asked_for_a_new_grid_user() {
    on_a_machine(|machine| {
        sample().write_atomic(accounts()).unwrap();
        let asked = xosd(3);
        let ask = |key: &str| machine.ask("getent", &["passwd", key]);
        let carol = format!(
            "carol.demo.rennes:!*:{}:{BASE}:Carol:/home/xos/carol.demo.rennes:/bin/sh",
            BASE + 77
        );
        assert_eq!(ask("carol.demo.rennes").unwrap(), carol);
        assert_eq!(ask(&(BASE + 77).to_string()).unwrap(), carol);
        // None of these is a question for the node.
        for local in ["root", "alice.demo", "nobody.demo", "4242", "no:good.demo.rennes"] {
            drop(ask(local));
        }
        assert_eq!(ask("mallory.demo.rennes"), Err(2));
        let names = ["carol.demo.rennes", "mallory.demo.rennes"].map(|n| UserKey::Name(n.into()));
        let [carol, mallory] = names;
        assert_eq!(asked.join().unwrap(), [carol, UserKey::Uid(BASE + 77), mallory]);
        // The socket is there and nobody listens any more.
        assert_eq!(ask("carol.demo.rennes"), Err(2));
        assert!(ask("root").is_ok());
    });
}

/// If it failed, a stopped or hanging `xosd` would hang every program that shows an owner.
#[test]
fn a_node_that_hangs_costs_a_program_one_limit() {
    on_a_machine(|machine| {
        sample().write_atomic(accounts()).unwrap();
        fs::create_dir_all(Path::new(SOCKET).parent().unwrap()).unwrap();
        let _hangs = UnixListener::bind(SOCKET).unwrap();
        let unknown: Vec<String> = (100..600).map(|at| (BASE + at).to_string()).collect();
        let mut args = vec!["passwd"];
        args.extend(unknown.iter().map(String::as_str));
        let begun = Instant::now();
        assert_eq!(machine.ask("getent", &args), Err(2));
        // 500 limits of 50 ms would be 25 s.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    });
}

#[test]
fn the_module_needs_nothing_but_libc() {
    // It is loaded into sshd and sudo: a thread, a look-up of hosts or a TLS library there would be
    // a defect.
    let Some(linked) = Linked::read(&built(MODULE)) else { return };
    linked.needs_only(&["libc.so", "libgcc_s.so", "ld-linux"]);
    for name in ["getaddrinfo", "pthread_create", "setenv"] {
        assert!(!linked.has(name, false), "the module calls {name}");
    }
}
