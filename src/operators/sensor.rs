//! `sensor = …`: the first look, and what is waited for if it was in vain (SEMANTICS 14).

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;

use serde_json::Value;

use crate::builtin::looks::Looking;
use crate::model::sensor::ExternalTask;
use crate::model::wait::AwaitedTasks;
use crate::model::{Awaited, Dag, DagRun, Sensor, SensorKind, SensorMode, Task, TaskIx, Wait};
use crate::operators::{Fault, Place, Step, decider, http, sql, text, tool};
use crate::scheduler::event::Outcome;
use crate::scheduler::sensor::{Next, after_look, wait_is_over};
use crate::template;

/// Nothing is left to do if what the sensor waits for is there.
///
/// # Errors
/// A template's fault, a path that can be no pattern.
pub fn prepare(sensor: &Sensor, place: &Place<'_>) -> Result<Step, Fault> {
    if let SensorKind::File { path, settle } = &sensor.kind {
        let pattern = pattern(&template::render(path, place.context)?, place)?;
        return Ok(Step::Wait(wait(
            sensor,
            Awaited::File { pattern: pattern.into(), settle: *settle, shown: None },
            place,
        )));
    }
    match &sensor.kind {
        SensorKind::Http(_) | SensorKind::Sql(_) if place.context.dag.task(place.context.task).asks_service() => {
            let awaited = Awaited::Service { from: place.now, after: Duration::ZERO };
            return Ok(Step::Wait(wait(sensor, awaited, place)));
        }
        SensorKind::Http(tool) => {
            return http::look(&tool::render(tool, place.context)?, place).map(Step::Run);
        }
        SensorKind::Sql(sql) => return sql::prepare(sql, place).map(Step::Run),
        SensorKind::Task(task) => {
            return Ok(Step::Wait(wait(sensor, Awaited::Tasks(Box::new(awaited(task, &place.context.run)?)), place)));
        }
        _ => {}
    }
    let dag = &place.context.dag;
    Ok(match target(&sensor.kind, &place.context.run, place.now, &dag.timezone) {
        Some(at) if at <= place.now => Step::Nothing,
        // Beyond the calendar: it waits for its timeout.
        at => Step::Wait(wait(sensor, Awaited::Instant(at.unwrap_or(Timestamp::MAX)), place)),
    })
}

/// The look of a sensor that asks a service.
///
/// # Errors
/// As [`prepare`].
pub fn looking(sensor: &Sensor, place: &Place<'_>) -> Result<Looking, Fault> {
    match &sensor.kind {
        SensorKind::Http(tool) => {
            http::looking(&tool::render(tool, place.context)?, place).map(|task| Looking::Http(Box::new(task)))
        }
        SensorKind::Sql(sql) => sql::task(sql, place).map(Looking::sql),
        _ => Err(Fault::Task("no service is asked for what its sensor waits for".to_owned())),
    }
}

fn awaited(task: &ExternalTask, run: &DagRun) -> Result<AwaitedTasks, Fault> {
    let date = run.logical_date.and_then(|date| date.checked_sub(task.execution_delta).ok());
    let logical_date = date.ok_or_else(|| {
        let reason = "its run has no logical date, by which the other run is found: trigger it with `--logical-date`";
        Fault::Task(reason.to_owned())
    })?;
    Ok(AwaitedTasks {
        dag_id: task.dag_id.clone(),
        among: task.among.clone(),
        logical_date,
        allowed: task.allowed.clone(),
        failed: task.failed.clone(),
        skipped: task.skipped.clone(),
    })
}

/// Absolute.
fn pattern(path: &str, place: &Place<'_>) -> Result<String, Fault> {
    if path.is_empty() {
        return Err(Fault::Task("the sensor's path is empty: correct `file`".to_owned()));
    }
    let joined = text(place.dag_folder.join(path))?;
    without_dots(&joined).filter(|_| !joined.ends_with('/')).ok_or_else(|| {
        Fault::Task(format!(
            "nobody can wait for `{joined}`: end it with the name of a file or folder, or with a pattern such as `*.csv`, and write no `..` after a pattern"
        ))
    })
}

fn wait(sensor: &Sensor, awaited: Awaited, place: &Place<'_>) -> Wait {
    let task = place.context.dag.task(place.context.task);
    let since = place.earlier.map_or(place.now, |earlier| earlier.since);
    waiting(sensor, task, awaited, since)
}

/// The wait of a sensor whose clock began at `since`.
fn waiting(sensor: &Sensor, task: &Task, awaited: Awaited, since: Timestamp) -> Wait {
    Wait {
        awaited,
        mode: sensor.mode,
        since,
        timeout: Some(sensor.timeout),
        // Airflow bounds with it what a worker does at a time: in mode `reschedule` a single look.
        execution_timeout: task.execution_timeout.filter(|_| sensor.mode == SensorMode::Poke),
        soft_fail: sensor.soft_fail,
        pace: sensor.pace,
    }
}

/// The absolute path with each `..` taken with the folder before it. None if that is a pattern, or nothing.
fn without_dots(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match part {
            ".." => drop(parts.pop().filter(|before| !before.contains(['*', '?', '[']))?),
            _ => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| format!("/{}", parts.join("/")))
}

/// What a look by a process has come to.
#[derive(Clone, Debug, PartialEq)]
pub enum Look {
    /// What is waited for is there; its value.
    There(Option<Value>),
    InVain,
    /// It says nothing of what is waited for: it failed, or was ended.
    Failed,
}

/// What the end of a process means that was to look. `value` is what it gave; `is_skip`: the exit code means skipped.
pub fn judge(kind: &SensorKind, exit_code: i32, is_skip: bool, value: Option<Value>) -> Look {
    match (kind, exit_code) {
        _ if is_skip => Look::Failed,
        (SensorKind::Bash(_), 0) => Look::There(value),
        (SensorKind::Bash(_), _) => Look::InVain,
        // The `http` operator answers a look as a script does.
        (SensorKind::Python(_) | SensorKind::Http(_), 0) => judge_value(value.unwrap_or_default()),
        (SensorKind::Sql(_), 0) => match value.filter(decider::is_truthy) {
            None => Look::InVain,
            value => Look::There(value),
        },
        _ => Look::Failed,
    }
}

/// Airflow: a `PokeReturnValue`, which is a table here, or a value that is true or false.
fn judge_value(value: Value) -> Look {
    let said = value.as_object().filter(|said| said.keys().all(|key| key == "is_done" || key == "xcom_value"));
    match said.and_then(|said| Some((said.get("is_done")?, said.get("xcom_value")))) {
        Some((is_done, given)) if decider::is_truthy(is_done) => Look::There(given.cloned()),
        Some(_) => Look::InVain,
        None if decider::is_truthy(&value) => Look::There(Some(value)),
        None => Look::InVain,
    }
}

/// The wait after a look in vain that was made at `now`, or its end.
pub fn look_again(sensor: &Sensor, dag: &Dag, task: TaskIx, since: Timestamp, now: Timestamp) -> Outcome {
    let task = dag.task(task);
    let awaited = |after| {
        if task.asks_service() { Awaited::Service { from: now, after } } else { Awaited::Look { from: now, after } }
    };
    let wait = waiting(sensor, task, awaited(Duration::ZERO), since);
    match after_look(&wait, &dag.dag_id, &task.task_id, now) {
        Next::After(after) => Outcome::Deferred(Box::new(Wait { awaited: awaited(after), ..wait })),
        Next::GiveUp => wait_is_over(&wait, "what it looks for is not there"),
    }
}

/// The instant that a sensor of time waits for; None lies beyond the calendar.
fn target(kind: &SensorKind, run: &DagRun, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    match kind {
        SensorKind::TimeDelta(delta) => {
            run.data_interval.map_or(run.run_after, |interval| interval.end).checked_add(*delta).ok()
        }
        SensorKind::Date(date) => Some(*date),
        SensorKind::Time(time) => {
            let today = now.to_zoned(zone.clone()).date();
            zone.to_ambiguous_timestamp(today.to_datetime(*time)).later().ok()
        }
        SensorKind::Weekday(days) => next_day(days, now, zone),
        // A process or the triggerer looks for these.
        SensorKind::File { .. }
        | SensorKind::Task(_)
        | SensorKind::Bash(_)
        | SensorKind::Python(_)
        | SensorKind::Http(_)
        | SensorKind::Sql(_) => None,
    }
}

/// `now` on one of the days, else the first instant of the next such day.
fn next_day(days: &[Weekday], now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let local = now.to_zoned(zone.clone());
    if days.contains(&local.weekday()) {
        return Some(now);
    }
    let mut day = local.date();
    for _ in 0..7 {
        day = day.tomorrow().ok()?;
        if days.contains(&day.weekday()) {
            // Where the clocks skip midnight the day begins later.
            return day.to_zoned(zone.clone()).ok().map(|begin| begin.timestamp());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::civil::time;

    use super::*;
    use crate::model::{DataInterval, RunKey, RunType};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn target_at(kind: &SensorKind, now: &str, zone: &str) -> String {
        let mut run = DagRun::new(RunKey(1), "d".into(), "r".into(), RunType::Scheduled, at("2026-11-21T06:00:00Z"));
        run.data_interval = Some(DataInterval { start: at("2026-11-21T05:00:00Z"), end: at("2026-11-21T06:00:00Z") });
        target(kind, &run, at(now), &TimeZone::get(zone).unwrap()).unwrap().to_string()
    }

    #[test]
    fn a_path_may_lead_out_of_the_dags_folder_and_not_out_of_a_pattern() {
        for (path, expected) in [
            ("/home/dags/../in/*.csv", Some("/home/in/*.csv")),
            ("/home/./dags//x", Some("/home/dags/x")),
            ("/in/*/../x", None),
            ("/..", None),
            ("/a/..", None),
        ] {
            assert_eq!(without_dots(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn what_a_look_of_a_process_says() {
        let bash = || {
            let script = crate::model::Script::File("x".to_owned());
            SensorKind::Bash(crate::model::Bash { script })
        };
        assert_eq!(judge(&bash(), 0, false, Some("v".into())), Look::There(Some("v".into())));
        assert_eq!(judge(&bash(), 1, false, None), Look::InVain);
        assert_eq!(judge(&bash(), 99, true, None), Look::Failed, "it skips itself");
        let of = |value: Value| judge_value(value);
        for vain in
            [serde_json::json!(null), false.into(), 0.into(), "".into(), serde_json::json!({ "is_done": false })]
        {
            assert_eq!(of(vain.clone()), Look::InVain, "{vain}");
        }
        assert_eq!(
            of(serde_json::json!({ "is_done": 1, "xcom_value": [2] })),
            Look::There(Some(serde_json::json!([2])))
        );
        assert_eq!(of(serde_json::json!({ "is_done": true })), Look::There(None));
        let other = serde_json::json!({ "is_done": false, "rows": 3 });
        assert_eq!(of(other.clone()), Look::There(Some(other)), "a value of its own");
    }

    #[test]
    fn a_delta_counts_from_the_end_of_the_data_interval_and_without_one_from_run_after() {
        let kind = SensorKind::TimeDelta(Duration::from_secs(90));
        assert_eq!(target_at(&kind, "2026-11-21T06:00:01Z", "UTC"), "2026-11-21T06:01:30Z");
        let run = DagRun::new(RunKey(1), "d".into(), "r".into(), RunType::Manual, at("2026-11-22T00:00:00Z"));
        let alone = target(&kind, &run, at("2026-11-22T00:00:00Z"), &TimeZone::UTC);
        assert_eq!(alone, Some(at("2026-11-22T00:01:30Z")));
    }

    #[test]
    fn a_time_of_day_is_that_of_the_day_on_which_the_try_begins_in_the_dags_zone() {
        let kind = SensorKind::Time(time(6, 30, 0, 0));
        assert_eq!(target_at(&kind, "2026-11-21T23:30:00Z", "Europe/Berlin"), "2026-11-22T05:30:00Z");
        assert_eq!(target_at(&kind, "2026-11-21T12:00:00Z", "UTC"), "2026-11-21T06:30:00Z", "gone by already");
        // The clocks skip 02:30, and show it twice in autumn.
        let night = SensorKind::Time(time(2, 30, 0, 0));
        assert_eq!(target_at(&night, "2026-03-29T00:00:00Z", "Europe/Berlin"), "2026-03-29T01:30:00Z");
        assert_eq!(target_at(&night, "2026-10-25T00:00:00Z", "Europe/Berlin"), "2026-10-25T01:30:00Z");
    }

    #[test]
    fn a_day_of_the_week_begins_at_midnight_of_the_dags_zone() {
        let kind = SensorKind::Weekday(vec![Weekday::Monday, Weekday::Saturday]);
        // 2026-11-21 is a Saturday.
        assert_eq!(target_at(&kind, "2026-11-21T12:00:00Z", "UTC"), "2026-11-21T12:00:00Z");
        assert_eq!(target_at(&kind, "2026-11-22T12:00:00Z", "Europe/Berlin"), "2026-11-22T23:00:00Z");
        assert_eq!(target_at(&kind, "2026-11-20T23:30:00Z", "Europe/Berlin"), "2026-11-20T23:30:00Z", "Saturday there");
    }
}
