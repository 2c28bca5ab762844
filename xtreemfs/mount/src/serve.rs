//! How a request of the kernel becomes a task: admission, deadline, and an answer in every case.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    Errno, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite,
};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};
use xtreemfs_client::Error;

use crate::convert;

/// Memory for requests under way, in KiB. When it is used up the mount takes no further request
/// from the kernel until one is answered; deadlines see to it that this happens.
const BUDGET_KIB: usize = 128 << 10;

/// What any request costs, in KiB; its data comes on top.
const REQUEST_KIB: usize = 4;

/// No request waits longer for its answer: the kernel cannot interrupt the process meanwhile.
const REQUEST_DEADLINE: Duration = Duration::from_secs(120);

/// A kind of answer that can also be an error.
pub(crate) trait Refuse: Send + 'static {
    fn refuse(self, errno: Errno);
}

macro_rules! refuse {
    ($($reply:ty),*) => { $(
        impl Refuse for $reply {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        }
    )* };
}

refuse!(ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen);
refuse!(ReplyStatfs, ReplyWrite);

/// Runs requests on the runtime.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    runtime: Handle,
    budget: Arc<Semaphore>,
}

impl Server {
    pub(crate) fn new(runtime: Handle) -> Server {
        Server { runtime, budget: Arc::new(Semaphore::new(BUDGET_KIB)) }
    }

    /// Runs `work`, which moves `bytes` of data, and answers with `done` or with its error.
    ///
    /// A panic in the task drops the reply, and a dropped reply answers `EIO` by itself.
    pub(crate) fn run<R, T, W, D>(&self, what: &'static str, bytes: u32, reply: R, work: W, done: D)
    where
        R: Refuse,
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
        D: FnOnce(R, T) + Send + 'static,
    {
        let Some(permit) = self.admit(bytes) else { return reply.refuse(Errno::EIO) };
        self.runtime.spawn(async move {
            match tokio::time::timeout(REQUEST_DEADLINE, work).await {
                Ok(Ok(value)) => done(reply, value),
                Ok(Err(error)) => {
                    tell(what, &error);
                    reply.refuse(convert::errno(&error));
                }
                Err(_) => {
                    warn!(what, "no result in time; the process gets EIO");
                    reply.refuse(Errno::EIO);
                }
            }
            drop(permit);
        });
    }

    fn admit(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        let kib = (REQUEST_KIB + bytes as usize / 1024).min(BUDGET_KIB);
        let kib = u32::try_from(kib).ok()?;
        match Arc::clone(&self.budget).try_acquire_many_owned(kib) {
            Ok(permit) => Some(permit),
            Err(_) => self.runtime.block_on(Arc::clone(&self.budget).acquire_many_owned(kib)).ok(),
        }
    }
}

fn tell(what: &'static str, error: &Error) {
    match error {
        Error::Refused { .. } | Error::Local { .. } | Error::NoTicket { .. } => {
            debug!(what, %error, "refused");
        }
        _ => warn!(what, %error, "failed"),
    }
}
