//! The configuration that the options on the command line and the environment lead to.

use std::path::{Path, PathBuf};

use crate::cli::{Failure, Globals};
use crate::config::{self, ConfigInputs, Flag, Loaded};
use crate::secrets::Secrets;

/// Settles the configuration of the home.
///
/// # Errors
/// The home is no folder, or faults in the configuration.
pub fn load(globals: &Globals) -> Result<Loaded, Failure> {
    load_with(globals, Vec::new())
}

/// As [`load`], with values that flags of the command set.
pub fn load_with(globals: &Globals, flags: Vec<Flag>) -> Result<Loaded, Failure> {
    let home = home(globals)?;
    config::load(inputs(globals, home, flags)).map_err(Failure::Invalid)
}

/// The home's variables and connections.
///
/// # Errors
/// As [`load`].
pub fn secrets(globals: &Globals) -> Result<Secrets, Failure> {
    Ok(Secrets::of_process(load(globals)?.config.secrets))
}

pub fn inputs(globals: &Globals, home: PathBuf, flags: Vec<Flag>) -> ConfigInputs {
    // A variable that is no text cannot be one of ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| {
            ["AIRFLOW__", "MINFLOW__"].iter().any(|head| name.starts_with(head)) || name == "MINFLOW_PROFILE"
        })
        .collect();
    ConfigInputs { home, config: globals.config.clone(), environment, profile: globals.profile.clone(), flags }
}

/// `--home`, else `$MINFLOW_HOME`, else the current folder; absolute.
///
/// # Errors
/// It is no folder.
pub fn home(globals: &Globals) -> Result<PathBuf, Failure> {
    let of_environment = || std::env::var_os("MINFLOW_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let typed = globals.home.clone().or_else(of_environment).unwrap_or_else(|| PathBuf::from("."));
    let home = std::path::absolute(&typed).map_err(|error| {
        Failure::refused(format!("failed to find the current folder: {error}"), "name the home with --home")
    })?;
    if home.is_dir() {
        return Ok(home.components().collect());
    }
    let help = format!("`minflow init {}` makes one there; or name another with --home", typed.display());
    Err(Failure::refused(format!("the home `{}` is no folder", typed.display()), help))
}

/// A path as the user would name it: relative to the home where it lies inside.
pub fn shown<'a>(path: &'a Path, home: &Path) -> &'a Path {
    path.strip_prefix(home).unwrap_or(path)
}
