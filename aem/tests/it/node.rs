//! Nodes in process.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use xos_api::aem::{InlineOutput, UnitEnd, Usage};
use xos_api::node::units::{
    EnvelopeId, KillUnits, StartUnits, UnitChange, UnitEvent, UnitOrder, UnitsTaken,
};
use xos_base::NodeId;
use xos_base::when::{Clock, SystemClock};

/// Where a fake node keeps an envelope.
#[derive(Default)]
pub struct Envelope {
    pub seen: BTreeSet<(u32, u16)>,
    pub events: Vec<UnitEvent>,
    pub held: Vec<UnitOrder>,
}

/// A node that runs units at once: `/bin/true` and `/bin/false` end as they do, `hold` never ends.
pub struct Node {
    pub id: NodeId,
    pub chain: Vec<CertificateDer<'static>>,
    pub envelopes: Mutex<BTreeMap<EnvelopeId, Envelope>>,
    /// How often each unit was started.
    pub runs: Mutex<BTreeMap<(String, u32), u32>>,
}

impl Node {
    /// Runs what it was sent; gives whether there is something to report.
    pub fn run(&self, r: &StartUnits) -> UnitsTaken {
        let mut envelopes = self.envelopes.lock().unwrap();
        let e = envelopes.entry(r.envelope.clone()).or_default();
        let mut new = 0;
        for u in &r.units {
            if !e.seen.insert((u.unit, u.attempt)) {
                continue;
            }
            new += 1;
            let job = r.envelope.job.to_string();
            *self.runs.lock().unwrap().entry((job, u.unit)).or_default() += 1;
            let event =
                |what| UnitEvent { unit: u.unit, attempt: u.attempt, at: SystemClock.now(), what };
            e.events.push(event(UnitChange::Started));
            let code = match r.task.argv[0].as_str() {
                "hold" => {
                    e.held.push(*u);
                    continue;
                }
                "/bin/false" => 1,
                "once-bad" if u.attempt == 0 => 7,
                _ => 0,
            };
            let how = UnitEnd::Exit { code };
            let text = format!("{} on {}\n", r.task.name, self.id);
            let output = r
                .want_output
                .then(|| InlineOutput { stdout: STANDARD.encode(text), stderr: String::new() });
            e.events.push(event(UnitChange::Ended { how, usage: Usage::default(), output }));
        }
        UnitsTaken { new }
    }

    pub fn kill(&self, r: &KillUnits) {
        let mut envelopes = self.envelopes.lock().unwrap();
        let Some(e) = envelopes.get_mut(&r.envelope) else { return };
        let hit = |u: &UnitOrder| r.units.as_ref().is_none_or(|list| list.contains(&u.unit));
        for u in e.held.extract_if(.., |u| hit(u)) {
            let (unit, attempt, at) = (u.unit, u.attempt, SystemClock.now());
            let how = UnitEnd::Cancelled;
            let what = UnitChange::Ended { how, usage: Usage::default(), output: None };
            e.events.push(UnitEvent { unit, attempt, at, what });
        }
    }

    pub fn kept(&self) -> usize {
        self.envelopes.lock().unwrap().len()
    }
}
