//! The suite `vo`: decisions by rules, a VO of a million members, removal, and the audit.
//!
//! What needs no grid is measured by `vo_rates`, an example of the crate that does it, since what
//! it asks is no request.

mod figures;
mod page;
mod removal;

use super::figure::Figure;
use super::machine::load;
use super::peers::slapd;
use super::suite::{Run, Sheet, even_start};
use super::{Progress, failed};
use crate::Result;
use crate::error::Context as _;
use figures::Measured;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Members of the large VO.
const MEMBERS: usize = 1_000_000;
/// Lines of the audit, at least.
const LINES: usize = 1_000_000;
/// Longest that one measurement may take, in seconds.
const LIMIT_S: u32 = 900;

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum VoPart {
    /// Decisions by rules.
    Rules,
    /// A VO of a million members.
    Members,
    /// A member removed, until nothing of theirs is left.
    Removal,
    /// The audit.
    Audit,
}

/// What is measured, and how often.
#[derive(Clone, Debug)]
pub struct VoOptions {
    /// Where, and how often.
    pub run: Run,
    /// The parts to be measured; none: all.
    pub parts: Vec<VoPart>,
}

/// Runs the suite. What happens meanwhile goes to `say`, each measurement's extremes too.
///
/// # Errors
/// The first step that failed; the hosts have ended then too.
pub fn run(options: &VoOptions, say: Progress) -> Result<Vec<Figure>> {
    let run = &options.run;
    let wants = |part: VoPart| options.parts.is_empty() || options.parts.contains(&part);
    let mut sheet = Sheet::new(run, say);
    if wants(VoPart::Rules) {
        even_start()?;
        let mut measured = rates(run, &["rules"])?;
        if !run.peers {
            measured.retain(|key, _| !key.contains(".casbin."));
        }
        figures::add(&mut sheet, &figures::RULES, &measured)?;
    }
    if wants(VoPart::Members) {
        members(run, &mut sheet)?;
    }
    if wants(VoPart::Removal) {
        even_start()?;
        let measured = removal::measure(run, sheet.say)?;
        figures::add(&mut sheet, &figures::REMOVAL, &measured)?;
    }
    if wants(VoPart::Audit) {
        even_start()?;
        let dir = super::scratch(&run.dir)?;
        let dir = dir.path().display().to_string();
        let measured = rates(run, &["audit", &dir, &LINES.to_string()])?;
        figures::add(&mut sheet, &figures::AUDIT, &measured)?;
    }
    (sheet.say)(&format!("load at the end {}", load()?));
    Ok(sheet.figures)
}

fn members(run: &Run, sheet: &mut Sheet) -> Result<()> {
    even_start()?;
    let peer = if run.peers { slapd::measure(run, sheet.say)? } else { None };
    even_start()?;
    let mut measured = rates(run, &["members", &MEMBERS.to_string()])?;
    measured.extend(peer.map(|each| (figures::SLAPD.to_owned(), each)));
    figures::add(sheet, &figures::MEMBERS, &measured)?;
    even_start()?;
    let measured = page::measure(run, sheet.say)?;
    figures::add(sheet, &figures::PAGES, &measured)
}

/// The program that measures within the crate.
fn program(run: &Run) -> Result<PathBuf> {
    let path = run.program.parent().unwrap_or(Path::new(".")).join("examples/vo_rates");
    if path.is_file() {
        return Ok(path);
    }
    let what = format!("finding {}", path.display());
    let build = "it is not there: cargo build --release -p xos-vom --example vo_rates";
    Err(failed(&what, build))
}

/// What it answers to these arguments.
fn rates(run: &Run, args: &[&str]) -> Result<Measured> {
    let program = program(run)?;
    let mut command = Command::new("timeout");
    command.arg(LIMIT_S.to_string()).arg(&program).args(args);
    let out = command.stdin(Stdio::null()).output();
    let out = out.context(|| format!("running {}", program.display()))?;
    let what = format!("vo_rates {}", args.join(" "));
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        return Err(failed(&what, format!("{}: {}", out.status, said.trim())));
    }
    serde_json::from_slice(&out.stdout).map_err(|e| failed(&what, e))
}
