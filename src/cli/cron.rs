//! `minflow cron`: when an expression fires, in words and as a list of instants. Works without a home.

use std::io::Write;

use clap::Args;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::{Value, json};

use crate::api::json::Instant;
use crate::cli::failure::eprint;
use crate::cli::output::{Column, Format, Output};
use crate::cli::{Failure, Globals, Outcome, instants, settings};
use crate::clock::{Clock, SystemClock};
use crate::diagnostic::Diagnostic;
use crate::keytable::zone_help;
use crate::timetable::{Cron, Mark, ScheduleError};

#[derive(Debug, Args)]
#[command(
    after_help = "The fields are minute, hour, day of month, month and day of week, then perhaps second and year; a preset such \
    as @daily does too. Each fire time stands with its offset; what a change of the clocks does to it is said beside it.\n\n\
    Examples:\n  minflow cron \"0 6 * * mon-fri\"\n  \
    minflow cron \"30 2 * * *\" --tz Europe/Berlin --from 2026-10-24 -n 3\n  \
    minflow cron \"0 9 * * fri#2\" -o json"
)]
pub struct Arguments {
    /// The expression or preset, in quotes
    #[arg(value_name = "EXPR", required = true)]
    expression: Vec<String>,
    /// The time zone of its fields, e.g. `Europe/London` [default: core.default_timezone]
    #[arg(long, visible_alias = "timezone", value_name = "ZONE")]
    tz: Option<String>,
    /// The earliest fire time to show; without an offset it is in the zone [default: now]
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// How many fire times
    #[arg(short, long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    num: u32,
}

/// A fire time, and what is odd about it.
struct Fire {
    at: Zoned,
    marks: Vec<Mark>,
}

const COLUMNS: [Column; 3] = [Column::text("local_time"), Column::text("utc"), Column::text("remark")];

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let text = one_expression(&arguments.expression)?;
    let cron = Cron::parse(text).map_err(|error| refuse(text, &error))?;
    let zone = zone(globals, arguments.tz.as_deref())?;
    let from = match &arguments.from {
        Some(typed) => beginning(typed, &zone)?,
        None => SystemClock.now(),
    };
    let fires = fires(&cron, &zone, from, arguments.num as usize);
    let name = zone.iana_name().unwrap_or("UTC");
    match output.format {
        Format::Json | Format::Yaml => {
            let record = json!({
                "expression": text,
                "description": cron.words(),
                "timezone": name,
                "never_fires": cron.is_never(),
                "from": Instant(from),
                "fire_times": fires.iter().map(as_record).collect::<Vec<_>>(),
            });
            output.record(&record, &[])?;
        }
        Format::Table | Format::Plain | Format::Svg => {
            if output.format == Format::Table {
                writeln!(output, "{}, {name}", cron.words())?;
            }
            if !fires.is_empty() {
                output.list(&fires.iter().map(as_row).collect::<Vec<_>>(), &COLUMNS)?;
            }
        }
    }
    output.flush()?;
    if fires.len() < arguments.num as usize {
        eprint(&ending(&cron, text, fires.last()));
    }
    Ok(())
}

/// As in DAG files, dates end where the year field of an expression does.
fn beginning(typed: &str, zone: &TimeZone) -> Result<Timestamp, Failure> {
    let from = instants::parse(typed, zone).ok_or_else(|| instants::no_instant(typed))?;
    if (1970..=2099).contains(&zone.to_datetime(from).year()) {
        return Ok(from);
    }
    let message = format!("`{typed}` is not in the years 1970 to 2099");
    Err(Failure::Usage { message, help: "give a date of these years".to_owned() })
}

/// A shell makes several arguments of an expression without quotes, and file names of its `*`.
fn one_expression(words: &[String]) -> Result<&str, Failure> {
    let (message, help) = match words {
        [text] => match text.trim() {
            "@once" => {
                ("`@once` has no fire times: its DAG runs once, as soon as it is seen", "give a cron expression")
            }
            "@continuous" => (
                "`@continuous` has no fire times: its DAG runs again as soon as the run before is over",
                "give a cron expression",
            ),
            _ => return Ok(text),
        },
        _ => ("the expression is one argument", "write it in quotes, as in `minflow cron \"0 6 * * mon-fri\"`"),
    };
    Err(Failure::Usage { message: message.to_owned(), help: help.to_owned() })
}

/// `--tz`, else what the home's configuration says. That there is no sound one is no obstacle unless it was asked for.
fn zone(globals: &Globals, typed: Option<&str>) -> Result<TimeZone, Failure> {
    let Some(name) = typed else {
        return match settings::load(globals) {
            Ok(loaded) => Ok(crate::keytable::zone(&loaded.config.core.default_timezone).unwrap_or(TimeZone::UTC)),
            Err(failure) if globals.home.is_some() || globals.config.is_some() => Err(failure),
            Err(_) => {
                eprint(
                    "the configuration has faults (`minflow validate` shows them): the time zone is taken to be UTC\n",
                );
                Ok(TimeZone::UTC)
            }
        };
    };
    crate::keytable::zone(name)
        .map_err(|_| Failure::Usage { message: format!("unknown time zone `{name}`"), help: zone_help(name) })
}

fn refuse(text: &str, error: &ScheduleError) -> Failure {
    let fault = Diagnostic::at("", text, error.range.clone(), "bad-schedule", "", "");
    let place = if text.trim().is_empty() { String::new() } else { format!("\n{}", fault.excerpt()) };
    Failure::Usage { message: error.message.clone() + &place, help: error.help.clone() }
}

/// At most `count`, from the first one at or after `from`.
fn fires(cron: &Cron, zone: &TimeZone, from: Timestamp, count: usize) -> Vec<Fire> {
    let mut fires = Vec::new();
    let Some(mut at) = cron.align_next(from, zone).or_else(|| cron.next(from, zone)) else { return fires };
    let mut before = if at == from { cron.prev(from, zone).unwrap_or(from) } else { from };
    while fires.len() < count {
        // What is odd about the way to another fire time does not concern this one.
        let marks = if cron.next(before, zone) == Some(at) { cron.marks_after(before, zone) } else { None };
        fires.push(Fire { at: at.to_zoned(zone.clone()), marks: marks.unwrap_or_default() });
        let Some(next) = cron.next(at, zone) else { break };
        (before, at) = (at, next);
    }
    fires
}

fn ending(cron: &Cron, text: &str, last: Option<&Fire>) -> String {
    match last {
        _ if cron.is_never() => {
            format!("`{text}` never fires: no year has such a date. A DAG with this schedule has no scheduled run\n")
        }
        Some(_) => "it does not fire again within 50 years\n".to_owned(),
        None => "it does not fire within 50 years\n".to_owned(),
    }
}

fn as_row(fire: &Fire) -> Value {
    let remark: Vec<String> = fire.marks.iter().map(ToString::to_string).collect();
    json!({
        "local_time": fire.at.strftime("%a %Y-%m-%d %H:%M:%S %:z").to_string(),
        "utc": fire.at.timestamp().to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        "remark": remark.join("; "),
    })
}

fn as_record(fire: &Fire) -> Value {
    json!({
        "local": fire.at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        "utc": Instant(fire.at.timestamp()),
        "marks": fire.marks.iter().map(mark).collect::<Vec<_>>(),
    })
}

fn mark(mark: &Mark) -> Value {
    let kind = match mark {
        Mark::Moved { .. } => "moved",
        Mark::FirstOfTwo => "first_of_two",
        Mark::SecondOfTwo { .. } => "second_of_two",
        Mark::Shifted { .. } => "shifted",
        Mark::Lost { .. } => "lost",
    };
    let mut record = json!({ "kind": kind, "text": mark.to_string() });
    match mark {
        Mark::Moved { named, .. } | Mark::Shifted { named, .. } => record["named"] = json!(named.to_string()),
        Mark::Lost { first, count } => {
            record["first"] = json!(first.to_string());
            record["count"] = json!(count);
        }
        Mark::FirstOfTwo | Mark::SecondOfTwo { .. } => {}
    }
    record
}
