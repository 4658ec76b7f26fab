//! `minflow variables …`: reads the environment and airflow.toml, as templates do.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::output::{Column, Format, Output};
use crate::cli::{Failure, Globals, Outcome, settings};
use crate::secrets::{Listed, Masker, Secrets};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List all variables; secret values are shown as ***
    List,
    /// Print the value of one variable; a secret one is shown as ***
    Get(GetArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  minflow variables get greeting --default hello")]
pub struct GetArguments {
    key: String,
    /// What to print if there is no such variable
    #[arg(short, long, value_name = "VALUE")]
    default: Option<String>,
    /// Read the value as JSON, and print it so
    #[arg(short, long)]
    json: bool,
}

const COLUMNS: [Column; 3] = [Column::text("key"), Column::text("val"), Column::text("source")];

pub fn run(globals: &Globals, command: &Command, output: &mut Output) -> Outcome {
    let secrets = settings::secrets(globals)?;
    match command {
        Command::List => {
            let masker = secrets.masker();
            let records: Vec<Value> = secrets.variables().iter().map(|listed| record(listed, &masker)).collect();
            Ok(output.list(&records, &COLUMNS)?)
        }
        Command::Get(arguments) => get(&secrets, arguments, output),
    }
}

fn get(secrets: &Secrets, arguments: &GetArguments, output: &mut Output) -> Outcome {
    let key = &arguments.key;
    let default = || arguments.default.as_deref();
    let Some(value) = secrets.variable(key).or_else(default) else {
        let all = secrets.variables();
        let known = all.iter().map(|listed| listed.name.as_str());
        return Err(Failure::unknown("variable", key, known, "minflow variables list"));
    };
    let shown = if arguments.json {
        let value = serde_json::from_str(value).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            Failure::refused(format!("variable `{key}` is no JSON: see {place}"), "leave out --json to see its text")
        })?;
        secrets.masker().redact(key, &value)
    } else {
        secrets.masker().redact(key, &Value::from(value))
    };
    match output.format {
        Format::Json | Format::Yaml => Ok(output.record(&json!({ "key": key, "val": shown }), &[])?),
        Format::Table | Format::Plain | Format::Svg => {
            let text = shown.as_str().filter(|_| !arguments.json).map_or_else(|| shown.to_string(), str::to_owned);
            Ok(output.answer(&text, &Value::Null)?)
        }
    }
}

fn record(listed: &Listed<String>, masker: &Masker) -> Value {
    let val = masker.redact(&listed.name, &Value::from(&*listed.value));
    json!({ "key": listed.name, "val": val, "source": listed.origin })
}
