//! How many events one member may have this node note: one who signs in without end must not push
//! what happens to others out of the spool. Decided without I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use xos_api::audit::{Event, Outcome};
use xos_base::{Millis, PersonId, VoId};

/// Most events of one uid, which is one person in one VO, that are noted in a minute.
const EVENTS_PER_MINUTE: u32 = 300;
/// Most uids that are counted apart; beyond it the others are counted together.
const COUNTED_MAX: usize = 10_000;

/// Most envelopes of which it is remembered that their end was noted; then it is noted again of
/// those that have not ended.
pub(super) const ENVELOPES_TOLD_MAX: usize = 10_000;

/// What the core asked for and this node did: always noted, with room of its own in the spool.
pub(super) const KEPT_ROOM: [&str; 3] = ["end_processes", "end_work", "freeze_work"];

/// Whose an event is: a uid's, or this node's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Whose {
    person: Option<PersonId>,
    vo: Option<VoId>,
}

/// What was noted in one minute.
#[derive(Debug, Default)]
pub(super) struct Flood {
    minute: u64,
    noted: HashMap<Whose, u32>,
    more: BTreeMap<Whose, u64>,
}

impl Flood {
    /// What is to be told of the minute before, when another one begins: whose events were left
    /// out, and how many.
    pub(super) fn turn(&mut self, now: Millis) -> Vec<Event> {
        let minute = now.secs() / 60;
        if self.minute == minute {
            return Vec::new();
        }
        self.minute = minute;
        self.noted.clear();
        let line = |(whose, count): (Whose, u64)| {
            let mut event = Event::new(now, "left_out");
            (event.person, event.vo, event.outcome) = (whose.person, whose.vo, Outcome::Failed);
            event.why = format!("{count} more events of a minute are not noted");
            event
        };
        std::mem::take(&mut self.more).into_iter().map(line).collect()
    }

    /// Whether an event is noted.
    pub(super) fn takes(&mut self, event: &Event) -> bool {
        if KEPT_ROOM.contains(&event.what.as_str()) {
            return true;
        }
        let whose = Whose { person: event.person.clone(), vo: event.vo.clone() };
        let full = self.noted.len() >= COUNTED_MAX && !self.noted.contains_key(&whose);
        let whose = if full { Whose::default() } else { whose };
        let noted = self.noted.entry(whose.clone()).or_default();
        if *noted < EVENTS_PER_MINUTE {
            *noted += 1;
            return true;
        }
        *self.more.entry(whose).or_default() += 1;
        false
    }
}

/// Whose work is being ended, as far as it was noted: enforcement goes over it again and again.
#[derive(Debug, Default)]
pub(super) struct Endings {
    /// What runs beside units and sessions, by uid.
    pub(super) processes: BTreeSet<u32>,
    /// Sessions that carry what was taken, by uid.
    pub(super) sessions: BTreeSet<u32>,
    /// Envelopes that carry what was taken, by id.
    pub(super) envelopes: BTreeSet<String>,
}

/// Which of `now` were not told yet. Those that are not among them any more are forgotten.
pub(super) fn fresh(told: &mut BTreeSet<u32>, now: &BTreeSet<u32>) -> Vec<u32> {
    let new = now.difference(told).copied().collect();
    told.clone_from(now);
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a member could have what others do, or what was done to them, left out by
    /// signing in without end; or nobody would see that something is missing.
    #[test]
    fn one_members_flood_is_counted_and_nobody_elses_events_are() {
        let mut flood = Flood::default();
        let event = |what: &str, person: &str| {
            let mut event = Event::new(Millis::from_secs(61), what);
            event.person = Some(person.parse().unwrap());
            event.vo = Some("demo.rennes".parse().unwrap());
            event
        };
        assert!(flood.turn(Millis::from_secs(61)).is_empty());
        let eve = event("prove_login", "eve@rennes");
        let taken = (0..10 * EVENTS_PER_MINUTE).filter(|_| flood.takes(&eve)).count();
        assert_eq!(taken, EVENTS_PER_MINUTE as usize);
        assert!(flood.takes(&event("open_session", "bob@rennes")));
        for what in KEPT_ROOM {
            assert!(flood.takes(&event(what, "eve@rennes")), "{what}");
        }
        let lines = flood.turn(Millis::from_secs(120));
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].person, Some("eve@rennes".parse().unwrap()));
        assert!(lines[0].why.starts_with(&format!("{} more", 9 * EVENTS_PER_MINUTE)));
        assert!(flood.takes(&eve) && flood.turn(Millis::from_secs(121)).is_empty());
        for n in 0..2 * COUNTED_MAX {
            flood.takes(&event("prove_login", &format!("p{n}@rennes")));
        }
        assert!(flood.noted.len() <= COUNTED_MAX + 1, "it grows without end");
    }

    /// If it failed, what does not end at once would be a line each time it is ended again, or one
    /// that begins anew none.
    #[test]
    fn what_is_ended_again_and_again_is_told_once() {
        let mut told = BTreeSet::new();
        assert_eq!(fresh(&mut told, &BTreeSet::from([1, 2])), [1, 2]);
        assert_eq!(fresh(&mut told, &BTreeSet::from([1, 3])), [3]);
        assert!(fresh(&mut told, &BTreeSet::new()).is_empty());
        assert_eq!(fresh(&mut told, &BTreeSet::from([1])), [1]);
    }
}
