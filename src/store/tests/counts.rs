//! The kept counts equal a real count, whatever happens.

use proptest::prelude::*;

use super::*;
use crate::scheduler::Store;

/// One step: of which instance and run, what becomes of them, and whether the turn fails.
type Step = (usize, usize, usize, usize, bool);

fn turn(states: &mut [Option<TaskState>], runs: &mut [Option<RunState>], step: Step) -> Changes {
    let (which, task_state, which_run, run_state, _) = step;
    let mut changes = Changes::default();
    let new_state = TaskState::ALL[task_state];
    let instance = instance(which as i64 + 1, 1, &format!("t{which}"), new_state);
    changes.instances.push(InstanceWrite { prior: states[which], ..new_instance(instance) });
    states[which] = Some(new_state);
    let new_run_state = RunState::ALL[run_state];
    let run = run(which_run as i64 + 1, "sales", new_run_state);
    changes.runs.push(RunWrite { run, prior: runs[which_run] });
    runs[which_run] = Some(new_run_state);
    changes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn kept_counts_equal_counted_ones_over_random_turns_that_may_fail(
        steps in prop::collection::vec((0..6_usize, 0..14_usize, 0..3_usize, 0..4_usize, any::<bool>()), 1..40)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut database = Database::open(&folder.path().join("minflow.db"), Synchronous::Normal).unwrap();
        database.commit(&Changes { dags: vec![dag("sales", 1)], versions: vec![version(1, "sales")], ..Changes::default() }).unwrap();
        let (mut states, mut runs) = (vec![None; 6], vec![None; 3]);
        // Run 1 stands for all instances.
        database.commit(&turn(&mut states, &mut runs, (0, 0, 0, 0, false))).unwrap();
        for step in steps {
            let (mut states_then, mut runs_then) = (states.clone(), runs.clone());
            let changes = turn(&mut states_then, &mut runs_then, step);
            if step.4 {
                let mut failing = changes.clone();
                failing.instances.push(InstanceWrite { prior: Some(TaskState::Queued), ..new_instance(instance(99, 1, "x", TaskState::Failed)) });
                prop_assert!(database.commit(&failing).is_err());
            }
            database.commit(&changes).unwrap();
            (states, runs) = (states_then, runs_then);
        }
        prop_assert_eq!(reader_in(folder.path()).check().unwrap(), Vec::<String>::new());
    }
}
