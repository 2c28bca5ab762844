//! The toy's OSDs: objects, and whether they are durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use xtreemfs_client::Peer;
use xtreemfs_proto::{Capability, Errno, Handler, Incoming, Outgoing, Procedure, RpcError, osd};

use super::{Toy, pass};

pub(super) struct Osd(pub(super) Arc<Toy>, pub(super) String);

impl Osd {
    fn held(&self, token: &[u8]) -> Result<Capability, RpcError> {
        if self.0.lapsed.load(Ordering::Relaxed) {
            return Err(Errno::EKEYEXPIRED.into());
        }
        let held = Capability::peek(token).ok_or(RpcError::from(Errno::EACCES))?;
        if held.expires_ms <= self.0.now_ms() {
            return Err(Errno::EKEYEXPIRED.into());
        }
        Ok(held)
    }

    /// The file that a token is for, cut as it says.
    fn settled(&self, token: &[u8]) -> Result<u64, RpcError> {
        let held = self.held(token)?;
        let key = (self.1.clone(), held.inode);
        let (mut made, mut objects) = (self.0.made.lock().unwrap(), self.0.objects.lock().unwrap());
        let made = made.entry(key.clone()).or_default();
        let open = held.owed.iter().filter(|cut| cut.epoch > *made);
        if let Some(size) = open.map(|cut| cut.size).min() {
            *made = held.truncate_epoch;
            let stripe = u64::from(self.0.layout.stripe_size);
            objects.entry(key).or_default().retain(|object, data| {
                data.truncate(size.saturating_sub(object * stripe) as usize);
                !data.is_empty()
            });
        }
        Ok(held.inode)
    }

    fn epoch(&self, inode: u64) -> u64 {
        let told = *self.0.told_epoch.lock().unwrap();
        let known = || self.0.change(inode, |_| ()).map_or(0, |attr| attr.truncate_epoch);
        told.unwrap_or_else(known)
    }

    /// The end of the last byte that this OSD holds of a file.
    fn size(&self, inode: u64) -> u64 {
        let objects = self.0.objects.lock().unwrap();
        let held = objects.get(&(self.1.clone(), inode));
        let stripe = u64::from(self.0.layout.stripe_size);
        let ends = held.into_iter().flatten().map(|(o, data)| o * stripe + data.len() as u64);
        ends.max().unwrap_or(0)
    }

    /// The bytes of this OSD's objects from `object` on, one after the other.
    fn read(&self, r: &osd::ReadRequest) -> Result<Bytes, RpcError> {
        let inode = self.settled(&r.capability)?;
        let objects = self.0.objects.lock().unwrap();
        let held = objects.get(&(self.1.clone(), inode));
        let (stripe, width) = (u64::from(self.0.layout.stripe_size), self.0.layout.width());
        let mut data = Vec::new();
        for at in u64::from(r.offset)..u64::from(r.offset) + u64::from(r.length) {
            let object = r.object + (at / stripe) * width;
            let byte = held.and_then(|o| o.get(&object)?.get((at % stripe) as usize));
            data.push(byte.copied());
        }
        let end = data.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        Ok(data.into_iter().take(end).map(Option::unwrap_or_default).collect())
    }

    fn write(&self, r: &osd::WriteRequest, data: &[u8]) -> Result<(), RpcError> {
        let inode = self.settled(&r.capability)?;
        if self.0.full.load(Ordering::Relaxed) {
            return Err(Errno::ENOSPC.into());
        }
        let mut objects = self.0.objects.lock().unwrap();
        let held = objects.entry((self.1.clone(), inode)).or_default();
        let (stripe, width) = (u64::from(self.0.layout.stripe_size), self.0.layout.width());
        for (at, byte) in (u64::from(r.offset)..).zip(data) {
            let object = held.entry(r.object + (at / stripe) * width).or_default();
            let at = (at % stripe) as usize;
            object.resize(object.len().max(at + 1), 0);
            object[at] = *byte;
        }
        Ok(())
    }
}

impl Handler for Osd {
    async fn handle(&self, r: Incoming) -> Result<Outgoing, RpcError> {
        let peer = Peer::Osd(self.1.as_str().into());
        self.0.or_cut(peer, self.answer(r)).await
    }
}

impl Osd {
    async fn answer(&self, r: Incoming) -> Result<Outgoing, RpcError> {
        if r.is::<osd::Connect>() {
            return Ok(Outgoing::reply::<osd::Connect>(&Default::default()));
        }
        if r.is::<osd::Read>() {
            self.0.reads.fetch_add(1, Ordering::Relaxed);
            let data = self.read(&r.request::<osd::Read>()?)?;
            return Ok(Outgoing::with_data::<osd::Read>(&osd::ReadReply {}, data));
        }
        if r.is::<osd::Write>() {
            self.0.writes.fetch_add(1, Ordering::Relaxed);
            let request = r.request::<osd::Write>()?;
            pass(&self.0.hold.writes).await;
            self.write(&request, &r.data)?;
            let inode = self.held(&request.capability)?.inode;
            let (truncate_epoch, verifier) = (self.epoch(inode), self.0.verifier(&self.1));
            let reply = osd::WriteReply { truncate_epoch, verifier };
            return Ok(Outgoing::reply::<osd::Write>(&reply));
        }
        if r.is::<osd::Truncate>() {
            if self.0.broken.load(Ordering::Relaxed) && self.1 == "osd1" {
                return Err(Errno::EIO.into());
            }
            self.settled(&r.request::<osd::Truncate>()?.capability)?;
            return Ok(Outgoing::reply::<osd::Truncate>(&Default::default()));
        }
        if r.is::<osd::Fsync>() {
            self.held(&r.request::<osd::Fsync>()?.capability)?;
            self.0.syncs.lock().unwrap().push(self.1.clone());
            pass(&self.0.hold.syncs).await;
            if self.0.broken.load(Ordering::Relaxed) {
                return Err(Errno::EIO.into());
            }
            let verifier = self.0.verifier(&self.1);
            return Ok(Outgoing::reply::<osd::Fsync>(&osd::FsyncReply { verifier }));
        }
        if r.is::<osd::Size>() {
            let size = self.size(self.settled(&r.request::<osd::Size>()?.capability)?);
            return Ok(Outgoing::reply::<osd::Size>(&osd::SizeReply { size }));
        }
        if r.is::<osd::Unlink>() {
            let inode = self.held(&r.request::<osd::Unlink>()?.capability)?.inode;
            self.0.objects.lock().unwrap().remove(&(self.1.clone(), inode));
            return Ok(Outgoing::reply::<osd::Unlink>(&Default::default()));
        }
        Err(r.unknown(osd::Read::INTERFACE))
    }
}
