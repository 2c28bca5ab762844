//! Reading what units wrote.

use super::{Grant, Want};
use crate::core::{Core, lock};
use crate::outputs::Run;
use crate::state::host::Stage;
use crate::state::unit::Phase;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;
use xos_api::aem::{HostOutput, OUTPUT_PART_MAX, OutputPart, OutputStream, ReadOutput};
use xos_api::node::units::{EnvelopeId, UnitOutput};
use xos_base::{Error, Kind, SiteId};
use xos_net::Caller;

/// What a site gave, with from where on it is when that is not what somebody asked for.
fn part_from(part: OutputPart, wanted: u64, asked: &HostOutput) -> OutputPart {
    OutputPart { from: (asked.offset > wanted).then_some(asked.offset), ..part }
}

/// Where a unit's output is.
enum Where {
    /// Nowhere yet.
    NotStarted,
    /// Nowhere: it never ran.
    Never,
    /// At a site.
    At(SiteId),
}

impl Core {
    pub(crate) async fn read_output(
        self: Arc<Self>,
        caller: Caller,
        r: ReadOutput,
    ) -> Result<OutputPart, Error> {
        let grant = self.authorise(&caller, &r.unit.job, Want::See)?;
        self.output_of(grant, r).await
    }

    /// What a unit wrote, wherever it is; what is nowhere any more is passed over.
    async fn output_of(self: &Arc<Self>, grant: Grant, r: ReadOutput) -> Result<OutputPart, Error> {
        let index = r.unit.index.0;
        let place = self.with_job(&grant, |table, job| {
            let unit = job.units.get(index as usize)?;
            let site = |n: u16| table.site_name(n).cloned().map_or(Where::Never, Where::At);
            let place = match &unit.phase {
                Phase::Waiting | Phase::Queued | Phase::Offered { .. } => Where::NotStarted,
                Phase::Placed { at }
                | Phase::Running { at, .. }
                | Phase::Done { at, .. }
                | Phase::Failed { at, .. }
                | Phase::Lost { at, .. } => site(at.site),
                Phase::Cancelled { .. } | Phase::Refused { .. } => Where::Never,
            };
            // What it wrote before it moved is where it was.
            let left = job.wrote(index, r.stream, r.offset);
            let left = left.map(|(m, end)| (site(m.from.site), m.attempt, end));
            Some((place, unit.attempt, left.collect::<Vec<_>>()))
        });
        let (place, attempt, left) = place
            .await?
            .ok_or_else(|| Error::not_found(format!("job {} has no unit {index}", grant.job)))?;
        if let Some(part) = self.short((r.unit.clone(), attempt), r.stream, r.offset) {
            return Ok(part);
        }
        let limit = r.limit.unwrap_or(OUTPUT_PART_MAX).clamp(1, OUTPUT_PART_MAX);
        let (stream, offset) = (r.stream, r.offset);
        let mut request = HostOutput { unit: r.unit, stream, offset, limit, attempt: None };
        for (site, attempt, end) in left {
            if let Where::At(site) = site {
                let rest = u32::try_from(end.saturating_sub(request.offset)).unwrap_or(u32::MAX);
                let (limit, attempt) = (limit.min(rest), Some(attempt));
                let asked = HostOutput { limit, attempt, ..request.clone() };
                match self.output_at(&site, asked).await {
                    // It is to have more, and has not: that went.
                    Ok(part) if part.eof && part.data.is_empty() => {}
                    Ok(part) => {
                        return Ok(OutputPart {
                            eof: false,
                            ..part_from(part, r.offset, &request)
                        });
                    }
                    Err(e) if e.kind == Kind::NotFound => {}
                    Err(e) => return Err(e),
                }
            }
            request.offset = end;
        }
        let part = match place {
            Where::NotStarted => OutputPart::new(String::new(), false),
            Where::Never => OutputPart::new(String::new(), true),
            Where::At(site) => self.output_at(&site, request.clone()).await?,
        };
        Ok(part_from(part, r.offset, &request))
    }

    async fn output_at(
        self: &Arc<Self>,
        site: &SiteId,
        request: HostOutput,
    ) -> Result<OutputPart, Error> {
        if *site == self.site {
            return self.output_here(request).await;
        }
        self.world.host_output(site, request).await
    }

    /// From the short outputs that are still in memory.
    fn short(&self, run: Run, stream: OutputStream, offset: u64) -> Option<OutputPart> {
        let outputs = lock(&self.outputs);
        let output = outputs.of(run.0, run.1)?;
        let text = match stream {
            OutputStream::Stdout => &output.stdout,
            OutputStream::Stderr => &output.stderr,
        };
        let bytes = STANDARD.decode(text).ok()?;
        let rest = bytes.get(usize::try_from(offset).ok()?..).unwrap_or_default();
        Some(OutputPart::new(STANDARD.encode(rest), true))
    }

    pub(crate) async fn host_output(
        self: Arc<Self>,
        caller: Caller,
        r: HostOutput,
    ) -> Result<OutputPart, Error> {
        let owner = caller.core()?;
        if *owner != r.unit.job.site {
            return Err(Error::denied(format!("job {} is not owned by {owner}", r.unit.job)));
        }
        self.output_here(r).await
    }

    async fn output_here(self: &Arc<Self>, r: HostOutput) -> Result<OutputPart, Error> {
        let unit = r.unit.index.0;
        let found = self.ledger.read(|s| {
            let p = s.hosted.placement(&r.unit.job)?;
            if let Some(attempt) = r.attempt {
                let serial = p.serial_of(unit, attempt)?;
                let envelope = p.envelopes.get(&serial);
                return Some(envelope.map(|e| (e.node.clone(), serial, attempt)));
            }
            let h = p.units.get(&unit)?;
            let serial = match h.stage {
                Stage::Waiting => return Some(None),
                Stage::Sent { serial }
                | Stage::Running { serial, .. }
                | Stage::Ended { serial } => serial,
            };
            let envelope = p.envelopes.get(&serial);
            Some(envelope.map(|e| (e.node.clone(), serial, h.attempt)))
        });
        let (node, serial, attempt) = match found {
            None => return Err(Error::not_found(format!("no output of {} is kept", r.unit))),
            Some(None) => return Ok(OutputPart::new(String::new(), true)),
            Some(Some(found)) => found,
        };
        let envelope = EnvelopeId { job: r.unit.job.clone(), serial };
        let limit = r.limit.clamp(1, OUTPUT_PART_MAX);
        let (stream, offset) = (r.stream, r.offset);
        let request = UnitOutput { envelope, unit, attempt, stream, offset, limit };
        self.world.unit_output(&node, request).await
    }
}

#[cfg(test)]
mod tests;
