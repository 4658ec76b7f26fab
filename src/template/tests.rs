//! What a template's author sees: values, errors and their places.

use serde_json::json;

use super::*;
use crate::model::{DataInterval, Graph, Node, Operator, RunState, RunType, Task};

struct Stub {
    xcoms: Vec<(&'static str, i32, &'static str, Value)>,
    previous: Option<DagRun>,
}

impl Lookup for Stub {
    fn xcom(&self, run: RunKey, task_id: &str, index: i32, key: &str) -> Result<Option<Value>, String> {
        let found = self.xcoms(run, task_id, key)?;
        Ok(found.into_iter().find(|(at, _)| *at == index).map(|(_, value)| value))
    }

    fn xcoms(&self, run: RunKey, task_id: &str, key: &str) -> Result<Vec<(i32, Value)>, String> {
        if task_id == "locked" {
            return Err("the database is locked".to_owned());
        }
        let is_meant =
            |(task, _, name, _): &&(&str, i32, &str, Value)| run == RunKey(1) && (*task, *name) == (task_id, key);
        Ok(self.xcoms.iter().filter(is_meant).map(|(_, at, _, value)| (*at, value.clone())).collect())
    }

    fn earlier_xcoms(&self, _: &DagId, task_id: &str, _: &str, _: Timestamp) -> Result<Vec<(i32, Value)>, String> {
        Ok(if task_id == "b" { vec![(-1, json!("old"))] } else { Vec::new() })
    }

    fn run_key(&self, dag_id: &DagId, _: &RunId) -> Result<Option<RunKey>, String> {
        Ok((**dag_id == *"other").then_some(RunKey(1)))
    }

    fn previous_success(&self, _: &DagId, _: Timestamp) -> Result<Option<DagRun>, String> {
        Ok(self.previous.clone())
    }
}

fn task(task_id: &str) -> Task {
    Task::new(task_id.into(), Operator::Empty)
}

fn dag() -> Dag {
    let node = Node::default();
    let graph = Graph::new(vec![node.clone(), node], &[(TaskIx(0), TaskIx(1))]).unwrap();
    Dag {
        tags: vec!["x".to_owned()],
        params: json!({"region": "eu", "n": 1}).as_object().unwrap().clone(),
        ..Dag::new("d".into(), vec![task("a"), task("b")], graph)
    }
}

fn run(logical: Option<&str>) -> DagRun {
    let at: Option<Timestamp> = logical.map(|text| text.parse().unwrap());
    let run_after = "2024-03-11T00:00:00Z".parse().unwrap();
    DagRun {
        state: RunState::Running,
        logical_date: at,
        data_interval: at.map(|at| DataInterval { start: at, end: at }),
        ..DagRun::new(RunKey(1), "d".into(), "manual__1".into(), RunType::Manual, run_after)
    }
}

fn context() -> Context {
    let stub = Stub {
        xcoms: vec![
            ("a", -1, "return_value", json!("it's")),
            ("a", -1, "flag", json!(true)),
            ("a", -1, "rows", json!([1, {"k": null}])),
            ("m", 0, "return_value", json!(20)),
            ("m", 2, "return_value", json!(22)),
        ],
        previous: Some(run(Some("2024-03-09T00:00:00Z"))),
    };
    Context {
        dag: Arc::new(dag()),
        file: "dags/d.toml".into(),
        task: TaskIx(1),
        run: Arc::new(run(Some("2024-03-10T00:00:00Z"))),
        try_number: 1,
        max_tries: 1,
        map_index: -1,
        run_dir: PathBuf::from("/h/runs/d/manual__1"),
        host: "box".into(),
        variables: Arc::default(),
        overrides_params: true,
        environment: Arc::new(|name| (name == "HOME").then(|| "/root".to_owned())),
        now: "2024-03-11T12:00:00Z".parse().unwrap(),
        lookup: Arc::new(stub),
        files: Arc::new(NoFiles),
        additions: Arc::default(),
        undefined: UndefinedKind::Strict,
    }
}

fn template(text: &str) -> Template {
    Template { text: text.to_owned(), at: Position { line: 10, column: 9 } }
}

fn rendered(text: &str) -> String {
    match render(&template(text), &context()) {
        Ok(text) => text,
        Err(error) => panic!("{text}: {error}"),
    }
}

fn refused(text: &str) -> TemplateError {
    match render(&template(text), &context()) {
        Ok(text) => panic!("{text:?} instead of an error"),
        Err(error) => error,
    }
}

#[test]
fn a_text_without_tags_is_handed_on_less_one_newline() {
    assert_eq!(rendered("echo ${a} { } 5%\n\n"), "echo ${a} { } 5%\n");
    assert_eq!(rendered("{{ 'x' }}\n\n"), "x\n");
}

#[test]
fn values_print_as_python_prints_them() {
    let table = [
        ("{{ true }} {{ none }} {{ 1.0 }} {{ 10 / 4 }}", "True None 1.0 2.5"),
        ("{{ ['a', 1, none, 2.5] }} {{ {'k': \"it's\"} }}", "['a', 1, None, 2.5] {'k': \"it's\"}"),
        ("{{ 'a' ~ true }} {{ [true]|join('-') }} {{ false|string }}", "aTrue True False"),
        ("{{ dag.tags }} {{ task.upstream_task_ids }} {{ task }}", "['x'] ['a'] <Task(empty): b>"),
        ("{{ params }}", "{'region': 'eu', 'n': 1}"),
        ("{{ env.HOME }} {{ env.get('NO', 'x') }} {{ run_dir }}", "/root x /h/runs/d/manual__1"),
        ("{{ prev_data_interval_start_success | ds }} {{ prev_start_date_success }}", "2024-03-09 None"),
    ];
    for (text, wanted) in table {
        assert_eq!(rendered(text), wanted, "{text}");
    }
}

#[test]
fn methods_of_texts_dicts_and_lists_are_pythons() {
    let table = [
        ("{{ 'a,b,c'.split(',', 1) }} {{ ' a  b '.split() }}", "['a', 'b,c'] ['a', 'b']"),
        ("{{ 'a b c'.rsplit(' ', 1) }} {{ 'a b c'.rsplit(maxsplit=1) }}", "['a b', 'c'] ['a b', 'c']"),
        ("{{ 'xay'.strip('xy') }} {{ 'x.sql'.endswith(('.sql', '.py')) }}", "a True"),
        ("{{ '7'.zfill(3) }} {{ '-7'.zfill(3) }} {{ 'a'.center(4, '*') }}", "007 -07 *a**"),
        ("{{ '-'.join(['a', 'b']) }} {{ 'a=b=c'.partition('=') }}", "a-b ('a', '=', 'b=c')"),
        ("{{ \"they're x1y\".title() }} {{ 'éa'.find('a') }}", "They'Re X1Y 1"),
        ("{{ '{}-{x}'.format(1, x=2) }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 3) }}", "1-2 None 3"),
        (
            "{{ {'a': 1}.items() }} {{ {'a': 1}.keys() }} {{ {'a': 1}.values() }}",
            "dict_items([('a', 1)]) dict_keys(['a']) dict_values([1])",
        ),
        ("{{ [1, 2, 1].count(1) }} {{ ['x', 'y'].index('y') }}", "2 1"),
    ];
    for (text, wanted) in table {
        assert_eq!(rendered(text), wanted, "{text}");
    }
}

#[test]
fn xcom_inserts_texts_as_they_are_and_all_else_as_json() {
    assert_eq!(rendered("{{ xcom('a') }} {{ xcom('m', map_index=2) + 1 }}"), "it's 23");
    assert_eq!(rendered("{{ xcom('a', key='rows') }} {{ xcom('a', 'flag') }}"), "[1, {\"k\": null}] true");
    assert_eq!(rendered("{{ xcom('a', 'rows')[0] }} {{ xcom('a', 'rows')|length }}"), "1 2");
    assert_eq!(rendered("{% if xcom('a', 'flag') == true %}y{% endif %}"), "y");
    assert_eq!(rendered("{{ not xcom('a', 'flag') }} {{ xcom('a', 'flag') or 1 }} {{ true }}"), "False True True");
    assert_eq!(rendered("{{ xcom('b', default='none yet') }}"), "none yet");
    assert_eq!(
        rendered("{{ ti.state }} {{ ti.start_date }} {{ ti.end_date }} {{ ti.is_mapped }} {{ dag_run.clear_number }}"),
        "running 2024-03-11 12:00:00+00:00 None False 0"
    );
    assert_eq!(rendered("{{ ti.xcom_pull('a', key='flag') }} {{ ti.xcom_pull('b') }}"), "True None");
    assert_eq!(rendered("{{ ti.xcom_pull(['a', 'b']) }}"), "[\"it's\", None]");
    assert_eq!(rendered("{{ ti.xcom_pull('m', map_indexes=[2, 3], default=0) }}"), "[22, 0]");
    assert!(refused("{{ xcom('a', 'absent') }}").message.contains("no XCom `absent`"));
    assert!(refused("{{ xcom('nobody') }}").message.contains("no task `nobody`"));
    assert!(refused("{{ xcom('locked') }}").message.contains("the database is locked"));
}

#[test]
fn a_shell_sees_one_word_whatever_the_text_holds() {
    assert_eq!(rendered("{{ xcom('a') | sh }}"), "'it'\"'\"'s'");
    assert_eq!(rendered("{{ 'plain-1.txt' | sh }} {{ '' | sh }} {{ '$(x) `y`' | sh }}"), "plain-1.txt '' '$(x) `y`'");
    assert_eq!(rendered("{{ ['a b', 'c'] | sh }}"), "'a b' c");
}

#[test]
fn conf_overrides_params_unless_that_is_switched_off() {
    let mut context = context();
    let mut run = run(None);
    run.conf = json!({"n": 2, "new": "x"}).as_object().unwrap().clone();
    context.run = Arc::new(run);
    let text = template("{{ params.n }}{{ params.new | default('-') }}{{ params.region }}");
    assert_eq!(render(&text, &context).unwrap(), "2xeu");
    context.overrides_params = false;
    assert_eq!(render(&text, &context).unwrap(), "1-eu");
}

#[test]
fn a_mapped_instance_has_variables_of_its_own() {
    let mut context = context();
    context.variables = Arc::new(json!({"file": "a.csv"}).as_object().unwrap().clone());
    assert_eq!(render(&template("{{ file }} {{ item }}"), &context).unwrap(), "a.csv a.csv");
    context.variables = Arc::new(json!({"x": 1, "y": [2]}).as_object().unwrap().clone());
    assert_eq!(render(&template("{{ x }} {{ y[0] }} {{ item is defined }}"), &context).unwrap(), "1 2 False");
}

#[test]
fn a_run_without_logical_date_has_no_dates_and_says_what_to_use() {
    let mut context = context();
    context.run = Arc::new(run(None));
    let error = render(&template("x {{ ds }}"), &context).unwrap_err();
    assert_eq!(error.message, "`ds` is undefined");
    assert!(error.help.contains("dag_run.run_after"), "{}", error.help);
    assert_eq!(render(&template("{{ task_instance_key_str }}"), &context).unwrap(), "d__b__manual__1");
}

#[test]
fn an_error_names_its_place_in_the_dag_file() {
    let place = |text: &str| {
        let error = refused(text);
        (error.line, error.column)
    };
    assert_eq!(place("é {{ nope }}"), (10, 14));
    assert_eq!(place("one\n  two {{ params.nope }}"), (11, 10));
    assert_eq!(place("one\n\n{% if %}"), (12, 7));
    assert_eq!(place("{{ (logical_date - macros.timedelta(1)) | ds }}{{ nope }}"), (10, 59));
    assert_eq!(refused("{{ nope }}").to_string().lines().next(), Some("dags/d.toml:10:12: `nope` is undefined"));
}

#[test]
fn a_name_that_is_nearly_right_or_was_removed_is_mended() {
    assert_eq!(refused("{{ logical_dat }}").help, "did you mean `logical_date`?");
    assert!(refused("{{ execution_date }}").help.contains("write `logical_date`"));
    assert!(refused("{% if nope %}x{% endif %}").message.contains("`nope`"));
}

#[test]
fn the_length_of_a_bash_array_is_told_from_a_comment() {
    let error = refused("a=(1 2)\necho ${#a[@]}\n");
    assert_eq!((error.line, error.column), (11, 7));
    assert!(error.message.contains("`{#` opens a template comment"), "{}", error.message);
    assert_eq!(rendered("echo ${{ '{#' }}a[@]}"), "echo ${#a[@]}");
    assert_eq!(rendered("{% raw %}echo ${#a[@]}{% endraw %}"), "echo ${#a[@]}");
}

#[test]
fn braces_of_another_language_are_told_how_to_pass() {
    let error = refused("docker ps --format '{{.Names}}'");
    assert!(error.message.starts_with("syntax error"), "{}", error.message);
    assert!(error.help.contains("{% raw %}"), "{}", error.help);
}

#[test]
fn times_add_and_subtract_and_compare() {
    let table = [
        ("{{ logical_date + macros.timedelta(days=1) }}", "2024-03-11 00:00:00+00:00"),
        ("{{ macros.timedelta(hours=1) + logical_date }}", "2024-03-10 01:00:00+00:00"),
        ("{{ logical_date - macros.timedelta(1) - macros.timedelta(1) }}", "2024-03-08 00:00:00+00:00"),
        ("{{ (dag_run.run_after - logical_date).total_seconds() }}", "86400.0"),
        ("{{ (dag_run.run_after - logical_date).days }} {{ 'a - b' }}", "1 a - b"),
        ("{{ logical_date.date() + macros.timedelta(days=1) }}", "2024-03-11"),
        ("{{ macros.timedelta(days=-1, seconds=1) }}", "-1 day, 0:00:01"),
        ("{{ logical_date < dag_run.run_after }} {{ logical_date == data_interval_end }}", "True True"),
        ("{{ logical_date.in_timezone('Europe/Berlin').format('YYYY-MM-DD[T]HH:mm Z') }}", "2024-03-10T01:00 +01:00"),
        ("{{ logical_date.strftime('%-d. %B %y, %I %p %%') }}", "10. March 24, 12 AM %"),
        ("{{ logical_date.end_of('week') }}", "2024-03-10 23:59:59.999999+00:00"),
        ("{{ macros.datetime.strptime('3 Feb 2024 PM 01', '%d %b %Y %p %I') }}", "2024-02-03 13:00:00"),
        ("{{ macros.dateutil.parser.parse('2024-02-03T04:05:06+02:00').isoformat() }}", "2024-02-03T04:05:06+02:00"),
    ];
    for (text, wanted) in table {
        assert_eq!(rendered(text), wanted, "{text}");
    }
    assert!(refused("{{ logical_date + 1 }}").message.contains("macros.timedelta"));
}

#[test]
fn a_step_of_the_calendar_is_dateutils() {
    let relative = "{% set r = macros.dateutil.relativedelta.relativedelta %}";
    let table = [
        ("{{ logical_date + r(months=-1) }}", "2024-02-10 00:00:00+00:00"),
        (
            "{{ (logical_date - r(months=1, day=31)) | ds }} {{ (logical_date + r(day=31, months=1)) | ds }}",
            "2024-02-29 2024-04-30",
        ),
        (
            "{{ (logical_date + r(years=1, weeks=1, days=-1, hour=6, minute=5)).isoformat() }}",
            "2025-03-16T06:05:00+00:00",
        ),
        (
            "{{ (logical_date + r(months=-14)) | ds }} {{ (logical_date + r(year=2020, month=2, days=20)) | ds }}",
            "2023-01-10 2020-03-01",
        ),
        (
            "{{ logical_date.date() + r(months=1) }} {{ logical_date.date() + r(hours=1) }}",
            "2024-04-10 2024-03-10 01:00:00",
        ),
        ("{{ macros.datetime(2024, 1, 31) + r(months=1) }}", "2024-02-29 00:00:00"),
        (
            "{{ r(minutes=90, months=13) }} {{ -r(days=1, day=3) }}",
            "relativedelta(years=+1, months=+1, hours=+1, minutes=+30) relativedelta(days=-1, day=3)",
        ),
        (
            "{{ r(days=1) + r(days=2, hour=4) - r(hours=1) }} {{ r().months }} {{ not r() }}",
            "relativedelta(days=+3, hours=-1, hour=4) 0 True",
        ),
        ("{{ r(days=1) == r(hours=24) }}", "True"),
    ];
    for (text, wanted) in table {
        assert_eq!(rendered(&format!("{relative}{text}")), wanted, "{text}");
    }
    let refused = |text: &str| refused(&format!("{relative}{text}")).message;
    assert!(refused("{{ r(weekday=1) }}").contains("unexpected keyword argument 'weekday'"));
    assert!(refused("{{ r(months=1.5) }}").contains("cannot be interpreted as an integer"));
    assert!(refused("{{ logical_date + r(years=90000) }}").contains("out of range"));
    assert!(refused("{{ logical_date + r(days=9223372036854775807) }}").contains("out of range"));
    assert!(refused("{{ logical_date + r(hour=24) }}").contains("hour"));
    assert!(refused("{{ 1 + r(days=1) }}").contains("unsupported operand"));
}

#[test]
fn a_text_is_formatted_by_percent_as_in_python() {
    assert_eq!(rendered("{{ '%02d-%s' % (params.n, 'a%b') }} {{ '%s%%' % 5 }} {{ 7 % 4 }}"), "01-a%b 5% 3");
    assert!(refused("{{ 'a' - 1 }}").message.contains("unsupported operand"));
}

#[test]
fn no_template_runs_for_ever_or_fills_the_memory() {
    let endless = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
    assert_eq!(refused(endless).message, "the template takes too long");
    assert!(refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").message.contains("recursion"));
    assert!(refused("{% for a in range(1000) %}{{ 'x' * 100000 }}{% endfor %}").message.contains("16 MiB"));
    assert!(refused("{{ range(1000000000)|list }}").message.contains("range"));
}

#[test]
fn values_are_rendered_to_their_depth_but_keys_are_not() {
    let value = json!({"{{ ds }}": ["{{ ds }}", 1, null, {"a": "{{ params.n + 1 }}"}]});
    let at = Position { line: 3, column: 5 };
    let wanted = json!({"{{ ds }}": ["2024-03-10", 1, null, {"a": "2"}]});
    assert_eq!(render_value(&value, at, &context()).unwrap(), wanted);
    let error = render_value(&json!(["x\ny {{ nope }}"]), at, &context()).unwrap_err();
    assert_eq!((error.line, error.column), (3, 5));
}

/// The rows of the page's tables: what is between the first two pairs of backticks.
#[test]
fn the_examples_of_the_page_become_what_it_says() {
    let page = include_str!("../dagfile/dag-format.templates.md");
    let mut count = 0;
    for row in page.lines().filter(|line| line.starts_with("| `{{")) {
        let cells: Vec<&str> = row.split("` |").collect();
        let cell = |at: usize| cells[at].trim_start_matches("| ").trim().trim_start_matches('`').replace("\\|", "|");
        assert_eq!(rendered(&cell(0)).trim_end(), cell(1), "{row}");
        count += 1;
    }
    assert!(count > 50, "{count}");
}

#[test]
fn the_page_names_every_variable_filter_and_macro() {
    let page = include_str!("../dagfile/dag-format.templates.md");
    let named = |name: &&str| {
        page.contains(&format!("{name} "))
            || page.contains(&format!("`{name}`"))
            || page.contains(&format!("{name}."))
            || page.contains(&format!("{name}("))
    };
    let own = variables::NAMES.iter().chain(&filters::NAMES).chain(jinja::filter_names());
    let missing: Vec<_> = own.filter(|name| !named(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// What a row calls `also`: the attributes that its example does not show.
#[test]
fn every_attribute_that_the_page_names_is_there() {
    let page = include_str!("../dagfile/dag-format.templates.md");
    let mut count = 0;
    for owner in ["dag", "task", "ti", "dag_run"] {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{{{{ {owner}."))).unwrap();
        let mut rest = row.split_once("also ").unwrap().1.to_owned();
        while let Some((before, after)) = rest.split_once('(') {
            rest = format!("{before}{}", after.split_once(')').unwrap().1);
        }
        for name in rest.split('`').skip(1).step_by(2) {
            assert_eq!(rendered(&format!("{{{{ {owner}.{name} is defined }}}}")), "True", "{owner}.{name}");
            count += 1;
        }
    }
    assert!(count > 60, "{count}");
}

#[test]
fn what_a_file_says_of_a_task_is_seen_by_its_templates() {
    let mut dag = dag();
    dag.groups.push(crate::model::Group {
        group_id: "g".to_owned(),
        parent: None,
        prefix: "g.".to_owned(),
        tooltip: String::new(),
    });
    dag.tasks[1] = Task {
        group: Some(crate::model::GroupIx(0)),
        retry_delay: std::time::Duration::from_secs(90),
        map_index_template: Some(template("{{ item }}")),
        ..task("g.b")
    };
    let context = Context { dag: Arc::new(dag), ..context() };
    let table = [
        ("{{ ti.hostname }} {{ ti.rendered_map_index }}", "box None"),
        ("{{ task.task_id }} {{ task.label }} {{ task.dag.dag_id }}", "g.b b d"),
        ("{{ task.retry_delay }} {{ task.execution_timeout }} {{ task.is_teardown }}", "0:01:30 None False"),
        ("{{ map_index_template }} {{ task.map_index_template }}", "{{ item }} {{ item }}"),
    ];
    for (text, wanted) in table {
        assert_eq!(render(&template(text), &context).unwrap(), wanted, "{text}");
    }
}

/// One file below the DAG file's folder.
struct OneFile(&'static str, &'static str);

impl Files for OneFile {
    fn read(&self, name: &str) -> Result<Option<String>, String> {
        match name {
            "closed.sh" => Err("cannot read the template file `closed.sh`".to_owned()),
            _ => Ok((name == self.0).then(|| self.1.to_owned())),
        }
    }
}

#[test]
fn a_script_that_is_there_is_rendered_and_any_other_path_is_a_command() {
    let mut context = context();
    context.files = Arc::new(OneFile("scripts/report.sh", "echo {{ ds }}\n{{ nope }}"));
    let script = |text: &str| render_script(&template(text), &context);
    for command in
        ["scripts/absent.sh", "/usr/local/bin/report.sh", "scripts/report.sh now", "scripts/report.sh ", "report"]
    {
        assert_eq!(script(command).unwrap(), command);
    }
    let error = script("scripts/report.sh").unwrap_err();
    assert_eq!((&*error.path, error.line, error.column), ("dags/scripts/report.sh", 2, 4));
    assert!(script("closed.sh").unwrap_err().message.contains("cannot read"));
    let mut context = context.clone();
    context.files = Arc::new(OneFile("report.bash", "echo {{ ds }}\n"));
    assert_eq!(render_script(&template("report.bash"), &context).unwrap(), "echo 2024-03-10");
}

#[test]
fn a_pull_reads_other_runs_where_it_is_told_to() {
    assert_eq!(rendered("{{ ti.xcom_pull('b', include_prior_dates=true) }} {{ ti.xcom_pull('b') }}"), "old None");
    assert_eq!(rendered("{{ ti.xcom_pull('a', dag_id='other', run_id='x') }}"), "it's");
    assert_eq!(rendered("{{ ti.xcom_pull('a', dag_id='absent') }}"), "None");
    assert_eq!(rendered("{{ ti.xcom_pull('m') }} {{ ti.xcom_pull('m', map_indexes=0) }}"), "[20, 22] 20");
    assert_eq!(rendered("{{ ti.xcom_pull() }} {{ ti.xcom_pull(['a', 'm', 'b']) }}"), "None [\"it's\", 20, 22, None]");
}
