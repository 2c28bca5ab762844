//! How a request of the kernel becomes a task: admission, deadline, and an answer in every case.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fuser::{
    Errno, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyOpen, ReplyStatfs, ReplyWrite,
};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};
use xtreemfs_client::{Error, Member};

use crate::convert;

/// Memory for the data of requests under way, in KiB. When several people have used it up, the
/// mount takes no further data from the kernel until a request ends.
const BUDGET_KIB: usize = 512 << 10;

/// What one person may have of it: the others are served while her requests hang.
const SHARE_KIB: usize = BUDGET_KIB / 4;

/// Requests that one person may have under way; they cost a few KiB each.
pub(crate) const REQUESTS_MAX: usize = 4096;

/// Shares that are remembered though they are not in use.
const SHARES_MAX: usize = 1024;

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
refuse!(ReplyIoctl, ReplyStatfs, ReplyWrite);

/// What a request needs besides its own few KiB.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Needs {
    Nothing,
    /// Nothing, and it is never refused: the kernel does not ask twice.
    Release,
    /// It brought so many bytes.
    Brought(u32),
    /// Its answer will hold so many bytes. It waits for them, and nothing is left to do once
    /// nobody waits for the answer.
    Answer(u32),
}

/// What one person may have under way.
#[derive(Debug, Clone)]
struct Share {
    requests: Arc<Semaphore>,
    kib: Arc<Semaphore>,
}

impl Share {
    fn new() -> Share {
        let (requests, kib) = (Semaphore::new(REQUESTS_MAX), Semaphore::new(SHARE_KIB));
        Share { requests: Arc::new(requests), kib: Arc::new(kib) }
    }

    fn in_use(&self) -> bool {
        self.requests.available_permits() < REQUESTS_MAX || self.kib.available_permits() < SHARE_KIB
    }
}

/// What a request holds until its work has ended.
#[derive(Debug, Default)]
struct Held {
    _request: Option<OwnedSemaphorePermit>,
    _data: Option<[OwnedSemaphorePermit; 2]>,
}

/// Runs requests on the runtime.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    runtime: Handle,
    budget: Arc<Semaphore>,
    shares: Arc<Mutex<HashMap<Member, Share>>>,
}

impl Server {
    pub(crate) fn new(runtime: Handle) -> Server {
        let budget = Arc::new(Semaphore::new(BUDGET_KIB));
        Server { runtime, budget, shares: Arc::default() }
    }

    /// Runs `work` for a person and answers with `done` or with its error. Work whose answer is
    /// overdue goes on after the process was told `EIO`: given up half-way it would leave behind
    /// what nobody knows of. What it brings then is dropped.
    ///
    /// A panic in the task drops the reply, and a dropped reply answers `EIO` by itself.
    pub(crate) fn run<R, T, W, D>(
        &self,
        what: &'static str,
        (who, needs): (Member, Needs),
        reply: R,
        work: W,
        done: D,
    ) where
        R: Refuse,
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
        D: FnOnce(R, T) + Send + 'static,
    {
        let share = self.share(who);
        let Some(held) = self.admit(&share, needs) else {
            warn!(what, %who, "refused: this person has too much under way");
            return reply.refuse(Errno::ENOMEM);
        };
        let budget = Arc::clone(&self.budget);
        self.runtime.spawn(async move {
            let _held = held;
            let mut work = pin!(async move {
                let _data = match needs {
                    Needs::Answer(bytes) => Some(wait(&share, &budget, bytes).await?),
                    _ => None,
                };
                work.await
            });
            match tokio::time::timeout(REQUEST_DEADLINE, &mut work).await {
                Ok(Ok(value)) => done(reply, value),
                Ok(Err(error)) => {
                    tell(what, &error);
                    reply.refuse(convert::errno(&error));
                }
                Err(_) => {
                    warn!(what, %who, "no result in time; the process gets EIO");
                    reply.refuse(Errno::EIO);
                    if !matches!(needs, Needs::Answer(_))
                        && let Err(error) = work.await
                    {
                        warn!(what, %who, %error, "failed after the process was told EIO");
                    }
                }
            }
        });
    }

    fn share(&self, who: Member) -> Share {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() >= SHARES_MAX && !shares.contains_key(&who) {
            shares.retain(|_, share| share.in_use());
        }
        shares.entry(who).or_insert_with(Share::new).clone()
    }

    /// What the request holds from now on. Waits only when several people together hold all that
    /// there is, and never for the person's own share.
    fn admit(&self, share: &Share, needs: Needs) -> Option<Held> {
        let request = Arc::clone(&share.requests).try_acquire_owned().ok();
        let data = match needs {
            Needs::Release => return Some(Held { _request: request, _data: None }),
            Needs::Nothing | Needs::Answer(_) => None,
            Needs::Brought(bytes) => {
                let kib = kib(bytes);
                let own = Arc::clone(&share.kib).try_acquire_many_owned(kib).ok()?;
                let budget = Arc::clone(&self.budget);
                let all = match Arc::clone(&budget).try_acquire_many_owned(kib) {
                    Ok(all) => all,
                    Err(_) => self.runtime.block_on(budget.acquire_many_owned(kib)).ok()?,
                };
                Some([own, all])
            }
        };
        Some(Held { _request: Some(request?), _data: data })
    }
}

/// Never more than a share, for which it would wait in vain; the kernel moves 1 MiB at most.
fn kib(bytes: u32) -> u32 {
    bytes.div_ceil(1024).min(SHARE_KIB as u32)
}

/// Waits for room for an answer of so many bytes.
async fn wait(
    share: &Share,
    budget: &Arc<Semaphore>,
    bytes: u32,
) -> Result<[OwnedSemaphorePermit; 2], Error> {
    // Fails only if a semaphore is closed, which it never is.
    let closed = |_| Error::Local { errno: libc::EIO, reason: "the mount is ending".into() };
    let own = Arc::clone(&share.kib).acquire_many_owned(kib(bytes)).await.map_err(closed)?;
    let all = Arc::clone(budget).acquire_many_owned(kib(bytes)).await.map_err(closed)?;
    Ok([own, all])
}

fn tell(what: &'static str, error: &Error) {
    match error {
        Error::Refused { .. } | Error::Local { .. } | Error::NoTicket { .. } => {
            debug!(what, %error, "refused");
        }
        _ => warn!(what, %error, "failed"),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    const ALICE: Member = Member(7);
    const BOB: Member = Member(8);
    const MIB: u32 = 1 << 20;

    /// Tells what the process is told.
    struct Reply(mpsc::UnboundedSender<Option<i32>>);

    impl Refuse for Reply {
        fn refuse(self, errno: Errno) {
            self.0.send(Some(errno.code())).unwrap();
        }
    }

    fn done(reply: Reply, (): ()) {
        reply.0.send(None).unwrap();
    }

    /// If it failed, one person's reads from an object server that hangs would stop the volume for
    /// everybody on the machine.
    #[tokio::test]
    async fn one_person_cannot_stop_the_others() {
        let server = Server::new(Handle::current());
        let (answers, mut told) = mpsc::unbounded_channel();
        let hang = |needs| {
            server.run("read", (ALICE, needs), Reply(answers.clone()), pending(), done);
        };
        for _ in 0..1000 {
            hang(Needs::Answer(MIB));
        }
        for _ in 0..1000 {
            hang(Needs::Brought(MIB));
        }
        for needs in [Needs::Nothing, Needs::Brought(MIB), Needs::Answer(MIB)] {
            let (sender, answered) = oneshot::channel();
            let work = async move {
                sender.send(()).unwrap();
                Ok(())
            };
            server.run("read", (BOB, needs), Reply(answers.clone()), work, done);
            answered.await.unwrap();
        }
        let mut refused = 0;
        let mut served = 0;
        while refused + served < 1000 - SHARE_KIB / 1024 + 3 {
            match told.recv().await.unwrap() {
                None => served += 1,
                Some(errno) => {
                    assert_eq!(errno, libc::ENOMEM);
                    refused += 1;
                }
            }
        }
        assert_eq!(served, 3, "all of Bob's and nothing else");
    }

    /// If it failed, a handle would stay open for ever once its owner has too much under way.
    #[tokio::test]
    async fn a_release_is_never_refused() {
        let server = Server::new(Handle::current());
        let (answers, mut told) = mpsc::unbounded_channel();
        for _ in 0..REQUESTS_MAX {
            let reply = Reply(answers.clone());
            server.run("fsync", (ALICE, Needs::Nothing), reply, pending(), done);
        }
        let reply = Reply(answers.clone());
        server.run("fsync", (ALICE, Needs::Nothing), reply, pending(), done);
        assert_eq!(told.recv().await, Some(Some(libc::ENOMEM)), "there is a limit");
        let reply = Reply(answers);
        server.run("release", (ALICE, Needs::Release), reply, async { Ok(()) }, done);
        assert_eq!(told.recv().await, Some(None));
    }

    /// If it failed, data that a write had accepted, or a size, could be lost half-way.
    #[tokio::test(start_paused = true)]
    async fn overdue_work_is_answered_and_goes_on() {
        let server = Server::new(Handle::current());
        let (answers, mut told) = mpsc::unbounded_channel();
        let (sender, ended) = oneshot::channel();
        let work = async move {
            tokio::time::sleep(2 * REQUEST_DEADLINE).await;
            sender.send(()).unwrap();
            Ok(())
        };
        server.run("write", (ALICE, Needs::Brought(MIB)), Reply(answers), work, done);
        assert_eq!(told.recv().await, Some(Some(libc::EIO)));
        assert!(server.share(ALICE).in_use(), "its data are still in memory");
        ended.await.unwrap();
        assert_eq!(told.recv().await, None, "the kernel is answered once");
        assert!(!server.share(ALICE).in_use());
    }
}
