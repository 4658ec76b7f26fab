//! A task's templates to the text that it gets. `cargo bench --bench template`.

use std::path::Path;
use std::sync::Arc;

use divan::Bencher;
use jiff::Timestamp;
use minflow::dagfile::{self, Defaults};
use minflow::model::dag::Position;
use minflow::model::{DagRun, DataInterval, RunKey, RunState, RunType, TaskIx, Template};
use minflow::template::{self, Context, Lookup, NoFiles, UndefinedKind};
use serde_json::{Map, Value, json};

fn main() {
    divan::main();
}

/// Every task has pushed a list of fifty numbers.
struct Pushed;

impl Lookup for Pushed {
    fn xcoms(&self, _: RunKey, _: &str, _: &str) -> Result<Vec<(i32, Value)>, String> {
        Ok(vec![(-1, json!((0..50).collect::<Vec<i32>>()))])
    }
}

fn context() -> Context {
    let source = "schedule = \"@daily\"\n[params]\nregion = \"eu\"\n[tasks.load]\nbash = \"true\"\n";
    let dag = dagfile::parse(Path::new("dags/sales.toml"), source.as_bytes(), &Defaults::default());
    let day: Timestamp = "2026-11-21T00:00:00Z".parse().expect("it is an instant");
    let run = DagRun {
        key: RunKey(1),
        dag_id: "sales".into(),
        run_id: "scheduled__2026-11-21T00:00:00+00:00".into(),
        run_type: RunType::Scheduled,
        state: RunState::Running,
        run_after: day,
        logical_date: Some(day),
        data_interval: Some(DataInterval { start: day, end: day }),
        queued_at: Some(day),
        start_date: Some(day),
        end_date: None,
        conf: Map::new(),
        reason: None,
        lag: None,
        backfill: None,
        is_released: false,
        clear_number: 0,
    };
    Context {
        dag: Arc::new(dag.expect("the text is valid")),
        file: "dags/sales.toml".into(),
        task: TaskIx(0),
        run: Arc::new(run),
        try_number: 1,
        max_tries: 0,
        map_index: -1,
        run_dir: "/home/runs/sales/scheduled__2026-11-21".into(),
        host: "".into(),
        variables: Arc::default(),
        overrides_params: true,
        environment: Arc::new(|_: &str| None),
        now: day,
        lookup: Arc::new(Pushed),
        files: Arc::new(NoFiles),
        additions: Arc::default(),
        undefined: UndefinedKind::Strict,
    }
}

#[divan::bench(args = ["plain", "date", "macros", "loop over an xcom"])]
fn render(bencher: Bencher<'_, '_>, kind: &str) {
    let text = match kind {
        "plain" => "load-one --all /srv/in",
        "date" => "load {{ ds }} --region {{ params.region | sh }}",
        "macros" => "{{ macros.ds_add(ds, -7) }} {{ data_interval_start.strftime('%Y/%m/%d %H:%M') }} {{ ts_nodash }}",
        _ => "{% for number in xcom('list') %}{{ number * 2 }},{% endfor %}",
    };
    let template = Template { text: text.to_owned(), at: Position { line: 5, column: 9 } };
    let context = context();
    bencher.bench(|| template::render(&template, &context).expect("the template is valid"));
}
