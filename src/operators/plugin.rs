//! Plugins: executables of the user's own, each an operator. One gets its task as JSON on standard input and answers with a JSON
//! object in its last line.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::dagfile::Plugins;
use crate::operators::{Fault, Place, Program, text, write_file};

/// Where the plugins of a home are.
pub fn folder(home: &Path) -> PathBuf {
    home.join("plugins")
}

/// All plugins of a home. None where there is no such folder.
pub fn list(home: &Path) -> Plugins {
    let mut plugins = Plugins::default();
    for entry in std::fs::read_dir(folder(home)).into_iter().flatten().flatten() {
        let (Ok(name), Ok(found)) = (entry.file_name().into_string(), std::fs::metadata(entry.path())) else {
            continue;
        };
        match found.permissions().mode() & 0o111 {
            _ if !found.is_file() => continue,
            0 => plugins.closed.insert(name),
            _ => plugins.names.insert(name),
        };
    }
    plugins
}

pub fn prepare(name: &str, args: Map<String, Value>, place: &Place<'_>) -> Result<Program, Fault> {
    let path = folder(place.home).join(name);
    let shown = path.display();
    match std::fs::metadata(&path) {
        Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => {}
        Ok(_) => return Err(Fault::Task(format!("the plugin `{shown}` is not executable: chmod +x it"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Fault::Task(format!(
                "the plugin `{shown}` is gone: bring it back, or take `{name}` out of the task"
            )));
        }
        Err(error) => return Err(Fault::of_file("read", &path, &error)),
    }
    let task = json!({ "task": task(place), "context": context(place), "args": args });
    let file = write_file(place, ".task", &task.to_string())?;
    Ok(Program { argv: vec![text(path)?], stdin: Some(file.clone()), files: vec![file], ..Program::default() })
}

fn task(place: &Place<'_>) -> Value {
    let context = place.context;
    let task = context.dag.task(context.task);
    json!({
        "dag_id": context.dag.dag_id.as_str(),
        "task_id": task.task_id.as_str(),
        "operator": task.operator.name(),
        "owner": task.owner,
        "retries": task.retries,
        "execution_timeout": task.execution_timeout.map(|timeout| timeout.as_secs_f64()),
    })
}

fn context(place: &Place<'_>) -> Value {
    let context = place.context;
    let run = &context.run;
    let iso = |at: jiff::Timestamp| at.to_string();
    json!({
        "run_id": run.run_id.as_str(),
        "run_type": run.run_type.as_str(),
        "logical_date": run.logical_date.map(iso),
        "data_interval_start": run.data_interval.map(|interval| iso(interval.start)),
        "data_interval_end": run.data_interval.map(|interval| iso(interval.end)),
        "run_after": iso(run.run_after),
        "conf": run.conf,
        "params": crate::template::params(context),
        "try_number": context.try_number,
        "max_tries": context.max_tries,
        "map_index": context.map_index,
        "variables": *context.variables,
        "run_dir": context.run_dir.to_string_lossy(),
        "home": place.home.to_string_lossy(),
    })
}

/// What a plugin that has ended well answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub state: Said,
    /// Of `return_value`.
    pub xcom: Option<Value>,
    pub message: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Success,
    Skipped,
    Failed,
}

/// The longest part of an answer that a message shows, in characters.
const MAX_SHOWN: usize = 200;

/// Reads the last line that is not blank of what a plugin wrote. `is_cut`: what precedes `tail` is not at hand.
///
/// # Errors
/// What came, what was expected, and what to do.
pub fn answer(tail: &[u8], is_cut: bool) -> Result<Answer, String> {
    const EXPECTED: &str = "print one JSON object on the last line, such as {\"state\": \"success\", \"xcom\": 1}";
    let line = tail.split(|&byte| byte == b'\n').rfind(|line| !line.trim_ascii().is_empty());
    let Some(line) = line else { return Err(format!("the plugin has answered nothing: {EXPECTED}")) };
    if is_cut && tail.starts_with(line) {
        return Err("the last line of the plugin's output has 64 KiB or more: answer less, and write what is large to the file $MINFLOW_XCOM as {\"return_value\": …}".to_owned());
    }
    let text = String::from_utf8_lossy(line);
    let shown: String = text.trim().chars().take(MAX_SHOWN).collect();
    let wrong = |why: String| format!("the plugin's last line is no answer ({why}): it is `{shown}`; {EXPECTED}");
    let mut object = match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err(wrong("no object".to_owned())),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let state = match object.remove("state") {
        None => Said::Success,
        Some(Value::String(state)) if state == "success" => Said::Success,
        Some(Value::String(state)) if state == "skipped" => Said::Skipped,
        Some(Value::String(state)) if state == "failed" => Said::Failed,
        Some(other) => {
            return Err(wrong(format!("`state` is {other}, and must be \"success\", \"skipped\" or \"failed\"")));
        }
    };
    let message = match object.remove("message") {
        None | Some(Value::Null) => None,
        Some(Value::String(message)) => Some(message),
        Some(_) => return Err(wrong("`message` is no text".to_owned())),
    };
    let xcom = object.remove("xcom").filter(|xcom| !xcom.is_null());
    if let Some(name) = object.keys().next() {
        return Err(wrong(format!("it has the key `{name}`, and known are `xcom`, `state` and `message`")));
    }
    Ok(Answer { state, xcom, message })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_last_line_is_the_answer() {
        let of = |text: &str| answer(text.as_bytes(), false);
        let plain = Answer { state: Said::Success, xcom: None, message: None };
        assert_eq!(of("working\n{}\n\n"), Ok(plain.clone()));
        assert_eq!(of("{\"xcom\": [1], \"message\": null}"), Ok(Answer { xcom: Some(json!([1])), ..plain.clone() }));
        let skipped = Answer { state: Said::Skipped, message: Some("no news".to_owned()), ..plain };
        assert_eq!(of("{\"state\": \"skipped\", \"message\": \"no news\"}\n"), Ok(skipped));
    }

    #[test]
    fn what_is_no_answer_is_told_with_what_came() {
        let error = |text: &str| answer(text.as_bytes(), false).unwrap_err();
        assert!(error("\n").starts_with("the plugin has answered nothing: print one JSON object"));
        assert!(error("done").contains("it is `done`; print one JSON object"));
        assert!(error("[1]").contains("(no object)"));
        assert!(error("{\"state\": \"ok\"}").contains("`state` is \"ok\", and must be"));
        assert!(error("{\"xcoms\": 1}").contains("it has the key `xcoms`"));
        assert!(error("{\"message\": 1}").contains("`message` is no text"));
        assert!(answer(b"x}", true).unwrap_err().contains("64 KiB or more"));
        assert!(answer(b"x}\n{}\n", true).is_ok(), "the line is whole");
        assert!(error(&"x".repeat(1_000)).len() < 500);
    }

    #[test]
    fn only_executables_are_plugins() {
        let folder = tempfile::tempdir().unwrap();
        for (name, mode) in [("greet", 0o755), ("notes.txt", 0o644)] {
            let path = folder.path().join("plugins").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::create_dir(folder.path().join("plugins/lib")).unwrap();
        let set = |name: &str| BTreeSet::from([name.to_owned()]);
        assert_eq!(list(folder.path()), Plugins { names: set("greet"), closed: set("notes.txt") });
        assert_eq!(list(&folder.path().join("missing")), Plugins::default());
    }
}
