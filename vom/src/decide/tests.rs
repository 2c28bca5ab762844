//! Whole sequences of commands against one VO, as the home runs them.

mod credentials;
mod ends;
mod enrolment;
mod lease;
mod members;
mod nested;
mod random;
mod renewal;
mod rules;
mod settings;
mod sites;
mod suspended;

use super::*;
use crate::log::Chain;
use crate::policy::{Carried, Policy, Subject};
use xos_api::vom::{Actor, Change, Entry};
use xos_base::{Epoch, Kind};

const NOW: Millis = Millis(1_000_000);

/// A VO and the entries that made it.
struct Home {
    policy: Policy,
    vo: Vo,
    log: Vec<Entry>,
}

fn id<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap()
}

fn person(p: &str) -> Subject {
    Subject::Person { person: id(p), site_admin: false, carried: Carried::All }
}

fn terms(version: u32) -> Terms {
    Terms { cpu_milli: 4000, memory_bytes: 1 << 30, storage_bytes: 0, until: None, version }
}

fn policy() -> Policy {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(Policy::built_in()).unwrap()
}

impl Home {
    /// `demo.rennes`, founded by alice@rennes.
    fn new(policy: &Policy) -> Home {
        let change = Change::Founded {
            owner: id("alice@rennes"),
            title: "Demo".into(),
            description: String::new(),
        };
        let entry = Entry {
            vo: id("demo.rennes"),
            number: 1,
            prev: String::new(),
            time: NOW,
            actor: Actor::Person(id("alice@rennes")),
            change,
        };
        let vo = Vo::found(&entry).unwrap();
        Home { policy: policy.clone(), vo, log: vec![entry] }
    }

    fn run(&mut self, who: &Subject, command: Command) -> Result<bool, Error> {
        let action = command.action(&self.vo, who.person());
        let grant = self.policy.authorise(&self.vo, who, action, NOW)?;
        let Some(change) = decide(&self.vo, &command, &grant, NOW)? else { return Ok(false) };
        let chain = Chain { number: self.vo.number, hash: String::new(), time: self.vo.time };
        let entry = chain.next(&self.vo.id, who.actor(), change, NOW);
        self.vo.check(&entry).expect("what was decided may follow");
        self.vo.apply(&entry);
        self.log.push(entry);
        Ok(true)
    }

    fn ok(&mut self, who: &str, command: Command) {
        assert!(self.run(&person(who), command).unwrap());
    }

    fn kind(&mut self, who: &str, command: Command) -> Kind {
        self.run(&person(who), command).unwrap_err().kind
    }

    fn join(&mut self, p: &str, roles: &[&str]) {
        self.ok(p, Command::Apply { message: "hello".into(), words: Words::default() });
        let roles = roles.iter().map(|r| id(r)).collect();
        let approve = Command::Approve { person: id(p), groups: vec![], roles, expires: None };
        self.ok("alice@rennes", approve);
    }

    fn epoch(&self, p: &str) -> Epoch {
        self.vo.members[&id::<PersonId>(p)].epoch
    }
}
