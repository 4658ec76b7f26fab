//! The operator `sensor`.

use std::ops::Range;
use std::time::Duration;

use jiff::tz::TimeZone;
use toml::de::DeValue;

use super::{Reader, keys};
use crate::keytable::{Edge, Fields, edge_of};
use crate::model::dag::Operator;
use crate::model::sensor::{ExternalTask, Pace, Sensor, SensorKind, SensorMode};
use crate::model::state::TaskState;
use crate::model::wait::Among;

const POKE_INTERVAL: Duration = Duration::from_secs(60);
/// As long as a pause of somebody who writes a file.
const SETTLE: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(7 * 86_400);

impl Reader<'_, '_> {
    /// `key` is where `sensor` stands.
    pub(super) fn sensor(&mut self, key: Range<usize>, fields: &Fields<'_>, timezone: &TimeZone) -> Operator {
        let example = "`sensor = { time_delta = \"15m\" }`";
        let Some(kind) = self
            .only_way(key, fields, keys::SENSORS, "sensor", example)
            .and_then(|way| self.sensor_kind(way, fields, timezone))
        else {
            return Operator::Empty;
        };
        if let (Some((span, _)), None | Some(false)) = (fields.entry("max_wait"), fields.bool("exponential_backoff")) {
            let message = "`max_wait` bounds an interval that grows, and this one does not";
            self.faults.add(span, "bad-operator", message, "add `exponential_backoff = true`, or remove it");
        }
        if let (Some((span, _)), false) = (fields.entry("settle"), matches!(kind, SensorKind::File { .. })) {
            let message = format!("`settle` means nothing beside `{}`", kind.name());
            self.faults.add(span, "bad-operator", message, "remove it, or wait for a `file`");
        }
        Operator::Sensor(Box::new(Sensor {
            kind,
            pace: Pace {
                poke_interval: fields.duration("poke_interval").unwrap_or(POKE_INTERVAL),
                is_exponential: fields.bool("exponential_backoff").unwrap_or(false),
                max_wait: fields.duration("max_wait"),
            },
            timeout: fields.duration("timeout").unwrap_or(TIMEOUT),
            mode: if fields.text("mode") == Some("reschedule") { SensorMode::Reschedule } else { SensorMode::Poke },
            soft_fail: fields.bool("soft_fail").unwrap_or(false),
        }))
    }

    /// None if its value has a fault.
    fn sensor_kind(&mut self, way: &str, fields: &Fields<'_>, timezone: &TimeZone) -> Option<SensorKind> {
        match way {
            "file" => {
                let settle = fields.duration("settle").unwrap_or(SETTLE);
                fields.get(way).map(|path| SensorKind::File { path: self.template(path), settle })
            }
            "time_delta" => fields.duration(way).map(SensorKind::TimeDelta),
            "date" => fields.moment(way)?.in_zone(timezone).map(SensorKind::Date),
            "time" => match edge_of(fields.get(way)?.get_ref())? {
                Edge::TimeOfDay(time) => Some(SensorKind::Time(time)),
                Edge::Open | Edge::Moment(_) => None,
            },
            "bash" => {
                let (key, value) = fields.entry(way)?;
                self.bash_of(key, value).map(SensorKind::Bash)
            }
            "python" => {
                let (key, value) = fields.entry(way)?;
                self.python_of(key, value).map(SensorKind::Python)
            }
            "http" => {
                let (key, value) = fields.entry(way)?;
                let fields = Fields::new(&keys::AWAITED_HTTP, value.get_ref().as_table()?);
                Some(SensorKind::Http(self.awaited_http(key, &fields)))
            }
            "sql" => {
                let (key, value) = fields.entry(way)?;
                let fields = Fields::new(&keys::AWAITED_SQL, value.get_ref().as_table()?);
                Some(SensorKind::Sql(self.awaited_sql(key, &fields)))
            }
            "task" => {
                let (key, value) = fields.entry(way)?;
                let DeValue::Table(table) = value.get_ref() else { return None };
                self.external_task(key, &Fields::new(&keys::EXTERNAL_TASK, table))
            }
            _ => self.days(fields).map(SensorKind::Weekday),
        }
    }

    /// `key` is where `task` stands.
    fn external_task(&mut self, key: Range<usize>, fields: &Fields<'_>) -> Option<SensorKind> {
        let Some(dag_id) = fields.text("dag_id") else {
            let help = "write for example `sensor = { task = { dag_id = \"load\", task_id = \"publish\" } }`";
            self.faults.add(key, "bad-operator", "no DAG is named that is waited for", help);
            return None;
        };
        let ways = ["task_id", "task_ids", "group_id"].map(|name| (name, fields.entry(name)));
        let given: Vec<_> = ways.into_iter().filter_map(|(name, entry)| Some((name, entry?))).collect();
        if let [(first, _), (second, (span, _)), ..] = &*given {
            let message = format!("`{first}` and `{second}` cannot stand together");
            self.faults.add(span.clone(), "bad-operator", message, "keep one of them");
        }
        let among = match given.first() {
            None => Among::Run,
            Some((_, (_, value))) => match value.get_ref() {
                DeValue::Array(ids) => {
                    Among::Tasks(ids.iter().filter_map(|id| Some(id.get_ref().as_str()?.into())).collect())
                }
                id if given[0].0 == "group_id" => Among::Group(id.as_str()?.to_owned()),
                id => Among::Tasks(vec![id.as_str()?.into()]),
            },
        };
        if among == Among::Tasks(Vec::new()) {
            self.faults.add(
                key,
                "bad-operator",
                "`task_ids` names no task",
                "name one, or leave it out to wait for the run",
            );
        }
        let states = |name: &str| -> Option<Vec<TaskState>> {
            let DeValue::Array(list) = fields.get(name)?.get_ref() else { return None };
            Some(list.iter().filter_map(|item| item.get_ref().as_str()?.parse().ok()).collect())
        };
        let lists = [
            ("allowed_states", states("allowed_states").unwrap_or_else(|| vec![TaskState::Success])),
            ("failed_states", states("failed_states").unwrap_or_default()),
            ("skipped_states", states("skipped_states").unwrap_or_default()),
        ];
        for (at, (name, states)) in lists.iter().enumerate() {
            let both = lists[..at]
                .iter()
                .find_map(|(other, known)| Some((other, states.iter().find(|state| known.contains(state))?)));
            if let (Some((other, state)), Some((span, _))) = (both, fields.entry(name)) {
                let message = format!("`{state}` is among the `{other}` and among the `{name}`");
                self.faults.add(span, "bad-operator", message, "name it in one of them");
            }
        }
        let [allowed, failed, skipped] = lists.map(|(_, states)| states);
        Some(SensorKind::Task(Box::new(ExternalTask {
            dag_id: dag_id.into(),
            among,
            execution_delta: fields.duration("execution_delta").unwrap_or_default(),
            allowed,
            failed,
            skipped,
        })))
    }
}
