//! Sites that are trusted here: inviting one, accepting an invitation, trusting one no longer.

use super::{Ask, Once, SiteHead, administrator, confirm, once};
use crate::view::{Frame, When, list_text, page};
use crate::visit::{Shown, Visit, done};
use askama::Template;
use xos_api::cda::{
    AcceptTrust, ForgetSite, ListSites, OfferTrust, OfferView, ReadOffer, TrustedSite,
};
use xos_base::SiteId;

#[derive(Template)]
#[template(path = "site_sites.html")]
struct View {
    frame: Frame,
    site_head: SiteHead,
    own_fingerprint: String,
    sites: Vec<Row>,
}

struct Row {
    site: String,
    addresses: String,
    fingerprint: String,
    since: Option<When>,
}

#[derive(Template)]
#[template(path = "site_accept.html")]
struct Accept {
    frame: Frame,
    site_head: SiteHead,
    site: String,
    addresses: String,
    expires: When,
    /// The invitation as it came.
    offer: String,
}

fn row(s: TrustedSite) -> Row {
    Row {
        site: s.descriptor.site.to_string(),
        addresses: list_text(&s.descriptor.addresses),
        fingerprint: s.fingerprint,
        since: s.since.map(When::from),
    }
}

/// The list, and the forms to invite and to accept.
pub(crate) async fn show(visit: Visit) -> Shown {
    administrator(&visit).await?;
    let own = visit.console.grid.site();
    let (mine, others): (Vec<_>, Vec<_>) =
        visit.ask(ListSites {}).await?.into_iter().partition(|s| s.descriptor.site == *own);
    page(&View {
        frame: Frame::of(&visit, "Other sites", "site").await,
        site_head: SiteHead::new("sites"),
        own_fingerprint: mine.into_iter().map(|s| s.fingerprint).collect(),
        sites: others.into_iter().map(row).collect(),
    })
}

/// Makes an invitation, shown once.
pub(crate) async fn offer(visit: Visit) -> Shown {
    let site: SiteId = visit.form.id("site")?;
    let fingerprint = Some(visit.form.text("fingerprint").to_owned()).filter(|f| !f.is_empty());
    let offer = visit.ask(OfferTrust { site: site.clone(), fingerprint }).await?;
    let until = When::from(offer.expires).text;
    let shown = Once {
        heading: format!("An invitation for {site}"),
        text: format!(
            "Send the invitation to the administrator of {site} by a way that others do not read, \
             and tell them the fingerprint by another one, as by telephone. It is good until \
             {until}, and not shown again."
        ),
        shown: vec![("The invitation", offer.offer), ("Our fingerprint", offer.fingerprint)],
        back: "/site/sites",
    };
    once(&visit, "sites", shown).await
}

/// Shows who sent an invitation. The fingerprint that stands in it is not shown: it must come from
/// the other administrator, or comparing it proves nothing.
pub(crate) async fn read(visit: Visit) -> Shown {
    let offer = visit.form.text("offer").to_owned();
    let OfferView { site, addresses, expires, fingerprint: _ } =
        visit.ask(ReadOffer { offer: offer.clone() }).await?;
    page(&Accept {
        frame: Frame::of(&visit, &format!("Trust site {site}"), "site").await,
        site_head: SiteHead::new("sites"),
        site: site.to_string(),
        addresses: list_text(&addresses),
        expires: expires.into(),
        offer,
    })
}

/// Accepts an invitation.
pub(crate) async fn accept(visit: Visit) -> Shown {
    let offer = visit.form.text("offer").to_owned();
    let fingerprint = visit.form.text("fingerprint").to_owned();
    let trusted = visit.ask(AcceptTrust { offer, fingerprint }).await?;
    let notice = format!("Site {} and this one trust each other now.", trusted.descriptor.site);
    done(&visit, "/site/sites".into(), notice)
}

/// Asks whether a site shall really be trusted no longer.
pub(crate) async fn confirm_forget(visit: Visit) -> Shown {
    let site: SiteId = visit.place("site")?;
    let ask = Ask {
        heading: format!("Trust site {site} no longer?"),
        text: format!(
            "Its people cannot act here any more, the VOs whose home it is are served here no \
             longer, and what runs for them here ends. {site} is not asked. To trust it again \
             takes a new invitation."
        ),
        action: format!("/site/sites/{site}/forget"),
        reason: None,
        button: "Trust it no longer",
        back: "/site/sites".to_owned(),
    };
    confirm(&visit, "sites", ask).await
}

/// Trusts a site no longer.
pub(crate) async fn forget(visit: Visit) -> Shown {
    let site: SiteId = visit.place("site")?;
    visit.ask(ForgetSite { site: site.clone() }).await?;
    done(&visit, "/site/sites".into(), format!("Site {site} is trusted here no longer."))
}
