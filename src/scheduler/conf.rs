//! Whether a run may have the conf that somebody asks for: each of its DAG's params must have a value that its schema takes.

use serde_json::{Map, Value};

use crate::model::Dag;
use crate::params::{self, Override};
use crate::scheduler::command::CommandError;

/// Refuses what no run of the DAG could be made with.
///
/// # Errors
/// `invalid-conf`: which param, what came, what was expected.
pub fn check(dag: &Dag, conf: &Map<String, Value>, overrides: Override) -> Result<(), CommandError> {
    params::check_run(dag, conf, overrides).map_err(|bad| {
        let help = match overrides {
            Override::Nothing => {
                "`core.dag_run_conf_overrides_params` is false, so the DAG file must give its default".to_owned()
            }
            Override::Params => {
                format!("give one that does in the conf, a JSON object such as {{\"{}\": …}}", bad.name)
            }
        };
        CommandError { code: "invalid-conf".to_owned(), message: format!("`{}`: {}", dag.dag_id, bad.message()), help }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Graph;

    fn dag() -> Dag {
        let map = |value: Value| value.as_object().unwrap().clone();
        Dag {
            params: map(json!({ "keep": 7, "plain": 1 })),
            param_schemas: map(
                json!({ "keep": { "type": "integer", "minimum": 1 }, "mode": { "enum": ["full", "quick"] } }),
            ),
            ..Dag::new("d".into(), Vec::new(), Graph::default())
        }
    }

    fn answer(conf: Value, overrides: Override) -> Result<(), String> {
        check(&dag(), conf.as_object().unwrap(), overrides)
            .map_err(|error| format!("{}; {}", error.message, error.help))
    }

    #[test]
    fn a_conf_is_refused_by_the_first_param_that_it_leaves_without_a_good_value() {
        let all = Override::Params;
        assert_eq!(answer(json!({ "mode": "full", "more": [1] }), all), Ok(()));
        assert_eq!(answer(json!({ "mode": "full", "keep": 3.0, "plain": "text" }), all), Ok(()));
        let cases = [
            (
                json!({}),
                "`d`: param `mode` has no value; give one that does in the conf, a JSON object such as {\"mode\": …}",
            ),
            (
                json!({ "mode": "x" }),
                "`d`: param `mode` is \"x\", and must be one of \"full\", \"quick\"; give one that does in the conf, a JSON object such as {\"mode\": …}",
            ),
            (
                json!({ "mode": "x", "keep": 0 }),
                "`d`: param `keep` is 0, and must be at least 1; give one that does in the conf, a JSON object such as {\"keep\": …}",
            ),
        ];
        for (conf, expected) in cases {
            assert_eq!(answer(conf, all), Err(expected.to_owned()));
        }
        let told = answer(json!({ "mode": "full" }), Override::Nothing).unwrap_err();
        assert!(told.contains("dag_run_conf_overrides_params"), "{told}");
    }
}
