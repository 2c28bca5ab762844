//! OpenLDAP's slapd as Debian packages it: people looked up by name, with an index, over its own
//! socket. What an installation without XOS asks about its people.

use super::missing;
use crate::bench::suite::{Run, per_second};
use crate::bench::within::{Timing, nanos};
use crate::bench::{Progress, failed, scratch};
use crate::error::Context as _;
use crate::{Error, Result};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What must be installed.
const PROGRAMS: [&str; 3] = ["slapd", "slapadd", "ldapsearch"];
/// Its people.
const PEOPLE: usize = 100_000;
/// Look-ups between two looks at the clock, on one connection.
const LOOKUPS: usize = 5000;
/// Far apart.
const STRIDE: usize = 7919;
/// Longest that it may take to be there, or one command may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How often to look whether it is there.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Its configuration; `DIR` is the folder.
const CONFIG: &str = "\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
maxsize 1073741824
suffix dc=bench
directory DIR/db
index objectClass eq
index uid eq
";

/// Microseconds for a look-up, its mean in each repetition.
///
/// # Errors
/// When it is installed and does not work.
pub(in crate::bench) fn measure(run: &Run, say: Progress) -> Result<Option<Vec<f64>>> {
    let missing = missing(&PROGRAMS);
    if !missing.is_empty() {
        let missing = missing.join(", ");
        say(&format!("peer not installed: apt-get install slapd ldap-utils (missing: {missing})"));
        return Ok(None);
    }
    let folder = scratch(&run.dir)?;
    let dir = folder.path().canonicalize().context(|| "finding a folder".to_owned())?;
    prepare(&dir)?;
    let socket = dir.join("socket");
    let url = format!("ldapi://{}", socket.display().to_string().replace('/', "%2F"));
    let _daemon = Daemon::start(&dir, &url, &socket)?;
    let mut each = Vec::new();
    for _ in 0..run.repetitions {
        each.push(look_up(&dir, &url)?);
    }
    say(&format!("slapd runs with {PEOPLE} people, and {LOOKUPS} were looked up in a row"));
    Ok(Some(each))
}

fn prepare(dir: &Path) -> Result<()> {
    fs::create_dir(dir.join("db")).context(|| format!("making folders in {}", dir.display()))?;
    write(dir, "slapd.conf", &CONFIG.replace("DIR", &dir.display().to_string()))?;
    let mut people = "dn: dc=bench\nobjectClass: dcObject\nobjectClass: organization\n\
                      dc: bench\no: bench\n\n"
        .to_owned();
    for n in 0..PEOPLE {
        // Writing to a String cannot fail.
        let _infallible = write!(
            people,
            "dn: uid=m{n:07},dc=bench\nobjectClass: account\nobjectClass: posixAccount\n\
             uid: m{n:07}\ncn: m\nuidNumber: {}\ngidNumber: 1\nhomeDirectory: /\n\n",
            n + 1
        );
    }
    write(dir, "people", &people)?;
    let names: String = (0..LOOKUPS).map(|n| format!("m{:07}\n", n * STRIDE % PEOPLE)).collect();
    write(dir, "names", &names)?;
    let add = ["slapadd", "-q", "-f", "slapd.conf", "-l", "people"];
    run_in(dir, &add).map(drop)
}

/// Looks all names up; microseconds for one.
fn look_up(dir: &Path, url: &str) -> Result<f64> {
    let search = ["ldapsearch", "-x", "-LLL", "-H", url, "-b", "dc=bench", "-f", "names"];
    let search = [search.as_slice(), &["(uid=%s)", "uidNumber"]].concat();
    let begin = Instant::now();
    let said = run_in(dir, &search)?;
    let total_ns = nanos(begin);
    let found = said.lines().filter(|line| line.starts_with("uidNumber: ")).count();
    if found != LOOKUPS {
        return Err(failed("ldapsearch", format!("it found {found} of {LOOKUPS} people")));
    }
    Ok(1e6 / per_second(&Timing { each_ns: vec![0; LOOKUPS], total_ns }))
}

/// A slapd, which ends with this value.
struct Daemon(Child);

impl Daemon {
    fn start(dir: &Path, url: &str, socket: &Path) -> Result<Daemon> {
        let mut slapd = Command::new("slapd");
        slapd.current_dir(dir).args(["-d", "0", "-f", "slapd.conf", "-h", url]);
        let slapd = slapd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = slapd.spawn().context(|| "starting slapd".to_owned())?;
        let mut daemon = Daemon(child);
        let begin = Instant::now();
        while UnixStream::connect(socket).is_err() {
            let ended = daemon.0.try_wait().context(|| "looking after slapd".to_owned())?;
            if let Some(status) = ended {
                return Err(failed("slapd", format!("it ended at once: {status}")));
            }
            if begin.elapsed() > LIMIT {
                return Err(Error::Deadline { what: "slapd's socket".to_owned(), limit: LIMIT });
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Who has ended cannot be killed, and nothing waits for more.
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// What a program of the directory prints.
fn run_in(dir: &Path, argv: &[&str]) -> Result<String> {
    let mut command = Command::new("timeout");
    command.current_dir(dir).arg(LIMIT.as_secs().to_string()).args(argv).stdin(Stdio::null());
    let what = argv.first().copied().unwrap_or_default();
    let out = command.output().context(|| format!("running {what}"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        return Err(failed(what, format!("{}: {}", out.status, said.trim())));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn write(dir: &Path, name: &str, content: &str) -> Result<()> {
    let path = dir.join(name);
    fs::write(&path, content).context(|| format!("writing {}", path.display()))
}
