//! `minflow pools import` and `minflow pools export`: Airflow's JSON, `{"NAME": {"slots": …, "description": …}}`.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::cli::failure::eprint;
use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Failure, Outcome};
use crate::diagnostic::did_you_mean;
use crate::model::Pool;

/// The largest file that is read: some hundred thousand pools.
const MAX_BYTES: u64 = 64 << 20;

/// Beyond so many faults the rest is only counted.
const MAX_FAULTS: usize = 100;

/// What an entry may say. Airflow's newer versions write `team_name`, which is null without its teams.
const KEYS: [&str; 4] = ["slots", "description", "include_deferred", "team_name"];

pub fn import(home: &Home, file: &Path, output: &mut Output) -> Outcome {
    let pools = read(file)?;
    let (count, changed) = (pools.len(), super::set(home, pools.clone())?);
    eprint(&format!("{count} pool{} read, {changed} changed\n", if count == 1 { "" } else { "s" }));
    super::show(home, &pools, output)
}

pub fn export(home: &Home, file: &Path) -> Outcome {
    let pools = home.pools()?;
    let facts = |pool: &Pool| json!({"slots": pool.slots, "description": pool.description, "include_deferred": pool.include_deferred});
    let entry = |pool: &Pool| (pool.name.to_string(), facts(pool));
    let entries: Map<String, Value> = pools.values().map(entry).collect();
    let mut text = serde_json::to_string_pretty(&entries).expect("a map of texts and numbers is JSON");
    text.push('\n');
    std::fs::write(file, text).map_err(|error| {
        let message = format!("failed to write `{}`: {error}", file.display());
        Failure::refused(message, "name a file in a folder that is there and writable")
    })?;
    eprint(&format!("{} pool{} written\n", pools.len(), if pools.len() == 1 { "" } else { "s" }));
    Ok(())
}

fn read(file: &Path) -> Result<Vec<Pool>, Failure> {
    let shown = file.display();
    let unreadable = |why: String, help: &str| Failure::refused(format!("cannot read `{shown}`: {why}"), help);
    let size = std::fs::metadata(file).map_err(|error| unreadable(error.to_string(), "check the path"))?.len();
    if size > MAX_BYTES {
        return Err(unreadable(format!("it has {size} bytes, and at most {MAX_BYTES} are read"), "split it"));
    }
    let text = std::fs::read(file).map_err(|error| unreadable(error.to_string(), "check the path"))?;
    let form = "write it as {\"NAME\": {\"slots\": 3, \"description\": \"\"}}";
    let entries: Map<String, Value> =
        serde_json::from_slice(&text).map_err(|error| unreadable(format!("it is no JSON object: {error}"), form))?;
    let (mut pools, mut faults) = (Vec::new(), Vec::new());
    for (name, entry) in entries {
        match pool(&name, &entry) {
            Ok(pool) => pools.push(pool),
            Err(found) => faults.extend(found),
        }
    }
    if faults.is_empty() {
        return Ok(pools);
    }
    let omitted = faults.len().saturating_sub(MAX_FAULTS);
    faults.truncate(MAX_FAULTS);
    if omitted > 0 {
        faults.push(format!("and {omitted} more"));
    }
    let message = format!("`{shown}` is not as it should be:\n  {}", faults.join("\n  "));
    Err(Failure::refused(message, "correct it, and import it again; nothing was changed"))
}

/// One entry, or all that is wrong with it.
fn pool(name: &str, entry: &Value) -> Result<Pool, Vec<String>> {
    let shown = name.escape_debug();
    let Some(entry) = entry.as_object() else {
        return Err(vec![format!("`{shown}`: an object such as {{\"slots\": 3, \"description\": \"\"}} is needed")]);
    };
    let mut faults = Vec::new();
    let mut fault = |what: String| faults.push(format!("`{shown}`: {what}"));
    for key in entry.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        let near = did_you_mean(key, KEYS).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        fault(format!("unknown key `{}`{near}", key.escape_debug()));
    }
    let slots = match entry.get("slots") {
        None => {
            fault("`slots` is missing".to_owned());
            None
        }
        Some(slots) => {
            let whole = slots.as_i64();
            if whole.is_none() {
                fault(format!("`slots` is to be a whole number, not {}", short(slots)));
            }
            whole
        }
    };
    let description = match entry.get("description").unwrap_or(&Value::Null) {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => {
            fault(format!("`description` is to be a text, not {}", short(other)));
            String::new()
        }
    };
    let include_deferred = match entry.get("include_deferred").unwrap_or(&Value::Null) {
        Value::Null => false,
        Value::Bool(includes) => *includes,
        other => {
            fault(format!("`include_deferred` is to be true or false, not {}", short(other)));
            false
        }
    };
    if let Some(team) = entry.get("team_name").filter(|team| !team.is_null()) {
        fault(format!("minflow knows no teams, and `team_name` is {}", short(team)));
    }
    // What stands for a number that is none is sound, so that the name is judged.
    let pool = Pool { name: name.into(), slots: slots.unwrap_or_default(), description, include_deferred };
    if let Some(what) = pool.fault() {
        faults.push(what);
    }
    if faults.is_empty() { Ok(pool) } else { Err(faults) }
}

/// A value in a message.
fn short(value: &Value) -> String {
    const MOST: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= MOST { text } else { format!("{}…", text.chars().take(MOST).collect::<String>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(entry: Value) -> Vec<String> {
        pool("db", &entry).err().unwrap_or_default()
    }

    #[test]
    fn an_entry_is_a_pool_or_every_fault_of_it() {
        let read = pool("db", &json!({"slots": -1, "description": "d", "team_name": null})).unwrap();
        assert_eq!((&*read.name, read.slots, &*read.description), ("db", -1, "d"));
        assert_eq!(pool("db", &json!({"slots": 0})).unwrap().description, "");
        assert!(pool("db", &json!({"slots": 0, "include_deferred": true})).unwrap().include_deferred);
        assert_eq!(
            faults(json!({"slots": 0, "include_deferred": 1})),
            ["`db`: `include_deferred` is to be true or false, not 1"]
        );
        assert_eq!(faults(json!(3)), ["`db`: an object such as {\"slots\": 3, \"description\": \"\"} is needed"]);
        assert_eq!(
            faults(json!({"slot": 3, "description": 4})),
            [
                "`db`: unknown key `slot`; did you mean `slots`?",
                "`db`: `slots` is missing",
                "`db`: `description` is to be a text, not 4"
            ]
        );
        for slots in [json!("3"), json!(2.5), json!(true), json!(null), json!(1e30), json!(u64::MAX)] {
            let expected = format!("`db`: `slots` is to be a whole number, not {}", short(&slots));
            assert_eq!(faults(json!({"slots": slots})), [expected]);
        }
        assert_eq!(
            faults(json!({"slots": -2, "team_name": "a"})),
            [
                "`db`: minflow knows no teams, and `team_name` is \"a\"",
                "`db` cannot have -2 slots: write -1 for no limit, or 0 to 2147483647"
            ]
        );
        assert_eq!(pool("", &json!({"slots": 1})).unwrap_err(), ["a pool needs a name"]);
    }
}
