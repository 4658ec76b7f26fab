//! Assets and file triggers through the real binary: what a task says of its outlets, and each file once, whatever happens.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::harness::{Home, until};

const MAKER: &str = "[tasks.make]\noutlets = [\"orders\", \"days\"]\n\
    bash = '''echo 'outlet_events={\"orders\": {\"rows\": 3}, \"days\": [\"s3://b/1\"]}' > $MINFLOW_XCOM'''\n\
    [assets.orders]\nuri = \"s3://b/orders\"\nextra = { unit = \"row\" }\n[assets.days]\nalias = true\n";
const EATER: &str = "schedule = { assets = \"orders & days\" }\n[tasks.eat]\ninlets = [\"orders\"]\nbash = '''\
    {% for name, events in triggering_asset_events.items() %}echo {{ name }} {{ events[0].extra | tojson }} {{ events[0].source_task_id }}\n{% endfor %}\
    echo {{ inlet_events.orders | length }} {{ inlets[0].uri }} {{ dag_run.run_type }}'''\n";

/// The only run of a DAG, once it has ended.
fn only_run(home: &Home, dag_id: &str) -> Value {
    let over = |run: &Value| run["state"] == "success" || run["state"] == "failed";
    until("a run that is over", || home.runs(dag_id).first().filter(|run| over(run)).cloned())
}

#[test]
fn what_a_task_says_of_its_outlets_reaches_the_run_that_it_starts() {
    let home = Home::new();
    home.dag("maker", MAKER);
    home.dag("eater", EATER);
    let minflow = home.start();
    minflow.await_dag("maker");
    minflow.await_dag("eater");
    assert_eq!(home.run_dag("maker", "r").code, Some(0));
    let run = only_run(&home, "eater");
    assert_eq!(
        (&run["run_type"], &run["logical_date"], &run["state"]),
        (&json!("asset_triggered"), &Value::Null, &json!("success"))
    );
    let log = home.log("eater", run["run_id"].as_str().unwrap(), "eat", 1);
    assert!(log.contains("orders {rows: 3, unit: row} make"), "bash takes the quotes away: {log}");
    assert!(log.contains("s3://b/1 {} make") && log.contains("1 s3://b/orders DagRunType.ASSET_TRIGGERED"), "{log}");
    let listed = home.json("assets list");
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|asset| asset["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["days", "orders", "s3://b/1"]);
    assert_eq!((&listed[0]["kind"], &listed[0]["waited_for_by"]), (&json!("alias"), &json!(["eater"])));
    let details = home.json("assets details --uri s3://b/orders");
    assert_eq!((&details["name"], &details["produced_by"]), (&json!("orders"), &json!(["maker.make"])));
    assert_eq!(details["events"][0]["extra"], json!({"unit": "row", "rows": 3}));
    assert_eq!(home.json("assets details days")["stands_for"], json!(["s3://b/1"]));
    let unknown = home.cli("assets details ordres");
    assert!(unknown.code == Some(1) && unknown.err.contains("did you mean `orders`?"), "{unknown:?}");
    let made = home.json("assets materialize orders");
    assert_eq!((&made["dag_id"], &made["run_type"]), (&json!("maker"), &json!("asset_materialization")));
    assert_eq!(home.await_run("maker", made["run_id"].as_str().unwrap()), "success");
    until("a second run", || (home.runs("eater").len() == 2).then_some(()));
}

#[test]
fn a_task_that_says_nonsense_of_its_outlets_fails_with_what_to_write() {
    let home = Home::new();
    home.dag("maker", "[tasks.make]\noutlets = [\"orders\"]\nbash = \"echo 'outlet_events=[1' > $MINFLOW_XCOM\"\n");
    let minflow = home.start();
    minflow.await_dag("maker");
    assert_eq!(home.run_dag("maker", "r").code, Some(1));
    let reason = home.task("maker", "r", "make")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("are no JSON") && reason.contains("write for example"), "{reason}");
    assert_eq!(home.json("assets details orders")["events"], json!([]));
}

fn inbox(home: &Home) -> String {
    let folder = home.file("in");
    format!(
        "schedule = {{ assets = \"inbox\" }}\nmax_active_runs = 1\n[assets.inbox]\nuri = \"file://{}/*.csv\"\nsettle = 0\n\
         [tasks.eat]\nretries = 9\nretry_delay = 0\nbash = '''{{% for file in triggering_asset_events.inbox %}}echo {{{{ file.extra.path | sh }}}}\n{{% endfor %}}'''\n",
        folder.display()
    )
}

/// How often each file has had an event, by its name.
fn counted(home: &Home) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    let reader = rusqlite::Connection::open(home.file("minflow.db")).unwrap();
    let mut statement = reader.prepare("SELECT extra FROM asset_event").unwrap();
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    for extra in rows {
        let extra: Value = serde_json::from_str(&extra.unwrap()).unwrap();
        let path = extra["path"].as_str().unwrap();
        *counted.entry(path.rsplit('/').next().unwrap().to_owned()).or_default() += 1;
    }
    counted
}

#[test]
fn each_settled_file_is_one_event_and_in_one_run_through_kills() {
    let home = Home::new();
    home.write("in/old.csv", "lay there before");
    std::thread::sleep(std::time::Duration::from_millis(30)); // it is to be older than the kernel's clock of files is coarse
    home.dag("inbox", &inbox(&home));
    let mut expected = BTreeMap::new();
    for round in 0..6 {
        let mut minflow = home.start();
        minflow.await_dag("inbox");
        for number in 0..20 {
            let name = format!("f{round}-{number}.csv");
            home.write(&format!("in/{name}.part"), "x");
            fs::rename(home.file(&format!("in/{name}.part")), home.file(&format!("in/{name}"))).unwrap();
            expected.insert(name, 1);
        }
        if round % 2 == 0 {
            until("its events", || (counted(&home).len() > round * 20).then_some(()));
        }
        // At any moment of its work: before, while, or after they are counted.
        minflow.kill();
        home.write(&format!("in/down{round}.csv"), "came while nobody looked");
        expected.insert(format!("down{round}.csv"), 1);
    }
    let _minflow = home.start();
    until("all events", || (counted(&home).len() >= expected.len()).then_some(()));
    assert_eq!(counted(&home), expected);
    let is_over = |run: &Value| run["state"] == "success";
    until("the end of all runs", || home.runs("inbox").iter().all(is_over).then_some(()));
    let reader = rusqlite::Connection::open(home.file("minflow.db")).unwrap();
    let ask = |sql: &str| reader.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(ask("SELECT count(*) FROM dagrun_asset_event"), expected.len() as i64);
    assert_eq!(ask("SELECT count(DISTINCT event_key) FROM dagrun_asset_event"), expected.len() as i64);
    fs::remove_dir_all(home.file("in")).unwrap();
    until("an empty ledger", || (ask("SELECT count(*) FROM asset_file") == 0).then_some(()));
    home.write("in/again.csv", "in a folder that was made again");
    until("its event", || counted(&home).contains_key("again.csv").then_some(()));
}
