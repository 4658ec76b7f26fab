//! DAGs that start each other, or wait for each other, in a circle: said when the last of them is loaded.
//!
//! A circle is no fault, since a branch may leave it; but nobody should meet it by surprise. What a template names is not known before
//! it is rendered, and is left out.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Dag, DagId, Operator, SensorKind};
use crate::scheduler::world::{DagIx, World};

/// What leads from one DAG to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// By an outlet, or by `trigger_dag`.
    Starts,
    /// By a sensor, or by a `trigger_dag` that waits.
    WaitsFor,
}

impl World {
    /// Says the circles that the DAG closes; once for each set of DAGs.
    pub(super) fn say_circles(&mut self, ix: DagIx) {
        for link in [Link::Starts, Link::WaitsFor] {
            let Some(names) = self.circle(ix, link) else { continue };
            let shown = names.join(" >> ");
            let mut members = names;
            members.pop();
            members.sort();
            if !self.said_circles.insert(format!("{link:?} {}", members.join(" "))) {
                continue;
            }
            match link {
                Link::Starts => log::warn!(
                    "these DAGs start each other without an end: {shown}; take an outlet or a `trigger_dag` out, unless that is meant"
                ),
                Link::WaitsFor => log::warn!(
                    "these DAGs wait for each other: {shown}; none of them goes on before the next, so take one of the sensors out"
                ),
            }
        }
    }

    /// The shortest way from the DAG back to itself, in names; the first is the last.
    fn circle(&self, ix: DagIx, link: Link) -> Option<Vec<String>> {
        let mut came_from: BTreeMap<DagIx, DagIx> = BTreeMap::new();
        let mut layer = vec![ix];
        while !layer.is_empty() {
            let mut next_layer = Vec::new();
            for at in layer {
                for next in self.next_of(at, link) {
                    if next == ix {
                        let way = std::iter::successors(Some(at), |step| came_from.get(step).copied());
                        let mut names: Vec<String> = way.map(|step| self.dag(step).record.dag_id.to_string()).collect();
                        names.reverse();
                        names.push(names[0].clone());
                        return Some(names);
                    }
                    if let Entry::Vacant(place) = came_from.entry(next) {
                        place.insert(at);
                        next_layer.push(next);
                    }
                }
            }
            layer = next_layer;
        }
        None
    }

    fn next_of(&self, ix: DagIx, link: Link) -> BTreeSet<DagIx> {
        let mut next = if link == Link::Starts { self.started_by_outlets(ix) } else { BTreeSet::new() };
        let named = self.dag(ix).definition.iter().flat_map(|definition| named(&definition.dag, link));
        next.extend(named.filter_map(|dag_id| self.dag_index.get(&dag_id)).copied());
        next
    }
}

/// The DAGs that the DAG's tasks name.
fn named(dag: &Dag, link: Link) -> Vec<DagId> {
    let of = |operator: &Operator| match (operator, link) {
        (Operator::TriggerDag(trigger), _) if link == Link::Starts || trigger.wait.is_some() => {
            Some(DagId::from(trigger.dag_id.text.as_str()))
        }
        (Operator::Sensor(sensor), Link::WaitsFor) => match &sensor.kind {
            SensorKind::Task(task) => Some(task.dag_id.clone()),
            _ => None,
        },
        _ => None,
    };
    dag.tasks.iter().filter_map(|task| of(&task.operator)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::simulation::world_of;

    fn circle(files: &[(&str, &str)], of: &str, link: Link) -> Option<String> {
        let world = world_of(files);
        let ix = world.dag_index[of];
        world.circle(ix, link).map(|names| names.join(" "))
    }

    #[test]
    fn a_circle_is_named_from_the_dag_that_closes_it() {
        let files = [
            ("a.toml", "tasks.x = { trigger_dag = { dag_id = \"b\" } }"),
            ("b.toml", "tasks.x = { bash = \"x\", outlets = [\"orders\"] }"),
            ("c.toml", "schedule = { assets = \"orders\" }\ntasks.x = { trigger_dag = { dag_id = \"a\" } }"),
            ("d.toml", "tasks.x = { trigger_dag = { dag_id = \"a\" } }"),
            ("e.toml", "tasks.x = { trigger_dag = { dag_id = \"e\" } }"),
        ];
        assert_eq!(circle(&files, "c", Link::Starts).as_deref(), Some("c a b c"));
        assert_eq!(circle(&files, "e", Link::Starts).as_deref(), Some("e e"));
        assert_eq!(circle(&files, "d", Link::Starts), None, "it leads into one, and is not part of it");
        assert_eq!(circle(&files, "a", Link::WaitsFor), None);
    }

    #[test]
    fn dags_that_wait_for_each_other_are_a_circle_of_their_own() {
        let files = [
            ("a.toml", "tasks.x = { sensor = { task = { dag_id = \"b\" } } }"),
            ("b.toml", "tasks.x = { trigger_dag = { dag_id = \"a\", wait_for_completion = true } }"),
        ];
        assert_eq!(circle(&files, "a", Link::WaitsFor).as_deref(), Some("a b a"));
        assert_eq!(circle(&files, "a", Link::Starts), None);
    }
}
