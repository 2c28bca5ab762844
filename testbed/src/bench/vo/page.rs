//! The console's page of the members of a large VO, as a browser gets it: over TLS, signed in, on a
//! connection that stays.

use super::figures::Measured;
use super::{LIMIT_S, MEMBERS, program};
use crate::bench::suite::Run;
use crate::bench::world::{SITE, VO, World};
use crate::bench::{Progress, failed, scratch};
use crate::grid::{PORT, wait_for};
use crate::{Cmd, Result};
use std::time::Duration;

/// Pages of each kind that are timed; one more comes before them.
const PAGES: usize = 50;
/// Where a core keeps its registry.
const REGISTRY: &str = "/var/lib/xos/registry.redb";

/// Signs in: a form's token and a cookie belong together. The password comes on standard input.
const SIGN_IN: &str = "set -e; umask 077; cd \"$HOME\"; core=https://$1; rm -f jar
curl -sSk -c jar -o form \"$core/sign-in\"
csrf=$(sed -n 's/.*name=\"csrf\" value=\"\\([^\"]*\\)\".*/\\1/p' form | head -n 1)
curl -sSk -b jar -c jar -o answer -w '%{http_code}' -H \"Origin: $core\" \
    -H 'Sec-Fetch-Site: same-origin' --data-urlencode \"csrf=$csrf\" \
    --data-urlencode \"user=$2\" --data-urlencode next=/ --data-urlencode password@- \
    \"$core/sign-in\"";

/// Gets a page so many times on one connection: for each, its status and seconds. The last one must
/// show a text.
const GET: &str = "set -e; cd \"$HOME\"; page=https://$1; args=()
for _ in $(seq \"$3\"); do args+=(-o page \"$page\"); done
curl -sSk --http1.1 -b jar -w '%{http_code} %{time_total}\\n' \"${args[@]}\"
grep -qF \"$2\" page";

/// Milliseconds for pages from the beginning and from the middle of the list.
pub(super) fn measure(run: &Run, say: Progress) -> Result<Measured> {
    let scratch = scratch(&run.dir)?;
    let world = World::start(&scratch.path().join("grid"), &run.program, false, say)?;
    fill(run, &world)?;
    say(&format!("{VO} has {MEMBERS} members"));
    sign_in(&world)?;
    let middle = MEMBERS / 2;
    let list = format!("/vo/{VO}/members");
    let from_middle = format!("{list}?after=m{middle:07}%40{SITE}");
    Ok(Measured::from([
        ("page.first".to_owned(), get(&world, &list, &member(0))?),
        ("page.middle".to_owned(), get(&world, &from_middle, &member(middle + 1))?),
    ]))
}

/// Who was put in with this number.
fn member(n: usize) -> String {
    format!("m{n:07}@{SITE}")
}

/// Puts the members into the VO while its core does not run.
fn fill(run: &Run, world: &World) -> Result<()> {
    let core = &world.site.core;
    let limit = Duration::from_secs(u64::from(LIMIT_S));
    core.run(&Cmd::shell("pkill -x xosd; while pgrep -x xosd > /dev/null; do sleep 0.1; done"))?
        .ok()?;
    let fill = Cmd::new(program(run)?).args(["fill", REGISTRY, VO, &MEMBERS.to_string()]);
    core.run(&fill.limit(limit))?.ok()?;
    world.site.start_core().map(drop)
}

fn sign_in(world: &World) -> Result<()> {
    let person = &world.person;
    let args = ["-c", SIGN_IN, "bash", &core(), &person.name];
    let curl = person.command("bash").args(args).stdin(person.password.as_bytes());
    // The core reads the VO when it starts, and serves the console after that.
    wait_for("signing in to the console", || {
        let out = world.grid.laptop()?.run(&curl)?;
        let status = String::from_utf8_lossy(&out.stdout).into_owned();
        Ok((out.exit.is_success() && status.starts_with('3')).then_some(()))
    })
}

fn core() -> String {
    format!("{SITE}-core:{PORT}")
}

/// How long a page takes, in milliseconds. It must show `text`.
fn get(world: &World, path: &str, text: &str) -> Result<Vec<f64>> {
    let (page, count) = (format!("{}{path}", core()), (PAGES + 1).to_string());
    let args = ["-c", GET, "bash", &page, text, &count];
    let said = world.grid.laptop()?.run(&world.person.command("bash").args(args))?.ok()?;
    let times = times(&said).ok_or_else(|| failed(&page, format!("it answers {said}")))?;
    Ok(times.into_iter().skip(1).collect())
}

/// The milliseconds of lines of status and seconds; nothing when one is no page.
fn times(said: &str) -> Option<Vec<f64>> {
    let one = |line: &str| {
        let seconds: f64 = line.strip_prefix("200 ")?.parse().ok()?;
        Some(seconds * 1e3)
    };
    said.lines().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a refusal, which is fast, would be taken for a page.
    #[test]
    fn only_pages_are_timed() {
        assert_eq!(times("200 0.25\n200 0.5\n"), Some(vec![250.0, 500.0]));
        for bad in ["200 0.25\n303 0.001\n", "000 0.0\n", "200 x\n"] {
            assert_eq!(times(bad), None, "{bad}");
        }
    }
}
