//! The records of the journal. One JSON text each, with its version; a field may be added with a
//! default, anything else is a new version.

use super::carry::Goal;
use super::host::HostedTask;
use serde::{Deserialize, Serialize};
use xos_api::aem::{Carried, HostedEvent, JobSpec, Reason, Refusal, UnitRun};
use xos_api::node::units::UnitEvent;
use xos_base::{Error, JobId, Membership, Millis, NodeId, SiteId, VoId};

/// The version that this code writes; it reads those before too. In the second, units move between
/// clusters.
pub const VERSION: u32 = 2;

/// Whether records or snapshots of a version are read.
pub fn is_read(version: u32) -> bool {
    (1..=VERSION).contains(&version)
}

/// Most events in one record, or in one report to an owner: with the longest texts they are less
/// than half of the journal's largest record.
pub const EVENTS_MAX: usize = 1024;

/// Events as they go into records or reports: in order, at most [`EVENTS_MAX`] each; of none one
/// without any.
pub fn cut(events: Vec<HostedEvent>) -> Vec<Vec<HostedEvent>> {
    if events.len() <= EVENTS_MAX {
        return vec![events];
    }
    // Each part with memory of its own: together they take what the whole did.
    let (count, mut rest) = (events.len().div_ceil(EVENTS_MAX), events.into_iter());
    (0..count).map(|_| rest.by_ref().take(EVENTS_MAX).collect()).collect()
}

/// One change of this core's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// Of a job owned here.
    Job(JobRecord),
    /// Of units hosted here.
    Host(HostRecord),
}

#[derive(Serialize, Deserialize)]
struct Line<R> {
    v: u32,
    r: R,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

impl Record {
    /// The bytes for the journal.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when it cannot be encoded.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(&Line { v: VERSION, r: self })
            .map_err(|e| Error::internal(format!("cannot encode a journal record: {e}")))
    }

    /// Reads bytes of the journal.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when they are no record of a known version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Record, Error> {
        let bad = |e: serde_json::Error| {
            Error::internal(format!("a record in the job journal cannot be read: {e}"))
                .hint("keep a copy of the journal's folder and restore it from a backup")
        };
        let version: Version = serde_json::from_slice(bytes).map_err(bad)?;
        if !is_read(version.v) {
            return Err(Error::internal(format!(
                "a record in the job journal has version {}",
                version.v
            ))
            .hint(format!("this xosd knows version {VERSION}: install a newer one")));
        }
        serde_json::from_slice::<Line<Record>>(bytes).map(|l| l.r).map_err(bad)
    }
}

/// The person's word, until a mandate was got for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Signed with the person's certificate key.
    Signed(String),
    /// The bearer token that the request came with.
    Token(String),
}

/// A change of jobs owned here. Times are this core's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobRecord {
    /// A job was accepted.
    Submitted {
        /// Its number.
        job: u64,
        /// When.
        at: Millis,
        /// What was asked for.
        spec: Box<JobSpec>,
        /// By whom.
        member: Box<Membership>,
        /// Their word.
        proof: Option<Proof>,
        /// Whether the end should bring short output.
        watched: bool,
    },
    /// The VO's home confirmed that the person authorised the job.
    Mandated {
        /// The job.
        job: u64,
        /// Its statement.
        mandate: String,
    },
    /// A site is being asked to run units.
    Offered {
        /// The job.
        job: u64,
        /// The units' task.
        task: u16,
        /// The site.
        site: SiteId,
        /// The units.
        units: Vec<UnitRun>,
        /// Their attempt.
        attempt: u16,
    },
    /// The site took them.
    Accepted {
        /// The job.
        job: u64,
        /// The site.
        site: SiteId,
        /// The units.
        units: Vec<UnitRun>,
        /// Their attempt.
        attempt: u16,
    },
    /// The site did not take them, or gave them back.
    Returned {
        /// The job.
        job: u64,
        /// The site.
        site: SiteId,
        /// The units.
        units: Vec<UnitRun>,
        /// Their attempt.
        attempt: u16,
        /// When.
        at: Millis,
        /// Why.
        refusal: Refusal,
    },
    /// Why something does not go on.
    Noted {
        /// The job.
        job: u64,
        /// Why.
        reason: Reason,
    },
    /// No site can run the units.
    Refused {
        /// The job.
        job: u64,
        /// The units.
        units: Vec<UnitRun>,
        /// When that was known.
        at: Millis,
    },
    /// A host reported.
    Happened {
        /// The host.
        site: SiteId,
        /// The report's number there.
        seq: u64,
        /// The job; of another number than any job here when it is forgotten.
        job: u64,
        /// The attempt that the events belong to.
        attempt: u16,
        /// When it arrived.
        at: Millis,
        /// What.
        events: Vec<HostedEvent>,
    },
    /// Units or the whole job are to end.
    Cancelled {
        /// The job.
        job: u64,
        /// When.
        at: Millis,
        /// The units; none: all.
        units: Option<Vec<UnitRun>>,
        /// Who asked.
        by: String,
    },
    /// A unit is to leave its cluster for another.
    Going {
        /// The job.
        job: u64,
        /// The unit.
        unit: u32,
        /// The run that is meant.
        attempt: u16,
        /// Where to.
        to: Goal,
        /// When.
        at: Millis,
        /// Who asked.
        by: String,
    },
    /// It stays where it is.
    Stays {
        /// The job.
        job: u64,
        /// The unit.
        unit: u32,
        /// Why.
        reason: Reason,
    },
    /// Nobody takes a unit that left: all are asked again later.
    Rests {
        /// The job.
        job: u64,
        /// The unit.
        unit: u32,
        /// Until when.
        until: Millis,
        /// Whether the site where it was refused it as well: after many such rounds it is given
        /// up.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        home: bool,
    },
    /// Nobody took a unit that left in many rounds: it is lost, or begun anew.
    GivenUp {
        /// The job.
        job: u64,
        /// The unit.
        unit: u32,
        /// When.
        at: Millis,
        /// Why, as the last of them said.
        reason: String,
    },
    /// The site of a unit that left does not have its image any more.
    Dropped {
        /// The job.
        job: u64,
        /// The unit.
        unit: u32,
        /// The run that left.
        attempt: u16,
    },
    /// The job is no longer kept.
    Forgotten {
        /// The job.
        job: u64,
    },
}

// serde wants a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A change of units hosted here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostRecord {
    /// Units were accepted.
    Took {
        /// The job.
        job: JobId,
        /// When.
        at: Millis,
        /// Whose it is; only with its first units.
        who: Option<Box<Who>>,
        /// The task's place in the job.
        task: u16,
        /// The task; only with its first units.
        what: Option<Box<HostedTask>>,
        /// The units.
        units: Vec<UnitRun>,
        /// Their attempt.
        attempt: u16,
        /// What the one unit goes on from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        carried: Option<Box<Carried>>,
    },
    /// An envelope is being made.
    Opened {
        /// The job.
        job: JobId,
        /// Its serial.
        serial: u32,
        /// The node.
        node: NodeId,
        /// The node's boot.
        boot: String,
        /// Units at a time.
        slots: u32,
        /// Processors of one unit, thousandths.
        cpu_milli: u32,
        /// Memory of one unit, bytes.
        memory_bytes: u64,
    },
    /// Units are being sent to a node.
    Sent {
        /// The job.
        job: JobId,
        /// The envelope.
        serial: u32,
        /// The units.
        units: Vec<UnitRun>,
    },
    /// The node answers for these units of the envelope.
    Held {
        /// The job.
        job: JobId,
        /// The envelope.
        serial: u32,
        /// The units.
        units: Vec<UnitRun>,
        /// The attempt that was ordered: a later one may be there already.
        attempt: u16,
    },
    /// The node never got the units: they wait again.
    Unsent {
        /// The job.
        job: JobId,
        /// The envelope.
        serial: u32,
    },
    /// A node reported.
    Happened {
        /// The job.
        job: JobId,
        /// The envelope.
        serial: u32,
        /// The number before the first event.
        after: u64,
        /// When it arrived.
        at: Millis,
        /// What, of units that are in the envelope.
        events: Vec<UnitEvent>,
        /// How many events besides, of no such unit.
        #[serde(default, skip_serializing_if = "is_zero")]
        skipped: u32,
    },
    /// This core decided itself what became of units.
    Decided {
        /// The job.
        job: JobId,
        /// When.
        at: Millis,
        /// The units.
        units: Vec<UnitRun>,
        /// What.
        what: Decision,
    },
    /// The owner wants units ended.
    Cancelled {
        /// The job.
        job: JobId,
        /// When.
        at: Millis,
        /// The units; none: all.
        units: Option<Vec<UnitRun>>,
    },
    /// The owner does not need the image of a run that left any more.
    Spent {
        /// The job.
        job: JobId,
        /// The unit.
        unit: u32,
        /// The run.
        attempt: u16,
    },
    /// The owner does not want anything of the job any more.
    Forgotten {
        /// The job.
        job: JobId,
    },
    /// The node has no record of the envelope, although it had one: its serial is not used again.
    Gone {
        /// The job.
        job: JobId,
        /// The envelope.
        serial: u32,
    },
    /// The node has forgotten the envelope.
    Closed {
        /// The job.
        job: JobId,
        /// The envelope.
        serial: u32,
    },
    /// An owner has stored reports.
    Acknowledged {
        /// The owner.
        owner: SiteId,
        /// Up to this number.
        seq: u64,
    },
}

/// Whose a hosted job is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Its VO.
    pub vo: VoId,
    /// Its person.
    pub member: Membership,
    /// The person's authority.
    pub mandate: String,
}

/// What a host decides about units without their node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Nobody can say what became of them.
    Lost {
        /// What is known.
        reason: String,
    },
    /// They could not be started: the person has no right here any more.
    NotStarted {
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_a_newer_one_is_refused() {
        let r = Record::Job(JobRecord::Forgotten { job: 3 });
        let bytes = r.to_bytes().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            r#"{"v":2,"r":{"job":{"forgotten":{"job":3}}}}"#
        );
        assert_eq!(Record::from_bytes(&bytes).unwrap(), r);
        let older = br#"{"v":1,"r":{"job":{"forgotten":{"job":3}}}}"#;
        assert_eq!(Record::from_bytes(older).unwrap(), r);
        let newer = br#"{"v":3,"r":{"new":1}}"#;
        assert!(Record::from_bytes(newer).unwrap_err().message.contains("version 3"));
        assert!(Record::from_bytes(b"").is_err());
    }
}
