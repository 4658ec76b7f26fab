//! Parts of dates and times: their attributes, arguments, zones and formats.

use std::any::Any;

use jiff::civil::{self, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Unit, Zoned};

use crate::jinja::arguments::int_of;
use crate::jinja::fault::{Fault, Res, type_error};
use crate::jinja::{Object, Value};
use crate::template::strftime;

pub(super) fn invalid(message: impl std::fmt::Display) -> Box<Fault> {
    Fault::new("ValueError", message.to_string())
}

pub(super) fn is_dst(zoned: &Zoned) -> bool {
    zoned.time_zone().to_offset_info(zoned.timestamp()).dst().is_dst()
}

/// Python's count of days since the year 1.
pub(super) fn ordinal(date: civil::Date) -> i64 {
    civil::date(1, 1, 1).until((Unit::Day, date)).map_or(0, |span| i64::from(span.get_days()) + 1)
}

/// pendulum's formats that have a method.
pub(super) fn named_format(method: &str) -> Option<&'static str> {
    Some(match method {
        "to_date_string" => "YYYY-MM-DD",
        "to_time_string" => "HH:mm:ss",
        "to_datetime_string" => "YYYY-MM-DD HH:mm:ss",
        "to_day_datetime_string" => "ddd, MMM D, YYYY h:mm A",
        "to_formatted_date_string" => "MMM DD, YYYY",
        "to_atom_string" | "to_w3c_string" => "YYYY-MM-DDTHH:mm:ssZ",
        "to_cookie_string" => "dddd, DD-MMM-YYYY HH:mm:ss zz",
        "to_rfc822_string" | "to_rfc1036_string" => "ddd, DD MMM YY HH:mm:ss ZZ",
        "to_rfc850_string" => "dddd, DD-MMM-YY HH:mm:ss zz",
        "to_rfc1123_string" | "to_rfc2822_string" | "to_rss_string" => "ddd, DD MMM YYYY HH:mm:ss ZZ",
        _ => return None,
    })
}

/// A part of a date or a time.
pub(super) fn small<T: TryFrom<i64>>(value: &Value, name: &str) -> Res<T> {
    T::try_from(int_of(value)?).map_err(|_| invalid(format!("{name} is out of range")))
}

pub(super) fn weekday_of(value: Option<Value>, default: Weekday) -> Res<Weekday> {
    match value {
        Some(day) => Weekday::from_monday_zero_offset(small(&day, "day_of_week")?).map_err(invalid),
        None => Ok(default),
    }
}

/// The zone of that IANA name, or of an offset such as `+02:00`.
pub(super) fn zone(name: &str) -> Res<TimeZone> {
    if let Some(offset) = strftime::read_offset(name) {
        return Ok(TimeZone::fixed(offset));
    }
    crate::keytable::zone(name).map_err(|_| {
        Fault::new("InvalidTimezone", format!("unknown time zone `{name}`; write an IANA name such as `Europe/Berlin`"))
    })
}

pub(super) fn zone_name(zoned: &Zoned) -> String {
    match zoned.time_zone().iana_name() {
        Some(name) => name.to_owned(),
        None => strftime::offset(zoned.offset(), ":"),
    }
}

/// Years, months, weeks, days, hours, minutes, seconds and microseconds; those of the clock may be fractions.
pub(super) fn span_of(values: &[Option<Value>; 8], sign: i64) -> Res<Span> {
    type Set = fn(Span, i64) -> Result<Span, jiff::Error>;
    let setters: [Set; 4] = [Span::try_years, Span::try_months, Span::try_weeks, Span::try_days];
    let too_large = |_| Fault::new("OverflowError", "date value out of range");
    let mut span = Span::new();
    for (value, set) in values.iter().zip(setters) {
        if let Some(value) = value {
            span = set(span, int_of(value)?.saturating_mul(sign)).map_err(too_large)?;
        }
    }
    let mut micros = 0.0;
    for (value, unit) in values[4..].iter().zip([3.6e9, 6e7, 1e6, 1.0]) {
        if let Some(value) = value {
            let Some(number) = value.as_float() else {
                return type_error(format!("a number is wanted, not {}", value.type_name()));
            };
            micros += number * unit;
        }
    }
    if micros.abs() > 9e18 {
        return Err(Fault::new("OverflowError", "date value out of range"));
    }
    span.try_microseconds((micros.round() as i64).saturating_mul(sign)).map_err(too_large)
}

/// What a date has as well.
pub(super) fn date_attribute(date: civil::Date, name: &str) -> Option<Value> {
    let number = |number: i64| Some(Value::int(number));
    match name {
        "year" => number(date.year().into()),
        "month" => number(date.month().into()),
        "day" => number(date.day().into()),
        "day_of_week" => number(date.weekday().to_monday_zero_offset().into()),
        "day_of_year" => number(date.day_of_year().into()),
        "week_of_year" => number(date.iso_week_date().week().into()),
        "week_of_month" => {
            let lead = i64::from(date.first_of_month().weekday().to_monday_zero_offset());
            number((i64::from(date.day()) + lead - 1) / 7 + 1)
        }
        "days_in_month" => number(date.days_in_month().into()),
        "quarter" => number(strftime::quarter(date).into()),
        _ => None,
    }
}

/// A time zone.
pub(super) struct Zone(pub(super) String);

impl Object for Zone {
    fn type_name(&self) -> &str {
        "Timezone"
    }

    fn text(&self) -> String {
        self.0.clone()
    }

    fn repr(&self) -> String {
        format!("Timezone('{}')", self.0)
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        Ok(matches!(name, "name" | "key").then(|| Value::text(&*self.0)))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
