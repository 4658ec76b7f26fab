//! The table of keys of a DAG file; a file in `keys/` for each noun. The parser, its messages, `schemas/dag.schema.json` and `docs/dag-format.md`
//! follow from it.

mod dag;
mod decider;
mod group;
mod limits;
mod mapping;
mod needs;
mod operator;
mod retry;
mod sensor;
mod task;
mod tool;

pub use dag::{DAG, DEADLINE, SCHEDULE, WINDOW};
pub use decider::{BRANCH, SHORT_CIRCUIT, WEEKDAYS};
pub use group::GROUP;
pub use limits::LIMITS;
pub use mapping::INPUT;
pub use needs::NEEDS;
pub use operator::{AWAITED_SQL, BASH, EXTERNAL_TASK_MARKER, OPERATORS, PYTHON, SQL, TRIGGER_DAG, VENV};
pub use retry::RETRY_RULE;
pub use sensor::{EXTERNAL_TASK, SENSOR, SENSORS};
pub use task::{DEFAULT_ARGS, TASK, TASK_HOOKS, TRIGGER_RULES};
pub use tool::{AWAITED_HTTP, DOCKER, EMAIL, HTTP, MOUNT};

use serde_json::{Value, json};

use crate::keytable::{self, Fallback, Key, Kind};

const LIST_OF_TEXT: Kind = Kind::List(&Kind::Text);
const CALLBACKS: Kind = Kind::List(&Kind::Table(&crate::config::keys::CALLBACK));

/// The JSON schema of a DAG file. A task takes as an operator what no table names: a plugin, whose value is a table. Beside an operator
/// that is named here no other key will do.
pub fn json_schema() -> Value {
    let mut schema = keytable::json_schema("minflow DAG file", &DAG);
    let names: Vec<&str> = TASK.iter().map(|key| key.name).collect();
    let has_operator: Vec<Value> = OPERATORS.iter().map(|name| json!({ "required": [name] })).collect();
    let task = &mut schema["definitions"]["task"];
    task["additionalProperties"] = json!({ "type": "object" });
    task["if"] = json!({ "anyOf": has_operator });
    task["then"] = json!({ "propertyNames": { "enum": names } });
    schema
}

const fn key(name: &'static str, kind: Kind, default: Fallback, description: &'static str) -> Key {
    Key { name, kind, default, description }
}
