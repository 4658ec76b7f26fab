//! A DAG's params (SEMANTICS 17): a run's conf laid over their defaults, and each checked against its JSON Schema.
//!
//! Pure: knows values and schemas (draft 2020-12, as Airflow checks it), and neither files nor runs. Asked where a DAG file is read,
//! where a run is asked for, and where its templates are rendered.

mod format;
mod pattern;
mod schema;
mod soundness;

use serde_json::{Map, Value};

use crate::model::Dag;

pub use schema::{Mismatch, check};
pub use soundness::{KEYWORDS, Unsound, check_schema};

/// Whether a run's conf changes its params (`core.dag_run_conf_overrides_params`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Override {
    Params,
    Nothing,
}

impl From<bool> for Override {
    /// As the configuration says it.
    fn from(overrides: bool) -> Self {
        if overrides { Self::Params } else { Self::Nothing }
    }
}

/// A param whose value does not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadParam {
    pub name: String,
    /// None: it has no value at all.
    pub mismatch: Option<Mismatch>,
}

impl BadParam {
    /// What came and what was expected, e.g. "param `keep` is 0, and must be at least 1".
    pub fn message(&self) -> String {
        match &self.mismatch {
            None => format!("param `{}` has no value", self.name),
            Some(Mismatch { path, came, expected }) => {
                format!("param `{}{path}` is {came}, and must be {expected}", self.name)
            }
        }
    }
}

/// The params of a run: the defaults, with what the conf gives laid over them. Keys that the DAG does not know are added.
pub fn merged(defaults: &Map<String, Value>, conf: &Map<String, Value>, overrides: Override) -> Map<String, Value> {
    let mut merged = defaults.clone();
    if overrides == Override::Params {
        merged.extend(conf.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    merged
}

/// Checks what a run with this conf would have.
///
/// # Errors
/// The first param, in the order of the file, that has no value or one that its schema refuses.
pub fn check_run(dag: &Dag, conf: &Map<String, Value>, overrides: Override) -> Result<(), BadParam> {
    for (name, schema) in &dag.param_schemas {
        let given = if overrides == Override::Params { conf.get(name) } else { None };
        resolve(schema, given.or_else(|| dag.params.get(name)))
            .map_err(|mismatch| BadParam { name: name.clone(), mismatch })?;
    }
    Ok(())
}

/// Whether a value does (Airflow: `Param.resolve`).
///
/// # Errors
/// What is wrong with it; None if there is no value.
pub fn resolve(schema: &Value, value: Option<&Value>) -> Result<(), Option<Mismatch>> {
    value.ok_or(None).and_then(|value| check(schema, value).map_err(Some))
}
