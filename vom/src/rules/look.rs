//! Looks at rules before they count: whether they lock out, and what may not be meant.
//!
//! Works on a copy of what it needs of a VO, and judges each class of members once, at most some
//! hundred: a look holds up nobody.

use super::book::Book;
use super::court::{ClassKey, Court, Finding, Judge};
use super::engine::{Asked, Engine};
use crate::state::Vo;
use std::collections::HashMap;
use std::sync::Arc;
use xos_api::policy::{Action, Place};
use xos_base::{Error, Millis, SiteId, VoId};

/// Most members of a VO, and most owners, on whom rules are tried.
const MEMBERS_TRIED: usize = 500;
/// Most sites at which they are tried.
const SITES_TRIED: usize = 8;
/// Most VOs on whose members a site's rules are tried.
pub(crate) const VOS_TRIED: usize = 20;
/// Most judgements of whether an owner is left.
const OWNERS_JUDGED: usize = 80;
/// Most judgements of whether anybody can do one thing.
const ACTION_JUDGED: usize = 40;

fn at(site: &SiteId) -> Place {
    Place { site: site.clone(), node: None }
}

/// Of a VO what rules are tried on.
pub(crate) struct Tried {
    vo: VoId,
    rules: Arc<Engine>,
    /// Owners who can act, and others, each as a question.
    owners: Vec<Asked>,
    others: Vec<Asked>,
    /// Where it is served, or its home.
    sites: Vec<SiteId>,
}

impl Tried {
    /// Copies it. `rules`: those of the VO.
    pub(crate) fn of(vo: &Vo, rules: Arc<Engine>, now: Millis) -> Tried {
        let mut sites: Vec<SiteId> = vo.serving(now).into_iter().map(|s| s.site).collect();
        sites.truncate(SITES_TRIED);
        if sites.is_empty() {
            sites.push(vo.id.site());
        }
        let place = at(&vo.id.site());
        let acting = vo.owners.iter().filter(|p| vo.acts(p, now));
        let acting = acting.filter_map(|p| vo.members.get_key_value(p));
        let others = vo.members.iter().filter(|(p, _)| !vo.owners.contains(*p));
        let asked = |(person, member)| vo.asked(person, member, Action::See, &place);
        Tried {
            vo: vo.id.clone(),
            rules,
            owners: acting.take(MEMBERS_TRIED).map(asked).collect(),
            others: others.take(MEMBERS_TRIED).map(asked).collect(),
            sites,
        }
    }
}

/// Judges each class once, and at most so many.
struct Trial<'a> {
    judge: &'a Judge,
    court: Court,
    known: HashMap<ClassKey, Finding>,
}

impl<'a> Trial<'a> {
    fn new(judge: &'a Judge, vo: Arc<Engine>, site: Arc<Engine>) -> Trial<'a> {
        Trial { judge, court: Court { vo, site }, known: HashMap::new() }
    }

    /// `None`: enough was judged; `left` is how many may be.
    fn finding(&mut self, asked: &Asked, left: &mut usize) -> Option<Finding> {
        let class = self.court.class(asked);
        if let Some(known) = self.known.get(&class) {
            return Some(known.clone());
        }
        *left = left.checked_sub(1)?;
        let finding = self.judge.decide(&self.court, asked);
        self.known.insert(class, finding.clone());
        Some(finding)
    }

    /// Whether one of them can do it at one of the sites.
    fn can(&mut self, all: &[Asked], action: Action, sites: &[SiteId], left: &mut usize) -> bool {
        all.iter().any(|asked| {
            sites.iter().any(|site| {
                let asked = Asked { action, place: at(site), ..asked.clone() };
                self.finding(&asked, left).is_some_and(|finding| finding.allowed)
            })
        })
    }
}

/// The rules of a site that lets everybody do what their VO does.
fn open_site() -> Arc<Engine> {
    Arc::new(Engine::new(&Book::of_site()))
}

/// Refuses rules of a VO under which no owner who can act could do all that rules decide at one of
/// the sites that serve it.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] with the rule that keeps an owner from it.
pub(crate) fn check_owners(judge: &Judge, tried: &Tried, book: &Book) -> Result<(), Error> {
    let mut trial = Trial::new(judge, Arc::new(Engine::new(book)), open_site());
    let (mut first, mut left) = (None, OWNERS_JUDGED);
    for owner in &tried.owners {
        for site in &tried.sites {
            let kept_from = Action::ALL.into_iter().find_map(|action| {
                let asked = Asked { action, place: at(site), ..owner.clone() };
                match trial.finding(&asked, &mut left) {
                    Some(finding) if finding.allowed => None,
                    Some(finding) => Some(finding.text(&asked, site)),
                    None => Some("too many rules name single owners and sites".to_owned()),
                }
            });
            match kept_from {
                None => return Ok(()),
                Some(text) => first = first.or(Some(text)),
            }
        }
    }
    // Without an owner who can act, there is nobody whom these rules lock out.
    let Some(text) = first else { return Ok(()) };
    let why = format!("these rules would lock out every owner of {}: {text}", tried.vo);
    let all = Action::ALL.map(|action| format!("`{action}`")).join(", ");
    Err(Error::invalid(why).hint(format!("leave one owner at least {all} at one site")))
}

/// What the rules of a VO let nobody but owners do, of those who are tried, at any site that serves
/// it.
pub(crate) fn nobody_in(judge: &Judge, tried: &Tried, book: &Book) -> Vec<String> {
    if tried.others.is_empty() {
        return Vec::new();
    }
    let mut trial = Trial::new(judge, Arc::new(Engine::new(book)), open_site());
    let of = format!("no member of {} who was tried, besides owners,", tried.vo);
    nobody(&of, |action| trial.can(&tried.others, action, &tried.sites, &mut { ACTION_JUDGED }))
}

/// What the rules of a site let nobody do there, of those who are tried. `vos`: what it serves.
pub(crate) fn nobody_at(judge: &Judge, site: &SiteId, book: &Book, vos: &[Tried]) -> Vec<String> {
    if vos.iter().all(|vo| vo.owners.is_empty() && vo.others.is_empty()) {
        return Vec::new();
    }
    let engine = Arc::new(Engine::new(book));
    let trial = |vo: &Tried| Trial::new(judge, vo.rules.clone(), engine.clone());
    let mut trials: Vec<Trial<'_>> = vos.iter().map(trial).collect();
    let here = std::slice::from_ref(site);
    nobody(&format!("nobody who was tried at {site}"), |action| {
        let mut left = ACTION_JUDGED;
        vos.iter().zip(&mut trials).any(|(vo, trial)| {
            trial.can(&vo.owners, action, here, &mut left)
                || trial.can(&vo.others, action, here, &mut left)
        })
    })
}

fn nobody(who: &str, mut can: impl FnMut(Action) -> bool) -> Vec<String> {
    let tried = [Action::Login, Action::Submit, Action::Run];
    let cannot = tried.into_iter().filter(|action| !can(*action));
    cannot.map(|action| format!("under these rules {who} can {}", action.plain())).collect()
}
