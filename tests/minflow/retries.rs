//! `retry_on` as a user has it: the shipped example.

use crate::harness::Home;

#[test]
fn the_shipped_example_tries_a_network_again_and_bad_data_never() {
    let home = Home::new();
    home.dag("retry_rules", include_str!("../../dags/retry_rules.toml"));
    let _minflow = home.start();
    assert_eq!(home.run_dag("retry_rules", "one").code, Some(0));
    let seen = |task_id| {
        let task = home.task("retry_rules", "one", task_id);
        (task["state"].as_str().unwrap().to_owned(), task["try_number"].as_u64().unwrap(), task["reason"].clone())
    };
    assert_eq!(seen("orders"), ("success".to_owned(), 3, serde_json::Value::Null));
    assert_eq!(seen("prices"), ("failed".to_owned(), 1, "rule 2 of retry_on".into()));
    assert_eq!(seen("report"), ("success".to_owned(), 1, serde_json::Value::Null));
}
