//! Effective priority weights (SEMANTICS 10), and those by the longest path, which Airflow does not have.
//!
//! Knows the graph only. A relative counts once, however many paths lead to it, so that sets are needed, not sums of sums.

use std::time::Duration;

use crate::model::{Graph, TaskIx, WeightRule};

/// The effective weight of each task, by [`TaskIx`]; with `critical_path` its own, until something is known of how long tasks take.
///
/// Relatives are followed for 64 tasks at a time, one bit each, in one sweep over the edges: a graph of `n` tasks and `e` edges
/// costs `n / 64 * (n + e)` steps, and memory for one word a task.
pub fn effective(graph: &Graph) -> Vec<i64> {
    let mut weights: Vec<i64> = graph.indexes().map(|task| graph.node(task).priority_weight).collect();
    let has = |rule| graph.indexes().any(|task| graph.node(task).weight_rule == rule);
    if has(WeightRule::Downstream) {
        let order = sorted(graph, Graph::upstream, Graph::downstream);
        add_relatives(graph, &order, WeightRule::Downstream, &mut weights);
    }
    if has(WeightRule::Upstream) {
        let order = sorted(graph, Graph::downstream, Graph::upstream);
        add_relatives(graph, &order, WeightRule::Upstream, &mut weights);
    }
    weights
}

/// Of a task of which nothing is known, if nothing is known of any.
const UNKNOWN: Duration = Duration::from_secs(10);

/// How long each task takes: what is not known is the median of what is.
pub fn guess(known: &[Option<Duration>]) -> Vec<Duration> {
    let mut all: Vec<Duration> = known.iter().copied().flatten().filter(|lasts| !lasts.is_zero()).collect();
    all.sort_unstable();
    let guessed = all.get(all.len() / 2).copied().unwrap_or(UNKNOWN);
    known.iter().map(|known| known.unwrap_or(guessed)).collect()
}

/// The weight of each task by `critical_path`: the whole seconds, begun ones included, of the longest path from its beginning to the end of
/// the DAG, times its own weight. `lasting`: how long each task takes.
pub fn by_paths(graph: &Graph, lasting: &[Duration]) -> Vec<i64> {
    let mut left = vec![Duration::ZERO; graph.len()];
    for task in sorted(graph, Graph::downstream, Graph::upstream) {
        let after = graph.downstream(task).iter().map(|next| left[next.index()]).max().unwrap_or_default();
        left[task.index()] = after.saturating_add(lasting[task.index()]);
    }
    let seconds = |lasts: Duration| i64::try_from(lasts.as_millis().div_ceil(1_000)).unwrap_or(i64::MAX);
    let weight = |task: TaskIx| seconds(left[task.index()]).saturating_mul(graph.node(task).priority_weight);
    graph.indexes().map(weight).collect()
}

/// All tasks, each after all those that `before` gives for it.
fn sorted<'g>(
    graph: &'g Graph,
    before: impl Fn(&'g Graph, TaskIx) -> &'g [TaskIx],
    after: impl Fn(&'g Graph, TaskIx) -> &'g [TaskIx],
) -> Vec<TaskIx> {
    let mut missing: Vec<usize> = graph.indexes().map(|task| before(graph, task).len()).collect();
    let mut order: Vec<TaskIx> = graph.indexes().filter(|task| missing[task.index()] == 0).collect();
    let mut at = 0;
    while at < order.len() {
        for next in after(graph, order[at]) {
            missing[next.index()] -= 1;
            if missing[next.index()] == 0 {
                order.push(*next);
            }
        }
        at += 1;
    }
    order
}

/// Adds to each task of `rule` the own weights of all that is reached from it. `order` has each task before those that it reaches.
fn add_relatives(graph: &Graph, order: &[TaskIx], rule: WeightRule, weights: &mut [i64]) {
    let mut place = vec![0_usize; graph.len()];
    for (at, task) in order.iter().enumerate() {
        place[task.index()] = at;
    }
    // Edges by place in `order`: the sweep below then walks memory in a straight line.
    let next: Vec<Vec<u32>> = order
        .iter()
        .map(|&task| {
            let relatives = if rule == WeightRule::Upstream { graph.upstream(task) } else { graph.downstream(task) };
            relatives.iter().map(|relative| place[relative.index()] as u32).collect()
        })
        .collect();
    let mut reached = vec![0_u64; order.len()];
    for (block, targets) in order.chunks(64).enumerate() {
        let first = block * 64;
        let sums = ByteSums::of(graph, targets);
        // Nothing after the block's last target reaches into the block.
        for at in (0..first + targets.len()).rev() {
            let beyond = next[at].iter().filter(|&&to| (to as usize) < first + targets.len());
            let relatives = beyond.fold(0, |bits, &to| bits | reached[to as usize]);
            if graph.node(order[at]).weight_rule == rule {
                weights[order[at].index()] += sums.sum(relatives);
            }
            reached[at] = relatives | if at >= first { 1 << (at - first) } else { 0 };
        }
    }
}

/// Sums of the own weights of up to 64 tasks, for each value of each byte of a set of them.
struct ByteSums(Vec<[i64; 256]>);

impl ByteSums {
    fn of(graph: &Graph, tasks: &[TaskIx]) -> Self {
        let of_eight = |tasks: &[TaskIx]| {
            let mut sums = [0; 256];
            for value in 1..1_usize << tasks.len() {
                let own = graph.node(tasks[value.trailing_zeros() as usize]).priority_weight;
                sums[value] = sums[value & (value - 1)] + own;
            }
            sums
        };
        Self(tasks.chunks(8).map(of_eight).collect())
    }

    fn sum(&self, set: u64) -> i64 {
        if set == 0 {
            return 0;
        }
        set.to_le_bytes().iter().zip(&self.0).map(|(&value, sums)| sums[value as usize]).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::model::Node;

    fn node(priority_weight: i64, weight_rule: WeightRule) -> Node {
        Node { priority_weight, weight_rule, ..Node::default() }
    }

    fn graph(nodes: Vec<Node>, edges: impl IntoIterator<Item = (u32, u32)>) -> Graph {
        let edges: Vec<_> = edges.into_iter().map(|(up, down)| (TaskIx(up), TaskIx(down))).collect();
        Graph::new(nodes, &edges).unwrap()
    }

    #[test]
    fn a_relative_on_two_paths_counts_once() {
        let diamond = graph(vec![node(1, WeightRule::Downstream); 4], [(0, 1), (0, 2), (1, 3), (2, 3)]);
        assert_eq!(effective(&diamond), [4, 2, 2, 1]);
        let diamond = graph(vec![node(1, WeightRule::Upstream); 4], [(0, 1), (0, 2), (1, 3), (2, 3)]);
        assert_eq!(effective(&diamond), [1, 2, 2, 4]);
    }

    #[test]
    fn each_task_uses_its_own_rule_but_the_raw_weights_of_others() {
        let chain = graph(
            vec![node(10, WeightRule::Absolute), node(5, WeightRule::Upstream), node(1, WeightRule::Downstream)],
            [(0, 1), (1, 2)],
        );
        assert_eq!(effective(&chain), [10, 15, 1]);
    }

    #[test]
    fn by_the_longest_path_a_weight_is_the_time_that_is_left_times_the_own_weight() {
        let rule = WeightRule::CriticalPath;
        // 0 -> 1 -> 3 and 0 -> 2 -> 3, then 4 alone.
        let nodes = vec![node(1, rule), node(2, rule), node(1, rule), node(-3, rule), node(0, rule)];
        let diamond = graph(nodes, [(0, 1), (0, 2), (1, 3), (2, 3)]);
        let lasting = [10, 20, 300, 5, 70].map(Duration::from_secs);
        assert_eq!(by_paths(&diamond, &lasting), [315, 50, 305, -15, 0]);
        let begun = [1, 1, 1, 2_000, 0].map(Duration::from_millis);
        assert_eq!(by_paths(&diamond, &begun), [3, 6, 3, -6, 0], "a second that has begun counts");
        assert_eq!(by_paths(&diamond, &[Duration::MAX; 5])[0], i64::MAX);
        assert_eq!(effective(&diamond), [1, 2, 1, -3, 0]);
    }

    #[test]
    fn what_is_not_known_takes_as_long_as_others_do() {
        let seconds = |all: &[u64]| all.iter().copied().map(Duration::from_secs).collect::<Vec<_>>();
        let known = |all: &[Option<u64>]| all.iter().map(|it| it.map(Duration::from_secs)).collect::<Vec<_>>();
        assert_eq!(
            guess(&known(&[None, Some(3), Some(0), Some(900), Some(40), None])),
            seconds(&[40, 3, 0, 900, 40, 40])
        );
        assert_eq!(guess(&known(&[None, Some(0)])), seconds(&[10, 0]));
    }

    #[test]
    fn a_chain_of_two_thousand_counts_all_that_follow() {
        let chain = graph(vec![node(1, WeightRule::Downstream); 2_000], (1..2_000).map(|i| (i - 1, i)));
        let expected: Vec<i64> = (1..=2_000).rev().collect();
        assert_eq!(effective(&chain), expected);
    }

    fn by_definition(graph: &Graph, task: TaskIx) -> i64 {
        let next = match graph.node(task).weight_rule {
            WeightRule::Absolute | WeightRule::CriticalPath => return graph.node(task).priority_weight,
            WeightRule::Downstream => Graph::downstream,
            WeightRule::Upstream => Graph::upstream,
        };
        let mut set = BTreeSet::from([task]);
        let mut open = vec![task];
        while let Some(at) = open.pop() {
            open.extend(next(graph, at).iter().copied().filter(|&relative| set.insert(relative)));
        }
        set.iter().map(|&relative| graph.node(relative).priority_weight).sum()
    }

    proptest! {
        #[test]
        fn every_weight_is_the_sum_over_the_set_of_relatives(
            nodes in prop::collection::vec((-100_i64..100, 0..WeightRule::ALL.len()), 1..200),
            edges in prop::collection::vec((any::<u32>(), any::<u32>()), 0..400),
        ) {
            let count = nodes.len() as u32;
            let nodes = nodes.into_iter().map(|(weight, rule)| node(weight, WeightRule::ALL[rule])).collect();
            // Every edge leads to a lower number: the order of the nodes is no topological one.
            let edges = edges.into_iter().map(|(a, b)| (a % count, b % count)).filter(|(a, b)| a > b);
            let graph = graph(nodes, edges);
            let expected: Vec<i64> = graph.indexes().map(|task| by_definition(&graph, task)).collect();
            prop_assert_eq!(effective(&graph), expected);
        }
    }
}
