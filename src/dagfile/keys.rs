//! The table of keys of a DAG file; a file in `keys/` for each noun. The parser, its messages, `schemas/dag.schema.json` and `docs/dag-format.md`
//! follow from it.

mod dag;
mod decider;
mod group;
mod mapping;
mod operator;
mod retry;
mod sensor;
mod task;
mod tool;

pub use dag::{DAG, DEADLINE, SCHEDULE, WINDOW};
pub use decider::{BRANCH, SHORT_CIRCUIT, WEEKDAYS};
pub use group::GROUP;
pub use mapping::INPUT;
pub use operator::{AWAITED_SQL, BASH, EXTERNAL_TASK_MARKER, OPERATORS, PYTHON, SQL, TRIGGER_DAG, VENV};
pub use retry::RETRY_RULE;
pub use sensor::{EXTERNAL_TASK, SENSOR, SENSORS};
pub use task::{DEFAULT_ARGS, TASK, TASK_HOOKS, TRIGGER_RULES};
pub use tool::{AWAITED_HTTP, DOCKER, EMAIL, HTTP, MOUNT};

use crate::keytable::{Fallback, Key, Kind};

const LIST_OF_TEXT: Kind = Kind::List(&Kind::Text);
const CALLBACKS: Kind = Kind::List(&Kind::Table(&crate::config::keys::CALLBACK));

const fn key(name: &'static str, kind: Kind, default: Fallback, description: &'static str) -> Key {
    Key { name, kind, default, description }
}
