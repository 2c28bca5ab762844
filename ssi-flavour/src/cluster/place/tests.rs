use super::*;
use crate::cluster::cost::Arrived;

fn vo() -> VoId {
    "demo.rennes".parse().unwrap()
}

fn node(number: u8, cpus: u32, load: u64) -> NodeView {
    NodeView {
        number: NodeNumber::try_from(number).unwrap(),
        cpus,
        load: Load { mean: load, upper: load },
        coming: 0,
        online: true,
        moves: true,
        takes: true,
        cpu_group: 1,
        serves: BTreeSet::from([vo()]),
        leaving: 0,
        last_move: None,
    }
}

fn hog(tree: u64, on: u8) -> TreeView {
    TreeView {
        tree: TreeId(tree),
        node: NodeNumber::try_from(on).unwrap(),
        vo: vo(),
        load: ONE,
        age: Duration::from_secs(60),
        here: HERE_MIN,
        bytes: 32 << 20,
        moves: true,
    }
}

fn new_tree() -> Need {
    Need { vo: vo(), cpu_group: None, near: None }
}

fn moves(nodes: &[NodeView], trees: &[TreeView]) -> Vec<(u64, u8)> {
    moves_at(nodes, trees, &Costs::default())
}

fn moves_at(nodes: &[NodeView], trees: &[TreeView], costs: &Costs) -> Vec<(u64, u8)> {
    let all = balance(&Policy::default(), nodes, trees, costs, Millis(100_000));
    all.into_iter().map(|m| (m.tree.0, m.to.into())).collect()
}

#[test]
fn the_probe_forgets() {
    let mut load = Load::default();
    load.sample(8000);
    assert_eq!(load, Load { mean: 3000, upper: 8000 });
    load.sample(0);
    assert_eq!(load, Load { mean: 1875, upper: 7000 });
    load.sample(u64::MAX);
    load.sample(u64::MAX);
}

#[test]
fn new_trees_go_where_most_is_free_of_one_processor() {
    let p = Policy::default();
    let on = |n: u8| Choice::On(NodeNumber::try_from(n).unwrap());
    let nodes = [node(1, 2, 1000), node(2, 8, 3000)];
    assert_eq!(place(&p, &nodes, &new_tree()), on(2));
    let equal = [node(1, 2, 0), node(2, 2, 0)];
    assert_eq!(place(&p, &equal, &new_tree()), on(1));
    let near = Need { near: NodeNumber::try_from(2u8).ok(), ..new_tree() };
    assert_eq!(place(&p, &equal, &near), on(2));
    // What was just sent counts.
    let mut sent = equal.clone();
    sent[0].coming = ONE;
    assert_eq!(place(&p, &sent, &new_tree()), on(2));
}

#[test]
fn when_all_are_full_a_tree_waits() {
    let nodes = [node(1, 2, 4000), node(2, 1, 2000)];
    assert_eq!(place(&Policy::default(), &nodes, &new_tree()), Choice::Queue);
}

#[test]
fn nodes_that_do_not_serve_the_vo_or_have_other_processors_are_left_out() {
    let p = Policy::default();
    let mut nodes = [node(1, 2, 0), node(2, 2, 5000)];
    nodes[0].cpu_group = 2;
    let restarted = Need { cpu_group: Some(1), ..new_tree() };
    assert_eq!(place(&p, &nodes, &restarted), Choice::Queue);
    nodes[1].serves.clear();
    let Choice::Nowhere { reason } = place(&p, &nodes, &restarted) else { panic!("placed") };
    assert!(reason.contains("processors"), "{reason}");
    nodes[0].serves.clear();
    let Choice::Nowhere { reason } = place(&p, &nodes, &new_tree()) else { panic!("placed") };
    assert!(reason.contains("demo.rennes"), "{reason}");
    assert_eq!(moves(&[node(1, 1, 3000), nodes[1].clone()], &[hog(1, 1)]), []);
}

/// If it failed, programs would come to a node whose clock is wrong, or could not leave it.
#[test]
fn a_node_that_takes_none_sends_its_own_away() {
    let mut nodes = [node(1, 1, 3000), node(2, 1, 0)];
    nodes[0].takes = false;
    assert_eq!(moves(&nodes, &[hog(1, 1)]), [(1, 2)]);
    nodes[1].takes = false;
    assert_eq!(moves(&nodes, &[hog(1, 1)]), []);
}

/// If it failed, a checkpoint would lie twice on one node, or where nothing can restart it
/// though another node could.
#[test]
fn copies_go_to_the_birth_node_and_else_where_a_restart_can_be() {
    let number = |n: u8| NodeNumber::try_from(n).unwrap();
    let mut nodes = [node(1, 2, 500), node(2, 2, 0), node(3, 2, 100), node(4, 2, 0)];
    nodes[3].cpu_group = 2;
    let need = Need { cpu_group: Some(1), near: Some(number(1)), ..new_tree() };
    let to = |nodes: &[NodeView], has: &[u8]| {
        let has = has.iter().map(|n| number(*n)).collect();
        hold(nodes, &need, &has).map(u8::from)
    };
    assert_eq!(to(&nodes, &[2]), Some(1));
    assert_eq!(to(&nodes, &[1]), Some(2));
    assert_eq!(to(&nodes, &[1, 2]), Some(3));
    assert_eq!(to(&nodes, &[1, 2, 3]), None, "its processors differ");
    nodes[0].online = false;
    nodes[1].serves.clear();
    assert_eq!(to(&nodes, &[]), Some(3));
}

#[test]
fn a_loaded_node_sends_one_away() {
    let nodes = [node(1, 1, 3000), node(2, 1, 0)];
    assert_eq!(moves(&nodes, &[hog(1, 1), hog(2, 1), hog(3, 1)]), [(1, 2)]);
}

#[test]
fn below_the_threshold_or_without_advantage_nothing_moves() {
    assert_eq!(moves(&[node(1, 1, 1400), node(2, 1, 0)], &[hog(1, 1)]), []);
    // 1.0 + 1.3 is more than 2.0: it would come back.
    assert_eq!(moves(&[node(1, 1, 2000), node(2, 1, 1000)], &[hog(1, 1)]), []);
    assert_eq!(moves(&[node(1, 1, 2400), node(2, 1, 1000)], &[hog(1, 1)]), [(1, 2)]);
}

#[test]
fn a_move_that_costs_more_than_it_gains_is_left() {
    let nodes = [node(1, 1, 2000), node(2, 1, 0)];
    // From a half to a whole processor: half of its age is gained.
    let mut t = hog(1, 1);
    // 2 s, as is reckoned.
    (t.age, t.bytes) = (Duration::from_secs(12), 634_000_000);
    assert_eq!(moves(&nodes, &[t.clone()]), []);
    t.age = Duration::from_secs(14);
    assert_eq!(moves(&nodes, &[t]), [(1, 2)]);
}

/// If it failed, what was measured would keep nothing from a move that is not worth it, or
/// hold back one that is.
#[test]
fn what_was_measured_counts_in_place_of_what_was_reckoned() {
    let nodes = [node(1, 1, 2000), node(2, 1, 0)];
    let seen = |ms: u64| {
        let mut costs = Costs::default();
        let (from, to) = (nodes[0].number, nodes[1].number);
        let (still, took) = (Duration::from_millis(ms), Duration::from_millis(ms));
        costs.add(Arrived { from, to, bytes: 32 << 20, still, took });
        costs
    };
    // It gains half of its minute.
    assert_eq!(moves_at(&nodes, &[hog(1, 1)], &seen(9_900)), [(1, 2)]);
    assert_eq!(moves_at(&nodes, &[hog(1, 1)], &seen(10_100)), []);
    let mut large = hog(1, 1);
    large.bytes = 4 << 30;
    assert_eq!(moves(&nodes, &[large.clone()]), []);
    assert_eq!(moves_at(&nodes, &[large], &seen(1)), [(1, 2)]);
}

#[test]
fn moves_are_spaced_and_few_at_a_time() {
    let trees = [hog(1, 1)];
    let mut nodes = [node(1, 1, 3000), node(2, 1, 0)];
    nodes[0].last_move = Some(Millis(98_001));
    assert_eq!(moves(&nodes, &trees), []);
    nodes[0].last_move = Some(Millis(98_000));
    assert_eq!(moves(&nodes, &trees), [(1, 2)]);
    nodes[0].leaving = 1;
    assert_eq!(moves(&nodes, &trees), [], "one for two processors");
    nodes[0].cpus = 4;
    nodes[0].load.mean = 12_000;
    assert_eq!(moves(&nodes, &trees), [(1, 2)]);
}

#[test]
fn two_nodes_do_not_fill_a_third() {
    let nodes = [node(1, 1, 2000), node(2, 1, 2000), node(3, 1, 0)];
    assert_eq!(moves(&nodes, &[hog(1, 1), hog(2, 2)]), [(1, 3)]);
}

#[test]
fn a_drained_node_says_what_stays() {
    let mut nodes = [node(1, 2, 2000), node(2, 2, 0), node(3, 2, 0)];
    nodes[0].online = false;
    let mut stays = hog(3, 1);
    stays.moves = false;
    let one = NodeNumber::try_from(1u8).unwrap();
    let plan = drain(&nodes, &[hog(1, 1), hog(2, 1), stays, hog(4, 2)], one);
    let to = |n: u8| Choice::On(NodeNumber::try_from(n).unwrap());
    assert_eq!(plan[..2], [(TreeId(1), to(2)), (TreeId(2), to(3))]);
    assert_eq!(plan.len(), 3);
    assert!(matches!(&plan[2], (TreeId(3), Choice::Nowhere { .. })));
}

/// If it failed, a program would be moved away again at once from where its person had it moved to.
#[test]
fn what_just_came_stays_for_a_while() {
    let nodes = [node(1, 1, 4 * ONE), node(2, 1, 0)];
    let came = |here| TreeView { here, ..hog(7, 1) };
    let short = HERE_MIN - Duration::from_millis(1);
    assert!(moves(&nodes, &[came(short)]).is_empty());
    assert_eq!(moves(&nodes, &[came(HERE_MIN)]), [(7, 2)]);
}
