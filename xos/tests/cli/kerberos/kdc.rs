//! A real KDC of MIT Kerberos on loopback, for two realms that trust one another.

use crate::world::serve;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The realm of the site's people.
pub const HOME: &str = "RENNES.TEST";
/// One that the site does not know.
pub const ABROAD: &str = "LYON.TEST";

const PROGRAMS: [&str; 5] = [
    "/usr/sbin/krb5kdc",
    "/usr/sbin/kdb5_util",
    "/usr/sbin/kadmin.local",
    "/usr/bin/kinit",
    "/usr/bin/klist",
];

/// Ended with the test.
pub struct Kdc {
    dir: PathBuf,
    child: Child,
}

impl Drop for Kdc {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Kdc {
    /// Starts it, with its files in `dir`. `None`, with the reason printed, where it is not
    /// installed.
    pub fn start(dir: &Path) -> Option<Kdc> {
        if let Some(missing) = PROGRAMS.iter().find(|p| !Path::new(p).exists()) {
            println!(
                "skipped: no {missing} here (Debian packages krb5-kdc, krb5-admin-server, krb5-user)"
            );
            return None;
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        write_configuration(dir, &free.to_string());
        let run = |program: &str, args: &[&str], input: &str| {
            let mut command = Command::new(program);
            let command = command.args(args).envs(variables(dir)).current_dir(dir);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            assert!(child.wait().unwrap().success(), "{program} {args:?}");
        };
        for realm in [HOME, ABROAD] {
            run(PROGRAMS[1], &["-r", realm, "-P", "master", "create", "-s"], "");
        }
        let trust = format!("addprinc -pw shared krbtgt/{HOME}@{ABROAD}\n");
        let services = "addprinc -randkey HTTP/localhost\naddprinc -randkey host/localhost\n\
                        ktadd -k core.keytab HTTP/localhost host/localhost\n";
        run(
            PROGRAMS[2],
            &["-r", HOME],
            &format!("{trust}{services}{}", people(&["ada", "alice", "alice/admin"])),
        );
        run(PROGRAMS[2], &["-r", ABROAD], &format!("{trust}{}", people(&["bob"])));
        let mut server = Command::new(PROGRAMS[0]);
        server.args(["-n", "-r", HOME, "-r", ABROAD]).envs(variables(dir)).current_dir(dir);
        let child = serve(server.stdout(Stdio::null()), "commencing operation");
        Some(Kdc { dir: dir.to_owned(), child })
    }

    /// Gets a ticket for `principal` into a cache of its own; what a program needs to use it.
    pub fn ticket(&self, principal: &str, more: &[&str]) -> Vec<(&'static str, PathBuf)> {
        let cache = self.dir.join(format!("cache-{}", principal.replace('/', "-")));
        let mut all = variables(&self.dir);
        all.push(("KRB5CCNAME", cache));
        let mut kinit = Command::new(PROGRAMS[3]);
        kinit.args(["-k", "-t", "people.keytab"]).args(more).arg(principal);
        let out = kinit.envs(all.clone()).current_dir(&self.dir).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        all
    }

    /// What a program needs to find the KDC.
    pub fn variables(&self) -> Vec<(&'static str, PathBuf)> {
        variables(&self.dir)
    }
}

/// Whether the ticket in a cache still holds.
pub fn holds(variables: &[(&'static str, PathBuf)]) -> bool {
    Command::new(PROGRAMS[4]).arg("-s").envs(variables.to_vec()).status().unwrap().success()
}

fn variables(dir: &Path) -> Vec<(&'static str, PathBuf)> {
    vec![
        ("KRB5_CONFIG", dir.join("krb5.conf")),
        ("KRB5_KDC_PROFILE", dir.join("kdc.conf")),
        ("KRB5RCACHEDIR", dir.to_owned()),
        ("KRB5CCNAME", dir.join("no-cache")),
    ]
}

fn people(names: &[&str]) -> String {
    let one = |n: &&str| format!("addprinc -randkey {n}\nktadd -k people.keytab {n}\n");
    names.iter().map(one).collect()
}

fn write_configuration(dir: &Path, address: &str) {
    let client = format!(
        "[libdefaults]\ndefault_realm = {HOME}\nclockskew = 1\ndns_lookup_kdc = false\n\
         dns_lookup_realm = false\ndns_canonicalize_hostname = false\nrdns = false\n\
         qualify_shortname = \"\"\n[realms]\n{HOME} = {{\nkdc = {address}\n}}\n\
         {ABROAD} = {{\nkdc = {address}\n}}\n[domain_realm]\nlocalhost = {HOME}\n"
    );
    std::fs::write(dir.join("krb5.conf"), client).unwrap();
    let realm = |name: &str| {
        let base = dir.join(name).display().to_string();
        format!("{name} = {{\ndatabase_name = {base}\nkey_stash_file = {base}.stash\n}}\n")
    };
    let server = format!(
        "[kdcdefaults]\nkdc_listen = {address}\nkdc_tcp_listen = {address}\n[realms]\n{}{}\
         [logging]\nkdc = STDERR\ndefault = STDERR\n",
        realm(HOME),
        realm(ABROAD)
    );
    std::fs::write(dir.join("kdc.conf"), server).unwrap();
}
