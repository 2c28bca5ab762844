//! What the site's audit is told: who asked for what, about whom, and how it went.

use xos_api::audit::Event;
use xos_base::{Error, Millis, PersonId, SiteId, VoId};
use xos_net::audit::asked;
use xos_net::{Caller, Peer};

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

#[cfg(test)]
mod tests {
    use super::*;

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
