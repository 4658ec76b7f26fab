//! `minflow service …`: minflow as a service of systemd.

mod systemd;
mod unit;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::failure::eprint;
use crate::cli::output::{Column, Output};
use crate::cli::{Failure, Globals, Outcome, settings};
use systemd::{Answer, Place};
use unit::{MARK, Scope, Unit};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a unit of systemd that runs minflow on this home, and enable it
    Install(InstallArguments),
    /// Show the unit, whether it is enabled, and whether it runs
    Status(Which),
    /// Stop the service, disable it, and take its unit away
    Uninstall(Which),
}

#[derive(Debug, Args)]
#[command(
    after_help = "The unit says of each setting why it is there; --dry-run shows it.\n\nExamples:\n  minflow --home my-home service install --dry-run\n  \
    minflow --home my-home service install --user"
)]
pub struct InstallArguments {
    #[command(flatten)]
    which: Which,
    /// Print the unit, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub struct Which {
    /// Of this user's systemd [default, unless root asks]
    #[arg(long, conflicts_with = "system")]
    user: bool,
    /// Of the host's systemd [default, if root asks]
    #[arg(long)]
    system: bool,
    /// The name of the unit, where there are several
    #[arg(long, default_value = "minflow", value_parser = unit_name)]
    name: String,
}

/// What systemd takes for the name of a unit, without what means something in it.
fn unit_name(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ":_.-".contains(c);
    if text.is_empty() || text.len() > 200 || text.starts_with(['.', '-']) || !text.chars().all(is_allowed) {
        return Err("use letters, digits and `: _ . -`, with a letter or digit first".to_owned());
    }
    Ok(text.strip_suffix(".service").unwrap_or(text).to_owned())
}

impl Which {
    fn place(&self) -> Result<Place, Failure> {
        let is_root = rustix::process::geteuid().is_root();
        let scope = if self.system || (is_root && !self.user) { Scope::System } else { Scope::User };
        Place::new(scope, &self.name)
    }
}

pub fn run(globals: &Globals, command: Command, output: &mut Output) -> Outcome {
    match command {
        Command::Install(arguments) => install(globals, &arguments, output),
        Command::Status(which) => status(&which.place()?, output),
        Command::Uninstall(which) => uninstall(&which.place()?),
    }
}

fn install(globals: &Globals, arguments: &InstallArguments, output: &mut Output) -> Outcome {
    let place = arguments.which.place()?;
    let unit = unit(globals, place.scope)?;
    let text = unit.text().map_err(|why| Failure::refused(format!("no unit can be written: {why}"), ""))?;
    let path = place.path();
    if arguments.dry_run {
        eprint(&format!("it would be written to `{}`\n", path.display()));
        return Ok(std::io::Write::write_all(output, text.as_bytes())?);
    }
    match read(&path)? {
        Some(found) if found == text => eprint(&format!("`{}` is so already\n", path.display())),
        Some(found) => {
            refuse_others(&path, &found)?;
            refuse_other_home(&path, &found, &text)?;
            write(&path, &text)?;
        }
        None => write(&path, &text)?,
    }
    let name = place.unit();
    for words in [vec!["daemon-reload"], vec!["enable", &*name]] {
        match place.systemctl(&words) {
            Answer::Absent => {
                let (reload, enable) =
                    (place.in_words(&["daemon-reload"]), place.in_words(&["enable", "--now", &name]));
                eprint(&format!(
                    "there is no `systemctl` on the PATH: nothing was enabled. Where systemd runs, say\n  {reload}\n  {enable}\n"
                ));
                return Ok(());
            }
            Answer::Done { .. } => {}
            Answer::Failed { said } => {
                let message = format!("`{}` failed: {said}", place.in_words(&words));
                let help = format!("`{}` is written; mend what is said here, then say that again", path.display());
                return Err(Failure::refused(message, help));
            }
        }
    }
    eprint(&place.next_steps());
    Ok(())
}

fn unit(globals: &Globals, scope: Scope) -> Result<Unit, Failure> {
    let config = settings::load(globals)?.config;
    let program = std::env::current_exe().ok().filter(|program| program.exists()).ok_or_else(|| {
        Failure::refused(
            "this program's own file cannot be found",
            "start it by its path, and do not move it meanwhile",
        )
    })?;
    let mut options = Vec::new();
    if let Some(path) = &globals.config {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        options.extend(["--config".to_owned(), path.display().to_string()]);
    }
    if let Some(profile) = &globals.profile {
        options.extend(["--profile".to_owned(), profile.clone()]);
    }
    // Root may take on the rights of others for tasks; a home of somebody's is run by its owner all the same.
    let owner = fs::metadata(&config.home).map(|metadata| metadata.uid()).unwrap_or_default();
    let user = (scope == Scope::System && owner != 0).then(|| systemd::user_name(owner).unwrap_or(owner.to_string()));
    Ok(Unit { scope, program, home: config.home, options, user, drain_timeout: config.scheduler.drain_timeout })
}

/// None: there is no such file.
fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Failure::refused(format!("cannot read `{}`: {error}", path.display()), "check its permissions"))
        }
    }
}

/// Renamed into its place, so that systemd never sees half of it.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let fresh = path.with_extension("service.new");
    let written =
        fs::create_dir_all(folder).and_then(|()| fs::write(&fresh, text)).and_then(|()| fs::rename(&fresh, path));
    written.map_err(|error| {
        // What was begun is of no use.
        let _ = fs::remove_file(&fresh);
        let message = format!("cannot write `{}`: {error}", path.display());
        Failure::refused(message, "--user writes one of your own; a unit of the host is written by root")
    })?;
    eprint(&format!("written: {}\n", path.display()));
    Ok(())
}

fn refuse_others(path: &Path, found: &str) -> Result<(), Failure> {
    if found.lines().next() == Some(MARK) {
        return Ok(());
    }
    let message = format!("`{}` was not written by `minflow service install`, and is left as it is", path.display());
    Err(Failure::refused(message, "move it away, or name another unit with --name"))
}

/// A home's unit is not taken for another home.
fn refuse_other_home(path: &Path, found: &str, text: &str) -> Result<(), Failure> {
    match (home_of(found), home_of(text)) {
        (Some(before), after) if Some(before) != after => {
            let message = format!("`{}` runs minflow on {before}, and is left as it is", path.display());
            Err(Failure::refused(message, "name another unit with --name, or uninstall that one first"))
        }
        _ => Ok(()),
    }
}

/// The home of a unit, as the unit writes it: a word in quotes.
fn home_of(text: &str) -> Option<&str> {
    let rest = text.lines().find_map(|line| line.strip_prefix("ExecStart=")?.split_once(" run --home "))?.1;
    let mut is_escaped = false;
    let end = rest.char_indices().skip(1).find(|&(_, c)| {
        let ends = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    })?;
    Some(&rest[..=end.0])
}

fn status(place: &Place, output: &mut Output) -> Outcome {
    const COLUMNS: [Column; 7] = [
        Column::text("unit"),
        Column::text("path"),
        Column::text("home"),
        Column::text("written_by_minflow"),
        Column::text("enabled"),
        Column::text("active"),
        Column::text("lingers"),
    ];
    let path: PathBuf = place.path();
    let found = read(&path)?.ok_or_else(|| no_unit(&path))?;
    let (name, is_ours) = (place.unit(), found.lines().next() == Some(MARK));
    let ask = |question: &str| match place.systemctl(&[question, &name]) {
        Answer::Absent => None,
        // What is not enabled or not active is told by a failure, with a word for it.
        Answer::Done { said } | Answer::Failed { said } => Some(said),
    };
    let record = json!({
        "unit": name, "path": path.display().to_string(), "home": home_of(&found).map(|home| home.trim_matches('"')),
        "written_by_minflow": is_ours, "enabled": ask("is-enabled"), "active": ask("is-active"), "lingers": place.lingers(),
    });
    Ok(output.record(&record, &COLUMNS)?)
}

fn uninstall(place: &Place) -> Outcome {
    let path = place.path();
    let found = read(&path)?.ok_or_else(|| no_unit(&path))?;
    refuse_others(&path, &found)?;
    let name = place.unit();
    let disable = ["disable", "--now", &*name];
    match place.systemctl(&disable) {
        Answer::Absent => eprint("there is no `systemctl` on the PATH: nothing was stopped\n"),
        Answer::Done { .. } => eprint(&format!("stopped and disabled: {name}\n")),
        Answer::Failed { said } => {
            let message = format!("`{}` failed: {said}", place.in_words(&disable));
            return Err(Failure::refused(message, format!("`{}` is left as it is", path.display())));
        }
    }
    fs::remove_file(&path).map_err(|error| {
        Failure::refused(format!("cannot remove `{}`: {error}", path.display()), "check its permissions")
    })?;
    eprint(&format!("removed: {}\n", path.display()));
    if let Answer::Failed { said } = place.systemctl(&["daemon-reload"]) {
        eprint(&format!("`{}` failed: {said}\n", place.in_words(&["daemon-reload"])));
    }
    Ok(())
}

fn no_unit(path: &Path) -> Failure {
    Failure::refused(format!("there is no unit `{}`", path.display()), "`minflow service install` writes one")
}
