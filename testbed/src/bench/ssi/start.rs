//! A program started on another node, beside ssh as people use it.

use super::cluster::{CLUSTER, Cluster, PROGRAM, parse, volume};
use super::inside::Starts;
use crate::Result;
use crate::bench::figure::{Figure, Reach};
use crate::bench::login::plain;
use crate::bench::samples::Samples;
use crate::bench::suite::{Run, Sheet, millis, one};
use crate::bench::within::Timing;
use crate::grid::Site;

/// Starts from within the cluster.
const STARTS: &str = "200";
/// Starts from the laptop, those before that are not counted, and how many at once.
const FROM_LAPTOP: (usize, usize, usize) = (50, 5, 1);

pub(super) fn measure(run: &Run, cluster: &Cluster, sheet: &mut Sheet) -> Result<()> {
    let world = &cluster.world;
    // With a node: so many in a row would fill the cluster until the next heartbeats, and wait.
    let argv = ["xos", "cluster", "run", CLUSTER, "--node", "n1", "--", "/bin/true"];
    let laptop = millis(&world.spawn(FROM_LAPTOP, &argv)?);
    let name = "xos cluster run c1 --node n1 -- /bin/true, from the laptop";
    let figure = Figure::new(name, &laptop, "ms");
    sheet.add(figure, &laptop);
    let argv = [PROGRAM, "within", "starts", "--count", STARTS];
    let said = cluster.shell(&volume(), &argv)?;
    let starts: Starts = parse("starts in a cluster shell", &said)?;
    let samples = |each_ns| millis(&Timing { each_ns, total_ns: 0 });
    let (here, away) = (samples(starts.here_ns), samples(starts.away_ns));
    let ssh = if run.peers { ssh(cluster, sheet)? } else { None };
    tell(sheet, &here, &away, ssh.as_ref());
    Ok(())
}

/// The same by OpenSSH on a machine that knows nothing of XOS, a connection for each.
fn ssh(cluster: &Cluster, sheet: &mut Sheet) -> Result<Option<Samples>> {
    if !Site::can_be_signed_in_to() {
        (sheet.say)("OpenSSH's server is not installed: left out");
        return Ok(None);
    }
    let argv = plain(&cluster.world, "/bin/true")?;
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    Ok(Some(millis(&cluster.world.spawn(FROM_LAPTOP, &argv)?)))
}

fn tell(sheet: &mut Sheet, here: &Samples, away: &Samples, ssh: Option<&Samples>) {
    let more = one(away.median() - here.median());
    let name = "xos-ghost run -- /bin/true on another node: more than here";
    sheet.add(Figure::new(name, &more, "ms").reach(Reach::AtMost(5.0)), &more);
    let figure = Figure::new("  start to exit", away, "ms");
    sheet.add(figure.beside("ssh host /bin/true", ssh), away);
    sheet.add(Figure::new("  the same here, without xos-ghost", here, "ms"), here);
    if let Some(ssh) = ssh {
        let part = one(away.median() / ssh.median());
        let figure = Figure::new("  of what ssh takes", &part, "parts");
        sheet.add(figure.reach(Reach::AtMost(0.33)), &part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// If it failed, a slow start could be called fast, or ssh's time be taken for ours.
    #[test]
    fn a_start_is_compared_with_one_here_and_with_ssh() {
        let run = Run { dir: PathBuf::new(), program: PathBuf::new(), repetitions: 1, peers: true };
        let mut say = |_: &str| {};
        let mut sheet = Sheet::new(&run, &mut say);
        tell(&mut sheet, &one(1.0), &one(5.0), Some(&one(20.0)));
        let figures: Vec<_> = sheet.figures.iter().map(|f| (f.value, f.met)).collect();
        assert_eq!(figures, [(4.0, Some(true)), (5.0, None), (1.0, None), (0.25, Some(true))]);
        assert_eq!(sheet.figures[1].peer_value, Some(20.0));
    }
}
