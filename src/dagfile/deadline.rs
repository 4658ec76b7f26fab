//! `deadlines` and `expect_by` of a DAG.

use jiff::civil;
use jiff::tz::TimeZone;
use toml::Spanned;
use toml::de::DeValue;

use super::schedule::instant;
use super::{Reader, UnknownPools, keys};
use crate::config;
use crate::keytable::{self, Edge, Fields};
use crate::model::callback::{Callback, Hook};
use crate::model::deadline::{Deadline, Reference};

/// Airflow's default of `max_runs`.
const MAX_RUNS: u32 = 10;

impl Reader<'_, '_> {
    /// A time of day in the DAG's zone.
    pub(super) fn expect_by(&mut self, fields: &Fields<'_>) -> Option<civil::Time> {
        let value = fields.get("expect_by").filter(|value| value.get_ref().is_str())?;
        match keytable::edge_of(value.get_ref()) {
            Some(Edge::TimeOfDay(time)) => Some(time),
            _ => {
                let shown: String = fields.text("expect_by").unwrap_or_default().chars().take(60).collect();
                let message = format!("`{shown}` is not a time of day");
                self.faults.add(value.span(), "bad-time", message, "write for example `expect_by = \"06:30\"`");
                None
            }
        }
    }

    pub(super) fn deadlines(&mut self, fields: &Fields<'_>, zone: &TimeZone) -> Vec<Deadline> {
        let list = fields.list("deadlines");
        list.iter().filter_map(|item| self.deadline(item, zone)).collect()
    }

    fn deadline(&mut self, item: &Spanned<DeValue<'_>>, zone: &TimeZone) -> Option<Deadline> {
        let fields = Fields::new(&keys::DEADLINE, item.get_ref().as_table()?);
        let callbacks = self.deadline_callbacks(&fields);
        let reference = self.reference(item, &fields, zone)?;
        if !matches!(reference, Reference::AverageRuntime { .. }) {
            for name in ["max_runs", "min_runs"] {
                if let Some((span, _)) = fields.entry(name) {
                    let message = format!("`{name}` goes with `reference = \"average_runtime\"` alone");
                    self.faults.add(span, "bad-deadline", message, "take it out");
                }
            }
        }
        Some(Deadline { reference, interval: fields.duration("interval").unwrap_or_default(), callbacks })
    }

    fn reference(&mut self, item: &Spanned<DeValue<'_>>, fields: &Fields<'_>, zone: &TimeZone) -> Option<Reference> {
        let help = "write `reference = \"logical_date\"`, `\"queued_at\"`, `\"average_runtime\"`, or a date-time";
        let Some(value) = fields.get("reference") else {
            self.faults.add(item.span(), "bad-deadline", "a deadline needs a `reference`", help);
            return None;
        };
        let max_runs = fields.integer("max_runs").unwrap_or(MAX_RUNS);
        let found = match value.get_ref().as_str() {
            Some("logical_date") => Some(Reference::LogicalDate),
            Some("queued_at") => Some(Reference::QueuedAt),
            Some("average_runtime") => {
                let min_runs = fields.integer("min_runs").unwrap_or(max_runs);
                if let Some((span, _)) = fields.entry("min_runs").filter(|_| min_runs > max_runs) {
                    let message =
                        format!("`min_runs` is {min_runs}, and of {max_runs} runs at most the average is taken");
                    let help = "lower it or raise `max_runs`; with fewer runs than `min_runs` there is no deadline";
                    self.faults.add(span, "bad-deadline", message, help);
                }
                Some(Reference::AverageRuntime { max_runs, min_runs })
            }
            _ => instant(fields, "reference", zone).map(Reference::At),
        };
        if found.is_none() {
            let shown: String = value.get_ref().as_str().unwrap_or("this").chars().take(60).collect();
            self.faults.add(value.span(), "bad-deadline", format!("`{shown}` is no reference of a deadline"), help);
        }
        found
    }

    /// One callback, or a list of them.
    fn deadline_callbacks(&mut self, fields: &Fields<'_>) -> Vec<Callback> {
        let Some(value) = fields.get("callback") else { return Vec::new() };
        let known = (self.defaults.unknown_pools == UnknownPools::Refused).then_some(&self.defaults.notifiers);
        let list = value.get_ref().as_array().map_or(std::slice::from_ref(value), |list| list);
        config::check_callbacks(list, Hook::Deadline, known, self.faults);
        list.iter().filter_map(|item| self.callback(item)).collect()
    }
}
