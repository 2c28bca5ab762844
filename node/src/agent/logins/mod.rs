//! People who sign in to this machine: what PAM and sshd ask at the local socket, their sessions,
//! and their streams to the machine's sshd. With `[node.login]` only, but for what holds the
//! processes of members who are suspended ([`Holding`]): what they run in a cluster stands still
//! too.

mod attempts;
mod auth;
mod carried;
mod device;
mod files;
pub mod fuzzing;
mod groups;
mod hold;
mod open;
mod origin;
mod processes;
mod proof;
mod rules;
mod seen;
mod sessions;
mod slices;
mod strays;
mod stream;
mod tries;
mod watch;
mod why;

pub(super) use hold::Holding;
pub(super) use stream::handler;

use super::config::{Config, Login};
use super::mandates::Mandates;
use super::vos::Found;
use super::{Agent, machine, told};
use crate::cgroup::Cgroups;
use crate::hosts::{self, Hosts};
use crate::spec::{Limits, PIDS_MIN};
use attempts::Attempts;
use carried::Carried;
use rules::Rules;
use seen::Seen;
use sessions::Sessions;
use slices::Slices;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stream::Streams;
use xos_api::cda::CertifyHost;
use xos_api::vom::AccountState;
use xos_base::local::{Account, FindUser, FoundUser, LoginState, MayLogin, Principals, UserKey};
use xos_base::{Error, Millis};
use xos_net::control::Control;

/// What the agent keeps for logins.
pub(super) struct Logins {
    config: Login,
    rules: Rules,
    /// Where this machine's sshd listens.
    sshd: SocketAddr,
    hosts: Hosts,
    /// The files for sshd.
    folder: PathBuf,
    seen: Seen,
    sessions: Sessions,
    holding: Arc<Holding>,
    slices: Slices,
    carried: Carried,
    pub(super) mandates: Arc<Mandates>,
    streams: Streams,
    attempts: Attempts,
}

/// Reads the rules, and what an earlier daemon left below `folder`: what holds members' processes,
/// where they sign in or the node may be in a cluster, and what is kept of who signs in.
/// `processes`: as many as one job may have.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] naming the key that is wrong; [`xos_base::Kind::Internal`] when the
/// state cannot be read.
pub(super) fn prepare(
    config: &Config,
    folder: &Path,
    cgroups: Cgroups,
    processes: u32,
) -> Result<(Option<Arc<Holding>>, Option<Arc<Logins>>), Error> {
    if config.login.is_none() && config.cluster.is_none() {
        return Ok((None, None));
    }
    let login = config.login.as_ref();
    let limits = Limits {
        cpu_millis: login.and_then(|l| l.cpu_milli).map(Into::into),
        memory_bytes: login.and_then(|l| l.memory_bytes),
        pids: login.and_then(|l| l.processes).unwrap_or(processes).max(PIDS_MIN),
    };
    let holding = Arc::new(Holding::open(folder, cgroups, limits)?);
    let open = |login| Logins::open(login, folder, holding.clone(), limits).map(Arc::new);
    let logins = config.login.clone().map(open).transpose()?;
    Ok((Some(holding), logins))
}

impl Logins {
    fn open(
        config: Login,
        folder: &Path,
        holding: Arc<Holding>,
        limits: Limits,
    ) -> Result<Logins, Error> {
        let rules = Rules::read(&config)?;
        let sshd = config.sshd.parse::<SocketAddr>().map_err(|_| {
            Error::invalid(format!("[node.login] sshd: {:?} is no address with port", config.sshd))
                .hint("write it as 127.0.0.1:22")
        })?;
        if !config.shell.is_absolute() {
            return Err(Error::invalid("[node.login] shell must be an absolute path"));
        }
        let own = folder.join("logins");
        let ssh = folder.join("ssh");
        let keys = hosts::Config {
            host_keys: config.host_keys.clone(),
            reload_sshd: config.reload_sshd.clone(),
        };
        let hosts = Hosts::open("node.login", &keys, ssh.clone())?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|e| Error::internal(format!("cannot read the boot id: {e}")))?;
        Ok(Logins {
            rules,
            sshd,
            hosts,
            folder: ssh,
            seen: Seen::open(&folder.join("seen"))?,
            sessions: Sessions::open(&own.join("sessions"), boot.trim())?,
            holding,
            slices: Slices::open(limits, Path::new("/")),
            carried: Carried::open(own.join("carried.json"), boot.trim()),
            mandates: Arc::default(),
            streams: Streams::default(),
            attempts: Attempts::default(),
            config,
        })
    }
}

/// Somebody who wants in.
pub(super) struct Who {
    /// Their account.
    account: Account,
    /// Whether they may.
    state: LoginState,
    /// Until when that counts at most.
    lease: Millis,
}

impl Agent {
    /// What is kept for logins.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unsupported`] where nobody signs in.
    pub(super) fn logins(&self) -> Result<&Arc<Logins>, Error> {
        self.logins.as_ref().ok_or_else(|| {
            Error::unsupported("members do not sign in to this machine")
                .hint("its administrator allows it by a section [node.login]")
        })
    }

    /// Keeps the certificates of the host keys as they should be, over `control`, until this
    /// future is dropped.
    pub(super) async fn keep_host_certificates(self: Arc<Agent>, control: Arc<Control>) {
        let Some(logins) = &self.logins else { return };
        let ask = |r: CertifyHost| {
            let core = control.clone();
            async move { core.call(r).await }
        };
        logins.hosts.keep(&*self.clock, ask).await;
    }

    /// The shell of grid accounts.
    pub(super) fn shell(&self) -> String {
        self.config.login.as_ref().map_or_else(
            || super::vos::NO_SHELL.to_owned(),
            |login| login.shell.display().to_string(),
        )
    }

    fn homes(&self) -> String {
        self.config.homes.display().to_string()
    }

    /// Until when the core's word counts for an account: for the lease from when it was last heard.
    /// As long as this daemon heard nothing, for those only who were let in before.
    fn lease(&self, logins: &Logins, found: &Found<'_>) -> Millis {
        let until = self.last_heard().hold.plus(found.vo.lease());
        if self.has_heard() {
            return until;
        }
        logins.seen.until(found.uid()).unwrap_or_default().min(until)
    }

    /// The account `user`, and whether it may be signed in to now; `None`: no grid account.
    fn who(&self, user: &str) -> Result<Option<Who>, Error> {
        let logins = self.logins()?;
        let (local, now) = (machine::local_users()?, self.now());
        let vos = self.lock_vos();
        Ok(vos.by_name(user, &local).map(|found| {
            let state = vos.state_of(found.uid(), now).unwrap_or(AccountState::Ended);
            let lease = self.lease(logins, &found);
            let lapses = found.vo.lapses(found.member).filter(|at| *at > now);
            let lease = lapses.map_or(lease, |at| at.min(lease));
            let account = found.account(&self.homes(), &local);
            Who { state: logins.rules.judge(found, state, lease, now), account, lease }
        }))
    }

    /// PAM's account phase.
    pub(super) fn may_login(&self, r: &MayLogin) -> Result<LoginState, Error> {
        let Some(who) = self.who(&r.user)? else { return Ok(LoginState::NotOurs {}) };
        let allowed = who.state == LoginState::Allowed {};
        let why = rules::refusal(who.state.clone());
        let login = told::Login::of(&who.account, &r.service, r.rhost.as_deref());
        self.note_login("allow_login", login, why.map_or(Ok(()), Err));
        let noted = if allowed {
            self.note_seen(&who, None)
        } else {
            let logins = self.logins()?;
            logins.seen.retain(|uid| uid != who.account.uid)
        };
        self.show_seen(noted);
        Ok(who.state)
    }

    /// Somebody was let in, by a credential that ends at `until` where that is known.
    fn note_seen(&self, who: &Who, until: Option<Millis>) -> Result<bool, Error> {
        let ends = [who.account.expires, until].into_iter().flatten();
        let until = ends.fold(who.lease, Millis::min);
        self.logins()?.seen.put(who.account.uid, until)
    }

    /// Writes for sshd who was let in before, when that changed. A full disk keeps nobody out.
    fn show_seen(&self, noted: Result<bool, Error>) {
        let shown = noted.and_then(|changed| if changed { self.show_principals() } else { Ok(()) });
        if let Err(error) = shown {
            tracing::error!(%error, "who may sign in without xosd is not as it should be");
        }
    }

    /// The principals under which a certificate of `r.authority` is good for an account.
    pub(super) fn principals(&self, r: &Principals) -> Result<Vec<String>, Error> {
        let Some(who) = self.who(&r.user)? else { return Ok(Vec::new()) };
        if !rules::has_principal(&who.state, who.account.uid, r.uid) {
            return Ok(Vec::new());
        }
        let ours = self.authorities(&who.account.vo.site());
        Ok(if ours.contains(&r.authority) {
            vec![xos_api::cda::ssh_principal(&who.account.person, &who.account.vo)]
        } else {
            Vec::new()
        })
    }

    /// The keys, base64, by which a site signs certificates of people; none of one that is not
    /// trusted here.
    fn authorities(&self, site: &xos_base::SiteId) -> Vec<String> {
        let keys = self.trust.ssh_keys(site);
        keys.map_or_else(|_| Vec::new(), |k| k.people.iter().map(proof::key_text).collect())
    }

    /// One account, for libc.
    pub(super) fn find_user(&self, r: &FindUser) -> Result<Option<FoundUser>, Error> {
        let local = machine::local_users()?;
        let (homes, shell) = (self.homes(), self.shell());
        let vos = self.lock_vos();
        let found = match &r.by {
            UserKey::Name(name) => vos.by_name(name, &local),
            UserKey::Uid(uid) => vos.by_uid(*uid),
        };
        let stands = |f: &Found<'_>| {
            f.vo.state != AccountState::Ended && f.member.state != AccountState::Ended
        };
        Ok(found.filter(stands).map(|f| f.user((homes.as_str(), shell.as_str()), &local)))
    }
}
