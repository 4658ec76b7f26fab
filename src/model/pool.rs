//! A pool: slots that task instances share across all DAGs.

use serde::{Deserialize, Serialize};

use crate::model::ids::PoolName;

/// The pool of tasks that name none.
pub const DEFAULT_POOL: &str = "default_pool";

/// How many slots `default_pool` has where nobody says it, as in Airflow.
pub const DEFAULT_POOL_SLOTS: i64 = 128;

/// The longest name in characters, as in Airflow.
const MAX_NAME_CHARS: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub name: PoolName,
    /// -1 means without limit.
    pub slots: i64,
    pub description: String,
    /// Whether what is deferred keeps its slots.
    #[serde(default)]
    pub include_deferred: bool,
}

impl Pool {
    /// `default_pool` where nobody has said anything of it.
    pub fn default_pool() -> Self {
        Self {
            name: DEFAULT_POOL.into(),
            slots: DEFAULT_POOL_SLOTS,
            description: String::new(),
            include_deferred: false,
        }
    }

    /// What cannot be of its name and slots, as a sentence; None: nothing.
    pub fn fault(&self) -> Option<String> {
        let name: &str = &self.name;
        if name.trim().is_empty() {
            return Some("a pool needs a name".to_owned());
        }
        let shown = name.escape_debug();
        if name.chars().any(char::is_control) || name.trim() != name {
            return Some(format!("`{shown}` cannot name a pool: write it without blanks at its ends and in one line"));
        }
        let length = name.chars().count();
        if length > MAX_NAME_CHARS {
            return Some(format!("the name of a pool has at most {MAX_NAME_CHARS} characters, and one has {length}"));
        }
        if !(-1..=i64::from(i32::MAX)).contains(&self.slots) {
            let most = i32::MAX;
            return Some(format!("`{shown}` cannot have {} slots: write -1 for no limit, or 0 to {most}", self.slots));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_slots_have_bounds() {
        let fault = |name: &str, slots| Pool { slots, name: name.into(), ..Pool::default_pool() }.fault();
        for (name, slots) in [("db", 0), ("db", -1), ("big tables", i64::from(i32::MAX)), (&"ü".repeat(256), 1)] {
            assert_eq!(fault(name, slots), None, "{name} {slots}");
        }
        for (name, slots) in [("", 1), (" ", 1), (" db", 1), ("d\nb", 1), (&"ü".repeat(257), 1)] {
            assert!(fault(name, slots).is_some(), "{name:?}");
        }
        for slots in [-2, i64::MIN, i64::from(i32::MAX) + 1, i64::MAX] {
            assert!(fault("db", slots).is_some_and(|fault| fault.contains(&slots.to_string())), "{slots}");
        }
    }
}
