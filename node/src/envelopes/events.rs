//! Following an envelope's log.

use super::client::ShimClient;
use super::recover::{Found, recover};
use super::{EnvelopeError, Envelopes, patiently};
use crate::cgroup::EnvelopeCgroup;
use crate::event::{Chunk, Cursor, Entry, Event, decode};
use crate::shim::LOG_FILE;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How much of a log is read at a time.
const READ_BYTES: u64 = 256 * 1024;

/// The records of one envelope after a cursor, as they come. It reads the file, so that it works
/// the same with a living shim, a dead one, and none.
pub struct Events {
    dir: PathBuf,
    cgroup: EnvelopeCgroup,
    cursor: Cursor,
    client: Option<ShimClient>,
    /// The last record said that nothing is written any more.
    closed: bool,
    /// No shim lives, the log is closed.
    over: bool,
    boot: String,
    now: fn() -> xos_base::Millis,
}

impl Events {
    pub(super) fn new(
        home: &Envelopes,
        dir: PathBuf,
        cgroup: EnvelopeCgroup,
        cursor: Cursor,
        client: Option<ShimClient>,
    ) -> Events {
        let boot = home.boot.clone();
        Events { dir, cgroup, cursor, client, closed: false, over: false, boot, now: home.now }
    }

    /// Where the next call goes on. To be stored with what was made of the records before.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The next records, at least one; each with the cursor behind it. Waits for them. `None`:
    /// everything was read, and nothing is written until the envelope is opened again. Dropping
    /// the future loses nothing.
    ///
    /// When the shim is found dead this closes the log first, so that lost units come as records
    /// too.
    ///
    /// # Errors
    /// [`EnvelopeError`] when the log cannot be read, or processes of a dead envelope stay; asking
    /// again is allowed.
    pub async fn next(&mut self) -> Result<Option<Vec<(Entry, Cursor)>>, EnvelopeError> {
        loop {
            let chunk = self.read().await?;
            let before = std::mem::replace(&mut self.cursor, chunk.cursor);
            if chunk.damaged_bytes > 0 {
                let (dir, at) = (self.dir.display(), before.offset);
                tracing::error!(%dir, at, bytes = chunk.damaged_bytes, "damaged records");
            }
            if !chunk.entries.is_empty() {
                let closed = |(e, _): &(Entry, Cursor)| matches!(e.event, Event::Closed { .. });
                self.closed = chunk.entries.last().is_some_and(closed);
                self.over = false;
                return Ok(Some(chunk.entries));
            }
            if self.cursor == before {
                if self.closed || self.over {
                    return Ok(None);
                }
                self.wait().await?;
            }
        }
    }

    /// The next records that are there already; `None` when there are none now.
    ///
    /// # Errors
    /// As [`Events::next`].
    pub async fn ready(&mut self) -> Result<Option<Vec<(Entry, Cursor)>>, EnvelopeError> {
        loop {
            let chunk = self.read().await?;
            let before = std::mem::replace(&mut self.cursor, chunk.cursor);
            if !chunk.entries.is_empty() {
                return Ok(Some(chunk.entries));
            }
            if self.cursor == before {
                return Ok(None);
            }
        }
    }

    async fn read(&self) -> Result<Chunk, EnvelopeError> {
        let (path, cursor) = (self.dir.join(LOG_FILE), self.cursor);
        blocking(move || {
            let read = EnvelopeError::at("read", &path);
            read_after(&path, cursor).map_err(read)
        })
        .await
    }

    async fn wait(&mut self) -> Result<(), EnvelopeError> {
        if let Some(client) = &mut self.client {
            if client.log_beyond(self.cursor.offset).await {
                return Ok(());
            }
            self.client = None;
            // It may have written between our last look and its end.
            return Ok(());
        }
        let (dir, cgroup, now) = (self.dir.clone(), self.cgroup.clone(), (self.now)());
        let boot = self.boot.clone();
        match blocking(move || recover(&dir, &cgroup, &boot, now)).await? {
            Found::Over { lost } => {
                self.over = true;
                if lost > 0 {
                    tracing::error!(dir = %self.dir.display(), lost, "a shim died under its units");
                }
            }
            Found::Alive => {
                // Ending, or only the connection broke.
                match patiently(&self.dir, || ShimClient::connect(&self.dir)).await {
                    Ok(client) => self.client = client,
                    Err(e) => {
                        return Err(EnvelopeError::at("connect to the shim of", &self.dir)(e));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The whole records after a cursor, as many as one read holds.
fn read_after(path: &Path, cursor: Cursor) -> std::io::Result<Chunk> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    if cursor.offset > len {
        let text = format!("it has {len} bytes, {} were read before", cursor.offset);
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
    }
    let mut buf = vec![0; (len - cursor.offset).min(READ_BYTES) as usize];
    file.read_exact_at(&mut buf, cursor.offset)?;
    Ok(decode(&buf, cursor))
}

/// Runs what may wait for a disk or for the kernel beside the async work.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EnvelopeError> + Send + 'static,
) -> Result<T, EnvelopeError> {
    tokio::task::spawn_blocking(work).await.map_err(EnvelopeError::Task)?
}
