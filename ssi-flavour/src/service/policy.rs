//! Who may do what with clusters: one table, without I/O. Beside it the rules of VO and site say
//! who may run programs.

use crate::cluster::trees::Owner;
use std::collections::BTreeSet;
use xos_base::{SiteId, VoId};
use xos_net::{Caller, Principal};

/// What somebody is to a cluster, or to a tree in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Somebody who signed in.
    Person,
    /// A member of a VO that the site serves.
    Member,
    /// The member whose the tree is.
    Owner,
    /// An administrator of the site.
    SiteAdmin,
    /// A node of the site.
    Node,
    /// Another machine.
    Machine,
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    /// See clusters and their nodes.
    See,
    /// Make clusters; add, drain and remove nodes.
    Change,
    /// Run programs.
    Run,
    /// See a tree and its processes.
    SeeTree,
    /// Move, checkpoint, restart, signal a tree.
    HandleTree,
    /// Speak for a node.
    Say,
}

#[cfg(test)]
const ROLES: [Role; 6] =
    [Role::Person, Role::Member, Role::Owner, Role::SiteAdmin, Role::Node, Role::Machine];
#[cfg(test)]
const ACTIONS: [Action; 6] =
    [Action::See, Action::Change, Action::Run, Action::SeeTree, Action::HandleTree, Action::Say];

/// The table.
fn allows(role: Role, action: Action) -> bool {
    match action {
        Action::See => matches!(role, Role::Member | Role::Owner | Role::SiteAdmin),
        Action::Change => role == Role::SiteAdmin,
        Action::Run => role == Role::Member,
        Action::SeeTree | Action::HandleTree => matches!(role, Role::Owner | Role::SiteAdmin),
        Action::Say => role == Role::Node,
    }
}

/// Whether the caller may do something. `owner`: of the tree that it is about.
pub(super) fn may(
    caller: &Caller,
    site: &SiteId,
    served: &BTreeSet<VoId>,
    owner: Option<&Owner>,
    action: Action,
) -> bool {
    let mut roles = BTreeSet::new();
    if caller.site_admin() {
        roles.insert(Role::SiteAdmin);
    }
    match caller.principal() {
        Principal::Member(m) => {
            roles.insert(if served.contains(&m.vo) { Role::Member } else { Role::Person });
            if owner.is_some_and(|o| o.vo == m.vo && o.member == m.number) {
                roles.insert(Role::Owner);
            }
        }
        Principal::Person(_) => {
            roles.insert(Role::Person);
        }
        Principal::Node(node) => {
            roles.insert(if node.site() == *site { Role::Node } else { Role::Machine });
        }
        Principal::Core(_) => {
            roles.insert(Role::Machine);
        }
    }
    roles.into_iter().any(|role| allows(role, action))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    /// If it failed, who may do what would have changed unseen.
    #[test]
    fn the_table_is_the_kept_one() {
        let mut text = String::new();
        for action in ACTIONS {
            let who = ROLES.into_iter().filter(|role| allows(*role, action));
            let who: Vec<String> = who.map(|role| format!("{role:?}")).collect();
            let action = format!("{action:?}");
            writeln!(text, "{action:<11} {}", who.join(", ")).unwrap();
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/matrix.txt");
        if std::env::var_os("XOS_BLESS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(text, kept, "{path}; if it is meant so: XOS_BLESS=1");
    }
}
