//! The walk: checks a document against its table of keys, and reads what has been checked.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::faults::{Faults, suggest};
use super::value::{self, Moment, YEARS};
use super::zones::zone_help;
use super::{Fallback, Key, Kind, Table};

use crate::model::dag::Period;

type Value<'a> = Spanned<DeValue<'a>>;

/// Checks all keys of a table and their values. Every fault is added to `faults`.
pub fn check_table(table: &Table, document: &DeTable<'_>, faults: &mut Faults<'_>) {
    for (name, value) in document {
        match table.find(name.get_ref()) {
            Some(key) => check(key, value, faults),
            None if faults.is_own(table, name.get_ref(), value.get_ref().is_table()) => {}
            None => add_unknown(table, name, faults),
        }
    }
}

fn add_unknown(table: &Table, name: &Spanned<std::borrow::Cow<'_, str>>, faults: &mut Faults<'_>) {
    let typed: &str = name.get_ref();
    // When faults are only counted, their helps are not worth the search.
    let near = if faults.is_full() {
        None
    } else {
        suggest(typed, table.iter().map(|key| key.name).chain(faults.own_names(table)))
    };
    let help = match near {
        None if faults.is_full() => String::new(),
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let names: Vec<String> = table.iter().map(|key| format!("`{}`", key.name)).collect();
            format!("the keys of {} are {}", table.name, names.join(", "))
        }
    };
    faults.add(name.span(), "unknown-key", format!("unknown key `{typed}`"), help);
}

/// Checks the value of one key.
pub fn check(key: &Key, value: &Value<'_>, faults: &mut Faults<'_>) {
    Check { key: key.name, is_item: false, default: key.default, faults }.value(&key.kind, value);
}

struct Check<'c, 'a> {
    key: &'c str,
    /// Whether the value is one of a list's.
    is_item: bool,
    default: Fallback,
    faults: &'c mut Faults<'a>,
}

impl Check<'_, '_> {
    fn value(&mut self, kind: &Kind, value: &Value<'_>) {
        if !accepts(kind, value.get_ref()) {
            return self.wrong_type(kind, value);
        }
        match kind {
            Kind::Either(kinds) => {
                let text = value.get_ref().as_str();
                let is_other_word =
                    |kind: &Kind| matches!(kind, Kind::OneOf(names) if text.is_some_and(|text| !names.contains(&text)));
                let accepting = || kinds.iter().filter(|kind| accepts(kind, value.get_ref()));
                let fitting = accepting().find(|kind| !is_other_word(kind)).or_else(|| accepting().next());
                let fitting = fitting.expect("one alternative accepts the value, since the whole does");
                match (fitting, text) {
                    (Kind::OneOf(names), Some(text)) if !names.contains(&text) => {
                        let others = kinds.iter().filter(|kind| !matches!(kind, Kind::OneOf(_))).map(describe);
                        let help =
                            format!("{}, or {}", choice_help(text, names), others.collect::<Vec<_>>().join(" or "));
                        self.bad(value, "bad-value", &format!("is not a value of `{}`", self.key), &help);
                    }
                    (fitting, _) => {
                        let known = self.faults.count();
                        self.value(fitting, value);
                        let words = kinds.iter().filter_map(|kind| match kind {
                            Kind::OneOf(names) if text.is_some() && !is_word(fitting) => Some(*names),
                            _ => None,
                        });
                        for name in words.flatten() {
                            self.faults.add_to_help(known, &format!(", or `{} = \"{name}\"`", self.key));
                        }
                    }
                }
            }
            Kind::Table(table) => {
                if let DeValue::Table(document) = value.get_ref() {
                    check_table(table, document, self.faults);
                }
            }
            Kind::List(kind) => {
                for item in value.get_ref().as_array().into_iter().flat_map(|list| list.iter()) {
                    let (key, default) = (self.key, Fallback::Nothing);
                    Check { key, is_item: true, default, faults: self.faults }.value(kind, item);
                }
            }
            Kind::Map(_, kind) => {
                for (name, item) in value.get_ref().as_table().into_iter().flatten() {
                    let (key, default) = (name.get_ref(), Fallback::Nothing);
                    Check { key, is_item: false, default, faults: self.faults }.value(kind, item);
                }
            }
            _ => self.scalar(kind, value),
        }
    }

    fn scalar(&mut self, kind: &Kind, value: &Value<'_>) {
        let inner = value.get_ref();
        let text = inner.as_str().unwrap_or_default();
        match kind {
            Kind::Integer { min, max } => self.integer(*min, *max, value),
            Kind::Number { min } if value::number_of(inner).is_none_or(|number| number < *min as f64) => {
                let help = format!("use a finite number of {min} or more");
                let given = self.faults.source.text.get(value.span()).unwrap_or_default().to_owned();
                self.faults.add(value.span(), "out-of-range", format!("`{}` cannot be {given}", self.key), help);
            }
            Kind::Duration { min } => match value::duration_of(inner) {
                None => {
                    let help = "write whole seconds, or text like \"90s\", \"1h30m\", \"2d\" (units w, d, h, m, s; at most 100 years)";
                    self.bad(value, "bad-duration", "is not a duration", help);
                }
                Some(duration) if duration.as_secs() < *min => {
                    let message = format!("`{}` must be at least {min}s", self.key);
                    self.faults.add(value.span(), "out-of-range", message, "give a longer duration");
                }
                Some(_) => {}
            },
            Kind::Period => self.period(value),
            Kind::Size { min } => match value::size_of(inner) {
                None => {
                    let help = "write whole bytes, or text like \"100MB\", \"2GiB\" (units B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)";
                    self.bad(value, "bad-size", "is not a size", help);
                }
                Some(bytes) if bytes < *min => {
                    let message = format!("`{}` must be at least {}", self.key, value::print_size(*min));
                    self.faults.add(value.span(), "out-of-range", message, "give a larger size");
                }
                Some(_) => {}
            },
            Kind::Time if value::moment_of(inner).is_none() => {
                let help =
                    "write a date or date-time like 2026-11-21, 2026-11-21T06:00:00 or 2026-11-21T06:00:00+01:00";
                self.bad(value, "bad-time", "is not a date or date-time", help);
            }
            Kind::Time if !value::year_of(inner).is_some_and(|year| YEARS.contains(&year)) => {
                let (subject, first, last) = (self.subject(), YEARS.start(), YEARS.end());
                let message = format!("{subject} must lie in the years {first} to {last}");
                let help = if self.is_item { "correct it, or take it out" } else { "correct it, or leave the key out" };
                self.faults.add(value.span(), "out-of-range", message, help);
            }
            Kind::TimeOfDay if !matches!(value::edge_of(inner), Some(value::Edge::TimeOfDay(_))) => {
                self.bad(value, "bad-time", "is not a time of day", "write for example \"06:30\" or \"23:59:30\"");
            }
            Kind::Bound if value::edge_of(inner).is_none() => {
                let help =
                    "write a time of day like \"22:00\", a date-time like 2026-11-21T06:00:00, or \"\" for an open end";
                self.bad(value, "bad-time", "is neither a time of day nor a date-time", help);
            }
            Kind::Zone if super::zone(text).map_or(true, |zone| zone.is_unknown()) => {
                let help = zone_help(text);
                self.bad(value, "unknown-timezone", "is not the name of a time zone", &help);
            }
            Kind::Signal(signals) if value::signal_number(signals, text).is_none() => {
                let names: Vec<&str> = signals.iter().map(|(name, _)| *name).collect();
                let help = choice_help(text, &names);
                self.bad(value, "bad-value", "is not the name of a signal that can be used here", &help);
            }
            Kind::OneOf(names) if !names.contains(&text) => {
                let message = format!("is not a value of `{}`", self.key);
                self.bad(value, "bad-value", &message, &choice_help(text, names));
            }
            Kind::OneOfOr { names, prefix } if !names.contains(&text) => self.name_or_prefixed(names, prefix, value),
            Kind::Literal(only) if inner.as_bool() != Some(*only) => {
                let message = format!("`{}` cannot be {}", self.key, !only);
                self.faults.add(
                    value.span(),
                    "bad-value",
                    message,
                    format!("write `{only}`, or leave `{}` out", self.key),
                );
            }
            Kind::Template | Kind::Text if text.contains('\0') => {
                let message = format!("`{}` holds a zero byte, which no process can be given", self.key);
                self.faults.add(value.span(), "bad-value", message, "remove the `\\u0000`");
            }
            Kind::Plain | Kind::Schema | Kind::Any | Kind::Elements if value::json(inner).is_none() => {
                let message = format!("`{}` holds a number that JSON has none for", self.key);
                self.faults.add(value.span(), "bad-value", message, "use a finite number of at most 64 bits, or text");
            }
            _ => {}
        }
    }

    fn period(&mut self, value: &Value<'_>) {
        let inner = value.get_ref();
        if value::period_of(inner).is_some() {
            return;
        }
        if value::duration_of(inner).is_some_and(|duration| duration.is_zero()) {
            let message = format!("`{}` must be at least 1s", self.key);
            return self.faults.add(value.span(), "out-of-range", message, "give a longer period, such as \"5s\"");
        }
        let help = "write whole seconds, or text like \"90s\", \"1h30m\", \"1mo\", \"1y6mo\" (units y, mo, w, d, h, m, s; at most 100 years)";
        self.bad(value, "bad-duration", "is not a period", help);
    }

    fn name_or_prefixed(&mut self, names: &[&str], prefix: &str, value: &Value<'_>) {
        let text = value.get_ref().as_str().unwrap_or_default();
        if value::parse_prefixed(text, prefix).is_some() {
            return;
        }
        let (message, help) = if text.starts_with(prefix) {
            (
                format!("holds no duration after `{prefix}`"),
                format!("write for example `{prefix}6h` (units w, d, h, m, s; at least 1s)"),
            )
        } else {
            let example = format!("{prefix}6h");
            let all: Vec<&str> = names.iter().copied().chain([&*example]).collect();
            (format!("is not a value of `{}`", self.key), choice_help(text, &all))
        };
        self.bad(value, "bad-value", &message, &help);
    }

    fn integer(&mut self, min: i64, max: i64, value: &Value<'_>) {
        if value::integer_of(value.get_ref()).is_some_and(|integer| (min..=max).contains(&integer)) {
            return;
        }
        let given = value.get_ref().as_integer().map(|integer| integer.to_string()).unwrap_or_default();
        let message = format!("`{}` cannot be {given}", self.key);
        let help = match (min, max) {
            (_, i64::MAX) => format!("use an integer of {min} or more"),
            _ => format!("use an integer from {min} to {max}"),
        };
        self.faults.add(value.span(), "out-of-range", message, help);
    }

    fn bad(&mut self, value: &Value<'_>, code: &'static str, message: &str, help: &str) {
        let given = self.faults.source.text.get(value.span()).unwrap_or_default();
        let given: String = given.trim_matches(['"', '\'']).chars().take(60).collect();
        self.faults.add(value.span(), code, format!("`{given}` {message}"), help);
    }

    /// What the value is called in a message.
    fn subject(&self) -> String {
        format!("{}`{}`", if self.is_item { "each item of " } else { "" }, self.key)
    }

    fn wrong_type(&mut self, kind: &Kind, value: &Value<'_>) {
        let not = type_name(value.get_ref());
        let message = format!("{} must be {}, not {not}", self.subject(), describe(kind));
        if let (Kind::Elements, DeValue::String(text)) = (kind, value.get_ref()) {
            let text: String = text.chars().take(60).collect();
            let help = format!(
                "write `{{ xcom = \"{text}\" }}` for what that task gives, or `[\"{text}\"]` for a list of one"
            );
            return self.faults.add(value.span(), "wrong-type", message, help);
        }
        let example = match (mended(kind, value, self.faults.source.text), self.default) {
            (Some(mended), _) => mended,
            (None, Fallback::Toml(text)) if text.chars().any(char::is_alphanumeric) => text.to_owned(),
            (None, _) => example(kind),
        };
        let example = if self.is_item { format!("[{example}]") } else { example };
        self.faults.add(value.span(), "wrong-type", message, format!("write for example `{} = {example}`", self.key));
    }
}

/// What was given, made to fit: quoted, without its quotes, or in a list.
fn mended(kind: &Kind, value: &Value<'_>, text: &str) -> Option<String> {
    const MAX_SHOWN: usize = 60;
    let raw = text.get(value.span()).filter(|raw| raw.len() <= MAX_SHOWN && !raw.contains('\n'))?;
    let inner = value.get_ref();
    let is_scalar = !inner.is_array() && !inner.is_table();
    let fits = |text: &str| DeValue::parse(text).is_ok_and(|value| accepts(kind, value.get_ref()));
    match kind {
        Kind::Text | Kind::Template if is_scalar => Some(format!("\"{raw}\"")),
        Kind::List(item) if accepts(item, inner) => Some(format!("[{raw}]")),
        _ => inner.as_str().filter(|bare| fits(bare)).map(str::to_owned),
    }
}

/// Which of the names was meant, or all of them.
fn choice_help(typed: &str, names: &[&str]) -> String {
    match suggest(typed, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("use one of {}", names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    }
}

fn accepts(kind: &Kind, value: &DeValue<'_>) -> bool {
    match kind {
        Kind::Text | Kind::Template | Kind::Zone | Kind::Signal(_) | Kind::OneOf(_) | Kind::OneOfOr { .. } => {
            value.is_str()
        }
        Kind::Bool | Kind::Literal(_) => value.is_bool(),
        Kind::Integer { .. } => value.is_integer(),
        Kind::Number { .. } => value.is_integer() || value.is_float(),
        Kind::Duration { .. } | Kind::Period | Kind::Size { .. } => value.is_integer() || value.is_str(),
        Kind::Time | Kind::TimeOfDay | Kind::Bound => value.is_datetime() || value.is_str(),
        Kind::Plain => !value.is_table(),
        Kind::Any => true,
        Kind::Elements => value.is_array() || value.is_table(),
        Kind::List(_) => value.is_array(),
        Kind::Map(..) | Kind::Table(_) | Kind::Schema => value.is_table(),
        Kind::Either(kinds) => kinds.iter().any(|kind| accepts(kind, value)),
    }
}

fn is_word(kind: &Kind) -> bool {
    matches!(kind, Kind::OneOf(_))
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A kind of value in words, as it stands after "must be".
pub(super) fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Text | Kind::Template | Kind::OneOf(_) | Kind::OneOfOr { .. } => "text".to_owned(),
        Kind::Zone => "the name of a time zone".to_owned(),
        Kind::Signal(_) => "the name of a signal".to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::Literal(only) => only.to_string(),
        Kind::Integer { .. } => "an integer".to_owned(),
        Kind::Number { .. } => "a number".to_owned(),
        Kind::Duration { .. } => "a duration".to_owned(),
        Kind::Period => "a period".to_owned(),
        Kind::Size { .. } => "a size".to_owned(),
        Kind::Time => "a date or date-time".to_owned(),
        Kind::TimeOfDay => "a time of day".to_owned(),
        Kind::Bound => "a time of day or a date-time".to_owned(),
        Kind::Plain => "a plain value (text, number, truth value, time or a list)".to_owned(),
        Kind::Schema => "a JSON Schema".to_owned(),
        Kind::Any => "any value".to_owned(),
        Kind::Elements => "a list or a table".to_owned(),
        Kind::List(kind) => match describe(kind).as_str() {
            "text" => "a list of text".to_owned(),
            "an integer" => "a list of integers".to_owned(),
            "any value" => "a list".to_owned(),
            "a table" => "a list of tables".to_owned(),
            "a list or a table" => "a list of inputs".to_owned(),
            other => format!("a list of {other}"),
        },
        Kind::Map(..) | Kind::Table(_) => "a table".to_owned(),
        Kind::Either(kinds) => kinds.iter().map(describe).collect::<Vec<_>>().join(" or "),
    }
}

fn example(kind: &Kind) -> String {
    match kind {
        Kind::Text | Kind::Template | Kind::Plain | Kind::Any => "\"text\"".to_owned(),
        Kind::Zone => "\"Europe/London\"".to_owned(),
        Kind::Signal(_) => "\"TERM\"".to_owned(),
        Kind::OneOf(names) | Kind::OneOfOr { names, .. } => format!("\"{}\"", names[0]),
        Kind::Bool => "true".to_owned(),
        Kind::Literal(only) => only.to_string(),
        Kind::Integer { min, .. } => (*min).max(1).to_string(),
        Kind::Number { min } => (*min).max(2).to_string(),
        Kind::Duration { .. } | Kind::Period => "\"90s\"".to_owned(),
        Kind::Size { .. } => "\"100MB\"".to_owned(),
        Kind::Time => "2026-11-21".to_owned(),
        Kind::Schema => "{ type = \"integer\", default = 1 }".to_owned(),
        Kind::Bound | Kind::TimeOfDay => "\"22:00\"".to_owned(),
        Kind::Elements => "[1, 2]".to_owned(),
        Kind::List(kind) => format!("[{}]", example(kind)),
        Kind::Map("param", _) => "{ region = \"eu\" }".to_owned(),
        Kind::Map(_, kind) => format!("{{ name = {} }}", example(kind)),
        Kind::Table(table) => {
            let key = table.iter().next().expect("a table has at least one key");
            format!("{{ {} = {} }}", key.name, example(&key.kind))
        }
        Kind::Either(kinds) => example(&kinds[0]),
    }
}

/// The values of a table that has been checked. A value that has a fault reads as absent: it has been reported.
#[derive(Clone, Copy)]
pub struct Fields<'d> {
    pub table: &'static Table,
    document: &'d DeTable<'d>,
}

impl<'d> Fields<'d> {
    pub fn new(table: &'static Table, document: &'d DeTable<'d>) -> Self {
        Self { table, document }
    }

    /// The key's place and its value.
    pub fn entry(&self, name: &str) -> Option<(Range<usize>, &'d Value<'d>)> {
        debug_assert!(self.table.find(name).is_some(), "`{name}` is no key of {}", self.table.name);
        // A search along the few keys that a table has is faster than hashing.
        let found = self.document.iter().find(|(key, _)| key.get_ref() == name);
        found.map(|(key, value)| (key.span(), value))
    }

    pub fn get(&self, name: &str) -> Option<&'d Value<'d>> {
        self.entry(name).map(|(_, value)| value)
    }

    pub fn text(&self, name: &str) -> Option<&'d str> {
        self.get(name)?.get_ref().as_str()
    }

    pub fn bool(&self, name: &str) -> Option<bool> {
        self.get(name)?.get_ref().as_bool()
    }

    /// An integer of a kind whose bounds lie within `T`.
    pub fn integer<T: TryFrom<i64>>(&self, name: &str) -> Option<T> {
        T::try_from(value::integer_of(self.get(name)?.get_ref())?).ok()
    }

    /// The integers of a list.
    pub fn integers<T: TryFrom<i64>>(&self, name: &str) -> Vec<T> {
        let integers = self.list(name).iter().filter_map(|item| value::integer_of(item.get_ref()));
        integers.filter_map(|integer| T::try_from(integer).ok()).collect()
    }

    pub fn number(&self, name: &str) -> Option<f64> {
        value::number_of(self.get(name)?.get_ref())
    }

    pub fn duration(&self, name: &str) -> Option<Duration> {
        value::duration_of(self.get(name)?.get_ref())
    }

    pub fn period(&self, name: &str) -> Option<Period> {
        value::period_of(self.get(name)?.get_ref())
    }

    /// In bytes.
    pub fn size(&self, name: &str) -> Option<u64> {
        value::size_of(self.get(name)?.get_ref())
    }

    pub fn moment(&self, name: &str) -> Option<Moment> {
        value::moment_of(self.get(name)?.get_ref())
    }

    pub fn list(&self, name: &str) -> &'d [Value<'d>] {
        self.get(name).and_then(|value| value.get_ref().as_array()).map_or(&[], |list| list)
    }

    pub fn table(&self, name: &str) -> Option<&'d DeTable<'d>> {
        self.get(name)?.get_ref().as_table()
    }
}
