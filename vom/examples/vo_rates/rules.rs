//! Decisions by rules: found anew and remembered, beside casbin alone, which looks at all of them.

use crate::{Measured, Outcome, micros};
use std::sync::Arc;
use std::time::Instant;
use xos_api::policy::{Action, Effect, InVo, Place, Rule, What, Where, Who};
use xos_vom::rules::model::Casbin;
use xos_vom::rules::{Asked, Book, Court, Engine, Judge};

/// Rules of each VO, and of the site where it has any of its own.
const RULES: usize = 10_000;
/// VOs, where there are several.
const VOS: usize = 20;
/// Questions of each kind.
const QUESTIONS: usize = 2000;
/// Those that casbin alone is asked, which takes it milliseconds.
const ALONE: usize = 60;
/// Far apart in the list.
const STRIDE: usize = 389;

/// What the measurements of one case are called.
struct Names {
    uncached: [&'static str; 2],
    cached: [&'static str; 2],
    alone: [&'static str; 2],
}

/// Allowed first, then denied.
const ONE: Names = Names {
    uncached: ["one.uncached.allowed", "one.uncached.denied"],
    cached: ["one.cached.allowed", "one.cached.denied"],
    alone: ["one.casbin.allowed", "one.casbin.denied"],
};
const MANY: Names = Names {
    uncached: ["many.uncached.allowed", "many.uncached.denied"],
    cached: ["many.cached.allowed", "many.cached.denied"],
    alone: ["many.casbin.allowed", "many.casbin.denied"],
};

/// One VO whose site has no rules of its own; then many, and a site that has rules for each.
pub async fn measure() -> Outcome<Measured> {
    let rules = (0..RULES).map(of_vo).collect::<Outcome<Vec<Rule>>>()?;
    let of_site: Vec<Rule> = (1..RULES)
        .map(of_site)
        .chain(Book::of_site().rules().cloned().map(Ok))
        .collect::<Outcome<_>>()?;
    let default: Vec<Rule> = Book::of_site().rules().cloned().collect();
    let mut measured = Measured::new();
    case(&ONE, 1, (&rules, &default), &mut measured).await?;
    case(&MANY, VOS, (&rules, &of_site), &mut measured).await?;
    Ok(measured)
}

/// A rule of a VO: some deny persons, some allow groups and roles, some deny sites.
fn of_vo(n: usize) -> Outcome<Rule> {
    let (who, what, effect) = match n % 4 {
        0 => (format!("person:p{n}@pisa"), Action::Run, Effect::Deny),
        1 => (format!("group:g{n}"), Action::Run, Effect::Allow),
        2 => (format!("role:r{n}"), Action::See, Effect::Allow),
        _ => (format!("site:s{n}"), Action::Submit, Effect::Deny),
    };
    rule(n, &who, InVo::Any, What::Action(what), effect)
}

/// A rule of a site about one of the VOs.
fn of_site(n: usize) -> Outcome<Rule> {
    let vo = InVo::Vo(format!("v{}.rennes", n % VOS).parse()?);
    rule(n, &format!("person:x{n}@pisa"), vo, What::Any, Effect::Deny)
}

fn rule(n: usize, who: &str, vo: InVo, what: What, effect: Effect) -> Outcome<Rule> {
    let (name, who): (_, Who) = (format!("r{n:05}").parse()?, who.parse()?);
    Ok(Rule { name, who, vo, what, place: Where::Any, effect, note: String::new() })
}

/// The question of number `k`: one that a group is allowed; or one that a rule denies to a person,
/// in turn with one of which no rule speaks.
fn question(k: usize, vos: usize, denied: bool) -> Outcome<Asked> {
    let n = k * STRIDE % (RULES / 4) * 4;
    let (person, action) = match (denied, k % 2) {
        (false, _) => (format!("q{k}@pisa"), Action::Run),
        (true, 0) => (format!("p{n}@pisa"), Action::Run),
        (true, _) => (format!("q{k}@pisa"), Action::Cancel),
    };
    Ok(Asked {
        vo: format!("v{}.rennes", k % vos).parse()?,
        person: Some(person.parse()?),
        groups: vec!["members".parse()?, format!("g{}", n + 1).parse()?],
        roles: vec![format!("r{}", n + 2).parse()?],
        action,
        place: Place { site: "rennes".parse()?, node: None },
    })
}

async fn case(
    names: &Names,
    vos: usize,
    (of_vo, of_site): (&[Rule], &[Rule]),
    measured: &mut Measured,
) -> Outcome<()> {
    let judge = Judge::new().await?;
    let site = Arc::new(Engine::new(&Book::with(1, of_site.iter().cloned())));
    let vo = |_| Arc::new(Engine::new(&Book::with(1, of_vo.iter().cloned())));
    let courts: Vec<Court> = (0..vos).map(vo).map(|vo| Court { vo, site: site.clone() }).collect();
    let alone = [Casbin::new().await?, Casbin::new().await?];
    for (casbin, rules) in alone.iter().zip([of_site, of_vo]) {
        casbin.show(rules.iter());
    }
    for (way, denied) in [false, true].into_iter().enumerate() {
        let asked = (0..QUESTIONS).map(|k| question(k, vos, denied));
        let asked = asked.collect::<Outcome<Vec<Asked>>>()?;
        let courts = courts.iter().cycle();
        let both = || asked.iter().zip(courts.clone());
        let right = |allowed: bool, asked: &Asked| match allowed == denied {
            true => Err(format!("{asked:?} is judged wrongly")),
            false => Ok(()),
        };
        let mut times = |name, one: &dyn Fn(&Asked, &Court) -> bool, most| -> Outcome<()> {
            let mut each = Vec::with_capacity(most);
            for (asked, court) in both().take(most) {
                let start = Instant::now();
                let allowed = one(asked, court);
                each.push(micros(start));
                right(allowed, asked)?;
            }
            measured.insert(name, each);
            Ok(())
        };
        times(
            names.uncached[way],
            &|asked: &Asked, court: &Court| judge.decide(court, asked).allowed,
            QUESTIONS,
        )?;
        // Asked once, it is remembered.
        for (asked, court) in both() {
            right(judge.judge(court, asked).allowed, asked)?;
        }
        times(
            names.cached[way],
            &|asked: &Asked, court: &Court| judge.judge(court, asked).allowed,
            QUESTIONS,
        )?;
        let by_casbin = |asked: &Asked, _: &Court| alone.iter().all(|c| c.allows_by_shown(asked));
        times(names.alone[way], &by_casbin, ALONE)?;
    }
    Ok(())
}
