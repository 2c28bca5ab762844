//! Checking capabilities.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use xtreemfs_proto::capability::{Cut, VALID_MS_MAX};
use xtreemfs_proto::layout::FILE_BYTES_MAX;
use xtreemfs_proto::{Access, Capability, Errno, Layout, RpcError};

use crate::ids::{VoName, VolumeId};
use crate::osd::objects::{FileKey, Owed};
use crate::osd::{NoKey, OsdConnection};
use crate::token::Unverified;

/// Most capabilities whose signature is remembered as good.
pub const VERIFIED_MAX: usize = 8192;
/// A capability that is younger than this and speaks of a membership that is not known here, nor
/// known to be over, may only be ahead of the news, in milliseconds.
pub const NEWS_MS_MAX: u64 = 10_000;
/// A capability made this far in the future is still believed, in milliseconds.
pub const CLOCK_SKEW_MS_MAX: u64 = 60_000;

/// A capability whose signature is good, for this OSD.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) capability: Capability,
    pub(super) key: FileKey,
    pub(super) layout: Layout,
    /// This OSD's place in the layout.
    pub(super) index: usize,
    /// What is to be cut first.
    pub(super) owed: Owed,
}

fn refused(text: &str) -> RpcError {
    RpcError::errno(Errno::EACCES, format!("capability refused: {text}"))
}

fn not_yet(text: &str) -> RpcError {
    RpcError::errno(Errno::EAGAIN, format!("capability cannot be checked now: {text}"))
}

impl OsdConnection {
    /// The file that a token gives `need` on.
    pub(super) async fn verify(
        &self,
        token: &Bytes,
        need: Access,
    ) -> Result<Arc<Verified>, RpcError> {
        let file = self.verify_any(token).await?;
        if !Access(file.capability.access).has(need) {
            return Err(refused("it does not allow this operation"));
        }
        Ok(file)
    }

    /// The file that a token lets its holder read or write.
    pub(super) async fn verify_user(&self, token: &Bytes) -> Result<Arc<Verified>, RpcError> {
        let file = self.verify_any(token).await?;
        let use_bits = Access::READ.0 | Access::WRITE.0 | Access::TRUNCATE.0;
        if file.capability.access & use_bits == 0 {
            return Err(refused("it does not allow this operation"));
        }
        Ok(file)
    }

    /// Checks all but the rights. The signature is checked once, the rest each time.
    async fn verify_any(&self, token: &Bytes) -> Result<Arc<Verified>, RpcError> {
        let known = self.osd.verified.lock().unwrap_or_else(PoisonError::into_inner).find(token);
        let (file, new) = match known {
            Some(file) => (file, false),
            None => (Arc::new(self.verify_signature(token).await?), true),
        };
        self.check_now(&file)?;
        if new {
            // A copy: the token as it came in keeps its whole receive buffer alive.
            let token = Bytes::copy_from_slice(token);
            let mut cache = self.osd.verified.lock().unwrap_or_else(PoisonError::into_inner);
            cache.insert(token, file.clone());
        }
        Ok(file)
    }

    fn check_now(&self, file: &Verified) -> Result<(), RpcError> {
        let (capability, parts) = (&file.capability, &self.osd.parts);
        let now_ms = parts.clock.now_ms();
        if capability.peer != self.peer.id {
            return Err(refused("it was made for another machine"));
        }
        if capability.expires_ms <= now_ms {
            let text = "capability has lapsed: renew it at the MRC";
            return Err(RpcError::errno(Errno::EKEYEXPIRED, text));
        }
        let issued_ms = capability.issued_ms;
        let too_long = capability.expires_ms.saturating_sub(issued_ms) > VALID_MS_MAX;
        if too_long || issued_ms > now_ms.saturating_add(CLOCK_SKEW_MS_MAX) {
            return Err(refused("it is valid for too long, or the clocks differ"));
        }
        // To delete what has lost its name shows nothing of it.
        let deletes = capability.access == Access::DELETE.0;
        if !deletes && capability.barrier < parts.trust.barrier(&file.key.vo, &file.key.volume) {
            let text = "a folder of the volume was closed since: renew the capability at the MRC";
            return Err(RpcError::errno(Errno::EKEYREVOKED, text));
        }
        let (vo, member) = (&capability.vo, capability.member);
        let young = now_ms.saturating_sub(issued_ms) < NEWS_MS_MAX;
        match parts.epochs.least_valid(vo, member) {
            Some(least) if capability.epoch >= least => Ok(()),
            // The VO's home counted the member in a moment ago: admitted or let in again, which has
            // not come here yet. A client cannot tell that by a new capability. Who was removed
            // since, which has come, is told so at once.
            None if young && !parts.epochs.has_left(vo, member) => {
                Err(not_yet("this OSD has not heard of the membership"))
            }
            _ => {
                let text = "the membership changed: authenticate and open the file anew";
                Err(RpcError::errno(Errno::EKEYREVOKED, text))
            }
        }
    }

    async fn verify_signature(&self, token: &Bytes) -> Result<Verified, RpcError> {
        let parts = &self.osd.parts;
        let parsed = Unverified::parse(token).ok_or_else(|| refused("it cannot be read"))?;
        let (vo, volume) = parsed.claimed_place();
        let (vo, volume) = (VoName::parse(vo), VolumeId::parse(volume));
        let vo = vo.ok_or_else(|| refused("the name of its VO is not valid"))?;
        let volume = volume.ok_or_else(|| refused("its volume id is not valid"))?;
        // The key is one for this VO, so whoever signs with it reaches what is below the VO's name,
        // and is bound to the VO's own epochs.
        let key = parts.trust.volume_key(&vo, &volume).await.map_err(|none| match none {
            NoKey::NotServed => refused(&none.to_string()),
            NoKey::NotYet => not_yet(&none.to_string()),
        })?;
        let verified = parsed.verify(&key);
        let mut capability = verified.ok_or_else(|| refused("its signature is not good"))?;
        let layout = capability.layout.take().filter(Layout::is_valid);
        let layout = layout.ok_or_else(|| refused("its layout is not valid"))?;
        let index = layout.osds.iter().position(|id| *id == parts.id);
        let index = index.ok_or_else(|| refused("this OSD is not in its layout"))?;
        let epoch = capability.truncate_epoch;
        if capability.owed.iter().any(|cut| cut.size > FILE_BYTES_MAX || cut.epoch > epoch) {
            return Err(refused("it names an impossible truncation"));
        }
        let local = |cut: Cut| (cut.epoch, layout.local_length(index, cut.size));
        let cuts = std::mem::take(&mut capability.owed).into_iter().map(local).collect();
        let key = FileKey { vo, volume, inode: capability.inode };
        Ok(Verified { capability, key, owed: Owed { epoch, cuts }, layout, index })
    }
}
