//! The formats that Airflow checks: those of Python's jsonschema without its optional helpers (SEMANTICS 17).

use core::net::{Ipv4Addr, Ipv6Addr};

use jiff::civil::Date;

use super::pattern;

/// What text of a format looks like, as it stands after "must be"; null for a format that is not checked.
pub fn described(format: &str) -> Option<&'static str> {
    Some(match format {
        "date" => "a date such as 2026-11-21",
        "time" => "a time of day such as 09:30:00",
        "email" | "idn-email" => "an address with an `@`",
        "ipv4" => "an IPv4 address",
        "ipv6" => "an IPv6 address",
        "regex" => "a regular expression",
        "uuid" => "a UUID",
        "idn-hostname" => "the name of a host",
        _ => return None,
    })
}

/// Whether text has a format. One that is not checked, such as `date-time` or `uri`, any text has.
pub fn fits(format: &str, text: &str) -> bool {
    match format {
        "date" => is_date(text),
        "time" => is_time(text),
        "email" | "idn-email" => text.contains('@'),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "regex" => pattern::is_regex(text),
        "uuid" => is_uuid(text),
        "idn-hostname" => is_host(text),
        _ => true,
    }
}

/// `datetime.date.fromisoformat`, of ten characters.
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let has_shape = bytes.len() == 10
        && bytes
            .iter()
            .enumerate()
            .all(|(at, byte)| if matches!(at, 4 | 7) { *byte == b'-' } else { byte.is_ascii_digit() });
    has_shape && !text.starts_with("0000") && text.parse::<Date>().is_ok()
}

/// `datetime.strptime(text, "%H:%M:%S")`: numbers of one or two digits.
fn is_time(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let is_below = |part: &str, limit: u8| {
        matches!(part.len(), 1 | 2)
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && part.parse().is_ok_and(|number: u8| number < limit)
    };
    matches!(parts[..], [hour, minute, second] if is_below(hour, 24) && is_below(minute, 60) && is_below(second, 60))
}

/// 32 hexadecimal digits with hyphens at four places.
fn is_uuid(text: &str) -> bool {
    let has_hyphens = [8, 13, 18, 23].iter().all(|&at| text.as_bytes().get(at) == Some(&b'-'));
    let digits = text.bytes().filter(|byte| *byte != b'-');
    has_hyphens && digits.clone().count() == 32 && digits.clone().all(|byte| byte.is_ascii_hexdigit())
}

/// Labels as IDNA takes them: letters and digits of any script, and hyphens inside.
fn is_host(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let is_encoded = label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--"));
        let has_hyphens = label.get(2..4) == Some("--") && !is_encoded;
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && !has_hyphens
            && label
                .chars()
                .all(|c| c == '-' || if c.is_ascii() { c.is_ascii_alphanumeric() } else { c.is_alphanumeric() })
    };
    text.len() <= 253 && text.split(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}']).all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_checked_as_airflow_does() {
        let cases = [
            ("date", "2024-02-29", true),
            ("date", "2023-02-29", false),
            ("date", "0000-01-01", false),
            ("date", "20240229", false),
            ("date", "2024-2-29", false),
            ("date", "2024-02-29T00:00:00", false),
            ("time", "10:00:00", true),
            ("time", "1:2:3", true),
            ("time", "10:00:60", false),
            ("time", "24:00:00", false),
            ("time", "10:00", false),
            ("time", "10:00:00Z", false),
            ("email", "a@b", true),
            ("email", "@", true),
            ("email", "ab", false),
            ("ipv4", "1.2.3.4", true),
            ("ipv4", "1.2.3.04", false),
            ("ipv4", "1.2.3", false),
            ("ipv6", "::1", true),
            ("ipv6", "fe80::1%eth0", false),
            ("uuid", "2eb8aa08-aa98-11ea-b4aa-73b441d16380", true),
            ("uuid", "2eb8aa08aa9811eab4aa73b441d16380", false),
            ("uuid", "2eb8aa08-aa98-11ea-b4aa-73b441d1638g", false),
            ("idn-hostname", "bücher.example", true),
            ("idn-hostname", "-a.example", false),
            ("idn-hostname", "a b", false),
            ("regex", "a|b", true),
            ("regex", "(", false),
            ("date-time", "x", true),
            ("uri", "x", true),
            ("multiline", "x", true),
        ];
        for (format, text, expected) in cases {
            assert_eq!(fits(format, text), expected, "{text:?} as {format}");
        }
    }
}
