//! What sites give to a VO; an administrator accepts or refuses their offers.

use super::vo::{self, Head};
use crate::view::{Frame, When, bytes_text, cpus_text, page};
use crate::visit::{Shown, Visit, done};
use askama::Template;
use xos_api::vom::{
    AcceptShare, ListShares, REASON_MAX, RefuseShare, ShareInfo, ShareState, Terms,
};
use xos_base::Error;

/// A share in words.
pub(crate) struct Share {
    pub(crate) site: String,
    pub(crate) state: &'static str,
    pub(crate) accepted: Option<TermsText>,
    pub(crate) offered: Option<TermsText>,
    pub(crate) reason: Option<String>,
}

/// Terms in words.
pub(crate) struct TermsText {
    pub(crate) cpus: String,
    pub(crate) memory: String,
    pub(crate) storage: String,
    pub(crate) until: Option<When>,
    pub(crate) version: u32,
}

impl From<&Terms> for TermsText {
    fn from(t: &Terms) -> TermsText {
        TermsText {
            cpus: cpus_text(t.cpu_milli),
            memory: bytes_text(t.memory_bytes),
            storage: bytes_text(t.storage_bytes),
            until: t.until.map(When::from),
            version: t.version,
        }
    }
}

impl From<&ShareInfo> for Share {
    fn from(s: &ShareInfo) -> Share {
        Share {
            site: s.site.to_string(),
            state: match s.state {
                ShareState::Offered => "offered",
                ShareState::Accepted => "accepted",
                ShareState::Refused => "refused",
                ShareState::Withdrawn => "ended",
            },
            accepted: s.accepted.as_ref().map(TermsText::from),
            offered: s.offered.as_ref().map(TermsText::from),
            reason: s.reason.clone(),
        }
    }
}

#[derive(Template)]
#[template(path = "shares.html")]
struct View {
    frame: Frame,
    head: Head,
    shares: Vec<Share>,
    reason_max: usize,
}

/// The sites of a VO and what they give.
pub(crate) async fn show(visit: Visit) -> Shown {
    let info = vo::info_at_home(&visit).await?;
    let vo = visit.vo()?;
    let shares = visit.ask_home(&vo, ListShares { vo: vo.clone() }).await?;
    let frame = Frame::of(&visit, &format!("Sites of {vo}"), "vos").await;
    page(&View {
        frame,
        head: Head::new(&info, "shares"),
        shares: shares.iter().map(Share::from).collect(),
        reason_max: REASON_MAX,
    })
}

fn version(visit: &Visit) -> Result<u32, Error> {
    visit
        .form
        .number("version", "the offer's version")?
        .ok_or_else(|| Error::invalid("the form names no offer").hint("open the page again"))
}

/// Accepts the offer that was shown.
pub(crate) async fn accept(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let site: xos_base::SiteId = visit.place("site")?;
    let r = AcceptShare { vo: vo.clone(), site: site.clone(), version: version(&visit)? };
    visit.ask_home(&vo, r).await?;
    done(&visit, format!("/vo/{vo}/shares"), format!("{vo} now uses the share of site {site}."))
}

/// Refuses the offer that was shown.
pub(crate) async fn refuse(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let site: xos_base::SiteId = visit.place("site")?;
    let reason = visit.form.text("reason").to_owned();
    let r = RefuseShare { vo: vo.clone(), site: site.clone(), version: version(&visit)?, reason };
    visit.ask_home(&vo, r).await?;
    done(&visit, format!("/vo/{vo}/shares"), format!("The offer of site {site} is refused."))
}
