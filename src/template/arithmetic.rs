//! `+` and `-` of times and durations, and Python's `'…' % values`.
//!
//! minijinja computes with numbers, texts and lists only, and has no hook for more. So when it refuses such an operation, the
//! very expression that it refused becomes a filter's call, and the template is rendered again. Others pay nothing.

use minijinja::value::Value;
use minijinja::{Error, ErrorKind};

use crate::template::datetime::{Date, DateTime, TimeDelta};

/// The filters that the refused operators become; no name that a user writes by chance.
pub(super) const PLUS: &str = "__plus__";
pub(super) const MINUS: &str = "__minus__";
pub(super) const PERCENT: &str = "__percent__";

/// How often one template is mended: one operator each time.
pub(super) const MOST: usize = 16;

/// The text with the refused operator replaced, and where that was; None if the error is another one.
pub(super) fn mend(error: &Error, text: &str) -> Option<(String, usize)> {
    let detail = error.detail().filter(|_| error.kind() == ErrorKind::InvalidOperation)?;
    let (operator, kinds) = detail.strip_prefix("tried to use ")?.split_once(" operator on unsupported types ")?;
    let (operator, filter) = match operator {
        "+" if kinds.contains("plain object") => (b'+', PLUS),
        "-" if kinds.contains("plain object") => (b'-', MINUS),
        "%" if kinds.starts_with("string ") => (b'%', PERCENT),
        _ => return None,
    };
    let range = error.range()?;
    let expression = text.get(range.clone())?;
    let at = operator_in(expression, operator)?;
    let (left, right) = (&expression[..at], &expression[at + 1..]);
    let (before, after) = (&text[..range.start], &text[range.end..]);
    Some((format!("{before}(({left})|{filter}({right})){after}"), range.start))
}

/// The last such operator outside brackets and texts: they bind from the left, so it is the outermost. None if the brackets do not match.
fn operator_in(expression: &str, operator: u8) -> Option<usize> {
    let mut found = None;
    let mut depth = 0_usize;
    let mut quote = None;
    let mut is_escaped = false;
    // A sign is an operator only behind an operand.
    let mut is_behind_operand = false;
    for (at, byte) in expression.bytes().enumerate() {
        if let Some(open) = quote {
            if byte == open && !is_escaped {
                quote = None;
            }
            is_escaped = byte == b'\\' && !is_escaped;
            continue;
        }
        match byte {
            b'"' | b'\'' => quote = Some(byte),
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.checked_sub(1)?,
            _ if byte == operator && depth == 0 && is_behind_operand => found = Some(at),
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            is_behind_operand =
                !matches!(byte, b'+' | b'-' | b'*' | b'/' | b'%' | b'~' | b'(' | b'[' | b'{' | b',' | b'=');
        }
    }
    found.filter(|_| depth == 0)
}

pub(super) fn plus(left: &Value, right: &Value) -> Result<Value, Error> {
    if let (Ok(left), Ok(right)) = (TimeDelta::of(left), TimeDelta::of(right)) {
        return Ok(Value::from_object(TimeDelta { micros: left.micros.saturating_add(right.micros) }));
    }
    let (moment, delta) = if TimeDelta::of(left).is_ok() { (right, left) } else { (left, right) };
    moved(moment, TimeDelta::of(delta).map_err(|_| refused("+", left, right))?, || refused("+", left, right))
}

pub(super) fn minus(left: &Value, right: &Value) -> Result<Value, Error> {
    if let (Some(left), Some(right)) = (left.downcast_object_ref::<DateTime>(), right.downcast_object_ref::<DateTime>())
    {
        return Ok(Value::from_object(left.since(right)));
    }
    if let (Some(left), Some(right)) = (left.downcast_object_ref::<Date>(), right.downcast_object_ref::<Date>()) {
        return Ok(Value::from_object(left.since(*right)));
    }
    let delta = TimeDelta::of(right).map_err(|_| refused("-", left, right))?.times(-1);
    match TimeDelta::of(left) {
        Ok(left) => Ok(Value::from_object(TimeDelta { micros: left.micros.saturating_add(delta.micros) })),
        Err(_) => moved(left, delta, || refused("-", left, right)),
    }
}

/// printf's formatting: one value, or a tuple of them.
pub(super) fn percent(format: &str, values: &Value) -> Result<String, Error> {
    use minijinja::formatting::{FormatStyle, format as write};
    if values.is_tuple() {
        let values: Vec<Value> = values.try_iter()?.collect();
        return write(FormatStyle::Printf, format, &values);
    }
    write(FormatStyle::Printf, format, std::slice::from_ref(values))
}

fn moved(moment: &Value, delta: TimeDelta, refused: impl FnOnce() -> Error) -> Result<Value, Error> {
    if let Some(at) = moment.downcast_object_ref::<DateTime>() {
        return at.add(delta).map(Value::from_object);
    }
    let date = moment.downcast_object_ref::<Date>().ok_or_else(refused)?;
    date.add(delta).map(Value::from_object)
}

fn refused(operator: &str, left: &Value, right: &Value) -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!(
            "cannot compute `{left} {operator} {right}`: to a time one adds a duration, e.g. `macros.timedelta(days=1)`"
        ),
    )
}
