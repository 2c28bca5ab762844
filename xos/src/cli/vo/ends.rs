//! Handing a VO over, suspending and dissolving it.

use crate::cli::ask;
use crate::cli::output::{Failure, Outcome, Table};
use crate::cli::session::Session;
use xos_api::vom::{
    AcceptHandover, DissolveVo, EndHandover, GetVo, OfferHandover, ResumeVo, SuspendVo,
    UndoDissolve, VoState,
};
use xos_base::{Error, PersonId, VoId};

/// `xos vo handover …`.
#[derive(Debug, clap::Subcommand)]
pub enum Handover {
    /// Show who offers to hand over to whom.
    #[command(after_help = "Example:\n  xos vo handover list demo.rennes")]
    List(super::OfVo),
    /// Offer your ownership to a member; nothing changes until they accept (owners).
    #[command(after_help = "Example:\n  xos vo handover offer demo.rennes bob@pisa")]
    Offer(Other),
    /// Take over what an owner offered you: you are owner then, and they are not.
    #[command(after_help = "Example:\n  xos vo handover accept demo.rennes vera@rennes")]
    Accept(Other),
    /// End an offer: your own, or one made to you.
    #[command(after_help = "Example:\n  xos vo handover end demo.rennes vera@rennes")]
    End(Other),
}

/// A VO and the other one of the two.
#[derive(Debug, clap::Args)]
pub struct Other {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The person: to whom it is offered, else who offered it.
    person: PersonId,
}

/// `xos vo dissolve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos vo dissolve demo.rennes -m 'the project is over'
  xos vo dissolve demo.rennes -m 'the project is over' --confirm demo.rennes
  xos vo dissolve demo.rennes --undo

Nobody can act in it any more, and all that runs ends. For 30 days it can be exported and taken \
back; then it is erased at all sites, and nobody gets its name or its numbers again.")]
pub struct Dissolve {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// Why; members see it.
    #[arg(short = 'm', long = "reason", value_name = "REASON", required_unless_present = "undo")]
    reason: Option<String>,
    /// Take it back.
    #[arg(long)]
    undo: bool,
    /// Do not ask; the VO's name again.
    #[arg(long, value_name = "VO")]
    confirm: Option<VoId>,
}

/// Runs a command about handing over.
pub async fn handover(s: &Session, command: Handover) -> Outcome {
    match command {
        Handover::List(args) => return list(s, args.of).await,
        Handover::Offer(Other { of: vo, person }) => {
            let ask = OfferHandover { vo: vo.clone(), to: person.clone() };
            let done = s.vo_client(&vo).await?.call(ask).await?;
            s.out.show(&done, || {
                format!(
                    "Your ownership of {vo} is offered to {person}. They type:\n  xos vo handover \
                     accept {vo} YOU@SITE"
                )
            })?;
        }
        Handover::Accept(Other { of: vo, person }) => {
            let ask = AcceptHandover { vo: vo.clone(), by: person.clone() };
            let done = s.vo_client(&vo).await?.call(ask).await?;
            s.out.show(&done, || format!("You own {vo} now, instead of {person}."))?;
        }
        Handover::End(Other { of: vo, person }) => {
            let ask = EndHandover { vo: vo.clone(), by: person.clone() };
            let done = s.vo_client(&vo).await?.call(ask).await?;
            s.out.show(&done, || format!("{person} offers to hand {vo} over no longer."))?;
        }
    }
    Ok(0)
}

async fn list(s: &Session, vo: VoId) -> Outcome {
    let info = s.vo_client(&vo).await?.call(GetVo { vo }).await?;
    let all = info.details.map(|d| d.handovers).unwrap_or_default();
    s.out.show(&all, || {
        let mut table = Table::new(&["OWNER", "OFFERED TO"]);
        for h in &all {
            table.row([h.by.to_string(), h.to.to_string()]);
        }
        table.text("No owner offers to hand over.")
    })?;
    Ok(0)
}

/// Dissolves a VO, or takes that back.
pub async fn dissolve(s: &Session, args: Dissolve) -> Outcome {
    let Dissolve { of: vo, reason, undo, confirm } = args;
    let reason = reason.unwrap_or_default();
    let client = s.vo_client(&vo).await?;
    if undo {
        let done = client.call(UndoDissolve { vo: vo.clone() }).await?;
        s.out.show(&done, || format!("{vo} is as it was before it was dissolved."))?;
        return Ok(0);
    }
    let unlike = format!("that is not {vo}: nothing was changed");
    match confirm {
        Some(named) if named == vo => {}
        Some(_) => return Err(Error::invalid(unlike).into()),
        None => {
            let question = format!(
                "All that runs in {vo} ends now, nobody reaches its files any more, and in 30 days \
                 it is erased.\nType its name to dissolve it: "
            );
            if !ask::typed(&question, vo.as_str(), &format!("add --confirm {vo}"))? {
                return Err(Failure::Declined(unlike));
            }
        }
    }
    client.call(DissolveVo { vo: vo.clone(), reason }).await?;
    let info = client.call(GetVo { vo: vo.clone() }).await?;
    s.out.show(&info, || match &info.state {
        VoState::Dissolved { until, .. } => format!(
            "{vo} is dissolved, and erased at {until}. Until then:\n  xos vo export {vo} -o \
             FILE\n  xos vo dissolve {vo} --undo"
        ),
        _ => format!("{vo} was dissolved, and somebody took that back."),
    })?;
    Ok(0)
}

/// `xos vo suspend-vo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  xos vo suspend-vo demo.rennes -m 'the project is over'")]
pub struct SuspendArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// Why; members see it.
    #[arg(short = 'm', long = "reason", value_name = "REASON")]
    reason: String,
}

/// Suspends a whole VO.
pub async fn suspend(s: &Session, args: SuspendArgs) -> Outcome {
    let SuspendArgs { of: vo, reason } = args;
    let done = s.vo_client(&vo).await?.call(SuspendVo { vo: vo.clone(), reason }).await?;
    s.out.show(&done, || format!("{vo} is suspended."))?;
    Ok(0)
}

/// Lets a suspended VO work again.
pub async fn resume(s: &Session, vo: VoId) -> Outcome {
    let done = s.vo_client(&vo).await?.call(ResumeVo { vo: vo.clone() }).await?;
    s.out.show(&done, || format!("{vo} works again."))?;
    Ok(0)
}
