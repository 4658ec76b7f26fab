//! A simulation's report as tables, as a record, or as a picture.

use std::io::Write;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::api::json::Instant;
use crate::cli::Outcome;
use crate::cli::output::{Column, Format, Output, local_time};
use crate::keytable::print_duration;
use crate::simulate::{DagReport, Deadline, LimitReport, Odd, Report, Totals, Transition, WaitReport, draw};

/// How many lines of a kind a table has; the record has all.
const MAX_LINES: usize = 30;

const DAGS: [Column; 10] = [
    Column::text("dag_id"),
    Column::text("runs"),
    Column::text("failed"),
    Column::text("unfinished"),
    Column::time("first_run"),
    Column::time("last_run"),
    Column::text("mean"),
    Column::text("longest"),
    Column::text("overlaps"),
    Column::time("behind_since"),
];
const LIMITS: [Column; 9] = [
    Column::text("limit"),
    Column::text("size"),
    Column::text("peak"),
    Column::text("full_for"),
    Column::text("used"),
    Column::text("waits"),
    Column::text("mean_wait"),
    Column::text("longest_wait"),
    Column::text("longest_of"),
];
const TRANSITIONS: [Column; 7] = [
    Column::text("dag_id"),
    Column::text("schedule"),
    Column::time("clocks_change"),
    Column::text("by"),
    Column::text("skipped"),
    Column::text("doubled"),
    Column::text("moved"),
];
const DEADLINES: [Column; 6] = [
    Column::text("deadline"),
    Column::text("limit"),
    Column::text("dag_id"),
    Column::text("task_id"),
    Column::text("missed"),
    Column::time("first_run"),
];

pub(super) fn show(report: &Report, output: &mut Output) -> Outcome {
    match output.format {
        Format::Json | Format::Yaml => Ok(output.record(&as_record(report), &[])?),
        Format::Svg => Ok(output.write_all(draw(report).as_bytes())?),
        Format::Table | Format::Plain => tables(report, output),
    }
}

fn tables(report: &Report, output: &mut Output) -> Outcome {
    let zone = TimeZone::system();
    let totals = &report.totals;
    writeln!(
        output,
        "{} to {}: {} runs of {} DAGs, {} failed, {} unfinished; {} task instances, {} failed, {} retries",
        local_time(report.from, &zone),
        local_time(report.until, &zone),
        totals.runs,
        report.dags.len(),
        totals.failed_runs,
        totals.unfinished_runs,
        totals.instances,
        totals.failed_instances,
        totals.retries,
    )?;
    let mut dags: Vec<&DagReport> = report.dags.iter().collect();
    if dags.len() > MAX_LINES {
        // Those that something is wrong with come first.
        dags.sort_by_key(|dag| std::cmp::Reverse(trouble(dag)));
    }
    section(output, "", &dags.iter().map(|dag| dag_row(dag)).collect::<Vec<_>>(), &DAGS)?;
    let is_worth = |limit: &&LimitReport| limit.waits.count > 0 || limit.peak.is_some_and(|peak| peak > 0);
    let limits: Vec<Value> = report.limits.iter().filter(is_worth).map(limit_row).collect();
    section(output, "Limits, and who waited for them", &limits, &LIMITS)?;
    let transitions: Vec<Value> = report.transitions.iter().map(transition_row).collect();
    section(output, "Changes of the clocks", &transitions, &TRANSITIONS)?;
    let deadlines: Vec<Value> = report.deadlines.iter().map(deadline_row).collect();
    section(output, "Missed deadlines", &deadlines, &DEADLINES)
}

fn trouble(dag: &DagReport) -> u64 {
    dag.totals.failed_runs + dag.totals.overlaps + dag.totals.unfinished_runs + u64::from(dag.behind.is_some())
}

fn section(output: &mut Output, title: &str, rows: &[Value], columns: &[Column]) -> Outcome {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(output)?;
    if !title.is_empty() {
        writeln!(output, "{title}")?;
    }
    output.list(&rows[..rows.len().min(MAX_LINES)], columns)?;
    if rows.len() > MAX_LINES {
        writeln!(output, "and {} more; -o json has all", rows.len() - MAX_LINES)?;
    }
    Ok(())
}

fn dag_row(dag: &DagReport) -> Value {
    json!({
        "dag_id": dag.dag_id,
        "runs": dag.totals.runs,
        "failed": dag.totals.failed_runs,
        "unfinished": dag.totals.unfinished_runs,
        "first_run": dag.first_run.map(Instant),
        "last_run": dag.last_run.map(Instant),
        "mean": dag.mean.map(in_words),
        "longest": dag.longest.map(in_words),
        "overlaps": dag.totals.overlaps,
        "behind_since": dag.behind.map(|behind| Instant(behind.since)),
    })
}

fn limit_row(limit: &LimitReport) -> Value {
    let waits = &limit.waits;
    let mean = u32::try_from(waits.count).ok().filter(|count| *count > 0).map(|count| waits.total / count);
    json!({
        "limit": limit.kind.label(),
        "size": limit.size,
        "peak": limit.peak,
        "full_for": limit.full_for.map(in_words),
        "used": limit.utilisation.map(|share| format!("{:.1} %", share * 100.0)),
        "waits": waits.count,
        "mean_wait": mean.map(in_words),
        "longest_wait": (waits.count > 0).then(|| in_words(waits.longest)),
        "longest_of": waits.longest_of.as_ref().map(|(dag_id, task_id, run_after)| {
            let task = task_id.as_ref().map_or(String::new(), |task_id| format!(".{task_id}"));
            format!("{dag_id}{task} of {}", local_time(*run_after, &TimeZone::system()))
        }),
    })
}

fn transition_row(transition: &Transition) -> Value {
    json!({
        "dag_id": transition.dag_id,
        "schedule": format!("{} {}", transition.expression, transition.zone),
        "clocks_change": Instant(transition.at),
        "by": signed(transition.shift.as_secs()),
        "skipped": odd_words(&transition.skipped),
        "doubled": odd_words(&transition.doubled),
        "moved": odd_words(&transition.moved),
    })
}

fn odd_words(odd: &Odd) -> Option<String> {
    let (named, _) = odd.first?;
    let more = if odd.count > 1 { format!(" and {} more", odd.count - 1) } else { String::new() };
    Some(format!("{}{more}", named.strftime("%H:%M:%S")))
}

fn deadline_row(deadline: &Deadline) -> Value {
    json!({
        "deadline": deadline.kind.as_str(),
        "limit": in_words(deadline.limit),
        "dag_id": deadline.dag_id,
        "task_id": deadline.task_id,
        "missed": deadline.count,
        "first_run": Instant(deadline.first),
    })
}

/// `1h30m`, or `0.250s` where seconds are too coarse.
fn in_words(duration: Duration) -> String {
    if duration < Duration::from_secs(60) && duration.subsec_nanos() > 0 {
        return format!("{:.3}s", duration.as_secs_f64());
    }
    print_duration(duration)
}

fn signed(seconds: i64) -> String {
    let sign = if seconds < 0 { '-' } else { '+' };
    format!("{sign}{}", print_duration(Duration::from_secs(seconds.unsigned_abs())))
}

/// The whole report; durations in seconds.
fn as_record(report: &Report) -> Value {
    json!({
        "from": Instant(report.from),
        "until": Instant(report.until),
        "seed": report.seed,
        "parallelism": report.parallelism,
        "totals": totals(&report.totals),
        "dags": report.dags.iter().map(dag_record).collect::<Vec<_>>(),
        "limits": report.limits.iter().map(limit_record).collect::<Vec<_>>(),
        "transitions": report.transitions.iter().map(transition_record).collect::<Vec<_>>(),
        "missed_deadlines": report.deadlines.iter().map(deadline_record).collect::<Vec<_>>(),
    })
}

fn totals(totals: &Totals) -> Value {
    json!({
        "runs": totals.runs,
        "succeeded_runs": totals.succeeded_runs,
        "failed_runs": totals.failed_runs,
        "unfinished_runs": totals.unfinished_runs,
        "task_instances": totals.instances,
        "succeeded_task_instances": totals.succeeded_instances,
        "failed_task_instances": totals.failed_instances,
        "unrun_task_instances": totals.unrun_instances,
        "retries": totals.retries,
        "overlaps": totals.overlaps,
    })
}

fn dag_record(dag: &DagReport) -> Value {
    json!({
        "dag_id": dag.dag_id,
        "totals": totals(&dag.totals),
        "first_run": dag.first_run.map(Instant),
        "last_run": dag.last_run.map(Instant),
        "mean_duration": dag.mean.map(|mean| mean.as_secs_f64()),
        "longest_duration": dag.longest.map(|longest| longest.as_secs_f64()),
        "longest_run": dag.longest_run.map(Instant),
        "peak_running": dag.peak_running,
        "behind_since": dag.behind.map(|behind| Instant(behind.since)),
    })
}

fn limit_record(limit: &LimitReport) -> Value {
    let by_dag = limit.by_dag.iter().map(|(dag_id, waits)| json!({"dag_id": dag_id, "waits": wait_record(waits)}));
    json!({
        "limit": limit.kind.label(),
        "size": limit.size,
        "peak": limit.peak,
        "full_for": limit.full_for.map(|full| full.as_secs_f64()),
        "utilisation": limit.utilisation,
        "waits": wait_record(&limit.waits),
        "by_dag": by_dag.collect::<Vec<_>>(),
    })
}

fn wait_record(waits: &WaitReport) -> Value {
    json!({
        "count": waits.count,
        "open_at_the_end": waits.open,
        "total": waits.total.as_secs_f64(),
        "longest": waits.longest.as_secs_f64(),
        "longest_of": waits.longest_of.as_ref().map(|(dag_id, task_id, run_after)| {
            json!({"dag_id": dag_id, "task_id": task_id, "run_after": Instant(*run_after)})
        }),
    })
}

fn transition_record(transition: &Transition) -> Value {
    let odd = |odd: &Odd| {
        json!({
            "count": odd.count,
            "first_wall_time": odd.first.map(|(named, _)| named.to_string()),
            "first_run_after": odd.first.and_then(|(_, fire)| fire).map(Instant),
        })
    };
    json!({
        "dag_id": transition.dag_id,
        "cron": transition.expression,
        "timezone": transition.zone,
        "clocks_change": Instant(transition.at),
        "shift": transition.shift.as_secs(),
        "skipped": odd(&transition.skipped),
        "doubled": odd(&transition.doubled),
        "moved": odd(&transition.moved),
    })
}

fn deadline_record(deadline: &Deadline) -> Value {
    json!({
        "deadline": deadline.kind.as_str(),
        "limit": deadline.limit.as_secs_f64(),
        "dag_id": deadline.dag_id,
        "task_id": deadline.task_id,
        "missed": deadline.count,
        "first_run": Instant(deadline.first),
    })
}
