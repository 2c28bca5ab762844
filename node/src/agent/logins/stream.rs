//! Streams of people to this machine's sshd, through the core: `xos ssh`.

use super::rules::refusal;
use crate::agent::Agent;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::net::TcpStream;
use xos_api::node::{SshOpened, SshOpening};
use xos_api::vom::AccountState;
use xos_base::local::{Account, LoginState};
use xos_base::{Error, Kind};
use xos_net::dial::StreamHandler;
use xos_net::nodes::Io;
use xos_net::{Caller, frames};

/// Longest first frame, in bytes: a mandate with a large membership fits.
const OPENING_MAX: usize = 128 * 1024;
/// How long all that comes before sshd's first byte may take.
const OPENING_TIMEOUT: Duration = Duration::from_secs(45);
/// Most streams at a time, and of these one person's.
const STREAMS_MAX: u32 = 1024;
/// See [`STREAMS_MAX`].
const PERSON_MAX: u32 = 32;

/// The open streams, counted by uid.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams(Arc<Mutex<BTreeMap<u32, u32>>>);

impl Streams {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, uid: u32) -> Result<Counted, Error> {
        let mut open = self.lock();
        let limited = |what: String| {
            Err(Error::new(Kind::Limited, what).hint("end some of them, or try again later"))
        };
        if open.values().sum::<u32>() >= STREAMS_MAX {
            return limited(format!("this node has {STREAMS_MAX} streams to its sshd"));
        }
        let own = open.entry(uid).or_default();
        if *own >= PERSON_MAX {
            return limited(format!("you have {PERSON_MAX} streams to this node"));
        }
        *own += 1;
        drop(open);
        Ok(Counted { streams: self.clone(), uid })
    }

    /// Whether a person has one.
    pub(super) fn has(&self, uid: u32) -> bool {
        self.lock().contains_key(&uid)
    }
}

/// Counts one stream as long as it lives.
#[derive(Debug)]
struct Counted {
    streams: Streams,
    uid: u32,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        if let Some(n) = open.get_mut(&self.uid) {
            *n -= 1;
            if *n == 0 {
                open.remove(&self.uid);
            }
        }
    }
}

/// Serves the streams once the agent is there.
pub(in crate::agent) fn handler(agent: Arc<OnceLock<Weak<Agent>>>) -> StreamHandler {
    Arc::new(move |caller: Caller, stream: Box<dyn Io>| {
        let agent = agent.get().and_then(Weak::upgrade);
        let served = async move {
            match agent {
                Some(agent) => agent.serve_ssh(caller, stream).await,
                None => tracing::info!("a stream came before this node was ready"),
            }
        };
        Box::pin(served) as Pin<Box<dyn Future<Output = ()> + Send>>
    })
}

/// A stream on its way to sshd.
struct Way {
    account: Account,
    sshd: TcpStream,
    _counted: Counted,
}

impl Agent {
    async fn serve_ssh(self: Arc<Agent>, caller: Caller, mut stream: Box<dyn Io>) {
        let opening = tokio::time::timeout(OPENING_TIMEOUT, self.open_ssh(&caller, &mut stream));
        let opened = opening.await.unwrap_or_else(|_| Err(Error::unavailable("it took too long")));
        let said = match &opened {
            Ok(way) => SshOpened::Ok { account: way.account.name.clone() },
            Err(e) => SshOpened::Error(e.clone()),
        };
        let who = caller.describe();
        if let Err(error) = frames::write(&mut stream, &said).await {
            tracing::info!(who, %error, "a stream to sshd broke");
            return;
        }
        let mut way = match opened {
            Ok(way) => way,
            Err(error) => {
                tracing::info!(target: "audit", what = "stream refused", who, %error, "login");
                return;
            }
        };
        tracing::info!(target: "audit", what = "stream opened", who, "login");
        let uid = way.account.uid;
        tokio::select! {
            spliced = tokio::io::copy_bidirectional(&mut stream, &mut way.sshd) => {
                if let Err(error) = spliced {
                    tracing::debug!(who, %error, "a stream to sshd ended");
                }
            }
            () = self.until_refused(uid) => {
                tracing::info!(target: "audit", what = "stream cut", who, "login");
            }
        }
    }

    async fn open_ssh(&self, caller: &Caller, stream: &mut Box<dyn Io>) -> Result<Way, Error> {
        let logins = self.logins()?;
        let member = caller.member()?;
        let opening = frames::read::<SshOpening>(stream, OPENING_MAX).await?;
        let opening = opening.ok_or_else(|| Error::unavailable("the stream ended"))?;
        let (account, state) = self.account_at(member)?;
        if let Some(e) = refusal(state) {
            return Err(e);
        }
        let counted = logins.streams.enter(account.uid)?;
        if let Some(mandate) = opening.mandate {
            self.take_mandate(&account, mandate).await?;
        }
        let sshd = TcpStream::connect(logins.sshd).await.and_then(|s| {
            s.set_nodelay(true)?;
            Ok(s)
        });
        let sshd = sshd.map_err(|e| {
            Error::unavailable(format!("the node's sshd at {} does not answer: {e}", logins.sshd))
                .hint("tell the site's administrator")
        })?;
        Ok(Way { account, sshd, _counted: counted })
    }

    /// The account of a member who showed a certificate, and whether they may sign in.
    fn account_at(&self, m: &xos_base::Membership) -> Result<(Account, LoginState), Error> {
        let logins = self.logins()?;
        let (local, now) = (crate::agent::machine::local_users()?, self.now());
        let vos = self.lock_vos();
        let found = vos.by_number(&m.vo, m.number).filter(|f| f.member.person == m.person);
        let found = found.ok_or_else(|| {
            Error::denied(format!("{} in {} has no account on this node", m.person, m.vo))
                .hint("the site must give the VO a share; a new account comes within seconds")
        })?;
        if m.epoch < found.member.epoch {
            return Err(Error::unauthenticated(
                "your certificate is of before your membership was changed",
            )
            .hint("sign in again: `xos login`"));
        }
        let state = vos.state_of(found.uid(), now).unwrap_or(AccountState::Ended);
        let lease = self.lease(logins, &found, now);
        let account = found.account(&self.homes(), &local);
        Ok((account, logins.rules.judge(found, state, lease, now)))
    }

    /// Returns when the member of a local uid may not act here any more.
    async fn until_refused(&self, uid: u32) {
        let mut changed = self.accounts_changed.subscribe();
        loop {
            let state = self.lock_vos().state_of(uid, self.now());
            if state != Some(AccountState::Active) || changed.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, one person could take all streams of a node, or ended ones would count for
    /// ever.
    #[test]
    fn a_person_has_so_many_streams_and_ended_ones_do_not_count() {
        let streams = Streams::default();
        let mut mine: Vec<_> = (0..PERSON_MAX).map(|_| streams.enter(7).unwrap()).collect();
        assert_eq!(streams.enter(7).unwrap_err().kind, Kind::Limited);
        let theirs = streams.enter(8).unwrap();
        mine.pop();
        mine.push(streams.enter(7).unwrap());
        drop((mine, theirs));
        assert!(!streams.has(7) && !streams.has(8));
    }
}
