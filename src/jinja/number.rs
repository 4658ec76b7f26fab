//! Numbers as texts, and texts as numbers, as Python writes and reads them.

use crate::jinja::fault::{Fault, Res};
use crate::jinja::print;

/// How a float is written.
pub struct Style {
    /// `e`, `f`, `g`, their capitals, or `r` as `repr` does.
    pub kind: char,
    pub digits: Option<usize>,
    /// `-`, `+` or a space.
    pub sign: char,
    /// `#`: keeps the point and the zeros.
    pub is_alternate: bool,
}

fn signed(is_negative: bool, sign: char) -> &'static str {
    match (is_negative, sign) {
        (true, _) => "-",
        (_, '+') => "+",
        (_, ' ') => " ",
        _ => "",
    }
}

/// A whole number in the base of `kind`: `d`, `b`, `o`, `x` or `X`.
pub fn integer(number: i128, kind: char, sign: char, has_prefix: bool) -> String {
    let size = number.unsigned_abs();
    let (prefix, digits) = match kind {
        'b' => ("0b", format!("{size:b}")),
        'o' => ("0o", format!("{size:o}")),
        'x' => ("0x", format!("{size:x}")),
        'X' => ("0X", format!("{size:X}")),
        _ => ("", size.to_string()),
    };
    format!("{}{}{digits}", signed(number < 0, sign), if has_prefix { prefix } else { "" })
}

/// A float in one of Python's styles.
pub fn float(number: f64, style: &Style) -> String {
    let sign = signed(number.is_sign_negative() && !number.is_nan(), style.sign);
    let size = number.abs();
    let kind = style.kind.to_ascii_lowercase();
    let digits = style.digits.unwrap_or(6);
    let body = if size.is_nan() {
        "nan".to_owned()
    } else if size.is_infinite() {
        "inf".to_owned()
    } else {
        match kind {
            'f' => format!("{size:.digits$}") + if style.is_alternate && digits == 0 { "." } else { "" },
            'e' => exponent(&format!("{size:.digits$e}")),
            'r' if style.digits.is_none() => print::float(size),
            'r' => general(size, digits.max(1), style.is_alternate, true),
            _ => general(size, digits.max(1), style.is_alternate, false),
        }
    };
    let body = if style.kind.is_ascii_uppercase() { body.to_uppercase() } else { body };
    format!("{sign}{body}")
}

/// Rust's `1.5e3` as Python's `1.5e+03`.
fn exponent(text: &str) -> String {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, size) = match exponent.strip_prefix('-') {
        Some(size) => ('-', size),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{size:0>2}")
}

/// `g`: so many digits, with an exponent where the number is very large or small. `keeps_point`: a whole number keeps `.0`.
fn general(size: f64, digits: usize, is_alternate: bool, keeps_point: bool) -> String {
    let scientific = format!("{size:.*e}", digits - 1);
    let power: i32 = scientific.split_once('e').and_then(|(_, power)| power.parse().ok()).unwrap_or(0);
    let trimmed = |text: String| {
        if is_alternate || !text.contains('.') {
            return text;
        }
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if power < -4 || power >= digits as i32 {
        let (mantissa, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        return exponent(&format!("{}e{power}", trimmed(mantissa.to_owned())));
    }
    let decimals = usize::try_from(digits as i32 - 1 - power).unwrap_or(0);
    let text = trimmed(format!("{size:.decimals$}"));
    if keeps_point && !text.contains('.') { text + ".0" } else { text }
}

/// Marks every third digit (or fourth) of the whole part.
pub fn grouped(text: &str, mark: char, every: usize) -> String {
    let start = text.find(|c: char| c.is_ascii_hexdigit()).unwrap_or(0);
    let end = text[start..].find(|c: char| !c.is_ascii_hexdigit()).map_or(text.len(), |at| start + at);
    let whole = &text[start..end];
    let mut out = text[..start].to_owned();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(every) {
            out.push(mark);
        }
        out.push(digit);
    }
    out + &text[end..]
}

/// Python's `int(float)`.
///
/// # Errors
/// It is not finite, or too large.
pub fn truncated(number: f64) -> Res<i128> {
    if number.is_nan() {
        return Err(Fault::new("ValueError", "cannot convert float NaN to integer"));
    }
    if number.is_infinite() || number.abs() >= 1.7e38 {
        return Err(Fault::new("OverflowError", "cannot convert float infinity to integer"));
    }
    Ok(number.trunc() as i128)
}

/// Python's `int(text, base)`; base 0 reads the prefix.
pub fn read_int(text: &str, base: u32) -> Option<i128> {
    let text = text.trim();
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let prefixed = [("0x", 16), ("0o", 8), ("0b", 2)].into_iter().find_map(|(prefix, of)| {
        lower.strip_prefix(prefix).filter(|_| base == 0 || base == of).map(|rest| (rest.to_owned(), of))
    });
    let (digits, base) = prefixed.unwrap_or((lower, if base == 0 { 10 } else { base }));
    let is_spaced = digits.contains("__") || digits.starts_with('_') || digits.ends_with('_');
    if is_spaced || digits.is_empty() || digits.starts_with(['+', '-']) {
        return None;
    }
    let size = i128::from_str_radix(&digits.replace('_', ""), base).ok()?;
    Some(if is_negative { -size } else { size })
}

/// Python's `float(text)`.
pub fn read_float(text: &str) -> Option<f64> {
    let text = text.trim();
    let is_spaced = text.contains("__") || text.starts_with('_') || text.ends_with('_');
    let is_known = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte));
    if is_spaced || !is_known {
        return None;
    }
    text.replace('_', "").parse().ok()
}

/// Rounds half to even at a decimal place, as Python's `round` does.
pub fn rounded(number: f64, digits: i32) -> f64 {
    if !number.is_finite() {
        return number;
    }
    if digits < 0 {
        let scale = 10_f64.powi(-digits);
        if scale.is_infinite() {
            return 0.0_f64.copysign(number);
        }
        return (number / scale).round_ties_even() * scale;
    }
    // The decimal digits of the very number decide, not those of a product that is rounded itself.
    let digits = usize::try_from(digits).unwrap_or(0).min(340);
    format!("{number:.digits$}").parse().unwrap_or(number)
}
