//! What the site's audit is told of this node: logins, mounts, envelopes, what is held or ended.

use super::volumes::MountSpec;
use super::{Agent, flood};
use crate::spec::EnvelopeSpec;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use xos_api::Done;
use xos_api::audit::{Event, ReportEvents};
use xos_api::node::units::EnvelopeId;
use xos_api::vom::AccountState;
use xos_base::local::Account;
use xos_base::{Error, Membership};
use xos_net::audit::asked;
use xos_net::control::Control;
use xos_net::{Audit, Caller};

/// Why what a member runs ends who is one still.
const TAKEN: &str = "a role or group that it carries was taken away";

/// Somebody who signs in, and how.
#[derive(Clone, Copy)]
pub(super) struct Login<'a> {
    pub(super) account: &'a Account,
    /// PAM's service.
    pub(super) service: &'a str,
    /// The host that they come from, as PAM tells it.
    pub(super) rhost: Option<&'a str>,
    /// By what they proved themselves here; empty: not told.
    pub(super) by: &'a str,
}

impl<'a> Login<'a> {
    /// Of an account.
    pub(super) fn of(account: &'a Account, service: &'a str, rhost: Option<&'a str>) -> Login<'a> {
        Login { account, service, rhost, by: "" }
    }

    fn fill(&self, event: &mut Event, proved: bool) {
        let person = &self.account.person;
        if proved {
            event.who = person.to_string();
        }
        (event.person, event.vo) = (Some(person.clone()), Some(self.account.vo.clone()));
        event.on = format!("{} as {}", self.service, self.account.name);
        if !self.by.is_empty() {
            event.on = format!("{} by {}", event.on, self.by);
        }
        let host = self.rhost.filter(|host| !host.is_empty());
        event.from = host.and_then(|host| host.parse::<IpAddr>().ok());
        if let (Some(host), None) = (host, event.from) {
            event.on = format!("{} from {host}", event.on);
        }
    }
}

impl Agent {
    /// Reports to the core what happens here, until this future is dropped.
    pub(super) async fn report_events(self: Arc<Agent>, control: Arc<Control>) {
        let send = |report: ReportEvents| {
            let control = control.clone();
            async move { control.call(report).await.map(|Done {}| ()) }
        };
        self.spool.report(send).await;
    }

    /// An event of this node that begins now.
    pub(super) fn event(&self, what: &str) -> Event {
        let mut event = Event::new(self.now(), what);
        event.node = Some(self.node.clone());
        event
    }

    /// Notes an event, unless there are too many of its person. Nobody waits for it.
    pub(super) fn note(&self, event: Event) {
        self.note_left_out();
        let taken = self.flood.lock().unwrap_or_else(PoisonError::into_inner).takes(&event);
        if taken {
            let _unheard = self.spool.record(event.cut());
        }
    }

    /// Notes how many events were left out in the minute before.
    fn note_left_out(&self) {
        let now = self.now();
        let lines = self.flood.lock().unwrap_or_else(PoisonError::into_inner).turn(now);
        for mut event in lines {
            event.who = format!("node {}", self.node);
            event.node = Some(self.node.clone());
            let _unheard = self.spool.record(event);
        }
    }

    /// Notes how a step of a login went.
    pub(super) fn note_login(&self, what: &str, login: Login<'_>, result: Result<(), Error>) {
        let mut event = self.event(what);
        login.fill(&mut event, result.is_ok());
        self.note(event.ended(&result));
    }

    /// Notes what became of a stream to sshd.
    pub(super) fn note_stream(&self, what: &str, caller: &Caller, result: Result<(), Error>) {
        let mut event = asked(caller, self.now(), what);
        event.node = Some(self.node.clone());
        self.note(event.ended(&result));
    }

    /// Notes what is done to a member's work.
    pub(super) fn note_member(&self, what: &str, uid: u32) {
        self.note_ended(what, uid, format!("uid {uid}"), "");
    }

    /// Notes that processes of these are ended, once for each until there are none.
    pub(super) fn note_processes(&self, uids: &BTreeSet<u32>) {
        let new = {
            let mut endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
            flood::fresh(&mut endings.processes, uids)
        };
        new.into_iter().for_each(|uid| self.note_member("end_processes", uid));
    }

    /// Notes that sessions of these are ended since they carry what was taken, once for each.
    pub(super) fn note_taken_sessions(&self, uids: &BTreeSet<u32>) {
        let new = {
            let mut endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
            flood::fresh(&mut endings.sessions, uids)
        };
        for uid in new {
            self.note_ended("end_work", uid, format!("sessions of uid {uid}"), TAKEN);
        }
    }

    /// Notes that an envelope is ended since it carries what was taken, once.
    pub(super) fn note_taken_envelope(&self, spec: &EnvelopeSpec) {
        let (id, on) = (spec.id.to_string(), format!("envelope {}", spec.id));
        let new = {
            let mut endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
            if endings.envelopes.len() >= flood::ENVELOPES_TOLD_MAX {
                endings.envelopes.clear();
            }
            endings.envelopes.insert(id)
        };
        if new {
            self.note_ended("end_work", spec.account.uid, on, TAKEN);
        }
    }

    fn note_ended(&self, what: &str, uid: u32, on: String, why: &str) {
        let mut event = self.event(what);
        event.who = format!("node {}", self.node);
        (event.on, event.why) = (on, why.to_owned());
        if let Some(found) = self.lock_vos().by_uid(uid) {
            event.person = Some(found.member.person.clone());
            event.vo = Some(found.id.clone());
        }
        self.note(event);
    }

    /// Notes that a volume is mounted, or no more.
    pub(super) fn note_mount(&self, what: &str, spec: &MountSpec, result: &Result<(), Error>) {
        let mut event = self.event(what);
        event.who = format!("node {}", self.node);
        event.on = format!("volume {} at {}", spec.volume, spec.at.display());
        event.vo = Some(spec.vo.clone());
        self.note(event.ended(result));
    }

    /// Notes that an envelope was made, for whom, or that the core ended it.
    pub(super) fn note_envelope(&self, what: &str, id: &EnvelopeId, of: Option<&Membership>) {
        let mut event = self.event(what);
        event.who = format!("core of {}", self.node.site());
        event.on = format!("job {}, envelope {}", id.job, id.serial);
        event.person = of.map(|m| m.person.clone());
        event.vo = of.map(|m| m.vo.clone());
        self.note(event);
    }

    /// Notes whose work here is held, goes on, or is ended since this was looked at last. `state`
    /// says of a uid where its member stands.
    pub(super) fn note_standings(&self, state: impl Fn(u32) -> Option<AccountState>) {
        self.note_left_out();
        let mut works: BTreeSet<u32> = self.units.live().into_iter().map(|(_, uid)| uid).collect();
        works.extend(self.session_uids());
        let mut told = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        let uids: BTreeSet<u32> = works.iter().chain(told.keys()).copied().collect();
        for uid in uids {
            let Some(now) = state(uid) else { continue };
            let before = told.insert(uid, now).unwrap_or(AccountState::Active);
            if let Some(what) = turn(before, now) {
                self.note_member(what, uid);
            }
        }
        told.retain(|uid, state| match state {
            AccountState::Active => false,
            AccountState::Suspended => true,
            AccountState::Ended => works.contains(uid),
        });
    }
}

/// What is done to the work of a member who stood and now stands so.
fn turn(before: AccountState, now: AccountState) -> Option<&'static str> {
    match (before, now) {
        (AccountState::Suspended, AccountState::Active) => Some("resume_work"),
        (AccountState::Active | AccountState::Ended, AccountState::Suspended) => {
            Some("freeze_work")
        }
        (AccountState::Active | AccountState::Suspended, AccountState::Ended) => Some("end_work"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::account;
    use super::*;
    use xos_base::Millis;

    /// All that a node notes, and how. If a line went missing, site-admin.md would promise what is
    /// not told.
    const NOTED: [&str; 15] = [
        "allow_login",
        "ask_device",
        "close_session",
        "cut_stream",
        "end_envelope",
        "end_processes",
        "end_work",
        "freeze_work",
        "mount",
        "open_envelope",
        "open_session",
        "open_stream",
        "prove_login",
        "resume_work",
        "unmount",
    ];

    /// What the sources of the agent say outside of tests.
    fn sources(folder: &std::path::Path, all: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, all);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                all.push_str(text.split("#[cfg(test)]").next().unwrap());
            }
        }
    }

    #[test]
    fn all_that_is_promised_is_noted() {
        let mut all = String::new();
        sources(concat!(env!("CARGO_MANIFEST_DIR"), "/src/agent").as_ref(), &mut all);
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/site-admin.md");
        let docs = std::fs::read_to_string(docs).unwrap();
        for what in NOTED {
            assert!(all.contains(&format!("\"{what}\"")), "{what} is not noted");
            assert!(docs.contains(&format!("`{what}`")), "{what} is not in site-admin.md");
        }
    }

    /// If it failed, the audit would not say who signed in by what, from where, or would take a
    /// refused stranger for the account's person.
    #[test]
    fn a_login_says_who_how_and_from_where() {
        let account = account();
        let told = |rhost, proved| {
            let mut event = Event::new(Millis(1), "open_session");
            Login { by: "password", ..Login::of(&account, "sshd", rhost) }.fill(&mut event, proved);
            event
        };
        let event = told(Some("192.0.2.7"), true);
        assert_eq!(event.who, "ann@rennes");
        assert_eq!(event.on, "sshd as ann.demo.rennes by password");
        assert_eq!(event.from, Some("192.0.2.7".parse().unwrap()));
        let event = told(Some("laptop.example"), false);
        assert_eq!((event.who.as_str(), event.from), ("", None));
        assert_eq!(event.person, Some(account.person.clone()));
        assert_eq!(event.on, "sshd as ann.demo.rennes by password from laptop.example");
    }

    /// If it failed, each change of some account would be a line for everybody who works here, or
    /// nobody could tell when somebody's work was held.
    #[test]
    fn only_turns_are_noted() {
        use AccountState::{Active, Ended, Suspended};
        for (before, now, what) in [
            (Active, Active, None),
            (Active, Suspended, Some("freeze_work")),
            (Suspended, Suspended, None),
            (Suspended, Active, Some("resume_work")),
            (Suspended, Ended, Some("end_work")),
            (Active, Ended, Some("end_work")),
            (Ended, Ended, None),
        ] {
            assert_eq!(turn(before, now), what, "{before:?} {now:?}");
        }
    }
}
