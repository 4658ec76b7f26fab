//! The `http` operator: asks once, judges the answer, and leaves it as the value.

use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{NoAnswer, Request, Response, send, send_often};
use crate::builtin::{Failed, Finality, Verdict, Voice};
use crate::jinja::{self, Function, Literals, Outside, Res, UndefinedKind};
use crate::model::retry::output_pattern;
use crate::model::tool::{Statuses, Taken};

/// What to do; all of it is rendered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpTask {
    pub request: Request,
    pub expect_status: Vec<Statuses>,
    /// Of those that are not expected: another try may do better.
    pub retry_status: Vec<Statuses>,
    pub response: Taken,
    /// A template over the answer; the try fails unless it gives what is true.
    pub response_check: Option<String>,
    /// A template over the answer, which gives the value.
    pub response_filter: Option<String>,
    /// It is a look of a sensor: what it finds is its value.
    pub awaited: Option<Awaited>,
    /// Where the value goes; left alone if there is none.
    pub value: PathBuf,
    /// Where the reason of a failure goes.
    pub verdict: PathBuf,
}

/// What makes an answer one that says: not yet. So does a `response_check` that fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    pub wait_status: Vec<Statuses>,
    /// A regular expression that a body must match that is not.
    pub contains: Option<String>,
}

/// The longest part of an answer that the log shows, in characters.
const MAX_SHOWN: usize = 2_000;

/// Asks and judges.
///
/// # Errors
/// No answer, or one that is not as it was expected.
pub fn run(task: &HttpTask) -> Result<(), Failed> {
    let judged = ask(task, &Voice::Aloud).and_then(|value| {
        let Some(value) = value else { return Ok(()) };
        std::fs::write(&task.value, value.to_string()).map_err(|error| {
            let message = format!("its value cannot be written to `{}`: {error}", task.value.display());
            (Failed(message), Finality::Open)
        })
    });
    if let Err((failed, finality)) = &judged {
        Verdict::failed(failed.0.clone(), *finality).leave(&task.verdict)?;
    }
    judged.map_err(|(failed, _)| failed)
}

/// As [`run`], with the value given back and not written.
///
/// # Errors
/// As [`run`], and whether another try may do better.
pub fn ask(task: &HttpTask, voice: &Voice) -> Result<Option<Value>, (Failed, Finality)> {
    let Request { method, .. } = &task.request;
    voice.say(format_args!("{method} {}", task.request.url));
    let began = Instant::now();
    let send = if task.awaited.is_some() { send_often } else { send };
    let response = send(&task.request).map_err(|none| {
        // Of a look Airflow follows the task's `retries`, whatever came in between.
        let finality = if none.may_pass() || task.awaited.is_some() { Finality::Open } else { Finality::Final };
        (Failed(none.to_string()), finality)
    })?;
    let kind = response.header("content-type").map_or_else(String::new, |kind| format!(", {kind}"));
    let from = if response.url == task.request.url { String::new() } else { format!(" from {}", response.url) };
    voice.say(format_args!(
        "{}{from}{kind}, {} bytes in {:.3} s",
        response.status_text(),
        response.bytes,
        began.elapsed().as_secs_f64()
    ));
    let value = match &task.awaited {
        None => {
            judge(task, &response, voice)?;
            value_of(task, &response, voice)
        }
        Some(awaited) => look(task, awaited, &response, voice).map(Some),
    };
    value.map_err(|failed| (failed, Finality::Open))
}

/// What a sensor finds, as a script would say it: `is_done`, and `xcom_value` if it is.
fn look(task: &HttpTask, awaited: &Awaited, response: &Response, voice: &Voice) -> Result<Value, Failed> {
    let not_yet = |why: &str| {
        voice.say(format_args!("not yet: {why}"));
        Ok(serde_json::json!({ "is_done": false }))
    };
    if Statuses::hold(&awaited.wait_status, response.status) {
        return not_yet("that is what its status says");
    }
    if !Statuses::hold(&task.expect_status, response.status) {
        show(response, voice);
        let (status, expected) = (response.status_text(), listed(&task.expect_status));
        let waits = listed(&awaited.wait_status);
        return Err(Failed(format!(
            "the answer was {status}; expected is {expected}, and {waits} means not yet: correct `expect_status` or `wait_status`, or give the task `retries`"
        )));
    }
    if let Some(pattern) = &awaited.contains {
        let regex = output_pattern(pattern)
            .map_err(|error| Failed(format!("`contains` is not a regular expression: {error}; correct it")))?;
        if !regex.is_match(&response.text()) {
            return not_yet("its body does not match `contains`");
        }
    }
    if let Some(said) = objection(task, response, voice)? {
        return not_yet(&format!("`response_check` gives {said}"));
    }
    let value = value_of(task, response, voice)?.unwrap_or_default();
    Ok(serde_json::json!({ "is_done": true, "xcom_value": value }))
}

/// What `response_check` gives that is not true.
fn objection(task: &HttpTask, response: &Response, voice: &Voice) -> Result<Option<Value>, Failed> {
    let Some(check) = &task.response_check else { return Ok(None) };
    Ok(Some(answer(task, response, voice)?.native("response_check", check)?).filter(|said| !is_true(said)))
}

fn listed(all: &[Statuses]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn judge(task: &HttpTask, response: &Response, voice: &Voice) -> Result<(), (Failed, Finality)> {
    if Statuses::hold(&task.expect_status, response.status) {
        return Ok(());
    }
    show(response, voice);
    let is_passing = Statuses::hold(&task.retry_status, response.status);
    let after = response.header("retry-after").map_or_else(String::new, |after| format!(" (Retry-After: {after})"));
    let message = format!("the answer was {}{after}, expected {}", response.status_text(), listed(&task.expect_status));
    let help =
        if is_passing { "another try may do better" } else { "no other try follows, as it is not in `retry_status`" };
    let finality = if is_passing { Finality::Open } else { Finality::Final };
    Err((Failed(format!("{message}; {help}")), finality))
}

/// The beginning of a body that was not expected.
fn show(response: &Response, voice: &Voice) {
    let text = response.text();
    let shown: String = text.chars().take(MAX_SHOWN).collect();
    if !shown.trim().is_empty() {
        voice.say(format_args!("{}{}", shown.trim_end(), if shown.len() < text.len() { " …" } else { "" }));
    }
}

fn value_of(task: &HttpTask, response: &Response, voice: &Voice) -> Result<Option<Value>, Failed> {
    let asks = task.response_check.is_some() || task.response_filter.is_some();
    if task.response == Taken::None && !asks {
        return Ok(None);
    }
    let answer = answer(task, response, voice)?;
    if let Some(said) = objection(task, response, voice)? {
        show(response, voice);
        return Err(Failed(format!(
            "`response_check` gives {said}, so the answer is not as it was expected; look at it above"
        )));
    }
    match &task.response_filter {
        Some(filter) => answer.native("response_filter", filter).map(Some),
        None => Ok(Some(answer.body).filter(|_| task.response != Taken::None)),
    }
}

/// The body as `response` says.
fn answer(task: &HttpTask, response: &Response, voice: &Voice) -> Result<Answer, Failed> {
    let text = response.text();
    let body = match task.response {
        Taken::Text | Taken::None => Value::String(text),
        Taken::Json => serde_json::from_str(&text).map_err(|error| {
            show(response, voice);
            Failed(format!("the answer is not JSON: {error}; take `response = \"text\"`, or look at what is asked"))
        })?,
    };
    Ok(Answer { status: response.status, headers: headers(response), body })
}

fn headers(response: &Response) -> Value {
    let pairs = response.headers.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    Value::Object(pairs.collect())
}

/// As Python has it, and of a text what it says.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !matches!(text.trim(), "" | "False" | "false" | "None" | "null" | "0"),
        Value::Array(items) => !items.is_empty(),
        Value::Object(pairs) => !pairs.is_empty(),
    }
}

/// What the templates over an answer know.
struct Answer {
    status: u16,
    headers: Value,
    /// As `response` says.
    body: Value,
}

impl Answer {
    fn native(&self, key: &str, template: &str) -> Result<Value, Failed> {
        let found = jinja::native(template, self, UndefinedKind::Strict, Literals::Kept);
        found.map_err(|fault| {
            let place =
                fault.place.as_ref().map_or_else(String::new, |place| format!("{}:{}: ", place.line, place.column));
            Failed(format!(
                "{key}:{place} {}: {}; it knows `response`, `status` and `headers`",
                fault.class, fault.message
            ))
        })
    }
}

impl Outside for Answer {
    fn variable(&self, name: &str) -> Res<Option<jinja::Value>> {
        Ok(match name {
            "response" => Some(jinja::json::from_json(&self.body)),
            "status" => Some(jinja::Value::int(self.status)),
            "headers" => Some(jinja::json::from_json(&self.headers)),
            _ => None,
        })
    }

    fn filter(&self, _: &str) -> Option<Function> {
        None
    }

    fn load(&self, _: &str) -> Res<Option<String>> {
        Ok(None)
    }

    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    fn seed(&self) -> u64 {
        0
    }
}

impl From<NoAnswer> for Failed {
    fn from(none: NoAnswer) -> Self {
        Self(none.to_string())
    }
}
