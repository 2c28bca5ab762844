//! A site's share in one VO, as the VO's log tells it.

use serde::{Deserialize, Serialize};
use xos_api::vom::{ShareInfo, ShareState, Terms};
use xos_base::{Millis, SiteId};

/// One site's share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The terms in force.
    pub accepted: Option<Terms>,
    /// The terms that wait for an answer.
    pub offered: Option<Terms>,
    /// The version of the last offer.
    pub last: u32,
    /// Why the last one was refused or ended.
    pub reason: Option<String>,
    /// The number of the entry with which the share last ended.
    pub ended: Option<u64>,
    /// Whether it last ended, rather than was refused.
    pub withdrawn: bool,
}

/// How much of a VO's log a site may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// Nothing.
    Nothing,
    /// Up to that number, and no more.
    UpTo(u64),
    /// Up to that number (0: nothing), and more once the VO accepts the waiting offer.
    Later(u64),
    /// All.
    All,
}

impl Share {
    pub(super) fn none() -> Share {
        Share {
            accepted: None,
            offered: None,
            last: 0,
            reason: None,
            ended: None,
            withdrawn: false,
        }
    }

    pub(super) fn offer(&mut self, terms: Terms) {
        self.last = self.last.max(terms.version);
        self.offered = Some(terms);
    }

    pub(super) fn accept(&mut self, version: u32) {
        if self.offered.as_ref().is_some_and(|t| t.version == version) {
            self.accepted = self.offered.take();
            self.reason = None;
            self.ended = None;
        }
    }

    pub(super) fn refuse(&mut self, reason: &str) {
        self.offered = None;
        self.withdrawn = false;
        self.reason = Some(reason.to_owned());
    }

    pub(super) fn end(&mut self, reason: &str, number: u64) {
        // An offer that was never in force gave no right to read up to here.
        if self.accepted.take().is_some() {
            self.ended = Some(number);
        }
        self.offered = None;
        self.withdrawn = true;
        self.reason = Some(reason.to_owned());
    }

    /// Whether the site serves the VO at `now`.
    pub fn in_force(&self, now: Millis) -> Option<&Terms> {
        self.accepted.as_ref().filter(|t| t.until.is_none_or(|end| end > now))
    }

    /// How much of the log the site may read. An offer alone opens nothing: else any trusted site
    /// could read who is in a VO by offering it a share.
    pub fn readable(&self) -> Readable {
        match (&self.accepted, &self.offered, self.ended) {
            (Some(_), _, _) => Readable::All,
            (None, Some(_), ended) => Readable::Later(ended.unwrap_or(0)),
            (None, None, Some(number)) => Readable::UpTo(number),
            (None, None, None) => Readable::Nothing,
        }
    }

    /// The share for readers.
    pub fn info(&self, site: &SiteId) -> ShareInfo {
        let state = match (&self.accepted, &self.offered) {
            (Some(_), _) => ShareState::Accepted,
            (None, Some(_)) => ShareState::Offered,
            (None, None) if self.withdrawn => ShareState::Withdrawn,
            (None, None) => ShareState::Refused,
        };
        ShareInfo {
            site: site.clone(),
            state,
            accepted: self.accepted.clone(),
            offered: self.offered.clone(),
            reason: self.reason.clone(),
        }
    }
}
