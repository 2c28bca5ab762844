//! What of the core's word a node does not take: numbers that are not the grid's, and entries that
//! libc would misread. PAM takes whoever has another uid for a local user, and lets them in
//! unasked.

use super::Vos;
use xos_api::vom::VoAccounts;
use xos_base::VoId;
use xos_base::accounts::{AccountsError, ID_RANGE};

impl Vos {
    /// Without the VOs that [`Vos::apply`] would refuse, for a list that was kept in a file.
    pub fn bounded(mut self) -> Vos {
        self.vos.retain(|id, vo| is_the_grids(id, vo.base, vo.size));
        self
    }
}

/// Takes out who has no number of the VO's. Whether the VO may have accounts here at all; why not
/// is told.
pub(super) fn bound(accounts: &mut VoAccounts) -> bool {
    let (base, size) = (accounts.base, accounts.size);
    if !is_the_grids(&accounts.vo, base, size) {
        return false;
    }
    let all = accounts.members.len() + accounts.groups.len();
    accounts.members.retain(|m| (1..size).contains(&m.number.0));
    accounts.groups.retain(|g| (1..size).contains(&g.number.0));
    let beyond = all - accounts.members.len() - accounts.groups.len();
    if beyond > 0 {
        let vo = &accounts.vo;
        tracing::error!(%vo, size, beyond, "who has no number of the VO's has no account here");
    }
    true
}

fn is_the_grids(vo: &VoId, base: u32, size: u32) -> bool {
    let last = size.checked_sub(1).and_then(|more| base.checked_add(more));
    let is = ID_RANGE.contains(&base) && last.is_some_and(|last| ID_RANGE.contains(&last));
    if !is {
        let (first, end) = (ID_RANGE.start(), ID_RANGE.end());
        tracing::error!(
            %vo, base, size,
            "nobody of the VO has an account here: its numbers are not all of {first} to {end}"
        );
    }
    is
}

/// Entries of one VO that the account file does not take: they are left out, and told in one line.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    count: u64,
    first: Option<AccountsError>,
}

impl LeftOut {
    /// One more.
    pub(super) fn note(&mut self, why: AccountsError) {
        self.count += 1;
        self.first.get_or_insert(why);
    }

    /// Tells the log.
    pub(super) fn tell(self, vo: &VoId) {
        let Some(first) = self.first else { return };
        let count = self.count;
        tracing::error!(%vo, count, %first, "entries are left out of the account file");
    }
}

#[cfg(test)]
mod tests {
    use super::super::NO_SHELL;
    use super::*;
    use crate::agent::testing::{BASE, accounts, member};
    use std::collections::HashSet;
    use xos_base::accounts::AccountsView;
    use xos_base::{GroupNumber, MemberNumber};

    fn with(base: u32, size: u32) -> VoAccounts {
        VoAccounts { base, size, ..accounts(vec![member(1, "ann", "active")]) }
    }

    /// If it failed, members of a VO would be local users to PAM, which lets those in unasked, or
    /// have the numbers of the machine's own users or containers.
    #[test]
    fn a_vo_outside_of_the_grids_numbers_has_no_accounts() {
        let (first, last) = (*ID_RANGE.start(), *ID_RANGE.end());
        for (base, size) in [(first, 65_536), (last - 65_535, 65_536), (first, last - first + 1)] {
            let mut vos = Vos::default();
            vos.apply(with(base, size));
            assert!(vos.by_uid(base + 1).is_some(), "{base} {size}");
        }
        for (base, size) in [
            (0, 65_536),
            (100_000, 65_536),
            (first - 1, 65_536),
            (last - 65_534, 65_536),
            (last + 1, 1),
            (u32::MAX - 10, 65_536),
            (BASE, 0),
            (BASE, u32::MAX),
        ] {
            let mut vos = Vos::default();
            vos.apply(with(base, size));
            assert_eq!(vos.iter().count(), 0, "{base} {size}");
            // What was right before is not left standing: it may be old.
            vos.apply(with(BASE, 65_536));
            vos.apply(with(base, size));
            assert_eq!(vos.iter().count(), 0, "{base} {size}");
        }
        let mut vos = Vos::default();
        vos.apply(with(BASE, 65_536));
        assert_eq!(vos.clone().bounded(), vos);
        let kept = serde_json::to_string(&vos).unwrap().replace(&BASE.to_string(), "100000");
        let kept: Vos = serde_json::from_str(&kept).unwrap();
        assert!(kept.by_uid(100_001).is_some());
        assert_eq!(kept.bounded().iter().count(), 0, "a file of before");
    }

    /// If it failed, a member whose number is none of the VO's would be another VO's member.
    #[test]
    fn a_number_beyond_the_vos_is_nobodys() {
        let mut vos = Vos::default();
        let members = [0, 1, 65_535, 65_536, u32::MAX].map(|n| member(n, "ann", "active"));
        vos.apply(accounts(members.to_vec()));
        let numbers: Vec<u32> = vos.all().map(|f| f.member.number.0).collect();
        assert_eq!(numbers, [1, 65_535]);
    }

    /// If it failed, one bad name would take all people's names from the node: ssh, ls and every
    /// program that asks who it is.
    #[test]
    fn a_bad_entry_is_left_out_of_the_file_and_nobody_else() {
        let physicist = |n: u32, name: &str| {
            let mut m = member(n, name, "active");
            m.groups = vec![GroupNumber(2)];
            m
        };
        let mut bad = physicist(2, "bob");
        bad.name = "bob:0:0".into();
        let mut vos = Vos::default();
        vos.apply(accounts(vec![physicist(1, "ann"), bad, physicist(3, "eve")]));
        let mut other = accounts(vec![physicist(1, "ann"), physicist(2, "zoe")]);
        other.vo = "other.pisa".parse().unwrap();
        other.base = BASE + 65_536;
        vos.apply(other);
        let file = vos.accounts(1, ("/home/xos", NO_SHELL), &HashSet::new());
        let bytes = file.build().unwrap();
        let view = AccountsView::parse(&bytes).unwrap();
        let uid = |name: &str| view.user_by_name(name).unwrap().map(|u| u.uid);
        assert_eq!(uid("ann.demo.rennes"), Some(BASE + 1), "the first who has the name");
        assert_eq!(uid("eve.demo.rennes"), Some(BASE + 3));
        assert_eq!(uid("zoe.demo.rennes"), Some(BASE + 65_536 + 2));
        assert_eq!((view.users().count(), uid("bob:0:0")), (3, None));
        let ann = vos.by_number(&"demo.rennes".parse().unwrap(), MemberNumber(1)).unwrap();
        let groups = view.groups_of("ann.demo.rennes").unwrap().unwrap();
        let groups: Vec<u32> = groups.map(Result::unwrap).collect();
        assert_eq!(groups, [ann.vo.gid(GroupNumber(2))]);
    }
}
