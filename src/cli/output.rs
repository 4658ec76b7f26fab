//! How commands answer: tables, JSON, YAML and plain text on standard output, talk on standard error.
//!
//! Knows nothing of what is shown: commands hand it JSON records (CONTRACTS 9) and say which fields make a table.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use clap::ValueEnum;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::cli::yaml;

/// `-o`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns with a rule under the header, local time.
    #[default]
    Table,
    /// The records, times in UTC.
    Json,
    /// The same records as YAML.
    Yaml,
    /// Columns without rule or colour, for awk and friends.
    Plain,
    /// A picture; of `simulate` alone.
    Svg,
}

/// One column of a table: a field of the record and how a person reads it.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    field: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    /// An instant, shown in local time with its zone.
    Time,
    /// A state, coloured on a terminal.
    State,
    /// Seconds, shown in the unit that suits them.
    Span,
    /// So many bytes, likewise.
    Bytes,
}

impl Column {
    pub const fn text(field: &'static str) -> Self {
        Self { field, kind: Kind::Text }
    }

    pub const fn time(field: &'static str) -> Self {
        Self { field, kind: Kind::Time }
    }

    pub const fn state(field: &'static str) -> Self {
        Self { field, kind: Kind::State }
    }

    pub const fn bytes(field: &'static str) -> Self {
        Self { field, kind: Kind::Bytes }
    }

    pub const fn span(field: &'static str) -> Self {
        Self { field, kind: Kind::Span }
    }

    /// The name of the field; a dot leads into a nested record.
    pub const fn name(&self) -> &'static str {
        self.field
    }

    fn show(self, record: &Value) -> String {
        let Some(value) = self.field.split('.').try_fold(record, |value, name| value.get(name)) else {
            return String::new();
        };
        match (self.kind, value) {
            (Kind::Time, Value::String(text)) => text
                .parse::<Timestamp>()
                .map_or_else(|_| text.clone(), |instant| local_time(instant, &TimeZone::system())),
            (Kind::State, Value::Null) => "none".to_owned(),
            (Kind::Bytes, Value::Number(bytes)) => in_bytes(bytes.as_u64().unwrap_or_default()),
            (Kind::Span, Value::Number(seconds)) => span(seconds.as_f64().unwrap_or_default()),
            _ => cell(value),
        }
    }
}

/// An instant as people read it, e.g. `2026-11-21 06:00:00 GMT`.
pub fn local_time(instant: Timestamp, zone: &TimeZone) -> String {
    instant.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// Seconds as people read them: `12 ms`, `3.2 s`, then in the two largest units, e.g. `3 h 2 min`.
pub fn span(seconds: f64) -> String {
    let whole = seconds as u64;
    match (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60, whole % 60) {
        (0, 0, 0, 0) => format!("{} ms", (seconds * 1_000.0) as u64),
        (0, 0, 0, _) => format!("{:.1} s", (seconds * 10.0).floor() / 10.0),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, _, _) => format!("{days} d {hours} h"),
    }
}

/// Bytes as people read them: `512 B`, `1.5 MiB`.
fn in_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1 << 10 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10).min(UNITS.len() as u32);
    // Rounded down, so that 1 MiB less a byte is not 1024.0 KiB.
    let tenths = (u128::from(bytes) * 10) >> (10 * power);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[power as usize - 1])
}

/// A value in a table: nothing for null, lists without brackets, one line in any case.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(fields) if fields.is_empty() => String::new(),
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Standard output. A reader that goes away (`| head`) ends the command quietly: see [`crate::cli::Failure`].
pub struct Output {
    pub format: Format,
    is_coloured: bool,
    to: BufWriter<StdoutLock<'static>>,
}

impl Output {
    pub fn new(format: Format) -> Self {
        let stdout = io::stdout().lock();
        let wants_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let is_coloured = wants_colour && stdout.is_terminal() && format == Format::Table;
        Self { format, is_coloured, to: BufWriter::new(stdout) }
    }

    /// Shows a list of records; `columns` are those of a table.
    pub fn list(&mut self, records: &[Value], columns: &[Column]) -> io::Result<()> {
        match self.format {
            Format::Json | Format::Yaml => self.value(&Value::Array(records.to_vec())),
            Format::Table | Format::Plain | Format::Svg => {
                let cells = records.iter().map(|record| columns.iter().map(|column| column.show(record)).collect());
                self.table(columns, cells.collect())
            }
        }
    }

    /// Shows one record; as a table its fields stand below each other.
    pub fn record(&mut self, record: &Value, columns: &[Column]) -> io::Result<()> {
        match self.format {
            Format::Json | Format::Yaml => self.value(record),
            Format::Table | Format::Plain | Format::Svg => {
                let rows = columns.iter().map(|column| vec![column.field.to_owned(), column.show(record)]).collect();
                self.table(&[Column::text("property_name"), Column::text("property_value")], rows)
            }
        }
    }

    /// Shows one answer: as text for people, as `record` for programs.
    pub fn answer(&mut self, text: &str, record: &Value) -> io::Result<()> {
        match self.format {
            Format::Json | Format::Yaml => self.value(record),
            Format::Table | Format::Plain | Format::Svg => writeln!(self.to, "{text}"),
        }
    }

    fn value(&mut self, value: &Value) -> io::Result<()> {
        if self.format == Format::Yaml {
            return self.to.write_all(yaml::to_text(value).as_bytes());
        }
        serde_json::to_writer_pretty(&mut self.to, value)?;
        writeln!(self.to)
    }

    fn table(&mut self, columns: &[Column], rows: Vec<Vec<String>>) -> io::Result<()> {
        let header: Vec<String> = columns.iter().map(|column| column.field.to_owned()).collect();
        let mut widths: Vec<usize> = header.iter().map(|name| name.chars().count()).collect();
        for row in &rows {
            for (width, text) in widths.iter_mut().zip(row) {
                *width = (*width).max(text.chars().count());
            }
        }
        let gap = if self.format == Format::Table { " | " } else { "  " };
        self.row(&header, &widths, gap, &[])?;
        if self.format == Format::Table {
            let rule: Vec<String> = widths.iter().map(|width| "=".repeat(*width)).collect();
            writeln!(self.to, "{}", rule.join("=+="))?;
        }
        rows.iter().try_for_each(|row| self.row(row, &widths, gap, columns))
    }

    fn row(&mut self, cells: &[String], widths: &[usize], gap: &str, columns: &[Column]) -> io::Result<()> {
        let mut line = String::new();
        for (at, (text, width)) in cells.iter().zip(widths).enumerate() {
            if at > 0 {
                line.push_str(gap);
            }
            let is_state = columns.get(at).is_some_and(|column| column.kind == Kind::State);
            match state_colour(text) {
                Some(colour) if is_state && self.is_coloured => line.push_str(&format!("\x1b[{colour}m{text}\x1b[0m")),
                _ => line.push_str(text),
            }
            if at + 1 < cells.len() {
                line.extend(std::iter::repeat_n(' ', width - text.chars().count()));
            }
        }
        writeln!(self.to, "{}", line.trim_end())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The number of a terminal's colour, near to the colours of Airflow's pages.
fn state_colour(state: &str) -> Option<u8> {
    match state {
        "success" => Some(32),
        "running" | "restarting" => Some(92),
        "failed" => Some(31),
        "upstream_failed" | "up_for_retry" | "up_for_reschedule" => Some(33),
        "skipped" | "deferred" => Some(35),
        "scheduled" | "queued" | "removed" => Some(90),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_time_is_shown_in_the_readers_zone_with_its_name() {
        let instant: Timestamp = "2026-07-01T05:00:00Z".parse().unwrap();
        let zone = TimeZone::get("Europe/London").unwrap();
        assert_eq!(local_time(instant, &zone), "2026-07-01 06:00:00 BST");
    }

    #[test]
    fn a_span_is_shown_in_the_units_that_suit_it() {
        let shown = [0.0123, 7.94, 61.0, 3_720.0, 93_600.0].map(span);
        assert_eq!(shown, ["12 ms", "7.9 s", "1 min 1 s", "1 h 2 min", "1 d 2 h"]);
        assert_eq!(Column::span("last_run.lag").show(&json!({"last_run": {"lag": 0.5}})), "500 ms");
        assert_eq!(Column::span("last_run.lag").show(&json!({"last_run": {"lag": null}})), "");
    }

    #[test]
    fn a_cell_is_one_line_and_says_nothing_for_null() {
        assert_eq!(cell(&json!(null)), "");
        assert_eq!(cell(&json!(["a", "b"])), "a, b");
        assert_eq!(cell(&json!("two\nlines\x1b[31m")), "two lines [31m");
    }

    #[test]
    fn a_missing_state_reads_none() {
        assert_eq!(Column::state("state").show(&json!({"state": null})), "none");
        assert_eq!(Column::state("last_run.state").show(&json!({"last_run": null})), "");
        assert_eq!(Column::state("last_run.state").show(&json!({"last_run": {"state": "failed"}})), "failed");
    }
}
