//! Why a person may use a file, or may not: each directory on the way to it, by the functions that
//! decide operations.

use xtreemfs_proto::mrc::{ExplainReply, ExplainRequest, ExplainStep, WAY_NAMES_MAX};
use xtreemfs_proto::{Errno, RpcError};

use crate::mrc::name::Name;
use crate::mrc::perm::{R, W, X, need};
use crate::mrc::record::InodeRecord;
use crate::mrc::space::Space;

impl Space<'_> {
    /// Goes a way as the person would, up to the first refusal: what lies behind it is not told.
    /// [`ExplainReply::away`] names all OSDs of the file.
    ///
    /// # Errors
    /// `EINVAL`, and those of the directory in which it begins: `EACCES`, `ESTALE`.
    pub fn explain(&self, request: &ExplainRequest) -> Result<ExplainReply, RpcError> {
        let Some(way) = &request.way else {
            return Err(RpcError::errno(Errno::EINVAL, "no way is named"));
        };
        if way.names.len() > WAY_NAMES_MAX || way.want & !(R | W | X) != 0 {
            let text = format!("a way has at most {WAY_NAMES_MAX} names, and wants r, w or x");
            return Err(RpcError::errno(Errno::EINVAL, text));
        }
        let (mut at, mut record) = (request.inode, self.reach(request.inode)?);
        let mut reply = ExplainReply::default();
        for name in &way.names {
            let passed = self.dir(at, X);
            reply.steps.push(step(&record, passed.as_ref().err()));
            if passed.is_err() {
                return Ok(reply);
            }
            match Name::parse(name).and_then(|name| self.existing(at, name)) {
                Ok(next) => (at, record) = next,
                Err(error) => {
                    let (errno, message) = refusal(&error);
                    reply.steps.push(ExplainStep { errno, message, ..ExplainStep::default() });
                    return Ok(reply);
                }
            }
        }
        let used = if record.is_dir() {
            self.dir(at, way.want).map(drop)
        } else {
            self.reach(at).and_then(|file| need(self.who, &file, way.want))
        };
        reply.steps.push(step(&record, used.as_ref().err()));
        if let (Ok(()), Some(layout)) = (used, record.layout) {
            reply.away = layout.osds;
        }
        Ok(reply)
    }
}

fn refusal(error: &RpcError) -> (i32, String) {
    (error.errno.0, error.message.clone())
}

fn step(record: &InodeRecord, refused: Option<&RpcError>) -> ExplainStep {
    let (errno, message) = refused.map(refusal).unwrap_or_default();
    ExplainStep {
        kind: record.kind,
        owner: record.owner,
        group: record.group,
        mode: record.mode,
        closed: record.closed,
        errno,
        message,
    }
}
