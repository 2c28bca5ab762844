//! How long it takes until what was taken from a member is gone, at every site: for tests and
//! benchmarks. Programs within the hosts look without a pause worth mentioning, and say by the
//! clock that all hosts share when they saw what they wait for.

use crate::grid::{PORT, Site};
use crate::{Cmd, Error, Host, Process, Result, Stdio};
use std::io::{BufRead, BufReader, PipeReader};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long anything is waited for.
const LIMIT: Duration = Duration::from_secs(120);
/// What a program within a host says when it looks from now on.
const READY: &str = "ready";

/// Waits until no process has the uid, effective or real.
const GONE: &str = "exec 2>&1; some() { pgrep -u $1 > /dev/null || pgrep -U $1 > /dev/null; }\n\
                    some $1 || { echo nothing of $1 runs; exit 1; }\n\
                    echo ready; while some $1; do sleep 0.005; done; date +%s%N";

/// Waits until a core refuses a token that it took before.
const REFUSED: &str = "exec 2>&1; ask() {\n\
    printf 'GET /v1/me HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nContent-Length: 0\\r\\n\
    Authorization: Bearer %s\\r\\n\\r\\n' \"$TOKEN\" |\n\
    openssl s_client -quiet -connect \"$1\" -alpn http/1.1 2> /dev/null | head -n 1; }\n\
    first=$(ask $1); case $first in *' 200 '*) echo ready;; *) echo \"$first\"; exit 1;; esac\n\
    until ask $1 | grep -q ' 40[13] '; do sleep 0.005; done; date +%s%N";

/// Opens a file as the member, and goes on as root: who holds a capability on a rooted node. Writes
/// until that is refused.
const WRITER: &str = r#"use IO::Handle; use Time::HiRes qw(time sleep); use Errno qw(EACCES EPERM);
$| = 1; open(STDERR, '>&', \*STDOUT);
my ($uid, $gid, $path) = @ARGV;
$) = "$gid $gid"; $> = $uid;
open(my $file, '+<', $path) or die "cannot open $path as $uid: $!";
$> = 0; $) = '0 0';
sub put { sysseek($file, 0, 0); return (syswrite($file, 'x') || 0) == 1 && $file->sync }
put() or die "cannot write $path: $!";
print "ready\n";
while (put()) { sleep 0.005 }
die "writing $path: $!" unless $! == EACCES || $! == EPERM;
printf "%.0f\n", time * 1e9;"#;

/// What is watched of a member at one site.
#[derive(Clone, Debug)]
pub struct Watched<'a> {
    /// The site. Something must run under the uid on each of its nodes.
    pub site: &'a Site,
    /// The member's uid there.
    pub uid: u32,
    /// The gid of the member's primary group there.
    pub gid: u32,
    /// A token of the member's in the VO, for that site.
    pub token: String,
    /// A file on the VO's volume that is there and that the member may write, who has work on the
    /// site's first node.
    pub file: String,
}

/// How long after the click something was so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// The site.
    pub site: String,
    /// No process of the uid was left on any of its nodes.
    pub gone: Duration,
    /// The site's core refused the token.
    pub token: Duration,
    /// Object servers refused the capability of a file that was open.
    pub capability: Duration,
}

/// Does `click`, and tells for each site when it was in force there.
///
/// # Errors
/// What `click` says; [`Error::Start`] when there is nothing to be waited for, or a program cannot
/// look; [`Error::Deadline`] when it is not in force within two minutes.
pub fn measure(all: &[Watched], click: impl FnOnce() -> Result<()>) -> Result<Vec<Times>> {
    let mut probes = all.iter().map(Probes::start).collect::<Result<Vec<_>>>()?;
    let start = SystemTime::now();
    click()?;
    all.iter().zip(&mut probes).map(|(watched, probes)| probes.times(watched, start)).collect()
}

/// What looks at one site.
struct Probes {
    nodes: Vec<Probe>,
    token: Probe,
    capability: Probe,
}

impl Probes {
    fn start(watched: &Watched) -> Result<Probes> {
        let name = &watched.site.name;
        let (uid, gid) = (watched.uid.to_string(), watched.gid.to_string());
        let first = watched.site.nodes.first().ok_or_else(|| Error::Start {
            what: format!("looking at site {name}"),
            reason: "it has no node".to_owned(),
        })?;
        let writer = limited("perl").args(["-e", WRITER, &uid, &gid, &watched.file]);
        let capability = Probe::start(first, format!("{name} refuses the capability"), writer)?;
        let core = format!("{name}-core:{PORT}");
        let asking = limited("sh").args(["-c", REFUSED, "sh", &core]).env("TOKEN", &watched.token);
        let token = Probe::start(&watched.site.core, format!("{name} refuses the token"), asking)?;
        let look = |node: &Host| {
            let what = format!("the last process of {uid} on {} ends", node.name());
            Probe::start(node, what, limited("sh").args(["-c", GONE, "sh", &uid]))
        };
        let nodes = watched.site.nodes.iter().map(look).collect::<Result<_>>()?;
        Ok(Probes { nodes, token, capability })
    }

    fn times(&mut self, watched: &Watched, start: SystemTime) -> Result<Times> {
        let mut gone = Duration::ZERO;
        for node in &mut self.nodes {
            gone = gone.max(node.after(start)?);
        }
        Ok(Times {
            site: watched.site.name.clone(),
            gone,
            token: self.token.after(start)?,
            capability: self.capability.after(start)?,
        })
    }
}

/// `program`, which ends after the limit whatever happens.
fn limited(program: &str) -> Cmd {
    Cmd::new("timeout").args([LIMIT.as_secs().to_string().as_str(), program])
}

/// A program within a host that says when it saw what it waits for.
struct Probe {
    what: String,
    said: BufReader<PipeReader>,
    _process: Process,
}

impl Probe {
    fn start(host: &Host, what: String, cmd: Cmd) -> Result<Probe> {
        let mut process = host.spawn(&cmd.stdio(Stdio::Piped))?;
        let failed = |reason: String| Error::Start { what: what.clone(), reason };
        let output = process.stdout.take();
        let output = output.ok_or_else(|| failed("it has no output".to_owned()))?;
        let mut probe =
            Probe { what: what.clone(), said: BufReader::new(output), _process: process };
        match probe.line()? {
            line if line == READY => Ok(probe),
            other => Err(failed(other)),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.said.read_line(&mut line);
        match read.map_err(|source| Error::System { what: self.what.clone(), source })? {
            0 => Err(Error::Deadline { what: self.what.clone(), limit: LIMIT }),
            _ => Ok(line.trim().to_owned()),
        }
    }

    /// How long after `start` it was so.
    fn after(&mut self, start: SystemTime) -> Result<Duration> {
        let line = self.line()?;
        since(start, &line)
            .ok_or_else(|| Error::Start { what: self.what.clone(), reason: line.clone() })
    }
}

/// How long after `start` the nanoseconds since 1970 are that a line holds.
fn since(start: SystemTime, line: &str) -> Option<Duration> {
    let then = UNIX_EPOCH.checked_add(Duration::from_nanos(line.parse().ok()?))?;
    Some(then.duration_since(start).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a program's complaint would count as a time, or a time be another one.
    #[test]
    fn a_line_is_a_moment_after_the_click() {
        let start = UNIX_EPOCH + Duration::from_millis(1000);
        assert_eq!(since(start, "1250000000"), Some(Duration::from_millis(250)));
        assert_eq!(since(start, "900000000"), Some(Duration::ZERO), "seen while it was clicked");
        for bad in ["", "writing /x: Input/output error", "-1", "1.5"] {
            assert_eq!(since(start, bad), None, "{bad}");
        }
    }
}
