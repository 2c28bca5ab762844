//! The entry to everything: finds volumes.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use xtreemfs_proto::dir;

use crate::cache::Entries;
use crate::call::Repeat;
use crate::closings::watch;
use crate::connect::{Connector, Tickets};
use crate::limits::OPERATION_DEADLINE;
use crate::link::Links;
use crate::mrc::Mrc;
use crate::shared::{Room, Shared, care};
use crate::{Peer, Result, Volume};

/// Settings of a client.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the DIR is reached; only the connector understands it.
    pub dir: String,
    /// The present time in nanoseconds since 1970, for the times of written files.
    pub now_ns: fn() -> i64,
    /// How long an operation may take, with all its retries.
    pub deadline: Duration,
}

impl Config {
    /// The usual settings: the system's clock, [`OPERATION_DEADLINE`].
    pub fn new(dir: impl Into<String>) -> Config {
        Config { dir: dir.into(), now_ns: system_time_ns, deadline: OPERATION_DEADLINE }
    }
}

/// The system's clock, for [`Config::now_ns`].
pub fn system_time_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// An XtreemFS client. Clones share connections and buffers.
#[derive(Debug, Clone)]
pub struct Client {
    links: Arc<Links>,
    room: Room,
    config: Config,
}

impl Client {
    /// A client that reaches services and finds tickets in these ways.
    pub fn new(config: Config, connector: Arc<dyn Connector>, tickets: Arc<dyn Tickets>) -> Client {
        let links = Arc::new(Links::new(connector, tickets, config.deadline));
        Client { links, room: Room::new(), config }
    }

    /// Finds a volume by name. Must be called within a tokio runtime, which looks after the
    /// volume's open files from then on.
    ///
    /// # Errors
    /// `ENOENT` when the DIR knows none of this name; `EIO` when it is not reached in time.
    pub async fn volume(&self, name: &str) -> Result<Volume> {
        let peer = Peer::Dir(Arc::from(self.config.dir.as_str()));
        let request = dir::VolumeLookupRequest { name: name.to_owned() };
        let call = self.links.call::<dir::VolumeLookup>(
            &peer,
            None,
            &request,
            Bytes::new(),
            Repeat::Always,
        );
        let (found, _) = call.await?;
        let volume = self.volume_at(found.id, found.mrc_address);
        let (shared, links) = (Arc::downgrade(&volume.shared), Arc::clone(&self.links));
        tokio::spawn(watch(shared, links, peer, found.vo));
        Ok(volume)
    }

    /// A volume whose id and MRC are known already. Must be called within a tokio runtime.
    pub fn volume_at(&self, id: String, mrc: String) -> Volume {
        let peer = Peer::Mrc(Arc::from(mrc));
        let (links, entries) = (Arc::clone(&self.links), Entries::new());
        let mrc = Mrc { links, peer, volume: id, entries };
        let shared = Arc::new(Shared::new(mrc, self.config.now_ns, self.room.clone()));
        tokio::spawn(care(Arc::downgrade(&shared)));
        Volume { shared }
    }
}
