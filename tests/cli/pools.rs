//! `minflow pools …` on a home where no minflow runs.

use serde_json::json;

use super::Test;

#[test]
fn a_pool_is_set_shown_changed_and_deleted() {
    let table = "pool | slots | description | include_deferred | source\n=====+=======+=============+==================+=========\ndb   | 3     | for tables  | false            | database\n";
    let home = Test::new("pools set db 3").argument("for tables").stdout(table).run();
    let home = Test::new("pools get db").in_home(home).stdout(table).run();
    let same = Test::new("pools set db 3").argument("for tables").in_home(home).stdout(table);
    let home = same.stderr("`db` was so already\n").run();
    let record = |slots: i64| json!([{"pool": "db", "slots": slots, "description": "", "include_deferred": false, "source": "database"}]);
    let home = Test::new("pools set db -1 -o json").argument("").in_home(home).json(record(-1)).run();
    let home = Test::new("pools delete db -o json").in_home(home).json(record(-1)).run();
    let unknown = Test::new("pools delete db").in_home(home).code(1);
    let home = unknown.stderr("error: no pool `db`\nhelp: `minflow pools list` shows all\n").run();
    let unknown = Test::new("pools get defalt_pool").in_home(home).code(1);
    unknown.stderr("error: unknown pool `defalt_pool`\nhelp: did you mean `default_pool`? `minflow pools list` lists them all\n").run();
}

#[test]
fn the_pools_of_airflow_toml_and_default_pool_are_kept_from_commands() {
    let file = "[pools]\ndb = 3\n";
    let refusal = "error: `db` belongs to airflow.toml; nothing was changed\nhelp: change it there, then have minflow read it again (SIGHUP); `minflow config list --origins` shows where it stands\n";
    let home = Test::new("pools set db 4 x").file("airflow.toml", file).code(1).stderr(refusal).run();
    let home = Test::new("pools delete db").in_home(home).code(1).stderr(refusal).run();
    let kept =
        "error: `default_pool` cannot be deleted\nhelp: `minflow pools set default_pool SLOTS \"\"` changes its size\n";
    let home = Test::new("pools delete default_pool").in_home(home).code(1).stderr(kept).run();
    let home = Test::new("pools set default_pool 5 x -o plain").in_home(home).stdout_contains("database").run();
    Test::new("-o plain pools list")
        .in_home(home)
        .stdout("pool          slots  description  include_deferred  source\ndb            3                   false             configuration\ndefault_pool  5      x            false             database\n")
        .run();
}

#[test]
fn impossible_slots_and_names_are_refused() {
    for slots in ["-2", "2147483648", "-9223372036854775808"] {
        Test::new("pools set db")
            .argument(slots)
            .argument("x")
            .code(2)
            .stderr_contains("is not in -1..=2147483647")
            .run();
    }
    for slots in ["many", "1.5", "99999999999999999999"] {
        Test::new("pools set db").argument(slots).argument("x").code(2).stderr_contains("invalid value").run();
    }
    let nameless = Test::new("pools set").argument("").argument("1").argument("x").code(1);
    nameless.stderr("error: a pool needs a name\nhelp: correct it, and ask again; nothing was changed\n").run();
    let long = Test::new("pools set").argument(&"x".repeat(257)).argument("1").argument("x").code(1);
    long.stderr_contains("at most 256 characters, and one has 257").run();
}

#[test]
fn what_is_exported_can_be_imported_elsewhere() {
    let file = "[pools]\nfixed = { slots = 2, description = \"of the file\" }\n";
    let home = Test::new("pools set db -1 x").file("airflow.toml", file).stdout_contains("db").run();
    let home = Test::new("pools export all.json").in_home(home).stderr("3 pools written\n").run();
    let text = std::fs::read_to_string(home.path().join("all.json")).unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&text).unwrap(),
        json!({
            "db": {"slots": -1, "description": "x", "include_deferred": false},
            "default_pool": {"slots": 128, "description": "", "include_deferred": false},
            "fixed": {"slots": 2, "description": "of the file", "include_deferred": false},
        })
    );
    let again = Test::new("pools import all.json").in_home(home).stdout_contains("fixed");
    again.stderr("3 pools read, 0 changed\n").run();
    let elsewhere = Test::new("pools import all.json").file("all.json", &text).stdout_contains("fixed");
    elsewhere.stderr("3 pools read, 2 changed\n").run();
}

#[test]
fn an_import_tells_every_bad_entry_and_then_changes_nothing() {
    let text = r#"{"good": {"slots": 1, "description": ""}, "a": {"slots": -2}, "b": {"slot": 1}, "c": 4}"#;
    let expected = "error: `pools.json` is not as it should be:
  `a` cannot have -2 slots: write -1 for no limit, or 0 to 2147483647
  `b`: unknown key `slot`; did you mean `slots`?
  `b`: `slots` is missing
  `c`: an object such as {\"slots\": 3, \"description\": \"\"} is needed
help: correct it, and import it again; nothing was changed\n";
    let import = Test::new("pools import pools.json").file("pools.json", text).code(1);
    let home = import.stderr(expected).run();
    Test::new("pools get good").in_home(home).code(1).stderr_contains("unknown pool").run();
    let of_file = Test::new("pools import pools.json").file("airflow.toml", "[pools]\ndb = 3\n");
    let of_file = of_file.file("pools.json", r#"{"good": {"slots": 1}, "db": {"slots": 4}}"#).code(1);
    let home = of_file.stderr_contains("`db` belongs to airflow.toml; nothing was changed").run();
    Test::new("pools get good").in_home(home).code(1).stderr_contains("unknown pool").run();
    Test::new("pools import nowhere.json").code(1).stderr_contains("cannot read `nowhere.json`").run();
    for text in ["", "[]", "{", "nonsense", "\"x\""] {
        let broken = Test::new("pools import pools.json").file("pools.json", text).code(1);
        broken.stderr_contains("cannot read `pools.json`: it is no JSON object").run();
    }
}
