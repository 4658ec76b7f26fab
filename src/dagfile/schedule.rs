//! The keys that say when a DAG runs: schedule, zone, dates, what is made up for.

use std::ops::Range;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Reader;
use super::keys;
use crate::keytable::{self, Fields};
use crate::model::asset::AssetExpression;
use crate::model::dag::{Catchup, Crons, Every, Intervals, RunImmediately, Schedule};
use crate::timetable::Timetable;

/// The most times of `events`. A DAG keeps them all in memory.
pub const MAX_EVENTS: usize = 10_000;
/// The most expressions of `crons`: each is asked for each run.
pub const MAX_CRONS: usize = 100;

type Value<'d> = Spanned<DeValue<'d>>;

/// When a DAG runs.
pub(super) struct Timing {
    pub timezone: TimeZone,
    pub schedule: Schedule,
    pub asset_schedule: Option<AssetExpression>,
    pub start_date: Option<Timestamp>,
    pub end_date: Option<Timestamp>,
    pub catchup: Catchup,
    pub run_immediately: RunImmediately,
    pub max_active_runs: u32,
}

impl Timing {
    /// Whether runs come by themselves.
    pub fn is_scheduled(&self) -> bool {
        self.schedule != Schedule::Never || self.asset_schedule.is_some()
    }
}

/// A key and its value.
struct Entry<'d> {
    name: &'static str,
    at: Range<usize>,
    value: &'d Value<'d>,
}

/// What says when runs are due.
enum When<'d> {
    /// `cron = …`, or the text that is the whole schedule.
    Cron(&'d Value<'d>),
    Crons(&'d Value<'d>),
    Every,
    Events(&'d Value<'d>),
}

impl When<'_> {
    /// As messages call it.
    fn name(&self) -> &str {
        match self {
            Self::Cron(value) => {
                value.get_ref().as_str().filter(|text| is_preset_without_ticks(text)).unwrap_or("cron")
            }
            Self::Crons(_) => "crons",
            Self::Every => "every",
            Self::Events(_) => "events",
        }
    }

    /// Whether it goes on in ticks, with time between them.
    fn has_ticks(&self) -> bool {
        !matches!(self, Self::Events(_)) && !is_preset_without_ticks(self.name())
    }
}

fn is_preset_without_ticks(text: &str) -> bool {
    ["@once", "@continuous"].contains(&text)
}

impl Reader<'_, '_> {
    pub(super) fn timing(&mut self, fields: &Fields<'_>) -> Timing {
        let timezone = match fields.text("timezone") {
            Some(name) => crate::keytable::zone(name).unwrap_or(TimeZone::UTC),
            None => self.defaults.timezone.clone(),
        };
        let shared = fields.table("default_args").map(|document| Fields::new(&keys::DEFAULT_ARGS, document));
        // Airflow takes a DAG's start_date from its default_args, too.
        let starting = fields.get("start_date").map(|_| fields).or(shared.as_ref());
        let start_date = starting.and_then(|fields| instant(fields, "start_date", &timezone));
        let end_date = instant(fields, "end_date", &timezone);
        self.check_order(start_date, end_date, fields.get("end_date"));
        let schedule = self.schedule(fields, &timezone);
        let table = fields.get("schedule").and_then(|value| value.get_ref().as_table());
        let assets = table.and_then(|document| Fields::new(&keys::SCHEDULE, document).get("assets"));
        let asset_schedule = assets.and_then(|value| self.asset_schedule(value));
        let has_start = starting.is_some_and(|fields| fields.get("start_date").is_some());
        Timing {
            start_date,
            end_date,
            catchup: self.catchup(fields, &schedule, has_start),
            run_immediately: run_immediately(fields),
            max_active_runs: self.max_active_runs(fields, &schedule),
            schedule,
            asset_schedule,
            timezone,
        }
    }

    /// `at` is the value to point at where the end lies before the start.
    pub(super) fn check_order(&mut self, start: Option<Timestamp>, end: Option<Timestamp>, at: Option<&Value<'_>>) {
        if let (Some(start), Some(end), Some(at)) = (start, end, at)
            && start > end
        {
            let message = "`end_date` lies before `start_date`: no run would ever be due";
            self.faults.add(at.span(), "bad-dates", message, "swap the two, or leave one of them out");
        }
    }

    fn schedule(&mut self, fields: &Fields<'_>, timezone: &TimeZone) -> Schedule {
        let Some((key, value)) = fields.entry("schedule") else { return Schedule::Never };
        let when = match value.get_ref() {
            DeValue::String(_) => Some(When::Cron(value)),
            DeValue::Table(document) => self.when(key, document),
            _ => None,
        };
        let Some(when) = when else { return Schedule::Never };
        let empty = DeTable::new();
        let table = Fields::new(&keys::SCHEDULE, value.get_ref().as_table().unwrap_or(&empty));
        let intervals = self.intervals(&when, &table, fields);
        self.check_fit(&when, &table, fields);
        let zone = table.text("timezone").and_then(|name| crate::keytable::zone(name).ok());
        match when {
            When::Cron(value) => self.crons(&[value], zone, intervals, timezone),
            When::Crons(value) => self.list_of_crons(value, zone, intervals, timezone),
            When::Every => {
                table.period("every").map_or(Schedule::Never, |period| Schedule::Every(Every { period, intervals }))
            }
            When::Events(value) => self.events(value, zone.as_ref().unwrap_or(timezone)),
        }
    }

    /// The one key of the table that says when runs are due.
    fn when<'d>(&mut self, key: Range<usize>, document: &'d DeTable<'d>) -> Option<When<'d>> {
        let table = Fields::new(&keys::SCHEDULE, document);
        let mut given = ["cron", "crons", "every", "events"]
            .into_iter()
            .filter_map(|name| table.entry(name).map(|(at, value)| Entry { name, at, value }));
        let Some(first) = given.next() else {
            if table.get("assets").is_some() {
                for name in ["timezone", "interval"] {
                    if let Some((at, _)) = table.entry(name) {
                        let message = format!("`{name}` says nothing beside `assets` alone");
                        self.faults.add(at, "bad-schedule", message, "leave it out, or add a `cron`");
                    }
                }
                return None;
            }
            let is_misspelt = document.keys().any(|key| keys::SCHEDULE.find(key.get_ref()).is_none());
            if !is_misspelt && !self.faults.has_broken_lines() {
                let help = "write for example `schedule = { every = \"5m\" }`, or leave `schedule` out";
                self.faults.add(key, "bad-schedule", "`schedule` does not say when runs are due", help);
            }
            return None;
        };
        if let Some(second) = given.next() {
            let message = format!("`{}` and `{}` cannot stand together", first.name, second.name);
            let help = match (first.name, second.name) {
                ("cron", "crons") => "keep one of the two: `crons` may hold them all",
                _ => "keep one of the two, and make a second DAG for the other",
            };
            self.faults.add(second.at, "bad-schedule", message, help);
            return None;
        }
        Some(match first.name {
            "cron" => When::Cron(first.value),
            "crons" => When::Crons(first.value),
            "every" => When::Every,
            _ => When::Events(first.value),
        })
    }

    /// Which data interval the runs have. Airflow has no timetable for every combination.
    fn intervals(&mut self, when: &When<'_>, table: &Fields<'_>, fields: &Fields<'_>) -> Intervals {
        let asked = fields.bool("data_interval");
        let length = table.duration("interval");
        let is_possible = when.has_ticks() && !matches!(when, When::Crons(_));
        if asked == Some(true)
            && (length.is_some() || !is_possible)
            && let Some(value) = fields.get("data_interval")
        {
            let other = if is_possible { "interval" } else { when.name() };
            let message = format!("`data_interval = true` and `{other}` cannot stand together");
            let help = match other {
                "interval" => {
                    "keep one of the two: either runs cover the time to the next tick, or a time of fixed length before it"
                }
                "crons" => "give the time that a run covers as `interval` in `schedule`, or use a single `cron`",
                _ => "leave `data_interval` out: only `cron` and `every` have a next tick to reach to",
            };
            self.faults.add(value.span(), "bad-schedule", message, help);
        }
        match length {
            None if is_possible && asked.unwrap_or(self.defaults.data_intervals) => Intervals::Data,
            length => Intervals::Trigger(length.unwrap_or_default()),
        }
    }

    /// Keys that would say nothing beside such a schedule.
    fn check_fit(&mut self, when: &When<'_>, table: &Fields<'_>, fields: &Fields<'_>) {
        let name = when.name();
        let has_fields = when.has_ticks() && !matches!(when, When::Every);
        if let Some((at, _)) = table.entry("timezone")
            && !has_fields
            && !matches!(when, When::Events(_))
        {
            let message = format!("`{name}` has no time of day that a `timezone` could be for");
            self.faults.add(at, "bad-schedule", message, "leave it out, or use `cron`");
        }
        if let Some((at, _)) = table.entry("interval")
            && !when.has_ticks()
        {
            let message = format!("runs of `{name}` have no `interval`");
            self.faults.add(at, "bad-schedule", message, "leave it out");
        }
        if run_immediately(fields) != RunImmediately::No
            && !when.has_ticks()
            && let Some((at, _)) = fields.entry("run_immediately")
        {
            let message = format!("`run_immediately` says nothing beside `{name}`, which has no run just missed");
            self.faults.add(at, "bad-schedule", message, "leave it out");
        }
    }

    fn list_of_crons(
        &mut self,
        value: &Value<'_>,
        zone: Option<TimeZone>,
        intervals: Intervals,
        dags_zone: &TimeZone,
    ) -> Schedule {
        let Some(list) = value.get_ref().as_array() else { return Schedule::Never };
        if list.is_empty() {
            let help = "write for example `crons = [\"0 9 * * mon-fri\", \"0 11 * * sat,sun\"]`";
            self.faults.add(value.span(), "bad-schedule", "`crons` is empty", help);
            return Schedule::Never;
        }
        if list.len() > MAX_CRONS {
            let message = format!("`crons` has {} expressions, more than the limit of {MAX_CRONS}", list.len());
            self.faults.add(
                value.span(),
                "too-many-crons",
                message,
                "join some: a field may be a list, such as `9,11`",
            );
            return Schedule::Never;
        }
        let values: Vec<&Value<'_>> = list.iter().collect();
        for value in &values {
            if let Some(text) = value.get_ref().as_str().filter(|text| is_preset_without_ticks(text)) {
                let message = format!("`{text}` is no cron expression");
                let help = format!("write `schedule = \"{text}\"`, which stands alone");
                self.faults.add(value.span(), "bad-schedule", message, help);
                return Schedule::Never;
            }
        }
        self.crons(&values, zone, intervals, dags_zone)
    }

    /// Cron expressions, or a single preset of any kind.
    fn crons(
        &mut self,
        values: &[&Value<'_>],
        zone: Option<TimeZone>,
        intervals: Intervals,
        dags_zone: &TimeZone,
    ) -> Schedule {
        let mut expressions = Vec::new();
        for value in values {
            let Some(text) = value.get_ref().as_str() else { continue };
            let schedule = match text {
                "@once" => return Schedule::Once,
                "@continuous" => return Schedule::Continuous,
                _ => Schedule::Cron(Crons { expressions: vec![text.to_owned()], timezone: zone.clone(), intervals }),
            };
            if let Err(error) = Timetable::new(&schedule, dags_zone) {
                let span = self.faults.source.inner_span(&value.span(), text, error.range);
                self.faults.add(span, "bad-schedule", error.message, error.help);
            }
            expressions.push(text.to_owned());
        }
        match expressions.is_empty() {
            true => Schedule::Never,
            false => Schedule::Cron(Crons { expressions, timezone: zone, intervals }),
        }
    }

    fn events(&mut self, value: &Value<'_>, zone: &TimeZone) -> Schedule {
        let Some(list) = value.get_ref().as_array() else { return Schedule::Never };
        if list.is_empty() {
            let help = "write for example `events = [2026-12-24T18:00:00]`";
            self.faults.add(value.span(), "bad-schedule", "`events` is empty", help);
        }
        if list.len() > MAX_EVENTS {
            let message = format!("`events` has {} times, more than the limit of {MAX_EVENTS}", list.len());
            let help = "split them among several DAGs, or have a script run `minflow dags trigger --logical-date`";
            self.faults.add(value.span(), "too-many-events", message, help);
            return Schedule::Never;
        }
        let moments = list.iter().filter_map(|item| keytable::moment(item.get_ref()));
        let mut events: Vec<Timestamp> = moments.filter_map(|moment| moment.in_zone(zone)).collect();
        events.sort_unstable();
        events.dedup();
        Schedule::Events(events)
    }

    /// Airflow refuses to catch up from no date.
    fn catchup(&mut self, fields: &Fields<'_>, schedule: &Schedule, has_start: bool) -> Catchup {
        let by_default = if self.defaults.catchup { Catchup::All } else { Catchup::Latest };
        let catchup = match (fields.bool("catchup"), fields.text("catchup")) {
            (Some(true), _) | (_, Some("all")) => Catchup::All,
            (Some(false), _) | (_, Some("latest")) => Catchup::Latest,
            (_, Some(text)) => keytable::parse_prefixed(text, keys::WINDOW).map_or(by_default, Catchup::Window),
            (None, None) => by_default,
        };
        if catchup == Catchup::All && *schedule != Schedule::Never && !has_start && !self.faults.has_broken_lines() {
            let place = fields.entry("catchup").or_else(|| fields.entry("schedule"));
            let (span, _) = place.expect("a DAG with a schedule has the key `schedule`");
            let message = "catching up needs a `start_date` to start from";
            let help = "add `start_date = 2026-01-01`, or write `catchup = false`";
            self.faults.add(span, "missing-start-date", message, help);
        }
        catchup
    }

    /// Airflow: a DAG of `@continuous` with more runs is refused. Where nothing is written it is not the DAG's fault.
    fn max_active_runs(&mut self, fields: &Fields<'_>, schedule: &Schedule) -> u32 {
        let given = fields.integer("max_active_runs");
        if *schedule != Schedule::Continuous {
            return given.unwrap_or(self.defaults.max_active_runs);
        }
        if let (Some(value), Some(2..)) = (fields.get("max_active_runs"), given) {
            let message = "`@continuous` has one run at a time";
            self.faults.add(value.span(), "bad-schedule", message, "write `max_active_runs = 1`, or leave it out");
        }
        1
    }
}

fn run_immediately(fields: &Fields<'_>) -> RunImmediately {
    match (fields.bool("run_immediately"), fields.duration("run_immediately")) {
        (Some(true), _) => RunImmediately::Yes,
        (None, Some(within)) => RunImmediately::Within(within),
        _ => RunImmediately::No,
    }
}

/// The instant of a key, in this zone if it is a local time.
pub(super) fn instant(fields: &Fields<'_>, name: &str, zone: &TimeZone) -> Option<Timestamp> {
    fields.moment(name)?.in_zone(zone)
}
