//! `minflow config …`

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::output::{Column, Format, Output};
use crate::cli::{Failure, Globals, Outcome, settings};
use crate::config::Entry;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List every value of the configuration
    List(ListArguments),
    /// Print one value
    GetValue(GetValueArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  minflow config list --section core --origins")]
pub struct ListArguments {
    /// Show where each value comes from: default, file and line, variable, or flag
    #[arg(long)]
    origins: bool,
    /// Only this section
    #[arg(long, value_name = "NAME")]
    section: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  minflow config get-value core parallelism")]
pub struct GetValueArguments {
    /// The section; or both in one, as `core.parallelism`
    section: String,
    option: Option<String>,
}

impl GetValueArguments {
    fn names(&self) -> Result<(&str, &str), Failure> {
        let names = match &self.option {
            Some(option) => Some((self.section.as_str(), option.as_str())),
            None => self.section.split_once('.'),
        };
        names.ok_or_else(|| Failure::Usage {
            message: format!("which option of `{}`?", self.section),
            help: format!("`minflow config list --section {}` lists them", self.section),
        })
    }
}

const COLUMNS: [Column; 4] =
    [Column::text("section"), Column::text("key"), Column::text("value"), Column::text("origin")];

pub fn run(globals: &Globals, command: &Command, output: &mut Output) -> Outcome {
    match command {
        Command::List(arguments) => list(globals, arguments, output),
        Command::GetValue(arguments) => get_value(globals, arguments, output),
    }
}

fn list(globals: &Globals, arguments: &ListArguments, output: &mut Output) -> Outcome {
    let entries = settings::load(globals)?.entries;
    let chosen: Vec<&Entry> = match &arguments.section {
        Some(section) => of_section(&entries, section)?,
        None => entries.iter().collect(),
    };
    let columns = if arguments.origins { &COLUMNS[..] } else { &COLUMNS[..3] };
    let records: Vec<Value> = chosen.into_iter().map(|entry| as_record(entry, arguments.origins)).collect();
    Ok(output.list(&records, columns)?)
}

fn get_value(globals: &Globals, arguments: &GetValueArguments, output: &mut Output) -> Outcome {
    let (section_name, option) = arguments.names()?;
    let entries = settings::load(globals)?.entries;
    let section = of_section(&entries, section_name)?;
    let Some(entry) = section.iter().find(|entry| entry.key == option) else {
        let known = section.iter().map(|entry| entry.key.as_str());
        let listing = format!("minflow config list --section {section_name}");
        return Err(Failure::unknown(&format!("option of `{section_name}`:"), option, known, &listing));
    };
    match output.format {
        Format::Json | Format::Yaml => Ok(output.record(&as_record(entry, true), &[])?),
        Format::Table | Format::Plain | Format::Svg => Ok(output.answer(&entry.value, &Value::Null)?),
    }
}

fn of_section<'a>(entries: &'a [Entry], section: &str) -> Result<Vec<&'a Entry>, Failure> {
    let found: Vec<&Entry> = entries.iter().filter(|entry| entry.section == section).collect();
    if found.is_empty() {
        let known = entries.iter().map(|entry| entry.section.as_str());
        return Err(Failure::unknown("section", section, known, "minflow config list"));
    }
    Ok(found)
}

fn as_record(entry: &Entry, with_origin: bool) -> Value {
    let mut record = json!({ "section": entry.section, "key": entry.key, "value": entry.value });
    if with_origin {
        record["origin"] = json!(entry.origin);
    }
    record
}
