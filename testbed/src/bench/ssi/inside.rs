//! What runs on nodes of a cluster, and what it writes about itself.

use crate::bench::failed;
use crate::bench::within::{RUNS_MAX, spawn};
use crate::error::Context as _;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// The program that places another one, where a site's administrator puts it.
pub(super) const GHOST: &str = "/usr/local/bin/xos-ghost";
/// In cluster shells it names the socket of the node's agent.
const SOCKET_VARIABLE: &str = "XOS_CLUSTER_SOCKET";
/// How often the programs here tell how far they are.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// How long [`still`] rests between two looks at the clock.
const PAUSE: Duration = Duration::from_millis(1);
/// Most memory that [`still`] holds, in megabytes.
const MEGABYTES_MAX: usize = 16_384;
/// Numbers between two looks of [`hog`] at the clock.
const SLICE: usize = 100_000;
/// Most numbers whose sum of squares is known without too large products.
const NUMBERS_MAX: u64 = 1 << 41;
/// Programs that load the node while others are placed elsewhere.
const LOADS: usize = 4;
/// Starts in one go, and the rest before the next one. The core counts each as a program that goes
/// on until the node's next heartbeat, a second later; two more nodes take so many before this one.
const BATCH: usize = 4;
const REST: Duration = Duration::from_millis(1200);
/// Most goes of which the programs were not placed elsewhere.
const MISSED_MAX: usize = 20;
/// How long it may take until the node counts as loaded.
const AWAY_LIMIT: Duration = Duration::from_secs(60);
/// Files of a build, and functions in each, at most.
const FILES_MAX: usize = 1000;
const FUNCTIONS: usize = 80;

/// Between two times of day. Not the monotonic clock: a program that moved may find another one.
fn between(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}

/// Uses a processor for good: adds up the squares of 1, 2, 3, and tells `sum NUMBER SUM` now and
/// then.
///
/// # Errors
/// When nobody reads what it tells.
pub fn hog(out: &mut impl Write) -> Result<()> {
    let (mut n, mut sum) = (0_u64, 0_u64);
    let mut told = SystemTime::now();
    loop {
        for _ in 0..SLICE {
            n += 1;
            sum = sum.wrapping_add(black_box(n).wrapping_mul(n));
        }
        let now = SystemTime::now();
        if between(told, now) >= TELL_EVERY {
            writeln!(out, "sum {n} {sum}").context(|| "telling the sum".to_owned())?;
            told = now;
        }
    }
}

/// How many sums of a [`hog`] stand in a text, once all of them are right and each is of more
/// numbers than the one before. What is no sum is passed over, and so is a line without an end.
pub(super) fn right(text: &str) -> Result<usize, String> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let (mut count, mut last) = (0, 0);
    for line in whole.lines() {
        let mut words = line.split(' ');
        if words.next() != Some("sum") {
            continue;
        }
        let number = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok());
        let (n, sum) = (number(words.next()), number(words.next()));
        let (Some(n), Some(sum)) = (n, sum) else { return Err(format!("no numbers: {line:?}")) };
        if n <= last {
            return Err(format!("{n} comes after {last}"));
        }
        if sum_of_squares(n) != Some(sum) {
            return Err(format!("the squares up to {n} do not add up to {sum}"));
        }
        (count, last) = (count + 1, n);
    }
    Ok(count)
}

/// Of 1 to `n`, without what does not fit into 64 bits; `None`: they are too many.
fn sum_of_squares(n: u64) -> Option<u64> {
    if n > NUMBERS_MAX {
        return None;
    }
    let n = u128::from(n);
    let sum = n * (n + 1) * (2 * n + 1) / 6;
    u64::try_from(sum & u128::from(u64::MAX)).ok()
}

/// Holds so much memory, all of it written to, tells `ready`, and then now and then `gap` with the
/// longest time in milliseconds for which it did not run lately.
///
/// # Errors
/// When nobody reads what it tells.
pub fn still(megabytes: usize, out: &mut impl Write) -> Result<()> {
    let told_to_nobody = || "telling the gaps".to_owned();
    let mut memory = vec![0_u8; megabytes.min(MEGABYTES_MAX) * 1_000_000];
    for (i, part) in memory.chunks_mut(4096).enumerate() {
        // Pages of zeros would be left out of images.
        part.fill(u8::try_from(i % 255).unwrap_or(0) + 1);
    }
    let _held = black_box(&mut memory);
    writeln!(out, "ready").context(told_to_nobody)?;
    let mut last = SystemTime::now();
    let (mut told, mut longest) = (last, Duration::ZERO);
    loop {
        std::thread::sleep(PAUSE);
        let now = SystemTime::now();
        longest = longest.max(between(last, now));
        last = now;
        if between(told, now) >= TELL_EVERY {
            writeln!(out, "gap {:.3}", longest.as_secs_f64() * 1e3).context(told_to_nobody)?;
            (told, longest) = (now, Duration::ZERO);
        }
    }
}

/// What [`still`] told, in milliseconds; `None` while it is not ready.
pub(super) fn gaps(text: &str) -> Option<Vec<f64>> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let mut lines = whole.lines().skip_while(|line| *line != "ready");
    lines.next()?;
    Some(lines.filter_map(|line| line.strip_prefix("gap ")?.parse().ok()).collect())
}

/// How long `/bin/true` took on this node and on others, start to end, in nanoseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Starts {
    /// Here.
    pub here_ns: Vec<u64>,
    /// Placed elsewhere.
    pub away_ns: Vec<u64>,
}

/// Starts `/bin/true` at least `count` times on this node, and as often by the scheduler on another
/// one. Within a cluster shell: programs that want to run are put beside it, so that the scheduler
/// prefers other nodes.
///
/// # Errors
/// Outside of a cluster shell; when programs are not placed elsewhere.
pub fn starts(count: usize) -> Result<Starts> {
    if std::env::var_os(SOCKET_VARIABLE).is_none_or(|socket| socket.is_empty()) {
        let reason = format!("this is no cluster shell: {SOCKET_VARIABLE} is not set");
        return Err(failed("placing programs", reason));
    }
    let own = std::env::current_exe().context(|| "finding this program".to_owned())?;
    let mut loads = Loads(Vec::new());
    for _ in 0..LOADS {
        // They only count: whatever else runs comes first.
        let mut load = Command::new("nice");
        load.args(["-n", "19"]).arg(&own).args(["within", "hog", "--label", "load"]);
        let load = load.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        loads.0.push(load.context(|| "starting what loads this node".to_owned())?);
    }
    here_and_away(count.min(RUNS_MAX))
}

/// Programs that end with this value.
struct Loads(Vec<Child>);

impl Drop for Loads {
    fn drop(&mut self) {
        for load in &mut self.0 {
            // It has ended already, or nothing can be done: the tree's end takes it along.
            let _ended = load.kill().and_then(|()| load.wait());
        }
    }
}

fn here_and_away(count: usize) -> Result<Starts> {
    let here = says(&["uname", "-n"])?;
    let away = || Ok::<_, Error>(says(&[GHOST, "run", "--", "uname", "-n"])? != here);
    let begin = Instant::now();
    while !away()? {
        if begin.elapsed() > AWAY_LIMIT {
            let what = "a program to be placed on another node".to_owned();
            return Err(Error::Deadline { what, limit: AWAY_LIMIT });
        }
        std::thread::sleep(TELL_EVERY);
    }
    let words = |line: &[&str]| line.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let (plain, placed) = (words(&["/bin/true"]), words(&[GHOST, "run", "--", "/bin/true"]));
    let (mut all, mut missed) = (Starts::default(), 0);
    while all.away_ns.len() < count {
        std::thread::sleep(REST);
        let (one, other) = (spawn(&plain, BATCH, 0, 1)?, spawn(&placed, BATCH, 0, 1)?);
        if away()? {
            all.here_ns.extend(one.each_ns);
            all.away_ns.extend(other.each_ns);
        } else {
            missed += 1;
        }
        if missed > MISSED_MAX {
            return Err(failed("placing programs elsewhere", "they often run on this node"));
        }
    }
    Ok(all)
}

/// What a program writes.
fn says(argv: &[&str]) -> Result<String> {
    let line = argv.join(" ");
    let (program, arguments) = argv.split_first().ok_or_else(|| failed("spawn", "no program"))?;
    let out = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let out = out.context(|| format!("running {line}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    Err(failed(&line, format!("{}: {said}", out.status)))
}

/// Writes a program of so many files in C, each of which takes a compiler a second or so, and its
/// makefile, into a new folder.
///
/// # Errors
/// What the system refused.
pub fn sources(folder: &Path, files: usize) -> Result<()> {
    let what = || format!("writing sources in {}", folder.display());
    std::fs::create_dir(folder).context(what)?;
    let files = files.min(FILES_MAX);
    for file in 0..files {
        std::fs::write(folder.join(format!("f{file}.c")), source(file)).context(what)?;
    }
    std::fs::write(folder.join("main.c"), "int main(void)\n{\nreturn 0;\n}\n").context(what)?;
    let makefile = "program: $(patsubst %.c,%.o,$(wildcard *.c))\n\
        \tgcc -o $@ $^\n\
        %.o: %.c\n\
        \tgcc -O2 -c -o $@ $<\n";
    std::fs::write(folder.join("Makefile"), makefile).context(what)
}

fn source(file: usize) -> String {
    let mut text = String::new();
    for k in 0..FUNCTIONS {
        let mut cases = String::new();
        for c in 0..24 {
            // Writing to a text does not fail.
            let _never = writeln!(
                cases,
                "case {c}: s += (a[i] ^ {}u) * {}u; s ^= s >> {}; break;",
                k * 31 + c * 7,
                c * 2 + 3,
                c % 13 + 1
            );
        }
        let _never = write!(
            text,
            "unsigned f{file}_{k}(const unsigned *a, unsigned n)\n{{\nunsigned s = {k}u, i;\n\
             for (i = 0; i < n; i++) {{\nswitch (a[i] % 24u) {{\n{cases}}}\ns ^= s << 5;\n}}\n\
             return s;\n}}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many lines, and then nothing more.
    struct Reader {
        text: String,
        lines: usize,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.text.lines().count() >= self.lines && self.text.ends_with('\n') {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            self.text += &String::from_utf8_lossy(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// If it failed, a program that lost its work on its way would be called right, or a good one
    /// wrong.
    #[test]
    fn sums_are_checked() {
        let mut reader = Reader { text: String::new(), lines: 2 };
        assert!(hog(&mut reader).is_err());
        assert_eq!(right(&reader.text), Ok(2), "{}", reader.text);
        assert_eq!(right("sum 3 14\nwarning: x\nsum 4 30\nsum 5"), Ok(2));
        assert_eq!(right(""), Ok(0));
        for bad in ["sum 3 15\n", "sum 4 30\nsum 3 14\n", "sum 4 30\nsum 4 30\n", "sum x 1\n"] {
            assert!(right(bad).is_err(), "{bad:?}");
        }
        // The sum of the squares up to 2^41 has more than 64 bits.
        assert!(sum_of_squares(NUMBERS_MAX).is_some());
        assert_eq!(sum_of_squares(NUMBERS_MAX + 1), None);
        let below = sum_of_squares(5_000_000_000).unwrap();
        let n = 5_000_000_001_u64;
        assert_eq!(sum_of_squares(n), Some(below.wrapping_add(n.wrapping_mul(n))));
    }

    /// If it failed, the time until a program was ready would count as a move.
    #[test]
    fn gaps_count_from_ready_on() {
        let mut reader = Reader { text: String::new(), lines: 3 };
        assert!(still(1, &mut reader).is_err());
        let told = gaps(&reader.text).unwrap();
        assert!(told.len() == 2 && told.iter().all(|gap| *gap > 0.0), "{}", reader.text);
        assert_eq!(gaps("gap 900.0\n"), None);
        assert_eq!(gaps("ready"), None);
        assert_eq!(gaps("ready\ngap 2.5\nnote\ngap 12.0\ngap 9"), Some(vec![2.5, 12.0]));
    }

    /// If it failed, a build would be of nothing, and be as fast everywhere.
    #[test]
    fn sources_are_many_functions() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new");
        sources(&folder, 2).unwrap();
        let text = std::fs::read_to_string(folder.join("f1.c")).unwrap();
        assert_eq!(text.matches("unsigned f1_").count(), FUNCTIONS);
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        assert!(folder.join("Makefile").is_file() && folder.join("f0.c").is_file());
        assert!(sources(&folder, 2).is_err(), "it is there already");
    }
}
