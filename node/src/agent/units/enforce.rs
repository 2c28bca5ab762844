//! Work goes on only for members who may act.

use super::Units;
use crate::envelopes::{CallError, Envelope, EnvelopeError};
use crate::proto::Refusal;
use crate::spec::EnvelopeSpec;
use std::time::Duration;
use tokio::task::JoinSet;
use xos_api::node::units::EnvelopeId;
use xos_api::vom::AccountState;

/// How many shims are told at a time: one that hangs must not hold up the others.
const AT_ONCE: usize = 64;

impl Units {
    /// The envelopes that have a shim, and the uids they run as.
    pub(in crate::agent) fn live(&self) -> Vec<(EnvelopeId, u32)> {
        let all = self.lock();
        let live = |(id, k): (&EnvelopeId, &super::Known)| {
            k.live.as_ref().map(|e| (id.clone(), e.spec().account.uid))
        };
        all.iter().filter_map(live).collect()
    }

    /// Holds the work of members who are suspended, ends that of members who are no more, and lets
    /// the others' go on. `state` says of an envelope where what it carries stands; `None`: not
    /// known yet, nothing is done. Whether all of it was done: else it is to be tried again.
    pub async fn enforce(&self, state: impl Fn(&EnvelopeSpec) -> Option<AccountState>) -> bool {
        let _one = self.enforcing.lock().await;
        let (mut all_done, mut live) = (true, Vec::new());
        for known in self.lock().values() {
            // Of an unclear one not even the person is known.
            all_done &= !known.unclear;
            live.extend(known.live.clone());
        }
        let mut telling = JoinSet::new();
        while !(telling.is_empty() && live.is_empty()) {
            while telling.len() < AT_ONCE
                && let Some(envelope) = live.pop()
            {
                if let Some(state) = state(envelope.spec()) {
                    telling.spawn(async move { obeys(&envelope, state).await });
                }
            }
            match telling.join_next().await {
                Some(Ok(obeyed)) => all_done &= obeyed,
                Some(Err(error)) => {
                    tracing::error!(%error, "an envelope was not told where its member stands");
                    all_done = false;
                }
                None => {}
            }
        }
        all_done
    }
}

/// Kills first, so that nothing which is held goes on before it ends. Where a group is stopped by
/// freezing processes (cgroup v1), they die once they are let go.
async fn end(envelope: &Envelope) -> Result<(), EnvelopeError> {
    envelope.kill_all(Duration::ZERO).await?;
    envelope.freeze(false).await?;
    envelope.kill_all(Duration::ZERO).await
}

async fn obeys(envelope: &Envelope, state: AccountState) -> bool {
    let (id, account) = (&envelope.spec().id, &envelope.spec().account);
    let done = match state {
        AccountState::Active => envelope.freeze(false).await,
        AccountState::Suspended => envelope.freeze(true).await,
        AccountState::Ended => {
            tracing::info!(%id, name = account.name, "ended: what it carries was taken away");
            end(envelope).await
        }
    };
    match done {
        // Nothing of it runs, or will: whoever opens it again asks for the person's state.
        Ok(())
        | Err(EnvelopeError::Call(CallError::Gone | CallError::Refused(Refusal::Ending))) => true,
        Err(error) => {
            tracing::error!(%id, %error, "an envelope does not obey");
            false
        }
    }
}
