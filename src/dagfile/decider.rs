//! The operators that decide which of the tasks after them run: `branch` and `short_circuit`.

use std::ops::Range;

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use toml::Spanned;
use toml::de::DeValue;

use super::{Reader, keys};
use crate::keytable::{self, Edge, Fields};
use crate::model::branching::Names;
use crate::model::dag::{Dag, Operator};
use crate::model::decider::{Bound, Branch, Choice, Condition, Question, ShortCircuit};
use crate::model::graph::TaskIx;

type Value<'d> = Spanned<DeValue<'d>>;

const WEEKDAYS: [Weekday; 7] = [
    Weekday::Monday,
    Weekday::Tuesday,
    Weekday::Wednesday,
    Weekday::Thursday,
    Weekday::Friday,
    Weekday::Saturday,
    Weekday::Sunday,
];

/// An id that a branch names in the file, to be looked up when the whole DAG is known.
pub(super) struct Named {
    /// The task that names it, by its place in the DAG.
    pub by: u32,
    pub id: String,
    pub span: Range<usize>,
}

impl Reader<'_, '_> {
    /// `key` is where the operator's name stands, `by` the task's place in the DAG.
    pub(super) fn branch(&mut self, key: Range<usize>, fields: &Fields<'_>, timezone: &TimeZone, by: u32) -> Operator {
        let ways = ["expr", "bash", "python", "weekday", "between"];
        let example = "`branch = { expr = \"{{ 'full' if params.full else 'quick' }}\" }`";
        let Some(way) = self.only_way(key.clone(), fields, &ways, "branch", example) else { return Operator::Empty };
        let is_choice = matches!(way, "weekday" | "between");
        let ends = ["if_true", "if_false"].map(|name| fields.entry(name));
        if !is_choice {
            for (span, _) in ends.into_iter().flatten() {
                let message =
                    format!("`if_true` and `if_false` mean nothing beside `{way}`, which names its choice itself");
                self.faults.add(span, "bad-operator", message, "remove it, or choose by `weekday` or `between`");
            }
            return self.question(way, fields).map_or(Operator::Empty, |asked| Operator::Branch(Branch::Ask(asked)));
        }
        if ends.iter().all(Option::is_none) {
            let help = "add `if_true = \"TASK\"`, `if_false = \"TASK\"`, or both; what is left out chooses nothing";
            self.faults.add(key, "bad-operator", "the branch names no task", help);
        }
        let [if_true, if_false] =
            ends.map(|end| end.map_or(serde_json::json!([]), |(_, value)| self.choice(value, by)));
        let condition =
            if way == "weekday" { self.days(fields).map(Condition::Weekday) } else { self.between(fields, timezone) };
        condition.map_or(Operator::Empty, |condition| {
            Operator::Branch(Branch::When(Choice { condition, if_true, if_false }))
        })
    }

    pub(super) fn short_circuit(&mut self, key: Range<usize>, fields: &Fields<'_>) -> Operator {
        let example = "`short_circuit = { expr = \"{{ params.is_wanted }}\" }`";
        let asked = self
            .only_way(key, fields, &["expr", "bash", "python"], "short_circuit", example)
            .and_then(|way| self.question(way, fields));
        asked.map_or(Operator::Empty, |question| {
            Operator::ShortCircuit(ShortCircuit {
                question,
                ignore_downstream_trigger_rules: fields.bool("ignore_downstream_trigger_rules").unwrap_or(true),
            })
        })
    }

    /// The one of `ways` that is given.
    pub(super) fn only_way(
        &mut self,
        key: Range<usize>,
        fields: &Fields<'_>,
        ways: &[&'static str],
        operator: &str,
        example: &str,
    ) -> Option<&'static str> {
        let mut given = ways.iter().filter_map(|way| Some((*way, fields.entry(way)?.0)));
        let listed: Vec<String> = ways.iter().map(|way| format!("`{way}`")).collect();
        let Some((way, _)) = given.next() else {
            let message = format!("`{operator}` asks nothing");
            let help = format!("give it one of {}, for example {example}", listed.join(", "));
            self.faults.add(key, "bad-operator", message, help);
            return None;
        };
        for (other, span) in given {
            let message = format!("`{operator}` asks twice, by `{way}` and by `{other}`");
            self.faults.add(span, "bad-operator", message, "keep one of them");
        }
        Some(way)
    }

    /// None if its value has a fault.
    fn question(&mut self, way: &str, fields: &Fields<'_>) -> Option<Question> {
        let (key, value) = fields.entry(way)?;
        Some(match (way, value.get_ref()) {
            ("expr", DeValue::String(_)) => Question::Expr(self.template(value)),
            ("bash", _) => Question::Bash(self.bash_of(key, value)?),
            ("python", _) => Question::Python(self.python_of(key, value)?),
            _ => return None,
        })
    }

    /// An id or a list of ids, which are looked up later.
    fn choice(&mut self, value: &Value<'_>, by: u32) -> serde_json::Value {
        let items = value.get_ref().as_array().map_or(std::slice::from_ref(value), |list| list);
        for item in items {
            let Some(id) = item.get_ref().as_str() else { continue };
            self.named.push(Named { by, id: id.to_owned(), span: item.span() });
        }
        keytable::json(value.get_ref()).unwrap_or_default()
    }

    pub(super) fn days(&mut self, fields: &Fields<'_>) -> Option<Vec<Weekday>> {
        let value = fields.get("weekday")?;
        let mut days = Vec::new();
        for item in value.get_ref().as_array()?.iter() {
            let text = item.get_ref().as_str().unwrap_or_default();
            match weekday(text) {
                Some(day) => days.push(day),
                None if item.get_ref().is_str() => {
                    let shown: String = text.chars().take(60).collect();
                    let message = format!("`{shown}` is not a day of the week");
                    let help = match keytable::suggest(text, keys::WEEKDAYS) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "write for example `\"Mon\"` or `\"Monday\"`".to_owned(),
                    };
                    self.faults.add(item.span(), "bad-value", message, help);
                }
                None => {}
            }
        }
        if value.get_ref().as_array().is_some_and(|list| list.is_empty()) {
            let help = "name the days, for example `weekday = [\"Sat\", \"Sun\"]`";
            self.faults.add(value.span(), "bad-value", "`weekday` is an empty list", help);
        }
        Some(days)
    }

    fn between(&mut self, fields: &Fields<'_>, timezone: &TimeZone) -> Option<Condition> {
        let value = fields.get("between")?;
        let items = value.get_ref().as_array()?;
        let help = "write for example `between = [\"22:00\", \"04:00\"]`; an empty text leaves that end open";
        let edges: Vec<Edge> = items.iter().filter_map(|item| keytable::edge_of(item.get_ref())).collect();
        if items.len() != 2 {
            let message = format!("`between` takes two ends, and here are {}", items.len());
            self.faults.add(value.span(), "bad-value", message, help);
        }
        let &[lower, upper] = &edges[..] else { return None };
        if (lower, upper) == (Edge::Open, Edge::Open) {
            self.faults.add(value.span(), "bad-value", "`between` is open at both ends", help);
        }
        let bound = |edge: Edge| match edge {
            Edge::Open => None,
            Edge::TimeOfDay(time) => Some(Bound::TimeOfDay(time)),
            Edge::Moment(moment) => moment.in_zone(timezone).map(Bound::At),
        };
        let (lower, upper) = (bound(lower), bound(upper));
        if let (Some(Bound::At(begins)), Some(Bound::At(ends))) = (lower, upper)
            && ends < begins
        {
            let message = "`between` ends before it begins";
            self.faults.add(value.span(), "bad-dates", message, "swap the two, or correct one of them");
        }
        Some(Condition::Between { lower, upper })
    }

    /// The ids that branches name in the file must mean something.
    pub(super) fn check_named(&mut self, dag: &Dag) {
        // A task on a line that is no TOML may be missing.
        if self.named.is_empty() || self.faults.has_broken_lines() {
            return;
        }
        let names = Names::of(dag);
        for Named { by, id, span } in std::mem::take(&mut self.named) {
            if names.targets(TaskIx(by), &id).is_some() {
                continue;
            }
            let near = if self.faults.is_full() { None } else { keytable::suggest(&id, names.known()) };
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => "name a task or a group of this DAG".to_owned(),
            };
            let shown: String = id.chars().take(60).collect();
            self.faults.add(span, "unknown-task", format!("there is no task or group `{shown}`"), help);
        }
    }
}

fn weekday(text: &str) -> Option<Weekday> {
    let is_day = |name: &&str| text.eq_ignore_ascii_case(name) || text.eq_ignore_ascii_case(&name[..3]);
    keys::WEEKDAYS.iter().position(is_day).map(|at| WEEKDAYS[at])
}
