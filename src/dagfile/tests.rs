use super::*;
use jiff::Timestamp;

use crate::model::dag::{Bash, Catchup, Operator, Output, Position, Python, RunImmediately, Script, Template};
use crate::model::graph::TaskIx;
use crate::model::retry::{EndedBy, RetryRule};
use crate::model::state::{TriggerRule, WeightRule};

fn defaults() -> Defaults {
    Defaults { pools: BTreeMap::from([("cpu_intensive".into(), 2)]), ..Defaults::default() }
}

pub(super) fn read(text: &str) -> Result<Dag, Vec<Diagnostic>> {
    parse(Path::new("dags/report.toml"), text.as_bytes(), &defaults())
}

fn template(text: &str, line: u32, column: u32) -> Template {
    Template { text: text.to_owned(), at: Position { line, column } }
}

fn instant(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// `upstream >> downstream` by name, in the order of the upstream tasks.
pub(super) fn arrows(dag: &Dag) -> Vec<String> {
    let name = |task: TaskIx| &*dag.task(task).task_id;
    let of_task = |task| dag.graph.downstream(task).iter().map(move |&after| (task, after));
    dag.graph.indexes().flat_map(of_task).map(|(from, to)| format!("{}>{}", name(from), name(to))).collect()
}

#[test]
fn the_smallest_file_has_every_default() {
    let dag = read("[tasks.hello]\nbash = \"echo hello\"\n").unwrap();
    let script = Bash { script: Script::Text(template("echo hello", 2, 9)) };
    let task = Task::new("hello".into(), Operator::Bash(script));
    let node = Node::default();
    let expected = Dag::new("report".into(), vec![task], Graph::new(vec![node], &[]).unwrap());
    assert_eq!(dag, expected);
}

/// Every default that the table of keys shows as a value, written out: the documentation tells the truth.
#[test]
fn writing_out_the_defaults_of_the_table_changes_nothing() {
    let written = |table: &keytable::Table, skipped: &[&str]| -> String {
        let shown = table.iter().filter(|key| !skipped.contains(&key.name));
        let line = |key: &'static keytable::Key| match key.default {
            keytable::Fallback::Toml(value) => Some(format!("{} = {value}\n", key.name)),
            _ => None,
        };
        shown.filter_map(line).collect()
    };
    let tables = format!("{}[tasks.a]\n{}", written(&keys::DAG, &[]), written(&keys::TASK, &[]));
    assert!(tables.matches('\n').count() > 15, "the table of keys shows defaults");
    let python = format!(
        "python = {{ file = \"x.py\", function = \"f\", {} }}\n",
        written(&keys::PYTHON, &[]).replace('\n', ", ")
    );
    let mut long = read(&format!("{tables}{python}")).unwrap();
    let mut short = read("[tasks.a]\npython = { file = \"x.py\", function = \"f\" }\n").unwrap();
    for dag in [&mut long, &mut short] {
        let Operator::Python(python) = &mut dag.tasks[0].operator else { panic!("it is a python task") };
        python.interpreter.at = Position::default();
        python.arguments_at = Position::default();
    }
    assert_eq!(long, short);
}

#[test]
fn every_key_of_a_dag_reaches_the_definition() {
    let dag = read(
        r#"
dag_id = "täglich.report-1"
description = "Daily sales"
owner = "sales"
doc_md = "Why"
tags = ["finance", "daily"]
schedule = "0 6 * * *"
timezone = "Europe/London"
start_date = 2026-07-01
end_date = "2026-12-01T12:00:00"
catchup = true
run_immediately = "2h"
max_consecutive_failed_dag_runs = 3
max_active_runs = 2
max_active_tasks = 3
dagrun_timeout = "2h"
is_paused_upon_creation = true
[params]
region = "eu"
limits = [1, 2.5, { deep = true }]
since = 2026-01-01
[tasks.a]
empty = true
"#,
    )
    .unwrap();
    assert_eq!(&*dag.dag_id, "täglich.report-1");
    assert_eq!((&*dag.description, &*dag.owner, &*dag.doc_md), ("Daily sales", "sales", "Why"));
    assert_eq!(dag.tags, ["finance", "daily"]);
    assert_eq!(dag.timezone.iana_name(), Some("Europe/London"));
    assert_eq!(dag.start_date, Some(instant("2026-06-30T23:00:00Z")));
    assert_eq!(dag.end_date, Some(instant("2026-12-01T12:00:00Z")));
    assert_eq!((dag.catchup, dag.max_active_runs, dag.max_active_tasks), (Catchup::All, 2, 3));
    assert_eq!(dag.run_immediately, RunImmediately::Within(Duration::from_secs(7_200)));
    assert_eq!(dag.max_consecutive_failed_dag_runs, 3);
    assert_eq!(dag.dagrun_timeout, Some(Duration::from_secs(7_200)));
    assert!(dag.is_paused_upon_creation);
    assert_eq!(
        serde_json::to_string(&dag.params).unwrap(),
        r#"{"region":"eu","limits":[1,2.5,{"deep":true}],"since":"2026-01-01"}"#
    );
    assert_eq!(&*dag.tasks[0].owner, "sales");
    assert_eq!(dag.tasks[0].operator, Operator::Empty);
}

#[test]
fn every_key_of_a_task_reaches_the_definition() {
    let dag = read(
        r#"
[tasks.a]
bash = "true"
trigger_rule = "one_failed"
retries = 2
retry_delay = 90
retry_exponential_backoff = 1.5
max_retry_delay = "1h"
retry_on = [{ exit_code = [6, 7], output = 'time', retries = 0 }, { signal = "SIGSEGV", retry_delay = 0 }, { timeout = true, retries = 1 }, { exit_code = 3, retries = 2 }]
execution_timeout = "10m"
grace = "1s"
kill_signal = "SIGINT"
pool = "cpu_intensive"
pool_slots = 2
priority_weight = -5
weight_rule = "absolute"
env = { B = "{{ ds }}", A = "1" }
cwd = "/tmp"
output = "json"
skip_on_exit_code = [3, 4]
doc_md = "Why"
owner = "me"
depends_on_past = true
wait_for_downstream = true
ignore_first_depends_on_past = false
wait_for_past_depends_before_skipping = true
start_date = 2026-01-01
end_date = 2026-12-31T12:00:00+01:00
"#,
    )
    .unwrap();
    let task = &dag.tasks[0];
    assert_eq!((task.retries, task.retry_delay, task.grace), (2, Duration::from_secs(90), Duration::from_secs(1)));
    assert_eq!((task.retry_exponential_backoff, task.max_retry_delay), (1.5, Some(Duration::from_secs(3_600))));
    let rule = |ended, output: Option<&str>, retries, retry_delay| RetryRule {
        ended: Some(ended),
        output: output.map(str::to_owned),
        retries,
        retry_delay,
    };
    let rules = [
        rule(EndedBy::ExitCode(vec![6, 7]), Some("time"), Some(0), None),
        rule(EndedBy::Signal(11), None, None, Some(Duration::ZERO)),
        rule(EndedBy::Timeout, None, Some(1), None),
        rule(EndedBy::ExitCode(vec![3]), None, Some(2), None),
    ];
    assert_eq!(task.retry_on, rules);
    assert_eq!(task.execution_timeout, Some(Duration::from_secs(600)));
    assert_eq!((task.kill_signal, &*task.pool, task.pool_slots), (2, "cpu_intensive", 2));
    assert_eq!(task.env, [("B".to_owned(), template("{{ ds }}", 17, 14)), ("A".to_owned(), template("1", 17, 30))]);
    assert_eq!(task.cwd, Some(template("/tmp", 18, 8)));
    assert_eq!((task.output, &*task.skip_on_exit_code), (Output::Json, &[3, 4][..]));
    assert_eq!((&*task.doc_md, &*task.owner), ("Why", "me"));
    assert!(task.depends_on_past && task.wait_for_downstream && task.wait_for_past_depends_before_skipping);
    assert!(!task.ignore_first_depends_on_past);
    assert_eq!(task.start_date, Some(instant("2026-01-01T00:00:00Z")));
    assert_eq!(task.end_date, Some(instant("2026-12-31T11:00:00Z")));
    let node = dag.graph.node(TaskIx(0));
    assert_eq!(node.trigger_rule, TriggerRule::OneFailed);
    assert_eq!((node.priority_weight, node.weight_rule), (-5, WeightRule::Absolute));
}

#[test]
fn default_args_hold_for_tasks_that_say_nothing() {
    let dag = read(
        "[default_args]\nretries = 3\nowner = \"team\"\nskip_on_exit_code = false\nenv = { A = \"1\" }\n\
         [tasks.a]\nempty = true\n[tasks.b]\nempty = true\nretries = 0\nskip_on_exit_code = 7\nenv = {}\n",
    )
    .unwrap();
    let of = |at: usize| {
        (dag.tasks[at].retries, &*dag.tasks[at].owner, &*dag.tasks[at].skip_on_exit_code, dag.tasks[at].env.len())
    };
    assert_eq!(of(0), (3, "team", &[][..], 1));
    assert_eq!(of(1), (0, "team", &[7][..], 0));
}

#[test]
fn operators_have_all_their_forms() {
    let operator = |text: &str| read(&format!("[tasks.a]\n{text}\n")).unwrap().tasks.remove(0).operator;
    let bash = |script| Operator::Bash(Bash { script });
    assert_eq!(operator("bash = { command = 'ls' }"), bash(Script::Text(template("ls", 2, 21))));
    assert_eq!(operator("bash = { file = \"x.sh\" }"), bash(Script::File("x.sh".to_owned())));
    let python = |script, function: Option<&str>, arguments_at, interpreter| Python {
        script,
        function: function.map(str::to_owned),
        args: Vec::new(),
        kwargs: Map::new(),
        arguments_at,
        interpreter,
        venv: None,
    };
    let here = Position { line: 2, column: 10 };
    let expected = python(Script::Text(template("result = 1", 2, 11)), None, here, template("python3", 2, 10));
    assert_eq!(operator("python = \"result = 1\""), Operator::Python(expected));
    let file = Script::File("r.py".to_owned());
    let mut expected = python(file, Some("main"), Position { line: 2, column: 55 }, template("py", 2, 102));
    expected.args = vec![serde_json::json!(1), serde_json::json!("{{ ds }}")];
    expected.kwargs.insert("day".to_owned(), serde_json::json!({ "x": [true] }));
    let text = "python = { file = \"r.py\", function = \"main\", args   = [1, \"{{ ds }}\"], kwargs.day.x = [true], interpreter = \"py\" }";
    expected.interpreter.at.column = text.find("\"py\"").unwrap() as u32 + 2;
    assert_eq!(operator(text), Operator::Python(expected));
    assert_eq!(operator("empty = true"), Operator::Empty);
}

#[test]
fn a_template_knows_where_its_first_character_stands() {
    let cases = [
        ("bash = \"x\"", (2, 9)),
        ("bash = 'x'", (2, 9)),
        ("bash = \"\"\"x\"\"\"", (2, 11)),
        ("bash = \"\"\"\nx\"\"\"", (3, 1)),
        ("bash = '''\r\nx'''", (3, 1)),
        ("bash = \"\"\"\\\n   x\"\"\"", (3, 4)),
        ("bash = \"\"\"\n\\\n\n  x\"\"\"", (5, 3)),
        ("bash = '''\\\nx'''", (2, 11)),
        ("doc_md = \"ä\"\nbash = \"x\"", (3, 9)),
        ("env = { A = \"ö\", B = \"x\" }\nbash.command = \"x\"", (3, 17)),
    ];
    for (text, at) in cases {
        let dag = read(&format!("[tasks.a]\n{text}\n")).unwrap();
        let Operator::Bash(Bash { script: Script::Text(script) }) = &dag.tasks[0].operator else {
            panic!("{text} is a script")
        };
        assert_eq!((script.at.line, script.at.column), at, "{text}");
    }
}

#[test]
fn dependencies_come_from_depends_on_and_from_chains() {
    let tasks = "[tasks.a]\nempty = true\n[tasks.b]\nempty = true\n[tasks.c]\nempty = true\n[tasks.d]\nempty = true\n";
    let cases = [
        ("", ""),
        ("chain = [\"a >> b\"]", "a>b"),
        ("chain = [\"a>>[b,c] >>d\"]", "a>b a>c b>d c>d"),
        ("chain = [\"d << c << [ a , b ]\"]", "a>c b>c c>d"),
        ("chain = [\"[a, b] >> [c, d]\"]", "a>c a>d b>c b>d"),
        ("chain = [\"a >> b << c\", 'b >> d']", "a>b b>d c>b"),
        ("chain = [\"\\u0061 >> b\"]", "a>b"),
    ];
    for (chain, expected) in cases {
        assert_eq!(arrows(&read(&format!("{chain}\n{tasks}")).unwrap()).join(" "), expected, "{chain}");
    }
    let dag = read(&format!("chain = [\"a >> d\"]\n{tasks}depends_on = [\"a\", \"b\", \"a\"]\n")).unwrap();
    assert_eq!(arrows(&dag), ["a>d", "b>d"]);
}

#[test]
fn a_backoff_is_a_truth_value_or_a_number() {
    for (written, multiplier) in [("true", 2.0), ("false", 0.0), ("3", 3.0), ("1.5", 1.5), ("0", 0.0), ("1_0.5", 10.5)]
    {
        let dag = read(&format!("[tasks.a]\nempty = true\nretry_exponential_backoff = {written}\n")).unwrap();
        assert_eq!(dag.tasks[0].retry_exponential_backoff, multiplier, "{written}");
    }
}

#[test]
fn trigger_rules_are_airflows() {
    let all: BTreeSet<&str> = TriggerRule::ALL.iter().map(|rule| rule.as_str()).collect();
    let ours: BTreeSet<&str> = keys::TRIGGER_RULES.iter().copied().collect();
    assert_eq!(ours, all);
}

#[test]
fn the_schema_takes_a_plugin_with_its_table_and_no_slip_beside_an_operator() {
    let schema = keys::json_schema();
    let fits = |task: serde_json::Value| {
        let file = serde_json::json!({ "tasks": { "t": task } });
        crate::params::check(&schema, &file).is_ok()
    };
    assert!(fits(serde_json::json!({ "bash": "x", "retries": 1 })));
    assert!(fits(serde_json::json!({ "fetch": { "any": ["thing", 1] }, "retries": 1 })));
    for slip in [
        serde_json::json!({ "bash": "x", "retires": 1 }),
        serde_json::json!({ "bash": "x", "fetch": {} }),
        serde_json::json!({ "http": { "url": "x" }, "evn": {} }),
        serde_json::json!({ "bsah": "x" }),
        serde_json::json!({ "fetch": {}, "retires": 1 }),
        serde_json::json!({ "fetch": {}, "retries": "many" }),
    ] {
        assert!(!fits(slip.clone()), "{slip}");
    }
}

#[test]
fn the_checked_in_schema_and_documentation_follow_the_table_of_keys() {
    let schema = serde_json::to_string_pretty(&keys::json_schema()).unwrap() + "\n";
    keytable::assert_checked_in("schemas/dag.schema.json", &schema);
    let mut text = include_str!("dag-format.head.md").to_owned();
    let tables = [
        ("Keys of the file", &keys::DAG),
        ("`schedule` as a table", &keys::SCHEDULE),
        ("`[tasks.ID]`", &keys::TASK),
        ("`[groups.ID]`", &keys::GROUP),
        ("Mapping: an input of `expand` or `expand_kwargs` as a table", &keys::INPUT),
        ("`limits`", &keys::LIMITS),
        ("A rule of `retry_on`", &keys::RETRY_RULE),
        ("`needs`", &keys::NEEDS),
        ("A callback", &crate::config::keys::CALLBACK),
        ("`http` of a callback", &crate::config::keys::CALLBACK_HTTP),
        ("A deadline", &keys::DEADLINE),
        ("`bash` as a table", &keys::BASH),
        ("`python` as a table", &keys::PYTHON),
        ("`venv` of `python`", &keys::VENV),
        ("`http`", &keys::HTTP),
        ("`email`", &keys::EMAIL),
        ("`docker`", &keys::DOCKER),
        ("`mounts` of `docker`", &keys::MOUNT),
        ("`sql`", &keys::SQL),
        ("`assets.NAME`", &crate::config::keys::ASSET),
        ("`trigger_dag`", &keys::TRIGGER_DAG),
        ("`branch`", &keys::BRANCH),
        ("`short_circuit`", &keys::SHORT_CIRCUIT),
        ("`task` of a sensor", &keys::EXTERNAL_TASK),
        ("`external_task_marker`", &keys::EXTERNAL_TASK_MARKER),
        ("`sensor`", &keys::SENSOR),
        ("`http` of a sensor", &keys::AWAITED_HTTP),
        ("`sql` of a sensor", &keys::AWAITED_SQL),
    ];
    for (title, table) in tables {
        text += &format!("\n## {title}\n\n{}", keytable::markdown(table));
        text += match table.name {
            name if name == keys::DAG.name => include_str!("dag-format.params.md"),
            name if name == keys::VENV.name => {
                concat!(include_str!("dag-format.venv.md"), include_str!("dag-format.xcoms.md"))
            }
            name if name == keys::SCHEDULE.name => include_str!("dag-format.schedules.md"),
            name if name == keys::TASK.name => {
                concat!(include_str!("dag-format.setup.md"), include_str!("dag-format.processes.md"))
            }
            name if name == keys::GROUP.name => include_str!("dag-format.groups.md"),
            name if name == keys::INPUT.name => include_str!("dag-format.mapping.md"),
            name if name == keys::LIMITS.name => include_str!("dag-format.limits.md"),
            name if name == keys::NEEDS.name => include_str!("dag-format.needs.md"),
            name if name == keys::RETRY_RULE.name => include_str!("dag-format.retries.md"),
            name if name == keys::DEADLINE.name => include_str!("dag-format.callbacks.md"),
            name if name == keys::HTTP.name => include_str!("dag-format.http.md"),
            name if name == crate::config::keys::ASSET.name => include_str!("dag-format.assets.md"),
            name if name == keys::EMAIL.name => include_str!("dag-format.email.md"),
            name if name == keys::MOUNT.name => include_str!("dag-format.docker.md"),
            name if name == keys::SQL.name => include_str!("dag-format.sql.md"),
            name if name == keys::TRIGGER_DAG.name => include_str!("dag-format.trigger.md"),
            name if name == keys::SHORT_CIRCUIT.name => include_str!("dag-format.deciders.md"),
            name if name == keys::SENSOR.name => include_str!("dag-format.sensors.md"),
            _ => "",
        };
    }
    text += include_str!("dag-format.templates.md");
    text += include_str!("dag-format.foot.md");
    keytable::assert_checked_in("docs/dag-format.md", &text);
}

#[test]
fn a_stored_definition_may_name_a_pool_that_has_gone() {
    let text = b"[tasks.a]\nempty = true\npool = \"gone\"\n";
    let refused = parse(Path::new("d.toml"), text, &Defaults::default()).unwrap_err();
    assert_eq!(refused[0].code, "unknown-pool");
    let dag = parse(Path::new("d.toml"), text, &Defaults::default().for_stored()).unwrap();
    assert_eq!(&*dag.tasks[0].pool, "gone");
}

#[test]
fn deciders_have_all_their_forms() {
    use crate::model::decider::{Bound, Branch, Choice, Condition, Question, ShortCircuit};
    use jiff::civil::{Weekday, time};
    use serde_json::json;
    let operator = |text: &str| {
        let tasks = format!("timezone = \"Europe/Berlin\"\n[tasks.a]\n{text}\n[tasks.b]\nempty = true\n");
        read(&tasks).unwrap_or_else(|faults| panic!("{}", faults[0])).tasks.remove(0).operator
    };
    let asked = |question| Operator::Branch(Branch::Ask(question));
    assert_eq!(operator("branch = { expr = '{{ x }}' }"), asked(Question::Expr(template("{{ x }}", 3, 20))));
    let file = Bash { script: Script::File("x.sh".to_owned()) };
    assert_eq!(operator("branch.bash.file = 'x.sh'"), asked(Question::Bash(file)));
    let Operator::Branch(Branch::Ask(Question::Python(python))) = operator("branch = { python = 'result = 1' }") else {
        panic!("it asks Python")
    };
    assert_eq!(python.script, Script::Text(template("result = 1", 3, 22)));
    let when = |text: &str, condition, if_true, if_false| {
        let expected = Operator::Branch(Branch::When(Choice { condition, if_true, if_false }));
        assert_eq!(operator(&format!("branch = {{ {text} }}")), expected, "{text}");
    };
    let days = Condition::Weekday(vec![Weekday::Sunday, Weekday::Monday, Weekday::Tuesday]);
    when("weekday = ['SUN', 'monday', 'Tue'], if_true = 'b', if_false = []", days, json!("b"), json!([]));
    let of = |hour| Some(Bound::TimeOfDay(time(hour, 30, 0, 0)));
    let window = |lower, upper| Condition::Between { lower, upper };
    when("between = ['22:30', 04:30:00], if_false = ['b', 'a']", window(of(22), of(4)), json!([]), json!(["b", "a"]));
    when("between = ['', '04:30:00'], if_true = 'b'", window(None, of(4)), json!("b"), json!([]));
    let local = Some(Bound::At(instant("2025-12-31T23:00:00Z")));
    when("between = [2026-01-01, ''], if_true = 'b'", window(local, None), json!("b"), json!([]));
    let short = |question, ignore_downstream_trigger_rules| {
        Operator::ShortCircuit(ShortCircuit { question, ignore_downstream_trigger_rules })
    };
    let expr = |column| Question::Expr(template("1", 3, column));
    assert_eq!(operator("short_circuit = { expr = '1' }"), short(expr(27), true));
    let text = "short_circuit = { ignore_downstream_trigger_rules = false, expr = '1' }";
    assert_eq!(operator(text), short(expr(68), false));
    assert_eq!(operator("latest_only = true"), Operator::LatestOnly);
}

fn warnings(text: &str, defaults: &Defaults) -> Vec<String> {
    let (_, warnings) = super::read(Path::new("d.toml"), text.as_bytes(), defaults).unwrap();
    warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn more_slots_than_a_pool_has_are_a_warning_at_their_place() {
    let text = "[default_args]\npool = 'cpu_intensive'\npool_slots = 3\n[tasks.a]\nbash = 'x'\n[tasks.b]\nbash = 'x'\n[tasks.c]\nbash = 'x'\npool_slots = 2\n[tasks.d]\nbash = 'x'\npool = 'default_pool'\npool_slots = 129\n";
    let expected = [
        "d.toml:3:14: pool-slots: pool `cpu_intensive` has 2 slots: a task that takes 3 waits until it has more\n3 | pool_slots = 3\n  |              ^\nhelp: take at most 2, or make the pool larger",
        "d.toml:14:14: pool-slots: pool `default_pool` has 128 slots: a task that takes 129 waits until it has more\n14 | pool_slots = 129\n   |              ^^^\nhelp: take at most 128, or make the pool larger",
    ];
    assert_eq!(warnings(text, &defaults()), expected);
    let endless = BTreeMap::from([("cpu_intensive".into(), -1), ("default_pool".into(), 1_000)]);
    assert_eq!(warnings(text, &Defaults { pools: endless, ..Defaults::default() }), Vec::<String>::new());
    // A stored definition was judged when it was stored.
    assert_eq!(warnings(text, &defaults().for_stored()), Vec::<String>::new());
}

#[test]
fn needs_that_exceed_what_may_be_reserved_are_a_warning_at_their_place() {
    let text = "[default_args]\nneeds = { memory = '3GiB', cpus = 2 }\n[tasks.a]\nbash = 'x'\n[tasks.b]\nbash = 'x'\n\
        [tasks.c]\nbash = 'x'\nneeds = { memory = '2GiB', cpus = 2.001 }\n[tasks.d]\nbash = 'x'\nneeds = { memory = 'auto' }\n";
    let reservable = Reservable { memory: Some(2 << 30), millicpus: Some(2_000) };
    let expected = [
        "d.toml:2:20: needs-too-much: `needs` 3GiB of memory, and 2.1 GB may be reserved in all: the task can never start\n\
         2 | needs = { memory = '3GiB', cpus = 2 }\n  |                    ^^^^^^\n\
         help: need less, or say `memory` under `[admission]` in airflow.toml; without it that is all that this host has",
        "d.toml:9:35: needs-too-much: `needs` 2.001 processors, and 2 may be reserved in all: the task can never start\n\
         9 | needs = { memory = '2GiB', cpus = 2.001 }\n  |                                   ^^^^^\n\
         help: need less, or say `cpus` under `[admission]` in airflow.toml; without it that is all that this host has",
    ];
    let on_host = defaults().with_host(reservable);
    assert_eq!(warnings(text, &on_host), expected);
    assert_eq!(warnings(text, &defaults()), Vec::<String>::new(), "nobody knows what the host has");
    assert_eq!(warnings(text, &on_host.clone().for_stored()), Vec::<String>::new());
    // What airflow.toml says wins over what the host has.
    let told = Defaults { reservable: Reservable { memory: Some(4 << 30), millicpus: Some(64_000) }, ..defaults() };
    assert_eq!(warnings(text, &told.with_host(reservable)), Vec::<String>::new());
}
