//! Who may do what with jobs: rules of the VO and rules of the site, judged by casbin. Both must
//! allow; the site's denial wins over everything.

use crate::core::lock;
use casbin::{
    CoreApi, DefaultModel, Enforcer, MgmtApi, NullAdapter, function_map::OperatorFunction,
};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Mutex;
use xos_api::aem::Refusal;
use xos_base::membership::{ROLE_ADMIN, ROLE_OWNER};
use xos_base::{Error, Membership, PersonId};

/// Most rules of a site.
pub const RULES_MAX: usize = 1000;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Have this core own a job.
    Submit,
    /// Run units on this site's nodes.
    Run,
    /// See other members' jobs of the VO.
    See,
    /// Cancel other members' jobs of the VO.
    Cancel,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 4] = [Action::Submit, Action::Run, Action::See, Action::Cancel];

    /// As rules write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Submit => "submit",
            Action::Run => "run",
            Action::See => "see",
            Action::Cancel => "cancel",
        }
    }

    /// As a person reads it behind "may" or "may not".
    pub fn plain(self) -> &'static str {
        match self {
            Action::Submit => "submit jobs",
            Action::Run => "run jobs",
            Action::See => "look at other members' jobs",
            Action::Cancel => "cancel other members' jobs",
        }
    }
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It may be done, unless another rule denies it.
    Allow,
    /// It may not.
    Deny,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `*`, `person:alice@rennes`, `site:rennes` (everybody whom that site vouches for),
    /// `group:physics`, or `role:admin`.
    pub who: String,
    /// `*` or a VO: `demo.rennes`.
    #[serde(default = "any")]
    pub vo: String,
    /// `*`, `submit`, `run`, `see` or `cancel`.
    #[serde(default = "any")]
    pub what: String,
    /// Whether it allows or denies.
    pub effect: Effect,
}

fn any() -> String {
    "*".to_owned()
}

const MODEL: &str = "
[request_definition]
r = who, vo, what
[policy_definition]
p = who, vo, what, eft
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = (p.what == \"*\" || p.what == r.what) && (p.vo == \"*\" || p.vo == r.vo) && \
(p.who == \"*\" || holds(r.who, p.who))
";

/// Most judgements remembered; the rules do not change while the service runs.
const KNOWN_MAX: usize = 10_000;

/// The rules of VOs and of this site.
pub struct Policy {
    vo: Enforcer,
    site: Enforcer,
    known: Mutex<HashMap<(String, Action), Verdict>>,
}

#[derive(Clone, Copy)]
enum Verdict {
    Allowed,
    BySite,
    ByVo,
}

impl Policy {
    /// Members submit and run; administrators see and cancel the jobs of all. `site` may take
    /// away, or nothing.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when a rule is malformed.
    pub async fn new(site: &[Rule]) -> Result<Policy, Error> {
        let rule = |who: &str, what: Action| Rule {
            who: who.to_owned(),
            vo: any(),
            what: what.as_str().to_owned(),
            effect: Effect::Allow,
        };
        let admin = format!("role:{ROLE_ADMIN}");
        let owner = format!("role:{ROLE_OWNER}");
        let vo = [
            rule("*", Action::Submit),
            rule("*", Action::Run),
            rule(&admin, Action::See),
            rule(&owner, Action::See),
            rule(&admin, Action::Cancel),
            rule(&owner, Action::Cancel),
        ];
        if site.len() > RULES_MAX {
            return Err(Error::invalid(format!("[aem] has more than {RULES_MAX} rules")));
        }
        site.iter().try_for_each(check)?;
        let mut with_default = site.to_vec();
        with_default.push(Rule { who: any(), vo: any(), what: any(), effect: Effect::Allow });
        let (vo, site) = (enforcer(&vo).await?, enforcer(&with_default).await?);
        Ok(Policy { vo, site, known: Mutex::default() })
    }

    /// Judges.
    ///
    /// # Errors
    /// Which side refused.
    pub fn judge(&self, member: &Membership, action: Action) -> Result<(), Refusal> {
        let (who, vo, what) = (subject(member), &member.vo, action.as_str());
        let refuse = |rule: &str, side: &str| Refusal {
            rule: rule.to_owned(),
            text: format!("{side} do not let {} {} in {vo}", member.person, action.plain()),
            later: false,
        };
        let key = (format!("{who}{vo}"), action);
        let known = lock(&self.known).get(&key).copied();
        let verdict = known.unwrap_or_else(|| {
            let verdict = self.decide(&who, vo.as_str(), what);
            let mut known = lock(&self.known);
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
            known.insert(key, verdict);
            verdict
        });
        match verdict {
            Verdict::Allowed => Ok(()),
            Verdict::BySite => Err(refuse("site-policy", "this site's rules")),
            Verdict::ByVo => Err(refuse("vo-policy", "the VO's rules")),
        }
    }

    fn decide(&self, who: &str, vo: &str, what: &str) -> Verdict {
        let allows = |e: &Enforcer| match e.enforce((who, vo, what)) {
            Ok(yes) => yes,
            Err(error) => {
                tracing::error!(%error, "the policy cannot be judged; it denies");
                false
            }
        };
        match (allows(&self.site), allows(&self.vo)) {
            (false, _) => Verdict::BySite,
            (true, false) => Verdict::ByVo,
            (true, true) => Verdict::Allowed,
        }
    }
}

/// All names by which rules may mean a member, each between bars, so that none is part of another.
fn subject(m: &Membership) -> String {
    let mut s = format!("|person:{}|site:{}|", m.person, m.person.site());
    for g in &m.groups {
        // Writing into a String cannot fail.
        let _infallible = write!(s, "group:{}|", g.name);
    }
    for r in &m.roles {
        let _infallible = write!(s, "role:{r}|");
    }
    s
}

fn check(rule: &Rule) -> Result<(), Error> {
    let bad = |what: &str, text: &str| {
        let text: String = text.chars().take(64).collect();
        Err(Error::invalid(format!("a rule in [aem] has {what} {text:?}")).hint(
            "who: *, person:<person>, site:<site>, group:<group> or role:<role>; vo: * or a VO; \
             what: *, submit, run, see or cancel",
        ))
    };
    let who = match rule.who.split_once(':') {
        None => rule.who == "*",
        Some(("person", p)) => p.parse::<PersonId>().is_ok(),
        Some(("site", s)) => s.parse::<xos_base::SiteId>().is_ok(),
        Some(("group", g)) => g.parse::<xos_base::GroupName>().is_ok(),
        Some(("role", r)) => r.parse::<xos_base::RoleName>().is_ok(),
        Some(_) => false,
    };
    if !who {
        return bad("who =", &rule.who);
    }
    if rule.vo != "*" && rule.vo.parse::<xos_base::VoId>().is_err() {
        return bad("vo =", &rule.vo);
    }
    if rule.what != "*" && !Action::ALL.iter().any(|a| a.as_str() == rule.what) {
        return bad("what =", &rule.what);
    }
    Ok(())
}

async fn enforcer(rules: &[Rule]) -> Result<Enforcer, Error> {
    let bad = |e: casbin::Error| Error::internal(format!("the job policy cannot be loaded: {e}"));
    let model = DefaultModel::from_str(MODEL).await.map_err(bad)?;
    let mut e = Enforcer::new(model, NullAdapter).await.map_err(bad)?;
    e.add_function(
        "holds",
        OperatorFunction::Arg2(|names, name| {
            let (names, name) = (names.to_string(), name.to_string());
            (!name.is_empty() && names.contains(&format!("|{name}|"))).into()
        }),
    );
    for r in rules {
        let eft = match r.effect {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        };
        let row = vec![r.who.clone(), r.vo.clone(), r.what.clone(), eft.to_owned()];
        e.add_policy(row).await.map_err(bad)?;
    }
    Ok(e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use xos_base::{Group, GroupNumber};

    fn people() -> Vec<(&'static str, Membership)> {
        let member = testing::alice();
        let mut admin = member.clone();
        admin.person = "bob@rennes".parse().unwrap();
        admin.roles = vec![ROLE_ADMIN.parse().unwrap()];
        let mut owner = member.clone();
        owner.person = "dora@rennes".parse().unwrap();
        owner.roles = vec![ROLE_OWNER.parse().unwrap()];
        let mut foreign = member.clone();
        foreign.person = "carol@pisa".parse().unwrap();
        foreign.groups.push(Group { name: "physics".parse().unwrap(), number: GroupNumber(2) });
        let mut other = member.clone();
        other.vo = "other.pisa".parse().unwrap();
        vec![
            ("alice", member),
            ("bob, admin", admin),
            ("dora, owner", owner),
            ("carol of pisa", foreign),
            ("alice in other.pisa", other),
        ]
    }

    fn rule(who: &str, vo: &str, what: &str, effect: Effect) -> Rule {
        Rule { who: who.into(), vo: vo.into(), what: what.into(), effect }
    }

    /// Who may do what under which site rules. A difference means that somebody may do more, or
    /// less, than before.
    #[tokio::test]
    async fn permissions_are_those_of_the_golden_matrix() {
        use Effect::{Allow, Deny};
        let sites = [
            ("no rules", vec![]),
            ("deny site:pisa run", vec![rule("site:pisa", "*", "run", Deny)]),
            ("deny group:physics *", vec![rule("group:physics", "*", "*", Deny)]),
            ("deny demo.rennes", vec![rule("*", "demo.rennes", "*", Deny)]),
            ("deny role:admin cancel", vec![rule("role:admin", "*", "cancel", Deny)]),
            (
                "allow person:alice@rennes, deny other.pisa",
                vec![
                    rule("person:alice@rennes", "*", "*", Allow),
                    rule("*", "other.pisa", "*", Deny),
                ],
            ),
            ("deny person:lice@rennes", vec![rule("person:lice@rennes", "*", "*", Deny)]),
        ];
        let mut text = String::new();
        for (name, rules) in sites {
            let p = Policy::new(&rules).await.unwrap();
            text += &format!("site: {name}\n");
            for (who, m) in people() {
                text += &format!("  {who:20}");
                for action in Action::ALL {
                    let verdict = match p.judge(&m, action) {
                        Ok(()) => "yes",
                        Err(r) if r.rule == "site-policy" => "SITE",
                        Err(_) => "vo",
                    };
                    text += &format!(" {}:{verdict:4}", action.as_str());
                }
                text = text.trim_end().to_owned() + "\n";
            }
        }
        crate::golden::check("policy.txt", &text);
    }

    /// If it failed, people would read words of rules files, or not which side refused them what.
    #[tokio::test]
    async fn refusals_are_told_in_plain_words() {
        for words in Action::ALL.map(Action::plain) {
            assert!(words.contains("jobs") && !words.contains(['-', '_']), "{words:?}");
        }
        let policy = Policy::new(&[rule("*", "*", "run", Effect::Deny)]).await.unwrap();
        let told = |action| policy.judge(&testing::alice(), action).unwrap_err().text;
        let see =
            "the VO's rules do not let alice@rennes look at other members' jobs in demo.rennes";
        assert_eq!(told(Action::See), see);
        let run = "this site's rules do not let alice@rennes run jobs in demo.rennes";
        assert_eq!(told(Action::Run), run);
    }

    #[tokio::test]
    async fn malformed_rules_are_refused() {
        for r in [
            rule("alice@rennes", "*", "*", Effect::Deny),
            rule("person:alice", "*", "*", Effect::Deny),
            rule("*", "demo", "*", Effect::Deny),
            rule("*", "*", "fly", Effect::Deny),
            rule("role:a|role:b", "*", "*", Effect::Deny),
        ] {
            assert!(Policy::new(std::slice::from_ref(&r)).await.is_err(), "{r:?} was taken");
        }
    }
}
