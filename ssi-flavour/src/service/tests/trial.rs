//! What nodes are like, and what they say of programs.

use super::*;
use crate::cluster::clock::ClockSeen;

/// If it failed, a job for a node would go to a cluster, or the other way round.
#[tokio::test]
async fn a_cluster_has_no_nodes_name() {
    let world = cluster().await;
    for name in ["n1.rennes", "quiet.rennes"] {
        assert!(world.service.is_node(name).await.unwrap(), "{name}");
    }
    assert!(!world.service.is_node("c7.rennes").await.unwrap());
    let named = |name: &str| ClusterNames::has(&*world.service, &name.parse().unwrap());
    assert!(named("c1.rennes") && !named("n1.rennes"));
}

/// If it failed, a person would see a status, and the reason be in a log on a node; or a node could
/// fill the core's memory with it.
#[tokio::test]
async fn why_a_node_did_not_start_a_program_is_shown() {
    let mut world = cluster().await;
    let tree = world.runs().await;
    let why = format!("its account here is another's: {}", "x".repeat(9000));
    let end = crate::cluster::messages::End::Exit { code: 126 };
    let facts = vec![Fact::Ended { tree, epoch: 1, end, why }];
    world.say(1, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    let told = |trees: Vec<xos_api::cluster::ClusterTree>| {
        let shown = &trees[0];
        assert_eq!((trees.len(), shown.status), (1, Some(126)));
        assert!(shown.refused.starts_with("its account here"), "{}", shown.refused);
        assert!(shown.refused.len() <= crate::cluster::messages::WHY_CHARS_MAX);
    };
    told(world.cluster().await.tree_list(|_| true));
    // Also when nothing is left of it.
    let facts = vec![Fact::Finished { tree }];
    world.say(1, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    told(world.cluster().await.tree_list(|_| true));
}

/// If it failed, programs would come to a node where their tickets are not valid yet, or never
/// again to one whose clock was set right; or a record be kept with each heartbeat.
#[tokio::test]
async fn nothing_comes_to_a_node_whose_clock_is_wrong() {
    let mut world = cluster().await;
    let tree = world.runs().await;
    let two = NodeNumber::try_from(2u8).unwrap();
    let told = async |ahead_ms: i64| {
        let clock = Some(ClockSeen { ahead_ms, give_ms: 40 });
        let (messages, used) = Default::default();
        let say = ClusterSay { messages, looks: None, used, clock };
        world.service.say(&node(2), say).await.unwrap();
        let c = world.cluster().await;
        let view = c.view(Millis(0));
        let seen = view.nodes.iter().find(|n| n.node == node(2)).unwrap();
        let may = c.controller.can_migrate(tree, two).map_err(|e| e.to_string());
        (may, seen.moves_not.clone(), seen.looks.as_ref().unwrap().clock_ahead_ms)
    };
    let (may, moves_not, ahead) = told(59_000).await;
    assert!(may.is_ok() && moves_not.is_empty() && ahead == Some(59_000), "{may:?}");
    let (may, moves_not, _) = told(-75_000).await;
    assert!(may.unwrap_err().contains("75 s behind"));
    assert!(moves_not.contains("75 s behind"), "{moves_not}");
    // As long as it is wrong that is said once; when the way took too long to tell nothing changes.
    let kept = || world.records.kept.lock().unwrap()[&id()].nodes[&two].clock.clone();
    let first = kept();
    for ahead_ms in [-99_000, 60_000] {
        assert!(told(ahead_ms).await.0.is_err());
        assert_eq!(kept(), first);
    }
    assert!(told(0).await.0.is_ok());
    assert!(kept().is_empty());
}

/// If it failed, nobody would see why programs do not move between two nodes, or a node could fill
/// the core's memory.
#[tokio::test]
async fn what_the_processors_of_a_node_lack_is_shown() {
    let world = cluster().await;
    let says = async |n: u8, cpu_group: u64, cpu_words: &str| {
        world.beats(n, 0, &[]).await.unwrap();
        let number = NodeNumber::try_from(n).unwrap();
        let mut held = world.cluster().await;
        let c = &mut *held;
        let mut looks = c.looks[&number].0.clone();
        (looks.cpu_group, looks.cpu_words) = (cpu_group, cpu_words.to_owned());
        let (sent, copies, images) = (Millis(0), Vec::new(), Vec::new());
        let beat = ToController::Beat { term: 1, sent, copies, images };
        look(c, number, &[beat], looks, Millis(0));
        let view = c.view(Millis(0));
        view.nodes.into_iter().map(|n| n.processors).collect::<Vec<_>>()
    };
    let told = says(1, 7, "avx fpu sse2").await;
    assert_eq!(told, ["", "other processors than n1.rennes: without avx, fpu, sse2"]);
    let told = says(2, 8, "fpu pku sse2").await;
    assert_eq!(told, ["", "other processors than n1.rennes: without avx, with pku"]);
    says(2, 9, &"x ".repeat(CPU_BYTES_MAX)).await;
    let two = NodeNumber::try_from(2u8).unwrap();
    assert!(world.cluster().await.looks[&two].0.cpu_words.is_empty());
}
