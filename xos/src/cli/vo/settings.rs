//! What a VO's administrators set in it: title and description, times, what the audit notes.

use crate::cli::output::{Outcome, span};
use crate::cli::session::Session;
use crate::cli::values;
use xos_api::vom::{DescribeVo, GetVo, SetFileAudit, SetGrace, SetLease, SetRenewal};
use xos_base::VoId;

/// From which settings a change is made.
#[derive(Debug, clap::Args)]
pub struct Base {
    /// Only if the settings still have this version, as `xos vo show` shows it.
    #[arg(long = "if-version", value_name = "N")]
    pub base: Option<u64>,
}

/// `xos vo describe`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos vo describe demo.rennes --title 'Demonstration of phantoms'
  xos vo describe demo.rennes --description 'Simulated pictures.'

What you do not name stays as it is. The VO's name, as demo.rennes, never changes.")]
pub struct DescribeArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// What it is called, one line.
    #[arg(long, required_unless_present = "description")]
    title: Option<String>,
    /// What it is for.
    #[arg(long)]
    description: Option<String>,
    #[command(flatten)]
    base: Base,
}

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
    #[command(flatten)]
    base: Base,
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
    #[command(flatten)]
    base: Base,
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
    #[command(flatten)]
    base: Base,
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
    #[command(flatten)]
    base: Base,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// It is done.
    On,
    /// It is not.
    Off,
}

/// Changes title, description or both. What is not named is taken from the VO as it is, and nothing
/// changes if somebody else was faster.
pub async fn describe(s: &Session, args: DescribeArgs) -> Outcome {
    let DescribeArgs { of: vo, title, description, base: Base { base } } = args;
    let client = s.vo_client(&vo).await?;
    let info = client.call(GetVo { vo: vo.clone() }).await?;
    let request = DescribeVo {
        vo: vo.clone(),
        title: title.unwrap_or(info.summary.title),
        description: description.unwrap_or(info.summary.description),
        base: base.or(info.details.map(|d| d.settings)),
    };
    let done = client.call(request).await?;
    s.out.show(&done, || format!("{vo} is described anew; `xos vo show {vo}` shows it."))?;
    Ok(0)
}

/// Sets the lease.
pub async fn lease(s: &Session, args: LeaseArgs) -> Outcome {
    let LeaseArgs { of: vo, lease: lease_s, base: Base { base } } = args;
    let done = s.vo_client(&vo).await?.call(SetLease { vo: vo.clone(), lease_s, base }).await?;
    let lease = span(lease_s);
    s.out.show(&done, || format!("{vo} goes on for {lease} where its home is unheard."))?;
    Ok(0)
}

/// Sets for how long work is held.
pub async fn grace(s: &Session, args: GraceArgs) -> Outcome {
    let GraceArgs { of: vo, grace: grace_s, base: Base { base } } = args;
    let done = s.vo_client(&vo).await?.call(SetGrace { vo: vo.clone(), grace_s, base }).await?;
    let grace = span(grace_s);
    s.out.show(&done, || format!("{vo}: work is held for {grace} after the lease."))?;
    Ok(0)
}

/// Sets for how long credentials are renewed.
pub async fn renewal(s: &Session, args: RenewalArgs) -> Outcome {
    let RenewalArgs { of: vo, renewal: renewal_s, base: Base { base } } = args;
    let ask = SetRenewal { vo: vo.clone(), renewal_s, base };
    let done = s.vo_client(&vo).await?.call(ask).await?;
    let renewal = span(renewal_s);
    s.out.show(&done, || format!("{vo} renews credentials for {renewal} after a sign-in."))?;
    Ok(0)
}

/// Has opened files noted, or no longer.
pub async fn audit_files(s: &Session, args: AuditFilesArgs) -> Outcome {
    let AuditFilesArgs { of: vo, opens, base: Base { base } } = args;
    let opens = opens == Switch::On;
    let done = s.vo_client(&vo).await?.call(SetFileAudit { vo: vo.clone(), opens, base }).await?;
    s.out.show(&done, || match opens {
        true => format!("Each file of {vo} that is opened is noted from now on."),
        false => format!("Opened files of {vo} are no longer noted."),
    })?;
    Ok(0)
}
