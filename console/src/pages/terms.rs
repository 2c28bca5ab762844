//! New terms of use: written, looked at as people will see them, set.

use super::enrol::{Terms, amendable};
use super::sign_in::kindly;
use super::vo::{self, Head};
use crate::fields::Fields;
use crate::view::{Frame, page_with};
use crate::visit::{Shown, Stop, Visit, done};
use askama::Template;
use xos_api::vom::{
    CONSENT_DAYS_MAX, GRACE_DAYS_DEFAULT, GRACE_DAYS_MAX, GetEnrolmentForm, SetTermsOfUse,
    TERMS_BYTES_MAX,
};
use xos_base::Error;

#[derive(Template)]
#[template(path = "terms_new.html")]
struct View {
    frame: Frame,
    head: Head,
    /// The terms that are in force now.
    now: Option<Terms>,
    /// The version that stood there when the writing began; 0: none.
    seen: u32,
    /// Somebody set others since.
    overtaken: bool,
    text: String,
    consent_days: String,
    grace_days: String,
    /// The text is shown as people will see it, to be set or written further.
    looking: bool,
    trouble: Option<String>,
    bytes_max: usize,
    consent_days_max: u32,
    grace_days_max: u32,
}

/// The page to write them.
pub(crate) async fn show(visit: Visit) -> Shown {
    let (vo, none) = (visit.vo()?, Fields::default());
    let form = visit.ask_home(&vo, GetEnrolmentForm { vo: vo.clone() }).await?;
    let now = form.terms.as_ref().map(Terms::from);
    let seen = now.as_ref().map_or(0, |t| t.version);
    write(&visit, &none, now, seen, false, None).await
}

async fn write(
    visit: &Visit,
    typed: &Fields,
    now: Option<Terms>,
    seen: u32,
    looking: bool,
    trouble: Option<Error>,
) -> Shown {
    let info = vo::info_at_home(visit).await?;
    let frame = Frame::of(visit, "New terms of use", "vos").await;
    let again = typed.number::<u32>("seen", "the version")?.is_some();
    let before = now.as_ref().filter(|_| !again);
    let text = |name: &str| typed.text(name).to_owned();
    let overtaken = now.as_ref().map_or(0, |t| t.version) != seen;
    let status = match &trouble {
        Some(e) => e.kind.http_status(),
        None if overtaken => 409,
        None => 200,
    };
    let view = View {
        frame,
        head: Head::new(&info, "settings"),
        seen: now.as_ref().map_or(0, |t| t.version),
        overtaken,
        text: before.map_or_else(|| text("text"), |t| t.text.clone()),
        consent_days: before.map_or_else(
            || text("consent_days"),
            |t| t.consent_days.map(|n| n.to_string()).unwrap_or_default(),
        ),
        grace_days: match (before, again) {
            (Some(t), _) => t.grace_days.to_string(),
            (None, true) => text("grace_days"),
            (None, false) => GRACE_DAYS_DEFAULT.to_string(),
        },
        looking: looking && !overtaken,
        trouble: trouble.as_ref().map(kindly),
        now,
        bytes_max: TERMS_BYTES_MAX,
        consent_days_max: CONSENT_DAYS_MAX,
        grace_days_max: GRACE_DAYS_MAX,
    };
    page_with(status, &view)
}

/// Shows what was written, or sets it. Who began before somebody else set others is told so, and
/// loses nothing of what they wrote.
pub(crate) async fn set(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let seen = visit.form.number("seen", "the version")?.unwrap_or(0);
    let form = visit.ask_home(&vo, GetEnrolmentForm { vo: vo.clone() }).await?;
    let now = form.terms.as_ref().map(Terms::from);
    let step = visit.form.text("do");
    if step != "set" || now.as_ref().map_or(0, |t| t.version) != seen {
        return write(&visit, &visit.form, now, seen, step == "look", None).await;
    }
    let r = SetTermsOfUse {
        vo: vo.clone(),
        text: visit.form.text("text").to_owned(),
        consent_days: visit.form.number("consent_days", "for how long a consent holds")?,
        grace_days: visit.form.number("grace_days", "for how long a member may still act")?,
    };
    match visit.ask_home(&vo, r).await {
        Ok(terms) => {
            let notice = format!("Version {} of the terms of use is in force.", terms.version);
            done(&visit, format!("/vo/{vo}/settings"), notice)
        }
        Err(Stop::Failed(e)) if amendable(&e) => {
            write(&visit, &visit.form, now, seen, false, Some(e)).await
        }
        Err(stop) => Err(stop),
    }
}
