//! `minflow service …` with a `systemctl` of the tests' own, which writes down how it is called.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::Test;

const UNIT: &str = "units/systemd/user/minflow.service";

/// A home whose `systemctl` does what the script says.
fn home(script: &str) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("bin")).unwrap();
    let systemctl = home.path().join("bin/systemctl");
    fs::write(&systemctl, format!("#!/bin/sh\necho \"$@\" >> {}/calls\n{script}\n", home.path().display())).unwrap();
    fs::set_permissions(&systemctl, PermissionsExt::from_mode(0o755)).unwrap();
    home
}

/// The units are below the home, and so is all that is on the PATH.
fn test(command: &str, home: TempDir) -> Test {
    let (units, path) = (home.path().join("units"), home.path().join("bin"));
    let test = Test::new(command).in_home(home);
    test.env("XDG_CONFIG_HOME", units.to_str().unwrap()).env("PATH", path.to_str().unwrap())
}

fn calls(home: &TempDir) -> String {
    fs::read_to_string(home.path().join("calls")).unwrap_or_default()
}

fn unit(home: &Path) -> String {
    fs::read_to_string(home.join(UNIT)).unwrap()
}

#[test]
fn a_unit_is_written_enabled_shown_and_taken_away() {
    let home = home("case \"$*\" in *is-enabled*) echo enabled;; *is-active*) echo inactive; exit 3;; esac");
    let home = test("service install --user", home).stderr_contains("loginctl enable-linger").run();
    assert_eq!(calls(&home), "--user daemon-reload\n--user enable minflow.service\n");
    let text = unit(home.path());
    let exec = format!("ExecStart=\"{}\" run --home \"{}\"\n", env!("CARGO_BIN_EXE_minflow"), home.path().display());
    assert!(text.contains(&exec), "{text}");
    for line in ["Type=notify", "Delegate=yes", "KillMode=process", "OOMPolicy=continue", "Restart=on-failure"] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    // Whether the user lingers depends on the host.
    let shown = "\"written_by_minflow\": true,\n  \"enabled\": \"enabled\",\n  \"active\": \"inactive\",\n";
    let home = test("service status --user -o json", home).stdout_contains(shown).run();
    let home = test("service install --user", home).stderr_contains("is so already").run();
    let home = test("service uninstall --user", home).stderr_contains("stopped and disabled: minflow.service").run();
    assert!(!home.path().join(UNIT).exists());
    assert!(calls(&home).ends_with("--user disable --now minflow.service\n--user daemon-reload\n"), "{}", calls(&home));
    let home = test("service uninstall --user", home).code(1).stderr_contains("there is no unit").run();
    test("service status --user", home).code(1).stderr_contains("`minflow service install` writes one").run();
}

#[test]
fn a_dry_run_prints_the_unit_and_changes_nothing() {
    let home = test("service install --user --dry-run", home(""))
        .stdout_contains("\nType=notify\n")
        .stderr_contains("minflow.service")
        .run();
    let home = test("service install --system --dry-run --name etl", home)
        .stdout_contains("WantedBy=multi-user.target")
        .stderr("it would be written to `/etc/systemd/system/etl.service`\n")
        .run();
    assert!(!home.path().join("units").exists() && calls(&home).is_empty());
}

#[test]
fn a_unit_of_somebody_else_or_of_another_home_is_left_as_it_is() {
    let theirs = "[Service]\nExecStart=/bin/true\n";
    let home = home("");
    let refusal = "was not written by `minflow service install`, and is left as it is";
    let home = test("service install --user", home).file(UNIT, theirs).code(1).stderr_contains(refusal).run();
    let home = test("service uninstall --user", home).code(1).stderr_contains(refusal).run();
    assert_eq!((unit(home.path()), calls(&home)), (theirs.to_owned(), String::new()));
    fs::remove_file(home.path().join(UNIT)).unwrap();
    let home = test("service install --user", home).file("other/airflow.toml", "").stderr_contains("written: ").run();
    let before = unit(home.path());
    let other = test("service install --user --home other", home).code(1);
    let home = other.stderr_contains("name another unit with --name").run();
    assert_eq!(unit(home.path()), before);
    // The same home under other settings is the same unit.
    let home = test("service install --user", home).file("airflow.toml", "[scheduler]\ndrain_timeout = \"10m\"\n");
    let home = home.stderr_contains("written: ").run();
    assert!(unit(home.path()).contains("TimeoutStopSec=690s"));
    test("service install --user --name other --home other", home).stderr_contains("other.service").run();
}

#[test]
fn without_systemctl_the_unit_is_written_and_what_is_left_to_do_is_said() {
    let home = home("");
    fs::remove_file(home.path().join("bin/systemctl")).unwrap();
    let absent = test("service install --user", home).stderr_contains("systemctl --user enable --now minflow.service");
    let home = absent.run();
    assert!(unit(home.path()).contains("ExecStart="));
    let home = test("service status --user", home).stdout_contains("minflow.service").run();
    let home = test("service uninstall --user", home).stderr_contains("there is no `systemctl` on the PATH").run();
    assert!(!home.path().join(UNIT).exists());
}

#[test]
fn a_systemctl_that_fails_is_quoted() {
    let failing = home("echo 'Failed to connect to bus: No medium found' >&2; exit 1");
    let failed = test("service install --user", failing).code(1);
    let home = failed
        .stderr_contains("`systemctl --user daemon-reload` failed: Failed to connect to bus: No medium found")
        .run();
    let kept = test("service uninstall --user", home).code(1);
    let home = kept.stderr_contains("is left as it is").run();
    assert!(home.path().join(UNIT).exists());
}

#[test]
fn the_configuration_and_the_name_are_checked_first() {
    let broken = test("service install --user", home("")).file("airflow.toml", "nonsense").code(3);
    let home = broken.stderr_contains("airflow.toml:1:").run();
    assert!(!home.path().join("units").exists());
    for name in ["a/b", "", "-x", "a b", "ü", ".x"] {
        Test::new("service install --user --dry-run")
            .argument(&format!("--name={name}"))
            .code(2)
            .stderr_contains("letters, digits")
            .run();
    }
    Test::new("service install --user --system").code(2).stderr_contains("cannot be used with").run();
}
