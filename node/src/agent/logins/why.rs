//! Why a member may sign in to this machine, or may not: each step by what decides it; and which
//! sessions are open.

use super::rules::refusal;
use super::sessions::Session;
use crate::agent::vos::{Found, Vos};
use crate::agent::{Agent, machine};
use std::collections::HashSet;
use xos_api::node::sessions::{ListSessions, OpenSession, OpenSessions, SESSIONS_MAX, WhyNode};
use xos_api::vom::{WhyAnswer, WhyPlace, WhyStep};
use xos_base::local::LoginState;
use xos_base::{Error, VoId};

const AT: WhyPlace = WhyPlace::Node;

impl Agent {
    /// Why a member may sign in here, or may not. The state is that which PAM is told.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the machine's own users cannot be read.
    pub(in crate::agent) fn why(&self, r: &WhyNode) -> Result<WhyAnswer, Error> {
        let logins = match self.logins() {
            Ok(logins) => logins,
            Err(e) => return Ok(WhyAnswer { steps: vec![failed("logins", &e)] }),
        };
        let mut steps =
            vec![WhyStep::ok(AT, "logins", format!("members sign in to {}", self.node))];
        let local = machine::local_users()?;
        let found = {
            let vos = self.lock_vos();
            vos.by_number(&r.vo, r.number)
                .map(|f| (f.vo.account_name(f.member, &local), name(&f, &local)))
        };
        let who = match &found {
            Some((name, _)) => self.who(name)?,
            None => None,
        };
        let who = who.filter(|w| w.account.vo == r.vo && w.account.number == r.number);
        let (Some((_, name)), Some(who)) = (found, who) else {
            let text = format!("{} has no account of this member", self.node);
            let hint = "its core tells it the accounts: try again in a minute, then ask the \
                        administrator of the site";
            steps.push(WhyStep::failed(AT, "account", text).hint(hint));
            return Ok(WhyAnswer { steps });
        };
        steps.push(name);
        steps.push(match &who.state {
            LoginState::Allowed {} => {
                let text = format!("{} may sign in as {}", who.account.person, who.account.name);
                WhyStep::ok(AT, "admission", format!("{text}; that counts until {}", who.lease))
            }
            refused => refused_by(refused),
        });
        let home = r.vo.site();
        steps.push(if self.authorities(&home).is_empty() {
            let text =
                format!("sshd takes no certificates here that {home} signed, the home of {}", r.vo);
            let hint = "the site's core tells its nodes whom it trusts: ask its administrator";
            WhyStep::failed(AT, "authority", text).hint(hint)
        } else {
            WhyStep::ok(AT, "authority", format!("sshd takes certificates that {home} signed"))
        });
        steps.push(if logins.sessions.full(who.account.uid) {
            let text = format!("{} has as many sessions here as one may", who.account.person);
            WhyStep::failed(AT, "limits", text).hint("end some of them")
        } else {
            WhyStep::ok(AT, "limits", "there is room for one more session")
        });
        Ok(WhyAnswer { steps })
    }

    /// The open sessions of a VO's members.
    pub(in crate::agent) fn list_sessions(&self, r: &ListSessions) -> OpenSessions {
        let Some(logins) = &self.logins else { return OpenSessions::default() };
        listed(logins.sessions.all_open(), &self.lock_vos(), &r.vo)
    }
}

fn failed(what: &str, e: &Error) -> WhyStep {
    let step = WhyStep::failed(AT, what, &e.message);
    match &e.hint {
        Some(hint) => step.hint(hint),
        None => step,
    }
}

/// What the account is called here, and whether a local user took its name.
fn name(found: &Found<'_>, local: &HashSet<String>) -> WhyStep {
    let alone = found.vo.account_name(found.member, &HashSet::new());
    let here = found.vo.account_name(found.member, local);
    if here == alone {
        return WhyStep::ok(AT, "name", format!("the account is called {here} here"));
    }
    let text = format!(
        "a local user of this machine is called {alone}, so the account is called {here} here and \
         plain ssh does not find it"
    );
    let hint = "use `xos ssh`, which asks for the name; the site's administrator can give another \
                one: `xos names give`";
    WhyStep::failed(AT, "name", text).hint(hint)
}

/// The refusal that PAM passes on.
fn refused_by(state: &LoginState) -> WhyStep {
    let e = refusal(state.clone()).unwrap_or_else(|| Error::denied("the machine refuses"));
    let step = failed("admission", &e);
    match state {
        LoginState::Denied { .. } => step.hint("ask whoever set the rule"),
        LoginState::Ended { .. } => step.hint("ask an administrator of the VO"),
        _ => step,
    }
}

/// Those of the sessions that are of members of `vo`.
fn listed(sessions: Vec<Session>, vos: &Vos, vo: &VoId) -> OpenSessions {
    let of = |s: Session| {
        let (_, member) = vos.member_of(s.uid).filter(|(id, _)| *id == vo)?;
        Some(OpenSession { person: member.person.clone(), service: s.service, since: s.opened })
    };
    let mut sessions: Vec<OpenSession> = sessions.into_iter().filter_map(of).collect();
    let more = sessions.len() > SESSIONS_MAX;
    sessions.truncate(SESSIONS_MAX);
    OpenSessions { sessions, more }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{BASE, vos};
    use xos_api::vom::WhyOutcome;
    use xos_base::Millis;

    fn session(uid: u32, service: &str) -> Session {
        let (service, boot) = (service.to_owned(), "boot".to_owned());
        Session { uid, pid: 1, started: 2, service, opened: Millis(5), boot, closed: false }
    }

    /// If it failed, members of one VO would be told who of another works on the machine, or local
    /// users would.
    #[test]
    fn sessions_of_the_vos_members_are_listed_and_no_others() {
        let vos = vos(&[(1, "ann", "active"), (2, "bob", "suspended")]);
        let all =
            || vec![session(BASE + 1, "sshd"), session(BASE + 2, "cron"), session(0, "login")];
        let told = listed(all(), &vos, &"demo.rennes".parse().unwrap());
        let seen: Vec<_> = told.sessions.iter().map(|s| (s.person.as_str(), &*s.service)).collect();
        assert_eq!(seen, [("ann@rennes", "sshd"), ("bob@rennes", "cron")]);
        assert!(!told.more && told.sessions[0].since == Millis(5));
        assert!(listed(all(), &vos, &"other.rennes".parse().unwrap()).sessions.is_empty());
        let many = (0..=SESSIONS_MAX).map(|_| session(BASE + 1, "sshd")).collect();
        let many = listed(many, &vos, &"demo.rennes".parse().unwrap());
        assert!(many.more && many.sessions.len() == SESSIONS_MAX, "one answer would be too long");
    }

    /// If it failed, nobody would learn why plain ssh asks for a password on this machine alone.
    #[test]
    fn a_local_user_of_the_same_name_is_told() {
        let vos = vos(&[(1, "ann", "active")]);
        let found = vos.by_uid(BASE + 1).unwrap();
        assert_eq!(name(&found, &HashSet::new()).outcome, WhyOutcome::Ok);
        let clash = name(&found, &HashSet::from(["ann.demo.rennes".to_owned()]));
        assert_eq!((clash.outcome, clash.what.as_str()), (WhyOutcome::Failed, "name"));
        assert!(clash.text.contains(&format!("u{}", BASE + 1)), "{}", clash.text);
    }

    /// If it failed, the reason would be another one than PAM tells.
    #[test]
    fn the_refusal_is_pams_own() {
        for state in [
            LoginState::Ended { text: "over".into() },
            LoginState::Held { text: "over".into() },
            LoginState::Denied { text: "over".into() },
        ] {
            let step = refused_by(&state);
            assert_eq!((step.outcome, step.text.as_str()), (WhyOutcome::Failed, "over"));
        }
    }
}
