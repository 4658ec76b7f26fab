//! `minflow init`: a new home. Writes files, and never over one that exists.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::failure::eprint;
use crate::cli::{Failure, Globals, Outcome};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  minflow init my-home && minflow --home my-home run")]
pub struct Arguments {
    /// The folder to make; an existing one may hold other files [default: --home, else the current folder]
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What a new home holds, in the order in which it is written.
const FILES: [(&str, &str); 3] = [
    ("airflow.toml", include_str!("init/airflow.toml")),
    ("dags/hello.toml", include_str!("init/hello.toml")),
    (".gitignore", include_str!("init/gitignore")),
];

pub fn run(globals: &Globals, arguments: &Arguments) -> Outcome {
    let dir = match (&arguments.dir, &globals.home) {
        (Some(dir), Some(home)) if dir != home => {
            let message = format!("`{}` and --home `{}` name two folders", dir.display(), home.display());
            return Err(Failure::refused(message, "name the folder once"));
        }
        (Some(dir), _) | (None, Some(dir)) => dir.as_path(),
        (None, None) => Path::new("."),
    };
    let existing: Vec<String> = FILES
        .iter()
        .map(|(name, _)| dir.join(name))
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| format!("`{}`", path.display()))
        .collect();
    if !existing.is_empty() {
        let message = format!("{} would be overwritten; nothing was written", existing.join(", "));
        return Err(Failure::refused(message, "choose another folder, or move these files away"));
    }
    for (name, text) in FILES {
        write_new(&dir.join(name), text)?;
    }
    eprint(&format!("made a home in `{}`: {}\n", dir.display(), FILES.map(|(name, _)| name).join(", ")));
    let run =
        if dir == Path::new(".") { "minflow run".to_owned() } else { format!("minflow --home {} run", quoted(dir)) };
    eprint(&format!("next: {run}\n"));
    Ok(())
}

fn write_new(path: &Path, text: &str) -> Outcome {
    let refuse = |error: std::io::Error| {
        let help = match error.kind() {
            ErrorKind::PermissionDenied => "choose a folder that you may write to",
            ErrorKind::StorageFull => "make room on this disk, or choose a folder on another one",
            _ => "choose another folder",
        };
        Failure::refused(format!("failed to write `{}`: {error}", path.display()), help)
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(refuse)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(refuse)?;
    file.write_all(text.as_bytes()).map_err(refuse)
}

/// A path as a shell reads it back.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_tame = text.chars().all(|c| c.is_ascii_alphanumeric() || "._/-+".contains(c));
    if is_tame { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
