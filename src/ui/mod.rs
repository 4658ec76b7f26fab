//! The page at `/`: what `/status` tells, for a person. Knows the answer's shape and nothing of where it comes from.

use minijinja::value::Serde;
use minijinja::{Environment, Error, Value, context};
use serde::Serialize;

/// Nothing but what the page itself carries: no other host is ever asked. It refreshes by a meta tag, without scripts.
pub const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Makes the page of what `/status` answers. Every value is escaped: the template's name ends in `.html`.
///
/// # Errors
/// The template is broken, which a test would have shown.
pub fn render(status: &impl Serialize) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.add_filter("bytes", |bytes: Option<f64>| bytes.map_or_else(|| "–".to_owned(), human_bytes));
    environment.add_filter("instant", |text: Option<String>| text.map_or_else(|| "–".to_owned(), short_instant));
    environment.add_template("status.html", include_str!("status.html"))?;
    environment
        .get_template("status.html")?
        .render(context! { s => Value::from(Serde(status)), css => include_str!("style.css") })
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
        assert_eq!(human_bytes(512.0), "512 B");
        assert_eq!(human_bytes(3.0 * 1024.0 * 1024.0 * 1024.0), "3.0 GiB");
        assert_eq!(short_instant("2026-11-21T00:50:30.123456Z".to_owned()), "2026-11-21 00:50:30");
    }
}
