//! Assets: what tasks produce and DAGs wait for, by name or uri (SEMANTICS 21).

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::model::ids::{AssetKey, AssetName};

/// The XCom by which a task says more of the events of its outlets.
pub const OUTLET_EVENTS: &str = "outlet_events";
/// The most events that one try may ask for by it.
pub const MAX_OUTLET_EVENTS: usize = 1_000;
/// How long a file must stay as it is before it counts, unless its asset says otherwise.
pub const SETTLE: Duration = Duration::from_secs(2);

/// An asset as a DAG file or airflow.toml defines it.
#[derive(Clone, Debug, PartialEq)]
pub struct AssetDefinition {
    pub name: AssetName,
    /// The name, where none is given.
    pub uri: String,
    pub group: String,
    /// Part of each of its events.
    pub extra: Map<String, Value>,
    /// It stands for assets that are named when a task has run.
    pub is_alias: bool,
    /// Of files: how long one must have stayed as it is.
    pub settle: Duration,
    /// Of files: those count too that lay there when minflow first looked.
    pub catchup: bool,
}

impl AssetDefinition {
    /// What a name or uri means that nobody defines (Airflow: `Asset("…")`).
    pub fn implied(name: &str) -> Self {
        Self {
            name: name.into(),
            uri: name.to_owned(),
            group: "asset".to_owned(),
            extra: Map::new(),
            is_alias: false,
            settle: SETTLE,
            catchup: false,
        }
    }

    /// The path or pattern of the files that it stands for.
    pub fn files(&self) -> Option<&str> {
        self.uri.strip_prefix("file://").filter(|path| path.starts_with('/') && !self.is_alias)
    }
}

/// An asset that minflow has met.
#[derive(Clone, Debug, PartialEq)]
pub struct Asset {
    pub key: AssetKey,
    pub definition: AssetDefinition,
    /// Since when its files are looked for; null if they are not.
    pub watched_since: Option<Timestamp>,
}

/// Something has become of an asset, as templates and lists show it.
#[derive(Clone, Debug, PartialEq)]
pub struct AssetEvent {
    pub key: i64,
    pub name: AssetName,
    pub uri: String,
    pub group: String,
    pub timestamp: Timestamp,
    pub extra: Map<String, Value>,
    /// The task instance that brought it about; none: a file.
    pub source: Option<EventSource>,
}

/// A task instance that has brought an event about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSource {
    pub dag_id: String,
    pub run_id: String,
    pub task_id: String,
    /// -1 unless it is mapped.
    pub map_index: i32,
}

/// What a file is, as far as its outside tells: another stamp at the same path is another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified_at: i64,
}

impl Stamp {
    /// Of a file that was told, and of which it is not known what it was then: no file has it.
    pub const UNKNOWN: Self = Self { inode: 0, size: 0, modified_at: i64::MIN };
}

/// A file that has settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledFile {
    /// Absolute, with the links that the pattern goes through.
    pub path: PathBuf,
    pub stamp: Stamp,
    /// When its inode was changed the last time (written, renamed, moved to where it lies), in nanoseconds since 1970.
    pub changed_at: i64,
    /// It was there at the first look; the kernel does not change the times of files whose folder is moved to where it lies.
    pub lay_there: bool,
}

impl SettledFile {
    /// What its event tells of it.
    pub fn extra(&self) -> Map<String, Value> {
        let path: &Path = &self.path;
        let modified_at = Timestamp::from_nanosecond(self.stamp.modified_at.into()).unwrap_or_default();
        Map::from_iter([
            ("path".to_owned(), path.to_string_lossy().into()),
            ("size".to_owned(), self.stamp.size.into()),
            ("modified_at".to_owned(), modified_at.to_string().into()),
        ])
    }
}

/// Which assets must have had an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssetExpression {
    One(AssetName),
    /// `&`, and lists.
    All(Vec<Self>),
    /// `|`
    Any(Vec<Self>),
}

impl AssetExpression {
    pub fn holds(&self, has_event: &mut impl FnMut(&AssetName) -> bool) -> bool {
        match self {
            Self::One(name) => has_event(name),
            Self::All(parts) => parts.iter().all(|part| part.holds(has_event)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(has_event)),
        }
    }

    /// All that it names, each once.
    pub fn names(&self) -> BTreeSet<AssetName> {
        let mut names = BTreeSet::new();
        self.gather(&mut names);
        names
    }

    fn gather(&self, names: &mut BTreeSet<AssetName>) {
        match self {
            Self::One(name) => {
                names.insert(name.clone());
            }
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.gather(names)),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, is_inner: bool) -> fmt::Result {
        let (parts, mark) = match self {
            Self::One(name) => return f.write_str(name),
            Self::All(parts) => (parts, " & "),
            Self::Any(parts) => (parts, " | "),
        };
        let has_brackets = is_inner && parts.len() > 1;
        f.write_str(if has_brackets { "(" } else { "" })?;
        for (at, part) in parts.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { mark })?;
            part.write(f, true)?;
        }
        f.write_str(if has_brackets { ")" } else { "" })
    }
}

impl fmt::Display for AssetExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, false)
    }
}

/// What a task says of one of its outlets when it has run.
#[derive(Clone, Debug, PartialEq)]
pub struct OutletEvent {
    pub outlet: AssetName,
    /// The asset that the outlet, an alias, stands for this time; none: the outlet itself.
    pub asset: Option<AssetName>,
    pub extra: Map<String, Value>,
}

/// Reads [`OUTLET_EVENTS`]: `{"orders": {"rows": 12}}` is the extra of the event of `orders`, and
/// `{"some_alias": ["s3://b/x", {"asset": "s3://b/y", "extra": {…}}]}` names what an alias stands for. A text is read as JSON.
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn outlet_events(value: &Value, outlets: &[AssetName]) -> Result<Vec<OutletEvent>, String> {
    let form = "write for example `{\"orders\": {\"rows\": 12}}`, or `{\"an_alias\": [\"s3://bucket/x\"]}`";
    let parsed;
    let value = match value {
        Value::String(text) => {
            parsed = serde_json::from_str(text)
                .map_err(|error| format!("its `outlet_events` are no JSON ({error}); {form}"))?;
            &parsed
        }
        value => value,
    };
    let Value::Object(given) = value else { return Err(format!("its `outlet_events` are no JSON object; {form}")) };
    let mut events = Vec::new();
    for (outlet, said) in given {
        let Some(outlet) = outlets.iter().find(|known| known.as_str() == outlet.as_str()) else {
            return Err(format!(
                "its `outlet_events` name `{outlet}`, which is none of its outlets; add it to `outlets`"
            ));
        };
        match said {
            Value::Object(extra) => {
                events.push(OutletEvent { outlet: outlet.clone(), asset: None, extra: extra.clone() });
            }
            Value::Array(list) => {
                for item in list {
                    events.push(resolved(outlet, item).ok_or_else(|| {
                        format!("its `outlet_events` of `{outlet}` are in no form that is known; {form}")
                    })?);
                }
            }
            _ => return Err(format!("its `outlet_events` of `{outlet}` are in no form that is known; {form}")),
        }
    }
    if events.len() > MAX_OUTLET_EVENTS {
        return Err(format!(
            "it has {} `outlet_events`, more than the limit of {MAX_OUTLET_EVENTS}; let it run in several instances",
            events.len()
        ));
    }
    Ok(events)
}

fn resolved(outlet: &AssetName, item: &Value) -> Option<OutletEvent> {
    let (name, extra) = match item {
        Value::String(name) => (name, Map::new()),
        Value::Object(item) => {
            let extra = match item.get("extra") {
                None | Some(Value::Null) => Map::new(),
                Some(Value::Object(extra)) => extra.clone(),
                Some(_) => return None,
            };
            (
                match item.get("asset") {
                    Some(Value::String(name)) => name,
                    _ => return None,
                },
                extra,
            )
        }
        _ => return None,
    };
    let is_name = !name.trim().is_empty();
    is_name.then(|| OutletEvent { outlet: outlet.clone(), asset: Some(name.as_str().into()), extra })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_task_says_of_its_outlets_is_extra_or_names_what_an_alias_stands_for() {
        let outlets = ["orders".into(), "days".into()];
        let value = json!({"orders": {"rows": 3}, "days": ["s3://b/1", {"asset": "s3://b/2", "extra": {"x": 1}}]});
        let expected = outlet_events(&value, &outlets).unwrap();
        assert_eq!(expected.len(), 3);
        assert_eq!((expected[0].asset.as_deref(), &expected[0].extra["rows"]), (None, &json!(3)));
        let named: Vec<_> = expected[1..].iter().map(|event| event.asset.as_deref().unwrap()).collect();
        assert_eq!(named, ["s3://b/1", "s3://b/2"]);
        assert_eq!(outlet_events(&json!(value.to_string()), &outlets), Ok(expected), "lines of `key=value` are texts");
        for (value, told) in [
            (json!({"other": {}}), "none of its outlets"),
            (json!({"days": [{"extra": {}}]}), "in no form"),
            (json!({"orders": 1}), "in no form"),
            (json!([1]), "no JSON object"),
            (json!("{oops"), "no JSON ("),
        ] {
            assert!(outlet_events(&value, &outlets).unwrap_err().contains(told), "{value}");
        }
    }

    #[test]
    fn an_expression_is_shown_with_the_brackets_that_it_needs() {
        let one = |name: &str| AssetExpression::One(name.into());
        let any = AssetExpression::Any(vec![one("b"), one("c")]);
        assert_eq!(AssetExpression::All(vec![one("a"), any.clone()]).to_string(), "a & (b | c)");
        assert_eq!(any.to_string(), "b | c");
    }
}
