//! Eight programs that work, each moved many times, all at once.

use super::cluster::{Cluster, Followed, HOG};
use super::inside::right;
use super::{NODES, SOON, until};
use crate::Result;
use crate::bench::failed;
use crate::bench::figure::{Figure, Reach};
use crate::bench::samples::Samples;
use crate::bench::suite::{Sheet, one};
use std::time::{Duration, Instant};

/// Programs, and moves of each.
const HOGS: usize = 8;
const MOVES: usize = 25;
/// After so long no move is begun any more.
const LIMIT: Duration = Duration::from_secs(900);

/// What became of one program.
#[derive(Default)]
struct Moved {
    /// How long each move took that came to its end, from the tool's start to its end, in seconds.
    took_s: Vec<f64>,
    /// What went wrong.
    wrong: Vec<String>,
    /// Whether its sums were right to the end.
    right: bool,
}

pub(super) fn measure(cluster: &Cluster, sheet: &mut Sheet) -> Result<()> {
    let begin = |n: usize| cluster.follow(&format!("hog-{n}"), &node(n), &HOG);
    let hogs: Vec<Followed> = (0..HOGS).map(begin).collect::<Result<_>>()?;
    let moved: Vec<Moved> = std::thread::scope(|scope| {
        let all = hogs.iter().enumerate();
        let threads = all.map(|(n, hog)| scope.spawn(move || move_about(cluster, n, hog)));
        // All of them begin before the first one is waited for.
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
            .collect()
    });
    tell(sheet, &moved);
    Ok(())
}

/// The node that a program is on before its move `n`.
fn node(n: usize) -> String {
    format!("n{}", n % NODES + 1)
}

fn move_about(cluster: &Cluster, first: usize, hog: &Followed) -> Moved {
    let (mut moved, all) = (Moved::default(), Instant::now());
    for n in first + 1..=first + MOVES {
        if all.elapsed() > LIMIT {
            moved.wrong.push(format!("after {} s it is moved no more", LIMIT.as_secs()));
            break;
        }
        let begin = Instant::now();
        match cluster.migrate(hog.pid, &node(n)) {
            Ok(()) => moved.took_s.push(begin.elapsed().as_secs_f64()),
            Err(error) => moved.wrong.push(error.to_string()),
        }
    }
    match goes_on(hog) {
        Ok(()) => moved.right = true,
        Err(error) => moved.wrong.push(error.to_string()),
    }
    moved
}

/// Waits until it told another sum after all its moves, and looks whether all are right.
fn goes_on(hog: &Followed) -> Result<()> {
    let sums = || right(&hog.text()?).map_err(|why| failed("a program that was moved", why));
    let before = sums()?;
    until("a sum after all moves", SOON, || Ok((sums()? > before).then_some(())))
}

fn tell(sheet: &mut Sheet, moved: &[Moved]) {
    let count = |n: usize| one(u32::try_from(n).map_or(f64::INFINITY, f64::from));
    for (n, one) in moved.iter().enumerate() {
        for wrong in &one.wrong {
            (sheet.say)(&format!("hog {n}: {wrong}"));
        }
    }
    let took: Vec<f64> = moved.iter().flat_map(|m| &m.took_s).copied().collect();
    let (all, arrived) = (HOGS * MOVES, count(took.len()));
    let name = format!("{HOGS} hogs, {MOVES} moves each at once: moves that arrived");
    let least = Reach::AtLeast(f64::from(u32::try_from(all).unwrap_or(u32::MAX)));
    sheet.add(Figure::new(name, &arrived, "moves").reach(least), &arrived);
    let right = count(moved.iter().filter(|m| m.right).count());
    let least = Reach::AtLeast(f64::from(u32::try_from(HOGS).unwrap_or(u32::MAX)));
    sheet.add(Figure::new("  hogs whose sums are right", &right, "hogs").reach(least), &right);
    let took = Samples::new(took);
    if took.median().is_finite() {
        sheet.add(Figure::new("  one move, the tool's start to exit", &took, "s"), &took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::suite::Run;
    use std::path::PathBuf;

    /// If it failed, moves that were lost, or work that was, would not be seen in the figures.
    #[test]
    fn lost_moves_and_wrong_sums_count() {
        let run =
            Run { dir: PathBuf::new(), program: PathBuf::new(), repetitions: 1, peers: false };
        let told = |moved: &[Moved]| {
            let mut say = |_: &str| {};
            let mut sheet = Sheet::new(&run, &mut say);
            tell(&mut sheet, moved);
            sheet.figures.iter().map(|f| (f.value, f.met)).collect::<Vec<_>>()
        };
        let good = || Moved { took_s: vec![2.0; MOVES], wrong: Vec::new(), right: true };
        let mut all: Vec<Moved> = (0..HOGS).map(|_| good()).collect();
        assert_eq!(told(&all), [(200.0, Some(true)), (8.0, Some(true)), (2.0, None)]);
        all[3] = Moved { took_s: vec![2.0; 24], wrong: vec!["lost".into()], right: false };
        assert_eq!(told(&all), [(199.0, Some(false)), (7.0, Some(false)), (2.0, None)]);
        assert_eq!(told(&[]), [(0.0, Some(false)), (0.0, Some(false))]);
    }

    /// If it failed, a program would be asked to move to where it is, which is no move.
    #[test]
    fn each_move_is_to_another_node() {
        for n in 0..HOGS + MOVES {
            assert_ne!(node(n), node(n + 1));
        }
    }
}
