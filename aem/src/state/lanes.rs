//! Jobs of many people, looked at in turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use xos_base::{PersonId, VoId};

/// Jobs by VO and member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lanes(BTreeMap<VoId, BTreeMap<PersonId, BTreeSet<u64>>>);

impl Lanes {
    /// Puts a job in, or takes it out.
    pub(super) fn set(&mut self, vo: &VoId, person: &PersonId, job: u64, inside: bool) {
        if inside {
            let people = self.0.entry(vo.clone()).or_default();
            people.entry(person.clone()).or_default().insert(job);
            return;
        }
        let Some(people) = self.0.get_mut(vo) else { return };
        let Some(jobs) = people.get_mut(person) else { return };
        jobs.remove(&job);
        if jobs.is_empty() {
            people.remove(person);
        }
        if people.is_empty() {
            self.0.remove(vo);
        }
    }

    /// The VOs that have jobs here.
    pub fn vos(&self) -> impl Iterator<Item = &VoId> {
        self.0.keys()
    }

    /// How many jobs there are.
    pub fn len(&self) -> usize {
        self.0.values().flat_map(BTreeMap::values).map(BTreeSet::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All jobs: one of each VO in turn, within a VO one of each member in turn, of a member the
    /// oldest first. Of VOs and members the one with the oldest job begins.
    pub fn in_turn(&self) -> impl Iterator<Item = u64> {
        let mut vos: Vec<VecDeque<_>> = Vec::with_capacity(self.0.len());
        for people in self.0.values() {
            let mut lanes: Vec<_> = people.values().map(|jobs| jobs.iter().peekable()).collect();
            lanes.sort_by_key(|lane| lane.clone().next());
            vos.push(lanes.into());
        }
        vos.sort_by_key(|people| people.front().and_then(|lane| lane.clone().next()));
        let mut vos: VecDeque<_> = vos.into();
        std::iter::from_fn(move || {
            let mut people = vos.pop_front()?;
            let mut lane = people.pop_front()?;
            let job = lane.next()?;
            if lane.peek().is_some() {
                people.push_back(lane);
            }
            if !people.is_empty() {
                vos.push_back(people);
            }
            Some(*job)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, one member's many jobs, or the members that a VO invents, would keep everybody
    /// else's from being looked at.
    #[test]
    fn nobody_waits_for_all_jobs_of_another() {
        let mut lanes = Lanes::default();
        let mut put = |vo: &str, person: &str, jobs: std::ops::Range<u64>| {
            for job in jobs {
                lanes.set(&vo.parse().unwrap(), &person.parse().unwrap(), job, true);
            }
        };
        put("demo.rennes", "alice@rennes", 1..4);
        put("demo.rennes", "bob@rennes", 10..12);
        put("other.pisa", "carol@pisa", 20..22);
        assert_eq!(lanes.in_turn().collect::<Vec<_>>(), [1, 20, 10, 21, 2, 11, 3]);
        let (vo, carol) = ("other.pisa".parse().unwrap(), "carol@pisa".parse().unwrap());
        for job in [20, 21, 22] {
            lanes.set(&vo, &carol, job, false);
        }
        assert_eq!(lanes.in_turn().collect::<Vec<_>>(), [1, 10, 2, 11, 3]);
        assert_eq!(lanes.len(), 5);
        assert_eq!(lanes.vos().count(), 1, "empty lanes are kept for ever");
    }
}
