//! `minflow status`

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::cli::output::{Format, Output, local_time, span};
use crate::cli::{Failure, Globals, Outcome, engine, settings};

#[derive(Debug, Args)]
#[command(
    after_help = "With -o json it is the answer of http://localhost:8080/status. Exit code 4: no minflow runs on this home."
)]
pub struct Arguments {}

/// How long the running minflow may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn run(globals: &Globals, _arguments: &Arguments, output: &mut Output) -> Outcome {
    let config = settings::load(globals)?.config;
    let home = config.home.display().to_string();
    let pong = engine::ping(&config.home)?;
    let status = match pong.http.as_deref().and_then(|address| address.parse().ok()) {
        Some(address) => ask(address, "/status", PATIENCE).map_err(|error| {
            let help = format!("its log says more; it is process {}", pong.pid);
            Failure::refused(format!("the minflow of `{home}` runs, but does not tell its status: {error}"), help)
        })?,
        None => json!({"status": "running without HTTP", "version": pong.version, "pid": pong.pid, "home": home}),
    };
    if matches!(output.format, Format::Json | Format::Yaml) {
        return Ok(output.record(&status, &[])?);
    }
    Ok(summarize(&status, pong.http.as_deref(), output)?)
}

/// `GET path`, without a client library: one request, and the answer to its end, which is JSON.
pub(super) fn ask(address: SocketAddr, path: &str, patience: Duration) -> Result<Value, String> {
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(|error| error.to_string())?;
    let body = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| &answer[at + 4..]);
    let status: Value = body
        .and_then(|body| serde_json::from_slice(body).ok())
        .ok_or_else(|| String::from_utf8_lossy(&answer).lines().next().unwrap_or("an empty answer").to_owned())?;
    // A problem: its status is a number.
    match status["detail"].as_str().filter(|_| status["status"].is_number()) {
        Some(detail) => Err(detail.to_owned()),
        None => Ok(status),
    }
}

fn summarize(status: &Value, http: Option<&str>, output: &mut Output) -> std::io::Result<()> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let uptime = status["uptime_seconds"].as_f64().map(|seconds| format!(", up {}", span(seconds))).unwrap_or_default();
    writeln!(output, "minflow {} on {}: {}", text(&status["version"]), text(&status["home"]), text(&status["status"]))?;
    writeln!(output, "process  {}{uptime}", status["pid"])?;
    if let Some(http) = http {
        writeln!(output, "page     http://{http}")?;
    }
    if let Some(dags) = status["dag_counts"].as_object() {
        writeln!(output, "dags     {} active, {} paused, {} broken", dags["active"], dags["paused"], dags["broken"])?;
    }
    if let Some(tasks) = status["tasks"].as_object() {
        writeln!(
            output,
            "tasks    {} running, {} queued, {} scheduled, {} up for retry; at most {} at once",
            tasks["running"], tasks["queued"], tasks["scheduled"], tasks["up_for_retry"], tasks["parallelism"]
        )?;
    }
    for reason in list(&status["tasks"]["held_back_by"]) {
        writeln!(output, "held     nothing new starts: {}", text(reason))?;
    }
    if let (Some(median), Some(worst)) = (lag(status, "p50"), lag(status, "p99")) {
        writeln!(
            output,
            "lag      {} in the median, {} at the 99th percentile of recent runs",
            span(median),
            span(worst)
        )?;
    }
    if let Some((at, dag_id)) = next_run(status) {
        writeln!(output, "next     {dag_id} at {}", local_time(at, &TimeZone::system()))?;
    }
    for pool in list(&status["pools"]) {
        let slots = if pool["slots"] == -1 { "no limit".to_owned() } else { format!("{} slots", pool["slots"]) };
        writeln!(
            output,
            "pool     {}: {slots}, {} running, {} queued",
            text(&pool["name"]),
            pool["running"],
            pool["queued"]
        )?;
    }
    for waiting in list(&status["waiting"]) {
        let index = waiting["map_index"].as_i64().filter(|&index| index >= 0);
        let index = index.map(|index| format!("[{index}]")).unwrap_or_default();
        let task = format!("{}.{}{index}", text(&waiting["dag_id"]), text(&waiting["task_id"]));
        writeln!(output, "waits    {task} in {}: {}", text(&waiting["run_id"]), text(&waiting["message"]))?;
    }
    for error in list(&status["import_errors"]) {
        let place = format!("{}:{}:{}", text(&error["filename"]), error["line"], error["column"]);
        writeln!(output, "broken   {place}: {}", text(&error["message"]))?;
    }
    for failure in list(&status["recent_failures"]) {
        let at = failure["end_date"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        let at = at.map(|at| local_time(at, &TimeZone::system())).unwrap_or_default();
        let task = format!("{} {}", text(&failure["dag_id"]), text(&failure["task_id"]));
        let why = failure["reason"].as_str().and_then(|reason| reason.lines().next());
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        writeln!(output, "failed   {at}: {task} in {}{why}", text(&failure["run_id"]))?;
    }
    for missed in list(&status["missed_deadlines"]) {
        let at = missed["deadline"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        let at = at.map(|at| local_time(at, &TimeZone::system())).unwrap_or_default();
        let run = missed["run_id"].as_str().map_or_else(|| "no run".to_owned(), |run_id| format!("run {run_id}"));
        writeln!(output, "late     {at}: {} ({run}, {})", text(&missed["dag_id"]), text(&missed["kind"]))?;
    }
    for failure in list(&status["recent_callback_failures"]) {
        let at = failure["end_date"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        let at = at.map(|at| local_time(at, &TimeZone::system())).unwrap_or_default();
        let task = failure["task_id"].as_str().map(|task| format!(" {task}")).unwrap_or_default();
        let why = failure["reason"].as_str().and_then(|reason| reason.lines().next()).unwrap_or_default();
        let run = failure["run_id"].as_str().map(|run_id| format!(" in {run_id}")).unwrap_or_default();
        let log = failure["log"].as_str().map(|log| format!("; see {log}")).unwrap_or_default();
        let (hook, number, dag_id) = (text(&failure["hook"]), &failure["number"], text(&failure["dag_id"]));
        writeln!(output, "untold   {at}: callback {hook} {number} of {dag_id}{task}{run}: {why}{log}")?;
    }
    Ok(())
}

/// How late runs began, in seconds.
fn lag(status: &Value, percentile: &str) -> Option<f64> {
    status["scheduler"]["schedule_lag_ms"][percentile].as_f64().map(|milliseconds| milliseconds / 1_000.0)
}

/// Of the DAGs that are scheduled, the one that is due first.
fn next_run(status: &Value) -> Option<(Timestamp, String)> {
    let scheduled = list(&status["dags"]).iter().filter(|dag| dag["is_active"] == true && dag["is_paused"] == false);
    let due = |dag: &Value| {
        let at = dag["next_dagrun_create_after"].as_str()?.parse().ok()?;
        Some((at, dag["dag_id"].as_str()?.to_owned()))
    };
    scheduled.filter_map(due).min()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_run_is_the_earliest_of_a_dag_that_is_scheduled() {
        let dag = |dag_id: &str, at: Option<&str>, is_paused: bool| json!({"dag_id": dag_id, "is_active": true, "is_paused": is_paused, "next_dagrun_create_after": at});
        let status = json!({"dags": [
            dag("paused", Some("2026-11-21T01:00:00Z"), true),
            dag("late", Some("2026-11-21T03:00:00Z"), false),
            dag("never", None, false),
            dag("first", Some("2026-11-21T02:00:00Z"), false),
        ]});
        let next = next_run(&status).map(|(at, dag_id)| (at.to_string(), dag_id));
        assert_eq!(next, Some(("2026-11-21T02:00:00Z".to_owned(), "first".to_owned())));
        assert_eq!(next_run(&json!({"status": "running without HTTP"})), None);
    }
}
