//! How long a VO goes on where its home is not heard, and what else its administrators set.

use crate::cli::output::{Outcome, span};
use crate::cli::session::Session;
use crate::cli::values;
use xos_api::vom::{SetFileAudit, SetGrace, SetLease, SetRenewal};
use xos_base::VoId;

/// `xos vo lease`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos vo lease demo.rennes 15m
  xos vo lease demo.rennes 1d

From 5 minutes to 7 days. A site whose own lease is shorter holds the VO's work sooner.")]
pub struct LeaseArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// How long, as 15m, 2h or 1d.
    #[arg(value_parser = values::seconds, value_name = "TIME")]
    lease: u64,
}

/// `xos vo grace`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos vo grace demo.rennes 1h
  xos vo grace demo.rennes 1d

From 1 second to 30 days, counted from the end of the lease. A site whose own time is shorter ends
the VO's work sooner.")]
pub struct GraceArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// How long, as 15m, 2h or 1d.
    #[arg(value_parser = values::seconds, value_name = "TIME")]
    grace: u64,
}

/// `xos vo renewal`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos vo renewal demo.rennes 1d
  xos vo renewal demo.rennes 7d

From 1 hour to 7 days. Then members sign in again. The home site's own time counts where it is
shorter; certificates that were issued before hold until they expire.")]
pub struct RenewalArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// How long, as 12h or 1d.
    #[arg(value_parser = values::seconds, value_name = "TIME")]
    renewal: u64,
}

/// `xos vo audit-files`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos vo audit-files demo.rennes on
  xos vo audit-files demo.rennes off

Each open is then a line in the audit of the VO's home site: who, which file, to read or to write,
on which machine. All members see in `xos vo show` that it is on.")]
pub struct AuditFilesArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// Whether opens are noted.
    opens: Switch,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// It is done.
    On,
    /// It is not.
    Off,
}

/// Sets a VO's lease.
pub async fn lease(s: &Session, args: LeaseArgs) -> Outcome {
    let LeaseArgs { of: vo, lease: lease_s } = args;
    let done = s.vo_client(&vo).await?.call(SetLease { vo: vo.clone(), lease_s }).await?;
    let lease = span(lease_s);
    s.out.show(&done, || format!("{vo} goes on for {lease} where its home is unheard."))?;
    Ok(0)
}

/// Sets a VO's grace.
pub async fn grace(s: &Session, args: GraceArgs) -> Outcome {
    let GraceArgs { of: vo, grace: grace_s } = args;
    let done = s.vo_client(&vo).await?.call(SetGrace { vo: vo.clone(), grace_s }).await?;
    let grace = span(grace_s);
    s.out.show(&done, || format!("{vo}: work is held for {grace} after the lease."))?;
    Ok(0)
}

/// Sets for how long a VO's credentials are renewed.
pub async fn renewal(s: &Session, args: RenewalArgs) -> Outcome {
    let RenewalArgs { of: vo, renewal: renewal_s } = args;
    let done = s.vo_client(&vo).await?.call(SetRenewal { vo: vo.clone(), renewal_s }).await?;
    let renewal = span(renewal_s);
    s.out.show(&done, || format!("{vo} renews credentials for {renewal} after a sign-in."))?;
    Ok(0)
}

/// Sets whether opened files are noted.
pub async fn audit_files(s: &Session, args: AuditFilesArgs) -> Outcome {
    let AuditFilesArgs { of: vo, opens } = args;
    let opens = opens == Switch::On;
    let done = s.vo_client(&vo).await?.call(SetFileAudit { vo: vo.clone(), opens }).await?;
    s.out.show(&done, || match opens {
        true => format!("Each file of {vo} that is opened is noted from now on."),
        false => format!("Opened files of {vo} are no longer noted."),
    })?;
    Ok(0)
}
