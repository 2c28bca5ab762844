//! Asking a mounted volume about a folder, and saying what is to become of it; asking why a file
//! may be used, or may not.
//!
//! By an ioctl on the open folder: so the kernel says who asks, and no other way to the volume's
//! services is needed than the mount that is there. Extended attributes would have every `ls` and
//! every write ask for some that are not there.

use std::fs::File;
use std::io;
use std::path::Path;

use fuser::INodeNo;
use xtreemfs_client::{Error, Member};
use xtreemfs_proto::control::{BUFFER_BYTES, COMMAND, ControlReply, ControlRequest, pack, unpack};
use xtreemfs_proto::mrc::{ExplainReply, FOLDER_NAMED_MAX, FolderReply};

use crate::convert::to_volume;
use crate::core::Core;
use crate::ioctl::ioctl;

/// Longest text of a refusal that is passed on, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// Asks the mount that `path` lies in, as the person who calls.
///
/// # Errors
/// The kernel's: it is not there, may not be opened, or lies on no such volume (`ENOTTY`,
/// `EOPNOTSUPP`).
pub fn ask(path: &Path, request: &ControlRequest) -> io::Result<ControlReply> {
    let file = File::open(path)?;
    let too_long = || io::Error::from(io::ErrorKind::InvalidInput);
    let packed = pack(request).ok_or_else(too_long)?;
    let mut buffer: Box<[u8; BUFFER_BYTES]> = Box::new([0; BUFFER_BYTES]);
    buffer.copy_from_slice(&packed);
    ioctl(&file, COMMAND, &mut buffer)?;
    let unreadable =
        || io::Error::other("the mount's answer cannot be read: is it of this release?");
    unpack(&buffer[..]).ok_or_else(unreadable)
}

impl Core {
    /// Answers with what the metadata server says, its refusals included.
    pub(crate) async fn control(
        &self,
        who: Member,
        ino: INodeNo,
        request: ControlRequest,
    ) -> Result<Vec<u8>, Error> {
        let ino = to_volume(ino);
        let ControlRequest { closed, pin, explain } = request;
        let of = |folder| ControlReply { folder: Some(self.local(folder)), ..Default::default() };
        let done = match explain {
            Some(way) => self.volume.explain(who, ino, way).await.map(|told| ControlReply {
                explained: Some(self.explained(told)),
                ..ControlReply::default()
            }),
            None if closed.is_none() && pin.is_none() => self.volume.folder(who, ino).await.map(of),
            None => self.volume.set_folder(who, ino, closed, pin).await.map(of),
        };
        let reply = done.unwrap_or_else(|error| {
            let text = match &error {
                Error::Refused { message, .. } => message.clone(),
                other => other.to_string(),
            };
            let message = text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned();
            ControlReply { errno: error.errno(), message, ..ControlReply::default() }
        });
        let too_long =
            || Error::Local { errno: libc::EIO, reason: "the answer is too long".into() };
        fit(reply).ok_or_else(too_long)
    }

    /// With members as they are known on this machine.
    fn local(&self, mut folder: FolderReply) -> FolderReply {
        folder.owner = self.map.uid(folder.owner);
        folder.others.iter_mut().for_each(|other| *other = self.map.uid(*other));
        folder
    }

    /// The same of what explains, with as many nodes as an answer names.
    fn explained(&self, mut told: ExplainReply) -> ExplainReply {
        for step in &mut told.steps {
            (step.owner, step.group) = (self.map.uid(step.owner), self.map.gid(step.group));
            step.message.truncate(step.message.floor_char_boundary(TEXT_BYTES_MAX));
        }
        told.away.truncate(FOLDER_NAMED_MAX);
        told
    }
}

/// The answer, with as many names as there is room for.
fn fit(mut reply: ControlReply) -> Option<Vec<u8>> {
    loop {
        if let Some(packed) = pack(&reply) {
            return Some(packed);
        }
        let folder = reply.folder.as_mut()?;
        let longest = folder.elsewhere_names.len().max(folder.osds.len());
        let longest = longest.max(folder.unconfirmed.len());
        if longest == 0 {
            return None;
        }
        folder.complete = false;
        folder.elsewhere_names.truncate(longest - 1);
        folder.osds.truncate(longest - 1);
        folder.unconfirmed.truncate(longest - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, nobody would hear of a folder that has much to tell.
    #[test]
    fn an_answer_that_is_too_long_is_cut_and_says_so() {
        let names = (0..64).map(|n| format!("{n:0>255}").into()).collect();
        let folder = FolderReply { elsewhere_names: names, complete: true, ..Default::default() };
        let reply = ControlReply { folder: Some(folder), ..ControlReply::default() };
        let told: ControlReply = unpack(&fit(reply).unwrap()).unwrap();
        let folder = told.folder.unwrap();
        assert!(!folder.complete && folder.elsewhere_names.len() > 20);
    }
}
