//! The text of a systemd unit that runs minflow, and how systemd wants words written in it.
//!
//! Knows no folder of systemd and starts nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The first line of each unit that minflow writes; what does not begin with it is another's.
pub const MARK: &str = "# Written by `minflow service install`; `minflow service uninstall` takes it away.";

/// Whose unit it is: of one user's systemd, or of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    User,
    System,
}

/// What a unit is made of.
#[derive(Clone, Debug)]
pub struct Unit {
    pub scope: Scope,
    /// Absolute.
    pub program: PathBuf,
    /// Absolute.
    pub home: PathBuf,
    /// What stands before `run` besides: `--config`, `--profile`.
    pub options: Vec<String>,
    /// Of a system unit: who runs it; None: root.
    pub user: Option<String>,
    /// `scheduler.drain_timeout`.
    pub drain_timeout: Duration,
}

/// Beyond the drain: the disk may be slow.
const BEYOND_DRAIN: Duration = Duration::from_secs(90);

impl Unit {
    /// The file's text.
    ///
    /// # Errors
    /// A path that systemd cannot be told, with what to do.
    pub fn text(&self) -> Result<String, String> {
        let program = program(&self.program)?;
        let home = argument(text_of(&self.home)?)?;
        let options: Vec<String> =
            self.options.iter().map(|option| Ok(format!(" {}", argument(option)?))).collect::<Result<_, String>>()?;
        let description = setting(text_of(&self.home)?)?;
        let user = self.user.as_deref().map(setting).transpose()?;
        let is_system = self.scope == Scope::System;
        let (order, target) = match self.scope {
            Scope::System => ("After=network.target local-fs.target time-sync.target\n", "multi-user.target"),
            Scope::User => ("", "default.target"),
        };
        let user = user.filter(|_| is_system).map(|user| format!("User={user}\n")).unwrap_or_default();
        let stop_within = (self.drain_timeout + BEYOND_DRAIN).as_secs();
        Ok(format!(
            "{MARK}
# Change it by a file of your own beside it: `systemctl {edit} NAME`.

[Unit]
Description=minflow, the scheduler of {description}
{order}
[Service]
# minflow says when it is up, when it reads its configuration again, and when it stops.
Type=notify
ExecStart={program} run --home {home}{options}
# airflow.toml is read again.
ExecReload=/bin/kill -HUP $MAINPID
{user}
# A fault ends minflow: it comes back. A broken airflow.toml (3) does not mend itself.
Restart=on-failure
RestartSec=2s
RestartPreventExitStatus=3
# A loop that gives no sign of life for so long stands still.
WatchdogSec=2min
# An older database is brought up to date before minflow is up.
TimeoutStartSec=15min
# `scheduler.drain_timeout`, and what a slow disk takes.
TimeoutStopSec={stop_within}s

# Only minflow's own process is ended by systemd: tasks go on, and the next start takes them over.
KillMode=process
# The control groups below its own are minflow's, for the limits of tasks.
Delegate=yes
# A task that is killed for want of memory is that task's end, not minflow's.
OOMPolicy=continue

[Install]
WantedBy={target}
",
            edit = if is_system { "edit" } else { "--user edit" },
            options = options.concat(),
        ))
    }
}

fn text_of(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("`{}` is not UTF-8, and a unit is: give it another name", path.display()))
}

fn refuse_control(text: &str) -> Result<(), String> {
    match text.chars().any(char::is_control) {
        true => Err(format!(
            "`{}` holds a control character, which a unit cannot: give it another name",
            text.escape_debug()
        )),
        false => Ok(()),
    }
}

/// The program, as the first word of a command: percent signs stand for something there, dollars do not, and quotes and backslashes
/// systemd refuses.
fn program(path: &Path) -> Result<String, String> {
    let text = text_of(path)?;
    refuse_control(text)?;
    if text.contains(['"', '\'', '\\']) {
        return Err(format!("systemd runs no program whose path has quotes or backslashes: move `{text}`"));
    }
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

/// Another word of a command.
fn argument(text: &str) -> Result<String, String> {
    refuse_control(text)?;
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    Ok(format!("\"{escaped}\""))
}

/// The value of a setting that is one text. A backslash at its end would take the next line in.
fn setting(text: &str) -> Result<String, String> {
    refuse_control(text)?;
    let escaped = text.replace('%', "%%");
    Ok(if escaped.ends_with('\\') { format!("{escaped}.") } else { escaped })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(program: &str, home: &str) -> Unit {
        Unit {
            scope: Scope::User,
            program: program.into(),
            home: home.into(),
            options: Vec::new(),
            user: None,
            drain_timeout: Duration::from_secs(5),
        }
    }

    fn exec(unit: &Unit) -> String {
        let text = unit.text().unwrap();
        text.lines().find(|line| line.starts_with("ExecStart=")).unwrap().to_owned()
    }

    #[test]
    fn words_are_written_as_systemd_reads_them() {
        assert_eq!(
            exec(&unit("/usr/bin/minflow", "/srv/flow")),
            r#"ExecStart="/usr/bin/minflow" run --home "/srv/flow""#
        );
        let odd = unit("/opt/my %h $x/minflow", "/srv/a \"b\" \\c %h $HOME ü");
        assert_eq!(exec(&odd), r#"ExecStart="/opt/my %%h $x/minflow" run --home "/srv/a \"b\" \\c %%h $$HOME ü""#);
        let options = vec!["--profile".to_owned(), "a b".to_owned()];
        assert_eq!(exec(&Unit { options, ..unit("/m", "/h") }), r#"ExecStart="/m" run --home "/h" "--profile" "a b""#);
    }

    #[test]
    fn what_systemd_cannot_be_told_is_refused() {
        for (program, home) in
            [("/a\"b/minflow", "/h"), ("/a\\b/minflow", "/h"), ("/m", "/h\nExecStart=/bin/evil"), ("/m\t", "/h")]
        {
            assert!(unit(program, home).text().is_err(), "{program:?} {home:?}");
        }
        assert!(Unit { user: Some("a\nb".to_owned()), scope: Scope::System, ..unit("/m", "/h") }.text().is_err());
    }

    #[test]
    fn a_unit_of_the_host_has_its_user_and_a_users_unit_has_none() {
        let system = Unit { scope: Scope::System, user: Some("etl".to_owned()), ..unit("/m", "/h") }.text().unwrap();
        for line in ["User=etl", "WantedBy=multi-user.target", "TimeoutStopSec=95s", "Type=notify", "KillMode=process"]
        {
            assert!(system.lines().any(|found| found == line), "{line}\n{system}");
        }
        let user = Unit { user: Some("etl".to_owned()), ..unit("/m", "/h") }.text().unwrap();
        assert!(!user.contains("User=") && user.contains("WantedBy=default.target"), "{user}");
        assert!(user.starts_with(MARK));
    }
}
