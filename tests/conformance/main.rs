//! Golden vectors made with Airflow itself, run against the production functions. `tests/vectors/README.md` tells what they hold.
//!
//! One test per kind, named after it. `MINFLOW_VECTORS` names another folder of vectors.

#![allow(clippy::unwrap_used)] // a broken vector is a failed test

mod conn_uri;
mod critical_section;
mod cron_intervals;
mod cron_invalid;
mod cron_next;
mod dagrun_state;
mod dags;
mod depends_on_past;
mod harness;
mod manual_intervals;
mod mapping;
mod params;
mod partial_subset;
mod retry_delay;
mod run_creation;
mod schedules;
mod sensor_backoff;
mod simulate;
mod templates;
mod trigger_rules;
mod weight_rules;
mod worlds;
