//! What the site's audit is told: who asked for what, about whom, and how it went.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use xos_api::audit::{Event, Outcome};
use xos_base::{Error, Millis, PersonId, SiteId, VoId};
use xos_net::audit::{Audit, asked, note, tell};
use xos_net::{Caller, Peer};

/// Most refusals of one operation to callers who proved nothing that are noted in a minute: anybody
/// can have them made, and nobody is to fill the site's disk by that. What is beyond is counted.
pub(crate) const STRANGERS_MAX: u32 = 600;

/// Who asks.
pub(crate) trait Asker {
    /// The beginning of the event.
    fn event(&self, now: Millis, what: &str) -> Event;
}

impl Asker for Caller {
    fn event(&self, now: Millis, what: &str) -> Event {
        asked(self, now, what)
    }
}

impl Asker for Peer {
    fn event(&self, now: Millis, what: &str) -> Event {
        Event { from: self.address, ..Event::new(now, what) }
    }
}

/// What an operation is about. Never a password, a code, a token or a key.
#[derive(Debug, Default)]
pub(crate) struct About {
    on: String,
    person: Option<PersonId>,
    vo: Option<VoId>,
}

/// About a thing.
pub(crate) fn on(what: impl Into<String>) -> About {
    About { on: what.into(), ..About::default() }
}

/// About a person.
pub(crate) fn of(person: &PersonId) -> About {
    About { person: Some(person.clone()), ..About::default() }
}

/// About whom a person says that they are, where that is a name at all: what is none may be a
/// password that was typed in the wrong field.
pub(crate) fn named(name: &str, site: &SiteId) -> About {
    let name = match name.split_once('@') {
        Some((name, at)) if at == site.as_str() => name,
        _ => name,
    };
    About { person: site.person(name).ok(), ..About::default() }
}

/// About nothing that is not known already.
pub(crate) fn nothing<T>(_: &T) -> About {
    About::default()
}

/// The same, of a request.
pub(crate) fn plainly<T>(_: &T, _: &SiteId) -> About {
    About::default()
}

impl About {
    /// In a VO.
    pub(crate) fn within(self, vo: &VoId) -> About {
        About { vo: Some(vo.clone()), ..self }
    }

    /// And a thing.
    pub(crate) fn on(self, what: impl Into<String>) -> About {
        About { on: what.into(), ..self }
    }

    /// Puts into `event` what is known.
    pub(crate) fn fill(self, event: &mut Event) {
        if !self.on.is_empty() {
            event.on = self.on;
        }
        if self.person.is_some() {
            event.person = self.person;
        }
        if self.vo.is_some() {
            event.vo = self.vo;
        }
    }
}

/// The event of an operation that is over; `outcome` says what its answer adds. Whoever proved
/// themselves by it did it.
pub(crate) fn over<T>(
    mut event: Event,
    result: &Result<T, Error>,
    outcome: impl FnOnce(&T) -> About,
) -> Event {
    if let Ok(reply) = result {
        outcome(reply).fill(&mut event);
        if let (true, Some(person)) = (event.who.is_empty(), &event.person) {
            event.who = person.to_string();
        }
    }
    event
}

/// The way to the site's audit.
pub(crate) struct Told {
    audit: Arc<dyn Audit>,
    strangers: Mutex<Strangers>,
}

/// Refusals to callers who proved nothing, in one minute.
#[derive(Default)]
struct Strangers {
    minute: u64,
    noted: BTreeMap<String, u32>,
    left_out: u64,
}

impl Told {
    pub(crate) fn new(audit: Arc<dyn Audit>) -> Told {
        Told { audit, strangers: Mutex::default() }
    }

    /// Notes how an operation went, before its caller is told.
    ///
    /// # Errors
    /// As [`tell`].
    pub(crate) async fn end<T>(&self, event: Event, result: Result<T, Error>) -> Result<T, Error> {
        if result.is_err() && event.who.is_empty() && !self.takes(&event) {
            return result;
        }
        tell(&*self.audit, event, result).await
    }

    /// Notes something that nobody waits for.
    pub(crate) fn note(&self, event: Event) {
        note(&*self.audit, event);
    }

    /// Whether another refusal of a stranger is noted. How many were not is told a minute later.
    fn takes(&self, event: &Event) -> bool {
        let minute = event.time.secs() / 60;
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if strangers.minute != minute {
            let former = std::mem::take(&mut *strangers);
            strangers.minute = minute;
            if former.left_out > 0 {
                let left_out = former.left_out;
                let mut event = Event::new(event.time, "left_out");
                event.outcome = Outcome::Refused;
                event.why = format!("{left_out} refusals to strangers in a minute are not noted");
                self.note(event);
            }
        }
        let noted = strangers.noted.entry(event.what.clone()).or_default();
        if *noted < STRANGERS_MAX {
            *noted += 1;
            return true;
        }
        strangers.left_out += 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_net::audit::Remembered;

    /// If it failed, a stranger could fill the disk of a site's core, or hide in silence what they
    /// tried.
    #[tokio::test]
    async fn refusals_to_strangers_are_bounded_and_the_rest_is_counted() {
        let audit = Arc::new(Remembered::default());
        let told = Told::new(audit.clone());
        let refuse = async |second: u64, who: &str| {
            let mut event = Event::new(Millis::from_secs(second), "sign_in");
            event.who = who.to_owned();
            let _refused = told.end(event, Err::<(), _>(Error::denied("no"))).await;
        };
        for _ in 0..STRANGERS_MAX + 7 {
            refuse(61, "").await;
        }
        assert_eq!(audit.events().len(), STRANGERS_MAX as usize);
        refuse(61, "alice@rennes").await;
        assert_eq!(audit.events().len(), STRANGERS_MAX as usize + 1, "somebody is always noted");
        refuse(120, "").await;
        let events = audit.events();
        let counted = &events[events.len() - 2];
        assert!(counted.what == "left_out" && counted.why.starts_with("7 "), "{counted:?}");
        assert_eq!(events[events.len() - 1].what, "sign_in");
    }

    /// If it failed, a password that was typed as the name would stand in the audit.
    #[test]
    fn only_what_can_be_a_name_is_noted() {
        let site: SiteId = "rennes".parse().unwrap();
        for (typed, person) in [
            ("alice", Some("alice@rennes")),
            ("alice@rennes", Some("alice@rennes")),
            ("Correct Horse!", None),
            ("alice@pisa", None),
        ] {
            let about = named(typed, &site);
            assert_eq!(about.person.as_ref().map(PersonId::as_str), person, "{typed}");
            assert_eq!(about.on, "");
        }
    }
}
