//! The module inside glibc: real `getent` and `id` in a private mount namespace, so that nothing on
//! the machine is touched.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};
use nss_xos as _;
use xos_base::accounts::{AccountsBuilder, DEFAULT_PATH, User, write_atomic};

const BASE: u32 = 1_879_048_192;

/// One machine's view: own nsswitch.conf, own account file, the module in a folder of ours.
struct Machine {
    modules: tempfile::TempDir,
}

impl Machine {
    /// Must run in a thread that made its own mount namespace.
    fn furnish() -> Self {
        let modules = tempfile::tempdir().unwrap();
        fs::copy(built_module(), modules.path().join("libnss_xos.so.2")).unwrap();
        let switch = modules.path().join("nsswitch.conf");
        fs::write(&switch, "passwd: files xos\ngroup: files xos\ninitgroups: files xos\n").unwrap();
        let none = None::<&str>;
        mount(Some(&switch), "/etc/nsswitch.conf", none, MsFlags::MS_BIND, none).unwrap();
        mount(Some("tmpfs"), "/var/lib", Some("tmpfs"), MsFlags::empty(), none).unwrap();
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

fn built_module() -> PathBuf {
    let deps = env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let found = [deps.join("libnss_xos.so"), deps.join("../libnss_xos.so")];
    found.into_iter().find(|path| path.exists()).expect("cargo built no libnss_xos.so")
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

/// Runs `test` in a thread with its own mount namespace, or says why it cannot.
fn in_own_namespace(test: impl FnOnce(&Machine) + Send + 'static) {
    if !geteuid().is_root() {
        println!("skipped: making a mount namespace needs root");
        return;
    }
    let thread = thread::spawn(move || {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNS) {
            println!("skipped: this kernel gives no mount namespace: {errno}");
            return;
        }
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        test(&Machine::furnish());
    });
    thread.join().unwrap();
}

#[test]
fn getent_and_id_know_the_members() {
    in_own_namespace(|machine| {
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
    in_own_namespace(|machine| {
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

#[test]
fn the_module_needs_nothing_but_libc() {
    // It is loaded into sshd and sudo: a thread, a socket or a TLS library there would be a defect.
    let output = Command::new("readelf").args(["-d", "--"]).arg(built_module()).output();
    let Ok(output) = output else {
        println!("skipped: no readelf on this machine");
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let needed = text.lines().filter(|line| line.contains("(NEEDED)"));
    for line in needed {
        assert!(["libc.so", "libgcc_s.so", "ld-linux"].iter().any(|l| line.contains(l)), "{line}");
    }
    let symbols = Command::new("readelf").args(["-W", "--dyn-syms"]).arg(built_module()).output();
    let symbols = String::from_utf8(symbols.unwrap().stdout).unwrap();
    for name in ["socket", "connect", "pthread_create"] {
        let used = symbols.lines().any(|l| {
            l.contains(" UND ") && l.split_whitespace().any(|w| w.split('@').next() == Some(name))
        });
        assert!(!used, "the module calls {name}");
    }
}
