//! Params with schemas, as whoever starts a run meets them.

use serde_json::json;

use crate::harness::Home;

const DAG: &str = r#"
[params]
keep = { type = "integer", minimum = 1, default = 7 }
mode = { enum = ["full", "quick"] }
[tasks.show]
bash = "echo {{ params.keep }} {{ params.mode }} {{ params.more | default('none') }}"
"#;

#[test]
fn a_run_whose_conf_the_params_refuse_is_not_made_by_any_command() {
    let home = Home::new();
    home.dag("prune", DAG);
    home.dag(
        "nightly",
        &format!("schedule = \"0 0 * * *\"\n{}", DAG.replace("\"quick\"]", "\"quick\"], default = \"full\"")),
    );
    let minflow = home.start();
    minflow.await_dag("prune");
    minflow.await_dag("nightly");
    let refused = [
        ("dags trigger prune", "`prune`: param `mode` has no value"),
        (
            "dags trigger prune --conf {\"mode\":\"slow\"}",
            "`prune`: param `mode` is \"slow\", and must be one of \"full\", \"quick\"",
        ),
        (
            "dags trigger prune --conf {\"mode\":\"full\",\"keep\":0}",
            "`prune`: param `keep` is 0, and must be at least 1",
        ),
        (
            "dags test prune --conf {\"mode\":\"full\",\"keep\":\"x\"}",
            "`prune`: param `keep` is \"x\", and must be an integer",
        ),
        (
            "backfill create --dag-id nightly --from-date 2024-01-01 --to-date 2024-01-02 --dag-run-conf {\"keep\":0}",
            "`nightly`: param `keep` is 0, and must be at least 1",
        ),
        (
            "backfill create --dry-run --dag-id nightly --from-date 2024-01-01 --to-date 2024-01-02 --dag-run-conf {\"keep\":0}",
            "`nightly`: param `keep` is 0, and must be at least 1",
        ),
    ];
    for (command, message) in refused {
        let ran = home.cli(command);
        assert_eq!(ran.code, Some(1), "{command}: {ran:?}");
        assert!(
            ran.err.contains(message) && ran.err.contains("help: give one that does in the conf"),
            "{command}: {ran:?}"
        );
    }
    assert_eq!((home.runs("prune").len(), home.runs("nightly").len()), (0, 0), "nothing was made");
    let ran = home.cli("dags trigger prune --run-id r --wait --conf {\"mode\":\"quick\",\"more\":[1]}");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(home.log("prune", "r", "show", 1).contains("\n7 quick [1]\n"));
    let details = home.json("dags details prune");
    assert_eq!(details["params"], json!({ "keep": 7 }));
    assert_eq!(details["param_schemas"]["keep"], json!({ "type": "integer", "minimum": 1 }));
}
