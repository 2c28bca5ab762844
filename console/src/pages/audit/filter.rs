//! What is searched for, as the form and the address of a page say it.

use crate::fields::Fields;
use std::collections::BTreeMap;
use xos_api::audit::{Outcome, SearchAudit};
use xos_base::{Error, Millis, NodeId, PersonId, SiteId};

/// Most sites whose places an address holds.
const PLACES_MAX: usize = 64;
/// The last millisecond of a day, from its first.
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Where the next part of each site begins: before this line; 0: there is no more.
#[derive(Clone, Debug, Default)]
pub(super) struct Before(BTreeMap<SiteId, u64>);

impl Before {
    /// `pisa:12,rennes:0`.
    fn read(text: &str) -> Result<Before, Error> {
        let mut places = BTreeMap::new();
        for part in text.split(',').filter(|p| !p.is_empty()).take(PLACES_MAX) {
            let place = part.split_once(':').and_then(|(site, number)| {
                Some((site.parse::<SiteId>().ok()?, number.parse::<u64>().ok()?))
            });
            let (site, number) = place.ok_or_else(|| {
                Error::invalid("the address does not say where to go on")
                    .hint("begin again with the newest lines")
            })?;
            places.insert(site, number);
        }
        Ok(Before(places))
    }

    fn text(&self) -> String {
        self.0.iter().map(|(s, n)| format!("{s}:{n}")).collect::<Vec<_>>().join(",")
    }

    /// Before which line to go on at a site; absent: from its newest.
    pub(super) fn of(&self, site: &SiteId) -> Option<u64> {
        self.0.get(site).copied()
    }

    pub(super) fn is_over(&self, site: &SiteId) -> bool {
        self.of(site) == Some(0)
    }

    pub(super) fn set(&mut self, site: SiteId, number: u64) {
        self.0.insert(site, number);
    }

    /// Whether a site has more.
    pub(super) fn goes_on(&self) -> bool {
        self.0.values().any(|n| *n > 0)
    }
}

/// The conditions, as texts for the form.
pub(super) struct Filter {
    pub(super) person: String,
    pub(super) who: String,
    pub(super) what: String,
    pub(super) node: String,
    pub(super) outcome: String,
    pub(super) text: String,
    pub(super) since: String,
    pub(super) until: String,
    pub(super) before: Before,
    search: SearchAudit,
}

impl Filter {
    /// From an address.
    pub(super) fn read(query: &Fields) -> Result<Filter, Error> {
        let text = |name: &str| query.text(name).to_owned();
        let some = |name: &str| Some(text(name)).filter(|t| !t.is_empty());
        let outcome = match query.text("outcome") {
            "" => None,
            "done" => Some(Outcome::Done),
            "refused" => Some(Outcome::Refused),
            "failed" => Some(Outcome::Failed),
            _ => return Err(Error::invalid("an outcome is done, refused or failed")),
        };
        let (person, node): (Option<PersonId>, Option<NodeId>) =
            (query.id_if("person")?, query.id_if("node")?);
        let search = SearchAudit {
            person,
            who: some("who"),
            what: some("what"),
            node,
            outcome,
            text: some("text"),
            since: query
                .day("since", "first day")?
                .map(|last| Millis(last.0.saturating_sub(DAY_MS - 1))),
            until: query.day("until", "last day")?,
            ..SearchAudit::default()
        };
        Ok(Filter {
            person: text("person"),
            who: text("who"),
            what: text("what"),
            node: text("node"),
            outcome: text("outcome"),
            text: text("text"),
            since: text("since"),
            until: text("until"),
            before: Before::read(query.text("before"))?,
            search,
        })
    }

    /// Nothing is left out.
    pub(super) fn is_empty(&self) -> bool {
        self.search == SearchAudit::default()
    }

    /// The conditions, as a site is asked.
    pub(super) fn search(&self) -> SearchAudit {
        self.search.clone()
    }

    /// The query of the address at which the same search goes on.
    pub(super) fn query(&self, before: &Before) -> Result<String, Error> {
        let before = before.text();
        let all = [
            ("person", &self.person),
            ("who", &self.who),
            ("what", &self.what),
            ("node", &self.node),
            ("outcome", &self.outcome),
            ("text", &self.text),
            ("since", &self.since),
            ("until", &self.until),
            ("before", &before),
        ];
        let set: Vec<_> = all.into_iter().filter(|(_, v)| !v.is_empty()).collect();
        serde_urlencoded::to_string(set).map_err(|e| Error::internal(format!("an address: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, older lines would be those of another search, or begin at another place.
    #[test]
    fn a_search_goes_on_as_it_began() {
        let text = "person=bob%40pisa&text=a%26b+%3C&since=2027-01-31&until=2027-01-31\
                    &before=pisa:12,rennes:0";
        let filter = Filter::read(&Fields::parse(text.as_bytes()).unwrap()).unwrap();
        let again = filter.query(&filter.before).unwrap();
        let again = Filter::read(&Fields::parse(again.as_bytes()).unwrap()).unwrap();
        assert_eq!(again.search, filter.search);
        let day = Millis::from_secs(1_801_353_600);
        assert_eq!(again.search.since, Some(day));
        assert_eq!(again.search.until, Some(Millis(day.0 + 86_400_000 - 1)));
        assert_eq!(again.text, "a&b <");
        let (pisa, rennes) = ("pisa".parse().unwrap(), "rennes".parse().unwrap());
        assert_eq!(again.before.of(&pisa), Some(12));
        assert!(again.before.is_over(&rennes));
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for text in ["outcome=x", "person=x", "node=x", "since=x", "before=x", "before=pisa:x"] {
            assert!(Filter::read(&Fields::parse(text.as_bytes()).unwrap()).is_err(), "{text}");
        }
    }
}
