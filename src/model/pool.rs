//! A pool: slots that task instances share across all DAGs.

use crate::model::ids::PoolName;

/// The pool of tasks that name none.
pub const DEFAULT_POOL: &str = "default_pool";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub name: PoolName,
    /// -1 means without limit.
    pub slots: i64,
    pub description: String,
}
