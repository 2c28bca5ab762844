//! What the sub-commands do.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use spect::files;
use spect::histogram::Run;
use spect::merge::{Merger, Sinogram};
use spect::recon::{self, System};
use spect::{Histogram, camera, picture};

use crate::Failure;
use crate::cli::{self, Cli, Command};

pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Phantom(args) => phantom(&args),
        Command::Simulate(args) => simulate(&args),
        Command::Merge(args) => merge(&args),
        Command::Shuffle(args) => shuffle(&args),
    }
}

fn phantom(args: &cli::Phantom) -> Result<(), Failure> {
    let phantom =
        spect::Phantom::design(args.size as usize, args.seed).map_err(Failure::Argument)?;
    files::write_atomically(&args.out, &phantom.encode())?;
    if let Some(png) = &args.png {
        let slice = phantom.activity();
        let file = picture::draw(phantom.grid(), &[(slice, picture::top(slice))], "true activity")?;
        files::write_atomically(png, &file)?;
    }
    say(&format!(
        "phantom {:016x}: {size} x {size} pixels of {:.2} mm -> {}",
        phantom.digest(),
        phantom.grid().pixel_mm,
        args.out.display(),
        size = args.size
    ))
}

fn simulate(args: &cli::Simulate) -> Result<(), Failure> {
    let run =
        Run::new(args.seed, args.unit, args.units, args.photons).map_err(Failure::Argument)?;
    let phantom = files::read_phantom(&args.phantom)?;
    // Before the work, so that a folder that cannot be made is known at once.
    let out = files::histogram_path(&args.out, args.unit)?;
    let mut progress = Progress::new("photons", args.photons);
    let histogram = Histogram::simulate(&phantom, run, |done| progress.show(done));
    progress.clear();
    files::write_atomically(&out, &histogram.encode())?;
    say(&format!(
        "unit {} of {}: {} photons, {} counts in {} angles x {} bins -> {}",
        args.unit,
        args.units,
        args.photons,
        histogram.total(),
        camera::ANGLES,
        histogram.bins(),
        out.display()
    ))
}

fn merge(args: &cli::Merge) -> Result<(), Failure> {
    let phantom = files::read_phantom(&args.phantom)?;
    let mut merger = Merger::new(&phantom);
    for path in files::histograms_in(&args.histograms)? {
        merger.add(&path, &files::read_histogram(&path)?)?;
    }
    let sinogram = merger.finish(args.expect)?;
    let mut progress = Progress::new("iterations", u64::from(args.iterations));
    let slice =
        System::new(phantom.grid(), phantom.mu())
            .mlem(&sinogram.counts, args.iterations, |done| progress.show(u64::from(done)));
    progress.clear();
    let truth = phantom.activity();
    let found = recon::pearson(&slice, truth, |_| true);
    let in_body = recon::pearson(&slice, truth, |pixel| phantom.mu()[pixel] > 0.0);

    // One scale for both panels: the slice is brought to the truth's total activity.
    let sum = |slice: &[f32]| slice.iter().map(|value| f64::from(*value)).sum::<f64>();
    let scale = sum(truth) / sum(&slice).max(f64::MIN_POSITIVE);
    let scaled: Vec<f32> = slice.iter().map(|value| (f64::from(*value) * scale) as f32).collect();
    let top = picture::top(truth);
    let title = format!("left: true activity; right: reconstruction; correlation {found:.4}");
    let file = picture::draw(phantom.grid(), &[(truth, top), (&scaled, top)], &title)?;
    files::write_atomically(&args.out, &file)?;
    report(args, &sinogram, found, in_body)?;
    match args.min_correlation {
        Some(least) if found < least => Err(Failure::Correlation { found, least }),
        _ => Ok(()),
    }
}

fn report(
    args: &cli::Merge,
    sinogram: &Sinogram,
    correlation: f64,
    in_body: f64,
) -> Result<(), Failure> {
    let counts: u64 = sinogram.counts.iter().sum();
    if let Some(path) = &args.json {
        let json = serde_json::json!({
            "correlation": correlation,
            "correlation_in_body": in_body,
            "counts": counts,
            "iterations": args.iterations,
            "photons": sinogram.photons,
            "picture": args.out.to_string_lossy(),
            "seed": sinogram.seed,
            "units": sinogram.units,
        });
        let text = format!("{json:#}");
        if path == Path::new("-") {
            return say(&text);
        }
        files::write_atomically(path, format!("{text}\n").as_bytes())?;
    }
    say(&format!(
        "{} units, {} photons, {counts} counts: correlation {correlation:.4} (in the body \
         {in_body:.4}) -> {}",
        sinogram.units,
        sinogram.photons,
        args.out.display()
    ))
}

fn shuffle(args: &cli::Shuffle) -> Result<(), Failure> {
    let histogram = files::read_histogram(&args.histogram)?.shuffled(args.seed);
    files::write_atomically(&args.out, &histogram.encode())?;
    say(&format!("shuffled {} counts -> {}", histogram.total(), args.out.display()))
}

fn say(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Failure::Output)
}

/// A line on a terminal's standard error that says how far the work is; silent elsewhere.
struct Progress {
    what: &'static str,
    total: u64,
    shown_percent: Option<u64>,
    terminal: bool,
}

impl Progress {
    fn new(what: &'static str, total: u64) -> Self {
        let terminal = io::stderr().is_terminal();
        Progress { what, total, shown_percent: None, terminal }
    }

    fn show(&mut self, done: u64) {
        let percent = done.saturating_mul(100) / self.total.max(1);
        if self.terminal && self.shown_percent != Some(percent) {
            self.shown_percent = Some(percent);
            self.draw(&format!("\r{percent:3} % of {} {}", self.total, self.what));
        }
    }

    fn clear(&mut self) {
        if self.terminal {
            self.draw("\r\x1b[K");
        }
    }

    fn draw(&mut self, text: &str) {
        let mut terminal = io::stderr().lock();
        if terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush()).is_err() {
            // A terminal that went away must not end the work.
            self.terminal = false;
        }
    }
}
