//! Who may have a stream.

use super::*;
use crate::cluster::messages::{Image, Offsets};
use crate::service::may::allows;
use crate::wire::Comer;

/// If it failed, a node that has a tree for a while could name an epoch that no copy ever gets, and
/// nobody would see what the tree writes from then on.
#[tokio::test]
async fn only_the_copy_that_is_the_tree_brings_output() {
    let mut world = cluster().await;
    let tree = world.runs().await;
    let may = async |n: u8, epoch: u64| {
        let c = world.cluster().await;
        let comer = Comer::Output { node: node(n), epoch };
        allows(&c, tree, &comer, &node(1))
    };
    assert!(may(1, 1).await);
    for (n, epoch) in [(1, 0), (1, 2), (1, u64::MAX), (2, 1), (2, 2), (9, 1)] {
        assert!(!may(n, epoch).await, "{n} {epoch}");
    }
    let [one, two] = [1_u8, 2].map(|n| NodeNumber::try_from(n).unwrap());
    {
        let mut held = world.cluster().await;
        let c = &mut *held;
        let effects = c.controller.migrate(tree, two, Millis(0)).unwrap();
        world.service.pass_on(c, effects).await;
    }
    let image = Image {
        version: 1,
        output: Offsets::default(),
        bytes: 1,
        freeze_ms: 1,
        still_ms: 1,
        nodes: BTreeSet::from([one]),
        shared: false,
        written: BTreeSet::new(),
        brief: BTreeSet::new(),
    };
    let facts = vec![Fact::Dumped { tree, epoch: 1, attempt: 2, image }];
    world.say(1, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    assert!(may(1, 1).await, "it is the tree until the move is recorded");
    for (n, epoch) in [(2, 1), (2, 2), (2, u64::MAX)] {
        assert!(!may(n, epoch).await, "{n} {epoch}: the attempt may fail");
    }
    let facts = vec![Fact::Restored { tree, epoch: 2 }];
    world.say(2, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    assert!(may(2, 2).await && !may(1, 1).await, "it is another copy now");
    let other = TreeId(tree.0 + 1);
    let c = world.cluster().await;
    let comer = Comer::Output { node: node(2), epoch: 2 };
    assert!(!allows(&c, other, &comer, &node(1)), "no such tree");
    assert!(!allows(&c, tree, &comer, &node(2)), "its spool is elsewhere");
}
