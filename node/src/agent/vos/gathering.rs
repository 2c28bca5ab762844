//! Lists of accounts that come in parts.

use std::collections::BTreeMap;
use xos_api::vom::VoAccounts;
use xos_base::VoId;

/// A list of accounts that comes in parts, gathered until it is whole.
#[derive(Debug, Default)]
pub struct Gathering {
    parts: BTreeMap<VoId, VoAccounts>,
}

impl Gathering {
    /// Takes a part; gives the whole once it is complete.
    pub fn take(&mut self, part: VoAccounts) -> Option<VoAccounts> {
        let more = part.more;
        let whole = match self.parts.remove(&part.vo) {
            // A first part begins anew, whatever was gathered before.
            Some(mut whole) if !part.full => {
                whole.number = part.number;
                whole.state = part.state;
                (whole.lease_s, whole.grace_s) = (part.lease_s, part.grace_s);
                whole.terms = part.terms;
                whole.members.extend(part.members);
                whole.groups.extend(part.groups);
                whole.groups_gone.extend(part.groups_gone);
                whole
            }
            _ => part,
        };
        if more {
            self.parts.insert(whole.vo.clone(), whole);
            return None;
        }
        Some(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{self, member};
    use crate::agent::vos::Vos;
    use xos_api::vom::AccountMember;

    fn accounts(full: bool, more: bool, members: Vec<AccountMember>) -> VoAccounts {
        VoAccounts { full, more, ..testing::accounts(members) }
    }

    #[test]
    fn nobody_vanishes_between_two_parts() {
        let mut gathering = Gathering::default();
        let mut vos = Vos::default();
        let [ann, bob, eve] = [(1, "ann"), (2, "bob"), (3, "eve")]
            .map(|(number, name)| member(number, name, "active"));
        let numbers = |vos: &Vos| vos.all().map(|f| f.member.number.0).collect::<Vec<u32>>();
        vos.apply(accounts(true, false, vec![ann.clone(), bob]));
        assert!(gathering.take(accounts(true, true, vec![ann])).is_none());
        assert_eq!(numbers(&vos), [1, 2]);
        let whole = gathering.take(accounts(false, false, vec![eve])).unwrap();
        assert!(whole.full);
        vos.apply(whole);
        assert_eq!(numbers(&vos), [1, 3]);
    }
}
