//! What is kept and told of the table.

use super::{Dirty, Held, Units};
use crate::cluster::trees::Trees;
use crate::service::keep::{Change, Kept};
use crate::service::units::record::{Left, Over};
use crate::wire::TreeUnit;
use std::collections::BTreeMap;
use xos_api::node::units::{
    BATCH_MAX, EnvelopeId, EnvelopeStatus, UnitChange, UnitEvent, UnitEvents,
};

impl Units {
    /// The units as they were kept.
    pub fn of(kept: &Kept, trees: &Trees) -> Units {
        let mut all = Units::default();
        for (id, envelope) in &kept.envelopes {
            all.held.insert(id.clone(), Held::new(envelope.clone()));
        }
        for ((id, name), task) in &kept.tasks {
            if let Some(held) = all.held.get_mut(id) {
                held.tasks.insert(name.clone(), task.clone());
            }
        }
        let mut events: BTreeMap<&EnvelopeId, BTreeMap<u64, UnitEvent>> = BTreeMap::new();
        for (id, unit) in &kept.units {
            let Some(held) = all.held.get_mut(&id.envelope) else { continue };
            let (key, mut unit) = ((id.unit, id.attempt), unit.clone());
            let gone = unit.tree.is_none_or(|tree| trees.tree(tree).is_none());
            if !unit.is_over() && gone {
                // The core stopped before a node could hear of its tree.
                (unit.tree, unit.spool) = (None, None);
                held.waiting.insert(unit.place, key);
            } else if !unit.is_over() {
                held.running.insert(key);
            }
            let told = events.entry(&id.envelope).or_default();
            let event = |at, what| UnitEvent { unit: key.0, attempt: key.1, at, what };
            if let Some((seq, at)) = unit.started {
                told.insert(seq, event(at, UnitChange::Started));
            }
            if let Some(Over { seq, at, how, usage }) = unit.over.clone() {
                told.insert(seq, event(at, UnitChange::Ended { how, usage, output: None }));
            }
            if let Some(Left { seq, at, usage, carried, why }) = unit.left.clone() {
                told.insert(seq, event(at, UnitChange::Left { usage, carried, why }));
            }
            held.units.insert(key, unit);
        }
        for (id, told) in events {
            if let Some(held) = all.held.get_mut(id) {
                held.events = told.into_values().collect();
            }
        }
        all
    }

    /// What is to be kept now.
    pub fn changes(&self) -> Vec<Change> {
        let dirty = &self.dirty;
        let envelope = |id: &EnvelopeId| {
            let held = self.held.get(id)?;
            Some(Change::Envelope(id.clone(), held.kept.clone()))
        };
        let task = |(id, name): &(EnvelopeId, String)| {
            let task = self.held.get(id)?.tasks.get(name)?;
            Some(Change::Task(id.clone(), name.clone(), Box::new(task.clone())))
        };
        let unit = |id: &TreeUnit| {
            let unit = self.unit(&id.envelope, (id.unit, id.attempt))?;
            Some(Change::Unit(id.clone(), unit.clone()))
        };
        let mut out: Vec<Change> = dirty.envelopes.iter().filter_map(envelope).collect();
        out.extend(dirty.tasks.iter().filter_map(task));
        out.extend(dirty.units.iter().filter_map(unit));
        out.extend(dirty.gone.iter().cloned());
        out
    }

    /// They are. Whether there are reports that were not there before.
    pub fn kept(&mut self) -> bool {
        self.dirty = Dirty::default();
        std::mem::take(&mut self.news)
    }

    /// Each envelope and its last event.
    pub(in crate::service::units) fn list(&self) -> Vec<EnvelopeStatus> {
        let status = |(id, h): (&EnvelopeId, &Held)| EnvelopeStatus {
            envelope: id.clone(),
            last: h.events.len() as u64,
        };
        self.held.iter().map(status).collect()
    }

    /// What is not stored by the job service, of each envelope the next part.
    pub(in crate::service::units) fn reports(&self) -> Vec<UnitEvents> {
        let some = self.held.iter().filter(|(_, h)| h.stored < h.events.len());
        let report = |(id, h): (&EnvelopeId, &Held)| {
            let events = h.events.iter().skip(h.stored).take(BATCH_MAX).cloned().collect();
            UnitEvents { envelope: id.clone(), after: h.stored as u64, events }
        };
        some.map(report).collect()
    }

    /// The job service has stored so many events of an envelope.
    pub(in crate::service::units) fn acknowledged(&mut self, id: &EnvelopeId, stored: u64) {
        if let Some(held) = self.held.get_mut(id) {
            let stored = usize::try_from(stored).unwrap_or(usize::MAX);
            held.stored = stored.min(held.events.len());
        }
    }
}
