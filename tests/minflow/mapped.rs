//! Dynamic mapping, from what a task pushes to the instances that others become.

use serde_json::{Value, json};

use crate::harness::Home;

fn of_task<'t>(tasks: &'t [Value], task_id: &str) -> Vec<&'t Value> {
    tasks.iter().filter(|task| task["task_id"] == task_id).collect()
}

fn column(tasks: &[&Value], name: &str) -> Value {
    tasks.iter().map(|task| task[name].clone()).collect()
}

#[test]
fn a_pushed_list_becomes_instances_each_with_its_element_and_a_name() {
    let home = Home::new();
    home.dag(
        "files",
        r#"
        [tasks.list]
        bash = "echo '[\"a\", \"b\", \"skip\", \"d\"]'"
        output = "json"
        [tasks.load]
        bash = "echo {{ item | upper }}-{{ file }}-{{ size }}-{{ ti.map_index }}"
        expand = { file = { xcom = "list", filter = "{{ item != 'skip' }}", map = "{{ item ~ '.csv' }}" } }
        partial = { size = 7 }
        map_index_template = "{{ file }}"
        [tasks.join]
        bash = "echo '{{ xcom('load') }}'"
        depends_on = ["load"]
        trigger_rule = "none_failed"
        "#,
    );
    let minflow = home.start();
    minflow.await_dag("files");
    assert_eq!(home.run_dag("files", "r").code, Some(0));
    let tasks = home.tasks("files", "r");
    let loads = of_task(&tasks, "load");
    assert_eq!(column(&loads, "map_index"), json!([0, 1, 2, 3]));
    assert_eq!(column(&loads, "state"), json!(["success", "success", "skipped", "success"]));
    assert_eq!(column(&loads, "rendered_map_index"), json!(["a.csv", "b.csv", null, "d.csv"]));
    assert_eq!(loads[2]["reason"], "the filter of its mapping refuses its element");
    let joined = home.cli("tasks logs files join r").out;
    assert!(joined.contains(r#"["A.CSV-a.csv-7-0", "B.CSV-b.csv-7-1", "D.CSV-d.csv-7-3"]"#), "{joined}");

    assert_eq!(home.cli("tasks state files load r --map-index 2").out, "skipped\n");
    assert!(home.cli("tasks logs files load r --map-index 3").out.contains("D.CSV-d.csv-7-3\n"));
    assert!(home.cli("tasks render files load r --map-index 1").out.contains("echo B.CSV-b.csv-7-1"));
    assert!(home.cli("tasks test files load r --map-index 0").out.contains("A.CSV-a.csv-7-0"));
    let unnamed = home.cli("tasks logs files load r");
    assert!(unnamed.code == Some(1) && unnamed.err.contains("ask for --map-index 0 to 3"), "{unnamed:?}");
    let shown = home.cli("tasks states-for-dag-run files r -o table").out;
    assert!(shown.contains("map_index") && shown.contains("d.csv"), "{shown}");
    drop(minflow);
}

#[test]
fn what_cannot_be_mapped_over_fails_the_task_that_gave_it_and_says_what_was_expected() {
    let home = Home::new();
    home.write("airflow.toml", "[core]\nmax_map_length = 3\n");
    home.dag(
        "faults",
        r#"
        [tasks.text]
        bash = "echo a,b,c"
        [tasks.nothing]
        bash = "true"
        [tasks.many]
        bash = "echo '[1, 2, 3, 4]'"
        output = "json"
        [tasks.odd]
        bash = "echo '[1, \"x\", 3]'"
        output = "json"
        [tasks.over_text]
        empty = true
        expand = { x = { xcom = "text" } }
        [tasks.over_nothing]
        empty = true
        expand = { x = { xcom = "nothing" } }
        [tasks.over_many]
        empty = true
        expand = { x = { xcom = "many" } }
        [tasks.over_odd]
        bash = "echo {{ x }}"
        expand = { x = { xcom = "odd", map = "{{ item + 1 }}" } }
        "#,
    );
    let minflow = home.start();
    minflow.await_dag("faults");
    assert_eq!(home.run_dag("faults", "r").code, Some(1));
    let tasks = home.tasks("faults", "r");
    let one = |task_id: &str| of_task(&tasks, task_id)[0].clone();
    let reason = |task: &Value| task["reason"].as_str().unwrap_or_default().to_owned();
    for (task_id, expected) in [
        (
            "text",
            "`over_text` is mapped over what it gives: that must be a list or a table, and it gave a text, `\"a,b,c\"`; print it as JSON",
        ),
        ("nothing", "must be a list or a table, and it gave nothing"),
        ("many", "must be at most 3 elements long, and it gave 4; give fewer, or raise core.max_map_length"),
    ] {
        let task = one(task_id);
        assert!(task["state"] == "failed" && reason(&task).contains(expected), "{task}");
        assert_eq!(one(&format!("over_{task_id}"))["state"], "upstream_failed");
    }
    let odd = of_task(&tasks, "over_odd");
    assert_eq!(column(&odd, "state"), json!(["success", "failed", "success"]));
    assert!(reason(odd[1]).contains("the `map` of its mapping fails on element 1, `\"x\"`: "), "{}", odd[1]);
    drop(minflow);
}

#[test]
fn a_map_over_nothing_is_skipped_and_a_mapped_group_goes_on_index_by_index() {
    let home = Home::new();
    home.dag(
        "groups",
        r#"
        [tasks.none]
        bash = "echo '[]'"
        output = "json"
        [tasks.over_none]
        empty = true
        expand = { x = { xcom = "none" } }
        [groups.each]
        expand = { n = [1, 2, 3] }
        [groups.each.tasks.first]
        bash = "test {{ n }} != 2"
        [groups.each.tasks.second]
        bash = "echo {{ n }}"
        depends_on = ["first"]
        [tasks.after]
        bash = "true"
        depends_on = ["each"]
        trigger_rule = "all_done"
        "#,
    );
    let minflow = home.start();
    minflow.await_dag("groups");
    assert_eq!(home.run_dag("groups", "r").code, Some(0));
    let tasks = home.tasks("groups", "r");
    let none = of_task(&tasks, "over_none");
    assert_eq!((column(&none, "map_index"), column(&none, "state")), (json!([-1]), json!(["skipped"])));
    assert_eq!(column(&of_task(&tasks, "each.first"), "state"), json!(["success", "failed", "success"]));
    assert_eq!(column(&of_task(&tasks, "each.second"), "state"), json!(["success", "upstream_failed", "success"]));
    assert_eq!(column(&of_task(&tasks, "after"), "state"), json!(["success"]));
    drop(minflow);
}

#[test]
fn the_log_of_one_instance_is_followed_over_its_tries() {
    let home = Home::new();
    home.dag(
        "each",
        "[tasks.t]\nbash = 'echo {{ item }} in try $MINFLOW_TRY_NUMBER; while ! test -e $MINFLOW_HOME/go$MINFLOW_TRY_NUMBER; do sleep 0.02; done; [ $MINFLOW_TRY_NUMBER = 2 ]'\n\
         expand = { item = [\"a\", \"b\"] }\nretries = 1\nretry_delay = 0\n",
    );
    let _minflow = home.start();
    _minflow.await_dag("each");
    home.trigger("each", "r");
    let mut command = home.command("tasks logs each t r --map-index 1 -f");
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut seen = Vec::new();
    for number in 1..=2 {
        let own = format!("b in try {number}");
        while seen.last() != Some(&own) {
            seen.push(lines.next().unwrap().unwrap());
        }
        home.write(&format!("go{number}"), "");
    }
    seen.extend(lines.map(Result::unwrap));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(seen.last().unwrap().contains("ended with exit code 0") && !seen.iter().any(|line| line.starts_with('a')));
    assert_eq!(seen.iter().filter(|line| line.contains("minflow: begins try")).count(), 2, "{seen:?}");
}
