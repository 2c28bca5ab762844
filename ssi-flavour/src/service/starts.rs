//! How many programs a node is told of at a time: frames have a limit, and a heartbeat is answered
//! whatever waits to be started.

use crate::cluster::messages::{Order, ToNode, TreeId};
use crate::wire::Program;
use std::collections::BTreeSet;

/// Most programs in one answer.
const PROGRAMS_MAX: usize = 64;
/// Most bytes of them, as they are sent; one alone may have more.
const BYTES_MAX: usize = 1024 * 1024;

/// What the trees are that messages start or restore, as `told` has it, as many as go at a time:
/// those after `after` first, in the order in which they are returned. The orders to start or
/// restore others are taken out: they are said again.
pub(super) fn fit(
    messages: &mut [ToNode],
    after: Option<TreeId>,
    told: impl Fn(TreeId) -> Option<Program>,
) -> Vec<(TreeId, Program)> {
    let orders = messages.iter().flat_map(|m| match m {
        ToNode::Told { orders, .. } => orders.as_slice(),
        _ => &[],
    });
    let trees: BTreeSet<TreeId> = orders.filter_map(begins).collect();
    let (first, later): (Vec<TreeId>, Vec<TreeId>) =
        trees.into_iter().partition(|tree| after.is_none_or(|after| *tree > after));
    let (mut programs, mut bytes) = (Vec::new(), 0);
    for tree in first.into_iter().chain(later) {
        let Some(program) = told(tree) else { continue };
        bytes += serde_json::to_vec(&program).map_or(BYTES_MAX, |text| text.len());
        if !programs.is_empty() && (programs.len() >= PROGRAMS_MAX || bytes > BYTES_MAX) {
            break;
        }
        programs.push((tree, program));
    }
    let fits: BTreeSet<TreeId> = programs.iter().map(|(tree, _)| *tree).collect();
    for message in messages {
        if let ToNode::Told { orders, .. } = message {
            orders.retain(|order| begins(order).is_none_or(|tree| fits.contains(&tree)));
        }
    }
    programs
}

/// The tree that an order starts or restores, or will.
fn begins(order: &Order) -> Option<TreeId> {
    match order {
        Order::Start { tree, .. } | Order::Expect { tree, .. } | Order::Restore { tree, .. } => {
            Some(*tree)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::program;
    use super::*;
    use xos_base::Millis;

    fn starts(trees: std::ops::Range<u64>) -> Vec<ToNode> {
        let start = |tree| Order::Start { tree: TreeId(tree), epoch: 1 };
        let mut orders: Vec<Order> = trees.map(start).collect();
        orders.insert(0, Order::Kill { tree: TreeId(1000), epoch: 1 });
        vec![ToNode::Told { term: 1, sent: Millis(5), orders }]
    }

    fn ids(programs: &[(TreeId, Program)]) -> Vec<u64> {
        programs.iter().map(|(tree, _)| tree.0).collect()
    }

    #[test]
    fn many_programs_go_in_turns() {
        // wrong: a heartbeat's answer would be too large for a frame, so that all programs of the
        // node stand still; or the first ones would keep others from ever starting
        let fit_after = |after| {
            let mut messages = starts(0..100);
            let programs = fit(&mut messages, after, |_| Some(program(40_000)));
            let [ToNode::Told { orders, .. }] = messages.as_slice() else { panic!() };
            assert_eq!(orders.len(), programs.len() + 1, "the others are said later");
            assert!(matches!(orders[0], Order::Kill { .. }));
            ids(&programs)
        };
        assert_eq!(fit_after(None), (0..64).collect::<Vec<u64>>());
        let then = fit_after(Some(TreeId(63)));
        assert_eq!(then, (64..100).chain(0..28).collect::<Vec<u64>>());
    }

    #[test]
    fn large_programs_go_one_at_a_time() {
        // wrong: as above, and one that is large would never start
        let large = |_: TreeId| {
            let argv = vec!["x".repeat(BYTES_MAX)];
            Some(Program { argv, ..program(40_000) })
        };
        assert_eq!(ids(&fit(&mut starts(3..9), None, large)), [3]);
        assert_eq!(ids(&fit(&mut starts(3..9), Some(TreeId(3)), large)), [4]);
    }

    #[test]
    fn what_nobody_knows_is_not_started() {
        // wrong: the node would have a copy that never begins
        let mut messages = starts(0..2);
        let known = |tree: TreeId| (tree.0 == 1).then(|| program(40_000));
        assert_eq!(ids(&fit(&mut messages, None, known)), [1]);
        assert!(!format!("{messages:?}").contains("TreeId(0)"), "{messages:?}");
    }
}
