//! Units of jobs that run as trees here: the tickets of their persons, and what they wrote.

use super::Clustered;
use crate::agent::Agent;
use crate::agent::units::in_background;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use xos_api::Done;
use xos_api::aem::{OUTPUT_PART_MAX, OutputPart, OutputStream};
use xos_api::node::units::{EnvelopeId, RenewTicket};
use xos_base::{ClusterId, Error, Membership, Millis};
use xos_ssi::ghost::spool::Spools;
use xos_ssi::seat::SPOOLS_FOLDER;
use xos_ssi::wire::{ClusterForget, ClusterOutput, FORGET_MAX};

/// How long a unit waits for its person's ticket: a home that does not answer stops nobody's work.
const TICKET_WAIT: Duration = Duration::from_secs(10);
/// How long a unit counts that is not seen to run.
const FRESH: Duration = Duration::from_secs(60);

/// An envelope of each person who has units here, by uid, and since when.
#[derive(Default)]
pub(super) struct Envelopes(Mutex<BTreeMap<u32, (EnvelopeId, Millis)>>);

impl Envelopes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, (EnvelopeId, Millis)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets those of people who run nothing any more.
    pub(super) fn retain(&self, now: Millis, works: impl Fn(u32) -> bool) {
        self.lock().retain(|uid, (_, since)| now.since(*since) < FRESH || works(*uid));
    }
}

impl Agent {
    /// Gets the person's ticket for this node, if it has none. Without it the unit runs all the
    /// same, and has no right to the volume.
    pub(super) async fn take_unit_ticket(&self, m: &Membership, uid: u32, envelope: &EnvelopeId) {
        let Ok(clustered) = self.clustered() else { return };
        let now = self.now();
        clustered.units.lock().insert(uid, (envelope.clone(), now));
        let held = self.tickets.find(&m.vo, m.number, now);
        if held.is_some_and(|t| t.membership.epoch >= m.epoch) {
            return;
        }
        let got = match self.core() {
            Ok(core) => {
                let asked = core.call(RenewTicket { envelope: envelope.clone() });
                let late = || Error::unavailable("the VO's home does not answer");
                let told = tokio::time::timeout(TICKET_WAIT, asked).await;
                told.unwrap_or_else(|_| Err(late())).and_then(|t| self.take_ticket(&t.ticket))
            }
            Err(e) => Err(e),
        };
        if let Err(error) = got {
            tracing::warn!(%envelope, %error, "a unit has no right to the volume yet");
        }
    }

    /// An envelope of each person who has units in the cluster here, and the uid.
    pub(in crate::agent) fn units_in_cluster(&self) -> Vec<(EnvelopeId, u32)> {
        let Some(clustered) = &self.cluster else { return Vec::new() };
        let units = clustered.units.lock();
        units.iter().map(|(uid, (envelope, _))| (envelope.clone(), *uid)).collect()
    }

    fn spools(&self, clustered: &Clustered, cluster: &ClusterId) -> Result<Spools, Error> {
        let seated = clustered.at(cluster)?;
        Ok(Spools::new(clustered.folder(&seated.seat).join(SPOOLS_FOLDER)))
    }

    pub(super) async fn tree_output(&self, r: ClusterOutput) -> Result<OutputPart, Error> {
        let spools = self.spools(self.clustered()?, &r.cluster)?;
        let (error, limit) = (r.stream == OutputStream::Stderr, r.limit.min(OUTPUT_PART_MAX));
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let read = in_background(move || spools.read(r.tree.0, error, r.from, limit)).await?;
        let piece = read.map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::not_found(e.to_string()),
            _ => Error::unavailable(format!("the output of tree {} is not read: {e}", r.tree)),
        })?;
        Ok(OutputPart { data: STANDARD.encode(&piece.bytes), eof: piece.end })
    }

    pub(super) async fn forget_trees(&self, r: ClusterForget) -> Result<Done, Error> {
        if r.trees.len() > FORGET_MAX {
            return Err(Error::too_large(format!("at most {FORGET_MAX} trees at a time")));
        }
        let spools = self.spools(self.clustered()?, &r.cluster)?;
        let gone = in_background(move || r.trees.iter().try_for_each(|t| spools.forget(t.0)));
        gone.await?.map_err(|e| Error::unavailable(format!("output is not removed: {e}")))?;
        Ok(Done {})
    }
}
