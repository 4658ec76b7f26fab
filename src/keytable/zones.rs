//! Time zones by name, and the names that a user may have meant.

use std::sync::LazyLock;

use jiff::tz::{TimeZone, TimeZoneDatabase};

/// Longer texts are compared with no name.
const MAX_TYPED: usize = 64;
const MAX_SHOWN: usize = 3;

/// The table of the binary.
static BUNDLED: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The zone of this name: the host's, or the binary's where the host has none. Hosts without a table are not alone in that: some
/// leave the older names, such as `US/Eastern`, to a package of their own.
///
/// # Errors
/// Neither knows the name.
pub fn zone(name: &str) -> Result<TimeZone, jiff::Error> {
    TimeZone::get(name).or_else(|unknown| BUNDLED.get(name).map_err(|_| unknown))
}

/// What to write instead of `typed`, which names no time zone: the nearest names of the host's table.
pub fn zone_help(typed: &str) -> String {
    const ANY: &str = "use a name of the IANA time zone database, such as `UTC` or `Europe/London`";
    if is_offset(typed) {
        let help = "an offset knows no summer time: name a place, such as `Europe/London`";
        return format!("{help} (`Etc/GMT-2` is two hours ahead of UTC all year)");
    }
    if typed.is_empty() || typed.len() > MAX_TYPED {
        return ANY.to_owned();
    }
    let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    let near = nearest(typed, names.iter().map(String::as_str).filter(|name| is_meant(name)));
    let shown = |near: &[Near<'_>]| near.iter().map(|near| format!("`{}`", near.name)).collect::<Vec<_>>().join(", ");
    match near.iter().take_while(|other| !other.is_far && other.distance == near[0].distance).count() {
        0 if near.is_empty() => ANY.to_owned(),
        0 => format!("the nearest names are {}", shown(&near)),
        1 => format!("did you mean {}?", shown(&near[..1])),
        count => format!("did you mean one of {}?", shown(&near[..count])),
    }
}

/// `+02:00`, `UTC+2`, `gmt-5`
fn is_offset(typed: &str) -> bool {
    let upper = typed.to_ascii_uppercase();
    let bare = upper.strip_prefix("UTC").or_else(|| upper.strip_prefix("GMT")).unwrap_or(&upper).trim_start();
    bare.strip_prefix(['+', '-']).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Whether a name of the table is one that people choose: the host's folder holds more than places.
fn is_meant(name: &str) -> bool {
    let is_alias = ["posix/", "right/", "Etc/", "SystemV/"].iter().any(|prefix| name.starts_with(prefix));
    !is_alias && !["posixrules", "localtime", "Factory"].contains(&name)
}

/// A name, and how near it comes; the order is the one in which names are shown.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Near<'n> {
    /// Too far to be what was meant.
    is_far: bool,
    /// In letters; 0 if only their case, blanks or what stands before the last `/` differ.
    distance: usize,
    name: &'n str,
}

fn nearest<'n>(typed: &str, names: impl Iterator<Item = &'n str>) -> Vec<Near<'n>> {
    let normal = |text: &str| text.to_lowercase().replace([' ', '-'], "_");
    let city = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
    let limit = |text: &str| (text.len() / 3).min(4);
    let typed = normal(typed);
    let typed_city = city(&typed);
    // Who writes `europe-london` means a zone by its last word.
    let last_word = typed_city.rsplit('_').next().unwrap_or_default();
    let near = |name: &'n str| {
        let written = normal(name);
        let named = city(&written);
        let whole = strsim::damerau_levenshtein(&typed, &written);
        let by_city = strsim::damerau_levenshtein(&typed_city, &named);
        let distance = if last_word == named { 0 } else { whole.min(by_city) };
        let is_near = distance == 0 || whole <= limit(&typed) || by_city <= limit(&typed_city);
        Near { is_far: !is_near, distance, name }
    };
    let mut all: Vec<Near<'_>> = names.map(near).collect();
    all.sort_unstable();
    all.truncate(MAX_SHOWN);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_are_offered() {
        let cases = [
            ("Berlin", "did you mean `Europe/Berlin`?"),
            ("Europe/Lodon", "did you mean `Europe/London`?"),
            ("europe-london", "did you mean `Europe/London`?"),
            ("America/New York", "did you mean `America/New_York`?"),
            ("Europe/Tokyo", "did you mean `Asia/Tokyo`?"),
            ("Asia/Calcuta", "did you mean `Asia/Calcutta`?"),
        ];
        for (typed, help) in cases {
            assert!(zone(typed).is_err(), "{typed}");
            assert_eq!(zone_help(typed), help, "{typed}");
        }
        assert!(zone_help("Mars/Olympus").starts_with("the nearest names are `"), "{}", zone_help("Mars/Olympus"));
        assert_eq!(zone_help("Mars/Olympus").matches('`').count(), 6);
        for offset in ["+02:00", "UTC+2", "gmt-5", "UTC +1"] {
            assert!(zone_help(offset).starts_with("an offset knows no summer time"), "{offset}");
        }
        for typed in ["", &"x".repeat(1_000)] {
            assert!(zone_help(typed).starts_with("use a name of the IANA time zone database"), "{typed}");
        }
    }

    #[test]
    fn zones_are_known_with_and_without_the_hosts_table() {
        let bundled = TimeZoneDatabase::bundled();
        assert!(!bundled.is_definitively_empty(), "the binary carries a table of its own");
        let instant: jiff::Timestamp = "2026-07-01T00:00:00Z".parse().unwrap();
        for (name, offset) in [("Europe/London", 1), ("America/New_York", -4), ("Asia/Tokyo", 9), ("UTC", 0)] {
            let zones = [bundled.get(name).unwrap(), TimeZone::get(name).unwrap()];
            for zone in zones {
                assert_eq!(zone.to_offset(instant), jiff::tz::offset(offset), "{name}");
            }
        }
        let host = std::path::Path::new("/usr/share/zoneinfo");
        match TimeZoneDatabase::from_dir(host) {
            Ok(host) if !host.is_definitively_empty() => {
                assert_eq!(host.get("Europe/London").unwrap().to_offset(instant), jiff::tz::offset(1));
            }
            _ => eprintln!("SKIPPED: this host has no table of time zones"),
        }
        assert!(bundled.get("Mars/Olympus").is_err() && zone("Mars/Olympus").is_err());
    }
}
