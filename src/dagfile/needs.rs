//! What a task's file says it needs of the host (`needs`).

use toml::Spanned;
use toml::de::DeValue;

use super::{Reader, keys};
use crate::keytable::Fields;
use crate::model::{NeededMemory, Needs};

/// No host has as many processors.
const MOST_CPUS: f64 = 8_192.0;
/// What can be told apart.
const LEAST_CPUS: f64 = 0.001;

/// The needs of a checked table; None where it has none.
pub(super) fn needs(value: &Spanned<DeValue<'_>>) -> Option<Needs> {
    let fields = Fields::new(&keys::NEEDS, value.get_ref().as_table()?);
    let memory = match fields.text("memory") {
        Some("auto") => Some(NeededMemory::Auto),
        _ => fields.size("memory").map(NeededMemory::Bytes),
    };
    let needs = Needs { memory, millicpus: fields.number("cpus").map(|cpus| (cpus * 1_000.0).ceil() as u32) };
    (needs != Needs::default()).then_some(needs)
}

impl Reader<'_, '_> {
    /// What can be wrong in needs whose keys and types are right.
    pub(super) fn check_needs(&mut self, fields: &Fields<'_>) {
        let Some(table) = fields.table("needs") else { return };
        let needs = Fields::new(&keys::NEEDS, table);
        if let Some((value, cpus)) = needs.get("cpus").zip(needs.number("cpus"))
            && !(LEAST_CPUS..=MOST_CPUS).contains(&cpus)
            && cpus >= 0.0
        {
            let message = format!("`cpus` cannot be {}", self.faults.source.text.get(value.span()).unwrap_or_default());
            let help = format!("use a number from {LEAST_CPUS} to {MOST_CPUS}, for example `cpus = 2`");
            self.faults.add(value.span(), "out-of-range", message, help);
        }
    }
}
