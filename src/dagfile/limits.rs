//! What a task's file says about what it may use (`limits`), and as whom it runs (`run_as`).

use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::{Reader, keys};
use crate::keytable::Fields;
use crate::model::RunAs;
use crate::model::limits::{Enforce, IoPriority, Limits};

/// No host has as many processors.
const MOST_CPUS: f64 = 8_192.0;
/// Less than the kernel keeps apart (a millisecond of each tenth of a second).
const LEAST_CPUS: f64 = 0.01;
/// The longest name of a user that Linux has.
const LONGEST_USER: usize = 256;

/// The limits of a checked table; None where it sets none.
pub(super) fn limits(value: &Spanned<DeValue<'_>>) -> Option<Box<Limits>> {
    let fields = Fields::new(&keys::LIMITS, value.get_ref().as_table()?);
    let limits = Limits {
        memory: fields.size("memory"),
        millicpus: fields.number("cpus").map(|cpus| (cpus * 1_000.0).round() as u32),
        cpu_time: fields.duration("cpu_time"),
        processes: fields.integer("processes"),
        open_files: fields.integer("open_files"),
        file_size: fields.size("file_size"),
        nice: fields.integer("nice"),
        ionice: fields
            .integer("ionice")
            .map(IoPriority::BestEffort)
            .or(fields.text("ionice").map(|_| IoPriority::Idle)),
        umask: fields.text("umask").and_then(umask),
        enforce: if fields.text("enforce") == Some("require") { Enforce::Require } else { Enforce::Prefer },
    };
    let is_none = Limits { enforce: Enforce::Prefer, ..limits.clone() } == Limits::default();
    (!is_none).then(|| Box::new(limits))
}

/// Up to four octal digits, as a shell takes them: `22` is `022`.
fn umask(text: &str) -> Option<u32> {
    let is_octal = (1..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let bits = is_octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    bits.filter(|bits| *bits <= 0o777)
}

impl Reader<'_, '_> {
    pub(super) fn run_as(&self, value: &Spanned<DeValue<'_>>) -> RunAs {
        RunAs { user: value.get_ref().as_str().unwrap_or_default().to_owned(), at: self.position(value) }
    }

    /// What can be wrong in limits whose keys and types are right, and in `run_as`.
    pub(super) fn check_limits(&mut self, fields: &Fields<'_>) {
        if let Some(table) = fields.table("limits") {
            self.check_values(&Fields::new(&keys::LIMITS, table));
        }
        let Some((value, user)) = fields.get("run_as").zip(fields.text("run_as")) else { return };
        let is_name = !user.is_empty() && user.len() <= LONGEST_USER && !user.contains(['/', ':', '\n', '\0']);
        if !is_name {
            let message = format!("`{}` cannot be the name of a user", user.escape_debug());
            self.faults.add(value.span(), "bad-value", message, "name a user of this host, as `id NAME` knows it");
        }
    }

    fn check_values(&mut self, fields: &Fields<'_>) {
        if let Some((value, cpus)) = fields.get("cpus").zip(fields.number("cpus"))
            && !(LEAST_CPUS..=MOST_CPUS).contains(&cpus)
            && cpus >= 0.0
        {
            let message = format!("`cpus` cannot be {}", self.faults.source.text.get(value.span()).unwrap_or_default());
            let help = format!("use a number from {LEAST_CPUS} to {MOST_CPUS}, for example `cpus = 0.5`");
            self.faults.add(value.span(), "out-of-range", message, help);
        }
        if let Some((value, text)) = fields.get("umask").zip(fields.text("umask"))
            && umask(text).is_none()
        {
            let message = format!("`{}` is not a umask", text.escape_debug());
            self.faults.add(
                value.span(),
                "bad-value",
                message,
                "write three octal digits, for example `umask = \"027\"`",
            );
        }
        if let Some((value, time)) = fields.get("cpu_time").zip(fields.duration("cpu_time"))
            && time > Duration::from_secs(u64::from(u32::MAX))
        {
            let help = "give a shorter duration, or leave it out";
            self.faults.add(value.span(), "out-of-range", "`cpu_time` is longer than a task can run", help);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_umask_is_octal() {
        let cases = [
            ("027", Some(0o27)),
            ("0027", Some(0o27)),
            ("777", Some(0o777)),
            ("000", Some(0)),
            ("0777", Some(0o777)),
            ("7777", None),
            ("1777", None),
            ("028", None),
            ("22", Some(0o22)),
            ("00022", None),
            ("", None),
            ("0o27", None),
            ("-27", None),
            ("+27", None),
        ];
        for (text, expected) in cases {
            assert_eq!(umask(text), expected, "{text}");
        }
    }
}
