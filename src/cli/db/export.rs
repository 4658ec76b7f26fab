//! `minflow db export`

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::cli::db::draft::{self, Draft};
use crate::cli::output::{Column, Output};
use crate::cli::{Failure, Globals, Outcome, settings};
use crate::store::{self, Reader};

#[derive(Debug, Args)]
#[command(
    after_help = "Each table becomes a file of its own, NAME.csv or NAME.jsonl, of one moment. Keys of rows are replaced by ids, instants are UTC, \
    durations seconds. All of them are there when they are whole, or none; what is there already is not overwritten. Of an archive, which may have \
    several runs of one name, `run_key` in other tables is the `key` of dag_run.\n\nExamples:\n  minflow db export --output-path exported\n  \
    minflow db export --output-path exported --export-format json --tables dag_run,task_instance\n  \
    minflow db export --output-path exported --archive archive.db"
)]
pub struct Arguments {
    /// The folder to write to; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    output_path: PathBuf,
    #[arg(long, value_enum, default_value_t)]
    export_format: ExportFormat,
    /// Only these, with commas between them [default: all]
    #[arg(short, long, value_name = "TABLES", value_delimiter = ',')]
    tables: Vec<String>,
    /// What `minflow db clean` has archived, instead of the database
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// Comma-separated, with the names of the columns in the first line.
    #[default]
    Csv,
    /// One JSON object a line.
    Json,
}

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let config = settings::load(globals)?.config;
    for table in &arguments.tables {
        if !store::tables().any(|known| known == table) {
            let near = crate::diagnostic::did_you_mean(table, store::tables());
            let known = store::tables().collect::<Vec<_>>().join(", ");
            return Err(Failure::Usage {
                message: format!("unknown table `{table}`"),
                help: near.map_or(format!("the tables are {known}"), |near| format!("did you mean `{near}`?")),
            });
        }
    }
    let reader = match &arguments.archive {
        Some(archive) => Reader::open_archive(archive)?,
        None => Reader::open(&config.database.path)?,
    };
    let folder = &arguments.output_path;
    let is_new = !folder.exists();
    std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    let exported = export(&reader, arguments);
    if exported.is_err() && is_new {
        // Empty, as it was made.
        let _ = std::fs::remove_dir(folder);
    }
    Ok(output.list(&exported?, &[Column::text("table"), Column::text("rows"), Column::text("path")])?)
}

/// All the files, or none of them.
fn export(reader: &Reader, arguments: &Arguments) -> Result<Vec<Value>, Failure> {
    let is_wanted = |table: &&str| arguments.tables.is_empty() || arguments.tables.iter().any(|wanted| wanted == table);
    let format = arguments.export_format;
    let tail = if format == ExportFormat::Csv { "csv" } else { "jsonl" };
    let wanted: Vec<(&str, PathBuf)> = store::tables()
        .filter(is_wanted)
        .map(|table| (table, arguments.output_path.join(format!("{table}.{tail}"))))
        .collect();
    if let Some((_, path)) = wanted.iter().find(|(_, path)| path.symlink_metadata().is_ok()) {
        return Err(unwritable(path, &io::ErrorKind::AlreadyExists.into()));
    }
    let (mut written, mut drafts) = (Vec::new(), Vec::new());
    let mut failed = None;
    reader.at_one_moment(|reader| {
        for (table, path) in &wanted {
            match write(reader, table, path, format)? {
                Ok((draft, rows)) => {
                    drafts.push(draft);
                    written.push(json!({"table": table, "rows": rows, "path": path.display().to_string()}));
                }
                Err(error) => {
                    failed = Some(unwritable(path, &error));
                    break;
                }
            }
        }
        Ok(())
    })?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    draft::publish(drafts).map_err(|(path, error)| unwritable(&path, &error))?;
    Ok(written)
}

/// Writes one table; the file with its number of rows, or why it cannot be written.
fn write(
    reader: &Reader,
    table: &str,
    path: &Path,
    format: ExportFormat,
) -> Result<io::Result<(Draft, u64)>, crate::scheduler::StoreError> {
    let draft = match Draft::begin(path) {
        Ok(draft) => draft,
        Err(error) => return Ok(Err(error)),
    };
    let mut file = BufWriter::new(draft.file());
    let (mut rows, mut failed) = (0_u64, None);
    reader.export(table, |names, cells| {
        rows += u64::from(cells.is_some());
        let done = put(&mut file, format, names, cells);
        failed = done.err();
        failed.is_none()
    })?;
    let end = match failed {
        Some(error) => Err(error),
        None => file.flush(),
    };
    drop(file);
    Ok(end.and_then(|()| draft.file().sync_all()).map(|()| (draft, rows)))
}

/// One line; the names of the columns without cells.
fn put(file: &mut impl Write, format: ExportFormat, names: &[String], cells: Option<Vec<Value>>) -> io::Result<()> {
    match (format, cells) {
        (ExportFormat::Json, None) => Ok(()),
        (ExportFormat::Json, Some(cells)) => {
            let record: Map<String, Value> = names.iter().cloned().zip(cells).collect();
            serde_json::to_writer(&mut *file, &record)?;
            file.write_all(b"\n")
        }
        (ExportFormat::Csv, None) => line(file, names.iter().cloned()),
        (ExportFormat::Csv, Some(cells)) => line(file, cells.into_iter().map(text)),
    }
}

fn text(cell: Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// As RFC 4180 has it, with the line ends of this system.
fn line(file: &mut impl Write, cells: impl Iterator<Item = String>) -> io::Result<()> {
    let quoted = cells.map(|cell| match cell.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell,
    });
    let line: Vec<String> = quoted.collect();
    writeln!(file, "{}", line.join(","))
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let help = match error.kind() {
        io::ErrorKind::AlreadyExists => "name another folder, or move that file away; it was not changed",
        _ => "name a folder with room, in which this user may write",
    };
    Failure::refused(format!("failed to write `{}`: {error}", path.display()), help)
}
