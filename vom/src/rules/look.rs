//! Looks at rules before they count: whether they lock out, and what may not be meant.

use super::book::Book;
use super::court::{Court, Judge};
use super::engine::Engine;
use crate::state::Vo;
use std::sync::Arc;
use xos_api::policy::{Action, Place, Side};
use xos_base::{Error, Millis, SiteId};

/// Most members of a VO whom rules are tried on.
const MEMBERS_TRIED: usize = 500;
/// Most sites at which they are tried.
const SITES_TRIED: usize = 8;
/// Most VOs on whose members a site's rules are tried.
pub(crate) const VOS_TRIED: usize = 20;

fn at(site: &SiteId) -> Place {
    Place { site: site.clone(), node: None }
}

/// Refuses rules of a VO under which no owner who can act could see and cancel its jobs.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] with the rule that keeps an owner from it.
pub(crate) fn check_owners(judge: &Judge, vo: &Vo, book: &Book, now: Millis) -> Result<(), Error> {
    let (engine, place) = (Engine::new(book), at(&vo.id.site()));
    let mut first = None;
    for person in vo.owners.iter().filter(|p| vo.acts(p, now)) {
        let Some(member) = vo.members.get(person) else { continue };
        let kept_from = [Action::See, Action::Cancel].into_iter().find_map(|action| {
            let asked = vo.asked(person, member, action, &place);
            let finding = judge.side(Side::Vo, &engine, &asked);
            (!finding.allowed).then(|| finding.text(&asked, &place.site))
        });
        match kept_from {
            None => return Ok(()),
            Some(text) => first = first.or(Some(text)),
        }
    }
    // Without an owner who can act, there is nobody whom these rules lock out.
    let Some(text) = first else { return Ok(()) };
    let why = format!("these rules would lock out every owner of {}: {text}", vo.id);
    Err(Error::invalid(why).hint("leave one owner at least the right to `see` and to `cancel`"))
}

/// What the rules of a VO let nobody do, of those who are tried, at any site that serves it.
pub(crate) fn nobody_in(judge: &Judge, vo: &Vo, book: &Book, now: Millis) -> Vec<String> {
    let engine = Arc::new(Engine::new(book));
    let site = Arc::new(Engine::new(&Book::of_site()));
    let court = Court { vo: engine, site };
    let mut sites: Vec<SiteId> = vo.serving(now).into_iter().map(|s| s.site).collect();
    sites.truncate(SITES_TRIED);
    if sites.is_empty() {
        sites.push(vo.id.site());
    }
    let places: Vec<Place> = sites.iter().map(at).collect();
    let of = format!("no member of {} who was tried", vo.id);
    nobody(&of, |action| can(judge, vo, &court, action, &places))
}

/// What the rules of a site let nobody do there, of those who are tried. `vos`: what it serves.
pub(crate) fn nobody_at<'v>(
    judge: &Judge,
    site: &SiteId,
    book: &Book,
    vos: impl Iterator<Item = &'v Vo> + Clone,
) -> Vec<String> {
    if vos.clone().all(|vo| vo.members.is_empty()) {
        return Vec::new();
    }
    let (engine, places) = (Arc::new(Engine::new(book)), [at(site)]);
    nobody(&format!("nobody who was tried at {site}"), |action| {
        vos.clone().any(|vo| {
            let court = Court { vo: Arc::new(Engine::new(&vo.rules)), site: engine.clone() };
            can(judge, vo, &court, action, &places)
        })
    })
}

fn can(judge: &Judge, vo: &Vo, court: &Court, action: Action, places: &[Place]) -> bool {
    vo.members.iter().take(MEMBERS_TRIED).any(|(person, member)| {
        places.iter().any(|place| {
            let asked = vo.asked(person, member, action, place);
            judge.decide(court, &asked).allowed
        })
    })
}

fn nobody(who: &str, can: impl Fn(Action) -> bool) -> Vec<String> {
    let tried = [Action::Login, Action::Submit, Action::Run];
    let cannot = tried.into_iter().filter(|action| !can(*action));
    cannot.map(|action| format!("under these rules {who} can {}", action.plain())).collect()
}
