//! What sites give to a VO.

use super::{OfVo, terms};
use crate::cli::output::{Outcome, Style, Table, clean};
use crate::cli::session::Session;
use crate::cli::values::{self, When};
use xos_api::vom::{
    AcceptShare, EndShare, ListShares, OfferShare, RefuseShare, ServedVo, ServedVos, ShareInfo,
    ShareState, WithdrawShare,
};
use xos_base::{Error, Millis, SiteId, VoId};

/// `xos vo share …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Offer a VO a share of your site (site administrators).
    Offer(Offer),
    /// Show what sites give to a VO.
    #[command(after_help = "Example:\n  xos vo share list demo.rennes")]
    List(OfVo),
    /// Show the VOs to which your site gives a share (site administrators).
    #[command(after_help = "Examples:\n  xos vo share served\n  xos vo share served --site pisa")]
    Served,
    /// Accept a site's offer (VO administrators).
    #[command(after_help = "Example:\n  xos vo share accept demo.rennes pisa")]
    Accept(OfShare),
    /// Refuse a site's offer (VO administrators).
    #[command(after_help = "Example:\n  xos vo share refuse demo.rennes pisa -m 'not needed'")]
    Refuse(WithReason),
    /// End a site's share from the VO's side (VO administrators).
    #[command(after_help = "Example:\n  xos vo share end demo.rennes pisa -m 'done'")]
    End(WithReason),
    /// End your own site's share, at once (site administrators).
    #[command(after_help = "Example:\n  xos vo share withdraw demo.rennes -m 'maintenance'")]
    Withdraw(Withdraw),
}

/// `xos vo share offer`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos vo share offer demo.rennes --cpus 8 --memory 16G --storage 100G
  xos vo share offer demo.rennes --cpus 8 --memory 16G --until 2027-01-31 --site pisa

The VO's administrator accepts it by `xos vo share accept`. A new offer replaces the one in \
force once it is accepted.")]
pub struct Offer {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// Processors.
    #[arg(long, value_parser = values::cpus, value_name = "N")]
    cpus: u64,
    /// Memory, as 16G.
    #[arg(long, value_parser = values::size, value_name = "SIZE")]
    memory: u64,
    /// Storage for the VO's volume, as 100G.
    #[arg(long, value_parser = values::size, value_name = "SIZE")]
    storage: Option<u64>,
    /// When the share ends by itself: 2027-01-31 (inclusive, UTC), or 90d from now.
    #[arg(long, value_parser = values::time, value_name = "DATE")]
    until: Option<When>,
    /// First local user number for the VO at the site, from 1879048192 on; chosen when you do not
    /// say.
    #[arg(long, value_name = "UID")]
    base: Option<u32>,
}

/// A VO and a site.
#[derive(Debug, clap::Args)]
pub struct OfShare {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The site that gives the share.
    giver: SiteId,
}

/// A VO, a site and a reason.
#[derive(Debug, clap::Args)]
pub struct WithReason {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The site that gives the share.
    giver: SiteId,
    /// Why; the site sees it.
    #[arg(short = 'm', long = "reason", value_name = "REASON", default_value = "")]
    reason: String,
}

/// `xos vo share withdraw`.
#[derive(Debug, clap::Args)]
pub struct Withdraw {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// Why; the VO's members see it.
    #[arg(short = 'm', long = "reason", value_name = "REASON", default_value = "")]
    reason: String,
}

/// Runs a command of this group.
pub async fn run(s: &Session, command: Command) -> Outcome {
    match command {
        Command::Offer(args) => return offer(s, args).await,
        Command::List(args) => {
            let vo = args.of;
            let shares = s.vo_client(&vo).await?.call(ListShares { vo }).await?;
            s.out.show(&shares, || table(&shares, s.now()))?;
        }
        Command::Served => return served(s).await,
        Command::Accept(args) => return accept(s, args).await,
        Command::Refuse(WithReason { of: vo, giver: site, reason }) => {
            let version = offered(s, &vo, &site).await?;
            let client = s.vo_client(&vo).await?;
            let ask = RefuseShare { vo, site: site.clone(), version, reason };
            let done = client.call(ask).await?;
            s.out.show(&done, || format!("The offer of {site} is refused."))?;
        }
        Command::End(WithReason { of: vo, giver: site, reason }) => {
            let client = s.vo_client(&vo).await?;
            let done = client.call(EndShare { vo, site: site.clone(), reason }).await?;
            s.out.show(&done, || format!("The share of {site} is ended."))?;
        }
        Command::Withdraw(Withdraw { of: vo, reason }) => {
            let site = s.site()?;
            let client = s.person(&site).await?;
            let done = client.call(WithdrawShare { vo: vo.clone(), reason }).await?;
            s.out.show(&done, || format!("{site} no longer works for {vo}."))?;
        }
    }
    Ok(0)
}

async fn offer(s: &Session, args: Offer) -> Outcome {
    let site = s.site()?;
    let vo = args.of;
    let ask = OfferShare {
        vo: vo.clone(),
        cpu_milli: args.cpus,
        memory_bytes: args.memory,
        storage_bytes: args.storage.unwrap_or(0),
        until: args.until.map(|u| u.from(s.now())),
        base: args.base,
    };
    let served = s.person(&site).await?.call(ask).await?;
    s.out.show(&served, || {
        format!(
            "{site} offers {vo}: {}.\nAn administrator of {vo} accepts it: xos vo share accept \
             {vo} {site}",
            terms(served.offered.as_ref().or(served.accepted.as_ref()), s.now())
        )
    })?;
    Ok(0)
}

/// The version of the offer that waits.
async fn offered(s: &Session, vo: &VoId, site: &SiteId) -> Result<u32, Error> {
    let shares = s.vo_client(vo).await?.call(ListShares { vo: vo.clone() }).await?;
    let share = shares.into_iter().find(|share| share.site == *site);
    share.and_then(|share| share.offered).map(|t| t.version).ok_or_else(|| {
        Error::not_found(format!("{site} has no offer to {vo} that waits for an answer"))
            .hint(format!("see them all: xos vo share list {vo}"))
    })
}

async fn accept(s: &Session, args: OfShare) -> Outcome {
    let OfShare { of: vo, giver: site } = args;
    let version = offered(s, &vo, &site).await?;
    let client = s.vo_client(&vo).await?;
    let share = client.call(AcceptShare { vo: vo.clone(), site: site.clone(), version }).await?;
    s.out.show(&share, || {
        format!("{site} gives {vo}: {}.", terms(share.accepted.as_ref(), s.now()))
    })?;
    Ok(0)
}

/// The shares of a VO as a table.
pub fn table(shares: &[ShareInfo], now: Millis) -> String {
    let mut table = Table::new(&["SITE", "SHARE", "IN FORCE", "OFFERED", "REASON"]);
    for share in shares {
        let state = match share.state {
            ShareState::Offered => Style::Busy.mark("offered"),
            ShareState::Accepted => Style::Good.mark("accepted"),
            ShareState::Refused => Style::Bad.mark("refused"),
            ShareState::Withdrawn => Style::Bad.mark("ended"),
        };
        table.row([
            share.site.to_string(),
            state,
            terms(share.accepted.as_ref(), now),
            terms(share.offered.as_ref(), now),
            clean(share.reason.as_deref().unwrap_or_default()),
        ]);
    }
    table.text("No site gives this VO a share yet.")
}

async fn served(s: &Session) -> Outcome {
    let served: Vec<ServedVo> = s.person(&s.site()?).await?.call(ServedVos {}).await?;
    let now = s.now();
    s.out.show(&served, || {
        let mut table = Table::new(&["VO", "WORKS", "IN FORCE", "OFFERED", "USER NUMBERS"]);
        for v in &served {
            let works = match (&v.trouble, v.serving) {
                (None, true) => Style::Good.mark("yes"),
                (None, false) => "no".to_owned(),
                (Some(trouble), _) => Style::Bad.mark(&clean(trouble)),
            };
            let last = v.base.saturating_add(v.size.saturating_sub(1));
            table.row([
                v.vo.to_string(),
                works,
                terms(v.accepted.as_ref(), now),
                terms(v.offered.as_ref(), now),
                format!("{}-{last}", v.base),
            ]);
        }
        table.text("This site gives no VO a share.")
    })?;
    Ok(0)
}
