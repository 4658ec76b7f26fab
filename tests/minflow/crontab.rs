//! From cron: a crontab into a fresh home, and its jobs run there; and the example of `docs/from-cron.md` as it stands.

use std::io::Write;
use std::process::Stdio;

use crate::harness::Home;

const PAGE: &str = include_str!("../../docs/from-cron.md");

/// What stands behind the fence of these words.
fn block(words: &str) -> &'static str {
    let fence = format!("```{words}\n");
    PAGE.split_once(&fence)
        .unwrap_or_else(|| panic!("the page has no block of `{words}`"))
        .1
        .split("```")
        .next()
        .unwrap()
}

#[test]
fn the_example_of_the_page_prints_what_the_page_says() {
    let home = Home::new();
    home.write("jobs.crontab", block("crontab jobs.crontab"));
    let ran = home.cli(block("sh").trim().strip_prefix("minflow ").unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.out, block("text"));
    assert!(ran.err.starts_with("jobs.crontab:7: left out: @reboot /opt/start\nhelp: "), "{}", ran.err);
    assert_eq!(home.read("dags/cat.toml"), block("toml dags/cat.toml"));
    assert_eq!(home.cli("validate").texts(), (Some(0), "", "2 files checked, no faults\n"));
}

#[test]
fn a_job_of_a_crontab_does_in_minflow_what_it_did_in_cron() {
    let home = Home::new();
    let folder = home.path().to_str().unwrap();
    let crontab = format!(
        "HOME={folder}\nPATH=/usr/bin:/bin\nNAME='{{{{ it is }}}} 5% $HOME'\n\
         0 5 * * * printf '\\%s|' \"$NAME\" \"$PATH\" \"$SHELL\" \"$(pwd)\" '{{\\% x \\%}}' 'it'\\''s'\n\
         @daily sort%b%a 50\\%%\n"
    );
    let mut command = home
        .command("import crontab - --tz Europe/London")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    command.stdin.take().unwrap().write_all(crontab.as_bytes()).unwrap();
    assert!(command.wait().unwrap().success());
    let minflow = home.start();
    for (dag_id, expected) in [
        ("printf", format!("{{{{ it is }}}} 5% $HOME|/usr/bin:/bin|/bin/sh|{folder}|{{% x %}}|it's|")),
        ("sort", "a 50%\nb\n".to_owned()),
    ] {
        let ran = home.run_dag(dag_id, "r1");
        assert_eq!(ran.code, Some(0), "{ran:?}\n{}", home.read(&format!("dags/{dag_id}.toml")));
        let log = home.cli(&format!("tasks logs {dag_id} {dag_id} r1")).out;
        let expected = expected.replace(folder, "HOME");
        assert!(log.contains(&expected), "{expected} is not in {log}");
    }
    drop(minflow);
}

#[test]
fn no_exit_code_of_a_job_is_taken_for_a_skip() {
    let home = Home::new();
    home.write("jobs.crontab", "PATH=/usr/bin:/bin\n0 5 * * * echo full; exit 99\n");
    assert_eq!(home.cli("import crontab jobs.crontab").code, Some(0));
    let ran = home.cli("dags test echo");
    assert!(ran.code == Some(1) && ran.out.contains("\necho: failed"), "{ran:?}");
}
