//! Nodes that die during a round: at most two, so that there is always a quorum.

use pg_quorum_tests::cluster::Cluster;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::index::sample;

/// Which nodes die in a round.
pub fn choose(random: &mut StdRng) -> Vec<usize> {
    match random.random_range(0..4) {
        0 => vec![random.random_range(0..6)],
        1 => {
            let zone = random.random_range(0..3);
            vec![2 * zone, 2 * zone + 1]
        }
        2 => sample(random, 6, 2).into_vec(),
        _ => Vec::new(),
    }
}

pub fn kill(cluster: &mut Cluster, nodes: &[usize]) {
    nodes.iter().for_each(|node| cluster.kill_node(*node));
}

pub fn start(cluster: &mut Cluster, nodes: &[usize]) {
    nodes.iter().for_each(|node| cluster.start_node(*node));
}

/// No node has met a record that it cannot replay, and none has panicked.
///
/// # Panics
/// One has.
pub fn check(cluster: &Cluster) {
    for node in cluster.status() {
        assert_eq!(node.error, None, "{node:?}");
        assert_eq!(node.pages_unbuildable, 0, "{node:?}");
    }
    for node in &cluster.nodes {
        let log = std::fs::read_to_string(node.log()).unwrap_or_default();
        let panics: Vec<&str> = log.lines().filter(|line| line.contains("panicked at")).collect();
        assert!(panics.is_empty(), "{}: {panics:?}", node.name);
    }
}
