//! `macros`: Airflow's functions and the parts of Python's standard library that it hands to templates.

use std::any::Any;

use jiff::civil;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::jinja::arguments::{given, int_of, needed, text_of};
use crate::jinja::fault::{Fault, Res, type_error};
use crate::jinja::json::{Layout, dumps, loads};
use crate::jinja::{Args, Callable, Object, Value, Vm, format, print};
use crate::template::calendar::{invalid, small, zone};
use crate::template::date::Date;
use crate::template::datetime::DateTime;
use crate::template::duration::{Interval, TimeDelta};
use crate::template::relativedelta::RelativeDelta;
use crate::template::strftime::{self, Parts, strptime};
use crate::template::{locale, yaml};

/// The variable `macros`.
pub(super) struct Macros;

impl Object for Macros {
    fn type_name(&self) -> &str {
        "airflow.sdk.execution_time.context.MacrosAccessor"
    }

    fn text(&self) -> String {
        "<macros>".to_owned()
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        type Call = fn(&mut Vm<'_>, Args) -> Res<Value>;
        let function = |name: &'static str, call: Call| Some(Value::object(Callable::new(name, call)));
        Ok(match name {
            "ds_add" => function("ds_add", ds_add),
            "ds_format" => function("ds_format", ds_format),
            "ds_format_locale" => function("ds_format_locale", ds_format_locale),
            "datetime_diff_for_humans" => function("datetime_diff_for_humans", diff_for_humans),
            "random" => function("random", |vm, args| {
                args.none("random")?;
                Ok(Value::Float((vm.random() >> 11) as f64 / (1_u64 << 53) as f64))
            }),
            "timedelta" => Some(Value::object(Module::TimeDelta)),
            "datetime" => Some(Value::object(Module::DateTime)),
            "dateutil" => Some(Value::object(Module::Dateutil)),
            "json" => Some(Value::object(Module::Json)),
            "time" => Some(Value::object(Module::Time)),
            "uuid" => Some(Value::object(Module::Uuid)),
            "yaml" => Some(Value::object(Module::Yaml)),
            _ => None,
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn strptime_of(text: &str, format: &str) -> Res<DateTime> {
    let (at, offset) = strptime(text, format).map_err(invalid)?;
    Ok(match offset {
        Some(offset) => DateTime::zoned_at(at.to_zoned(offset.to_time_zone()).map_err(invalid)?),
        None => DateTime::naive(at),
    }
    .plain())
}

/// `macros.ds_add(ds, days)`.
fn ds_add(_: &mut Vm<'_>, args: Args) -> Res<Value> {
    let [ds, days] = args.all("ds_add", ["ds", "days"])?;
    let (at, _) = strptime(text_of(&ds, "strptime() argument 1")?, "%Y-%m-%d").map_err(invalid)?;
    let days = Span::new().try_days(int_of(&days)?).map_err(invalid)?;
    let date = at.date().checked_add(days).map_err(|_| Fault::new("OverflowError", "date value out of range"))?;
    Ok(Value::text(date.to_string()))
}

/// `macros.ds_format(ds, input_format, output_format)`.
fn ds_format(_: &mut Vm<'_>, args: Args) -> Res<Value> {
    let [ds, input, output] = args.all("ds_format", ["ds", "input_format", "output_format"])?;
    let at = strptime_of(&print::text(&ds)?, text_of(&input, "the input format")?)?;
    let output = text_of(&output, "the output format")?;
    strftime::weigh(output)?;
    Ok(Value::text(strftime::strftime(at.parts(), output)))
}

/// `macros.ds_format_locale(ds, input_format, output_format, locale=None)`.
fn ds_format_locale(_: &mut Vm<'_>, args: Args) -> Res<Value> {
    let names = ["ds", "input_format", "output_format", "locale"];
    let [ds, input, output, name] = args.bind("ds_format_locale", names)?;
    let text =
        |value: Option<Value>, name| needed(value, "ds_format_locale", name).and_then(|value| print::text(&value));
    let at = strptime_of(&text(ds, "ds")?, &text(input, "input_format")?)?;
    let output = text(output, "output_format")?;
    if let Some(name) = given(name) {
        let name = print::text(&name)?;
        if !name.starts_with("en") {
            return Err(Fault::new(
                "UnknownLocaleError",
                format!(
                    "locale `{name}` is not known: there is English alone; leave `locale` out, or format the date in the task"
                ),
            ));
        }
    }
    Ok(Value::text(locale::format(at.civil(), &output)))
}

/// `macros.datetime_diff_for_humans(dt, since=None)`.
fn diff_for_humans(vm: &mut Vm<'_>, args: Args) -> Res<Value> {
    let [at, since] = args.bind("datetime_diff_for_humans", ["dt", "since"])?;
    let at = DateTime::of(&needed(at, "datetime_diff_for_humans", "dt")?)?;
    let since = given(since);
    let other = since.as_ref().map_or_else(|| Ok(DateTime::utc(vm.now())), DateTime::of)?;
    Ok(Value::text(Interval::between(&at, &other).for_humans(since.is_none(), false)))
}

/// A Python module or class inside `macros`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Module {
    DateTime,
    TimeDelta,
    Json,
    Dateutil,
    DateutilParser,
    DateutilRelativedelta,
    Time,
    Uuid,
    Yaml,
}

impl Object for Module {
    fn type_name(&self) -> &str {
        match self {
            Self::DateTime | Self::TimeDelta => "type",
            _ => "module",
        }
    }

    fn text(&self) -> String {
        match self {
            Self::DateTime => "<class 'datetime.datetime'>",
            Self::TimeDelta => "<class 'datetime.timedelta'>",
            Self::Json => "<module 'json'>",
            Self::Dateutil => "<module 'dateutil'>",
            Self::DateutilParser => "<module 'dateutil.parser'>",
            Self::DateutilRelativedelta => "<module 'dateutil.relativedelta'>",
            Self::Time => "<module 'time'>",
            Self::Uuid => "<module 'uuid'>",
            Self::Yaml => "<module 'yaml'>",
        }
        .to_owned()
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        let plain = |at: civil::DateTime| Value::object(DateTime::naive(at).plain());
        Ok(match (self, name) {
            (Self::Dateutil, "parser") => Some(Value::object(Self::DateutilParser)),
            (Self::Dateutil, "relativedelta") => Some(Value::object(Self::DateutilRelativedelta)),
            (Self::DateTime, "min") => Some(plain(civil::datetime(1, 1, 1, 0, 0, 0, 0))),
            (Self::DateTime, "max") => Some(plain(civil::datetime(9999, 12, 31, 23, 59, 59, 999_999_000))),
            (Self::Uuid, _) => {
                NAMESPACES.iter().find(|(known, _)| *known == name).map(|(_, id)| Value::object(Uuid(*id)))
            }
            _ => None,
        })
    }

    fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::DateTime => {
                &["strptime", "fromisoformat", "fromtimestamp", "utcfromtimestamp", "now", "utcnow", "today", "combine"]
            }
            Self::DateutilParser => &["parse", "isoparse"],
            Self::DateutilRelativedelta => &["relativedelta"],
            Self::Json => &["dumps", "loads"],
            Self::Time => &["time", "strftime", "time_ns"],
            Self::Uuid => &["uuid4", "uuid5", "UUID"],
            Self::Yaml => &["dump", "safe_dump", "safe_load", "load"],
            Self::TimeDelta | Self::Dateutil => &[],
        }
    }

    fn is_callable(&self) -> bool {
        matches!(self, Self::DateTime | Self::TimeDelta)
    }

    fn call(&self, _: &mut Vm<'_>, args: Args) -> Res<Value> {
        match self {
            Self::DateTime => new_datetime(args),
            Self::TimeDelta => TimeDelta::from_arguments(args).map(Value::object),
            _ => type_error("'module' object is not callable"),
        }
    }

    fn call_method(&self, vm: &mut Vm<'_>, method: &str, args: Args) -> Res<Value> {
        match self {
            Self::DateTime => of_datetime(vm, method, args),
            Self::Time => of_time(vm, method, args),
            Self::Uuid => of_uuid(vm, method, args),
            Self::Json => of_json(method, args),
            Self::Yaml => of_yaml(method, args),
            Self::DateutilRelativedelta => RelativeDelta::from_arguments(args).map(Value::object),
            _ => {
                let [text] = args.all(method, ["timestr"])?;
                parse_date(&print::text(&text)?)
            }
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn of_datetime(vm: &Vm<'_>, method: &str, args: Args) -> Res<Value> {
    let at = match method {
        "strptime" => {
            let [text, format] = args.all(method, ["date_string", "format"])?;
            strptime_of(text_of(&text, "strptime() argument 1")?, text_of(&format, "strptime() argument 2")?)?
        }
        "fromisoformat" => {
            let [text] = args.all(method, ["date_string"])?;
            let text = print::text(&text)?;
            iso(&text).ok_or_else(|| invalid(format!("Invalid isoformat string: {}", print::quoted(&text))))?
        }
        "fromtimestamp" | "utcfromtimestamp" => {
            let [seconds, tz] = args.bind(method, ["timestamp", "tz"])?;
            let Some(seconds) = needed(seconds, method, "timestamp")?.as_float() else {
                return type_error("a timestamp is a number");
            };
            let instant = Timestamp::from_microsecond((seconds * 1e6).round() as i64).map_err(invalid)?;
            in_zone(instant, tz)?
        }
        "now" => {
            let [tz] = args.bind(method, ["tz"])?;
            in_zone(vm.now(), tz)?
        }
        "combine" => {
            let [date, time] = args.all(method, ["date", "time"])?;
            let (Some(date), Some(time)) = (date.downcast::<Date>(), time.downcast::<crate::template::date::Time>())
            else {
                return type_error("combine() takes a date and a time");
            };
            DateTime::naive(date.day.to_datetime(time.0))
        }
        _ => {
            args.none(method)?;
            in_zone(vm.now(), None)?
        }
    };
    Ok(Value::object(at.plain()))
}

/// Naive in UTC unless a zone is given.
fn in_zone(instant: Timestamp, tz: Option<Value>) -> Res<DateTime> {
    Ok(match given(tz) {
        Some(tz) => DateTime::zoned_at(instant.to_zoned(zone(&print::text(&tz)?)?)),
        None => DateTime::naive(TimeZone::UTC.to_datetime(instant)),
    })
}

fn of_time(vm: &Vm<'_>, method: &str, args: Args) -> Res<Value> {
    if method == "strftime" {
        let [format] = args.all(method, ["format"])?;
        return Ok(Value::text(strftime::utc(vm.now(), &print::text(&format)?)));
    }
    args.none(method)?;
    let micros = vm.now().as_microsecond();
    Ok(if method == "time" { Value::Float(micros as f64 / 1e6) } else { Value::int(i128::from(micros) * 1000) })
}

fn of_json(method: &str, args: Args) -> Res<Value> {
    if method == "loads" {
        let [text] = args.all(method, ["s"])?;
        return loads(text_of(&text, "the JSON object")?);
    }
    let names = ["obj", "*indent", "*sort_keys", "*ensure_ascii", "*separators", "*default"];
    let [value, indent, sorts_keys, ascii, separators, default] = args.bind(method, names)?;
    let indent = match given(indent) {
        None => None,
        Some(Value::Text(text)) => Some(text.as_str().to_owned()),
        Some(width) => Some(" ".repeat(format::width(usize::try_from(int_of(&width)?).unwrap_or(0))?)),
    };
    let flag = |value: Option<Value>, default| value.map_or(Ok(default), |value| value.is_true());
    let mut layout = Layout {
        indent,
        sorts_keys: flag(sorts_keys, false)?,
        escapes_unicode: flag(ascii, true)?,
        ..Layout::default()
    };
    if let Some(separators) = given(separators) {
        match <[Value; 2]>::try_from(separators.to_vec()?) {
            Ok([items, keys]) => {
                layout.between_items = print::text(&items)?;
                layout.behind_keys = print::text(&keys)?;
            }
            Err(_) => return type_error("separators are two texts"),
        }
    }
    let value = needed(value, method, "obj")?;
    match given(default) {
        // `default=str`, as most people write it: whatever JSON has not becomes its text.
        Some(_) => {
            dumps(&crate::jinja::json::from_json(&crate::jinja::json::to_json(&value)?), &layout).map(Value::text)
        }
        None => dumps(&value, &layout).map(Value::text),
    }
}

fn of_yaml(method: &str, args: Args) -> Res<Value> {
    if method.ends_with("load") {
        let [text, _loader] = args.bind(method, ["stream", "Loader"])?;
        return yaml::load(&print::text(&needed(text, method, "stream")?)?);
    }
    let names = ["data", "*default_flow_style", "*sort_keys", "*indent", "*allow_unicode", "*width"];
    let [value, flow, sorts_keys, _indent, _unicode, _width] = args.bind(method, names)?;
    let flag = |value: Option<Value>, default| value.map_or(Ok(default), |value| value.is_true());
    let value = needed(value, method, "data")?;
    yaml::dump(&value, flag(flow, false)?, flag(sorts_keys, true)?).map(Value::text)
}

/// A UUID.
struct Uuid([u8; 16]);

const NAMESPACES: [(&str, [u8; 16]); 4] = [
    ("NAMESPACE_DNS", *b"\x6b\xa7\xb8\x10\x9d\xad\x11\xd1\x80\xb4\x00\xc0\x4f\xd4\x30\xc8"),
    ("NAMESPACE_URL", *b"\x6b\xa7\xb8\x11\x9d\xad\x11\xd1\x80\xb4\x00\xc0\x4f\xd4\x30\xc8"),
    ("NAMESPACE_OID", *b"\x6b\xa7\xb8\x12\x9d\xad\x11\xd1\x80\xb4\x00\xc0\x4f\xd4\x30\xc8"),
    ("NAMESPACE_X500", *b"\x6b\xa7\xb8\x14\x9d\xad\x11\xd1\x80\xb4\x00\xc0\x4f\xd4\x30\xc8"),
];

impl Uuid {
    fn versioned(mut bytes: [u8; 16], version: u8) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | (version << 4);
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }

    fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Object for Uuid {
    fn type_name(&self) -> &str {
        "UUID"
    }

    fn text(&self) -> String {
        let hex = self.hex();
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }

    fn repr(&self) -> String {
        format!("UUID('{}')", self.text())
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        Ok(match name {
            "hex" => Some(Value::text(self.hex())),
            "version" => Some(Value::int(self.0[6] >> 4)),
            _ => None,
        })
    }

    fn order(&self, other: &Value) -> Option<std::cmp::Ordering> {
        Some(self.0.cmp(&other.downcast::<Self>()?.0))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn of_uuid(vm: &mut Vm<'_>, method: &str, args: Args) -> Res<Value> {
    match method {
        "uuid4" => {
            args.none(method)?;
            let bits = (u128::from(vm.random()) << 64) | u128::from(vm.random());
            Ok(Value::object(Uuid::versioned(bits.to_be_bytes(), 4)))
        }
        "uuid5" => {
            let [namespace, name] = args.all(method, ["namespace", "name"])?;
            let Some(namespace) = namespace.downcast::<Uuid>() else { return type_error("the namespace is a UUID") };
            let mut hash = sha1_smol::Sha1::from(namespace.0);
            hash.update(print::text(&name)?.as_bytes());
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&hash.digest().bytes()[..16]);
            Ok(Value::object(Uuid::versioned(bytes, 5)))
        }
        _ => {
            let [text] = args.all(method, ["hex"])?;
            let hex: String = print::text(&text)?.chars().filter(|c| c.is_ascii_hexdigit()).collect();
            let bits = if hex.len() == 32 { u128::from_str_radix(&hex, 16).ok() } else { None };
            let bits = bits.ok_or_else(|| invalid("badly formed hexadecimal UUID string"))?;
            Ok(Value::object(Uuid(bits.to_be_bytes())))
        }
    }
}

/// `datetime(year, month, day, hour=0, minute=0, second=0, microsecond=0, tzinfo=None)`.
fn new_datetime(args: Args) -> Res<Value> {
    let names = ["year", "month", "day", "hour", "minute", "second", "microsecond", "tzinfo", "*fold"];
    let [year, month, day, hour, minute, second, micros, tzinfo, _fold] = args.bind("datetime", names)?;
    let part = |value: Option<Value>, name: &str| -> Res<i8> { small(&needed(value, "datetime", name)?, name) };
    let or_zero = |value: Option<Value>, name: &str| value.map_or(Ok(0), |value| small(&value, name));
    let year = small(&needed(year, "datetime", "year")?, "year")?;
    let nanos =
        micros.map_or(Ok(0), |micros| int_of(&micros))?.checked_mul(1000).and_then(|nanos| i32::try_from(nanos).ok());
    let at = civil::DateTime::new(
        year,
        part(month, "month")?,
        part(day, "day")?,
        or_zero(hour, "hour")?,
        or_zero(minute, "minute")?,
        or_zero(second, "second")?,
        nanos.ok_or_else(|| invalid("microsecond must be in 0..999999"))?,
    )
    .map_err(invalid)?;
    let at = match given(tzinfo) {
        Some(tz) => DateTime::zoned_at(at.to_zoned(zone(&print::text(&tz)?)?).map_err(invalid)?),
        None => DateTime::naive(at),
    };
    Ok(Value::object(at.plain()))
}

/// ISO 8601 as Python reads it: a date, or a date and a time, with or without an offset.
fn iso(text: &str) -> Option<DateTime> {
    let text = text.trim();
    let aware = text.parse::<Timestamp>().ok().and_then(|_| {
        let pieces = jiff::fmt::temporal::Pieces::parse(text).ok()?;
        let offset =
            pieces.to_numeric_offset().or_else(|| text.ends_with(['Z', 'z']).then_some(jiff::tz::Offset::UTC))?;
        pieces.date().to_datetime(pieces.time()?).to_zoned(offset.to_time_zone()).ok()
    });
    match aware {
        Some(zoned) => {
            let is_utc = zoned.offset().is_zero();
            Some(DateTime::zoned_at(if is_utc { zoned.with_time_zone(TimeZone::UTC) } else { zoned }))
        }
        None => text.parse::<civil::DateTime>().ok().map(DateTime::naive),
    }
}

/// What `dateutil.parser.parse` is asked for: ISO 8601, and dates as people write them, the month first where digits leave it open.
fn parse_date(text: &str) -> Res<Value> {
    const DATES: [&str; 16] = [
        "%Y-%m-%d",
        "%Y/%m/%d",
        "%Y.%m.%d",
        "%Y%m%d",
        "%m/%d/%Y",
        "%m-%d-%Y",
        "%d.%m.%Y",
        "%m/%d/%y",
        "%d %b %Y",
        "%d %B %Y",
        "%b %d, %Y",
        "%b %d %Y",
        "%B %d, %Y",
        "%d-%b-%Y",
        "%a, %d %b %Y",
        "%A, %B %d, %Y",
    ];
    const MOST_DATE_BYTES: usize = 200;
    const TIMES: [&str; 10] = [
        "",
        " %H:%M",
        " %H:%M:%S",
        " %H:%M:%S.%f",
        " %I:%M %p",
        " %I:%M%p",
        " %I %p",
        "T%H%M%S",
        " %H:%M:%S %z",
        " %H:%M:%S%z",
    ];
    // No date is as long, and each of the many forms is tried on it.
    if text.len() > MOST_DATE_BYTES {
        let message = format!("a text of {} bytes is no date or time; write e.g. '2024-02-03T04:05:06'", text.len());
        return Err(Fault::new("ParserError", message));
    }
    if let Some(found) = iso(text) {
        return Ok(Value::object(found.plain()));
    }
    for date in DATES {
        for time in TIMES {
            if let Ok(found) = strptime_of(text.trim(), &format!("{date}{time}")) {
                return Ok(Value::object(found));
            }
        }
    }
    Err(Fault::new(
        "ParserError",
        format!("{} is no date or time that is known here; write e.g. '2024-02-03T04:05:06'", print::quoted(text)),
    ))
}

/// For the parts of a date that has no zone.
pub(super) fn parts_of(at: civil::DateTime) -> Parts<'static> {
    Parts { at, zoned: None }
}
