//! Stand-in operations on rules, on what runs, and on the audit.

use super::{Fake, id};
use std::sync::{Arc, Mutex};
use xos_api::aem::{ListRunning, Running, RunningPage};
use xos_api::audit::*;
use xos_api::policy::*;
use xos_api::vom::{Actor, ServingSite, Terms, WhoServes};
use xos_base::{Error, Millis};
use xos_net::{Caller, Router};

fn rule(name: &str, effect: Effect, note: &str) -> Rule {
    Rule {
        name: name.parse().unwrap(),
        who: Who::Group(id("physics")),
        vo: InVo::Any,
        what: What::Action(Action::Run),
        place: Where::Site(id("rennes")),
        effect,
        note: note.to_owned(),
    }
}

/// One rule, whose note is hostile where texts are.
pub fn rules(note: &str) -> Mutex<RuleList> {
    let changed = RulesChange {
        version: 4,
        by: Actor::Person(id("vera@rennes")),
        time: Millis(1_794_000_000_000),
        set: vec!["night".parse().unwrap()],
        removed: Vec::new(),
        more: 0,
    };
    let rules = vec![rule("night", Effect::Deny, note)];
    Mutex::new(RuleList { version: 4, rules, changed: Some(changed) })
}

impl Fake {
    pub fn is_site_admin(&self, caller: &Caller) -> Result<(), Error> {
        if caller.site_admin() {
            return Ok(());
        }
        Err(Error::denied("you may not do this at the site").hint("ask its administrators"))
    }

    fn set(
        &self,
        list: &Mutex<RuleList>,
        caller: &Caller,
        version: u64,
        rules: Vec<Rule>,
    ) -> Result<RulesSet, Error> {
        let by = caller.person()?;
        let mut list = list.lock().unwrap();
        if version != list.version {
            let text = format!("the rules are others meanwhile: {by} set night; {}", self.text);
            return Err(Error::conflict(text).hint("look at them again"));
        }
        let names: Vec<&str> = rules.iter().map(|r| r.name.as_str()).collect();
        let notes: Vec<&str> = rules.iter().map(|r| r.note.as_str()).collect();
        let said = format!("{by} SetRules {version} {} {}", names.join(","), notes.join(","));
        self.done.lock().unwrap().push(said);
        list.version += 1;
        list.rules = rules;
        Ok(RulesSet { version: list.version, warnings: vec![self.t()] })
    }

    fn verdict(&self, caller: &Caller, r: &WhatIf) -> Result<Verdict, Error> {
        let person = caller.person()?;
        if r.person.as_ref() != Some(&person) && person.name() != "vera" {
            self.is_site_admin(caller)?;
        }
        let night = rule("night", Effect::Deny, &self.text);
        let matched = vec![
            Matched { side: Side::Site, rule: rule("everybody", Effect::Allow, &self.text) },
            Matched { side: Side::Vo, rule: night.clone() },
        ];
        let text = format!("{} may not {}", self.text, r.what.plain());
        Ok(Verdict { allowed: false, side: Side::Vo, rule: Some(night), text, matched })
    }

    fn running(&self, caller: &Caller) -> Result<RunningPage, Error> {
        if !caller.site_admin() {
            caller.member()?;
        }
        let line = |person: &str, job: &str, node: Option<&str>| Running {
            person: id(person),
            job: id(job),
            node: node.map(id),
            units: 3,
            cpu_milli: if node.is_some() { 3000 } else { 0 },
            memory_bytes: 1 << 30,
            since: Millis(1_794_999_000_000),
        };
        let running = vec![
            line("milo@rennes", "1.rennes", Some("n1.rennes")),
            line("milo@rennes", "1.rennes", None),
            line("vera@rennes", "9.pisa", Some("n1.rennes")),
        ];
        Ok(RunningPage { running, ..RunningPage::default() })
    }

    /// Line `number` and the one before it, of two.
    fn lines(&self, caller: &Caller, r: &SearchAudit) -> Result<AuditPage, Error> {
        let person = caller.person()?;
        self.done.lock().unwrap().push(format!("{person} {r:?}"));
        let own = !caller.site_admin() && person.name() != "vera";
        let line = |number: u64| {
            let mut event = Event::new(Millis(1_794_999_000_000), "set_rules");
            event.who = self.t();
            event.on = self.t();
            event.why = self.t();
            event.person = Some(person.clone());
            event.vo = Some(id("demo.rennes"));
            event.from = Some("192.0.2.7".parse().unwrap());
            let noted = Millis(1_794_999_900_000);
            let site = self.site.clone();
            Line { site, number, prev: String::new(), noted, reported: None, event }
        };
        let lines = match r.before {
            None => vec![line(2)],
            Some(2) => vec![line(1)],
            Some(_) => Vec::new(),
        };
        let next = r.before.is_none().then_some(2);
        Ok(AuditPage { lines, next, unreadable: 0, own })
    }

    fn checked(&self) -> AuditCheck {
        let fault =
            AuditFault { file: self.t(), number: 2, kind: FaultKind::Altered, detail: self.t() };
        AuditCheck {
            site: self.site.clone(),
            lines: 2,
            last: 2,
            faults: vec![fault],
            archived: 0,
            heads: 0,
            unverified: 0,
            witnessed: 0,
            silent: vec![id("pisa")],
            next: None,
        }
    }

    pub(super) fn register_rules(self: &Arc<Self>, router: &mut Router) {
        serve! { self, router:
            on |f: &Fake, _: Caller, _: GetVoRules| Ok(f.rules.lock().unwrap().clone());
            on |f: &Fake, c: Caller, r: SetVoRules| {
                if c.person()?.name() != "vera" {
                    return Err(Error::denied("you may not do this in the VO")
                        .hint("that takes an administrator of the VO or an owner of the VO"));
                }
                f.set(&f.rules, &c, r.version, r.rules)
            };
            on |f: &Fake, c: Caller, _: GetSiteRules| {
                f.is_site_admin(&c)?;
                Ok(f.site_rules.lock().unwrap().clone())
            };
            on |f: &Fake, c: Caller, r: SetSiteRules| {
                f.is_site_admin(&c)?;
                f.set(&f.site_rules, &c, r.version, r.rules)
            };
            on |f: &Fake, c: Caller, r: WhatIf| f.verdict(&c, &r);
            on |f: &Fake, c: Caller, _: ListRunning| f.running(&c);
            on |f: &Fake, c: Caller, _: WhoServes| {
                if f.member(&c.person()?).is_none() && !c.site_admin() {
                    return Err(Error::denied("you are no member"));
                }
                let terms = Terms {
                    cpu_milli: 8000,
                    memory_bytes: 16 << 30,
                    storage_bytes: 0,
                    until: None,
                    version: 1,
                };
                let site = |s: &str| ServingSite { site: id(s), terms: terms.clone() };
                Ok(vec![site("pisa"), site("rennes")])
            };
            on |f: &Fake, c: Caller, r: SearchAudit| f.lines(&c, &r);
            on |f: &Fake, c: Caller, _: VerifyAudit| {
                f.is_site_admin(&c)?;
                Ok(f.checked())
            };
            on |f: &Fake, c: Caller, r: HeadsOf| {
                f.is_site_admin(&c)?;
                let (by, statement) = (id("pisa"), f.t());
                let held = vec![HeldHead { by, heard: Millis(1_794_999_000_000), statement }];
                Ok(AuditHeads {
                    site: r.site,
                    held,
                    silent: vec![id("lyon")],
                    unverified: 0,
                    next: None,
                })
            };
        }
    }
}
