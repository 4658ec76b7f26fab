//! The operator `sensor`.

use std::ops::Range;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::{Reader, keys};
use crate::keytable::{Edge, Fields, edge_of};
use crate::model::dag::Operator;
use crate::model::sensor::{Pace, Sensor, SensorKind, SensorMode};

const POKE_INTERVAL: Duration = Duration::from_secs(60);
/// As long as a pause of somebody who writes a file.
const SETTLE: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(7 * 86_400);

impl Reader<'_, '_> {
    /// `key` is where `sensor` stands.
    pub(super) fn sensor(&mut self, key: Range<usize>, fields: &Fields<'_>, timezone: &TimeZone) -> Operator {
        let example = "`sensor = { time_delta = \"15m\" }`";
        let Some(kind) = self
            .only_way(key, fields, &keys::SENSORS, "sensor", example)
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
            _ => self.days(fields).map(SensorKind::Weekday),
        }
    }
}
