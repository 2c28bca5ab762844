//! A VO as a whole: handed over, suspended, taken out as a text, dissolved and taken back.

use super::enrol::amendable;
use super::members::named;
use super::sign_in::kindly;
use super::vo::{self, Head};
use crate::view::{Frame, When, page, page_with};
use crate::visit::{Shown, Stop, Visit, done};
use askama::Template;
use xos_api::Request;
use xos_api::vom::{
    AcceptHandover, DISSOLVED_FOR, DissolveVo, EndHandover, Handover, OfferHandover, REASON_MAX,
    ResumeVo, SuspendVo, UndoDissolve, VoState,
};
use xos_base::{Error, PersonId};

/// Days for which a dissolved VO can be taken back.
const DISSOLVED_DAYS: u64 = DISSOLVED_FOR.as_secs() / (24 * 60 * 60);

#[derive(Template)]
#[template(path = "ending.html")]
struct View {
    frame: Frame,
    head: Head,
    handovers: Vec<Offer>,
    suspended: Option<String>,
    /// When it is erased, and why.
    dissolved: Option<(When, String)>,
    reason_max: usize,
}

struct Offer {
    by: String,
    to: String,
    /// It was made to the visitor.
    mine: bool,
    /// The visitor can end it.
    ends: bool,
}

#[derive(Template)]
#[template(path = "dissolve.html")]
struct Dissolve {
    frame: Frame,
    head: Head,
    members: u64,
    days: u64,
    reason: String,
    reason_max: usize,
    trouble: Option<String>,
}

/// The page.
pub(crate) async fn show(visit: Visit) -> Shown {
    let info = vo::info_at_home(&visit).await?;
    let vo = visit.vo()?;
    let frame = Frame::of(&visit, &format!("Hand over or end {vo}"), "vos").await;
    let head = Head::new(&info, "settings");
    let me = &visit.session.person;
    let offer = |h: Handover| Offer {
        mine: h.to == *me,
        ends: head.owner || h.to == *me,
        by: h.by.to_string(),
        to: h.to.to_string(),
    };
    let handovers = info.details.map(|d| d.handovers).unwrap_or_default();
    let handovers: Vec<Offer> = handovers.into_iter().map(offer).collect();
    let (suspended, dissolved) = match info.state {
        VoState::Active => (None, None),
        VoState::Suspended { reason, .. } => (Some(reason), None),
        VoState::Dissolved { reason, until, .. } => (None, Some((When::from(until), reason))),
    };
    page(&View { frame, head, handovers, suspended, dissolved, reason_max: REASON_MAX })
}

/// Makes a change and shows the page again.
async fn change<R: Request>(visit: &Visit, r: R, notice: String) -> Shown {
    let vo = visit.vo()?;
    visit.ask_home(&vo, r).await?;
    done(visit, format!("/vo/{vo}/ending"), notice)
}

/// Offers the visitor's ownership.
pub(crate) async fn offer(visit: Visit) -> Shown {
    let (vo, to) = (visit.vo()?, named(&visit, "person")?);
    let notice = format!("{to} can take {vo} over from you now. Until then nothing changes.");
    change(&visit, OfferHandover { vo, to }, notice).await
}

/// Takes an offered ownership over.
pub(crate) async fn accept(visit: Visit) -> Shown {
    let (vo, by) = (visit.vo()?, visit.place::<PersonId>("by")?);
    let notice = format!("You own {vo} now, and {by} does not.");
    change(&visit, AcceptHandover { vo, by }, notice).await
}

/// Ends an offer.
pub(crate) async fn end_offer(visit: Visit) -> Shown {
    let (vo, by) = (visit.vo()?, visit.place::<PersonId>("by")?);
    let notice = format!("The offer of {by} counts no more.");
    change(&visit, EndHandover { vo, by }, notice).await
}

/// Suspends the VO.
pub(crate) async fn suspend(visit: Visit) -> Shown {
    let (vo, reason) = (visit.vo()?, visit.form.text("reason").to_owned());
    let notice = format!("{vo} is suspended: nobody can act in it, and what runs is held.");
    change(&visit, SuspendVo { vo, reason }, notice).await
}

/// Lets the VO work again.
pub(crate) async fn resume(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let notice = format!("{vo} works again.");
    change(&visit, ResumeVo { vo }, notice).await
}

/// Asks whether the VO shall really be dissolved.
pub(crate) async fn confirm_dissolve(visit: Visit) -> Shown {
    confirm(&visit, None).await
}

async fn confirm(visit: &Visit, trouble: Option<Error>) -> Shown {
    let info = vo::info_at_home(visit).await?;
    let vo = visit.vo()?;
    let status = trouble.as_ref().map_or(200, |e| e.kind.http_status());
    let view = Dissolve {
        frame: Frame::of(visit, &format!("Dissolve {vo}"), "vos").await,
        head: Head::new(&info, "settings"),
        members: info.details.map_or(0, |d| d.members),
        days: DISSOLVED_DAYS,
        reason: visit.form.text("reason").to_owned(),
        reason_max: REASON_MAX,
        trouble: trouble.as_ref().map(kindly),
    };
    page_with(status, &view)
}

/// Dissolves the VO, when its id was typed.
pub(crate) async fn dissolve(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    if visit.form.text("id") != vo.as_str() {
        let e = Error::invalid(format!("that is not {vo}"))
            .hint("type the id of the VO exactly, if you mean this one");
        return confirm(&visit, Some(e)).await;
    }
    let reason = visit.form.text("reason").to_owned();
    match visit.ask_home(&vo, DissolveVo { vo: vo.clone(), reason }).await {
        Ok(_) => {
            let notice = format!(
                "{vo} is dissolved. For {DISSOLVED_DAYS} days it can be exported and taken back."
            );
            done(&visit, format!("/vo/{vo}/ending"), notice)
        }
        Err(Stop::Failed(e)) if amendable(&e) => confirm(&visit, Some(e)).await,
        Err(stop) => Err(stop),
    }
}

/// Takes a dissolution back.
pub(crate) async fn take_back(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let notice = format!("{vo} is as it was before it was dissolved.");
    change(&visit, UndoDissolve { vo }, notice).await
}
