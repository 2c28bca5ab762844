//! What a handle may do at the OSDs: its capability, renewed before it lapses, and the calls that
//! carry it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use tokio::time::Instant;
use tracing::debug;
use xtreemfs_proto::{Access, Capability, Layout, mrc::open_flags, osd};

use super::piece::Piece;
use crate::call::Repeat;
use crate::limits::{PROOFS_MAX, RENEW_FRACTION, RENEW_PAUSE};
use crate::link::Links;
use crate::mrc::Mrc;
use crate::{Error, Ino, Member, OpenMode, Peer, Result};

/// A capability as the MRC gave it.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) token: Bytes,
    pub(crate) layout: Arc<Layout>,
    /// The newest truncation that it knows of.
    pub(crate) epoch: u64,
    /// Some OSD may not have made a truncation, and this lets us have it made.
    pub(crate) owed: bool,
    renew_at: Instant,
    lapses_at: Instant,
}

impl Grant {
    /// Reads when the token lapses, by its life counted from now; `None` if it is none.
    pub(crate) fn new(token: Bytes, layout: Arc<Layout>) -> Option<Grant> {
        let capability = Capability::peek(&token)?;
        let life = Duration::from_millis(capability.valid_ms());
        let now = Instant::now();
        let lapses_at = now.checked_add(life)?;
        let renew_at = lapses_at.checked_sub(life / RENEW_FRACTION).unwrap_or(now);
        let epoch = capability.truncate_epoch;
        let may = Access(capability.access).has(Access::TRUNCATE);
        let owed = may && !capability.owed.is_empty();
        Some(Grant { token, layout, epoch, owed, renew_at, lapses_at })
    }

    /// Whether it is too young to be renewed.
    pub(crate) fn is_fresh(&self) -> bool {
        Instant::now() < self.renew_at
    }
}

/// The OSDs of a layout, as peers.
pub(crate) fn peers(layout: &Layout) -> Vec<Peer> {
    layout.osds.iter().map(|id| Peer::Osd(Arc::from(id.as_str()))).collect()
}

/// What an inode's rights must know of it.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Its last name was removed here.
    pub(crate) nameless: AtomicBool,
    /// The newest truncation.
    pub(crate) epoch: AtomicU64,
}

/// A handle's rights.
#[derive(Debug)]
pub(crate) struct Rights {
    mrc: Arc<Mrc>,
    who: Member,
    ino: Ino,
    mode: OpenMode,
    layout: Arc<Layout>,
    peers: Vec<Peer>,
    grant: Mutex<Arc<Grant>>,
    known: Arc<Known>,
    /// A truncation that no capability to be had knows of.
    vain: AtomicU64,
    /// No new capability was to be had when the old one counted no more.
    lost: AtomicBool,
    /// Held while renewing; when the last attempt failed.
    renewing: tokio::sync::Mutex<Option<Instant>>,
}

impl Rights {
    pub(crate) fn new(
        mrc: Arc<Mrc>,
        who: Member,
        ino: Ino,
        mode: OpenMode,
        grant: Grant,
        known: Arc<Known>,
    ) -> Rights {
        let layout = Arc::clone(&grant.layout);
        let peers = peers(&layout);
        let grant = Mutex::new(Arc::new(grant));
        let renewing = tokio::sync::Mutex::default();
        let (vain, lost) = (AtomicU64::new(0), AtomicBool::new(false));
        Rights { mrc, who, ino, mode, layout, peers, grant, known, vain, lost, renewing }
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn who(&self) -> Member {
        self.who
    }

    /// The capability as it is.
    pub(crate) fn grant(&self) -> Arc<Grant> {
        Arc::clone(&self.grant.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The capability, renewed first when it is about to lapse.
    pub(crate) async fn current(&self) -> Result<Arc<Grant>> {
        let grant = self.grant();
        if Instant::now() < grant.renew_at {
            return Ok(grant);
        }
        match self.renewed(&grant).await {
            Ok(renewed) => Ok(renewed),
            Err(error) if Instant::now() < grant.lapses_at => {
                debug!(ino = %self.ino, %error, "not renewed; the old capability is still good");
                Ok(grant)
            }
            Err(error) => Err(error),
        }
    }

    /// A capability that knows of this truncation.
    pub(crate) async fn at_epoch(&self, epoch: u64) -> Result<Arc<Grant>> {
        let grant = self.current().await?;
        if grant.epoch >= epoch || self.vain.load(Ordering::Acquire) >= epoch {
            return Ok(grant);
        }
        let renewed = self.renewed(&grant).await?;
        if renewed.epoch < epoch {
            // The MRC has forgotten the file, or it: asking again would bring nothing else.
            self.vain.fetch_max(epoch, Ordering::AcqRel);
        }
        Ok(renewed)
    }

    /// Takes over the capability that a truncation through this handle brought: it allows no less.
    pub(crate) fn adopt(&self, grant: Grant) {
        let mut present = self.grant.lock().unwrap_or_else(PoisonError::into_inner);
        if grant.epoch > present.epoch && *grant.layout == *self.layout {
            *present = Arc::new(grant);
        }
    }

    /// Asks for a new capability, since older ones count no more; whether there is one.
    pub(crate) async fn regain(&self) -> bool {
        let regained = self.renewed(&self.grant()).await;
        if let Err(error) = &regained {
            debug!(ino = %self.ino, who = %self.who, %error, "an open file was closed to its user");
        }
        self.lost.store(regained.is_err(), Ordering::Release);
        regained.is_ok()
    }

    /// Whether the last [`Rights::regain`] found that nothing is allowed any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Refuses what would be answered without the services when nothing is allowed any more.
    pub(crate) async fn still(&self) -> Result<()> {
        if self.is_lost() {
            self.renewed(&self.grant()).await?;
            self.lost.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// A newer capability than `old`: another task's, or one asked for now.
    async fn renewed(&self, old: &Arc<Grant>) -> Result<Arc<Grant>> {
        let mut failed = self.renewing.lock().await;
        let present = self.grant();
        if !Arc::ptr_eq(&present, old) {
            return Ok(present);
        }
        if failed.is_some_and(|at| at.elapsed() < RENEW_PAUSE) {
            let reason = format!("the right to inode {} was not renewed a moment ago", self.ino);
            return Err(Error::local(libc::EACCES, reason));
        }
        match self.ask(&present).await {
            Ok(grant) => {
                let grant = Arc::new(grant);
                *self.grant.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&grant);
                *failed = None;
                Ok(grant)
            }
            Err(error) => {
                *failed = Some(Instant::now());
                Err(error)
            }
        }
    }

    /// Renews; where the MRC wants a new open (lapsed long ago, or the membership changed), opens
    /// anew with the rights the person has now.
    async fn ask(&self, present: &Grant) -> Result<Grant> {
        match self.mrc.renew(self.who, present).await {
            Err(error)
                if error.is_refusal(libc::EKEYEXPIRED) || error.is_refusal(libc::EKEYREVOKED) =>
            {
                let opened = self.mrc.open(self.who, self.ino, flags(self.mode)).await?;
                if *opened.grant.layout != *self.layout {
                    let reason = format!("inode {} lies elsewhere now: open it again", self.ino);
                    return Err(Error::local(libc::ESTALE, reason));
                }
                Ok(opened.grant)
            }
            renewed => renewed,
        }
    }

    /// Calls an OSD; with a new capability when it says that this one is no longer good.
    async fn call<P, F>(&self, osd: usize, request: F, data: Bytes) -> Result<(P::Reply, Bytes)>
    where
        P: xtreemfs_proto::Procedure,
        F: Fn(Bytes) -> P::Request,
    {
        let peer = self.peers.get(osd).ok_or_else(|| {
            Error::local(libc::EIO, format!("inode {} has no OSD number {osd}", self.ino))
        })?;
        // An OSD that has not made a truncation that is known here makes it first. Of a file
        // without a name nothing newer is to be had.
        let mut grant = match self.known.nameless.load(Ordering::Acquire) {
            true => self.current().await?,
            false => self.at_epoch(self.known.epoch.load(Ordering::Acquire)).await?,
        };
        let mut proofs = 1;
        loop {
            let request = request(grant.token.clone());
            let links = &self.mrc.links;
            let result = links.call::<P>(peer, None, &request, data.clone(), Repeat::Always).await;
            match result {
                Err(error)
                    if proofs < PROOFS_MAX
                        && (error.is_refusal(libc::EKEYEXPIRED)
                            || error.is_refusal(libc::EKEYREVOKED)) =>
                {
                    grant = self.renewed(&grant).await?;
                    proofs += 1;
                }
                result => return result,
            }
        }
    }

    /// Reads a piece; fewer bytes mean that the OSD holds no more.
    pub(crate) async fn read(&self, piece: &Piece) -> Result<Bytes> {
        let length = u32::try_from(piece.length).unwrap_or(u32::MAX);
        let request = |capability| osd::ReadRequest {
            capability,
            object: piece.object,
            offset: piece.in_object,
            length,
        };
        let (_, data) = self.call::<osd::Read, _>(piece.osd, request, Bytes::new()).await?;
        if data.len() > piece.length {
            let detail = format!("{} bytes where {} were asked for", data.len(), piece.length);
            let peer = self.peers.get(piece.osd).cloned().unwrap_or(self.mrc.peer.clone());
            return Err(Error::Protocol { operation: "Read", peer, detail });
        }
        Ok(data)
    }

    /// Refuses with `ESTALE` when the file is gone, unless it lost its name here: then its content
    /// stays until the last handle is closed.
    pub(crate) async fn exists(&self) -> Result<()> {
        if self.known.nameless.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.mrc.attributes(self.who, self.ino).await {
            // The way to it may be closed to the person by now; the open file is not.
            Err(error) if error.is_refusal(libc::EACCES) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Writes a piece. What the OSD says of truncations is not believed: the MRC is asked for the
    /// size anyway, and a lying OSD could take it away from the others. Gives the OSD's verifier.
    pub(crate) async fn write(&self, piece: &Piece, data: Bytes) -> Result<u64> {
        let request = |capability| osd::WriteRequest {
            capability,
            object: piece.object,
            offset: piece.in_object,
        };
        let (reply, _) = self.call::<osd::Write, _>(piece.osd, request, data).await?;
        Ok(reply.verifier)
    }

    /// Makes durable what any client gave the OSDs; each is asked, whatever the others say. Gives
    /// the answer of each: its verifier.
    pub(crate) async fn sync(&self) -> Vec<Result<u64>> {
        let request = |capability| osd::FileRequest { capability };
        let calls = (0..self.peers.len()).map(|osd| async move {
            let (reply, _) = self.call::<osd::Fsync, _>(osd, request, Bytes::new()).await?;
            Ok(reply.verifier)
        });
        join_all(calls).await
    }

    /// Where the file ends as far as its OSDs know.
    pub(crate) async fn size(&self) -> Result<u64> {
        let request = |capability| osd::FileRequest { capability };
        let calls = (0..self.peers.len())
            .map(|osd| async move { self.call::<osd::Size, _>(osd, request, Bytes::new()).await });
        let known = try_join_all(calls).await?;
        Ok(known.into_iter().map(|(reply, _)| reply.size).max().unwrap_or(0))
    }
}

/// The MRC's flags for an open, but for those to create and truncate. Who truncates must have the
/// right to write, as with open(2), also if she opens to read only.
pub(crate) fn flags(mode: OpenMode) -> u32 {
    let read = if mode.read || mode.execute { open_flags::READ } else { 0 };
    let write = if mode.write || mode.truncate { open_flags::WRITE } else { 0 };
    read | write
}

/// Has all OSDs make the truncations that a capability names; every OSD is asked, whatever the
/// others say.
pub(crate) async fn truncate_objects(links: &Links, grant: &Grant) -> Result<()> {
    let calls = peers(&grant.layout).into_iter().map(|peer| async move {
        let request = osd::FileRequest { capability: grant.token.clone() };
        let call = links.call::<osd::Truncate>(&peer, None, &request, Bytes::new(), Repeat::Always);
        call.await.map(drop)
    });
    join_all(calls).await.into_iter().collect()
}

/// Deletes a file's objects on all its OSDs; every OSD is asked, whatever the others say.
pub(crate) async fn delete_objects(links: &Links, grant: &Grant) -> Result<()> {
    let calls = peers(&grant.layout).into_iter().map(|peer| async move {
        let request = osd::FileRequest { capability: grant.token.clone() };
        let call = links.call::<osd::Unlink>(&peer, None, &request, Bytes::new(), Repeat::Always);
        call.await.map(drop)
    });
    join_all(calls).await.into_iter().collect()
}
