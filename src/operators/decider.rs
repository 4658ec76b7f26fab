//! From what a `branch`, a `short_circuit` or a `latest_only` was answered to its decision and its XComs (SEMANTICS 13).

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::keytable::suggest;
use crate::model::branching::{self, Names, Reach};
use crate::model::{Bound, Branch, Catchup, Choice, Condition, Dag, DagRun, DataInterval, Operator, Question};
use crate::model::{RunType, SkipDecision, TaskIx};
use crate::timetable::Timetable;

/// What came of asking.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// None: nothing was said.
    pub value: Option<Value>,
    /// Of a process: its exit code, and whether it has written anything.
    pub process: Option<(i32, Wrote)>,
}

/// Whether a process has written anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrote {
    Something,
    Nothing,
}

/// A decision, and the XCom `return_value` that goes with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    pub value: Option<Value>,
    /// None: all tasks after it follow their trigger rules.
    pub decision: Option<SkipDecision>,
}

/// The longest part of an answer that a message shows, in characters.
const MAX_SHOWN: usize = 200;

/// What the answer means for the tasks after `task`. None: it is not one that decides.
///
/// # Errors
/// What came, what was expected, and what to do.
pub fn decide(dag: &Dag, task: TaskIx, answer: Answer) -> Option<Result<Decided, String>> {
    match &dag.task(task).operator {
        Operator::Branch(_) | Operator::LatestOnly => Some(branch(dag, task, answer.value)),
        Operator::ShortCircuit(circuit) => {
            let reach = if circuit.ignore_downstream_trigger_rules { Reach::All } else { Reach::Direct };
            let value = truth_of(&circuit.question, answer);
            let decision = (!is_true(&circuit.question, &value)).then(|| branching::cut_short(dag, task, reach));
            Some(Ok(Decided { value: Some(value).filter(|value| !value.is_null()), decision }))
        }
        Operator::Bash(_)
        | Operator::Python(_)
        | Operator::Sql(_)
        | Operator::Tool(_)
        | Operator::TriggerDag(_)
        | Operator::Sensor(_)
        | Operator::Empty
        | Operator::ExternalTaskMarker(_) => None,
    }
}

fn branch(dag: &Dag, task: TaskIx, answer: Option<Value>) -> Result<Decided, String> {
    let value = chosen(answer.unwrap_or(Value::Null))?;
    let ids: Vec<&str> = match &value {
        Value::Array(ids) => ids.iter().filter_map(Value::as_str).collect(),
        single => single.as_str().into_iter().collect(),
    };
    let names = Names::of(dag);
    let mut targets = Vec::new();
    for id in ids {
        targets.extend(names.targets(task, id).ok_or_else(|| unknown(&names, id))?);
    }
    Ok(Decided {
        decision: Some(branching::follow(dag, task, &targets)),
        value: Some(value).filter(|value| !value.is_null()),
    })
}

fn unknown(names: &Names<'_>, id: &str) -> String {
    const MAX_LISTED: usize = 20;
    let help = match suggest(id, names.known()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let listed: Vec<String> = names.known().take(MAX_LISTED).map(|known| format!("`{known}`")).collect();
            let more = if names.known().nth(MAX_LISTED).is_some() { ", …" } else { "" };
            format!("its tasks and groups are {}{more}", listed.join(", "))
        }
    };
    format!("the branch chose `{}`, but the DAG has no task or group of that name: {help}", shortened(id))
}

/// An id, a list of ids, or null, whatever notation it came in.
fn chosen(answer: Value) -> Result<Value, String> {
    let value = match answer {
        Value::String(text) => chosen_in_text(&text)?,
        other => other,
    };
    let is_well = match &value {
        Value::Null | Value::String(_) => true,
        Value::Array(ids) => ids.iter().all(Value::is_string),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    };
    if is_well { Ok(value) } else { Err(no_choice(&value.to_string())) }
}

fn chosen_in_text(text: &str) -> Result<Value, String> {
    let text = text.trim();
    if matches!(text, "" | "null" | "None" | "none") {
        return Ok(Value::Null);
    }
    if text.starts_with(['[', '"']) {
        let value = serde_json::from_str(text).ok().or_else(|| python_list(text));
        return value.ok_or_else(|| no_choice(text));
    }
    Ok(Value::String(text.to_owned()))
}

/// A list of ids as Python and templates print it: `['a', 'b']`. Ids have no characters that would need more than quotes.
fn python_list(text: &str) -> Option<Value> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?.trim();
    let items = inner.strip_suffix(',').unwrap_or(inner).split(',').filter(|_| !inner.is_empty());
    let id = |item: &str| {
        let item = item.trim();
        let bare = item.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
        let bare = bare.or_else(|| item.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')))?;
        (!bare.contains(['\'', '"', '\\'])).then(|| Value::from(bare))
    };
    items.map(id).collect::<Option<Vec<_>>>().map(Value::Array)
}

fn no_choice(came: &str) -> String {
    format!(
        "a branch gives the id of a task or group, a JSON list of ids, or nothing, but this one gave {}: print the ids alone on the last line",
        shortened(came)
    )
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The value that a short circuit judges, and that becomes its XCom.
fn truth_of(question: &Question, answer: Answer) -> Value {
    match (question, answer.process) {
        // A test such as `[ -e file ]` answers by its exit code alone.
        (Question::Bash(_), Some((code, _))) if code != 0 => Value::Bool(false),
        (Question::Bash(_), Some((_, Wrote::Nothing))) if answer.value.is_none() => Value::Bool(true),
        _ => answer.value.unwrap_or(Value::Null),
    }
}

/// Python's rule; of the text that a shell or a template gave, what the text says.
fn is_true(question: &Question, value: &Value) -> bool {
    match (question, value) {
        (Question::Bash(_) | Question::Expr(_), Value::String(text)) => {
            let text = text.trim();
            // Templates print Python's words.
            let is_none = text == "None" && matches!(question, Question::Expr(_));
            let is_false = is_none || text.is_empty() || text.eq_ignore_ascii_case("false");
            !is_false && serde_json::from_str(text).map_or(true, |value: Value| is_truthy(&value))
        }
        _ => is_truthy(value),
    }
}

/// Python's rule.
pub fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(pairs) => !pairs.is_empty(),
    }
}

/// The answer of an operator that asks nothing but the clock; None for any other.
pub fn by_the_clock(dag: &Dag, task: TaskIx, run: &DagRun, now: Timestamp) -> Option<Value> {
    match &dag.task(task).operator {
        Operator::Branch(Branch::When(choice)) => Some(choose(choice, now, &dag.timezone).clone()),
        Operator::LatestOnly => {
            let all = dag.graph.downstream(task).iter().map(|&after| Value::from(dag.task(after).task_id.as_str()));
            Some(Value::Array(if is_latest(dag, run, now) { all.collect() } else { Vec::new() }))
        }
        _ => None,
    }
}

fn choose<'c>(choice: &'c Choice, now: Timestamp, zone: &TimeZone) -> &'c Value {
    let local = now.to_zoned(zone.clone());
    let holds = match &choice.condition {
        Condition::Weekday(days) => days.contains(&local.weekday()),
        Condition::Between { lower, upper } => is_between(*lower, *upper, now, local.date(), zone),
    };
    if holds { &choice.if_true } else { &choice.if_false }
}

/// Airflow: `target_times_as_dates`. A window whose end would lie before its beginning ends a day later.
fn is_between(lower: Option<Bound>, upper: Option<Bound>, now: Timestamp, today: Date, zone: &TimeZone) -> bool {
    let instant = |bound: Bound, day: Date| match bound {
        Bound::At(instant) => instant,
        // Of a time that the clocks skip or show twice the later reading, as everywhere in DAG files. No window reaches further
        // than the calendar does.
        Bound::TimeOfDay(time) => zone.to_ambiguous_timestamp(day.to_datetime(time)).later().unwrap_or(Timestamp::MAX),
    };
    let begins = lower.map(|bound| instant(bound, today));
    let mut ends = upper.map(|bound| instant(bound, today));
    let is_turned = begins.zip(ends).is_some_and(|(begins, ends)| ends < begins);
    if let (true, Some(bound @ Bound::TimeOfDay(_))) = (is_turned, upper) {
        ends = Some(instant(bound, today.tomorrow().unwrap_or(Date::MAX)));
    }
    begins.is_none_or(|begins| begins <= now) && ends.is_none_or(|ends| now <= ends)
}

/// Airflow: `LatestOnlyOperator`. A run by hand is always the latest; one that no other follows is, too.
fn is_latest(dag: &Dag, run: &DagRun, now: Timestamp) -> bool {
    if run.run_type == RunType::Manual {
        return true;
    }
    let date = run.logical_date.unwrap_or(run.run_after);
    let interval = run.data_interval.unwrap_or(DataInterval { start: date, end: date });
    let next =
        Timetable::of(dag).ok().and_then(|timetable| timetable.next_run(Some(interval), None, None, Catchup::All, now));
    next.is_none_or(|next| interval.start < now && now <= next.data_interval.end)
}

#[cfg(test)]
#[path = "decider_tests.rs"]
mod tests;
