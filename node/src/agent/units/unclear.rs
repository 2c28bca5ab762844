//! Envelopes that could not be made out when this daemon came up: a shim that waits for a full disk
//! or does not listen, processes that do not end. Something of them may run, so they are on the
//! node's list like all others; what is ordered of them waits until they are made out.

use super::{Gate, Known, Units, names};
use crate::envelopes::Attached;
use xos_api::node::units::EnvelopeId;
use xos_base::Error;

impl Units {
    /// An envelope, which is looked at again if it was unclear. `None`: there is none.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when it still cannot be made out.
    pub(super) async fn found(&self, id: &EnvelopeId) -> Result<Option<Known>, Error> {
        match self.get(id) {
            Some(known) if known.unclear => self.made_out(&self.gate(id).await).await,
            known => Ok(known),
        }
    }

    /// As [`Units::found`], for who holds the gate: nobody makes or removes the envelope.
    pub(super) async fn made_out(&self, gate: &Gate<'_>) -> Result<Option<Known>, Error> {
        let id = &gate.id;
        let Some(mut known) = self.get(id) else { return Ok(None) };
        if !known.unclear {
            return Ok(Some(known));
        }
        match self.envelopes.look(&names::envelope(id)?).await {
            Some(Attached::Alive(envelope)) => known.live = Some(*envelope),
            Some(Attached::Over { lost, .. }) => {
                tracing::warn!(%id, lost, "an unclear envelope is over");
            }
            Some(Attached::Unclear { error, .. }) => {
                let text = format!("envelope {id} cannot be made out yet: {error}");
                return Err(Error::unavailable(text).hint("it is looked at again by itself"));
            }
            None => {
                self.lock().remove(id);
                return Ok(None);
            }
        }
        known.unclear = false;
        self.lock().insert(id.clone(), known.clone());
        self.fresh.put(id);
        Ok(Some(known))
    }

    /// Looks again at all unclear envelopes. Whether one is clear now.
    pub async fn look_again(&self) -> bool {
        let unclear: Vec<EnvelopeId> = {
            let all = self.lock();
            all.iter().filter(|(_, k)| k.unclear).map(|(id, _)| id.clone()).collect()
        };
        let mut any = false;
        for id in unclear {
            match self.found(&id).await {
                Ok(_) => any = true,
                Err(error) => tracing::warn!(%error, "an envelope is still unclear"),
            }
        }
        any
    }
}
