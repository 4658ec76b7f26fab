//! The database as the source of answers.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use crate::api::json::{Dag, DagCounts, FailedCallback, Failure};
use crate::api::source::{Facts, Source, SourceError, Which};
use crate::model::{DagId, TaskId};
use crate::scheduler::StoreError;
use crate::store::{Reader, ReaderPool};

/// How many failures `/status` shows.
const FAILURES: u32 = 20;

/// The readers, and the folders that the paths of logs are made of.
#[derive(Clone, Debug)]
pub struct DatabaseSource {
    pub readers: ReaderPool,
    pub home: PathBuf,
    /// `logging.base_log_folder`.
    pub logs: PathBuf,
}

impl Source for DatabaseSource {
    fn read(&self, which: &Which) -> Result<Facts, SourceError> {
        // One transaction, so that an answer never mixes two turns.
        let read = self.readers.with(|reader| reader.at_one_moment(|reader| self.facts(reader, which)));
        read.map_err(|error| SourceError(error.message))
    }

    fn usual(&self, tasks: &[(&DagId, &TaskId)]) -> Vec<Option<Duration>> {
        let read = self.readers.with(|reader| {
            let usual = |(dag_id, task_id): &(&DagId, &TaskId)| reader.usual_duration(dag_id, task_id);
            tasks.iter().map(usual).collect()
        });
        // An estimate that cannot be made is left out of an answer that tells enough without it.
        read.unwrap_or_else(|_| vec![None; tasks.len()])
    }
}

impl DatabaseSource {
    /// Asks four questions, however many DAGs there are.
    fn facts(&self, reader: &Reader, which: &Which) -> Result<Facts, StoreError> {
        let counts = reader.dag_counts()?;
        let (listings, dags_truncated) = match which {
            Which::One(dag_id) => (reader.dag(dag_id)?.into_iter().collect(), false),
            Which::UpTo(limit) if counts.total <= *limit as u64 => {
                let mut listings = reader.dags()?;
                // Those without a file may be many over the years, and are not counted.
                listings.retain(|listing| listing.dag.is_active);
                (listings, false)
            }
            Which::UpTo(limit) => {
                let mut listings = reader.recent_dags(u32::try_from(*limit).unwrap_or(u32::MAX))?;
                listings.sort_by(|left, right| left.dag.dag_id.cmp(&right.dag.dag_id));
                (listings, true)
            }
        };
        let failures = reader.recent_failures(FAILURES)?;
        let failed = reader.failed_callbacks(FAILURES)?;
        let now = Timestamp::now();
        Ok(Facts {
            dags: listings.iter().map(|listing| Dag::new(&listing.dag, listing.last_run.as_ref(), now)).collect(),
            dags_truncated,
            dag_counts: DagCounts {
                total: counts.total,
                active: counts.active,
                paused: counts.paused,
                broken: counts.broken,
            },
            import_errors: reader.import_errors()?.iter().map(Into::into).collect(),
            missed_deadlines: reader.missed_deadlines(FAILURES)?.iter().map(Into::into).collect(),
            failed_callbacks: failed.iter().map(|failed| FailedCallback::new(failed, &self.home, &self.logs)).collect(),
            recent_failures: failures.iter().map(|failure| Failure::new(failure, &self.home, &self.logs)).collect(),
        })
    }
}
