use std::path::Path;

use serde_json::json;

use super::*;

fn task(folder: &Path, script: &str) -> SqlTask {
    SqlTask {
        script: script.to_owned(),
        name: "sql".to_owned(),
        database: folder.join("x.db").to_str().unwrap().to_owned(),
        is_read_only: false,
        is_autocommit: false,
        parameters: Value::Null,
        output: SqlOutput::Rows,
        value: folder.join("value"),
        verdict: folder.join("verdict"),
        timeout: None,
    }
}

/// The value that the script leaves, or what is wrong.
fn outcome(task: &SqlTask) -> Result<Option<Value>, String> {
    let _ = std::fs::remove_file(&task.value);
    run(task).map_err(|failed| failed.to_string())?;
    Ok(std::fs::read_to_string(&task.value).ok().map(|text| serde_json::from_str(&text).unwrap()))
}

fn value_of(script: &str, parameters: Value, output: SqlOutput) -> Result<Option<Value>, String> {
    let folder = tempfile::tempdir().unwrap();
    outcome(&SqlTask { parameters, output, ..task(folder.path(), script) })
}

#[test]
fn scripts_are_parted_at_semicolons_that_end_statements() {
    let script = "-- a; b\nSELECT ';', \"a;\", `b;`, [c;] /* ; */;;\n ; SELECT 'it''s;' -- ;\n; /* end; */ -- ;";
    let found: Vec<&str> = parts(script).into_iter().map(|part| script[part].trim()).collect();
    assert_eq!(found, ["-- a; b\nSELECT ';', \"a;\", `b;`, [c;] /* ; */;", "SELECT 'it''s;' -- ;\n;"]);
    for unfinished in ["'", "\"é", "/*", "--", "[", "SELECT 'a;"] {
        assert!(parts(unfinished).iter().all(|part| part.end <= unfinished.len()), "{unfinished}");
    }
}

#[test]
fn why_it_failed_is_left_in_one_line_with_its_place_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let reason = |script: &str| {
        outcome(&task(folder.path(), script)).unwrap_err();
        let verdict = Verdict::read(&folder.path().join("verdict")).unwrap();
        assert_eq!(verdict.finality, Finality::Open, "the task's `retries` hold");
        verdict.reason
    };
    assert_eq!(reason("SELECT 1;\nSELECT nope"), "sql:2:8: sql: no such column: nope");
    let twice = "sql:1:1: sql: two columns are called `a`; give one another name: `… AS other_a`";
    assert_eq!(reason("SELECT 1 AS a, 2 AS a"), twice);
}

#[test]
fn the_rows_of_the_last_statement_are_the_value() {
    let script =
        "CREATE TABLE t (id INTEGER, name TEXT); INSERT INTO t VALUES (1, 'a'), (2, NULL); SELECT * FROM t ORDER BY id";
    let cases = [
        (SqlOutput::Rows, Some(json!([{ "id": 1, "name": "a" }, { "id": 2, "name": null }]))),
        (SqlOutput::First, Some(json!({ "id": 1, "name": "a" }))),
        (SqlOutput::Value, Some(json!(1))),
        (SqlOutput::None, None),
    ];
    for (output, expected) in cases {
        assert_eq!(value_of(script, Value::Null, output), Ok(expected), "{output:?}");
    }
    let none = "CREATE TABLE t (a); SELECT a FROM t";
    let empty = [(SqlOutput::Rows, json!([])), (SqlOutput::First, Value::Null), (SqlOutput::Value, Value::Null)];
    for (output, expected) in empty {
        assert_eq!(value_of(none, Value::Null, output), Ok(Some(expected)), "{output:?}");
    }
    assert_eq!(value_of("SELECT 1; CREATE TABLE t (a)", Value::Null, SqlOutput::Rows), Ok(None));
    let returning = "CREATE TABLE t (a); INSERT INTO t VALUES (5) RETURNING a AS b";
    assert_eq!(value_of(returning, Value::Null, SqlOutput::Value), Ok(Some(json!(5))));
}

#[test]
fn every_kind_of_value_becomes_json_and_back() {
    let script = "SELECT ? AS a, ? AS b, ? AS c, ? AS d, ? AS e, ? AS f, x'00ff' AS g, 9e999 AS h";
    let parameters = json!([1, 2.5, "text", true, null, { "k": [1] }]);
    let expected =
        json!({ "a": 1, "b": 2.5, "c": "text", "d": 1, "e": null, "f": "{\"k\":[1]}", "g": "00FF", "h": "inf" });
    assert_eq!(value_of(script, parameters, SqlOutput::First), Ok(Some(expected)));
}

#[test]
fn parameters_have_places_or_names() {
    let named = "CREATE TABLE t (a, b); INSERT INTO t VALUES (:x, @y); SELECT a + b + $x FROM t";
    assert_eq!(value_of(named, json!({ "x": 1, "y": 10 }), SqlOutput::Value), Ok(Some(json!(12))));
    let listed = "CREATE TABLE t (a); INSERT INTO t VALUES (?); SELECT a FROM t WHERE a = ?";
    assert_eq!(value_of(listed, json!(["it's"]), SqlOutput::Value), Ok(Some(json!("it's"))));
    let numbered = "SELECT ?2 || ?1 || ?2";
    assert_eq!(value_of(numbered, json!(["a", "b"]), SqlOutput::Value), Ok(Some(json!("bab"))));
    let missing = value_of("SELECT 1;\nSELECT :id,\n 2", json!({ "idd": 1 }), SqlOutput::Rows).unwrap_err();
    assert_eq!(
        missing,
        "sql:2:1: sql: the statement's parameter :id is not given\n2 | SELECT :id,\n  | ^^^^^^^^^^^\n\
         help: add it to `parameters`: a table for names, a list for question marks"
    );
    let many = value_of("SELECT ?", json!([1, 2]), SqlOutput::Rows).unwrap_err();
    assert!(many.contains("the statement takes 1 parameters, and 2 are given"), "{many}");
}

#[test]
fn a_fault_names_its_place() {
    let cases = [
        ("SELECT 1;\nSELEC 2", "sql:2:1: sql: near \"SELEC\": syntax error\n2 | SELEC 2\n  | ^^^^^"),
        ("SELECT a\nFROM nowhere", "sql:1:1: sql: no such table: nowhere\n1 | SELECT a\n  | ^^^^^^^^"),
        ("\n SELECT wrong", "sql:2:9: sql: no such column: wrong\n2 |  SELECT wrong\n  |         ^^^^^"),
        ("SELECT (1", "sql:1:1: sql: incomplete input\n1 | SELECT (1\n  | ^^^^^^^^^"),
        (
            "CREATE TABLE t (a UNIQUE);\nINSERT INTO t VALUES (1), (1)",
            "sql:2:1: sql: UNIQUE constraint failed: t.a\n2 | INSERT INTO t VALUES (1), (1)\n  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        ),
        ("-- nothing;", "sql: the script holds no statement\nhelp: write one"),
        (
            "SELECT 1 AS a, 2 AS a",
            "sql:1:1: sql: two columns are called `a`\n1 | SELECT 1 AS a, 2 AS a\n  | ^^^^^^^^^^^^^^^^^^^^^\nhelp: give one another name: `… AS other_a`",
        ),
        (
            "SELECT 1; BEGIN; SELECT 2",
            "sql:1:11: sql: cannot start a transaction within a transaction\n1 | SELECT 1; BEGIN; SELECT 2\n  |           ^^^^^^\n\
             help: the script is one transaction already; with `autocommit = true` it can have its own",
        ),
    ];
    for (script, expected) in cases {
        assert_eq!(value_of(script, Value::Null, SqlOutput::Rows), Err(expected.to_owned()), "{script}");
    }
}

#[test]
fn a_trigger_has_semicolons_of_its_own() {
    let script = "CREATE TABLE t (a); CREATE TABLE log (a);
        CREATE TRIGGER seen AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.a); INSERT INTO log VALUES (-new.a); END;
        INSERT INTO t VALUES (7); SELECT count(*) FROM log";
    assert_eq!(value_of(script, Value::Null, SqlOutput::Value), Ok(Some(json!(2))));
}

#[test]
fn a_script_is_one_transaction_unless_each_statement_commits_itself() {
    let folder = tempfile::tempdir().unwrap();
    let failing = task(folder.path(), "CREATE TABLE t (a); INSERT INTO t VALUES (1); SELECT nothing");
    assert!(outcome(&failing).is_err());
    let count = SqlTask { output: SqlOutput::Value, ..task(folder.path(), "SELECT count(*) FROM sqlite_master") };
    assert_eq!(outcome(&count), Ok(Some(json!(0))));
    assert!(outcome(&SqlTask { is_autocommit: true, ..failing }).is_err());
    assert_eq!(outcome(&count), Ok(Some(json!(1))));
    let own = "BEGIN; INSERT INTO t VALUES (2); ROLLBACK; VACUUM; SELECT count(*) AS n FROM t";
    let own = SqlTask { is_autocommit: true, output: SqlOutput::Value, ..task(folder.path(), own) };
    assert_eq!(outcome(&own), Ok(Some(json!(1))));
}

#[test]
fn read_only_refuses_to_write_and_to_make_a_database() {
    let folder = tempfile::tempdir().unwrap();
    let reading = |script| SqlTask { is_read_only: true, ..task(folder.path(), script) };
    let missing = outcome(&reading("SELECT 1")).unwrap_err();
    assert!(missing.contains("with `read_only` it must exist"), "{missing}");
    assert!(!folder.path().join("x.db").exists());
    outcome(&task(folder.path(), "CREATE TABLE t (a)")).unwrap();
    assert_eq!(outcome(&reading("SELECT * FROM t")), Ok(Some(json!([]))));
    let written = outcome(&reading("INSERT INTO t VALUES (1)")).unwrap_err();
    assert!(
        written.contains("attempt to write a readonly database") && written.contains("take `read_only` out"),
        "{written}"
    );
}

#[test]
fn a_database_that_is_none_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let no_folder =
        SqlTask { database: folder.path().join("no/x.db").display().to_string(), ..task(folder.path(), "SELECT 1") };
    let fault = outcome(&no_folder).unwrap_err();
    assert!(fault.contains("cannot open the database") && fault.contains("help: make the folder"), "{fault}");
    std::fs::write(folder.path().join("x.db"), "this is a text of some length, and no database at all").unwrap();
    let fault = outcome(&task(folder.path(), "SELECT * FROM t")).unwrap_err();
    assert!(fault.contains("file is not a database"), "{fault}");
}

#[test]
fn too_many_rows_are_refused_and_leave_nothing_done() {
    let folder = tempfile::tempdir().unwrap();
    let script = "CREATE TABLE t (a);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT i, hex(zeroblob(50000)) AS zeros FROM n";
    let fault = outcome(&task(folder.path(), script)).unwrap_err();
    assert!(fault.contains("sql:2:9: sql: the rows are more than 16 MiB as JSON, at row 168"), "{fault}");
    let none = SqlTask { output: SqlOutput::None, ..task(folder.path(), script) };
    assert_eq!(outcome(&none), Ok(None), "the first try has left no table");
}
