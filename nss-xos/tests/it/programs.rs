//! Programs that a module could hurt: set-user-id ones, and those that are linked statically.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use xos_base::accounts::write_atomic;

use super::namespace::{bind, tmpfs};
use super::{BASE, Machine, accounts, on_a_machine, sample};

/// A user who is nobody.
const NOBODY: u32 = 65_534;

impl Machine {
    /// Puts the module where programs find it that take nothing from their environment.
    fn install(&self) -> bool {
        let folder = self.modules.path();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        let (list, cache) = (folder.join("ld.so.conf"), folder.join("ld.so.cache"));
        fs::write(&list, format!("{}\ninclude /etc/ld.so.conf\n", folder.display())).unwrap();
        let mut ldconfig = Command::new("/sbin/ldconfig");
        let made = ldconfig.arg("-X").arg("-f").arg(&list).arg("-C").arg(&cache).status();
        if !made.is_ok_and(|status| status.success()) {
            println!("skipped: ldconfig makes no list of libraries here");
            return false;
        }
        bind(&cache, Path::new("/etc/ld.so.cache"));
        true
    }

    /// A folder in which set-user-id bits count.
    fn programs(&self) -> PathBuf {
        let folder = self.modules.path().join("programs");
        fs::create_dir(&folder).unwrap();
        tmpfs(&folder);
        folder
    }
}

/// If it failed, `sudo` and `su` would not know grid accounts, or could be led to another module or
/// file by whoever calls them.
#[test]
fn a_set_user_id_program_takes_nothing_from_its_environment() {
    on_a_machine(|machine| {
        sample().write_atomic(accounts()).unwrap();
        if !machine.install() {
            return;
        }
        let program = machine.programs().join("id");
        fs::copy("/usr/bin/id", &program).unwrap();
        chown(&program, Some(0), Some(0)).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
        let run = |args: &[&str]| {
            let mut command = Command::new(&program);
            command.args(args).uid(NOBODY).gid(NOBODY).env("LD_LIBRARY_PATH", "/nowhere");
            for name in ["XOS_HOME", "XOS_ACCOUNTS", "XOS_SOCKET"] {
                command.env(name, "/nowhere");
            }
            let output = command.output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(run(&["-u"]), "0\n", "it did not run set-user-id");
        let id = run(&["alice.demo"]);
        assert!(id.starts_with(&format!("uid={}(alice.demo) gid={BASE}(demo)", BASE + 10)), "{id}");
        assert!(id.contains("(writers.demo)"), "{id}");
        write_atomic(accounts(), b"junk").unwrap();
        assert_eq!(run(&["-un"]), "root\n");
    });
}

/// If it failed, `su` would be refused by `pam_unix` for want of a shadow entry, or an
/// administrator would not see that the account has no password.
#[test]
fn stock_tools_take_an_account_without_shadow_entry() {
    on_a_machine(|machine| {
        sample().write_atomic(accounts()).unwrap();
        if !machine.install() {
            return;
        }
        let su = |user| machine.ask("su", &["-s", "/bin/sh", "-c", "id -u; id -Gn", user]);
        if su("nobody").is_err() {
            println!("skipped: su does not work on this machine");
            return;
        }
        let said = su("alice.demo").unwrap();
        assert!(said.starts_with(&format!("{}\ndemo ", BASE + 10)), "{said}");
        assert!(said.contains(" writers.demo ") && said.contains("g29.demo"), "{said}");
        assert_eq!(machine.ask("getent", &["shadow", "alice.demo"]), Err(2));
        assert!(machine.ask("getent", &["shadow", "root"]).is_ok());
        let locked = machine.ask("passwd", &["-S", "alice.demo"]).unwrap();
        assert!(locked.starts_with("alice.demo L"), "{locked}");
    });
}

/// What a static program does with names: glibc loads the module into it.
const STATIC_PROGRAM: &str = r#"
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        gid_t gids[64];
        int count = 64;
        struct passwd *found = getpwnam(argv[i]);
        if (!found) { printf("%s is unknown\n", argv[i]); continue; }
        if (getgrouplist(argv[i], found->pw_gid, gids, &count) < 0) return 1;
        printf("%s %u %d\n", found->pw_name, found->pw_uid, count);
    }
    return 0;
}
"#;

/// If it failed, naming the module in nsswitch.conf would break rescue tools.
#[test]
fn a_static_program_runs_on() {
    on_a_machine(|machine| {
        sample().write_atomic(accounts()).unwrap();
        let folder = machine.modules.path();
        let (source, program) = (folder.join("names.c"), folder.join("names"));
        fs::write(&source, STATIC_PROGRAM).unwrap();
        let mut cc = Command::new("cc");
        let built = cc.args(["-static", "-w", "-o"]).arg(&program).arg(&source).output();
        if built.is_ok_and(|output| output.status.success()) {
            let program = program.to_str().unwrap();
            let said = machine.ask(program, &["root", "alice.demo", "nobody.demo"]).unwrap();
            let lines: Vec<&str> = said.lines().collect();
            assert!(lines[0].starts_with("root 0 "), "{said}");
            let alice = format!("alice.demo {} 30", BASE + 10);
            assert_eq!(lines[1..], [alice.as_str(), "nobody.demo is unknown"]);
            write_atomic(accounts(), b"junk").unwrap();
            assert!(machine.ask(program, &["root", "alice.demo"]).unwrap().starts_with("root 0 "));
        } else {
            println!("skipped: no C compiler with a static libc here");
        }
        match Command::new("busybox").arg("true").status() {
            Ok(status) if status.success() => {
                let said = machine.ask("busybox", &["id", "root"]).unwrap();
                assert!(said.starts_with("uid=0(root)"), "{said}");
            }
            _ => println!("skipped: no busybox here"),
        }
    });
}
