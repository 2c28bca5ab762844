//! Whose rights a node is given.

use super::*;
use crate::wire::{ClusterRight, PersonRight, TreeUnit};
use xos_api::node::units::EnvelopeId;
use xos_base::Kind;

impl World {
    async fn right(&self, n: u8, uid: u32) -> Result<PersonRight, Error> {
        let r = ClusterRight { cluster: id(), uid };
        self.service.right_at(&node(n), "0f", &r).await
    }

    /// The program of a tree is another one.
    async fn edit(&self, tree: TreeId, edit: impl FnOnce(&mut Program)) {
        let mut c = self.cluster().await;
        edit(c.programs.get_mut(&tree).unwrap());
    }
}

/// If it failed, a node that somebody broke into could act for everybody whose mandate it ever saw,
/// for weeks; or a node would lose rights that its programs need.
#[tokio::test]
async fn a_node_has_the_rights_of_whose_programs_are_there() {
    let mut world = cluster().await;
    let tree = world.runs().await;
    let none = world.right(1, 100_001).await.unwrap_err();
    assert_eq!(none.kind, Kind::NotFound);
    world.edit(tree, |p| p.mandate = Some("m1".into())).await;
    let ticket = PersonRight::Ticket { ticket: "rennes: m1 at n1.rennes for 0f".into() };
    assert_eq!(world.right(1, 100_001).await.unwrap(), ticket);
    for (n, uid) in [(2, 100_001), (1, 100_002), (9, 100_001)] {
        assert_eq!(world.right(n, uid).await.unwrap_err().kind, Kind::Denied, "n{n} {uid}");
    }
    // The newest mandate is void: the one before is good.
    let other = world.runs().await;
    world.edit(other, |p| p.mandate = Some("void".into())).await;
    assert_eq!(world.right(1, 100_001).await.unwrap(), ticket);
    let end = crate::cluster::messages::End::Exit { code: 0 };
    for tree in [tree, other] {
        let facts = vec![Fact::Ended { tree, epoch: 1, end, why: String::new() }];
        world.say(1, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    }
    assert_eq!(world.right(1, 100_001).await.unwrap_err().kind, Kind::Denied);
}

/// If it failed, what was held of a suspended person would go on without its volume once they are
/// resumed, until something else of theirs happens to start on the same node; or who runs nothing
/// at a node would be given to it.
#[tokio::test]
async fn a_new_mandate_is_good_for_all_that_its_person_runs() {
    let mut world = cluster().await;
    let tree = world.runs().await;
    world.edit(tree, |p| p.mandate = Some("void".into())).await;
    assert_eq!(world.right(1, 100_001).await.unwrap_err().message, "it has ended");
    for (uid, mandate) in [(100_001, "new"), (100_002, "another's")] {
        world.cluster().await.brought(uid, mandate);
    }
    let ticket = PersonRight::Ticket { ticket: "rennes: new at n1.rennes for 0f".into() };
    assert_eq!(world.right(1, 100_001).await.unwrap(), ticket);
    for (n, uid) in [(2, 100_001), (1, 100_002)] {
        assert_eq!(world.right(n, uid).await.unwrap_err().kind, Kind::Denied, "n{n} {uid}");
    }
    let envelope = EnvelopeId { job: "1.rennes".parse().unwrap(), serial: 3 };
    let unit = TreeUnit { envelope, unit: 0, attempt: 0 };
    world.edit(tree, |p| (p.mandate, p.unit) = (None, Some(unit))).await;
    assert_eq!(world.right(1, 100_001).await.unwrap(), ticket, "the job's may be void");
    // Who runs nothing any more brings another one.
    world.cluster().await.brought(100_003, "third");
    assert_eq!(world.cluster().await.mandates.keys().collect::<Vec<_>>(), [&100_001, &100_003]);
}

/// If it failed, a job's unit in a cluster would be without its volume.
#[tokio::test]
async fn a_unit_has_its_right_by_its_envelope() {
    let mut world = cluster().await;
    let tree = world.runs().await;
    let envelope = EnvelopeId { job: "1.rennes".parse().unwrap(), serial: 3 };
    let unit = TreeUnit { envelope: envelope.clone(), unit: 0, attempt: 0 };
    world.edit(tree, |p| p.unit = Some(unit)).await;
    assert_eq!(world.right(1, 100_001).await.unwrap(), PersonRight::Unit { envelope });
}

/// If it failed, all mandates of what a node ever ran would be in the hands of who breaks into it.
#[tokio::test]
async fn nodes_are_not_told_mandates() {
    let mut world = cluster().await;
    let tree = world.runs().await;
    world.edit(tree, |p| p.mandate = Some("secret".into())).await;
    let orders = vec![Order::Start { tree, epoch: 1 }];
    let mut messages = vec![ToNode::Told { term: 1, sent: Millis(0), orders }];
    let c = world.cluster().await;
    let programs = c.programs_of(&mut messages, None);
    assert_eq!(programs.len(), 1);
    assert!(!format!("{programs:?}").contains("secret"));
}
