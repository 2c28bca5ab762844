//! How long a program stands still: for a checkpoint, beside CRIU by hand, and for a move.

use super::cluster::{CLUSTER, Cluster, Followed, PROGRAM};
use super::inside::gaps;
use super::{SOON, until};
use crate::bench::failed;
use crate::bench::figure::{Figure, Reach};
use crate::bench::samples::Samples;
use crate::bench::suite::{Run, Sheet};
use crate::{Cmd, Result};
use std::path::PathBuf;
use std::time::Duration;
use xos_api::cluster::ClusterTree;

/// Megabytes of the program, and most milliseconds for which it may stand still for a checkpoint:
/// what CRIU takes by hand on a machine with two processors.
const SIZES: [(usize, f64); 2] = [(100, 134.0), (1000, 600.0)];
/// A move may take so many times as long.
const TIMES: f64 = 2.0;
/// Longest that the checkpoints by hand may take.
const BY_HAND_MAX: Duration = Duration::from_secs(300);

/// A program like those of the cluster, and its checkpoints into memory. Each line is a file of
/// CRIU's about one, in hexadecimal digits. CRIU saves no file that was opened in another mount
/// namespace, so the program inherits none.
const BY_HAND: &str = r#"set -e
folder=$(mktemp -d /run/by-hand.XXXXXX)
trap 'kill -9 $pid || true; rm -rf "$folder"' EXIT
bash -c 'for fd in /proc/self/fd/*; do fd=${fd##*/}; [ "$fd" -le 2 ] || eval "exec $fd>&-"; done
exec setsid "$@"' - PROGRAM within still --megabytes SIZE --label by-hand \
    </dev/null >"$folder/out" 2>&1 &
pid=$!
until grep -q ready "$folder/out"; do kill -0 $pid; sleep 0.1; done
for n in $(seq TIMES); do
mkdir "$folder/$n"
CRIU dump --no-default-config --tree $pid --images-dir "$folder/$n" --work-dir "$folder/$n" \
    --manage-cgroups=ignore --leave-running --log-file log -v2 >&2 ||
    { tail -n 5 "$folder/$n/log" >&2; exit 1; }
od -An -v -tx1 "$folder/$n/stats-dump" | tr -d ' \n'
echo
rm -rf "$folder/$n"
done
"#;

pub(super) fn measure(run: &Run, cluster: &Cluster, sheet: &mut Sheet) -> Result<()> {
    for (megabytes, most_ms) in SIZES {
        let by_hand = if run.peers { by_hand(run, cluster, megabytes, sheet)? } else { None };
        let (size, label) = (megabytes.to_string(), format!("still-{megabytes}"));
        let argv = [PROGRAM, "within", "still", "--megabytes", &size];
        let program = cluster.follow(&label, "n1", &argv)?;
        until("a program that holds its memory", SOON, || Ok(gaps(&program.text()?)))?;
        let checkpoints = sheet.repeat(|| checkpoint(cluster, &program))?;
        let name = format!("checkpoint of {megabytes} MB: stands still");
        let figure = Figure::new(name, &checkpoints, "ms").reach(Reach::AtMost(most_ms));
        sheet.add(figure.beside("criu dump by hand, to memory", by_hand.as_ref()), &checkpoints);
        let mut nodes = ["n2", "n1"].into_iter().cycle();
        let moves = sheet.repeat(|| one_move(cluster, &program, nodes.next().unwrap_or("n2")))?;
        let name = format!("  move of {megabytes} MB to another node: stands still");
        sheet.add(Figure::new(name, &moves, "ms").reach(Reach::AtMost(most_ms * TIMES)), &moves);
        cluster.cancel(program.tree)?;
    }
    Ok(())
}

/// One checkpoint; for how long the program stood still, by CRIU's own account, in milliseconds.
fn checkpoint(cluster: &Cluster, program: &Followed) -> Result<f64> {
    let pid = program.pid.to_string();
    let tree: ClusterTree = cluster.json(&["cluster", "checkpoint", CLUSTER, &pid])?;
    let made = tree.checkpoint.ok_or_else(|| failed("xos cluster checkpoint", "none was made"))?;
    Ok(u32::try_from(made.freeze_ms).map_or(f64::INFINITY, f64::from))
}

/// One move; the longest time for which the program did not run meanwhile, as it saw it itself, in
/// milliseconds.
fn one_move(cluster: &Cluster, program: &Followed, to: &str) -> Result<f64> {
    let told = || -> Result<Vec<f64>> { Ok(gaps(&program.text()?).unwrap_or_default()) };
    let before = told()?.len();
    cluster.migrate(program.pid, to)?;
    let arrived = told()?.len();
    // The second one from now on is of a time that began after the move.
    let gaps = until("what a program tells after a move", SOON, || {
        Ok(Some(told()?).filter(|gaps: &Vec<f64>| gaps.len() >= arrived + 2))
    })?;
    Ok(gaps.into_iter().skip(before).fold(0.0, f64::max))
}

/// The same checkpoints by CRIU as people call it, on a node, with all images in memory.
fn by_hand(
    run: &Run,
    cluster: &Cluster,
    megabytes: usize,
    sheet: &mut Sheet,
) -> Result<Option<Samples>> {
    let script = BY_HAND
        .replace("PROGRAM", PROGRAM)
        .replace("SIZE", &megabytes.to_string())
        .replace("TIMES", &run.repetitions.to_string())
        .replace("CRIU", &criu(run).display().to_string());
    let out = cluster.world.site.nodes[0].run(&Cmd::shell(script).limit(BY_HAND_MAX))?;
    match out.ok() {
        Ok(said) => {
            let each = said.lines().map(|line| frozen_ms(line).ok_or(line));
            let each = each.collect::<std::result::Result<Vec<f64>, _>>();
            let each = each.map_err(|line| failed("criu by hand: its stats-dump", line))?;
            Ok(Some(Samples::new(each)))
        }
        Err(error) => {
            (sheet.say)(&format!("CRIU by hand is left out: {error}"));
            Ok(None)
        }
    }
}

/// CRIU as nodes find it: beside the folder of this program, else where `PATH` leads to.
fn criu(run: &Run) -> PathBuf {
    let beside = run.program.parent().and_then(|folder| folder.parent());
    let beside = beside.map(|folder| folder.join("criu/criu")).filter(|path| path.is_file());
    beside.unwrap_or_else(|| PathBuf::from("criu"))
}

/// The time that a program stood still, in milliseconds, by the digits of a file `stats-dump` of
/// CRIU's (images/stats.proto): two magic numbers and a length of four bytes each, then a message
/// whose first field is a message whose second field is that time in microseconds.
fn frozen_ms(digits: &str) -> Option<f64> {
    let pairs = digits.as_bytes().chunks(2).map(std::str::from_utf8);
    let bytes: Option<Vec<u8>> =
        pairs.map(|pair| u8::from_str_radix(pair.ok()?, 16).ok()).collect();
    let bytes = bytes?;
    let mut rest = bytes.get(12..)?.iter();
    if rest.next() != Some(&0x0a) {
        return None;
    }
    let _length = varint(&mut rest)?;
    loop {
        // The number of the field, and in the lowest three bits its kind: 0 is a number.
        let (key, value) = (varint(&mut rest)?, varint(&mut rest)?);
        match (key >> 3, key & 7) {
            (2, 0) => return Some(u32::try_from(value).map(f64::from).ok()? / 1000.0),
            (_, 0) => {}
            _ => return None,
        }
    }
}

/// A number, seven bits a byte, the lowest first.
fn varint<'a>(bytes: &mut impl Iterator<Item = &'a u8>) -> Option<u64> {
    let mut value = 0;
    for place in (0..63).step_by(7) {
        let byte = bytes.next()?;
        value |= u64::from(byte & 0x7f) << place;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, the peer's figure would be another one of CRIU's.
    #[test]
    fn the_time_of_standing_still_is_read() {
        // Of CRIU 4.2.1, for a pipeline of three shells.
        let digits = "405910550633095723000000 0a2108db02109b5018fe0a20d10228c6013000387940004800\
                      5018581860006800 7000";
        let digits = digits.replace(' ', "");
        assert_eq!(frozen_ms(&digits), Some(10.267));
        assert_eq!(frozen_ms(&digits[..32]), None, "it ends before");
        assert_eq!(frozen_ms("zz"), None);
        assert_eq!(frozen_ms(""), None);
    }
}
