//! From where somebody proves themselves, without a key: what they are offered, and with whom their
//! attempts are counted. Decided without I/O.

use super::device::OTHERS_SESSION;
use crate::agent::config::Login;
use xos_base::local::AuthBegin;

/// sshd's PAM service.
const SSHD: &str = "sshd";

/// Who begins an attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// The account's own user, by its uid: as with `sudo`.
    Own(u32),
    /// Another user of this machine, as with `su`; 0: whoever sits at a console.
    Local(u32),
    /// Somebody at another machine: its address, as the host of PAM tells it.
    Remote(String),
}

impl Origin {
    /// Of who wants to be the account with this uid.
    pub(super) fn of(r: &AuthBegin, account: u32) -> Origin {
        let host = r.rhost.as_deref().unwrap_or_default();
        // sudo can be told to name the own machine there (sudoers(5), `pam_rhost`).
        let far = !host.is_empty() && !OTHERS_SESSION.contains(&r.service.as_str());
        if far || r.service == SSHD {
            Origin::Remote(host.to_owned())
        } else if r.uid == account {
            Origin::Own(account)
        } else {
            Origin::Local(r.uid)
        }
    }

    /// Whether two share the room for attempts.
    pub(super) fn shares_with(&self, other: &Origin) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Most attempts of all who share it; together fewer than calls that wait have places.
    pub(super) fn share_max(&self) -> usize {
        match self {
            Origin::Own(_) => 12,
            Origin::Local(_) | Origin::Remote(_) => 6,
        }
    }
}

/// By what somebody may prove themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ways {
    /// By a code for another device.
    pub(super) code: bool,
    /// By a password of this site.
    pub(super) password: bool,
}

impl Ways {
    /// Those that the administrator allows; `ours`: the person is of this site, since people of
    /// others type their password nowhere but at their own. A code is for who is at the machine:
    /// anybody could have one made at its sshd, which takes certificates.
    pub(super) fn of(config: &Login, origin: &Origin, ours: bool) -> Ways {
        let here = !matches!(origin, Origin::Remote(_));
        Ways { code: config.device && here, password: config.passwords && ours }
    }

    /// Whether there are none: other modules decide.
    pub(super) fn none(self) -> bool {
        !self.code && !self.password
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{BASE, login};

    const ANN: u32 = BASE + 7;

    fn origin(service: &str, rhost: Option<&str>, uid: u32) -> Origin {
        let (user, rhost) = ("ann.demo.rennes".into(), rhost.map(str::to_owned));
        Origin::of(&AuthBegin { user, service: service.into(), rhost, uid }, ANN)
    }

    /// If it failed, whoever reaches a machine's sshd could have codes made for its members without
    /// end, or be counted as if they were the member.
    #[test]
    fn who_comes_over_the_network_is_told_from_who_is_at_the_machine() {
        let far = |host: &str| Origin::Remote(host.into());
        for (service, rhost, uid, wanted) in [
            ("sudo", None, ANN, Origin::Own(ANN)),
            ("sudo", Some("n1"), ANN, Origin::Own(ANN)),
            ("sudo-i", Some("n1"), 1000, Origin::Local(1000)),
            ("su", None, 1000, Origin::Local(1000)),
            ("su", Some(""), ANN, Origin::Own(ANN)),
            ("login", None, 0, Origin::Local(0)),
            ("login", Some("192.0.2.1"), 0, far("192.0.2.1")),
            ("cockpit", Some("::1"), 0, far("::1")),
            ("sshd", Some("192.0.2.1"), 0, far("192.0.2.1")),
            ("sshd", Some("127.1.0.1"), ANN, far("127.1.0.1")),
            ("sshd", None, 0, far("")),
        ] {
            assert_eq!(origin(service, rhost, uid), wanted, "{service} {rhost:?} {uid}");
        }
    }

    /// If it failed, sshd would offer codes, or a password where the site did not say so, or one
    /// that said so would have none.
    #[test]
    fn over_the_network_a_password_is_taken_where_the_site_says_so_and_a_code_never() {
        let far = origin("sshd", Some("192.0.2.1"), 0);
        let here = origin("sudo", None, ANN);
        let ways = |code, password| Ways { code, password };
        for (device, passwords, ours, there, at_it) in [
            (false, false, true, ways(false, false), ways(false, false)),
            (true, false, true, ways(false, false), ways(true, false)),
            (false, true, true, ways(false, true), ways(false, true)),
            (true, true, true, ways(false, true), ways(true, true)),
            (true, true, false, ways(false, false), ways(true, false)),
        ] {
            let mut config = login();
            (config.device, config.passwords) = (device, passwords);
            assert_eq!(Ways::of(&config, &far, ours), there, "{device} {passwords} {ours}");
            assert_eq!(Ways::of(&config, &here, ours), at_it, "{device} {passwords} {ours}");
        }
        assert!(ways(false, false).none() && !ways(false, true).none());
    }
}
