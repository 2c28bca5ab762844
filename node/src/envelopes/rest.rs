//! Envelopes without a shim: found at a start of the daemon, opened again.

use super::client::ShimClient;
use super::events::blocking;
use super::recover::{last_record, rests};
use super::{Attached, CONNECT_PAUSE, CONNECT_TRIES_MAX, Envelope, EnvelopeError, Envelopes, warm};
use crate::event::{Cursor, Entry, Event, Outcome};
use crate::shim::PLAN_FILE;
use crate::shim::launch::Plan;
use crate::spec::{EnvelopeId, EnvelopeSpec};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;

/// Where a plan is written before it takes the place of the one before.
const NEW_PLAN_FILE: &str = "plan.new";

impl Envelopes {
    /// The envelopes that rest, of which there may be very many, and the names of the other
    /// folders.
    pub(super) async fn resting(&self) -> Result<(Vec<Attached>, Vec<EnvelopeId>), EnvelopeError> {
        let dir = self.dir.clone();
        blocking(move || {
            let (mut resting, mut others) = (Vec::new(), Vec::new());
            for entry in std::fs::read_dir(&dir).map_err(EnvelopeError::at("list", &dir))? {
                let entry = entry.map_err(EnvelopeError::at("list", &dir))?;
                let name = entry.file_name();
                let Some(Ok(id)) = name.to_str().map(str::parse::<EnvelopeId>) else {
                    tracing::warn!(?name, "not an envelope's folder");
                    continue;
                };
                if !warm::is_shell(&id) && rests(&entry.path()) {
                    resting.push(Attached::Over { id, lost: 0 });
                } else {
                    others.push(id);
                }
            }
            Ok((resting, others))
        })
        .await
    }

    /// Opens an envelope again that has no shim: the same log, other limits or groups if need be.
    /// One that lives is attached to as it is.
    ///
    /// # Errors
    /// [`EnvelopeError::Torn`] when records of what it started may be missing,
    /// [`EnvelopeError::NotFound`]; what the machine refuses. It stays as it was then.
    pub async fn reopen(&self, spec: EnvelopeSpec) -> Result<Envelope, EnvelopeError> {
        spec.check()?;
        let dir = self.folder(&spec.id);
        for tries in 1.. {
            match self.attach(&spec.id).await {
                Attached::Alive(envelope) => return Ok(*envelope),
                Attached::Over { .. } => break,
                // Somebody else just closes its log, or a shim just ends.
                Attached::Unclear { error: EnvelopeError::Alive(_), .. }
                    if tries < CONNECT_TRIES_MAX =>
                {
                    tokio::time::sleep(CONNECT_PAUSE).await;
                }
                Attached::Unclear { error, .. } => return Err(error),
            }
        }
        let (cgroup, boot) = (self.cgroups.envelope(&spec.id), self.boot.clone());
        let plan = Plan { spec, cgroup, boot };
        {
            let (dir, plan) = (dir.clone(), plan.clone());
            blocking(move || replace_plan(&dir, &plan)).await?;
        }
        self.launch(&dir, Stdio::null()).await?;
        let connected = ShimClient::connect(&dir).await;
        let client = connected.map_err(EnvelopeError::at("connect to the shim of", &dir))?;
        Ok(Envelope::new(self.clone(), dir, plan, client))
    }

    /// The number of the last event about a unit in each of these envelopes' logs; an error where
    /// one cannot be read.
    ///
    /// # Errors
    /// [`EnvelopeError::Task`].
    pub async fn last_seqs(
        &self,
        ids: Vec<EnvelopeId>,
    ) -> Result<Vec<Result<u64, EnvelopeError>>, EnvelopeError> {
        let home = self.clone();
        let last = move |id: &EnvelopeId| {
            let dir = home.folder(id);
            let last = last_record(&dir).map_err(EnvelopeError::at("read the log of", &dir))?;
            Ok(last.map_or(0, |e| e.seq))
        };
        blocking(move || Ok(ids.iter().map(last).collect())).await
    }
}

impl Envelopes {
    /// The ends that were recorded at the end of an envelope's log because the machine had stopped
    /// under it; none for one that was closed in order.
    ///
    /// # Errors
    /// [`EnvelopeError::Io`] when the log cannot be read.
    pub async fn ends_by_a_stop(&self, id: &EnvelopeId) -> Result<Vec<Entry>, EnvelopeError> {
        let dir = self.folder(id);
        let read = {
            let dir = dir.clone();
            blocking(move || last_record(&dir).map_err(EnvelopeError::at("read the log of", &dir)))
        };
        if !read.await?.is_some_and(|e| matches!(e.event, Event::Closed { torn: true, .. })) {
            return Ok(Vec::new());
        }
        let mut ends = Vec::new();
        let mut events = self.events(id, Cursor::default())?;
        while let Some(entries) = events.ready().await? {
            for (entry, _) in entries {
                match entry.event {
                    Event::Ended { outcome: Outcome::Lost, .. } => ends.push(entry),
                    Event::Closed { .. } => {}
                    _ => ends.clear(),
                }
            }
        }
        Ok(ends)
    }
}

fn replace_plan(dir: &Path, plan: &Plan) -> Result<(), EnvelopeError> {
    let last = last_record(dir).map_err(EnvelopeError::at("read the log of", dir))?;
    if last.is_some_and(|e| matches!(e.event, Event::Closed { torn: true, .. })) {
        return Err(EnvelopeError::Torn(plan.spec.id.clone()));
    }
    let text = serde_json::to_vec(plan).map_err(EnvelopeError::Encode)?;
    let new = dir.join(NEW_PLAN_FILE);
    let mut how = File::options();
    how.write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut f| f.write_all(&text))
        .and_then(|()| std::fs::rename(&new, dir.join(PLAN_FILE)))
        .map_err(EnvelopeError::at("write", &new))
}
