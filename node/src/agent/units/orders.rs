//! What the core orders of units, as requests.

use super::{Stream, Work, names, plan};
use crate::agent::ops::on;
use crate::agent::{Agent, machine};
use crate::home::{self, HomeError};
use crate::output;
use crate::spec::{
    Account, Carries, EnvelopeSpec, REST_AFTER_MS_DEFAULT, SPOOL_BYTES_DEFAULT,
    SPOOL_TOTAL_BYTES_DEFAULT,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;
use xos_api::Done;
use xos_api::aem::{OUTPUT_PART_MAX, OutputPart, OutputStream};
use xos_api::node::units::{
    BATCH_MAX, EndEnvelope, Envelopes, KillUnits, ListEnvelopes, StartUnits, UnitOutput, UnitsTaken,
};
use xos_base::{Error, Membership};
use xos_net::Router;

impl Agent {
    /// Registers the operations for one control stream.
    pub(in crate::agent) fn register_units(self: Arc<Agent>, router: &mut Router, stream: Stream) {
        let agent = self;
        on(router, &agent, move |agent: Arc<Agent>, r: StartUnits| async move {
            agent.start_units(stream, r).await
        });
        on(router, &agent, move |agent: Arc<Agent>, r: KillUnits| async move {
            agent.units.kill(stream, r).await?;
            Ok(Done {})
        });
        on(router, &agent, move |agent: Arc<Agent>, r: EndEnvelope| async move {
            let there = agent.units.get(&r.envelope).is_some();
            agent.units.end(stream, &r.envelope).await?;
            if there {
                agent.note_envelope("end_envelope", &r.envelope, None);
            }
            Ok(Done {})
        });
        on(router, &agent, move |agent: Arc<Agent>, _: ListEnvelopes| async move {
            let envelopes = agent.units.list(stream).await?;
            let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .map_err(|e| Error::internal(format!("cannot read the boot id: {e}")))?;
            Ok(Envelopes { boot: boot.trim().to_owned(), envelopes })
        });
        on(
            router,
            &agent,
            |agent: Arc<Agent>, r: UnitOutput| async move { agent.unit_output(r).await },
        );
    }

    async fn start_units(&self, stream: Stream, order: StartUnits) -> Result<UnitsTaken, Error> {
        if order.units.len() > BATCH_MAX {
            return Err(Error::too_large(format!("at most {BATCH_MAX} units at a time")));
        }
        if order.carried.is_some() {
            let text = "a node by itself begins units; in a cluster they go on from images";
            return Err(Error::unsatisfiable(text));
        }
        let held = self.take_ticket(&order.ticket)?;
        if held.membership.vo != order.vo {
            return Err(Error::invalid("the ticket is for another VO than the units"));
        }
        let account = self.account_of(&held.membership)?;
        let (limits, slots) = plan::limits(&order.room, &order.task, self.processes)?;
        let units: Result<Vec<_>, Error> = order
            .units
            .iter()
            .map(|u| plan::unit(&order, u, &account, &self.node, &self.stager))
            .collect();
        let units = units?;
        self.make_home(&held.membership, &account).await?;
        let spec = EnvelopeSpec {
            id: names::envelope(&order.envelope)?,
            account,
            limits,
            slots,
            spool_bytes_max: SPOOL_BYTES_DEFAULT,
            spool_total_bytes_max: SPOOL_TOTAL_BYTES_DEFAULT,
            rest_after_ms: REST_AFTER_MS_DEFAULT,
            carries: Some(Carries::from(&held.membership)),
        };
        let (envelope, want_output) = (order.envelope, order.want_output);
        let work = Work { envelope, spec, want_output, units };
        // A suspension that came meanwhile did not see the envelope.
        let still = || self.account_of(&held.membership).map(drop);
        let (id, new) = (work.envelope.clone(), self.units.get(&work.envelope).is_none());
        let taken = self.units.start(stream, work, still).await?;
        if new {
            self.note_envelope("open_envelope", &id, Some(&held.membership));
        }
        Ok(taken)
    }

    /// Makes a person's home if it is not there; an old one of theirs is moved aside.
    pub(in crate::agent) async fn make_home(
        &self,
        m: &Membership,
        account: &Account,
    ) -> Result<(), Error> {
        let (homes, owner) = (self.config.homes.clone(), account.clone());
        let made = in_background(move || home::ensure(&homes, &owner)).await?;
        let old = match made {
            Err(HomeError::Taken { owner: Some(old), .. })
                if self.lock_vos().is_former(&m.vo, old, m.number) && !machine::is_local(old)? =>
            {
                old
            }
            made => return Ok(made.map(drop)?),
        };
        // The same person, or one of the same name, under an earlier membership.
        let (homes, owner) = (self.config.homes.clone(), account.clone());
        let moved = in_background(move || {
            let aside = home::set_aside(&homes, &owner, old)?;
            home::ensure(&homes, &owner)?;
            Ok::<_, HomeError>(aside)
        });
        let aside = moved.await??;
        tracing::info!(person = %m.person, aside = %aside.display(), "an old home was moved aside");
        Ok(())
    }

    /// The account under which a member may work here now.
    pub(in crate::agent) fn account_of(&self, membership: &Membership) -> Result<Account, Error> {
        let local = machine::local_users()?;
        let vos = self.lock_vos();
        plan::account(vos.vo(&membership.vo), membership, &self.config.homes, &local, self.now())
    }

    async fn unit_output(&self, r: UnitOutput) -> Result<OutputPart, Error> {
        let name = names::envelope(&r.envelope)?;
        let key = names::unit(&r.envelope, r.unit, r.attempt)?;
        let Some(over) = self.units.is_over(&r.envelope, &key).await? else {
            return Err(Error::not_found(format!("no envelope of job {} here", r.envelope.job)));
        };
        let stream = match r.stream {
            OutputStream::Stdout => crate::shim::Stream::Stdout,
            OutputStream::Stderr => crate::shim::Stream::Stderr,
        };
        let spool = self.units.envelopes.spool(&name);
        let limit = r.limit.min(OUTPUT_PART_MAX) as usize;
        let piece = in_background(move || output::read(&spool, &key, stream, r.offset, limit));
        let piece = piece.await?.map_err(|e| Error::unavailable(e.to_string()))?;
        // Removed meanwhile: that is no end. (One that was only cut back has some bytes left.)
        if piece.total == 0 && r.offset > 0 {
            let text = format!("output of {} is not kept any more", r.envelope.job);
            return Err(Error::not_found(text));
        }
        let end = r.offset.saturating_add(piece.bytes.len() as u64);
        Ok(OutputPart::new(STANDARD.encode(&piece.bytes), over && end >= piece.total))
    }
}

/// Runs what may wait for a disk.
pub(in crate::agent) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::internal(format!("a task of xosd ended early: {e}")))
}
