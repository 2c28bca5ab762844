//! How much of the audit somebody may fill: decided without I/O.
//!
//! Refusals anybody can have made, and of some operations that succeed one person can make as many
//! as they like. Of both only so many are noted: of each person and address first, so that nobody
//! has others' lines left out, then of each VO, site and operation. What is left out is counted,
//! and told a minute later, also for those whom most of it concerns: who guesses at one person's
//! password among a million others stays visible.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;
use xos_api::audit::{Event, Outcome};
use xos_base::{Millis, PersonId};

/// Most refusals of one operation that are noted in a minute for callers who proved nothing:
/// anybody can have them made, and nobody is to fill the site's disk by that.
pub const STRANGERS_REFUSALS_MAX: u32 = 600;
/// Most refusals that a service notes in a minute for the people and machines of one site.
pub const SITE_REFUSALS_MAX: u32 = 6000;
/// Most refusals of one caller, or of one address of callers who proved nothing, that are noted at
/// once; over a long time one a second.
pub const CALLER_REFUSALS_BURST: u64 = 120;
/// Of [`REPEATED`] the lines of one person that are noted at once, and then in a second.
pub const PERSON_EVENTS: (u64, u64) = (10_000, 5);
/// The same of one VO.
pub const VO_EVENTS: (u64, u64) = (100_000, 50);

/// What one person can have done as often as they like without any right or setting becoming
/// another. Everything else that succeeds is always noted: sign-ins, whatever changes a VO or takes
/// a right away.
pub const REPEATED: [&str; 13] = [
    "accept_units",
    "cancel_job",
    "cancel_units",
    "end_units",
    "fetch_image",
    "issue_certificate",
    "issue_mandate",
    "issue_ticket",
    "issue_token",
    "refuse_units",
    "renew_token",
    "start_units",
    "submit_job",
];

/// Most callers and VOs that have a bucket of their own; beyond it the others share one.
const BUCKETS_MAX: usize = 100_000;
/// How often room is made among them.
const SWEPT_EVERY: Duration = Duration::from_secs(1);
/// How late an event may be told.
const LATE_MAX: Duration = Duration::from_secs(60);
/// Most persons whose left-out lines are counted apart.
const CONCERNED_MAX: usize = 256;
/// Of how many of them it is told.
const TOLD_MAX: usize = 16;

/// What is left of what somebody may have noted.
#[derive(Debug)]
struct Bucket {
    /// In thousandths of a line.
    milli: u64,
    at: Millis,
    /// Thousandths that it holds at most.
    most: u64,
    /// Lines that come back in a second.
    per_s: u64,
}

impl Bucket {
    fn fill(&mut self, now: Millis) {
        // A line a second is a thousandth of one a millisecond.
        let since = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.milli = self.milli.saturating_add(since.saturating_mul(self.per_s)).min(self.most);
        // What is told a little late must not let the same time count twice; a clock set back may.
        if now > self.at || self.at.since(now) > LATE_MAX {
            self.at = now;
        }
    }
}

/// What one service has noted and left out.
#[derive(Debug, Default)]
pub(super) struct Limits {
    minute: u64,
    /// Refusals in this minute, by [`source`].
    refusals: HashMap<String, u32>,
    buckets: HashMap<String, Bucket>,
    /// When room was last made among them.
    swept: Millis,
    refusals_left_out: u64,
    others_left_out: u64,
    /// Lines left out, by whom they concern: of many only those with most.
    concerned: HashMap<PersonId, u64>,
}

impl Limits {
    /// What is to be told of the minute before, when another one begins.
    pub(super) fn turn(&mut self, now: Millis) -> Vec<Event> {
        let minute = now.secs() / 60;
        if self.minute == minute || self.minute == minute + 1 {
            return Vec::new();
        }
        self.minute = minute;
        self.refusals.clear();
        let refusals = std::mem::take(&mut self.refusals_left_out);
        let others = std::mem::take(&mut self.others_left_out);
        let mut concerned: Vec<_> = std::mem::take(&mut self.concerned).into_iter().collect();
        if refusals + others == 0 {
            return Vec::new();
        }
        let line = |why: String| {
            let mut event = Event::new(now, "left_out");
            (event.outcome, event.why) = (Outcome::Refused, why);
            event
        };
        let mut lines = Vec::new();
        if refusals > 0 {
            lines.push(line(format!("{refusals} refusals in a minute are not noted")));
        }
        if others > 0 {
            lines.push(line(format!("{others} things that were done often are not noted")));
        }
        concerned.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (person, count) in concerned.into_iter().take(TOLD_MAX) {
            let mut event = line(format!("up to {count} of them concern this person"));
            event.person = Some(person);
            lines.push(event);
        }
        lines
    }

    /// Whether another refusal is noted.
    pub(super) fn takes_refusal(&mut self, event: &Event) -> bool {
        let caller = (caller(event), CALLER_REFUSALS_BURST, 1);
        let (source, max) = source(event);
        let before = self.refusals.get(&source).copied().unwrap_or(0);
        if before < max && self.takes([caller], event.time) {
            self.refusals.insert(source, before + 1);
            return true;
        }
        self.refusals_left_out += 1;
        self.concerns(event);
        false
    }

    /// Whether what was done is noted.
    pub(super) fn takes_done(&mut self, event: &Event) -> bool {
        if !REPEATED.contains(&event.what.as_str()) {
            return true;
        }
        let person = event.person.as_ref().map(|p| (format!("done {p}"), PERSON_EVENTS));
        let vo = event.vo.as_ref().map(|vo| (format!("in {vo}"), VO_EVENTS));
        let whose = person.into_iter().chain(vo).map(|(key, (most, per_s))| (key, most, per_s));
        if self.takes(whose, event.time) {
            return true;
        }
        self.others_left_out += 1;
        self.concerns(event);
        false
    }

    /// Takes a line from each bucket, or from none.
    fn takes(&mut self, whose: impl IntoIterator<Item = (String, u64, u64)>, now: Millis) -> bool {
        let mut keys = Vec::new();
        for (key, most, per_s) in whose {
            self.make_room(now);
            let full = self.buckets.len() >= BUCKETS_MAX && !self.buckets.contains_key(&key);
            let key = if full { String::new() } else { key };
            let most = most.saturating_mul(1000);
            let fresh = || Bucket { milli: most, at: now, most, per_s };
            let bucket = self.buckets.entry(key.clone()).or_insert_with(fresh);
            bucket.fill(now);
            if bucket.milli < 1000 {
                return false;
            }
            keys.push(key);
        }
        for key in keys {
            if let Some(bucket) = self.buckets.get_mut(&key) {
                bucket.milli = bucket.milli.saturating_sub(1000);
            }
        }
        true
    }

    /// Forgets those who have all of their part again.
    fn make_room(&mut self, now: Millis) {
        let due = self.swept.since(now).max(now.since(self.swept)) >= SWEPT_EVERY;
        if self.buckets.len() >= BUCKETS_MAX && due {
            self.swept = now;
            self.buckets.retain(|_, bucket| {
                bucket.fill(now);
                bucket.milli < bucket.most
            });
        }
    }

    /// Counts a line that is left out for whom it concerns. Who comes late takes the place of the
    /// one with the fewest and goes on from there: whoever has many is never pushed out by many
    /// who have few ("space saving", Metwally and others, 2005).
    fn concerns(&mut self, event: &Event) {
        let Some(person) = &event.person else { return };
        if let Some(count) = self.concerned.get_mut(person) {
            *count += 1;
            return;
        }
        let mut before = 0;
        if self.concerned.len() >= CONCERNED_MAX {
            let fewest = self.concerned.iter().min_by_key(|(_, count)| **count);
            let Some((fewest, count)) = fewest.map(|(p, n)| (p.clone(), *n)) else { return };
            self.concerned.remove(&fewest);
            before = count;
        }
        self.concerned.insert(person.clone(), before + 1);
    }
}

/// Who was refused: whoever proved it, else the address; of IPv6 its /64, which one machine has.
fn caller(event: &Event) -> String {
    if !event.who.is_empty() {
        return event.who.clone();
    }
    match event.from.map(|address| address.to_canonical()) {
        Some(IpAddr::V6(v6)) => {
            format!("{}/64", Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)))
        }
        Some(v4) => v4.to_string(),
        None => "nowhere".to_owned(),
    }
}

/// From which side a request came, and how many refusals of it are noted in a minute. Who proved
/// nothing counts by the operation; others by their site, which can invent people and nodes.
fn source(event: &Event) -> (String, u32) {
    match event.who.rsplit(['@', '.', ' ']).next() {
        Some(site) if !site.is_empty() => (format!("site {site}"), SITE_REFUSALS_MAX),
        _ => (event.what.clone(), STRANGERS_REFUSALS_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(second: u64, who: &str, from: Option<&str>, person: &str) -> Event {
        let mut event = Event::new(Millis::from_secs(second), "sign_in");
        event.who = who.to_owned();
        event.from = from.map(|a| a.parse().unwrap());
        event.person = Some(person.parse().unwrap());
        event
    }

    /// If it failed, one person would have all refusals of their site left out, or one address
    /// those of all strangers.
    #[test]
    fn nobody_has_others_left_out() {
        let mut limits = Limits::default();
        let mut many = |event: &Event| {
            (0..2 * SITE_REFUSALS_MAX).filter(|_| limits.takes_refusal(event)).count() as u64
        };
        let bob = || refusal(61, "bob@rennes", None, "bob@rennes");
        assert_eq!(many(&bob()), CALLER_REFUSALS_BURST);
        assert_eq!(many(&refusal(61, "eve@rennes", None, "eve@rennes")), CALLER_REFUSALS_BURST);
        // One machine has all addresses of a /64.
        let from = |n: u64| refusal(61, "", Some(&format!("2001:db8::{n}")), "bob@rennes");
        assert_eq!(many(&from(1)), CALLER_REFUSALS_BURST);
        assert_eq!(many(&from(2)), 0);
        let other = refusal(61, "", Some("192.0.2.1"), "bob@rennes");
        assert_eq!(many(&other), CALLER_REFUSALS_BURST);
        assert_eq!(many(&refusal(71, "bob@rennes", None, "bob@rennes")), 10, "a line a second");
    }

    /// If it failed, who guesses at one person's password would hide behind a flood of refusals for
    /// others.
    #[test]
    fn a_guess_at_one_person_stays_visible() {
        let mut limits = Limits::default();
        assert!(limits.turn(Millis::from_secs(61)).is_empty());
        for n in 0..20_000_u32 {
            let from = std::net::Ipv4Addr::from_bits(n).to_string();
            limits.takes_refusal(&refusal(61, "", Some(&from), &format!("p{n}@rennes")));
            if n % 10 == 0 {
                limits.takes_refusal(&refusal(61, "", Some(&from), "bob@rennes"));
            }
        }
        let lines = limits.turn(Millis::from_secs(120));
        let total = format!("{} refusals", 22_000 - STRANGERS_REFUSALS_MAX);
        assert!(lines[0].why.starts_with(&total), "{:?}", lines[0]);
        assert_eq!(lines[1].person, Some("bob@rennes".parse().unwrap()));
        assert!(lines.len() <= TOLD_MAX + 1, "{} lines", lines.len());
        assert!(limits.turn(Millis::from_secs(180)).is_empty(), "told twice");
    }

    /// If it failed, one person or VO would fill the disk by what is allowed, or have left out what
    /// must not be.
    #[test]
    fn what_is_done_often_is_counted_and_what_changes_rights_is_noted() {
        let mut limits = Limits::default();
        let mut take = |what: &str, person: &str, vo: &str| {
            let mut event = Event::new(Millis::from_secs(61), what);
            (event.person, event.vo) = (Some(person.parse().unwrap()), Some(vo.parse().unwrap()));
            limits.takes_done(&event)
        };
        let (of_person, _) = PERSON_EVENTS;
        let of = |n: u64| format!("p{n}@rennes");
        for _ in 0..of_person {
            assert!(take("submit_job", &of(0), "demo.rennes"));
        }
        assert!(!take("submit_job", &of(0), "demo.rennes"));
        assert!(!take("submit_job", &of(0), "other.rennes"));
        for always in ["sign_in", "remove_member", "suspend_member", "change_rules", "revoke_token"]
        {
            assert!(take(always, &of(0), "demo.rennes"), "{always}");
        }
        let (of_vo, _) = VO_EVENTS;
        let all = (1..=of_vo).filter(|n| take("issue_ticket", &of(n % 1000 + 1), "demo.rennes"));
        assert_eq!(all.count() as u64, of_vo - of_person);
        assert!(take("issue_ticket", &of(1), "other.rennes"), "other VOs have their own part");
        let lines = limits.turn(Millis::from_secs(120));
        assert!(lines[0].why.starts_with(&format!("{} things", of_person + 2)), "{:?}", lines[0]);
    }

    /// If it failed, whoever invents names would have the core's memory grow without end.
    #[test]
    fn who_comes_when_all_buckets_are_taken_shares_one() {
        let mut limits = Limits::default();
        let now = Millis::from_secs(61);
        for n in 0..BUCKETS_MAX {
            assert!(limits.takes([(n.to_string(), 2, 1)], now));
        }
        assert!(limits.takes([("a".into(), 2, 1)], now) && limits.takes([("b".into(), 2, 1)], now));
        assert!(!limits.takes([("c".into(), 2, 1)], now));
        assert!(limits.buckets.len() <= BUCKETS_MAX + 1);
        let later = Millis::from_secs(63);
        assert!(limits.takes([("c".into(), 2, 1)], later), "those who wait do not count");
        assert!(limits.buckets.len() < 10);
    }
}
