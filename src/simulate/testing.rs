//! What the tests of simulations are made of.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::dagfile::{self, Defaults};
use crate::model::Pool;
use crate::simulate::{Outlook, Subject};

/// A DAG whose tries each take `lasts` seconds, and fail with the chance `fails`. It may name the pools `narrow` and `side`.
pub fn subject(name: &str, text: &str, lasts: u64, fails: f64) -> Subject {
    let mut defaults = Defaults::default();
    defaults.pools.extend(["narrow", "side"].map(|name| (name.into(), 1)));
    let file = format!("{name}.toml");
    let dag = dagfile::parse(Path::new(&file), text.as_bytes(), &defaults).unwrap();
    let outlooks = vec![Outlook { lasts_for: Duration::from_secs(lasts), fails }; dag.tasks.len()];
    Subject { dag: Arc::new(dag), file: file.into(), first_seen_at: None, last_interval: None, outlooks }
}

pub fn pool(name: &str, slots: i64) -> Pool {
    Pool { name: name.into(), slots, description: String::new(), include_deferred: false }
}
