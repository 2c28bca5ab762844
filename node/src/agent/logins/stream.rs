//! Streams of people to this machine's sshd, through the core: `xos ssh`. Each account has an
//! address of its own there, so that what sshd holds against one keeps nobody else out.

use super::rules::refusal;
use crate::agent::Agent;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use xos_api::cda::Work;
use xos_api::node::{SshOpened, SshOpening};
use xos_api::vom::AccountState;
use xos_base::accounts::ID_RANGE;
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
/// The last octets of an account's address: neither 0 nor 255.
const LASTS: u32 = 254;
/// How many addresses are given to accounts: all of 127.1.0.0 to 127.255.255.255 that end so.
const SOURCES: u32 = 255 * 256 * LASTS;

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

/// The address of loopback from which an account's streams come to sshd. Those of the first 250
/// VOs of a site have one each; 127.0.x.x is left to others.
fn source(uid: u32) -> Ipv4Addr {
    let n = uid.wrapping_sub(*ID_RANGE.start()) % SOURCES;
    Ipv4Addr::from(0x7f01_0000 + ((n / LASTS) << 8) + 1 + n % LASTS)
}

/// Connects to sshd for an account.
async fn connect(sshd: SocketAddr, uid: u32) -> io::Result<TcpStream> {
    let stream = match sshd {
        SocketAddr::V4(at) if at.ip().is_loopback() => {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from((source(uid), 0)))?;
            socket.connect(sshd).await?
        }
        // Only IPv4 has more than one address there.
        _ => TcpStream::connect(sshd).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What somebody is let do who opened a stream.
struct Way {
    account: Account,
    /// The connection to sshd, counted as long as it lives; `None`: they asked for the name only.
    sshd: Option<(TcpStream, Counted)>,
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
        let Way { account, sshd } = match opened {
            Ok(way) => way,
            Err(error) => {
                tracing::info!(who, %error, "a stream to sshd was refused");
                self.note_stream("open_stream", &caller, Err(error));
                return;
            }
        };
        let Some((mut sshd, _counted)) = sshd else { return };
        self.note_stream("open_stream", &caller, Ok(()));
        tokio::select! {
            spliced = tokio::io::copy_bidirectional(&mut stream, &mut sshd) => {
                if let Err(error) = spliced {
                    tracing::debug!(who, %error, "a stream to sshd ended");
                }
            }
            () = self.until_refused(account.uid) => {
                self.note_stream("cut_stream", &caller, Ok(()));
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
        if opening.name_only {
            return Ok(Way { account, sshd: None });
        }
        let counted = logins.streams.enter(account.uid)?;
        if let Some(mandate) = opening.mandate {
            let work = Work::Login { node: self.node.clone() };
            self.take_mandate(&logins.mandates, &work, &account, mandate).await?;
        }
        let sshd = connect(logins.sshd, account.uid).await.map_err(|e| {
            Error::unavailable(format!("the node's sshd at {} does not answer: {e}", logins.sshd))
                .hint("tell the site's administrator")
        })?;
        Ok(Way { account, sshd: Some((sshd, counted)) })
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
        let lease = self.lease(logins, &found);
        let account = found.account(&self.homes(), &local);
        Ok((account, logins.rules.judge(found, state, lease, now)))
    }

    /// Returns when the member of a local uid may not act here any more.
    async fn until_refused(&self, uid: u32) {
        let mut changed = self.accounts_changed.subscribe();
        loop {
            let may = {
                let vos = self.lock_vos();
                vos.state_of(uid, self.now()) == Some(AccountState::Active) && !vos.refused(uid)
            };
            if !may || changed.changed().await.is_err() {
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

    /// If it failed, one person who fails at sshd again and again would keep others out, or the
    /// machine itself.
    #[test]
    fn each_account_has_an_address_of_its_own() {
        let first = *ID_RANGE.start();
        let mut seen = std::collections::BTreeSet::new();
        for vo in 0..250 {
            for number in (1..65_536).step_by(97) {
                let at = source(first + vo * 65_536 + number);
                assert!(seen.insert(at), "{vo} {number}: {at}");
            }
        }
        let odd = [0, 1, 1000, first - 1, first, first + SOURCES - 1, first + SOURCES, u32::MAX];
        for at in odd.map(source).into_iter().chain(seen) {
            let [net, second, _, last] = at.octets();
            assert!(net == 127 && second != 0 && last != 0 && last != 255, "{at}");
        }
        assert_eq!(source(first), Ipv4Addr::new(127, 1, 0, 1));
        assert_eq!(source(first + SOURCES - 1), Ipv4Addr::new(127, 255, 255, 254));
    }

    /// If it failed, sshd would not see that address, or nobody could be brought to one that
    /// listens elsewhere.
    #[tokio::test]
    async fn streams_come_from_their_accounts_address() {
        let uid = ID_RANGE.start() + 70_001;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        for _ in 0..2 {
            let (ours, theirs) = tokio::join!(connect(at, uid), listener.accept());
            let (_sshd, from) = theirs.unwrap();
            assert_eq!(from.ip(), source(uid));
            assert_eq!(ours.unwrap().peer_addr().unwrap(), at);
        }
        match tokio::net::TcpListener::bind("[::1]:0").await {
            Ok(listener) => {
                let at = listener.local_addr().unwrap();
                let (ours, theirs) = tokio::join!(connect(at, uid), listener.accept());
                assert_eq!((ours.unwrap().peer_addr().unwrap(), theirs.is_ok()), (at, true));
            }
            Err(e) => println!("skipped: no IPv6 here: {e}"),
        }
    }
}
