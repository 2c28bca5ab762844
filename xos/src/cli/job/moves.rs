//! `xos job move`.

use super::cancel::Target;
use crate::cli::output::Outcome;
use crate::cli::session::Session;
use std::str::FromStr;
use xos_api::aem::MoveUnit;
use xos_base::{ClusterId, Error, SiteId};

/// `xos job move`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos job move 12.rennes pisa
  xos job move 12.rennes:7 c2.pisa

The unit is stopped and saved, and goes on there from where it was. `xos job show` tells where it \
came to; when nobody there takes it, it goes on where it was, and `xos job why` has the reason.")]
pub struct Move {
    /// The unit, as 12.rennes:7; of a job with one unit the job, as 12.rennes.
    job: Target,
    /// Where to: a site, or a cluster of it, as c2.pisa.
    to: Goal,
}

/// Where a unit is to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Goal {
    site: SiteId,
    cluster: Option<ClusterId>,
}

impl FromStr for Goal {
    type Err = String;

    fn from_str(text: &str) -> Result<Goal, String> {
        if text.contains('.') {
            let cluster: ClusterId = text.parse().map_err(|e| format!("{e}"))?;
            return Ok(Goal { site: cluster.site(), cluster: Some(cluster) });
        }
        Ok(Goal { site: text.parse().map_err(|e| format!("{e}"))?, cluster: None })
    }
}

/// Runs `xos job move`.
pub async fn run(s: &Session, args: Move) -> Outcome {
    let Target { job, units } = args.job;
    let units: Vec<u32> = units.map_or_else(|| vec![0], |units| units.iter().take(2).collect());
    let [unit] = units.as_slice() else {
        return Err(Error::invalid("one unit is moved at a time")
            .hint(format!("name it as {job}:{}", units.first().copied().unwrap_or(0)))
            .into());
    };
    let unit = job.unit(*unit);
    let mut member = s.member_for(&job).await?;
    let Goal { site, cluster } = args.to;
    let to = cluster.as_ref().map_or_else(|| site.to_string(), ToString::to_string);
    let begun = member.call(s, MoveUnit { unit: unit.clone(), site, cluster }).await?;
    let text = || format!("{unit} is to be stopped and sent to {to}: xos job show {job}");
    s.out.show(&begun, text)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a unit would go to another site than the one that was named.
    #[test]
    fn sites_and_clusters_are_told_apart() {
        let goal: Goal = "c2.pisa".parse().unwrap();
        assert_eq!((goal.site.as_str(), goal.cluster.unwrap().as_str()), ("pisa", "c2.pisa"));
        assert_eq!("pisa".parse::<Goal>().unwrap().cluster, None);
        for bad in ["", ".", "c2.", "a b", "c2.pisa.x"] {
            assert!(bad.parse::<Goal>().is_err(), "{bad:?} was taken");
        }
    }
}
