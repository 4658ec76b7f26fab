//! Dates by the patterns of CLDR, in English, as `macros.ds_format_locale` takes them.

use jiff::civil::DateTime;

use crate::template::macros::parts_of;
use crate::template::strftime::{quarter, strftime};

/// `EEEE, d MMMM yyyy` and the like; text between single quotes stays as it is.
pub(super) fn format(at: DateTime, pattern: &str) -> String {
    let pattern = match pattern {
        "short" => "M/d/yy, h:mm a",
        "medium" => "MMM d, y, h:mm:ss a",
        "long" => "MMMM d, y 'at' h:mm:ss a",
        "full" => "EEEE, MMMM d, y 'at' h:mm:ss a",
        other => other,
    };
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            let inside = &rest[1..];
            let end = inside.find('\'').unwrap_or(inside.len());
            out.push_str(if end == 0 { "'" } else { &inside[..end] });
            rest = inside.get(end + 1..).unwrap_or_default();
            continue;
        }
        let run = rest.len() - rest.trim_start_matches(first).len();
        let count = run / first.len_utf8();
        match field(at, first, count) {
            Some(text) => out.push_str(&text),
            None => out.push_str(&rest[..run]),
        }
        rest = &rest[run..];
    }
    out
}

fn field(at: DateTime, letter: char, count: usize) -> Option<String> {
    let code = |format: &str| strftime(parts_of(at), format);
    let number = |number: i64| format!("{number:0count$}");
    Some(match (letter, count) {
        ('y' | 'Y' | 'u', 2) => code("%y"),
        ('y' | 'Y' | 'u', _) => number(at.year().into()),
        ('Q' | 'q', 1 | 2) => number(quarter(at.date()).into()),
        ('Q' | 'q', _) => format!("Q{}", quarter(at.date())),
        ('M' | 'L', 1 | 2) => number(at.month().into()),
        ('M' | 'L', 3) => code("%b"),
        ('M' | 'L', 4) => code("%B"),
        ('M' | 'L', _) => code("%b")[..1].to_owned(),
        ('d', _) => number(at.day().into()),
        ('D', _) => number(at.date().day_of_year().into()),
        ('w', _) => number(at.date().iso_week_date().week().into()),
        ('E' | 'c' | 'e', 4) => code("%A"),
        ('E', 5) => code("%a")[..1].to_owned(),
        ('E' | 'c' | 'e', 3) | ('E', _) => code("%a"),
        ('a', _) => code("%p"),
        ('H', _) => number(at.hour().into()),
        ('h', _) => number((i64::from(at.hour()) + 11) % 12 + 1),
        ('K', _) => number(i64::from(at.hour()) % 12),
        ('k', _) => number(if at.hour() == 0 { 24 } else { at.hour().into() }),
        ('m', _) => number(at.minute().into()),
        ('s', _) => number(at.second().into()),
        ('S', _) => format!("{:06}", at.subsec_nanosecond() / 1000).chars().take(count).collect(),
        ('z' | 'Z' | 'v' | 'V', _) => "UTC".to_owned(),
        _ => return None,
    })
}
