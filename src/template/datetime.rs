//! Moments as templates see them: Python's and pendulum's attributes and methods.

mod object;

use jiff::civil;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan, Zoned};

use crate::jinja::arguments::{given, int_of, needed};
use crate::jinja::fault::{Fault, Res, type_error};
use crate::jinja::{Args, Items, Mark, Value, Vm, print};
use crate::template::calendar::{invalid, is_dst, named_format, ordinal, small, span_of, weekday_of, zone};
use crate::template::date::{Date, Time, unit_length, unit_start};
use crate::template::duration::{Interval, TimeDelta};
use crate::template::strftime::{self, Parts, strftime};

/// A moment with microseconds; without a zone it is naive, as Python calls it.
#[derive(Clone)]
pub(super) struct DateTime {
    at: At,
    /// Python's own class, which `macros.datetime` makes, and not pendulum's.
    is_plain: bool,
}

#[derive(Clone)]
enum At {
    Aware(Zoned),
    Naive(civil::DateTime),
}

impl DateTime {
    pub(super) fn utc(at: Timestamp) -> Self {
        Self::zoned_at(at.to_zoned(TimeZone::UTC))
    }

    pub(super) fn zoned_at(at: Zoned) -> Self {
        Self { at: At::Aware(at), is_plain: false }
    }

    pub(super) fn naive(at: civil::DateTime) -> Self {
        Self { at: At::Naive(at), is_plain: false }
    }

    /// The same as Python's own class.
    pub(super) fn plain(self) -> Self {
        Self { is_plain: true, ..self }
    }

    fn with(&self, at: At) -> Self {
        Self { at, is_plain: self.is_plain }
    }

    pub(super) fn civil(&self) -> civil::DateTime {
        match &self.at {
            At::Aware(zoned) => zoned.datetime(),
            At::Naive(at) => *at,
        }
    }

    pub(super) fn zoned(&self) -> Option<&Zoned> {
        match &self.at {
            At::Aware(zoned) => Some(zoned),
            At::Naive(_) => None,
        }
    }

    pub(super) fn parts(&self) -> Parts<'_> {
        Parts { at: self.civil(), zoned: self.zoned() }
    }

    /// The instant; a naive time counts as UTC.
    pub(super) fn timestamp(&self) -> Timestamp {
        match &self.at {
            At::Aware(zoned) => zoned.timestamp(),
            At::Naive(at) => at.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |zoned| zoned.timestamp()),
        }
    }

    /// The same, with a zone.
    pub(super) fn as_zoned(&self) -> Zoned {
        self.zoned().cloned().unwrap_or_else(|| self.timestamp().to_zoned(TimeZone::UTC))
    }

    /// The same zone with another reading of the clock.
    pub(super) fn with_civil(&self, at: civil::DateTime) -> Res<Self> {
        Ok(match &self.at {
            At::Aware(zoned) => self.with(At::Aware(at.to_zoned(zoned.time_zone().clone()).map_err(invalid)?)),
            At::Naive(_) => self.with(At::Naive(at)),
        })
    }

    pub(super) fn shifted(&self, span: Span) -> Res<Self> {
        let shifted = match &self.at {
            At::Aware(zoned) => zoned.checked_add(span).map(At::Aware),
            At::Naive(at) => at.checked_add(span).map(At::Naive),
        };
        let shifted = shifted.map_err(|_| Fault::new("OverflowError", "date value out of range"))?;
        Ok(self.with(shifted))
    }

    pub(super) fn add(&self, delta: TimeDelta) -> Res<Self> {
        self.shifted(Span::new().try_microseconds(delta.micros).map_err(invalid)?)
    }

    fn in_timezone(&self, name: &str) -> Res<Self> {
        Ok(self.with(At::Aware(self.timestamp().to_zoned(zone(name)?))))
    }

    /// With microseconds if there are any, and with the offset.
    fn text_with(&self, separator: &str) -> String {
        let format = if self.civil().subsec_nanosecond() == 0 { "%H:%M:%S" } else { "%H:%M:%S.%f" };
        let mut text = strftime(self.parts(), &format!("%Y-%m-%d{separator}{format}"));
        if let Some(zoned) = self.zoned() {
            text.push_str(&strftime::offset(zoned.offset(), ":"));
        }
        text
    }

    pub(super) fn isoformat(&self) -> String {
        self.text_with("T")
    }

    fn seconds(&self) -> f64 {
        self.timestamp().as_microsecond() as f64 / 1e6
    }

    fn start_of(&self, unit: &str) -> Res<Self> {
        let at = self.civil();
        let date = at.date();
        match unit {
            "second" => self.with_civil(at.with().subsec_nanosecond(0).build().map_err(invalid)?),
            "minute" => self.with_civil(date.at(at.hour(), at.minute(), 0, 0)),
            "hour" => self.with_civil(date.at(at.hour(), 0, 0, 0)),
            _ => self.with_civil(unit_start(date, unit)?.at(0, 0, 0, 0)),
        }
    }

    /// The last microsecond of the unit.
    fn end_of(&self, unit: &str) -> Res<Self> {
        let start = self.start_of(unit)?;
        let length = match unit {
            "second" => 1.second(),
            "minute" => 1.minute(),
            "hour" => 1.hour(),
            _ => unit_length(unit)?,
        };
        let next = start.civil().checked_add(length).map_err(invalid)?;
        start.with_civil(next.checked_sub(1.microsecond()).map_err(invalid)?)
    }

    /// `replace` and `set`: the named parts anew.
    fn replaced(&self, args: Args, method: &str) -> Res<Self> {
        let names = ["year", "month", "day", "hour", "minute", "second", "microsecond", "tzinfo", "tz", "fold"];
        let [year, month, day, hour, minute, second, micros, tzinfo, tz, _fold] = args.bind(method, names)?;
        let mut with = self.civil().with();
        if let Some(year) = given(year) {
            with = with.year(small(&year, "year")?);
        }
        type Set = fn(civil::DateTimeWith, i8) -> civil::DateTimeWith;
        let parts: [(&str, Option<Value>, Set); 5] = [
            ("month", month, civil::DateTimeWith::month),
            ("day", day, civil::DateTimeWith::day),
            ("hour", hour, civil::DateTimeWith::hour),
            ("minute", minute, civil::DateTimeWith::minute),
            ("second", second, civil::DateTimeWith::second),
        ];
        for (name, value, set) in parts {
            if let Some(value) = given(value) {
                with = set(with, small(&value, name)?);
            }
        }
        if let Some(micros) = given(micros) {
            let nanos = int_of(&micros)?.checked_mul(1000).and_then(|nanos| i32::try_from(nanos).ok());
            with = with.subsec_nanosecond(nanos.ok_or_else(|| invalid("microsecond must be in 0..999999"))?);
        }
        let at = with.build().map_err(invalid)?;
        match tzinfo.or(tz) {
            Some(Value::None) => Ok(self.with(At::Naive(at))),
            Some(name) => Ok(self.with(At::Aware(at.to_zoned(zone(&print::text(&name)?)?).map_err(invalid)?))),
            None => self.with_civil(at),
        }
    }

    /// `add` and `subtract`.
    fn moved(&self, args: Args, method: &str) -> Res<Self> {
        let sign = if method == "add" { 1 } else { -1 };
        if let [Value::Object(_)] = args.positional.as_slice() {
            let [delta] = args.all(method, ["delta"])?;
            return self.add(TimeDelta::of(&delta)?.times(sign));
        }
        let names = ["years", "months", "weeks", "days", "hours", "minutes", "seconds", "microseconds"];
        let values = args.bind(method, names)?;
        self.shifted(span_of(&values, sign)?)
    }

    fn method(&self, vm: &mut Vm<'_>, method: &str, args: Args) -> Res<Value> {
        if let Some(text) = named_format(method) {
            args.none(method)?;
            return Ok(Value::text(strftime::pendulum(self.parts(), text)));
        }
        let at = self.civil();
        match method {
            "strftime" => {
                let [format] = args.all(method, ["format"])?;
                let format = print::text(&format)?;
                strftime::weigh(&format)?;
                Ok(Value::text(strftime(self.parts(), &format)))
            }
            "format" => {
                let [format, _locale] = args.bind(method, ["fmt", "locale"])?;
                let format = print::text(&needed(format, method, "fmt")?)?;
                strftime::weigh(&format)?;
                Ok(Value::text(strftime::pendulum(self.parts(), &format)))
            }
            "isoformat" => {
                let [separator, _timespec] = args.bind(method, ["sep", "timespec"])?;
                let separator = separator.map_or(Ok("T".to_owned()), |separator| print::text(&separator))?;
                Ok(Value::text(self.text_with(&separator)))
            }
            "in_timezone" | "in_tz" | "astimezone" => {
                let [name] = args.all(method, ["tz"])?;
                Ok(Value::object(self.in_timezone(&print::text(&name)?)?))
            }
            "add" | "subtract" => Ok(Value::object(self.moved(args, method)?)),
            "replace" | "set" => Ok(Value::object(self.replaced(args, method)?)),
            "on" => {
                let [year, month, day] = args.all(method, ["year", "month", "day"])?;
                let date = civil::Date::new(small(&year, "year")?, small(&month, "month")?, small(&day, "day")?);
                Ok(Value::object(self.with_civil(date.map_err(invalid)?.to_datetime(at.time()))?))
            }
            "at" => {
                let [hour, minute, second, micros] = args.bind(method, ["hour", "minute", "second", "microsecond"])?;
                let part = |value: Option<Value>, name: &str| value.map_or(Ok(0), |value| small(&value, name));
                let nanos = micros.map_or(Ok(0), |micros| int_of(&micros))? * 1000;
                let nanos = i32::try_from(nanos).map_err(|_| invalid("microsecond must be in 0..999999"))?;
                let (hour, minute, second) = (part(hour, "hour")?, part(minute, "minute")?, part(second, "second")?);
                let time = civil::Time::new(hour, minute, second, nanos).map_err(invalid)?;
                Ok(Value::object(self.with_civil(at.date().to_datetime(time))?))
            }
            "start_of" | "end_of" => {
                let [unit] = args.all(method, ["unit"])?;
                let unit = print::text(&unit)?;
                Ok(Value::object(if method == "start_of" { self.start_of(&unit)? } else { self.end_of(&unit)? }))
            }
            "diff" => {
                let [other, absolute] = args.bind(method, ["dt", "abs"])?;
                let other = self.other(vm, other)?;
                let is_absolute = absolute.map_or(Ok(true), |absolute| absolute.is_true())?;
                let interval = Interval::between(self, &other);
                Ok(Value::object(if is_absolute { interval.absolute() } else { interval }))
            }
            "diff_for_humans" => {
                let [other, absolute, _locale] = args.bind(method, ["other", "absolute", "locale"])?;
                let other = given(other);
                let is_now = other.is_none();
                let other = self.other(vm, other)?;
                let is_absolute = absolute.map_or(Ok(false), |absolute| absolute.is_true())?;
                Ok(Value::text(Interval::between(self, &other).for_humans(is_now, is_absolute)))
            }
            "next" | "previous" => {
                let [weekday, keeps_time] = args.bind(method, ["day_of_week", "keep_time"])?;
                let weekday = weekday_of(given(weekday), at.weekday())?;
                let date = at.date().nth_weekday(if method == "next" { 1 } else { -1 }, weekday).map_err(invalid)?;
                let keeps_time = keeps_time.map_or(Ok(false), |keeps| keeps.is_true())?;
                Ok(Value::object(self.with_civil(if keeps_time {
                    date.to_datetime(at.time())
                } else {
                    date.at(0, 0, 0, 0)
                })?))
            }
            "first_of" | "last_of" | "nth_of" | "average" | "closest" | "farthest" | "is_same_day"
            | "is_anniversary" | "is_birthday" => self.compared(vm, method, args),
            _ => {
                args.none(method)?;
                self.simple(vm, method)
            }
        }
    }

    /// The other moment of a comparison; now if none is given.
    fn other(&self, vm: &Vm<'_>, other: Option<Value>) -> Res<Self> {
        match given(other) {
            None => {
                let now = vm.now();
                Ok(Self::zoned_at(now.to_zoned(self.as_zoned().time_zone().clone())))
            }
            Some(other) => Self::of(&other),
        }
    }

    /// The moment that a value is: a date is its midnight.
    pub(super) fn of(value: &Value) -> Res<Self> {
        if let Some(at) = value.downcast::<Self>() {
            return Ok(at.clone());
        }
        match value.downcast::<Date>() {
            Some(date) => Ok(Self::naive(date.day.at(0, 0, 0, 0))),
            None => type_error(format!("a datetime is wanted, not {}", value.type_name())),
        }
    }

    /// What looks at a part of the calendar around it, or at other moments.
    fn compared(&self, vm: &Vm<'_>, method: &str, args: Args) -> Res<Value> {
        let at = self.civil();
        match method {
            "first_of" | "last_of" => {
                let [unit, weekday] = args.bind(method, ["unit", "day_of_week"])?;
                let unit = print::text(&needed(unit, method, "unit")?)?;
                let start = unit_start(at.date(), &unit)?;
                let date = if method == "first_of" {
                    start
                } else {
                    start.checked_add(unit_length(&unit)?).and_then(|next| next.yesterday()).map_err(invalid)?
                };
                let date = match given(weekday) {
                    None => date,
                    Some(weekday) => {
                        let weekday = weekday_of(Some(weekday), at.weekday())?;
                        let days = if method == "first_of" {
                            weekday.since(date.weekday())
                        } else {
                            -date.weekday().since(weekday)
                        };
                        date.checked_add(i64::from(days).days()).map_err(invalid)?
                    }
                };
                Ok(Value::object(self.with_civil(date.at(0, 0, 0, 0))?))
            }
            "nth_of" => {
                let [unit, nth, weekday] = args.all(method, ["unit", "nth", "day_of_week"])?;
                let unit = print::text(&unit)?;
                let weekday = weekday_of(Some(weekday), at.weekday())?;
                let start = unit_start(at.date(), &unit)?;
                let end = start.checked_add(unit_length(&unit)?).map_err(invalid)?;
                let first = start.checked_add(i64::from(weekday.since(start.weekday())).days()).map_err(invalid)?;
                let weeks = Span::new().try_weeks(int_of(&nth)? - 1).map_err(invalid)?;
                let date = first.checked_add(weeks).map_err(invalid)?;
                if date >= end || date < start {
                    let message = format!("Unable to find occurrence {} in {unit}", int_of(&nth)?);
                    return Err(Fault::new("PendulumException", message));
                }
                Ok(Value::object(self.with_civil(date.at(0, 0, 0, 0))?))
            }
            "closest" | "farthest" => {
                let others = args.positional.iter().map(Self::of).collect::<Res<Vec<_>>>()?;
                let distance =
                    |other: &Self| (self.timestamp().as_microsecond() - other.timestamp().as_microsecond()).abs();
                let found = if method == "closest" {
                    others.into_iter().min_by_key(distance)
                } else {
                    others.into_iter().max_by_key(distance)
                };
                found.map(Value::object).ok_or_else(|| invalid(format!("{method} takes datetimes to choose from")))
            }
            _ => {
                let [other] = args.bind(method, ["dt"])?;
                let other = self.other(vm, other)?;
                let theirs = other.civil();
                Ok(match method {
                    "average" => {
                        let (one, two) = (self.timestamp().as_microsecond(), other.timestamp().as_microsecond());
                        Value::object(self.add(TimeDelta { micros: (two - one) / 2 })?)
                    }
                    "is_same_day" => Value::Bool(at.date() == theirs.date()),
                    _ => Value::Bool((at.month(), at.day()) == (theirs.month(), theirs.day())),
                })
            }
        }
    }

    /// The methods without arguments.
    fn simple(&self, vm: &Vm<'_>, method: &str) -> Res<Value> {
        let at = self.civil();
        let iso = at.date().iso_week_date();
        let number = |number: i64| Value::int(number);
        Ok(match method {
            "to_iso8601_string" => Value::text(self.isoformat().replace("+00:00", "Z")),
            "to_rfc3339_string" => Value::text(self.isoformat()),
            "for_json" => Value::text(self.isoformat()),
            "date" => Value::object(Date { day: at.date(), is_plain: self.is_plain }),
            "time" | "timetz" => Value::object(Time(at.time())),
            "timestamp" => Value::Float(self.seconds()),
            "weekday" => number(at.weekday().to_monday_zero_offset().into()),
            "isoweekday" => number(at.weekday().to_monday_one_offset().into()),
            "isocalendar" => {
                let weekday = at.weekday().to_monday_one_offset();
                let parts = [iso.year().into(), iso.week().into(), weekday.into()];
                Value::Tuple(Items::marked(parts.into_iter().map(number).collect(), Mark::Calendar))
            }
            "toordinal" => number(ordinal(at.date())),
            "ctime" => Value::text(strftime(self.parts(), "%a %b %e %H:%M:%S %Y")),
            "is_leap_year" => Value::Bool(at.date().in_leap_year()),
            "is_long_year" => {
                Value::Bool(civil::Date::new(at.year(), 12, 28).is_ok_and(|day| day.iso_week_date().week() == 53))
            }
            "is_utc" => Value::Bool(self.zoned().is_some_and(|zoned| zoned.offset().is_zero())),
            "is_local" => Value::Bool(false),
            "is_dst" => Value::Bool(self.zoned().is_some_and(is_dst)),
            "is_past" => Value::Bool(self.timestamp() < vm.now()),
            "is_future" => Value::Bool(self.timestamp() > vm.now()),
            "utcoffset" => match self.zoned() {
                Some(zoned) => Value::object(TimeDelta { micros: i64::from(zoned.offset().seconds()) * 1_000_000 }),
                None => Value::None,
            },
            "dst" => match self.zoned() {
                Some(zoned) => Value::object(TimeDelta { micros: if is_dst(zoned) { 3_600_000_000 } else { 0 } }),
                None => Value::None,
            },
            "tzname" => match self.zoned() {
                Some(_) => Value::text(strftime(self.parts(), "%Z")),
                None => Value::None,
            },
            "naive" => Value::object(self.with(At::Naive(at))),
            _ => return Err(Fault::new("AttributeError", format!("'DateTime' object has no attribute '{method}'"))),
        })
    }
}
