//! The casbin model, and an enforcer that judges by the rules it is shown.

use super::engine::Asked;
use casbin::{CoreApi, DefaultModel, Enforcer, NullAdapter, function_map::OperatorFunction};
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use xos_api::policy::Rule;
use xos_base::Error;

/// One side's rules: some allow, and none denies. A name stands in each row, so that two rules of
/// the same words stay two.
const MODEL: &str = "
[request_definition]
r = who, vo, what, site, node
[policy_definition]
p = name, who, vo, what, place, eft
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = (p.what == \"*\" || p.what == r.what) && (p.vo == \"*\" || p.vo == r.vo) && \
(p.place == \"*\" || p.place == r.site || p.place == r.node) && \
(p.who == \"*\" || holds(r.who, p.who))
";

/// An enforcer.
pub struct Casbin {
    /// Holds the rules of one question at a time.
    enforcer: Mutex<Enforcer>,
}

impl Casbin {
    /// An enforcer of the model.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the model does not hold together.
    pub async fn new() -> Result<Casbin, Error> {
        let bad = |e: casbin::Error| Error::internal(format!("the model of rules: {e}"));
        let model = DefaultModel::from_str(MODEL).await.map_err(bad)?;
        let mut enforcer = Enforcer::new(model, NullAdapter).await.map_err(bad)?;
        enforcer.add_function(
            "holds",
            OperatorFunction::Arg2(|names, name| {
                let (names, name) = (names.to_string(), name.to_string());
                (!name.is_empty() && names.contains(&format!("|{name}|"))).into()
            }),
        );
        Ok(Casbin { enforcer: Mutex::new(enforcer) })
    }

    /// Whether these rules allow what is asked.
    pub fn allows<'r>(&self, asked: &Asked, rules: impl Iterator<Item = &'r Rule>) -> bool {
        let mut enforcer = self.enforcer.lock().unwrap_or_else(PoisonError::into_inner);
        show(&mut enforcer, rules);
        enforce(&enforcer, asked)
    }

    /// Shows it rules, for [`Casbin::allows_by_shown`]: so it can be measured what it takes to look
    /// at them.
    pub fn show<'r>(&self, rules: impl Iterator<Item = &'r Rule>) {
        show(&mut self.enforcer.lock().unwrap_or_else(PoisonError::into_inner), rules);
    }

    /// Whether the rules that it was shown last allow what is asked.
    pub fn allows_by_shown(&self, asked: &Asked) -> bool {
        enforce(&self.enforcer.lock().unwrap_or_else(PoisonError::into_inner), asked)
    }
}

fn show<'r>(enforcer: &mut Enforcer, rules: impl Iterator<Item = &'r Rule>) {
    let model = enforcer.get_mut_model();
    model.clear_policy();
    for rule in rules {
        model.add_policy("p", "p", row(rule));
    }
}

fn enforce(enforcer: &Enforcer, asked: &Asked) -> bool {
    let who = names(asked);
    let vo = asked.vo.as_str();
    let site = format!("site:{}", asked.place.site);
    // Without a node, no rule's place is like it.
    let node = asked.place.node.as_ref().map_or_else(String::new, |n| format!("node:{n}"));
    let what = asked.action.as_str();
    enforcer.enforce((who.as_str(), vo, what, site.as_str(), node.as_str())).unwrap_or_else(
        |error| {
            tracing::error!(%error, "rules cannot be judged; they deny");
            false
        },
    )
}

fn row(rule: &Rule) -> Vec<String> {
    vec![
        rule.name.to_string(),
        rule.who.to_string(),
        rule.vo.to_string(),
        rule.what.to_string(),
        rule.place.to_string(),
        rule.effect.as_str().to_owned(),
    ]
}

/// All names by which rules may mean who is asked about, each between bars, so that none is part of
/// another.
fn names(asked: &Asked) -> String {
    let mut s = "|".to_owned();
    // Writing into a String cannot fail.
    if let Some(person) = &asked.person {
        let _infallible = write!(s, "person:{person}|site:{}|", person.site());
    }
    for g in &asked.groups {
        let _infallible = write!(s, "group:{g}|");
    }
    for r in &asked.roles {
        let _infallible = write!(s, "role:{r}|");
    }
    s
}
