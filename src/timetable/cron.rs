//! Cron expressions in croniter's dialect (SEMANTICS 6.2): five fields, a sixth for seconds and a seventh for years, or a preset.
//!
//! Knows no zone and no instant; [`fields`](super::fields) reads the single field, [`search`](super::search) finds the matches.

use super::ScheduleError;
use super::fields::{
    ANY, DAY, Field, HOUR, MINUTE, MONTH, Nth, Piece, SECOND, Values, WEEKDAY, YEAR, read_field, read_nearest_weekday,
    refuse_mixed_weekdays,
};
use crate::diagnostic::did_you_mean;

/// Airflow's presets, which it looks up as written, before croniter sees them.
const PRESETS: [(&str, &str); 6] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@quarterly", "0 0 1 */3 *"),
    ("@yearly", "0 0 1 1 *"),
];

/// croniter's own, which it looks up in lower case. `@quarterly` is not among them.
const CRONITER_PRESETS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

const PRESET_NAMES: &str = "@hourly, @daily, @midnight, @weekly, @monthly, @quarterly, @yearly, @annually";

/// The longest expression that is read: every value of every field written out takes a third of it, and the longest is read within a
/// millisecond.
const MAX_BYTES: usize = 4 * 1024;

/// A parsed expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    pub(super) minute: Values,
    pub(super) hour: Values,
    pub(super) day: Values,
    pub(super) month: Values,
    pub(super) weekday: Values,
    /// None: five fields, which fire at second 0.
    pub(super) second: Option<Values>,
    pub(super) year: Option<Values>,
    /// `15W`: the weekday nearest to this day stands for the day field.
    pub(super) nearest: Option<u8>,
    /// If any is set, these stand for the field of weekdays.
    pub(super) nth: Nth,
    pub(super) times: Times,
}

/// The parts of a match that the search asks for most, as bit masks: bit `n` is value `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) seconds: u64,
    pub(super) minutes: u64,
    pub(super) hours: u64,
    pub(super) months: u64,
}

/// A value of a field, as [`Cron::normalized`] lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValue {
    /// `*`
    Any,
    Number(u32),
    /// `L` as day of the month.
    Last,
}

impl Cron {
    /// Reads five to seven fields or a preset. The `range` of an error is in bytes of `text`.
    ///
    /// # Errors
    /// What the first bad field holds, and what it may hold.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        if text.len() > MAX_BYTES {
            let message = format!("a cron expression has at most {MAX_BYTES} bytes, and this one {}", text.len());
            let help = "write ranges and steps (`0-59/2`) in place of long lists".to_owned();
            return Err(ScheduleError { message, help, range: 0..text.len() });
        }
        let lower = || text.to_ascii_lowercase();
        let preset = PRESETS.iter().find(|(name, _)| *name == text);
        let preset = preset.or_else(|| CRONITER_PRESETS.iter().find(|(name, _)| *name == lower()));
        if let Some((_, fields)) = preset {
            return Self::parse_fields(fields);
        }
        if text.trim_start().starts_with('@') {
            return Err(unknown_preset(text));
        }
        Self::parse_fields(text)
    }

    fn parse_fields(text: &str) -> Result<Self, ScheduleError> {
        let pieces = split(text);
        let (minute, hour, dom, month, dow, rest) = match pieces[..] {
            [minute, hour, dom, month, dow, ref rest @ ..] if rest.len() <= 2 => (minute, hour, dom, month, dow, rest),
            _ => return Err(wrong_count(text, pieces.len())),
        };
        let mut nth = Nth::default();
        let minute = read_collapsed(&MINUTE, minute)?;
        let hour = read_collapsed(&HOUR, hour)?;
        let nearest = read_nearest_weekday(dom)?;
        let day = match nearest {
            Some(day) => Values::only(day),
            None => read_field(&DAY, dom, &mut nth)?.collapsed(&DAY, dow.text.contains('*')),
        };
        let month = read_collapsed(&MONTH, month)?;
        let weekday = read_field(&WEEKDAY, dow, &mut nth)?.collapsed(&WEEKDAY, dom.text.contains('*'));
        refuse_mixed_weekdays(&weekday, &nth, dow)?;
        let second = rest.first().map(|piece| read_collapsed(&SECOND, *piece)).transpose()?;
        let year = rest.get(1).map(|piece| read_collapsed(&YEAR, *piece)).transpose()?;
        let times = Times {
            seconds: second.map_or(1, |second| second.mask(&SECOND)),
            minutes: minute.mask(&MINUTE),
            hours: hour.mask(&HOUR),
            months: month.mask(&MONTH),
        };
        Ok(Self { minute, hour, day, month, weekday, second, year, nearest, nth, times })
    }

    /// The hour field is `*`: wall-clock jumps are ignored (SEMANTICS 6.3).
    pub(super) fn is_every_hour(&self) -> bool {
        self.hour == ANY
    }

    /// The values of each field in the order of the expression, as croniter lists them: `*` for all of a field's values. Of a field
    /// with `W`, the day; of weekdays with `#` or `L`, the weekdays.
    pub fn normalized(&self) -> Vec<Vec<FieldValue>> {
        let fields = [
            (Some(&self.minute), &MINUTE),
            (Some(&self.hour), &HOUR),
            (Some(&self.day), &DAY),
            (Some(&self.month), &MONTH),
            (Some(&self.weekday), &WEEKDAY),
            (self.second.as_ref(), &SECOND),
            (self.year.as_ref(), &YEAR),
        ];
        let list = |values: &Values, field: &Field| {
            let star = values.star.then_some(FieldValue::Any);
            let last = values.last.then_some(FieldValue::Last);
            star.into_iter().chain(values.numbers(field).map(FieldValue::Number)).chain(last).collect()
        };
        fields.into_iter().filter_map(|(values, field)| Some(list(values?, field))).collect()
    }

    /// For each weekday with `#` or `L` (Sunday is 0), which ones of the month: 1 to 5 in order, then 0 for the last.
    pub fn nth_weekdays(&self) -> Vec<(u8, Vec<u8>)> {
        let listed = |set: u8| (1..=5).chain([0]).filter(|n| set & 1 << n != 0).collect();
        (0..7).filter(|&day| self.nth[day as usize] != 0).map(|day| (day, listed(self.nth[day as usize]))).collect()
    }

    /// The day of `15W`.
    pub fn nearest_weekday(&self) -> Option<u8> {
        self.nearest
    }
}

/// A field that has neither `W` nor `#`.
fn read_collapsed(field: &Field, piece: Piece<'_>) -> Result<Values, ScheduleError> {
    Ok(read_field(field, piece, &mut Nth::default())?.collapsed(field, true))
}

/// croniter separates fields by ASCII's white space, the vertical tab included.
fn split(text: &str) -> Vec<Piece<'_>> {
    let is_space = |c: char| c.is_ascii_whitespace() || c == '\u{b}';
    let start = text.as_ptr() as usize;
    text.split(is_space)
        .filter(|piece| !piece.is_empty())
        .map(|piece| Piece { text: piece, at: piece.as_ptr() as usize - start })
        .collect()
}

fn wrong_count(text: &str, count: usize) -> ScheduleError {
    let message = match count {
        0 => "the schedule is empty".to_owned(),
        1 => format!("a cron expression has five to seven fields, and `{}` is one", text.trim()),
        _ => format!("a cron expression has five to seven fields, not {count}"),
    };
    if text.trim_start().starts_with("every ") {
        let help = "a fixed period is written `schedule = { every = \"5m\" }`".to_owned();
        return ScheduleError { message, help, range: 0..text.len() };
    }
    let help = format!(
        "write `minute hour day-of-month month day-of-week`, e.g. `0 6 * * mon-fri`, then perhaps `second` and `year`, or one of \
         {PRESET_NAMES}"
    );
    ScheduleError { message, help, range: 0..text.len() }
}

fn unknown_preset(text: &str) -> ScheduleError {
    let mut names: Vec<&str> = PRESET_NAMES.split(", ").collect();
    names.extend(["@once", "@continuous"]);
    let help = match did_you_mean(text, names) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!(
            "the presets are {PRESET_NAMES}, @once and @continuous; for a fixed period write `schedule = {{ every = \"5m\" }}`"
        ),
    };
    ScheduleError { message: format!("unknown preset `{text}`"), help, range: 0..text.len() }
}
