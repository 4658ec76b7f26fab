//! Callbacks: what is said of an end, and the program that says it.
//!
//! Knows the kinds of notifiers and the words of their messages. Starts nothing. Called by the executor's workers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::config::{Notifier, NotifierKind};
use crate::keytable;
use crate::model::callback::{Action, Callback, Hook, Occasion, Subject};
use crate::model::dag::Position;
use crate::model::{Bash, Script, Template};
use crate::operators::{Fault, Place, Program, bash, email, http};
use crate::scheduler::port::Call;
use crate::template::{self, Context};

/// Where a notifier of the kind `ntfy` sends to unless it says otherwise.
const NTFY: &str = "https://ntfy.sh";

/// What a callback says, beside what every template sees.
#[derive(Clone, Debug)]
pub struct Notice<'a> {
    pub call: &'a Call,
    pub home: &'a Path,
    /// The last lines of the log of the try that it is about, without secrets.
    pub log_tail: String,
}

impl Notice<'_> {
    /// The variables that only callbacks have.
    pub fn variables(&self) -> Map<String, Value> {
        let occasion = self.occasion();
        let given = json!({
            "exception": occasion.exception,
            "reason": occasion.reason,
            "try_number": occasion.task.as_ref().map_or(0, |task| task.try_number),
            "log_tail": self.log_tail,
            "callback": self.call.row.hook.as_str(),
            "state": occasion.state,
            "failed_tasks": occasion.failed_tasks,
            "in_a_row": occasion.in_a_row,
            "deadline": occasion.deadline.map(|at| at.to_string()),
            "title": self.title(),
            "message": self.message(),
        });
        match given {
            Value::Object(given) => given,
            _ => Map::new(),
        }
    }

    fn occasion(&self) -> &Occasion {
        &self.call.row.occasion
    }

    /// Whom it is about: `sales.load`, or `sales`.
    fn name(&self) -> String {
        let dag_id = &self.call.row.dag_id;
        match (&self.occasion().task, self.occasion().subject) {
            (Some(task), Subject::Task) if task.map_index >= 0 => {
                format!("{dag_id}.{}[{}]", task.task_id, task.map_index)
            }
            (Some(task), Subject::Task) => format!("{dag_id}.{}", task.task_id),
            _ => dag_id.to_string(),
        }
    }

    /// What has happened, in one line.
    pub fn title(&self) -> String {
        let (name, occasion) = (self.name(), self.occasion());
        let row = match occasion.in_a_row {
            2.. if self.call.row.hook == Hook::OnFailure => format!(", {} times in a row", occasion.in_a_row),
            1.. if self.call.row.hook == Hook::OnSuccess => " again".to_owned(),
            _ => String::new(),
        };
        match self.call.row.hook {
            Hook::OnExecute => format!("{name} has begun"),
            Hook::OnSuccess => format!("{name} has succeeded{row}"),
            Hook::OnFailure => format!("{name} has failed{row}"),
            Hook::OnRetry => format!("{name} has failed and is tried again"),
            Hook::OnSkipped => format!("{name} was skipped"),
            Hook::Deadline => format!("{name} has missed its deadline"),
            Hook::ExpectBy => format!("{name} has not succeeded in time"),
        }
    }

    /// What there is to know, in a few lines.
    pub fn message(&self) -> String {
        let (row, occasion, run) = (&self.call.row, self.occasion(), &self.call.run);
        let zone = &self.call.dag.timezone;
        let shown = |at: Timestamp| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
        let mut lines = vec![format!("{}.", self.title()), String::new()];
        if row.run.is_some() {
            lines.push(format!("run: {}", run.run_id));
        }
        if let Some(task) = &occasion.task {
            if occasion.subject != Subject::Task && occasion.exception.is_some() {
                lines.push(format!("task: {}", task.task_id));
            }
            lines.push(format!(
                "try: {} of {}",
                task.try_number,
                task.max_tries.saturating_add(1).max(task.try_number)
            ));
        }
        lines.push(format!("at: {}", shown(row.created_at)));
        if let Some(deadline) = occasion.deadline {
            lines.push(format!("expected by: {}", shown(deadline)));
        }
        lines.extend(occasion.reason.iter().map(|reason| format!("reason: {reason}")));
        if occasion.exception != occasion.reason {
            lines.extend(occasion.exception.iter().map(|exception| format!("what went wrong: {exception}")));
        }
        if occasion.failed_tasks.len() > 1 {
            let more =
                if occasion.more_failed > 0 { format!(" and {} more", occasion.more_failed) } else { String::new() };
            lines.push(format!("failed tasks: {}{more}", occasion.failed_tasks.join(", ")));
        }
        if !self.log_tail.is_empty() && occasion.exception.is_some() {
            lines.extend([String::new(), "The last lines of its log:".to_owned()]);
            lines.extend(self.log_tail.lines().map(|line| format!("    {line}")));
        }
        lines.extend([String::new(), format!("More: {}", self.command())]);
        lines.join("\n")
    }

    /// The command that shows more.
    fn command(&self) -> String {
        let (row, home) = (&self.call.row, self.home.display());
        let run_id = &self.call.run.run_id;
        match (&self.occasion().task, row.run) {
            (Some(task), Some(_)) => {
                let index = if task.map_index < 0 { String::new() } else { format!(" --map-index {}", task.map_index) };
                format!("minflow --home '{home}' tasks logs {} {} '{run_id}'{index}", row.dag_id, task.task_id)
            }
            (None, Some(_)) => format!("minflow --home '{home}' tasks states-for-dag-run {} '{run_id}'", row.dag_id),
            (_, None) => format!("minflow --home '{home}' dags list-runs {}", row.dag_id),
        }
    }
}

/// What its notifier says of its time.
pub fn timeout(callback: &Callback, notifiers: &BTreeMap<String, Notifier>) -> Option<Duration> {
    match &callback.action {
        Action::Notify(name) => notifiers.get(&**name)?.timeout,
        _ => None,
    }
}

/// The program that says it.
///
/// # Errors
/// The notifier has gone, a template's fault, a disk that takes no file.
pub fn prepare(
    notice: &Notice<'_>,
    notifiers: &BTreeMap<String, Notifier>,
    place: &Place<'_>,
) -> Result<Program, Fault> {
    match &notice.call.row.callback.action {
        Action::Bash(text) => script(text.clone(), place),
        Action::Http(fields, at) => request(rendered(fields, *at, place.context)?, place),
        Action::Notify(name) => {
            let notifier = notifiers.get(&**name).ok_or_else(|| {
                let near = keytable::suggest(name, notifiers.keys().map(String::as_str));
                let near = near.map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default();
                Fault::Task(format!("there is no notifier `{name}`{near}: add `[notifiers.{name}]` to airflow.toml"))
            })?;
            notify(notifier, place)
        }
    }
}

fn script(script: Template, place: &Place<'_>) -> Result<Program, Fault> {
    bash::prepare(&Bash { script: Script::Text(script) }, place)
}

fn request(mut fields: Map<String, Value>, place: &Place<'_>) -> Result<Program, Fault> {
    fields.entry("method").or_insert_with(|| "POST".into());
    fields.insert("response".to_owned(), "none".into());
    // A callback is tried again whatever the answer was, so none may say that it is not.
    fields.insert("retry_status".to_owned(), json!(["100..599"]));
    http::prepare(&fields, place)
}

fn rendered(fields: &Map<String, Value>, at: Position, context: &Context) -> Result<Map<String, Value>, Fault> {
    match template::render_value(&Value::Object(fields.clone()), at, context)? {
        Value::Object(fields) => Ok(fields),
        _ => Ok(Map::new()),
    }
}

fn notify(notifier: &Notifier, place: &Place<'_>) -> Result<Program, Fault> {
    let (file, line) = notifier.origin.rsplit_once(':').unwrap_or((&notifier.origin, ""));
    let at = Position { line: line.parse().unwrap_or(1), column: 1 };
    let context = Context { file: file.into(), ..place.context.clone() };
    let place = &Place { context: &context, ..*place };
    let given = |name: &str| context.variables.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    if notifier.kind == NotifierKind::Bash {
        let text = notifier.keys.get("command").and_then(Value::as_str).unwrap_or_default().to_owned();
        return script(Template { text, at }, place);
    }
    let mut keys = rendered(&notifier.keys, at, &context)?;
    match notifier.kind {
        NotifierKind::Bash | NotifierKind::Http => {
            if !keys.contains_key("body") && !keys.contains_key("json") {
                keys.insert("body".to_owned(), given("message").into());
            }
            request(keys, place)
        }
        NotifierKind::Email => {
            keys.entry("subject").or_insert_with(|| given("title").into());
            if !keys.contains_key("html") {
                keys.entry("body").or_insert_with(|| given("message").into());
            }
            email::prepare(&keys, place)
        }
        NotifierKind::Slack => {
            let text = keys.remove("text").unwrap_or_else(|| given("message").into());
            keys.insert("json".to_owned(), json!({ "text": text }));
            request(keys, place)
        }
        NotifierKind::Ntfy => {
            let url = keys.remove("url").unwrap_or_else(|| NTFY.into());
            let token = keys.remove("token");
            keys.entry("title").or_insert_with(|| given("title").into());
            keys.entry("message").or_insert_with(|| given("message").into());
            // Published as JSON to the server itself: a header could not hold every title.
            let mut fields = Map::new();
            fields.insert("url".to_owned(), url);
            if let Some(token) = token.as_ref().and_then(Value::as_str) {
                fields.insert("headers".to_owned(), json!({ "Authorization": format!("Bearer {token}") }));
            }
            fields.insert("json".to_owned(), Value::Object(keys));
            request(fields, place)
        }
    }
}
