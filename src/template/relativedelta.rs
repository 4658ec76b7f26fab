//! `dateutil.relativedelta`: steps of the calendar that `timedelta` cannot say, as `macros.dateutil` has them.

use std::any::Any;

use jiff::civil;

use crate::jinja::arguments::{given, int_of};
use crate::jinja::fault::{Fault, Res};
use crate::jinja::{Args, Object, Value};
use crate::template::calendar::{invalid, small};
use crate::template::date::Date;
use crate::template::datetime::DateTime;
use crate::template::duration::TimeDelta;

/// What is added, in this order; months before days, and each as it would be without the others.
const STEPS: [&str; 7] = ["years", "months", "days", "hours", "minutes", "seconds", "microseconds"];
/// What is set before anything is added.
const PARTS: [&str; 7] = ["year", "month", "day", "hour", "minute", "second", "microsecond"];
/// How many of a step make one of the step before it. A month has no such number of days.
const CARRIES: [Option<i64>; 7] = [None, Some(12), None, Some(24), Some(60), Some(60), Some(1_000_000)];
/// In microseconds, from days on.
const UNITS: [i64; 5] = [86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000, 1];

/// Steps and parts by their places in [`STEPS`] and [`PARTS`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct RelativeDelta {
    steps: [i64; 7],
    parts: [Option<i64>; 7],
}

fn out_of_range() -> Box<Fault> {
    Fault::new("OverflowError", "date value out of range")
}

impl RelativeDelta {
    /// `relativedelta(years=0, …, microseconds=0, weeks=0, year=None, …, microsecond=None)`, all by name and whole.
    ///
    /// # Errors
    /// Other arguments, or none that are whole numbers.
    pub(super) fn from_arguments(args: Args) -> Res<Self> {
        let names: [&str; 15] = [
            "*years",
            "*months",
            "*days",
            "*hours",
            "*minutes",
            "*seconds",
            "*microseconds",
            "*weeks",
            "*year",
            "*month",
            "*day",
            "*hour",
            "*minute",
            "*second",
            "*microsecond",
        ];
        let values = args.bind("relativedelta", names)?;
        let (mut steps, mut parts) = ([0; 7], [None; 7]);
        for (at, value) in values.into_iter().enumerate() {
            let Some(value) = given(value) else { continue };
            let number = int_of(&value)?;
            match at {
                0..7 => steps[at] = number,
                7 => {
                    steps[2] =
                        number.checked_mul(7).and_then(|days| days.checked_add(steps[2])).ok_or_else(out_of_range)?
                }
                _ => parts[at - 8] = Some(number),
            }
        }
        Self { steps, parts }.carried()
    }

    /// As dateutil keeps it: 90 minutes are an hour and 30 minutes.
    fn carried(mut self) -> Res<Self> {
        for at in (1..7).rev() {
            let Some(carry) = CARRIES[at] else { continue };
            let more = self.steps[at] / carry;
            self.steps[at] %= carry;
            self.steps[at - 1] = self.steps[at - 1].checked_add(more).ok_or_else(out_of_range)?;
        }
        Ok(self)
    }

    fn reversed(mut self) -> Res<Self> {
        for step in &mut self.steps {
            *step = step.checked_neg().ok_or_else(out_of_range)?;
        }
        Ok(self)
    }

    /// The parts of the later one count.
    fn and(mut self, other: Self) -> Res<Self> {
        for (step, more) in self.steps.iter_mut().zip(other.steps) {
            *step = step.checked_add(more).ok_or_else(out_of_range)?;
        }
        for (part, theirs) in self.parts.iter_mut().zip(other.parts) {
            *part = theirs.or(*part);
        }
        self.carried()
    }

    /// The parts set and the months added; a day that the month has not is its last.
    fn months_from(&self, at: civil::DateTime) -> Res<civil::DateTime> {
        let part = |place: usize, own: i64| self.parts[place].unwrap_or(own);
        let years = part(0, at.year().into())
            .checked_mul(12)
            .and_then(|months| months.checked_add(part(1, at.month().into()) - 1));
        let more = self.steps[0].checked_mul(12).and_then(|months| months.checked_add(self.steps[1]));
        let months = years.zip(more).and_then(|(months, more)| months.checked_add(more)).ok_or_else(out_of_range)?;
        let year = i16::try_from(months.div_euclid(12)).map_err(|_| out_of_range())?;
        let first = civil::Date::new(year, months.rem_euclid(12) as i8 + 1, 1).map_err(|_| out_of_range())?;
        let day = part(2, at.day().into()).min(first.days_in_month().into());
        let of_day = |place: usize, own: i8| small(&Value::int(part(place, own.into())), PARTS[place]);
        let micros = part(6, i64::from(at.subsec_nanosecond()) / 1_000);
        let time = civil::Time::new(
            of_day(3, at.hour())?,
            of_day(4, at.minute())?,
            of_day(5, at.second())?,
            micros.checked_mul(1_000).and_then(|nanos| i32::try_from(nanos).ok()).ok_or_else(out_of_range)?,
        );
        let day = i8::try_from(day).ok().and_then(|day| first.with().day(day).build().ok());
        Ok(day.ok_or_else(|| invalid("day is out of range for month"))?.to_datetime(time.map_err(invalid)?))
    }

    fn rest(&self) -> Res<TimeDelta> {
        let micros = self.steps[2..]
            .iter()
            .zip(UNITS)
            .try_fold(0_i64, |sum, (step, unit)| step.checked_mul(unit).and_then(|micros| sum.checked_add(micros)));
        Ok(TimeDelta { micros: micros.ok_or_else(out_of_range)? })
    }

    /// The moment or the day, so much later; None if it is neither.
    fn after(&self, value: &Value) -> Option<Res<Value>> {
        if let Some(at) = value.downcast::<DateTime>() {
            let moved = self.months_from(at.civil()).and_then(|civil| at.with_civil(civil));
            return Some(moved.and_then(|at| at.add(self.rest()?)).map(Value::object));
        }
        let day = value.downcast::<Date>()?;
        if self.steps[3..].iter().any(|step| *step != 0) || self.parts[3..].iter().any(Option::is_some) {
            return self.after(&Value::object(day.midnight().plain()));
        }
        let moved = self.months_from(day.day.to_datetime(civil::Time::midnight()));
        Some(moved.and_then(|at| {
            let days = jiff::Span::new().try_days(self.steps[2]).map_err(|_| out_of_range())?;
            let date = at.date().checked_add(days).map_err(|_| out_of_range())?;
            Ok(Value::object(Date { day: date, ..*day }))
        }))
    }
}

impl Object for RelativeDelta {
    fn type_name(&self) -> &str {
        "relativedelta"
    }

    fn text(&self) -> String {
        let steps =
            STEPS.iter().zip(self.steps).filter(|(_, step)| *step != 0).map(|(name, step)| format!("{name}={step:+}"));
        let parts = PARTS.iter().zip(self.parts).filter_map(|(name, part)| Some(format!("{name}={}", part?)));
        format!("relativedelta({})", steps.chain(parts).collect::<Vec<_>>().join(", "))
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        let step = STEPS.iter().position(|known| *known == name).map(|at| Value::int(self.steps[at]));
        let part = PARTS.iter().position(|known| *known == name);
        Ok(step.or(part.map(|at| self.parts[at].map_or(Value::None, Value::int))))
    }

    fn is_true(&self) -> bool {
        self.steps.iter().any(|step| *step != 0) || self.parts.iter().any(Option::is_some)
    }

    fn equals(&self, other: &Value) -> bool {
        other.downcast::<Self>() == Some(self)
    }

    fn operate(&self, operator: &str, other: &Value, is_right: bool) -> Option<Res<Value>> {
        let theirs = other.downcast::<Self>().copied();
        match (operator, theirs) {
            ("neg", _) => Some(self.reversed().map(Value::object)),
            ("pos", _) => Some(Ok(Value::object(*self))),
            ("+", Some(theirs)) => Some(self.and(theirs).map(Value::object)),
            ("-", Some(theirs)) => Some(theirs.reversed().and_then(|theirs| self.and(theirs)).map(Value::object)),
            ("+", None) => self.after(other),
            ("-", None) if is_right => match self.reversed() {
                Ok(before) => before.after(other),
                Err(fault) => Some(Err(fault)),
            },
            _ => None,
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
