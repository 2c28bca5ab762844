//! Terms of use, and who agreed to them until when.

use super::{EnrolmentFault, Member, Violation, Vo};
use crate::text::{self, TextFault};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use xos_api::vom::{
    AccountConsent, AccountTerms, Agreed, CONSENT_DAYS_MAX, Consent, GRACE_DAYS_MAX,
    TERMS_BYTES_MAX, TERMS_VERSIONS_MAX, TermsOfUse, consent_due,
};
use xos_base::{Error, Millis, PersonId};

/// The terms of use in force, and when each version came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TermsInForce {
    /// The text in force.
    pub text: String,
    /// For how many days a consent to it holds; absent: until the next version.
    pub consent_days: Option<u32>,
    /// For how many days after a consent is due its member may still act.
    pub grace_days: u32,
    /// When each version came, the first one first.
    pub set: Vec<Millis>,
}

/// A consent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consented {
    /// To which version.
    pub version: u32,
    /// When.
    pub at: Millis,
    /// Until when it holds, as that version said; absent: until the next version.
    pub until: Option<Millis>,
}

/// So many days.
pub(crate) fn days(n: u32) -> Duration {
    Duration::from_secs(u64::from(n) * 24 * 60 * 60)
}

impl TermsInForce {
    /// The version in force.
    pub fn version(&self) -> u32 {
        u32::try_from(self.set.len()).unwrap_or(u32::MAX)
    }

    /// For readers.
    pub fn shown(&self) -> TermsOfUse {
        TermsOfUse {
            version: self.version(),
            text: self.text.clone(),
            since: self.set.last().copied().unwrap_or_default(),
            consent_days: self.consent_days,
            grace_days: self.grace_days,
        }
    }
}

/// Whether terms of use may be set so.
pub(super) fn check(
    former: Option<&TermsInForce>,
    version: u32,
    text: &str,
    consent_days: Option<u32>,
    grace_days: u32,
) -> Result<(), Violation> {
    let last = former.map_or(0, TermsInForce::version);
    if version != last.saturating_add(1) {
        return Err(Violation::Number);
    }
    if version as usize > TERMS_VERSIONS_MAX {
        return Err(Violation::Limit(TERMS_VERSIONS_MAX as u64, "versions of its terms of use"));
    }
    if text.len() > TERMS_BYTES_MAX {
        return Err(EnrolmentFault::TermsLength.into());
    }
    let bad = |e| Violation::Text("terms of use", e);
    if text.trim().is_empty() {
        return Err(bad(TextFault::Empty));
    }
    text::lines(text, TERMS_BYTES_MAX).map_err(bad)?;
    let good = consent_days.is_none_or(|d| (1..=CONSENT_DAYS_MAX).contains(&d));
    if good && grace_days <= GRACE_DAYS_MAX { Ok(()) } else { Err(EnrolmentFault::Days.into()) }
}

impl Vo {
    /// The version of the terms of use in force; 0: there are none.
    pub fn terms_version(&self) -> u32 {
        self.enrolling.terms.as_ref().map_or(0, TermsInForce::version)
    }

    pub(super) fn set_terms(&mut self, text: &str, consent_days: Option<u32>, grace_days: u32) {
        let time = self.time;
        let mut set = self.enrolling.terms.take().map(|t| t.set).unwrap_or_default();
        set.push(time);
        let text = text.to_owned();
        let terms = TermsInForce { text, consent_days, grace_days, set };
        self.enrolling.terms = Some(terms);
    }

    /// The consent to the terms in force that is given with the entry just applied.
    pub(super) fn consented(&self, version: u32) -> Option<Consented> {
        let terms = self.enrolling.terms.as_ref()?;
        let until = terms.consent_days.map(|n| self.time.plus(days(n)));
        Some(Consented { version, at: self.time, until })
    }

    /// The last consent of a member.
    pub(super) fn account_consent(&self, person: &PersonId) -> Option<AccountConsent> {
        let agreed = self.enrolling.said.get(person)?.agreed.as_ref()?;
        Some(AccountConsent { version: agreed.version, until: agreed.until })
    }

    /// When a member must agree (again); `None`: not until there is a new version.
    fn due(&self, person: &PersonId, m: &Member) -> Option<Millis> {
        let terms = self.enrolling.terms.as_ref()?;
        consent_due(&terms.set, self.account_consent(person).as_ref(), m.since)
    }

    /// The terms by which consents lapse, for nodes. None does when the log is so full that it does
    /// not take that somebody agrees.
    pub(super) fn account_terms(&self) -> Option<AccountTerms> {
        let terms = self.enrolling.terms.as_ref().filter(|_| !self.nearly_full())?;
        Some(AccountTerms { set: terms.set.clone(), grace_days: terms.grace_days })
    }

    /// When a member may act no more until they agree to the terms of use. Nothing lapses when the
    /// log is so full that it does not take that they agree.
    pub fn lapses(&self, person: &PersonId, m: &Member) -> Option<Millis> {
        if self.nearly_full() {
            return None;
        }
        let grace = self.enrolling.terms.as_ref()?.grace_days;
        self.due(person, m).map(|due| due.plus(days(grace)))
    }

    /// Whether a member's consent lets them act at `now`: there are no terms, or it has not lapsed.
    pub fn consents(&self, person: &PersonId, m: &Member, now: Millis) -> bool {
        self.lapses(person, m).is_none_or(|at| at > now)
    }

    /// How an applicant or member stands to the terms of use.
    pub fn consent(&self, person: &PersonId) -> Consent {
        let said = self.enrolling.said.get(person).and_then(|s| s.agreed.as_ref());
        let member = self.members.get(person);
        Consent {
            agreed: said.map(|c| Agreed { version: c.version, at: c.at }),
            due: member.and_then(|m| self.due(person, m)),
            lapses: member.and_then(|m| self.lapses(person, m)),
        }
    }

    /// What a member is told whose consent has lapsed.
    pub(crate) fn lapsed(&self, person: &PersonId) -> Error {
        Error::denied(format!(
            "{person} has not agreed to the terms of use of {} that are in force",
            self.id
        ))
        .hint(format!("read them and agree: xos vo agree {}", self.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_api::vom::{Actor, Change, Entry};

    const DAY: u64 = 24 * 60 * 60 * 1000;

    fn next(vo: &mut Vo, day: u64, change: Change) {
        let entry = Entry {
            vo: vo.id.clone(),
            number: vo.number + 1,
            prev: String::new(),
            time: Millis(day * DAY),
            actor: Actor::Person("alice@rennes".parse().unwrap()),
            change,
        };
        vo.check(&entry).unwrap();
        vo.apply(&entry);
    }

    fn terms(version: u32, consent_days: Option<u32>, grace_days: u32) -> Change {
        let text = "Be kind.\n".to_owned();
        Change::TermsOfUseSet { version, text, consent_days, grace_days }
    }

    fn vo() -> (Vo, PersonId) {
        let alice: PersonId = "alice@rennes".parse().unwrap();
        let change = Change::Founded {
            owner: alice.clone(),
            title: "Demo".into(),
            description: String::new(),
        };
        let entry = Entry {
            vo: "demo.rennes".parse().unwrap(),
            number: 1,
            prev: String::new(),
            time: Millis(0),
            actor: Actor::Person(alice.clone()),
            change,
        };
        (Vo::found(&entry).unwrap(), alice)
    }

    /// If it failed, members would be shut out without the grace that was promised, or never.
    #[test]
    fn consent_is_due_and_lapses_when_the_terms_say() {
        let (mut vo, alice) = vo();
        let lapses = |vo: &Vo| vo.lapses(&alice, &vo.members[&alice]).map(|t| t.0 / DAY);
        let agree = |version| Change::Agreed { person: alice.clone(), version };
        assert_eq!(lapses(&vo), None, "there are no terms");
        next(&mut vo, 10, terms(1, Some(100), 14));
        assert_eq!(lapses(&vo), Some(24), "the first version makes it due");
        next(&mut vo, 12, terms(2, Some(100), 14));
        assert_eq!(lapses(&vo), Some(24), "a second one does not put it off");
        next(&mut vo, 20, agree(2));
        assert_eq!(lapses(&vo), Some(134), "it holds for its 100 days");
        next(&mut vo, 30, terms(3, Some(5), 2));
        assert_eq!(lapses(&vo), Some(32), "new terms, with a grace of their own");
        assert!(vo.membership(&alice, Millis(31 * DAY)).is_ok());
        let e = vo.membership(&alice, Millis(32 * DAY)).unwrap_err();
        assert!(e.to_string().contains("xos vo agree demo.rennes"), "{e}");
        next(&mut vo, 40, agree(3));
        assert_eq!(lapses(&vo), Some(47));
        assert!(vo.membership(&alice, Millis(46 * DAY)).is_ok(), "it comes back");
        next(&mut vo, 41, terms(4, None, 0));
        next(&mut vo, 42, agree(4));
        assert_eq!(lapses(&vo), None, "until there is a new version");
        next(&mut vo, 50, terms(5, None, 3));
        assert_eq!(lapses(&vo), Some(53));
        vo.number = crate::state::LOG_RESERVED_FROM - 1;
        assert_eq!(lapses(&vo), None, "the log would not take that she agrees");
    }
}
