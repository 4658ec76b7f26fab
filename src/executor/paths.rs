//! Where a try's log and files lie (DESIGN: what a task sees; CONTRACTS 7). The only place that spells these paths.

use std::path::{Path, PathBuf};

use crate::model::Hook;

/// `LOGS/dag_id=D/run_id=R/task_id=T/[map_index=M/]attempt=N.log`; `map_index` is -1 unless the task is mapped.
pub fn log_path(logs: &Path, dag_id: &str, run_id: &str, task_id: &str, map_index: i32, try_number: u32) -> PathBuf {
    let run = format!("run_id={}", run_id.replace('/', "_"));
    let mut path = logs.join(format!("dag_id={dag_id}")).join(run).join(format!("task_id={task_id}"));
    if map_index >= 0 {
        path.push(format!("map_index={map_index}"));
    }
    path.push(format!("attempt={try_number}.log"));
    path
}

/// A callback's log: `attempt=N.HOOK_NUMBER.log` beside that of the try (`task_id`, `map_index`, `try_number`) that it is about, else
/// `LOGS/dag_id=D/run_id=R/HOOK_NUMBER.log`.
pub fn callback_log(
    logs: &Path,
    dag_id: &str,
    run_id: &str,
    of_try: Option<(&str, i32, u32)>,
    hook: Hook,
    number: u32,
) -> PathBuf {
    match of_try {
        Some((task_id, map_index, try_number)) => {
            let log = log_path(logs, dag_id, run_id, task_id, map_index, try_number);
            log.with_file_name(format!("attempt={try_number}.{hook}_{number}.log"))
        }
        None => {
            let run = format!("run_id={}", run_id.replace('/', "_"));
            logs.join(format!("dag_id={dag_id}")).join(run).join(format!("{hook}_{number}.log"))
        }
    }
}

/// `LOGS/dag_id=D/run_id=R`: all logs of a run.
pub fn run_logs(logs: &Path, dag_id: &str, run_id: &str) -> PathBuf {
    logs.join(format!("dag_id={dag_id}")).join(format!("run_id={}", run_id.replace('/', "_")))
}

/// What a log becomes when it is compressed: `attempt=N.log.gz`.
pub fn compressed(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".gz");
    PathBuf::from(name)
}

/// Where the large XComs of a run lie.
pub fn run_xcoms(xcoms: &Path, dag_id: &str, run_id: &str) -> PathBuf {
    xcoms.join(dag_id).join(folder_name(run_id))
}

/// `HOME/runs/DAG_ID/RUN_ID` with `:` and `+` as `_`.
pub fn run_dir(home: &Path, dag_id: &str, run_id: &str) -> PathBuf {
    home.join("runs").join(dag_id).join(folder_name(run_id))
}

/// Where the large XComs of one instance lie: `XCOMS/DAG_ID/RUN_ID/TASK_ID[.MAP_INDEX]/TRY-N.json`, with a run_dir's name for the run.
pub fn large_xcoms(xcoms: &Path, dag_id: &str, run_id: &str, task_id: &str, map_index: i32) -> PathBuf {
    let mapped = if map_index >= 0 { format!(".{map_index}") } else { String::new() };
    run_xcoms(xcoms, dag_id, run_id).join(format!("{task_id}{mapped}"))
}

fn folder_name(run_id: &str) -> String {
    run_id.replace([':', '+', '/'], "_")
}

/// The folder in a run_dir where minflow keeps files of tries, out of the tasks' sight.
pub fn scratch_folder(run_dir: &Path) -> PathBuf {
    run_dir.join(".minflow")
}

/// What all files of one try begin with.
pub fn scratch(run_dir: &Path, task_id: &str, map_index: i32, try_number: u32) -> PathBuf {
    let mapped = if map_index >= 0 { format!("{map_index}.") } else { String::new() };
    scratch_folder(run_dir).join(format!("{task_id}.{mapped}{try_number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_as_the_contract_spells_them() {
        let run_id = "manual__2026-11-21T00:50:30+00:00";
        let log = log_path(Path::new("/h/logs"), "d", run_id, "t", -1, 2);
        assert_eq!(log.to_str().unwrap(), format!("/h/logs/dag_id=d/run_id={run_id}/task_id=t/attempt=2.log"));
        let dir = run_dir(Path::new("/h"), "d", run_id);
        assert_eq!(dir.to_str().unwrap(), "/h/runs/d/manual__2026-11-21T00_50_30_00_00");
    }
}
