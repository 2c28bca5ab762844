//! Whose lines there may be in a closed file: a Bloom filter of its persons and VOs, made by the
//! first search that could use it and kept in memory, 32 KiB of each. So one person's lines among
//! millions take a hundred requests once, and then a few. It only ever leaves out files that hold
//! none: whoever edits a file afterwards is found by verifying, not by searching.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use xos_api::audit::{Line, SearchAudit};

use super::look::Scope;

/// Bits of one filter. With 50,000 persons in a file, the most that 16 MiB hold, one file of ten is
/// read for nothing; with some thousand hardly any.
const BITS: u64 = 1 << 18;
const WORDS: usize = BITS as usize / 64;
/// How many bits stand for a name.
const HASHES: u64 = 4;
/// Most files of which there is one: 32 MiB in all.
const FILES_MAX: usize = 1024;

/// Who is in one file.
pub(super) struct Filter(Vec<u64>);

impl Filter {
    pub(super) fn new() -> Filter {
        Filter(vec![0; WORDS])
    }

    /// Of a file that holds what cannot be read: it is always looked at.
    pub(super) fn of_anybody() -> Filter {
        Filter(vec![u64::MAX; WORDS])
    }

    pub(super) fn add(&mut self, line: &Line) {
        let person = line.event.person.as_ref().map(|p| ("person", p.as_str()));
        let vo = line.event.vo.as_ref().map(|vo| ("vo", vo.as_str()));
        for (word, bit) in [person, vo].into_iter().flatten().flat_map(bits) {
            self.0[word] |= bit;
        }
    }

    fn may_hold(&self, name: (&str, &str)) -> bool {
        bits(name).all(|(word, bit)| self.0[word] & bit != 0)
    }

    /// Whether a search may find something.
    pub(super) fn may_answer(&self, scope: &Scope, ask: &SearchAudit) -> bool {
        let (mut person, mut vo) = (None, None);
        match scope {
            Scope::All => {}
            Scope::Vo(of) => vo = Some(of),
            Scope::Own(who, of) => (person, vo) = (Some(who), of.as_ref()),
        }
        let persons = person.into_iter().chain(&ask.person).map(|p| ("person", p.as_str()));
        let vos = vo.into_iter().chain(&ask.vo).map(|vo| ("vo", vo.as_str()));
        persons.chain(vos).all(|name| self.may_hold(name))
    }
}

/// The bits that stand for a name: in which word, and which there.
fn bits((kind, name): (&str, &str)) -> impl Iterator<Item = (usize, u64)> + use<> {
    let mut hasher = DefaultHasher::new();
    (kind, name).hash(&mut hasher);
    let (low, high) = (hasher.finish() & 0xffff_ffff, (hasher.finish() >> 32) | 1);
    (0..HASHES).map(move |n| {
        let bit = (low + n * high) % BITS;
        (usize::try_from(bit / 64).unwrap_or_default(), 1 << (bit % 64))
    })
}

/// Whether a filter is of use: somebody or some VO is looked for.
pub(super) fn helps(scope: &Scope, ask: &SearchAudit) -> bool {
    *scope != Scope::All || ask.person.is_some() || ask.vo.is_some()
}

/// The filters of closed files, by the number of their first line.
#[derive(Default)]
pub(super) struct Index(Mutex<BTreeMap<u64, Arc<Filter>>>);

impl Index {
    pub(super) fn of(&self, first: u64) -> Option<Arc<Filter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&first).cloned()
    }

    pub(super) fn has_room(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len() < FILES_MAX
    }

    pub(super) fn keep(&self, first: u64, filter: Filter) -> Arc<Filter> {
        let filter = Arc::new(filter);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(first, filter.clone());
        filter
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_api::audit::Event;
    use xos_base::Millis;

    fn line(n: u64) -> Line {
        let mut event = Event::new(Millis(1), "sign_in");
        event.person = Some(format!("p{n}@rennes").parse().unwrap());
        event.vo = Some(format!("v{n}.rennes").parse().unwrap());
        let (site, prev) = ("rennes".parse().unwrap(), String::new());
        Line { site, number: n, prev, noted: Millis(1), reported: None, event }
    }

    /// If it failed, a search would miss lines, or read all files for one person.
    #[test]
    fn a_filter_holds_all_and_little_else() {
        let mut filter = Filter::new();
        (0..1000).for_each(|n| filter.add(&line(n)));
        let own = |n: u64| {
            let line = line(n);
            Scope::Own(line.event.person.unwrap(), line.event.vo)
        };
        let any = SearchAudit::default();
        assert!((0..1000).all(|n| filter.may_answer(&own(n), &any)));
        assert!(filter.may_answer(&Scope::All, &any));
        let wrong = (1000..3000).filter(|n| filter.may_answer(&own(*n), &any)).count();
        assert!(wrong < 20, "{wrong} of 2000 are read for nothing");
        let person = line(5000).event.person;
        let ask = SearchAudit { person, ..any };
        let known = Scope::Vo("v1.rennes".parse().unwrap());
        assert!(Filter::of_anybody().may_answer(&known, &ask));
        assert!(!filter.may_answer(&known, &ask) && !filter.may_answer(&Scope::All, &ask));
    }
}
