//! `docker = …`: what of its values has a form of its own.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which containers are removed that ended by themselves; one that minflow ends always is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoRemove {
    Never,
    /// Those with exit code 0.
    Success,
    #[default]
    Force,
}

impl AutoRemove {
    /// The names in a DAG file, which are Airflow's.
    pub const NAMES: &'static [&'static str] = &["never", "success", "force"];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Success => "success",
            Self::Force => "force",
        }
    }

    /// A name, or a truth value as Airflow reads it.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(true) => Some(Self::Success),
            Value::Bool(false) => Some(Self::Never),
            Value::String(name) => [Self::Never, Self::Success, Self::Force].into_iter().find(|it| it.name() == name),
            _ => None,
        }
    }

    pub const fn keeps(self, exit_code: u8) -> bool {
        match self {
            Self::Never => true,
            Self::Success => exit_code != 0,
            Self::Force => false,
        }
    }
}

/// When an image is asked for from its registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pull {
    #[default]
    Missing,
    Always,
    Never,
}

impl Pull {
    /// The names in a DAG file.
    pub const NAMES: &'static [&'static str] = &["missing", "always", "never"];

    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Missing, Self::Always, Self::Never];
        all.into_iter().zip(Self::NAMES).find(|(_, known)| **known == name).map(|(pull, _)| pull)
    }
}

/// What a container sees of what is outside of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub kind: MountKind,
    /// A path of the host, or a volume's name. None for `tmpfs`, and for a volume that is made for the container alone.
    pub source: Option<String>,
    /// A path in the container.
    pub target: String,
    pub is_read_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountKind {
    Bind,
    Volume,
    Tmpfs,
}

impl MountKind {
    /// The names in a DAG file, which are docker's.
    pub const NAMES: &'static [&'static str] = &["bind", "volume", "tmpfs"];

    const fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
        }
    }

    /// A source with a slash, or of dots, is a path, and any other the name of a volume.
    fn of_source(source: &str) -> Self {
        if source.contains('/') || source.starts_with('.') { Self::Bind } else { Self::Volume }
    }
}

impl Mount {
    /// `SOURCE:TARGET`, with `:ro` or `:rw` behind it or not; or a table.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub fn of(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Self::parse(text),
            _ => Self::of_table(value),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let help = "write for example \"/srv/in:/in:ro\"";
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, is_read_only) = match parts[..] {
            [source, target] | [source, target, "rw"] => (source, target, false),
            [source, target, "ro"] => (source, target, true),
            [_, _, mode] => {
                return Err(format!("`{mode}` at the end of the mount `{text}` is neither `ro` nor `rw`; {help}"));
            }
            _ => return Err(format!("the mount `{text}` is no `SOURCE:TARGET`; {help}")),
        };
        if source.is_empty() {
            return Err(format!("the mount `{text}` names nothing to mount; {help}"));
        }
        let (kind, source) = (MountKind::of_source(source), Some(source.to_owned()));
        Self { kind, source, target: target.to_owned(), is_read_only }.checked()
    }

    fn of_table(table: &Value) -> Result<Self, String> {
        let text = |name: &str| table.get(name).and_then(Value::as_str).map(str::to_owned);
        let source = text("source").filter(|source| !source.is_empty());
        let known = [MountKind::Bind, MountKind::Volume, MountKind::Tmpfs];
        let kind = match text("type") {
            Some(name) => known.into_iter().find(|kind| kind.name() == name).unwrap_or(MountKind::Bind),
            None => source.as_deref().map_or(MountKind::Volume, MountKind::of_source),
        };
        let is_read_only = table.get("read_only").and_then(Value::as_bool).unwrap_or(false);
        Self { kind, source, target: text("target").unwrap_or_default(), is_read_only }.checked()
    }

    fn checked(self) -> Result<Self, String> {
        match (self.kind, &self.source) {
            _ if !self.target.starts_with('/') => Err(format!(
                "the target of a mount is `{}`, and must be a path in the container that begins with `/`",
                self.target
            )),
            (MountKind::Bind, None) => {
                Err("a mount of the type `bind` needs a `source`, which is a path of the host".to_owned())
            }
            (MountKind::Tmpfs, Some(_)) => Err("a mount of the type `tmpfs` has no `source`: leave it out".to_owned()),
            _ => Ok(self),
        }
    }

    /// As `docker create --mount` takes it: a line of CSV.
    pub fn option(&self) -> String {
        let mut line = format!("type={}", self.kind.name());
        let fields = [self.source.as_deref().map(|source| ("source", source)), Some(("target", &*self.target))];
        for (name, value) in fields.into_iter().flatten() {
            let field = format!("{name}={value}");
            let is_plain = !field.contains([',', '"', '\n', '\r']);
            // Writing into a text does not fail.
            let _ = match is_plain {
                true => write!(line, ",{field}"),
                false => write!(line, ",\"{}\"", field.replace('"', "\"\"")),
            };
        }
        if self.is_read_only {
            line += ",readonly";
        }
        line
    }
}

/// Whether a container can have a variable of that name: what a file of variables can hold.
pub fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('#') && !name.contains(|c: char| c == '=' || c == '\0' || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mounts_are_texts_or_tables() {
        let option = |value: Value| Mount::of(&value).map(|mount| mount.option());
        let cases = [
            (json!("/srv/in:/in"), "type=bind,source=/srv/in,target=/in"),
            (json!("/srv/in:/in:ro"), "type=bind,source=/srv/in,target=/in,readonly"),
            (json!("./in:/in:rw"), "type=bind,source=./in,target=/in"),
            (json!("data:/data"), "type=volume,source=data,target=/data"),
            (json!({ "source": "/a,b", "target": "/x \"y\"" }), "type=bind,\"source=/a,b\",\"target=/x \"\"y\"\"\""),
            (
                json!({ "source": "data", "target": "/d", "read_only": true }),
                "type=volume,source=data,target=/d,readonly",
            ),
            (json!({ "target": "/scratch" }), "type=volume,target=/scratch"),
            (json!({ "type": "tmpfs", "target": "/tmp" }), "type=tmpfs,target=/tmp"),
        ];
        for (value, expected) in cases {
            assert_eq!(option(value.clone()).as_deref(), Ok(expected), "{value}");
        }
        for (value, expected) in [
            (json!("/srv"), "no `SOURCE:TARGET`"),
            (json!("/a:/b:z"), "`z` at the end"),
            (json!(":/b"), "names nothing"),
            (json!("/a:b"), "begins with `/`"),
            (json!({ "source": "/a" }), "begins with `/`"),
            (json!({ "type": "bind", "target": "/a" }), "needs a `source`"),
            (json!({ "type": "tmpfs", "source": "/a", "target": "/a" }), "has no `source`"),
        ] {
            let message = option(value.clone()).unwrap_err();
            assert!(message.contains(expected), "{value}: {message}");
        }
    }

    #[test]
    fn truth_values_remove_as_airflow_has_it() {
        let of = |value: Value| AutoRemove::of(&value);
        assert_eq!(of(json!(true)), Some(AutoRemove::Success));
        assert_eq!(of(json!(false)), Some(AutoRemove::Never));
        for name in AutoRemove::NAMES {
            assert_eq!(of(json!(name)).map(AutoRemove::name), Some(*name));
        }
        assert_eq!(of(json!("always")), None);
        let kept = |policy: AutoRemove| [0, 1].map(|code| policy.keeps(code));
        assert_eq!(kept(AutoRemove::Never), [true, true]);
        assert_eq!(kept(AutoRemove::Success), [false, true]);
        assert_eq!(kept(AutoRemove::Force), [false, false]);
    }

    #[test]
    fn a_variable_has_a_name_that_a_file_of_variables_can_hold() {
        for (name, is) in [("A", true), ("a.b-c", true), ("", false), ("#A", false), ("A=", false), ("A B", false)] {
            assert_eq!(is_variable(name), is, "{name:?}");
        }
    }
}
