//! What a VO's administrators set for it. Terms of use and questions have pages of their own.

use super::enrol::Terms;
use super::vo::{self, Head};
use crate::view::{Frame, page, span_text};
use crate::visit::{Shown, Visit, done};
use askama::Template;
use xos_api::Request;
use xos_api::vom::{
    DESCRIPTION_MAX, DescribeVo, GRACE_S_DEFAULT, GRACE_S_MAX, GetEnrolmentForm, LEASE_S_DEFAULT,
    LEASE_S_MAX, LEASE_S_MIN, REMINDER_DAYS_DEFAULT, REMINDER_DAYS_MAX, REMINDERS_MAX,
    RENEWAL_S_DEFAULT, RENEWAL_S_MAX, RENEWAL_S_MIN, SetFileAudit, SetGrace, SetLease,
    SetReminders, SetRenewal, TITLE_MAX,
};
use xos_base::Error;

/// Seconds of a minute and of an hour: what forms count in.
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

#[derive(Template)]
#[template(path = "settings.html")]
struct View {
    frame: Frame,
    head: Head,
    description: String,
    title_max: usize,
    description_max: usize,
    /// That of the settings which are shown: who changes others is told.
    version: u64,
    terms: Option<Terms>,
    questions: usize,
    lease: Span,
    grace: Span,
    renewal: Span,
    audit_opens: bool,
    reminders_default: String,
    reminders_max: usize,
    reminder_days_max: u32,
}

/// A time that can be set.
struct Span {
    /// As it is now, in words.
    now: String,
    /// The same in the form's unit.
    value: u64,
    min: u64,
    max: u64,
}

impl Span {
    fn new(now_s: u64, unit: u64, min_s: u64, max_s: u64) -> Span {
        Span {
            now: span_text(now_s.saturating_mul(1000)),
            value: now_s / unit,
            min: min_s.div_ceil(unit),
            max: max_s / unit,
        }
    }
}

/// The page.
pub(crate) async fn show(visit: Visit) -> Shown {
    let info = vo::info_at_home(&visit).await?;
    let vo = visit.vo()?;
    let form = visit.ask_home(&vo, GetEnrolmentForm { vo: vo.clone() }).await?;
    let frame = Frame::of(&visit, &format!("Settings of {vo}"), "vos").await;
    let head = Head::new(&info, "settings");
    let details = info.details.ok_or_else(|| {
        Error::denied("only members see how a VO is set up").hint("apply to the VO")
    })?;
    let lease = details.lease_s.unwrap_or(LEASE_S_DEFAULT);
    let grace = details.grace_s.unwrap_or(GRACE_S_DEFAULT);
    let renewal = details.renewal_s.unwrap_or(RENEWAL_S_DEFAULT);
    page(&View {
        frame,
        head,
        description: info.summary.description,
        title_max: TITLE_MAX,
        description_max: DESCRIPTION_MAX,
        version: details.settings,
        terms: form.terms.as_ref().map(Terms::from),
        questions: form.questions.len(),
        lease: Span::new(lease, MINUTE, LEASE_S_MIN, LEASE_S_MAX),
        grace: Span::new(grace, HOUR, 0, GRACE_S_MAX),
        renewal: Span::new(renewal, HOUR, RENEWAL_S_MIN, RENEWAL_S_MAX),
        audit_opens: details.audit_opens,
        reminders_default: REMINDER_DAYS_DEFAULT.map(|n| n.to_string()).join(", "),
        reminders_max: REMINDERS_MAX,
        reminder_days_max: REMINDER_DAYS_MAX,
    })
}

/// Sets something and shows the settings again.
async fn set<R: Request>(visit: &Visit, r: R, notice: &str) -> Shown {
    let vo = visit.vo()?;
    visit.ask_home(&vo, r).await?;
    done(visit, format!("/vo/{vo}/settings"), notice)
}

/// The version of the settings that the visitor saw.
fn base(visit: &Visit) -> Result<Option<u64>, Error> {
    visit.form.number("version", "the version of the settings")
}

/// Changes title and description.
pub(crate) async fn describe(visit: Visit) -> Shown {
    let text = |name: &str| visit.form.text(name).to_owned();
    let r = DescribeVo {
        vo: visit.vo()?,
        title: text("title"),
        description: text("description"),
        base: base(&visit)?,
    };
    set(&visit, r, "Title and description are changed.").await
}

/// A time from the form, in seconds.
fn seconds(visit: &Visit, unit: u64) -> Result<u64, Error> {
    let amount = visit.form.number::<u64>("amount", "the time")?;
    let amount = amount.ok_or_else(|| Error::invalid("no time was written"))?;
    Ok(amount.saturating_mul(unit))
}

/// Sets the lease.
pub(crate) async fn lease(visit: Visit) -> Shown {
    let r = SetLease { vo: visit.vo()?, lease_s: seconds(&visit, MINUTE)?, base: base(&visit)? };
    set(&visit, r, "The lease is set.").await
}

/// Sets for how long work is held.
pub(crate) async fn grace(visit: Visit) -> Shown {
    let r = SetGrace { vo: visit.vo()?, grace_s: seconds(&visit, HOUR)?, base: base(&visit)? };
    set(&visit, r, "The time for which work is held is set.").await
}

/// Sets for how long a sign-in is good.
pub(crate) async fn renewal(visit: Visit) -> Shown {
    let r = SetRenewal { vo: visit.vo()?, renewal_s: seconds(&visit, HOUR)?, base: base(&visit)? };
    set(&visit, r, "The time for which a sign-in is good is set.").await
}

/// Has opened files noted, or no longer.
pub(crate) async fn audit(visit: Visit) -> Shown {
    let opens = match visit.form.text("opens") {
        "yes" => true,
        "no" => false,
        _ => return Err(Error::invalid("yes or no?").into()),
    };
    let notice = match opens {
        true => "The audit notes who opens which file now. All members see that it does.",
        false => "The audit no longer notes who opens which file.",
    };
    let r = SetFileAudit { vo: visit.vo()?, opens, base: base(&visit)? };
    set(&visit, r, notice).await
}

/// Sets when people are reminded.
pub(crate) async fn reminders(visit: Visit) -> Shown {
    let text = visit.form.text("days");
    let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
    let days: Result<Vec<u32>, _> = parts.map(str::parse::<u32>).collect();
    let days = days
        .map_err(|_| Error::invalid("the days are not numbers").hint("write them as 30, 7, 1"))?;
    let r = SetReminders { vo: visit.vo()?, days, base: base(&visit)? };
    set(&visit, r, "The reminders are set.").await
}
