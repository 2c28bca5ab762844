//! Who may sign in to this machine. Decided without I/O.

use crate::agent::config::Login;
use crate::agent::vos::Found;
use std::collections::BTreeSet;
use xos_api::vom::AccountState;
use xos_base::accounts::ID_RANGE;
use xos_base::local::LoginState;
use xos_base::{Error, Millis, PersonId, SiteId, VoId};

/// The site's own rules, as `[node.login]` has them.
#[derive(Debug, Default)]
pub(in crate::agent) struct Rules {
    /// Only these VOs; empty: all.
    vos: BTreeSet<VoId>,
    people: BTreeSet<PersonId>,
    sites: BTreeSet<SiteId>,
}

impl Rules {
    /// Reads the configuration.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when something in it is no VO, person or site.
    pub(in crate::agent) fn read(config: &Login) -> Result<Rules, Error> {
        let bad = |key: &str, text: &str, e: xos_base::ids::IdError| {
            Error::invalid(format!("[node.login] {key}: {text:?} is refused: {e}"))
        };
        let mut rules = Rules::default();
        for text in &config.vos {
            rules.vos.insert(text.parse().map_err(|e| bad("vos", text, e))?);
        }
        for text in &config.deny {
            if text.contains('@') {
                rules.people.insert(text.parse().map_err(|e| bad("deny", text, e))?);
            } else {
                rules.sites.insert(text.parse().map_err(|e| bad("deny", text, e))?);
            }
        }
        Ok(rules)
    }

    /// Why a person may not, if a rule says so.
    fn refuses(&self, person: &PersonId, vo: &VoId) -> Option<String> {
        if !self.vos.is_empty() && !self.vos.contains(vo) {
            return Some(format!("members of {vo} may not sign in to this machine"));
        }
        if self.people.contains(person) || self.sites.contains(&person.site()) {
            return Some(format!("this site does not let {person} sign in to this machine"));
        }
        None
    }

    /// Where an account stands: its member and VO as the core says (`state`), `lease` until when
    /// the core's word counts, and the site's rules.
    pub(super) fn judge(
        &self,
        found: Found<'_>,
        state: AccountState,
        lease: Millis,
        now: Millis,
    ) -> LoginState {
        let (person, vo) = (&found.member.person, found.id);
        match state {
            AccountState::Ended => {
                let text = format!("the membership of {person} in {vo} has ended");
                return LoginState::Ended { text };
            }
            _ if lease <= now => {
                let text = "this machine has not heard of its site's core for too long; try again \
                            later, or another machine";
                return LoginState::Held { text: text.to_owned() };
            }
            AccountState::Suspended
                if found.member.state == AccountState::Active
                    && found.vo.has_lapsed(found.member, now) =>
            {
                let text = format!(
                    "{person} has not agreed to the terms of use of {vo} that are in force; read \
                     them and agree: xos vo agree {vo}"
                );
                return LoginState::Held { text };
            }
            AccountState::Suspended => {
                let text = format!(
                    "{person} in {vo} is suspended, or the VO is, or its home site was not heard \
                     for too long; ask an administrator of the VO"
                );
                return LoginState::Held { text };
            }
            AccountState::Active => {}
        }
        // The machine's own, then those that the core judged by.
        match self.refuses(person, vo).or_else(|| found.member.refused.clone()) {
            Some(text) => LoginState::Denied { text },
            None => LoginState::Allowed {},
        }
    }
}

/// Whether sshd takes the account's certificate. Also of one who may not sign in now: PAM refuses
/// them, and tells the reason, which sshd cannot. That is certain only of a uid that PAM takes for
/// the grid's, so that nobody else comes as far; and sshd must mean that very uid, which it looked
/// up when the connection began, since the name may have been another's then.
pub(super) fn has_principal(state: &LoginState, uid: u32, meant: u32) -> bool {
    match state {
        LoginState::Allowed {} | LoginState::Held { .. } | LoginState::Denied { .. } => {
            uid == meant && ID_RANGE.contains(&uid)
        }
        LoginState::Ended { .. } | LoginState::NotOurs {} => false,
    }
}

/// The state as an error, for those who may not; `None`: they may.
pub(super) fn refusal(state: LoginState) -> Option<Error> {
    match state {
        LoginState::Allowed {} => None,
        LoginState::NotOurs {} => Some(Error::not_found("no such grid account on this machine")),
        LoginState::Ended { text } | LoginState::Held { text } | LoginState::Denied { text } => {
            Some(Error::denied(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{BASE, accounts, login, member, vos};
    use crate::agent::vos::Vos;
    use xos_api::vom::AccountMember;

    fn judged(edit: impl FnOnce(&mut Login), state: AccountState, lease: u64) -> LoginState {
        let mut config = login();
        edit(&mut config);
        let vos = vos(&[(1, "ann", "active")]);
        let found = vos.by_uid(BASE + 1).unwrap();
        Rules::read(&config).unwrap().judge(found, state, Millis(lease), Millis(10))
    }

    /// If it failed, people would sign in whom their VO or the site keeps out, or be told nonsense.
    #[test]
    fn who_may_sign_in_and_who_not() {
        use AccountState::{Active, Ended, Suspended};
        let free = |_: &mut Login| {};
        assert_eq!(judged(free, Active, 11), LoginState::Allowed {});
        assert!(matches!(judged(free, Active, 10), LoginState::Held { .. }), "the lease is over");
        assert!(matches!(judged(free, Suspended, 11), LoginState::Held { .. }));
        assert!(matches!(judged(free, Ended, 11), LoginState::Ended { .. }));
        let deny = |who: &'static str| move |l: &mut Login| l.deny = vec![who.into()];
        assert!(matches!(judged(deny("ann@rennes"), Active, 11), LoginState::Denied { .. }));
        assert!(matches!(judged(deny("rennes"), Active, 11), LoginState::Denied { .. }));
        assert_eq!(judged(deny("ann@pisa"), Active, 11), LoginState::Allowed {});
        let only = |vo: &'static str| move |l: &mut Login| l.vos = vec![vo.into()];
        assert!(matches!(judged(only("other.rennes"), Active, 11), LoginState::Denied { .. }));
        assert_eq!(judged(only("demo.rennes"), Active, 11), LoginState::Allowed {});
    }

    /// If it failed, whom a rule of the VO or the site keeps out would sign in, or not learn which.
    #[test]
    fn who_is_refused_by_a_rule_reads_what_it_says() {
        let text = || "rule x of site rennes does not let ann@rennes sign in".to_owned();
        let judged = |state: AccountState, login: &Login| {
            let refused = Some(text());
            let ann = AccountMember { refused, ..member(1, "ann", "active") };
            let mut vos = Vos::default();
            vos.apply(accounts(vec![ann]));
            assert!(vos.refused(BASE + 1) && !vos.refused(BASE + 2));
            let found = vos.by_uid(BASE + 1).unwrap();
            Rules::read(login).unwrap().judge(found, state, Millis(11), Millis(10))
        };
        assert_eq!(judged(AccountState::Active, &login()), LoginState::Denied { text: text() });
        assert!(matches!(judged(AccountState::Suspended, &login()), LoginState::Held { .. }));
        assert!(matches!(judged(AccountState::Ended, &login()), LoginState::Ended { .. }));
    }

    /// If it failed, sshd would let in whom PAM takes for a local user, or as whom a name was
    /// before; or who is suspended would not learn why they are refused.
    #[test]
    fn sshd_takes_whom_pam_lets_in_or_tells_why_not() {
        let text = || String::from("why");
        let states = [
            (LoginState::Allowed {}, true),
            (LoginState::Held { text: text() }, true),
            (LoginState::Denied { text: text() }, true),
            (LoginState::Ended { text: text() }, false),
            (LoginState::NotOurs {}, false),
        ];
        for (state, takes) in states {
            assert_eq!(has_principal(&state, BASE + 1, BASE + 1), takes, "{state:?}");
            for former in [BASE + 2, 0, 1000] {
                assert!(!has_principal(&state, BASE + 1, former), "{state:?} {former}");
            }
            for foreign in [0, 1000, 100_001, ID_RANGE.start() - 1, ID_RANGE.end() + 1] {
                assert!(!has_principal(&state, foreign, foreign), "{state:?} {foreign}");
            }
        }
    }

    /// If it failed, a rule with a slip of the pen would keep nobody out, and nobody would know.
    #[test]
    fn a_rule_that_is_not_understood_is_refused() {
        for (vos, deny) in [("demo", ""), ("", "Mallory@pisa"), ("", "mallory@"), ("", "a b")] {
            let some = |t: &str| if t.is_empty() { vec![] } else { vec![t.to_owned()] };
            let config = Login { vos: some(vos), deny: some(deny), ..login() };
            let e = Rules::read(&config).unwrap_err();
            assert!(e.message.contains("[node.login]"), "{e}");
        }
    }
}
