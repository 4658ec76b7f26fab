//! The page at `/`: what `/status` tells, for a person. Knows the answer's shape and nothing of where it comes from.

use std::sync::LazyLock;

use minijinja::value::Serde;
use minijinja::{Environment, Error, Value, context};
use serde::Serialize;

const TEMPLATE: &str = "status.html";

/// Made once: the template is part of the binary.
static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.add_filter("bytes", |bytes: Option<f64>| bytes.map_or_else(|| "–".to_owned(), human_bytes));
    environment.add_filter("instant", |text: Option<String>| text.map_or_else(|| "–".to_owned(), short_instant));
    environment.add_filter("span", human_span);
    environment.add_filter("lag", |seconds: Option<f64>| seconds.map_or_else(|| "–".to_owned(), human_lag));
    environment.add_template(TEMPLATE, include_str!("status.html")).expect("the template is tested");
    environment
});

/// Makes the page. Every value is escaped: the template's name ends in `.html`. `nonce` is a text that no page before had;
/// the policy lets only scripts of that mark run.
///
/// # Errors
/// The template is broken, which a test would have shown.
pub fn render(status: &impl Serialize, nonce: &str) -> Result<String, Error> {
    ENVIRONMENT.get_template(TEMPLATE)?.render(context! {
        s => Value::from(Serde(status)),
        css => include_str!("style.css"),
        script => include_str!("refresh.js"),
        nonce,
    })
}

/// Nothing but what the page itself carries, and itself anew: no other host is ever asked.
pub fn content_security_policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// `93784.2` seconds as `1d 2h`; the two largest units.
fn human_span(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// As a span, with a fraction where a second is much.
fn human_lag(seconds: f64) -> String {
    match seconds {
        ..1.0 => format!("{}ms", (seconds * 1_000.0) as u64),
        ..60.0 => format!("{:.1}s", (seconds * 10.0).floor() / 10.0),
        _ => human_span(seconds),
    }
}

fn human_bytes(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return format!("{value:.0} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

/// `2026-11-21T00:50:30.123456Z` as `2026-11-21 00:50:30`; the page says that all times are UTC.
fn short_instant(text: String) -> String {
    text.split('.').next().unwrap_or(&text).replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_instants_are_short() {
        assert_eq!(human_span(59.9), "59s");
        assert_eq!(human_span(3_700.0), "1h 1m");
        assert_eq!(human_span(93_784.0), "1d 2h");
        assert_eq!([0.0123, 3.27, 3_700.0].map(human_lag), ["12ms", "3.2s", "1h 1m"]);
        assert_eq!(human_bytes(512.0), "512 B");
        assert_eq!(human_bytes(3.0 * 1024.0 * 1024.0 * 1024.0), "3.0 GiB");
        assert_eq!(short_instant("2026-11-21T00:50:30.123456Z".to_owned()), "2026-11-21 00:50:30");
    }
}
