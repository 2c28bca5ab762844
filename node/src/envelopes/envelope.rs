//! One living envelope.

use super::client::ShimClient;
use super::events::blocking;
use super::{EnvelopeError, Envelopes, Events};
use crate::event::Cursor;
use crate::proto::{Ask, StartAnswer, Status, UnitState};
use crate::shim::launch::Plan;
use crate::shim::{LOG_FILE, SPOOL_DIR};
use crate::spec::{EnvelopeSpec, Limits, UnitKey, UnitSpec};
use std::path::PathBuf;
use std::time::Duration;
use xos_ssi::frame::FRAME_BYTES_MAX;

/// Most units in one message to a shim.
const BATCH_MAX: usize = 1024;
/// How much longer text can become in JSON: a control character takes six bytes.
const ESCAPED_MAX: usize = 6;
/// What a unit takes in a message besides its texts.
const UNIT_BYTES: usize = 2048;

/// A connection to an envelope and what is known of it. The envelope does not end with it.
#[derive(Clone, Debug)]
pub struct Envelope {
    home: Envelopes,
    dir: PathBuf,
    plan: Plan,
    client: ShimClient,
}

impl Envelope {
    pub(super) fn new(home: Envelopes, dir: PathBuf, plan: Plan, client: ShimClient) -> Envelope {
        Envelope { home, dir, plan, client }
    }

    /// What it was asked to be.
    pub fn spec(&self) -> &EnvelopeSpec {
        &self.plan.spec
    }

    /// The folder with the units' output, for [`crate::output`].
    pub fn spool(&self) -> PathBuf {
        self.dir.join(SPOOL_DIR)
    }

    /// Sends units; one answer each, in order. Those that were sent before are not started again.
    /// Sending the same again after an error is safe.
    ///
    /// # Errors
    /// [`EnvelopeError::Call`]; some of the units may have been taken then.
    pub async fn start_units(
        &self,
        units: Vec<UnitSpec>,
    ) -> Result<Vec<StartAnswer>, EnvelopeError> {
        let mut answers = Vec::with_capacity(units.len());
        let mut batch = Vec::new();
        let mut bytes = 0;
        for unit in units {
            unit.check()?;
            let size = message_bytes(&unit);
            if batch.len() == BATCH_MAX || (bytes + size > FRAME_BYTES_MAX && !batch.is_empty()) {
                answers.extend(self.send(std::mem::take(&mut batch)).await?);
                bytes = 0;
            }
            bytes += size;
            batch.push(unit);
        }
        if !batch.is_empty() {
            answers.extend(self.send(batch).await?);
        }
        Ok(answers)
    }

    async fn send(&self, units: Vec<UnitSpec>) -> Result<Vec<StartAnswer>, EnvelopeError> {
        Ok(self.client.call(Ask::Start { units }).await?)
    }

    /// Ends a unit: TERM to its processes, KILL after the grace; one that waits is taken back.
    ///
    /// # Errors
    /// [`EnvelopeError::Call`].
    pub async fn kill(&self, unit: UnitKey, grace: Duration) -> Result<UnitState, EnvelopeError> {
        Ok(self.client.call(Ask::Kill { unit, grace_ms: ms(grace) }).await?)
    }

    /// Ends all units; the envelope stays.
    ///
    /// # Errors
    /// [`EnvelopeError::Call`].
    pub async fn kill_all(&self, grace: Duration) -> Result<(), EnvelopeError> {
        Ok(self.client.call(Ask::KillAll { grace_ms: ms(grace) }).await?)
    }

    /// Stops all its processes, or lets them go on. While frozen, nothing starts and no clock of
    /// a unit runs.
    ///
    /// # Errors
    /// [`EnvelopeError::Call`].
    pub async fn freeze(&self, on: bool) -> Result<(), EnvelopeError> {
        Ok(self.client.call(Ask::Freeze { on }).await?)
    }

    /// Sets other limits. They are not in the plan: after a restart of the daemon they hold on.
    ///
    /// # Errors
    /// [`EnvelopeError::Call`]; the kernel refuses a memory limit below what is in use.
    pub async fn set_limits(&self, limits: Limits) -> Result<(), EnvelopeError> {
        Ok(self.client.call(Ask::Limit { limits }).await?)
    }

    /// Sets how many units run at a time.
    ///
    /// # Errors
    /// [`EnvelopeError::Call`].
    pub async fn set_slots(&self, slots: u32) -> Result<(), EnvelopeError> {
        Ok(self.client.call(Ask::Slots { slots }).await?)
    }

    /// How it is.
    ///
    /// # Errors
    /// [`EnvelopeError::Call`].
    pub async fn status(&self) -> Result<Status, EnvelopeError> {
        Ok(self.client.call(Ask::Status).await?)
    }

    /// Where a unit stands; `None` when it was never sent here.
    ///
    /// # Errors
    /// [`EnvelopeError::Call`].
    pub async fn unit(&self, unit: UnitKey) -> Result<Option<UnitState>, EnvelopeError> {
        Ok(self.client.call(Ask::Unit { unit }).await?)
    }

    /// Whether its shim is gone. It may have taken units before that.
    pub fn is_gone(&self) -> bool {
        self.client.is_gone()
    }

    /// Waits until its shim is gone.
    pub async fn gone(&self) {
        self.client.gone().await;
    }

    /// Brings the records that are on file to the disk. Without it they outlive the shim and the
    /// daemon, but not the machine.
    ///
    /// # Errors
    /// [`EnvelopeError::Io`].
    pub async fn sync(&self) -> Result<(), EnvelopeError> {
        let path = self.dir.join(LOG_FILE);
        blocking(move || {
            let file = std::fs::File::open(&path).map_err(EnvelopeError::at("open", &path))?;
            file.sync_data().map_err(EnvelopeError::at("sync", &path))
        })
        .await
    }

    /// Begins its end; the record `Closed` among its events says that it is done.
    ///
    /// # Errors
    /// [`EnvelopeError::Call`].
    pub async fn end(&self, grace: Duration) -> Result<(), EnvelopeError> {
        Ok(self.client.call(Ask::End { grace_ms: ms(grace) }).await?)
    }

    /// The records after `cursor`, as they come.
    pub fn events(&self, cursor: Cursor) -> Events {
        let client = Some(self.client.clone());
        Events::new(&self.home, self.dir.clone(), self.plan.cgroup.clone(), cursor, client)
    }
}

/// An upper bound of what a unit takes in a message.
fn message_bytes(unit: &UnitSpec) -> usize {
    let args: usize = unit.argv.iter().map(|a| a.len() + 1).sum();
    let env: usize = unit.env.iter().map(|(n, v)| n.len() + v.len() + 2).sum();
    let paths = [&unit.cwd, &unit.stdin, &unit.stdout, &unit.stderr];
    let paths: usize = paths.into_iter().flatten().map(|p| p.as_os_str().len()).sum();
    UNIT_BYTES + ESCAPED_MAX * (args + env + paths)
}

fn ms(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_unit_fits_a_message() {
        // wrong: a unit that the checks accept could never be sent
        let long = "\u{1}".repeat(crate::spec::ARG_BYTES_MAX);
        let mut unit: UnitSpec = serde_json::from_str(r#"{"key":"1.a:0","argv":["a"]}"#).unwrap();
        while unit.check().is_ok() {
            unit.argv.push(long.clone());
        }
        unit.argv.pop();
        let path = "\u{1}".repeat(libc::PATH_MAX as usize - 1);
        (unit.stdin, unit.stdout) = (Some(path.clone().into()), Some(path.into()));
        assert_eq!(unit.check(), Ok(()));
        let bytes = message_bytes(&unit);
        assert!(bytes <= FRAME_BYTES_MAX, "{bytes}");
        assert!(serde_json::to_vec(&unit).unwrap().len() <= bytes);
    }
}
