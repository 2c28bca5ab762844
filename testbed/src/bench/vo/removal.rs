//! A member who has sessions, programs outside of them and a unit at each of two sites is removed:
//! how long from the click until all of that is gone, and what they hold is refused.

use super::figures::Measured;
use crate::bench::suite::Run;
use crate::bench::{Progress, failed, scratch};
use crate::grid::{Grid, Person, Site, SiteSpec, wait_for};
use crate::removal::{Times, Watched, measure as watch};
use crate::{Cmd, Error, Host, Result};
use std::path::Path;
use std::time::Duration;

/// The VO, and its volume on every node.
const VO: &str = "bench.rennes";
const VOLUME: &str = "/xtreemfs/bench.rennes";
/// What each of a member's programs is: these are counted.
const PROGRAM: &str = "sleep 3600";
/// Longest that a command may take: a job waits for the accounts and the volume.
const LIMIT: Duration = Duration::from_secs(120);

/// Seconds of each round, at the site where it took longest; and of the worst round.
pub(super) fn measure(run: &Run, say: Progress) -> Result<Measured> {
    if !Site::can_be_signed_in_to() {
        return Err(failed("removal", "needs apt-get install openssh-server libpam-runtime"));
    }
    let scratch = scratch(&run.dir)?;
    let programs = run.program.parent().unwrap_or(Path::new("."));
    let grid = Grid::create(&scratch.path().join("grid"), programs, false)?;
    let world = World::start(grid)?;
    say("two sites of two nodes serve one VO");
    let mut rounds = Vec::with_capacity(run.repetitions);
    for round in 0..run.repetitions {
        let times = world.round(&format!("member{round}"), run)?;
        say(&format!("removed: {times:?}"));
        rounds.push(times);
    }
    Ok(measured(&rounds))
}

/// What is told of rounds.
fn measured(rounds: &[Vec<Times>]) -> Measured {
    let columns: [(&str, fn(&Times) -> Duration); 3] =
        [("gone", |t| t.gone), ("token", |t| t.token), ("capability", |t| t.capability)];
    let mut measured = Measured::new();
    for (name, of) in columns {
        let last = |times: &Vec<Times>| times.iter().map(of).max().unwrap_or_default();
        let all: Vec<f64> = rounds.iter().map(last).map(|d| d.as_secs_f64()).collect();
        let worst = all.iter().copied().fold(f64::NAN, f64::max);
        measured.insert(format!("{name}.median"), all);
        measured.insert(format!("{name}.worst"), vec![worst]);
    }
    measured
}

struct World {
    grid: Grid,
    sites: [Site; 2],
    owner: Person,
}

impl World {
    /// Two sites, and a VO that both serve.
    fn start(grid: Grid) -> Result<World> {
        let site = |name: &str| grid.add_site(&SiteSpec { login: true, ..SiteSpec::new(name) });
        let sites = [site("rennes")?, site("pisa")?];
        let [rennes, pisa] = &sites;
        rennes.exchange_trust(pisa)?;
        let owner = grid.enrol(rennes, "vera")?;
        let (label, _) = VO.split_once('.').unwrap_or((VO, ""));
        grid.xos(&owner, &["vo", "found", label, "--title", "Benchmark"])?;
        for site in &sites {
            let share = ["--cpus", "4", "--memory", "4G", "--storage", "8G"];
            site.admin(&[&["vo", "share", "offer", VO], share.as_slice()].concat())?;
            grid.sign_in(&owner)?;
            grid.xos(&owner, &["vo", "share", "accept", VO, &site.name])?;
        }
        grid.sign_in(&owner)?;
        Ok(World { grid, sites, owner })
    }

    /// One member, who comes, works everywhere, and is removed.
    fn round(&self, name: &str, run: &Run) -> Result<Vec<Times>> {
        let member = self.grid.enrol(&self.sites[0], name)?;
        self.grid.xos(&member, &["vo", "apply", VO, "-m", "to be removed"])?;
        self.grid.xos(&self.owner, &["vo", "approve", VO, &member.id()])?;
        self.grid.sign_in(&member)?;
        let watched = self.sites.iter().map(|site| self.work(&member, site, run));
        let watched = watched.collect::<Result<Vec<Watched>>>()?;
        watch(&watched, || {
            self.grid.xos(&self.owner, &["vo", "remove", VO, &member.id()]).map(drop)
        })
    }

    /// Lets a member work on all nodes of a site.
    fn work<'a>(&self, member: &Person, site: &'a Site, run: &Run) -> Result<Watched<'a>> {
        let (name, account) = (&site.name, format!("{}.{VO}", member.name));
        let file = format!("{VOLUME}/of-{}-{name}", member.name);
        let write = format!("echo x > {file}");
        self.xsub(member, &["--on", name, "--", "sh", "-c", &write])?;
        self.xsub(member, &["--detach", "--on", name, "--", "sh", "-c", PROGRAM])?;
        let mut ids = None;
        for (n, node) in (1..).zip(&site.nodes) {
            let (uid, gid) = (id(node, &account, "-u")?, id(node, &account, "-g")?);
            self.sign_in(member, &format!("n{n}.{name}"))?;
            // As what cron or at starts: no session knows of it.
            let aside = format!("setsid setpriv --reuid={uid} --regid={gid} --clear-groups");
            let aside = format!("{aside} {PROGRAM} < /dev/null > /dev/null 2>&1 &");
            node.run(&Cmd::shell(aside))?.ok()?;
            wait_for(&format!("three programs of {account} on {}", node.name()), || {
                let count = format!("[ $(pgrep -c -u {uid} -x sleep) -ge 3 ]");
                Ok(node.run(&Cmd::shell(count))?.exit.is_success().then_some(()))
            })?;
            ids.get_or_insert((uid, gid));
        }
        let (uid, gid) = ids.ok_or_else(|| failed(name, "it has no node"))?;
        let token = self.token(member, name, run)?;
        Ok(Watched { site, uid, gid, token, file })
    }

    fn xsub(&self, member: &Person, args: &[&str]) -> Result<()> {
        let xsub = member.command("xsub").args(args).limit(LIMIT);
        self.grid.laptop()?.run(&xsub)?.ok().map(drop)
    }

    /// A session by ssh, in which one program goes on and another one leaves it.
    fn sign_in(&self, member: &Person, node: &str) -> Result<()> {
        let config = format!("/home/{}/.xos/ssh/config", member.name);
        let script = format!("nohup setsid {PROGRAM} > /dev/null 2>&1 & exec {PROGRAM}");
        let ssh = ["-F", &config, "-o", "BatchMode=yes", node, &script];
        self.grid.laptop()?.spawn(&member.command("ssh").args(ssh)).map(drop)
    }

    /// A token of the member's for a site.
    fn token(&self, member: &Person, site: &str, run: &Run) -> Result<String> {
        let home = format!("/home/{}/.xos", member.name);
        let args = ["within", "member-token", "--home", &home, "--vo", VO, "--audience", site];
        let cmd = member.command(&run.program.display().to_string()).args(args);
        let said = self.grid.laptop()?.run(&cmd)?.ok()?;
        Ok(said.trim().to_owned())
    }
}

/// The number of an account on a node, once it is known there.
fn id(node: &Host, account: &str, which: &str) -> Result<u32> {
    let said = wait_for(&format!("{account} on {}", node.name()), || {
        let out = node.run(&Cmd::new("id").args([which, account]))?;
        let said = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        Ok(out.exit.is_success().then_some(said))
    })?;
    said.parse().map_err(|_| Error::Start {
        what: format!("id {which} {account}"),
        reason: format!("it is {said:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a site that is late would be hidden by one that is not, or a bad round by
    /// others.
    #[test]
    fn the_slowest_site_counts() {
        let times = |site: &str, gone_s, token_s, capability_s| Times {
            site: site.to_owned(),
            gone: Duration::from_secs(gone_s),
            token: Duration::from_secs(token_s),
            capability: Duration::from_secs(capability_s),
        };
        let rounds = [
            vec![times("rennes", 1, 2, 3), times("pisa", 4, 1, 1)],
            vec![times("rennes", 2, 2, 2), times("pisa", 1, 1, 7)],
        ];
        let measured = measured(&rounds);
        assert_eq!(measured["gone.median"], [4.0, 2.0]);
        assert_eq!(measured["token.median"], [2.0, 2.0]);
        assert_eq!(measured["capability.median"], [3.0, 7.0]);
        assert_eq!(measured["gone.worst"], [4.0]);
        assert_eq!(measured["capability.worst"], [7.0]);
    }
}
