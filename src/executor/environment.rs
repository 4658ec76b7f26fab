//! The variables that a task finds beside those with which minflow was started.

use std::path::Path;

use jiff::Timestamp;

use crate::model::TryKey;
use crate::scheduler::Work;

pub use crate::supervisor::MARK;

/// The mark of a try: the hash of its owner's path, the instance, the try.
pub fn mark(owner: &Path, key: TryKey) -> String {
    // FNV-1a: fixed for ever, since an earlier binary's marks must be recognised.
    let hash =
        owner.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    format!("{hash:016x}.{key}")
}

/// Variables to add and to remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    pub added: Vec<(String, String)>,
    pub removed: Vec<String>,
}

/// Where a try's files are.
#[derive(Clone, Copy, Debug)]
pub struct Folders<'a> {
    /// [`ExecutorSettings::owner`](crate::executor::ExecutorSettings::owner).
    pub owner: &'a Path,
    pub home: &'a str,
    pub run_dir: &'a str,
    pub xcom: &'a str,
}

/// minflow's and Airflow's names for this try.
pub fn variables(work: &Work, folders: Folders<'_>) -> Variables {
    let task = work.dag.task(work.task);
    let run = &work.run;
    let interval = run.data_interval;
    let mut variables = Variables::default();
    let mut put = |name: &str, value: Option<String>| match value {
        Some(value) => variables.added.push((name.to_owned(), value)),
        // What stands there belongs to a minflow around this one.
        None => variables.removed.push(name.to_owned()),
    };
    let dag_id = || Some(work.dag.dag_id.to_string());
    let task_id = || Some(task.task_id.to_string());
    let run_id = || Some(run.run_id.to_string());
    let try_number = || Some(work.key.try_number.to_string());
    let logical_date = || run.logical_date.map(iso);
    put("AIRFLOW_CTX_DAG_OWNER", Some(task.owner.clone()));
    put("AIRFLOW_CTX_DAG_ID", dag_id());
    put("AIRFLOW_CTX_TASK_ID", task_id());
    put("AIRFLOW_CTX_LOGICAL_DATE", logical_date());
    put("AIRFLOW_CTX_TRY_NUMBER", try_number());
    put("AIRFLOW_CTX_DAG_RUN_ID", run_id());
    put("MINFLOW_DAG_ID", dag_id());
    put("MINFLOW_TASK_ID", task_id());
    put("MINFLOW_RUN_ID", run_id());
    put("MINFLOW_TRY_NUMBER", try_number());
    put("MINFLOW_MAP_INDEX", Some(work.map_index.to_string()));
    put("MINFLOW_LOGICAL_DATE", logical_date());
    put("MINFLOW_DATA_INTERVAL_START", interval.map(|interval| iso(interval.start)));
    put("MINFLOW_DATA_INTERVAL_END", interval.map(|interval| iso(interval.end)));
    put("MINFLOW_HOME", Some(folders.home.to_owned()));
    put("MINFLOW_RUN_DIR", Some(folders.run_dir.to_owned()));
    put("MINFLOW_XCOM", Some(folders.xcom.to_owned()));
    put(MARK, Some(mark(folders.owner, work.key)));
    variables
}

/// As Python's `isoformat` of an instant in UTC: microseconds only if there are any.
fn iso(at: Timestamp) -> String {
    let format = if at.subsec_microsecond() == 0 && at.subsec_millisecond() == 0 {
        "%Y-%m-%dT%H:%M:%S+00:00"
    } else {
        "%Y-%m-%dT%H:%M:%S.%6f+00:00"
    };
    at.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::InstanceKey;

    #[test]
    fn instants_are_written_as_airflow_writes_them() {
        assert_eq!(iso("2024-03-10T00:00:00Z".parse().unwrap()), "2024-03-10T00:00:00+00:00");
        assert_eq!(iso("2024-03-10T00:00:00.5Z".parse().unwrap()), "2024-03-10T00:00:00.500000+00:00");
        assert_eq!(iso("2024-03-10T00:00:00.000005Z".parse().unwrap()), "2024-03-10T00:00:00.000005+00:00");
    }

    #[test]
    fn marks_of_two_homes_and_two_tries_differ() {
        let key = |instance, try_number| TryKey { instance: InstanceKey(instance), try_number };
        let marks = [("/a", key(1, 1)), ("/b", key(1, 1)), ("/a", key(1, 2)), ("/a", key(11, 2))];
        let marks = marks.map(|(home, key)| mark(Path::new(home), key));
        assert_eq!(marks.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    }
}
