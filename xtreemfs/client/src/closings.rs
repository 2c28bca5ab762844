//! What becomes of open files when a folder is closed to those who have them open.
//!
//! The directory tells at once when capabilities of the volume count no more. Each handle then asks
//! for a new one; what it may do no longer ends here as well, and whoever keeps the file's content
//! for others (the mount, the kernel behind it) is told to drop it.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::time::sleep;
use tracing::debug;
use xtreemfs_proto::dir::{Barrier, Barriers, BarriersRequest};
use xtreemfs_proto::mrc::{ExplainReply, FolderReply, Pin, Way};

use crate::call::Repeat;
use crate::limits::{ANSWER_DEADLINE, CARE_AT_ONCE, RETRY_PAUSE_MAX};
use crate::link::Links;
use crate::shared::Shared;
use crate::{Ino, Member, Peer, Result, Volume};

/// Told of each file here that somebody who has it open may not use any more.
type Told = Box<dyn Fn(Ino) + Send + Sync>;

/// Who is told of closings.
#[derive(Default)]
pub(crate) struct Closings(OnceLock<Told>);

impl fmt::Debug for Closings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Closings").field(&self.0.get().is_some()).finish()
    }
}

impl Volume {
    /// Has `told` called with each file that somebody has open here and may not use any more, when
    /// that is learned: what is kept of its content for others is to be dropped. Counts once.
    pub fn on_closed(&self, told: impl Fn(Ino) + Send + Sync + 'static) {
        if self.shared.closings.0.set(Box::new(told)).is_err() {
            debug!("closings are told to somebody already");
        }
    }

    /// What the owner of a folder says of it, and what lies below; of a file, where it lies.
    ///
    /// # Errors
    /// `EACCES`, `ESTALE`; see [`Volume`].
    pub async fn folder(&self, who: Member, ino: Ino) -> Result<FolderReply> {
        self.shared.mrc.folder(who, ino).await
    }

    /// Closes, opens or pins a folder of the person's; `None` leaves that as it is.
    ///
    /// # Errors
    /// `EPERM` when it is somebody else's, `ENOTDIR`, `EINVAL`, `EACCES`, `ESTALE`; see [`Volume`].
    pub async fn set_folder(
        &self,
        who: Member,
        ino: Ino,
        closed: Option<bool>,
        pin: Option<Pin>,
    ) -> Result<FolderReply> {
        self.shared.mrc.set_folder(who, ino, closed, pin).await
    }

    /// Why the person may use what lies on a way from the directory `ino` on, or may not.
    ///
    /// # Errors
    /// `EACCES`, `ESTALE`, `EINVAL`; see [`Volume`].
    pub async fn explain(&self, who: Member, ino: Ino, way: Way) -> Result<ExplainReply> {
        self.shared.mrc.explain(who, ino, way).await
    }
}

impl Shared {
    /// Looks at every open file: capabilities so far count no more.
    async fn closed_somewhere(&self) {
        self.mrc.entries.forget_all();
        let look = |inode: Arc<crate::file::inode::Inode>| async move {
            if !inode.regain().await
                && let Some(told) = self.closings.0.get()
            {
                told(inode.ino);
            }
        };
        stream::iter(self.inodes()).for_each_concurrent(CARE_AT_ONCE, look).await;
    }
}

/// Waits for barriers of the volume, until it is no longer used or the directory knows of none.
pub(crate) async fn watch(shared: Weak<Shared>, links: Arc<Links>, dir: Peer, vo: String) {
    let Some(volume) = shared.upgrade().map(|shared| shared.mrc.volume.clone()) else { return };
    // Well before the call itself would be given up.
    let wait = links.deadline.min(ANSWER_DEADLINE) / 2;
    let mut known = 0;
    while shared.strong_count() > 0 {
        match ask(&links, &dir, (&vo, &volume), known, wait).await {
            Ok(number) if number > known => {
                known = number;
                let Some(shared) = shared.upgrade() else { return };
                shared.closed_somewhere().await;
            }
            Ok(_) => {}
            // It speaks an older protocol.
            Err(error) if error.is_refusal(libc::EOPNOTSUPP) => return,
            Err(error) => {
                debug!(%error, "not told of closed folders");
                sleep(RETRY_PAUSE_MAX).await;
            }
        }
    }
}

/// The volume's barrier once it is higher than `known`, or after a while.
async fn ask(
    links: &Links,
    dir: &Peer,
    (vo, volume): (&str, &str),
    known: u64,
    wait: Duration,
) -> Result<u64> {
    let barrier = Barrier { vo: vo.to_owned(), volume: volume.to_owned(), number: known };
    let request = BarriersRequest {
        vos: vec![vo.to_owned()],
        known: vec![barrier],
        wait_ms: u64::try_from(wait.as_millis()).unwrap_or(0),
        osd: false,
    };
    let call = links.call::<Barriers>(dir, None, &request, Bytes::new(), Repeat::Always);
    let (reply, _) = call.await?;
    let own = reply.barriers.into_iter().filter(|barrier| barrier.volume == volume);
    Ok(own.map(|barrier| barrier.number).max().unwrap_or(known))
}

impl crate::mrc::Mrc {
    async fn folder(&self, who: Member, ino: Ino) -> Result<FolderReply> {
        use xtreemfs_proto::mrc::{FolderShow, InodeRequest};
        let request = InodeRequest { volume: self.volume.clone(), inode: ino.0 };
        self.call::<FolderShow>(who, &request, Repeat::Always).await
    }

    async fn explain(&self, who: Member, ino: Ino, way: Way) -> Result<ExplainReply> {
        use xtreemfs_proto::mrc::{Explain, ExplainRequest};
        let volume = self.volume.clone();
        let request = ExplainRequest { volume, inode: ino.0, way: Some(way) };
        self.call::<Explain>(who, &request, Repeat::Always).await
    }

    async fn set_folder(
        &self,
        who: Member,
        ino: Ino,
        closed: Option<bool>,
        pin: Option<Pin>,
    ) -> Result<FolderReply> {
        use xtreemfs_proto::mrc::{FolderSet, FolderSetRequest};
        let request = FolderSetRequest { volume: self.volume.clone(), inode: ino.0, closed, pin };
        let set = self.call::<FolderSet>(who, &request, Repeat::Always).await;
        // What was looked up here may be closed now.
        self.entries.forget_all();
        set
    }
}
