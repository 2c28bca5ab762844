//! The audit of a site: who did what to whom, why, how it went and from where.

mod requests;

pub use requests::{
    AUDIT_PAGE, AUDIT_PAGE_MAX, AuditCheck, AuditFault, AuditHead, AuditHeads, AuditPage,
    AuditPlace, FaultKind, HEAD_STATEMENT_MAX, HEADS_MAX, HeadsOf, HeldHead, RecordHead,
    SearchAudit, VerifyAudit,
};

use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use xos_base::{Error, Kind, Millis, NodeId, PersonId, SiteId, VoId};

/// Longest text in an [`Event`], in characters; what is longer is cut.
pub const TEXT_MAX: usize = 1000;
/// Most events in one [`ReportEvents`].
pub const REPORT_EVENTS_MAX: usize = 500;

/// How something went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was not allowed.
    Refused,
    /// It was allowed and went wrong.
    Failed,
}

impl Outcome {
    /// How something went whose answer is this.
    pub fn of<T>(result: &Result<T, Error>) -> Outcome {
        match result {
            Ok(_) => Outcome::Done,
            Err(e) if matches!(e.kind, Kind::Internal | Kind::Unavailable) => Outcome::Failed,
            Err(_) => Outcome::Refused,
        }
    }
}

/// Something that happened at a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When, by the clock of the machine where it happened.
    pub time: Millis,
    /// The operation, in snake case: `sign_in`, `open_session`, `start_unit`, `remove_member`.
    pub what: String,
    /// Who did it: a person, `core of pisa`, `node n1.rennes`; empty: nobody was proved.
    pub who: String,
    /// What or whom it was done to: a job, a node, a file; empty: nothing else than `person`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub on: String,
    /// The person whom it concerns, when there is one: who acts, unless it is done to another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<PersonId>,
    /// The VO in which it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vo: Option<VoId>,
    /// The node on which it happened; absent: at the core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// How it went.
    pub outcome: Outcome,
    /// The reason that was given for it, or why it was refused or failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Where the request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
}

impl Event {
    /// `what` was done at `time`; the rest is empty.
    pub fn new(time: Millis, what: impl Into<String>) -> Event {
        Event {
            time,
            what: what.into(),
            who: String::new(),
            on: String::new(),
            person: None,
            vo: None,
            node: None,
            outcome: Outcome::Done,
            why: String::new(),
            from: None,
        }
    }

    /// It went as `result` says; an error's text is the reason.
    #[must_use]
    pub fn ended<T>(mut self, result: &Result<T, Error>) -> Event {
        self.outcome = Outcome::of(result);
        if let Err(e) = result {
            self.why.clone_from(&e.message);
        }
        self
    }

    /// The same with no text longer than [`TEXT_MAX`].
    #[must_use]
    pub fn cut(mut self) -> Event {
        for text in [&mut self.what, &mut self.who, &mut self.on, &mut self.why] {
            if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
                text.truncate(end);
            }
        }
        self
    }
}

/// One line of a site's audit: an event in its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// The site.
    pub site: SiteId,
    /// From 1, without a gap.
    pub number: u64,
    /// SHA-256 of the line before it, as it is written without its newline, hex; of the first:
    /// empty.
    pub prev: String,
    /// When the site's core noted it, by its clock; never before the line before it. What a node
    /// reports late, or with a time of its own choice, still has its place.
    pub noted: Millis,
    /// Which of a node's reports it is, if it came from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<Reported>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Where an event stands in what its node reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reported {
    /// Names the node's count.
    pub series: String,
    /// Its number there.
    pub number: u64,
}

/// What happened at a node, from the node to its core. The reply says that the lines are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportEvents {
    /// Numbers the first of `events`, from 1 for the first that the node ever noted: what is
    /// reported twice is stored once.
    pub first: u64,
    /// Names the count: made anew when the node's folder was.
    pub series: String,
    /// In order, at most [`REPORT_EVENTS_MAX`].
    pub events: Vec<Event>,
}
request!(ReportEvents => Done, Post "/v1/node/audit");

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, one long text of a caller would fill the audit, or a cut through a character
    /// would end the service.
    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut event = Event::new(Millis(1), "apply");
        event.on = "é".repeat(TEXT_MAX + 5);
        event.why = "e".repeat(TEXT_MAX);
        let event = event.cut();
        assert_eq!((event.on.chars().count(), event.why.len()), (TEXT_MAX, TEXT_MAX));
    }

    /// If it failed, a refusal would be looked for among what went wrong, or pass for done.
    #[test]
    fn an_answer_says_how_it_went() {
        let refused: Result<(), Error> = Err(Error::denied("no"));
        let event = Event::new(Millis(1), "apply").ended(&refused);
        assert_eq!((event.outcome, event.why.as_str()), (Outcome::Refused, "no"));
        let failed: Result<(), Error> = Err(Error::unavailable("the disk"));
        assert_eq!(Outcome::of(&failed), Outcome::Failed);
        assert_eq!(Outcome::of(&Ok::<(), Error>(())), Outcome::Done);
    }
}
