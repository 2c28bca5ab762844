//! The files that sshd and `xos-principals` read, below the node's folder `ssh`.

use super::proof;
use crate::agent::{Agent, keep, machine};
use crate::principals::{self, Entry};
use std::collections::BTreeSet;
use xos_api::cda::ssh_principal;
use xos_api::vom::AccountState;
use xos_base::{Error, SiteId};

/// For sshd's `TrustedUserCAKeys`: who signs certificates of people.
const AUTHORITIES: &str = "people_ca";

impl Agent {
    /// Writes the keys by which the homes of the VOs that are served here sign certificates of
    /// people. Which of them is good for which account, `AuthorizedPrincipalsCommand` says.
    pub(super) fn show_authorities(&self) -> Result<(), Error> {
        let homes: BTreeSet<SiteId> = {
            let vos = self.lock_vos();
            let served = vos.iter().filter(|(_, vo)| vo.state != AccountState::Ended);
            served.map(|(id, _)| id.site()).collect()
        };
        let mut text = String::new();
        for site in homes {
            for key in self.authorities(&site) {
                text.push_str(&format!("{} {key} people of {site}\n", proof::KEY_TYPE));
            }
        }
        keep::write_text(&self.logins()?.folder.join(AUTHORITIES), &text, 0o644)
    }

    /// Writes for `xos-principals` which certificates are good for whom while this daemon does not
    /// run: those who were let in before, until that ends.
    pub(super) fn show_principals(&self) -> Result<(), Error> {
        let logins = self.logins()?;
        let local = machine::local_users()?;
        let entries: Vec<Entry> = {
            let vos = self.lock_vos();
            let entry = |(uid, until)| {
                let found = vos.by_uid(uid)?;
                Some(Entry {
                    until,
                    user: found.vo.account_name(found.member, &local),
                    uid,
                    principal: ssh_principal(&found.member.person, found.id),
                    authorities: self.authorities(&found.id.site()),
                })
            };
            logins.seen.all().into_iter().filter_map(entry).collect()
        };
        let text = principals::write(&entries);
        keep::write_text(&logins.folder.join(principals::FILE_NAME), &text, 0o644)
    }
}
