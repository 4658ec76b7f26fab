//! What a task's file says it needs of the host (`needs`).

use toml::Spanned;
use toml::de::DeValue;

use super::task::Layers;
use super::{Reader, UnknownPools, keys};
use crate::keytable::{Fields, print_size, rough_size};
use crate::model::{NeededMemory, Needs, Reservable};

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

    /// More than the host has is no fault, since the file may be meant for another one; on this one the task never starts.
    pub(super) fn check_reservable(&mut self, layers: &Layers<'_, '_>) {
        let Some(table) = layers.get("needs").and_then(|needs| needs.get_ref().as_table()) else { return };
        if self.defaults.unknown_pools == UnknownPools::Awaited {
            return;
        }
        let needs = Fields::new(&keys::NEEDS, table);
        let Reservable { memory, millicpus } = self.defaults.reservable;
        let mut warn = |key: &str, asked: String, in_all: String| {
            let Some(value) = needs.get(key) else { return };
            let message = format!("`needs` {asked}, and {in_all} may be reserved in all: the task can never start");
            let help = format!(
                "need less, or say `{key}` under `[admission]` in airflow.toml; without it that is all that this host has"
            );
            self.faults.warn(value.span(), "needs-too-much", message, help);
        };
        if let Some((asked, all)) = needs.size("memory").zip(memory).filter(|(asked, all)| asked > all) {
            warn("memory", format!("{} of memory", print_size(asked)), rough_size(all));
        }
        let asked = needs.number("cpus").zip(millicpus);
        if let Some((asked, all)) = asked.filter(|(cpus, all)| (cpus * 1_000.0).ceil() > f64::from(*all)) {
            warn("cpus", format!("{asked} processors"), (f64::from(all) / 1_000.0).to_string());
        }
    }
}
