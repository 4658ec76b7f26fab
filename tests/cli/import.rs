//! `minflow import crontab`: what it prints, writes and refuses.

use std::fs;

use super::Test;

const NEXT: &str =
    "1 DAG file written\nnext: take the lines out of the crontab (`crontab -e`), or both will run them\n";

fn import(arguments: &str, crontab: &str) -> Test {
    let test = Test::new(&format!("import crontab jobs --from 2026-11-21 {arguments}"));
    test.file("airflow.toml", "").file("jobs", &format!("HOME=/srv\n{crontab}"))
}

#[test]
fn a_line_becomes_a_file_and_its_times_are_shown_side_by_side() {
    let home = import("", "0 6 * * 1 /opt/report.sh --weekly\n")
        .stdout(
            "dags/report.toml, line 2: 0 6 * * 1 /opt/report.sh --weekly\n\
             at 06:00 on Monday, UTC\n\
             cron                           | minflow\n\
             ===============================+===============================\n\
             Mon 2026-11-23 06:00:00 +00:00 | Mon 2026-11-23 06:00:00 +00:00\n\
             Mon 2026-11-30 06:00:00 +00:00 | Mon 2026-11-30 06:00:00 +00:00\n\
             Mon 2026-12-07 06:00:00 +00:00 | Mon 2026-12-07 06:00:00 +00:00\n",
        )
        .stderr(NEXT)
        .run();
    let text = fs::read_to_string(home.path().join("dags/report.toml")).unwrap();
    assert!(
        text.contains("\nbash = \"/opt/report.sh --weekly\"\ncwd = \"/srv\"\nretries = 0\nskip_on_exit_code = false "),
        "{text}"
    );
}

#[test]
fn nothing_is_written_if_a_line_is_refused_unless_the_others_are_asked_for() {
    let crontab = "0 6 * * * a\n5/10 * * * * b\n";
    let fault = "jobs:3:1: bad-time: `5/10`: cron takes a step after `*` or a range only\n\
                 3 | 5/10 * * * * b\n  | ^^^^\n\
                 help: write `5-59/10` if that is what it means, else `5`\n\n";
    let refused = "error: one line is refused, so nothing was written\n\
                   help: correct them, or import the others with --skip-refused\n";
    let home = import("", crontab).code(1).stderr(&format!("{fault}{refused}")).run();
    assert!(!home.path().join("dags").exists());
    let home = import("-o plain --skip-refused", crontab)
        .stdout_contains("dags/a.toml")
        .stderr(&format!("{fault}{NEXT}"))
        .run();
    assert!(home.path().join("dags/a.toml").is_file());
}

#[test]
fn no_file_and_no_dag_is_replaced() {
    let crontab = "0 6 * * * a\n0 7 * * * b\n";
    let help = "help: move it away, or give the new ones other names with --prefix\n";
    let home = import("", crontab)
        .file("dags/b.toml", "mine")
        .code(1)
        .stderr(&format!("error: `dags/b.toml` would be overwritten; nothing was written\n{help}"))
        .run();
    assert_eq!(fs::read_to_string(home.path().join("dags/b.toml")).unwrap(), "mine");
    assert!(!home.path().join("dags/a.toml").exists());
    import("", crontab)
        .file("dags/other.toml", "dag_id = \"a\"\n[tasks.x]\nempty = true\n")
        .code(1)
        .stderr(&format!("error: `HOME/dags` has a DAG of the name `a` already; nothing was written\n{help}"))
        .run();
}

#[test]
fn a_dry_run_shows_the_file_and_writes_none() {
    let home = import("--dry-run --paused --prefix vm1_", "@daily a\n")
        .stdout_contains("catchup = false\nis_paused_upon_creation = true\n\n[tasks.vm1_a]\n")
        .stderr("1 DAG file would be written; nothing was\n")
        .run();
    assert!(!home.path().join("dags").exists());
}

#[test]
fn a_folder_that_is_no_home_is_not_made_one() {
    Test::new("import crontab jobs")
        .file("jobs", "@daily a\n")
        .code(1)
        .stderr(
            "error: `HOME` is no home: it has neither airflow.toml nor a dags folder\n\
             help: `minflow init` makes one; or name one with --home, or a folder for the files with --output-dir\n",
        )
        .run();
    let home = Test::new("import crontab jobs --output-dir here -o json").file("jobs", "@daily a\n");
    let home = home.stdout_contains("\"file\": \"here/a.toml\"").stderr(NEXT).run();
    assert!(home.path().join("here/a.toml").is_file());
}

#[test]
fn what_holds_no_line_and_what_is_not_there_are_said() {
    import("", "# nothing\n").stderr("there is no line to import\n").run();
    Test::new("import crontab jobs")
        .code(1)
        .stderr(
            "error: failed to read `jobs`: No such file or directory (os error 2)\n\
             help: `crontab -l | minflow import crontab -` reads your own crontab\n",
        )
        .run();
}
