//! What of accounts is not written to the node's file, so that it can be read whatever rules say.

use serde::Serializer;
use std::borrow::Cow;
use std::collections::BTreeMap;
use xos_api::vom::AccountMember;
use xos_base::MemberNumber;

/// What somebody reads whom rules keep out, at a node that has not heard its core since it was
/// started: each text names its person, and with a note takes more than all the rest.
const REFUSED: &str = "rules do not let you sign in here";

/// Writes members; of a refusal by rules, only that there is one.
pub(super) fn members<S: Serializer>(
    members: &BTreeMap<MemberNumber, AccountMember>,
    out: S,
) -> Result<S::Ok, S::Error> {
    out.collect_map(members.iter().map(|(number, m)| (number, short(m))))
}

fn short(m: &AccountMember) -> Cow<'_, AccountMember> {
    match m.refused {
        Some(_) => Cow::Owned(AccountMember { refused: Some(REFUSED.to_owned()), ..m.clone() }),
        None => Cow::Borrowed(m),
    }
}

#[cfg(test)]
mod tests {
    use crate::agent::testing::{BASE, accounts, member};
    use crate::agent::vos::Vos;
    use xos_api::vom::AccountMember;

    /// If it failed, a rule that keeps out a large VO would make a file that no start can read, or
    /// a restart would let in whom rules keep out.
    #[test]
    fn a_rule_that_keeps_many_out_does_not_swell_the_file() {
        let told = |refused: Option<String>| {
            let mut vos = Vos::default();
            let ann = member(1, "ann", "active");
            vos.apply(accounts(vec![AccountMember { refused, ..ann }]));
            serde_json::to_string(&vos).unwrap()
        };
        let (free, refused) = (told(None), told(Some("n".repeat(400))));
        assert!(refused.len() < free.len() + 60, "{refused}");
        let read = serde_json::from_str::<Vos>(&refused).unwrap().indexed();
        assert!(read.refused(BASE + 1));
    }
}
