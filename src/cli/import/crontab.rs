//! `minflow import crontab`: reads a crontab, writes a DAG file for each line, and shows what becomes of it. Nothing is written over,
//! and nothing at all if a line is refused, unless the others are asked for.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::host::{self, User};
use super::show::Sides;
use crate::cli::failure::eprint;
use crate::cli::output::{Column, Format, Output};
use crate::cli::{Failure, Globals, Outcome, files, instants, settings};
use crate::clock::{Clock, SystemClock};
use crate::crontab::{self, Crontab, Form, Given, Job, Mail};
use crate::dagfile::{self, Defaults};
use crate::diagnostic::Diagnostic;
use crate::template;
use crate::timetable::Cron;

/// A crontab is smaller by far.
const MAX_BYTES: u64 = 4 << 20;

#[derive(Debug, Args)]
#[command(
    after_help = "Each line becomes a DAG of one task, which runs the same command in the same folder with cron's environment. For \
    each, the next times are shown as cron and as minflow would run it. A line that minflow would run in another way is refused, \
    and then nothing is written. Take the lines out of the crontab afterwards, or both will run them.\n\n\
    Examples:\n  crontab -l | minflow import crontab - --dry-run\n  minflow import crontab /etc/cron.d/backup --skip-refused\n  \
    minflow import crontab old.crontab --output-dir my-home/dags/cron --prefix vm1_"
)]
pub struct Arguments {
    /// The crontab; `-` is standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The folder for the DAG files [default: the dags folder of the home]
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Show the DAG files and write none
    #[arg(long)]
    dry_run: bool,
    /// Import the other lines if some are refused
    #[arg(long)]
    skip_refused: bool,
    /// Read a user between time and command, as in /etc/crontab and /etc/cron.d, which are known by their place
    #[arg(long)]
    system: bool,
    /// The time zone that cron runs in [default: the host's]
    #[arg(long, visible_alias = "timezone", value_name = "ZONE")]
    tz: Option<String>,
    /// What every dag_id begins with
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// The DAGs are paused until `minflow dags unpause`
    #[arg(long)]
    paused: bool,
    /// The instant from which times are shown [default: now]
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
}

/// A DAG file that is to be.
struct File {
    job: Job,
    text: String,
    path: PathBuf,
    /// The path as it is shown.
    shown: String,
}

const COLUMNS: [Column; 2] = [Column::text("cron"), Column::text("minflow")];

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    if !arguments.prefix.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) || arguments.prefix.len() > 100
    {
        let message = format!("`{}` cannot begin a dag_id", arguments.prefix);
        return Err(Failure::Usage { message, help: "use at most 100 letters, digits, `_`, `-` and `.`".to_owned() });
    }
    let user = User::current();
    let (zone_name, zone) = host::zone(arguments.tz.as_deref())?;
    let from = match &arguments.from {
        Some(typed) => instants::parse(typed, &zone).ok_or_else(|| instants::no_instant(typed))?,
        None => SystemClock.now(),
    };
    let (path, form) = match arguments.file.as_deref().filter(|file| *file != Path::new("-")) {
        Some(file) => (file.to_owned(), host::form_of(file, &user)?),
        None => (PathBuf::from("-"), Form::User),
    };
    let bytes = read(arguments.file.as_deref())?;
    let text = String::from_utf8_lossy(&bytes);
    let given = Given {
        path: &path,
        text: &text,
        form: if arguments.system { Form::System } else { form },
        user: &user.name,
        home: user.home.as_deref(),
        zone: (&zone_name, &zone),
        prefix: &arguments.prefix,
    };
    let mut found = crontab::read(&given);
    let folder = folder(globals, arguments)?;
    let source = if path == Path::new("-") { "a crontab".to_owned() } else { path.display().to_string() };
    let home = settings::home(globals).ok();
    let shown = |path: &Path| home.as_deref().map_or(path, |home| settings::shown(path, home)).display().to_string();
    let files = to_files(&mut found, (&folder, &shown), &source, arguments.paused);
    tell_left_out(&found, &path);
    if !found.refused.is_empty() && !arguments.skip_refused {
        let message = match found.refused.len() {
            1 => "one line is refused, so nothing was written".to_owned(),
            count => format!("{count} lines are refused, so nothing was written"),
        };
        return Err(Failure::refused(message, "correct them, or import the others with --skip-refused"));
    }
    refuse_taken(&files, &folder)?;
    let is_written = !arguments.dry_run && !files.is_empty();
    if is_written {
        write_all(&files)?;
    }
    show(&files, &found, (from, arguments.dry_run), output)?;
    output.flush()?;
    conclude(&files, arguments.dry_run, arguments.paused);
    Ok(())
}

fn read(file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let piped = "`crontab -l | minflow import crontab -` reads your own crontab";
    let refuse = |what: &str, error: std::io::Error| Failure::refused(format!("failed to read {what}: {error}"), piped);
    let mut bytes = Vec::new();
    let what = match file.filter(|file| *file != Path::new("-")) {
        Some(file) => {
            let what = format!("`{}`", file.display());
            let opened = fs::File::open(file).map_err(|error| refuse(&what, error))?;
            opened.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| refuse(&what, error))?;
            what
        }
        None => {
            let stdin = std::io::stdin();
            if file.is_none() && stdin.is_terminal() {
                let message = "no crontab is named".to_owned();
                return Err(Failure::Usage { message, help: piped.to_owned() });
            }
            let what = "standard input";
            stdin.lock().take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| refuse(what, error))?;
            what.to_owned()
        }
    };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::refused(format!("{what} is larger than 4 MiB"), "name a crontab"));
    }
    Ok(bytes)
}

/// Where the files go. A folder that is no home is not made into one by chance.
fn folder(globals: &Globals, arguments: &Arguments) -> Result<PathBuf, Failure> {
    if let Some(folder) = &arguments.output_dir {
        return Ok(folder.clone());
    }
    let config = settings::load(globals)?.config;
    let is_home = config.core.dags_folder.is_dir() || config.home.join("airflow.toml").exists();
    if !is_home && !arguments.dry_run {
        let message = format!("`{}` is no home: it has neither airflow.toml nor a dags folder", config.home.display());
        let help = "`minflow init` makes one; or name one with --home, or a folder for the files with --output-dir";
        return Err(Failure::refused(message, help));
    }
    Ok(config.core.dags_folder)
}

/// The files of all jobs. What minflow's own reader would not take is moved to what is refused.
fn to_files(
    found: &mut Crontab,
    (folder, shown): (&Path, &dyn Fn(&Path) -> String),
    source: &str,
    paused: bool,
) -> Vec<File> {
    let mut files = Vec::new();
    for job in std::mem::take(&mut found.jobs) {
        let mut text = job.to_toml(source);
        if paused {
            text = text.replacen("\ncatchup = false\n", "\ncatchup = false\nis_paused_upon_creation = true\n", 1);
        }
        let name = PathBuf::from(format!("{}.toml", job.dag_id));
        let checked = dagfile::parse(&name, text.as_bytes(), &Defaults::default()).and_then(|dag| {
            let faults = template::check(&dag, &name, &text);
            if faults.is_empty() { Ok(()) } else { Err(faults) }
        });
        match checked {
            Ok(()) => {
                let path = folder.join(&name);
                files.push(File { shown: shown(&path), path, text, job });
            }
            Err(faults) => {
                let message = format!("line {} cannot be written as a DAG file: {}", job.line, faults[0].message);
                let help = "put the command into a script, and call that";
                found.refused.push(Diagnostic::of_file(&name, "not-a-dag", message, help));
            }
        }
    }
    files
}

fn tell_left_out(found: &Crontab, path: &Path) {
    for fault in &found.refused {
        eprint(&format!("{fault}\n\n"));
    }
    for reboot in &found.reboots {
        eprint(&format!(
            "{}:{}: left out: @reboot {}\nhelp: minflow starts nothing at the host's start; a systemd unit does \
             (`ExecStart=`, `Type=oneshot`, `WantedBy=multi-user.target`)\n\n",
            path.display(),
            reboot.line,
            reboot.command.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>()
        ));
    }
}

/// Neither a file nor a DAG that is there is replaced.
fn refuse_taken(files: &[File], folder: &Path) -> Outcome {
    let shown = |taken: Vec<String>| taken.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let help = "move it away, or give the new ones other names with --prefix";
    let there: Vec<String> =
        files.iter().filter(|file| file.path.symlink_metadata().is_ok()).map(|file| file.shown.clone()).collect();
    if !there.is_empty() {
        let message = format!("{} would be overwritten; nothing was written", shown(there));
        return Err(Failure::refused(message, help));
    }
    let known: BTreeSet<String> = files::dag_files(folder)
        .into_iter()
        .filter_map(|file| {
            let bytes = files::read(&folder.join(&file)).ok()?;
            Some(dagfile::parse(&file, &bytes, &Defaults::default()).ok()?.dag_id.to_string())
        })
        .collect();
    let taken: Vec<String> =
        files.iter().filter(|file| known.contains(&file.job.dag_id)).map(|file| file.job.dag_id.clone()).collect();
    if taken.is_empty() {
        return Ok(());
    }
    let message = format!("`{}` has a DAG of the name {} already; nothing was written", folder.display(), shown(taken));
    Err(Failure::refused(message, help))
}

/// All files, or none.
fn write_all(files: &[File]) -> Outcome {
    for (at, file) in files.iter().enumerate() {
        if let Err(error) = write_new(&file.path, &file.text) {
            for written in &files[..at] {
                let _ = fs::remove_file(&written.path);
            }
            let message = format!("failed to write `{}`: {error}; nothing was written", file.shown);
            return Err(Failure::refused(
                message,
                "choose a folder that you may write to and that has room, with --output-dir",
            ));
        }
    }
    Ok(())
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes()).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

fn show(files: &[File], found: &Crontab, (from, is_dry): (Timestamp, bool), output: &mut Output) -> Outcome {
    if matches!(output.format, Format::Json | Format::Yaml) {
        let dags: Vec<Value> = files.iter().map(|file| record(file, from)).collect();
        let left_out = found.reboots.iter().map(|reboot| json!({ "line": reboot.line, "command": reboot.command }));
        let refused = found.refused.iter().map(
            |fault| json!({ "line": fault.line, "column": fault.column, "code": fault.code, "message": fault.message, "help": fault.help }),
        );
        let record = json!({
            "dags": dags,
            "reboot": left_out.collect::<Vec<_>>(),
            "refused": refused.collect::<Vec<_>>(),
            "dry_run": is_dry,
        });
        return Ok(output.record(&record, &[])?);
    }
    for (at, file) in files.iter().enumerate() {
        let job = &file.job;
        let (sides, zone) = (Sides::new(job, from), job.clocks.zone());
        if at > 0 {
            writeln!(output)?;
        }
        let line: String = job.source.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        writeln!(output, "{}, line {}: {line}", file.shown, job.line)?;
        writeln!(output, "{}, {}", words(job), job.timezone)?;
        if is_dry {
            writeln!(output, "\n{}", file.text)?;
        }
        output.list(&sides.rows(zone), &COLUMNS)?;
        for remark in sides.remarks(zone).iter().chain(&job.remarks) {
            writeln!(output, "{remark}")?;
        }
    }
    Ok(())
}

fn words(job: &Job) -> String {
    Cron::parse(&job.schedule.text).map(|cron| cron.words()).unwrap_or_default()
}

fn record(file: &File, from: Timestamp) -> Value {
    let job = &file.job;
    let mut record = json!({
        "line": job.line,
        "source": job.source,
        "dag_id": job.dag_id,
        "file": file.shown,
        "schedule": job.schedule.text,
        "timezone": job.timezone,
        "remarks": job.remarks,
        "text": file.text,
    });
    if let (Value::Object(record), Value::Object(sides)) = (&mut record, Sides::new(job, from).record()) {
        record.extend(sides);
    }
    record
}

/// What keeps people told who were mailed by cron.
fn mail_advice(mailed: &[&str]) -> String {
    // A user's name is an address of this host.
    let address = |to: &str| format!("{:?}", if to.contains('@') { to.to_owned() } else { format!("{to}@localhost") });
    let names = mailed.iter().flat_map(|to| to.split(',')).map(str::trim).filter(|to| !to.is_empty());
    let to: Vec<String> = names.map(address).collect();
    format!(
        "cron mails output to {}; minflow keeps the output (`minflow tasks logs DAG_ID`) and mails failures once airflow.toml says:\n\n[smtp]\nhost = \"localhost\"    # your mail server\nmail_from = \"minflow@example.com\"    # who sends\n\n[notifiers.mail]\nkind = \"email\"\nto = [{}]\n\n[defaults]\non_failure = [{{ notify = \"mail\" }}]\n\n",
        mailed.join(", "),
        to.join(", ")
    )
}

fn conclude(files: &[File], is_dry: bool, paused: bool) {
    let count = match files.len() {
        0 => {
            eprint("there is no line to import\n");
            return;
        }
        1 => "1 DAG file".to_owned(),
        count => format!("{count} DAG files"),
    };
    let mut mailed: Vec<&str> = files
        .iter()
        .filter_map(|file| match &file.job.mail {
            Mail::To(to) => Some(to.as_str()),
            Mail::User | Mail::Nowhere => None,
        })
        .collect();
    mailed.sort_unstable();
    mailed.dedup();
    if !mailed.is_empty() {
        eprint(&mail_advice(&mailed));
    }
    if is_dry {
        eprint(&format!("{count} would be written; nothing was\n"));
        return;
    }
    let next = match paused {
        true => "take the lines out of the crontab (`crontab -e`), then `minflow dags unpause DAG_ID`",
        false => "take the lines out of the crontab (`crontab -e`), or both will run them",
    };
    eprint(&format!("{count} written\nnext: {next}\n"));
}
