//! VOs at this site: those it serves with their shares, and those whose home it is.

use super::super::shares::TermsText;
use super::super::sign_in::kindly;
use super::{Ask, SiteHead, administrator, confirm};
use crate::fields::Fields;
use crate::view::{Badge, Frame, cpus_text, page_with};
use crate::visit::{Shown, Stop, Visit, done};
use askama::Template;
use xos_api::vom::{
    GetVo, ListVos, OfferShare, REASON_MAX, ResumeVo, ServedVo, ServedVos, SuspendVo, VoState,
    WithdrawShare,
};
use xos_base::{Error, VoId};

/// VOs of the site's list that are looked at for one page.
const LIST_MAX: u32 = 50;
/// The largest amount that a form takes, in thousandths of a processor or bytes.
const AMOUNT_MAX: f64 = 9e15;
const GIB: f64 = 1_073_741_824.0;

#[derive(Template)]
#[template(path = "site_vos.html")]
struct View {
    frame: Frame,
    site_head: SiteHead,
    served: Vec<Served>,
    homed: Vec<Homed>,
    next: Option<String>,
    typed: Typed,
    trouble: Option<String>,
    reason_max: usize,
}

struct Served {
    vo: String,
    state: Badge,
    trouble: Option<String>,
    accepted: Option<TermsText>,
    offered: Option<TermsText>,
    numbers: String,
}

struct Homed {
    vo: String,
    title: String,
    state: Badge,
    members: Option<u64>,
    /// Why nobody can act in it.
    halted: Option<String>,
    suspended: bool,
    active: bool,
}

/// The fields of the offer.
#[derive(Default)]
struct Typed {
    vo: String,
    cpus: String,
    memory: String,
    storage: String,
    until: String,
}

impl From<&ServedVo> for Served {
    fn from(s: &ServedVo) -> Served {
        let state = match (s.serving, &s.accepted) {
            (true, _) => Badge { word: "serving", sign: "✓", class: "good" },
            (false, Some(_)) => Badge { word: "held", sign: "‖", class: "bad" },
            (false, None) => Badge { word: "offered", sign: "○", class: "wait" },
        };
        let last = u64::from(s.base) + u64::from(s.size).saturating_sub(1);
        Served {
            vo: s.vo.to_string(),
            state,
            trouble: s.trouble.clone(),
            accepted: s.accepted.as_ref().map(TermsText::from),
            offered: s.offered.as_ref().map(TermsText::from),
            numbers: format!("{} to {last}", s.base),
        }
    }
}

/// Both lists, and the form that offers a share; filled in with the share of the VO that the query
/// names.
pub(crate) async fn show(visit: Visit) -> Shown {
    let served = visit.ask(ServedVos {}).await?;
    let wanted: Option<VoId> = visit.query.id_if("vo")?;
    let typed = match &wanted {
        Some(vo) => filled(vo, served.iter().find(|s| s.vo == *vo)),
        None => Typed::default(),
    };
    lists(&visit, served, typed, None).await
}

fn filled(vo: &VoId, served: Option<&ServedVo>) -> Typed {
    let terms = served.and_then(|s| s.offered.as_ref().or(s.accepted.as_ref()));
    let gib = |bytes: u64| (bytes as f64 / GIB).to_string();
    match terms {
        Some(t) => Typed {
            vo: vo.to_string(),
            cpus: cpus_text(t.cpu_milli),
            memory: gib(t.memory_bytes),
            storage: gib(t.storage_bytes),
            until: String::new(),
        },
        None => Typed { vo: vo.to_string(), ..Typed::default() },
    }
}

async fn lists(
    visit: &Visit,
    served: Vec<ServedVo>,
    typed: Typed,
    trouble: Option<Error>,
) -> Shown {
    let (homed, next) = homed(visit).await?;
    let status = trouble.as_ref().map_or(200, |e| e.kind.http_status());
    let view = View {
        frame: Frame::of(visit, "VOs of this site", "site").await,
        site_head: SiteHead::new("vos"),
        served: served.iter().map(Served::from).collect(),
        homed,
        next,
        typed,
        trouble: trouble.as_ref().map(kindly),
        reason_max: REASON_MAX,
    };
    page_with(status, &view)
}

/// A part of the VOs whose home is here.
async fn homed(visit: &Visit) -> Result<(Vec<Homed>, Option<String>), Stop> {
    administrator(visit).await?;
    let after = visit.query.id_if("after")?;
    let part = visit.ask(ListVos { after, limit: Some(LIST_MAX) }).await?;
    let own = visit.console.grid.site();
    let mut homed = Vec::new();
    for vo in part.vos.into_iter().filter(|v| v.vo.site() == *own) {
        let info = visit.ask(GetVo { vo: vo.vo.clone() }).await?;
        homed.push(Homed {
            vo: vo.vo.to_string(),
            title: vo.title,
            state: (&info.state).into(),
            members: info.details.map(|d| d.members),
            halted: info.state.halted(),
            suspended: matches!(info.state, VoState::Suspended { .. }),
            active: info.state == VoState::Active,
        });
    }
    Ok((homed, part.next.map(|vo| vo.to_string())))
}

/// Offers a share; when it does not go, the form comes back with what was typed and why.
pub(crate) async fn offer(visit: Visit) -> Shown {
    let offered = match read(&visit.form) {
        Ok(r) => {
            let vo = r.vo.clone();
            visit.ask(r).await.map(|_| vo)
        }
        Err(e) => Err(Stop::Failed(e)),
    };
    match offered {
        Ok(vo) => {
            let notice =
                format!("{vo} is offered a share. Its administrators accept or refuse it.");
            done(&visit, "/site/vos".into(), notice)
        }
        Err(Stop::Failed(e)) => {
            let served = visit.ask(ServedVos {}).await?;
            let text = |name: &str| visit.form.text(name).to_owned();
            let typed = Typed {
                vo: text("vo"),
                cpus: text("cpus"),
                memory: text("memory"),
                storage: text("storage"),
                until: text("until"),
            };
            lists(&visit, served, typed, Some(e)).await
        }
        Err(stop) => Err(stop),
    }
}

fn read(form: &Fields) -> Result<OfferShare, Error> {
    let missing = |what: &str| Error::invalid(format!("{what}: how much is offered?"));
    Ok(OfferShare {
        vo: form.id("vo")?,
        cpu_milli: amount(form, "cpus", "processors", 1000.0)?
            .ok_or_else(|| missing("processors"))?,
        memory_bytes: amount(form, "memory", "memory", GIB)?.ok_or_else(|| missing("memory"))?,
        storage_bytes: amount(form, "storage", "storage", GIB)?.unwrap_or_default(),
        until: form.day("until", "last day")?,
        base: None,
    })
}

/// A field times `scale`, as a whole number.
fn amount(form: &Fields, name: &str, what: &str, scale: f64) -> Result<Option<u64>, Error> {
    let Some(number) = form.number::<f64>(name, what)? else { return Ok(None) };
    let scaled = (number * scale).round();
    if !(0.0..=AMOUNT_MAX).contains(&scaled) {
        return Err(Error::invalid(format!("{what}: the number is out of range")));
    }
    // In range, and whole after rounding.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let scaled = scaled as u64;
    Ok(Some(scaled))
}

/// Asks whether the share shall really end.
pub(crate) async fn confirm_withdraw(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let ask = Ask {
        heading: format!("End the share of {vo}?"),
        text: "Its jobs, sessions and mounts at this site end at once, and its members have no \
               accounts here any more. This cannot be undone: a new offer begins anew."
            .to_owned(),
        action: format!("/site/vo/{vo}/withdraw"),
        reason: Some("Reason, which the VO's administrators see (optional)"),
        button: "End the share",
        back: "/site/vos".to_owned(),
    };
    confirm(&visit, "vos", ask).await
}

/// Ends the share.
pub(crate) async fn withdraw(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let reason = visit.form.text("reason").to_owned();
    visit.ask(WithdrawShare { vo: vo.clone(), reason }).await?;
    done(&visit, "/site/vos".into(), format!("This site serves {vo} no longer."))
}

/// Suspends a VO whose home is here.
pub(crate) async fn suspend(visit: Visit) -> Shown {
    administrator(&visit).await?;
    let vo = visit.vo()?;
    let reason = visit.form.text("reason").to_owned();
    visit.ask(SuspendVo { vo: vo.clone(), reason }).await?;
    done(&visit, "/site/vos".into(), format!("{vo} is suspended: nobody can act in it."))
}

/// Lets it work again.
pub(crate) async fn resume(visit: Visit) -> Shown {
    administrator(&visit).await?;
    let vo = visit.vo()?;
    visit.ask(ResumeVo { vo: vo.clone() }).await?;
    done(&visit, "/site/vos".into(), format!("{vo} works again."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_base::Millis;

    fn form(text: &str) -> Result<OfferShare, Error> {
        read(&Fields::parse(text.as_bytes()).unwrap())
    }

    /// If it failed, a site would give another amount, or for another time, than its administrator
    /// wrote.
    #[test]
    fn an_offer_says_what_the_form_says() {
        let r = form("vo=demo.rennes&cpus=1.5&memory=0.5&until=2027-01-31").unwrap();
        assert_eq!((r.cpu_milli, r.memory_bytes, r.storage_bytes), (1500, 1 << 29, 0));
        assert_eq!(r.until, Some(Millis(1_801_439_999_999)));
        for (text, word) in [
            ("vo=x&cpus=1&memory=1", "VO"),
            ("vo=a.b&memory=1", "processors"),
            ("vo=a.b&cpus=1", "memory"),
            ("vo=a.b&cpus=NaN&memory=1", "processors"),
            ("vo=a.b&cpus=-1&memory=1", "processors"),
            ("vo=a.b&cpus=1&memory=1e99", "memory"),
            ("vo=a.b&cpus=1&memory=1&until=soon", "last day"),
        ] {
            let e = form(text).unwrap_err();
            assert!(e.message.contains(word), "{text}: {e}");
        }
    }
}
