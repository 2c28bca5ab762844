//! A session begins and ends: PAM's session phase.

use super::proof::{Proved, proved};
use super::rules::refusal;
use super::sessions::Session;
use super::{Who, processes};
use crate::agent::Agent;
use crate::agent::told::Login;
use crate::agent::units::in_background;
use crate::agent::volumes::MOUNTS;
use crate::home;
use crate::spec::Carries;
use std::path::Path;
use std::time::Duration;
use xos_base::local::{CloseLogin, OpenLogin, Opened};
use xos_base::{Error, Membership};

/// From how long before its end a person is told that a membership ends.
const END_TOLD: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl Agent {
    /// Begins a session. Allowed by where the account stands, and at sshd by a certificate or what
    /// PAM asked; roles are those of the certificate. `asks` is the process that asks, by the
    /// kernel's word: the session's own.
    pub(in crate::agent) async fn open_login(
        &self,
        r: OpenLogin,
        asks: Option<u32>,
    ) -> Result<Opened, Error> {
        let opened = self.opened(&r, asks).await;
        if let Ok(Some(who)) = self.who(&r.user) {
            let login = Login::of(&who.account, &r.service, r.rhost.as_deref());
            self.note_login(
                "open_session",
                login,
                opened.as_ref().map(|_| ()).map_err(Clone::clone),
            );
            if let Err(error) = &opened {
                tracing::warn!(user = who.account.name, %error, "no session");
            }
        }
        opened
    }

    async fn opened(&self, r: &OpenLogin, asks: Option<u32>) -> Result<Opened, Error> {
        if asks != Some(r.pid) {
            return Err(Error::denied(format!("a session of process {} is not its own", r.pid))
                .hint("the process that asks becomes the session's leader"));
        }
        let logins = self.logins()?.clone();
        let who = self.may_now(&r.user)?;
        let account = &who.account;
        let shown = match &r.ssh_auth_info {
            Some(info) => {
                let keys = self.trust.ssh_keys(&account.vo.site())?;
                proved(info, account, &keys.people, self.now())?
            }
            None => None,
        };
        let started = processes::started(r.pid)
            .ok_or_else(|| Error::invalid(format!("process {} is not there", r.pid)))?;
        let membership = self.membership_of(&who, shown.as_ref())?;
        self.prepare_home(&membership).await?;
        // Whichever module of PAM comes first, systemd may move the process into the slice.
        logins.slices.limit(account.uid).await?;
        let process = (r.pid, started);
        let session = logins.sessions.begin(account.uid, process, &r.service, self.now());
        let name = session.name();
        {
            let _moving = logins.holding.moving.lock().await;
            logins.sessions.add(session)?;
            // Groups are told from the processes themselves.
            let carries = Carries { groups: Vec::new(), ..Carries::from(&membership) };
            logins.carried.add(account.uid, carries.clone());
            let (holding, uid) = (logins.holding.clone(), account.uid);
            let enter = move || {
                enter_same(process, processes::started, |pid| holding.groups.enter(uid, pid))
            };
            let entered = in_background(enter).await?;
            // A suspension that came meanwhile did not see the process.
            let stays = entered.and_then(|()| self.may_now(&r.user));
            let stays = stays.and_then(|who| self.still_carries(&who, &carries));
            if let Err(e) = stays {
                logins.sessions.close(&name);
                return Err(e);
            }
        }
        self.show_seen(self.note_seen(&who, shown.map(|s| s.until)));
        Ok(self.describe_session(name, &who, &membership))
    }

    /// The account, if it may be signed in to now.
    fn may_now(&self, user: &str) -> Result<Who, Error> {
        let who = self.who(user)?;
        let who = who.ok_or_else(|| Error::not_found("no such grid account on this machine"))?;
        match refusal(who.state.clone()) {
            None => Ok(who),
            Some(e) => Err(e),
        }
    }

    /// Whether a session may carry this of its member's membership now.
    fn still_carries(&self, who: &Who, carries: &Carries) -> Result<(), Error> {
        if self.lock_vos().was_taken(who.account.uid, carries) {
            let text = "a role of yours was withdrawn while the session was opened";
            return Err(Error::denied(text).hint("sign in again: `xos login`"));
        }
        Ok(())
    }

    fn membership_of(&self, who: &Who, shown: Option<&Proved>) -> Result<Membership, Error> {
        if let Some(shown) = shown {
            return Ok(shown.membership.clone());
        }
        let vos = self.lock_vos();
        let found = vos.by_number(&who.account.vo, who.account.number);
        found.map(|f| f.membership()).ok_or_else(|| Error::unavailable("the account has just gone"))
    }

    /// The home, and in it the link to the volume.
    async fn prepare_home(&self, membership: &Membership) -> Result<(), Error> {
        let fault = |e: Error| Error::unavailable(format!("there is no home: {}", e.message));
        let owner = self.account_of(membership)?;
        self.make_home(membership, &owner).await.map_err(fault)?;
        let homes = self.config.homes.clone();
        let volume = Path::new(MOUNTS).join(membership.vo.as_str());
        let linked = in_background(move || home::link_vo(&homes, &owner, &volume)).await?;
        if let Err(error) = linked {
            // They can do without, and find the volume by its path.
            tracing::warn!(person = %membership.person, %error, "no link to the volume");
        }
        Ok(())
    }

    /// What PAM is told of a session that was opened.
    fn describe_session(&self, session: String, who: &Who, m: &Membership) -> Opened {
        let now = self.now();
        let names = |all: &[xos_base::Group]| {
            all.iter().map(|g| g.name.as_str().to_owned()).collect::<Vec<_>>()
        };
        let keyring = serde_json::json!({
            "person": m.person, "vo": m.vo, "number": m.number, "epoch": m.epoch,
            "groups": names(&m.groups), "roles": m.roles, "expires": m.expires,
        });
        let mut notes = Vec::new();
        let ticket = self.tickets.find(&m.vo, m.number, now);
        if ticket.is_none_or(|t| t.membership.epoch < who.account.epoch) {
            notes.push(format!(
                "The volume {MOUNTS}/{} is not yours in this session: sign in by `xos ssh`, or \
                 with the ssh configuration that `xos login` writes.",
                m.vo
            ));
        }
        if let Some(at) = who.account.expires.filter(|at| at.since(now) < END_TOLD) {
            notes.push(format!("Your membership in {} ends at {at}.", m.vo));
        }
        let environment = [
            ("XOS_VO", m.vo.to_string()),
            ("XOS_PERSON", m.person.to_string()),
            ("XOS_NODE", self.node.to_string()),
        ];
        let environment = environment.map(|(k, v)| (k.to_owned(), v)).into();
        Opened { session, environment, keyring: keyring.to_string(), notes }
    }

    /// Ends a session; one that is not open is no error.
    pub(in crate::agent) fn close_login(&self, r: &CloseLogin) -> Result<(), Error> {
        if let Some(session) = self.logins()?.sessions.close(&r.session) {
            self.audit_close(&session);
        }
        Ok(())
    }

    /// One line of the audit for a session that is over.
    pub(super) fn audit_close(&self, session: &Session) {
        let account = {
            let vos = self.lock_vos();
            vos.by_uid(session.uid).map(|f| f.account(&self.homes(), &Default::default()))
        };
        match account {
            Some(account) => {
                let login = Login::of(&account, &session.service, None);
                self.note_login("close_session", login, Ok(()));
            }
            // The account has gone.
            None => {
                let mut event = self.event("close_session");
                event.on = format!("{}, uid {}", session.service, session.uid);
                self.note(event);
            }
        }
    }
}

/// Moves the session's process by `enter`, if it is the one that asked, by its `started`: when that
/// has ended meanwhile, the kernel may have given its number to another. One that was moved in its
/// place stays where it is, since where it was is not known any more; the log says so.
///
/// # Errors
/// [`xos_base::Kind::Unavailable`] when it has ended; else as `enter`.
fn enter_same(
    (pid, began): (u32, u64),
    started: impl Fn(u32) -> Option<u64>,
    enter: impl FnOnce(u32) -> Result<bool, Error>,
) -> Result<(), Error> {
    let same = || started(pid) == Some(began);
    let ended = || {
        let text = format!("process {pid} ended while its session was opened");
        Err(Error::unavailable(text).hint("sign in again"))
    };
    if !same() {
        return ended();
    }
    let moved = enter(pid)?;
    if same() {
        return Ok(());
    }
    if moved && started(pid).is_some() {
        tracing::error!(pid, "a process may be held with a member whose it is not: start it anew");
    }
    ended()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// If it failed, a process that got the number of one that ended would be put among a member's,
    /// and be stopped and ended with them.
    #[test]
    fn only_the_process_that_asked_is_moved() {
        let moves = Cell::new(0);
        // What each look sees, and how it ends: whether it was moved, and whether it is a session.
        for (looks, moved, good) in [
            ([Some(5), Some(5), Some(5)], 1, true),
            ([None, None, None], 0, false),
            ([Some(6), Some(6), Some(6)], 0, false),
            ([Some(5), Some(6), Some(6)], 1, false),
            ([Some(5), None, None], 1, false),
        ] {
            moves.set(0);
            let look = Cell::new(0);
            let started = |pid: u32| {
                assert_eq!(pid, 7);
                let now = look.get();
                look.set(now + 1);
                looks[now]
            };
            let enter = |pid: u32| {
                assert_eq!((pid, look.get()), (7, 1), "moved before it was looked at");
                moves.set(moves.get() + 1);
                Ok(true)
            };
            let entered = enter_same((7, 5), started, enter);
            assert_eq!((moves.get(), entered.is_ok()), (moved, good), "{looks:?}");
        }
        let fails = enter_same((7, 5), |_| Some(5), |_| Err(Error::internal("no group")));
        assert_eq!(fails.unwrap_err().message, "no group");
    }
}
