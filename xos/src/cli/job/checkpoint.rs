//! `xos job checkpoint`.

use super::cancel::Target;
use crate::cli::output::{Outcome, Table, clean, size, span};
use crate::cli::session::Session;
use xos_api::aem::{CheckpointUnits, Checkpoints, UnitCheckpoint};
use xos_base::{JobId, Kind};

/// `xos job checkpoint`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos job checkpoint 12.rennes
  xos job checkpoint 12.rennes:0-3")]
pub struct Checkpoint {
    /// The job as 12.rennes, or units of it as 12.rennes:7 or 12.rennes:0-3.
    job: Target,
}

/// Runs `xos job checkpoint`.
pub async fn run(s: &Session, args: Checkpoint) -> Outcome {
    let Target { job, units } = args.job;
    let mut member = s.member_for(&job).await?;
    let told = member.call(s, CheckpointUnits { job: job.clone(), units }).await?;
    s.out.show(&told, || describe(&job, &told))?;
    let refused = |unit: &UnitCheckpoint| !unit.saving;
    let failed = !told.trouble.is_empty() || told.units.iter().any(refused);
    Ok(if failed { Kind::Conflict.exit_code() } else { 0 })
}

fn describe(job: &JobId, told: &Checkpoints) -> String {
    let mut table = Table::new(&["UNIT", "CHECKPOINT", "REMARK"]);
    for unit in &told.units {
        let now = if unit.saving { "is being made" } else { "is not being made" };
        table.row([format!("{job}:{}", unit.unit), now.to_owned(), remark(unit)]);
    }
    let mut text = table.text("No units.");
    for trouble in &told.trouble {
        text += &format!("\n{}", clean(trouble));
    }
    text
}

/// The last checkpoint of a unit, and what is wrong.
pub(super) fn remark(unit: &UnitCheckpoint) -> String {
    let last = unit.version.map(|version| {
        let age = unit.age_ms.map(|ms| format!(", {} ago", span(ms / 1000))).unwrap_or_default();
        format!("checkpoint {version}: {}{age}", size(unit.bytes))
    });
    let last = last.unwrap_or_else(|| "no checkpoint yet".to_owned());
    match unit.trouble.as_str() {
        "" => last,
        trouble => format!("{last}; {}", clean(trouble)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, somebody would trust in a checkpoint that there is not.
    #[test]
    fn a_remark_says_what_there_is() {
        let none = UnitCheckpoint::default();
        assert_eq!(remark(&none), "no checkpoint yet");
        let trouble = "it holds a device".to_owned();
        let some = UnitCheckpoint {
            version: Some(3),
            bytes: 1 << 20,
            age_ms: Some(40_000),
            trouble,
            ..UnitCheckpoint::default()
        };
        let said = remark(&some);
        assert!(said.starts_with("checkpoint 3: ") && said.ends_with(" ago; it holds a device"));
    }
}
