//! Look-ups of accounts: by the module of XOS and by libnss-extrausers called alone, as glibc calls
//! them; and through glibc by these and by its own `files`, each as the only one that
//! nsswitch.conf(5) names. Through glibc each look-up begins with a `stat` of that file.

use super::module::{Module, library};
use crate::bench::figure::{Figure, Reach};
use crate::bench::samples::Samples;
use crate::bench::suite::{Run, Sheet, millis};
use crate::bench::within::{Timing, nanos};
use crate::bench::world::timing;
use crate::bench::{failed, scratch};
use crate::error::Context as _;
use crate::{Cmd, Host, HostSpec, Result, Testbed, TestbedConfig};
use nix::unistd::{Uid, User as Found};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use xos_base::accounts::{AccountsBuilder, AccountsError, DEFAULT_PATH, ID_RANGE, User};

/// How many accounts there are.
const SIZES: [u32; 3] = [10, 10_000, 100_000];
/// Far apart in a file, so that one look-up does not warm the next.
const STRIDE: u32 = 7919;
/// Look-ups between two looks at the clock.
const BATCH: u32 = 16;
/// Most look-ups of one measurement.
const LOOKUPS_MAX: u32 = 160_000;
/// Longest that one measurement goes on.
const LOOK_FOR: Duration = Duration::from_secs(3);
/// Longest that a command within the host may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Where the module of XOS is found in the host.
const MODULES: &str = "/opt/nss";
/// Where the others find their accounts.
const PASSWD: [&str; 2] = ["/etc/passwd", "/var/lib/extrausers/passwd"];
/// What must be reached at every size, in microseconds.
const REACH_US: f64 = 3.0;

/// Writes files of so many accounts where the three modules look for them. Runs within a host.
///
/// # Errors
/// When a file cannot be written.
pub fn write_accounts(users: u32) -> Result<()> {
    let fail = |e: AccountsError| failed("writing the account file", e);
    let names: Vec<String> = (0..users).map(name).collect();
    let gid = *ID_RANGE.start();
    let mut builder = AccountsBuilder::new(u64::from(users));
    let mut rows = "root:x:0:0:root:/root:/bin/bash\n".to_owned();
    for (n, name) in (0..).zip(&names) {
        let (uid, home) = (uid(n), format!("/home/xos/{name}"));
        let (gecos, shell) = ("Some Person", "/bin/bash");
        builder.user(User { name, uid, gid, gecos, home: &home, shell }).map_err(fail)?;
        rows += &format!("{name}:x:{uid}:{gid}:{gecos}:{home}:{shell}\n");
    }
    builder.group("demo", gid, names.iter().map(String::as_str)).map_err(fail)?;
    for path in PASSWD.into_iter().chain([DEFAULT_PATH]) {
        let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).context(|| format!("making {}", folder.display()))?;
    }
    for path in PASSWD {
        fs::write(path, &rows).context(|| format!("writing {path}"))?;
    }
    builder.write_atomic(Path::new(DEFAULT_PATH)).map_err(fail)
}

/// Looks accounts up by name or by uid: as any program does, or by `module` alone. Runs within a
/// host.
///
/// # Errors
/// When one is not found; when the module cannot be loaded.
pub fn look_up(users: u32, by_id: bool, module: Option<&str>) -> Result<Timing> {
    let users = users.max(1);
    let names: Vec<String> = (0..users).map(name).collect();
    let mut module = module.map(Module::load).transpose()?;
    let mut once = |n: u32| {
        let n = n.wrapping_mul(STRIDE) % users;
        let name = &names[n as usize];
        let found = match (&mut module, by_id) {
            (Some(module), true) => module.has_uid(uid(n)),
            (Some(module), false) => module.has_name(name)?,
            (None, true) => through_libc(Found::from_uid(Uid::from_raw(uid(n))))?,
            (None, false) => through_libc(Found::from_name(name))?,
        };
        found.then_some(()).ok_or_else(|| failed("a look-up", format!("{name} is not there")))
    };
    // The module is loaded, and its file read, once in a process.
    once(0)?;
    let (begin, mut each_ns, mut next) = (Instant::now(), Vec::new(), 1);
    while next < LOOKUPS_MAX && begin.elapsed() < LOOK_FOR {
        let batch = Instant::now();
        for n in next..next + BATCH {
            once(n)?;
        }
        each_ns.push(nanos(batch) / u64::from(BATCH));
        next += BATCH;
    }
    Ok(Timing { each_ns, total_ns: nanos(begin) })
}

fn through_libc(found: nix::Result<Option<Found>>) -> Result<bool> {
    found.map(|f| f.is_some()).map_err(|e| failed("a look-up", e))
}

fn name(n: u32) -> String {
    format!("person{n}.demo.rennes")
}

fn uid(n: u32) -> u32 {
    ID_RANGE.start() + 10 + n
}

/// All sizes, by name and by uid.
pub(super) fn measure(run: &Run, sheet: &mut Sheet) -> Result<()> {
    let folder = scratch(&run.dir)?;
    let testbed = Testbed::create(TestbedConfig::new(folder.path().join("names"), "names")?)?;
    let host = testbed.add_host(HostSpec::new("names")?)?;
    let programs = run.program.parent().unwrap_or(Path::new(".")).display();
    let link = format!("ln -s {programs}/libnss_xos.so {MODULES}/libnss_xos.so.2");
    host.run(&Cmd::shell(format!("mkdir -p {MODULES} && {link}")))?.ok()?;
    let extrausers = run.peers && has_extrausers(&host)?;
    if run.peers && !extrausers {
        (sheet.say)("peer not installed: apt-get install libnss-extrausers");
    }
    let machine = Machine { host, run };
    for users in SIZES {
        machine.within(&["write-accounts", "--users", &users.to_string()])?.ok()?;
        for (function, by_id) in [("getpwnam", false), ("getpwuid", true)] {
            let what = format!("{function}, {users} accounts");
            let extra = |alone| extrausers.then(|| machine.look("extrausers", users, by_id, alone));
            let ours = machine.look("xos", users, by_id, true)?;
            let figure = Figure::new(format!("{what}, module alone"), &ours, "us");
            let figure = figure.reach(Reach::AtMost(REACH_US));
            let peer = extra(true).transpose()?;
            sheet.add(figure.beside("libnss-extrausers", peer.as_ref()), &ours);
            let ours = machine.look("xos", users, by_id, false)?;
            let files =
                run.peers.then(|| machine.look("files", users, by_id, false)).transpose()?;
            let figure = Figure::new(format!("{what}, through glibc"), &ours, "us");
            sheet.add(figure.beside("glibc files", files.as_ref()), &ours);
            if let Some(peer) = extra(false).transpose()? {
                let figure = Figure::new(format!("  {function}, the same"), &ours, "us");
                sheet.add(figure.beside("libnss-extrausers", Some(&peer)), &ours);
            }
        }
    }
    testbed.destroy()
}

fn has_extrausers(host: &Host) -> Result<bool> {
    let look = format!("ldconfig -p | grep -qF {}", library("extrausers"));
    Ok(host.run(&Cmd::shell(look))?.exit.is_success())
}

struct Machine<'a> {
    host: Host,
    run: &'a Run,
}

impl Machine<'_> {
    fn within(&self, args: &[&str]) -> Result<crate::Output> {
        let cmd = Cmd::new(&self.run.program).arg("within").args(args);
        self.host.run(&cmd.env("LD_LIBRARY_PATH", MODULES).limit(LIMIT))
    }

    /// Microseconds of a look-up by this module: called alone, or through glibc with no other.
    fn look(&self, module: &str, users: u32, by_id: bool, alone: bool) -> Result<Samples> {
        let text = format!("passwd: {module}\ngroup: files\nhosts: files\n");
        self.host.write_file("/etc/nsswitch.conf", text.as_bytes(), 0o644)?;
        let users = users.to_string();
        let mut args = vec!["look-up", "--users", &users];
        args.extend(by_id.then_some("--by-id"));
        if alone {
            args.extend(["--module", module]);
        }
        let timing = timing(&self.within(&args)?.ok()?)?;
        Ok(millis(&timing).map(|ms| ms * 1e3))
    }
}
