//! Callbacks and notifiers as files write them: what is wrong with them, and what they become.
//!
//! Knows their keys and the places of faults. DAG files and airflow.toml write callbacks alike; notifiers stand in airflow.toml alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;
use crate::keytable::{self, Faults, Fields};
use crate::model::callback::{Action, Callback, Hook, When};
use crate::model::dag::{Position, Template};
use crate::secrets::Sensitive;

/// The ways in which a callback says what is done.
const ACTIONS: [&str; 3] = ["bash", "http", "notify"];

/// A way of telling people, `[notifiers.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Notifier {
    pub kind: NotifierKind,
    pub timeout: Option<Duration>,
    /// Its other keys; their texts are templates.
    pub keys: Map<String, Value>,
    /// File and line.
    pub origin: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifierKind {
    Bash,
    Email,
    Http,
    Slack,
    Ntfy,
}

impl NotifierKind {
    pub const NAMES: &'static [&'static str] = &["bash", "email", "http", "slack", "ntfy"];

    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "bash" => Self::Bash,
            "email" => Self::Email,
            "http" => Self::Http,
            "slack" => Self::Slack,
            "ntfy" => Self::Ntfy,
            _ => return None,
        })
    }

    /// The keys that it knows beside `kind` and `timeout`; the first must be there.
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Bash => &["command"],
            Self::Email => &["to", "cc", "bcc", "subject", "body", "html", "connection"],
            Self::Http => &["url", "connection", "method", "headers", "params", "body", "json"],
            Self::Slack => &["url", "text"],
            Self::Ntfy => &["topic", "url", "title", "message", "priority", "tags", "token"],
        }
    }
}

/// Everything of airflow.toml that says who is told what.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notices {
    pub notifiers: BTreeMap<String, Notifier>,
    /// `[defaults]`: for DAGs that give none.
    pub on_success: Vec<Callback>,
    pub on_failure: Vec<Callback>,
}

/// Adds the faults of `[notifiers]` and `[defaults]` that the table of keys cannot express.
pub(super) fn check_sections(sections: &DeTable<'_>, known: &BTreeSet<String>, faults: &mut Faults<'_>) {
    let table = |name: &str| sections.get(name).and_then(|section| section.get_ref().as_table());
    for (name, value) in table("notifiers").into_iter().flatten() {
        if let Some(table) = value.get_ref().as_table() {
            check_notifier(name, table, faults);
        }
    }
    let Some(defaults) = table("defaults") else { return };
    let fields = Fields::new(&keys::DEFAULTS, defaults);
    for hook in [Hook::OnSuccess, Hook::OnFailure] {
        check(fields.list(hook.as_str()), hook, Some(known), faults);
    }
}

fn check_notifier(name: &Spanned<std::borrow::Cow<'_, str>>, table: &DeTable<'_>, faults: &mut Faults<'_>) {
    let fields = Fields::new(&keys::NOTIFIER, table);
    let Some(kind) = fields.text("kind").and_then(NotifierKind::from_name) else {
        if fields.get("kind").is_none() {
            let help = "add for example `kind = \"bash\"`; the kinds are `bash`, `email`, `http`, `slack`, `ntfy`";
            let message = format!("notifier `{}` has no `kind`", name.get_ref());
            faults.add(name.span(), "bad-notifier", message, help);
        }
        return;
    };
    let shown = fields.text("kind").unwrap_or_default();
    let needed = kind.keys()[0];
    let is_given = fields.get(needed).is_some() || kind == NotifierKind::Http && fields.get("connection").is_some();
    if !is_given {
        let message = format!("notifier `{}` of the kind `{shown}` needs `{needed}`", name.get_ref());
        faults.add(name.span(), "bad-notifier", message, format!("add `{needed} = …`"));
    }
    for key in table.keys() {
        let given: &str = key.get_ref();
        let is_foreign = keys::NOTIFIER.find(given).is_some() && !["kind", "timeout"].contains(&given);
        if is_foreign && !kind.keys().contains(&given) {
            let list: Vec<String> = kind.keys().iter().map(|key| format!("`{key}`")).collect();
            let message = format!("a notifier of the kind `{shown}` has no `{given}`");
            faults.add(key.span(), "bad-notifier", message, format!("its keys are {}", list.join(", ")));
        }
    }
}

/// What can be wrong in a list of callbacks whose keys and types are right. `known` are the names of all notifiers; None: whoever
/// is named was known once.
pub fn check(list: &[Spanned<DeValue<'_>>], hook: Hook, known: Option<&BTreeSet<String>>, faults: &mut Faults<'_>) {
    for item in list {
        let Some(table) = item.get_ref().as_table() else { continue };
        let fields = Fields::new(&keys::CALLBACK, table);
        let mut given = ACTIONS.iter().filter_map(|&name| Some((name, fields.entry(name)?.0)));
        match (given.next(), given.next()) {
            (None, _) => {
                let help = "write for example `{ bash = \"echo {{ exception }}\" }`, `{ http = { url = \"https://…\" } }` or `{ notify = \"NAME\" }`";
                faults.add(item.span(), "bad-callback", format!("a callback of `{hook}` does nothing"), help);
            }
            (Some((first, _)), Some((second, span))) => {
                let message = format!("a callback is one of `{first}` and `{second}`, not both");
                faults.add(span, "bad-callback", message, "make two callbacks of them");
            }
            _ => {}
        }
        if let (Some(name), Some(value), Some(known)) = (fields.text("notify"), fields.get("notify"), known)
            && !known.contains(name)
        {
            let help = match keytable::suggest(name, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!(
                    "add it to airflow.toml: `[notifiers.{name}]` and below it `kind = \"bash\"`, or another kind"
                ),
            };
            faults.add(value.span(), "unknown-notifier", format!("there is no notifier `{name}`"), help);
        }
        if let Some(value) = fields.get("when") {
            check_when(value, hook, faults);
        }
        if let Some(table) = fields.table("http") {
            check_http(item, &Fields::new(&keys::CALLBACK_HTTP, table), faults);
        }
    }
}

fn check_http(item: &Spanned<DeValue<'_>>, fields: &Fields<'_>, faults: &mut Faults<'_>) {
    if fields.get("url").is_none() && fields.get("connection").is_none() {
        faults.add(item.span(), "bad-callback", "`http` needs a `url`", "add `url = \"https://…\"`");
    }
    if let (Some(_), Some((span, _))) = (fields.get("body"), fields.entry("json")) {
        faults.add(span, "bad-callback", "`body` and `json` cannot stand together", "keep one of them");
    }
}

fn check_when(value: &Spanned<DeValue<'_>>, hook: Hook, faults: &mut Faults<'_>) {
    let when = keytable::json(value.get_ref()).and_then(|json| when(&json));
    let fits = match when {
        None | Some(When::Every) => true,
        Some(When::First | When::InARow(_)) => hook == Hook::OnFailure,
        Some(When::Recovered) => hook == Hook::OnSuccess,
    };
    if when.is_none() && value.get_ref().is_table() {
        let message = "`when` as a table says how many failures in a row";
        faults.add(value.span(), "bad-value", message, "write for example `when = { in_a_row = 3 }`");
    }
    if !fits {
        let message = format!("this `when` makes no sense in `{hook}`");
        let help = "`\"first\"` and `{ in_a_row = N }` are for `on_failure`, `\"recovered\"` is for `on_success`";
        faults.add(value.span(), "bad-callback", message, help);
    }
}

fn when(value: &Value) -> Option<When> {
    match value.as_str() {
        Some("every") => Some(When::Every),
        Some("first") => Some(When::First),
        Some("recovered") => Some(When::Recovered),
        Some(_) => None,
        None => value["in_a_row"].as_u64().and_then(|count| u32::try_from(count).ok()).map(When::InARow),
    }
}

/// A callback that has been checked; `at` is where it stands. None if it had a fault.
pub fn read(value: &Value, at: Position) -> Option<Callback> {
    let table = value.as_object()?;
    let text = |name: &str| table.get(name).and_then(Value::as_str);
    let action = match (text("bash"), table.get("http").and_then(Value::as_object), text("notify")) {
        (Some(bash), _, _) => Action::Bash(Template { text: bash.to_owned(), at }),
        (_, Some(http), _) => Action::Http(http.clone(), at),
        (_, _, Some(name)) => Action::Notify(name.into()),
        _ => return None,
    };
    Some(Callback {
        action,
        when: table.get("when").and_then(when).unwrap_or_default(),
        timeout: table.get("timeout").and_then(super::load::duration),
        file: None,
    })
}

/// The callbacks of a checked list in `[defaults]`.
pub(super) fn read_defaults(value: &Value, origin: &str) -> Vec<Callback> {
    let (file, line) = origin.rsplit_once(':').unwrap_or((origin, ""));
    let at = Position { line: line.parse().unwrap_or(1), column: 1 };
    let callbacks = value.as_array().into_iter().flatten().filter_map(|item| read(item, at));
    callbacks.map(|callback| Callback { file: Some(file.into()), ..callback }).collect()
}

/// A notifier that has been checked; None if it had a fault.
pub(super) fn notifier(value: &Value, origin: &str) -> Option<Notifier> {
    let mut keys = value.as_object()?.clone();
    let kind = keys.remove("kind").as_ref().and_then(Value::as_str).and_then(NotifierKind::from_name)?;
    let timeout = keys.remove("timeout").as_ref().and_then(super::load::duration);
    Some(Notifier { kind, timeout, keys, origin: origin.to_owned() })
}

/// What of a notifier lets others write in one's name: texts without templates, whose secrets are known by themselves.
pub(super) fn hidden(notifier: &Notifier, sensitive: &Sensitive) -> Vec<String> {
    let tables = ["headers", "params"].into_iter().filter_map(|name| notifier.keys.get(name)?.as_object());
    let named = tables.flatten().filter(|(name, _)| sensitive.hides(name)).map(|(_, value)| value);
    let own = match notifier.kind {
        NotifierKind::Slack => notifier.keys.get("url"),
        NotifierKind::Ntfy => notifier.keys.get("token"),
        _ => None,
    };
    let texts = named.chain(own).filter_map(Value::as_str).filter(|text| !text.contains("{{"));
    // Of `Bearer abcdef` the second word is enough to write in one's name.
    texts
        .flat_map(|text| [Some(text), text.split_once(' ').map(|(_, rest)| rest.trim())])
        .flatten()
        .map(str::to_owned)
        .collect()
}
