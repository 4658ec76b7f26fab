//! The command line as a user runs it: the real binary, every byte that it prints, its exit code.

#![allow(clippy::unwrap_used)] // a test that cannot go on is a failed test

mod completions;
mod database;
mod import;
mod pools;
mod service;
mod stored;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use stored::one_run;

/// One run of the binary in a home of its own. Unless told otherwise it must exit with 0 and print nothing at all.
struct Test {
    home: TempDir,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    stdout: Expected,
    stderr: Expected,
    code: i32,
}

enum Expected {
    Exactly(String),
    Json(Value),
    Containing(&'static str),
}

impl Test {
    fn new(command: &str) -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
            arguments: command.split_whitespace().map(str::to_owned).collect(),
            environment: Vec::new(),
            stdout: Expected::Exactly(String::new()),
            stderr: Expected::Exactly(String::new()),
            code: 0,
        }
    }

    /// Goes on in a home that an earlier one has left.
    fn in_home(mut self, home: TempDir) -> Self {
        self.home = home;
        self
    }

    fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    fn file(self, name: &str, text: &str) -> Self {
        let path = self.home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn database(self, fill: impl FnOnce(&Path)) -> Self {
        fill(&self.home.path().join("minflow.db"));
        self
    }

    fn stdout(mut self, text: &str) -> Self {
        self.stdout = Expected::Exactly(text.to_owned());
        self
    }

    fn json(mut self, value: Value) -> Self {
        self.stdout = Expected::Json(value);
        self
    }

    fn stdout_contains(mut self, text: &'static str) -> Self {
        self.stdout = Expected::Containing(text);
        self
    }

    fn stderr(mut self, text: &str) -> Self {
        self.stderr = Expected::Exactly(text.to_owned());
        self
    }

    fn stderr_contains(mut self, text: &'static str) -> Self {
        self.stderr = Expected::Containing(text);
        self
    }

    fn code(mut self, code: i32) -> Self {
        self.code = code;
        self
    }

    /// Runs it in its home, and gives the home back. `HOME` in an expected text stands for its path.
    fn run(self) -> TempDir {
        let done = Command::new(env!("CARGO_BIN_EXE_minflow"))
            .args(&self.arguments)
            .current_dir(self.home.path())
            .env_clear()
            .env("TZ", "UTC")
            .envs(self.environment)
            .output()
            .unwrap();
        let stderr = String::from_utf8(done.stderr).unwrap();
        let home = self.home.path().to_str().unwrap();
        self.stdout.check(&String::from_utf8(done.stdout).unwrap(), home, "standard output");
        self.stderr.check(&stderr, home, "standard error");
        assert_eq!(done.status.code(), Some(self.code), "{stderr}");
        self.home
    }
}

impl Expected {
    fn check(&self, printed: &str, home: &str, what: &str) {
        match self {
            Self::Exactly(text) => assert_eq!(printed, text.replace("HOME", home), "{what}"),
            Self::Json(value) => {
                let read: Value = serde_json::from_str(printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
                assert_eq!(&read, value, "{what}");
            }
            Self::Containing(text) => assert!(printed.contains(text), "{what}: {printed}"),
        }
    }
}

const DAG: &str = "schedule = \"0 6 * * *\"\nstart_date = 2099-01-01\ntags = [\"a\", \"b\"]\n\n[tasks.load]\n\
    bash = \"echo {{ ds }}\"\n\n[tasks.report]\ndepends_on = [\"load\"]\nempty = true\n";

#[test]
fn version_prints_the_version() {
    Test::new("version").stdout("0.1.0\n").run();
    Test::new("version -o json").json(json!({"version": "0.1.0"})).run();
}

#[test]
fn an_unknown_command_is_a_usage_error() {
    Test::new("dags lst").code(2).stderr_contains("unrecognized subcommand 'lst'").run();
}

#[test]
fn a_home_that_is_no_folder_is_refused() {
    Test::new("dags list --home nowhere")
        .code(1)
        .stderr("error: the home `nowhere` is no folder\nhelp: `minflow init nowhere` makes one there; or name another with --home\n")
        .run();
}

#[test]
fn options_stand_before_or_after_the_command() {
    let home = Test::new("--home other -o plain pools list").file("other/airflow.toml", "[pools]\nx = 3\n");
    home.stdout("pool          slots  description  include_deferred  source\ndefault_pool  128                 false             default\nx             3                   false             configuration\n").run();
    Test::new("pools list -o json --home other")
        .file("other/x", "")
        .json(json!([{"pool": "default_pool", "slots": 128, "description": "", "include_deferred": false, "source": "default"}]))
        .run();
}

#[test]
fn an_empty_home_has_no_dags() {
    Test::new("dags list --columns dag_id,is_paused")
        .stdout("dag_id | is_paused\n=======+==========\n")
        .stderr("there is no database yet: these are the DAG files; `minflow run` starts them\n")
        .run();
}

#[test]
fn an_unknown_column_is_answered_with_the_one_that_was_meant() {
    Test::new("dags list --columns dagid")
        .code(2)
        .stderr("error: unknown column `dagid`\nhelp: did you mean `dag_id`?\n")
        .run();
}

#[test]
fn unknown_ids_are_answered_with_what_was_meant() {
    let help = "help: did you mean `sales`? `minflow dags list` lists them all\n";
    for command in ["dags show slaes", "dags list-runs slaes", "tasks list slaes", "dags state slaes 2026-11-21"] {
        Test::new(command)
            .file("dags/sales.toml", DAG)
            .code(1)
            .stderr(&format!("error: unknown dag_id `slaes`\n{help}"))
            .run();
    }
    Test::new("tasks render sales laod")
        .file("dags/sales.toml", DAG)
        .code(1)
        .stderr("error: unknown task_id `laod`\nhelp: did you mean `load`? `minflow tasks list sales` lists them all\n")
        .run();
}

#[test]
fn a_dag_whose_file_is_broken_is_not_called_unknown() {
    let broken = "[tasks.load]\nbash = 3\n";
    for command in ["dags trigger sales", "dags show sales", "tasks list sales"] {
        Test::new(command)
            .file("dags/etl/sales.toml", broken)
            .code(1)
            .stderr(
                "error: `sales` has no definition: its file `dags/etl/sales.toml` is broken\n\
                 help: `minflow validate dags/etl/sales.toml` shows what is wrong with it\n",
            )
            .run();
    }
    Test::new("dags list -o json")
        .file("dags/etl/sales.toml", broken)
        .json(json!([]))
        .stderr(
            "there is no database yet: these are the DAG files; `minflow run` starts them\n\
             1 DAG file is broken: `minflow dags list-import-errors` says what is wrong with it\n",
        )
        .run();
}

#[test]
fn without_a_running_minflow_status_exits_with_4() {
    Test::new("status")
        .code(4)
        .stderr("error: no minflow is running on `HOME`\nhelp: start one with `minflow run`, or name its home with --home\n")
        .run();
}

#[test]
fn waiting_for_a_run_without_a_running_minflow_exits_with_4() {
    for command in ["dags trigger sales --wait", "tasks logs sales load -f"] {
        Test::new(command).file("dags/sales.toml", DAG).code(4).stderr_contains("no minflow is running").run();
    }
}

#[test]
fn validate_shows_every_fault_of_every_file_at_once() {
    Test::new("validate")
        .file("airflow.toml", "[core]\nparalelism = 3\n")
        .file("dags/a.toml", "[tasks.x]\nbash = \"true\"\nretrys = 1\npool = \"mine\"\n")
        .file("dags/b.toml", DAG)
        .code(3)
        .stdout(
            "airflow.toml:2:1: unknown-key: unknown key `paralelism`\n2 | paralelism = 3\n  | ^^^^^^^^^^\n\
             help: did you mean `parallelism`?\n\n\
             dags/a.toml:3:1: unknown-key: unknown key `retrys`\n3 | retrys = 1\n  | ^^^^^^\n\
             help: did you mean `retries`?\n\n",
        )
        .stderr("3 files checked, 2 faults in 2\n")
        .run();
}

#[test]
fn validate_shows_the_templates_that_do_not_parse() {
    Test::new("validate")
        .file(
            "dags/t.toml",
            "[tasks.a]\nbash = \"\"\"\necho one\na=(1 2); echo ${#a[@]}\n\"\"\"\n\n\
             [tasks.b]\npython = { file = \"f.py\", function = \"f\", args = [1, [\"{{ ds\"]] }\nenv = { OK = \"{{ ds }}\" }\n",
        )
        .code(3)
        .stdout(
            "dags/t.toml:4:16: bad-template: `{#` opens a template comment that is never closed by `#}`\n\
             4 | a=(1 2); echo ${#a[@]}\n\u{20} |                ^\n\
             help: in a script, write `{{ '{#' }}` for the two characters (bash: `${{ '{#' }}a[@]}`), or put the script \
             between `{% raw %}` and `{% endraw %}`\n\n\
             dags/t.toml:8:50: bad-template: syntax error: unexpected end of template, expected 'end of print statement'.\n\
             8 | python = { file = \"f.py\", function = \"f\", args = [1, [\"{{ ds\"]] }\n\u{20} |                                                  ^\n\
             help: mend the expression; braces that are not the template's go between `{% raw %}` and `{% endraw %}`\n\n",
        )
        .stderr("1 file checked, 2 faults in 1\n")
        .run();
}

#[test]
fn validate_gives_programs_the_same_faults() {
    let home = Test::new("validate -o json dags/a.toml")
        .file("dags/a.toml", "[tasks.x]\nbash = \"true\"\nretrys = 1\n")
        .code(3)
        .stdout_contains(
            "\"filename\": \"dags/a.toml\",\n    \"line\": 3,\n    \"column\": 1,\n    \"code\": \"unknown-key\",\n    \
            \"message\": \"unknown key `retrys`\",\n    \"help\": \"did you mean `retries`?\",\n    \"timestamp\": \"",
        )
        .stderr("1 file checked, 1 fault in 1\n");
    home.run();
    Test::new("validate -o json").file("dags/b.toml", DAG).json(json!([])).stderr("1 file checked, no faults\n").run();
}

#[test]
fn a_warning_is_shown_and_is_no_fault() {
    let text = "[tasks.x]\nbash = \"true\"\npool = \"db\"\npool_slots = 4\n";
    let warning = "dags/a.toml:4:14: pool-slots: pool `db` has 3 slots: a task that takes 4 waits until it has more\n\
                   4 | pool_slots = 4\n  |              ^\nhelp: take at most 3, or make the pool larger\n\n";
    let home = Test::new("validate").file("airflow.toml", "[pools]\ndb = 3\n").file("dags/a.toml", text);
    let home = home.stdout(&format!("warning: {warning}")).stderr("2 files checked, no faults, 1 warning\n").run();
    let json = Test::new("validate -o json").in_home(home).stdout_contains("\"severity\": \"warning\"");
    json.stderr("2 files checked, no faults, 1 warning\n").run();
}

#[test]
fn needs_that_can_never_be_met_are_a_warning() {
    let text = "[tasks.x]\nbash = \"true\"\nneeds = { memory = \"2GB\" }\n";
    let warning = "dags/a.toml:3:20: needs-too-much: `needs` 2GB of memory, and 1.0 GB may be reserved in all: the task can never start\n\
                   3 | needs = { memory = \"2GB\" }\n  |                    ^^^^^\n\
                   help: need less, or say `memory` under `[admission]` in airflow.toml; without it that is all that this host has\n\n";
    let home = Test::new("validate").file("airflow.toml", "[admission]\nmemory = \"1GB\"\n").file("dags/a.toml", text);
    home.stdout(&format!("warning: {warning}")).stderr("2 files checked, no faults, 1 warning\n").run();
    // No host has as much.
    let text = text.replace("2GB", "9000TB");
    let home = Test::new("validate").file("dags/a.toml", &text).stdout_contains("needs-too-much");
    home.stderr("1 file checked, no faults, 1 warning\n").run();
}

#[test]
fn two_files_of_one_dag_id_are_both_named() {
    Test::new("validate")
        .file("dags/a.toml", &format!("dag_id = \"x\"\n{DAG}"))
        .file("dags/x.toml", DAG)
        .code(3)
        .stdout(
            "dags/x.toml: duplicate-dag-id: the dag_id `x` is also that of `dags/a.toml`\n\
             help: give one of the two another `dag_id`, or rename its file\n\n",
        )
        .stderr("2 files checked, 1 fault in 1\n")
        .run();
}

#[test]
fn a_broken_configuration_stops_other_commands_with_3() {
    Test::new("dags list")
        .file("airflow.toml", "[core]\nparallelism = 0\n")
        .code(3)
        .stderr_contains("airflow.toml:2:")
        .run();
}

#[test]
fn init_makes_a_home_that_validates_and_overwrites_nothing() {
    let home = Test::new("init new")
        .stderr("made a home in `new`: airflow.toml, dags/hello.toml, .gitignore\nnext: minflow --home new run\n")
        .run();
    let again = |command: &str| Test { home: tempfile::TempDir::new_in(home.path()).unwrap(), ..Test::new(command) };
    again("--home ../new validate").stderr("2 files checked, no faults\n").run();
    again("init ../new")
        .code(1)
        .stderr(
            "error: `../new/airflow.toml`, `../new/dags/hello.toml`, `../new/.gitignore` would be overwritten; nothing was written\n\
             help: choose another folder, or move these files away\n",
        )
        .run();
    again("init .").stderr_contains("next: minflow run\n").run();
    again("--home named init").stderr_contains("next: minflow --home named run\n").run();
    again("--home one init two").code(1).stderr_contains("name two folders").run();
}

#[test]
fn init_says_what_every_key_is_by_default() {
    // The commented lines of a new home's airflow.toml, with their marks removed, are the defaults.
    let text = include_str!("../../src/cli/init/airflow.toml");
    let open: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key) if key.contains(" = ") => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let list = |text: &str| {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("airflow.toml"), text).unwrap();
        let done = Command::new(env!("CARGO_BIN_EXE_minflow"))
            .args(["config", "list", "-o", "json"])
            .current_dir(home.path())
            .env_clear()
            .output()
            .unwrap();
        let shown = String::from_utf8(done.stdout).unwrap().replace(home.path().to_str().unwrap(), "HOME");
        let entries: Vec<Value> =
            serde_json::from_str(&shown).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&done.stderr)));
        entries.into_iter().filter(|entry| entry["key"] != "cpu_intensive").collect::<Vec<_>>()
    };
    let of_defaults = list("");
    assert_eq!(list(&open), of_defaults);
    let explained =
        of_defaults.iter().filter(|entry| open.contains(&format!("{} = ", entry["key"].as_str().unwrap()))).count();
    assert_eq!(explained, of_defaults.len(), "a key is not explained");
}

#[test]
fn config_list_tells_where_each_value_comes_from() {
    Test::new("config list --origins --section api -o plain")
        .file("airflow.toml", "[api]\nhost = \"127.0.0.2\"\n")
        .env("MINFLOW__API__PORT", "9000")
        .stdout(
            "section  key   value      origin\napi      host  127.0.0.2  airflow.toml:2\n\
             api      port  9000       MINFLOW__API__PORT\n",
        )
        .run();
}

#[test]
fn config_get_value_prints_the_value_alone() {
    Test::new("config get-value core parallelism").stdout("32\n").run();
    Test::new("config get-value core.parallelism").stdout("32\n").run();
    Test::new("config get-value core")
        .code(2)
        .stderr("error: which option of `core`?\nhelp: `minflow config list --section core` lists them\n")
        .run();
    Test::new("config get-value core paralelism")
        .code(1)
        .stderr(
            "error: unknown option of `core`: `paralelism`\n\
             help: did you mean `parallelism`? `minflow config list --section core` lists them all\n",
        )
        .run();
}

#[test]
fn details_say_when_a_dag_runs_in_the_words_of_its_file() {
    let file = "timezone = \"Europe/London\"\nstart_date = 2026-07-01\nend_date = 2026-12-31\n\
                schedule = { crons = [\"0 9 * * mon-fri\", \"@weekly\"], timezone = \"Asia/Tokyo\" }\n\
                catchup = \"window:90m\"\nrun_immediately = 3600\nmax_consecutive_failed_dag_runs = 2\n\
                [tasks.a]\nempty = true\n";
    Test::new("dags details office -o json")
        .file("dags/office.toml", file)
        .stdout_contains(
            "  \"start_date\": \"2026-06-30T23:00:00.000000Z\",\n  \"end_date\": \"2026-12-31T00:00:00.000000Z\",\n  \
             \"catchup\": \"window:1h30m\",\n  \"data_interval\": false,\n  \"run_immediately\": \"1h\",\n  \
             \"max_active_runs\": 16,\n  \"max_active_tasks\": 16,\n  \"max_consecutive_failed_dag_runs\": 2,\n",
        )
        .run();
}

#[test]
fn next_execution_follows_the_schedule() {
    let run = |day: u32| {
        let at = format!("2099-01-0{day}T06:00:00.000000Z");
        json!({"logical_date": at, "run_after": at, "data_interval_start": at, "data_interval_end": at})
    };
    Test::new("dags next-execution sales -n 2 -o json")
        .file("dags/sales.toml", DAG)
        .json(json!([run(1), run(2)]))
        .run();
    Test::new("dags next-execution sales --field run_after")
        .file("dags/sales.toml", DAG)
        .stdout("2099-01-01 06:00:00 UTC\n")
        .run();
}

#[test]
fn next_execution_says_why_there_is_no_table_of_many_rows() {
    let dag = |schedule: &str| format!("schedule = \"{schedule}\"\n[tasks.a]\nempty = true\n");
    let never = || Test::new("dags next-execution d -n 3").file("dags/d.toml", &dag("0 0 30 2 *"));
    never().stderr("`d` has no next run by its schedule\n").run();
    let again = Test::new("dags next-execution d -n 3 --field run_after");
    again
        .file("dags/d.toml", &format!("start_date = 2099-01-01\n{}", dag("@continuous")))
        .stderr("`d` runs again as soon as a run is over; this is the next one\n")
        .stdout("2099-01-01 00:00:00 UTC\n")
        .run();
}

#[test]
fn an_end_of_a_simulation_that_is_none_is_refused_with_the_forms_there_are() {
    let simulate = |options: &str| Test::new(&format!("simulate {options}")).file("dags/sales.toml", DAG).code(2);
    simulate("--until soon")
        .stderr(
            "error: --until `soon` is neither a date nor a time after the beginning\n\
             help: write a date, e.g. 2026-12-24 or 2026-12-24T06:00, or a time such as 12h, 7d or 52w\n",
        )
        .run();
    simulate("--from 1960-01-01 --until 1d")
        .stderr(
            "error: `1960-01-01T00:00:00Z to 1960-01-02T00:00:00Z` lies outside the years 1970 to 2099\n\
             help: name dates of these years, or a shorter time, e.g. --until 365d\n",
        )
        .run();
}

#[test]
fn render_shows_the_fields_as_a_run_sees_them() {
    Test::new("tasks render sales load 2026-11-21")
        .file("dags/sales.toml", DAG)
        .stdout("# bash\necho 2026-11-21\n\n")
        .run();
    let faulty = DAG.replace("{{ ds }}", "{{ dss }}");
    Test::new("tasks render sales load")
        .file("dags/sales.toml", &faulty)
        .code(1)
        .stderr_contains("error: dags/sales.toml:6:17: ")
        .run();
}

#[test]
fn show_draws_the_graph() {
    Test::new("dags show sales")
        .file("dags/sales.toml", DAG)
        .stdout("sales\nschedule: at 06:00 every day, UTC\nload [bash]\n└─> report [empty]\n")
        .run();
    Test::new("dags show sales")
        .file("dags/sales.toml", DAG)
        .database(one_run)
        .stdout(
            "sales\nschedule: at 06:00 every day, UTC\npaused: the last 3 runs failed; nothing is started until `minflow dags unpause sales`\n\
             last run: failed, 2026-11-21 06:00:00 UTC, began 40 ms late\nload [bash]\n└─> report [empty]\n",
        )
        .run();
}

/// Groups, mappings, a setup and its teardown.
const SHAPED: &str = "fail_fast = true
chain = ['up >> files >> each >> down', 'up >> down']
tasks.up = { empty = true, setup = true }
tasks.down = { empty = true, teardown_of = ['up'] }
tasks.files = { bash = 'ls' }
[groups.each]
tooltip = 'one file'
expand.file = { xcom = 'files' }
[groups.each.tasks.read]
bash = 'cat {{ file }}'
[groups.each.tasks.parts]
bash = 'echo {{ part }}'
depends_on = ['read']
expand = { part = [1, 2], way = ['a'] }
";

#[test]
fn what_is_grouped_mapped_set_up_and_torn_down_is_shown() {
    Test::new("dags show shaped")
        .file("dags/shaped.toml", SHAPED)
        .stdout(
            "shaped\nfail_fast: the first task that fails for good ends the run\ngroup each: one file\n\
             up [empty, setup]\n├─> down [empty, teardown of up]\n└─> files [bash]\n    └─> each.read [bash, for each file]\n        \
             └─> each.parts [bash, for each file × part × way]\n            └─> down [empty, teardown of up]\n",
        )
        .run();
    Test::new("tasks list shaped -o plain")
        .file("dags/shaped.toml", SHAPED)
        .stdout_contains(
            "each.parts  bash      each.read       all_success             default_pool  0        file, part, way",
        )
        .run();
    let home = Test::new("validate").file("dags/shaped.toml", SHAPED).stderr("1 file checked, no faults\n").run();
    let shown = Command::new(env!("CARGO_BIN_EXE_minflow"))
        .args(["dags", "show", "shaped", "-o", "json", "--home"])
        .arg(home.path())
        .output()
        .unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["groups"], json!([{ "group_id": "each", "parent": null, "tooltip": "one file" }]));
    let read = &shown["tasks"][3];
    assert_eq!(
        (&read["task_id"], &read["group_id"], &read["mapped_over"]),
        (&json!("each.read"), &json!("each"), &json!(["file"]))
    );
    assert_eq!((&shown["tasks"][0]["is_setup"], &shown["tasks"][1]["teardown_of"]), (&json!(true), &json!(["up"])));
}

#[test]
fn conf_that_is_no_object_is_a_usage_error() {
    for conf in ["[1]", "{"] {
        Test::new("dags trigger sales --conf")
            .argument(conf)
            .code(2)
            .stderr_contains("help: write an object, e.g.")
            .run();
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let home = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_minflow"))
        .args(["config", "list", "-o", "json"])
        .current_dir(home.path())
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Nobody reads: the write fails as it does behind `head`.
    drop(child.stdout.take());
    let done = child.wait_with_output().unwrap();
    assert_eq!((done.status.code(), done.stderr.as_slice()), (Some(0), &b""[..]));
}
